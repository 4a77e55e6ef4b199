/* References of rope, append and attention, against versions written another way: rope by complex numbers, attention by
 * a full score matrix with a mask and repeated heads. */
#include "../tools/op_eval.h"
#include "../tools/suite.h"

#include <complex.h>
#include <math.h>
#include <string.h>

static op_array q, k, v, seq, pos, y, z;
static const knit_attr no_ring[2];

static void near(double got, double want, double tolerance) {
	ck_assert_msg(fabs(got - want) <= tolerance, "%.17g, not %.17g", got, want);
}

/* ---- rope -------------------------------------------------------------------------------------------------------- */

static void rope(double theta, int64_t rotary, knit_rope_layout layout, op_array *x, op_array *p, op_array *out) {
	const knit_attr attr[] = {{.f = theta}, {.i = rotary}, {.i = layout}};

	op_array_init(out, KNIT_F32, x->a.dims[0], x->a.dims[1], x->a.dims[2], 0);
	op_eval(KNIT_OP_ROPE, attr, (op_array *[]){x, p}, 2, out);
}

START_TEST(rope_turns_pairs) {
	static const int64_t rotaries[] = {2, 6, 8};

	op_array_init(&pos, KNIT_I32, 4, 0, 0, 0);
	op_array_set(&pos, (const double[]){0, 1, 7, 500});
	for (int layout = 0; layout < 2; ++layout) {
		for (int r = 0; r < 3; ++r) {
			const int64_t rotary = rotaries[r];

			op_array_init(&q, KNIT_F32, 4, 3, 8, 0);
			op_array_random(&q, 4);
			rope(10000, rotary, (knit_rope_layout)layout, &q, &pos, &y);
			for (int t = 0; t < 4; ++t) {
				for (int h = 0; h < 3; ++h) {
					for (int i = 0; i < rotary / 2; ++i) {
						const int64_t first = layout ? i : 2 * i, second = layout ? i + rotary / 2 : 2 * i + 1;
						const double complex before =
							*op_array_at(&q, t, h, first, 0) + *op_array_at(&q, t, h, second, 0) * I;
						const double complex after =
							before * cexp(I * pos.data[t] / exp(log(10000) * 2 * i / (double)rotary));

						near(*op_array_at(&y, t, h, first, 0), creal(after), 1e-12);
						near(*op_array_at(&y, t, h, second, 0), cimag(after), 1e-12);
					}
					for (int64_t i = rotary; i < 8; ++i)
						ck_assert(*op_array_at(&y, t, h, i, 0) == *op_array_at(&q, t, h, i, 0));
				}
			}
		}
	}
}
END_TEST

/* The first pair has angle pos, whatever theta: a quarter turn of (1, 0) is (0, 1). */
START_TEST(rope_by_hand) {
	op_array_init(&pos, KNIT_I32, 1, 0, 0, 0);
	op_array_set(&pos, (const double[]){acos(-1) / 2});
	op_array_init(&q, KNIT_F32, 1, 1, 4, 0);
	op_array_set(&q, (const double[]){1, 0, 0, 0});
	rope(10000, 4, KNIT_ROPE_INTERLEAVED, &q, &pos, &y);
	near(y.data[0], 0, 1e-15);
	near(y.data[1], 1, 1e-15);
	rope(10000, 4, KNIT_ROPE_SPLIT, &q, &pos, &y);
	near(y.data[1], 0, 1e-15);
	near(y.data[2], 1, 1e-15);
	/* the second pair: angle pos / theta^(1/2) = pos / 100 */
	op_array_set(&q, (const double[]){0, 0, 1, 0});
	op_array_set(&pos, (const double[]){100});
	rope(10000, 4, KNIT_ROPE_INTERLEAVED, &q, &pos, &y);
	near(y.data[2], cos(1), 1e-15);
	near(y.data[3], sin(1), 1e-15);
}
END_TEST

