/* Owns what the dispatches of a plan read and write: which dispatches a step becomes, their pipelines, the tables of
 * their kernels, one descriptor set each. All of it is made once; only weights are exchanged later. Records nothing. */
#include "vk_plan.h"

#include <stdlib.h>

/* What an absent operand is bound to. Each dispatch has its own zeros: a shader may declare that it writes what it never
 * does, and two dispatches side by side would then seem to touch the same bytes. */
#define ZERO_BYTES 16

static const char *origin_of(const knit_step *step) { return step->origin && *step->origin ? step->origin : "no origin"; }

/* "vulkan: step 12 (linear at blk.0.attn_q, kernel linear_matvec): ..." */
static knit_status fail_step(const knit_plan *plan, uint32_t step, knit_status status, const char *why, knit_diag *d) {
	const knit_step *const s = &plan->schedule->steps[step];
	const knit_vk_kernel *const k = plan->steps[step].kernel;

	return knit__fail(d, status, s->node, "vulkan: step %u (%s at %.60s, kernel %s): %.140s", step, knit__op(s->op)->name,
	                  origin_of(s), k ? k->name : "none", why);
}

/* ---- dispatches -------------------------------------------------------------------------------------------------- */

/* Asks the kernels. *dispatches holds one per work; the caller frees them with plan->dispatch_bytes. */
static knit_status dispatches_ask(knit_plan *plan, knit_vk_dispatch **dispatches, knit_diag *d) {
	const knit_vk_caps *const caps = &plan->dev->kernel_caps;
	const knit_allocator *const a = &plan->dev->a;
	uint64_t count = 0;

	for (uint32_t i = 0; i < plan->step_count; ++i) {
		knit_vk_plan_step *const p = &plan->steps[i];
		p->first = (uint32_t)count;
		p->count = p->kernel->plan(caps, &p->view, NULL, 0);
		if (p->count == 0)
			return fail_step(plan, i, KNIT_ERR_INTERNAL, "was selected and cannot be planned", d);
		count += p->count;
		if (count > UINT32_MAX / KNIT_VK_PARAM_BYTES)
			return fail_step(plan, i, KNIT_ERR_LIMIT, "too many dispatches in one plan", d);
	}
	*dispatches = knit__alloc_array(a, (size_t)count, sizeof **dispatches);
	plan->works = knit__alloc_array(a, (size_t)count, sizeof *plan->works);
	plan->work_count = plan->works ? (uint32_t)count : 0;
	plan->dispatch_bytes = count * sizeof **dispatches;
	if (!*dispatches || !plan->works)
		return knit__fail_memory(d, "the dispatches of a plan", plan->dispatch_bytes);
	for (uint32_t i = 0; i < plan->step_count; ++i) {
		const knit_vk_plan_step *const p = &plan->steps[i];
		if (p->kernel->plan(caps, &p->view, *dispatches + p->first, p->count) != p->count)
			return fail_step(plan, i, KNIT_ERR_INTERNAL, "asks for another number of dispatches the second time", d);
		for (uint32_t k = 0; k < p->count; ++k) {
			knit_vk_work *const w = &plan->works[p->first + k];
			*w = (knit_vk_work){.step = i, .index = k, .waits = k > 0 && (*dispatches)[p->first + k].waits};
		}
	}
	return KNIT_OK;
}

static knit_status pipelines_get(knit_plan *plan, const knit_vk_dispatch *dispatches, knit_diag *d) {
	for (uint32_t i = 0; i < plan->work_count; ++i) {
		knit_diag why = {0};
		const knit_status status = knit__vk_pipeline(plan->dev, &dispatches[i], &plan->works[i].pipeline, &why);
		if (status != KNIT_OK)
			return fail_step(plan, plan->works[i].step, status, why.text, d);
	}
	return KNIT_OK;
}

/* ---- constants --------------------------------------------------------------------------------------------------- */

static uint64_t zeros_stride(const knit_plan *plan) {
	const uint32_t align = plan->dev->kernel_caps.storage_align;

	return align > ZERO_BYTES ? align : ZERO_BYTES;
}

static bool tables_place(knit_plan *plan) {
	const knit_vk_caps *const caps = &plan->dev->kernel_caps;
	const uint64_t align = zeros_stride(plan);

	plan->constants_bytes = (plan->work_count ? plan->work_count : 1) * align;
	for (uint32_t i = 0; i < plan->step_count; ++i) {
		knit_vk_plan_step *const p = &plan->steps[i];
		p->table_bytes = p->kernel->table_bytes ? p->kernel->table_bytes(caps, &p->view) : 0;
		if (p->table_bytes == 0)
			continue;
		if (!knit__align_u64(plan->constants_bytes, align, &p->table_at) ||
		    !knit__align_u64(p->table_bytes, 4, &p->table_bytes) ||
		    !knit__add_u64(p->table_at, p->table_bytes, &plan->constants_bytes))
			return false;
	}
	return plan->constants_bytes <= SIZE_MAX;
}

