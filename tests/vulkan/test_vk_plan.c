/* Tests plans of the Vulkan backend: that barriers are where they must be and each is missed, that nothing but a submit
 * is done per run, that parameters, segments, times and failures are what they should be. Ops are only the means. */
#include "../../backends/vulkan/vk_cache.h"
#include "../../backends/vulkan/vk_plan.h"
#include "../../graph/context.h"
#include "../../graph/interp.h"
#include "../tools/device_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 33
#define TOKENS 9

static knit_context *ctx;
static knit_device *dev;

static uint64_t messages;

static bool begin(void) {
	messages = knit__vk_messages();
	return vulkan_open(&ctx, &dev);
}

/* Validation has nothing to say, the unmaking of everything included. */
static void end(void) {
	vulkan_close(ctx, dev);
	if (!vulkan_quiet)
		ck_assert_uint_eq(knit__vk_messages(), messages);
	vulkan_quiet = false;
}

/* ---- a graph with a diamond and reuse of memory ------------------------------------------------------------------ */

static knit_graph *diamond(void) {
	knit_graph *g = NULL;

	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim dims[] = {knit_sym(g, "tokens", 1, TOKENS), knit_n(WIDTH)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	const knit_tensor a = knit_silu(g, x), b = knit_gelu(g, x);
	const knit_tensor c = knit_add(g, a, b), e = knit_silu(g, knit_mul(g, c, a));
	const knit_tensor f = knit_gelu(g, knit_add(g, e, b));
	knit_output(g, "y", knit_add(g, knit_mul(g, f, c), knit_scale(g, f, 0.5f)));
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	return g;
}

static device_run *prepare(const knit_graph *g) {
	device_run *r = NULL;
	knit_diag d = {0};

	ck_assert_msg(device_run_create(g, vulkan_backend(), dev, "fuse_elementwise", &r, &d) == KNIT_OK, "%s", d.text);
	return r;
}

static void fill_x(double *x, size_t count, int seed) {
	for (size_t i = 0; i < count; ++i)
		x[i] = sin((double)i * 0.7 + seed);
}

/* One run with so many tokens; true if the result is the reference's. */
static bool run_equals(const knit_graph *g, device_run *r, int64_t tokens, int seed) {
	double x[TOKENS * WIDTH];
	const size_t count = (size_t)tokens * WIDTH;
	const knit_array *want;
	knit_interp *it = NULL;
	knit_diag d = {0};
	size_t got_count = 0;
	bool equal;

	fill_x(x, count, seed);
	ck_assert_int_eq(knit__interp_create(g, 0, &it, &d), KNIT_OK);
	ck_assert_int_eq(knit__interp_set_symbol(it, "tokens", tokens), KNIT_OK);
	ck_assert_int_eq(knit__interp_write(it, "x", x, count), KNIT_OK);
	ck_assert_int_eq(knit__interp_run(it, &d), KNIT_OK);
	ck_assert_int_eq(knit__interp_output(it, "y", &want), KNIT_OK);
	ck_assert_int_eq(device_run_set(r, "tokens", tokens), KNIT_OK);
	ck_assert_int_eq(device_run_write(r, "x", x, count), KNIT_OK);
	ck_assert_msg(device_run_go(r, &d) == KNIT_OK, "%s", d.text);
	const double *const got = device_run_output(r, "y", &got_count);
	equal = got && got_count == count;
	for (size_t i = 0; equal && i < count; ++i)
		equal = fabs(got[i] - want->data[i]) < 1e-5;
	knit__interp_destroy(it);
	return equal;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

START_TEST(results_follow_symbols) {
	if (!begin())
		return;
	knit_graph *const g = diamond();
	device_run *const r = prepare(g);

	for (int i = 0; i < 5; ++i)
		ck_assert(run_equals(g, r, (const int64_t[]){TOKENS, 1, 4, 4, TOKENS}[i], i));
	device_run_destroy(r);
	knit_graph_destroy(g);
	end();
}
END_TEST

/* Where the host cannot write the device's memory in place, parameters come by a copy in the same submission. */
START_TEST(parameters_can_be_copied) {
	setenv("KNIT_VK_COPY_PARAMS", "1", 1);
	if (begin()) {
		knit_graph *const g = diamond();
		device_run *const r = prepare(g);

		ck_assert_ptr_nonnull(device_run_plan(r)->staging);
		for (int i = 0; i < 4; ++i)
			ck_assert(run_equals(g, r, (const int64_t[]){TOKENS, 1, 1, 5}[i], i));
		ck_assert_uint_eq(knit__vk_counters(dev)->submits, 4);
		device_run_destroy(r);
		knit_graph_destroy(g);
		end();
	}
	unsetenv("KNIT_VK_COPY_PARAMS");
}
END_TEST

START_TEST(segments_change_nothing) {
	setenv("KNIT_VK_SEGMENT_US", "0", 1);
	if (begin()) {
		knit_graph *const g = diamond();
		device_run *const r = prepare(g);
		const knit_plan *const plan = device_run_plan(r);

		ck_assert_uint_eq(plan->segment_count, plan->work_count);
		ck_assert_int_eq(knit__vk_barrier_check(plan, NULL), KNIT_OK);
		ck_assert(run_equals(g, r, TOKENS, 1) && run_equals(g, r, 2, 2));
		ck_assert_uint_eq(knit__vk_counters(dev)->submits, 2 * plan->segment_count);
		device_run_destroy(r);
		knit_graph_destroy(g);
		end();
	}
	unsetenv("KNIT_VK_SEGMENT_US");
}
END_TEST

START_TEST(times_are_there_when_asked_for) {
	setenv("KNIT_TIMES", "1", 1);
	if (begin()) {
		knit_graph *const g = diamond();
		device_run *const r = prepare(g);
		const uint32_t steps = device_run_schedule(r)->step_count;
		knit_step_time times[32];
		uint64_t sum = 0;

		if (dev->timing) {
			ck_assert_uint_eq(knit__vk_plan_times(device_run_plan(r), times, 32), 0); /* nothing has run */
			ck_assert(run_equals(g, r, TOKENS, 1));
			ck_assert_uint_eq(knit__vk_plan_times(device_run_plan(r), times, 32), steps);
			for (uint32_t i = 0; i < steps; ++i) {
				ck_assert_uint_eq(times[i].step, i);
				ck_assert_uint_lt(times[i].ns, UINT64_C(60000000000));
				sum += times[i].ns;
			}
			ck_assert_uint_gt(sum, 0);
			ck_assert_int_eq(knit__vk_barrier_check(device_run_plan(r), NULL), KNIT_OK);
		} else {
			printf("SKIP: the device has no timestamps\n");
		}
		device_run_destroy(r);
		knit_graph_destroy(g);
		end();
	}
	unsetenv("KNIT_TIMES");
}
END_TEST

/* ---- counters ---------------------------------------------------------------------------------------------------- */

START_TEST(a_run_costs_one_submit) {
	if (!begin())
		return;
	knit_graph *const g = diamond();
	device_run *const r = prepare(g);

	ck_assert(run_equals(g, r, 1, 0));
	const knit_vk_counters before = *knit__vk_counters(dev);
	ck_assert_uint_gt(before.pipelines, 0);
	ck_assert_uint_gt(before.parameter_writes, 0);
	for (int i = 0; i < 3; ++i)
		ck_assert(run_equals(g, r, 1, i));
	knit_vk_counters after = *knit__vk_counters(dev);
	ck_assert_uint_eq(after.submits, before.submits + 3);
	ck_assert_uint_eq(after.records, before.records);
	ck_assert_uint_eq(after.descriptor_writes, before.descriptor_writes);
	ck_assert_uint_eq(after.parameter_writes, before.parameter_writes);
	ck_assert_uint_eq(after.allocations, before.allocations);
	ck_assert_uint_eq(after.barriers, before.barriers);
	/* Another size writes parameters and nothing else. */
	ck_assert(run_equals(g, r, 3, 0));
	after = *knit__vk_counters(dev);
	ck_assert_uint_eq(after.parameter_writes, before.parameter_writes + device_run_plan(r)->work_count);
	ck_assert_uint_eq(after.records, before.records);
	ck_assert_uint_eq(after.descriptor_writes, before.descriptor_writes);
	/* A second plan of the same shapes makes no pipeline. */
	device_run *const second = prepare(g);
	ck_assert(run_equals(g, second, 2, 0) && run_equals(g, r, 2, 1) && run_equals(g, second, TOKENS, 2));
	ck_assert_uint_eq(knit__vk_counters(dev)->pipelines, before.pipelines);
	device_run_destroy(second);
	device_run_destroy(r);
	knit_graph_destroy(g);
	end();
}
END_TEST

/* ---- barriers ---------------------------------------------------------------------------------------------------- */

/* As few barriers as the longest chain of hazards; each one missing is noticed by the checker, and by synchronization
 * validation but where only writes follow writes, which it does not look at. */
START_TEST(each_barrier_is_missed) {
	if (begin()) {
		knit_graph *const g = diamond();
		device_run *r = prepare(g);
		const uint32_t barriers = device_run_plan(r)->barrier_count;
		uint32_t reported = 0;
		char number[16];

		ck_assert(run_equals(g, r, TOKENS, 0));
		ck_assert_uint_eq(knit__vk_messages(), messages);
		ck_assert_uint_ge(barriers, 5);
		ck_assert_uint_lt(barriers, device_run_schedule(r)->step_count - 1); /* silu and gelu of x share a level */
		device_run_destroy(r);
		vulkan_quiet = true;
		for (uint32_t k = 0; k < barriers; ++k) {
			const uint64_t before = knit__vk_messages();
			knit_diag d = {0};

			snprintf(number, sizeof number, "%u", k);
			setenv("KNIT_VK_SKIP_BARRIER", number, 1);
			r = prepare(g);
			ck_assert_int_eq(knit__vk_barrier_check(device_run_plan(r), &d), KNIT_ERR_INTERNAL);
			ck_assert_ptr_nonnull(strstr(d.text, "no barrier lies between"));
			run_equals(g, r, TOKENS, (int)k);
			reported += knit__vk_messages() > before;
			device_run_destroy(r);
		}
		unsetenv("KNIT_VK_SKIP_BARRIER");
		printf("%u barriers: the checker missed each that was left out, synchronization validation %u of them\n", barriers,
		       reported);
		if (dev->host.validation == KNIT_VK_VALIDATE_SYNC)
			ck_assert_uint_eq(reported, barriers);
		knit_graph_destroy(g);
		end();
	}
}
END_TEST

/* ---- exchanging weights ------------------------------------------------------------------------------------------ */

static knit_graph *scaled(knit_weights *w) {
	knit_graph *g = NULL;

	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim dims[] = {knit_sym(g, "tokens", 1, TOKENS), knit_n(WIDTH)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims), gain = knit_weight(g, w, "gain");
	/* Two uses of the weight that is exchanged, and one of another. */
	knit_output(g, "y", knit_mul(g, knit_add(g, knit_mul(g, x, gain), knit_weight(g, w, "bias")), gain));
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	return g;
}

static knit_weights *vectors(float gain) {
	const int64_t n = WIDTH;
	float values[2][WIDTH];
	knit_weights *w = NULL;

	for (int i = 0; i < WIDTH; ++i) {
		values[0][i] = gain + 0.01f * (float)i;
		values[1][i] = -0.5f;
	}
	ck_assert_int_eq(knit_weights_create(ctx, &w), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(w, "gain", KNIT_F32, 1, &n, values[0], sizeof values[0], NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(w, "bias", KNIT_F32, 1, &n, values[1], sizeof values[1], NULL), KNIT_OK);
	return w;
}

static uint32_t buffer_named(const knit_schedule *s, const char *name) {
	uint32_t i = 0;

	while (i < s->buffer_count && strcmp(s->buffers[i].name, name) != 0)
		++i;
	ck_assert_uint_lt(i, s->buffer_count);
	return i;
}

/* Both ways: descriptors that may change under recorded commands, and recording anew. */
START_TEST(weights_can_be_exchanged) {
	for (int later = 0; later < 2; ++later) {
		if (!begin())
			return;
		if (later && !dev->update_after_bind) {
			printf("SKIP: the device cannot change descriptors of recorded commands\n");
			end();
			return;
		}
		dev->update_after_bind = later;
		knit_weights *const first = vectors(1.0f), *const second = vectors(-2.0f);
		knit_graph *const g = scaled(first), *const other = scaled(second);
		device_run *const r = prepare(g);
		knit_plan *const plan = device_run_plan(r);
		const uint32_t at = buffer_named(device_run_schedule(r), "gain");
		knit_buffer *buf = NULL;
		float values[WIDTH];

		for (int i = 0; i < WIDTH; ++i)
			values[i] = -2.0f + 0.01f * (float)i;
		ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_CONST, sizeof values, &buf), KNIT_OK);
		ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, values, sizeof values), KNIT_OK);
		ck_assert(run_equals(g, r, 3, 0));
		const knit_vk_counters before = *knit__vk_counters(dev);
		ck_assert_int_eq(knit__vk_plan_rebind(plan, at, buf), KNIT_OK);
		ck_assert(run_equals(other, r, 3, 0) && !run_equals(g, r, 3, 0));
		ck_assert_uint_eq(knit__vk_counters(dev)->descriptor_writes, before.descriptor_writes + 2);
		ck_assert_uint_eq(knit__vk_counters(dev)->records, before.records + !later);
		ck_assert_uint_eq(knit__vk_counters(dev)->allocations, before.allocations);
		ck_assert_uint_eq(knit__vk_counters(dev)->parameter_writes, before.parameter_writes);
		/* Nothing else can be exchanged, and nothing too small taken. */
		ck_assert_int_eq(knit__vk_plan_rebind(plan, device_run_schedule(r)->arena_buffer, buf), KNIT_ERR_ARGUMENT);
		ck_assert_int_eq(knit__vk_plan_rebind(plan, device_run_schedule(r)->buffer_count, buf), KNIT_ERR_ARGUMENT);
		knit_buffer *small = NULL;
		ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_CONST, 16, &small), KNIT_OK);
		ck_assert_int_eq(knit__vk_plan_rebind(plan, at, small), KNIT_ERR_ARGUMENT);
		knit__vk_buffer_free(dev, small);
		device_run_destroy(r);
		knit__vk_buffer_free(dev, buf);
		knit_graph_destroy(g);
		knit_graph_destroy(other);
		knit_weights_release(first);
		knit_weights_release(second);
		end();
	}
}
END_TEST

