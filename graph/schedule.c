/* Owns the making of a schedule from an optimised graph: kernels, scratch, memory plan, buffers, steps with resolved
 * operands. Hazards and the checks before a run have files of their own. Knows a device only as a knit_target. */
#include "schedule.h"
#include "op_def.h"
#include "schedule_parts.h"

#include <stdio.h>
#include <string.h>

/* The buffer of arena 0. */
#define ARENA 0

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static void add_operand_text(const knit_graph *g, uint32_t value, char *text, size_t size, const char *before) {
	const size_t at = strlen(text);
	char type[96] = "none";

	if (value)
		knit__value_text(g, value, type, sizeof type);
	snprintf(text + at, size - at, "%s%s%s", before, type,
	         value && !knit__value_contiguous(g, value) ? " (strided)" : "");
}

static knit_status fail_no_kernel(const knit_graph *g, uint32_t node, knit_diag *d) {
	const knit_node *n = &g->nodes[node];
	const char *origin = knit__origin_text(g, n);
	char types[512] = "";

	for (uint32_t i = 0; i < n->in_count; ++i)
		add_operand_text(g, n->in[i], types, sizeof types, i ? ", " : "");
	for (uint32_t i = 0; i < n->out_count; ++i)
		add_operand_text(g, n->out[i], types, sizeof types, i ? ", " : " -> ");
	return knit__fail(d, KNIT_ERR_UNSUPPORTED, node, "%s%s%s: the device has no kernel for %s", knit__op(n->op)->name,
	                  *origin ? " at " : "", origin, types);
}

/* Chooses the kernel of every step and asks for the scratch it needs. */
static knit_status choose_kernels(knit_schedule *s, const knit_target *target, uint64_t *scratch, knit_diag *d) {
	for (uint32_t at = 0; at < s->step_count; ++at) {
		const uint32_t node = s->graph->order[at];
		knit_node_view view;

		knit__node_view(s->graph, &s->bounds, node, &view);
		s->steps[at].kernel = target->select(target->device, &view);
		if (s->steps[at].kernel == 0)
			return fail_no_kernel(s->graph, node, d);
		scratch[at] = target->scratch ? target->scratch(target->device, s->steps[at].kernel, &view) : 0;
	}
	return KNIT_OK;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

/* Whether a storage has a buffer in every schedule of the program. It hangs on the graph alone, never on a bucket, so that
 * all buckets number their buffers alike. */
static void mark_buffers(const knit_graph *g, bool *has_buffer) {
	for (uint32_t at = 0; at < g->order_count; ++at) {
		const knit_node *n = &g->nodes[g->order[at]];

		for (uint32_t i = 0; i < n->in_count; ++i)
			if (n->in[i])
				has_buffer[g->values[n->in[i]].storage] = true;
		for (uint32_t i = 0; i < n->out_count; ++i)
			has_buffer[g->values[n->out[i]].storage] = true;
	}
	for (uint32_t i = 0; i < g->input_count; ++i)
		has_buffer[g->values[g->inputs[i].value].storage] = true;
	for (uint32_t i = 0; i < g->output_count; ++i)
		has_buffer[g->values[g->outputs[i].value].storage] = true;
	for (uint32_t i = 0; i < g->state_count; ++i)
		has_buffer[g->states[i].storage] = true;
}

static knit_buffer_use buffer_use(knit_storage_kind kind) {
	switch (kind) {
	case KNIT_STORAGE_CONST:
	case KNIT_STORAGE_ADAPTER:
		return KNIT_BUFFER_CONST;
	case KNIT_STORAGE_STATE:
		return KNIT_BUFFER_STATE;
	case KNIT_STORAGE_INPUT:
	case KNIT_STORAGE_OUTPUT:
		return KNIT_BUFFER_IO;
	case KNIT_STORAGE_TEMP:
		break;
	}
	return KNIT_BUFFER_ARENA;
}

static bool pack_size(const knit_graph *g, const knit_target *target, knit_buffer_desc *b) {
	if (!target->packed_bytes || !knit__weight_shape(g, b->storage, &b->shape))
		return false;
	b->packed_bytes = target->packed_bytes(target->device, b->layout, &b->shape);
	return b->packed_bytes != UINT64_MAX && b->packed_bytes >= b->bytes;
}

static knit_status set_buffer(knit_schedule *s, uint32_t index, uint32_t storage, const knit_target *target,
                              knit_diag *d) {
	const knit_storage *from = &s->graph->storages[storage];
	knit_buffer_desc *b = &s->buffers[index];

	*b = (knit_buffer_desc){.use = buffer_use(from->kind),
	                        .storage = storage,
	                        .bytes = from->max_bytes,
	                        .host = from->host,
	                        .layout = s->graph->values[from->value].layout,
	                        .name = knit__strings_get(&s->graph->strings, from->name),
	                        .kind = from->kind,
	                        .slots = from->slots};
	if (b->layout && !pack_size(s->graph, target, b))
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "%s has layout %u, of which the device cannot say the bytes", b->name,
		                  b->layout);
	const uint64_t bytes = b->layout ? b->packed_bytes : b->bytes;
	if (target->max_buffer != 0 && bytes > target->max_buffer)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "%s needs %llu bytes in one buffer, the device takes at most %llu", b->name,
		                  (unsigned long long)bytes, (unsigned long long)target->max_buffer);
	return KNIT_OK;
}