static knit_status constants_make(knit_plan *plan, knit_diag *d) {
	knit_device *const dev = plan->dev;

	if (!tables_place(plan))
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "vulkan: the tables of a plan are larger than memory");
	knit_status status = knit__vk_buffer_make(dev, KNIT_VK_LOCAL,
	                                          VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
	                                          plan->constants_bytes, &plan->constants, d);
	if (status != KNIT_OK)
		return status;
	knit__vk_count(&dev->counters.allocations, 1);
	char *const bytes = knit__alloc_zero(&dev->a, (size_t)plan->constants_bytes);
	if (!bytes)
		return knit__fail_memory(d, "the tables of a plan", plan->constants_bytes);
	for (uint32_t i = 0; i < plan->step_count; ++i) {
		const knit_vk_plan_step *const p = &plan->steps[i];
		if (p->table_bytes)
			p->kernel->table_fill(&dev->kernel_caps, &p->view, bytes + p->table_at);
	}
	status = knit__vk_buffer_write(dev, plan->constants, 0, bytes, plan->constants_bytes);
	knit__free(&dev->a, bytes, (size_t)plan->constants_bytes);
	return status == KNIT_OK ? status : knit__fail(d, status, 0, "vulkan: the upload of a plan's tables failed: %s",
	                                               knit_status_name(status));
}

/* ---- descriptor sets --------------------------------------------------------------------------------------------- */

/* The bytes behind one binding. */
typedef struct target { const knit_buffer *buffer; uint64_t at, bytes; } target;

static const char *resolve_operand(const knit_plan *plan, knit_buffer *const *bufs, const knit_operand *o,
                                   const knit_vk_tensor *t, target *out) {
	if (!t->present)
		return "binds an operand that is absent";
	if (o->buffer >= plan->schedule->buffer_count || !bufs[o->buffer])
		return "names a buffer that is not there";
	*out = (target){bufs[o->buffer], o->base, t->storage_bytes};
	return NULL;
}

/* NULL, or what is wrong with it. */
static const char *resolve(const knit_plan *plan, knit_buffer *const *bufs, uint32_t work, const knit_vk_binding *b,
                           target *out) {
	const knit_vk_caps *const caps = &plan->dev->kernel_caps;
	const knit_vk_plan_step *const p = &plan->steps[plan->works[work].step];
	const knit_step *const step = &plan->schedule->steps[plan->works[work].step];
	const char *why = NULL;

	switch (b->source) {
	case KNIT_VK_ABSENT:
		*out = (target){plan->constants, work * zeros_stride(plan), 4};
		return NULL;
	case KNIT_VK_IN:
		why = b->index < step->in_count ? resolve_operand(plan, bufs, &step->in[b->index], &p->view.in[b->index], out)
		                                : "binds an operand past the last";
		break;
	case KNIT_VK_OUT:
		why = b->index < step->out_count ? resolve_operand(plan, bufs, &step->out[b->index], &p->view.out[b->index], out)
		                                 : "binds a result past the last";
		break;
	case KNIT_VK_SCRATCH:
		if (step->scratch_bytes == 0)
			return "binds scratch that it did not ask for";
		if (step->scratch_buffer >= plan->schedule->buffer_count || !bufs[step->scratch_buffer])
			return "has its scratch in a buffer that is not there";
		*out = (target){bufs[step->scratch_buffer], step->scratch_base, step->scratch_bytes};
		break;
	case KNIT_VK_TABLE:
		if (p->table_bytes == 0)
			return "binds a table that it does not have";
		*out = (target){plan->constants, p->table_at, p->table_bytes};
		break;
	default:
		return "binds nothing that is known";
	}
	if (why)
		return why;
	if (b->at > out->bytes || b->bytes > out->bytes - b->at)
		return "binds bytes past the end of a storage";
	out->at += b->at;
	out->bytes = b->bytes ? b->bytes : out->bytes - b->at;
	if (out->bytes == 0)
		out->bytes = 4; /* an empty tensor: nobody reads it */
	if (out->at % caps->storage_align != 0)
		return "binds bytes that begin at no multiple of the device's alignment";
	if (out->at > out->buffer->bytes || out->bytes > out->buffer->bytes - out->at)
		return "binds bytes past the end of a buffer";
	/* Shaders read whole words: storages begin at multiples of the alignment, so the rest of the last one is nobody's. */
	const uint64_t words = (out->bytes + 3) & ~UINT64_C(3);
	if (words <= out->buffer->made_bytes - out->at)
		out->bytes = words;
	return out->bytes > caps->max_binding_bytes ? "binds more bytes at once than the device allows" : NULL;
}

