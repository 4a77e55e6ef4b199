/* attention on the CPU: every variant of this machine against the reference, and bit for bit against itself. */
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q, K, V, SEQ, POS };

typedef struct shape {
	int64_t tokens, heads, kv_heads, dim, sequences, positions, window;
	knit_dtype k, v;
} shape;

static void make(kernel_bench *b, const shape *s, int64_t gap, const int32_t *seq, const int32_t *pos) {
	const int64_t cells[] = {s->sequences, s->positions, s->kv_heads, s->dim};

	*b = (kernel_bench){.op = KNIT_OP_ATTENTION, .seed = (uint64_t)(s->dim * 131 + s->positions)};
	bench_in(b, Q, KNIT_F32, 3, (int64_t[]){s->tokens, s->heads, s->dim}, 2, gap, 0);
	bench_in(b, K, s->k, 4, cells, 2, 0, s->k == KNIT_F32 ? 4 : 2);
	bench_in(b, V, s->v, 4, cells, 2, 0, s->v == KNIT_F32 ? 4 : 2);
	bench_indices(b, SEQ, s->tokens, seq);
	bench_indices(b, POS, s->tokens, pos);
	bench_out(b, KNIT_F32, 3, (int64_t[]){s->tokens, s->heads, s->dim});
	b->attr[0].f = 1 / sqrt((double)s->dim);
	b->attr[1].i = s->window;
}

static void check(kernel_bench *b, const knit_cpu_kernel *k, const double *ref, int64_t piece, uint32_t threads,
                  const char *what) {
	bench_run(b, k, piece, threads);
	for (int64_t i = 0; i < bench_count(&b->out); ++i) {
		const double got = (double)((const float *)(const void *)b->out.data)[i];

		/* values are at most 2; scores of up to 2 sqrt(dim) bring their own rounding into the weights */
		if (!(fabs(got - ref[i]) <= 4e-6 || (isnan(got) && isnan(ref[i]))))
			ck_abort_msg("%s, %s: output %d is %.9g, needs %.9g", k->name, what, (int)i, got, ref[i]);
	}
}

static void check_all(kernel_bench *b, const char *what) {
	double *const ref = bench_reference(b, false);
	const knit_cpu_kernel *k;
	size_t n = 0;

	for (; (k = bench_kernel(KNIT_OP_ATTENTION, n)); ++n) {
		ck_assert_msg(bench_accepts(b, k), "%s refuses %s", k->name, what);
		check(b, k, ref, n % 2, 3, what);
	}
	free(ref);
	ck_assert_uint_gt(n, 0);
}

static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

START_TEST(head_dims_and_groups) {
	static const int64_t dims[] = {1, 5, 8, 16, 17, 24, 31, 48, 64, 72, 100, 128, 200, 256}, groups[] = {1, 2, 7, 16, 37};
	int32_t seq[19], pos[19];

	for (int i = 0; i < 14; ++i) {
		const int64_t group = groups[i % 5], tokens = i % 3 == 0 ? 19 : i % 3;
		const shape s = {tokens, 2 * group, 2, dims[i], 2, 70, 0, types[i % 3], types[i / 3 % 3]};
		kernel_bench b;
		char what[64];

		for (int t = 0; t < tokens; ++t) {
			seq[t] = t / 11;
			pos[t] = (int32_t)((t * 13 + i * 29) % s.positions);
		}
		make(&b, &s, i % 2 ? 3 : 0, seq, pos);
		snprintf(what, sizeof what, "dim %d group %d tokens %d", (int)s.dim, (int)group, (int)tokens);
		check_all(&b, what);
		bench_free(&b);
	}
}
END_TEST

/* Positions around tiles and chunks, windows, few tokens (chunks are units) and many. */
START_TEST(positions_and_windows) {
	static const int32_t places[] = {0, 1, 31, 32, 33, 63, 64, 511, 512, 513, 1023, 1024, 1100};
	static const int64_t windows[] = {0, 1, 31, 32, 40, 513, 5000};
	int32_t seq[13], pos[13];

	for (int w = 0; w < 7; ++w) {
		for (int tokens = 1; tokens <= 13; tokens += 6) {
			for (int i = 0; i < 13; i += tokens) {
				const shape s = {tokens, 4, 2, 40, 1, 1101, windows[w], types[(i + w) % 3], types[w % 3]};
				kernel_bench b;
				char what[64];

				for (int t = 0; t < tokens; ++t) {
					seq[t] = 0;
					pos[t] = places[(i + t) % 13];
				}
				make(&b, &s, 0, seq, pos);
				snprintf(what, sizeof what, "window %d tokens %d pos %d", (int)windows[w], tokens, (int)pos[0]);
				check_all(&b, what);
				bench_free(&b);
			}
		}
	}
}
END_TEST

