/* Owns the fused linears: linear_lora (bias, residual and a LoRA that is never merged), linear_group (several weights
 * over one x) and glu (gate, up and activation). */
#include "fused.h"

#include <math.h>

/* ---- operands ---------------------------------------------------------------------------------------------------- */

static const knit_value *operand(const knit_infer *c, uint32_t i) {
	return i < c->in_count ? c->in[i] : NULL;
}

static const double *data(const knit_array *in, uint32_t in_count, uint32_t i) {
	return i < in_count ? in[i].data : NULL;
}

/* A matrix of any weight type with numbers for dims and whole blocks in a row; `slots`: one more dimension in front. */
static bool check_matrix(knit_infer *c, uint32_t i, const char *name, bool slots) {
	static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K, 0};
	const knit_value *w = operand(c, i);
	const uint32_t rank = slots ? 3 : 2;

	if (!w)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "%s is absent, needs a weight", name);
	if (!knit__op_check_dtype(c, i, name, weights) || !knit__op_check_rank(c, i, name, rank, rank))
		return false;
	for (int k = 0; k < w->rank; ++k)
		if (!knit__dim_is_number(w->dims[k]))
			return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s, needs numbers for its dimensions", name,
									knit__infer_shape(c, w).text);
	const knit_dtype_info *info = knit__dtype_info(w->dtype);
	if (w->dims[w->rank - 1].v % info->block_elements != 0)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s: its rows are no multiple of %s's block of %u", name,
								knit__infer_shape(c, w).text, info->name, info->block_elements);
	return true;
}

/* w [n, k] for x [R, k]. */
static bool check_weight(knit_infer *c, uint32_t w, const char *name) {
	const knit_value *x = c->in[0];

	if (!check_matrix(c, w, name, false))
		return false;
	if (knit__dim_equal(x->dims[x->rank - 1], c->in[w]->dims[1]))
		return true;
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "x %s and %s %s: the innermost dimensions differ",
							knit__infer_shape(c, x).text, name, knit__infer_shape(c, c->in[w]).text);
}

/* Both absent, or A [r, k] and B [n, r] for w [n, k], each with the number of slots in front if there are slots. */
static bool check_pair(knit_infer *c, uint32_t w, uint32_t a, uint32_t b, bool slots) {
	const knit_value *va = operand(c, a), *vb = operand(c, b), *vw = c->in[w];
	const int at = slots ? 1 : 0;

	if (!va && !vb)
		return true;
	if (!va || !vb)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "operand %u is absent: A and B need each other", va ? b : a);
	if (!check_matrix(c, a, "A", slots) || !check_matrix(c, b, "B", slots))
		return false;
	if (knit__dim_equal(va->dims[at + 1], vw->dims[1]) && knit__dim_equal(vb->dims[at], vw->dims[0]) &&
		knit__dim_equal(va->dims[at], vb->dims[at + 1]) && (!slots || knit__dim_equal(va->dims[0], vb->dims[0])))
		return true;
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "A %s and B %s do not fit w %s: needs A [r, k] and B [n, r]",
							knit__infer_shape(c, va).text, knit__infer_shape(c, vb).text,
							knit__infer_shape(c, vw).text);
}

/* The two operands that choose an adapter per token: both or none, x then being [tokens, k]. */
static bool check_choice(knit_infer *c, uint32_t adapters, uint32_t seq, bool *slots) {
	static const knit_dtype i32[] = {KNIT_I32, 0};
	const knit_value *va = operand(c, adapters), *vs = operand(c, seq);

	*slots = va != NULL;
	if (!va && !vs)
		return true;
	if (!va || !vs)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "adapter_of_sequence and seq need each other");
	return knit__op_check_rank(c, 0, "x", 2, 2) && knit__op_check_dtype(c, adapters, "adapter_of_sequence", i32) &&
		   knit__op_check_rank(c, adapters, "adapter_of_sequence", 1, 1) &&
		   knit__op_check_per_token(c, seq, "seq", 0, "x");
}

