/* Owns what is known of a physical device before it is opened: whether it can be used and why not, limits, features,
 * memory. Makes nothing that has to be freed. */
#ifndef KNIT_VK_PROBE_H
#define KNIT_VK_PROBE_H

#include "vk_instance.h"
#include "vk_kernel.h"

#define KNIT_VK_MAX_PHYSICAL 16

typedef struct knit_vk_probe {
	VkPhysicalDevice physical;
	VkPhysicalDeviceProperties properties;
	VkPhysicalDeviceDriverProperties driver;
	uint8_t uuid[VK_UUID_SIZE]; /* the device's, the same in all processes */
	VkPhysicalDeviceMemoryProperties memory;
	/* Bytes this process may still use of each heap, and uses: the driver's word (VK_EXT_memory_budget), else the size. */
	VkDeviceSize heap_budget[VK_MAX_MEMORY_HEAPS], heap_usage[VK_MAX_MEMORY_HEAPS];
	knit_vk_caps caps;       /* lowered by KNIT_VK_LIMITS */
	knit_vk_matrix matrix;   /* cooperative matrices of f16 with f32 sums */
	uint32_t offered;        /* features as the device has them: KNIT_VK_* */
	uint32_t pipeline_subgroup; /* what every pipeline requires that does not say; 0: nothing */
	uint32_t queue_family, timestamp_bits;
	uint64_t import_align;   /* of host pointers; 0: cannot import */
	uint64_t memory_limit;   /* bytes of the device's own memory that may be taken; 0: as the driver says */
	uint32_t allocation_limit; /* allocations of memory at a time */
	bool map_local;          /* the device's own memory is mapped where it can be */
	bool memory_budget, cooperative_matrix, integer_dot_extension, subgroup_control, full_subgroups, update_after_bind;
	bool int16, memory_model, stores_in_all_stages;
	char reason[160];        /* why it cannot be used; empty: it can */
} knit_vk_probe;

/* Usable devices first, among them discrete before integrated before software ones, otherwise in the driver's order.
 * At most KNIT_VK_MAX_PHYSICAL. */
knit_status knit__vk_probe_all(const knit_vk_api *vk, VkInstance instance, knit_vk_probe *out, uint32_t *count,
                               knit_diag *d);
/* Reads heap_budget and heap_usage anew. */
void knit__vk_probe_budget(const knit_vk_api *vk, knit_vk_probe *probe);

const char *knit__vk_class_name(knit_vk_class device_class);

#endif
