/* Owns linear of many rows of x by float weights, in AVX-512. A few weight rows are widened once for all rows of x and stay
 * in the first cache beside four rows of x. Sums are those of linear_avx512.c in the same order. The driver is linear.c;
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

/* rows x columns sums of a span. */
KNIT_INLINE void tile(const knit_linear_block *u, int64_t k0, int64_t length, int64_t row, const int rows, const float *w,
                      int64_t column, const int columns) {
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
			const __m512 from = _mm512_loadu_ps(w + c * STRIDE + i);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm512_fmadd_ps(v[r], from, acc[r][c]);
		}
	}
	if (i < length) {
		const __mmask16 rest = knit__first16(length - i);

		for (int r = 0; r < rows; ++r)
			for (int c = 0; c < columns; ++c)
				acc[r][c] = _mm512_fmadd_ps(knit__load16(KNIT_F32, x[r], i, rest),
				                            _mm512_maskz_loadu_ps(rest, w + c * STRIDE + i), acc[r][c]);
	}
	for (int r = 0; r < rows; ++r)
		store_row(u->out + (row + r) * u->out_stride + column, k0 > 0 || u->add, acc[r], columns);
}

KNIT_INLINE void all_rows(const knit_linear_block *u, int64_t k0, int64_t length, const float *w, int64_t column,
                          const int columns) {
	int64_t row = 0;

	for (; row + 4 <= u->rows; row += 4)
		tile(u, k0, length, row, 4, w, column, columns);
	if (u->rows - row == 3)
		tile(u, k0, length, row, 3, w, column, columns);
	else if (u->rows - row == 2)
		tile(u, k0, length, row, 2, w, column, columns);
	else if (u->rows - row == 1)
		tile(u, k0, length, row, 1, w, column, columns);
}

void knit__linear_many_floats_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	const int64_t length = knit__min(KNIT_LINEAR_SPAN, u->k - k0), columns = knit__min(COLUMNS, u->columns - column);
	const char *const w = u->w + column * u->w_stride + knit__bytes_of(u->isa->dtype, k0);
	_Alignas(64) float wide[COLUMNS * STRIDE];

	for (int64_t c = 0; c < columns; ++c)
		u->isa->widen(w + c * u->w_stride, wide + c * STRIDE, length);
	if (columns == COLUMNS) {
		all_rows(u, k0, length, wide, column, COLUMNS);
		return;
	}
	for (int64_t c = 0; c < columns; ++c)
		all_rows(u, k0, length, wide + c * STRIDE, column + c, 1);
}