/* A token has the same bits alone, among others, and under any cut of the work. */
START_TEST(a_token_is_the_same_alone) {
	enum { TOKENS = 37 };
	const shape s = {TOKENS, 6, 2, 72, 3, 1300, 900, KNIT_F16, KNIT_BF16};
	const shape single = {1, 6, 2, 72, 3, 1300, 900, KNIT_F16, KNIT_BF16};
	int32_t seq[TOKENS], pos[TOKENS];
	kernel_bench all, one;
	const knit_cpu_kernel *k;

	for (int t = 0; t < TOKENS; ++t) {
		seq[t] = t < 30 ? 0 : t % 3;
		pos[t] = t < 30 ? 1190 + t : t * 30;
	}
	make(&all, &s, 0, seq, pos);
	make(&one, &single, 0, seq, pos);
	for (size_t n = 0; (k = bench_kernel(KNIT_OP_ATTENTION, n)); ++n) {
		float *const first = malloc(all.out_bytes);
		const size_t row = 6 * 72;

		bench_run(&all, k, 0, 1);
		memcpy(first, all.out.data, all.out_bytes);
		for (int64_t piece = 1; piece < 6; piece += 2) {
			bench_run(&all, k, piece, 4);
			ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d differ", k->name, (int)piece);
		}
		const knit_cpu_tensor q = one.in[Q].t, keys = one.in[K].t, values = one.in[V].t;

		one.in[K].t = all.in[K].t;
		one.in[V].t = all.in[V].t;
		for (int t = 0; t < TOKENS; ++t) {
			one.in[Q].t.data = all.in[Q].t.data + (size_t)t * row * 4;
			memcpy(one.in[SEQ].t.data, &seq[t], 4);
			memcpy(one.in[POS].t.data, &pos[t], 4);
			bench_run(&one, k, t % 3, 2);
			ck_assert_msg(memcmp(first + (size_t)t * row, one.out.data, row * 4) == 0, "%s: token %d differs alone",
			              k->name, t);
		}
		one.in[Q].t = q;
		one.in[K].t = keys;
		one.in[V].t = values;
		free(first);
	}
	bench_free(&all);
	bench_free(&one);
}
END_TEST

/* What a token may not see cannot reach it, not even a NaN; what it sees does. */
START_TEST(unseen_cells_do_not_leak) {
	enum { TOKENS = 20 };
	const shape s = {TOKENS, 4, 4, 32, 2, 600, 0, KNIT_F32, KNIT_F32};
	int32_t seq[TOKENS], pos[TOKENS];
	kernel_bench b;
	const knit_cpu_kernel *k;

	for (int t = 0; t < TOKENS; ++t) {
		seq[t] = 0;
		pos[t] = 500 + t;
	}
	make(&b, &s, 0, seq, pos);
	for (int64_t i = 0; i < 600 * 128; ++i) { /* all of sequence 1, and of 0 from position 510 on */
		bench_set(&b, K, 600 * 128 + i, (double)NAN);
		bench_set(&b, V, 600 * 128 + i, (double)NAN);
		if (i >= 510 * 128) {
			bench_set(&b, K, i, (double)NAN);
			bench_set(&b, V, i, (double)NAN);
		}
	}
	for (size_t n = 0; (k = bench_kernel(KNIT_OP_ATTENTION, n)); ++n) {
		bench_run(&b, k, 0, 1);
		for (int64_t i = 0; i < TOKENS * 128; ++i) {
			const float got = ((const float *)(const void *)b.out.data)[i];

			if (isnan(got) != (i / 128 >= 10))
				ck_abort_msg("%s: token %d is %g", k->name, (int)(i / 128), (double)got);
		}
	}
	bench_free(&b);
}
END_TEST

/* Scores far apart, scores that are all -infinity for a while, cells outside the slot. */
START_TEST(scores_far_apart) {
	const shape s = {3, 2, 1, 8, 1, 200, 0, KNIT_F32, KNIT_F32};
	const int32_t seq[] = {0, 0, 0}, pos[] = {199, 40, 90};
	const int32_t bad_seq[] = {0, 1, -1}, bad_pos[] = {200, 3, 3};
	kernel_bench b;

	make(&b, &s, 0, seq, pos);
	for (int64_t i = 0; i < 200 * 8; ++i)
		bench_set(&b, K, i, (i / 8 % 50 - 25) * 100.0 * (double)(i % 8 - 3));
	check_all(&b, "scores of thousands");
	for (int64_t i = 0; i < 3 * 16; ++i)
		bench_set(&b, Q, i, 1e19);
	for (int64_t i = 0; i < 200 * 8; ++i)
		bench_set(&b, K, i, i < 60 * 8 ? -1e30 : 1e-19);
	b.in[POS].t.dims[0] = b.in[SEQ].t.dims[0] = b.in[Q].t.dims[0] = b.out.dims[0] = 1;
	check_all(&b, "scores of -infinity");
	bench_free(&b);

	make(&b, &s, 0, bad_seq, bad_pos);
	check_all(&b, "outside the slot");
	bench_free(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {head_dims_and_groups, positions_and_windows, a_token_is_the_same_alone,
	                              unseen_cells_do_not_leak, scores_far_apart};

	return suite_run("cpu attention", tests, (int)(sizeof tests / sizeof tests[0]));
}
