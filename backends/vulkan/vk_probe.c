/* Owns the questions that are put to a physical device: features, limits, memory. Decides here, once, whether it can be
 * used; opens nothing. */
#include "vk_probe.h"

#include "vk_coopmat.h"
#include "vk_limits.h"

#include <stdio.h>
#include <string.h>

#define MAX_EXTENSIONS 512
#define MAX_FAMILIES 16
#define MAX_COOPMATS 64
#define MAX_GROUPS 65535

const char *knit__vk_class_name(knit_vk_class device_class) {
	switch (device_class) {
	case KNIT_VK_DISCRETE:
		return "discrete";
	case KNIT_VK_INTEGRATED:
		return "integrated";
	default:
		return "software";
	}
}

/* Everything that is asked, in one place: the chains are built and read below. */
typedef struct answers {
	VkPhysicalDeviceFeatures2 features;
	VkPhysicalDeviceVulkan11Features f11;
	VkPhysicalDeviceVulkan12Features f12;
	VkPhysicalDeviceShaderIntegerDotProductFeatures dot;
	VkPhysicalDeviceSubgroupSizeControlFeatures control;
	knit_vk_coopmat_features coopmat;
	VkPhysicalDeviceProperties2 properties;
	VkPhysicalDeviceVulkan11Properties p11;
	VkPhysicalDeviceVulkan12Properties p12;
	VkPhysicalDeviceSubgroupSizeControlProperties sizes;
	VkPhysicalDeviceExternalMemoryHostPropertiesEXT import;
	VkPhysicalDeviceMaintenance4Properties buffers;
} answers;

typedef struct extensions {
	bool dot, control, coopmat, import, buffers, budget;
} extensions;

static bool extensions_read(const knit_vk_api *vk, VkPhysicalDevice physical, extensions *out) {
	static const struct { const char *name; size_t at; } wanted[] = {
		{VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME, offsetof(extensions, dot)},
		{VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME, offsetof(extensions, control)},
		{KNIT_VK_COOPMAT_EXTENSION, offsetof(extensions, coopmat)},
		{VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME, offsetof(extensions, import)},
		{VK_KHR_MAINTENANCE_4_EXTENSION_NAME, offsetof(extensions, buffers)},
		{VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, offsetof(extensions, budget)},
	};
	VkExtensionProperties list[MAX_EXTENSIONS];
	uint32_t count = MAX_EXTENSIONS;

	*out = (extensions){0};
	const VkResult result = vk->EnumerateDeviceExtensionProperties(physical, NULL, &count, list);
	if (result != VK_SUCCESS && result != VK_INCOMPLETE)
		return false;
	for (uint32_t i = 0; i < count; ++i) {
		for (size_t k = 0; k < sizeof wanted / sizeof wanted[0]; ++k) {
			if (strcmp(list[i].extensionName, wanted[k].name) == 0)
				*(bool *)((char *)out + wanted[k].at) = true;
		}
	}
	return true;
}

static void link_if(bool wanted, void ***tail, void *structure) {
	VkBaseOutStructure *const s = structure;

	if (!wanted)
		return;
	**tail = s;
	*tail = (void **)&s->pNext;
}

static void ask(const knit_vk_api *vk, knit_vk_probe *p, const extensions *e, answers *a) {
	*a = (answers){
		.features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
		.f11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
		.f12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
		.dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
		.control.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
		.coopmat.sType = KNIT_VK_COOPMAT_FEATURES_TYPE,
		.properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
		.p11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES,
		.p12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES,
		.sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES,
		.import.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT,
		.buffers.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES,
	};
	void **tail = &a->features.pNext;
	link_if(true, &tail, &a->f11);
	link_if(true, &tail, &a->f12);
	link_if(e->dot, &tail, &a->dot);
	link_if(e->control, &tail, &a->control);
	link_if(e->coopmat, &tail, &a->coopmat);
	vk->GetPhysicalDeviceFeatures2(p->physical, &a->features);
	tail = &a->properties.pNext;
	link_if(true, &tail, &a->p11);
	link_if(true, &tail, &a->p12);
	link_if(e->control, &tail, &a->sizes);
	link_if(e->import, &tail, &a->import);
	link_if(e->buffers, &tail, &a->buffers);
	vk->GetPhysicalDeviceProperties2(p->physical, &a->properties);
}

