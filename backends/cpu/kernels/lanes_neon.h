/* Owns the names by which sources shared between instruction sets (fused_ends.h, attention_ends.h) know NEON: those of lanes_avx2.h. Include
 * from *_neon.c only. */
#ifndef KNIT_KERNELS_LANES_H
#define KNIT_KERNELS_LANES_H

#include "vec_neon.h"

typedef float32x4_t knit_lanes;

#define KNIT_LANES 4
#define KNIT_LANES_STEP 8
#define KNIT_LANES_SUMS 4

KNIT_INLINE knit_lanes knit__lanes_all(float v) { return vdupq_n_f32(v); }
KNIT_INLINE knit_lanes knit__lanes_load(const float *p) { return vld1q_f32(p); }
KNIT_INLINE void knit__lanes_store(float *p, knit_lanes v) { vst1q_f32(p, v); }
KNIT_INLINE knit_lanes knit__lanes_add(knit_lanes a, knit_lanes b) { return vaddq_f32(a, b); }
KNIT_INLINE knit_lanes knit__lanes_mul(knit_lanes a, knit_lanes b) { return vmulq_f32(a, b); }
/* a * b + c, rounded once. */
KNIT_INLINE knit_lanes knit__lanes_fma(knit_lanes a, knit_lanes b, knit_lanes c) { return vfmaq_f32(c, a, b); }
KNIT_INLINE knit_lanes knit__lanes_div(knit_lanes a, knit_lanes b) { return vdivq_f32(a, b); }
KNIT_INLINE knit_lanes knit__lanes_minus(knit_lanes a) { return vnegq_f32(a); }
KNIT_INLINE knit_lanes knit__lanes_exp(knit_lanes a) { return knit__exp4(a); }
KNIT_INLINE float knit__lanes_first(knit_lanes a) { return vgetq_lane_f32(a, 0); }

KNIT_INLINE knit_lanes knit__lanes_dot(const knit_dtype t, const float *x, const char *w, int64_t i, knit_lanes acc) {
	return knit__fma8(acc, knit__load8(KNIT_F32, (const char *)x, i), knit__load8(t, w, i));
}
KNIT_INLINE knit_lanes knit__lanes_dot_some(const knit_dtype t, const float *x, const char *w, int64_t i, int64_t n,
                                            knit_lanes acc) {
	return knit__fma8(acc, knit__load8_some(KNIT_F32, (const char *)x, i, n), knit__load8_some(t, w, i, n));
}

KNIT_INLINE float knit__lanes_sum(knit_lanes v) { return knit__sum1(v); }
KNIT_INLINE void knit__lanes_sums(float *out, const knit_lanes v[KNIT_LANES_SUMS], int64_t n, bool add) {
	float sum[KNIT_LANES_SUMS];

	vst1q_f32(sum, knit__sum4(v));
	for (int64_t c = 0; c < n; ++c)
		out[c] = add ? out[c] + sum[c] : sum[c];
}

#endif
