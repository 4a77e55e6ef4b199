/* Weights in panels on the CPU: packing and reading back, every kernel that takes them against the references and bit for
 * bit against itself. */
#include "../../backends/cpu/kernels/panels.h"
#include "../../graph/fused.h"
#include "../../ops/quant.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype types[] = {KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};

static bool absent(void) {
	kernel_bench b = {.op = KNIT_OP_LINEAR};

	bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){1, 32}, 1, 0, 0);
	bench_in(&b, 1, KNIT_Q8_0, 2, (int64_t[]){1, 32}, 1, 0, 0);
	bench_pack(&b, 1);
	bench_out(&b, KNIT_F32, 2, (int64_t[]){1, 1});
	const bool none = !bench_accepting(&b, 0);

	bench_free(&b);
	if (none)
		printf("SKIP: no kernel of this machine takes weights in panels\n");
	return none;
}

/* ---- the layout -------------------------------------------------------------------------------------------------- */

/* Packing by vectors makes the same bytes. */
static void same_by_vectors(knit_dtype t, int64_t n, int64_t k, const char *file, const char *panels, size_t bytes) {
#if defined(__x86_64__)
	if (!__builtin_cpu_supports("avx2"))
		return;
	/* as large as it must be, so that no byte behind it is touched unseen */
	char *const other = malloc(bytes), *const copy = malloc((size_t)knit__bytes_of(t, n * k));

	memcpy(copy, file, (size_t)knit__bytes_of(t, n * k));
	memset(other, 0xff, bytes);
	knit__panels_pack_avx2(t, n, k, copy, other, (n + 15) / 16 / 2, (n + 15) / 16);
	knit__panels_pack_avx2(t, n, k, copy, other, 0, (n + 15) / 16 / 2);
	ck_assert_mem_eq(other, panels, bytes);
	free(other);
	free(copy);
#else
	(void)t, (void)n, (void)k, (void)file, (void)panels, (void)bytes;
#endif
}

/* Every row comes back with the bits that the file's row has; bytes are counted exactly. */
START_TEST(rows_come_back) {
	static const int64_t rows[] = {1, 15, 16, 17, 50}, columns[] = {32, 64, 96, 544};

	for (int c = 0; c < 4 * 20; ++c) {
		const knit_dtype t = types[c % 4];
		const int64_t n = rows[c / 4 % 5], k = bench_whole(t, columns[c / 20]), bytes = (int64_t)knit__panels_bytes(t, n, k);
		const int64_t plain = knit__bytes_of(t, n * k), padded = (n + 15) / 16 * 16 * ((k + 63) / 64 * 64);
		char *const file = malloc((size_t)plain), *const panels = malloc((size_t)bytes);
		float *const want = malloc((size_t)k * 4), *const got = malloc((size_t)k * 4);

		ck_assert_int_eq(bytes, knit__bytes_of(t, padded) + (t == KNIT_Q6_K ? padded / 256 * 2 : 0));
		for (int64_t i = 0; i < plain; ++i)
			file[i] = (char)(i * 37 + i / 251);
		memset(panels, 0xff, (size_t)bytes);
		/* in two pieces, the last first */
		knit__panels_pack(t, n, k, file, panels, (n + 15) / 16 / 2, (n + 15) / 16);
		knit__panels_pack(t, n, k, file, panels, 0, (n + 15) / 16 / 2);
		same_by_vectors(t, n, k, file, panels, (size_t)bytes);
		for (int64_t r = 0; r < n; ++r) {
			knit__row_to_f32(t, file + r * knit__bytes_of(t, k), want, (size_t)k);
			knit__panels_row(t, panels, k, r, got);
			ck_assert_mem_eq(want, got, (size_t)k * 4);
		}
		free(file);
		free(panels);
		free(want);
		free(got);
	}
}
END_TEST

START_TEST(sizes_beyond_64_bits) {
	ck_assert_uint_eq(knit__panels_bytes(KNIT_Q8_0, INT64_MAX, INT64_MAX - 31), UINT64_MAX);
	ck_assert_uint_eq(knit__panels_bytes(KNIT_Q4_0, 0, 64), 0);
}
END_TEST

/* ---- linear ------------------------------------------------------------------------------------------------------ */

static void make(kernel_bench *b, knit_dtype w, int64_t rows, int64_t k, int64_t n) {
	*b = (kernel_bench){.op = KNIT_OP_LINEAR, .seed = (uint64_t)(rows * 31 + k * 7 + n)};
	bench_in(b, 0, KNIT_F32, 2, (int64_t[]){rows, k}, 1, rows % 2 ? 5 : 0, 0);
	bench_in(b, 1, w, 2, (int64_t[]){n, k}, 1, 0, 0);
	bench_pack(b, 1);
	bench_out(b, KNIT_F32, 2, (int64_t[]){rows, n});
}