/* Products of turned queries and keys depend on the distance only: what the rotation is for. */
START_TEST(rope_is_relative) {
	double product[2];

	for (int shift = 0; shift < 2; ++shift) {
		op_array_init(&pos, KNIT_I32, 2, 0, 0, 0);
		op_array_set(&pos, shift ? (const double[]){103, 111} : (const double[]){3, 11});
		op_array_init(&q, KNIT_F32, 2, 1, 16, 0);
		op_array_random(&q, 8);
		rope(10000, 16, KNIT_ROPE_SPLIT, &q, &pos, &y);
		product[shift] = 0;
		for (int i = 0; i < 16; ++i)
			product[shift] += y.data[i] * y.data[16 + i];
	}
	near(product[0], product[1], 1e-12);
}
END_TEST

/* The layouts differ by a permutation of the head's elements. */
START_TEST(rope_layouts_are_permutations) {
	op_array_init(&pos, KNIT_I32, 3, 0, 0, 0);
	op_array_set(&pos, (const double[]){0, 5, 12});
	op_array_init(&q, KNIT_F32, 3, 2, 6, 0);
	op_array_random(&q, 2);
	op_array_init(&k, KNIT_F32, 3, 2, 6, 0);
	for (int row = 0; row < 6; ++row)
		for (int i = 0; i < 6; ++i)
			k.data[row * 6 + i / 2 + i % 2 * 3] = q.data[row * 6 + i];
	rope(500, 6, KNIT_ROPE_INTERLEAVED, &q, &pos, &y);
	rope(500, 6, KNIT_ROPE_SPLIT, &k, &pos, &z);
	for (int row = 0; row < 6; ++row)
		for (int i = 0; i < 6; ++i)
			ck_assert(z.data[row * 6 + i / 2 + i % 2 * 3] == y.data[row * 6 + i]);
}
END_TEST

/* ---- append ------------------------------------------------------------------------------------------------------ */

START_TEST(append_writes_its_cells_only) {
	for (int rank = 3; rank <= 4; ++rank) {
		const int64_t inner = rank == 4 ? 2 : 0, row = rank == 4 ? 6 : 3;

		op_array_init(&k, KNIT_F32, 2, 4, 3, inner);
		op_array_random(&k, 1);
		op_array_init(&q, KNIT_F32, 3, 3, inner, 0);
		op_array_random(&q, 2);
		op_array_init(&seq, KNIT_I32, 3, 0, 0, 0);
		op_array_init(&pos, KNIT_I32, 3, 0, 0, 0);
		op_array_set(&seq, (const double[]){1, 0, 1});
		op_array_set(&pos, (const double[]){3, 0, 1});
		for (int64_t i = 0; i < 3 * row; ++i)
			q.data[i] = (double)(float)q.data[i];
		y = k; /* the contract: output 0 starts as a copy of the state */
		op_eval(KNIT_OP_STATE_APPEND, no_ring, (op_array *[]){&k, &q, &seq, &pos}, 4, &y);
		for (int cell = 0; cell < 8; ++cell) {
			const int token = cell == 7 ? 0 : cell == 0 ? 1 : cell == 5 ? 2 : -1;

			for (int64_t i = 0; i < row; ++i)
				ck_assert(y.data[cell * row + i] == (token < 0 ? k.data[cell * row + i] : q.data[token * row + i]));
		}
	}
}
END_TEST

START_TEST(append_rounds_to_the_state_and_skips_bad_cells) {
	op_array_init(&k, KNIT_F16, 1, 2, 1, 0);
	op_array_set(&k, (const double[]){5, 6});
	op_array_init(&q, KNIT_F32, 4, 1, 0, 0);
	op_array_set(&q, (const double[]){1 + 0x1p-11 + 0x1p-20, 8, 8, 8});
	op_array_init(&seq, KNIT_I32, 4, 0, 0, 0);
	op_array_init(&pos, KNIT_I32, 4, 0, 0, 0);
	op_array_set(&seq, (const double[]){0, 0, 1, -1});
	op_array_set(&pos, (const double[]){1, 2, 0, 0});
	y = k;
	op_eval(KNIT_OP_STATE_APPEND, no_ring, (op_array *[]){&k, &q, &seq, &pos}, 4, &y);
	ck_assert(y.data[0] == 5 && y.data[1] == 1 + 0x1p-10);
}
END_TEST

