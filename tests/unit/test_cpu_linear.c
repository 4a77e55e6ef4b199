/* linear on the CPU: every variant of this machine against the reference, and bit for bit against itself. */
#include "../../ops/quant.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype weights[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};
#define WEIGHTS (int)(sizeof weights / sizeof weights[0])

static bool blocks(knit_dtype t) { return knit__dtype_info(t)->is_block; }
static int64_t block_of(knit_dtype t) { return knit__dtype_info(t)->block_elements; }

static void make(kernel_bench *b, knit_dtype w, int64_t rows, int64_t k, int64_t n, int64_t gap, size_t shift) {
	*b = (kernel_bench){.op = KNIT_OP_LINEAR, .seed = (uint64_t)(rows * 31 + k * 7 + n)};
	bench_in(b, 0, KNIT_F32, 2, (int64_t[]){rows, k}, 1, gap, 0);
	bench_in(b, 1, w, 2, (int64_t[]){n, k}, 1, 0, shift);
	bench_out(b, KNIT_F32, 2, (int64_t[]){rows, n});
}

static void check_one(kernel_bench *b, const knit_cpu_kernel *k, const double *ref, const double *bound,
                      int64_t piece) {
	bench_run(b, k, piece, 3);
	for (int64_t i = 0; i < bench_count(&b->out); ++i) {
		const double got = (double)bench_floats(&b->out)[i];

		if (!(fabs(got - ref[i]) <= bound[i]))
			ck_abort_msg("%s rows %d k %d n %d: output %d is %.9g, needs %.9g within %.3g", k->name, (int)b->out.dims[0],
			             (int)b->in[1].t.dims[1], (int)b->out.dims[1], (int)i, got, ref[i], bound[i]);
	}
}

/* All kernels of this machine that fit; returns how many. */
static int check(kernel_bench *b, int64_t piece, bool exact_x) {
	double *const ref = bench_reference(b, false), *const bound = bench_reference(b, true);
	double *const x = bench_values(&b->in[0].t), *const w = bench_values(&b->in[1].t);
	const int64_t n = b->out.dims[1], k = b->in[1].t.dims[1];
	const knit_cpu_kernel *kernel;
	int ran = 0;

	for (int64_t i = 0; i < bench_count(&b->out); ++i) {
		bound[i] = 8 * 0x1p-24 * (4 + log2((double)k)) * bound[i] + 1e-37;
		if (blocks(b->in[1].t.dtype) && !exact_x)
			bound[i] += bench_quantising_bound(x + i / n * k, w + i % n * k, k);
	}
	for (; (kernel = bench_accepting(b, (size_t)ran)); ++ran)
		check_one(b, kernel, ref, bound, piece);
	free(ref);
	free(bound);
	free(x);
	free(w);
	return ran;
}

START_TEST(every_size_within_the_bound) {
	static const int64_t ks[] = {1, 15, 31, 32, 33, 96, 97, 1024, 1031, 2080}, ns[] = {1, 7, 8, 17, 67, 131},
						 row_counts[] = {1, 2, 3, 4, 5, 9, 50};
	kernel_bench b;
	int ran = 0;

	for (int t = 0; t < WEIGHTS; ++t) {
		for (int i = 0; i < 10; ++i) {
			for (int j = 0; j < 6; ++j) {
				int64_t rows = row_counts[(i + j * 3 + t) % 7];

				if (rows * ks[i] * ns[j] > 1000000) /* the reference takes its time */
					rows = 5;
				if (blocks(weights[t]) && ks[i] % 32 != 0)
					continue;
				if (rows * bench_whole(weights[t], ks[i]) * ns[j] > 1000000)
					rows = 5;
				make(&b, weights[t], rows, bench_whole(weights[t], ks[i]), ns[j], j % 2 ? 0 : 5, weights[t] == KNIT_F32 ? 4 : 2);
				ran += check(&b, j, false);
				bench_free(&b);
			}
		}
	}
	ck_assert_int_gt(ran, 200);
}
END_TEST