static bool is_weight(const knit_plan *plan, const knit_step *step, const knit_vk_binding *b) {
	return b->source == KNIT_VK_IN && plan->schedule->buffers[step->in[b->index].buffer].use == KNIT_BUFFER_CONST;
}

static knit_status pool_make(knit_plan *plan, uint64_t bindings, knit_diag *d) {
	const knit_device *const dev = plan->dev;
	const VkDescriptorPoolSize sizes[] = {
		{VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, plan->work_count},
		{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, bindings ? (uint32_t)bindings : 1},
	};
	const VkDescriptorPoolCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
		.flags = dev->update_after_bind ? VK_DESCRIPTOR_POOL_CREATE_UPDATE_AFTER_BIND_BIT : 0,
		.maxSets = plan->work_count,
		.poolSizeCount = 2,
		.pPoolSizes = sizes};
	const VkResult result = dev->vk.CreateDescriptorPool(dev->device, &info, NULL, &plan->descriptors);

	knit__vk_count(&plan->dev->counters.allocations, 1);
	return result == VK_SUCCESS ? KNIT_OK : knit__vk_status(plan->dev, result, "vkCreateDescriptorPool", d);
}

static knit_status set_make(knit_plan *plan, knit_buffer *const *bufs, const knit_vk_dispatch *asked, uint32_t work,
                            knit_diag *d) {
	knit_vk_work *const w = &plan->works[work];
	knit_device *const dev = plan->dev;
	const knit_step *const step = &plan->schedule->steps[w->step];
	VkDescriptorBufferInfo infos[KNIT_VK_MAX_BINDINGS + 1];
	VkWriteDescriptorSet writes[KNIT_VK_MAX_BINDINGS + 1];
	const VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
	                                          .descriptorPool = plan->descriptors,
	                                          .descriptorSetCount = 1,
	                                          .pSetLayouts = &w->pipeline->set_layout};

	const VkResult result = dev->vk.AllocateDescriptorSets(dev->device, &info, &w->set);
	if (result != VK_SUCCESS)
		return knit__vk_status(dev, result, "vkAllocateDescriptorSets", d);
	infos[0] = (VkDescriptorBufferInfo){plan->control->buffer, (uint64_t)work * KNIT_VK_PARAM_BYTES, KNIT_VK_PARAM_BYTES};
	for (uint32_t i = 0; i < asked->binding_count; ++i) {
		const knit_vk_binding *const b = &asked->bindings[i];
		target t = {0};
		const char *const why = resolve(plan, bufs, work, b, &t);
		if (why)
			return fail_step(plan, w->step, KNIT_ERR_INTERNAL, why, d);
		infos[i + 1] = (VkDescriptorBufferInfo){t.buffer->buffer, t.at, t.bytes};
		if (is_weight(plan, step, b))
			plan->uses[plan->use_count++] = (knit_vk_use){
				.work = work, .binding = i + 1, .buffer = step->in[b->index].buffer, .base = t.at, .bytes = t.bytes};
	}
	for (uint32_t i = 0; i <= asked->binding_count; ++i)
		writes[i] = (VkWriteDescriptorSet){
			.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
			.dstSet = w->set,
			.dstBinding = i,
			.descriptorCount = 1,
			.descriptorType = i ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER : VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
			.pBufferInfo = &infos[i]};
	dev->vk.UpdateDescriptorSets(dev->device, asked->binding_count + 1u, writes, 0, NULL);
	knit__vk_count(&dev->counters.descriptor_writes, asked->binding_count + 1u);
	return KNIT_OK;
}

/* How many bindings show weights; of all of them in *all. */
static uint64_t count_uses(const knit_plan *plan, const knit_vk_dispatch *dispatches, uint64_t *all) {
	uint64_t uses = 0;

	*all = 0;
	for (uint32_t i = 0; i < plan->work_count; ++i) {
		const knit_step *const step = &plan->schedule->steps[plan->works[i].step];
		*all += dispatches[i].binding_count;
		for (uint32_t k = 0; k < dispatches[i].binding_count; ++k) {
			const knit_vk_binding *const b = &dispatches[i].bindings[k];
			uses += b->source == KNIT_VK_IN && b->index < step->in_count &&
			        step->in[b->index].buffer < plan->schedule->buffer_count && is_weight(plan, step, b);
		}
	}
	return uses;
}

static int by_buffer(const void *a, const void *b) {
	const knit_vk_use *const x = a, *const y = b;

	if (x->buffer != y->buffer)
		return x->buffer < y->buffer ? -1 : 1;
	return x->work < y->work ? -1 : x->work > y->work;
}