/* ---- the cache file ---------------------------------------------------------------------------------------------- */

static void make_pipelines(void) {
	knit_graph *const g = diamond();
	device_run *const r = prepare(g);

	ck_assert(run_equals(g, r, TOKENS, 0));
	device_run_destroy(r);
	knit_graph_destroy(g);
}

static bool loads(void) {
	size_t bytes;
	void *const data = knit__vk_cache_load(dev, &bytes);

	if (data)
		knit__free(&dev->a, data, bytes);
	return data != NULL;
}

static void spoil(const char *path, long at, bool cut) {
	FILE *const f = fopen(path, "r+b");

	ck_assert_ptr_nonnull(f);
	if (cut) {
		ck_assert_int_eq(ftruncate(fileno(f), at), 0);
	} else {
		ck_assert_int_eq(fseek(f, at, SEEK_SET), 0);
		const int byte = fgetc(f);
		ck_assert_int_eq(fseek(f, at, SEEK_SET), 0);
		fputc(byte ^ 0x40, f);
	}
	fclose(f);
}

START_TEST(a_spoilt_cache_file_is_ignored_and_replaced) {
	char folder[] = "/tmp/knit-cache-XXXXXX", deep[64], path[640];
	char *const kept = strdup(getenv("KNIT_CACHE") ? getenv("KNIT_CACHE") : "");

	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(deep, sizeof deep, "%s/a/b", folder);
	setenv("KNIT_CACHE", deep, 1);
	for (int way = 0; way < 4; ++way) {
		if (!begin())
			break;
		ck_assert(knit__vk_cache_path(dev, path, sizeof path));
		ck_assert_ptr_eq(strstr(path, deep), path);
		ck_assert(loads() == false); /* absent, or spoilt below */
		make_pipelines();
		end();
		ck_assert(begin());
		ck_assert(loads());
		if (way == 2) { /* another driver's, sound by itself */
			size_t bytes;
			unsigned char *const data = knit__vk_cache_load(dev, &bytes);
			data[16] ^= 1;
			knit__vk_cache_save(dev, data, bytes);
			knit__free(&dev->a, data, bytes);
		}
		end();
		if (way < 2)
			spoil(path, way ? 40 : 70 - 8, way == 1);
	}
	remove(path);
	setenv("KNIT_CACHE", "", 1);
	if (begin()) {
		ck_assert(!knit__vk_cache_path(dev, path, sizeof path) && !loads());
		make_pipelines();
		end();
	}
	setenv("KNIT_CACHE", kept, 1);
	free(kept);
	snprintf(path, sizeof path, "%s/a/b", folder);
	rmdir(path);
	snprintf(path, sizeof path, "%s/a", folder);
	rmdir(path);
	ck_assert_int_eq(rmdir(folder), 0); /* nothing was left beside the file */
}
END_TEST

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static VKAPI_ATTR VkResult VKAPI_CALL no_pipeline(VkDevice device, VkPipelineCache cache, uint32_t count,
                                                  const VkComputePipelineCreateInfo *infos,
                                                  const VkAllocationCallbacks *callbacks, VkPipeline *out) {
	(void)device, (void)cache, (void)infos, (void)callbacks;
	for (uint32_t i = 0; i < count; ++i)
		out[i] = VK_NULL_HANDLE;
	return VK_ERROR_UNKNOWN;
}

