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
	int64_t sinks, ring;
} shape;

/* Blocks that would reach into the next head lie in one line with it. */
static void make_slot(kernel_bench *b, uint32_t i, const shape *s, knit_dtype t) {
	const bool block = knit__dtype_info(t)->is_block, flat = block && s->dim % 32 != 0;
	const int64_t cells[] = {s->sequences, s->positions, flat ? s->kv_heads * s->dim : s->kv_heads, s->dim};

	bench_in(b, i, t, flat ? 3 : 4, cells, 2, 0, t == KNIT_F32 ? 4 : 2);
}

static void make(kernel_bench *b, const shape *s, int64_t gap, const int32_t *seq, const int32_t *pos) {
	*b = (kernel_bench){.op = KNIT_OP_ATTENTION, .seed = (uint64_t)(s->dim * 131 + s->positions)};
	bench_in(b, Q, KNIT_F32, 3, (int64_t[]){s->tokens, s->heads, s->dim}, 2, gap, 0);
	make_slot(b, K, s, s->k);
	make_slot(b, V, s, s->v);
	bench_indices(b, SEQ, s->tokens, seq);
	bench_indices(b, POS, s->tokens, pos);
	bench_out(b, KNIT_F32, 3, (int64_t[]){s->tokens, s->heads, s->dim});
	b->attr[0].f = 1 / sqrt((double)s->dim);
	b->attr[1].i = s->window;
	b->attr[2].i = s->ring;
	b->attr[3].i = s->sinks;
	b->attr[4].i = s->kv_heads;
}