/* The cells of a ring, behind two sinks: 0 1 | 2 3 4, then 5 in the place of 2 and so on. */
START_TEST(append_goes_round) {
	static const int cells[] = {0, 1, 2, 3, 4, 2, 3, 4, 2, 3};
	const knit_attr ring[] = {{.i = 3}, {.i = 2}};

	op_array_init(&seq, KNIT_I32, 1, 0, 0, 0);
	op_array_init(&pos, KNIT_I32, 1, 0, 0, 0);
	op_array_init(&q, KNIT_F32, 1, 1, 0, 0);
	for (int p = 0; p < 10; ++p) {
		op_array_init(&k, KNIT_F32, 1, 5, 1, 0);
		pos.data[0] = p;
		q.data[0] = 7;
		y = k;
		op_eval(KNIT_OP_STATE_APPEND, ring, (op_array *[]){&k, &q, &seq, &pos}, 4, &y);
		for (int cell = 0; cell < 5; ++cell)
			ck_assert(y.data[cell] == (cell == cells[p] ? 7 : 0));
	}
	pos.data[0] = -1;
	op_eval(KNIT_OP_STATE_APPEND, ring, (op_array *[]){&k, &q, &seq, &pos}, 4, &k);
	ck_assert(k.data[2] == 0 && k.data[4] == 0);
}
END_TEST

/* Whole rows, a block of 32 at a time, as the encoder does it. */
START_TEST(append_rounds_blocks) {
	static const knit_dtype types[] = {KNIT_Q8_0, KNIT_Q4_0};

	for (int type = 0; type < 2; ++type) {
		double want[64];
		char bits[128];

		op_array_init(&k, types[type], 1, 2, 64, 0);
		op_array_init(&q, KNIT_F32, 1, 64, 0, 0);
		op_array_random(&q, 5);
		op_array_init(&seq, KNIT_I32, 1, 0, 0, 0);
		op_array_init(&pos, KNIT_I32, 1, 0, 0, 0);
		pos.data[0] = 1;
		y = k;
		op_eval(KNIT_OP_STATE_APPEND, no_ring, (op_array *[]){&k, &q, &seq, &pos}, 4, &y);
		knit__encode(types[type], q.data, bits, 64);
		knit__decode(types[type], bits, want, 64);
		for (int i = 0; i < 64; ++i)
			ck_assert(y.data[i] == 0 && y.data[64 + i] == want[i] && want[i] != q.data[i]);
	}
}
END_TEST

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef struct shape {
	int64_t tokens, heads, kv_heads, dim, sequences, positions, window;
	double scale;
	int64_t sinks;
} shape;

/* The naive way: keys of all sequences and positions in one line, heads repeated, one row of weights over all of them,
 * a mask, no shift by the maximum. */
static void naive(const shape *s, double *out) {
	const int64_t cells = s->sequences * s->positions;
	static long double weights[OP_EVAL_ELEMENTS];

	for (int64_t t = 0; t < s->tokens; ++t) {
		for (int64_t h = 0; h < s->heads; ++h) {
			const int64_t kv = h * s->kv_heads / s->heads;
			long double total = 0;

			for (int64_t cell = 0; cell < cells; ++cell) {
				const int64_t at_seq = cell / s->positions, at = cell % s->positions;
				const bool seen = at_seq == (int64_t)seq.data[t] && at <= (int64_t)pos.data[t] &&
								  (s->window == 0 || at > (int64_t)pos.data[t] - s->window || at < s->sinks);
				long double dot = 0;

				for (int64_t i = s->dim - 1; i >= 0; --i)
					dot += (long double)*op_array_at(&q, t, h, i, 0) * *op_array_at(&k, at_seq, at, kv, i);
				weights[cell] = seen ? expl(dot * s->scale) : 0;
				total += weights[cell];
			}
			for (int64_t i = 0; i < s->dim; ++i) {
				long double sum = 0;

				for (int64_t cell = 0; cell < cells; ++cell)
					sum += weights[cell] * *op_array_at(&v, cell / s->positions, cell % s->positions, kv, i);
				out[(t * s->heads + h) * s->dim + i] = (double)(sum / total);
			}
		}
	}
}

