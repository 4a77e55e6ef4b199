/* Owns the life of a plan: everything is made with it, a run writes what symbols have changed and submits what was
 * recorded. Knows no kernel by name. Nothing is allocated after knit__vk_plan_create. */
#include "vk_plan.h"

#include <stdlib.h>
#include <string.h>

const knit_vk_counters *knit__vk_counters(const knit_device *dev) { return &dev->counters; }

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void plan_free(knit_plan *plan) {
	knit_device *const dev = plan->dev;
	const size_t steps = plan->step_count;

	if (plan->fence)
		dev->vk.DestroyFence(dev->device, plan->fence, NULL);
	if (plan->pool)
		dev->vk.DestroyCommandPool(dev->device, plan->pool, NULL);
	if (plan->queries)
		dev->vk.DestroyQueryPool(dev->device, plan->queries, NULL);
	knit__vk_dispatches_free(plan);
	knit__free(&dev->a, plan->segments, ((size_t)plan->segment_count + 1) * sizeof *plan->segments);
	knit__free(&dev->a, plan->segment_end, (plan->work_count ? plan->work_count : 1) * sizeof *plan->segment_end);
	knit__free(&dev->a, plan->order, (size_t)plan->work_count * sizeof *plan->order);
	knit__free(&dev->a, plan->ns, (steps + 1) * sizeof *plan->ns);
	knit__free(&dev->a, plan->steps, steps * sizeof *plan->steps);
	knit__free(&dev->a, plan, sizeof *plan);
}

static knit_status steps_make(knit_plan *plan, knit_diag *d) {
	const knit_schedule *const s = plan->schedule;

	plan->steps = knit__alloc_array(&plan->dev->a, s->step_count, sizeof *plan->steps);
	if (!plan->steps)
		return knit__fail_memory(d, "a Vulkan plan", (uint64_t)s->step_count * sizeof *plan->steps);
	plan->step_count = s->step_count;
	for (uint32_t i = 0; i < s->step_count; ++i) {
		const knit_step *const from = &s->steps[i];
		if (from->kernel < 1 || from->kernel > knit__vk_kernel_count)
			return knit__fail(d, KNIT_ERR_INTERNAL, from->node, "vulkan: step %u (%s) names a kernel that is not there", i,
			                  from->origin ? from->origin : "");
		plan->steps[i].kernel = knit__vk_kernels[from->kernel - 1];
		knit__vk_step_bounds(plan, i);
		plan->steps[i].estimate_ns = knit__vk_estimate_ns(plan, i);
	}
	return KNIT_OK;
}

/* The proof costs little beside what was made before it, but it is only about our own mistakes. */
static bool check_wanted(void) {
	const char *const skip = getenv("KNIT_VK_SKIP_BARRIER");
#ifdef NDEBUG
	const char *const check = getenv("KNIT_CHECK");
	const bool wanted = check && *check && strcmp(check, "0") != 0;
#else
	const bool wanted = true;
#endif
	return wanted && !(skip && *skip);
}

static knit_status plan_fill(knit_plan *plan, knit_buffer *const *bufs, knit_diag *d) {
	knit_status status = steps_make(plan, d);

	if (status == KNIT_OK)
		status = knit__vk_dispatches_make(plan, bufs, d);
	if (status == KNIT_OK)
		status = knit__vk_times_make(plan, d);
	if (status == KNIT_OK)
		status = knit__vk_levels(plan, plan->queries != VK_NULL_HANDLE, d);
	if (status == KNIT_OK)
		status = knit__vk_commands_make(plan, d);
	if (status == KNIT_OK)
		status = knit__vk_record(plan, d);
	if (status == KNIT_OK && check_wanted())
		status = knit__vk_barrier_check(plan, d);
	return status;
}

knit_status knit__vk_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                 knit_diag *d) {
	*out = NULL;
	knit_plan *const plan = knit__alloc_zero(&dev->a, sizeof *plan);
	if (!plan)
		return knit__fail_memory(d, "a Vulkan plan", sizeof *plan);
	plan->dev = dev;
	plan->schedule = s;
	plan->symbol_count = s->graph->exprs.symbol_count;
	const knit_status status = plan_fill(plan, bufs, d);
	if (status != KNIT_OK) {
		plan_free(plan);
		return status;
	}
	*out = plan;
	return KNIT_OK;
}

