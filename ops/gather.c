/* Owns gather: rows of a table chosen by ids (embedding, choosing rows of activations). */
#include "op_util.h"

#include <math.h>

static bool infer(knit_infer *c) {
	static const knit_dtype tables[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K, 0};
	static const knit_dtype i32[] = {KNIT_I32, 0};

	if (!knit__op_check_dtype(c, 0, "table", tables) || !knit__op_check_rank(c, 0, "table", 2, 2) ||
		!knit__op_check_dtype(c, 1, "ids", i32) || !knit__op_check_rank(c, 1, "ids", 1, 1))
		return false;
	if (!knit__dim_is_number(c->in[0]->dims[1]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "table is %s, needs a number of columns",
								knit__infer_shape(c, c->in[0]).text);
	c->out[0] = (knit_type){KNIT_F32, 2, {c->in[1]->dims[0], c->in[0]->dims[1]}};
	return true;
}

/* The session checks ids before a run; here a bad one gives NaN, so that a missing check is seen. */
static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t rows = in[0].dims[0], n = in[0].dims[1], count = in[1].dims[0];

	(void)attr, (void)in_count;
	for (int64_t i = 0; i < count; ++i) {
		const double id = in[1].data[i];
		const bool inside = id >= 0 && id < (double)rows;

		for (int64_t j = 0; j < n; ++j)
			out->data[i * n + j] = inside ? in[0].data[(int64_t)id * n + j] : (double)NAN;
	}
}

/* Reads the chosen rows only. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const knit_shape chosen = {in[0].dtype, 2, {in[1].dims[0], in[0].dims[1]}};

	(void)attr, (void)in_count, (void)context;
	*c =
		(knit_cost){.read_bytes = knit__op_bytes(&chosen) + knit__op_bytes(&in[1]), .write_bytes = knit__op_bytes(out)};
}

const knit_op_def knit__op_gather = {
	.name = "gather",
	.min_in = 2,
	.max_in = 2,
	.out_count = 1,
	.index_rule_count = 1,
	.index_rules = {{.operand = 1, .into = 0, .dim = 0}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

knit_tensor knit_gather(knit_graph *g, knit_tensor table, knit_tensor ids) {
	const knit_op_arg args[] = {{"table", table, false}, {"ids", ids, false}};

	return knit__op_build(g, KNIT_OP_GATHER, 2, args, NULL);
}
