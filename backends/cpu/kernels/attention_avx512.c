/* Owns attention in AVX-512. The driver is attention.c; reference: ops/attention.c. */
#include "attention.h"
#include "vec_avx512.h"

#include <math.h>

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Eight keys at a time; past the last one it is read again and the result not used. */
KNIT_INLINE void scores_of(const knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count,
                           int64_t dim, float *s, const knit_attention_ask *ask) {
	for (int64_t p = 0; p < count; p += 8) {
		const char *key[8];
		__m512 acc[8];
		int64_t i = 0;

		knit__attention_ask(ask, p);
		for (int j = 0; j < 8; ++j) {
			key[j] = k + (p + j < count ? p + j : count - 1) * k_stride;
			acc[j] = _mm512_setzero_ps();
		}
		for (; i + 16 <= dim; i += 16) {
			const __m512 x = _mm512_loadu_ps(q + i);

			for (int j = 0; j < 8; ++j)
				acc[j] = _mm512_fmadd_ps(x, knit__load16_all(t, key[j], i), acc[j]);
		}
		if (i < dim) {
			const __mmask16 rest = knit__first16(dim - i);
			const __m512 x = _mm512_maskz_loadu_ps(rest, q + i);

			for (int j = 0; j < 8; ++j)
				acc[j] = _mm512_fmadd_ps(x, knit__load16(t, key[j], i, rest), acc[j]);
		}
		_mm256_storeu_ps(s + p, knit__sum8(acc));
	}
}

static void scores(knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count, int64_t dim, float *s,
                   const knit_attention_ask *ask) {
	if (t == KNIT_F16)
		scores_of(KNIT_F16, q, k, k_stride, count, dim, s, ask);
	else if (t == KNIT_BF16)
		scores_of(KNIT_BF16, q, k, k_stride, count, dim, s, ask);
	else
		scores_of(KNIT_F32, q, k, k_stride, count, dim, s, ask);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* By halves, as they were stored: a load that spans two stores would wait for both to reach the cache. */
KNIT_INLINE __m512 load_scores(const float *s) {
	return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(s)), _mm256_loadu_ps(s + 8), 1);
}

static float weigh(float *s, int64_t count, float scale, float *max, float *sum) {
	const __mmask16 low = knit__first16(count < 16 ? count : 16), high = knit__first16(count < 16 ? 0 : count - 16);
	const __m512 least = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scale);
	const __m512 a = _mm512_mask_mul_ps(least, low, load_scores(s), factor);
	const __m512 b = _mm512_mask_mul_ps(least, high, load_scores(s + 16), factor);
	const float tile_max = _mm512_reduce_max_ps(_mm512_max_ps(a, b)), new_max = tile_max > *max ? tile_max : *max;
	const __m512 base = _mm512_set1_ps(new_max == -INFINITY ? 0 : new_max);
	const __m512 pa = _mm512_maskz_mov_ps(low, knit__exp16(_mm512_sub_ps(a, base)));
	const __m512 pb = _mm512_maskz_mov_ps(high, knit__exp16(_mm512_sub_ps(b, base)));
	const float earlier = _mm512_cvtss_f32(knit__exp16(_mm512_sub_ps(_mm512_set1_ps(*max), base)));

	_mm512_storeu_ps(s, pa);
	_mm512_storeu_ps(s + 16, pb);
	*max = new_max;
	*sum = *sum * earlier + knit__sum1(_mm512_add_ps(pa, pb));
	return earlier;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `vectors` times 16 elements of all values; `rest` masks the last one. */
KNIT_INLINE void mix_some(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride,
                          int64_t count, const int vectors, const bool whole, __mmask16 rest, float *acc, const knit_attention_ask *ask) {
	__m512 sum[8];

	for (int j = 0; j < vectors; ++j)
		sum[j] = _mm512_mul_ps(_mm512_loadu_ps(acc + j * 16), _mm512_set1_ps(factor));
	for (int64_t p = 0; p < count; ++p) {
		const __m512 weight = _mm512_set1_ps(s[p]);

		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < vectors; ++j)
			sum[j] = _mm512_fmadd_ps(weight, whole ? knit__load16_all(t, v + p * v_stride, j * 16)
			                                       : knit__load16(t, v + p * v_stride, j * 16, rest), sum[j]);
	}
	for (int j = 0; j < vectors; ++j)
		_mm512_storeu_ps(acc + j * 16, sum[j]);
}

KNIT_INLINE void mix_of(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count,
                        int64_t dim, float *acc, const knit_attention_ask *ask) {
	static const knit_attention_ask none;
	const int64_t bytes = t == KNIT_F32 ? 4 : 2;
	int64_t i = 0;

	for (; i + 128 <= dim; i += 128)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 8, true, 0, acc + i, i ? &none : ask);
	for (; i + 64 <= dim; i += 64)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 4, true, 0, acc + i, i ? &none : ask);
	for (; i + 16 <= dim; i += 16)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, true, 0, acc + i, i ? &none : ask);
	if (i < dim)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, false, knit__first16(dim - i), acc + i, i ? &none : ask);
}

static void mix(knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count, int64_t dim,
                float *acc, const knit_attention_ask *ask) {
	if (t == KNIT_F16)
		mix_of(KNIT_F16, s, factor, v, v_stride, count, dim, acc, ask);
	else if (t == KNIT_BF16)
		mix_of(KNIT_BF16, s, factor, v, v_stride, count, dim, acc, ask);
	else
		mix_of(KNIT_F32, s, factor, v, v_stride, count, dim, acc, ask);
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

static void widen(knit_dtype t, const char *src, int64_t src_stride, int64_t count, int64_t dim, float *dst,
                  int64_t dst_stride) {
	for (int64_t i = 0; i < count; ++i, src += src_stride, dst += dst_stride) {
		if (t == KNIT_Q8_0)
			widen_q8_0(src, dst, dim);
		else if (t == KNIT_Q4_0)
			widen_q4_0(src, dst, dim);
		else if (t == KNIT_F16)
			widen_of(KNIT_F16, src, dst, dim);
		else if (t == KNIT_BF16)
			widen_of(KNIT_BF16, src, dst, dim);
		else
			widen_of(KNIT_F32, src, dst, dim);
	}
}

static const knit_attention_isa isa = {scores, weigh, mix, widen};

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	knit__attention_run(s, begin, end, thread, &isa);
}

const knit_cpu_kernel knit__attention_avx512 = {"attention_avx512", KNIT_OP_ATTENTION, KNIT_CPU_AVX512,
                                                knit__attention_accepts, knit__attention_scratch,
                                                {{knit__attention_units, run},
                                                 {knit__attention_merge_units, knit__attention_merge}}};
