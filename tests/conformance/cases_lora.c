/* Owns the conformance cases of low-rank parts that are chosen per sequence. */
#include "case_build.h"

enum { TOKENS, K, RANK, N, SEQUENCES, SLOTS, B_TYPE };

static knit_tensor slots(case_build *b, knit_dtype dtype, int64_t rows, int64_t columns) {
	const int64_t count = b->c->p[SLOTS];
	const knit_dim dims[3] = {knit_n(count), knit_n(rows), knit_n(columns)};

	return knit_reshape(b->g, case_weight(b, dtype, 2, count * rows, columns), 3, dims);
}

/* p: as in the enum. B_TYPE 0: as A. */
static void build_lora(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim tokens = case_tokens(b, p[TOKENS]), sequences = knit_n(p[SEQUENCES]);
	const knit_dim dims[2] = {tokens, knit_n(p[K])};

	b->t[0] = case_in(b, "x", KNIT_F32, 2, dims);
	b->t[1] = slots(b, b->c->dtype, p[RANK], p[K]);
	b->t[2] = slots(b, p[B_TYPE] ? (knit_dtype)p[B_TYPE] : b->c->dtype, p[N], p[RANK]);
	b->t[3] = case_in(b, "adapters", KNIT_I32, 1, &sequences);
	b->t[4] = case_in(b, "seq", KNIT_I32, 1, &tokens);
	knit_output(b->g, "y", knit_lora(b->g, b->t[0], b->t[1], b->t[2], LORA_CASE_SCALE, b->t[3], b->t[4]));
}

/* Neighbouring tokens of one sequence and of others, neighbouring sequences with one adapter and with others. */
static void feed_lora(case_build *b, int run) {
	const int64_t *p = b->c->p;

	case_floats(b, "x", KNIT_F32, (uint64_t)(p[TOKENS] * p[K]));
	case_ints(b, "adapters", (uint64_t)p[SEQUENCES], run + 1, p[SEQUENCES] > 2 ? 2 : 1, p[SLOTS]);
	case_ints(b, "seq", (uint64_t)p[TOKENS], run, p[TOKENS] > 4 ? 3 : 1, p[SEQUENCES]);
}

static void add(case_table *t, knit_dtype dtype, case_fill fill, const int64_t *p) {
	case_add(t, KNIT_OP_LORA_SELECT, "", dtype, fill, build_lora, feed_lora, bound_lora, p)->runs = 2;
}

void cases_lora(case_table *t) {
	static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	/* tokens, k, rank, n, sequences, slots */
	static const int64_t grid[][6] = {{1, 32, 32, 8, 1, 1},   {1, 96, 32, 300, 3, 4},  {5, 64, 64, 17, 2, 2},
	                                  {9, 1056, 32, 48, 5, 3}, {33, 160, 32, 513, 4, 7}, {512, 32, 32, 16, 8, 8}};
	static const int64_t odd[][6] = {{1, 7, 1, 1, 1, 2}, {3, 33, 4, 19, 2, 3}, {17, 64, 8, 257, 3, 3}, {8, 172, 16, 64, 8, 4}};

	for (size_t w = 0; w < COUNT(types); ++w) {
		const bool block = knit__dtype_info(types[w])->is_block;

		for (size_t i = 0; i < COUNT(grid); ++i)
			add(t, types[w], FILL_UNIFORM, P(grid[i][0], grid[i][1], grid[i][2], grid[i][3], grid[i][4], grid[i][5]));
		for (size_t i = 0; !block && i < COUNT(odd); ++i)
			add(t, types[w], FILL_UNIFORM, P(odd[i][0], odd[i][1], odd[i][2], odd[i][3], odd[i][4], odd[i][5]));
		add(t, types[w], FILL_UNIFORM, P(6, 64, 16, 40, 3, 3, KNIT_F32));
		add(t, KNIT_F32, FILL_UNIFORM, P(6, 40, 32, 40, 3, 3, types[w]));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			add(t, types[w], fill, P(5, 64, 32, 33, 2, 3));
	}
}
