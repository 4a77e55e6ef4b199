/* Owns the low-rank part of a linear: knit_lora, and lora_select, where each token takes the matrices that its sequence
 * chose. With one pair of matrices it is two linears and a scale, no op of its own. */
#include "op_util.h"

#include <math.h>

enum { X, A, B, ADAPTERS, SEQ, OPERANDS };

/* One matrix per slot, with numbers for dims and whole blocks in a row. */
static bool check_slots(knit_infer *c, uint32_t i, const char *name) {
	static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, 0};
	const knit_value *w = c->in[i];

	if (!knit__op_check_dtype(c, i, name, weights) || !knit__op_check_rank(c, i, name, 3, 3))
		return false;
	for (int k = 0; k < 3; ++k)
		if (!knit__dim_is_number(w->dims[k]))
			return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s, needs numbers for its dimensions", name,
									knit__infer_shape(c, w).text);
	const knit_dtype_info *info = knit__dtype_info(w->dtype);
	if (w->dims[2].v % info->block_elements != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s: its rows are no multiple of %s's block of %u", name,
								knit__infer_shape(c, w).text, info->name, info->block_elements);
	return true;
}

static bool infer(knit_infer *c) {
	static const knit_dtype i32[] = {KNIT_I32, 0};
	const knit_value *x = c->in[X], *a = c->in[A], *b = c->in[B];

	if (!isfinite(c->attr[0].f))
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "s is %g, needs a finite number", c->attr[0].f);
	if (!knit__op_check_f32(c, X, "x", 2, 2) || !check_slots(c, A, "a") || !check_slots(c, B, "b") ||
		!knit__op_check_dtype(c, ADAPTERS, "adapter_of_sequence", i32) ||
		!knit__op_check_rank(c, ADAPTERS, "adapter_of_sequence", 1, 1) ||
		!knit__op_check_per_token(c, SEQ, "seq", X, "x"))
		return false;
	if (!knit__dim_equal(x->dims[1], a->dims[2]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "x %s and a %s: the innermost dimensions differ",
								knit__infer_shape(c, x).text, knit__infer_shape(c, a).text);
	if (!knit__dim_equal(a->dims[0], b->dims[0]) || !knit__dim_equal(a->dims[1], b->dims[2]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "a %s and b %s: needs a [count, r, k] and b [count, n, r]",
								knit__infer_shape(c, a).text, knit__infer_shape(c, b).text);
	c->out[0] = (knit_type){KNIT_F32, 2, {x->dims[0], b->dims[1]}};
	return true;
}

/* The matrices of a token; -1 where an index is out of range, which the session has checked before a run. */
static int64_t slot_of(const knit_array *in, int64_t token) {
	const double seq = in[SEQ].data[token];

	if (!(seq >= 0 && seq < (double)in[ADAPTERS].dims[0]))
		return -1;
	const double slot = in[ADAPTERS].data[(int64_t)seq];
	return slot >= 0 && slot < (double)in[A].dims[0] ? (int64_t)slot : -1;
}

/* The small product is computed anew for every element: there is no memory to keep it in. */
static double element(const knit_array *in, int64_t token, int64_t slot, int64_t j) {
	const int64_t r = in[A].dims[1], k = in[A].dims[2], n = in[B].dims[1];
	double sum = 0;

	for (int64_t q = 0; q < r; ++q) {
		double low = 0;

		for (int64_t i = 0; i < k; ++i)
			low += in[X].data[token * k + i] * in[A].data[(slot * r + q) * k + i];
		sum += low * in[B].data[(slot * n + j) * r + q];
	}
	return sum;
}

static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t tokens = out->dims[0], n = out->dims[1];

	(void)in_count;
	for (int64_t t = 0; t < tokens; ++t) {
		const int64_t slot = slot_of(in, t);

		for (int64_t j = 0; j < n; ++j)
			out->data[t * n + j] = slot < 0 ? (double)NAN : attr[0].f * element(in, t, slot, j);
	}
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Reads the matrices of at most as many slots as there are tokens, or sequences. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const double tokens = (double)in[X].dims[0], k = (double)in[X].dims[1], r = (double)in[A].dims[1];
	const double n = (double)in[B].dims[1];
	knit_shape read[OPERANDS];

	(void)attr, (void)context;
	for (int i = 0; i < OPERANDS; ++i)
		read[i] = in[i];
	read[A].dims[0] = least(in[A].dims[0], least(in[X].dims[0], in[ADAPTERS].dims[0]));
	read[B].dims[0] = read[A].dims[0];
	knit__op_cost_stream(2 * tokens * (k * r + r * n) + tokens * n, read, in_count, out, c);
}

const knit_op_def knit__op_lora_select = {
	.name = "lora_select",
	.min_in = OPERANDS,
	.max_in = OPERANDS,
	.out_count = 1,
	.attr_count = 1,
	.attrs = {{"s", KNIT_ATTR_F}},
	.index_rule_count = 2,
	.index_rules = {{.operand = ADAPTERS, .into = A, .dim = 0}, {.operand = SEQ, .into = ADAPTERS, .dim = 0}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

knit_tensor knit_lora(knit_graph *g, knit_tensor x, knit_tensor a, knit_tensor b, float scale,
					  knit_tensor adapter_of_sequence, knit_tensor seq) {
	const knit_op_arg args[] = {{"x", x, false},
								{"a", a, false},
								{"b", b, false},
								{"adapter_of_sequence", adapter_of_sequence, false},
								{"seq", seq, false}};
	const knit_attr attr[] = {{.f = (double)scale}};

	if (!adapter_of_sequence.id && !seq.id)
		return knit_scale(g, knit_linear(g, knit_linear(g, x, a), b), scale);
	return knit__op_build(g, KNIT_OP_LORA_SELECT, OPERANDS, args, attr);
}
