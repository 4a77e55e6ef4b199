/* Owns the table that a backend fills in. A backend gets whole scheduled programs, never single ops. */
#ifndef KNIT_BACKEND_H
#define KNIT_BACKEND_H

#include "../graph/schedule.h"
#include "peaks.h"

#define KNIT_BACKEND_ABI 8

typedef struct knit_device knit_device; /* each backend defines its own */
typedef struct knit_buffer knit_buffer;
typedef struct knit_plan knit_plan;

typedef struct knit_caps {
	uint64_t max_buffer, max_binding_range;
	uint32_t buffer_align; /* of tensors inside a buffer */
	uint32_t import_align; /* of host pointers for buffer_import; 0: cannot import */
	bool unified_memory;   /* buffers are host memory: nothing is uploaded */
	bool timestamps;
} knit_caps;

typedef struct knit_step_time { uint32_t step; uint64_t ns; } knit_step_time;

typedef struct knit_backend {
	uint32_t abi;
	const char *name;
	/* Devices of this backend. Opens nothing; a missing driver is an unavailable device with the reason in detail. */
	knit_status (*enumerate)(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count);
	knit_status (*open)(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag);
	void (*close)(knit_device *dev);
	const knit_caps *(*caps)(const knit_device *dev);

	/* Pure: the only support test there is. */
	knit_kernel (*select)(const knit_device *dev, const knit_node_view *node);
	uint64_t (*scratch)(const knit_device *dev, knit_kernel kernel, const knit_node_view *node);

	/* Layouts of weights other than the file's: all three or none. The first two as in knit_target. */
	uint8_t (*weight_layout)(const knit_device *dev, const knit_shape *weight, const knit_weight_use *uses,
	                         uint32_t count);
	uint64_t (*packed_bytes)(const knit_device *dev, uint8_t layout, const knit_shape *weight);
	/* Fills a buffer of packed_bytes from the weight's plain bytes. `done` (may be NULL) is told, from any thread, which of these
	 * bytes have been read, so that they need not stay in memory until all are. */
	knit_status (*pack)(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
	                    void (*done)(const void *data, uint64_t bytes), knit_buffer *out);

	knit_status (*buffer_create)(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out); /* zeroed */
	/* Uses host memory in place; it must outlive the buffer. Only where caps.import_align != 0 and host fits it. */
	knit_status (*buffer_import)(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out);
	void (*buffer_destroy)(knit_device *dev, knit_buffer *buf);
	knit_status (*buffer_write)(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes);
	knit_status (*buffer_read)(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes);
	knit_status (*buffer_clear)(knit_device *dev, knit_buffer *buf);

	/* Builds everything that runs will need; bufs has one entry per s->buffers. After it, submit allocates nothing. */
	knit_status (*plan_create)(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
	                           knit_diag *diag);
	void (*plan_destroy)(knit_device *dev, knit_plan *plan);
	/* From the next submit on, buffer `buffer` of the schedule, a weight, is buf, which is as large and of the same layout.
	 * Exchanges pointers: allocates nothing, copies nothing, looks at no step that does not read it. Not while the plan
	 * runs. */
	knit_status (*plan_rebind)(knit_plan *plan, uint32_t buffer, knit_buffer *buf);
	/* symbols: one value per symbol of s->graph->exprs. */
	knit_status (*plan_submit)(knit_plan *plan, const int64_t *symbols);
	knit_status (*plan_wait)(knit_plan *plan, uint64_t timeout_ns);
	/* Times of the last run, 0 where timing is off. */
	size_t (*plan_times)(const knit_plan *plan, knit_step_time *out, size_t cap);

	/* The rest may be NULL. */

	/* Sees all schedules of a program, one per bucket, before any plan of them is made, and may write what it decides into
	 * their steps' kernels. */
	knit_status (*settle)(knit_device *dev, knit_schedule *const *s, uint32_t count, knit_diag *diag);
	/* Bytes of the memory that buffers come from: what may still be taken, and all there are. */
	void (*room)(knit_device *dev, uint64_t *free_bytes, uint64_t *total_bytes);
	/* Whether the device is gone for good: everything on it gives DEVICE, and opening it anew may help. */
	bool (*lost)(const knit_device *dev);
	/* What there is to know of a device, open or not; one that is not available has none. */
	knit_status (*facts)(uint32_t index, const knit_context_desc *host, knit_device_fact *out, size_t cap, size_t *count);
	/* knit_device_tune for device `index`, which is opened for it and closed. desc is not NULL, *out is zeroed. NULL: there
	 * is nothing to choose. */
	knit_status (*tune)(uint32_t index, const knit_context_desc *host, const knit_tune_desc *desc, knit_tune_result *out,
	                    knit_diag *diag);
	/* knit__device_peaks for device `index`, which is opened for it and closed. */
	knit_status (*peaks)(uint32_t index, const knit_context_desc *host, knit_device_peaks *out, knit_diag *diag);
} knit_backend;

/* NULL past the end; the order is fixed at build and "best" is the first available. */
const knit_backend *knit__backend_at(size_t index);

#endif
