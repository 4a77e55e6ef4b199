/* The conversions of ops/quant.c against rules written independently: nearest by search, formulas by ldexp, blocks by
 * hand. */
#include "../../ops/quant.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A 16-bit float by its definition. */
static double half_value(uint16_t h, int exponent_bits, int mantissa_bits) {
	const int exponent = h >> mantissa_bits & ((1 << exponent_bits) - 1);
	const int mantissa = h & ((1 << mantissa_bits) - 1), bias = (1 << (exponent_bits - 1)) - 1;
	double v;

	if (exponent == (1 << exponent_bits) - 1)
		v = mantissa ? (double)NAN : (double)INFINITY;
	else if (exponent == 0)
		v = ldexp(mantissa, 1 - bias - mantissa_bits);
	else
		v = ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
	return h & 0x8000 ? -v : v;
}

static uint16_t encode16(knit_dtype t, double x) {
	uint16_t h;

	knit__encode(t, &x, &h, 1);
	return h;
}

START_TEST(f16_decodes_by_definition) {
	for (uint32_t h = 0; h <= 0xffff; ++h) {
		const double want = half_value((uint16_t)h, 5, 10), got = (double)knit__f16_to_f32((uint16_t)h);

		if (isnan(want) ? !isnan(got) : want != got || signbit(want) != signbit(got))
			ck_abort_msg("f16 %04x: %g, not %g", h, got, want);
	}
}
END_TEST

START_TEST(bf16_decodes_by_definition) {
	for (uint32_t h = 0; h <= 0xffff; ++h) {
		const double want = half_value((uint16_t)h, 8, 7), got = (double)knit__bf16_to_f32((uint16_t)h);

		if (isnan(want) ? !isnan(got) : want != got || signbit(want) != signbit(got))
			ck_abort_msg("bf16 %04x: %g, not %g", h, got, want);
	}
}
END_TEST

START_TEST(every_half_survives_the_round_trip) {
	for (uint32_t h = 0; h <= 0xffff; ++h) {
		const float f16 = knit__f16_to_f32((uint16_t)h), bf16 = knit__bf16_to_f32((uint16_t)h);

		if (isnan(f16) ? !isnan(knit__f16_to_f32(knit__f32_to_f16(f16))) : knit__f32_to_f16(f16) != h)
			ck_abort_msg("f16 %04x became %04x", h, knit__f32_to_f16(f16));
		if (isnan(bf16) ? !isnan(knit__bf16_to_f32(knit__f32_to_bf16(bf16))) : knit__f32_to_bf16(bf16) != h)
			ck_abort_msg("bf16 %04x became %04x", h, knit__f32_to_bf16(bf16));
	}
}
END_TEST

/* Between every two neighbours: the middle goes to the even one, a hair beside it to the nearer one. `finite_max` is
 * the largest finite number; half a step above it lies the border to infinity. */
static void check_rounding(knit_dtype t, int exponent_bits, int mantissa_bits, uint16_t finite_max) {
	for (uint32_t low = 0; low <= finite_max; ++low) {
		const double a = half_value((uint16_t)low, exponent_bits, mantissa_bits);
		const double b = low == finite_max ? 2 * a - half_value((uint16_t)(low - 1), exponent_bits, mantissa_bits)
										   : half_value((uint16_t)(low + 1), exponent_bits, mantissa_bits);
		const double middle = a + (b - a) / 2;
		const uint16_t even = (uint16_t)(low & 1 ? low + 1 : low);

		bool good = encode16(t, middle) == even && encode16(t, -middle) == (0x8000 | even) &&
					encode16(t, nextafter(middle, 0)) == low && encode16(t, nextafter(middle, INFINITY)) == low + 1;
		/* f32 holds every middle, so the f32 functions see the same numbers */
		uint16_t (*from_f32)(float) = t == KNIT_F16 ? knit__f32_to_f16 : knit__f32_to_bf16;
		const float m = (float)middle;
		good = good && (double)m == middle && from_f32(m) == even && from_f32(nextafterf(m, 0)) == low &&
			   from_f32(nextafterf(m, INFINITY)) == low + 1;
		if (!good) /* asserting only here: an assertion is slow, and there are 60,000 */
			ck_abort_msg("%s: wrong next to %04x (%g)", knit_dtype_name(t), low, a);
	}
}

