/* Owns attention in AVX2 + FMA + F16C. The driver is attention.c; reference: ops/attention.c. */
#include "attention_many.h"
#include "attention_run.h"
#include "lanes_avx2.h"

#include <math.h>

#define TILE KNIT_ATTENTION_TILE
#define TOGETHER 3 /* rows of q for which a key or value is read once: as many as the registers hold */

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Four keys at a time; past the last one it is read again and the result not used. */
KNIT_INLINE void scores_rows(const knit_dtype t, const int rows, const knit_attention_tile *k, const float *const *q,
                             int64_t count, int64_t dim, float *s, const knit_attention_ask *ask) {
	for (int64_t p = 0; p < count; p += 4) {
		__m256 acc[TOGETHER][4];
		const char *key[4];
		int64_t i = 0;

		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < 4; ++j)
			key[j] = k->data + (p + j < count ? p + j : count - 1) * k->stride;
		for (int r = 0; r < rows; ++r)
			for (int j = 0; j < 4; ++j)
				acc[r][j] = _mm256_setzero_ps();
		for (; i + 8 <= dim; i += 8) {
			for (int j = 0; j < 4; ++j) {
				const __m256 y = knit__load8(t, key[j], i);

				for (int r = 0; r < rows; ++r)
					acc[r][j] = _mm256_fmadd_ps(_mm256_loadu_ps(q[r] + i), y, acc[r][j]);
			}
		}
		for (int j = 0; j < 4 && i < dim; ++j) {
			const __m256 y = knit__load8_some(t, key[j], i, dim - i);

			for (int r = 0; r < rows; ++r)
				acc[r][j] = _mm256_fmadd_ps(knit__load8_some(KNIT_F32, (const char *)q[r], i, dim - i), y, acc[r][j]);
		}
		for (int r = 0; r < rows; ++r)
			_mm_storeu_ps(s + r * TILE + p, knit__sum4(acc[r]));
	}
}

KNIT_INLINE void scores_of(const knit_dtype t, const knit_attention_tile *k, const float *const *q, int64_t rows,
                           int64_t count, int64_t dim, float *s, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (; rows >= TOGETHER; rows -= TOGETHER, q += TOGETHER, s += TOGETHER * TILE, ask = &none)
		scores_rows(t, TOGETHER, k, q, count, dim, s, ask);
	if (rows == 2)
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
	else
		scores_of(KNIT_F32, k, q, rows, count, dim, s, ask);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

KNIT_INLINE float max_lane(__m256 v) {
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static float weigh_row(float *s, int64_t count, float scale, float *part) {
	__m256 v[TILE / 8], most = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();

	for (int j = 0; j < TILE / 8; ++j) {
		const __m256 in = _mm256_castsi256_ps(knit__first8(count - j * 8));
		const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(s + j * 8), _mm256_set1_ps(scale));

		v[j] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), scaled, in);
		most = _mm256_max_ps(most, v[j]);
	}
	const float tile_max = max_lane(most), new_max = tile_max > part[0] ? tile_max : part[0];
	const float base = new_max == -INFINITY ? 0 : new_max;
	const float earlier = _mm256_cvtss_f32(knit__exp8(_mm256_set1_ps(part[0] - base)));

	for (int j = 0; j < TILE / 8; ++j) {
		const __m256 in = _mm256_castsi256_ps(knit__first8(count - j * 8));
		const __m256 weight = _mm256_and_ps(in, knit__exp8(_mm256_sub_ps(v[j], _mm256_set1_ps(base))));

		_mm256_storeu_ps(s + j * 8, weight);
		total = _mm256_add_ps(total, weight);
	}
	part[0] = new_max;
	part[1] = part[1] * earlier + knit__sum1(total);
	return earlier;
}

