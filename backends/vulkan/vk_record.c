/* Owns the command buffers of a plan: recorded once, replayed for every run, cut into submissions where one would hold
 * the device for too long. Knows no kernel. */
#include "vk_plan.h"

#include <stdlib.h>

/* ---- segments ---------------------------------------------------------------------------------------------------- */

/* A limit that a whole run stays below (decode always does, at the speeds guessed in vk_time.c) gives one segment. A step
 * that is longer than the limit by itself is a segment of its own: steps are not cut. */
static knit_status segments_find(knit_plan *plan, knit_diag *d) {
	const double limit = knit__vk_segment_ns(plan->dev);
	const size_t most = plan->work_count ? plan->work_count : 1;
	uint32_t *const ends = knit__alloc_array(&plan->dev->a, most, sizeof *ends);
	double filled = 0.0;

	plan->segment_end = ends;
	if (!ends)
		return knit__fail_memory(d, "the segments of a plan", most * sizeof *ends);
	for (uint32_t i = 0; i < plan->work_count; ++i) {
		const knit_vk_plan_step *const p = &plan->steps[plan->works[plan->order[i]].step];
		const double ns = p->estimate_ns / p->count;
		if (i > 0 && filled + ns > limit) {
			ends[plan->segment_count++] = i;
			filled = 0.0;
		}
		filled += ns;
	}
	ends[plan->segment_count++] = plan->work_count;
	return KNIT_OK;
}

knit_status knit__vk_commands_make(knit_plan *plan, knit_diag *d) {
	knit_device *const dev = plan->dev;
	const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
	                                      .queueFamilyIndex = dev->queue_family};
	const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};

	const knit_status status = segments_find(plan, d);
	if (status != KNIT_OK)
		return status;
	/* One more than segments: the copy of the parameters. */
	plan->segments = knit__alloc_array(&dev->a, (size_t)plan->segment_count + 1, sizeof *plan->segments);
	if (!plan->segments)
		return knit__fail_memory(d, "the commands of a plan", plan->segment_count * sizeof *plan->segments);
	knit__vk_count(&dev->counters.allocations, 3);
	VkResult result = dev->vk.CreateCommandPool(dev->device, &pool, NULL, &plan->pool);
	if (result != VK_SUCCESS)
		return knit__vk_status(dev, result, "vkCreateCommandPool", d);
	const VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
	                                          .commandPool = plan->pool,
	                                          .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
	                                          .commandBufferCount = plan->segment_count + 1};
	result = dev->vk.AllocateCommandBuffers(dev->device, &info, plan->segments);
	if (result != VK_SUCCESS)
		return knit__vk_status(dev, result, "vkAllocateCommandBuffers", d);
	result = dev->vk.CreateFence(dev->device, &fence, NULL, &plan->fence);
	return result == VK_SUCCESS ? KNIT_OK : knit__vk_status(dev, result, "vkCreateFence", d);
}

/* ---- barriers ---------------------------------------------------------------------------------------------------- */

static void barrier(const knit_device *dev, VkCommandBuffer cmd, VkPipelineStageFlags from, VkAccessFlags wrote,
                    VkPipelineStageFlags to, VkAccessFlags uses) {
	const VkMemoryBarrier b = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = wrote, .dstAccessMask = uses};

	dev->vk.CmdPipelineBarrier(cmd, from, to, 0, 1, &b, 0, NULL, 0, NULL);
}

/* What earlier submissions wrote, uploads and the copy of the parameters among them. */
static void barrier_begin(const knit_device *dev, VkCommandBuffer cmd) {
	barrier(dev, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
	        VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
	        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT,
	        VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_UNIFORM_READ_BIT |
	            VK_ACCESS_INDIRECT_COMMAND_READ_BIT);
}

