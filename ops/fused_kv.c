/* Owns kv_write: what a visit does to its KV slot in one step. Queries and keys are rotated, keys and values are written
 * to their cells. Knows nothing of attention. */
#include "fused.h"

#include <math.h>

/* ---- types ------------------------------------------------------------------------------------------------------- */

static bool check_state(knit_infer *c, uint32_t i, const char *name) {
	static const knit_dtype slots[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, 0};
	const knit_value *s = c->in[i];

	if (c->graph->storages[s->storage].kind != KNIT_STORAGE_STATE || s->view_of)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "%s %s is no state, needs one to write to", name,
								knit__infer_shape(c, s).text);
	return knit__op_check_dtype(c, i, name, slots) && knit__op_check_rank(c, i, name, 3, 4);
}

/* Elements of one row: everything behind the first `from` dimensions, which must be numbers; -1 otherwise. */
static int64_t row_elements(const knit_value *v, int from) {
	int64_t n = 1;

	for (int i = from; i < v->rank; ++i)
		if (v->dims[i].v < 0 || !knit__mul_i64(n, v->dims[i].v, &n))
			return -1;
	return n;
}

static bool check_rows(knit_infer *c, uint32_t rows, const char *name, uint32_t state) {
	const int64_t have = row_elements(c->in[rows], 1), need = row_elements(c->in[state], 2);

	if (!knit__op_check_f32(c, rows, name, 2, 3))
		return false;
	if (have < 0 || have != need)
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"%s %s and its state %s: needs [tokens, ...] for [sequences, cells, ...]", name,
								knit__infer_shape(c, c->in[rows]).text, knit__infer_shape(c, c->in[state]).text);
	if (knit__dim_equal(c->in[rows]->dims[0], c->in[KNIT_KV_Q]->dims[0]))
		return true;
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s %s and q %s: needs the same tokens", name,
							knit__infer_shape(c, c->in[rows]).text, knit__infer_shape(c, c->in[KNIT_KV_Q]).text);
}

static bool check_rope(knit_infer *c) {
	const int64_t rotary = c->attr[KNIT_KV_ROTARY].i, layout = c->attr[KNIT_KV_LAYOUT].i;
	const double theta = c->attr[KNIT_KV_THETA].f;
	const knit_value *q = c->in[KNIT_KV_Q], *k = c->in[KNIT_KV_K];

	if (!knit__dim_is_number(q->dims[2]) || !knit__dim_equal(q->dims[2], k->dims[2]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s and k %s: needs the same number for head_dim",
								knit__infer_shape(c, q).text, knit__infer_shape(c, k).text);
	if (rotary < 0 || rotary > q->dims[2].v || rotary % 2 != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "rotary is %lld, needs an even number up to the head_dim of q %s",
								(long long)rotary, knit__infer_shape(c, q).text);
	if (layout != KNIT_ROPE_INTERLEAVED && layout != KNIT_ROPE_SPLIT)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "layout is %lld, needs 0 (interleaved) or 1 (split)",
								(long long)layout);
	return (isfinite(theta) && theta > 0) ||
		   knit__infer_fail(c, KNIT_ERR_ARGUMENT, "theta is %g, needs a finite number above 0", theta);
}

static bool check_ring(knit_infer *c) {
	const int64_t ring = c->attr[KNIT_KV_RING].i, sinks = c->attr[KNIT_KV_SINKS].i;
	const knit_value *k = c->in[KNIT_KV_KSTATE], *v = c->in[KNIT_KV_VSTATE];

	if (!knit__dim_equal(k->dims[0], v->dims[0]) || !knit__dim_equal(k->dims[1], v->dims[1]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "k_state %s and v_state %s: needs the same sequences and cells",
								knit__infer_shape(c, k).text, knit__infer_shape(c, v).text);
	if (ring < 0 || sinks < 0 || (ring == 0 && sinks != 0) ||
		(ring != 0 && (!knit__dim_is_number(k->dims[1]) || k->dims[1].v - sinks != ring)))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "ring %lld and sinks %lld do not fit the cells of k_state %s",
								(long long)ring, (long long)sinks, knit__infer_shape(c, k).text);
	return true;
}

static bool infer(knit_infer *c) {
	if (!check_state(c, KNIT_KV_KSTATE, "k_state") || !check_state(c, KNIT_KV_VSTATE, "v_state"))
		return false;
	if (c->in[KNIT_KV_KSTATE]->storage == c->in[KNIT_KV_VSTATE]->storage)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "k_state and v_state are the same state, needs two");
	if (!knit__op_check_f32(c, KNIT_KV_Q, "q", 3, 3) || !knit__op_check_f32(c, KNIT_KV_K, "k", 3, 3) ||
		!check_rows(c, KNIT_KV_K, "k", KNIT_KV_KSTATE) || !check_rows(c, KNIT_KV_V, "v", KNIT_KV_VSTATE) ||
		!check_rope(c) || !check_ring(c) || !knit__op_check_per_token(c, KNIT_KV_SEQ, "seq", KNIT_KV_Q, "q") ||
		!knit__op_check_per_token(c, KNIT_KV_POS, "pos", KNIT_KV_Q, "q"))
		return false;

	const knit_value *q = c->in[KNIT_KV_Q];
	c->out[2] = (knit_type){.dtype = KNIT_F32, .rank = q->rank};
	for (int i = 0; i < q->rank; ++i)
		c->out[2].dims[i] = q->dims[i];
	return true;
}

