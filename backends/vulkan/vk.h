/* Owns what the files of the Vulkan backend share: the device, its buffers, and who does what. Nothing here is seen
 * outside of this folder. */
#ifndef KNIT_VK_H
#define KNIT_VK_H

#include "../backend.h"
#include "vk_kernel.h"
#include "vk_load.h" /* the API's types, and knit_vk_api: the functions, loaded at run time */
#include "vk_probe.h"
#include "vulkan.h"

#include <pthread.h>
#include <stdatomic.h>

/* What plans have done so far on this device, for tests and the bench: nothing of it may grow per token but submits and
 * the two times, which are of the calling thread's clock: in knit__vk_plan_submit, and asleep until the device was done. */
typedef struct knit_vk_counters {
	uint64_t submits, records, descriptor_writes, parameter_writes, allocations, pipelines, barriers;
	uint64_t submit_ns, wait_ns;
} knit_vk_counters;

struct knit_device {
	knit_allocator a;
	knit_vk_api vk; /* this device's functions */
	knit_vk_instance host; /* what validation's messages come through */
	knit_vk_probe probe;   /* all that is known of the physical device */
	VkInstance instance;
	VkPhysicalDevice physical;
	VkDevice device;
	VkQueue queue;
	uint32_t queue_family;
	VkPhysicalDeviceProperties properties;
	VkPhysicalDeviceMemoryProperties memory;
	knit_vk_caps kernel_caps;
	knit_caps caps;
	bool timing;         /* KNIT_TIMES=1: plans record timestamps */
	bool update_after_bind; /* descriptors of recorded commands may be exchanged */
	uint32_t pipeline_subgroup; /* the subgroup size that a pipeline requires where its dispatch asks for none; 0: none */
	pthread_mutex_t queue_lock; /* of the queue and the staging buffer */
	atomic_bool lost;    /* VK_ERROR_DEVICE_LOST was seen: everything on this device gives DEVICE from then on */
	struct knit_vk_heap *heap;           /* vk_heap.c */
	struct knit_vk_staging *staging;     /* vk_staging.c */
	struct knit_vk_pipelines *pipelines; /* vk_pipeline.c */
	knit_vk_counters counters;           /* see knit__vk_count */
};

/* Where memory lies: the device's own; the host's, which the device can read and the host reads fast (results, staging);
 * the device's that the host can write and reads slowly, where there is such memory, else the host's (parameters). */
typedef enum knit_vk_memory_kind { KNIT_VK_LOCAL = 1, KNIT_VK_HOST, KNIT_VK_SHARED } knit_vk_memory_kind;

/* A range of device memory (vk_heap.h). */
typedef struct knit_vk_slice {
	VkDeviceMemory memory;
	uint64_t at, bytes;
	void *mapped; /* its first byte; NULL: the host cannot reach it */
	bool cached;  /* the host reads it as fast as other memory */
	struct knit_vk_block *block;
} knit_vk_slice;

struct knit_buffer {
	VkBuffer buffer;
	uint64_t bytes;
	uint64_t made_bytes; /* of the VkBuffer: bytes, up to a multiple of 16, so that 4-byte words may be read at the end */
	void *mapped; /* host-visible memory stays mapped and is coherent; NULL: through the staging buffer */
	bool coherent, imported; /* coherent: wherever it is mapped */
	knit_buffer_use use; /* 0: the backend's own */
	knit_vk_slice slice;
};

/* vk_device.c: opening and closing. The status for a VkResult: MEMORY; DEVICE (of a lost device `lost` is set); OK for
 * VK_SUCCESS. The text names the call. */
knit_status knit__vk_status(knit_device *dev, VkResult result, const char *what, knit_diag *d);
knit_status knit__vk_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count);
knit_status knit__vk_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *d);
void knit__vk_close(knit_device *dev);
/* vk_facts.c */
knit_status knit__vk_facts(uint32_t index, const knit_context_desc *host, knit_device_fact *out, size_t cap,
                           size_t *count);

/* vk_memory.c: buffers. MEMORY with what was asked and what there is. Zeroed only where they come from buffer_create.
 * Every buffer can be copied from and to besides `usage`. */
knit_status knit__vk_buffer_make(knit_device *dev, knit_vk_memory_kind kind, VkBufferUsageFlags usage, uint64_t bytes,
                                 knit_buffer **out, knit_diag *d);
void knit__vk_buffer_free(knit_device *dev, knit_buffer *b);

/* vk_staging.c: copies between the host and memory that it cannot reach. They wait until they are done. */
knit_status knit__vk_staging_make(knit_device *dev, knit_diag *d);
void knit__vk_staging_free(knit_device *dev);
knit_status knit__vk_staging_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes);
knit_status knit__vk_staging_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes);
knit_status knit__vk_staging_clear(knit_device *dev, knit_buffer *buf);

/* The functions of the backend table that live in vk_memory.c. */
knit_status knit__vk_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out);
knit_status knit__vk_buffer_import(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out);
knit_status knit__vk_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes);
knit_status knit__vk_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes);
knit_status knit__vk_buffer_clear(knit_device *dev, knit_buffer *buf);

/* vk_pipeline.c: pipelines made on first use, by shader, constants and subgroup size; shared by all plans of a device.
 * The driver's cache is kept in a file (KNIT_CACHE, else the user's cache folder); a lost or corrupt one is ignored and
 * written anew. */
typedef struct knit_vk_pipeline {
	VkPipeline pipeline;
	VkPipelineLayout layout;
	VkDescriptorSetLayout set_layout;
	uint8_t binding_count; /* storage buffers; the uniform block at binding 0 is not counted */
} knit_vk_pipeline;
knit_status knit__vk_pipelines_make(knit_device *dev, knit_diag *d);
void knit__vk_pipelines_free(knit_device *dev);
knit_status knit__vk_pipeline(knit_device *dev, const knit_vk_dispatch *want, const knit_vk_pipeline **out, knit_diag *d);

/* vk_select.c */
knit_kernel knit__vk_select(const knit_device *dev, const knit_node_view *node);
uint64_t knit__vk_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node);

/* vk_plan.c */
knit_status knit__vk_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                 knit_diag *d);
void knit__vk_plan_destroy(knit_device *dev, knit_plan *plan);
knit_status knit__vk_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf);
knit_status knit__vk_plan_submit(knit_plan *plan, const int64_t *symbols);
knit_status knit__vk_plan_wait(knit_plan *plan, uint64_t timeout_ns);
size_t knit__vk_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap);

const knit_vk_counters *knit__vk_counters(const knit_device *dev);
/* Plans of several sessions count at once. */
static inline void knit__vk_count(uint64_t *counter, uint64_t by) { __atomic_fetch_add(counter, by, __ATOMIC_RELAXED); }

#endif
