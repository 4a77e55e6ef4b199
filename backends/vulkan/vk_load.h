/* Owns the way to the Vulkan loader: the API's types, and tables of its functions that are filled at run time. Nothing
 * is linked: a machine without libvulkan runs everything else. */
#ifndef KNIT_VK_LOAD_H
#define KNIT_VK_LOAD_H

#include "knit.h"

#ifndef VK_NO_PROTOTYPES
#define VK_NO_PROTOTYPES
#endif
#include <vulkan/vulkan_core.h>

/* X(name): vkName is loaded as .Name. The lists are all there is: a function that is not in one cannot be called. */
#define KNIT_VK_GLOBAL_FUNCTIONS(X) \
	X(CreateInstance) \
	X(EnumerateInstanceVersion) \
	X(EnumerateInstanceExtensionProperties) \
	X(EnumerateInstanceLayerProperties)

#define KNIT_VK_INSTANCE_FUNCTIONS(X) \
	X(DestroyInstance) \
	X(EnumeratePhysicalDevices) \
	X(EnumerateDeviceExtensionProperties) \
	X(GetPhysicalDeviceProperties) \
	X(GetPhysicalDeviceProperties2) \
	X(GetPhysicalDeviceFeatures2) \
	X(GetPhysicalDeviceMemoryProperties2) \
	X(GetPhysicalDeviceQueueFamilyProperties) \
	X(CreateDevice) \
	X(GetDeviceProcAddr)

#define KNIT_VK_DEVICE_FUNCTIONS(X) \
	X(DestroyDevice) \
	X(GetDeviceQueue) \
	X(DeviceWaitIdle) \
	X(QueueSubmit) \
	X(QueueWaitIdle) \
	X(AllocateMemory) \
	X(FreeMemory) \
	X(MapMemory) \
	X(UnmapMemory) \
	X(FlushMappedMemoryRanges) \
	X(InvalidateMappedMemoryRanges) \
	X(CreateBuffer) \
	X(DestroyBuffer) \
	X(GetBufferMemoryRequirements) \
	X(BindBufferMemory) \
	X(CreateFence) \
	X(DestroyFence) \
	X(ResetFences) \
	X(GetFenceStatus) \
	X(WaitForFences) \
	X(CreateSemaphore) \
	X(DestroySemaphore) \
	X(WaitSemaphores) \
	X(SignalSemaphore) \
	X(GetSemaphoreCounterValue) \
	X(CreateQueryPool) \
	X(DestroyQueryPool) \
	X(ResetQueryPool) \
	X(GetQueryPoolResults) \
	X(CreateShaderModule) \
	X(DestroyShaderModule) \
	X(CreatePipelineCache) \
	X(DestroyPipelineCache) \
	X(GetPipelineCacheData) \
	X(MergePipelineCaches) \
	X(CreateComputePipelines) \
	X(DestroyPipeline) \
	X(CreatePipelineLayout) \
	X(DestroyPipelineLayout) \
	X(CreateDescriptorSetLayout) \
	X(DestroyDescriptorSetLayout) \
	X(CreateDescriptorPool) \
	X(DestroyDescriptorPool) \
	X(ResetDescriptorPool) \
	X(AllocateDescriptorSets) \
	X(FreeDescriptorSets) \
	X(UpdateDescriptorSets) \
	X(CreateCommandPool) \
	X(DestroyCommandPool) \
	X(ResetCommandPool) \
	X(AllocateCommandBuffers) \
	X(FreeCommandBuffers) \
	X(BeginCommandBuffer) \
	X(EndCommandBuffer) \
	X(ResetCommandBuffer) \
	X(CmdBindPipeline) \
	X(CmdBindDescriptorSets) \
	X(CmdPushConstants) \
	X(CmdDispatch) \
	X(CmdDispatchIndirect) \
	X(CmdPipelineBarrier) \
	X(CmdCopyBuffer) \
	X(CmdFillBuffer) \
	X(CmdUpdateBuffer) \
	X(CmdResetQueryPool) \
	X(CmdWriteTimestamp) \
	X(CmdExecuteCommands)

/* Of extensions: NULL where the instance or the device does not offer them. */
#define KNIT_VK_OPTIONAL_INSTANCE_FUNCTIONS(X) \
	X(CreateDebugUtilsMessengerEXT) \
	X(DestroyDebugUtilsMessengerEXT)
#define KNIT_VK_OPTIONAL_DEVICE_FUNCTIONS(X) \
	X(GetMemoryHostPointerPropertiesEXT) \
	X(SetDebugUtilsObjectNameEXT)

#define KNIT_VK_MEMBER(name) PFN_vk##name name;
typedef struct knit_vk_api {
	PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
	KNIT_VK_GLOBAL_FUNCTIONS(KNIT_VK_MEMBER)
	KNIT_VK_INSTANCE_FUNCTIONS(KNIT_VK_MEMBER)
	KNIT_VK_OPTIONAL_INSTANCE_FUNCTIONS(KNIT_VK_MEMBER)
	KNIT_VK_DEVICE_FUNCTIONS(KNIT_VK_MEMBER)
	KNIT_VK_OPTIONAL_DEVICE_FUNCTIONS(KNIT_VK_MEMBER)
} knit_vk_api;
#undef KNIT_VK_MEMBER

/* Opens the loader, once per process, and fills in the global functions. UNSUPPORTED with the reason where there is no
 * loader or where it is older than Vulkan 1.2. */
knit_status knit__vk_load_global(knit_vk_api *vk, knit_diag *d);
/* The functions of an instance, and then of a device of it. UNSUPPORTED with the name of one that is missing. */
knit_status knit__vk_load_instance(knit_vk_api *vk, VkInstance instance, knit_diag *d);
knit_status knit__vk_load_device(knit_vk_api *vk, VkDevice device, knit_diag *d);

/* "VK_ERROR_OUT_OF_DEVICE_MEMORY" ...; never NULL. */
const char *knit__vk_result_name(VkResult result);

#endif