static knit_buffer_desc arena_desc(uint64_t bytes) {
	return (knit_buffer_desc){.use = KNIT_BUFFER_ARENA, .bytes = bytes, .name = "arena", .kind = KNIT_STORAGE_TEMP};
}

uint32_t knit__schedule_arena(const knit_schedule *s, uint32_t arena) {
	return arena == 0 ? ARENA : s->buffer_count - s->arena_count + arena;
}

/* Arena 0, then by use (weights, states, inputs and outputs) and storage, then the other arenas. */
static knit_status make_buffers(knit_schedule *s, const knit_target *target, bool *has_buffer, uint32_t *buffer_of,
                                knit_diag *d) {
	static const knit_buffer_use uses[] = {KNIT_BUFFER_CONST, KNIT_BUFFER_STATE, KNIT_BUFFER_IO};
	const knit_graph *g = s->graph;
	uint32_t count = 1, next = 1;
	knit_status status;

	count += s->arena_count - 1;
	mark_buffers(g, has_buffer);
	for (uint32_t i = 1; i < g->storage_count; ++i)
		count += has_buffer[i] && g->storages[i].kind != KNIT_STORAGE_TEMP;
	s->buffers = knit__alloc_array(s->a, count, sizeof *s->buffers);
	if (!s->buffers)
		return knit__fail_memory(d, "schedule", (uint64_t)count * sizeof *s->buffers);
	s->buffer_count = count;

	for (uint32_t i = 0; i < s->arena_count; ++i)
		s->buffers[knit__schedule_arena(s, i)] = arena_desc(s->plan.arenas[i]);
	status = KNIT_OK;
	for (size_t u = 0; u < sizeof uses / sizeof *uses; ++u) {
		for (uint32_t i = 1; i < g->storage_count && status == KNIT_OK; ++i) {
			if (!has_buffer[i] || g->storages[i].kind == KNIT_STORAGE_TEMP || buffer_use(g->storages[i].kind) != uses[u])
				continue;
			buffer_of[i] = next;
			status = set_buffer(s, next++, i, target, d);
		}
	}
	for (uint32_t i = 1; i < g->storage_count; ++i)
		if (g->storages[i].kind == KNIT_STORAGE_TEMP)
			buffer_of[i] = knit__schedule_arena(s, s->plan.arena[i]);
	return status;
}

/* ---- steps -------------------------------------------------------------------------------------------------------- */

static knit_operand resolve(const knit_schedule *s, const uint32_t *buffer_of, uint32_t value) {
	const knit_value *v = knit__value(s->graph, value);
	knit_operand o = {.buffer = UINT32_MAX};

	if (!value)
		return o;
	o = (knit_operand){.buffer = buffer_of[v->storage],
	                   .value = value,
	                   .base = s->graph->storages[v->storage].kind == KNIT_STORAGE_TEMP ? s->plan.offset[v->storage] : 0,
	                   .dtype = v->dtype,
	                   .rank = v->rank,
	                   .layout = v->layout,
	                   .offset = v->offset};
	memcpy(o.dims, v->dims, sizeof o.dims);
	memcpy(o.strides, v->strides, sizeof o.strides);
	return o;
}

