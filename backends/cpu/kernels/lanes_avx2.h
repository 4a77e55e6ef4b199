/* Owns the names by which sources shared between instruction sets (linear_row.h, fused_ends.h, attention_ends.h) know AVX2. Include from
 * *_avx2.c only. */
#ifndef KNIT_KERNELS_LANES_H
#define KNIT_KERNELS_LANES_H

#include "vec_avx2.h"

typedef __m256 knit_lanes;

#define KNIT_LANES 8      /* floats in a vector */
#define KNIT_LANES_STEP 8 /* products that one knit__lanes_dot adds */
#define KNIT_LANES_SUMS 4 /* vectors whose lanes are added up together */

KNIT_INLINE knit_lanes knit__lanes_all(float v) { return _mm256_set1_ps(v); }
KNIT_INLINE knit_lanes knit__lanes_load(const float *p) { return _mm256_loadu_ps(p); }
KNIT_INLINE void knit__lanes_store(float *p, knit_lanes v) { _mm256_storeu_ps(p, v); }
KNIT_INLINE knit_lanes knit__lanes_add(knit_lanes a, knit_lanes b) { return _mm256_add_ps(a, b); }
KNIT_INLINE knit_lanes knit__lanes_mul(knit_lanes a, knit_lanes b) { return _mm256_mul_ps(a, b); }
/* a * b + c, rounded once. */
KNIT_INLINE knit_lanes knit__lanes_fma(knit_lanes a, knit_lanes b, knit_lanes c) { return _mm256_fmadd_ps(a, b, c); }
KNIT_INLINE knit_lanes knit__lanes_div(knit_lanes a, knit_lanes b) { return _mm256_div_ps(a, b); }
KNIT_INLINE knit_lanes knit__lanes_minus(knit_lanes a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
KNIT_INLINE knit_lanes knit__lanes_exp(knit_lanes a) { return knit__exp8(a); }
KNIT_INLINE float knit__lanes_first(knit_lanes a) { return _mm256_cvtss_f32(a); }

/* Adds x[i] * w[i] of KNIT_LANES_STEP elements, or of the first n of so many. */
KNIT_INLINE knit_lanes knit__lanes_dot(const knit_dtype t, const float *x, const char *w, int64_t i, knit_lanes acc) {
	return _mm256_fmadd_ps(_mm256_loadu_ps(x + i), knit__load8(t, w, i), acc);
}
KNIT_INLINE knit_lanes knit__lanes_dot_some(const knit_dtype t, const float *x, const char *w, int64_t i, int64_t n,
                                            knit_lanes acc) {
	return _mm256_fmadd_ps(knit__load8_some(KNIT_F32, (const char *)x, i, n), knit__load8_some(t, w, i, n), acc);
}

KNIT_INLINE float knit__lanes_sum(knit_lanes v) { return knit__sum1(v); }
/* The sums of the first n of KNIT_LANES_SUMS vectors, to out or added to it. */
KNIT_INLINE void knit__lanes_sums(float *out, const knit_lanes v[KNIT_LANES_SUMS], int64_t n, bool add) {
	_Alignas(16) float sum[KNIT_LANES_SUMS];

	if (n == KNIT_LANES_SUMS) {
		_mm_storeu_ps(out, add ? _mm_add_ps(_mm_loadu_ps(out), knit__sum4(v)) : knit__sum4(v));
		return;
	}
	_mm_store_ps(sum, knit__sum4(v));
	for (int64_t c = 0; c < n; ++c)
		out[c] = add ? out[c] + sum[c] : sum[c];
}

#endif