/* One row, rows together, any cut of the work: the same bits. */
START_TEST(a_row_is_the_same_alone) {
	/* the last with units of many columns, of the kernels for many rows */
	static const int64_t ks[] = {32, 172, 2080, 96}, ns[] = {5, 131, 701};
	const int64_t rows = 53;
	kernel_bench all, one;
	const knit_cpu_kernel *kernel;

	for (int c = 0; c < WEIGHTS * 7; ++c) {
		const knit_dtype t = weights[c / 7];
		const int64_t n = ns[c % 7 / 3], k_at = ks[n == 701 ? 3 : c % 7 % 3];
		const int64_t k = blocks(t) && k_at == 172 ? bench_whole(t, 160) : bench_whole(t, k_at);

		make(&all, t, rows, k, n, 3, 2 * (t != KNIT_F32));
		make(&one, t, 1, k, n, 0, 0);
		for (size_t v = 0; (kernel = bench_accepting(&all, v)); ++v) {
			float *const first = malloc(all.out_bytes);

			bench_run(&all, kernel, 0, 1);
			memcpy(first, all.out.data, all.out_bytes);
			for (int64_t piece = 1; piece < 8; piece += 3) {
				bench_run(&all, kernel, piece, 4);
				ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d units differ",
				              kernel->name, (int)piece);
			}
			for (int64_t r = 0; r < rows; r += 9) {
				const knit_cpu_tensor own_x = one.in[0].t, own_w = one.in[1].t;

				one.in[0].t.data = all.in[0].t.data + r * all.in[0].t.strides[0] * 4;
				one.in[1].t = all.in[1].t;
				bench_run(&one, kernel, 0, 1);
				one.in[0].t = own_x;
				one.in[1].t = own_w;
				ck_assert_msg(memcmp(first + r * n, one.out.data, (size_t)n * 4) == 0, "%s k %d n %d: row %d differs",
				              kernel->name, (int)k, (int)n, (int)r);
			}
			free(first);
		}
		bench_free(&all);
		bench_free(&one);
	}
}
END_TEST

/* Where x is a multiple of a step by blocks, 8 bits hold it and only float rounding is left. */
START_TEST(blocks_are_exact_on_integers) {
	const int64_t rows = 7, n = 37;
	kernel_bench b;

	for (int t = 3; t < WEIGHTS; ++t) {
		const int64_t k = bench_whole(weights[t], 352);

		make(&b, weights[t], rows, k, n, 0, 2);
		for (int64_t i = 0; i < rows * k; ++i)
			bench_set(&b, 0, i, ldexp((double)(i % 32 == i / 32 % 32 ? 127 : i * 7919 % 255 - 127), (int)(i / 32 % 9) - 4));
		ck_assert_int_gt(check(&b, 1, true), 0);
		bench_free(&b);
	}
}
END_TEST

/* All values of the weights' bytes, the extremes of 8-bit products included. */
START_TEST(blocks_of_extreme_bytes) {
	const int64_t rows = 5, n = 16;
	kernel_bench b;

	for (int t = 3; t < WEIGHTS; ++t) {
		const int64_t k = bench_whole(weights[t], 96), block = block_of(weights[t]), bytes = knit__dtype_info(weights[t])->block_bytes;

		make(&b, weights[t], rows, k, n, 0, 0);
		for (int64_t i = 0; i < n * k / block; ++i) {
			const uint16_t one = 0x3c00;
			char *const at = b.in[1].t.data + i * bytes;

			for (int64_t j = 0; j < bytes; ++j)
				at[j] = (char)(i % 3 == 0 ? 0x80 : i % 3 == 1 ? 0x7f : (i * 37 + j * 11) & 0xff);
			memcpy(weights[t] == KNIT_Q6_K ? at + 208 : at, &one, 2);
			if (weights[t] == KNIT_Q4_K)
				memcpy(at + 2, &one, 2);
		}
		for (int64_t i = 0; i < rows * k; ++i)
			bench_set(&b, 0, i, i / k == 0 ? 127 : i / k == 1 ? -127 : i % 2 ? 127 : -127);
		ck_assert_int_gt(check(&b, 0, true), 0);
		bench_free(&b);
	}
}
END_TEST