static void check(kernel_bench *b, const knit_cpu_kernel *k, const double *ref, int64_t piece, uint32_t threads,
                  const char *what) {
	bench_run(b, k, piece, threads);
	for (int64_t i = 0; i < bench_count(&b->out); ++i) {
		const double got = (double)bench_floats(&b->out)[i];

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
		const shape s = {tokens, 2 * group, 2, dims[i], 2, 70, 0, types[i % 3], types[i / 3 % 3], 0, 0};
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
				const shape s = {tokens, 4, 2, 40, 1, 1101, windows[w], types[(i + w) % 3], types[w % 3], 0, 0};
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

/* Each type of keys with each of values, heads that fill blocks and heads that begin within one. */
START_TEST(every_pair_of_types) {
	static const knit_dtype all[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	static const int64_t dims[] = {8, 24, 40, 64, 96, 128};
	int32_t seq[19], pos[19];

	for (int pair = 0; pair < 25; ++pair) {
		for (int d = 0; d < 6; ++d) {
			const int64_t tokens = (pair + d) % 3 == 0 ? 19 : (pair + d) % 3 == 1 ? 1 : 3;
			const shape s = {tokens, 4 * (1 + d % 3), 4, dims[d], 2, 600, d % 2 ? 0 : 77, all[pair / 5], all[pair % 5], 0, 0};
			kernel_bench b;
			char what[64];

			for (int t = 0; t < tokens; ++t) {
				seq[t] = t / 11;
				pos[t] = (int32_t)((t * 37 + d * 111 + 400) % s.positions);
			}
			make(&b, &s, 0, seq, pos);
			snprintf(what, sizeof what, "k %s v %s dim %d tokens %d", knit_dtype_name(s.k), knit_dtype_name(s.v), (int)s.dim,
			         (int)tokens);
			check_all(&b, what);
			bench_free(&b);
		}
	}
}
END_TEST

/* Sinks before, at and within the window; rings of all sizes, gone round many times; in cells of floats and of blocks. */
START_TEST(sinks_and_rings) {
	static const int64_t sinks[] = {0, 1, 4, 32, 33, 600}, rings[] = {0, 7, 32, 33, 200, 640};
	static const int32_t places[] = {0, 5, 33, 640, 1023, 4096, 1000003};
	int32_t seq[9], pos[9];

	for (int i = 0; i < 6; ++i) {
		for (int j = 0; j < 6; ++j) {
			for (int p = (i + j) % 2; p < 7; p += 2) {
				const int64_t tokens = (i + j + p) % 3 == 0 ? 9 : 2, ring = rings[j];
				const int64_t window = ring ? ring - tokens / 2 : 50;
				const knit_dtype k = (i + p) % 3 == 0 ? KNIT_Q8_0 : types[(i + j) % 3], v = p % 3 == 0 ? KNIT_Q4_0 : KNIT_F16;
				const shape s = {tokens, 4, 2, 16, 2, ring ? sinks[i] + ring : 4200, window, k, v, sinks[i], ring};
				kernel_bench b;
				char what[96];

				for (int t = 0; t < tokens; ++t) {
					seq[t] = t > 5;
					pos[t] = (int32_t)((places[p] + t / 2) % (ring ? INT32_MAX : 4200));
				}
				make(&b, &s, 0, seq, pos);
				snprintf(what, sizeof what, "sinks %d ring %d window %d tokens %d pos %d", (int)sinks[i], (int)ring,
				         (int)window, (int)tokens, (int)pos[0]);
				check_all(&b, what);
				bench_free(&b);
			}
		}
	}
}
END_TEST

/* A token has the same bits alone, among others, and under any cut of the work. */
static void same_alone(const shape *s, const int32_t *seq, const int32_t *pos) {
	const size_t row = (size_t)(s->heads * s->dim);
	shape single = *s;
	kernel_bench all, one;
	const knit_cpu_kernel *k;

	single.tokens = 1;
	make(&all, s, 0, seq, pos);
	make(&one, &single, 0, seq, pos);
	one.in[K].t = all.in[K].t;
	one.in[V].t = all.in[V].t;
	for (size_t n = 0; (k = bench_kernel(KNIT_OP_ATTENTION, n)); ++n) {
		float *const first = malloc(all.out_bytes);

		bench_run(&all, k, 0, 1);
		memcpy(first, all.out.data, all.out_bytes);
		for (int64_t piece = 1; piece < 6; piece += 2) {
			bench_run(&all, k, piece, 4);
			ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d differ", k->name, (int)piece);
		}
		for (int t = 0; t < s->tokens; ++t) {
			one.in[Q].t.data = all.in[Q].t.data + (size_t)t * row * 4;
			memcpy(one.in[SEQ].t.data, &seq[t], 4);
			memcpy(one.in[POS].t.data, &pos[t], 4);
			bench_run(&one, k, t % 3, 2);
			ck_assert_msg(memcmp(first + (size_t)t * row, one.out.data, row * 4) == 0,
			              "%s: %d heads of %d, %d kv heads, window %d: token %d differs alone", k->name, (int)s->heads,
			              (int)s->dim, (int)s->kv_heads, (int)s->window, t);
		}
		free(first);
	}
	bench_free(&all);
	bench_free(&one);
}

START_TEST(a_token_is_the_same_alone) {
	const shape shapes[] = {{37, 6, 2, 72, 3, 1300, 900, KNIT_F16, KNIT_BF16, 0, 0},
	                        {37, 6, 2, 64, 3, 1300, 900, KNIT_Q8_0, KNIT_F16, 5, 0},
	                        {37, 4, 2, 48, 3, 1300, 0, KNIT_Q4_0, KNIT_Q8_0, 0, 0},
	                        {37, 4, 4, 32, 3, 700, 600, KNIT_F32, KNIT_Q4_0, 40, 660},
	                        {37, 4, 1, 40, 3, 64, 20, KNIT_F16, KNIT_F32, 4, 60},
	                        {37, 9, 3, 64, 3, 1300, 0, KNIT_F16, KNIT_F16, 0, 0},
	                        {37, 9, 3, 64, 3, 1300, 0, KNIT_Q4_0, KNIT_Q8_0, 0, 0},
	                        {37, 5, 5, 48, 3, 1300, 1001, KNIT_F16, KNIT_F16, 0, 0},
	                        {37, 7, 7, 96, 3, 700, 600, KNIT_BF16, KNIT_Q8_0, 40, 660},
	                        {37, 16, 2, 128, 3, 1300, 0, KNIT_Q8_0, KNIT_F32, 7, 0},
	                        {37, 10, 5, 80, 3, 700, 333, KNIT_F32, KNIT_F16, 3, 697}};

	int32_t seq[37], pos[37];

	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
		const int32_t base = shapes[i].ring ? 70000 : 1190;

		for (int t = 0; t < 37; ++t) {
			seq[t] = t < 30 ? 0 : t % 3;
			pos[t] = t < 30 ? base + t : shapes[i].ring ? base + t - 15 : t * 30;
		}
		same_alone(&shapes[i], seq, pos);
	}
}
END_TEST

/* Rows of a unit that stop, begin and meet others in the middle of vectors, tiles and chunks: sequences of many lengths,
 * positions in no order, windows that begin within a tile, heads that leave vectors in part empty. */
START_TEST(rows_in_lanes_are_the_same_alone) {
	enum { TOKENS = 75, CASES = 12 };
	static const int64_t windows[] = {0, 1, 63, 64, 100, 290}, groups[] = {1, 3, 4, 8, 20, 70}, dims[] = {64, 48, 20, 128, 16, 8};

	for (int i = 0; i < CASES; ++i) {
		const int64_t group = groups[i % 6], kv_heads = group > 16 ? 1 : 2, window = windows[i * 5 / 6 % 6];
		const shape s = {TOKENS, group * kv_heads, kv_heads, dims[(i + i / 6) % 6], 2, 600, window, types[i % 3], types[i / 3 % 3],
		                 window ? i % 4 * 30 : 0, 0};
		int32_t seq[TOKENS], pos[TOKENS];

		for (int t = 0; t < TOKENS; ++t) {
			seq[t] = t >= 53 + i;
			pos[t] = (int32_t)(i % 5 == 4 ? (t * 397 + 11) % 600 : 190 + i * 29 % 64 + t);
		}
		same_alone(&s, seq, pos);
	}
}
END_TEST

/* The same numbers in a ring and in a slot that has a cell for every position: the same bits. */
START_TEST(a_ring_gives_the_same_bits) {
	enum { TOKENS = 9, POSITIONS = 1500 };
	const shape plain = {TOKENS, 4, 2, 32, 1, POSITIONS, 100, KNIT_F16, KNIT_Q8_0, 3, 0};
	const shape ring = {TOKENS, 4, 2, 32, 1, 3 + 131, 100, KNIT_F16, KNIT_Q8_0, 3, 131};
	int32_t seq[TOKENS] = {0}, pos[TOKENS];
	kernel_bench a, b;
	const knit_cpu_kernel *k;

	for (int last = TOKENS; last < POSITIONS; last += 61) {
		for (int t = 0; t < TOKENS; ++t)
			pos[t] = last - TOKENS + t;
		make(&a, &plain, 0, seq, pos);
		make(&b, &ring, 0, seq, pos);
		memcpy(b.in[Q].t.data, a.in[Q].t.data, TOKENS * 4 * 32 * 4);
		for (int p = 0; p < last; ++p) {
			const int cell = p < 3 ? p : 3 + (p - 3) % 131;

			memcpy(b.in[K].t.data + cell * 128, a.in[K].t.data + p * 128, 128);
			memcpy(b.in[V].t.data + cell * 68, a.in[V].t.data + p * 68, 68);
		}
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_ATTENTION, n)); ++n) {
			bench_run(&a, k, 1, 2);
			bench_run(&b, k, 0, 1);
			ck_assert_msg(memcmp(a.out.data, b.out.data, a.out_bytes) == 0, "%s: at position %d", k->name, last);
		}
		bench_free(&a);
		bench_free(&b);
	}
}
END_TEST

