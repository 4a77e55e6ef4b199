/* The loops by what came with ARMv8.2: half precision (fmla of 8 halves) and dot product (sdot). */
#include "peak_loops_arm.h"

#if defined(__aarch64__)

/* Sums in half precision, too. */
double bench_peak_f16_neon(uint64_t repeat, double *mean) {
	const float16x8_t x = vreinterpretq_f16_u16(vdupq_n_u16(0x1400)), y = vreinterpretq_f16_u16(vdupq_n_u16(0x3c00)); /* 2^-10, 1 */
	float16x8_t acc[SUMS];
	float32x4_t sum = vdupq_n_f32(0);

#pragma GCC unroll 24
	for (int k = 0; k < SUMS; ++k) {
		acc[k] = vreinterpretq_f16_u16(vdupq_n_u16(0));
		HIDE(acc[k]);
	}
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 24
		for (int k = 0; k < SUMS; ++k)
			acc[k] = vfmaq_f16(acc[k], x, y);
#pragma GCC unroll 24
	for (int k = 0; k < SUMS; ++k)
		sum = vaddq_f32(sum, vaddq_f32(vcvt_f32_f16(vget_low_f16(acc[k])), vcvt_high_f32_f16(acc[k])));
	*mean = (double)vaddvq_f32(sum) / (SUMS * 8);
	return (double)repeat * SUMS * 8 * 2;
}

double bench_peak_int8_sdot(uint64_t repeat, double *mean) {
	const int8x16_t x = vdupq_n_s8(1), y = vdupq_n_s8(1);
	int32x4_t acc[SUMS];

#pragma GCC unroll 24
	for (int k = 0; k < SUMS; ++k)
		acc[k] = vdupq_n_s32(0);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 24
		for (int k = 0; k < SUMS; ++k) {
			acc[k] = vdotq_s32(acc[k], x, y);
			HIDE(acc[k]); /* sums of equal products must not become one multiplication */
		}
#pragma GCC unroll 24
	for (int k = 1; k < SUMS; ++k)
		acc[0] = vaddq_s32(acc[0], acc[k]);
	*mean = (double)vaddvq_s32(acc[0]) / (SUMS * 4);
	return (double)repeat * SUMS * 16 * 2;
}
#endif