static bool check_scale(knit_infer *c, uint32_t attr) {
	return isfinite(c->attr[attr].f) ||
		   knit__infer_fail(c, KNIT_ERR_ARGUMENT, "%s is %g, needs a finite number", knit__op_find(c->op)
		   ? knit__op(knit__op_find(c->op))->attrs[attr].name : "s", c->attr[attr].f);
}

/* Output i: x's leading dimensions and the rows of w. */
static void out_of(knit_infer *c, uint32_t i, uint32_t w) {
	const knit_value *x = c->in[0];

	c->out[i] = (knit_type){.dtype = KNIT_F32, .rank = x->rank};
	for (int k = 0; k < x->rank; ++k)
		c->out[i].dims[k] = x->dims[k];
	c->out[i].dims[x->rank - 1] = c->in[w]->dims[0];
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* One weight with its LoRA. */
typedef struct lora {
	const knit_array *w;
	const double *a, *b; /* NULL: no LoRA */
	int64_t rank, slots;
	double s;
} lora;

/* Which adapter a row uses; NULL: the only one. */
typedef struct choice {
	const double *adapters, *seq;
	int64_t sequences;
} choice;

static lora lora_of(const knit_array *in, uint32_t in_count, uint32_t w, uint32_t a, uint32_t b, double s) {
	const double *da = data(in, in_count, a), *db = data(in, in_count, b);

	if (!da || !db)
		return (lora){.w = &in[w]};
	return (lora){.w = &in[w],
				  .a = da,
				  .b = db,
				  .rank = in[a].dims[in[a].rank - 2],
				  .slots = in[a].rank == 3 ? in[a].dims[0] : 1,
				  .s = s};
}

static choice choice_of(const knit_array *in, uint32_t in_count, uint32_t adapters, uint32_t seq) {
	const double *da = data(in, in_count, adapters);

	return (choice){da, data(in, in_count, seq), da ? in[adapters].dims[0] : 0};
}

/* The adapter of a row; -1 where an index is out of range, which the session has checked before a run. */
static int64_t slot_of(const choice *c, int64_t row, int64_t slots) {
	if (!c->adapters)
		return 0;
	const double seq = c->seq[row];
	if (!(seq >= 0 && seq < (double)c->sequences))
		return -1;
	const double slot = c->adapters[(int64_t)seq];
	return slot >= 0 && slot < (double)slots ? (int64_t)slot : -1;
}

static double dot(const double *a, const double *b, int64_t n) {
	double sum = 0;

	for (int64_t i = 0; i < n; ++i)
		sum += a[i] * b[i];
	return sum;
}

/* Element j of x W^T + s (x A^T) B^T for the row x. The small product is computed anew for every j: there is no memory
 * to keep it in. */
static double project(const lora *l, const choice *c, const double *x, int64_t row, int64_t j) {
	const int64_t n = l->w->dims[0], k = l->w->dims[1];
	const double y = dot(x, l->w->data + j * k, k);
	double low = 0;

	if (!l->a)
		return y;
	const int64_t slot = slot_of(c, row, l->slots);
	if (slot < 0)
		return (double)NAN;
	for (int64_t q = 0; q < l->rank; ++q)
		low += dot(x, l->a + (slot * l->rank + q) * k, k) * l->b[(slot * n + j) * l->rank + q];
	return y + l->s * low;
}

static int64_t row_count(const knit_array *x) {
	const int64_t k = knit__op_row(x);
	int64_t rows = 1;

	for (uint32_t i = 0; i + 1 < x->rank; ++i)
		rows *= x->dims[i];
	return k ? rows : 0;
}

/* ---- costs ------------------------------------------------------------------------------------------------------- */

/* Operations of x [R, k] through w [n, k] and its LoRA. */
static double linear_flops(const knit_shape *in, uint32_t in_count, uint32_t w, uint32_t a) {
	const double k = (double)in[w].dims[1], n = (double)in[w].dims[0];
	const double rows = k > 0 ? (double)knit__op_elements(&in[0]) / k : 0;

	if (a >= in_count || in[a].rank == 0)
		return 2 * rows * k * n;
	const double r = (double)in[a].dims[in[a].rank - 2];
	return 2 * rows * (k * n + k * r + r * n) + 2 * rows * n;
}

static void add_writes(const knit_shape *out, uint32_t count, knit_cost *c) {
	c->write_bytes = 0;
	for (uint32_t i = 0; i < count; ++i)
		c->write_bytes += knit__op_bytes(&out[i]);
}

/* ---- linear_lora ------------------------------------------------------------------------------------------------- */

static bool infer_lora(knit_infer *c) {
	bool slots;

	if (!knit__op_check_f32(c, KNIT_LORA_X, "x", 1, KNIT_MAX_RANK) || !check_scale(c, 0) ||
		!check_choice(c, KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ, &slots) || !check_weight(c, KNIT_LORA_W, "w") ||
		!check_pair(c, KNIT_LORA_W, KNIT_LORA_A, KNIT_LORA_B, slots))
		return false;
	out_of(c, 0, KNIT_LORA_W);

	static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16, 0};
	const knit_value *bias = operand(c, KNIT_LORA_BIAS), *residual = operand(c, KNIT_LORA_RESIDUAL);
	const knit_value *w = c->in[KNIT_LORA_W];
	if (bias && (!knit__op_check_dtype(c, KNIT_LORA_BIAS, "bias", floats) ||
				 !knit__op_check_rank(c, KNIT_LORA_BIAS, "bias", 1, 1)))
		return false;
	if (bias && !knit__dim_equal(bias->dims[0], w->dims[0]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "bias is %s, needs one per row of w %s",
								knit__infer_shape(c, bias).text, knit__infer_shape(c, w).text);
	if (!residual)
		return true;
	bool fits = residual->rank == c->out[0].rank;
	for (int i = 0; fits && i < residual->rank; ++i)
		fits = knit__dim_equal(residual->dims[i], c->out[0].dims[i]);
	if (!fits)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "residual is %s, needs the shape of the result of x %s and w %s",
								knit__infer_shape(c, residual).text, knit__infer_shape(c, c->in[0]).text,
								knit__infer_shape(c, w).text);
	return knit__op_check_f32(c, KNIT_LORA_RESIDUAL, "residual", 1, KNIT_MAX_RANK);
}

