/* Owns states: their definition, writing rows to their cells, reading them. Every write makes a new version of one
 * storage. Knows nothing of keys, values or attention. */
#include "op_util.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { STATE, ROWS, SEQ, POS, OPERANDS };
enum { RING, SINKS, ATTRS };

static bool check_ring(knit_infer *c) {
	const int64_t ring = c->attr[RING].i, sinks = c->attr[SINKS].i;
	const knit_dim cells = c->in[STATE]->dims[1];

	if (ring < 0 || sinks < 0 || (ring == 0 && sinks != 0))
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT,
								"ring is %lld and sinks %lld: needs a ring of at least 1 cell, or neither",
								(long long)ring, (long long)sinks);
	if (ring > 0 && (sinks > cells.v || cells.v - sinks != ring))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "state %s: a ring of %lld cells after %lld sinks needs as many cells",
								knit__infer_shape(c, c->in[STATE]).text, (long long)ring, (long long)sinks);
	return true;
}

static bool infer(knit_infer *c) {
	const knit_value *state = c->in[STATE], *rows = c->in[ROWS];
	bool fits;

	if (c->graph->storages[state->storage].kind != KNIT_STORAGE_STATE || state->view_of)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "%s is no state, needs one to write to",
								knit__infer_shape(c, state).text);
	if (!knit__op_check_f32(c, ROWS, "rows", 2, KNIT_MAX_RANK))
		return false;
	fits = rows->rank + 1 == state->rank;
	for (int i = 1; fits && i < rows->rank; ++i)
		fits = knit__dim_equal(rows->dims[i], state->dims[i + 1]);
	if (!fits)
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"rows %s and state %s: needs [tokens, ...] for [sequences, positions, ...]",
								knit__infer_shape(c, rows).text, knit__infer_shape(c, state).text);
	return check_ring(c) && knit__op_check_per_token(c, SEQ, "seq", ROWS, "rows") &&
		   knit__op_check_per_token(c, POS, "pos", ROWS, "rows");
}

/* Rounds one row to the state's type, block by block. */
static void write_row(knit_dtype dtype, const double *row, double *cell, int64_t elements) {
	const int64_t block = knit__dtype_info(dtype)->block_elements;
	char bits[64];

	for (int64_t i = 0; i < elements; i += block) {
		knit__encode(dtype, row + i, bits, (uint64_t)block);
		knit__decode(dtype, bits, cell + i, (uint64_t)block);
	}
}

/* The session checks seq and pos before a run; a cell outside the state is not written. */
static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t sequences = out->dims[0], cells = out->dims[1], tokens = in[ROWS].dims[0];
	int64_t row = 1;

	(void)in_count;
	for (uint32_t i = 1; i < in[ROWS].rank; ++i)
		row *= in[ROWS].dims[i];
	for (int64_t t = 0; t < tokens; ++t) {
		const double seq = in[SEQ].data[t];
		const int64_t cell = knit__op_cell(in[POS].data[t], attr[RING].i, attr[SINKS].i, cells);

		if (cell >= 0 && seq >= 0 && seq < (double)sequences)
			write_row(out->dtype, in[ROWS].data + t * row, out->data + ((int64_t)seq * cells + cell) * row, row);
	}
}

/* Writes the rows only; the rest of the state stays where it is. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const knit_shape written = {out->dtype, 1, {(int64_t)knit__op_elements(&in[ROWS])}};

	(void)attr, (void)in_count, (void)context;
	*c = (knit_cost){.read_bytes = knit__op_bytes(&in[ROWS]) + knit__op_bytes(&in[SEQ]) + knit__op_bytes(&in[POS]),
					 .write_bytes = knit__op_bytes(&written)};
}

const knit_op_def knit__op_state_append = {
	.name = "append",
	.min_in = OPERANDS,
	.max_in = OPERANDS,
	.out_count = 1,
	.state_outputs = 1,
	.cell_seq = SEQ,
	.cell_pos = POS,
	.ring_attr = RING + 1,
	.sinks_attr = SINKS + 1,
	.attr_count = ATTRS,
	.attrs = {{"ring", KNIT_ATTR_I}, {"sinks", KNIT_ATTR_I}},
	.index_rule_count = 2,
	.index_rules = {{.operand = SEQ, .into = STATE, .dim = 0},
					{.operand = POS, .into = STATE, .dim = 1, .unless_attr = RING + 1}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

/* ---- builder functions ------------------------------------------------------------------------------------------- */

