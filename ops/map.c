/* Owns map: a chain of elementwise ops in one step, as a small program in the attributes. */
#include "fused.h"

#include <math.h>

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Whether operand i has operand 0's shape; otherwise it must be a vector that repeats. */
static bool is_full(const knit_infer *c, uint32_t i) {
	return c->in[i]->dtype == KNIT_F32 && knit__op_same_dims(c->in[0], c->in[i]);
}

static bool check_program(knit_infer *c) {
	const uint32_t count = knit__map_count(c->attr);

	if (count == 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "the program is empty");
	for (uint32_t i = 0; i < KNIT_MAP_STEPS; ++i) {
		knit_map_instr x;

		if (i >= count && c->attr[i].i != 0)
			return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "instruction %u comes after the end", i);
		if (i >= count)
			continue;
		const bool known = knit__map_decode(c->attr[i].i, &x);
		const uint8_t regs[] = {x.a, knit__map_has_b(x.op) ? x.b : x.a};

		for (int k = 0; known && k < 2; ++k) {
			const bool operand = regs[k] < KNIT_MAP_OPERANDS;

			if (operand ? regs[k] >= c->in_count : regs[k] >= KNIT_MAP_OPERANDS + i)
				return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "instruction %u reads register %u, which is not written",
										i, regs[k]);
			if (k == 0 && operand && !is_full(c, regs[0]))
				return knit__infer_fail(c, KNIT_ERR_SHAPE, "instruction %u starts from %s, needs the shape of %s", i,
										knit__infer_shape(c, c->in[regs[0]]).text, knit__infer_shape(c, c->in[0]).text);
		}
		if (!known)
			return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "instruction %u (%lld) is unknown", i,
									(long long)c->attr[i].i);
	}
	return true;
}

static bool infer(knit_infer *c) {
	if (!knit__op_check_f32(c, 0, "operand 0", 1, KNIT_MAX_RANK))
		return false;
	for (uint32_t i = 1; i < c->in_count; ++i) {
		if (!c->in[i])
			return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "operand %u is absent", i);
		if (!is_full(c, i) && !knit__op_check_vector(c, i, "an operand", 0, "operand 0"))
			return false;
	}
	if (!check_program(c))
		return false;
	knit__op_out_like(c, 0, KNIT_F32);
	return true;
}

/* ---- reference --------------------------------------------------------------------------------------------------- */

static double compute(const knit_map_instr *x, double a, double b) {
	switch (x->op) {
	case KNIT_MAP_ADD: return a + b;
	case KNIT_MAP_MUL: return a * b;
	case KNIT_MAP_SCALE: return a * (double)x->s;
	case KNIT_MAP_SILU: return a / (1 + exp(-a));
	case KNIT_MAP_GELU: return 0.5 * a * (1 + tanh(sqrt(2 / acos(-1.0)) * (a + 0.044715 * a * a * a)));
	default: return (double)NAN;
	}
}

static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const uint32_t steps = knit__map_count(attr);
	const int64_t n = knit__op_row(out);

	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		double regs[KNIT_MAP_OPERANDS + KNIT_MAP_STEPS] = {0};

		for (uint32_t k = 0; k < in_count; ++k)
			regs[k] = in[k].data[in[k].rank == out->rank ? i : i % n];
		for (uint32_t k = 0; k < steps; ++k) {
			knit_map_instr x;

			regs[KNIT_MAP_OPERANDS + k] =
				knit__map_decode(attr[k].i, &x) ? compute(&x, regs[x.a], regs[knit__map_has_b(x.op) ? x.b : x.a]) : (double)NAN;
		}
		out->data[i] = regs[KNIT_MAP_OPERANDS + steps - 1];
	}
}

static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	static const double per_element[KNIT_MAP_OPS] = {
		[KNIT_MAP_ADD] = 1, [KNIT_MAP_MUL] = 1, [KNIT_MAP_SCALE] = 1, [KNIT_MAP_SILU] = 4, [KNIT_MAP_GELU] = 9};
	double flops = 0;

	(void)context;
	for (uint32_t i = 0; i < knit__map_count(attr); ++i) {
		knit_map_instr x;

		flops += knit__map_decode(attr[i].i, &x) ? per_element[x.op] : 0;
	}
	knit__op_cost_stream(flops * (double)knit__op_elements(out), in, in_count, out, c);
}

const knit_op_def knit__op_map = {
	.name = "map",
	.min_in = 1,
	.max_in = KNIT_MAP_OPERANDS,
	.out_count = 1,
	.flags = KNIT_OP_INPLACE | KNIT_OP_ELEMENTWISE,
	.attr_count = KNIT_MAP_STEPS,
	.attrs = {{"i0", KNIT_ATTR_I},
			  {"i1", KNIT_ATTR_I},
			  {"i2", KNIT_ATTR_I},
			  {"i3", KNIT_ATTR_I},
			  {"i4", KNIT_ATTR_I},
			  {"i5", KNIT_ATTR_I}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};