/* What rounding x to 8 bits by blocks may add to one output, and rounding in f32. */
static double bound_of(const double *x, const double *w, int64_t k, double size, bool exact_x) {
	const double rounding = 8 * 0x1p-24 * (4 + log2((double)k)) * size + 1e-37;

	return exact_x ? rounding : rounding + bench_quantising_bound(x, w, k);
}

static int check(kernel_bench *b, int64_t piece, bool exact_x) {
	double *const ref = bench_reference(b, false), *const sizes = bench_reference(b, true);
	double *const x = bench_values(&b->in[0].t), *const w = bench_values(&b->in[1].t);
	const int64_t n = b->out.dims[1], k = b->in[1].t.dims[1];
	const knit_cpu_kernel *kernel;
	int ran = 0;

	for (; (kernel = bench_accepting(b, (size_t)ran)); ++ran) {
		bench_run(b, kernel, piece, 3);
		for (int64_t i = 0; i < bench_count(&b->out); ++i) {
			const double got = (double)bench_floats(&b->out)[i];
			const double bound = bound_of(x + i / n * k, w + i % n * k, k, sizes[i], exact_x);

			if (!(fabs(got - ref[i]) <= bound))
				ck_abort_msg("%s rows %d k %d n %d: output %d is %.9g, needs %.9g within %.3g", kernel->name,
				             (int)b->out.dims[0], (int)k, (int)n, (int)i, got, ref[i], bound);
		}
	}
	free(ref);
	free(sizes);
	free(x);
	free(w);
	return ran;
}

START_TEST(linear_within_the_bound) {
	static const int64_t ks[] = {32, 64, 96, 1024, 1056, 2080}, ns[] = {1, 8, 9, 16, 17, 67, 131}, rows[] = {1, 2, 3, 4, 5, 9, 50};
	kernel_bench b;

	if (absent())
		return;
	for (int c = 0; c < 168; ++c) {
		make(&b, types[c % 4], rows[(c + c / 7) % 7], bench_whole(types[c % 4], ks[c / 4 % 6]), ns[c % 7]);
		ck_assert_int_gt(check(&b, c % 4, false), 0);
		bench_free(&b);
	}
}
END_TEST

/* Where x is a multiple of a step by blocks, 8 bits hold it and only float rounding is left; the weights' bytes take all
 * values, the extremes of 8-bit products included. */
START_TEST(extreme_bytes_are_exact) {
	const int64_t rows = 7, n = 37;
	kernel_bench b;

	if (absent())
		return;
	for (int c = 0; c < 8; ++c) {
		const knit_dtype t = types[c % 4];
		const int64_t k = bench_whole(t, 352), block = bench_whole(t, 1), bytes = knit__dtype_info(t)->block_bytes;

		make(&b, t, rows, k, n);
		for (int64_t i = 0; i < n * k / block; ++i) {
			const uint16_t scale = c < 4 ? 0x3c00 : 0x2c00 + i % 900;
			char *const at = b.in[1].t.data + i * bytes;

			for (int64_t j = 0; j < bytes; ++j)
				at[j] = (char)(i % 3 == 0 ? 0x80 : i % 3 == 1 ? 0x7f : (i * 37 + j * 11) & 0xff);
			memcpy(t == KNIT_Q6_K ? at + 208 : at, &scale, 2);
			if (t == KNIT_Q4_K)
				memcpy(at + 2, &scale, 2);
		}
		for (int64_t i = 0; i < rows * k; ++i)
			bench_set(&b, 0, i, c < 4 ? (i / k == 0 ? 127 : i / k == 1 ? -127 : i % 2 ? 127 : -127)
			                          : ldexp((double)(i % 32 == i / 32 % 32 ? 127 : i * 7919 % 255 - 127), (int)(i / 32 % 9) - 4));
		bench_pack(&b, 1);
		ck_assert_int_gt(check(&b, 1, true), 0);
		bench_free(&b);
	}
}
END_TEST

