/* Owns buffers and their bytes. Knows no kernel and no plan. */
#include "vk_heap.h"

#include <string.h>

#define SIZE_ALIGN 16
/* Inputs and results up to this size lie in device memory that the host can reach, where there is such memory: the
 * host reads it slowly, but the device reads positions and ids many times per run. */
#define SHARED_IO_BYTES 4096
/* From here on memory that the host reads slowly is copied to memory that it reads fast. */
#define SLOW_READ_BYTES 4096

static bool in_range(const knit_buffer *buf, uint64_t at, uint64_t bytes) {
	return at <= buf->bytes && bytes <= buf->bytes - at;
}

static knit_status buffer_bind(knit_device *dev, knit_vk_memory_kind kind, knit_buffer *buf, knit_diag *d) {
	VkMemoryRequirements need;

	dev->vk.GetBufferMemoryRequirements(dev->device, buf->buffer, &need);
	const knit_status status = knit__vk_heap_take(dev, kind, &need, &buf->slice, d);
	if (status != KNIT_OK)
		return status;
	buf->mapped = buf->slice.mapped;
	buf->coherent = buf->mapped != NULL;
	return knit__vk_status(dev, dev->vk.BindBufferMemory(dev->device, buf->buffer, buf->slice.memory, buf->slice.at),
	                       "vkBindBufferMemory", d);
}

knit_status knit__vk_buffer_make(knit_device *dev, knit_vk_memory_kind kind, VkBufferUsageFlags usage, uint64_t bytes,
                                 knit_buffer **out, knit_diag *d) {
	uint64_t made_bytes;

	*out = NULL;
	if (atomic_load(&dev->lost))
		return knit__fail(d, KNIT_ERR_DEVICE, 0, "the device was lost");
	if (!knit__align_u64(bytes ? bytes : 1, SIZE_ALIGN, &made_bytes) || bytes > dev->kernel_caps.max_allocation_bytes)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "a buffer of %llu bytes: the device allows %llu",
		                  (unsigned long long)bytes, (unsigned long long)dev->kernel_caps.max_allocation_bytes);
	knit_buffer *const buf = knit__alloc_zero(&dev->a, sizeof *buf);
	if (!buf)
		return knit__fail_memory(d, "a buffer", sizeof *buf);
	buf->bytes = bytes;
	buf->made_bytes = made_bytes;
	const VkBufferCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
		.size = made_bytes,
		.usage = usage | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
		.sharingMode = VK_SHARING_MODE_EXCLUSIVE,
	};
	knit_status status =
		knit__vk_status(dev, dev->vk.CreateBuffer(dev->device, &info, NULL, &buf->buffer), "vkCreateBuffer", d);
	if (status == KNIT_OK)
		status = buffer_bind(dev, kind, buf, d);
	if (status != KNIT_OK) {
		knit__vk_buffer_free(dev, buf);
		return status;
	}
	*out = buf;
	return KNIT_OK;
}

void knit__vk_buffer_free(knit_device *dev, knit_buffer *buf) {
	if (!buf)
		return;
	if (buf->buffer)
		dev->vk.DestroyBuffer(dev->device, buf->buffer, NULL);
	knit__vk_heap_give(dev, &buf->slice);
	knit__free(&dev->a, buf, sizeof *buf);
}

static knit_vk_memory_kind kind_of(knit_buffer_use use, uint64_t bytes) {
	if (use != KNIT_BUFFER_IO)
		return KNIT_VK_LOCAL;
	return bytes <= SHARED_IO_BYTES ? KNIT_VK_SHARED : KNIT_VK_HOST;
}

knit_status knit__vk_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out) {
	knit_status status =
		knit__vk_buffer_make(dev, kind_of(use, bytes), VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, bytes, out, NULL);

	if (status != KNIT_OK)
		return status;
	(*out)->use = use;
	status = knit__vk_buffer_clear(dev, *out);
	if (status != KNIT_OK) {
		knit__vk_buffer_free(dev, *out);
		*out = NULL;
	}
	return status;
}

/* caps.import_align is 0, so nobody asks. VK_EXT_external_memory_host would let the device read a model's file where
 * it is mapped, but only software drivers are sure to do so: those of AMD's cards take anonymous memory alone
 * (AMDGPU_GEM_USERPTR_ANONONLY in libdrm), others refuse now and then, and tensors in files lie at 32 bytes where
 * some devices bind at 256. A way that hardware takes by chance is not worth a second one beside it. */
knit_status knit__vk_buffer_import(knit_device *dev, const void *memory, uint64_t bytes, knit_buffer **out) {
	(void)dev;
	(void)memory;
	(void)bytes;
	*out = NULL;
	return KNIT_ERR_UNSUPPORTED;
}

knit_status knit__vk_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	if (buf->imported || !in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (atomic_load(&dev->lost))
		return KNIT_ERR_DEVICE;
	if (bytes == 0)
		return KNIT_OK;
	if (!buf->mapped)
		return knit__vk_staging_write(dev, buf, at, src, bytes);
	memcpy((char *)buf->mapped + at, src, (size_t)bytes);
	return KNIT_OK;
}

knit_status knit__vk_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	if (!in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (atomic_load(&dev->lost))
		return KNIT_ERR_DEVICE;
	if (bytes == 0)
		return KNIT_OK;
	if (!buf->mapped || (!buf->slice.cached && bytes > SLOW_READ_BYTES))
		return knit__vk_staging_read(dev, buf, at, dst, bytes);
	memcpy(dst, (const char *)buf->mapped + at, (size_t)bytes);
	return KNIT_OK;
}

knit_status knit__vk_buffer_clear(knit_device *dev, knit_buffer *buf) {
	if (buf->imported)
		return KNIT_ERR_ARGUMENT;
	if (atomic_load(&dev->lost))
		return KNIT_ERR_DEVICE;
	if (!buf->mapped)
		return knit__vk_staging_clear(dev, buf);
	memset(buf->mapped, 0, (size_t)buf->made_bytes);
	return KNIT_OK;
}