/* NaN and infinity stay in their rows; tiny and huge blocks of x keep their size. */
START_TEST(special_numbers) {
	const int64_t rows = 6, n = 19;
	kernel_bench b;
	const knit_cpu_kernel *kernel;

	for (int t = 0; t < WEIGHTS; ++t) {
		const int64_t k = bench_whole(weights[t], 160);

		make(&b, weights[t], rows, k, n, 0, 0);
		for (int64_t i = 0; i < k; ++i) {
			bench_set(&b, 0, 0 * k + i, (double)(i % 5) * 1e-39);
			bench_set(&b, 0, 1 * k + i, (double)(i % 7 - 3) * 1e30);
			bench_set(&b, 0, 2 * k + i, 0);
		}
		bench_set(&b, 0, 3 * k + 70, (double)NAN);
		bench_set(&b, 0, 4 * k + k - 1, (double)INFINITY);
		for (size_t v = 0; (kernel = bench_accepting(&b, v)); ++v) {
			double *const ref = bench_reference(&b, false), *const sizes = bench_reference(&b, true);

			bench_run(&b, kernel, 0, 1);
			for (int64_t i = 0; i < rows * n; ++i) {
				const double got = (double)bench_floats(&b.out)[i];

				if (i / n == 3)
					ck_assert_msg(isnan(got), "%s: NaN is lost", kernel->name);
				else if (i / n == 4)
					ck_assert_msg(!isfinite(got), "%s: an infinity is lost", kernel->name);
				else
					ck_assert_msg(fabs(got - ref[i]) <= 0.02 * sizes[i] + 1e-42, "%s: output %d is %g, needs %g",
					              kernel->name, (int)i, got, ref[i]);
			}
			free(ref);
			free(sizes);
		}
		bench_free(&b);
	}
}
END_TEST

START_TEST(what_is_refused) {
	kernel_bench b;

	make(&b, KNIT_F32, 4, 64, 8, 0, 0);
	ck_assert_ptr_nonnull(bench_accepting(&b, 0));
	b.in[0].t.strides[1] = 2; /* columns of x apart */
	ck_assert_ptr_null(bench_accepting(&b, 0));
	b.in[0].t.strides[1] = 1;
	b.in[0].t.dtype = KNIT_F16;
	ck_assert_ptr_null(bench_accepting(&b, 0));
	b.in[0].t.dtype = KNIT_F32;
	b.in[1].t.strides[1] = 8; /* w transposed */
	ck_assert_ptr_null(bench_accepting(&b, 0));
	bench_free(&b);

	make(&b, KNIT_Q8_0, 4, 64, 8, 0, 0);
	ck_assert_ptr_nonnull(bench_accepting(&b, 0));
	b.in[1].t.strides[0] = 80; /* rows that start inside a block */
	ck_assert_ptr_null(bench_accepting(&b, 0));
	bench_free(&b);
}
END_TEST

/* Leading dimensions that do not lie one after the other. */
START_TEST(rows_of_a_strided_tensor) {
	kernel_bench b = {.op = KNIT_OP_LINEAR, .seed = 5};
	const knit_cpu_kernel *kernel;

	bench_in(&b, 0, KNIT_F32, 3, (int64_t[]){5, 3, 64}, 1, 64, 0);
	b.in[0].t.dims[1] = 2; /* two of the three rows, taken at every token */
	bench_in(&b, 1, KNIT_F32, 2, (int64_t[]){9, 64}, 1, 0, 0);
	bench_out(&b, KNIT_F32, 3, (int64_t[]){5, 2, 9});
	for (size_t v = 0; (kernel = bench_accepting(&b, v)); ++v) {
		double *const ref = bench_reference(&b, false);

		bench_run(&b, kernel, 1, 2);
		for (int i = 0; i < 90; ++i)
			ck_assert_double_le(fabs((double)bench_floats(&b.out)[i] - ref[i]), 1e-5);
		free(ref);
	}
	bench_free(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {every_size_within_the_bound, a_row_is_the_same_alone, blocks_are_exact_on_integers,
	                              blocks_of_extreme_bytes, special_numbers, what_is_refused, rows_of_a_strided_tensor};

	return suite_run("cpu linear", tests, (int)(sizeof tests / sizeof tests[0]));
}
