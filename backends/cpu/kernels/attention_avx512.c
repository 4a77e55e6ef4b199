/* Owns attention in AVX-512. The driver is attention.c; reference: ops/attention.c. */
#include "attention_avx512.h"
#include "attention_many.h"
#include "attention_run.h"
#include "lanes_avx512.h"

#include <math.h>

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Eight keys at a time; past the last one it is read again and the result not used. */
KNIT_INLINE void scores_dim(const knit_dtype t, const int rows, const knit_attention_tile *k, const float *const *q,
                            int64_t count, const int64_t dim, float *s, const knit_attention_ask *ask) {
	const int64_t stride = k->stride, skip = k->skip;
	const char *data = k->data;

	for (int64_t p = 0; p < count; p += 8, data += 8 * stride) {
		const int64_t most = count - p - 1;
		const char *key[8];
		__m512 low[TOGETHER], high[TOGETHER];

		knit__attention_ask(ask, p);
		for (int j = 0; j < 8; ++j)
			key[j] = data + (j < most ? j : most) * stride;
		dot4(t, rows, q, key, skip, dim, low);
		dot4(t, rows, q, key + 4, skip, dim, high);
		for (int r = 0; r < rows; ++r)
			_mm256_storeu_ps(s + r * TILE + p, knit__sum8_ends(low[r], high[r]));
	}
}

/* Heads of 64 elements once more, for a loop without branches. */
KNIT_INLINE void scores_rows(const knit_dtype t, const int rows, const knit_attention_tile *k, const float *const *q,
                             int64_t count, int64_t dim, float *s, const knit_attention_ask *ask) {
	if (dim == 64 && !is_block(t))
		scores_dim(t, rows, k, q, count, 64, s, ask);
	else
		scores_dim(t, rows, k, q, count, dim, s, ask);
}

KNIT_INLINE void scores_of(const knit_dtype t, const knit_attention_tile *k, const float *const *q, int64_t rows,
                           int64_t count, int64_t dim, float *s, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (; rows >= TOGETHER; rows -= TOGETHER, q += TOGETHER, s += TOGETHER * TILE, ask = &none)
		scores_rows(t, TOGETHER, k, q, count, dim, s, ask);
	if (rows == 3)
		scores_rows(t, 3, k, q, count, dim, s, ask);
	else if (rows == 2)
		scores_rows(t, 2, k, q, count, dim, s, ask);
	else if (rows == 1)
		scores_rows(t, 1, k, q, count, dim, s, ask);
}

static void scores(const knit_attention_tile *k, const float *const *q, int64_t rows, int64_t count, int64_t dim,
                   float *s, const knit_attention_ask *ask) {
	if (k->dtype == KNIT_F16)
		scores_of(KNIT_F16, k, q, rows, count, dim, s, ask);
	else if (k->dtype == KNIT_BF16)
		scores_of(KNIT_BF16, k, q, rows, count, dim, s, ask);
	else if (k->dtype == KNIT_Q8_0)
		scores_of(KNIT_Q8_0, k, q, rows, count, dim, s, ask);
	else if (k->dtype == KNIT_Q4_0)
		scores_of(KNIT_Q4_0, k, q, rows, count, dim, s, ask);
	else
		scores_of(KNIT_F32, k, q, rows, count, dim, s, ask);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

#define VECTORS (TILE / 16)

/* By halves, as they were stored: a load that spans two stores would wait for both to reach the cache. */
KNIT_INLINE __m512 load_scores(const float *s) {
	return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(s)), _mm256_loadu_ps(s + 8), 1);
}

KNIT_INLINE __mmask16 in_tile(int64_t count, int64_t i) {
	return count >= i + 16 ? (__mmask16)0xffff : count > i ? knit__first16(count - i) : (__mmask16)0;
}

/* Scaled scores of a row; its new maximum. */
KNIT_INLINE float weigh_begin(const float *s, int64_t count, float scale, float max, __m512 x[VECTORS]) {
	const __m512 least = _mm512_set1_ps(-INFINITY), by = _mm512_set1_ps(scale);
	__m512 most = least;

	for (int j = 0; j < VECTORS; ++j) {
		x[j] = _mm512_mask_mul_ps(least, in_tile(count, j * 16), load_scores(s + j * 16), by);
		most = _mm512_max_ps(most, x[j]);
	}
	const float tile_max = _mm512_reduce_max_ps(most);

	return tile_max > max ? tile_max : max;
}

