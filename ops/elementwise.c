/* Owns the ops that treat every element alone: add, mul, scale, silu, gelu. */
#include "op_util.h"

#include <math.h>

/* ---- two operands ------------------------------------------------------------------------------------------------ */

static bool infer_pair(knit_infer *c) {
	static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16, 0};
	const knit_value *a = c->in[0], *b = c->in[1];

	if (!knit__op_check_f32(c, 0, "a", 1, KNIT_MAX_RANK) || !knit__op_check_dtype(c, 1, "b", floats))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	if (b->rank == 1 && knit__dim_equal(b->dims[0], a->dims[a->rank - 1]))
		return true;
	if (!knit__op_same_dims(a, b))
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"a %s and b %s: needs equal shapes, or b a vector of a's innermost dimension",
								knit__infer_shape(c, a).text, knit__infer_shape(c, b).text);
	return b->dtype == KNIT_F32 || knit__infer_fail(c, KNIT_ERR_SHAPE, "b is %s, needs f32 unless it is a vector",
													knit__infer_shape(c, b).text);
}

/* Index into b of element i of a: b is as large as a, or one row that repeats. */
static int64_t pair_index(const knit_array *in, int64_t i) {
	return in[1].rank == 1 ? i % knit__op_row(&in[0]) : i;
}

static void eval_add(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	(void)attr, (void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		out->data[i] = in[0].data[i] + in[1].data[pair_index(in, i)];
}

static void eval_mul(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	(void)attr, (void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		out->data[i] = in[0].data[i] * in[1].data[pair_index(in, i)];
}

static void cost_one(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					 int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream((double)knit__op_elements(out), in, in_count, out, c);
}

const knit_op_def knit__op_add = {
	.name = "add",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.flags = KNIT_OP_COMMUTATIVE | KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.infer = infer_pair,
	.eval = eval_add,
	.cost = cost_one,
};

const knit_op_def knit__op_mul = {
	.name = "mul",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.flags = KNIT_OP_COMMUTATIVE | KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.infer = infer_pair,
	.eval = eval_mul,
	.cost = cost_one,
};

/* ---- one operand ------------------------------------------------------------------------------------------------- */

static bool infer_one(knit_infer *c) {
	if (!knit__op_check_f32(c, 0, "x", 1, KNIT_MAX_RANK))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

static bool infer_scale(knit_infer *c) {
	if (!isfinite(c->attr[0].f))
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "s is %g, needs a finite number", c->attr[0].f);
	return infer_one(c);
}

static void eval_scale(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	(void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		out->data[i] = in[0].data[i] * attr[0].f;
}

static void eval_silu(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	(void)attr, (void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		out->data[i] = in[0].data[i] / (1 + exp(-in[0].data[i]));
}

static void eval_gelu(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const double root = sqrt(2 / acos(-1.0));

	(void)attr, (void)in_count;
	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		const double x = in[0].data[i];

		out->data[i] = 0.5 * x * (1 + tanh(root * (x + 0.044715 * x * x * x)));
	}
}

/* exp and tanh count as one operation each, as in the cost of every op */
static void cost_silu(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					  int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(4.0 * (double)knit__op_elements(out), in, in_count, out, c);
}

static void cost_gelu(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					  int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(9.0 * (double)knit__op_elements(out), in, in_count, out, c);
}

static uint32_t simplify_scale(knit_graph *g, uint32_t node) {
	return g->nodes[node].attr[0].f == 1 ? knit__op_forward_input(g, node) : 0;
}

const knit_op_def knit__op_scale = {
	.name = "scale",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.attr_count = 1,
	.attrs = {{"s", KNIT_ATTR_F}},
	.infer = infer_scale,
	.eval = eval_scale,
	.cost = cost_one,
	.simplify = simplify_scale,
};

const knit_op_def knit__op_silu = {
	.name = "silu",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.infer = infer_one,
	.eval = eval_silu,
	.cost = cost_silu,
};

const knit_op_def knit__op_gelu = {
	.name = "gelu",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.infer = infer_one,
	.eval = eval_gelu,
	.cost = cost_gelu,
};

/* ---- builder functions ------------------------------------------------------------------------------------------- */

knit_tensor knit_add(knit_graph *g, knit_tensor a, knit_tensor b) {
	const knit_op_arg args[] = {{"a", a, false}, {"b", b, false}};

	return knit__op_build(g, KNIT_OP_ADD, 2, args, NULL);
}

knit_tensor knit_mul(knit_graph *g, knit_tensor a, knit_tensor b) {
	const knit_op_arg args[] = {{"a", a, false}, {"b", b, false}};

	return knit__op_build(g, KNIT_OP_MUL, 2, args, NULL);
}

knit_tensor knit_scale(knit_graph *g, knit_tensor x, float s) {
	const knit_op_arg args[] = {{"x", x, false}};
	const knit_attr attr[] = {{.f = (double)s}};

	return knit__op_build(g, KNIT_OP_SCALE, 1, args, attr);
}

knit_tensor knit_silu(knit_graph *g, knit_tensor x) {
	const knit_op_arg args[] = {{"x", x, false}};

	return knit__op_build(g, KNIT_OP_SILU, 1, args, NULL);
}

knit_tensor knit_gelu(knit_graph *g, knit_tensor x) {
	const knit_op_arg args[] = {{"x", x, false}};

	return knit__op_build(g, KNIT_OP_GELU, 1, args, NULL);
}