static void driver_copy(knit_vk_probe *p, const VkPhysicalDeviceVulkan12Properties *from) {
	p->driver.driverID = from->driverID;
	memcpy(p->driver.driverName, from->driverName, sizeof p->driver.driverName);
	memcpy(p->driver.driverInfo, from->driverInfo, sizeof p->driver.driverInfo);
	p->driver.conformanceVersion = from->conformanceVersion;
}

/* ---- usable or not ----------------------------------------------------------------------------------------------- */

static const char *missing_feature(const answers *a) {
	const VkSubgroupFeatureFlags ops = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT |
	                                   VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
	const struct { bool there; const char *name; } needed[] = {
		{a->f11.storageBuffer16BitAccess, "storageBuffer16BitAccess"},
		{a->f12.storageBuffer8BitAccess, "storageBuffer8BitAccess"},
		{a->f12.shaderFloat16, "shaderFloat16"},
		{a->f12.shaderInt8, "shaderInt8"},
		{a->f12.uniformBufferStandardLayout, "uniformBufferStandardLayout"},
		{(a->p11.subgroupSupportedOperations & ops) == ops, "subgroup arithmetic and shuffle"},
		{a->p11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT, "subgroup operations in compute shaders"},
		{a->properties.properties.limits.maxPerStageDescriptorStorageBuffers >= KNIT_VK_MAX_BINDINGS,
		 "room for 20 storage buffers in a shader"},
	};

	for (size_t i = 0; i < sizeof needed / sizeof needed[0]; ++i) {
		if (!needed[i].there)
			return needed[i].name;
	}
	return NULL;
}

