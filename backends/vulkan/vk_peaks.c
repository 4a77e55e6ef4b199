/* Owns the measuring of what a device can do at best: which loops of shaders/peak.comp run, how long, and what they must give,
 * so that a driver that leaves work out is noticed. Knows no kernel and no plan. */
#include "vk_peaks.h"

#include "../../shaders/params/peak.h"
#include "vk_heap.h"
#include "vk_plan.h"

#include <stdio.h>
#include <string.h>

#define LONG_NS UINT64_C(20000000) /* beside which a submission is nothing */
#define ROUNDS 3
#define MAX_REPEAT (UINT32_C(1) << 19) /* sums of matrices stay exact: see expected_matrix */
#define PATIENCE_NS UINT64_C(60000000000)
#define FILLED UINT32_C(0x01020304)
#define VECTOR_BYTES UINT64_C(16)
#define MATRIX_ELEMENTS 1024 /* that the shader has room for */
#define RESULT_BYTES(s) ((uint64_t)(s)->groups * (s)->width * 4)

_Static_assert(sizeof(struct knit_peak_params) <= KNIT_VK_PARAM_BYTES, "parameters fit");

/* Groups enough to fill the device, each so wide (0: a subgroup, since on a processor one subgroup of a group runs after the other), and
 * what sizes are read. */
typedef struct sizes { uint32_t groups, width; uint64_t bytes[KNIT_PEAK_SIZES]; } sizes;
static const sizes of_class[] = {
	[KNIT_VK_DISCRETE] = {4096, 256, {UINT64_C(1) << 16, UINT64_C(1) << 20, UINT64_C(1) << 24, UINT64_C(1) << 29}},
	[KNIT_VK_INTEGRATED] = {1024, 256, {UINT64_C(1) << 16, UINT64_C(1) << 19, UINT64_C(1) << 22, UINT64_C(1) << 28}},
	[KNIT_VK_SOFTWARE] = {512, 0, {UINT64_C(1) << 14, UINT64_C(1) << 18, UINT64_C(1) << 22, UINT64_C(1) << 26}},
};

typedef struct peaks {
	knit_device *dev;
	knit_diag *d;
	sizes s;
	knit_buffer *from, *to, *result, *params;
	uint32_t *read_back; /* of result */
	VkDescriptorPool descriptors;
	VkCommandPool pool;
	VkCommandBuffer commands;
	VkFence fence;
} peaks;

/* One loop. */
typedef struct loop {
	knit_vk_dispatch dispatch;
	knit_buffer *bound[2];
	struct knit_peak_params params;
	uint32_t groups;
	uint64_t units; /* of one invocation at one repetition: bytes or operations */
	bool checks;    /* each invocation's result is expected(repeat, the loop) */
	uint32_t (*expected)(const struct loop *l, uint32_t repeat);
} loop;

/* ---- what they must give ----------------------------------------------------------------------------------------- */

static uint32_t bits_of(float f) {
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static uint32_t expected_read(const loop *l, uint32_t repeat) {
	(void)l;
	return repeat * 4 * FILLED;
}

/* Halves plus one: each of the 32 sums ends at 2 after some thirty times, in either precision. */
static uint32_t expected_float(const loop *l, uint32_t repeat) {
	(void)l, (void)repeat;
	return bits_of(64);
}

static uint32_t expected_dot(const loop *l, uint32_t repeat) {
	uint32_t sum = 0;

	for (uint32_t k = 0; k < 32; ++k) {
		uint32_t a = l->params.seed + k;
		for (uint32_t i = 0; i < repeat; ++i) {
			int32_t dot = 0;
			for (int byte = 0; byte < 4; ++byte)
				dot += (int8_t)(a >> 8 * byte) * (int8_t)(l->params.x >> 8 * byte);
			a += (uint32_t)dot;
		}
		sum += a;
	}
	return sum;
}

/* 8 matrices, each element grown by K products of 1/32 with itself: exact below 2^24 of the last place. */
static uint32_t expected_matrix(const loop *l, uint32_t repeat) {
	return bits_of(8.0f * (float)repeat * (float)l->dispatch.spec[10] / 1024);
}

/* ---- one submission ---------------------------------------------------------------------------------------------- */

static knit_status vk(peaks *p, VkResult result, const char *what) { return knit__vk_status(p->dev, result, what, p->d); }

static knit_status bind(peaks *p, const loop *l, const knit_vk_pipeline *pipeline, VkDescriptorSet *set) {
	const knit_vk_api *const api = &p->dev->vk;
	const VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
	                                          .descriptorPool = p->descriptors,
	                                          .descriptorSetCount = 1,
	                                          .pSetLayouts = &pipeline->set_layout};
	VkDescriptorBufferInfo buffers[3] = {{p->params->buffer, 0, KNIT_VK_PARAM_BYTES}};
	VkWriteDescriptorSet writes[3];

	knit_status status = vk(p, api->ResetDescriptorPool(p->dev->device, p->descriptors, 0), "vkResetDescriptorPool");
	if (status == KNIT_OK)
		status = vk(p, api->AllocateDescriptorSets(p->dev->device, &info, set), "vkAllocateDescriptorSets");
	if (status != KNIT_OK)
		return status;
	for (uint32_t i = 0; i < l->dispatch.binding_count; ++i)
		buffers[1 + i] = (VkDescriptorBufferInfo){l->bound[i]->buffer, 0, l->bound[i]->bytes};
	for (uint32_t i = 0; i <= l->dispatch.binding_count; ++i)
		writes[i] = (VkWriteDescriptorSet){
			.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
			.dstSet = *set,
			.dstBinding = i,
			.descriptorCount = 1,
			.descriptorType = i ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER : VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
			.pBufferInfo = &buffers[i]};
	api->UpdateDescriptorSets(p->dev->device, l->dispatch.binding_count + 1u, writes, 0, NULL);
	return KNIT_OK;
}

