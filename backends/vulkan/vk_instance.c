/* Owns the making of the Vulkan instance and the routing of what validation says. Knows no device. */
#include "vk_instance.h"

#include "../../graph/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYER "VK_LAYER_KHRONOS_validation"

static atomic_uint_least64_t messages;

uint64_t knit__vk_messages(void) { return atomic_load(&messages); }

static VKAPI_ATTR VkBool32 VKAPI_CALL message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                              VkDebugUtilsMessageTypeFlagsEXT types,
                                              const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
	const knit_vk_instance *const instance = user;

	(void)severity;
	/* "General" messages are the loader's talk about files that it found or did not. */
	if (!(types & VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT))
		return VK_FALSE;
	atomic_fetch_add(&messages, 1);
	if (instance->log) {
		instance->log(instance->log_user, KNIT_LOG_WARNING, data->pMessage);
		return VK_FALSE;
	}
	fprintf(stderr, "vulkan: %s\n", data->pMessage);
	return VK_FALSE;
}

static knit_status validation_wanted(knit_vk_validation *out, knit_diag *d) {
	const char *const text = getenv("KNIT_VK_VALIDATE");

	*out = KNIT_VK_VALIDATE_OFF;
	if (!text || !*text || strcmp(text, "0") == 0)
		return KNIT_OK;
	if (strcmp(text, "1") == 0)
		*out = KNIT_VK_VALIDATE_CORE;
	else if (strcmp(text, "sync") == 0)
		*out = KNIT_VK_VALIDATE_SYNC;
	else if (strcmp(text, "gpu") == 0)
		*out = KNIT_VK_VALIDATE_GPU;
	else
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "KNIT_VK_VALIDATE=%.32s: use 0, 1, sync or gpu", text);
	return KNIT_OK;
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(knit_vk_instance *instance) {
	return (VkDebugUtilsMessengerCreateInfoEXT){
		.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
		.messageSeverity =
			VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
		.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
		.pfnUserCallback = message,
		.pUserData = instance,
	};
}

static knit_status instance_create(knit_vk_instance *out, const knit_vk_api *vk, knit_diag *d) {
	const VkValidationFeatureEnableEXT sync = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
	const VkValidationFeatureEnableEXT gpu[] = {VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT,
	                                            VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_RESERVE_BINDING_SLOT_EXT};
	const char *const layers[] = {LAYER};
	const char *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
	const bool on = out->validation != KNIT_VK_VALIDATE_OFF;
	const bool in_shaders = out->validation == KNIT_VK_VALIDATE_GPU;
	const VkDebugUtilsMessengerCreateInfoEXT messenger = messenger_info(out);
	/* Chained as well, so that faults in making and unmaking the instance itself are heard of. */
	const VkValidationFeaturesEXT features = {
		.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
		.pNext = &messenger,
		.enabledValidationFeatureCount = in_shaders ? 2 : 1,
		.pEnabledValidationFeatures = in_shaders ? gpu : &sync,
	};
	const void *const chain = out->validation >= KNIT_VK_VALIDATE_SYNC ? (const void *)&features : &messenger;
	const VkApplicationInfo app = {
		.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pEngineName = "knit", .apiVersion = VK_API_VERSION_1_2};
	const VkInstanceCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
		.pNext = on ? chain : NULL,
		.pApplicationInfo = &app,
		.enabledLayerCount = on ? 1 : 0,
		.ppEnabledLayerNames = layers,
		.enabledExtensionCount = on ? 1 : 0,
		.ppEnabledExtensionNames = extensions,
	};

	const VkResult result = vk->CreateInstance(&info, NULL, &out->handle);
	if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the Vulkan loader found no driver");
	if (result == VK_ERROR_LAYER_NOT_PRESENT || result == VK_ERROR_EXTENSION_NOT_PRESENT)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "KNIT_VK_VALIDATE is set, but " LAYER " is not installed");
	if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "out of memory for the Vulkan instance");
	if (result != VK_SUCCESS)
		return knit__fail(d, KNIT_ERR_DEVICE, 0, "vkCreateInstance: %s", knit__vk_result_name(result));
	return KNIT_OK;
}

/* An instance that is never used and never destroyed keeps the libraries of drivers (and one more those of the layer)
 * in memory: closing and opening them again costs tens of milliseconds, and some leave threads and exit handlers
 * behind that must not lose their code. */
static void keep_drivers(const knit_vk_instance *like, const knit_vk_api *vk) {
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static knit_vk_instance kept[2];
	knit_vk_instance *const k = &kept[like->validation != KNIT_VK_VALIDATE_OFF];

	pthread_mutex_lock(&lock);
	if (!k->handle) {
		k->validation = like->validation;
		instance_create(k, vk, NULL);
	}
	pthread_mutex_unlock(&lock);
}

static knit_status messenger_create(knit_vk_instance *out, const knit_vk_api *vk, knit_diag *d) {
	const VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(out);

	if (out->validation == KNIT_VK_VALIDATE_OFF)
		return KNIT_OK;
	if (!vk->CreateDebugUtilsMessengerEXT || !vk->DestroyDebugUtilsMessengerEXT ||
	    vk->CreateDebugUtilsMessengerEXT(out->handle, &info, NULL, &out->messenger) != VK_SUCCESS)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "KNIT_VK_VALIDATE is set, but messages cannot be received");
	return KNIT_OK;
}

knit_status knit__vk_instance_open(const knit_context_desc *host, knit_vk_instance *out, knit_vk_api *vk,
                                   knit_diag *d) {
	*out = (knit_vk_instance){.log = host->log, .log_user = host->log_user};
	knit_status status = knit__vk_load_global(vk, d);
	if (status == KNIT_OK)
		status = validation_wanted(&out->validation, d);
	if (status == KNIT_OK)
		status = instance_create(out, vk, d);
	if (status != KNIT_OK)
		return status;
	keep_drivers(out, vk);
	status = knit__vk_load_instance(vk, out->handle, d);
	if (status == KNIT_OK)
		status = messenger_create(out, vk, d);
	if (status != KNIT_OK)
		knit__vk_instance_close(out, vk);
	return status;
}

void knit__vk_instance_close(knit_vk_instance *instance, const knit_vk_api *vk) {
	if (instance->messenger)
		vk->DestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
	if (instance->handle && vk->DestroyInstance)
		vk->DestroyInstance(instance->handle, NULL);
	instance->messenger = VK_NULL_HANDLE;
	instance->handle = VK_NULL_HANDLE;
}
