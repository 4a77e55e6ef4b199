/* The fused kernels of the CPU: every variant of this machine against the references, and bit for bit against the
 * kernels of the steps they stand for, against themselves alone, and for any cut of the work. */
#include "../../graph/fused.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};
#define WEIGHTS 5
#define STORED 5 /* of them can be states */
static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

static bool blocks(knit_dtype t) { return knit__dtype_info(t)->is_block; }
/* At least k columns, in whole blocks. */
static int64_t whole(knit_dtype t, int64_t k) {
	const int64_t block = knit__dtype_info(t)->block_elements;

	return (k + block - 1) / block * block;
}

static const float *floats_of(const knit_cpu_tensor *t) { return (const float *)(const void *)t->data; }

/* The kernel of an op that has the same instruction set as k. */
static const knit_cpu_kernel *same_level(uint16_t op, const knit_cpu_kernel *k, const kernel_bench *b) {
	const knit_cpu_kernel *other;

	for (size_t n = 0; (other = bench_kernel(op, n)); ++n)
		if ((other->isa == k->isa || other->isa == KNIT_CPU_PLAIN) && bench_accepts(b, other))
			return other;
	ck_abort_msg("no kernel of the level of %s", k->name);
	return NULL;
}

static void *copy_of(const void *p, size_t bytes) {
	void *const c = malloc(bytes ? bytes : 1);

	memcpy(c, p, bytes);
	return c;
}

/* ---- linear_lora ------------------------------------------------------------------------------------------------- */

typedef struct lora_case {
	knit_dtype w, a, b;
	int64_t rows, k, n, rank; /* rank -1: no LoRA */
	bool bias, residual;
	int64_t slots; /* 0: none */
	double s;
} lora_case;

#define SEQUENCES 3

static void add_choice(kernel_bench *b, uint32_t adapters, uint32_t seq, int64_t rows, int64_t slots) {
	int32_t *const of_token = malloc((size_t)(rows + 1) * sizeof *of_token), of_sequence[SEQUENCES];

	for (int64_t i = 0; i < rows; ++i)
		of_token[i] = (int32_t)(i / 2 % SEQUENCES);
	for (int64_t i = 0; i < SEQUENCES; ++i)
		of_sequence[i] = (int32_t)((i * 2 + 1) % slots);
	bench_indices(b, adapters, SEQUENCES, of_sequence);
	bench_indices(b, seq, rows, of_token);
	free(of_token);
}

static void add_factor(kernel_bench *b, uint32_t i, knit_dtype t, int64_t slots, int64_t rows, int64_t columns) {
	bench_in(b, i, t, slots ? 3 : 2, slots ? (int64_t[]){slots, rows, columns} : (int64_t[]){rows, columns}, 1, 0,
	         t == KNIT_F32 ? 4 : 2);
}

static void make_lora(kernel_bench *b, const lora_case *c) {
	*b = (kernel_bench){.op = KNIT_OP_LINEAR_LORA, .seed = (uint64_t)(c->rows * 31 + c->k * 7 + c->n + c->rank)};
	b->attr[0].f = c->s;
	bench_in(b, KNIT_LORA_X, KNIT_F32, 2, (int64_t[]){c->rows, c->k}, 1, 3, 0);
	bench_in(b, KNIT_LORA_W, c->w, 2, (int64_t[]){c->n, c->k}, 1, 0, c->w == KNIT_F32 ? 4 : 2);
	if (c->rank >= 0) {
		add_factor(b, KNIT_LORA_A, c->a, c->slots, c->rank, c->k);
		add_factor(b, KNIT_LORA_B, c->b, c->slots, c->n, c->rank);
	}
	if (c->bias)
		bench_in(b, KNIT_LORA_BIAS, c->a, 1, &c->n, 1, 0, 0);
	if (c->residual)
		bench_in(b, KNIT_LORA_RESIDUAL, KNIT_F32, 2, (int64_t[]){c->rows, c->n}, 1, 7, 0);
	if (c->slots)
		add_choice(b, KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ, c->rows, c->slots);
	bench_out(b, KNIT_F32, 2, (int64_t[]){c->rows, c->n});
}