START_TEST(f16_rounds_to_nearest_even) {
	check_rounding(KNIT_F16, 5, 10, 0x7bff);
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even) {
	check_rounding(KNIT_BF16, 8, 7, 0x7f7f);
}
END_TEST

START_TEST(extremes_of_the_16_bit_floats) {
	ck_assert_uint_eq(knit__f32_to_f16(INFINITY), 0x7c00);
	ck_assert_uint_eq(knit__f32_to_f16(-INFINITY), 0xfc00);
	ck_assert_uint_eq(knit__f32_to_f16(-0.0f), 0x8000);
	ck_assert_uint_eq(knit__f32_to_f16(65504.0f), 0x7bff);
	ck_assert_uint_eq(knit__f32_to_f16(65519.0f), 0x7bff);
	ck_assert_uint_eq(knit__f32_to_f16(65520.0f), 0x7c00);
	ck_assert_uint_eq(knit__f32_to_f16(0x1p-24f), 0x0001);
	ck_assert_uint_eq(knit__f32_to_f16(0x1p-25f), 0x0000);
	ck_assert_uint_eq(knit__f32_to_f16(0x1.8p-25f), 0x0001);
	ck_assert_uint_eq(knit__f32_to_f16(0x1p-149f), 0x0000);
	ck_assert_uint_eq(knit__f32_to_bf16(INFINITY), 0x7f80);
	ck_assert_uint_eq(knit__f32_to_bf16(0x1.fffffep127f), 0x7f80);
	ck_assert_uint_eq(knit__f32_to_bf16(0x1p-149f), 0x0000);
	ck_assert_uint_eq(knit__f32_to_bf16(0x1p-133f), 0x0001);
	ck_assert_uint_eq(encode16(KNIT_F16, 5e-324), 0x0000);
	ck_assert_uint_eq(encode16(KNIT_F16, 1e300), 0x7c00);
	/* A NaN whose payload lies only in the bits that are dropped must not become an infinity. */
	const uint32_t bits = 0x7f800001;
	float nan;
	memcpy(&nan, &bits, sizeof nan);
	ck_assert(isnan(knit__f16_to_f32(knit__f32_to_f16(nan))));
	ck_assert(isnan(knit__bf16_to_f32(knit__f32_to_bf16(nan))));
}
END_TEST

/* 1 + 2^-11 is the middle of two f16; 2^-40 more is above it, but lost by a first rounding to f32. */
START_TEST(doubles_are_rounded_once) {
	ck_assert_uint_eq(encode16(KNIT_F16, 1 + 0x1p-11), 0x3c00);
	ck_assert_uint_eq(encode16(KNIT_F16, 1 + 0x1p-11 + 0x1p-40), 0x3c01);
}
END_TEST

