/* Owns linear: x w^T with w stored row by row, one row per output feature. */
#include "op_util.h"

static bool infer(knit_infer *c) {
	static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K, 0};
	const knit_value *x = c->in[0], *w = c->in[1];
	const knit_dtype_info *info = knit__dtype_info(w->dtype);
	knit_dim k;

	if (!knit__op_check_f32(c, 0, "x", 1, KNIT_MAX_RANK) || !knit__op_check_dtype(c, 1, "w", weights) ||
		!knit__op_check_rank(c, 1, "w", 2, 2))
		return false;
	k = x->dims[x->rank - 1];
	if (!knit__dim_is_number(w->dims[0]) || !knit__dim_is_number(w->dims[1]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "w is %s, needs numbers for both dimensions",
								knit__infer_shape(c, w).text);
	if (!knit__dim_equal(k, w->dims[1]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"x %s and w %s: the innermost dimensions differ, w needs x with %lld",
								knit__infer_shape(c, x).text, knit__infer_shape(c, w).text, (long long)w->dims[1].v);
	if (k.v % info->block_elements != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "w is %s: %lld columns are no multiple of %s's block of %u",
								knit__infer_shape(c, w).text, (long long)k.v, info->name, info->block_elements);
	knit__op_out_like(c, 0, KNIT_F32);
	c->out[0].dims[x->rank - 1] = w->dims[0];
	return true;
}

static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = in[1].dims[0], k = in[1].dims[1];
	const int64_t rows = n ? knit__array_count(out) / n : 0;

	(void)attr, (void)in_count;
	for (int64_t r = 0; r < rows; ++r) {
		for (int64_t j = 0; j < n; ++j) {
			double sum = 0;

			for (int64_t i = 0; i < k; ++i)
				sum += in[0].data[r * k + i] * in[1].data[j * k + i];
			out->data[r * n + j] = sum;
		}
	}
}

static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(2.0 * (double)knit__op_elements(out) * (double)in[1].dims[1], in, in_count, out, c);
}

const knit_op_def knit__op_linear = {
	.name = "linear",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

knit_tensor knit_linear(knit_graph *g, knit_tensor x, knit_tensor w) {
	const knit_op_arg args[] = {{"x", x, false}, {"w", w, false}};

	return knit__op_build(g, KNIT_OP_LINEAR, 2, args, NULL);
}