/* Everything before is done and seen, everything after sees it. */
static void barrier(const peaks *p) {
	const VkMemoryBarrier all = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
	                             .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
	                             .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT};

	p->dev->vk.CmdPipelineBarrier(p->commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 1,
	                              &all, 0, NULL, 0, NULL);
}

static knit_status begin(peaks *p) {
	const VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	const knit_status status = vk(p, p->dev->vk.BeginCommandBuffer(p->commands, &info), "vkBeginCommandBuffer");

	if (status == KNIT_OK)
		barrier(p);
	return status;
}

/* Submits what was recorded and waits; *ns is how long that took. */
static knit_status finish(peaks *p, uint64_t *ns) {
	const knit_vk_api *const api = &p->dev->vk;
	const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &p->commands};

	barrier(p);
	knit_status status = vk(p, api->EndCommandBuffer(p->commands), "vkEndCommandBuffer");
	const uint64_t from = knit__vk_now_ns();
	pthread_mutex_lock(&p->dev->queue_lock);
	if (status == KNIT_OK)
		status = vk(p, api->QueueSubmit(p->dev->queue, 1, &info, p->fence), "vkQueueSubmit");
	pthread_mutex_unlock(&p->dev->queue_lock);
	if (status != KNIT_OK)
		return status;
	VkResult result = api->WaitForFences(p->dev->device, 1, &p->fence, VK_TRUE, PATIENCE_NS);
	*ns = knit__vk_now_ns() - from;
	if (result == VK_TIMEOUT)
		result = VK_ERROR_DEVICE_LOST;
	if (result == VK_SUCCESS)
		result = api->ResetFences(p->dev->device, 1, &p->fence);
	return vk(p, result, "vkWaitForFences");
}

static knit_status fill(peaks *p, knit_buffer *b, uint32_t word) {
	uint64_t ns;

	knit_status status = begin(p);
	if (status != KNIT_OK)
		return status;
	p->dev->vk.CmdFillBuffer(p->commands, b->buffer, 0, VK_WHOLE_SIZE, word);
	return finish(p, &ns);
}

static knit_status check(peaks *p, const loop *l, uint32_t repeat) {
	const uint32_t count = l->groups * l->dispatch.spec[0], wanted = l->expected(l, repeat);
	knit_status status = knit__vk_buffer_read(p->dev, p->result, 0, p->read_back, (uint64_t)count * 4);

	if (status != KNIT_OK)
		return knit__fail(p->d, status, 0, "the results of \"%s\" cannot be read", l->dispatch.shader);
	for (uint32_t i = 0; i < count; ++i)
		if (p->read_back[i] != wanted)
			return knit__fail(p->d, KNIT_ERR_DEVICE, 0, "\"%s\" gave 0x%08x at %u after %u times instead of 0x%08x",
			                  l->dispatch.shader, p->read_back[i], i, repeat, wanted);
	return KNIT_OK;
}

