/* Owns the ops that look at a whole row of the innermost dimension: softmax, argmax. */
#include "op_util.h"

#include <math.h>

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

static bool infer_softmax(knit_infer *c) {
	if (!knit__op_check_f32(c, 0, "x", 1, KNIT_MAX_RANK))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

static void eval_softmax(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = knit__op_row(out), rows = n ? knit__array_count(out) / n : 0;

	(void)attr, (void)in_count;
	for (int64_t r = 0; r < rows; ++r) {
		const double *x = in[0].data + r * n;
		double *y = out->data + r * n;
		double max = x[0], sum = 0;

		for (int64_t i = 1; i < n; ++i)
			max = fmax(max, x[i]);
		for (int64_t i = 0; i < n; ++i)
			sum += y[i] = exp(x[i] - max);
		for (int64_t i = 0; i < n; ++i)
			y[i] /= sum;
	}
}

/* max, subtract, exp, sum, divide */
static void cost_softmax(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
						 int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(5.0 * (double)knit__op_elements(out), in, in_count, out, c);
}

const knit_op_def knit__op_softmax = {
	.name = "softmax",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE,
	.infer = infer_softmax,
	.eval = eval_softmax,
	.cost = cost_softmax,
};

knit_tensor knit_softmax(knit_graph *g, knit_tensor x) {
	const knit_op_arg args[] = {{"x", x, false}};

	return knit__op_build(g, KNIT_OP_SOFTMAX, 1, args, NULL);
}

/* ---- argmax ------------------------------------------------------------------------------------------------------ */

static bool infer_argmax(knit_infer *c) {
	const knit_value *x = c->in[0];

	if (!knit__op_check_f32(c, 0, "x", 2, KNIT_MAX_RANK))
		return false;
	if (knit__dim_lo(&c->graph->exprs, NULL, x->dims[x->rank - 1]) < 1)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "x is %s, needs at least 1 element in a row",
								knit__infer_shape(c, x).text);
	if (knit__dim_hi(&c->graph->exprs, NULL, x->dims[x->rank - 1]) > INT32_MAX)
		return knit__infer_fail(c, KNIT_ERR_LIMIT, "x is %s: an index does not fit i32", knit__infer_shape(c, x).text);
	knit__op_out_like(c, 0, KNIT_I32);
	c->out[0].rank--;
	c->out[0].dims[c->out[0].rank] = (knit_dim){0};
	return true;
}

/* A NaN is never the largest; a row of nothing else gives 0. */
static void eval_argmax(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = knit__op_row(&in[0]), rows = knit__array_count(out);

	(void)attr, (void)in_count;
	for (int64_t r = 0; r < rows; ++r) {
		const double *x = in[0].data + r * n;
		int64_t best = 0;

		for (int64_t i = 1; i < n; ++i)
			if (x[i] > x[best] || (isnan(x[best]) && !isnan(x[i])))
				best = i;
		out->data[r] = (double)best;
	}
}

static void cost_argmax(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
						int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream((double)knit__op_elements(&in[0]), in, in_count, out, c);
}

const knit_op_def knit__op_argmax = {
	.name = "argmax",
	.min_in = 1,
	.max_in = 1,
	.out_count = 1,
	.infer = infer_argmax,
	.eval = eval_argmax,
	.cost = cost_argmax,
};

knit_tensor knit_argmax(knit_graph *g, knit_tensor x) {
	const knit_op_arg args[] = {{"x", x, false}};

	return knit__op_build(g, KNIT_OP_ARGMAX, 1, args, NULL);
}
