/* Owns what a session must check before a run: which inputs hold indices and how large they may be, which pairs of
 * inputs name cells of a state, and how far these may lie apart in a ring. What cannot be checked there is refused here, when the graph is compiled. */
#include "op_def.h"
#include "schedule_parts.h"



/* Where an index operand comes from, through views and copies. */
typedef struct source {
	uint32_t value; /* an input, or a result of an op that is no copy */
	bool whole;     /* the operand is all of it, in order */
} source;

static source find_source(const knit_graph *g, uint32_t value) {
	source from = {value, true};

	for (;;) {
		const knit_value *v = knit__value(g, from.value);
		const uint32_t producer = knit__value_producer(g, from.value), root = knit__value_root(g, from.value);
		uint64_t elements, all;

		if (v->view_of && (v->offset.v != 0 || !knit__value_contiguous(g, from.value) ||
		                   !knit__value_max_elements(g, NULL, from.value, &elements) ||
		                   !knit__value_max_elements(g, NULL, root, &all) || elements != all))
			from.whole = false;
		from.value = root;
		if (!producer || g->nodes[producer].op != KNIT_OP_COPY)
			return from;
		from.value = g->nodes[producer].in[0];
	}
}

static bool is_input(const knit_graph *g, source from) {
	return knit__value_storage(g, from.value)->kind == KNIT_STORAGE_INPUT;
}

/* The largest index that argmax can give lies below its operand's innermost dimension. */
static bool is_small_argmax(const knit_schedule *s, source from, knit_dim bound) {
	const knit_graph *g = s->graph;
	const uint32_t producer = g->values[from.value].producer;

	if (!producer || g->nodes[producer].op != KNIT_OP_ARGMAX)
		return false;

	const knit_value *x = knit__value(g, g->nodes[producer].in[0]);
	const knit_dim over = x->dims[x->rank - 1];

	return knit__dim_equal(over, bound) ||
	       knit__dim_hi(&g->exprs, &s->bounds, over) <= knit__dim_lo(&g->exprs, &s->bounds, bound);
}

static const char *at(const knit_step *step) { return *step->origin ? " at " : ""; }

static knit_status add_index_check(knit_schedule *s, const knit_step *step, const knit_index_check *check, knit_diag *d) {
	for (uint32_t i = 0; i < s->index_check_count; ++i)
		if (s->index_checks[i].buffer == check->buffer && knit__dim_equal(s->index_checks[i].bound, check->bound))
			return KNIT_OK;
	if (!knit__grow(s->a, (void **)&s->index_checks, &s->index_check_cap, s->index_check_count + 1,
	                sizeof *s->index_checks))
		return knit__fail_memory(d, step->origin, sizeof *s->index_checks);
	s->index_checks[s->index_check_count++] = *check;
	return KNIT_OK;
}

static knit_status check_indices(knit_schedule *s, const uint32_t *buffer_of, const knit_step *step, knit_diag *d) {
	const knit_graph *g = s->graph;
	const knit_op_def *def = knit__op(step->op);

	for (uint32_t i = 0; i < def->index_rule_count; ++i) {
		const knit_index_rule *rule = &def->index_rules[i];

		if (knit__index_rule_void(rule, step->in_count, step->attr) || step->in[rule->operand].buffer == UINT32_MAX ||
		    step->in[rule->into].buffer == UINT32_MAX)
			continue;

		const knit_dim bound = step->in[rule->into].dims[rule->dim];
		const source from = find_source(g, step->in[rule->operand].value);
		char bound_text[64];

		if (is_small_argmax(s, from, bound))
			continue;
		if (!is_input(g, from)) {
			knit__dim_text(&g->exprs, &g->strings, bound, bound_text, sizeof bound_text);
			return knit__fail(d, KNIT_ERR_UNSUPPORTED, step->node,
			                  "%s%s%s: operand %u holds indices below %s that no run could check; make it an input of the "
			                  "graph, or an argmax over at most that many",
			                  def->name, at(step), step->origin, rule->operand, bound_text);
		}

		const uint32_t buffer = buffer_of[g->values[from.value].storage];
		const knit_index_check check = {buffer, bound, s->buffers[buffer].name, def->name, step->origin};
		const knit_status status = add_index_check(s, step, &check, d);

		if (status != KNIT_OK)
			return status;
	}
	return KNIT_OK;
}

