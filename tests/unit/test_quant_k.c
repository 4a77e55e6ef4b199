/* The super-blocks of 256: bits by hand, what the encoder reaches, and what no block can hold. */
#include "../../ops/quant.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* 0 to 63, different for every part and for scales and minima. */
static int part_scale(int j) { return (j * 9 + 5) & 63; }
static int part_min(int j) { return (61 - j * 7) & 63; }

/* The layout written out byte by byte, as the public description of the format has it. */
START_TEST(q4_K_by_hand) {
	uint8_t b[144] = {0};
	float y[256];

	b[0] = 0x00, b[1] = 0x38; /* 1/2 */
	b[2] = 0x00, b[3] = 0x34; /* 1/4 */
	for (int j = 0; j < 4; ++j) {
		b[4 + j] = (uint8_t)(part_scale(j) + (part_scale(j + 4) / 16) * 64);
		b[8 + j] = (uint8_t)(part_min(j) + (part_min(j + 4) / 16) * 64);
		b[12 + j] = (uint8_t)(part_scale(j + 4) % 16 + part_min(j + 4) % 16 * 16);
	}
	for (int i = 0; i < 128; ++i)
		b[16 + i] = (uint8_t)(i * 37 + 11);
	knit__row_to_f32(KNIT_Q4_K, b, y, 256);
	for (int group = 0; group < 4; ++group)
		for (int i = 0; i < 32; ++i)
			for (int high = 0; high < 2; ++high) {
				const int byte = (uint8_t)((group * 32 + i) * 37 + 11), q = high ? byte / 16 : byte % 16, j = group * 2 + high;
				const float want = 0.5f * (float)(part_scale(j) * q) - 0.25f * (float)part_min(j);

				ck_assert_msg(y[group * 64 + high * 32 + i] == want, "part %d, element %d", j, i);
			}
}
END_TEST

START_TEST(q6_K_by_hand) {
	uint8_t b[210];
	float y[256];

	for (int i = 0; i < 192; ++i)
		b[i] = (uint8_t)(i * 89 + i / 3 + 7);
	for (int j = 0; j < 16; ++j)
		b[192 + j] = (uint8_t)(int8_t)(j * 17 - 128);
	b[208] = 0x00, b[209] = 0xb4; /* -1/4 */
	knit__row_to_f32(KNIT_Q6_K, b, y, 256);
	for (int half = 0; half < 2; ++half)
		for (int i = 0; i < 32; ++i) {
			const int l0 = b[half * 64 + i], l1 = b[half * 64 + 32 + i], h = b[128 + half * 32 + i];
			const int q[4] = {l0 % 16 + h % 4 * 16, l1 % 16 + h / 4 % 4 * 16, l0 / 16 + h / 16 % 4 * 16, l1 / 16 + h / 64 * 16};

			for (int k = 0; k < 4; ++k) {
				const int at = half * 128 + k * 32 + i, scale = at / 16 * 17 - 128;

				ck_assert_msg(y[at] == -0.25f * (float)(scale * (q[k] - 32)), "element %d", at);
			}
		}
}
END_TEST

/* Six-bit scales and minima survive packing, every value in every place. */
START_TEST(parts_of_every_value) {
	for (int round = 0; round < 64; ++round) {
		float x[256], y[256];
		uint8_t scale[8], min[8];
		knit_q4_k b;

		/* on the grid of d = dmin = 1/64, with all of 0..15 in each part: the search can only find these */
		for (int j = 0; j < 8; ++j) {
			const int s = j == 7 ? 63 : 1 + (round + j * 5) % 63, m = j == 6 ? 63 : (round * 3 + j * 11) % 64;
			const int least = m < 15 * s ? m : 15 * s; /* a range that begins above 0 has no such minimum */

			for (int i = 0; i < 32; ++i)
				x[j * 32 + i] = (float)(s * (i % 16) - least) / 64;
		}
		knit__row_from_f32(KNIT_Q4_K, x, &b, 256);
		knit__q4_k_parts(b.scales, scale, min);
		knit__row_to_f32(KNIT_Q4_K, &b, y, 256);
		for (int j = 0; j < 8; ++j) {
			const int s = j == 7 ? 63 : 1 + (round + j * 5) % 63;

			ck_assert_msg(scale[j] == s, "round %d part %d: scale %d, not %d", round, j, scale[j], s);
		}
		for (int i = 0; i < 256; ++i)
			ck_assert_msg(fabsf(x[i] - y[i]) <= 0.5f / 64 + 1e-3f, "round %d: element %d is %g, was %g", round, i,
			              (double)y[i], (double)x[i]);
	}
}
END_TEST

static float noise(uint32_t *s) {
	*s = *s * 1664525 + 1013904223;
	return (float)(*s >> 8) * 0x1p-23f - 1;
}

/* Bell-shaped, as weights are: the sum of several. */
static float bell(uint32_t *s) { return noise(s) + noise(s) + noise(s) + noise(s); }

static double relative_error(knit_dtype t, const float *x, size_t n) {
	static char bytes[64 * 256 * 2]; /* q8_0 takes more than a byte each */
	static float y[64 * 256];
	double off = 0, size = 0;

	knit__row_from_f32(t, x, bytes, n);
	knit__row_to_f32(t, bytes, y, n);
	for (size_t i = 0; i < n; ++i) {
		off += pow((double)x[i] - (double)y[i], 2);
		size += pow((double)x[i], 2);
	}
	return off / size;
}

