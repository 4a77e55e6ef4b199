/* Owns expf for kernels without intrinsics: branchless, so that loops over it vectorise; within 2 ulp, NaN in NaN out,
 * right to the last denormal. The AVX variants follow the same steps. */
#ifndef KNIT_KERNELS_EXP_H
#define KNIT_KERNELS_EXP_H

#include "half.h"

/* Below the first every result rounds to 0, above the second to infinity. */
#define KNIT__EXP_LO -104.5f
#define KNIT__EXP_HI 89.0f
#define KNIT__LOG2E 1.44269504088896341f
/* ln 2 in two parts: the first has so few bits that n times it is exact. */
#define KNIT__LN2_HI 0.693359375f
#define KNIT__LN2_LO -2.12194440e-4f
/* Adding it leaves the nearest integer in the low bits of the sum. */
#define KNIT__ROUND 12582912.0f

/* a where it is not below b, else b; a NaN stays. In bits: a choice between two floats would be a branch to compilers. */
static inline float knit__at_least(float a, float b) {
	const uint32_t below = -(uint32_t)(a < b);

	return knit__as_float((knit__as_bits(a) & ~below) | (knit__as_bits(b) & below));
}

/* exp x = 2^n exp r, |r| <= ln 2 / 2; the series to r^7 / 7! leaves 5e-9. 2^n is applied in two halves, so that neither
 * overflows and a denormal result is rounded once. */
static inline float knit__expf(float x) {
	const float c = -knit__at_least(-knit__at_least(x, KNIT__EXP_LO), -KNIT__EXP_HI);
	const float t = c * KNIT__LOG2E + KNIT__ROUND, n = t - KNIT__ROUND;
	const float r = (c - n * KNIT__LN2_HI) - n * KNIT__LN2_LO;
	const uint32_t e = knit__as_bits(t) - knit__as_bits(KNIT__ROUND); /* n as two's complement */
	const uint32_t e1 = (e + 256) / 2 - 128, e2 = e - e1;
	float p = 1.0f / 5040;

	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r * r + r + 1.0f;
	return p * knit__as_float((e1 + 127) << 23) * knit__as_float((e2 + 127) << 23);
}

#endif
