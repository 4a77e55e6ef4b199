/* Owns the timing of one small program on a device: its graph, what it is compiled to, its runs. Weights and inputs are
 * zeros: no kernel's time hangs on them. Knows no choice that is measured by it. */
#include "vk_trial.h"

#include "../../graph/context.h"
#include "../../graph/pass.h"
#include "vk_plan.h"

#include <stdio.h>
#include <string.h>

#define MAX_STEPS 64
#define MIN_RUNS 3
#define MAX_RUNS 40

/* Enough for times well above those of a launch, and for weights that no cache holds on a large device. */
typedef struct sizes { int64_t layers, width, heads, kv_heads, dim, cells; } sizes;
static const sizes of_class[] = {
	[KNIT_VK_DISCRETE] = {4, 4096, 32, 8, 128, 4096},
	[KNIT_VK_INTEGRATED] = {4, 2048, 32, 8, 64, 2048},
	[KNIT_VK_SOFTWARE] = {1, 256, 4, 2, 64, 1024},
};

static const sizes *sizes_of(const knit_device *dev) {
	const knit_vk_class class = dev->kernel_caps.device_class;

	return &of_class[class >= KNIT_VK_DISCRETE && class <= KNIT_VK_SOFTWARE ? class : KNIT_VK_INTEGRATED];
}

/* ---- the graph --------------------------------------------------------------------------------------------------- */

/* A square matrix of zeros but for its first byte, since tensors with equal bytes are one. */
static knit_status add_weight(knit_vk_trial *t, knit_dtype dtype, int64_t width, int64_t layer, knit_diag *d) {
	const knit_allocator *const a = &t->dev->a;
	const int64_t dims[] = {width, width};
	char name[16];
	uint64_t bytes;

	if (!knit__dtype_bytes(dtype, (uint64_t)(width * width), &bytes))
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "a trial's weight is too large");
	unsigned char *const data = knit__alloc_zero(a, (size_t)bytes);
	if (!data)
		return knit__fail_memory(d, "a weight to measure with", bytes);
	data[0] = (unsigned char)(layer + 1);
	snprintf(name, sizeof name, "w%d", (int)layer);
	const knit_status status = knit_weights_add(t->store, name, dtype, 2, dims, data, (size_t)bytes, d);
	knit__free(a, data, (size_t)bytes);
	return status;
}

static knit_status build_products(knit_vk_trial *t, const knit_vk_trial_desc *what, knit_diag *d) {
	const sizes *const s = sizes_of(t->dev);
	const knit_dim dims[] = {knit_n(what->rows), knit_n(s->width)};
	knit_tensor x = knit_input(t->g, "x", KNIT_F32, 2, dims);

	for (int64_t i = 0; i < s->layers; ++i) {
		const knit_status status = add_weight(t, what->dtype, s->width, i, d);
		if (status != KNIT_OK)
			return status;
		x = knit_linear(t->g, x, knit_weight(t->g, t->store, "w%d", (int)i));
	}
	knit_output(t->g, "y", x);
	return KNIT_OK;
}

static void build_attention(knit_vk_trial *t, const knit_vk_trial_desc *what) {
	const sizes *const s = sizes_of(t->dev);
	const knit_dim dims[] = {knit_n(what->rows), knit_n(s->heads), knit_n(s->dim)};
	const knit_dim cells[] = {knit_n(1), knit_n(s->cells), knit_n(s->kv_heads), knit_n(s->dim)};
	const knit_attention_desc plain = {0};
	knit_tensor x = knit_input(t->g, "x", KNIT_F32, 3, dims);
	const knit_tensor seq = knit_input(t->g, "seq", KNIT_I32, 1, dims), pos = knit_input(t->g, "pos", KNIT_I32, 1, dims);

	for (int64_t i = 0; i < s->layers; ++i) {
		const knit_state k = knit_state_define(t->g, what->dtype, 4, cells, "k%d", (int)i);
		const knit_state v = knit_state_define(t->g, what->dtype, 4, cells, "v%d", (int)i);
		x = knit_attention(t->g, x, knit_state_read(t->g, k), knit_state_read(t->g, v), seq, pos, &plain);
	}
	knit_output(t->g, "y", x);
}

knit_status knit__vk_trial_make(knit_context *ctx, knit_device *dev, const knit_vk_trial_desc *what, knit_vk_trial *out,
                                knit_diag *d) {
	*out = (knit_vk_trial){.dev = dev};
	knit_status status = knit_weights_create(ctx, &out->store);
	if (status == KNIT_OK)
		status = knit_graph_create(ctx, &out->g);
	if (status != KNIT_OK)
		return knit__fail(d, status, 0, "a graph to measure with: %s", knit_status_name(status));
	if (what->attention)
		build_attention(out, what);
	else
		status = build_products(out, what, d);
	return status == KNIT_OK ? knit_graph_status(out->g, d) : status;
}

void knit__vk_trial_free(knit_vk_trial *t) {
	knit_graph_destroy(t->g);
	knit_weights_release(t->store);
	*t = (knit_vk_trial){0};
}

/* ---- a run of it ------------------------------------------------------------------------------------------------- */

typedef struct compiled {
	knit_device *dev;
	knit_graph *g;
	knit_schedule *schedule;
	knit_buffer **buffers;
	knit_plan *plan;
} compiled;