/* One row, rows together, any cut of the work: the same bits. NaN and infinity stay in their rows. */
START_TEST(a_row_is_the_same_alone) {
	kernel_bench all, one;
	const knit_cpu_kernel *kernel;
	const int64_t rows = 53;

	if (absent())
		return;
	for (int c = 0; c < 12; ++c) { /* the last with units of many columns, of the kernels for many rows */
		static const int64_t sizes[][2] = {{96, 131}, {2080, 37}, {96, 701}};
		const int64_t k = bench_whole(types[c % 4], sizes[c / 4][0]), n = sizes[c / 4][1];

		make(&all, types[c % 4], rows, k, n);
		bench_set(&all, 0, 9 * k + 70, (double)NAN);
		bench_set(&all, 0, 18 * k + 70, (double)INFINITY);
		one = (kernel_bench){.op = KNIT_OP_LINEAR, .in_count = 2};
		bench_out(&one, KNIT_F32, 2, (int64_t[]){1, n});
		for (size_t v = 0; (kernel = bench_accepting(&all, v)); ++v) {
			float *const first = malloc(all.out_bytes);

			bench_run(&all, kernel, 0, 1);
			memcpy(first, all.out.data, all.out_bytes);
			for (int64_t piece = 1; piece < 8; piece += 3) {
				bench_run(&all, kernel, piece, 4);
				ck_assert_msg(memcmp(first, all.out.data, all.out_bytes) == 0, "%s: pieces of %d", kernel->name, (int)piece);
			}
			for (int64_t r = 0; r < rows; r += 3) {
				one.in[0].t = all.in[0].t;
				one.in[0].t.data += r * all.in[0].t.strides[0] * 4;
				one.in[0].t.dims[0] = 1;
				one.in[1] = all.in[1];
				bench_run(&one, kernel, 0, 1);
				ck_assert_msg(memcmp(first + r * n, one.out.data, (size_t)n * 4) == 0, "%s: row %d", kernel->name, (int)r);
				for (int64_t i = 0; i < n; ++i)
					ck_assert(isfinite(first[r * n + i]) == (r != 9 && r != 18));
			}
			free(first);
		}
		one.in_count = 0;
		bench_free(&one);
		bench_free(&all);
	}
}
END_TEST

/* ---- the other kernels ------------------------------------------------------------------------------------------- */

START_TEST(gather_reads_panels) {
	for (int c = 0; c < 12; ++c) {
		static const int32_t ids[] = {0, 16, 5, 49, 15, 49, -1, 50};
		const int64_t dims[] = {50, bench_whole(types[c % 4], c < 4 ? 32 : c < 8 ? 96 : 288)};
		kernel_bench b = {.op = KNIT_OP_GATHER, .seed = (uint64_t)c};

		bench_in(&b, 0, types[c % 4], 2, dims, 1, 0, 0);
		bench_indices(&b, 1, 8, ids);
		bench_out(&b, KNIT_F32, 2, (int64_t[]){8, dims[1]});
		ck_assert(bench_accepts(&b, bench_kernel(KNIT_OP_GATHER, 0)));
		bench_run(&b, bench_kernel(KNIT_OP_GATHER, 0), 0, 1);
		float *const plain = malloc(b.out_bytes);

		memcpy(plain, b.out.data, b.out_bytes);
		bench_pack(&b, 0);
		ck_assert(bench_accepts(&b, bench_kernel(KNIT_OP_GATHER, 0)));
		bench_run(&b, bench_kernel(KNIT_OP_GATHER, 0), 3, 2);
		for (int64_t i = 0; i < 8 * dims[1]; ++i)
			ck_assert(plain[i] == bench_floats(&b.out)[i] || (isnan(plain[i]) && isnan(bench_floats(&b.out)[i])));
		free(plain);
		bench_free(&b);
	}
}
END_TEST

/* A group of weights, packed or not in any mixture: each output has the bits of linear alone. */
START_TEST(groups_mix_layouts) {
	if (absent())
		return;
	for (int mixture = 0; mixture < 8; ++mixture) {
		for (int t = 0; t < 8; ++t) {
			const int64_t rows = t % 2 ? 1 : 11, k = 256 + t / 4 * 256, n[] = {33, 16, 70};
			kernel_bench b = {.op = KNIT_OP_LINEAR_GROUP, .seed = (uint64_t)(mixture * 4 + t)};
			const knit_cpu_kernel *kernel;
			int ran = 0;

			b.attr[KNIT_GROUP_N].i = 3;
			bench_in(&b, KNIT_GROUP_X, KNIT_F32, 2, (int64_t[]){rows, k}, 1, 0, 0);
			for (int i = 0; i < 3; ++i) {
				bench_in(&b, (uint32_t)(KNIT_GROUP_W + 3 * i), types[(t / 2 + (t % 2 ? i : 0)) % 4], 2, (int64_t[]){n[i], k}, 1, 0, 0);
				if (mixture >> i & 1)
					bench_pack(&b, (uint32_t)(KNIT_GROUP_W + 3 * i));
				if (i == 0)
					bench_out(&b, KNIT_F32, 2, (int64_t[]){rows, n[i]});
				else
					bench_out_more(&b, KNIT_F32, 2, (int64_t[]){rows, n[i]});
			}
			for (size_t v = 0; (kernel = bench_accepting(&b, v)); ++v, ++ran) {
				bench_run(&b, kernel, 2, 3);
				for (int i = 0; i < 3; ++i) {
					const knit_cpu_tensor *const got = i ? &b.more[i - 1].t : &b.out;
					kernel_bench one = {.op = KNIT_OP_LINEAR, .in_count = 2};

					one.in[0].t = b.in[KNIT_GROUP_X].t;
					one.in[1] = b.in[KNIT_GROUP_W + 3 * i];
					bench_out(&one, KNIT_F32, 2, got->dims);
					bench_run(&one, bench_like(&one, kernel), 0, 1);
					ck_assert_msg(memcmp(one.out.data, got->data, one.out_bytes) == 0, "%s, mixture %d: output %d",
					              kernel->name, mixture, i);
					one.in_count = 0;
					bench_free(&one);
				}
			}
			ck_assert_int_gt(ran, 0);
			bench_free(&b);
		}
	}
}
END_TEST