static void operands(const shape *s, uint64_t seed) {
	op_array_init(&q, KNIT_F32, s->tokens, s->heads, s->dim, 0);
	op_array_init(&k, KNIT_F32, s->sequences, s->positions, s->kv_heads, s->dim);
	op_array_init(&v, KNIT_F32, s->sequences, s->positions, s->kv_heads, s->dim);
	op_array_init(&seq, KNIT_I32, s->tokens, 0, 0, 0);
	op_array_init(&pos, KNIT_I32, s->tokens, 0, 0, 0);
	op_array_init(&y, KNIT_F32, s->tokens, s->heads, s->dim, 0);
	op_array_random(&q, seed);
	op_array_random(&k, seed + 1);
	op_array_random(&v, seed + 2);
	op_array_random(&seq, seed + 3);
	op_array_random(&pos, seed + 4);
	for (int64_t t = 0; t < s->tokens; ++t) {
		seq.data[t] = floor((seq.data[t] + 1) / 2 * (double)s->sequences);
		pos.data[t] = floor((pos.data[t] + 1) / 2 * (double)s->positions);
	}
	pos.data[0] = 0;
	pos.data[s->tokens - 1] = (double)s->positions - 1;
}

static void attention(const shape *s) {
	const knit_attr attr[5] = {{.f = s->scale}, {.i = s->window}, {.i = 0}, {.i = s->sinks}};

	op_eval(KNIT_OP_ATTENTION, attr, (op_array *[]){&q, &k, &v, &seq, &pos}, 5, &y);
}

START_TEST(attention_equals_the_naive_one) {
	static const shape shapes[] = {
		{1, 1, 1, 1, 1, 1, 0, 1, 0},    {3, 2, 2, 4, 1, 7, 0, 0.5, 0},   {9, 8, 4, 8, 1, 31, 0, 0.35, 0},
		{6, 6, 1, 5, 3, 11, 0, 1, 0},      {12, 4, 2, 8, 4, 16, 0, 2, 0},   {8, 4, 2, 4, 2, 20, 1, 0.5, 0},
		{8, 4, 2, 4, 2, 20, 5, 0.5, 0},    {8, 4, 4, 4, 2, 20, 19, 0.5, 0}, {8, 4, 1, 4, 2, 20, 20, 0.5, 0},
		{8, 4, 2, 4, 2, 20, 1000, 0.5, 0}, {8, 4, 2, 4, 2, 20, 3, 0.5, 4}, {8, 4, 2, 4, 2, 20, 19, 0.5, 7}, {7, 3, 3, 2, 5, 3, 2, -1, 0},
	};
	static double want[OP_EVAL_ELEMENTS];

	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
		const shape *s = &shapes[i];

		operands(s, 20 + i);
		attention(s);
		naive(s, want);
		for (int64_t j = 0; j < s->tokens * s->heads * s->dim; ++j)
			ck_assert_msg(fabs(y.data[j] - want[j]) <= 1e-13, "shape %zu, element %d: %.17g, not %.17g", i, (int)j,
						  y.data[j], want[j]);
	}
}
END_TEST

/* At position 0 a token sees its own cell alone; with a window of 1 as well. Heads of a group share it. */
START_TEST(attention_to_one_cell) {
	const shape s = {4, 6, 3, 2, 2, 5, 1, 1, 0};

	operands(&s, 3);
	attention(&s);
	for (int t = 0; t < 4; ++t)
		for (int h = 0; h < 6; ++h)
			for (int i = 0; i < 2; ++i)
				near(*op_array_at(&y, t, h, i, 0),
					 *op_array_at(&v, (int64_t)seq.data[t], (int64_t)pos.data[t], h / 2, i), 1e-15);
}
END_TEST