START_TEST(f32_and_i32) {
	const double x[] = {1.0 / 3, -0.0, INFINITY, 1e300};
	float f[4];
	double back[4];

	knit__encode(KNIT_F32, x, f, 4);
	ck_assert(f[0] == 1.0f / 3 && signbit(f[1]) && isinf(f[2]) && isinf(f[3]));
	knit__decode(KNIT_F32, f, back, 4);
	ck_assert(back[0] == (double)(1.0f / 3));

	const double n[] = {2147483647.0, -2147483648.0, 1e10, -1e10, (double)NAN, 2.5, 3.5, -7};
	const int32_t want[] = {INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 0, 2, 4, -7};
	int32_t i[8];

	knit__encode(KNIT_I32, n, i, 8);
	ck_assert_mem_eq(i, want, sizeof want);
	double exact[8];
	knit__decode(KNIT_I32, i, exact, 8);
	ck_assert(exact[0] == 2147483647.0 && exact[1] == -2147483648.0 && exact[7] == -7);
}
END_TEST

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Amplitude 127 * 2^-3: d is 2^-3 exactly, so every element is q / 8. */
START_TEST(q8_0_block_by_hand) {
	float x[KNIT_QK], y[KNIT_QK];
	knit_q8_0 b;

	for (int i = 0; i < KNIT_QK; ++i)
		x[i] = (float)(i * 8 - 127) / 8;
	x[5] = 0.0624f; /* 0.4992 steps: down to 0 */
	x[6] = 0.0625f; /* half a step: away from zero */
	x[7] = -0.0625f;
	x[31] = -x[0];
	knit__row_from_f32(KNIT_Q8_0, x, &b, KNIT_QK);
	ck_assert_uint_eq(b.d, 0x3000);
	for (int i = 0; i < KNIT_QK; ++i)
		ck_assert_int_eq(b.q[i], i == 5 ? 0 : i == 6 ? 1 : i == 7 ? -1 : i == 31 ? 127 : i * 8 - 127);
	knit__row_to_f32(KNIT_Q8_0, &b, y, KNIT_QK);
	for (int i = 0; i < KNIT_QK; ++i)
		ck_assert(y[i] == (float)b.q[i] / 8);
}
END_TEST

/* The element of largest magnitude, with its sign, is -8 steps. */
START_TEST(q4_0_block_by_hand) {
	for (int sign = -1; sign <= 1; sign += 2) {
		float x[KNIT_QK], y[KNIT_QK];
		knit_q4_0 b;

		for (int i = 0; i < KNIT_QK; ++i)
			x[i] = (float)(sign * (i % 16 - 8)) / 4;
		x[3] = (float)sign * -2.0f;
		x[20] = (float)sign * 2.0f; /* +8 steps do not exist: clipped to 7. Not the first of that magnitude */
		x[21] = (float)sign * 0.124f;
		x[22] = (float)sign * 0.126f;
		knit__row_from_f32(KNIT_Q4_0, x, &b, KNIT_QK);
		ck_assert_uint_eq(b.d, sign > 0 ? 0x3400 : 0xb400); /* 1/4 */
		for (int i = 0; i < KNIT_QK; ++i) {
			const int want = i == 3 ? 0 : i == 20 ? 15 : i == 21 ? 8 : i == 22 ? 9 : i % 16;
			const int got = i < 16 ? b.q[i] & 15 : b.q[i - 16] >> 4;

			ck_assert_msg(got == want, "element %d: %d, not %d", i, got, want);
		}
		knit__row_to_f32(KNIT_Q4_0, &b, y, KNIT_QK);
		ck_assert(y[0] == (float)sign * -2.0f && y[9] == (float)sign * 0.25f && y[20] == (float)sign * 1.75f);
	}
}
END_TEST

static float noise(uint32_t *s) {
	*s = *s * 1664525 + 1013904223;
	return (float)(*s >> 8) * 0x1p-23f - 1;
}

/* Half a step, plus what f16 takes from the step itself. */
START_TEST(block_errors_are_bounded) {
	uint32_t s = 7;

	for (int round = 0; round < 2000; ++round) {
		const float scale = ldexpf(1, (int)(s % 20) - 12);
		float x[2 * KNIT_QK], y[2 * KNIT_QK];
		char bytes[2 * sizeof(knit_q8_0)];

		for (int i = 0; i < 2 * KNIT_QK; ++i)
			x[i] = noise(&s) * scale;
		for (int format = 0; format < 2; ++format) {
			const knit_dtype t = format ? KNIT_Q4_0 : KNIT_Q8_0;

			knit__row_from_f32(t, x, bytes, 2 * KNIT_QK);
			knit__row_to_f32(t, bytes, y, 2 * KNIT_QK);
			for (int b = 0; b < 2; ++b) {
				float max = 0;

				for (int i = 0; i < KNIT_QK; ++i)
					max = fmaxf(max, fabsf(x[b * KNIT_QK + i]));
				/* q4_0 clips +8 steps to 7, a whole step */
				const float step = format ? max / 8 : max / 127, slack = max * 0x1p-10f + 0x1p-24f * 127;
				for (int i = b * KNIT_QK; i < (b + 1) * KNIT_QK; ++i)
					if (fabsf(x[i] - y[i]) > step * (format ? 1.0f : 0.5f) + slack)
						ck_abort_msg("%s: %g became %g in a block up to %g", knit_dtype_name(t), x[i], y[i], max);
			}
		}
	}
}
END_TEST

