/* The CPU kernels other than linear and attention, against the references; the table; the conversions they share. */
#include "../../backends/cpu/kernels/exp.h"
#include "../../ops/quant.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- shared ------------------------------------------------------------------------------------------------------ */

/* Output against the reference, within relative * |reference| + absolute; NaN where the reference has one. */
static void check(kernel_bench *b, int64_t piece, double relative, double absolute) {
	const knit_cpu_kernel *k;

	for (size_t n = 0; (k = bench_kernel(b->op, n)); ++n) {
		ck_assert_msg(bench_accepts(b, k), "%s refuses", k->name);
		double *const ref = bench_reference(b, false);

		bench_run(b, k, piece, 3);
		double *const got = bench_values(&b->out);
		for (int64_t i = 0; i < bench_count(&b->out); ++i)
			if (!(fabs(got[i] - ref[i]) <= relative * fabs(ref[i]) + absolute || got[i] == ref[i] ||
			      (isnan(got[i]) && isnan(ref[i]))))
				ck_abort_msg("%s: output %d is %.9g, needs %.9g", k->name, (int)i, got[i], ref[i]);
		free(ref);
		free(got);
	}
	ck_assert_msg(bench_kernel(b->op, 0) != NULL, "no kernel");
}

/* The same bits for every cut of the work. */
static void check_cuts(kernel_bench *b) {
	const knit_cpu_kernel *k;

	for (size_t n = 0; (k = bench_kernel(b->op, n)); ++n) {
		char *const first = malloc(b->out_bytes);

		bench_run(b, k, 0, 1);
		memcpy(first, b->out.data, b->out_bytes);
		for (int64_t piece = 1; piece < 4; ++piece) {
			bench_run(b, k, piece, 4);
			ck_assert_msg(memcmp(first, b->out.data, b->out_bytes) == 0, "%s: pieces of %d differ", k->name, (int)piece);
		}
		free(first);
	}
}

static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16};
static const int64_t lengths[] = {1, 2, 7, 8, 31, 32, 33, 97, 256, 257, 4096, 5003};
#define LENGTHS (int)(sizeof lengths / sizeof lengths[0])

static const double specials[] = {0.0, -0.0, 1e-40, -1e-40, 1e-30, 3e38, -3e38, 88.7, -88.7, -104.0, 90, -90, 17, -17};
#define SPECIALS (int)(sizeof specials / sizeof specials[0])

/* ---- the table and the conversions ------------------------------------------------------------------------------- */

/* Every op that a builder call can make; those after argmax are made by passes, which ask first. */
START_TEST(table_is_complete) {
	for (uint16_t op = KNIT_OP_NONE + 1; op <= KNIT_OP_ARGMAX; ++op)
		ck_assert_msg(bench_kernel(op, 0) != NULL, "no kernel for %s", knit__op(op)->name);
	for (uint32_t i = 0; i < knit__cpu_kernel_count; ++i) {
		ck_assert_ptr_nonnull(knit__cpu_kernels[i]->name);
		ck_assert_ptr_nonnull(knit__cpu_kernels[i]->phases[0].run);
		for (uint32_t j = 0; j < i; ++j) {
			ck_assert_str_ne(knit__cpu_kernels[i]->name, knit__cpu_kernels[j]->name);
			if (knit__cpu_kernels[i]->op == knit__cpu_kernels[j]->op) /* the fastest comes first */
				ck_assert_int_le(knit__cpu_kernels[i]->isa, knit__cpu_kernels[j]->isa);
		}
	}
}
END_TEST