static void eval_lora(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const lora l = lora_of(in, in_count, KNIT_LORA_W, KNIT_LORA_A, KNIT_LORA_B, attr[0].f);
	const choice c = choice_of(in, in_count, KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ);
	const double *bias = data(in, in_count, KNIT_LORA_BIAS), *residual = data(in, in_count, KNIT_LORA_RESIDUAL);
	const int64_t n = l.w->dims[0], k = l.w->dims[1], rows = n ? knit__array_count(out) / n : 0;

	for (int64_t row = 0; row < rows; ++row) {
		for (int64_t j = 0; j < n; ++j) {
			double y = project(&l, &c, in[0].data + row * k, row, j);

			if (bias)
				y += bias[j];
			if (residual)
				y += residual[row * n + j];
			out->data[row * n + j] = y;
		}
	}
}

static void cost_lora(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					  int64_t context, knit_cost *c) {
	double flops = linear_flops(in, in_count, KNIT_LORA_W, KNIT_LORA_A);

	(void)attr, (void)context;
	for (uint32_t i = KNIT_LORA_BIAS; i <= KNIT_LORA_RESIDUAL && i < in_count; ++i)
		flops += in[i].rank ? (double)knit__op_elements(out) : 0;
	knit__op_cost_stream(flops, in, in_count, out, c);
}

