/* Owns attention over the cells of KV slots: causal, grouped queries, several sequences, optional sliding window. */
#include "op_util.h"

#include <math.h>

enum { SCALE, WINDOW, ATTRS };
enum { Q, K, V, SEQ, POS, OPERANDS };

static bool infer(knit_infer *c) {
	static const knit_dtype slots[] = {KNIT_F32, KNIT_F16, KNIT_BF16, 0};
	const knit_value *q = c->in[Q], *k = c->in[K], *v = c->in[V];

	if (!knit__op_check_f32(c, Q, "q", 3, 3) || !knit__op_check_dtype(c, K, "k", slots) ||
		!knit__op_check_rank(c, K, "k", 4, 4) || !knit__op_check_dtype(c, V, "v", slots) ||
		!knit__op_check_rank(c, V, "v", 4, 4))
		return false;
	if (!knit__op_same_dims(k, v))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "k %s and v %s: needs equal shapes", knit__infer_shape(c, k).text,
								knit__infer_shape(c, v).text);
	for (int i = 1; i < 3; ++i)
		if (!knit__dim_is_number(q->dims[i]) || !knit__dim_is_number(k->dims[i + 1]))
			return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s and k %s: needs numbers for heads and head_dim",
									knit__infer_shape(c, q).text, knit__infer_shape(c, k).text);
	if (!knit__dim_equal(q->dims[2], k->dims[3]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s has head_dim %lld, k %s has %lld",
								knit__infer_shape(c, q).text, (long long)q->dims[2].v, knit__infer_shape(c, k).text,
								(long long)k->dims[3].v);
	if (k->dims[2].v == 0 || q->dims[1].v % k->dims[2].v != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s has %lld heads, needs a multiple of the %lld kv_heads of k %s",
								knit__infer_shape(c, q).text, (long long)q->dims[1].v, (long long)k->dims[2].v,
								knit__infer_shape(c, k).text);
	if (!knit__op_check_per_token(c, SEQ, "seq", Q, "q") || !knit__op_check_per_token(c, POS, "pos", Q, "q"))
		return false;
	if (!isfinite(c->attr[SCALE].f) || c->attr[SCALE].f == 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "scale is %g, needs a finite number other than 0",
								c->attr[SCALE].f);
	if (c->attr[WINDOW].i < 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "window is %lld, needs 0 (none) or more",
								(long long)c->attr[WINDOW].i);
	knit__op_out_like(c, Q, KNIT_F32);
	return true;
}

/* One head of one token. keys and values: cell p at p * stride, for p in [first, last]. The scores are computed three
 * times (maximum, sum, average) rather than stored: slow, plain, and without memory to allocate. */
static void attend(const double *q, const double *keys, const double *values, int64_t stride, int64_t dim, double scale,
				   int64_t first, int64_t last, double *out) {
	double max = -INFINITY, sum = 0;

	for (int64_t i = 0; i < dim; ++i)
		out[i] = 0;
	for (int pass = 0; pass < 3; ++pass) {
		for (int64_t p = first; p <= last; ++p) {
			double score = 0;

			for (int64_t i = 0; i < dim; ++i)
				score += q[i] * keys[p * stride + i];
			score *= scale;
			if (pass == 0)
				max = fmax(max, score);
			else if (pass == 1)
				sum += exp(score - max);
			else
				for (int64_t i = 0; i < dim; ++i)
					out[i] += exp(score - max) / sum * values[p * stride + i];
		}
	}
}

/* The session checks seq and pos before a run; a cell outside the slot gives NaN here: a missing check is seen. */
static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t tokens = in[Q].dims[0], heads = in[Q].dims[1], dim = in[Q].dims[2];
	const int64_t sequences = in[K].dims[0], positions = in[K].dims[1], kv_heads = in[K].dims[2];
	const int64_t window = attr[WINDOW].i;

	(void)in_count;
	for (int64_t row = 0; row < tokens * heads; ++row) {
		const int64_t head = row % heads, kv_head = head / (heads / kv_heads);
		const double seq = in[SEQ].data[row / heads], pos = in[POS].data[row / heads];

		if (!(seq >= 0 && seq < (double)sequences && pos >= 0 && pos < (double)positions)) {
			for (int64_t i = 0; i < dim; ++i)
				out->data[row * dim + i] = (double)NAN;
			continue;
		}
		const int64_t last = (int64_t)pos, first = window > 0 && window <= last ? last - window + 1 : 0;
		const int64_t start = (int64_t)seq * positions * kv_heads * dim + kv_head * dim;

		attend(in[Q].data + row * dim, in[K].data + start, in[V].data + start, kv_heads * dim, dim, attr[SCALE].f,
			   first, last, out->data + row * dim);
	}
}

/* Keys and values are read once per token and kv head: the heads of a group share them. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const int64_t window = attr[WINDOW].i, positions = in[K].dims[1];
	const int64_t tokens = in[Q].dims[0], heads = in[Q].dims[1], dim = in[Q].dims[2];
	int64_t seen = context < positions ? context : positions;

	(void)in_count;
	if (window > 0 && window < seen)
		seen = window;
	const knit_shape keys = {in[K].dtype, 3, {tokens, seen, in[K].dims[2] * dim}};
	const knit_shape values = {in[V].dtype, 3, {tokens, seen, in[V].dims[2] * dim}};

	*c = (knit_cost){
		/* per cell: two dot products' worth of multiply and add, then max, subtract, exp, sum */
		.flops = (double)(tokens * heads) * (double)seen * (4.0 * (double)dim + 4.0),
		.read_bytes = knit__op_bytes(&in[Q]) + knit__op_bytes(&keys) + knit__op_bytes(&values) +
					  knit__op_bytes(&in[SEQ]) + knit__op_bytes(&in[POS]),
		.write_bytes = knit__op_bytes(out),
	};
}

const knit_op_def knit__op_attention = {
	.name = "attention",
	.min_in = OPERANDS,
	.max_in = OPERANDS,
	.out_count = 1,
	.attr_count = ATTRS,
	.index_rule_count = 2,
	.attrs = {{"scale", KNIT_ATTR_F}, {"window", KNIT_ATTR_I}},
	.index_rules = {{.operand = SEQ, .into = K, .dim = 0}, {.operand = POS, .into = K, .dim = 1}},
	.infer = infer,
	.eval = eval,
	.cost = cost,
};

knit_tensor knit_attention(knit_graph *g, knit_tensor q, knit_tensor k, knit_tensor v, knit_tensor seq, knit_tensor pos,
						   const knit_attention_desc *desc) {
	const knit_op_arg args[OPERANDS] = {
		{"q", q, false}, {"k", k, false}, {"v", v, false}, {"seq", seq, false}, {"pos", pos, false}};
	const knit_attention_desc d = desc ? *desc : (knit_attention_desc){0};
	double scale = (double)d.scale;

	if (!knit__op_usable(g) || !knit__op_check_operand(g, knit__op_attention.name, "q", q))
		return (knit_tensor){0};
	if (scale == 0) { /* of a shape that infer refuses, anything will do */
		const knit_value *value = knit__value(g, q.id);
		const int64_t dim = value->rank == 3 && knit__dim_is_number(value->dims[2]) ? value->dims[2].v : 1;

		scale = 1 / sqrt((double)(dim > 0 ? dim : 1));
	}
	const knit_attr attr[ATTRS] = {[SCALE].f = scale, [WINDOW].i = d.window};

	return knit__op_build(g, KNIT_OP_ATTENTION, OPERANDS, args, attr);
}