/* What rounding x to 8 bits by blocks may add to one output: half a step of max / 127 for each element. */
static double quantising_bound(const double *x, const double *w, int64_t k) {
	double sum = 0;

	for (int64_t i = 0; i < k; i += 32) {
		double max = 0, products = 0;

		for (int64_t j = i; j < i + 32; ++j) {
			max = fmax(max, fabs(x[j]));
			products += fabs(w[j]);
		}
		sum += products * max / 254 * 1.0001;
	}
	return sum;
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
			bound[i] += quantising_bound(x + i / c->n * c->k, w + i % c->n * c->k, c->k);
	}
	for (; (k = bench_kernel(b->op, (size_t)ran)); ++ran) {
		ck_assert_msg(bench_accepts(b, k), "%s refuses", k->name);
		bench_run(b, k, piece, 3);
		for (int64_t i = 0; i < bench_count(&b->out); ++i) {
			const double got = (double)floats_of(&b->out)[i];

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
			                     .k = i % 7 == 6 && !blocks(weights[w]) ? 45 : whole(weights[w], ks[i / 2 % 3]),
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
		                     .k = whole(weights[i / 4], 1120),
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
			bench_run(&plain, same_level(KNIT_OP_LINEAR, k, &plain), 0, 1);
			if (c.rank > 0) {
				bench_run(&low, same_level(KNIT_OP_LINEAR, k, &low), 0, 1);
				bench_run(&up, same_level(KNIT_OP_LINEAR, k, &up), 0, 1);
			}
			for (int64_t e = 0; e < c.rows * c.n; ++e) {
				const knit_cpu_tensor *const r = &b.in[KNIT_LORA_RESIDUAL].t;
				float y = floats_of(&plain.out)[e];

				if (c.rank > 0)
					y += floats_of(&up.out)[e] * 4.0f;
				if (c.residual)
					y += floats_of(r)[e / c.n * r->strides[0] + e % c.n];
				ck_assert_msg(y == floats_of(&b.out)[e], "%s, %s: output %d is %.9g, the steps give %.9g", k->name,
				              knit_dtype_name(c.w), (int)e, (double)floats_of(&b.out)[e], (double)y);
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

/* Points every operand with a row per token at row r of `all`, and everything else at the same bytes. */
static void take_row(kernel_bench *one, const kernel_bench *all, int64_t r, const uint32_t *per_row, int count) {
	for (uint32_t i = 0; i < all->in_count; ++i)
		one->in[i].t = all->in[i].t;
	one->in_count = all->in_count;
	for (int i = 0; i < count; ++i) {
		knit_cpu_tensor *const t = &one->in[per_row[i]].t;

		if (!t->data)
			continue;
		t->data += r * t->strides[0] * 4;
		t->dims[0] = 1;
	}
}

START_TEST(lora_rows_are_the_same_alone) {
	static const uint32_t per_row[] = {KNIT_LORA_X, KNIT_LORA_RESIDUAL, KNIT_LORA_SEQ};

	for (int i = 0; i < WEIGHTS * 2; ++i) {
		const lora_case c = {weights[i / 2], floats[i % 3], floats[(i + 2) % 3], 53, whole(weights[i / 2], i % 2 ? 1120 : 96), 131, 16,
		                     true,           true,          i % 2 ? 4 : 0,       0.7};
		kernel_bench all, one = {.op = KNIT_OP_LINEAR_LORA};
		const knit_cpu_kernel *k;

		make_lora(&all, &c);
		memcpy(one.attr, all.attr, sizeof one.attr);
		bench_out(&one, KNIT_F32, 2, (int64_t[]){1, c.n});
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
			bench_run(&all, k, 0, 1);
			float *const first = copy_of(all.out.data, all.out_bytes);

			for (int64_t piece = 1; piece < 8; piece += 3) {
				bench_run(&all, k, piece, 4);
				ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d differ", k->name, (int)piece);
			}
			for (int64_t r = 0; r < c.rows; r += 3) {
				take_row(&one, &all, r, per_row, 3);
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
		float *const together = copy_of(all.out.data, all.out_bytes);

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
					ck_assert_msg(memcmp(together + r * c.n, floats_of(&single.out) + r * c.n, (size_t)c.n * 4) == 0,
					              "%s: row %d, slot %d", k->name, (int)r, (int)slot);
			}
		}
		static const int32_t wrong[] = {-1, SEQUENCES, INT32_MAX, INT32_MIN};

		for (int i = 0; i < 4; ++i) {
			int32_t *const seq = (int32_t *)(void *)all.in[KNIT_LORA_SEQ].t.data;
			const int32_t before = seq[7];

			seq[7] = wrong[i];
			bench_run(&all, k, 1, 2);
			for (int64_t e = 0; e < c.rows * c.n; ++e)
				ck_assert_msg(e / c.n == 7 ? isnan(floats_of(&all.out)[e]) : floats_of(&all.out)[e] == together[e],
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
		const lora_case c = {weights[w], KNIT_F16, KNIT_BF16, 6, whole(weights[w], 96), 19, 4, false, true, 0, 1};
		kernel_bench b;
		const knit_cpu_kernel *k;

		make_lora(&b, &c);
		bench_set(&b, KNIT_LORA_X, 2 * c.k + 50, (double)NAN);
		for (size_t n = 0; (k = bench_kernel(KNIT_OP_LINEAR_LORA, n)); ++n) {
			bench_run(&b, k, 1, 2);
			for (int64_t e = 0; e < c.rows * c.n; ++e)
				ck_assert_msg((isnan(floats_of(&b.out)[e]) != 0) == (e / c.n == 2), "%s: output %d", k->name, (int)e);
		}
		bench_free(&b);
	}
}
END_TEST

/* ---- linear_group ------------------------------------------------------------------------------------------------ */

/* n weights of types that differ, the last without LoRA. */
static void make_group(kernel_bench *b, int n, int types, int64_t rows, int64_t k, int64_t slots) {
	static const int64_t columns[] = {70, 17, 33}, ranks[] = {16, 5, 8};

	*b = (kernel_bench){.op = KNIT_OP_LINEAR_GROUP, .seed = (uint64_t)(types * 131 + rows)};
	b->attr[KNIT_GROUP_N].i = n;
	bench_in(b, KNIT_GROUP_X, KNIT_F32, 2, (int64_t[]){rows, k}, 1, 5, 0);
	for (int i = 0; i < n; ++i) {
		const uint32_t w = (uint32_t)(KNIT_GROUP_W + 3 * i);

		b->attr[KNIT_GROUP_S + i].f = 1.5 - i;
		bench_in(b, w, weights[(types + i * (types / WEIGHTS)) % WEIGHTS], 2, (int64_t[]){columns[i], k}, 1, 0, 0);
		if (i + 1 < n || types % 2) {
			add_factor(b, w + 1, floats[(types + i) % 3], slots, ranks[i], k);
			add_factor(b, w + 2, floats[i % 3], slots, columns[i], ranks[i]);
		}
		if (i == 0)
			bench_out(b, KNIT_F32, 2, (int64_t[]){rows, columns[i]});
		else
			bench_out_more(b, KNIT_F32, 2, (int64_t[]){rows, columns[i]});
	}
	if (slots)
		add_choice(b, KNIT_GROUP_ADAPTERS, KNIT_GROUP_SEQ, rows, slots);
}

/* Each output has the bits of a linear_lora of its own. */
START_TEST(group_is_its_members) {
	for (int types = 0; types < 3 * WEIGHTS; ++types) {
		for (int variant = 0; variant < 4; ++variant) {
			const int n = 2 + variant % 2;
			const int64_t rows = types % 3 == 0 ? 1 : types % 3 == 1 ? 5 : 61, slots = variant / 2 * 3;
			kernel_bench b, one;
			const knit_cpu_kernel *k;

			make_group(&b, n, types, rows, variant == 3 ? 512 : 256, slots);
			for (size_t v = 0; (k = bench_kernel(KNIT_OP_LINEAR_GROUP, v)); ++v) {
				ck_assert_msg(bench_accepts(&b, k), "%s refuses", k->name);
				bench_run(&b, k, 3, 3);
				for (int i = 0; i < n; ++i) {
					const uint32_t w = (uint32_t)(KNIT_GROUP_W + 3 * i);
					const knit_cpu_tensor *const got = i ? &b.more[i - 1].t : &b.out;

					one = (kernel_bench){.op = KNIT_OP_LINEAR_LORA, .in_count = KNIT_LORA_OPERANDS};
					one.attr[0] = b.attr[KNIT_GROUP_S + i];
					one.in[KNIT_LORA_X].t = b.in[KNIT_GROUP_X].t;
					one.in[KNIT_LORA_W].t = b.in[w].t;
					one.in[KNIT_LORA_A].t = b.in[w + 1].t;
					one.in[KNIT_LORA_B].t = b.in[w + 2].t;
					if (slots) {
						one.in[KNIT_LORA_ADAPTERS].t = b.in[KNIT_GROUP_ADAPTERS].t;
						one.in[KNIT_LORA_SEQ].t = b.in[KNIT_GROUP_SEQ].t;
					}
					bench_out(&one, KNIT_F32, 2, got->dims);
					bench_run(&one, same_level(KNIT_OP_LINEAR_LORA, k, &one), 0, 1);
					ck_assert_msg(memcmp(one.out.data, got->data, one.out_bytes) == 0, "%s, types %d: output %d", k->name,
					              types, i);
					one.in_count = 0;
					bench_free(&one);
				}
			}
			bench_free(&b);
		}
	}
}
END_TEST

/* ---- glu --------------------------------------------------------------------------------------------------------- */

static void make_glu(kernel_bench *b, knit_dtype gate, knit_dtype up, int64_t rows, int64_t k, int64_t n, int loras,
                     int64_t slots) {
	*b = (kernel_bench){.op = KNIT_OP_GLU, .seed = (uint64_t)(rows * 17 + k + n)};
	b->attr[KNIT_GLU_ACT].i = n % 2 ? KNIT_GLU_GELU : KNIT_GLU_SILU;
	b->attr[KNIT_GLU_SG].f = 0.8;
	b->attr[KNIT_GLU_SU].f = -3;
	bench_in(b, KNIT_GLU_X, KNIT_F32, 2, (int64_t[]){rows, k}, 1, 0, 0);
	bench_in(b, KNIT_GLU_WG, gate, 2, (int64_t[]){n, k}, 1, 0, 0);
	bench_in(b, KNIT_GLU_WU, up, 2, (int64_t[]){n, k}, 1, 0, 0);
	for (int i = 0; i < 2; ++i) {
		if (!(loras & 1 << i))
			continue;
		add_factor(b, (uint32_t)(KNIT_GLU_AG + 2 * i), floats[(loras + i) % 3], slots, 8 + i, k);
		add_factor(b, (uint32_t)(KNIT_GLU_BG + 2 * i), floats[i], slots, n, 8 + i);
	}
	if (slots)
		add_choice(b, KNIT_GLU_ADAPTERS, KNIT_GLU_SEQ, rows, slots);
	bench_out(b, KNIT_F32, 2, (int64_t[]){rows, n});
}

/* One of its projections as a linear_lora. */
static void run_half(const kernel_bench *b, const knit_cpu_kernel *k, uint32_t w, uint32_t a, uint32_t s,
                     kernel_bench *half) {
	*half = (kernel_bench){.op = KNIT_OP_LINEAR_LORA, .in_count = KNIT_LORA_OPERANDS};
	half->attr[0] = b->attr[s];
	half->in[KNIT_LORA_X].t = b->in[KNIT_GLU_X].t;
	half->in[KNIT_LORA_W].t = b->in[w].t;
	half->in[KNIT_LORA_A].t = b->in[a].t;
	half->in[KNIT_LORA_B].t = b->in[a + 1].t;
	if (b->in[a].t.data && b->in[KNIT_GLU_ADAPTERS].t.data) {
		half->in[KNIT_LORA_ADAPTERS].t = b->in[KNIT_GLU_ADAPTERS].t;
		half->in[KNIT_LORA_SEQ].t = b->in[KNIT_GLU_SEQ].t;
	}
	bench_out(half, KNIT_F32, 2, b->out.dims);
	bench_run(half, same_level(KNIT_OP_LINEAR_LORA, k, half), 0, 1);
}

static void run_step(kernel_bench *b, uint16_t op, const knit_cpu_tensor *x, const knit_cpu_tensor *y) {
	*b = (kernel_bench){.op = op, .in_count = y ? 2 : 1};
	b->in[0].t = *x;
	if (y)
		b->in[1].t = *y;
	bench_out(b, KNIT_F32, 2, x->dims);
	bench_run(b, bench_kernel(op, 0), 0, 1);
}

/* The projections have the bits of linear_lora, the plain variant's activation those of silu and gelu. */
START_TEST(glu_is_its_steps) {
	for (int i = 0; i < WEIGHTS * 8; ++i) {
		kernel_bench b, gate, up, act, product;
		const knit_cpu_kernel *k;

		make_glu(&b, weights[i / 8], weights[i % 8 == 7 ? 3 : i / 8], i % 3 == 0 ? 1 : i % 3 == 1 ? 7 : 50,
		         whole(weights[i / 8], 96), i % 2 ? 75 : 16,
		         i % 4, i % 8 == 5 ? 4 : 0);
		for (size_t v = 0; (k = bench_kernel(KNIT_OP_GLU, v)); ++v) {
			ck_assert_msg(bench_accepts(&b, k), "%s refuses", k->name);
			bench_run(&b, k, 1, 3);
			run_half(&b, k, KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_SG, &gate);
			run_half(&b, k, KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_SU, &up);
			run_step(&act, b.attr[KNIT_GLU_ACT].i == KNIT_GLU_SILU ? KNIT_OP_SILU : KNIT_OP_GELU, &gate.out, NULL);
			run_step(&product, KNIT_OP_MUL, &act.out, &up.out);
			for (int64_t e = 0; e < bench_count(&b.out); ++e) {
				const double want = (double)floats_of(&product.out)[e], got = (double)floats_of(&b.out)[e];

				/* the steps' exp is the plain one; its argument's size counts */
				ck_assert_msg(fabs(got - want) <= (k->isa == KNIT_CPU_PLAIN ? 0 : 2e-5 * fabs(want)) || got == want,
				              "%s, %s: output %d is %.9g, its steps give %.9g", k->name,
				              knit_dtype_name(b.in[KNIT_GLU_WG].t.dtype), (int)e, got, want);
			}
			gate.in_count = up.in_count = act.in_count = product.in_count = 0;
			bench_free(&gate);
			bench_free(&up);
			bench_free(&act);
			bench_free(&product);
		}
		bench_free(&b);
	}
}
END_TEST

START_TEST(glu_rows_are_the_same_alone) {
	static const uint32_t per_row[] = {KNIT_GLU_X, KNIT_GLU_SEQ};

	for (int w = 0; w < WEIGHTS; ++w) {
		kernel_bench all, one = {.op = KNIT_OP_GLU};
		const knit_cpu_kernel *k;
		const int64_t n = 83;

		make_glu(&all, weights[w], weights[w], 51, whole(weights[w], 1120), n, 3, w % 2 ? 4 : 0);
		memcpy(one.attr, all.attr, sizeof one.attr);
		bench_out(&one, KNIT_F32, 2, (int64_t[]){1, n});
		for (size_t v = 0; (k = bench_kernel(KNIT_OP_GLU, v)); ++v) {
			bench_run(&all, k, 0, 1);
			float *const first = copy_of(all.out.data, all.out_bytes);

			bench_run(&all, k, 1, 4);
			ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces differ", k->name);
			for (int64_t r = 0; r < 51; r += 5) {
				take_row(&one, &all, r, per_row, 2);
				bench_run(&one, k, 0, 1);
				ck_assert_msg(memcmp(first + r * n, one.out.data, one.out_bytes) == 0, "%s: row %d differs alone", k->name,
				              (int)r);
			}
			free(first);
		}
		one.in_count = 0;
		bench_free(&one);
		bench_free(&all);
	}
}
END_TEST

START_TEST(glu_agrees_with_the_reference) {
	for (int i = 0; i < 6; ++i) {
		kernel_bench b;
		const knit_cpu_kernel *k;

		make_glu(&b, floats[i % 3], floats[i % 3], 1 + i * 3, 64, 30 + i, 3, i % 2 ? 3 : 0);
		double *const ref = bench_reference(&b, false);
		for (size_t v = 0; (k = bench_kernel(KNIT_OP_GLU, v)); ++v) {
			bench_run(&b, k, 0, 1);
			for (int64_t e = 0; e < bench_count(&b.out); ++e)
				ck_assert_msg(fabs((double)floats_of(&b.out)[e] - ref[e]) <= 2e-4 + 1e-5 * fabs(ref[e]),
				              "%s: output %d is %.9g, needs %.9g", k->name, (int)e, (double)floats_of(&b.out)[e], ref[e]);
		}
		free(ref);
		bench_free(&b);
	}
}
END_TEST

START_TEST(what_the_linears_refuse) {
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

	make_glu(&b, KNIT_Q4_0, KNIT_Q4_0, 2, 64, 8, 3, 0);
	ck_assert(bench_accepts(&b, bench_kernel(KNIT_OP_GLU, 0)));
	b.in[KNIT_GLU_WU].t.strides[0] = 80; /* rows that start inside a block */
	ck_assert(!bench_accepts(&b, bench_kernel(KNIT_OP_GLU, 0)));
	bench_free(&b);
}
END_TEST

/* ---- add_rms_norm ------------------------------------------------------------------------------------------------ */

START_TEST(add_rms_norm_is_its_steps) {
	static const int64_t columns[] = {1, 7, 64, 257, 1031};

	for (int i = 0; i < 15; ++i) {
		const int64_t dims[] = {1 + i % 4 * 5, columns[i % 5]};
		kernel_bench b = {.op = KNIT_OP_ADD_RMS_NORM, .seed = (uint64_t)i, .attr[0].f = 1e-5}, norm;
		double *ref[KNIT_MAX_OUT];

		bench_in(&b, 0, KNIT_F32, 2, dims, 1, i % 2 ? 3 : 0, 0);
		bench_in(&b, 1, KNIT_F32, 2, dims, 1, i % 3, 0);
		bench_in(&b, 2, floats[i % 3], 1, dims + 1, 1, 0, 0);
		bench_out(&b, KNIT_F32, 2, dims);
		bench_out_more(&b, KNIT_F32, 2, dims);
		ck_assert(bench_accepts(&b, bench_kernel(b.op, 0)));
		bench_references(&b, false, ref);
		bench_run(&b, bench_kernel(b.op, 0), 1, 2);
		for (int64_t e = 0; e < bench_count(&b.out); ++e) {
			const int64_t r = e / dims[1], j = e % dims[1];

			ck_assert(floats_of(&b.out)[e] == floats_of(&b.in[0].t)[r * b.in[0].t.strides[0] + j] +
			                                      floats_of(&b.in[1].t)[r * b.in[1].t.strides[0] + j]);
			ck_assert_double_le(fabs((double)floats_of(&b.out)[e] - ref[0][e]), 1e-6);
			ck_assert_double_le(fabs((double)floats_of(&b.more[0].t)[e] - ref[1][e]), 1e-5 * (1 + fabs(ref[1][e])));
		}

		norm = (kernel_bench){.op = KNIT_OP_RMS_NORM, .in_count = 2, .attr[0].f = 1e-5};
		norm.in[0].t = b.out;
		norm.in[1].t = b.in[2].t;
		bench_out(&norm, KNIT_F32, 2, dims);
		bench_run(&norm, bench_kernel(KNIT_OP_RMS_NORM, 0), 0, 1);
		ck_assert_mem_eq(norm.out.data, b.more[0].t.data, norm.out_bytes);
		norm.in_count = 0;
		bench_free(&norm);

		/* in place of a */
		if (i % 2 == 0) {
			float *const apart = copy_of(b.out.data, b.out_bytes), *const normed = copy_of(b.more[0].t.data, b.out_bytes);
			char *const own = b.out.data;

			b.out.data = b.in[0].t.data;
			b.writes_state = true; /* what it holds is not wiped */
			bench_run(&b, bench_kernel(b.op, 0), 1, 2);
			ck_assert_mem_eq(apart, b.out.data, b.out_bytes);
			ck_assert_mem_eq(normed, b.more[0].t.data, b.out_bytes);
			b.out.data = own;
			free(apart);
			free(normed);
		}
		for (int o = 0; o < KNIT_MAX_OUT; ++o)
			free(ref[o]);
		bench_free(&b);
	}
}
END_TEST

/* ---- kv_write ---------------------------------------------------------------------------------------------------- */

typedef struct kv_case {
	knit_dtype k, v;
	int64_t tokens, heads, kv_heads, dim, rotary, ring, sinks;
	knit_rope_layout layout;
	bool flat; /* states of rank 3 */
} kv_case;

#define CELLS 12

static void make_kv(kernel_bench *b, const kv_case *c) {
	const int64_t row = c->kv_heads * c->dim, q[] = {c->tokens, c->heads, c->dim}, kv[] = {c->tokens, c->kv_heads, c->dim};
	const int64_t rows[] = {c->tokens, row}, flat[] = {2, CELLS, row}, apart[] = {2, CELLS, c->kv_heads, c->dim};
	int32_t seq[64], pos[64];

	*b = (kernel_bench){.op = KNIT_OP_KV_WRITE, .seed = (uint64_t)(c->tokens + c->dim)};
	b->attr[KNIT_KV_THETA].f = 10000;
	b->attr[KNIT_KV_ROTARY].i = c->rotary;
	b->attr[KNIT_KV_LAYOUT].i = c->layout;
	b->attr[KNIT_KV_RING].i = c->ring;
	b->attr[KNIT_KV_SINKS].i = c->sinks;
	bench_in(b, KNIT_KV_KSTATE, c->k, c->flat ? 3 : 4, c->flat ? flat : apart, 1, 0, 0);
	bench_in(b, KNIT_KV_VSTATE, c->v, c->flat ? 3 : 4, c->flat ? flat : apart, 1, 0, 0);
	bench_in(b, KNIT_KV_Q, KNIT_F32, 3, q, 1, 0, 0);
	bench_in(b, KNIT_KV_K, KNIT_F32, 3, kv, 1, 4, 0);
	bench_in(b, KNIT_KV_V, KNIT_F32, c->flat ? 2 : 3, c->flat ? rows : kv, 1, 6, 0);
	for (int64_t t = 0; t < c->tokens; ++t) {
		seq[t] = (int32_t)(t % 2);
		pos[t] = (int32_t)(t / 2 + (c->ring ? 100 : 1));
	}
	bench_indices(b, KNIT_KV_SEQ, c->tokens, seq);
	bench_indices(b, KNIT_KV_POS, c->tokens, pos);
	bench_out_state(b);
	bench_out_more_state(b);
	bench_out_more(b, KNIT_F32, 3, q);
}

/* Rotated queries or keys. */
static void run_rope(const kernel_bench *b, uint32_t x, kernel_bench *out) {
	*out = (kernel_bench){.op = KNIT_OP_ROPE, .in_count = 2};
	memcpy(out->attr, b->attr, 3 * sizeof *out->attr);
	out->in[0].t = b->in[x].t;
	out->in[1].t = b->in[KNIT_KV_POS].t;
	bench_out(out, KNIT_F32, 3, b->in[x].t.dims);
	bench_run(out, bench_kernel(KNIT_OP_ROPE, 0), 0, 1);
	out->in_count = 0;
}

/* A copy of the state before, written by append. */
static void run_append(const kernel_bench *b, const knit_cpu_tensor *state, char *bytes, const knit_cpu_tensor *rows) {
	kernel_bench append = {.op = KNIT_OP_STATE_APPEND, .in_count = 4, .writes_state = true};

	append.attr[0] = b->attr[KNIT_KV_RING];
	append.attr[1] = b->attr[KNIT_KV_SINKS];
	append.in[0].t = append.out = *state;
	append.in[0].t.data = append.out.data = bytes;
	append.in[1].t = *rows;
	if (state->rank == 3 && rows->rank == 3) { /* dense rows */
		append.in[1].t.rank = 2;
		append.in[1].t.dims[1] = append.in[1].t.strides[0] = rows->dims[1] * rows->dims[2];
		append.in[1].t.strides[1] = 1;
	}
	append.in[2].t = b->in[KNIT_KV_SEQ].t;
	append.in[3].t = b->in[KNIT_KV_POS].t;
	ck_assert(bench_accepts(&append, bench_kernel(KNIT_OP_STATE_APPEND, 0)));
	bench_run(&append, bench_kernel(KNIT_OP_STATE_APPEND, 0), 0, 1);
}

static void check_kv(const kv_case *c, int64_t piece) {
	const knit_cpu_kernel *const kernel = bench_kernel(KNIT_OP_KV_WRITE, 0);
	kernel_bench b, q, k;

	make_kv(&b, c);
	ck_assert(bench_accepts(&b, kernel));
	uint64_t k_bytes, v_bytes;
	ck_assert(knit__dtype_bytes(c->k, (uint64_t)bench_count(&b.out), &k_bytes));
	ck_assert(knit__dtype_bytes(c->v, (uint64_t)bench_count(&b.more[0].t), &v_bytes));
	char *const k_state = copy_of(b.out.data, k_bytes), *const v_state = copy_of(b.more[0].t.data, v_bytes);
	double *ref[KNIT_MAX_OUT];

	bench_references(&b, false, ref);
	run_rope(&b, KNIT_KV_Q, &q);
	run_rope(&b, KNIT_KV_K, &k);
	run_append(&b, &b.out, k_state, &k.out);
	run_append(&b, &b.more[0].t, v_state, &b.in[KNIT_KV_V].t);
	bench_run(&b, kernel, piece, 3);
	ck_assert_mem_eq(q.out.data, b.more[1].t.data, q.out_bytes);
	ck_assert_mem_eq(k_state, b.out.data, k_bytes);
	ck_assert_mem_eq(v_state, b.more[0].t.data, v_bytes);

	/* and the steps themselves agree with the reference; a block's step is its largest element / 7 or more */
	double *const got = bench_values(&b.out), step = c->k == KNIT_Q4_0 ? 0.25 : c->k == KNIT_F32 ? 1e-6 : 2e-2;
	for (int64_t e = 0; e < bench_count(&b.out); ++e)
		ck_assert_double_le(fabs(got[e] - ref[0][e]), step);
	free(got);
	for (int o = 0; o < KNIT_MAX_OUT; ++o)
		free(ref[o]);
	free(k_state);
	free(v_state);
	bench_free(&q);
	bench_free(&k);
	bench_free(&b);
}

START_TEST(kv_write_is_its_steps) {
	for (int i = 0; i < STORED * STORED; ++i) {
		const knit_dtype k = weights[i / STORED], v = weights[i % STORED];
		const bool odd = !blocks(k) && !blocks(v);
		kv_case c = {k, v, 1 + i % 4 * 3, 6, 3, odd ? 10 : 32, odd ? 6 : 32, 0, 0, i % 2 ? KNIT_ROPE_SPLIT : KNIT_ROPE_INTERLEAVED,
		             i % 3 == 0};

		check_kv(&c, i % 3);
		c.sinks = 2;
		c.ring = CELLS - c.sinks;
		check_kv(&c, 1);
		if (!c.flat)
			continue;
		/* head_dim no multiple of a block, rows are */
		c.dim = c.rotary = 16;
		c.kv_heads = 4;
		c.heads = 4;
		check_kv(&c, 2);
	}
}
END_TEST

/* A cell outside the slot: nothing is written, the query is rotated all the same. */
START_TEST(kv_write_leaves_out_what_is_not_there) {
	const kv_case c = {KNIT_F16, KNIT_F32, 4, 2, 1, 8, 8, 0, 0, KNIT_ROPE_SPLIT, false};
	kernel_bench b;

	make_kv(&b, &c);
	for (int64_t t = 0; t < c.tokens; ++t) {
		bench_set(&b, KNIT_KV_SEQ, t, t == 0 ? -1 : t == 1 ? 2 : 0);
		bench_set(&b, KNIT_KV_POS, t, t == 2 ? CELLS : t == 3 ? -1 : 0);
	}
	char *const before = copy_of(b.out.data, b.out_bytes);
	bench_run(&b, bench_kernel(KNIT_OP_KV_WRITE, 0), 1, 2);
	ck_assert_mem_eq(before, b.out.data, b.out_bytes);
	for (int64_t e = 0; e < bench_count(&b.more[1].t); ++e)
		ck_assert(isfinite(floats_of(&b.more[1].t)[e]));
	free(before);
	bench_free(&b);
}
END_TEST

START_TEST(what_kv_write_refuses) {
	const kv_case c = {KNIT_Q8_0, KNIT_Q4_0, 4, 2, 2, 32, 32, 0, 0, KNIT_ROPE_SPLIT, false};
	const knit_cpu_kernel *const k = bench_kernel(KNIT_OP_KV_WRITE, 0);
	kernel_bench b;

	make_kv(&b, &c);
	ck_assert(bench_accepts(&b, k));
	b.in[KNIT_KV_V].t.strides[2] = 2;
	ck_assert(!bench_accepts(&b, k));
	b.in[KNIT_KV_V].t.strides[2] = 1;
	b.in[KNIT_KV_V].t.dims[2] = 16; /* values that end inside a block */
	ck_assert(!bench_accepts(&b, k));
	bench_free(&b);
}
END_TEST

/* ---- map --------------------------------------------------------------------------------------------------------- */

START_TEST(map_is_its_steps) {
	static const knit_map_instr programs[][KNIT_MAP_STEPS] = {
		{{KNIT_MAP_ADD, 0, 1, 0}, {KNIT_MAP_SILU, 4, 0, 0}},
		{{KNIT_MAP_SCALE, 0, 0, 0.3f}, {KNIT_MAP_MUL, 4, 2, 0}, {KNIT_MAP_ADD, 5, 1, 0}, {KNIT_MAP_GELU, 6, 0, 0}},
		{{KNIT_MAP_SILU, 1, 0, 0}, {KNIT_MAP_MUL, 4, 0, 0}, {KNIT_MAP_ADD, 5, 2, 0}, {KNIT_MAP_ADD, 6, 3, 0},
	     {KNIT_MAP_MUL, 7, 7, 0}, {KNIT_MAP_ADD, 8, 4, 0}},
		{{KNIT_MAP_GELU, 0, 0, 0}},
	};
	static const int64_t columns[] = {1, 7, 255, 300, 5000};
	const knit_cpu_kernel *const kernel = bench_kernel(KNIT_OP_MAP, 0);

	for (int i = 0; i < 60; ++i) {
		const int64_t dims[] = {1 + i % 3 * 4, columns[i % 5]};
		kernel_bench b = {.op = KNIT_OP_MAP, .seed = (uint64_t)i};
		float *steps[KNIT_MAP_STEPS] = {0};
		const knit_map_instr *const program = programs[i % 4];

		for (int x = 0; x < KNIT_MAP_STEPS && program[x].op; ++x)
			b.attr[x].i = knit__map_encode(program[x]);
		bench_in(&b, 0, KNIT_F32, 2, dims, 2, 0, 0);
		bench_in(&b, 1, KNIT_F32, 2, dims, 2, 0, 0);
		bench_in(&b, 2, floats[i % 3], 1, dims + 1, 2, 0, 0);
		bench_in(&b, 3, KNIT_F32, 2, dims, 2, 0, 0);
		bench_out(&b, KNIT_F32, 2, dims);
		ck_assert(bench_accepts(&b, kernel));
		bench_run(&b, kernel, i % 2, 3);

		/* the same instructions as steps of their own */
		const int64_t count = bench_count(&b.out);
		int last = 0;
		for (int x = 0; x < KNIT_MAP_STEPS && program[x].op; ++x) {
			static const uint16_t ops[] = {0, KNIT_OP_ADD, KNIT_OP_MUL, KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU};
			kernel_bench step = {.op = ops[program[x].op], .in_count = program[x].op <= KNIT_MAP_MUL ? 2 : 1};
			const uint8_t regs[] = {program[x].a, program[x].b};

			step.attr[0].f = (double)program[x].s;
			for (uint32_t o = 0; o < step.in_count; ++o) {
				step.in[o].t = b.in[regs[o] < KNIT_MAP_OPERANDS ? regs[o] : 0].t;
				if (regs[o] >= KNIT_MAP_OPERANDS)
					step.in[o].t.data = (char *)steps[regs[o] - KNIT_MAP_OPERANDS];
			}
			bench_out(&step, KNIT_F32, 2, dims);
			bench_run(&step, bench_kernel(step.op, 0), 0, 1);
			steps[x] = copy_of(step.out.data, (size_t)count * 4);
			last = x;
			step.in_count = 0;
			bench_free(&step);
		}
		ck_assert_msg(memcmp(steps[last], b.out.data, b.out_bytes) == 0, "map: program %d differs from its steps", i % 4);

		double *const ref = bench_reference(&b, false);
		for (int64_t e = 0; e < count; ++e)
			ck_assert_double_le(fabs((double)floats_of(&b.out)[e] - ref[e]), 1e-4 * (1 + fabs(ref[e])));
		free(ref);

		/* in place of operand 0 */
		float *const apart = copy_of(b.out.data, b.out_bytes);
		char *const own = b.out.data;
		b.out.data = b.in[0].t.data;
		b.writes_state = true;
		bench_run(&b, kernel, 1, 2);
		ck_assert_mem_eq(apart, b.out.data, b.out_bytes);
		b.out.data = own;
		free(apart);
		for (int x = 0; x < KNIT_MAP_STEPS; ++x)
			free(steps[x]);
		bench_free(&b);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {lora_within_the_bound, lora_has_the_bits_of_its_steps, lora_rows_are_the_same_alone,
	                              slots_are_apart, lora_keeps_nan_in_its_row, group_is_its_members, glu_is_its_steps,
	                              glu_rows_are_the_same_alone, glu_agrees_with_the_reference, what_the_linears_refuse, add_rms_norm_is_its_steps,
	                              kv_write_is_its_steps, kv_write_leaves_out_what_is_not_there, what_kv_write_refuses,
	                              map_is_its_steps};

	return suite_run("cpu fused", tests, (int)(sizeof tests / sizeof tests[0]));
}