/* A family that computes and does not draw, where there is one: its work does not wait for the screen's. */
static bool queue_choose(const knit_vk_api *vk, knit_vk_probe *p) {
	VkQueueFamilyProperties list[MAX_FAMILIES];
	uint32_t count = MAX_FAMILIES;
	int best = -1;

	vk->GetPhysicalDeviceQueueFamilyProperties(p->physical, &count, list);
	for (uint32_t i = 0; i < count; ++i) {
		if (!(list[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || list[i].queueCount == 0)
			continue;
		const int rank = (list[i].timestampValidBits ? 2 : 0) + (list[i].queueFlags & VK_QUEUE_GRAPHICS_BIT ? 0 : 1);
		if (rank <= best)
			continue;
		best = rank;
		p->queue_family = i;
		p->timestamp_bits = list[i].timestampValidBits;
	}
	return best >= 0;
}

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

static knit_vk_class class_of(VkPhysicalDeviceType type) {
	switch (type) {
	case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
	case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
		return KNIT_VK_DISCRETE;
	case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
	case VK_PHYSICAL_DEVICE_TYPE_OTHER:
		return KNIT_VK_INTEGRATED;
	default:
		return KNIT_VK_SOFTWARE;
	}
}

/* What kernels use: f16 in, f32 sums, by a subgroup; 16 x 16 x 16, else 8 x 8 x 8. Others would fit the shader, but none has
 * been met, and drivers may tie them to a size of subgroups. */
static bool coopmat_choose(const knit_vk_api *vk, VkInstance instance, VkPhysicalDevice physical,
                           knit_vk_matrix *out) {
	const knit_vk_coopmat_query query = (knit_vk_coopmat_query)vk->GetInstanceProcAddr(instance, KNIT_VK_COOPMAT_QUERY);
	knit_vk_coopmat_properties list[MAX_COOPMATS];
	uint32_t count = MAX_COOPMATS;

	*out = (knit_vk_matrix){0};
	for (uint32_t i = 0; i < MAX_COOPMATS; ++i)
		list[i] = (knit_vk_coopmat_properties){.sType = KNIT_VK_COOPMAT_PROPERTIES_TYPE};
	if (!query || query(physical, &count, list) < 0)
		return false;
	for (uint32_t i = 0; i < count && i < MAX_COOPMATS; ++i) {
		const knit_vk_coopmat_properties *const c = &list[i];
		if ((c->m != 16 && c->m != 8) || c->n != c->m || c->k != c->m || c->a_type != KNIT_VK_COMPONENT_F16 ||
		    c->b_type != KNIT_VK_COMPONENT_F16 || c->c_type != KNIT_VK_COMPONENT_F32 ||
		    c->result_type != KNIT_VK_COMPONENT_F32 || c->scope != KNIT_VK_SCOPE_SUBGROUP)
			continue;
		if (c->m > out->m)
			*out = (knit_vk_matrix){c->m, c->n, c->k};
	}
	return out->m != 0;
}

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

static void caps_fill(knit_vk_probe *p, const answers *a, const extensions *e) {
	const VkPhysicalDeviceLimits *const limits = &p->properties.limits;
	uint64_t allocation = a->p11.maxMemoryAllocationSize;

	if (e->buffers && a->buffers.maxBufferSize && a->buffers.maxBufferSize < allocation)
		allocation = a->buffers.maxBufferSize;
	p->allocation_limit = limits->maxMemoryAllocationCount;
	p->map_local = true;
	p->caps = (knit_vk_caps){
		.features = p->offered,
		.vendor = p->properties.vendorID,
		.device_class = class_of(p->properties.deviceType),
		.tuning = *knit__vk_tuning_of(class_of(p->properties.deviceType)),
		.subgroup = a->p11.subgroupSize,
		.subgroup_min = p->subgroup_control ? a->sizes.minSubgroupSize : a->p11.subgroupSize,
		.subgroup_max = p->subgroup_control ? a->sizes.maxSubgroupSize : a->p11.subgroupSize,
		.max_invocations = min_u32(limits->maxComputeWorkGroupInvocations, limits->maxComputeWorkGroupSize[0]),
		.max_shared_bytes = limits->maxComputeSharedMemorySize,
		.max_groups = min_u32(MAX_GROUPS, min_u32(limits->maxComputeWorkGroupCount[0],
		                                          min_u32(limits->maxComputeWorkGroupCount[1],
		                                                  limits->maxComputeWorkGroupCount[2]))),
		.storage_align = (uint32_t)limits->minStorageBufferOffsetAlignment,
		.max_binding_bytes = limits->maxStorageBufferRange,
		.max_allocation_bytes = allocation,
		.matrix = p->matrix,
	};
}

static void features_fill(const knit_vk_api *vk, VkInstance instance, knit_vk_probe *p, const answers *a,
                          const extensions *e) {
	p->integer_dot_extension = e->dot && a->dot.shaderIntegerDotProduct;
	p->subgroup_control = e->control && a->control.subgroupSizeControl &&
	                      (a->sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
	p->full_subgroups = e->control && a->control.computeFullSubgroups;
	p->memory_model = a->f12.vulkanMemoryModel;
	p->cooperative_matrix = e->coopmat && a->coopmat.cooperative_matrix && p->memory_model &&
	                        coopmat_choose(vk, instance, p->physical, &p->matrix);
	p->update_after_bind = a->f12.descriptorBindingStorageBufferUpdateAfterBind &&
	                       a->f12.descriptorBindingUpdateUnusedWhilePending;
	p->int16 = a->features.features.shaderInt16;
	p->stores_in_all_stages = a->features.features.fragmentStoresAndAtomics &&
	                          a->features.features.vertexPipelineStoresAndAtomics;
	p->memory_budget = e->budget;
	p->import_align = e->import ? a->import.minImportedHostPointerAlignment : 0;
	p->offered = (p->integer_dot_extension ? KNIT_VK_DOT : 0) | (p->cooperative_matrix ? KNIT_VK_COOPMAT : 0) |
	             (p->subgroup_control ? KNIT_VK_SUBGROUP_CONTROL : 0);
}

void knit__vk_probe_budget(const knit_vk_api *vk, knit_vk_probe *p) {
	VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
	VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
	                                            .pNext = p->memory_budget ? &budget : NULL};

	vk->GetPhysicalDeviceMemoryProperties2(p->physical, &memory);
	p->memory = memory.memoryProperties;
	for (uint32_t i = 0; i < p->memory.memoryHeapCount; ++i) {
		p->heap_budget[i] = p->memory_budget ? budget.heapBudget[i] : p->memory.memoryHeaps[i].size;
		p->heap_usage[i] = p->memory_budget ? budget.heapUsage[i] : 0;
	}
}

static void probe(const knit_vk_api *vk, VkInstance instance, knit_vk_probe *p) {
	extensions e;
	answers a;
	knit_diag why = {0};

	vk->GetPhysicalDeviceProperties(p->physical, &p->properties);
	p->caps.device_class = class_of(p->properties.deviceType);
	if (p->properties.apiVersion < VK_API_VERSION_1_2) {
		snprintf(p->reason, sizeof p->reason, "it offers Vulkan %u.%u: 1.2 is needed",
		         VK_API_VERSION_MAJOR(p->properties.apiVersion), VK_API_VERSION_MINOR(p->properties.apiVersion));
		return;
	}
	if (!extensions_read(vk, p->physical, &e)) {
		snprintf(p->reason, sizeof p->reason, "its extensions cannot be listed");
		return;
	}
	ask(vk, p, &e, &a);
	driver_copy(p, &a.p12);
	memcpy(p->uuid, a.p11.deviceUUID, sizeof p->uuid);
	features_fill(vk, instance, p, &a, &e);
	caps_fill(p, &a, &e);
	knit__vk_probe_budget(vk, p);
	const char *const missing = missing_feature(&a);
	if (missing)
		snprintf(p->reason, sizeof p->reason, "it lacks %s", missing);
	else if (!queue_choose(vk, p))
		snprintf(p->reason, sizeof p->reason, "it has no queue that computes");
	else if (knit__vk_limits_apply(p, &why) != KNIT_OK)
		snprintf(p->reason, sizeof p->reason, "%.150s", why.text);
}

static uint32_t rank(const knit_vk_probe *p) {
	return (p->reason[0] ? 8u : 0u) + (uint32_t)p->caps.device_class;
}

static void sort(knit_vk_probe *list, uint32_t count) {
	for (uint32_t i = 1; i < count; ++i) {
		for (uint32_t k = i; k > 0 && rank(&list[k]) < rank(&list[k - 1]); --k) {
			const knit_vk_probe kept = list[k];
			list[k] = list[k - 1];
			list[k - 1] = kept;
		}
	}
}

knit_status knit__vk_probe_all(const knit_vk_api *vk, VkInstance instance, knit_vk_probe *out, uint32_t *count,
                               knit_diag *d) {
	VkPhysicalDevice list[KNIT_VK_MAX_PHYSICAL];
	uint32_t n = KNIT_VK_MAX_PHYSICAL;

	*count = 0;
	const VkResult result = vk->EnumeratePhysicalDevices(instance, &n, list);
	if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "out of memory while Vulkan devices were looked for");
	if (result != VK_SUCCESS && result != VK_INCOMPLETE)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "no Vulkan driver answers: %s", knit__vk_result_name(result));
	if (n == 0)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "no Vulkan driver offers a device");
	for (uint32_t i = 0; i < n; ++i) {
		out[i] = (knit_vk_probe){.physical = list[i]};
		probe(vk, instance, &out[i]);
	}
	sort(out, n);
	*count = n;
	return KNIT_OK;
}
