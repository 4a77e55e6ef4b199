/* Owns the normalisations along the innermost dimension: rms_norm, layer_norm. */
#include "op_util.h"

#include <math.h>

static bool check(knit_infer *c) {
	if (!isfinite(c->attr[0].f) || c->attr[0].f < 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "eps is %g, needs a finite number >= 0", c->attr[0].f);
	return knit__op_check_f32(c, 0, "x", 1, KNIT_MAX_RANK) && knit__op_check_vector(c, 1, "gain", 0, "x");
}

static bool infer_rms(knit_infer *c) {
	if (!check(c))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

static bool infer_layer(knit_infer *c) {
	if (!check(c))
		return false;
	if (c->in_count > 2 && c->in[2] && !knit__op_check_vector(c, 2, "bias", 0, "x"))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

static void eval_rms(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = knit__op_row(out), rows = n ? knit__array_count(out) / n : 0;

	(void)in_count;
	for (int64_t r = 0; r < rows; ++r) {
		const double *x = in[0].data + r * n;
		double sum = 0;

		for (int64_t i = 0; i < n; ++i)
			sum += x[i] * x[i];
		for (int64_t i = 0; i < n; ++i)
			out->data[r * n + i] = x[i] / sqrt(sum / (double)n + attr[0].f) * in[1].data[i];
	}
}

static void eval_layer(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = knit__op_row(out), rows = n ? knit__array_count(out) / n : 0;
	const double *bias = in_count > 2 ? in[2].data : NULL;

	for (int64_t r = 0; r < rows; ++r) {
		const double *x = in[0].data + r * n;
		double mean = 0, var = 0;

		for (int64_t i = 0; i < n; ++i)
			mean += x[i] / (double)n;
		for (int64_t i = 0; i < n; ++i)
			var += (x[i] - mean) * (x[i] - mean) / (double)n;
		for (int64_t i = 0; i < n; ++i)
			out->data[r * n + i] = (x[i] - mean) / sqrt(var + attr[0].f) * in[1].data[i] + (bias ? bias[i] : 0);
	}
}

static void cost_rms(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					 int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(4.0 * (double)knit__op_elements(out), in, in_count, out, c);
}

static void cost_layer(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					   int64_t context, knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream((in_count > 2 && in[2].rank ? 8.0 : 7.0) * (double)knit__op_elements(out), in, in_count, out,
						 c);
}

const knit_op_def knit__op_rms_norm = {
	.name = "rms_norm",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE,
	.attr_count = 1,
	.attrs = {{"eps", KNIT_ATTR_F}},
	.infer = infer_rms,
	.eval = eval_rms,
	.cost = cost_rms,
};

const knit_op_def knit__op_layer_norm = {
	.name = "layer_norm",
	.min_in = 2,
	.max_in = 3,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE,
	.attr_count = 1,
	.attrs = {{"eps", KNIT_ATTR_F}},
	.infer = infer_layer,
	.eval = eval_layer,
	.cost = cost_layer,
};

knit_tensor knit_rms_norm(knit_graph *g, knit_tensor x, knit_tensor gain, float eps) {
	const knit_op_arg args[] = {{"x", x, false}, {"gain", gain, false}};
	const knit_attr attr[] = {{.f = (double)eps}};

	return knit__op_build(g, KNIT_OP_RMS_NORM, 2, args, attr);
}

knit_tensor knit_layer_norm(knit_graph *g, knit_tensor x, knit_tensor gain, knit_tensor bias, float eps) {
	const knit_op_arg args[] = {{"x", x, false}, {"gain", gain, false}, {"bias", bias, true}};
	const knit_attr attr[] = {{.f = (double)eps}};

	return knit__op_build(g, KNIT_OP_LAYER_NORM, 3, args, attr);
}
