/* Owns what the NEON kernels share: loads that widen, sums of lanes, the int8 dot product, exp. Include from *_neon.c and
 * *_dotprod.c and their headers only. */
#ifndef KNIT_KERNELS_VEC_NEON_H
#define KNIT_KERNELS_VEC_NEON_H

#include "exp.h"

#include <arm_neon.h>

#define KNIT_INLINE static inline __attribute__((always_inline))

/* ---- floats ------------------------------------------------------------------------------------------------------ */

KNIT_INLINE float32x4_t knit__load4(const char *p) { return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); }

KNIT_INLINE float32x4x2_t knit__widen8(knit_dtype t, uint16x8_t v) {
	if (t == KNIT_F16) {
		const float16x8_t h = vreinterpretq_f16_u16(v);

		return (float32x4x2_t){{vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)}};
	}
	return (float32x4x2_t){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16)),
	                        vreinterpretq_f32_u32(vshlq_n_u32(vmovl_high_u16(v), 16))}};
}

/* Elements [i, i + 8) of f32, f16 or bf16 data. */
KNIT_INLINE float32x4x2_t knit__load8(knit_dtype t, const char *p, int64_t i) {
	if (t == KNIT_F32)
		return (float32x4x2_t){{knit__load4(p + i * 4), knit__load4(p + i * 4 + 16)}};
	return knit__widen8(t, vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)p + i * 2)));
}

/* The first n (1..7) of them; what follows is not read and gives 0. */
KNIT_INLINE float32x4x2_t knit__load8_some(knit_dtype t, const char *p, int64_t i, int64_t n) {
	char some[32] = {0};

	memcpy(some, p + i * (t == KNIT_F32 ? 4 : 2), (size_t)n * (t == KNIT_F32 ? 4 : 2));
	return knit__load8(t, some, 0);
}

KNIT_INLINE void knit__store8(float *to, float32x4x2_t v) {
	vst1q_f32(to, v.val[0]);
	vst1q_f32(to + 4, v.val[1]);
}

/* n elements as f32. */
KNIT_INLINE void knit__widen_row(knit_dtype t, const char *src, float *dst, int64_t n) {
	int64_t i = 0;

	for (; i + 8 <= n; i += 8)
		knit__store8(dst + i, knit__load8(t, src, i));
	for (; i < n; ++i)
		dst[i] = knit__load_float(t, src, i);
}

KNIT_INLINE float32x4_t knit__fma8(float32x4_t acc, float32x4x2_t a, float32x4x2_t b) {
	return vfmaq_f32(vfmaq_f32(acc, a.val[0], b.val[0]), a.val[1], b.val[1]);
}

KNIT_INLINE float knit__load_half(const char *p) {
	const float16x4_t h = vreinterpret_f16_u16(vdup_n_u16(knit__load_u16(p)));

	return vgetq_lane_f32(vcvt_f32_f16(h), 0);
}

/* (0 + 1) + (2 + 3): the tree of knit__sum4 for one vector. */
KNIT_INLINE float knit__sum1(float32x4_t v) {
	const float32x4_t pairs = vpaddq_f32(v, v);

	return vgetq_lane_f32(pairs, 0) + vgetq_lane_f32(pairs, 1);
}

/* The sums of four vectors. */
KNIT_INLINE float32x4_t knit__sum4(const float32x4_t v[4]) {
	return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}

/* Lanes below n are all ones. */
KNIT_INLINE uint32x4_t knit__first4(int64_t n) {
	static const int32_t lanes[4] = {0, 1, 2, 3};

	return vcgtq_s32(vdupq_n_s32((int32_t)n), vld1q_s32(lanes));
}

/* As knit__expf, 2^n in two halves. A NaN stays one all the way. */
KNIT_INLINE float32x4_t knit__exp4(float32x4_t x) {
	const float32x4_t c = vminq_f32(vmaxq_f32(x, vdupq_n_f32(KNIT__EXP_LO)), vdupq_n_f32(KNIT__EXP_HI));
	const float32x4_t n = vrndnq_f32(vmulq_n_f32(c, KNIT__LOG2E));
	const float32x4_t r =
		vfmsq_f32(vfmsq_f32(c, n, vdupq_n_f32(KNIT__LN2_HI)), n, vdupq_n_f32(KNIT__LN2_LO));
	const int32x4_t e = vcvtnq_s32_f32(n), e1 = vshrq_n_s32(e, 1), e2 = vsubq_s32(e, e1), bias = vdupq_n_s32(127);
	float32x4_t p = vdupq_n_f32(1.0f / 5040);

	p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
	p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
	p = vfmaq_f32(r, p, vmulq_f32(r, r));
	p = vaddq_f32(p, vdupq_n_f32(1.0f));
	p = vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e1, bias), 23)));
	return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e2, bias), 23)));
}

/* ---- int8 -------------------------------------------------------------------------------------------------------- */

KNIT_INLINE int8x16_t knit__load16(const char *p) { return vld1q_s8((const int8_t *)p); }

/* Adds the products of bytes to acc by fours: what one instruction does where the processor has it (files *_dotprod.c).
 * Without it the same sums in halves: |w| <= 128 and |x| <= 127 keep two products within 16 bits. All is exact, so both
 * ways give the same bits. */
KNIT_INLINE int32x4_t knit__dot16(int32x4_t acc, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
	return vdotq_s32(acc, w, x);
#else
	const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);

	int32x4_t sum = vpadalq_s16(acc, vpaddq_s16(low, high));

	/* keeps a compiler from moving the sum away from its place in a chain, for which there are not enough registers */
	__asm__("" : "+w"(sum));
	return sum;
#endif
}

/* Bytes 4 lane .. 4 lane + 3 of x, four times. */
KNIT_INLINE int8x16_t knit__four(int8x16_t x, const int lane) {
	const int32x4_t v = vreinterpretq_s32_s8(x);

	return vreinterpretq_s8_s32(lane == 0   ? vdupq_laneq_s32(v, 0)
	                            : lane == 1 ? vdupq_laneq_s32(v, 1)
	                            : lane == 2 ? vdupq_laneq_s32(v, 2)
	                                        : vdupq_laneq_s32(v, 3));
}

/* The dot products of four bytes each of w with bytes 4 lane .. 4 lane + 3 of x. */
KNIT_INLINE int32x4_t knit__dot_lane(int32x4_t acc, int8x16_t w, int8x16_t x, const int lane) {
#if defined(__ARM_FEATURE_DOTPROD)
	return lane == 0   ? vdotq_laneq_s32(acc, w, x, 0)
	       : lane == 1 ? vdotq_laneq_s32(acc, w, x, 1)
	       : lane == 2 ? vdotq_laneq_s32(acc, w, x, 2)
	                   : vdotq_laneq_s32(acc, w, x, 3);
#else
	return knit__dot16(acc, w, knit__four(x, lane));
#endif
}

#endif