/* The sum of the weights. */
KNIT_INLINE float weigh_end(float *s, int64_t count, float max, const __m512 x[VECTORS]) {
	const __m512 base = _mm512_set1_ps(max == -INFINITY ? 0 : max);
	__m512 total = _mm512_setzero_ps();

	for (int j = 0; j < VECTORS; ++j) {
		const __m512 weight = _mm512_maskz_mov_ps(in_tile(count, j * 16), knit__exp16(_mm512_sub_ps(x[j], base)));

		_mm512_storeu_ps(s + j * 16, weight);
		total = _mm512_add_ps(total, weight);
	}
	return knit__sum1(total);
}

/* `rows` rows side by side: each alone would wait for its maximum, then for its exp. */
KNIT_INLINE void weigh_rows(float *s, const int rows, int64_t count, float scale, float *const *part, float *factor) {
	__m512 x[4][VECTORS];
	float max[4], sum[4];

	for (int r = 0; r < rows; ++r)
		max[r] = weigh_begin(s + r * TILE, count, scale, part[r][0], x[r]);
	for (int r = 0; r < rows; ++r) {
		const float base = max[r] == -INFINITY ? 0 : max[r];

		factor[r] = _mm512_cvtss_f32(knit__exp16(_mm512_set1_ps(part[r][0] - base)));
		sum[r] = weigh_end(s + r * TILE, count, max[r], x[r]);
	}
	for (int r = 0; r < rows; ++r) {
		part[r][0] = max[r];
		part[r][1] = part[r][1] * factor[r] + sum[r];
	}
}

static void weigh(float *s, int64_t rows, int64_t count, float scale, float *const *part, float *factor) {
	for (; rows >= 4; rows -= 4, s += 4 * TILE, part += 4, factor += 4)
		weigh_rows(s, 4, count, scale, part, factor);
	for (; rows > 0; --rows, s += TILE, ++part, ++factor)
		weigh_rows(s, 1, count, scale, part, factor);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `vectors` times 16 elements of all values, from `at` on; `rest` masks the only one where not all are there. */
KNIT_INLINE void mix_some(const knit_dtype t, const int rows, const knit_attention_tile *v, const float *s,
                          const float *factor, int64_t count, const int64_t at, const int vectors, const bool all,
                          __mmask16 rest, float *const *acc, const knit_attention_ask *ask) {
	const char *value = v->data;
	__m512 sum[TOGETHER][4];

	for (int r = 0; r < rows; ++r)
		for (int j = 0; j < vectors; ++j)
			sum[r][j] = _mm512_mul_ps(_mm512_loadu_ps(acc[r] + j * 16), _mm512_set1_ps(factor[r]));
	for (int64_t p = 0; p < count; ++p, value += v->stride) {
		__m512 x[4];

		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < vectors; ++j)
			x[j] = all ? load(t, value, at + j * 16) : knit__load16(t, value, at, rest);
		for (int r = 0; r < rows; ++r) {
			const __m512 weight = _mm512_set1_ps(s[r * TILE + p]);

			for (int j = 0; j < vectors; ++j)
				sum[r][j] = _mm512_fmadd_ps(weight, x[j], sum[r][j]);
		}
	}
	for (int r = 0; r < rows; ++r)
		for (int j = 0; j < vectors; ++j)
			_mm512_storeu_ps(acc[r] + j * 16, sum[r][j]);
}

/* Four vectors at a time, so that a block's scale is fetched once for both its halves; skip: 0, or 16 where the head
 * begins in the middle of a block. */
KNIT_INLINE void mix_rows(const knit_dtype t, const int rows, const knit_attention_tile *v, const float *s,
                          const float *factor, int64_t count, int64_t dim, const int64_t skip, float *const *part,
                          const knit_attention_ask *ask) {
	static const knit_attention_ask none;
	knit_attention_tile from = *v;
	float *acc[TOGETHER];

	for (int r = 0; r < rows; ++r)
		acc[r] = part[r] + KNIT_ATTENTION_HEAD;
	for (int64_t i = 0; i < dim; ask = &none) {
		const int64_t left = dim - i;
		const int vectors = left >= 64 ? 4 : left >= 16 ? (int)(left / 16) : 0;

		if (vectors == 4)
			mix_some(t, rows, &from, s, factor, count, skip, 4, true, 0, acc, ask);
		else if (vectors == 3)
			mix_some(t, rows, &from, s, factor, count, skip, 3, true, 0, acc, ask);
		else if (vectors == 2)
			mix_some(t, rows, &from, s, factor, count, skip, 2, true, 0, acc, ask);
		else if (vectors == 1)
			mix_some(t, rows, &from, s, factor, count, skip, 1, true, 0, acc, ask);
		else if (!is_block(t))
			mix_some(t, rows, &from, s, factor, count, 0, 1, false, knit__first16(left), acc, ask);
		i += vectors ? vectors * 16 : left;
		from.data += is_block(t) ? 2 * block_bytes(t) : t == KNIT_F32 ? vectors * 64 : vectors * 32;
		for (int r = 0; r < rows; ++r)
			acc[r] += vectors * 16;
	}
}