/* Two rows for one cell would race, and which of them stays would be chance. */
static knit_status check_pairs(knit_schedule *s, const uint32_t *buffer_of, const knit_step *step, knit_diag *d) {
	const knit_graph *g = s->graph;

	const knit_op_def *def = knit__op(step->op);

	if (!def->state_outputs)
		return KNIT_OK;

	const source seq = find_source(g, step->in[def->cell_seq].value), pos = find_source(g, step->in[def->cell_pos].value);
	const char *state = s->buffers[step->in[0].buffer].name;

	if (!is_input(g, seq) || !is_input(g, pos) || !seq.whole || !pos.whole)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, step->node,
		                  "%s to %s%s%s: seq and pos must be whole inputs of the graph, so that a run can check that no "
		                  "cell is written twice",
		                  def->name, state, at(step), step->origin);

	const knit_pair_check check = {buffer_of[g->values[seq.value].storage], buffer_of[g->values[pos.value].storage],
	                               state};

	for (uint32_t i = 0; i < s->pair_check_count; ++i)
		if (s->pair_checks[i].seq_buffer == check.seq_buffer && s->pair_checks[i].pos_buffer == check.pos_buffer)
			return KNIT_OK;
	if (!knit__grow(s->a, (void **)&s->pair_checks, &s->pair_check_cap, s->pair_check_count + 1, sizeof *s->pair_checks))
		return knit__fail_memory(d, step->origin, sizeof *s->pair_checks);
	s->pair_checks[s->pair_check_count++] = check;
	return KNIT_OK;
}

static knit_status add_ring_check(knit_schedule *s, const knit_step *step, const knit_ring_check *check, knit_diag *d) {
	for (uint32_t i = 0; i < s->ring_check_count; ++i) {
		knit_ring_check *const old = &s->ring_checks[i];

		if (old->seq_buffer != check->seq_buffer || old->pos_buffer != check->pos_buffer || old->sinks != check->sinks)
			continue;
		if (check->span < old->span)
			*old = *check;
		return KNIT_OK;
	}
	if (!knit__grow(s->a, (void **)&s->ring_checks, &s->ring_check_cap, s->ring_check_count + 1, sizeof *s->ring_checks))
		return knit__fail_memory(d, step->origin, sizeof *s->ring_checks);
	s->ring_checks[s->ring_check_count++] = *check;
	return KNIT_OK;
}

/* A token far ahead of another would take cells of the ring that the other still sees, or writes. */
static knit_status check_ring(knit_schedule *s, const uint32_t *buffer_of, const knit_step *step, knit_diag *d) {
	const knit_graph *g = s->graph;
	const knit_op_def *def = knit__op(step->op);
	knit_ring_check check = {.op = def->name, .origin = step->origin};

	if (!knit__ring_span(def, step->attr, &check.sinks, &check.span))
		return KNIT_OK;

	const source seq = find_source(g, step->in[def->cell_seq].value), pos = find_source(g, step->in[def->cell_pos].value);

	if (!is_input(g, seq) || !is_input(g, pos) || !seq.whole || !pos.whole)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, step->node,
		                  "%s%s%s: with a ring seq and pos must be whole inputs of the graph, so that a run can check that "
		                  "no token takes the cells of another",
		                  def->name, at(step), step->origin);
	check.seq_buffer = buffer_of[g->values[seq.value].storage];
	check.pos_buffer = buffer_of[g->values[pos.value].storage];
	return add_ring_check(s, step, &check, d);
}

knit_status knit__schedule_checks(knit_schedule *s, const uint32_t *buffer_of, knit_diag *d) {
	for (uint32_t i = 0; i < s->step_count; ++i) {
		knit_status status = check_indices(s, buffer_of, &s->steps[i], d);

		if (status == KNIT_OK)
			status = check_pairs(s, buffer_of, &s->steps[i], d);
		if (status == KNIT_OK)
			status = check_ring(s, buffer_of, &s->steps[i], d);
		if (status != KNIT_OK)
			return status;
	}
	return KNIT_OK;
}