/* The search pays: q4_K is well below q4_0 in the same 4.5 bits, and below the error of even steps over each range. */
START_TEST(errors_of_usual_weights) {
	static float x[64 * 256];
	uint32_t s = 11;

	for (int shape = 0; shape < 3; ++shape) { /* bell-shaped, flat, all above 0 */
		for (size_t i = 0; i < 64 * 256; ++i)
			x[i] = (shape == 0 ? bell(&s) : shape == 1 ? noise(&s) : 1 + noise(&s)) * 0.02f;
		const double q4_0 = relative_error(KNIT_Q4_0, x, 64 * 256), q4_k = relative_error(KNIT_Q4_K, x, 64 * 256);
		const double q6_k = relative_error(KNIT_Q6_K, x, 64 * 256), q8_0 = relative_error(KNIT_Q8_0, x, 64 * 256);

		printf("squared errors: q4_0 %.3g, q4_K %.3g, q6_K %.3g, q8_0 %.3g\n", q4_0, q4_k, q6_k, q8_0);
		ck_assert_double_lt(q4_k, 0.75 * q4_0);
		ck_assert_double_lt(q6_k, q4_k / 4);
		ck_assert_double_lt(q8_0, q6_k);
	}
}
END_TEST

/* Where f16 holds the scales well, the error of each element is bounded by its part's range. */
START_TEST(errors_are_bounded) {
	uint32_t s = 7;

	for (int round = 0; round < 500; ++round) {
		const float size = ldexpf(1, round % 24 - 8);
		float x[256], y4[256], y6[256];
		char bytes[210];

		for (int i = 0; i < 256; ++i)
			x[i] = noise(&s) * size;
		knit__row_from_f32(KNIT_Q4_K, x, bytes, 256);
		knit__row_to_f32(KNIT_Q4_K, bytes, y4, 256);
		knit__row_from_f32(KNIT_Q6_K, x, bytes, 256);
		knit__row_to_f32(KNIT_Q6_K, bytes, y6, 256);
		for (int i = 0; i < 256; ++i) {
			/* the search may leave the ends to the rest: one step and a bit, and half a step of the 6-bit minimum */
			ck_assert_msg(fabsf(x[i] - y4[i]) <= size * (2.0f / 15 * 1.2f + 1.0f / 63), "q4_K: %g became %g of %g", (double)x[i],
			              (double)y4[i], (double)size);
			ck_assert_msg(fabsf(x[i] - y6[i]) <= size * (1.2f / 31), "q6_K: %g became %g of %g", (double)x[i],
			              (double)y6[i], (double)size);
		}
	}
}
END_TEST

/* One part thousands of times the others: those may vanish, nothing may overflow. */
START_TEST(uneven_zero_and_tiny_blocks) {
	static const knit_dtype types[] = {KNIT_Q4_K, KNIT_Q6_K};
	float x[256], y[256];
	char bytes[210];

	for (int t = 0; t < 2; ++t) {
		for (int kind = 0; kind < 5; ++kind) {
			for (int i = 0; i < 256; ++i)
				x[i] = kind == 0 ? 0 : kind == 1 ? ldexpf((float)(i % 5 - 2), -149) : kind == 2 ? 3 : kind == 3 ? -3
				     : (float)(i % 7 - 3) * (i < 32 ? 1e6f : 1e-3f);
			knit__row_from_f32(types[t], x, bytes, 256);
			knit__row_to_f32(types[t], bytes, y, 256);
			for (int i = 0; i < 256; ++i)
				ck_assert_msg(fabsf(x[i] - y[i]) <= (kind == 4 ? 3e6f * 0.1f : 3 * 0.01f) && (kind || y[i] == 0),
				              "%s, kind %d: %g became %g", knit_dtype_name(types[t]), kind, (double)x[i], (double)y[i]);
		}
	}
}
END_TEST

START_TEST(what_is_not_finite_is_seen) {
	static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
	static const knit_dtype types[] = {KNIT_Q4_K, KNIT_Q6_K};

	for (int k = 0; k < 4; ++k)
		for (int t = 0; t < 2; ++t) {
			float x[512], y[512];
			char bytes[2 * 210];

			for (int i = 0; i < 512; ++i)
				x[i] = 1;
			x[200] = bad[k];
			knit__row_from_f32(types[t], x, bytes, 512);
			knit__row_to_f32(types[t], bytes, y, 512);
			ck_assert(!isfinite(y[200]));
			for (int i = 256; i < 512; ++i)
				ck_assert(fabsf(y[i] - 1) < 0.01f);
		}
}
END_TEST

START_TEST(any_address_and_the_functions_of_doubles) {
	static const knit_dtype types[] = {KNIT_Q4_K, KNIT_Q6_K};
	float x[512], y[512];
	double d[512], e[512];
	uint32_t s = 3;

	for (int i = 0; i < 512; ++i)
		d[i] = (double)(x[i] = bell(&s));
	for (int t = 0; t < 2; ++t) {
		char a[2 * 210 + 2], b[2 * 210 + 2];
		uint64_t bytes = 0;

		ck_assert(knit__dtype_bytes(types[t], 512, &bytes));
		memset(a, 0x55, sizeof a);
		memset(b, 0x55, sizeof b);
		knit__row_from_f32(types[t], x, a + 1, 512);
		knit__encode(types[t], d, b + 1, 512);
		ck_assert_mem_eq(a, b, sizeof a);
		ck_assert_int_eq(a[1 + bytes], 0x55);
		knit__row_to_f32(types[t], a + 1, y, 512);
		knit__decode(types[t], a + 1, e, 512);
		for (int i = 0; i < 512; ++i)
			ck_assert(e[i] == (double)y[i]);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		q4_K_by_hand,        q6_K_by_hand,       parts_of_every_value,        errors_of_usual_weights,
		errors_are_bounded,  uneven_zero_and_tiny_blocks, what_is_not_finite_is_seen, any_address_and_the_functions_of_doubles,
	};

	return suite_run("quant k", tests, (int)(sizeof tests / sizeof *tests));
}