static bool state_named(const knit_graph *g, const char *name) {
	for (uint32_t i = 0; i < g->state_count; ++i)
		if (strcmp(knit__strings_get(&g->strings, g->storages[g->states[i].storage].name), name) == 0)
			return true;
	return false;
}

static bool check_state_type(knit_graph *g, const char *name, knit_dtype t, int rank, const knit_dim *dims) {
	const knit_dtype_info *info = knit__dtype_info(t);

	if (!info || !info->is_state) {
		knit__build_fail(g, "state", KNIT_ERR_SHAPE, "%s is of type %s, needs f32, f16, bf16, q8_0 or q4_0", name,
						 knit_dtype_name(t));
		return false;
	}
	if ((rank != 3 && rank != 4) || !dims) {
		knit__build_fail(g, "state", KNIT_ERR_SHAPE, "%s has rank %d, needs 3 or 4: [sequences, positions, ...]", name,
						 rank);
		return false;
	}
	for (int i = 0; i < rank; ++i) {
		if (dims[i].v >= 1)
			continue;
		char text[64];

		knit__dim_text(&g->exprs, &g->strings, dims[i], text, sizeof text);
		knit__build_fail(g, "state", KNIT_ERR_SHAPE, "%s: dimension %d is %s, needs a number of at least 1", name, i,
						 text);
		return false;
	}
	if (dims[rank - 1].v % info->block_elements != 0) {
		knit__build_fail(g, "state", KNIT_ERR_SHAPE, "%s: rows of %lld elements, %s needs a multiple of %u", name,
						 (long long)dims[rank - 1].v, info->name, info->block_elements);
		return false;
	}
	return true;
}

knit_state knit_state_define(knit_graph *g, knit_dtype t, int rank, const knit_dim *dims, const char *fmt, ...) {
	const knit_state none = {0};
	char name[256];
	va_list args;
	int length;

	if (!knit__op_usable(g))
		return none;
	va_start(args, fmt);
	length = fmt ? vsnprintf(name, sizeof name, fmt, args) : 0;
	va_end(args);
	if (length <= 0 || (size_t)length >= sizeof name) {
		knit__build_fail(g, "state", length <= 0 ? KNIT_ERR_ARGUMENT : KNIT_ERR_LIMIT,
						 "the name has %d bytes, needs 1 to %zu", length, sizeof name - 1);
		return none;
	}
	if (!check_state_type(g, name, t, rank, dims))
		return none;
	if (state_named(g, name)) {
		knit__build_fail(g, "state", KNIT_ERR_ARGUMENT, "%s is defined twice", name);
		return none;
	}

	knit_type type = {.dtype = t, .rank = (uint8_t)rank};
	uint32_t value = 0;

	memcpy(type.dims, dims, (size_t)rank * sizeof *dims);
	if (!knit__grow(g->a, (void **)&g->states, &g->state_cap, g->state_count + 1, sizeof *g->states)) {
		knit__fail_memory(&g->diag, "a state", sizeof *g->states);
		return none;
	}
	const uint32_t storage = knit__storage_add(g, KNIT_STORAGE_STATE, name, &type, NULL, &value);
	if (!storage)
		return none;
	g->states[g->state_count++] = (knit_state_slot){storage, value};
	return (knit_state){g->state_count};
}

static bool check_state(knit_graph *g, const char *op, knit_state s) {
	if (!knit__op_usable(g))
		return false;
	if (s.id >= 1 && s.id <= g->state_count)
		return true;
	knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "the state has id %u, this graph has %u states", s.id, g->state_count);
	return false;
}

void knit_state_append_ring(knit_graph *g, knit_state s, knit_tensor rows, knit_tensor seq, knit_tensor pos,
							int64_t ring, int64_t sinks) {
	const knit_attr attr[ATTRS] = {[RING].i = ring, [SINKS].i = sinks};

	if (!check_state(g, knit__op_state_append.name, s))
		return;

	const knit_op_arg args[OPERANDS] = {{"state", {g->states[s.id - 1].current}, false},
										{"rows", rows, false},
										{"seq", seq, false},
										{"pos", pos, false}};

	knit__op_build(g, KNIT_OP_STATE_APPEND, OPERANDS, args, attr);
}

void knit_state_append(knit_graph *g, knit_state s, knit_tensor rows, knit_tensor seq, knit_tensor pos) {
	knit_state_append_ring(g, s, rows, seq, pos, 0, 0);
}

knit_tensor knit_state_read(knit_graph *g, knit_state s) {
	if (!check_state(g, "state_read", s))
		return (knit_tensor){0};
	return (knit_tensor){g->states[s.id - 1].current};
}
