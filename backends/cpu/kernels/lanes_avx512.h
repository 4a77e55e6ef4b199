/* Owns the names by which sources shared between instruction sets (linear_row.h, fused_ends.h, attention_ends.h) know AVX-512: those of
 * lanes_avx2.h. Include from *_avx512.c only. */
#ifndef KNIT_KERNELS_LANES_H
#define KNIT_KERNELS_LANES_H

#include "vec_avx512.h"

typedef __m512 knit_lanes;

#define KNIT_LANES 16
#define KNIT_LANES_STEP 16
#define KNIT_LANES_SUMS 8

KNIT_INLINE knit_lanes knit__lanes_all(float v) { return _mm512_set1_ps(v); }
KNIT_INLINE knit_lanes knit__lanes_load(const float *p) { return _mm512_loadu_ps(p); }
KNIT_INLINE void knit__lanes_store(float *p, knit_lanes v) { _mm512_storeu_ps(p, v); }
KNIT_INLINE knit_lanes knit__lanes_add(knit_lanes a, knit_lanes b) { return _mm512_add_ps(a, b); }
KNIT_INLINE knit_lanes knit__lanes_mul(knit_lanes a, knit_lanes b) { return _mm512_mul_ps(a, b); }
/* a * b + c, rounded once. */
KNIT_INLINE knit_lanes knit__lanes_fma(knit_lanes a, knit_lanes b, knit_lanes c) { return _mm512_fmadd_ps(a, b, c); }
KNIT_INLINE knit_lanes knit__lanes_div(knit_lanes a, knit_lanes b) { return _mm512_div_ps(a, b); }
KNIT_INLINE knit_lanes knit__lanes_minus(knit_lanes a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
KNIT_INLINE knit_lanes knit__lanes_exp(knit_lanes a) { return knit__exp16(a); }
KNIT_INLINE float knit__lanes_first(knit_lanes a) { return _mm512_cvtss_f32(a); }

KNIT_INLINE knit_lanes knit__lanes_dot(const knit_dtype t, const float *x, const char *w, int64_t i, knit_lanes acc) {
	return _mm512_fmadd_ps(_mm512_loadu_ps(x + i), knit__load16_all(t, w, i), acc);
}
KNIT_INLINE knit_lanes knit__lanes_dot_some(const knit_dtype t, const float *x, const char *w, int64_t i, int64_t n,
                                            knit_lanes acc) {
	const __mmask16 some = knit__first16(n);

	return _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, x + i), knit__load16(t, w, i, some), acc);
}

KNIT_INLINE float knit__lanes_sum(knit_lanes v) { return knit__sum1(v); }
KNIT_INLINE void knit__lanes_sums(float *out, const knit_lanes v[KNIT_LANES_SUMS], int64_t n, bool add) {
	const __mmask8 some = (__mmask8)((1u << n) - 1);
	const __m256 sum = knit__sum8(v);

	_mm256_mask_storeu_ps(out, some, add ? _mm256_add_ps(_mm256_maskz_loadu_ps(some, out), sum) : sum);
}

#endif
