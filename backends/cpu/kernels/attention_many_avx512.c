/* Owns attention of many rows of q in AVX-512: the names that attention_lanes.h asks for. */
#include "vec_avx512.h"

#define LANES 16
#define KEYS 8

typedef __m512 vec;
typedef __mmask16 mask;

KNIT_INLINE vec v_set(float x) { return _mm512_set1_ps(x); }
KNIT_INLINE vec v_load(const float *p) { return _mm512_loadu_ps(p); }
KNIT_INLINE void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
KNIT_INLINE vec v_load_some(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(knit__first16(n), p); }
KNIT_INLINE void v_store_some(float *p, int64_t n, vec x) { _mm512_mask_storeu_ps(p, knit__first16(n), x); }

KNIT_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
KNIT_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
KNIT_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
KNIT_INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
KNIT_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
KNIT_INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
KNIT_INLINE vec v_exp(vec x) { return knit__exp16(x); }

KNIT_INLINE mask v_above(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
KNIT_INLINE mask v_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
KNIT_INLINE mask v_both(mask a, mask b) { return (mask)(a & b); }

/* Where first <= end and last >= begin. */
KNIT_INLINE mask v_overlaps(const int32_t *first, const int32_t *last, int32_t begin, int32_t end) {
	const mask m = _mm512_cmple_epi32_mask(_mm512_loadu_si512(first), _mm512_set1_epi32(end));

	return _mm512_mask_cmpge_epi32_mask(m, _mm512_loadu_si512(last), _mm512_set1_epi32(begin));
}
KNIT_INLINE mask v_sees(const int32_t *first, const int32_t *last, int32_t p) { return v_overlaps(first, last, p, p); }
KNIT_INLINE mask v_started(const int32_t *p) { return _mm512_movepi32_mask(_mm512_loadu_si512(p)); }

/* a where the mask is set, else b; a * b + c there, else c. */
KNIT_INLINE vec v_choose(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
KNIT_INLINE vec v_fma_where(mask m, vec a, vec b, vec c) { return _mm512_mask3_fmadd_ps(a, b, c, m); }

/* Columns of a square become its rows: pairs, quads, then quarters of vectors. */
KNIT_INLINE void v_transpose(vec x[LANES]) {
	vec y[LANES];

	for (int i = 0; i < LANES; i += 2) {
		y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
		y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
	}
	for (int i = 0; i < LANES; i += 4) {
		for (int j = 0; j < 2; ++j) {
			const __m512d a = _mm512_castps_pd(y[i + j]), b = _mm512_castps_pd(y[i + j + 2]);

			x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
			x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
		}
	}
	for (int i = 0; i < 4; ++i) {
		const vec a = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88), b = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
		const vec c = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88), d = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);

		y[i] = _mm512_shuffle_f32x4(a, c, 0x88);
		y[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
		y[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
		y[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
	}
	for (int i = 0; i < LANES; ++i)
		x[i] = y[i];
}

#include "attention_lanes.h"

const knit_attention_many_isa knit__attention_many_avx512 = {LANES, put, scores, weigh, mix, merge, take};