static void barrier_between(const knit_device *dev, VkCommandBuffer cmd) {
	barrier(dev, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
	        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

/* For the host, which reads mapped results, and for copies of results that are not mapped. */
static void barrier_end(const knit_device *dev, VkCommandBuffer cmd) {
	barrier(dev, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
	        VK_PIPELINE_STAGE_HOST_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
	        VK_ACCESS_HOST_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
}

/* A test aid: KNIT_VK_SKIP_BARRIER=k leaves out barrier number k (from 0) between dispatches of every plan that is
 * recorded from then on, to see that checks notice. UINT32_MAX: none. */
static uint32_t skipped_barrier(void) {
	const char *const text = getenv("KNIT_VK_SKIP_BARRIER");

	return text && *text ? (uint32_t)strtoul(text, NULL, 10) : UINT32_MAX;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

typedef struct recorder {
	knit_plan *plan;
	VkCommandBuffer cmd;
	VkPipeline bound;
	uint32_t epoch, barriers, skip, timed; /* timed: steps whose end is stamped */
} recorder;

static void stamp(recorder *r, uint32_t query) {
	if (r->plan->queries)
		r->plan->dev->vk.CmdWriteTimestamp(r->cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, r->plan->queries, query);
}

static void record_work(recorder *r, uint32_t work) {
	const knit_device *const dev = r->plan->dev;
	knit_vk_work *const w = &r->plan->works[work];
	const uint64_t groups = r->plan->groups_at + (uint64_t)work * sizeof(VkDispatchIndirectCommand);

	if (r->bound != w->pipeline->pipeline)
		dev->vk.CmdBindPipeline(r->cmd, VK_PIPELINE_BIND_POINT_COMPUTE, w->pipeline->pipeline);
	r->bound = w->pipeline->pipeline;
	dev->vk.CmdBindDescriptorSets(r->cmd, VK_PIPELINE_BIND_POINT_COMPUTE, w->pipeline->layout, 0, 1, &w->set, 0, NULL);
	dev->vk.CmdDispatchIndirect(r->cmd, r->plan->control->buffer, groups);
	w->epoch = r->epoch;
}

static VkResult begin(const knit_plan *plan, VkCommandBuffer cmd) {
	const VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};

	return plan->dev->vk.BeginCommandBuffer(cmd, &info);
}

/* Dispatches `first` up to `end` of the order. */
static VkResult record_segment(recorder *r, uint32_t first, uint32_t end) {
	knit_plan *const plan = r->plan;
	const knit_device *const dev = plan->dev;

	const VkResult result = begin(plan, r->cmd);
	if (result != VK_SUCCESS)
		return result;
	r->bound = VK_NULL_HANDLE;
	if (first == 0 && plan->queries)
		dev->vk.CmdResetQueryPool(r->cmd, plan->queries, 0, plan->step_count + 1);
	barrier_begin(dev, r->cmd);
	++r->epoch;
	if (first == 0)
		stamp(r, 0);
	for (uint32_t i = first; i < end; ++i) {
		const knit_vk_work *const w = &plan->works[plan->order[i]];
		const knit_vk_work *const last = i > 0 ? &plan->works[plan->order[i - 1]] : NULL;
		/* The beginning of a segment is a barrier already, but it keeps its number. */
		if (last && last->level != w->level && r->barriers++ != r->skip && i > first) {
			barrier_between(dev, r->cmd);
			++r->epoch;
		}
		record_work(r, plan->order[i]);
		if (w->index + 1 == plan->steps[w->step].count)
			stamp(r, w->step + 1);
	}
	if (end == plan->work_count)
		barrier_end(dev, r->cmd);
	return dev->vk.EndCommandBuffer(r->cmd);
}

static VkResult record_upload(const knit_plan *plan, VkCommandBuffer cmd) {
	const VkBufferCopy all = {.size = plan->control_bytes};

	const VkResult result = begin(plan, cmd);
	if (result != VK_SUCCESS)
		return result;
	plan->dev->vk.CmdCopyBuffer(cmd, plan->staging->buffer, plan->control->buffer, 1, &all);
	return plan->dev->vk.EndCommandBuffer(cmd);
}

knit_status knit__vk_record(knit_plan *plan, knit_diag *d) {
	knit_device *const dev = plan->dev;
	recorder r = {.plan = plan, .skip = skipped_barrier()};

	VkResult result = dev->vk.ResetCommandPool(dev->device, plan->pool, 0);
	for (uint32_t i = 0; result == VK_SUCCESS && i < plan->segment_count; ++i) {
		r.cmd = plan->segments[i];
		result = record_segment(&r, i ? plan->segment_end[i - 1] : 0, plan->segment_end[i]);
	}
	plan->upload = plan->segments[plan->segment_count];
	if (result == VK_SUCCESS && plan->staging)
		result = record_upload(plan, plan->upload);
	if (result != VK_SUCCESS)
		return knit__vk_status(dev, result, "recording the commands of a plan", d);
	plan->barrier_count = r.barriers;
	plan->recorded = true;
	knit__vk_count(&dev->counters.records, 1);
	knit__vk_count(&dev->counters.barriers, r.barriers);
	return KNIT_OK;
}