START_TEST(halves_agree_with_the_reference) {
	for (uint32_t h = 0; h < 0x10000; ++h) {
		const float a = knit__half_load((uint16_t)h), b = knit__f16_to_f32((uint16_t)h);

		if (knit__as_bits(a) != knit__as_bits(b) && !(isnan(a) && isnan(b)))
			ck_abort_msg("f16 %#x", h);
	}
	/* every exponent and sign, all bits below and around the place where f16 and bf16 are cut */
	for (uint64_t i = 0; i < 0x10000 * 40; ++i) {
		const uint32_t low[] = {0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001, 0xffff};
		const uint32_t bits = (uint32_t)(i / 40) << 16 | (low[i % 10] ^ (uint32_t)(i / 10 % 4) << 13);
		const float f = knit__as_float(bits);

		const bool good = isnan(f) ? isnan(knit__half_load(knit__half_store(f))) &&
		                                 isnan(knit__brain_load(knit__brain_store(f)))
		                           : knit__half_store(f) == knit__f32_to_f16(f) &&
		                                 knit__brain_store(f) == knit__f32_to_bf16(f);
		if (!good)
			ck_abort_msg("f16 or bf16 of %a", (double)f);
	}
}
END_TEST

START_TEST(exp_within_2_ulp) {
	double worst = 0;

	for (int64_t i = -10500000; i <= 8900000; i += 97) {
		const float x = (float)i * 1e-5f, got = knit__expf(x);
		const double ref = exp((double)x);
		int exponent;

		if (ref > 3.4028235e38 && isinf(got))
			continue;
		frexp(ref, &exponent);
		const double ulp = ldexp(1, exponent - 24 < -149 ? -149 : exponent - 24), error = fabs((double)got - ref) / ulp;

		worst = error > worst ? error : worst;
	}
	ck_assert_msg(worst <= 2, "off by %g ulp", worst);
	ck_assert(knit__expf(-INFINITY) == 0 && isinf(knit__expf(INFINITY)) && isnan(knit__expf(NAN)));
	ck_assert(knit__expf(0) == 1 && knit__expf(-0.0f) == 1);
}
END_TEST

/* ---- elementwise ------------------------------------------------------------------------------------------------- */

