/* Owns copies between the host and device memory that the host cannot reach. Two halves take turns: while the device
 * copies one, the host fills or empties the other, which for weights is reading the file. */
#include "vk.h"

#include <string.h>

#define HALF_BYTES (UINT64_C(8) << 20)
/* A copy of 8 MiB takes milliseconds: a device that has not done one by then will not. */
#define PATIENCE_NS UINT64_C(60000000000)

typedef struct half {
	VkCommandBuffer commands;
	VkFence fence;
	bool busy; /* submitted and not waited for */
} half;

struct knit_vk_staging {
	pthread_mutex_t lock;
	VkCommandPool pool;
	knit_buffer *memory; /* both halves */
	half halves[2];
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

void knit__vk_staging_free(knit_device *dev) {
	struct knit_vk_staging *const s = dev->staging;

	for (uint32_t i = 0; i < 2; ++i) {
		if (s->halves[i].fence)
			dev->vk.DestroyFence(dev->device, s->halves[i].fence, NULL);
	}
	if (s->pool)
		dev->vk.DestroyCommandPool(dev->device, s->pool, NULL);
	knit__vk_buffer_free(dev, s->memory);
	pthread_mutex_destroy(&s->lock);
	knit__free(&dev->a, s, sizeof *s);
	dev->staging = NULL;
}

static knit_status objects_make(knit_device *dev, struct knit_vk_staging *s, knit_diag *d) {
	const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
	                                      .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
	                                      .queueFamilyIndex = dev->queue_family};
	const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
	VkCommandBuffer commands[2];

	knit_status status =
		knit__vk_status(dev, dev->vk.CreateCommandPool(dev->device, &pool, NULL, &s->pool), "vkCreateCommandPool", d);
	if (status != KNIT_OK)
		return status;
	const VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
	                                          .commandPool = s->pool,
	                                          .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
	                                          .commandBufferCount = 2};
	status = knit__vk_status(dev, dev->vk.AllocateCommandBuffers(dev->device, &info, commands),
	                         "vkAllocateCommandBuffers", d);
	for (uint32_t i = 0; status == KNIT_OK && i < 2; ++i) {
		s->halves[i].commands = commands[i];
		status = knit__vk_status(dev, dev->vk.CreateFence(dev->device, &fence, NULL, &s->halves[i].fence),
		                         "vkCreateFence", d);
	}
	return status;
}

knit_status knit__vk_staging_make(knit_device *dev, knit_diag *d) {
	struct knit_vk_staging *const s = knit__alloc_zero(&dev->a, sizeof *s);
	const uint64_t limit = dev->kernel_caps.max_allocation_bytes;
	const uint64_t bytes = limit < 2 * HALF_BYTES ? limit : 2 * HALF_BYTES;

	if (!s)
		return knit__fail_memory(d, "the staging buffer", sizeof *s);
	pthread_mutex_init(&s->lock, NULL);
	dev->staging = s;
	knit_status status = knit__vk_buffer_make(dev, KNIT_VK_HOST, 0, bytes, &s->memory, d);
	if (status == KNIT_OK)
		status = objects_make(dev, s, d);
	if (status != KNIT_OK)
		knit__vk_staging_free(dev);
	return status;
}

/* ---- one half ---------------------------------------------------------------------------------------------------- */

static knit_status half_wait(knit_device *dev, half *h) {
	if (!h->busy)
		return KNIT_OK;
	h->busy = false;
	VkResult result = dev->vk.WaitForFences(dev->device, 1, &h->fence, VK_TRUE, PATIENCE_NS);
	if (result == VK_TIMEOUT)
		result = VK_ERROR_DEVICE_LOST;
	if (result == VK_SUCCESS)
		result = dev->vk.ResetFences(dev->device, 1, &h->fence);
	return knit__vk_status(dev, result, "vkWaitForFences", NULL);
}

static void barrier(knit_device *dev, VkCommandBuffer commands, VkPipelineStageFlags from, VkAccessFlags written,
                    VkPipelineStageFlags to, VkAccessFlags used) {
	const VkMemoryBarrier memory = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = written, .dstAccessMask = used};

	dev->vk.CmdPipelineBarrier(commands, from, to, 0, 1, &memory, 0, NULL, 0, NULL);
}

