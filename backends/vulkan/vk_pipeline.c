/* Owns the pipelines of a device: made on first use, shared by all its plans, never thrown away before the device. Their
 * layouts hang on nothing but the number of bindings. Knows no kernel. */
#include "vk_cache.h"
#include "vk_shaders.h"

#include <string.h>

/* A run that is broken off loses no more than the making of this many. */
#define SAVE_AFTER 16

typedef struct pipeline_entry {
	knit_vk_pipeline made; /* first: callers keep its address */
	const knit_vk_shader *shader;
	uint32_t spec[KNIT_VK_MAX_SPEC];
	uint8_t spec_count, subgroup;
	struct pipeline_entry *next; /* of the same bucket */
} pipeline_entry;

typedef struct binding_layout { VkDescriptorSetLayout set; VkPipelineLayout pipeline; } binding_layout;

#define BUCKETS 256

struct knit_vk_pipelines {
	pthread_mutex_t lock;
	VkPipelineCache cache;
	binding_layout layouts[KNIT_VK_MAX_BINDINGS + 1]; /* by number of storage buffers */
	pipeline_entry *buckets[BUCKETS];
	uint32_t unsaved;
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

knit_status knit__vk_pipelines_make(knit_device *dev, knit_diag *d) {
	struct knit_vk_pipelines *const p = knit__alloc_zero(&dev->a, sizeof *p);
	size_t bytes;

	if (!p)
		return knit__fail_memory(d, "the pipelines of a device", sizeof *p);
	if (pthread_mutex_init(&p->lock, NULL) != 0) {
		knit__free(&dev->a, p, sizeof *p);
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "the pipelines' lock cannot be made");
	}
	void *const kept = knit__vk_cache_load(dev, &bytes);
	VkPipelineCacheCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, .initialDataSize = bytes, .pInitialData = kept};
	VkResult result = dev->vk.CreatePipelineCache(dev->device, &info, NULL, &p->cache);
	if (result != VK_SUCCESS && kept) {
		info = (VkPipelineCacheCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
		result = dev->vk.CreatePipelineCache(dev->device, &info, NULL, &p->cache);
	}
	if (kept)
		knit__free(&dev->a, kept, bytes);
	if (result != VK_SUCCESS) {
		pthread_mutex_destroy(&p->lock);
		knit__free(&dev->a, p, sizeof *p);
		return knit__vk_status(dev, result, "vkCreatePipelineCache", d);
	}
	dev->pipelines = p;
	return KNIT_OK;
}

static void save(knit_device *dev) {
	struct knit_vk_pipelines *const p = dev->pipelines;
	size_t bytes = 0;

	p->unsaved = 0;
	if (dev->lost || dev->vk.GetPipelineCacheData(dev->device, p->cache, &bytes, NULL) != VK_SUCCESS || bytes == 0)
		return;
	void *const data = knit__alloc(&dev->a, bytes);
	size_t got = bytes;
	if (!data)
		return;
	if (dev->vk.GetPipelineCacheData(dev->device, p->cache, &got, data) == VK_SUCCESS)
		knit__vk_cache_save(dev, data, got);
	knit__free(&dev->a, data, bytes);
}

