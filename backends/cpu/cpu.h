/* Owns what the files of the CPU backend share: the device and its buffers. */
#ifndef KNIT_CPU_H
#define KNIT_CPU_H

#include "../backend.h"
#include "cpu_kernel.h"
#include "cpu_pool.h"

#include <pthread.h>

typedef struct knit_cpu_chunk knit_cpu_chunk;

struct knit_device {
	knit_allocator a;
	bool default_allocator; /* then large buffers come from the system as untouched zero pages */
	bool timing;
	knit_cpu_isa isa;
	knit_caps caps;
	knit_pool *pool;
	uint32_t threads;
	double split_min_ns; /* steps estimated shorter run on the calling thread alone */
	pthread_mutex_t memory_lock;
	knit_cpu_chunk *chunk; /* of which the next weight gets its part; may be NULL */
};

struct knit_buffer {
	char *data;
	uint64_t bytes, mapped_bytes; /* mapped_bytes: of its own mapping, 0 for other memory */
	knit_cpu_chunk *chunk;        /* whose part it is; NULL: none's */
	bool imported;
};

/* cpu_memory.c: zeroed memory for buf->bytes; false where there is none. `give` takes it back. */
bool knit__cpu_memory_take(knit_device *dev, knit_buffer_use use, knit_buffer *buf);
void knit__cpu_memory_give(knit_device *dev, knit_buffer *buf);

extern const knit_backend knit__cpu_backend;

/* cpu_isa.c */
const char *knit__cpu_isa_name(knit_cpu_isa isa);
/* What the processor and the operating system offer. */
knit_cpu_isa knit__cpu_isa_found(void);
/* The same, or what KNIT_CPU_ISA lowers it to. */
knit_status knit__cpu_isa_choose(knit_cpu_isa *out, knit_diag *d);
/* All levels up to that, plain first; how many. */
size_t knit__cpu_isa_levels(const knit_cpu_isa **out);

/* cpu_select.c */
knit_kernel knit__cpu_select(const knit_device *dev, const knit_node_view *node);
uint64_t knit__cpu_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node);
/* The same over any table and level, for tests. */
knit_kernel knit__cpu_select_from(const knit_cpu_kernel *const *table, uint32_t count, knit_cpu_isa isa,
                                  const knit_node_view *node);

/* cpu_pack.c */
uint8_t knit__cpu_weight_layout(const knit_device *dev, const knit_shape *weight, const knit_weight_use *uses,
                                uint32_t count);
uint64_t knit__cpu_packed_bytes(const knit_device *dev, uint8_t layout, const knit_shape *weight);
knit_status knit__cpu_pack(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
                           void (*done)(const void *data, uint64_t bytes), knit_buffer *out);

/* cpu_plan.c */
knit_status knit__cpu_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                  knit_diag *d);
void knit__cpu_plan_destroy(knit_device *dev, knit_plan *plan);
knit_status knit__cpu_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf);
knit_status knit__cpu_plan_submit(knit_plan *plan, const int64_t *symbols);
knit_status knit__cpu_plan_wait(knit_plan *plan, uint64_t timeout_ns);
size_t knit__cpu_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap);

#endif