KNIT_INLINE void mix_skip(const knit_dtype t, const int rows, const knit_attention_tile *v, const float *s,
                          const float *factor, int64_t count, int64_t dim, float *const *part,
                          const knit_attention_ask *ask) {
	if (is_block(t) && v->skip)
		mix_rows(t, rows, v, s, factor, count, dim, 16, part, ask);
	else
		mix_rows(t, rows, v, s, factor, count, dim, 0, part, ask);
}

KNIT_INLINE void mix_of(const knit_dtype t, const knit_attention_tile *v, const float *s, const float *factor,
                        int64_t rows, int64_t count, int64_t dim, float *const *part, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (; rows >= TOGETHER; ask = &none) {
		mix_skip(t, TOGETHER, v, s, factor, count, dim, part, ask);
		rows -= TOGETHER;
		s += TOGETHER * TILE;
		factor += TOGETHER;
		part += TOGETHER;
	}
	if (rows == 3)
		mix_skip(t, 3, v, s, factor, count, dim, part, ask);
	else if (rows == 2)
		mix_skip(t, 2, v, s, factor, count, dim, part, ask);
	else if (rows == 1)
		mix_skip(t, 1, v, s, factor, count, dim, part, ask);
}

static void mix(const knit_attention_tile *v, const float *s, const float *factor, int64_t rows, int64_t count,
                int64_t dim, float *const *part, const knit_attention_ask *ask) {
	if (v->dtype == KNIT_F16)
		mix_of(KNIT_F16, v, s, factor, rows, count, dim, part, ask);
	else if (v->dtype == KNIT_BF16)
		mix_of(KNIT_BF16, v, s, factor, rows, count, dim, part, ask);
	else if (v->dtype == KNIT_Q8_0)
		mix_of(KNIT_Q8_0, v, s, factor, rows, count, dim, part, ask);
	else if (v->dtype == KNIT_Q4_0)
		mix_of(KNIT_Q4_0, v, s, factor, rows, count, dim, part, ask);
	else
		mix_of(KNIT_F32, v, s, factor, rows, count, dim, part, ask);
}

/* Blocks in place where no vector spans two. */
static int64_t in_place(knit_dtype t, int64_t skip, int64_t dim) {
	return is_block(t) && (skip % 16 != 0 || dim % 16 != 0) ? 0 : TOGETHER;
}

KNIT_INLINE void widen_of(const knit_dtype t, const char *src, float *dst, int64_t n) {
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		_mm512_storeu_ps(dst + i, knit__load16_all(t, src, i));
	if (i < n)
		_mm512_mask_storeu_ps(dst + i, knit__first16(n - i), knit__load16(t, src, i, knit__first16(n - i)));
}

KNIT_INLINE void widen_q8_0(const char *src, float *dst, int64_t n) {
	for (int64_t i = 0; i < n; i += 32, src += 34) {
		const __m512 d = _mm512_set1_ps(_cvtsh_ss(knit__load_u16(src)));

		for (int j = 0; j < 32; j += 16) {
			const __m128i q = _mm_loadu_si128((const __m128i *)(const void *)(src + 2 + j));

			_mm512_storeu_ps(dst + i + j, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q))));
		}
	}
}

KNIT_INLINE void widen_q4_0(const char *src, float *dst, int64_t n) {
	for (int64_t i = 0; i < n; i += 32, src += 18) {
		const __m512 d = _mm512_set1_ps(_cvtsh_ss(knit__load_u16(src)));
		const __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(src + 2)));
		const __m512i low = _mm512_and_si512(q, _mm512_set1_epi32(15)), high = _mm512_srli_epi32(q, 4);
		const __m512i zero = _mm512_set1_epi32(8);

		_mm512_storeu_ps(dst + i, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(low, zero))));
		_mm512_storeu_ps(dst + i + 16, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(high, zero))));
	}
}

#include "attention_ends.h"

static const knit_attention_isa isa = {
	.scores = scores, .weigh = weigh, .mix = mix, .widen = widen, .merge = merge, .in_place = in_place,
	.scores_heads = knit__attention_scores_avx512, .mix_heads = knit__attention_mix_avx512,
	.heads_fit = knit__attention_heads_avx512, .many = &knit__attention_many_avx512};

const knit_cpu_kernel knit__attention_avx512 = {"attention_avx512", KNIT_OP_ATTENTION, KNIT_CPU_AVX512,
                                                knit__attention_accepts, knit__attention_many_scratch,
                                                {{knit__attention_many_units, run}, {knit__attention_merge_units, run_merge}}};
