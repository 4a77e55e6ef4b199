/* The steps of several weights on the CPU, linear_group and glu: every variant of this machine, bit for bit against a
 * linear_lora of each weight and against its rows alone, for any cut of the work, and glu against the reference. */
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
			lora_factor(b, w + 1, floats[(types + i) % 3], slots, ranks[i], k);
			lora_factor(b, w + 2, floats[i % 3], slots, columns[i], ranks[i]);
		}
		if (i == 0)
			bench_out(b, KNIT_F32, 2, (int64_t[]){rows, columns[i]});
		else
			bench_out_more(b, KNIT_F32, 2, (int64_t[]){rows, columns[i]});
	}
	if (slots)
		lora_choice(b, KNIT_GROUP_ADAPTERS, KNIT_GROUP_SEQ, rows, slots);
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
					bench_run(&one, bench_like(&one, k), 0, 1);
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
		lora_factor(b, (uint32_t)(KNIT_GLU_AG + 2 * i), floats[(loras + i) % 3], slots, 8 + i, k);
		lora_factor(b, (uint32_t)(KNIT_GLU_BG + 2 * i), floats[i], slots, n, 8 + i);
	}
	if (slots)
		lora_choice(b, KNIT_GLU_ADAPTERS, KNIT_GLU_SEQ, rows, slots);
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
	bench_run(half, bench_like(half, k), 0, 1);
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
		         bench_whole(weights[i / 8], 96), i % 2 ? 75 : 16,
		         i % 4, i % 8 == 5 ? 4 : 0);
		for (size_t v = 0; (k = bench_kernel(KNIT_OP_GLU, v)); ++v) {
			ck_assert_msg(bench_accepts(&b, k), "%s refuses", k->name);
			bench_run(&b, k, 1, 3);
			run_half(&b, k, KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_SG, &gate);
			run_half(&b, k, KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_SU, &up);
			run_step(&act, b.attr[KNIT_GLU_ACT].i == KNIT_GLU_SILU ? KNIT_OP_SILU : KNIT_OP_GELU, &gate.out, NULL);
			run_step(&product, KNIT_OP_MUL, &act.out, &up.out);
			for (int64_t e = 0; e < bench_count(&b.out); ++e) {
				const double want = (double)bench_floats(&product.out)[e], got = (double)bench_floats(&b.out)[e];

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

		make_glu(&all, weights[w], weights[w], 51, bench_whole(weights[w], 1120), n, 3, w % 2 ? 4 : 0);
		memcpy(one.attr, all.attr, sizeof one.attr);
		bench_out(&one, KNIT_F32, 2, (int64_t[]){1, n});
		for (size_t v = 0; (k = bench_kernel(KNIT_OP_GLU, v)); ++v) {
			bench_run(&all, k, 0, 1);
			float *const first = bench_copy(all.out.data, all.out_bytes);

			bench_run(&all, k, 1, 4);
			ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces differ", k->name);
			for (int64_t r = 0; r < 51; r += 5) {
				bench_take_row(&one, &all, r, per_row, 2);
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
				ck_assert_msg(fabs((double)bench_floats(&b.out)[e] - ref[e]) <= 2e-4 + 1e-5 * fabs(ref[e]),
				              "%s: output %d is %.9g, needs %.9g", k->name, (int)e, (double)bench_floats(&b.out)[e], ref[e]);
		}
		free(ref);
		bench_free(&b);
	}
}
END_TEST

START_TEST(what_glu_refuses) {
	kernel_bench b;

	make_glu(&b, KNIT_Q4_0, KNIT_Q4_0, 2, 64, 8, 3, 0);
	ck_assert(bench_accepts(&b, bench_kernel(KNIT_OP_GLU, 0)));
	b.in[KNIT_GLU_WU].t.strides[0] = 80; /* rows that start inside a block */
	ck_assert(!bench_accepts(&b, bench_kernel(KNIT_OP_GLU, 0)));
	bench_free(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {group_is_its_members, glu_is_its_steps, glu_rows_are_the_same_alone,
	                              glu_agrees_with_the_reference, what_glu_refuses};

	return suite_run("cpu glu", tests, (int)(sizeof tests / sizeof tests[0]));
}
