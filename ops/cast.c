/* Owns the ops that only move or convert elements: copy (to contiguous) and cast. */
#include "op_util.h"

/* ---- copy -------------------------------------------------------------------------------------------------------- */

static bool infer_copy(knit_infer *c) {
	if (!knit__op_check_rank(c, 0, "x", 1, KNIT_MAX_RANK))
		return false;
	knit__op_out_like(c, 0, c->in[0]->dtype);
	return true;
}

static void eval_copy(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	(void)attr, (void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		out->data[i] = in[0].data[i];
}

static void cost_move(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					  int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(0, in, in_count, out, c);
}

static uint32_t simplify_copy(knit_graph *g, uint32_t node) {
	return knit__op_forward_input(g, node);
}

const knit_op_def knit__op_copy = {
	.name = "copy",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_ELEMENTWISE,
	.infer = infer_copy,
	.eval = eval_copy,
	.cost = cost_move,
	.simplify = simplify_copy,
};

/* ---- cast -------------------------------------------------------------------------------------------------------- */

static bool infer_cast(knit_infer *c) {
	static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16, 0};
	const knit_dtype_info *to = knit__dtype_info((knit_dtype)c->attr[0].i);

	if (!knit__op_check_dtype(c, 0, "x", floats) || !knit__op_check_rank(c, 0, "x", 1, KNIT_MAX_RANK))
		return false;
	if (!to || !to->is_float)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "x %s to %s (type %lld), needs f32, f16 or bf16",
								knit__infer_shape(c, c->in[0]).text, to ? to->name : "?", (long long)c->attr[0].i);
	knit__op_out_like(c, 0, (knit_dtype)c->attr[0].i);
	return true;
}

static void eval_cast(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const knit_dtype to = (knit_dtype)attr[0].i;

	(void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		char bits[sizeof(float)];

		/* The oracle's f32 values are unrounded doubles, and a cast from f32 to f32 is no operation. */
		if (to == KNIT_F32) {
			out->data[i] = in[0].data[i];
			continue;
		}
		knit__encode(to, &in[0].data[i], bits, 1);
		knit__decode(to, bits, &out->data[i], 1);
	}
}

static uint32_t simplify_cast(knit_graph *g, uint32_t node) {
	const knit_node *n = &g->nodes[node];

	return knit__value(g, n->in[0])->dtype == (knit_dtype)n->attr[0].i ? knit__op_forward_input(g, node) : 0;
}

const knit_op_def knit__op_cast = {
	.name = "cast",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_ELEMENTWISE,
	.attr_count = 1,
	.attrs = {{"dtype", KNIT_ATTR_I}},
	.infer = infer_cast,
	.eval = eval_cast,
	.cost = cost_move,
	.simplify = simplify_cast,
};

knit_tensor knit_cast(knit_graph *g, knit_tensor x, knit_dtype dtype) {
	const knit_op_arg args[] = {{"x", x, false}};
	const knit_attr attr[] = {{.i = (int64_t)dtype}};

	return knit__op_build(g, KNIT_OP_CAST, 1, args, attr);
}
