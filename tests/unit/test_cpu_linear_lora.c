/* linear_lora on the CPU: every variant of this machine against the reference, and bit for bit against the kernels of
 * the steps that it stands for, against its rows alone, and for any cut of the work. */
#include "../../graph/fused.h"
#include "../tools/kernel_run.h"
#include "../tools/lora_operands.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
#define WEIGHTS (int)(sizeof weights / sizeof weights[0])
static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

static bool blocks(knit_dtype t) { return knit__dtype_info(t)->is_block; }

typedef struct lora_case {
	knit_dtype w, a, b;
	int64_t rows, k, n, rank; /* rank -1: no LoRA */
	bool bias, residual;
	int64_t slots; /* 0: none */
	double s;
} lora_case;

static void make_lora(kernel_bench *b, const lora_case *c) {
	*b = (kernel_bench){.op = KNIT_OP_LINEAR_LORA, .seed = (uint64_t)(c->rows * 31 + c->k * 7 + c->n + c->rank)};
	b->attr[0].f = c->s;
	bench_in(b, KNIT_LORA_X, KNIT_F32, 2, (int64_t[]){c->rows, c->k}, 1, 3, 0);
	bench_in(b, KNIT_LORA_W, c->w, 2, (int64_t[]){c->n, c->k}, 1, 0, c->w == KNIT_F32 ? 4 : 2);
	if (c->rank >= 0) {
		lora_factor(b, KNIT_LORA_A, c->a, c->slots, c->rank, c->k);
		lora_factor(b, KNIT_LORA_B, c->b, c->slots, c->n, c->rank);
	}
	if (c->bias)
		bench_in(b, KNIT_LORA_BIAS, c->a, 1, &c->n, 1, 0, 0);
	if (c->residual)
		bench_in(b, KNIT_LORA_RESIDUAL, KNIT_F32, 2, (int64_t[]){c->rows, c->n}, 1, 7, 0);
	if (c->slots)
		lora_choice(b, KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ, c->rows, c->slots);
	bench_out(b, KNIT_F32, 2, (int64_t[]){c->rows, c->n});
}

static int check_lora(kernel_bench *b, const lora_case *c, int64_t piece) {
	double *const ref = bench_reference(b, false);
	b->attr[0].f = fabs(c->s);
	double *const bound = bench_reference(b, true);
	b->attr[0].f = c->s;
	double *const x = bench_values(&b->in[0].t), *const w = bench_values(&b->in[1].t);
	const knit_cpu_kernel *k;
	int ran = 0;

	for (int64_t i = 0; i < bench_count(&b->out); ++i) {
		bound[i] = 8 * 0x1p-24 * (8 + log2((double)c->k)) * bound[i] + 1e-37;
		if (blocks(c->w))
			bound[i] += bench_quantising_bound(x + i / c->n * c->k, w + i % c->n * c->k, c->k);
	}
	for (; (k = bench_kernel(b->op, (size_t)ran)); ++ran) {
		ck_assert_msg(bench_accepts(b, k), "%s refuses", k->name);
		bench_run(b, k, piece, 3);
		for (int64_t i = 0; i < bench_count(&b->out); ++i) {
			const double got = (double)bench_floats(&b->out)[i];

			if (!(fabs(got - ref[i]) <= bound[i]))
				ck_abort_msg("%s w %s a %s b %s rows %d k %d n %d rank %d slots %d: output %d is %.9g, needs %.9g "
				             "within %.3g",
				             k->name, knit_dtype_name(c->w), knit_dtype_name(c->a), knit_dtype_name(c->b), (int)c->rows,
				             (int)c->k, (int)c->n, (int)c->rank, (int)c->slots, (int)i, got, ref[i], bound[i]);
		}
	}
	free(ref);
	free(bound);
	free(x);
	free(w);
	return ran;
}

START_TEST(lora_within_the_bound) {
	static const int64_t ks[] = {32, 64, 1120}, ns[] = {1, 7, 24, 131}, ranks[] = {-1, 0, 1, 4, 16, 33}, rows[] = {1, 2, 5, 50};
	kernel_bench b;
	int ran = 0;

	for (int w = 0; w < WEIGHTS; ++w) {
		for (int i = 0; i < 48; ++i) {
			const lora_case c = {.w = weights[w],
			                     .a = floats[i % 3],
			                     .b = floats[i / 3 % 3],
			                     .rows = rows[(i + w) % 4],
			                     .k = i % 7 == 6 && !blocks(weights[w]) ? 45 : bench_whole(weights[w], ks[i / 2 % 3]),
			                     .n = ns[i / 4 % 4],
			                     .rank = ranks[i % 6],
			                     .bias = i % 5 == 1,
			                     .residual = i % 3 == 1,
			                     .slots = i % 6 >= 2 && i % 4 == 3 ? 4 : 0,
			                     .s = i % 2 ? 2 : -0.37};

			make_lora(&b, &c);
			ran += check_lora(&b, &c, i % 3);
			bench_free(&b);
		}
	}
	ck_assert_int_ge(ran, 240);
}
END_TEST