void knit__vk_pipelines_free(knit_device *dev) {
	struct knit_vk_pipelines *const p = dev->pipelines;

	if (!p)
		return;
	if (p->unsaved)
		save(dev);
	for (uint32_t i = 0; i < BUCKETS; ++i) {
		for (pipeline_entry *e = p->buckets[i], *next; e; e = next) {
			next = e->next;
			dev->vk.DestroyPipeline(dev->device, e->made.pipeline, NULL);
			knit__free(&dev->a, e, sizeof *e);
		}
	}
	for (uint32_t i = 0; i <= KNIT_VK_MAX_BINDINGS; ++i) {
		dev->vk.DestroyPipelineLayout(dev->device, p->layouts[i].pipeline, NULL);
		dev->vk.DestroyDescriptorSetLayout(dev->device, p->layouts[i].set, NULL);
	}
	dev->vk.DestroyPipelineCache(dev->device, p->cache, NULL);
	pthread_mutex_destroy(&p->lock);
	knit__free(&dev->a, p, sizeof *p);
	dev->pipelines = NULL;
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

/* Binding 0 is the parameter block, the others are storage buffers. */
static knit_status layout_get(knit_device *dev, uint32_t count, const binding_layout **out, knit_diag *d) {
	binding_layout *const l = &dev->pipelines->layouts[count];
	VkDescriptorSetLayoutBinding bindings[KNIT_VK_MAX_BINDINGS + 1];
	VkDescriptorBindingFlags flags[KNIT_VK_MAX_BINDINGS + 1] = {0};
	VkResult result = VK_SUCCESS;

	*out = l;
	for (uint32_t i = 0; i <= count; ++i) {
		bindings[i] = (VkDescriptorSetLayoutBinding){
			.binding = i,
			.descriptorType = i ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER : VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
			.descriptorCount = 1,
			.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
		if (i && dev->update_after_bind)
			flags[i] = VK_DESCRIPTOR_BINDING_UPDATE_AFTER_BIND_BIT;
	}
	const VkDescriptorSetLayoutBindingFlagsCreateInfo later = {
		.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO,
		.bindingCount = count + 1,
		.pBindingFlags = flags};
	const VkDescriptorSetLayoutCreateInfo set = {
		.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
		.pNext = dev->update_after_bind ? &later : NULL,
		.flags = dev->update_after_bind ? VK_DESCRIPTOR_SET_LAYOUT_CREATE_UPDATE_AFTER_BIND_POOL_BIT : 0,
		.bindingCount = count + 1,
		.pBindings = bindings};
	if (!l->set)
		result = dev->vk.CreateDescriptorSetLayout(dev->device, &set, NULL, &l->set);
	if (result != VK_SUCCESS)
		return knit__vk_status(dev, result, "vkCreateDescriptorSetLayout", d);
	const VkPipelineLayoutCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &l->set};
	if (!l->pipeline)
		result = dev->vk.CreatePipelineLayout(dev->device, &info, NULL, &l->pipeline);
	return result == VK_SUCCESS ? KNIT_OK : knit__vk_status(dev, result, "vkCreatePipelineLayout", d);
}

/* ---- pipelines --------------------------------------------------------------------------------------------------- */

static VkResult compile(knit_device *dev, const knit_vk_dispatch *want, pipeline_entry *e) {
	const VkShaderModuleCreateInfo code = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
	                                       .codeSize = e->shader->code_bytes,
	                                       .pCode = e->shader->code};
	VkSpecializationMapEntry map[KNIT_VK_MAX_SPEC];
	VkShaderModule module;

	VkResult result = dev->vk.CreateShaderModule(dev->device, &code, NULL, &module);
	if (result != VK_SUCCESS)
		return result;
	for (uint32_t i = 0; i < want->spec_count; ++i)
		map[i] = (VkSpecializationMapEntry){.constantID = i, .offset = i * 4, .size = 4};
	const VkSpecializationInfo constants = {
		.mapEntryCount = want->spec_count, .pMapEntries = map, .dataSize = want->spec_count * 4u, .pData = want->spec};
	const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo width = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
		.requiredSubgroupSize = want->subgroup ? want->subgroup : dev->pipeline_subgroup};
	const VkComputePipelineCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
		.stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
	              .pNext = width.requiredSubgroupSize ? &width : NULL,
	              .stage = VK_SHADER_STAGE_COMPUTE_BIT,
	              .module = module,
	              .pName = "main",
	              .pSpecializationInfo = want->spec_count ? &constants : NULL},
		.layout = e->made.layout};
	result = dev->vk.CreateComputePipelines(dev->device, dev->pipelines->cache, 1, &info, NULL, &e->made.pipeline);
	dev->vk.DestroyShaderModule(dev->device, module, NULL);
	return result;
}

