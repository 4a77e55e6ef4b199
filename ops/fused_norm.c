/* Owns add_rms_norm: the sum that goes on as residual, and its normalisation, in one step. */
#include "fused.h"

#include <math.h>

enum { A, B, GAIN, OPERANDS };

static bool infer(knit_infer *c) {
	if (!isfinite(c->attr[0].f) || c->attr[0].f < 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "eps is %g, needs a finite number >= 0", c->attr[0].f);
	if (!knit__op_check_f32(c, A, "a", 1, KNIT_MAX_RANK) || !knit__op_check_f32(c, B, "b", 1, KNIT_MAX_RANK) ||
		!knit__op_check_vector(c, GAIN, "gain", A, "a"))
		return false;
	if (!knit__op_same_dims(c->in[A], c->in[B]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "a %s and b %s: needs equal shapes",
								knit__infer_shape(c, c->in[A]).text, knit__infer_shape(c, c->in[B]).text);
	knit__op_out_like(c, A, KNIT_F32);
	c->out[1] = c->out[0];
	return true;
}

static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t n = knit__op_row(out), rows = n ? knit__array_count(out) / n : 0;

	(void)in_count;
	for (int64_t r = 0; r < rows; ++r) {
		double square = 0;

		for (int64_t i = r * n; i < (r + 1) * n; ++i) {
			out[0].data[i] = in[A].data[i] + in[B].data[i];
			square += out[0].data[i] * out[0].data[i];
		}
		for (int64_t i = 0; i < n; ++i)
			out[1].data[r * n + i] =
				out[0].data[r * n + i] / sqrt(square / (double)n + attr[0].f) * in[GAIN].data[i];
	}
}

static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	(void)attr, (void)context;
	knit__op_cost_stream(5.0 * (double)knit__op_elements(out), in, in_count, out, c);
	c->write_bytes += knit__op_bytes(&out[1]);
}

const knit_op_def knit__op_add_rms_norm = {
	.name = "add_rms_norm",
	.min_in = OPERANDS,
	.max_in = OPERANDS,
	.out_count = 2,
	.flags = KNIT_OP_INPLACE,
	.attr_count = 1,
	.attrs = {{"eps", KNIT_ATTR_F}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};