/* Without LoRA it is linear, bit for bit; with a power of two for s it is linear + scaled linear. */
START_TEST(lora_has_the_bits_of_its_steps) {
	for (int i = 0; i < WEIGHTS * 4; ++i) {
		const lora_case c = {.w = weights[i / 4],
		                     .a = floats[i % 3],
		                     .b = floats[(i + 1) % 3],
		                     .rows = i % 2 ? 1 : 51,
		                     .k = bench_whole(weights[i / 4], 1120),
		                     .n = 67,
		                     .rank = i % 4 < 2 ? -1 : 16,
		                     .residual = i % 3 == 0,
		                     .s = 4};
		kernel_bench b, plain = {.op = KNIT_OP_LINEAR}, low = {.op = KNIT_OP_LINEAR}, up = {.op = KNIT_OP_LINEAR};
		const knit_cpu_kernel *k;

		make_lora(&b, &c);
		plain.in_count = low.in_count = up.in_count = 2;
		plain.in[0].t = low.in[0].t = b.in[KNIT_LORA_X].t;
		plain.in[1].t = b.in[KNIT_LORA_W].t;
		low.in[1].t = b.in[KNIT_LORA_A].t;
		up.in[1].t = b.in[KNIT_LORA_B].t;
		bench_out(&plain, KNIT_F32, 2, (int64_t[]){c.rows, c.n});
		bench_out(&low, KNIT_F32, 2, (int64_t[]){c.rows, 16});
		bench_out(&up, KNIT_F32, 2, (int64_t[]){c.rows, c.n});
		up.in[0].t = low.out;
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
			bench_run(&b, k, 2, 2);
			bench_run(&plain, bench_like(&plain, k), 0, 1);
			if (c.rank > 0) {
				bench_run(&low, bench_like(&low, k), 0, 1);
				bench_run(&up, bench_like(&up, k), 0, 1);
			}
			for (int64_t e = 0; e < c.rows * c.n; ++e) {
				const knit_cpu_tensor *const r = &b.in[KNIT_LORA_RESIDUAL].t;
				float y = bench_floats(&plain.out)[e];

				if (c.rank > 0)
					y += bench_floats(&up.out)[e] * 4.0f;
				if (c.residual)
					y += bench_floats(r)[e / c.n * r->strides[0] + e % c.n];
				ck_assert_msg(y == bench_floats(&b.out)[e], "%s, %s: output %d is %.9g, the steps give %.9g", k->name,
				              knit_dtype_name(c.w), (int)e, (double)bench_floats(&b.out)[e], (double)y);
			}
		}
		plain.in_count = low.in_count = up.in_count = 0;
		bench_free(&plain);
		bench_free(&low);
		bench_free(&up);
		bench_free(&b);
	}
}
END_TEST

START_TEST(lora_rows_are_the_same_alone) {
	static const uint32_t per_row[] = {KNIT_LORA_X, KNIT_LORA_RESIDUAL, KNIT_LORA_SEQ};

	for (int i = 0; i < WEIGHTS * 2; ++i) {
		const lora_case c = {weights[i / 2], floats[i % 3], floats[(i + 2) % 3], 53, bench_whole(weights[i / 2], i % 2 ? 1120 : 96), 131, 16,
		                     true,           true,          i % 2 ? 4 : 0,       0.7};
		kernel_bench all, one = {.op = KNIT_OP_LINEAR_LORA};
		const knit_cpu_kernel *k;

		make_lora(&all, &c);
		memcpy(one.attr, all.attr, sizeof one.attr);
		bench_out(&one, KNIT_F32, 2, (int64_t[]){1, c.n});
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
			bench_run(&all, k, 0, 1);
			float *const first = bench_copy(all.out.data, all.out_bytes);

			for (int64_t piece = 1; piece < 8; piece += 3) {
				bench_run(&all, k, piece, 4);
				ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d differ", k->name, (int)piece);
			}
			for (int64_t r = 0; r < c.rows; r += 3) {
				bench_take_row(&one, &all, r, per_row, 3);
				bench_run(&one, k, 0, 1);
				ck_assert_msg(memcmp(first + r * c.n, one.out.data, one.out_bytes) == 0, "%s, %s: row %d differs alone",
				              k->name, knit_dtype_name(c.w), (int)r);
			}
			free(first);
		}
		one.in_count = 0;
		bench_free(&one);
		bench_free(&all);
	}
}
END_TEST