START_TEST(a_compiler_failure_names_the_kernel) {
	if (!begin())
		return;
	knit_graph *const g = diamond();
	const PFN_vkCreateComputePipelines real = dev->vk.CreateComputePipelines;
	device_run *r = NULL;
	knit_diag d = {0};

	dev->vk.CreateComputePipelines = no_pipeline;
	ck_assert_int_eq(device_run_create(g, vulkan_backend(), dev, NULL, &r, &d), KNIT_ERR_DEVICE);
	ck_assert_msg(strstr(d.text, "kernel ") && strstr(d.text, "refuses shader") && strstr(d.text, "VK_ERROR_UNKNOWN"), "%s",
	              d.text);
	/* The device is as good as before. */
	dev->vk.CreateComputePipelines = real;
	r = prepare(g);
	ck_assert(run_equals(g, r, TOKENS, 0));
	device_run_destroy(r);
	knit_graph_destroy(g);
	end();
}
END_TEST

static VkResult submit_result;
static VKAPI_ATTR VkResult VKAPI_CALL failing_submit(VkQueue queue, uint32_t count, const VkSubmitInfo *infos,
                                                     VkFence fence) {
	(void)queue, (void)count, (void)infos, (void)fence;
	return submit_result;
}

START_TEST(a_loss_is_remembered) {
	if (!begin())
		return;
	knit_graph *const g = diamond();
	device_run *const r = prepare(g);
	knit_plan *const plan = device_run_plan(r);
	const PFN_vkQueueSubmit real = dev->vk.QueueSubmit;
	const int64_t symbols[KNIT_MAX_SYMBOLS] = {1};
	const double limit = knit__vk_segment_ns(dev);

	dev->vk.QueueSubmit = failing_submit;
	submit_result = VK_ERROR_OUT_OF_HOST_MEMORY;
	ck_assert_int_eq(knit__vk_plan_submit(plan, symbols), KNIT_ERR_MEMORY);
	ck_assert_int_eq(knit__vk_plan_wait(plan, 0), KNIT_ERR_STATE);
	dev->vk.QueueSubmit = real;
	ck_assert(run_equals(g, r, 1, 0));
	dev->vk.QueueSubmit = failing_submit;
	submit_result = VK_ERROR_DEVICE_LOST;
	ck_assert_int_eq(knit__vk_plan_submit(plan, symbols), KNIT_ERR_DEVICE);
	dev->vk.QueueSubmit = real;
	ck_assert_int_eq(knit__vk_plan_submit(plan, symbols), KNIT_ERR_DEVICE);
	ck_assert(dev->lost);
	ck_assert_double_eq(knit__vk_segment_ns(dev), limit / 2);
	device_run_destroy(r);
	knit_graph_destroy(g);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		results_follow_symbols,
		parameters_can_be_copied,
		segments_change_nothing,
		times_are_there_when_asked_for,
		a_run_costs_one_submit,
		each_barrier_is_missed,
		weights_can_be_exchanged,
		a_spoilt_cache_file_is_ignored_and_replaced,
		a_compiler_failure_names_the_kernel,
		a_loss_is_remembered,
	};

	vulkan_present_checked();
	return suite_run("vulkan/vk_plan", tests, sizeof tests / sizeof *tests);
}
