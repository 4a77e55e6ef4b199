/* Owns attention over the cells of KV slots: causal, grouped queries, several sequences, optional sliding window with
 * sinks, slots of any type that may be rings. */
#include "op_util.h"

#include <math.h>

enum { SCALE, WINDOW, RING, SINKS, KV_HEADS, ATTRS };
enum { Q, K, V, SEQ, POS, OPERANDS };

/* Heads of a slot [sequences, cells, kv_heads, head_dim] or [sequences, cells, kv_heads * head_dim]. */
static int64_t heads_of(const knit_attr *attr, uint32_t rank, const int64_t *dims) {
	return rank == 4 ? dims[2] : attr[KV_HEADS].i;
}

/* The shape of k or v against that of q. */
static bool check_slot(knit_infer *c, uint32_t operand, const char *name) {
	static const knit_dtype slots[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, 0};
	const knit_value *q = c->in[Q], *x = c->in[operand];
	const int64_t asked = c->attr[KV_HEADS].i;

	if (!knit__op_check_dtype(c, operand, name, slots) || !knit__op_check_rank(c, operand, name, 3, 4))
		return false;
	for (int i = 2; i < x->rank; ++i)
		if (!knit__dim_is_number(q->dims[i - 1]) || !knit__dim_is_number(x->dims[i]))
			return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s and %s %s: needs numbers for heads and head_dim",
									knit__infer_shape(c, q).text, name, knit__infer_shape(c, x).text);
	if (!knit__dim_is_number(q->dims[2]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s: needs numbers for heads and head_dim",
								knit__infer_shape(c, q).text);
	if (x->rank == 3 && (asked < 1 || q->dims[2].v < 1 || x->dims[2].v / q->dims[2].v != asked ||
						 x->dims[2].v % q->dims[2].v != 0))
		return knit__infer_fail(c, KNIT_ERR_SHAPE,
								"%s is %s: needs rank 4, or kv_heads (%lld) times the head_dim of q %s as last dimension",
								name, knit__infer_shape(c, x).text, (long long)asked, knit__infer_shape(c, q).text);
	if (x->rank == 4 && !knit__dim_equal(q->dims[2], x->dims[3]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s has head_dim %lld, %s %s has %lld",
								knit__infer_shape(c, q).text, (long long)q->dims[2].v, name,
								knit__infer_shape(c, x).text, (long long)x->dims[3].v);
	if (x->rank == 4 && asked != 0 && asked != x->dims[2].v)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "kv_heads is %lld, %s %s has %lld", (long long)asked, name,
								knit__infer_shape(c, x).text, (long long)x->dims[2].v);
	return true;
}

/* A ring must hold the window of the first token of a run when its last one has been written. */
static bool check_ring(knit_infer *c) {
	const int64_t window = c->attr[WINDOW].i, ring = c->attr[RING].i, sinks = c->attr[SINKS].i;
	const int64_t tokens = knit__dim_hi(&c->graph->exprs, NULL, c->in[Q]->dims[0]);
	const knit_dim cells = c->in[K]->dims[1];

	if (window < 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "window is %lld, needs 0 (none) or more", (long long)window);
	if (ring < 0 || sinks < 0 || (window == 0 && (ring != 0 || sinks != 0)))
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "ring is %lld and sinks %lld with a window of %lld: needs a window",
								(long long)ring, (long long)sinks, (long long)window);
	if (ring == 0)
		return true;
	if (!knit__dim_is_number(cells) || sinks > cells.v || cells.v - sinks != ring)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "k %s: a ring of %lld cells after %lld sinks needs as many cells",
								knit__infer_shape(c, c->in[K]).text, (long long)ring, (long long)sinks);
	if (ring < window || ring - window < tokens - 1)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT,
								"a ring of %lld cells is too small: a window of %lld and up to %lld tokens in a run need "
								"%lld, window + tokens - 1",
								(long long)ring, (long long)window, (long long)tokens, (long long)(window + tokens - 1));
	return true;
}

static bool infer(knit_infer *c) {
	const knit_value *q = c->in[Q], *k = c->in[K], *v = c->in[V];

	if (!knit__op_check_f32(c, Q, "q", 3, 3) || !check_slot(c, K, "k") || !check_slot(c, V, "v"))
		return false;

	const int64_t kv_heads = k->rank == 4 ? k->dims[2].v : c->attr[KV_HEADS].i;
	const bool same = v->rank == 3 || v->dims[2].v == kv_heads;
	if (!same || !knit__dim_equal(k->dims[0], v->dims[0]) || !knit__dim_equal(k->dims[1], v->dims[1]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "k %s and v %s: needs equal shapes", knit__infer_shape(c, k).text,
								knit__infer_shape(c, v).text);
	if (!knit__dim_is_number(q->dims[1]) || kv_heads == 0 || q->dims[1].v % kv_heads != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "q %s has %lld heads, needs a multiple of the %lld kv_heads of k %s",
								knit__infer_shape(c, q).text, (long long)q->dims[1].v, (long long)kv_heads,
								knit__infer_shape(c, k).text);
	if (!knit__op_check_per_token(c, SEQ, "seq", Q, "q") || !knit__op_check_per_token(c, POS, "pos", Q, "q"))
		return false;
	if (!isfinite(c->attr[SCALE].f) || c->attr[SCALE].f == 0)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "scale is %g, needs a finite number other than 0",
								c->attr[SCALE].f);
	if (!check_ring(c))
		return false;
	knit__op_out_like(c, Q, KNIT_F32);
	return true;
}

