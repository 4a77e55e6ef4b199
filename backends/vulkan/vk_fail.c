/* Owns failures on demand. Knows what a call makes, nothing of why. */
#include "vk_fail.h"

#include <stdatomic.h>
#include <stdlib.h>

/* The functions that stand behind: one set for the process, since a wrapper finds only its own arguments. Devices of
 * two drivers cannot be tested so at once. */
static knit_vk_api real;
static atomic_uint_least64_t made, submitted;
static uint64_t fail_at, lose_at; /* 0: never */

void knit__vk_fail_counts(uint64_t *made_count, uint64_t *submitted_count) {
	*made_count = atomic_load(&made);
	*submitted_count = atomic_load(&submitted);
}

static bool fails(void) { return atomic_fetch_add(&made, 1) + 1 == fail_at; }

static bool lost(VkDevice device) {
	if (atomic_fetch_add(&submitted, 1) + 1 < lose_at || lose_at == 0)
		return false;
	/* A device that is lost has stopped. */
	real.DeviceWaitIdle(device);
	return true;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* X(name, what it is made from, what is made) */
#define MAKERS(X) \
	X(AllocateMemory, VkMemoryAllocateInfo, VkDeviceMemory) \
	X(CreateBuffer, VkBufferCreateInfo, VkBuffer) \
	X(CreateFence, VkFenceCreateInfo, VkFence) \
	X(CreateSemaphore, VkSemaphoreCreateInfo, VkSemaphore) \
	X(CreateQueryPool, VkQueryPoolCreateInfo, VkQueryPool) \
	X(CreateShaderModule, VkShaderModuleCreateInfo, VkShaderModule) \
	X(CreatePipelineCache, VkPipelineCacheCreateInfo, VkPipelineCache) \
	X(CreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout) \
	X(CreateDescriptorSetLayout, VkDescriptorSetLayoutCreateInfo, VkDescriptorSetLayout) \
	X(CreateDescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool) \
	X(CreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool)

#define MAKER(name, info_type, handle_type) \
	static VKAPI_ATTR VkResult VKAPI_CALL fail_##name(VkDevice device, const info_type *info, \
	                                                  const VkAllocationCallbacks *a, handle_type *out) { \
		return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.name(device, info, a, out); \
	}
MAKERS(MAKER)
#undef MAKER

static VKAPI_ATTR VkResult VKAPI_CALL fail_CreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                                                        const VkAllocationCallbacks *a, VkDevice *out) {
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.CreateDevice(physical, info, a, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_CreateComputePipelines(VkDevice device, VkPipelineCache cache,
                                                                  uint32_t count,
                                                                  const VkComputePipelineCreateInfo *info,
                                                                  const VkAllocationCallbacks *a, VkPipeline *out) {
	if (!fails())
		return real.CreateComputePipelines(device, cache, count, info, a, out);
	for (uint32_t i = 0; i < count; ++i)
		out[i] = VK_NULL_HANDLE;
	return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_AllocateDescriptorSets(VkDevice device,
                                                                  const VkDescriptorSetAllocateInfo *info,
                                                                  VkDescriptorSet *out) {
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.AllocateDescriptorSets(device, info, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_AllocateCommandBuffers(VkDevice device,
                                                                  const VkCommandBufferAllocateInfo *info,
                                                                  VkCommandBuffer *out) {
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.AllocateCommandBuffers(device, info, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_MapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize at,
                                                     VkDeviceSize bytes, VkMemoryMapFlags flags, void **out) {
	return fails() ? VK_ERROR_MEMORY_MAP_FAILED : real.MapMemory(device, memory, at, bytes, flags, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_BindBufferMemory(VkDevice device, VkBuffer buffer, VkDeviceMemory memory,
                                                            VkDeviceSize at) {
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.BindBufferMemory(device, buffer, memory, at);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_BeginCommandBuffer(VkCommandBuffer commands,
                                                              const VkCommandBufferBeginInfo *info) {
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.BeginCommandBuffer(commands, info);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_EndCommandBuffer(VkCommandBuffer commands) {
	if (!fails())
		return real.EndCommandBuffer(commands);
	real.EndCommandBuffer(commands);
	return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

/* ---- submitting and waiting -------------------------------------------------------------------------------------- */

static VkDevice submitting; /* the queue's device */

static VKAPI_ATTR void VKAPI_CALL keep_GetDeviceQueue(VkDevice device, uint32_t family, uint32_t index, VkQueue *out) {
	submitting = device;
	real.GetDeviceQueue(device, family, index, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_QueueSubmit(VkQueue queue, uint32_t count, const VkSubmitInfo *info,
                                                       VkFence fence) {
	if (lost(submitting))
		return VK_ERROR_DEVICE_LOST;
	return fails() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.QueueSubmit(queue, count, info, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL fail_WaitForFences(VkDevice device, uint32_t count, const VkFence *fences,
                                                         VkBool32 all, uint64_t timeout_ns) {
	return lost(device) ? VK_ERROR_DEVICE_LOST : real.WaitForFences(device, count, fences, all, timeout_ns);
}

/* ---- switching on ------------------------------------------------------------------------------------------------ */

static bool number(const char *name, uint64_t *out) {
	const char *const text = getenv(name);
	char *end;

	*out = 0;
	if (!text || !*text)
		return false;
	*out = strtoull(text, &end, 10);
	return *end == '\0';
}

static bool wanted(void) {
	const bool making = number("KNIT_VK_FAIL", &fail_at), losing = number("KNIT_VK_LOSE", &lose_at);

	return making || losing;
}

void knit__vk_fail_instance(knit_vk_api *vk) {
	if (!wanted())
		return;
	atomic_store(&made, 0);
	atomic_store(&submitted, 0);
	real = *vk;
	vk->CreateDevice = fail_CreateDevice;
}

void knit__vk_fail_device(knit_vk_api *vk) {
	if (!wanted())
		return;
	real = *vk;
#define SET(name, info_type, handle_type) vk->name = fail_##name;
	MAKERS(SET)
#undef SET
	vk->CreateComputePipelines = fail_CreateComputePipelines;
	vk->AllocateDescriptorSets = fail_AllocateDescriptorSets;
	vk->AllocateCommandBuffers = fail_AllocateCommandBuffers;
	vk->MapMemory = fail_MapMemory;
	vk->BindBufferMemory = fail_BindBufferMemory;
	vk->BeginCommandBuffer = fail_BeginCommandBuffer;
	vk->EndCommandBuffer = fail_EndCommandBuffer;
	vk->QueueSubmit = fail_QueueSubmit;
	vk->WaitForFences = fail_WaitForFences;
	vk->GetDeviceQueue = keep_GetDeviceQueue;
}
