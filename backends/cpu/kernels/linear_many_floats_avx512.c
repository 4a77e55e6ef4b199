/* Owns linear of many rows of x by float weights, in AVX-512. A few weight rows stay in the first cache beside four rows of
 * x: f32 where they lie; f16 too, since that takes half the room and the instruction that widens takes no time from
 * multiply-adds; bf16, and f32 whose vectors would straddle cache lines, laid out as f32 once for all rows of x. Sums are those of linear_avx512.c in the same order. The driver is linear.c;
 * reference: ops/linear.c. */
#include "linear.h"
#include "operand.h"
#include "vec_avx512.h"

#define MAX_ROWS 4
#define COLUMNS 6 /* 4 x 6 sums leave registers for 4 vectors of x and one of w, and a span of 6 + 4 rows fits the first cache */
#define STRIDE (KNIT_LINEAR_SPAN + 16) /* rows that are a power of two apart would share their places in it */

/* The lanes of each sum added up, stored or added to the output. */
KNIT_INLINE void store_row(float *out, const bool add, const __m512 acc[COLUMNS], const int columns) {
	if (columns == COLUMNS) {
		const __mmask8 mask = (1 << COLUMNS) - 1;
		const __m512 zero = _mm512_setzero_ps(), all[8] = {acc[0], acc[1], acc[2], acc[3], acc[4], acc[5], zero, zero};
		const __m256 sum = knit__sum8(all);

		_mm256_mask_storeu_ps(out, mask, add ? _mm256_add_ps(_mm256_maskz_loadu_ps(mask, out), sum) : sum);
		return;
	}
	for (int c = 0; c < columns; ++c) {
		const float sum = knit__sum1(acc[c]);

		out[c] = add ? out[c] + sum : sum;
	}
}

/* Rows of weights, at the span. */
typedef struct weights {
	const char *w;
	int64_t stride; /* bytes */
} weights;

/* rows x columns sums of a span. */
KNIT_INLINE void tile(const knit_linear_block *u, const weights *from, const knit_dtype t, int64_t k0, int64_t length,
                      int64_t row, const int rows, int64_t column, const int columns) {
	const int64_t stride = from->stride;
	const char *const w = from->w;
	__m512 acc[MAX_ROWS][COLUMNS];
	const char *x[MAX_ROWS];
	int64_t i = 0;

	for (int r = 0; r < rows; ++r) {
		x[r] = u->x[row + r] + k0 * 4;
		for (int c = 0; c < columns; ++c)
			acc[r][c] = _mm512_setzero_ps();
	}
	for (; i + 16 <= length; i += 16) {
		__m512 v[MAX_ROWS];

		for (int r = 0; r < rows; ++r)
			v[r] = knit__load16_all(KNIT_F32, x[r], i);
		for (int c = 0; c < columns; ++c) {
			const __m512 wide = knit__load16_all(t, w + c * stride, i);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm512_fmadd_ps(v[r], wide, acc[r][c]);
		}
	}
	if (i < length) {
		const __mmask16 rest = knit__first16(length - i);

		for (int r = 0; r < rows; ++r)
			for (int c = 0; c < columns; ++c)
				acc[r][c] = _mm512_fmadd_ps(knit__load16(KNIT_F32, x[r], i, rest), knit__load16(t, w + c * stride, i, rest),
				                            acc[r][c]);
	}
	for (int r = 0; r < rows; ++r)
		store_row(u->out + (row + r) * u->out_stride + column, k0 > 0 || u->add, acc[r], columns);
}

KNIT_INLINE void all_rows(const knit_linear_block *u, const weights *from, const knit_dtype t, int64_t k0, int64_t length,
                          int64_t column, const int columns) {
	int64_t row = 0;

	for (; row + 4 <= u->rows; row += 4)
		tile(u, from, t, k0, length, row, 4, column, columns);
	if (u->rows - row == 3)
		tile(u, from, t, k0, length, row, 3, column, columns);
	else if (u->rows - row == 2)
		tile(u, from, t, k0, length, row, 2, column, columns);
	else if (u->rows - row == 1)
		tile(u, from, t, k0, length, row, 1, column, columns);
}

KNIT_INLINE void all_columns(const knit_linear_block *u, weights from, const knit_dtype t, int64_t k0, int64_t length,
                             int64_t column, int64_t columns) {
	if (columns == COLUMNS) {
		all_rows(u, &from, t, k0, length, column, COLUMNS);
		return;
	}
	for (int64_t c = 0; c < columns; ++c, from.w += from.stride)
		all_rows(u, &from, t, k0, length, column + c, 1);
}

void knit__linear_many_floats_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	const int64_t length = knit__min(KNIT_LINEAR_SPAN, u->k - k0), columns = knit__min(COLUMNS, u->columns - column);
	const char *const w = u->w + column * u->w_stride + knit__bytes_of(u->isa->dtype, k0);
	_Alignas(64) float wide[COLUMNS * STRIDE];

	if (u->isa->dtype == KNIT_F16) {
		all_columns(u, (weights){w, u->w_stride}, KNIT_F16, k0, length, column, columns);
		return;
	}
	if (u->isa->dtype == KNIT_F32 && ((uintptr_t)w | (uintptr_t)u->w_stride) % 64 == 0) {
		all_columns(u, (weights){w, u->w_stride}, KNIT_F32, k0, length, column, columns);
		return;
	}
	for (int64_t c = 0; c < columns; ++c)
		u->isa->widen(w + c * u->w_stride, wide + c * STRIDE, length);
	all_columns(u, (weights){(const char *)wide, STRIDE * 4}, KNIT_F32, k0, length, column, columns);
}
