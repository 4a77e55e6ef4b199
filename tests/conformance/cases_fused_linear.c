/* Owns the conformance cases of fused linears, reached through graphs of plain ops: linear_lora, linear_group, glu. */
#include "case_build.h"

#include "../../graph/fused.h"

enum { TOKENS, K, N, RANK, ENDS, AB_TYPE, SLOTS, COUNT_OF = ENDS }; /* parameters; RANK 0: no LoRA; SLOTS 0: one adapter */
enum { BIAS = 1, RESIDUAL = 2 };                                  /* bits of ENDS */
enum { SEQUENCES = 3 };

static const knit_dtype weight_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};

/* The inputs that choose adapters; ids 0 without slots. */
typedef struct choice { knit_tensor adapters, seq; } choice;

static choice choose(case_build *b, knit_dim tokens) {
	const knit_dim sequences = knit_n(SEQUENCES);

	if (!b->c->p[SLOTS])
		return (choice){{0}, {0}};
	return (choice){case_in(b, "adapters", KNIT_I32, 1, &sequences), case_in(b, "seq", KNIT_I32, 1, &tokens)};
}

static void feed_choice(case_build *b, int run) {
	const int64_t *p = b->c->p;

	if (!p[SLOTS])
		return;
	case_ints(b, "adapters", SEQUENCES, run + 1, 2, p[SLOTS]);
	case_ints(b, "seq", (uint64_t)p[TOKENS], run, p[TOKENS] > 4 ? 2 : 1, SEQUENCES);
}

static knit_tensor factor(case_build *b, knit_dtype dtype, int64_t rows, int64_t columns) {
	const int64_t slots = b->c->p[SLOTS];
	const knit_dim dims[3] = {knit_n(slots), knit_n(rows), knit_n(columns)};

	if (!slots)
		return case_weight(b, dtype, 2, rows, columns);
	return knit_reshape(b->g, case_weight(b, dtype, 2, slots * rows, columns), 3, dims);
}

/* A linear with a LoRA, if rank is not 0; notes W, A and B where the op has them. The scale stands behind one factor or
 * the other. */
static knit_tensor project(case_build *b, knit_tensor x, int64_t k, int64_t n, int64_t rank, choice by, knit_tensor *w,
                           knit_tensor *ra, knit_tensor *rb) {
	const knit_dtype type = b->c->p[AB_TYPE] ? (knit_dtype)b->c->p[AB_TYPE] : KNIT_F32;
	knit_tensor low;

	*w = case_weight(b, b->c->dtype, 2, n, k);
	const knit_tensor y = knit_linear(b->g, x, *w);
	if (!rank)
		return y;
	*ra = factor(b, type, rank, k);
	*rb = factor(b, type, n, rank);
	if (b->c->p[SLOTS])
		low = knit_lora(b->g, x, *ra, *rb, LORA_CASE_SCALE, by.adapters, by.seq);
	else if (n % 2)
		low = knit_linear(b->g, knit_scale(b->g, knit_linear(b->g, x, *ra), LORA_CASE_SCALE), *rb);
	else
		low = knit_scale(b->g, knit_linear(b->g, knit_linear(b->g, x, *ra), *rb), LORA_CASE_SCALE);
	return n % 3 ? knit_add(b->g, y, low) : knit_add(b->g, low, y);
}

static void feed(case_build *b, int run) {
	const int64_t *p = b->c->p;

	case_floats(b, "x", KNIT_F32, (uint64_t)(p[TOKENS] * p[K]));
	feed_choice(b, run);
}

/* ---- linear_lora ------------------------------------------------------------------------------------------------- */

