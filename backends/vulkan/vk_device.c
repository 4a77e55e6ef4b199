/* Owns the listing, opening and closing of Vulkan devices. Knows no buffer, kernel or plan. */
#include "vk.h"

#include "vk_coopmat.h"
#include "vk_fail.h"
#include "vk_heap.h"
#include "vk_tune_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

knit_status knit__vk_status(knit_device *dev, VkResult result, const char *what, knit_diag *d) {
	switch (result) {
	case VK_SUCCESS:
		return KNIT_OK;
	case VK_ERROR_OUT_OF_HOST_MEMORY:
	case VK_ERROR_OUT_OF_DEVICE_MEMORY:
	case VK_ERROR_OUT_OF_POOL_MEMORY:
	case VK_ERROR_FRAGMENTATION:
	case VK_ERROR_FRAGMENTED_POOL:
	case VK_ERROR_TOO_MANY_OBJECTS:
	case VK_ERROR_MEMORY_MAP_FAILED:
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "out of memory: %s gave %s", what, knit__vk_result_name(result));
	case VK_ERROR_DEVICE_LOST:
		atomic_store(&dev->lost, true);
		return knit__fail(d, KNIT_ERR_DEVICE, 0, "the device was lost: %s gave %s", what, knit__vk_result_name(result));
	default:
		return knit__fail(d, KNIT_ERR_DEVICE, 0, "the driver failed: %s gave %s (%d)", what,
		                  knit__vk_result_name(result), (int)result);
	}
}

/* ---- listing ----------------------------------------------------------------------------------------------------- */

/* The largest heap that is the device's own. */
static uint64_t device_bytes(const knit_vk_probe *p) {
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->memory.memoryHeapCount; ++i) {
		if ((p->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) && p->memory.memoryHeaps[i].size > bytes)
			bytes = p->memory.memoryHeaps[i].size;
	}
	return bytes;
}

static void info_fill(const knit_vk_probe *p, uint32_t index, knit_device_info *out) {
	*out = (knit_device_info){.available = !p->reason[0],
	                          .software = p->caps.device_class == KNIT_VK_SOFTWARE,
	                          .memory_bytes = device_bytes(p)};
	snprintf(out->id, sizeof out->id, "vulkan:%u", index);
	snprintf(out->name, sizeof out->name, "%.120s", p->properties.deviceName);
	if (p->reason[0])
		snprintf(out->detail, sizeof out->detail, "%s, not usable: %s", knit__vk_class_name(p->caps.device_class),
		         p->reason);
	else
		snprintf(out->detail, sizeof out->detail, "%s, %.60s %.60s, Vulkan %u.%u, subgroups of %u",
		         knit__vk_class_name(p->caps.device_class), p->driver.driverName, p->driver.driverInfo,
		         VK_API_VERSION_MAJOR(p->properties.apiVersion), VK_API_VERSION_MINOR(p->properties.apiVersion),
		         p->caps.subgroup);
}

knit_status knit__vk_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	knit_vk_probe list[KNIT_VK_MAX_PHYSICAL];
	knit_vk_instance instance;
	knit_vk_api vk;
	knit_diag why = {0};
	uint32_t n = 0;

	knit_status status = knit__vk_instance_open(host, &instance, &vk, &why);
	if (status == KNIT_OK) {
		status = knit__vk_probe_all(&vk, instance.handle, list, &n, &why);
		knit__vk_instance_close(&instance, &vk);
	}
	if (status != KNIT_OK) {
		*count = 1;
		if (cap) {
			out[0] = (knit_device_info){.id = "vulkan", .name = "Vulkan"};
			snprintf(out[0].detail, sizeof out[0].detail, "%s", why.text);
		}
		return KNIT_OK;
	}
	*count = n;
	for (uint32_t i = 0; i < n && i < cap; ++i)
		info_fill(&list[i], i, &out[i]);
	return KNIT_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static knit_status device_create(knit_device *dev, knit_diag *d) {
	const knit_vk_probe *const p = &dev->probe;
	const bool in_shaders = dev->host.validation == KNIT_VK_VALIDATE_GPU && p->stores_in_all_stages;
	const char *names[8];
	uint32_t name_count = 0;
	void *chain = NULL;
	knit_vk_coopmat_features coopmat = {
		.sType = KNIT_VK_COOPMAT_FEATURES_TYPE, .pNext = NULL, .cooperative_matrix = VK_TRUE};
	VkPhysicalDeviceSubgroupSizeControlFeatures control = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
		.subgroupSizeControl = VK_TRUE,
		.computeFullSubgroups = p->full_subgroups};
	VkPhysicalDeviceShaderIntegerDotProductFeatures dot = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
		.shaderIntegerDotProduct = VK_TRUE};

	if (p->cooperative_matrix) {
		names[name_count++] = KNIT_VK_COOPMAT_EXTENSION;
		coopmat.pNext = chain;
		chain = &coopmat;
	}
	if (p->subgroup_control) {
		names[name_count++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
		control.pNext = chain;
		chain = &control;
	}
	if (p->integer_dot_extension) {
		names[name_count++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
		dot.pNext = chain;
		chain = &dot;
	}
	if (p->memory_budget)
		names[name_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;

	/* Only what is used is switched on: the rest may cost speed. */
	VkPhysicalDeviceVulkan12Features f12 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
		.pNext = chain,
		.storageBuffer8BitAccess = VK_TRUE,
		.shaderFloat16 = VK_TRUE,
		.shaderInt8 = VK_TRUE,
		.uniformBufferStandardLayout = VK_TRUE,
		.descriptorBindingStorageBufferUpdateAfterBind = p->update_after_bind,
		.descriptorBindingUpdateUnusedWhilePending = p->update_after_bind,
		.vulkanMemoryModel = p->memory_model};
	VkPhysicalDeviceVulkan11Features f11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
	                                        .pNext = &f12,
	                                        .storageBuffer16BitAccess = VK_TRUE};
	const VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
	                                            .pNext = &f11,
	                                            .features = {.shaderInt16 = p->int16,
	                                                         .fragmentStoresAndAtomics = in_shaders,
	                                                         .vertexPipelineStoresAndAtomics = in_shaders}};
	const float priority = 1.0f;
	const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
	                                       .queueFamilyIndex = p->queue_family,
	                                       .queueCount = 1,
	                                       .pQueuePriorities = &priority};
	const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
	                                 .pNext = &features,
	                                 .queueCreateInfoCount = 1,
	                                 .pQueueCreateInfos = &queue,
	                                 .enabledExtensionCount = name_count,
	                                 .ppEnabledExtensionNames = names};

	knit_status status =
		knit__vk_status(dev, dev->vk.CreateDevice(p->physical, &info, NULL, &dev->device), "vkCreateDevice", d);
	if (status != KNIT_OK)
		return status;
	status = knit__vk_load_device(&dev->vk, dev->device, d);
	if (status != KNIT_OK)
		return status;
	knit__vk_fail_device(&dev->vk);
	dev->queue_family = p->queue_family;
	dev->vk.GetDeviceQueue(dev->device, dev->queue_family, 0, &dev->queue);
	return KNIT_OK;
}

