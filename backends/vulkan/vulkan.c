/* Owns the Vulkan backend's table. */
#include "vk_heap.h"
#include "vk_peaks.h"
#include "vk_tune.h"

static bool vulkan_lost(const knit_device *dev) { return atomic_load(&dev->lost); }

static const knit_caps *vulkan_caps(const knit_device *dev) { return &dev->caps; }

const knit_backend knit__vulkan_backend = {
	.abi = KNIT_BACKEND_ABI,
	.name = "vulkan",
	.enumerate = knit__vk_enumerate,
	.open = knit__vk_open,
	.close = knit__vk_close,
	.caps = vulkan_caps,
	.select = knit__vk_select,
	.scratch = knit__vk_scratch,
	.buffer_create = knit__vk_buffer_create,
	.buffer_import = knit__vk_buffer_import,
	.buffer_destroy = knit__vk_buffer_free,
	.buffer_write = knit__vk_buffer_write,
	.buffer_read = knit__vk_buffer_read,
	.buffer_clear = knit__vk_buffer_clear,
	.plan_create = knit__vk_plan_create,
	.plan_destroy = knit__vk_plan_destroy,
	.plan_rebind = knit__vk_plan_rebind,
	.plan_submit = knit__vk_plan_submit,
	.plan_wait = knit__vk_plan_wait,
	.plan_times = knit__vk_plan_times,
	.room = knit__vk_heap_room,
	.lost = vulkan_lost,
	.facts = knit__vk_facts,
	.tune = knit__vk_tune,
	.peaks = knit__vk_peaks,
};