START_TEST(zero_and_tiny_blocks) {
	float x[KNIT_QK] = {0}, y[KNIT_QK];
	char bytes[sizeof(knit_q8_0)];

	for (int tiny = 0; tiny < 2; ++tiny) {
		x[4] = tiny ? 0x1p-149f : 0;
		for (int format = 0; format < 2; ++format) {
			knit__row_from_f32(format ? KNIT_Q4_0 : KNIT_Q8_0, x, bytes, KNIT_QK);
			knit__row_to_f32(format ? KNIT_Q4_0 : KNIT_Q8_0, bytes, y, KNIT_QK);
			for (int i = 0; i < KNIT_QK; ++i)
				ck_assert(y[i] == 0);
		}
	}
}
END_TEST

/* A block has one scale: what is not finite must be seen after decoding, not turned into some number. */
START_TEST(blocks_that_are_not_finite) {
	const float bad[] = {NAN, INFINITY, -INFINITY};

	for (int k = 0; k < 3; ++k) {
		for (int format = 0; format < 2; ++format) {
			float x[2 * KNIT_QK], y[2 * KNIT_QK];
			char bytes[2 * sizeof(knit_q8_0)];

			for (int i = 0; i < 2 * KNIT_QK; ++i)
				x[i] = 1;
			x[9] = bad[k];
			knit__row_from_f32(format ? KNIT_Q4_0 : KNIT_Q8_0, x, bytes, 2 * KNIT_QK);
			knit__row_to_f32(format ? KNIT_Q4_0 : KNIT_Q8_0, bytes, y, 2 * KNIT_QK);
			ck_assert(isnan(y[9]));
			ck_assert(!isnan(y[KNIT_QK]));
		}
	}
}
END_TEST

/* Bytes in a mapped file lie anywhere, and the double functions agree with the row functions. */
START_TEST(unaligned_bytes_and_agreement) {
	const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	float x[96], y[96];
	double d[96], e[96];
	uint32_t s = 3;

	for (int i = 0; i < 96; ++i)
		d[i] = (double)(x[i] = noise(&s));
	for (size_t k = 0; k < sizeof types / sizeof *types; ++k) {
		char a[96 * 4 + 1], b[96 * 4 + 1];
		uint64_t bytes = 0;

		ck_assert(knit__dtype_bytes(types[k], 96, &bytes));
		memset(a, 0x55, sizeof a);
		memset(b, 0x55, sizeof b);
		knit__row_from_f32(types[k], x, a + 1, 96);
		knit__encode(types[k], d, b + 1, 96);
		ck_assert_mem_eq(a, b, sizeof a);
		ck_assert(bytes == 96 * 4 || a[1 + bytes] == 0x55);
		knit__row_to_f32(types[k], a + 1, y, 96);
		knit__decode(types[k], a + 1, e, 96);
		for (int i = 0; i < 96; ++i)
			ck_assert(e[i] == (double)y[i]);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		f16_decodes_by_definition,
		bf16_decodes_by_definition,
		every_half_survives_the_round_trip,
		f16_rounds_to_nearest_even,
		bf16_rounds_to_nearest_even,
		extremes_of_the_16_bit_floats,
		doubles_are_rounded_once,
		f32_and_i32,
		q8_0_block_by_hand,
		q4_0_block_by_hand,
		block_errors_are_bounded,
		zero_and_tiny_blocks,
		blocks_that_are_not_finite,
		unaligned_bytes_and_agreement,
	};

	return suite_run("quant", tests, (int)(sizeof tests / sizeof *tests));
}
