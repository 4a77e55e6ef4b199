/* Owns what hangs on symbols: dims as numbers, the kernels' parameter blocks and group counts made from them, and their
 * way to the device. Nothing here is touched while symbols stay as they are. */
#include "vk_plan.h"

#include <stdlib.h>
#include <string.h>

/* ---- dims -------------------------------------------------------------------------------------------------------- */

/* symbols NULL: at the bucket's upper bounds. */
static int64_t dim_value(const knit_schedule *s, const int64_t *symbols, knit_dim dim) {
	return symbols ? knit__dim_eval(&s->graph->exprs, symbols, dim) : knit__dim_hi(&s->graph->exprs, &s->bounds, dim);
}

/* Bytes of the storage behind an operand: what a whole binding covers. */
static uint64_t storage_bytes(const knit_schedule *s, const knit_operand *o) {
	uint64_t bytes = 0;

	if (s->buffers[o->buffer].use != KNIT_BUFFER_ARENA)
		return s->buffers[o->buffer].bytes - o->base;
	knit__storage_max_bytes(s->graph, &s->bounds, s->graph->values[o->value].storage, &bytes);
	return bytes;
}

/* Whether the tensor is the same whatever the symbols are. */
static bool tensor_evaluate(const knit_schedule *s, const int64_t *symbols, const knit_operand *o, knit_vk_tensor *t) {
	bool fixed = knit__dim_is_number(o->offset);

	t->offset = dim_value(s, symbols, o->offset);
	for (uint32_t i = 0; i < o->rank; ++i) {
		t->dims[i] = dim_value(s, symbols, o->dims[i]);
		t->strides[i] = dim_value(s, symbols, o->strides[i]);
		fixed = fixed && knit__dim_is_number(o->dims[i]) && knit__dim_is_number(o->strides[i]);
	}
	return fixed;
}

static bool step_evaluate(const knit_schedule *s, const knit_step *from, const int64_t *symbols, knit_vk_step *to) {
	bool fixed = true;

	for (uint32_t i = 0; i < from->in_count; ++i)
		fixed = (!to->in[i].present || tensor_evaluate(s, symbols, &from->in[i], &to->in[i])) && fixed;
	for (uint32_t i = 0; i < from->out_count; ++i)
		fixed = (!to->out[i].present || tensor_evaluate(s, symbols, &from->out[i], &to->out[i])) && fixed;
	return fixed;
}

static void tensor_describe(const knit_schedule *s, const knit_operand *o, knit_vk_tensor *t) {
	*t = (knit_vk_tensor){.present = o->buffer < s->buffer_count};
	if (!t->present)
		return;
	t->dtype = o->dtype;
	t->rank = o->rank;
	t->layout = o->layout;
	t->storage_bytes = storage_bytes(s, o);
}

void knit__vk_step_bounds(knit_plan *plan, uint32_t step) {
	const knit_schedule *const s = plan->schedule;
	const knit_step *const from = &s->steps[step];
	knit_vk_plan_step *const p = &plan->steps[step];

	p->view.in_count = from->in_count;
	p->view.out_count = from->out_count;
	p->view.attr = from->attr;
	p->view.scratch_bytes = from->scratch_bytes;
	for (uint32_t i = 0; i < KNIT_MAX_IN; ++i)
		tensor_describe(s, &from->in[i], &p->view.in[i]);
	for (uint32_t i = 0; i < KNIT_MAX_OUT; ++i)
		tensor_describe(s, &from->out[i], &p->view.out[i]);
	p->fixed = step_evaluate(s, from, NULL, &p->view);
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

/* KNIT_VK_COPY_PARAMS=1 copies where it need not be: a test aid. */
static bool copies_wanted(void) {
	const char *const text = getenv("KNIT_VK_COPY_PARAMS");

	return text && *text && strcmp(text, "0") != 0;
}

/* Device memory where the host can write it in place; otherwise the host fills a twin, which a copy in the same
 * submission brings across: a shader that fetched its parameters over the bus would wait for it in every dispatch. */
knit_status knit__vk_control_make(knit_plan *plan, knit_diag *d) {
	const VkBufferUsageFlags usage = VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
	                                 VK_BUFFER_USAGE_TRANSFER_DST_BIT;
	knit_device *const dev = plan->dev;
	const uint64_t works = plan->work_count ? plan->work_count : 1;

	plan->groups_at = works * KNIT_VK_PARAM_BYTES;
	plan->control_bytes = plan->groups_at + works * sizeof(VkDispatchIndirectCommand);
	knit_status status = knit__vk_buffer_make(dev, KNIT_VK_LOCAL, usage, plan->control_bytes, &plan->control, d);
	if (status != KNIT_OK)
		return status;
	knit__vk_count(&dev->counters.allocations, 1);
	if (plan->control->mapped && plan->control->coherent && !copies_wanted())
		return KNIT_OK;
	knit__vk_count(&dev->counters.allocations, 1);
	return knit__vk_buffer_make(dev, KNIT_VK_HOST, VK_BUFFER_USAGE_TRANSFER_SRC_BIT, plan->control_bytes, &plan->staging,
	                            d);
}

static knit_status fill(knit_plan *plan, uint32_t work, char *control, knit_diag *d) {
	const knit_vk_caps *const caps = &plan->dev->kernel_caps;
	const knit_vk_work *const w = &plan->works[work];
	const knit_vk_plan_step *const p = &plan->steps[w->step];
	/* Put together here and written in one go: the memory may be one that is slow to read and combines writes. */
	_Alignas(16) unsigned char params[KNIT_VK_PARAM_BYTES] = {0};
	uint32_t groups[3] = {0, 1, 1};

	p->kernel->fill(caps, &p->view, w->index, params, groups);
	if (groups[0] == 0)
		groups[1] = groups[2] = 1;
	if (groups[0] > caps->max_groups || groups[1] > caps->max_groups || groups[2] > caps->max_groups)
		return knit__fail(d, KNIT_ERR_INTERNAL, plan->schedule->steps[w->step].node,
		                  "vulkan: kernel %s asks for %u x %u x %u groups, the device takes %u per axis", p->kernel->name,
		                  groups[0], groups[1], groups[2], caps->max_groups);
	const VkDispatchIndirectCommand size = {groups[0], groups[1], groups[2]};
	memcpy(control + (uint64_t)work * KNIT_VK_PARAM_BYTES, params, sizeof params);
	memcpy(control + plan->groups_at + (uint64_t)work * sizeof size, &size, sizeof size);
	return KNIT_OK;
}

knit_status knit__vk_evaluate(knit_plan *plan, const int64_t *symbols, knit_diag *d) {
	const knit_schedule *const s = plan->schedule;
	char *const control = plan->staging ? plan->staging->mapped : plan->control->mapped;
	uint64_t written = 0;

	for (uint32_t i = 0; i < plan->step_count; ++i) {
		knit_vk_plan_step *const p = &plan->steps[i];
		if (plan->evaluated && p->fixed)
			continue;
		step_evaluate(s, &s->steps[i], symbols, &p->view);
		for (uint32_t k = 0; k < p->count; ++k) {
			const knit_status status = fill(plan, p->first + k, control, d);
			if (status != KNIT_OK) {
				plan->evaluated = false;
				return status;
			}
		}
		written += p->count;
	}
	memcpy(plan->symbols, symbols, plan->symbol_count * sizeof *symbols);
	plan->evaluated = true;
	plan->upload_due = plan->staging != NULL;
	knit__vk_count(&plan->dev->counters.parameter_writes, written);
	return KNIT_OK;
}