static void build_lora(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim tokens = case_tokens(b, p[TOKENS]);
	const knit_dim x_dims[2] = {tokens, knit_n(p[K])}, r_dims[2] = {tokens, knit_n(p[N])};
	const knit_tensor x = case_in(b, "x", KNIT_F32, 2, x_dims);
	const choice by = choose(b, tokens);
	knit_tensor *t = b->t;

	t[KNIT_LORA_X] = x;
	t[KNIT_LORA_ADAPTERS] = by.adapters;
	t[KNIT_LORA_SEQ] = by.seq;
	knit_tensor y = project(b, x, p[K], p[N], p[RANK], by, &t[KNIT_LORA_W], &t[KNIT_LORA_A], &t[KNIT_LORA_B]);
	if (p[ENDS] & BIAS) {
		t[KNIT_LORA_BIAS] = case_weight(b, p[N] % 2 ? KNIT_F32 : KNIT_F16, 1, p[N], 0);
		y = knit_add(b->g, y, t[KNIT_LORA_BIAS]);
	}
	if (p[ENDS] & RESIDUAL) {
		t[KNIT_LORA_RESIDUAL] = case_in(b, "r", KNIT_F32, 2, r_dims);
		y = knit_add(b->g, t[KNIT_LORA_RESIDUAL], y);
	}
	knit_output(b->g, "y", y);
}

static void feed_lora(case_build *b, int run) {
	const int64_t *p = b->c->p;

	feed(b, run);
	if (p[ENDS] & RESIDUAL)
		case_floats(b, "r", KNIT_F32, (uint64_t)(p[TOKENS] * p[N]));
}

static void add_lora(case_table *t, knit_dtype type, case_fill fill, const int64_t *p) {
	conf_case *c = case_add(t, KNIT_OP_LINEAR_LORA, "", type, fill, build_lora, feed_lora, bound_linear_lora, p);

	c->runs = p[SLOTS] ? 2 : 1;
	c->steps = 1;
}

static void add_loras(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33}, sizes[][2] = {{64, 40}, {160, 131}};
	/* rank, ends, type of A and B, slots */
	static const int64_t parts[][4] = {{0, 1},  {0, 2},  {0, 3},           {16, 0},          {16, 3, KNIT_F16},
	                                   {1, 0},  {4, 2, KNIT_BF16},         {32, 0, KNIT_F16},  {64, 1, KNIT_BF16},
	                                   {16, 2, KNIT_F32, 4},               {8, 3, KNIT_F16, 3}, {32, 0, KNIT_BF16, 2}};

	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		for (size_t i = 0; i < COUNT(tokens); ++i)
			for (size_t k = 0; k < COUNT(parts); ++k) {
				const int64_t *size = sizes[(i + k) % 2];

				add_lora(t, weight_types[w], FILL_UNIFORM,
				         P(tokens[i], case_columns(weight_types[w], size[0]), size[1], parts[k][0], parts[k][1], parts[k][2], parts[k][3]));
			}
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			add_lora(t, weight_types[w], fill, P(3, case_columns(weight_types[w], 96), 17, 8, BIAS | RESIDUAL));
		/* what tiles of rows, columns and ranks leave over */
		add_lora(t, weight_types[w], FILL_UNIFORM, P(6, case_columns(weight_types[w], 96), 37, 3));
		add_lora(t, weight_types[w], FILL_UNIFORM, P(34, case_columns(weight_types[w], 64), 57, 6, RESIDUAL, KNIT_F16));
		add_lora(t, weight_types[w], FILL_UNIFORM, P(11, case_columns(weight_types[w], 288), 45, 11, BIAS, KNIT_BF16, 3));
		/* wide units */
		add_lora(t, weight_types[w], FILL_UNIFORM, P(10, case_columns(weight_types[w], 64), 361, 5, RESIDUAL));
	}
	/* odd sizes, more rows than one tile, one column */
	add_lora(t, KNIT_F32, FILL_UNIFORM, P(1, 7, 1, 3, RESIDUAL));
	add_lora(t, KNIT_F16, FILL_UNIFORM, P(17, 33, 19, 5, BIAS | RESIDUAL));
	add_lora(t, KNIT_BF16, FILL_UNIFORM, P(9, 172, 300, 16, RESIDUAL));
	add_lora(t, KNIT_Q8_0, FILL_UNIFORM, P(512, 64, 48, 16, RESIDUAL));
	add_lora(t, KNIT_Q4_K, FILL_UNIFORM, P(130, 512, 48, 16, RESIDUAL));
	add_lora(t, KNIT_Q6_K, FILL_UNIFORM, P(17, 1280, 40, 4, BIAS | RESIDUAL));
	add_lora(t, KNIT_Q4_0, FILL_UNIFORM, P(17, 96, 40, 4, BIAS | RESIDUAL));
	add_lora(t, KNIT_F16, FILL_UNIFORM, P(70, 64, 40, 4, BIAS | RESIDUAL));
	add_lora(t, KNIT_F32, FILL_UNIFORM, P(7, 40, 24, 4, RESIDUAL, KNIT_F32, 5));
}