static knit_kernel ask_select(const void *device, const knit_node_view *node) {
	return knit__vk_select(device, node);
}

static uint64_t ask_scratch(const void *device, knit_kernel kernel, const knit_node_view *node) {
	return knit__vk_scratch(device, kernel, node);
}

/* Positions are the last cell; everything else stays zero. */
static knit_status positions_write(compiled *c, uint32_t buffer) {
	const knit_buffer_desc *const b = &c->schedule->buffers[buffer];
	const int32_t last = (int32_t)sizes_of(c->dev)->cells - 1;
	knit_status status = KNIT_OK;

	if (b->use != KNIT_BUFFER_IO || strcmp(b->name, "pos") != 0)
		return KNIT_OK;
	for (uint64_t at = 0; status == KNIT_OK && at + sizeof last <= b->bytes; at += sizeof last)
		status = knit__vk_buffer_write(c->dev, c->buffers[buffer], at, &last, sizeof last);
	return status;
}

static knit_status compile(const knit_vk_trial *t, compiled *c, knit_diag *d) {
	knit_device *const dev = t->dev;
	const knit_target target = {.device = dev,
	                            .select = ask_select,
	                            .scratch = ask_scratch,
	                            .buffer_align = dev->caps.buffer_align,
	                            .max_buffer = dev->caps.max_buffer,
	                            .max_binding_range = dev->caps.max_binding_range};
	knit_bounds bounds;

	*c = (compiled){.dev = dev};
	knit_status status = knit__graph_clone(t->g, &c->g, d);
	if (status == KNIT_OK)
		status = knit__passes_run(c->g, &target, NULL, d);
	if (status != KNIT_OK)
		return status;
	knit__bounds_declared(&c->g->exprs, &bounds);
	status = knit__schedule_create(c->g, &bounds, &target, &c->schedule, d);
	if (status != KNIT_OK)
		return status;
	c->buffers = knit__alloc_zero(&dev->a, (c->schedule->buffer_count + 1) * sizeof *c->buffers);
	if (!c->buffers)
		return knit__fail_memory(d, "a list of buffers", c->schedule->buffer_count * sizeof *c->buffers);
	for (uint32_t i = 0; i < c->schedule->buffer_count; ++i) {
		const knit_buffer_desc *const b = &c->schedule->buffers[i];
		status = knit__vk_buffer_create(dev, b->use, b->bytes, &c->buffers[i]);
		if (status == KNIT_OK)
			status = positions_write(c, i);
		if (status != KNIT_OK)
			return knit__fail(d, status, 0, "%llu bytes to measure with: %s", (unsigned long long)b->bytes,
			                  knit_status_name(status));
	}
	return knit__vk_plan_create(dev, c->schedule, c->buffers, &c->plan, d);
}

static void compiled_free(compiled *c) {
	if (c->plan)
		knit__vk_plan_destroy(c->dev, c->plan);
	for (uint32_t i = 0; c->buffers && i < c->schedule->buffer_count; ++i)
		if (c->buffers[i])
			knit__vk_buffer_free(c->dev, c->buffers[i]);
	if (c->buffers)
		knit__free(&c->dev->a, c->buffers, (c->schedule->buffer_count + 1) * sizeof *c->buffers);
	knit__schedule_destroy(c->schedule);
	knit_graph_destroy(c->g);
}

/* The device's own time where it tells it: that of a launch is no matter of kernels. */
static knit_status run(compiled *c, double *ms) {
	static const int64_t no_symbols[KNIT_MAX_SYMBOLS];
	knit_step_time times[MAX_STEPS];
	const uint64_t begin = knit__vk_now_ns();
	uint64_t ns = 0;

	knit_status status = knit__vk_plan_submit(c->plan, no_symbols);
	if (status == KNIT_OK)
		status = knit__vk_plan_wait(c->plan, UINT64_MAX);
	const uint64_t wall = knit__vk_now_ns() - begin;
	const size_t count = knit__vk_plan_times(c->plan, times, MAX_STEPS);
	for (size_t i = 0; i < count && i < MAX_STEPS; ++i)
		ns += times[i].ns;
	*ms = (double)(ns ? ns : wall) * 1e-6;
	return status;
}

static knit_status best_run(compiled *c, double least_ms, double *ms) {
	const uint64_t begin = knit__vk_now_ns();
	knit_status status = run(c, ms); /* drivers translate and load on first use */
	double one;

	for (int i = 0; status == KNIT_OK && i < MAX_RUNS; ++i) {
		if (i >= MIN_RUNS && (double)(knit__vk_now_ns() - begin) * 1e-6 >= least_ms)
			break;
		status = run(c, &one);
		*ms = i == 0 || one < *ms ? one : *ms;
	}
	return status;
}

knit_status knit__vk_trial_time(const knit_vk_trial *t, double least_ms, double *ms, knit_diag *d) {
	compiled c;

	knit_status status = compile(t, &c, d);
	if (status == KNIT_OK) {
		status = best_run(&c, least_ms, ms);
		if (status != KNIT_OK)
			knit__fail(d, status, 0, "a run to be measured failed: %s", knit_status_name(status));
	}
	compiled_free(&c);
	return status;
}
