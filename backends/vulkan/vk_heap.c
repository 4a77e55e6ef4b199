/* Owns device memory. Small buffers share blocks, since drivers allow few allocations (often 4,096); large ones get
 * memory of their own. Memory that the host can reach stays mapped. */
#include "vk_heap.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIRST_BLOCK_BYTES (UINT64_C(16) << 20)
#define BLOCK_BYTES (UINT64_C(64) << 20)
#define SHARED_MAX_BYTES (UINT64_C(8) << 20) /* larger ones get memory of their own */

typedef struct range { uint64_t at, bytes; } range;

typedef struct knit_vk_block {
	VkDeviceMemory memory;
	uint64_t bytes;
	uint32_t type, live; /* live: slices */
	bool own;            /* of one slice */
	char *mapped;
	range *ranges; /* free ones, by place, none touching another; room for live + 1 */
	uint32_t range_count, range_cap;
	struct knit_vk_block *next;
} block;

struct knit_vk_heap {
	pthread_mutex_t lock;
	block *first;
	uint64_t local_bytes; /* allocated from heaps of the device itself */
	uint32_t count;
};

/* ---- types ------------------------------------------------------------------------------------------------------- */

enum {
	LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
	VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
	CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
	/* Types for purposes that are not ours. */
	NEVER = VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT |
	        VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
};

typedef struct wish { VkMemoryPropertyFlags with, without; } wish;

/* Best first. On a discrete card the window through which the host sees device memory may be small (256 MiB): what
 * the host need not see stays out of it. Elsewhere all memory is the host's, and mapped memory is filled without a
 * copy. */
static const wish local_discrete[] = {{LOCAL, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT}, {LOCAL, 0}};
static const wish local_unified[] = {{LOCAL | VISIBLE, 0}, {LOCAL, 0}};
static const wish host[] = {{VISIBLE | CACHED, 0}, {VISIBLE, LOCAL}, {VISIBLE, 0}};
static const wish shared[] = {{LOCAL | VISIBLE, 0}, {VISIBLE | CACHED, 0}, {VISIBLE, 0}};

static uint32_t wishes(const knit_device *dev, knit_vk_memory_kind kind, const wish **out) {
	if (kind == KNIT_VK_HOST) {
		*out = host;
		return sizeof host / sizeof host[0];
	}
	if (kind == KNIT_VK_SHARED) {
		*out = shared;
		return sizeof shared / sizeof shared[0];
	}
	*out = dev->kernel_caps.device_class == KNIT_VK_DISCRETE ? local_discrete : local_unified;
	return 2;
}

/* The types that serve, best first, each once. */
static uint32_t types_find(const knit_device *dev, knit_vk_memory_kind kind, uint32_t allowed, uint8_t *out) {
	const wish *list;
	const uint32_t wish_count = wishes(dev, kind, &list);
	uint32_t count = 0, seen = 0;

	for (uint32_t w = 0; w < wish_count; ++w) {
		for (uint32_t i = 0; i < dev->memory.memoryTypeCount; ++i) {
			const VkMemoryPropertyFlags flags = dev->memory.memoryTypes[i].propertyFlags;
			if (!(allowed >> i & 1) || (seen >> i & 1) || (flags & list[w].with) != list[w].with ||
			    (flags & (list[w].without | NEVER)))
				continue;
			seen |= UINT32_C(1) << i;
			out[count++] = (uint8_t)i;
		}
	}
	return count;
}