/* A token of a slot has the bits of a step with that slot's matrices alone. An index out of range spoils its own row. */
START_TEST(slots_are_apart) {
	const lora_case c = {KNIT_Q8_0, KNIT_F16, KNIT_F32, 19, 96, 37, 8, false, false, 4, 0.5};

	kernel_bench all, single;
	const knit_cpu_kernel *k;

	make_lora(&all, &c);
	for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
		bench_run(&all, k, 1, 2);
		float *const together = bench_copy(all.out.data, all.out_bytes);

		for (int64_t slot = 0; slot < c.slots; ++slot) {
			single = all;
			single.in_count = KNIT_LORA_B + 1;
			single.in[KNIT_LORA_ADAPTERS].t.data = single.in[KNIT_LORA_SEQ].t.data = NULL;
			for (uint32_t i = KNIT_LORA_A; i <= KNIT_LORA_B; ++i) {
				knit_cpu_tensor *const t = &single.in[i].t;

				t->data += slot * t->strides[0] * (t->dtype == KNIT_F32 ? 4 : 2);
				t->rank = 2;
				memmove(t->dims, t->dims + 1, 2 * sizeof *t->dims);
				memmove(t->strides, t->strides + 1, 2 * sizeof *t->strides);
			}
			bench_run(&single, k, 0, 1);
			for (int64_t r = 0; r < c.rows; ++r) {
				const int32_t seq = ((const int32_t *)(void *)all.in[KNIT_LORA_SEQ].t.data)[r];

				if (((const int32_t *)(void *)all.in[KNIT_LORA_ADAPTERS].t.data)[seq] == slot)
					ck_assert_msg(memcmp(together + r * c.n, bench_floats(&single.out) + r * c.n, (size_t)c.n * 4) == 0,
					              "%s: row %d, slot %d", k->name, (int)r, (int)slot);
			}
		}
		static const int32_t wrong[] = {-1, LORA_SEQUENCES, INT32_MAX, INT32_MIN};

		for (int i = 0; i < 4; ++i) {
			int32_t *const seq = (int32_t *)(void *)all.in[KNIT_LORA_SEQ].t.data;
			const int32_t before = seq[7];

			seq[7] = wrong[i];
			bench_run(&all, k, 1, 2);
			for (int64_t e = 0; e < c.rows * c.n; ++e)
				ck_assert_msg(e / c.n == 7 ? isnan(bench_floats(&all.out)[e]) : bench_floats(&all.out)[e] == together[e],
				              "%s: output %d with a sequence out of range", k->name, (int)e);
			seq[7] = before;
		}
		free(together);
	}
	bench_free(&all);
}
END_TEST

/* NaN stays in its row. */
START_TEST(lora_keeps_nan_in_its_row) {
	for (int w = 0; w < WEIGHTS; ++w) {
		const lora_case c = {weights[w], KNIT_F16, KNIT_BF16, 6, bench_whole(weights[w], 96), 19, 4, false, true, 0, 1};
		kernel_bench b;
		const knit_cpu_kernel *k;

		make_lora(&b, &c);
		bench_set(&b, KNIT_LORA_X, 2 * c.k + 50, (double)NAN);
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
			bench_run(&b, k, 1, 2);
			for (int64_t e = 0; e < c.rows * c.n; ++e)
				ck_assert_msg((isnan(bench_floats(&b.out)[e]) != 0) == (e / c.n == 2), "%s: output %d", k->name, (int)e);
		}
		bench_free(&b);
	}
}
END_TEST

START_TEST(what_linear_lora_refuses) {
	const lora_case c = {KNIT_F32, KNIT_F16, KNIT_F16, 4, 64, 8, 4, true, true, 0, 1};
	kernel_bench b;
	const knit_cpu_kernel *const k = bench_kernel(KNIT_OP_LINEAR_LORA, 0);

	make_lora(&b, &c);
	ck_assert(bench_accepts(&b, k));
	b.in[KNIT_LORA_X].t.strides[1] = 2;
	ck_assert(!bench_accepts(&b, k));
	b.in[KNIT_LORA_X].t.strides[1] = 1;
	b.in[KNIT_LORA_A].t.dtype = KNIT_Q8_0;
	ck_assert(!bench_accepts(&b, k));
	b.in[KNIT_LORA_A].t.dtype = KNIT_F16;
	b.in[KNIT_LORA_B].t.strides[0] = 9;
	ck_assert(!bench_accepts(&b, k));
	b.in[KNIT_LORA_B].t.strides[0] = 4;
	b.in[KNIT_LORA_RESIDUAL].t.strides[1] = 2;
	ck_assert(!bench_accepts(&b, k));
	bench_free(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {lora_within_the_bound, lora_has_the_bits_of_its_steps, lora_rows_are_the_same_alone,
	                              slots_are_apart, lora_keeps_nan_in_its_row, what_linear_lora_refuses};

	return suite_run("cpu linear_lora", tests, (int)(sizeof tests / sizeof tests[0]));
}
