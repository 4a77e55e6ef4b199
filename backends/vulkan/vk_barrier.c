/* Owns where barriers go: dispatches are put into levels from the hazard list alone, each level waits for the one before.
 * Also the checker that proves of a recorded plan that nothing was left out. Knows no op. */
#include "vk_plan.h"

#include <string.h>

/* A dispatch comes as early as its hazards allow, so there are as many barriers as the longest chain of hazards is long,
 * which is the least there can be; steps that do not need each other share a level, and so do the inner barriers of
 * kernels that need several passes. Hazards come in the order of `after`, and `before` < `after`. */
static uint32_t levels_find(const knit_plan *plan, bool alone) {
	const knit_schedule *const s = plan->schedule;
	uint32_t hazard = 0, top = 0;

	for (uint32_t i = 0; i < plan->step_count; ++i) {
		const knit_vk_plan_step *const p = &plan->steps[i];
		uint32_t level = alone && i > 0 ? top + 1 : 0;

		for (; hazard < s->hazard_count && s->hazards[hazard].after <= i; ++hazard) {
			const knit_vk_plan_step *const b = &plan->steps[s->hazards[hazard].before];
			const uint32_t end = plan->works[b->first + b->count - 1].level + 1;
			level = end > level ? end : level;
		}
		for (uint32_t k = 0; k < p->count; ++k) {
			knit_vk_work *const w = &plan->works[p->first + k];
			level += w->waits;
			w->level = level;
		}
		top = level > top ? level : top;
	}
	return top;
}

knit_status knit__vk_levels(knit_plan *plan, bool alone, knit_diag *d) {
	const knit_allocator *const a = &plan->dev->a;

	if (plan->work_count == 0)
		return KNIT_OK;
	const size_t levels = (size_t)levels_find(plan, alone) + 2;
	uint32_t *const at = knit__alloc_array(a, levels, sizeof *at);
	plan->order = knit__alloc_array(a, plan->work_count, sizeof *plan->order);
	if (!at || !plan->order) {
		if (at)
			knit__free(a, at, levels * sizeof *at);
		return knit__fail_memory(d, "the order of a plan", (uint64_t)plan->work_count * sizeof *plan->order);
	}
	/* By level; within a level as they stand in the schedule. */
	for (uint32_t i = 0; i < plan->work_count; ++i)
		++at[plan->works[i].level + 1];
	for (size_t i = 1; i < levels; ++i)
		at[i] += at[i - 1];
	for (uint32_t i = 0; i < plan->work_count; ++i)
		plan->order[at[plan->works[i].level]++] = i;
	knit__free(a, at, levels * sizeof *at);
	return KNIT_OK;
}

/* ---- the checker ------------------------------------------------------------------------------------------------- */

/* Looks at nothing that placed the barriers: only at how many were recorded before each dispatch. */
knit_status knit__vk_barrier_check(const knit_plan *plan, knit_diag *d) {
	const knit_schedule *const s = plan->schedule;

	for (uint32_t i = 0; i < s->hazard_count; ++i) {
		const knit_hazard *const h = &s->hazards[i];
		const knit_vk_plan_step *const before = &plan->steps[h->before], *const after = &plan->steps[h->after];
		uint32_t last = 0, first = UINT32_MAX;
		for (uint32_t k = 0; k < before->count; ++k) {
			const uint32_t epoch = plan->works[before->first + k].epoch;
			last = epoch > last ? epoch : last;
		}
		for (uint32_t k = 0; k < after->count; ++k) {
			const uint32_t epoch = plan->works[after->first + k].epoch;
			first = epoch < first ? epoch : first;
		}
		if (last >= first)
			return knit__fail(d, KNIT_ERR_INTERNAL, s->steps[h->after].node,
			                  "vulkan: no barrier lies between steps %u (%s) and %u (%s), which touch the same bytes",
			                  h->before, before->kernel->name, h->after, after->kernel->name);
	}
	for (uint32_t i = 0; i < plan->work_count; ++i) {
		const knit_vk_work *const w = &plan->works[i];
		for (uint32_t k = 0; w->waits && k < w->index; ++k) {
			if (plan->works[i - w->index + k].epoch >= w->epoch)
				return knit__fail(d, KNIT_ERR_INTERNAL, s->steps[w->step].node,
				                  "vulkan: no barrier lies between passes %u and %u of step %u (%s)", k, w->index, w->step,
				                  plan->steps[w->step].kernel->name);
		}
	}
	return KNIT_OK;
}