/* LoRA and the two halves of glu over packed weights, against the reference. */
START_TEST(fused_linears_take_panels) {
	if (absent())
		return;
	for (int c = 0; c < 16; ++c) {
		const knit_dtype t = types[c / 2 % 4];
		const int64_t rows = c % 4 == 3 ? 50 : 1 + c % 4 * 2, k = bench_whole(t, 96), n = 83, r = 8;
		kernel_bench b = {.op = c % 2 ? KNIT_OP_LINEAR_LORA : KNIT_OP_GLU, .seed = (uint64_t)c};
		const knit_cpu_kernel *kernel;
		int ran = 0;

		bench_in(&b, 0, KNIT_F32, 2, (int64_t[]){rows, k}, 1, 0, 0);
		for (int64_t i = 0; i < rows * k; ++i) /* exact in 8 bits */
			bench_set(&b, 0, i, (double)(i % 32 == 0 ? 127 : i * 7919 % 255 - 127) / 128);
		if (c % 2) {
			b.attr[0].f = 0.25;
			bench_in(&b, KNIT_LORA_W, t, 2, (int64_t[]){n, k}, 1, 0, 0);
			bench_pack(&b, KNIT_LORA_W);
			bench_in(&b, KNIT_LORA_A, KNIT_F16, 2, (int64_t[]){r, k}, 1, 0, 0);
			bench_in(&b, KNIT_LORA_B, KNIT_F32, 2, (int64_t[]){n, r}, 1, 0, 0);
			bench_in(&b, KNIT_LORA_RESIDUAL, KNIT_F32, 2, (int64_t[]){rows, n}, 1, 0, 0);
		} else {
			bench_in(&b, KNIT_GLU_WG, t, 2, (int64_t[]){n, k}, 1, 0, 0);
			bench_in(&b, KNIT_GLU_WU, t, 2, (int64_t[]){n, k}, 1, 0, 0);
			bench_pack(&b, KNIT_GLU_WG);
			bench_pack(&b, KNIT_GLU_WU);
		}
		bench_out(&b, KNIT_F32, 2, (int64_t[]){rows, n});
		double *const ref = bench_reference(&b, false);

		for (; (kernel = bench_accepting(&b, (size_t)ran)); ++ran) {
			bench_run(&b, kernel, c % 3, 3);
			for (int64_t i = 0; i < rows * n; ++i)
				ck_assert_msg(fabs((double)bench_floats(&b.out)[i] - ref[i]) <= 2e-4 + 2e-5 * fabs(ref[i]),
				              "%s: output %d is %.9g, needs %.9g", kernel->name, (int)i, (double)bench_floats(&b.out)[i],
				              ref[i]);
		}
		ck_assert_int_gt(ran, 0);
		free(ref);
		bench_free(&b);
	}
}
END_TEST

START_TEST(what_is_refused) {
	kernel_bench b;

	if (absent())
		return;
	make(&b, KNIT_Q8_0, 3, 64, 20);
	ck_assert_ptr_nonnull(bench_accepting(&b, 0));
	b.in[1].t.strides[0] = 96; /* a window */
	ck_assert_ptr_null(bench_accepting(&b, 0));
	b.in[1].t.strides[0] = 64;
	b.in[1].t.dtype = KNIT_F16;
	ck_assert_ptr_null(bench_accepting(&b, 0));
	bench_free(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {rows_come_back, sizes_beyond_64_bits, linear_within_the_bound, extreme_bytes_are_exact,
	                              a_row_is_the_same_alone, gather_reads_panels, groups_mix_layouts,
	                              fused_linears_take_panels, what_is_refused};

	return suite_run("cpu panels", tests, (int)(sizeof tests / sizeof tests[0]));
}
