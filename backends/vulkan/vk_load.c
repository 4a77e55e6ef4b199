/* Owns the opening of the Vulkan loader and the filling of the function tables. Knows no device. */
#include "vk_load.h"

#include "../../graph/base.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* The loader stays open until the process ends: drivers leave threads and exit handlers behind that must not lose their
 * code. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static PFN_vkGetInstanceProcAddr get_instance_proc;
static char open_error[160];

static void loader_open(void) {
	/* KNIT_VK_LOADER names another library, or none (tests of machines without Vulkan). */
	const char *const wanted = getenv("KNIT_VK_LOADER");
	const char *const names[] = {wanted && *wanted ? wanted : "libvulkan.so.1", wanted && *wanted ? NULL : "libvulkan.so"};
	void *library = NULL;

	for (size_t i = 0; !library && i < sizeof names / sizeof names[0] && names[i]; ++i)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(open_error, sizeof open_error, "no Vulkan loader: %s is not installed", names[0]);
		return;
	}
	/* POSIX lets the result of dlsym be a function. */
	*(void **)&get_instance_proc = dlsym(library, "vkGetInstanceProcAddr");
	if (!get_instance_proc) {
		snprintf(open_error, sizeof open_error, "%s is no Vulkan loader: it has no vkGetInstanceProcAddr", names[0]);
		dlclose(library);
	}
}

knit_status knit__vk_load_global(knit_vk_api *vk, knit_diag *d) {
	*vk = (knit_vk_api){0};
	pthread_once(&once, loader_open);
	if (!get_instance_proc)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "%s", open_error);

	vk->GetInstanceProcAddr = get_instance_proc;
#define LOAD(name) vk->name = (PFN_vk##name)get_instance_proc(NULL, "vk" #name);
	KNIT_VK_GLOBAL_FUNCTIONS(LOAD)
#undef LOAD
	uint32_t version = VK_API_VERSION_1_0;
	if (vk->EnumerateInstanceVersion && vk->EnumerateInstanceVersion(&version) != VK_SUCCESS)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the Vulkan loader does not say its version");
	if (version < VK_API_VERSION_1_2)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the Vulkan loader is of version %u.%u: 1.2 is needed",
		                  VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
	if (!vk->CreateInstance || !vk->EnumerateInstanceExtensionProperties || !vk->EnumerateInstanceLayerProperties)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the Vulkan loader lacks vkCreateInstance");
	return KNIT_OK;
}

knit_status knit__vk_load_instance(knit_vk_api *vk, VkInstance instance, knit_diag *d) {
	const char *missing = NULL;

#define LOAD(name) vk->name = (PFN_vk##name)vk->GetInstanceProcAddr(instance, "vk" #name);
#define NEED(name) LOAD(name) missing = vk->name || missing ? missing : "vk" #name;
	KNIT_VK_INSTANCE_FUNCTIONS(NEED)
	KNIT_VK_OPTIONAL_INSTANCE_FUNCTIONS(LOAD)
#undef NEED
#undef LOAD
	if (missing)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the Vulkan loader lacks %s", missing);
	return KNIT_OK;
}

knit_status knit__vk_load_device(knit_vk_api *vk, VkDevice device, knit_diag *d) {
	const char *missing = NULL;

#define LOAD(name) vk->name = (PFN_vk##name)vk->GetDeviceProcAddr(device, "vk" #name);
#define NEED(name) LOAD(name) missing = vk->name || missing ? missing : "vk" #name;
	KNIT_VK_DEVICE_FUNCTIONS(NEED)
	KNIT_VK_OPTIONAL_DEVICE_FUNCTIONS(LOAD)
#undef NEED
#undef LOAD
	if (missing)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "the driver lacks %s", missing);
	return KNIT_OK;
}

const char *knit__vk_result_name(VkResult result) {
	switch ((int)result) {
#define NAME(r) \
	case r: \
		return #r;
		NAME(VK_SUCCESS)
		NAME(VK_NOT_READY)
		NAME(VK_TIMEOUT)
		NAME(VK_INCOMPLETE)
		NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
		NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
		NAME(VK_ERROR_INITIALIZATION_FAILED)
		NAME(VK_ERROR_DEVICE_LOST)
		NAME(VK_ERROR_MEMORY_MAP_FAILED)
		NAME(VK_ERROR_LAYER_NOT_PRESENT)
		NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
		NAME(VK_ERROR_FEATURE_NOT_PRESENT)
		NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
		NAME(VK_ERROR_TOO_MANY_OBJECTS)
		NAME(VK_ERROR_FRAGMENTED_POOL)
		NAME(VK_ERROR_UNKNOWN)
		NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
		NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
		NAME(VK_ERROR_FRAGMENTATION)
		NAME(VK_ERROR_INVALID_SHADER_NV)
#undef NAME
	default:
		return "an unknown VkResult";
	}
}