static knit_status run(peaks *p, loop *l, uint32_t repeat, uint64_t *ns) {
	const knit_vk_pipeline *pipeline;
	VkDescriptorSet set = VK_NULL_HANDLE;

	l->params.repeat = repeat;
	knit_status status = knit__vk_pipeline(p->dev, &l->dispatch, &pipeline, p->d);
	if (status == KNIT_OK)
		status = knit__vk_buffer_write(p->dev, p->params, 0, &l->params, sizeof l->params);
	if (status == KNIT_OK)
		status = bind(p, l, pipeline, &set);
	if (status == KNIT_OK)
		status = begin(p);
	if (status != KNIT_OK)
		return status;
	p->dev->vk.CmdBindPipeline(p->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->pipeline);
	p->dev->vk.CmdBindDescriptorSets(p->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->layout, 0, 1, &set, 0, NULL);
	p->dev->vk.CmdDispatch(p->commands, l->groups, 1, 1);
	status = finish(p, ns);
	return status == KNIT_OK && l->checks ? check(p, l, repeat) : status;
}

/* Units per second: as many repetitions, from `repeat` on, as are long enough, then the best of some rounds. */
static knit_status measure(peaks *p, loop *l, uint32_t repeat, double *rate) {
	knit_status status = KNIT_OK;
	uint64_t ns = 0;

	*rate = 0;
	l->dispatch.spec[0] = l->dispatch.spec[0] ? l->dispatch.spec[0] : p->s.width;
	l->dispatch.spec_count = l->dispatch.spec_count ? l->dispatch.spec_count : 1;
	for (int round = 0; status == KNIT_OK && round < ROUNDS;) {
		status = run(p, l, repeat, &ns);
		if (ns < LONG_NS && repeat < MAX_REPEAT) {
			repeat *= ns < LONG_NS / 8 && repeat < MAX_REPEAT / 8 ? 8 : 2;
			continue;
		}
		const double now = (double)l->units * repeat * l->groups * l->dispatch.spec[0] / ((double)(ns ? ns : 1) * 1e-9);
		*rate = now > *rate ? now : *rate;
		++round;
	}
	return status;
}

/* ---- the loops --------------------------------------------------------------------------------------------------- */

/* Small sizes: each group goes over all of it; large ones: all groups side by side, or on a processor, whose threads run one group
 * after the other, each group over a part of its own. *once: how often a loop must go on to have been everywhere equally often, a
 * power of two. */
static struct knit_peak_params over(const peaks *p, uint64_t bytes, uint32_t groups, uint32_t *once) {
	const uint32_t count = (uint32_t)(bytes / VECTOR_BYTES), width = p->s.width;
	const bool small = count < groups * width, parts = p->dev->kernel_caps.device_class == KNIT_VK_SOFTWARE;

	*once = count / (small ? width : groups * width);
	return (struct knit_peak_params){.group_step = small || !parts ? width : count / groups,
	                                 .step = small || parts ? width : groups * width,
	                                 .mask = count - 1};
}

static knit_status reading(peaks *p, knit_buffer *from, uint64_t bytes, bool look, double *rate) {
	uint32_t once;
	loop l = {.dispatch = {.shader = "peak_read", .binding_count = 2, .spec = {p->s.width}, .spec_count = 1},
	          .bound = {from, p->result},
	          .params = over(p, bytes, p->s.groups, &once),
	          .groups = p->s.groups,
	          .units = VECTOR_BYTES,
	          .checks = true,
	          .expected = expected_read};
	uint64_t ns;

	once = once > 4 ? once : 4; /* at once */
	return look ? run(p, &l, once, &ns) : measure(p, &l, once, rate);
}

/* Of a small size no more groups than it has vectors for. What was copied is read once, to see that it is there. */
static knit_status copying(peaks *p, uint64_t bytes, double *rate) {
	const uint64_t most = bytes / VECTOR_BYTES / p->s.width;
	const uint32_t groups = most < p->s.groups ? (uint32_t)most : p->s.groups;
	uint32_t once;
	loop l = {.dispatch = {.shader = "peak_copy", .binding_count = 2},
	          .bound = {p->from, p->to},
	          .params = over(p, bytes, groups, &once),
	          .groups = groups,
	          .units = VECTOR_BYTES};

	knit_status status = fill(p, p->to, 0);
	if (status == KNIT_OK)
		status = measure(p, &l, once, rate);
	return status == KNIT_OK ? reading(p, p->to, bytes, true, NULL) : status;
}

