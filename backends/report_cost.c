/* Costs come from the ops' own definitions; which part of them is weights or states comes from the operands. */
#include "report.h"

#include <string.h>

/* ---- one step ---------------------------------------------------------------------------------------------------- */

static knit_shape shape_of(const knit_schedule *s, const int64_t *symbols, const knit_operand *o) {
	knit_shape shape = {.dtype = o->dtype, .rank = o->rank};

	if (o->buffer == UINT32_MAX)
		return (knit_shape){0};
	for (uint32_t i = 0; i < o->rank; ++i)
		shape.dims[i] = knit__dim_eval(&s->graph->exprs, symbols, o->dims[i]);
	return shape;
}

static uint64_t bytes_of(const knit_shape *shape) {
	uint64_t elements = 1, bytes = 0;

	for (uint32_t i = 0; i < shape->rank; ++i)
		elements *= (uint64_t)shape->dims[i]; /* within the planned bounds: cannot overflow */
	return shape->rank && knit__dtype_bytes(shape->dtype, elements, &bytes) ? bytes : 0;
}

/* Bytes of operand `at` that are read: rows that indices choose, where there are fewer of them than rows. */
static uint64_t weight_bytes(const knit_op_def *def, const knit_shape *in, uint32_t in_count, uint32_t at) {
	uint64_t all = bytes_of(&in[at]), bytes = all;

	for (uint32_t r = 0; r < def->index_rule_count; ++r) {
		const knit_index_rule *rule = &def->index_rules[r];
		if (rule->into != at || rule->dim != 0 || rule->operand >= in_count || !in[rule->operand].rank ||
		    in[at].dims[0] < 1)
			continue;
		const uint64_t chosen = (uint64_t)in[rule->operand].dims[0] * (all / (uint64_t)in[at].dims[0]);
		bytes = chosen < bytes ? chosen : bytes;
	}
	return bytes;
}

static bool is_weight(const knit_schedule *s, const knit_operand *o) {
	return o->buffer < s->buffer_count && s->buffers[o->buffer].use == KNIT_BUFFER_CONST;
}

static bool is_state(const knit_schedule *s, const knit_operand *o) {
	return o->buffer < s->buffer_count && s->buffers[o->buffer].use == KNIT_BUFFER_STATE;
}

static void step_cost(const knit_schedule *s, const int64_t *symbols, int64_t context, const knit_step *step,
                      knit_step_cost *out, uint64_t *largest) {
	const knit_op_def *def = knit__op(step->op);
	knit_shape in[KNIT_MAX_IN], outs[KNIT_MAX_OUT];
	uint64_t others = 0, written = 0;
	bool reads_state = false;
	knit_cost cost = {0};

	for (uint32_t i = 0; i < step->in_count; ++i)
		in[i] = shape_of(s, symbols, &step->in[i]);
	for (uint32_t i = 0; i < step->out_count; ++i)
		outs[i] = shape_of(s, symbols, &step->out[i]);
	def->cost(step->attr, in, step->in_count, outs, context, &cost);

	*out = (knit_step_cost){.flops = cost.flops, .read = cost.read_bytes, .write = cost.write_bytes};
	for (uint32_t i = 0; i < step->in_count; ++i) {
		if (is_weight(s, &step->in[i])) {
			const uint64_t bytes = weight_bytes(def, in, step->in_count, i);
			out->weights += bytes;
			if (largest && bytes > largest[step->in[i].buffer])
				largest[step->in[i].buffer] = bytes;
		} else if (is_state(s, &step->in[i])) {
			reads_state = true;
		} else {
			others += bytes_of(&in[i]);
		}
	}
	/* What the op reads beyond weights and activations it reads from its states. */
	if (reads_state && cost.read_bytes > others + out->weights)
		out->state_read = cost.read_bytes - others - out->weights;
	for (uint32_t i = def->state_outputs; i < step->out_count; ++i)
		written += bytes_of(&outs[i]);
	if (def->state_outputs && cost.write_bytes > written)
		out->state_write = cost.write_bytes - written;
}

void knit__step_cost(const knit_schedule *s, const int64_t *symbols, int64_t context, const knit_step *step,
                     knit_step_cost *out) {
	step_cost(s, symbols, context, step, out, NULL);
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

bool knit__run_cost_init(knit_run_cost *c, const knit_program *p) {
	memset(c, 0, sizeof *c);
	c->a = &p->a;
	c->buffer_count = p->buckets[0].schedule->buffer_count;
	c->largest = knit__alloc_array(c->a, c->buffer_count, sizeof *c->largest);
	return c->largest != NULL;
}

void knit__run_cost_clear(knit_run_cost *c) {
	knit__free(c->a, c->largest, c->buffer_count * sizeof *c->largest);
	memset(c, 0, sizeof *c);
}

void knit__run_cost_add(knit_run_cost *c, const knit_program *p, uint32_t bucket, const int64_t *symbols,
                        int64_t context) {
	const knit_schedule *s = p->buckets[bucket].schedule;

	for (uint32_t i = 0; i < s->step_count; ++i) {
		knit_step_cost one;
		step_cost(s, symbols, context, &s->steps[i], &one, c->largest);
		c->sum.flops += one.flops;
		c->sum.read += one.read;
		c->sum.write += one.write;
		c->sum.weights += one.weights;
		c->sum.state_read += one.state_read;
		c->sum.state_write += one.state_write;
	}
	++c->runs;
}

uint64_t knit__run_cost_unique(const knit_run_cost *c) {
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->buffer_count; ++i)
		sum += c->largest[i];
	return sum;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

uint32_t knit__program_smallest_bucket(const knit_program *p) {
	uint32_t best = 0;

	for (uint32_t i = 1; i < p->bucket_count && p->bucket_symbol != KNIT_NO_SYMBOL; ++i)
		if (p->buckets[i].bounds.lo[p->bucket_symbol] < p->buckets[best].bounds.lo[p->bucket_symbol])
			best = i;
	return best;
}

uint32_t knit__program_largest_bucket(const knit_program *p) {
	uint32_t best = 0;

	for (uint32_t i = 1; i < p->bucket_count && p->bucket_symbol != KNIT_NO_SYMBOL; ++i)
		if (p->buckets[i].bounds.hi[p->bucket_symbol] > p->buckets[best].bounds.hi[p->bucket_symbol])
			best = i;
	return best;
}

int64_t knit__program_cells(const knit_program *p) {
	const knit_graph *g = p->graph;
	int64_t cells = 0;

	for (uint32_t i = 0; i < g->state_count; ++i) {
		const knit_value *v = &g->values[g->storages[g->states[i].storage].value];
		if (v->rank > 1 && v->dims[1].v > cells)
			cells = v->dims[1].v;
	}
	return cells;
}