START_TEST(pairs) {
	for (int i = 0; i < LENGTHS * 2; ++i) {
		const int64_t n = lengths[i % LENGTHS], dims[] = {3, n};

		for (int c = 0; c < 4; ++c) { /* same shape, or a vector of each type */
			kernel_bench b = {.op = i < LENGTHS ? KNIT_OP_ADD : KNIT_OP_MUL, .seed = (uint64_t)n};

			bench_in(&b, 0, KNIT_F32, 2, dims, 10, 0, 0);
			bench_in(&b, 1, c == 3 ? KNIT_F32 : floats[c], c == 3 ? 2 : 1, c == 3 ? dims : &n, 10, 0, 0);
			bench_out(&b, KNIT_F32, 2, dims);
			bench_set(&b, 0, n, (double)NAN);
			check(&b, c % 2, 0x1p-23, 0);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(single_operands) {
	static const uint16_t ops[] = {KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU};

	for (int i = 0; i < 3; ++i) {
		for (int l = 0; l < LENGTHS; ++l) {
			const int64_t n = lengths[l];
			kernel_bench b = {.op = ops[i], .seed = (uint64_t)n, .attr = {{.f = 0.3f}}};

			bench_in(&b, 0, KNIT_F32, 3, (int64_t[]){2, 1, n}, 12, 0, 0);
			bench_out(&b, KNIT_F32, 3, (int64_t[]){2, 1, n});
			for (int64_t j = 0; j < SPECIALS && j < n; ++j)
				bench_set(&b, 0, j, specials[j]);
			bench_set(&b, 0, 2 * n - 1, (double)NAN);
			/* gelu of a large negative number is a tiny one: the rounding of exp's argument shows there, and in the
			 * reference that of 1 + tanh */
			check(&b, l % 2, ops[i] == KNIT_OP_GELU ? 4e-5 : 4e-7, ops[i] == KNIT_OP_GELU ? 2e-15 : 1e-37);
			check_cuts(&b);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(in_place) {
	static const uint16_t ops[] = {KNIT_OP_ADD,  KNIT_OP_MUL,      KNIT_OP_SCALE,      KNIT_OP_SILU,
	                               KNIT_OP_GELU, KNIT_OP_RMS_NORM, KNIT_OP_LAYER_NORM, KNIT_OP_SOFTMAX, KNIT_OP_ROPE};

	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; ++i) {
		const int64_t dims[] = {11, 5, 302}, n = 302;
		const int32_t pos[11] = {0, 3, 9, 1000, 5, 6, 7, 8, 1, 2, 4};
		kernel_bench b = {.op = ops[i], .attr = {{.f = 1.5}, {.i = 300}, {.i = (int64_t)(i % 2)}}};
		const knit_cpu_kernel *const k = bench_kernel(ops[i], 0);
		const bool vectors = ops[i] == KNIT_OP_RMS_NORM || ops[i] == KNIT_OP_LAYER_NORM;

		ck_assert(knit__op(ops[i])->flags & KNIT_OP_INPLACE);
		bench_in(&b, 0, KNIT_F32, 3, dims, 3, 0, 0);
		if (vectors)
			bench_in(&b, 1, KNIT_F32, 1, &n, 1, 0, 0);
		else if (ops[i] == KNIT_OP_ROPE)
			bench_indices(&b, 1, 11, pos);
		else
			bench_in(&b, 1, KNIT_F32, 3, dims, 3, 0, 0);
		bench_out(&b, KNIT_F32, 3, dims);
		bench_run(&b, k, 1, 2);
		char *const apart = b.out.data;

		char *const saved = malloc(b.out_bytes);
		memcpy(saved, b.in[0].t.data, b.out_bytes);
		b.out.data = b.in[0].t.data;
		b.writes_state = true; /* leaves the output as it is before the run */
		bench_run(&b, k, 1, 2);
		ck_assert_msg(memcmp(apart, b.out.data, b.out_bytes) == 0, "%s differs in place", k->name);
		free(saved);
		bench_free(&b);
	}
}
END_TEST

/* ---- rows -------------------------------------------------------------------------------------------------------- */

START_TEST(norms) {
	for (int i = 0; i < LENGTHS * 2; ++i) {
		for (int t = 0; t < 3; ++t) {
			const int64_t n = lengths[i % LENGTHS];
			const bool layer = i >= LENGTHS;
			kernel_bench b = {.op = layer ? KNIT_OP_LAYER_NORM : KNIT_OP_RMS_NORM, .seed = (uint64_t)n,
			                  .attr = {{.f = 1e-5f}}};

			bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){6, n}, 2, t, 0);
			bench_in(&b, 1, floats[t], 1, &n, 1, 0, 0);
			if (layer && t != 1)
				bench_in(&b, 2, floats[2 - t], 1, &n, 1, 0, 0);
			else if (layer)
				b.in_count = 3; /* no bias */
			bench_out(&b, KNIT_F32, 2, (int64_t[]){6, n});
			for (int64_t j = 0; j < n; ++j) {
				bench_set(&b, 0, j, (double)(j % 9 - 4) * 1e30); /* squares overflow f32 */
				bench_set(&b, 0, n + j, (double)(j % 9 - 4) * 1e-40);
				bench_set(&b, 0, 2 * n + j, 0);
				bench_set(&b, 0, 3 * n + j, 1000 + (double)(j % 2));
			}
			bench_set(&b, 0, 4 * n + n / 2, (double)NAN);
			check(&b, t, 4e-7, 3e-7);
			check_cuts(&b);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(softmax) {
	for (int i = 0; i < LENGTHS; ++i) {
		const int64_t n = lengths[i];
		kernel_bench b = {.op = KNIT_OP_SOFTMAX, .seed = (uint64_t)n};

		bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){6, n}, 20, 3, 0);
		bench_out(&b, KNIT_F32, 2, (int64_t[]){6, n});
		for (int64_t j = 0; j < n; ++j) {
			bench_set(&b, 0, n + j, (double)-INFINITY);
			bench_set(&b, 0, 2 * n + j, j == n / 2 ? 3e38 : -3e38);
			bench_set(&b, 0, 3 * n + j, 7);
		}
		bench_set(&b, 0, 4 * n + n / 2, (double)NAN);
		bench_set(&b, 0, 5 * n + n / 2, (double)-INFINITY);
		check(&b, i % 3, 4e-6, 1e-37); /* differences of up to 40 round by 2e-6 */
		check_cuts(&b);
		bench_free(&b);
	}
}
END_TEST

START_TEST(argmax) {
	for (int i = 0; i < LENGTHS; ++i) {
		const int64_t n = lengths[i], rows = 40;
		kernel_bench b = {.op = KNIT_OP_ARGMAX, .seed = (uint64_t)n};

		bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){rows, n}, 20, 1, 0);
		bench_out(&b, KNIT_I32, 1, &rows);
		for (int64_t j = 0; j < n; ++j) {
			bench_set(&b, 0, 1 * n + j, 3);
			bench_set(&b, 0, 2 * n + j, (double)NAN);
			bench_set(&b, 0, 3 * n + j, (double)-INFINITY);
			bench_set(&b, 0, 4 * n + j, j % 2 ? 5 : (double)NAN);
			bench_set(&b, 0, 5 * n + j, j < n / 2 ? (double)NAN : (double)-INFINITY);
			bench_set(&b, 0, 6 * n + j, j % 300 == 0 ? 5 : -5);
		}
		for (int64_t r = 7; r < rows; ++r) /* the largest in every lane */
			bench_set(&b, 0, r * n + (r * 37) % n, 50);
		check(&b, 1, 0, 0);
		check_cuts(&b);
		bench_free(&b);
	}
}
END_TEST

START_TEST(rope) {
	static const int64_t dims[] = {2, 8, 34, 64, 130, 256};
	const int32_t pos[] = {0, 1, 7, 511, 16383, 131071, 5};

	for (int i = 0; i < 24; ++i) {
		const int64_t dim = dims[i % 6], tokens = 7, rotary = i % 3 == 2 && dim > 4 ? dim / 2 / 2 * 2 : dim;
		const double theta = i % 2 ? 1e6 : 10000;
		kernel_bench b = {.op = KNIT_OP_ROPE, .seed = (uint64_t)i,
		                  .attr = {{.f = theta}, {.i = i == 5 ? 0 : rotary}, {.i = i / 6 % 2}}};

		bench_in(&b, 0, KNIT_F32, 3, (int64_t[]){tokens, 5, dim}, 1, i % 4, 0);
		bench_indices(&b, 1, tokens, pos);
		bench_out(&b, KNIT_F32, 3, (int64_t[]){tokens, 5, dim});
		check(&b, i % 3, 0, 2.5e-7);
		check_cuts(&b);
		bench_free(&b);
	}
}
END_TEST

/* ---- moving bytes ------------------------------------------------------------------------------------------------ */

START_TEST(gather) {
	static const knit_dtype tables[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};
	const int32_t ids[] = {0, 16, 3, 3, 17, -1, INT32_MAX, INT32_MIN};

	for (int t = 0; t < 7; ++t) {
		for (int i = 1; i < 4; ++i) {
			const int64_t block = knit__dtype_info(tables[t])->block_elements;
			const int64_t n = t > 2 ? block * i : 33 * i, gap = t == 0 ? 2 : t > 2 ? block : 0;
			kernel_bench b = {.op = KNIT_OP_GATHER, .seed = (uint64_t)n};

			bench_in(&b, 0, tables[t], 2, (int64_t[]){17, n}, 1, gap, t ? 2 : 0);
			bench_indices(&b, 1, 8, ids);
			bench_out(&b, KNIT_F32, 2, (int64_t[]){8, n});
			check(&b, i - 1, 0, 0);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(append) {
	const int32_t seq[] = {0, 1, 1, 0, 2, -1, 0, 0}, pos[] = {0, 0, 4, 4, 0, 0, 5, -1}; /* the last four lie outside */

	for (int t = 0; t < 3; ++t) {
		for (int rank = 3; rank <= 4; ++rank) {
			const int64_t cells[] = {2, 5, rank == 4 ? 3 : 37, 37};
			const int64_t row[] = {8, cells[2], 37};
			kernel_bench b = {.op = KNIT_OP_STATE_APPEND, .seed = (uint64_t)rank};
			const knit_cpu_kernel *k;

			for (size_t n = 0; (k = bench_kernel(b.op, n)); ++n) {
				bench_in(&b, 0, floats[t], rank, cells, 9, 0, 0);
				bench_in(&b, 1, KNIT_F32, rank - 1, row, 9, 5, 0);
				bench_indices(&b, 2, 8, seq);
				bench_indices(&b, 3, 8, pos);
				bench_out_state(&b);
				ck_assert(bench_accepts(&b, k));
				double *const ref = bench_reference(&b, false);

				bench_run(&b, k, 3, 2);
				double *const got = bench_values(&b.out);
				ck_assert(memcmp(ref, got, (size_t)bench_count(&b.out) * sizeof *ref) == 0);
				free(ref);
				free(got);
				bench_free(&b);
				b = (kernel_bench){.op = KNIT_OP_STATE_APPEND, .seed = (uint64_t)rank};
			}
		}
	}
}
END_TEST

START_TEST(copies) {
	static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_I32};

	for (int t = 0; t < 4; ++t) {
		for (int turn = 0; turn < 6; ++turn) {
			const int64_t dims[] = {4, 7, 5, 33};
			const int a = turn % 3, c = turn < 3 ? 3 : turn - 3;
			kernel_bench b = {.op = KNIT_OP_COPY, .seed = 3};

			bench_in(&b, 0, types[t], 4, dims, 9, turn, 0);
			knit_cpu_tensor *const x = &b.in[0].t;
			const int64_t dim = x->dims[a], stride = x->strides[a];

			x->dims[a] = x->dims[c], x->strides[a] = x->strides[c];
			x->dims[c] = dim, x->strides[c] = stride;
			bench_out(&b, types[t], 4, x->dims);
			check(&b, turn % 3, 0, 0);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(casts) {
	for (int i = 0; i < 9; ++i) {
		for (int l = 0; l < LENGTHS; ++l) {
			const int64_t n = lengths[l];
			kernel_bench b = {.op = KNIT_OP_CAST, .seed = (uint64_t)n, .attr = {{.i = floats[i / 3]}}};

			bench_in(&b, 0, floats[i % 3], 2, (int64_t[]){3, n}, 9, 2, 0);
			bench_out(&b, floats[i / 3], 2, (int64_t[]){3, n});
			for (int64_t j = 0; j < SPECIALS && j < n; ++j)
				bench_set(&b, 0, j, specials[j]);
			bench_set(&b, 0, 2 * n, (double)NAN);
			bench_set(&b, 0, 3 * n - 1, (double)INFINITY);
			check(&b, l % 2, 0, 0);
			bench_free(&b);
		}
	}
}
END_TEST

START_TEST(nothing_to_do) {
	static const uint16_t ops[] = {KNIT_OP_ADD, KNIT_OP_SILU, KNIT_OP_SOFTMAX, KNIT_OP_COPY};

	for (int i = 0; i < 4; ++i) {
		kernel_bench b = {.op = ops[i]};

		bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){0, 8}, 1, 0, 0);
		bench_in(&b, 1, KNIT_F32, 2, (int64_t[]){0, 8}, 1, 0, 0);
		bench_out(&b, KNIT_F32, 2, (int64_t[]){0, 8});
		check(&b, 0, 0, 0);
		bench_free(&b);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {table_is_complete, halves_agree_with_the_reference, exp_within_2_ulp, pairs,
	                              single_operands, in_place, norms, softmax, argmax, rope, gather, append, copies, casts,
	                              nothing_to_do};

	return suite_run("cpu kernels", tests, (int)(sizeof tests / sizeof tests[0]));
}
