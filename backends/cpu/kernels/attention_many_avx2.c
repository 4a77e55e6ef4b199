/* Owns attention of many rows of q in AVX2 + FMA: the names that attention_lanes.h asks for. */
#include "vec_avx2.h"

#define LANES 8
#define KEYS 6

typedef __m256 vec, mask; /* of a mask's lane all bits or none */

KNIT_INLINE vec v_set(float x) { return _mm256_set1_ps(x); }
KNIT_INLINE vec v_load(const float *p) { return _mm256_loadu_ps(p); }
KNIT_INLINE void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
KNIT_INLINE vec v_load_some(const float *p, int64_t n) { return _mm256_maskload_ps(p, knit__first8(n)); }
KNIT_INLINE void v_store_some(float *p, int64_t n, vec x) { _mm256_maskstore_ps(p, knit__first8(n), x); }

KNIT_INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
KNIT_INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
KNIT_INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
KNIT_INLINE vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
KNIT_INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
KNIT_INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
KNIT_INLINE vec v_exp(vec x) { return knit__exp8(x); }

KNIT_INLINE mask v_above(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
KNIT_INLINE mask v_equal(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
KNIT_INLINE mask v_both(mask a, mask b) { return _mm256_and_ps(a, b); }

KNIT_INLINE __m256i v_load_int(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

/* Where first <= end and last >= begin. */
KNIT_INLINE mask v_overlaps(const int32_t *first, const int32_t *last, int32_t begin, int32_t end) {
	const __m256i late = _mm256_cmpgt_epi32(v_load_int(first), _mm256_set1_epi32(end));
	const __m256i early = _mm256_cmpgt_epi32(_mm256_set1_epi32(begin), v_load_int(last));

	return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_or_si256(late, early), _mm256_set1_epi32(-1)));
}
KNIT_INLINE mask v_sees(const int32_t *first, const int32_t *last, int32_t p) { return v_overlaps(first, last, p, p); }
KNIT_INLINE mask v_started(const int32_t *p) { return _mm256_castsi256_ps(v_load_int(p)); }

/* a where the mask is set, else b; a * b + c there, else c. */
KNIT_INLINE vec v_choose(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }
KNIT_INLINE vec v_fma_where(mask m, vec a, vec b, vec c) { return v_choose(m, v_fma(a, b, c), c); }

/* Columns of a square become its rows: pairs, quads, then halves of vectors. */
KNIT_INLINE void v_transpose(vec x[LANES]) {
	vec y[LANES], z[LANES];

	for (int i = 0; i < LANES; i += 2) {
		y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
		y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
	}
	for (int i = 0; i < LANES; i += 4) {
		for (int j = 0; j < 2; ++j) {
			z[i + 2 * j] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0x44);
			z[i + 2 * j + 1] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0xee);
		}
	}
	for (int i = 0; i < 4; ++i) {
		x[i] = _mm256_permute2f128_ps(z[i], z[i + 4], 0x20);
		x[i + 4] = _mm256_permute2f128_ps(z[i], z[i + 4], 0x31);
	}
}

#include "attention_lanes.h"

const knit_attention_many_isa knit__attention_many_avx2 = {LANES, put, scores, weigh, mix, merge, take};