static bool same(const pipeline_entry *e, const knit_vk_dispatch *want) {
	return e->made.binding_count == want->binding_count && e->subgroup == want->subgroup &&
	       e->spec_count == want->spec_count && strcmp(e->shader->name, want->shader) == 0 &&
	       memcmp(e->spec, want->spec, want->spec_count * sizeof *want->spec) == 0;
}

static uint64_t key(const knit_vk_dispatch *want) {
	uint64_t h = knit__hash(KNIT__HASH_SEED, want->shader, strlen(want->shader));

	h = knit__hash(h, want->spec, want->spec_count * sizeof *want->spec);
	h = knit__hash(h, &want->subgroup, sizeof want->subgroup);
	return knit__hash(h, &want->binding_count, sizeof want->binding_count);
}

static knit_status make(knit_device *dev, const knit_vk_dispatch *want, pipeline_entry **out, knit_diag *d) {
	const knit_vk_shader *const shader = knit__vk_shader_find(want->shader);
	const binding_layout *layout;

	if (!shader)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "there is no shader \"%s\"", want->shader);
	const knit_status status = layout_get(dev, want->binding_count, &layout, d);
	if (status != KNIT_OK)
		return status;
	pipeline_entry *const e = knit__alloc_zero(&dev->a, sizeof *e);
	if (!e)
		return knit__fail_memory(d, "a pipeline", sizeof *e);
	e->shader = shader;
	e->spec_count = want->spec_count;
	e->subgroup = want->subgroup;
	memcpy(e->spec, want->spec, want->spec_count * sizeof *want->spec);
	e->made = (knit_vk_pipeline){
		.layout = layout->pipeline, .set_layout = layout->set, .binding_count = want->binding_count};
	const VkResult result = compile(dev, want, e);
	if (result != VK_SUCCESS || !e->made.pipeline) {
		knit__free(&dev->a, e, sizeof *e);
		if (result == VK_SUCCESS)
			return knit__fail(d, KNIT_ERR_DEVICE, 0, "the driver's compiler gave nothing for shader \"%s\"", want->shader);
		if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
		    result == VK_ERROR_DEVICE_LOST)
			return knit__vk_status(dev, result, want->shader, d);
		return knit__fail(d, KNIT_ERR_DEVICE, 0, "the driver's compiler refuses shader \"%s\": %s", want->shader,
		                  knit__vk_result_name(result));
	}
	*out = e;
	return KNIT_OK;
}

knit_status knit__vk_pipeline(knit_device *dev, const knit_vk_dispatch *want, const knit_vk_pipeline **out, knit_diag *d) {
	struct knit_vk_pipelines *const p = dev->pipelines;
	knit_status status = KNIT_OK;

	*out = NULL;
	if (!want->shader || want->spec_count > KNIT_VK_MAX_SPEC || want->binding_count > KNIT_VK_MAX_BINDINGS)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "a dispatch of \"%s\" with %u bindings and %u constants",
		                  want->shader ? want->shader : "no shader", want->binding_count, want->spec_count);
	pipeline_entry **const bucket = &p->buckets[key(want) % BUCKETS];

	/* Held while the driver compiles: two sessions that open at once would make the same ones. */
	pthread_mutex_lock(&p->lock);
	pipeline_entry *e = *bucket;
	while (e && !same(e, want))
		e = e->next;
	if (!e) {
		status = make(dev, want, &e, d);
		if (status == KNIT_OK) {
			e->next = *bucket;
			*bucket = e;
			knit__vk_count(&dev->counters.pipelines, 1);
			if (++p->unsaved >= SAVE_AFTER)
				save(dev);
		}
	}
	pthread_mutex_unlock(&p->lock);
	if (status == KNIT_OK)
		*out = &e->made;
	return status;
}