static knit_status moving(peaks *p, knit_device_peaks *out) {
	const uint64_t most = p->from->bytes;
	knit_status status = fill(p, p->from, FILLED);

	for (uint32_t i = 0; status == KNIT_OK && (i == 0 || out->bytes[i - 1] < most); ++i) {
		const uint64_t bytes = i + 1 < KNIT_PEAK_SIZES && p->s.bytes[i] < most ? p->s.bytes[i] : most;
		status = reading(p, p->from, bytes, false, &out->read[i]);
		if (status == KNIT_OK)
			status = copying(p, bytes, &out->copy[i]);
		out->bytes[i] = bytes;
		out->size_count = i + 1;
	}
	return status;
}

static knit_status computing(peaks *p, knit_device_peaks *out) {
	const knit_vk_caps *const caps = &p->dev->kernel_caps;
	const knit_vk_matrix m = caps->matrix;
	const bool asks = caps->subgroup_min != caps->subgroup_max; /* pipelines for their subgroups' size */
	const bool matrices = caps->features & KNIT_VK_COOPMAT && caps->subgroup <= p->s.width &&
	                      (!asks || caps->features & KNIT_VK_SUBGROUP_CONTROL) && m.m * m.k <= MATRIX_ELEMENTS &&
	                      m.k * m.n <= MATRIX_ELEMENTS && m.m * m.n <= MATRIX_ELEMENTS;
	loop l = {.dispatch = {.shader = "peak_f32", .binding_count = 1},
	          .bound = {p->result},
	          .params = {.x = bits_of(0.5f), .y = bits_of(1), .seed = 3},
	          .groups = p->s.groups,
	          .units = 32 * 2,
	          .checks = true,
	          .expected = expected_float};

	knit_status status = measure(p, &l, 64, &out->f32);
	l.dispatch.shader = "peak_f16";
	if (status == KNIT_OK)
		status = measure(p, &l, 64, &out->f16);
	l.dispatch.shader = "peak_dot";
	l.params.x = UINT32_C(0x7f81fd05);
	l.units = 32 * 4 * 2;
	l.expected = expected_dot;
	if (status == KNIT_OK && caps->features & KNIT_VK_DOT)
		status = measure(p, &l, 64, &out->int8);
	l.dispatch = (knit_vk_dispatch){.shader = "peak_matrix",
	                                .binding_count = 1,
	                                .spec = {[0] = caps->subgroup, [8] = m.m, m.n, m.k},
	                                .spec_count = 11,
	                                .subgroup = asks ? (uint8_t)caps->subgroup : 0};
	l.params.x = UINT32_C(0x28002800); /* 1/32 twice */
	l.units = UINT64_C(8) * 2 * m.m * m.n * m.k / (caps->subgroup ? caps->subgroup : 1);
	l.expected = expected_matrix;
	if (status == KNIT_OK && matrices)
		status = measure(p, &l, 64, &out->matrix);
	snprintf(out->missing, sizeof out->missing, "%s%s%s", caps->features & KNIT_VK_DOT ? "" : "no integer dot product",
	         caps->features & KNIT_VK_DOT || matrices ? "" : ", ", matrices ? "" : "no cooperative matrices");
	return status;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static uint64_t power_of_two_up_to(uint64_t n) {
	while (n & (n - 1))
		n &= n - 1;
	return n;
}

/* As much as is wanted of what the device lets be bound and has room for, twice. */
static void lower(peaks *p) {
	const knit_vk_caps *const caps = &p->dev->kernel_caps;
	uint64_t room = 0, all = 0, most = p->s.bytes[KNIT_PEAK_SIZES - 1];

	knit__vk_heap_room(p->dev, &room, &all);
	most = room && room / 4 < most ? room / 4 : most;
	most = caps->max_binding_bytes < most ? caps->max_binding_bytes : most;
	most = caps->max_allocation_bytes < most ? caps->max_allocation_bytes : most;
	p->s.bytes[KNIT_PEAK_SIZES - 1] = power_of_two_up_to(most);
	p->s.width = knit__vk_local(caps, p->s.width ? p->s.width : caps->subgroup);
	p->s.groups = p->s.groups < caps->max_groups ? p->s.groups : (uint32_t)power_of_two_up_to(caps->max_groups);
}

static knit_status objects_make(peaks *p) {
	const knit_vk_api *const api = &p->dev->vk;
	const VkDescriptorPoolSize counts[] = {{VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, 1}, {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 2}};
	const VkDescriptorPoolCreateInfo descriptors = {
		.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
		.flags = p->dev->update_after_bind ? VK_DESCRIPTOR_POOL_CREATE_UPDATE_AFTER_BIND_BIT : 0,
		.maxSets = 1,
		.poolSizeCount = 2,
		.pPoolSizes = counts};
	const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
	                                      .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
	                                      .queueFamilyIndex = p->dev->queue_family};
	const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};

	knit_status status = vk(p, api->CreateDescriptorPool(p->dev->device, &descriptors, NULL, &p->descriptors), "vkCreateDescriptorPool");
	if (status == KNIT_OK)
		status = vk(p, api->CreateCommandPool(p->dev->device, &pool, NULL, &p->pool), "vkCreateCommandPool");
	if (status == KNIT_OK)
		status = vk(p, api->CreateFence(p->dev->device, &fence, NULL, &p->fence), "vkCreateFence");
	if (status != KNIT_OK)
		return status;
	const VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
	                                          .commandPool = p->pool,
	                                          .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
	                                          .commandBufferCount = 1};
	return vk(p, api->AllocateCommandBuffers(p->dev->device, &info, &p->commands), "vkAllocateCommandBuffers");
}