static knit_status uses_sort(knit_plan *plan, knit_diag *d) {
	const size_t count = (size_t)plan->schedule->buffer_count + 1;

	plan->first_use = knit__alloc_array(&plan->dev->a, count, sizeof *plan->first_use);
	if (!plan->first_use)
		return knit__fail_memory(d, "the uses of weights", count * sizeof *plan->first_use);
	qsort(plan->uses, plan->use_count, sizeof *plan->uses, by_buffer);
	for (uint32_t i = 0; i < plan->use_count; ++i)
		++plan->first_use[plan->uses[i].buffer + 1];
	for (size_t i = 1; i < count; ++i)
		plan->first_use[i] += plan->first_use[i - 1];
	return KNIT_OK;
}

static knit_status sets_make(knit_plan *plan, knit_buffer *const *bufs, const knit_vk_dispatch *dispatches,
                             knit_diag *d) {
	uint64_t bindings;
	const uint64_t uses = count_uses(plan, dispatches, &bindings);

	if (plan->work_count == 0)
		return uses_sort(plan, d);
	plan->uses = knit__alloc_array(&plan->dev->a, (size_t)uses, sizeof *plan->uses);
	plan->use_cap = uses;
	if (!plan->uses)
		return knit__fail_memory(d, "the uses of weights", uses * sizeof *plan->uses);
	knit_status status = pool_make(plan, bindings, d);
	for (uint32_t i = 0; status == KNIT_OK && i < plan->work_count; ++i)
		status = set_make(plan, bufs, &dispatches[i], i, d);
	return status == KNIT_OK ? uses_sort(plan, d) : status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

knit_status knit__vk_dispatches_make(knit_plan *plan, knit_buffer *const *bufs, knit_diag *d) {
	knit_vk_dispatch *dispatches = NULL;

	knit_status status = dispatches_ask(plan, &dispatches, d);
	if (status == KNIT_OK)
		status = pipelines_get(plan, dispatches, d);
	if (status == KNIT_OK)
		status = constants_make(plan, d);
	if (status == KNIT_OK)
		status = knit__vk_control_make(plan, d);
	if (status == KNIT_OK)
		status = sets_make(plan, bufs, dispatches, d);
	if (dispatches)
		knit__free(&plan->dev->a, dispatches, (size_t)plan->dispatch_bytes);
	return status;
}

void knit__vk_dispatches_free(knit_plan *plan) {
	knit_device *const dev = plan->dev;

	if (plan->descriptors)
		dev->vk.DestroyDescriptorPool(dev->device, plan->descriptors, NULL);
	knit__vk_buffer_free(dev, plan->constants);
	knit__vk_buffer_free(dev, plan->control);
	knit__vk_buffer_free(dev, plan->staging);
	knit__free(&dev->a, plan->works, (size_t)plan->work_count * sizeof *plan->works);
	knit__free(&dev->a, plan->uses, (size_t)plan->use_cap * sizeof *plan->uses);
	knit__free(&dev->a, plan->first_use, ((size_t)plan->schedule->buffer_count + 1) * sizeof *plan->first_use);
}

/* ---- exchanging weights ------------------------------------------------------------------------------------------ */

#define BATCH 32

knit_status knit__vk_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf) {
	const knit_schedule *const s = plan->schedule;
	VkDescriptorBufferInfo infos[BATCH];
	VkWriteDescriptorSet writes[BATCH];
	uint32_t n = 0;

	if (plan->in_flight)
		return KNIT_ERR_STATE;
	if (buffer >= s->buffer_count || s->buffers[buffer].use != KNIT_BUFFER_CONST || buf->bytes < s->buffers[buffer].bytes)
		return KNIT_ERR_ARGUMENT;
	for (uint32_t i = plan->first_use[buffer]; i < plan->first_use[buffer + 1]; ++i) {
		const knit_vk_use *const u = &plan->uses[i];
		const uint64_t left = buf->made_bytes - u->base;
		infos[n] = (VkDescriptorBufferInfo){buf->buffer, u->base, u->bytes < left ? u->bytes : left};
		writes[n] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
		                                   .dstSet = plan->works[u->work].set,
		                                   .dstBinding = u->binding,
		                                   .descriptorCount = 1,
		                                   .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
		                                   .pBufferInfo = &infos[n]};
		if (++n == BATCH || i + 1 == plan->first_use[buffer + 1]) {
			plan->dev->vk.UpdateDescriptorSets(plan->dev->device, n, writes, 0, NULL);
			knit__vk_count(&plan->dev->counters.descriptor_writes, n);
			n = 0;
			/* Elsewhere a change of a bound set undoes the recording: the next submit records anew. */
			plan->recorded = plan->recorded && plan->dev->update_after_bind;
		}
	}
	return KNIT_OK;
}