/* ---- linear_group ------------------------------------------------------------------------------------------------ */

/* Weights of n, n / 2 + 1 and 3 rows; the second without a LoRA where there are three. */
static void build_group(case_build *b) {
	const int64_t *p = b->c->p, rows[] = {p[N], p[N] / 2 + 1, 3};
	static const char *const names[] = {"y", "y.1", "y.2"};
	const knit_dim tokens = case_tokens(b, p[TOKENS]), dims[2] = {tokens, knit_n(p[K])};
	const knit_tensor x = case_in(b, "x", KNIT_F32, 2, dims);
	const choice by = choose(b, tokens);

	for (int64_t i = 0; i < p[COUNT_OF]; ++i) {
		knit_tensor *t = i ? b->more[i - 1] : b->t;
		const int64_t rank = p[COUNT_OF] == 3 && i == 1 ? 0 : p[RANK];

		t[KNIT_LORA_X] = x;
		t[KNIT_LORA_ADAPTERS] = by.adapters;
		t[KNIT_LORA_SEQ] = by.seq;
		knit_output(b->g, names[i],
		            project(b, x, p[K], rows[i], rank, by, &t[KNIT_LORA_W], &t[KNIT_LORA_A], &t[KNIT_LORA_B]));
	}
}

static void add_group(case_table *t, knit_dtype type, case_fill fill, const int64_t *p) {
	conf_case *c = case_add(t, KNIT_OP_LINEAR_GROUP, "", type, fill, build_group, feed, bound_linear_lora, p);

	c->more[0] = c->more[1] = bound_linear_lora;
	c->steps = 1;
	c->runs = p[SLOTS] ? 2 : 1;
}

static void add_groups(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33};
	/* rank, type of A and B, slots */
	static const int64_t parts[][3] = {{0}, {16}, {4, KNIT_F16}, {32, KNIT_BF16}, {16, KNIT_F32, 4}, {8, KNIT_BF16, 2}};

	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		for (size_t i = 0; i < COUNT(tokens); ++i)
			for (size_t k = 0; k < COUNT(parts); ++k)
				for (int64_t count = 2 + (int64_t)(i + k) % 2; count <= 3; ++count)
					add_group(t, weight_types[w], FILL_UNIFORM,
					          P(tokens[i], case_columns(weight_types[w], k % 2 ? 64 : 160), k % 2 ? 128 : 50, parts[k][0], count, parts[k][1], parts[k][2]));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			if (fill != FILL_EQUAL) /* factors are then equal, and what is equal is computed once */
				add_group(t, weight_types[w], fill, P(3, case_columns(weight_types[w], 96), 17, 8, 3));
		add_group(t, weight_types[w], FILL_UNIFORM, P(6, case_columns(weight_types[w], 64), 45, 7, 3));
		add_group(t, weight_types[w], FILL_UNIFORM, P(35, case_columns(weight_types[w], 96), 61, 0, 2));
		add_group(t, weight_types[w], FILL_UNIFORM, P(11, case_columns(weight_types[w], 32), 701, 4, 3));
	}
	add_group(t, KNIT_F32, FILL_UNIFORM, P(17, 33, 19, 5, 3));
	add_group(t, KNIT_Q4_0, FILL_UNIFORM, P(512, 64, 40, 4, 3));
	add_group(t, KNIT_Q8_0, FILL_UNIFORM, P(17, 96, 40, 4, 2));
	add_group(t, KNIT_F16, FILL_UNIFORM, P(70, 64, 40, 4, 3));
}