static bool environment_flag(const char *name) {
	const char *const text = getenv(name);

	return text && *text && strcmp(text, "0") != 0;
}

static void caps_fill(knit_device *dev) {
	const knit_vk_probe *const p = &dev->probe;
	const uint32_t align = p->caps.storage_align > 64 ? p->caps.storage_align : 64;

	dev->properties = p->properties;
	dev->memory = p->memory;
	dev->physical = p->physical;
	dev->kernel_caps = p->caps;
	knit__vk_tuning_load(p, &dev->kernel_caps.tuning);
	dev->pipeline_subgroup = p->pipeline_subgroup;
	dev->update_after_bind = p->update_after_bind;
	dev->timing = environment_flag("KNIT_TIMES") && p->timestamp_bits != 0;
	/* A buffer may be larger than a binding: every storage in it is bound by itself, large weights by ranges of rows. */
	dev->caps = (knit_caps){.max_buffer = p->caps.max_allocation_bytes,
	                        .max_binding_range = p->caps.max_binding_bytes,
	                        .buffer_align = align,
	                        .import_align = 0,
	                        .unified_memory = false,
	                        .timestamps = dev->timing};
}

static knit_status choose(knit_device *dev, uint32_t index, knit_diag *d) {
	knit_vk_probe list[KNIT_VK_MAX_PHYSICAL];
	uint32_t count = 0;

	const knit_status status = knit__vk_probe_all(&dev->vk, dev->instance, list, &count, d);
	if (status != KNIT_OK)
		return status;
	if (index >= count)
		return knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "no device vulkan:%u: there are %u", index, count);
	if (list[index].reason[0])
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "%.80s cannot be used: %s", list[index].properties.deviceName,
		                  list[index].reason);
	dev->probe = list[index];
	return KNIT_OK;
}

static knit_status open_steps(knit_device *dev, uint32_t index, const knit_context_desc *host, knit_diag *d) {
	knit_status status = knit__vk_instance_open(host, &dev->host, &dev->vk, d);

	if (status != KNIT_OK)
		return status;
	dev->instance = dev->host.handle;
	status = choose(dev, index, d);
	if (status != KNIT_OK)
		return status;
	caps_fill(dev);
	knit__vk_fail_instance(&dev->vk);
	status = device_create(dev, d);
	if (status == KNIT_OK)
		status = knit__vk_heap_make(dev, d);
	if (status == KNIT_OK)
		status = knit__vk_staging_make(dev, d);
	if (status == KNIT_OK)
		status = knit__vk_pipelines_make(dev, d);
	return status;
}

knit_status knit__vk_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *d) {
	const knit_allocator a = host->allocator.alloc ? host->allocator : knit__default_allocator;

	*out = NULL;
	knit_device *const dev = knit__alloc_zero(&a, sizeof *dev);
	if (!dev)
		return knit__fail_memory(d, "the Vulkan device", sizeof *dev);
	dev->a = a;
	pthread_mutex_init(&dev->queue_lock, NULL);
	const knit_status status = open_steps(dev, index, host, d);
	if (status != KNIT_OK) {
		knit__vk_close(dev);
		return status;
	}
	*out = dev;
	return KNIT_OK;
}

void knit__vk_close(knit_device *dev) {
	const knit_allocator a = dev->a;

	/* Waiting first: of a lost device too, whose work has ended by then. */
	if (dev->device && dev->vk.DeviceWaitIdle)
		dev->vk.DeviceWaitIdle(dev->device);
	if (dev->pipelines)
		knit__vk_pipelines_free(dev);
	if (dev->staging)
		knit__vk_staging_free(dev);
	if (dev->heap)
		knit__vk_heap_free(dev);
	if (dev->device && dev->vk.DestroyDevice)
		dev->vk.DestroyDevice(dev->device, NULL);
	knit__vk_instance_close(&dev->host, &dev->vk);
	pthread_mutex_destroy(&dev->queue_lock);
	knit__free(&a, dev, sizeof *dev);
}