static void make_steps(knit_schedule *s, const uint32_t *buffer_of, const uint64_t *scratch) {
	for (uint32_t at = 0; at < s->step_count; ++at) {
		const knit_node *n = &s->graph->nodes[s->graph->order[at]];
		knit_step *step = &s->steps[at];

		step->op = n->op;
		step->in_count = n->in_count;
		step->out_count = n->out_count;
		for (uint32_t i = 0; i < KNIT_MAX_IN; ++i)
			step->in[i] = resolve(s, buffer_of, i < n->in_count ? n->in[i] : 0);
		for (uint32_t i = 0; i < KNIT_MAX_OUT; ++i)
			step->out[i] = resolve(s, buffer_of, i < n->out_count ? n->out[i] : 0);
		memcpy(step->attr, n->attr, sizeof step->attr);
		step->scratch_bytes = scratch[at];
		step->scratch_base = scratch[at] != 0 ? s->plan.scratch_offset[at] : 0;
		step->scratch_buffer = knit__schedule_arena(s, scratch[at] != 0 ? s->plan.scratch_arena[at] : 0);
		step->node = s->graph->order[at];
		step->origin = knit__origin_text(s->graph, n);
		step->parts = knit__strings_get(&s->graph->strings, n->parts);
	}
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

/* Outputs are read from buffers of their own, so that the arena's bytes are free after their last step. */
static knit_status check_outputs(const knit_graph *g, knit_diag *d) {
	for (uint32_t i = 0; i < g->output_count; ++i) {
		const knit_value *v = knit__value(g, g->outputs[i].value);

		if (g->storages[v->storage].kind != KNIT_STORAGE_OUTPUT || v->view_of)
			return knit__fail(d, KNIT_ERR_INTERNAL, 0,
			                  "schedule: output \"%s\" does not own its bytes; the pass \"legalise\" must run before",
			                  knit__strings_get(&g->strings, g->outputs[i].name));
	}
	return KNIT_OK;
}

static uint64_t lesser_limit(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static knit_status plan_memory(knit_schedule *s, const knit_target *target, const uint64_t *scratch, knit_diag *d) {
	const knit_memory_rules rules = {.align = target->buffer_align,
	                                 .max_arena = lesser_limit(target->max_buffer, target->max_binding_range),
	                                 .apart = target->results_apart};
	const knit_status status = knit__memory_plan_create(s->graph, &s->bounds, scratch, &rules, &s->plan, d);

	s->max_arena = rules.max_arena;
	s->arena_count = s->plan.arena_count;
	return status;
}

static knit_status fill(knit_schedule *s, const knit_target *target, knit_diag *d) {
	const uint32_t storages = s->graph->storage_count;
	uint64_t *scratch = knit__alloc_array(s->a, s->step_count, sizeof *scratch);
	uint32_t *buffer_of = knit__alloc_array(s->a, storages, sizeof *buffer_of);
	bool *has_buffer = knit__alloc_array(s->a, storages, sizeof *has_buffer);
	knit_status status = KNIT_OK;

	s->steps = knit__alloc_array(s->a, s->step_count, sizeof *s->steps);
	if (!scratch || !buffer_of || !has_buffer || !s->steps)
		status = knit__fail_memory(d, "schedule", (uint64_t)s->step_count * sizeof *s->steps);
	else
		memset(buffer_of, 0xff, storages * sizeof *buffer_of);

	if (status == KNIT_OK)
		status = check_outputs(s->graph, d);
	if (status == KNIT_OK)
		status = choose_kernels(s, target, scratch, d);
	if (status == KNIT_OK)
		status = plan_memory(s, target, scratch, d);
	if (status == KNIT_OK)
		status = make_buffers(s, target, has_buffer, buffer_of, d);
	if (status == KNIT_OK) {
		make_steps(s, buffer_of, scratch);
		status = knit__schedule_hazards(s, d);
	}
	if (status == KNIT_OK)
		status = knit__schedule_checks(s, buffer_of, d);

	knit__free(s->a, scratch, s->step_count * sizeof *scratch);
	knit__free(s->a, buffer_of, storages * sizeof *buffer_of);
	knit__free(s->a, has_buffer, storages * sizeof *has_buffer);
	return status;
}

knit_status knit__schedule_create(const knit_graph *g, const knit_bounds *bounds, const knit_target *target,
                                  knit_schedule **out, knit_diag *d) {
	knit_schedule *s = knit__alloc_zero(g->a, sizeof *s);
	knit_status status;

	*out = NULL;
	if (!s)
		return knit__fail_memory(d, "schedule", sizeof *s);
	s->a = g->a;
	s->graph = g;
	s->step_count = g->order_count;
	s->arena_buffer = ARENA;
	if (bounds)
		s->bounds = *bounds;
	else
		knit__bounds_declared(&g->exprs, &s->bounds);

	status = fill(s, target, d);
	if (status != KNIT_OK) {
		knit__schedule_destroy(s);
		return status;
	}
	*out = s;
	return KNIT_OK;
}

knit_status knit__schedule_add_arenas(knit_schedule *s, uint32_t count, knit_diag *d) {
	const uint32_t more = count > s->arena_count ? count - s->arena_count : 0;

	if (more == 0)
		return KNIT_OK;

	knit_buffer_desc *buffers = knit__alloc_array(s->a, (size_t)s->buffer_count + more, sizeof *buffers);
	if (!buffers)
		return knit__fail_memory(d, "schedule", ((uint64_t)s->buffer_count + more) * sizeof *buffers);
	memcpy(buffers, s->buffers, s->buffer_count * sizeof *buffers);
	for (uint32_t i = 0; i < more; ++i)
		buffers[s->buffer_count + i] = arena_desc(0);
	knit__free(s->a, s->buffers, s->buffer_count * sizeof *s->buffers);
	s->buffers = buffers;
	s->buffer_count += more;
	s->arena_count = count;
	return KNIT_OK;
}

void knit__schedule_destroy(knit_schedule *s) {
	if (!s)
		return;
	knit__memory_plan_clear(&s->plan, s->a);
	knit__free(s->a, s->steps, s->step_count * sizeof *s->steps);
	knit__free(s->a, s->buffers, s->buffer_count * sizeof *s->buffers);
	knit__free(s->a, s->hazards, s->hazard_cap * sizeof *s->hazards);
	knit__free(s->a, s->index_checks, s->index_check_cap * sizeof *s->index_checks);
	knit__free(s->a, s->pair_checks, s->pair_check_cap * sizeof *s->pair_checks);
	knit__free(s->a, s->ring_checks, s->ring_check_cap * sizeof *s->ring_checks);
	knit__free(s->a, s, sizeof *s);
}