static bool type_local(const knit_device *dev, uint32_t type) {
	return dev->memory.memoryHeaps[dev->memory.memoryTypes[type].heapIndex].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

/* What may still be taken of a heap; under the lock. */
static uint64_t heap_room(knit_device *dev, uint32_t index) {
	const knit_vk_probe *const p = &dev->probe;
	const bool local = p->memory.memoryHeaps[index].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
	uint64_t room;

	knit__vk_probe_budget(&dev->vk, &dev->probe);
	/* Where the driver tells no budget: the heap's size, less what this device has taken. */
	const uint64_t used = p->memory_budget ? p->heap_usage[index] : local ? dev->heap->local_bytes : 0;
	room = p->heap_budget[index] > used ? p->heap_budget[index] - used : 0;
	if (local && p->memory_limit) {
		const uint64_t left = p->memory_limit > dev->heap->local_bytes ? p->memory_limit - dev->heap->local_bytes : 0;
		room = left < room ? left : room;
	}
	return room;
}

/* The heap that LOCAL memory comes from. */
static uint32_t local_heap(const knit_device *dev) {
	uint8_t types[VK_MAX_MEMORY_TYPES];

	return types_find(dev, KNIT_VK_LOCAL, UINT32_MAX, types) ? dev->memory.memoryTypes[types[0]].heapIndex : 0;
}

void knit__vk_heap_room(knit_device *dev, uint64_t *free_bytes, uint64_t *total_bytes) {
	const uint32_t index = local_heap(dev);

	pthread_mutex_lock(&dev->heap->lock);
	*free_bytes = heap_room(dev, index);
	pthread_mutex_unlock(&dev->heap->lock);
	*total_bytes = dev->memory.memoryHeaps[index].size;
	if (dev->probe.memory_limit && dev->probe.memory_limit < *total_bytes)
		*total_bytes = dev->probe.memory_limit;
}

/* A driver with a budget would rather move other programs' memory out than refuse, and everything becomes slow: on a
 * discrete card its word is taken as the limit. Where memory is the host's the budget is a guess, and the driver
 * decides. */
static bool fits(knit_device *dev, uint32_t type, uint64_t bytes) {
	const bool limited = dev->probe.memory_limit && type_local(dev, type);

	if (dev->heap->count >= dev->probe.allocation_limit)
		return false;
	if (!limited && (!dev->probe.memory_budget || dev->kernel_caps.device_class != KNIT_VK_DISCRETE))
		return true;
	return bytes <= heap_room(dev, dev->memory.memoryTypes[type].heapIndex);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static VkResult memory_allocate(knit_device *dev, uint32_t type, uint64_t bytes, bool map, block *b) {
	const VkMemoryAllocateInfo info = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = bytes, .memoryTypeIndex = type};
	const VkMemoryPropertyFlags flags = dev->memory.memoryTypes[type].propertyFlags;
	void *mapped = NULL;

	if (!fits(dev, type, bytes))
		return VK_ERROR_OUT_OF_DEVICE_MEMORY;
	VkResult result = dev->vk.AllocateMemory(dev->device, &info, NULL, &b->memory);
	if (result != VK_SUCCESS)
		return result;
	if (map && (flags & VISIBLE) == VISIBLE)
		result = dev->vk.MapMemory(dev->device, b->memory, 0, VK_WHOLE_SIZE, 0, &mapped);
	if (result != VK_SUCCESS) {
		dev->vk.FreeMemory(dev->device, b->memory, NULL);
		return result;
	}
	b->mapped = mapped;
	b->bytes = bytes;
	b->type = type;
	++dev->heap->count;
	if (type_local(dev, type))
		dev->heap->local_bytes += bytes;
	knit__vk_count(&dev->counters.allocations, 1);
	return VK_SUCCESS;
}

static void block_free(knit_device *dev, block *b) {
	dev->vk.FreeMemory(dev->device, b->memory, NULL); /* unmaps it */
	--dev->heap->count;
	if (type_local(dev, b->type))
		dev->heap->local_bytes -= b->bytes;
	knit__free(&dev->a, b->ranges, (size_t)b->range_cap * sizeof *b->ranges);
	knit__free(&dev->a, b, sizeof *b);
}

static VkResult block_make(knit_device *dev, uint32_t type, uint64_t bytes, bool map, block **out) {
	block *const b = knit__alloc_zero(&dev->a, sizeof *b);

	*out = NULL;
	if (!b || !knit__grow(&dev->a, (void **)&b->ranges, &b->range_cap, 2, sizeof *b->ranges)) {
		knit__free(&dev->a, b, sizeof *b);
		return VK_ERROR_OUT_OF_HOST_MEMORY;
	}
	const VkResult result = memory_allocate(dev, type, bytes, map, b);
	if (result != VK_SUCCESS) {
		knit__free(&dev->a, b->ranges, (size_t)b->range_cap * sizeof *b->ranges);
		knit__free(&dev->a, b, sizeof *b);
		return result;
	}
	b->ranges[b->range_count++] = (range){0, bytes};
	b->next = dev->heap->first;
	dev->heap->first = b;
	*out = b;
	return VK_SUCCESS;
}

/* Takes bytes out of the first free range that has room; false if none has or if the list cannot grow. */
static bool block_take(const knit_allocator *a, block *b, uint64_t bytes, uint64_t align, uint64_t *out) {
	for (uint32_t i = 0; i < b->range_count; ++i) {
		range *r = &b->ranges[i];
		const uint64_t end = r->at + r->bytes, at = (r->at + align - 1) & ~(align - 1);
		if (at > end || bytes > end - at)
			continue;
		/* Room for the ranges that giving all slices back one by one may leave: freeing must not need memory. */
		if (!knit__grow(a, (void **)&b->ranges, &b->range_cap, b->live + 3, sizeof *b->ranges))
			return false;
		r = &b->ranges[i];
		const range before = {r->at, at - r->at}, after = {at + bytes, end - at - bytes};
		memmove(r, r + 1, (b->range_count - i - 1) * sizeof *r);
		--b->range_count;
		const range rest[2] = {before, after};
		uint32_t to = i;
		for (uint32_t k = 0; k < 2; ++k) {
			if (rest[k].bytes == 0)
				continue;
			memmove(&b->ranges[to + 1], &b->ranges[to], (b->range_count - to) * sizeof *r);
			b->ranges[to++] = rest[k];
			++b->range_count;
		}
		++b->live;
		*out = at;
		return true;
	}
	return false;
}

static void block_give(block *b, uint64_t at, uint64_t bytes) {
	uint32_t i = 0;

	while (i < b->range_count && b->ranges[i].at < at)
		++i;
	memmove(&b->ranges[i + 1], &b->ranges[i], (b->range_count - i) * sizeof *b->ranges);
	b->ranges[i] = (range){at, bytes};
	++b->range_count;
	--b->live;
	for (uint32_t k = i ? i - 1 : 0; k + 1 < b->range_count && k <= i;) {
		if (b->ranges[k].at + b->ranges[k].bytes != b->ranges[k + 1].at) {
			++k;
			continue;
		}
		b->ranges[k].bytes += b->ranges[k + 1].bytes;
		memmove(&b->ranges[k + 1], &b->ranges[k + 2], (b->range_count - k - 2) * sizeof *b->ranges);
		--b->range_count;
	}
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

static void slice_fill(const knit_device *dev, block *b, uint64_t at, uint64_t bytes, knit_vk_slice *out) {
	*out = (knit_vk_slice){.memory = b->memory,
	                       .at = at,
	                       .bytes = bytes,
	                       .mapped = b->mapped ? b->mapped + at : NULL,
	                       .cached = dev->memory.memoryTypes[b->type].propertyFlags & CACHED,
	                       .block = b};
}

static VkResult take_of_type(knit_device *dev, uint32_t type, bool map, const VkMemoryRequirements *need,
                             knit_vk_slice *out) {
	const uint64_t limit = dev->kernel_caps.max_allocation_bytes;
	const bool own = need->size > SHARED_MAX_BYTES;
	bool first = true;
	block *b = NULL;
	uint64_t at = 0;

	for (b = own ? NULL : dev->heap->first; b; b = b->next) {
		if (b->own || b->type != type || (b->mapped != NULL) != (map && (dev->memory.memoryTypes[type].propertyFlags &
		                                                                 VISIBLE) == VISIBLE))
			continue;
		first = false;
		if (block_take(&dev->a, b, need->size, need->alignment, &at)) {
			slice_fill(dev, b, at, need->size, out);
			return VK_SUCCESS;
		}
	}
	uint64_t bytes = own ? need->size : first ? FIRST_BLOCK_BYTES : BLOCK_BYTES;
	bytes = !own && bytes > limit ? limit : bytes;
	VkResult result = bytes < need->size ? VK_ERROR_OUT_OF_DEVICE_MEMORY : block_make(dev, type, bytes, map, &b);
	/* No room for a block, but perhaps for what is asked. */
	if ((result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY) && bytes != need->size)
		result = block_make(dev, type, need->size, map, &b);
	if (result != VK_SUCCESS)
		return result;
	b->own = b->bytes == need->size;
	if (!block_take(&dev->a, b, need->size, need->alignment, &at)) {
		dev->heap->first = b->next;
		block_free(dev, b);
		return VK_ERROR_OUT_OF_HOST_MEMORY;
	}
	slice_fill(dev, b, at, need->size, out);
	return VK_SUCCESS;
}

static const char *mib(uint64_t bytes, char out[32]) {
	snprintf(out, 32, "%.1f MiB", (double)bytes / 1048576.0);
	return out;
}

static knit_status fail_full(knit_device *dev, uint32_t index, uint64_t bytes, knit_diag *d) {
	char asked[32], left[32], all[32];

	if (dev->heap->count >= dev->probe.allocation_limit)
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "the driver's %u allocations are all taken",
		                  dev->probe.allocation_limit);
	return knit__fail(d, KNIT_ERR_MEMORY, 0, "out of device memory: %s asked for, %s of %s free", mib(bytes, asked),
	                  mib(heap_room(dev, index), left), mib(dev->memory.memoryHeaps[index].size, all));
}

knit_status knit__vk_heap_take(knit_device *dev, knit_vk_memory_kind kind, const VkMemoryRequirements *need,
                               knit_vk_slice *out, knit_diag *d) {
	uint8_t types[VK_MAX_MEMORY_TYPES];
	const uint32_t count = types_find(dev, kind, need->memoryTypeBits, types);
	const bool map = kind != KNIT_VK_LOCAL || dev->probe.map_local;
	VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
	knit_status status = KNIT_OK;

	*out = (knit_vk_slice){0};
	if (count == 0)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the driver has no memory type that serves");
	pthread_mutex_lock(&dev->heap->lock);
	for (uint32_t i = 0; i < count; ++i) {
		result = take_of_type(dev, types[i], map, need, out);
		if (result != VK_ERROR_OUT_OF_DEVICE_MEMORY && result != VK_ERROR_OUT_OF_HOST_MEMORY)
			break;
	}
	if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
		status = fail_full(dev, dev->memory.memoryTypes[types[0]].heapIndex, need->size, d);
	pthread_mutex_unlock(&dev->heap->lock);
	return status == KNIT_OK ? knit__vk_status(dev, result, "vkAllocateMemory", d) : status;
}

void knit__vk_heap_give(knit_device *dev, knit_vk_slice *slice) {
	block *const b = slice->block;

	if (!b)
		return;
	pthread_mutex_lock(&dev->heap->lock);
	block_give(b, slice->at, slice->bytes);
	if (b->live == 0) {
		block **link = &dev->heap->first;
		while (*link != b)
			link = &(*link)->next;
		*link = b->next;
		block_free(dev, b);
	}
	pthread_mutex_unlock(&dev->heap->lock);
	*slice = (knit_vk_slice){0};
}

uint32_t knit__vk_heap_allocations(const knit_device *dev) {
	pthread_mutex_lock(&dev->heap->lock);
	const uint32_t count = dev->heap->count;
	pthread_mutex_unlock(&dev->heap->lock);
	return count;
}

knit_status knit__vk_heap_make(knit_device *dev, knit_diag *d) {
	dev->heap = knit__alloc_zero(&dev->a, sizeof *dev->heap);
	if (!dev->heap)
		return knit__fail_memory(d, "the Vulkan device", sizeof *dev->heap);
	pthread_mutex_init(&dev->heap->lock, NULL);
	return KNIT_OK;
}

void knit__vk_heap_free(knit_device *dev) {
	/* Buffers are gone before their device. */
	pthread_mutex_destroy(&dev->heap->lock);
	knit__free(&dev->a, dev->heap, sizeof *dev->heap);
	dev->heap = NULL;
}