const knit_op_def knit__op_linear_lora = {
	.name = "linear_lora",
	.min_in = 2,
	.max_in = KNIT_LORA_OPERANDS,
	.out_count = 1,
	.attr_count = 1,
	.attrs = {{"s", KNIT_ATTR_F}},
	.index_rule_count = 2,
	.index_rules = {{.operand = KNIT_LORA_ADAPTERS, .into = KNIT_LORA_A, .dim = 0},
					{.operand = KNIT_LORA_SEQ, .into = KNIT_LORA_ADAPTERS, .dim = 0}},
	.infer = infer_lora,
	.eval = eval_lora,
	.cost = cost_lora,
};

/* ---- linear_group ------------------------------------------------------------------------------------------------ */

static bool infer_group(knit_infer *c) {
	const int64_t n = c->attr[KNIT_GROUP_N].i;
	bool slots;

	if (n < 2 || n > KNIT_GROUP_MAX)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "n is %lld, needs 2 to %d", (long long)n, KNIT_GROUP_MAX);
	if (!knit__op_check_f32(c, KNIT_GROUP_X, "x", 1, KNIT_MAX_RANK) ||
		!check_choice(c, KNIT_GROUP_ADAPTERS, KNIT_GROUP_SEQ, &slots))
		return false;
	c->out_count = (uint32_t)n;
	for (uint32_t i = 0; i < KNIT_GROUP_MAX; ++i) {
		const uint32_t w = KNIT_GROUP_W + 3 * i;

		if (i >= n && (operand(c, w) || operand(c, w + 1) || operand(c, w + 2)))
			return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "weight %u is there, but n is %lld", i, (long long)n);
		if (i >= n)
			continue;
		if (!check_scale(c, KNIT_GROUP_S + i) || !check_weight(c, w, "w") || !check_pair(c, w, w + 1, w + 2, slots))
			return false;
		out_of(c, i, w);
	}
	return true;
}

static void eval_group(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const choice c = choice_of(in, in_count, KNIT_GROUP_ADAPTERS, KNIT_GROUP_SEQ);
	const int64_t rows = row_count(&in[0]);

	for (uint32_t i = 0; i < attr[KNIT_GROUP_N].i; ++i) {
		const uint32_t w = KNIT_GROUP_W + 3 * i;
		const lora l = lora_of(in, in_count, w, w + 1, w + 2, attr[KNIT_GROUP_S + i].f);
		const int64_t n = l.w->dims[0], k = l.w->dims[1];

		for (int64_t e = 0; e < knit__array_count(&out[i]); ++e)
			out[i].data[e] = rows ? project(&l, &c, in[0].data + e / n * k, e / n, e % n) : 0;
	}
}

static void cost_group(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					   int64_t context, knit_cost *c) {
	const uint32_t n = (uint32_t)attr[KNIT_GROUP_N].i;
	double flops = 0;

	(void)context;
	for (uint32_t i = 0; i < n; ++i)
		flops += linear_flops(in, in_count, KNIT_GROUP_W + 3 * i, KNIT_GROUP_W + 3 * i + 1);
	knit__op_cost_stream(flops, in, in_count, out, c);
	add_writes(out, n, c);
}

const knit_op_def knit__op_linear_group = {
	.name = "linear_group",
	.min_in = 2,
	.max_in = KNIT_GROUP_OPERANDS,
	.out_count = KNIT_GROUP_MAX,
	.min_out = 2,
	.attr_count = KNIT_GROUP_ATTRS,
	.attrs = {{"n", KNIT_ATTR_I}, {"s0", KNIT_ATTR_F}, {"s1", KNIT_ATTR_F}, {"s2", KNIT_ATTR_F}},
	.index_rule_count = 4,
	.index_rules = {{.operand = KNIT_GROUP_ADAPTERS, .into = KNIT_GROUP_W + 1, .dim = 0},
					{.operand = KNIT_GROUP_ADAPTERS, .into = KNIT_GROUP_W + 4, .dim = 0},
					{.operand = KNIT_GROUP_ADAPTERS, .into = KNIT_GROUP_W + 7, .dim = 0},
					{.operand = KNIT_GROUP_SEQ, .into = KNIT_GROUP_ADAPTERS, .dim = 0}},
	.infer = infer_group,
	.eval = eval_group,
	.cost = cost_group,
};

