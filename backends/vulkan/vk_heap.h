/* Owns device memory: which type serves which use, blocks that many small buffers share, what is left. Knows no
 * buffer. */
#ifndef KNIT_VK_HEAP_H
#define KNIT_VK_HEAP_H

#include "vk.h"

knit_status knit__vk_heap_make(knit_device *dev, knit_diag *d);
void knit__vk_heap_free(knit_device *dev);
/* MEMORY with what was asked for and what there is. */
knit_status knit__vk_heap_take(knit_device *dev, knit_vk_memory_kind kind, const VkMemoryRequirements *need,
                               knit_vk_slice *out, knit_diag *d);
void knit__vk_heap_give(knit_device *dev, knit_vk_slice *slice);
/* Allocations of device memory that are there now. */
uint32_t knit__vk_heap_allocations(const knit_device *dev);
/* Bytes of the heap that LOCAL memory comes from: what this process may still take, and all there are. */
void knit__vk_heap_room(knit_device *dev, uint64_t *free_bytes, uint64_t *total_bytes);

#endif