/* What a token may not see cannot reach it, not even a NaN; what it sees does. */
START_TEST(unseen_cells_do_not_leak) {
	enum { TOKENS = 20 };
	const shape s = {TOKENS, 12, 4, 32, 2, 600, 0, KNIT_F32, KNIT_F32, 0, 0};
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
		for (int64_t i = 0; i < TOKENS * 384; ++i) {
			const float got = bench_floats(&b.out)[i];

			if (isnan(got) != (i / 384 >= 10))
				ck_abort_msg("%s: token %d is %g", k->name, (int)(i / 384), (double)got);
		}
	}
	bench_free(&b);
}
END_TEST

/* Scores far apart, scores that are all -infinity for a while, cells outside the slot. */
START_TEST(scores_far_apart) {
	const shape s = {3, 2, 1, 8, 1, 200, 0, KNIT_F32, KNIT_F32, 0, 0};
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
	const TTest *const tests[] = {head_dims_and_groups, positions_and_windows, every_pair_of_types, sinks_and_rings,
	                              a_token_is_the_same_alone, rows_in_lanes_are_the_same_alone,
	                              a_ring_gives_the_same_bits, unseen_cells_do_not_leak, scores_far_apart};

	return suite_run("cpu attention", tests, (int)(sizeof tests / sizeof tests[0]));
}