/* ---- glu --------------------------------------------------------------------------------------------------------- */

static bool infer_glu(knit_infer *c) {
	const int64_t act = c->attr[KNIT_GLU_ACT].i;
	bool slots;

	if (act != KNIT_GLU_SILU && act != KNIT_GLU_GELU)
		return knit__infer_fail(c, KNIT_ERR_ARGUMENT, "act is %lld, needs 0 (silu) or 1 (gelu)", (long long)act);
	if (!knit__op_check_f32(c, KNIT_GLU_X, "x", 1, KNIT_MAX_RANK) || !check_scale(c, KNIT_GLU_SG) ||
		!check_scale(c, KNIT_GLU_SU) || !check_choice(c, KNIT_GLU_ADAPTERS, KNIT_GLU_SEQ, &slots) ||
		!check_weight(c, KNIT_GLU_WG, "gate") || !check_weight(c, KNIT_GLU_WU, "up") ||
		!check_pair(c, KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_BG, slots) ||
		!check_pair(c, KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_BU, slots))
		return false;
	if (!knit__dim_equal(c->in[KNIT_GLU_WG]->dims[0], c->in[KNIT_GLU_WU]->dims[0]))
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "gate %s and up %s: needs equal shapes",
								knit__infer_shape(c, c->in[KNIT_GLU_WG]).text,
								knit__infer_shape(c, c->in[KNIT_GLU_WU]).text);
	out_of(c, 0, KNIT_GLU_WG);
	return true;
}

static double activate(int64_t act, double x) {
	if (act == KNIT_GLU_SILU)
		return x / (1 + exp(-x));
	return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static void eval_glu(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out) {
	const lora gate = lora_of(in, in_count, KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_BG, attr[KNIT_GLU_SG].f);
	const lora up = lora_of(in, in_count, KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_BU, attr[KNIT_GLU_SU].f);
	const choice c = choice_of(in, in_count, KNIT_GLU_ADAPTERS, KNIT_GLU_SEQ);
	const int64_t n = gate.w->dims[0], k = gate.w->dims[1], rows = n ? knit__array_count(out) / n : 0;

	for (int64_t row = 0; row < rows; ++row) {
		const double *x = in[0].data + row * k;

		for (int64_t j = 0; j < n; ++j)
			out->data[row * n + j] =
				activate(attr[KNIT_GLU_ACT].i, project(&gate, &c, x, row, j)) * project(&up, &c, x, row, j);
	}
}

static void cost_glu(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
					 int64_t context, knit_cost *c) {
	const double per_element = attr[KNIT_GLU_ACT].i == KNIT_GLU_SILU ? 4 : 9;

	(void)context;
	knit__op_cost_stream(linear_flops(in, in_count, KNIT_GLU_WG, KNIT_GLU_AG) +
							 linear_flops(in, in_count, KNIT_GLU_WU, KNIT_GLU_AU) +
							 (per_element + 1) * (double)knit__op_elements(out),
						 in, in_count, out, c);
}

const knit_op_def knit__op_glu = {
	.name = "glu",
	.min_in = 3,
	.max_in = KNIT_GLU_OPERANDS,
	.out_count = 1,
	.attr_count = KNIT_GLU_ATTRS,
	.attrs = {{"act", KNIT_ATTR_I}, {"sg", KNIT_ATTR_F}, {"su", KNIT_ATTR_F}},
	.index_rule_count = 3,
	.index_rules = {{.operand = KNIT_GLU_ADAPTERS, .into = KNIT_GLU_AG, .dim = 0},
					{.operand = KNIT_GLU_ADAPTERS, .into = KNIT_GLU_AU, .dim = 0},
					{.operand = KNIT_GLU_SEQ, .into = KNIT_GLU_ADAPTERS, .dim = 0}},
	.infer = infer_glu,
	.eval = eval_glu,
	.cost = cost_glu,
};
