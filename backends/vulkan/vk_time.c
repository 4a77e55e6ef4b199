/* Owns time: what a step may take, how much of that one submission may hold, what steps did take. */
#include "vk_plan.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rough speeds of a slow device of each class, for the only question asked here: may one submission hold all this? A
 * driver resets a device that does not answer within some seconds (Windows 2 s, i915 0.6 s, amdgpu 10 s); integrated
 * ones are slower than guessed more often. A software device is never reset. */
typedef struct class_speed { double flops_per_ns, bytes_per_ns, segment_ns; } class_speed;
static const class_speed speeds[] = {
	[KNIT_VK_DISCRETE] = {1000.0, 100.0, 1e9},
	[KNIT_VK_INTEGRATED] = {200.0, 20.0, 2e8},
	[KNIT_VK_SOFTWARE] = {1.0, 1.0, 1e18},
};

static const class_speed *speed_of(const knit_device *dev) {
	const knit_vk_class class = dev->kernel_caps.device_class;

	return class >= KNIT_VK_DISCRETE && class <= KNIT_VK_SOFTWARE ? &speeds[class] : &speeds[KNIT_VK_INTEGRATED];
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

static knit_shape shape_of(const knit_vk_tensor *t) {
	knit_shape s = {.dtype = t->dtype, .rank = t->present ? t->rank : 0};

	memcpy(s.dims, t->dims, sizeof s.dims);
	return s;
}

double knit__vk_estimate_ns(const knit_plan *plan, uint32_t step) {
	const knit_step *const s = &plan->schedule->steps[step];
	const knit_vk_step *const v = &plan->steps[step].view;
	const knit_op_def *const def = knit__op(s->op);
	const class_speed *const speed = speed_of(plan->dev);
	knit_shape in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	knit_cost cost = {0};

	if (!def || !def->cost)
		return 0.0;
	for (uint32_t i = 0; i < v->in_count; ++i)
		in[i] = shape_of(&v->in[i]);
	for (uint32_t i = 0; i < v->out_count; ++i)
		out[i] = shape_of(&v->out[i]);
	/* An attention row may see every cell there is. */
	const int64_t context = s->op == KNIT_OP_ATTENTION && v->in[1].rank >= 2 ? v->in[1].dims[1] : 1;
	def->cost(s->attr, in, v->in_count, out, context, &cost);
	return cost.flops / speed->flops_per_ns + (double)(cost.read_bytes + cost.write_bytes) / speed->bytes_per_ns;
}

/* A lost device cannot be asked to try the same again in smaller pieces, for its buffers are gone with it. But whoever
 * opens the next one gets pieces of half the length. */
static _Atomic uint32_t losses;

void knit__vk_segment_halve(void) {
	if (atomic_load(&losses) < 6)
		atomic_fetch_add(&losses, 1);
}

/* KNIT_VK_SEGMENT_US: another limit (a test aid, and a way out on a device that is slower than guessed). */
double knit__vk_segment_ns(const knit_device *dev) {
	const char *const text = getenv("KNIT_VK_SEGMENT_US");
	char *end = NULL;
	const double us = text ? strtod(text, &end) : 0.0;
	const double limit = text && end != text && us >= 0.0 ? us * 1e3 : speed_of(dev)->segment_ns;

	return limit / (double)(UINT32_C(1) << atomic_load(&losses));
}

uint64_t knit__vk_now_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* ---- times of steps ---------------------------------------------------------------------------------------------- */

/* One timestamp before the first step and one after each: with timing on, every step runs alone (vk_record.c). */
knit_status knit__vk_times_make(knit_plan *plan, knit_diag *d) {
	knit_device *const dev = plan->dev;
	const VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
	                                    .queryType = VK_QUERY_TYPE_TIMESTAMP,
	                                    .queryCount = plan->step_count + 1};

	const uint32_t bits = dev->probe.timestamp_bits;

	if (!dev->timing || plan->step_count == 0)
		return KNIT_OK;
	plan->tick_mask = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
	plan->ns = knit__alloc_array(&dev->a, (size_t)plan->step_count + 1, sizeof *plan->ns);
	if (!plan->ns)
		return knit__fail_memory(d, "the times of a plan", ((uint64_t)plan->step_count + 1) * sizeof *plan->ns);
	knit__vk_count(&dev->counters.allocations, 1);
	const VkResult result = dev->vk.CreateQueryPool(dev->device, &info, NULL, &plan->queries);
	return result == VK_SUCCESS ? KNIT_OK : knit__vk_status(dev, result, "vkCreateQueryPool", d);
}

void knit__vk_times_read(knit_plan *plan) {
	const knit_device *const dev = plan->dev;
	const uint32_t count = plan->step_count + 1;

	if (dev->vk.GetQueryPoolResults(dev->device, plan->queries, 0, count, count * sizeof *plan->ns, plan->ns,
	                                sizeof *plan->ns, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT) != VK_SUCCESS) {
		memset(plan->ns, 0, count * sizeof *plan->ns);
		return;
	}
	for (uint32_t i = 0; i < plan->step_count; ++i) {
		const uint64_t ticks = (plan->ns[i + 1] - plan->ns[i]) & plan->tick_mask;
		plan->ns[i] = (uint64_t)((double)ticks * (double)dev->properties.limits.timestampPeriod);
	}
}

size_t knit__vk_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap) {
	if (!plan->queries || !plan->has_run)
		return 0;
	for (uint32_t i = 0; i < plan->step_count && i < cap; ++i)
		out[i] = (knit_step_time){.step = i, .ns = plan->ns[i]};
	return plan->step_count;
}