/* Equal scores average the values; cells after pos and other sequences hold NaN and must not be touched. */
START_TEST(attention_averages_and_ignores_the_rest) {
	const shape s = {3, 1, 1, 1, 2, 6, 0, 1, 0};

	operands(&s, 3);
	for (int i = 0; i < 12; ++i)
		k.data[i] = v.data[i] = NAN;
	op_array_set(&seq, (const double[]){1, 1, 1});
	op_array_set(&pos, (const double[]){0, 1, 3});
	for (int i = 0; i < 4; ++i) {
		*op_array_at(&k, 1, i, 0, 0) = 0;
		*op_array_at(&v, 1, i, 0, 0) = i * i;
	}
	attention(&s);
	near(y.data[0], 0, 0);
	near(y.data[1], 0.5, 1e-15);
	near(y.data[2], 3.5, 1e-15);
}
END_TEST

/* Scores of +-1e6: exp without a shift would overflow. log-odds of 0 and log 3 on top give weights 1/4 and 3/4. */
START_TEST(attention_with_large_scores) {
	const shape s = {1, 1, 1, 2, 1, 3, 0, 1, 0};

	for (int sign = -1; sign <= 1; sign += 2) {
		operands(&s, 1);
		op_array_set(&q, (const double[]){sign * 1e6, 1});
		op_array_set(&k, (const double[]){1, 0, 1, log(3), sign > 0 ? -1 : 3, 0});
		op_array_set(&v, (const double[]){8, 0, 4, 0, 1e9, 0});
		op_array_set(&pos, (const double[]){2});
		op_array_set(&seq, (const double[]){0});
		attention(&s);
		near(y.data[0], 5, 1e-8);
	}
}
END_TEST

START_TEST(attention_shows_bad_cells_and_nan) {
	const shape s = {5, 1, 1, 1, 2, 4, 0, 1, 0};

	operands(&s, 1);
	op_array_set(&seq, (const double[]){2, -1, 0, 0, 1});
	op_array_set(&pos, (const double[]){0, 0, 4, -1, 1});
	*op_array_at(&k, 1, 0, 0, 0) = NAN;
	attention(&s);
	for (int t = 0; t < 5; ++t)
		ck_assert(isnan(y.data[t]));
}
END_TEST

/* A stream of positions, kept in full and in a ring: the same bits, whatever of it has been overwritten. */
START_TEST(attention_in_a_ring_equals_the_window) {
	enum { POSITIONS = 40, RING = 7, SINKS = 3, WINDOW = 5, DIM = 4 };
	const knit_attr plain[5] = {{.f = 0.5}, {.i = WINDOW}, {.i = 0}, {.i = SINKS}};
	const knit_attr ring[5] = {{.f = 0.5}, {.i = WINDOW}, {.i = RING}, {.i = SINKS}};
	const knit_attr cells[2] = {{.i = RING}, {.i = SINKS}};
	static op_array all_k, all_v, row, at, ring_y;

	op_array_init(&all_k, KNIT_F32, 1, POSITIONS, 2, DIM);
	op_array_init(&all_v, KNIT_F32, 1, POSITIONS, 2, DIM);
	op_array_random(&all_k, 1);
	op_array_random(&all_v, 2);
	for (int i = 0; i < POSITIONS * 2 * DIM; ++i) {
		all_k.data[i] = (double)(float)all_k.data[i];
		all_v.data[i] = (double)(float)all_v.data[i];
	}
	op_array_init(&k, KNIT_F32, 1, SINKS + RING, 2, DIM);
	op_array_init(&v, KNIT_F32, 1, SINKS + RING, 2, DIM);
	op_array_init(&q, KNIT_F32, 3, 4, DIM, 0);
	op_array_random(&q, 3);
	op_array_init(&seq, KNIT_I32, 3, 0, 0, 0);
	op_array_init(&pos, KNIT_I32, 3, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 3, 4, DIM, 0);
	ring_y = y;
	for (int p = 0; p < POSITIONS; ++p) {
		op_array_init(&at, KNIT_I32, 1, 0, 0, 0);
		at.data[0] = p;
		for (int which = 0; which < 2; ++which) {
			op_array *const state = which ? &v : &k;

			op_array_init(&row, KNIT_F32, 1, 2, DIM, 0);
			memcpy(row.data, (which ? &all_v : &all_k)->data + p * 2 * DIM, 2 * DIM * sizeof(double));
			op_eval(KNIT_OP_STATE_APPEND, cells, (op_array *[]){state, &row, &seq, &at}, 4, state);
		}
		if (p % 3 != 2)
			continue;
		op_array_set(&pos, (const double[]){p - 2, p - 1, p});
		op_eval(KNIT_OP_ATTENTION, ring, (op_array *[]){&q, &k, &v, &seq, &pos}, 5, &ring_y);
		op_eval(KNIT_OP_ATTENTION, plain, (op_array *[]){&q, &all_k, &all_v, &seq, &pos}, 5, &y);
		for (int i = 0; i < 3 * 4 * DIM; ++i)
			ck_assert_msg(y.data[i] == ring_y.data[i], "position %d, element %d", p, i);
	}
}
END_TEST