static knit_status half_begin(knit_device *dev, half *h) {
	const VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
	                                       .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};

	const knit_status status =
		knit__vk_status(dev, dev->vk.BeginCommandBuffer(h->commands, &info), "vkBeginCommandBuffer", NULL);
	if (status == KNIT_OK)
		barrier(dev, h->commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_ACCESS_MEMORY_WRITE_BIT,
		        VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
	return status;
}

static knit_status half_submit(knit_device *dev, half *h) {
	const VkSubmitInfo info = {
		.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &h->commands};

	barrier(dev, h->commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
	        VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT,
	        VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_READ_BIT);
	const knit_status status =
		knit__vk_status(dev, dev->vk.EndCommandBuffer(h->commands), "vkEndCommandBuffer", NULL);
	if (status != KNIT_OK)
		return status;
	pthread_mutex_lock(&dev->queue_lock);
	const VkResult result = dev->vk.QueueSubmit(dev->queue, 1, &info, h->fence);
	pthread_mutex_unlock(&dev->queue_lock);
	h->busy = result == VK_SUCCESS;
	return knit__vk_status(dev, result, "vkQueueSubmit", NULL);
}

static knit_status half_copy(knit_device *dev, half *h, VkBuffer from, uint64_t from_at, VkBuffer to, uint64_t to_at,
                             uint64_t bytes) {
	const VkBufferCopy region = {.srcOffset = from_at, .dstOffset = to_at, .size = bytes};

	const knit_status status = half_begin(dev, h);
	if (status != KNIT_OK)
		return status;
	dev->vk.CmdCopyBuffer(h->commands, from, to, 1, &region);
	return half_submit(dev, h);
}

/* Both halves idle again, whatever happened. */
static knit_status finish(knit_device *dev, struct knit_vk_staging *s, knit_status status) {
	for (uint32_t i = 0; i < 2; ++i) {
		const knit_status waited = half_wait(dev, &s->halves[i]);
		status = status == KNIT_OK ? waited : status;
	}
	pthread_mutex_unlock(&s->lock);
	return status;
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

knit_status knit__vk_staging_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	struct knit_vk_staging *const s = dev->staging;
	const uint64_t size = s->memory->bytes / 2;
	knit_status status = KNIT_OK;

	pthread_mutex_lock(&s->lock);
	for (uint64_t done = 0, turn = 0; status == KNIT_OK && done < bytes; done += size, ++turn) {
		half *const h = &s->halves[turn & 1];
		const uint64_t part = min_u64(size, bytes - done), place = (turn & 1) * size;
		status = half_wait(dev, h);
		if (status != KNIT_OK)
			break;
		memcpy((char *)s->memory->mapped + place, (const char *)src + done, (size_t)part);
		status = half_copy(dev, h, s->memory->buffer, place, buf->buffer, at + done, part);
	}
	return finish(dev, s, status);
}

knit_status knit__vk_staging_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	struct knit_vk_staging *const s = dev->staging;
	const uint64_t size = s->memory->bytes / 2, parts = (bytes + size - 1) / size;
	knit_status status = KNIT_OK;

	pthread_mutex_lock(&s->lock);
	/* Part n is asked for before part n - 1 is taken out. */
	for (uint64_t n = 0; status == KNIT_OK && n <= parts; ++n) {
		if (n < parts)
			status = half_copy(dev, &s->halves[n & 1], buf->buffer, at + n * size, s->memory->buffer, (n & 1) * size,
			                   min_u64(size, bytes - n * size));
		if (status != KNIT_OK || n == 0)
			continue;
		const uint64_t done = (n - 1) * size;
		status = half_wait(dev, &s->halves[(n - 1) & 1]);
		if (status == KNIT_OK)
			memcpy((char *)dst + done, (const char *)s->memory->mapped + ((n - 1) & 1) * size,
			       (size_t)min_u64(size, bytes - done));
	}
	return finish(dev, s, status);
}

knit_status knit__vk_staging_clear(knit_device *dev, knit_buffer *buf) {
	struct knit_vk_staging *const s = dev->staging;
	half *const h = &s->halves[0];

	pthread_mutex_lock(&s->lock);
	knit_status status = half_begin(dev, h);
	if (status == KNIT_OK) {
		dev->vk.CmdFillBuffer(h->commands, buf->buffer, 0, VK_WHOLE_SIZE, 0);
		status = half_submit(dev, h);
	}
	return finish(dev, s, status);
}