/* ---- glu --------------------------------------------------------------------------------------------------------- */

_Static_assert(GLU_CASE_ACT == ENDS, "the bound reads the activation there");

static void build_glu(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim tokens = case_tokens(b, p[TOKENS]), dims[2] = {tokens, knit_n(p[K])};
	const knit_tensor x = case_in(b, "x", KNIT_F32, 2, dims);
	const choice by = choose(b, tokens);
	knit_tensor *t = b->t;

	t[KNIT_GLU_X] = x;
	t[KNIT_GLU_ADAPTERS] = by.adapters;
	t[KNIT_GLU_SEQ] = by.seq;
	const knit_tensor gate = project(b, x, p[K], p[N], p[RANK], by, &t[KNIT_GLU_WG], &t[KNIT_GLU_AG], &t[KNIT_GLU_BG]);
	/* one LoRA of the two is left out at odd sizes */
	const knit_tensor up = project(b, x, p[K], p[N], p[N] % 2 ? 0 : p[RANK], by, &t[KNIT_GLU_WU], &t[KNIT_GLU_AU],
	                               &t[KNIT_GLU_BU]);
	const knit_tensor act = p[GLU_CASE_ACT] ? knit_gelu(b->g, gate) : knit_silu(b->g, gate);
	knit_output(b->g, "y", p[TOKENS] % 2 ? knit_mul(b->g, act, up) : knit_mul(b->g, up, act));
}

static void add_glu(case_table *t, knit_dtype type, case_fill fill, const int64_t *p) {
	conf_case *c = case_add(t, KNIT_OP_GLU, "", type, fill, build_glu, feed, bound_glu, p);

	c->runs = p[SLOTS] ? 2 : 1;
	c->steps = 1;
}

static void add_glus(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33};
	/* rank, type of A and B, slots */
	static const int64_t parts[][3] = {{0}, {16}, {4, KNIT_F16}, {32, KNIT_BF16}, {16, KNIT_F32, 4}};

	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		for (size_t i = 0; i < COUNT(tokens); ++i)
			for (size_t k = 0; k < COUNT(parts); ++k)
				for (int64_t act = 0; act < 2; ++act)
					add_glu(t, weight_types[w], FILL_UNIFORM,
					        P(tokens[i], case_columns(weight_types[w], i % 2 ? 64 : 160), act ? 51 : 40, parts[k][0], act, parts[k][1], parts[k][2]));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			if (fill != FILL_EQUAL) /* gate and up are then one weight */
				add_glu(t, weight_types[w], fill, P(3, case_columns(weight_types[w], 96), 18, 8, 0));
		/* a column more than whole vectors, at each number of rows that tiles leave over */
		add_glu(t, weight_types[w], FILL_UNIFORM, P(1, case_columns(weight_types[w], 160), 13, 0, 0));
		add_glu(t, weight_types[w], FILL_UNIFORM, P(6, case_columns(weight_types[w], 64), 37, 0, 1));
		add_glu(t, weight_types[w], FILL_UNIFORM, P(11, case_columns(weight_types[w], 64), 25, 5, 0));
		add_glu(t, weight_types[w], FILL_UNIFORM, P(34, case_columns(weight_types[w], 96), 77, 7, 1, KNIT_F16));
		add_glu(t, weight_types[w], FILL_UNIFORM, P(14, case_columns(weight_types[w], 32), 365, 0, 0));
	}
	add_glu(t, KNIT_F32, FILL_UNIFORM, P(17, 33, 20, 5, 0));
	add_glu(t, KNIT_Q8_0, FILL_UNIFORM, P(512, 64, 40, 4, 1));
	add_glu(t, KNIT_Q4_0, FILL_UNIFORM, P(17, 96, 40, 4, 0));
	add_glu(t, KNIT_F16, FILL_UNIFORM, P(70, 64, 40, 4, 1));
}

void cases_fused_linear(case_table *t) {
	add_loras(t);
	add_groups(t);
	add_glus(t);
}
