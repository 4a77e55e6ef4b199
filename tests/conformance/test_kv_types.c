/* Every pair of types of keys and values against f32, on the CPU: what rounding the slot costs, within a bound that follows
 * from the rounding alone. Prints the table. */
#include "../../graph/base.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 8, KV_HEADS = 4, TOKENS = 64, CELLS = 600, FIRST = CELLS % TOKENS, TYPES = 5 };

static const knit_dtype types[TYPES] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};

/* What one element may be off by, for rows with elements of at most 1 in magnitude. Half a unit of the last place for the
 * floats. A block's scale is 1/127 or 1/8 of its largest element, rounded to f16 (2^-11); q8_0 then rounds to the next
 * multiple; q4_0 has 15 steps for 16 values, so that the far end is cut by a whole step. */
static double step_of(knit_dtype t) {
	switch (t) {
	case KNIT_F16: return 0x1p-12;
	case KNIT_BF16: return 0x1p-9;
	case KNIT_Q8_0: return 0.5 / 127 + 0x1p-11;
	case KNIT_Q4_0: return 1.0 / 8 + 0x1p-11;
	default: return 0;
	}
}

static float random_float(uint64_t *seed) {
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

/* Feeds CELLS tokens and gives what the last TOKENS and the FIRST ones attend to: [TOKENS + FIRST, HEADS, dim]. The last see
 * hundreds of cells, in whose average roundings cancel; the first see few, the very first one its own cell alone. */
static void run(knit_context *ctx, int64_t dim, knit_dtype k, knit_dtype v, const float *q, float *out) {
	const knit_kv_desc desc = {.positions = CELLS, .kv_heads = KV_HEADS, .head_dim = dim, .k = k, .v = v};
	const size_t row = (size_t)(KV_HEADS * dim), q_row = (size_t)(HEADS * dim);
	float *const keys = malloc(TOKENS * row * 4), *const values = malloc(TOKENS * row * 4);
	knit_graph *g = NULL;
	knit_program *p = NULL;
	knit_session *s = NULL;
	knit_diag d = {0};
	uint64_t seed = 7;

	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim n = knit_sym(g, "tokens", 1, TOKENS);
	const knit_tensor qt = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {HEADS}, {dim}});
	const knit_tensor kt = knit_input(g, "k", KNIT_F32, 3, (knit_dim[]){n, {KV_HEADS}, {dim}});
	const knit_tensor vt = knit_input(g, "v", KNIT_F32, 3, (knit_dim[]){n, {KV_HEADS}, {dim}});
	const knit_tensor seq = knit_input(g, "seq", KNIT_I32, 1, &n), pos = knit_input(g, "pos", KNIT_I32, 1, &n);
	const knit_kv_slot slot = knit_kv_slot_define(g, &desc, "slot");
	knit_kv_slot_append(g, &slot, kt, vt, seq, pos);
	knit_output(g, "y", knit_kv_slot_attend(g, &slot, qt, seq, pos, 0));
	ck_assert_msg(knit_compile(g, &(knit_compile_desc){.device = "cpu"}, &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit_session_create(p, &s, &d), KNIT_OK);
	for (int at = 0; at < CELLS;) {
		const int count = at == 0 ? FIRST : TOKENS;
		int32_t at_seq[TOKENS] = {0}, at_pos[TOKENS];

		for (int t = 0; t < count; ++t)
			at_pos[t] = at + t;
		for (size_t i = 0; i < (size_t)count * row; ++i) {
			keys[i] = random_float(&seed);
			values[i] = random_float(&seed);
		}
		ck_assert_int_eq(knit_session_set(s, "tokens", count), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "q", q, (size_t)count * q_row * 4), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "k", keys, (size_t)count * row * 4), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "v", values, (size_t)count * row * 4), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "seq", at_seq, (size_t)count * 4), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "pos", at_pos, (size_t)count * 4), KNIT_OK);
		ck_assert_int_eq(knit_session_run(s), KNIT_OK);
		if (at == 0)
			ck_assert_int_eq(knit_session_read(s, "y", out + TOKENS * q_row, FIRST * q_row * 4), KNIT_OK);
		at += count;
	}
	ck_assert_int_eq(knit_session_read(s, "y", out, TOKENS * q_row * 4), KNIT_OK);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_graph_destroy(g);
	free(keys);
	free(values);
}

/* A key off by e moves the score of a query by at most e * sum |q| / sqrt(dim) = s, so each weight by a factor between
 * exp(-2 s) and exp(2 s), and the average of values up to 1 by at most exp(2 s) - 1; a value off by f moves it by f. */
static double bound_of(knit_dtype k, knit_dtype v, const float *q, int64_t dim) {
	double sum = 0;

	for (int64_t i = 0; i < dim; ++i)
		sum += fabs((double)q[i]);
	return expm1(2 * step_of(k) * sum / sqrt((double)dim)) + step_of(v) + 1e-5;
}

static void table(knit_context *ctx, int64_t dim) {
	const size_t last = (size_t)(TOKENS * HEADS * dim), count = last + (size_t)(FIRST * HEADS * dim);
	float *const q = malloc(count * 4), *const want = malloc(count * 4), *const got = malloc(count * 4);
	uint64_t seed = 3;

	for (size_t i = 0; i < count; ++i)
		q[i] = random_float(&seed);
	run(ctx, dim, KNIT_F32, KNIT_F32, q, want);
	printf("heads of %d: largest and root mean square difference to f32 over %d positions, and the share of the bound that\n"
	       "was used at most, at any position\n",
	       (int)dim, CELLS);
	for (int pair = 0; pair < TYPES * TYPES; ++pair) {
		const knit_dtype k = types[pair / TYPES], v = types[pair % TYPES];
		double largest = 0, squares = 0, share = 0;

		run(ctx, dim, k, v, q, got);
		for (size_t i = 0; i < count; ++i) {
			const double off = fabs((double)got[i] - (double)want[i]);
			const size_t head = (i < last ? i : i - last) / (size_t)dim * (size_t)dim;
			const double bound = bound_of(k, v, q + head, dim);

			ck_assert_msg(off <= bound, "k %s v %s: element %zu is off by %g, the bound is %g", knit_dtype_name(k),
			              knit_dtype_name(v), i, off, bound);
			share = fmax(share, off / bound);
			if (i >= last)
				continue;
			largest = fmax(largest, off);
			squares += off * off;
		}
		printf("  k %-5s v %-5s  %.2e  %.2e  %3.0f %%\n", knit_dtype_name(k), knit_dtype_name(v), largest,
		       sqrt(squares / (double)last), share * 100);
		/* Rounding that leaves no trace would be none. */
		ck_assert((pair == 0) == (largest == 0));
		/* The first token sees its own value: where keys are exact, the bound is met closely. */
		ck_assert(k != KNIT_F32 || v == KNIT_F32 || share > 0.7);
	}
	free(q);
	free(want);
	free(got);
}

START_TEST(pairs_keep_to_their_bounds) {
	knit_context *ctx = NULL;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	table(ctx, 64);
	table(ctx, 24); /* heads that begin within a block */
	knit_context_destroy(ctx);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {pairs_keep_to_their_bounds};

	return suite_run("kv_types", tests, 1);
}
