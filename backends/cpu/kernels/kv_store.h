/* Owns the rounding of rows on their way into a KV slot. Loops without branches; included where they are to be vectorised for
 * an instruction set: the bits are the same. Reference: ops/quant.c. */
#ifndef KNIT_KERNELS_KV_STORE_H
#define KNIT_KERNELS_KV_STORE_H

#include "../../../ops/quant.h"
#include "half.h"

/* The bits of the largest magnitude: numbers order as their bits do, infinities and NaN are above them. */
static uint32_t largest(const float *x) {
	uint32_t max = 0;

	for (int i = 0; i < KNIT_QK; ++i) {
		const uint32_t bits = knit__as_bits(x[i]) & 0x7fffffff;

		max = bits > max ? bits : max;
	}
	return max;
}

/* 1 / d, or 0 where d is so small that the block is one of zeros. */
static float inverse_of(float d) {
	const float inverse = d != 0.0f ? 1.0f / d : 0.0f;

	return (knit__as_bits(inverse) & 0x7f800000) == 0x7f800000 ? 0.0f : inverse;
}

/* roundf for |v| < 2^23: to nearest, halves away from zero. */
static inline int32_t round_half_away(float v) {
	const int32_t whole = (int32_t)v;
	const float rest = v - (float)whole;

	return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static void store_q8_0(const float *x, char *out) {
	const uint32_t max = largest(x);
	const float d = knit__as_float(max) / 127.0f, inverse = max < 0x7f800000 ? inverse_of(d) : 0.0f;
	knit_q8_0 b = {0};

	if (max >= 0x7f800000) {
		b.d = 0x7e00;
	} else if (inverse != 0.0f) {
		b.d = knit__half_store(d);
		for (int i = 0; i < KNIT_QK; ++i)
			b.q[i] = (int8_t)round_half_away(x[i] * inverse);
	}
	memcpy(out, &b, sizeof b);
}

/* The first element of the largest magnitude gives d its sign. */
static void store_q4_0(const float *x, char *out) {
	const uint32_t max = largest(x);
	float signed_max = 0.0f, d, inverse;
	knit_q4_0 b = {0};

	if (max >= 0x7f800000) {
		b.d = 0x7e00;
		memcpy(out, &b, sizeof b);
		return;
	}
	for (int i = KNIT_QK; i-- > 0;)
		signed_max = (knit__as_bits(x[i]) & 0x7fffffff) == max ? x[i] : signed_max;
	d = max ? signed_max / -8.0f : -0.0f;
	inverse = inverse_of(d);
	d = inverse != 0.0f ? d : max ? 0.0f : d;
	b.d = knit__half_store(d);
	for (int i = 0; i < KNIT_QK / 2; ++i) {
		const int32_t low = (int32_t)(x[i] * inverse + 8.5f), high = (int32_t)(x[i + KNIT_QK / 2] * inverse + 8.5f);

		b.q[i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
	}
	memcpy(out, &b, sizeof b);
}

static void store_floats(knit_dtype t, const float *restrict x, char *out, int64_t n) {
	uint16_t *restrict const halves = (uint16_t *)(void *)out;

	if (t == KNIT_F32)
		memcpy(out, x, (size_t)n * sizeof *x);
	else if (t == KNIT_F16)
		for (int64_t i = 0; i < n; ++i)
			halves[i] = knit__half_store(x[i]);
	else
		for (int64_t i = 0; i < n; ++i)
			halves[i] = knit__brain_store(x[i]);
}

static void kv_row_store(knit_dtype t, const float *x, char *out, int64_t n) {
	if (t == KNIT_Q8_0) {
		for (int64_t i = 0; i < n / KNIT_QK; ++i)
			store_q8_0(x + i * KNIT_QK, out + i * (int64_t)sizeof(knit_q8_0));
	} else if (t == KNIT_Q4_0) {
		for (int64_t i = 0; i < n / KNIT_QK; ++i)
			store_q4_0(x + i * KNIT_QK, out + i * (int64_t)sizeof(knit_q4_0));
	} else {
		store_floats(t, x, out, n);
	}
}

#endif
