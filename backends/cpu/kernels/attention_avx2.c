/* Owns attention in AVX2 + FMA + F16C. The driver is attention.c; reference: ops/attention.c. */
#include "attention.h"
#include "vec_avx2.h"

#include <math.h>

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Eight keys at a time; past the last one it is read again and the result not used. */
KNIT_INLINE void scores_of(const knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count,
                           int64_t dim, float *s, const knit_attention_ask *ask) {
	for (int64_t p = 0; p < count; p += 8) {
		const char *key[8];
		__m256 acc[8];
		int64_t i = 0;

		knit__attention_ask(ask, p);
		for (int j = 0; j < 8; ++j) {
			key[j] = k + (p + j < count ? p + j : count - 1) * k_stride;
			acc[j] = _mm256_setzero_ps();
		}
		for (; i + 8 <= dim; i += 8) {
			const __m256 x = _mm256_loadu_ps(q + i);

			for (int j = 0; j < 8; ++j)
				acc[j] = _mm256_fmadd_ps(x, knit__load8(t, key[j], i), acc[j]);
		}
		if (i < dim) {
			const __m256 x = knit__load8_some(KNIT_F32, (const char *)q, i, dim - i);

			for (int j = 0; j < 8; ++j)
				acc[j] = _mm256_fmadd_ps(x, knit__load8_some(t, key[j], i, dim - i), acc[j]);
		}
		_mm_storeu_ps(s + p, knit__sum4(acc));
		_mm_storeu_ps(s + p + 4, knit__sum4(acc + 4));
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

KNIT_INLINE float max_lane(__m256 v) {
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static float weigh(float *s, int64_t count, float scale, float *max, float *sum) {
	__m256 v[KNIT_ATTENTION_TILE / 8], most = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();

	for (int j = 0; j < KNIT_ATTENTION_TILE / 8; ++j) {
		const __m256 in = _mm256_castsi256_ps(knit__first8(count - j * 8));
		const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(s + j * 8), _mm256_set1_ps(scale));

		v[j] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), scaled, in);
		most = _mm256_max_ps(most, v[j]);
	}
	const float tile_max = max_lane(most), new_max = tile_max > *max ? tile_max : *max;
	const float base = new_max == -INFINITY ? 0 : new_max;
	const float earlier = _mm256_cvtss_f32(knit__exp8(_mm256_set1_ps(*max - base)));

	for (int j = 0; j < KNIT_ATTENTION_TILE / 8; ++j) {
		const __m256 in = _mm256_castsi256_ps(knit__first8(count - j * 8));
		const __m256 weight = _mm256_and_ps(in, knit__exp8(_mm256_sub_ps(v[j], _mm256_set1_ps(base))));

		_mm256_storeu_ps(s + j * 8, weight);
		total = _mm256_add_ps(total, weight);
	}
	*max = new_max;
	*sum = *sum * earlier + knit__sum1(total);
	return earlier;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `vectors` times 8 elements of all values; of the last one only `rest`, if that is not 0. */
KNIT_INLINE void mix_some(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride,
                          int64_t count, const int vectors, int64_t rest, float *acc, const knit_attention_ask *ask) {
	__m256 sum[8];

	for (int j = 0; j < vectors; ++j)
		sum[j] = _mm256_mul_ps(_mm256_loadu_ps(acc + j * 8), _mm256_set1_ps(factor));
	for (int64_t p = 0; p < count; ++p) {
		const __m256 weight = _mm256_set1_ps(s[p]);

		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < vectors; ++j)
			sum[j] = _mm256_fmadd_ps(weight, rest ? knit__load8_some(t, v + p * v_stride, j * 8, rest)
			                                      : knit__load8(t, v + p * v_stride, j * 8), sum[j]);
	}
	for (int j = 0; j < vectors; ++j)
		_mm256_storeu_ps(acc + j * 8, sum[j]);
}

KNIT_INLINE void mix_of(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count,
                        int64_t dim, float *acc, const knit_attention_ask *ask) {
	static const knit_attention_ask none;
	const int64_t bytes = t == KNIT_F32 ? 4 : 2;
	int64_t i = 0;

	for (; i + 64 <= dim; i += 64)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 8, 0, acc + i, i ? &none : ask);
	for (; i + 32 <= dim; i += 32)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 4, 0, acc + i, i ? &none : ask);
	for (; i + 8 <= dim; i += 8)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, 0, acc + i, i ? &none : ask);
	if (i < dim)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, dim - i, acc + i, i ? &none : ask);
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

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i, knit__load8(t, src, i));
	for (; i < n; ++i)
		dst[i] = knit__load_float(t, src, i);
}

KNIT_INLINE void widen_q8_0(const char *src, float *dst, int64_t n) {
	for (int64_t i = 0; i < n; i += 32, src += 34) {
		const __m256 d = _mm256_set1_ps(_cvtsh_ss(knit__load_u16(src)));

		for (int j = 0; j < 32; j += 8) {
			const __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)(src + 2 + j));

			_mm256_storeu_ps(dst + i + j, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q))));
		}
	}
}

KNIT_INLINE void widen_q4_0(const char *src, float *dst, int64_t n) {
	const __m256i zero = _mm256_set1_epi32(8);

	for (int64_t i = 0; i < n; i += 32, src += 18) {
		const __m256 d = _mm256_set1_ps(_cvtsh_ss(knit__load_u16(src)));

		for (int j = 0; j < 16; j += 8) {
			const __m256i q =
				_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(src + 2 + j)));
			const __m256i low = _mm256_and_si256(q, _mm256_set1_epi32(15)), high = _mm256_srli_epi32(q, 4);

			_mm256_storeu_ps(dst + i + j, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(low, zero))));
			_mm256_storeu_ps(dst + i + j + 16, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(high, zero))));
		}
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

const knit_cpu_kernel knit__attention_avx2 = {"attention_avx2", KNIT_OP_ATTENTION, KNIT_CPU_AVX2,
                                              knit__attention_accepts, knit__attention_scratch,
                                              {{knit__attention_units, run},
                                               {knit__attention_merge_units, knit__attention_merge}}};