void knit__vk_plan_destroy(knit_device *dev, knit_plan *plan) {
	if (!plan)
		return;
	if (plan->in_flight)
		dev->vk.WaitForFences(dev->device, 1, &plan->fence, VK_TRUE, UINT64_MAX); /* a lost device returns at once */
	plan_free(plan);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* What a failed call means; the first loss that is seen shortens the submissions of devices opened later. */
static knit_status fail_call(knit_device *dev, VkResult result, const char *what) {
	const bool was_lost = dev->lost;
	const knit_status status = knit__vk_status(dev, result, what, NULL);

	if (dev->lost && !was_lost)
		knit__vk_segment_halve();
	return status;
}

static VkResult submit_segments(knit_plan *plan) {
	knit_device *const dev = plan->dev;
	VkResult result = VK_SUCCESS;

	for (uint32_t i = 0; result == VK_SUCCESS && i < plan->segment_count; ++i) {
		VkCommandBuffer commands[2];
		uint32_t count = 0;
		if (i == 0 && plan->upload_due)
			commands[count++] = plan->upload;
		commands[count++] = plan->segments[i];
		const VkSubmitInfo info = {
			.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = count, .pCommandBuffers = commands};
		/* A submission of its own per segment: a driver may hand all of one call to the device as one piece. */
		result = dev->vk.QueueSubmit(dev->queue, 1, &info, i + 1 == plan->segment_count ? plan->fence : VK_NULL_HANDLE);
	}
	return result;
}

static knit_status submit(knit_plan *plan, const int64_t *symbols) {
	knit_device *const dev = plan->dev;
	knit_status status = KNIT_OK;

	if (plan->in_flight)
		return KNIT_ERR_STATE;
	if (dev->lost)
		return KNIT_ERR_DEVICE;
	if (!plan->evaluated || memcmp(plan->symbols, symbols, plan->symbol_count * sizeof *symbols) != 0)
		status = knit__vk_evaluate(plan, symbols, NULL);
	if (status == KNIT_OK && !plan->recorded)
		status = knit__vk_record(plan, NULL);
	if (status != KNIT_OK)
		return status;
	plan->has_run = false;
	pthread_mutex_lock(&dev->queue_lock);
	const VkResult result = submit_segments(plan);
	if (result != VK_SUCCESS)
		dev->vk.QueueWaitIdle(dev->queue); /* for the segments that were taken: no fence stands behind them */
	pthread_mutex_unlock(&dev->queue_lock);
	if (result != VK_SUCCESS)
		return fail_call(dev, result, "vkQueueSubmit");
	plan->upload_due = false;
	plan->in_flight = true;
	knit__vk_count(&dev->counters.submits, plan->segment_count);
	return KNIT_OK;
}

knit_status knit__vk_plan_submit(knit_plan *plan, const int64_t *symbols) {
	const uint64_t start = knit__vk_now_ns();
	const knit_status status = submit(plan, symbols);

	knit__vk_count(&plan->dev->counters.submit_ns, knit__vk_now_ns() - start);
	return status;
}

knit_status knit__vk_plan_wait(knit_plan *plan, uint64_t timeout_ns) {
	knit_device *const dev = plan->dev;

	if (!plan->in_flight)
		return KNIT_ERR_STATE;
	const uint64_t start = knit__vk_now_ns();
	VkResult result = dev->vk.WaitForFences(dev->device, 1, &plan->fence, VK_TRUE, timeout_ns);
	knit__vk_count(&dev->counters.wait_ns, knit__vk_now_ns() - start);
	if (result == VK_TIMEOUT)
		return KNIT_ERR_LIMIT; /* still running: wait again */
	plan->in_flight = false;
	if (result == VK_SUCCESS)
		result = dev->vk.ResetFences(dev->device, 1, &plan->fence);
	if (result != VK_SUCCESS)
		return fail_call(dev, result, "vkWaitForFences");
	if (plan->queries)
		knit__vk_times_read(plan);
	plan->has_run = true;
	return KNIT_OK;
}
