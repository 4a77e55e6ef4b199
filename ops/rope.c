/* Owns rope: rotary position embedding of each head, in the two layouts that model files use. */
#include "op_util.h"

#include <math.h>

enum { THETA, ROTARY, LAYOUT, ATTRS };

static bool infer(knit_infer *c) {
	const knit_value *x = c->in[0];
	const int64_t rotary = c->attr[ROTARY].i, layout = c->attr[LAYOUT].i;

	if (!knit__op_check_f32(c, 0, "x", 3, 3) || !knit__op_check_per_token(c, 1, "pos", 0, "x"))
		return false;
	if (!knit__dim_is_number(x->dims[2]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "x is %s, needs a number for head_dim",
								knit__infer_shape(c, x).text);
	if (rotary < 0 || rotary > x->dims[2].v || rotary % 2 != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"rotary_dims is %lld, needs an even number up to the head_dim of x %s",
								(long long)rotary, knit__infer_shape(c, x).text);
	if (layout != KNIT_ROPE_INTERLEAVED && layout != KNIT_ROPE_SPLIT)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "layout is %lld, needs 0 (interleaved) or 1 (split)",
								(long long)layout);
	if (!isfinite(c->attr[THETA].f) || c->attr[THETA].f <= 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "theta is %g, needs a finite number above 0", c->attr[THETA].f);
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t tokens = in[0].dims[0], heads = in[0].dims[1], dim = in[0].dims[2], rotary = attr[ROTARY].i;
	const bool split = attr[LAYOUT].i == KNIT_ROPE_SPLIT;

	(void)in_count;
	for (int64_t row = 0; row < tokens * heads; ++row) {
		const double pos = in[1].data[row / heads];
		const double *x = in[0].data + row * dim;
		double *y = out->data + row * dim;

		for (int64_t i = 0; i < rotary / 2; ++i) {
			const int64_t a = split ? i : 2 * i, b = split ? i + rotary / 2 : 2 * i + 1;
			const double angle = pos * pow(attr[THETA].f, -2.0 * (double)i / (double)rotary);

			y[a] = x[a] * cos(angle) - x[b] * sin(angle);
			y[b] = x[a] * sin(angle) + x[b] * cos(angle);
		}
		for (int64_t i = rotary; i < dim; ++i)
			y[i] = x[i];
	}
}

/* Per pair: the angle, sine, cosine, and 6 for the turn. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const double pairs = (double)(in[0].dims[0] * in[0].dims[1]) * (double)attr[ROTARY].i / 2;

	(void)context;
	knit__op_cost_stream(9.0 * pairs, in, in_count, out, c);
}

const knit_op_def knit__op_rope = {
	.name = "rope",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE,
	.attr_count = ATTRS,
	.attrs = {{"theta", KNIT_ATTR_F}, {"rotary", KNIT_ATTR_I}, {"layout", KNIT_ATTR_I}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

knit_tensor knit_rope(knit_graph *g, knit_tensor x, knit_tensor pos, const knit_rope_desc *desc) {
	const knit_op_arg args[] = {{"x", x, false}, {"pos", pos, false}};
	const knit_rope_desc d = desc ? *desc : (knit_rope_desc){0};
	int64_t rotary = d.rotary_dims;

	if (!knit__op_usable(g) || !knit__op_check_operand(g, knit__op_rope.name, "x", x))
		return (knit_tensor){0};
	if (rotary == 0) { /* of a shape that infer refuses, anything will do */
		const knit_value *v = knit__value(g, x.id);

		rotary = v->rank == 3 && knit__dim_is_number(v->dims[2]) ? v->dims[2].v : 0;
	}
	const knit_attr attr[ATTRS] = {
		[THETA].f = d.theta != 0 ? (double)d.theta : 10000, [ROTARY].i = rotary, [LAYOUT].i = d.layout};

	return knit__op_build(g, KNIT_OP_ROPE, 2, args, attr);
}