/* ---- reference --------------------------------------------------------------------------------------------------- */

/* Element i of a head x turned to position pos. */
static double turned(const knit_attr *attr, const double *x, int64_t i, double pos) {
	const int64_t rotary = attr[KNIT_KV_ROTARY].i, half = rotary / 2;
	const bool split = attr[KNIT_KV_LAYOUT].i == KNIT_ROPE_SPLIT;

	if (i >= rotary)
		return x[i];
	const int64_t pair = split ? i % half : i / 2;
	const bool second = split ? i >= half : i % 2 != 0;
	const double a = x[split ? pair : 2 * pair], b = x[split ? pair + half : 2 * pair + 1];
	const double angle = pos * pow(attr[KNIT_KV_THETA].f, -2.0 * (double)pair / (double)rotary);

	return second ? a * sin(angle) + b * cos(angle) : a * cos(angle) - b * sin(angle);
}

/* Writes one row to its cell, rounded to the state's type block by block; turned head by head if head_dim is not 0. */
static void write_cell(const knit_attr *attr, knit_array *state, double *cell, const double *x, int64_t row,
					   int64_t head_dim, double pos) {
	const int64_t block = knit__dtype_info(state->dtype)->block_elements;

	for (int64_t at = 0; at < row; at += block) {
		double values[64];
		char bits[64 * sizeof(float)];

		for (int64_t i = 0; i < block; ++i) {
			const int64_t e = at + i;

			values[i] = head_dim ? turned(attr, x + e / head_dim * head_dim, e % head_dim, pos) : x[e];
		}
		knit__encode(state->dtype, values, bits, (uint64_t)block);
		knit__decode(state->dtype, bits, cell + at, (uint64_t)block);
	}
}

static int64_t row_of(const knit_array *x, uint32_t from) {
	int64_t n = 1;

	for (uint32_t i = from; i < x->rank; ++i)
		n *= x->dims[i];
	return n;
}

/* The session checks seq and pos before a run; a cell outside the state is not written. */
static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t tokens = in[KNIT_KV_Q].dims[0], heads = in[KNIT_KV_Q].dims[1], dim = in[KNIT_KV_Q].dims[2];
	const int64_t k_row = row_of(&out[0], 2), v_row = row_of(&out[1], 2), cells = out[0].dims[1];

	(void)in_count;
	for (int64_t t = 0; t < tokens; ++t) {
		const double pos = in[KNIT_KV_POS].data[t], seq = in[KNIT_KV_SEQ].data[t];
		const int64_t cell = knit__op_cell(pos, attr[KNIT_KV_RING].i, attr[KNIT_KV_SINKS].i, cells);

		for (int64_t i = 0; i < heads * dim; ++i) {
			const double *head = in[KNIT_KV_Q].data + (t * heads + i / dim) * dim;

			out[2].data[t * heads * dim + i] = turned(attr, head, i % dim, pos);
		}
		if (cell < 0 || !(seq >= 0 && seq < (double)out[0].dims[0]))
			continue;
		const int64_t at = (int64_t)seq * cells + cell;

		write_cell(attr, &out[0], out[0].data + at * k_row, in[KNIT_KV_K].data + t * k_row, k_row, dim, pos);
		write_cell(attr, &out[1], out[1].data + at * v_row, in[KNIT_KV_V].data + t * v_row, v_row, 0, pos);
	}
}

/* Rows and queries only; the rest of the states stays where it is. Per turned pair 9 operations, as in rope. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const double per_head = 9.0 * (double)attr[KNIT_KV_ROTARY].i / 2;
	const double heads = (double)(in[KNIT_KV_Q].dims[0] * in[KNIT_KV_Q].dims[1]) +
						 (double)(in[KNIT_KV_K].dims[0] * in[KNIT_KV_K].dims[1]);
	const knit_shape k = {out[0].dtype, 1, {(int64_t)knit__op_elements(&in[KNIT_KV_K])}};
	const knit_shape v = {out[1].dtype, 1, {(int64_t)knit__op_elements(&in[KNIT_KV_V])}};

	(void)context;
	*c = (knit_cost){.flops = per_head * heads,
					 .write_bytes = knit__op_bytes(&k) + knit__op_bytes(&v) + knit__op_bytes(&out[2])};
	for (uint32_t i = KNIT_KV_Q; i < in_count; ++i)
		c->read_bytes += knit__op_bytes(&in[i]);
}

const knit_op_def knit__op_kv_write = {
	.name = "kv_write",
	.min_in = KNIT_KV_OPERANDS,
	.max_in = KNIT_KV_OPERANDS,
	.out_count = 3,
	.state_outputs = 2,
	.cell_seq = KNIT_KV_SEQ,
	.cell_pos = KNIT_KV_POS,
	.ring_attr = KNIT_KV_RING + 1,
	.sinks_attr = KNIT_KV_SINKS + 1,
	.attr_count = KNIT_KV_ATTRS,
	.attrs = {{"theta", KNIT_ATTR_F},
			  {"rotary", KNIT_ATTR_I},
			  {"layout", KNIT_ATTR_I},
			  {"ring", KNIT_ATTR_I},
			  {"sinks", KNIT_ATTR_I}},
	.index_rule_count = 2,
	.index_rules = {{.operand = KNIT_KV_SEQ, .into = KNIT_KV_KSTATE, .dim = 0},
					{.operand = KNIT_KV_POS, .into = KNIT_KV_KSTATE, .dim = 1, .unless_attr = KNIT_KV_RING + 1}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};