/* What a token at `pos` sees: positions [0, sinks) and [first, pos]. */
typedef struct view {
	const knit_attr *attr;
	int64_t cells, sinks, first, pos;
} view;

static view view_of(const knit_attr *attr, int64_t pos, int64_t cells) {
	const int64_t window = attr[WINDOW].i;
	view w = {attr, cells, attr[SINKS].i, window > 0 && window <= pos ? pos - window + 1 : 0, pos};

	if (w.sinks > w.first) /* they are in the window */
		w.sinks = w.first;
	return w;
}

/* The cell of the i-th position that is seen; -1 past the last. */
static int64_t seen_cell(const view *w, int64_t i) {
	const int64_t p = i < w->sinks ? i : w->first + (i - w->sinks);

	return p <= w->pos ? knit__op_cell((double)p, w->attr[RING].i, w->attr[SINKS].i, w->cells) : -1;
}

/* One head of one token. keys and values: cell c at c times their strides. The scores are computed three times (maximum,
 * sum, average) rather than stored: slow, plain, and without memory to allocate. */
static void attend(const double *q, const double *keys, const double *values, int64_t stride, int64_t dim, double scale,
				   const view *w, double *out) {
	double max = -INFINITY, sum = 0;

	for (int64_t i = 0; i < dim; ++i)
		out[i] = 0;
	for (int pass = 0; pass < 3; ++pass) {
		int64_t cell;

		for (int64_t s = 0; (cell = seen_cell(w, s)) >= 0; ++s) {
			double score = 0;

			for (int64_t i = 0; i < dim; ++i)
				score += q[i] * keys[cell * stride + i];
			score *= scale;
			if (pass == 0)
				max = fmax(max, score);
			else if (pass == 1)
				sum += exp(score - max);
			else
				for (int64_t i = 0; i < dim; ++i)
					out[i] += exp(score - max) / sum * values[cell * stride + i];
		}
	}
}

/* The session checks seq and pos before a run; a cell outside the slot gives NaN here: a missing check is seen. */
static void eval(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const int64_t tokens = in[Q].dims[0], heads = in[Q].dims[1], dim = in[Q].dims[2];
	const int64_t sequences = in[K].dims[0], cells = in[K].dims[1], kv_heads = heads_of(attr, in[K].rank, in[K].dims);

	(void)in_count;
	for (int64_t row = 0; row < tokens * heads; ++row) {
		const int64_t head = row % heads, kv_head = head / (heads / kv_heads);
		const double seq = in[SEQ].data[row / heads], pos = in[POS].data[row / heads];

		if (!(seq >= 0 && seq < (double)sequences) || knit__op_cell(pos, attr[RING].i, attr[SINKS].i, cells) < 0) {
			for (int64_t i = 0; i < dim; ++i)
				out->data[row * dim + i] = (double)NAN;
			continue;
		}
		const view w = view_of(attr, (int64_t)pos, cells);
		const int64_t start = ((int64_t)seq * cells * kv_heads + kv_head) * dim;

		attend(in[Q].data + row * dim, in[K].data + start, in[V].data + start, kv_heads * dim, dim, attr[SCALE].f, &w,
			   out->data + row * dim);
	}
}

/* The heads of a group share keys and values, and so do the tokens of a sequence: they are read once per token or once per
 * sequence, whichever is less. */
static void cost(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out, int64_t context,
				 knit_cost *c) {
	const int64_t window = attr[WINDOW].i, cells = in[K].dims[1];
	const int64_t tokens = in[Q].dims[0], heads = in[Q].dims[1], dim = in[Q].dims[2];
	const int64_t row = heads_of(attr, in[K].rank, in[K].dims) * dim;
	const int64_t sequences = in[K].dims[0], readers = tokens < sequences ? tokens : sequences;
	int64_t seen = context < cells ? context : cells;

	(void)in_count;
	if (window > 0 && window + attr[SINKS].i < seen)
		seen = window + attr[SINKS].i;
	const knit_shape keys = {in[K].dtype, 3, {readers, seen, row}}, values = {in[V].dtype, 3, {readers, seen, row}};

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
	.cell_seq = SEQ,
	.cell_pos = POS,
	.ring_attr = RING + 1,
	.sinks_attr = SINKS + 1,
	.window_attr = WINDOW + 1,
	.attr_count = ATTRS,
	.index_rule_count = 2,
	.attrs = {{"scale", KNIT_ATTR_F},
			  {"window", KNIT_ATTR_I},
			  {"ring", KNIT_ATTR_I},
			  {"sinks", KNIT_ATTR_I},
			  {"kv_heads", KNIT_ATTR_I}},
	.index_rules = {{.operand = SEQ, .into = K, .dim = 0},
					{.operand = POS, .into = K, .dim = 1, .unless_attr = RING + 1}},
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
	const knit_attr attr[ATTRS] = {[SCALE].f = scale,
								   [WINDOW].i = d.window,
								   [RING].i = d.ring,
								   [SINKS].i = d.sinks,
								   [KV_HEADS].i = d.kv_heads};

	return knit__op_build(g, KNIT_OP_ATTENTION, OPERANDS, args, attr);
}