static knit_status buffers_make(peaks *p) {
	const VkBufferUsageFlags storage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
	const uint64_t bytes = p->s.bytes[KNIT_PEAK_SIZES - 1];

	knit_status status = knit__vk_buffer_make(p->dev, KNIT_VK_LOCAL, storage, bytes, &p->from, p->d);
	if (status == KNIT_OK)
		status = knit__vk_buffer_make(p->dev, KNIT_VK_LOCAL, storage, bytes, &p->to, p->d);
	if (status == KNIT_OK)
		status = knit__vk_buffer_make(p->dev, KNIT_VK_LOCAL, storage, RESULT_BYTES(&p->s), &p->result, p->d);
	if (status == KNIT_OK)
		status = knit__vk_buffer_make(p->dev, KNIT_VK_LOCAL, VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT, KNIT_VK_PARAM_BYTES, &p->params, p->d);
	p->read_back = knit__alloc_zero(&p->dev->a, (size_t)RESULT_BYTES(&p->s));
	return status == KNIT_OK && !p->read_back ? knit__fail_memory(p->d, "the results of loops", RESULT_BYTES(&p->s)) : status;
}

static void clear(peaks *p) {
	const knit_vk_api *const api = &p->dev->vk;

	if (p->fence)
		api->DestroyFence(p->dev->device, p->fence, NULL);
	if (p->pool)
		api->DestroyCommandPool(p->dev->device, p->pool, NULL);
	if (p->descriptors)
		api->DestroyDescriptorPool(p->dev->device, p->descriptors, NULL);
	knit__vk_buffer_free(p->dev, p->params);
	knit__vk_buffer_free(p->dev, p->result);
	knit__vk_buffer_free(p->dev, p->to);
	knit__vk_buffer_free(p->dev, p->from);
	knit__free(&p->dev->a, p->read_back, (size_t)RESULT_BYTES(&p->s));
}

knit_status knit__vk_peaks_of(knit_device *dev, knit_device_peaks *out, knit_diag *d) {
	const knit_vk_class class = dev->kernel_caps.device_class;
	peaks p = {.dev = dev, .d = d, .s = of_class[class >= KNIT_VK_DISCRETE && class <= KNIT_VK_SOFTWARE ? class : KNIT_VK_INTEGRATED]};

	*out = (knit_device_peaks){0};
	lower(&p);
	knit_status status = buffers_make(&p);
	if (status == KNIT_OK)
		status = objects_make(&p);
	if (status == KNIT_OK)
		status = moving(&p, out);
	if (status == KNIT_OK)
		status = computing(&p, out);
	if (status != KNIT_OK) {
		*out = (knit_device_peaks){0};
		if (dev->device)
			dev->vk.DeviceWaitIdle(dev->device);
	}
	clear(&p);
	return status;
}

knit_status knit__vk_peaks(uint32_t index, const knit_context_desc *host, knit_device_peaks *out, knit_diag *d) {
	knit_device *dev = NULL;

	knit_status status = knit__vk_open(index, host, &dev, d);
	if (status != KNIT_OK)
		return status;
	status = knit__vk_peaks_of(dev, out, d);
	knit__vk_close(dev);
	return status;
}