/* Rows in one line with the heads named by the attribute are the same numbers. */
START_TEST(attention_over_flat_rows) {
	const shape s = {6, 4, 2, 4, 2, 8, 3, 0.5, 1};
	const knit_attr flat[5] = {{.f = 0.5}, {.i = 3}, {.i = 0}, {.i = 1}, {.i = 2}};
	static op_array flat_k, flat_v;

	operands(&s, 9);
	attention(&s);
	op_array_init(&flat_k, KNIT_F32, 2, 8, 8, 0);
	op_array_init(&flat_v, KNIT_F32, 2, 8, 8, 0);
	memcpy(flat_k.data, k.data, 128 * sizeof(double));
	memcpy(flat_v.data, v.data, 128 * sizeof(double));
	for (int which = 1; which < 4; ++which) {
		z = y;
		op_eval(KNIT_OP_ATTENTION, flat,
				(op_array *[]){&q, which & 1 ? &flat_k : &k, which & 2 ? &flat_v : &v, &seq, &pos}, 5, &z);
		for (int i = 0; i < 6 * 16; ++i)
			ck_assert(z.data[i] == y.data[i]);
	}
}
END_TEST

/* Tokens of several sequences in one step get what each sequence alone gets. */
START_TEST(attention_sequences_do_not_mix) {
	const shape two = {6, 4, 2, 4, 2, 8, 0, 0.5, 0}, one = {6, 4, 2, 4, 1, 8, 0, 0.5, 0};
	static op_array both, all_k, all_v, all_seq;

	operands(&two, 40);
	op_array_set(&seq, (const double[]){0, 1, 0, 1, 1, 0});
	attention(&two);
	both = y, all_k = k, all_v = v, all_seq = seq;
	for (int which = 0; which < 2; ++which) {
		op_array_init(&k, KNIT_F32, 1, 8, 2, 4);
		op_array_init(&v, KNIT_F32, 1, 8, 2, 4);
		memcpy(k.data, op_array_at(&all_k, which, 0, 0, 0), 64 * sizeof(double));
		memcpy(v.data, op_array_at(&all_v, which, 0, 0, 0), 64 * sizeof(double));
		op_array_set(&seq, (const double[]){0, 0, 0, 0, 0, 0});
		attention(&one);
		for (int t = 0; t < 6; ++t)
			for (int i = 0; i < 16; ++i)
				ck_assert((int)all_seq.data[t] != which || y.data[t * 16 + i] == both.data[t * 16 + i]);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		rope_turns_pairs,
		rope_by_hand,
		rope_is_relative,
		rope_layouts_are_permutations,
		append_writes_its_cells_only,
		append_rounds_to_the_state_and_skips_bad_cells,
		append_goes_round,
		append_rounds_blocks,
		attention_equals_the_naive_one,
		attention_to_one_cell,
		attention_averages_and_ignores_the_rest,
		attention_with_large_scores,
		attention_shows_bad_cells_and_nan,
		attention_in_a_ring_equals_the_window,
		attention_over_flat_rows,
		attention_sequences_do_not_mix,
	};

	return suite_run("ops_attention", tests, (int)(sizeof tests / sizeof *tests));
}
