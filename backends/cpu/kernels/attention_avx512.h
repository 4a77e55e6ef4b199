/* Owns how AVX-512 reads keys and values of any type, and products of four keys with up to four rows of q. Include from
 * attention*_avx512.c only. */
#ifndef KNIT_KERNELS_ATTENTION_AVX512_H
#define KNIT_KERNELS_ATTENTION_AVX512_H

#include "attention.h"
#include "vec_avx512.h"

#define TILE KNIT_ATTENTION_TILE
#define TOGETHER 4 /* rows of q for which a key or value is read once */

/* ---- elements ---------------------------------------------------------------------------------------------------- */

KNIT_INLINE bool is_block(knit_dtype t) { return t == KNIT_Q8_0 || t == KNIT_Q4_0; }

/* What the elements of a block are multiplied by, or (q4_0) all that they may be. d times a quant is exact in f32. */
KNIT_INLINE __m512 block_values(knit_dtype t, const char *block) {
	const __m512 d = _mm512_cvtph_ps(_mm256_set1_epi16((short)knit__load_u16(block)));

	if (t == KNIT_Q8_0)
		return d;
	return _mm512_mul_ps(d, _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
}

/* Elements 0..15 (half 0) or 16..31 of a block. */
KNIT_INLINE __m512 block_half(knit_dtype t, const char *block, __m512 values, const int half) {
	if (t == KNIT_Q8_0) {
		const __m128i q = _mm_loadu_si128((const __m128i *)(const void *)(block + 2 + half * 16));

		return _mm512_mul_ps(values, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
	}
	const __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(block + 2)));

	return _mm512_permutexvar_ps(half ? _mm512_srli_epi32(q, 4) : q, values);
}

KNIT_INLINE int64_t block_bytes(knit_dtype t) { return t == KNIT_Q8_0 ? 34 : 18; }

/* Of 32 elements. */
KNIT_INLINE int64_t bytes_of_32(knit_dtype t) { return is_block(t) ? block_bytes(t) : t == KNIT_F32 ? 128 : 64; }

/* 16 elements from `at` on, a multiple of 16 where they are in blocks. */
KNIT_INLINE __m512 load(knit_dtype t, const char *row, int64_t at) {
	if (!is_block(t))
		return knit__load16_all(t, row, at);
	const char *const block = row + at / 32 * block_bytes(t);

	return block_half(t, block, block_values(t, block), at % 32 != 0);
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* acc[r][j] += 16 elements of q[r] from i on times as many of key j. */
KNIT_INLINE void dot_step(const knit_dtype t, const int rows, const float *const *q, const char *const key[4],
                          int64_t skip, int64_t i, const bool all, __mmask16 rest, __m512 acc[TOGETHER][4]) {
	__m512 x[TOGETHER];

	for (int r = 0; r < rows; ++r)
		x[r] = all ? _mm512_loadu_ps(q[r] + i) : _mm512_maskz_loadu_ps(rest, q[r] + i);
	for (int j = 0; j < 4; ++j) {
		const __m512 y = all ? load(t, key[j], skip + i) : knit__load16(t, key[j], i, rest);

		for (int r = 0; r < rows; ++r)
			acc[r][j] = _mm512_fmadd_ps(x[r], y, acc[r][j]);
	}
}

/* The same for the 32 elements of a block. */
KNIT_INLINE void dot_block(const knit_dtype t, const int rows, const float *const *q, const char *const key[4],
                           int64_t skip, int64_t i, __m512 acc[TOGETHER][4]) {
	for (int j = 0; j < 4; ++j) {
		const char *const block = key[j] + (skip + i) / 32 * block_bytes(t);
		const __m512 values = block_values(t, block);
		const __m512 low = block_half(t, block, values, 0), high = block_half(t, block, values, 1);

		for (int r = 0; r < rows; ++r) {
			acc[r][j] = _mm512_fmadd_ps(_mm512_loadu_ps(q[r] + i), low, acc[r][j]);
			acc[r][j] = _mm512_fmadd_ps(_mm512_loadu_ps(q[r] + i + 16), high, acc[r][j]);
		}
	}
}

/* Four keys at a time; sum[r] holds four lanes for each of them, still to be added. */
KNIT_INLINE void dot4(const knit_dtype t, const int rows, const float *const *q, const char *const key[4], int64_t skip,
                      int64_t dim, __m512 sum[TOGETHER]) {
	__m512 acc[TOGETHER][4];
	int64_t i = 0;

	for (int r = 0; r < rows; ++r)
		for (int j = 0; j < 4; ++j)
			acc[r][j] = _mm512_setzero_ps();
	if (is_block(t) && skip) {
		dot_step(t, rows, q, key, 16, 0, true, 0, acc);
		i = 16;
	}
	for (; is_block(t) && i + 32 <= dim; i += 32)
		dot_block(t, rows, q, key, skip, i, acc);
	for (; i + 16 <= dim; i += 16)
		dot_step(t, rows, q, key, skip, i, true, 0, acc);
	if (!is_block(t) && i < dim)
		dot_step(t, rows, q, key, 0, i, false, knit__first16(dim - i), acc);
	for (int r = 0; r < rows; ++r)
		sum[r] = knit__sum_quarters(knit__sum_halves(acc[r][0], acc[r][1]), knit__sum_halves(acc[r][2], acc[r][3]));
}

/* attention_heads_avx512.c */
void knit__attention_scores_avx512(const knit_attention_heads *k, const float *const *q, float *s);
void knit__attention_mix_avx512(const knit_attention_heads *v, const float *s, const float *factor, float *const *part);
bool knit__attention_heads_avx512(knit_dtype t, int64_t dim);

#endif