static void weigh(float *s, int64_t rows, int64_t count, float scale, float *const *part, float *factor) {
	for (int64_t r = 0; r < rows; ++r)
		factor[r] = weigh_row(s + r * TILE, count, scale, part[r]);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `vectors` times 8 elements of all values; of the only one `rest`, if that is not 0. */
KNIT_INLINE void mix_some(const knit_dtype t, const int rows, const char *v, int64_t v_stride, const float *s,
                          const float *factor, int64_t count, const int vectors, int64_t rest, float *const *part,
                          int64_t at, const knit_attention_ask *ask) {
	__m256 sum[TOGETHER][4];

	for (int r = 0; r < rows; ++r)
		for (int j = 0; j < vectors; ++j)
			sum[r][j] = _mm256_mul_ps(_mm256_loadu_ps(part[r] + at + j * 8), _mm256_set1_ps(factor[r]));
	for (int64_t p = 0; p < count; ++p, v += v_stride) {
		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < vectors; ++j) {
			const __m256 x = rest ? knit__load8_some(t, v, j * 8, rest) : knit__load8(t, v, j * 8);

			for (int r = 0; r < rows; ++r)
				sum[r][j] = _mm256_fmadd_ps(_mm256_set1_ps(s[r * TILE + p]), x, sum[r][j]);
		}
	}
	for (int r = 0; r < rows; ++r)
		for (int j = 0; j < vectors; ++j)
			_mm256_storeu_ps(part[r] + at + j * 8, sum[r][j]);
}

KNIT_INLINE void mix_rows(const knit_dtype t, const int rows, const knit_attention_tile *v, const float *s,
                          const float *factor, int64_t count, int64_t dim, float *const *part,
                          const knit_attention_ask *ask) {
	static const knit_attention_ask none;
	const int64_t bytes = t == KNIT_F32 ? 4 : 2, head = KNIT_ATTENTION_HEAD;
	const char *from = v->data;
	int64_t i = 0;

	for (; i + 32 <= dim; i += 32, ask = &none)
		mix_some(t, rows, from + i * bytes, v->stride, s, factor, count, 4, 0, part, head + i, ask);
	for (; i + 8 <= dim; i += 8, ask = &none)
		mix_some(t, rows, from + i * bytes, v->stride, s, factor, count, 1, 0, part, head + i, ask);
	if (i < dim)
		mix_some(t, rows, from + i * bytes, v->stride, s, factor, count, 1, dim - i, part, head + i, ask);
}

KNIT_INLINE void mix_of(const knit_dtype t, const knit_attention_tile *v, const float *s, const float *factor,
                        int64_t rows, int64_t count, int64_t dim, float *const *part, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (; rows >= TOGETHER; ask = &none) {
		mix_rows(t, TOGETHER, v, s, factor, count, dim, part, ask);
		rows -= TOGETHER;
		s += TOGETHER * TILE;
		factor += TOGETHER;
		part += TOGETHER;
	}
	if (rows == 2)
		mix_rows(t, 2, v, s, factor, count, dim, part, ask);
	else if (rows == 1)
		mix_rows(t, 1, v, s, factor, count, dim, part, ask);
}

static void mix(const knit_attention_tile *v, const float *s, const float *factor, int64_t rows, int64_t count,
                int64_t dim, float *const *part, const knit_attention_ask *ask) {
	if (v->dtype == KNIT_F16)
		mix_of(KNIT_F16, v, s, factor, rows, count, dim, part, ask);
	else if (v->dtype == KNIT_BF16)
		mix_of(KNIT_BF16, v, s, factor, rows, count, dim, part, ask);
	else
		mix_of(KNIT_F32, v, s, factor, rows, count, dim, part, ask);
}

/* Blocks are always widened. */
static int64_t in_place(knit_dtype t, int64_t skip, int64_t dim) {
	(void)skip, (void)dim;
	return t == KNIT_F32 || t == KNIT_F16 || t == KNIT_BF16 ? TOGETHER : 0;
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

#include "attention_ends.h"

static const knit_attention_isa isa = {
	.scores = scores, .weigh = weigh, .mix = mix, .widen = widen, .merge = merge, .in_place = in_place,
	.many = &knit__attention_many_avx2};

const knit_cpu_kernel knit__attention_avx2 = {"attention_avx2", KNIT_OP_ATTENTION, KNIT_CPU_AVX2,
                                              knit__attention_accepts, knit__attention_many_scratch,
                                              {{knit__attention_many_units, run}, {knit__attention_merge_units, run_merge}}};
