/* Owns the bits of the super-blocks of 256, q4_K and q6_K: decode, and an encoder that searches each part's scale (and
 * minimum) for the least squared error. Plain C, the reference for every faster variant. Knows nothing of tensors. */
#include "quant.h"

#include <math.h>
#include <string.h>

#define PARTS4 8  /* of a q4_K, 32 elements each */
#define PARTS6 16 /* of a q6_K, 16 elements each */

/* As in the blocks of 32: what is not finite makes its whole block NaN, so that it is seen. */
#define BLOCK_NAN UINT16_C(0x7e00)

static bool all_finite(const float *x) {
	for (int i = 0; i < KNIT_QK_K; ++i)
		if (!isfinite(x[i]))
			return false;
	return true;
}

/* 0 where a number is too small to divide by. */
static float inverse_of(float d) {
	const float inverse = d != 0.0f ? 1.0f / d : 0.0f;

	return isfinite(inverse) ? inverse : 0.0f;
}

/* The nearest integer in range; the comparison in floats keeps the conversion defined for every x. */
static int nearest(float x, int lo, int hi) {
	if (!(x > (float)lo))
		return lo;
	return x >= (float)hi ? hi : (int)lrintf(x);
}

/* ---- q4_K -------------------------------------------------------------------------------------------------------- */

/* Scales and minima of the first four parts have a byte each, six bits wide. Those of the last four share bytes 8 to 11,
 * the scale's low four bits below the minimum's; their high two bits sit on top of the first eight bytes. */
void knit__q4_k_parts(const uint8_t packed[12], uint8_t scale[8], uint8_t min[8]) {
	for (int j = 0; j < 4; ++j) {
		scale[j] = packed[j] & 63;
		min[j] = packed[4 + j] & 63;
		scale[4 + j] = (uint8_t)((packed[8 + j] & 15) | (packed[j] >> 6) << 4);
		min[4 + j] = (uint8_t)(packed[8 + j] >> 4 | (packed[4 + j] >> 6) << 4);
	}
}

static void pack_parts(const uint8_t scale[8], const uint8_t min[8], uint8_t packed[12]) {
	for (int j = 0; j < 4; ++j) {
		packed[j] = (uint8_t)(scale[j] | (scale[4 + j] >> 4) << 6);
		packed[4 + j] = (uint8_t)(min[j] | (min[4 + j] >> 4) << 6);
		packed[8 + j] = (uint8_t)((scale[4 + j] & 15) | (min[4 + j] & 15) << 4);
	}
}

/* x ~ scale * q - min with both at least 0 */
typedef struct affine { float scale, min; } affine;

/* The best scale and minimum for given q: two normal equations, with the minimum held at 0 where it would fall below. */
static affine fit_affine(const float *x, const int *q) {
	float n = 32, sq = 0, sqq = 0, sx = 0, sxq = 0;

	for (int i = 0; i < 32; ++i) {
		sq += (float)q[i];
		sqq += (float)(q[i] * q[i]);
		sx += x[i];
		sxq += x[i] * (float)q[i];
	}
	const float det = n * sqq - sq * sq;
	affine f = {0, 0};

	if (det > 0) {
		f.scale = (n * sxq - sq * sx) / det;
		f.min = (sq * sxq - sqq * sx) / det;
	}
	if (det <= 0 || f.min < 0)
		f = (affine){sqq > 0 ? sxq / sqq : 0, 0};
	if (!(f.scale > 0)) /* constant, or no fit: one value below 0 for all */
		f = (affine){0, sx < 0 ? -sx / n : 0};
	return f;
}

static float affine_error(const float *x, affine f, int *q) {
	const float inverse = inverse_of(f.scale);
	float error = 0;

	for (int i = 0; i < 32; ++i) {
		q[i] = nearest((x[i] + f.min) * inverse, 0, 15);
		const float off = x[i] - (f.scale * (float)q[i] - f.min);
		error += off * off;
	}
	return error;
}

#define TRIALS4 12

/* Tries steps somewhat wider and narrower than the range needs; each is refitted to the q that it gives. */
static affine search_affine(const float *x) {
	float lo = 0, hi = 0, best_error;
	affine best = {0, 0};
	int q[32];

	for (int i = 0; i < 32; ++i) {
		lo = fminf(lo, x[i]);
		hi = fmaxf(hi, x[i]);
	}
	if (!(hi > lo))
		return best;
	best = (affine){(hi - lo) / 15, -lo};
	best_error = affine_error(x, best, q);
	for (int t = 0; t < TRIALS4; ++t) {
		const affine start = {(hi - lo) / (12.5f + 0.3f * (float)t), -lo};

		affine_error(x, start, q);
		const affine fitted = fit_affine(x, q);
		const float error = affine_error(x, fitted, q);

		if (error < best_error) {
			best_error = error;
			best = fitted;
		}
	}
	return best;
}

static void fill_q4_k(const float *x, knit_q4_k *b) {
	uint8_t scale[PARTS4], min[PARTS4], q[KNIT_QK_K];
	affine parts[PARTS4];
	float largest_scale = 0, largest_min = 0;

	if (!all_finite(x)) {
		b->d = b->dmin = BLOCK_NAN;
		return;
	}
	for (int j = 0; j < PARTS4; ++j) {
		parts[j] = search_affine(x + j * 32);
		largest_scale = fmaxf(largest_scale, parts[j].scale);
		largest_min = fmaxf(largest_min, parts[j].min);
	}
	b->d = knit__f32_to_f16(largest_scale / 63);
	b->dmin = knit__f32_to_f16(largest_min / 63);
	const float d = knit__f16_to_f32(b->d), dmin = knit__f16_to_f32(b->dmin);
	const float inverse_d = inverse_of(d), inverse_min = inverse_of(dmin);

	for (int j = 0; j < PARTS4; ++j) {
		scale[j] = (uint8_t)nearest(parts[j].scale * inverse_d, 0, 63);
		min[j] = (uint8_t)nearest(parts[j].min * inverse_min, 0, 63);
		const float step = inverse_of(d * (float)scale[j]), offset = dmin * (float)min[j];

		for (int i = 0; i < 32; ++i)
			q[j * 32 + i] = (uint8_t)nearest((x[j * 32 + i] + offset) * step, 0, 15);
	}
	pack_parts(scale, min, b->scales);
	for (int i = 0; i < KNIT_QK_K / 2; ++i) { /* 64 elements in 32 bytes: the first 32 low, the others high */
		const int low = i / 32 * 64 + i % 32;

		b->q[i] = (uint8_t)(q[low] | q[low + 32] << 4);
	}
}

void knit__encode_q4_k(const float *x, void *dst) {
	knit_q4_k b = {0};

	fill_q4_k(x, &b);
	memcpy(dst, &b, sizeof b);
}

void knit__decode_q4_k(const void *src, float *y) {
	uint8_t scale[PARTS4], min[PARTS4];
	knit_q4_k b;

	memcpy(&b, src, sizeof b);
	const float d = knit__f16_to_f32(b.d), dmin = knit__f16_to_f32(b.dmin);

	knit__q4_k_parts(b.scales, scale, min);
	for (int j = 0; j < PARTS4; ++j) {
		const float step = d * (float)scale[j], offset = dmin * (float)min[j];

		for (int i = 0; i < 32; ++i)
			y[j * 32 + i] = step * (float)(b.q[j / 2 * 32 + i] >> j % 2 * 4 & 15) - offset;
	}
}

/* ---- q6_K -------------------------------------------------------------------------------------------------------- */

#define TRIALS6 9

/* x ~ scale * q, q from -32 to 31. The element of largest magnitude sits at -32 or a bit further in. */
static float search_scale(const float *x) {
	float largest = 0, best = 0, best_gain = -1;

	for (int i = 0; i < 16; ++i)
		if (fabsf(x[i]) > fabsf(largest))
			largest = x[i];
	if (inverse_of(largest) == 0)
		return 0;
	for (int t = 0; t < TRIALS6; ++t) {
		const float inverse = -(33.0f - 0.25f * (float)t) / largest;
		float sxq = 0, sqq = 0;

		for (int i = 0; i < 16; ++i) {
			const float q = (float)nearest(x[i] * inverse, -32, 31);

			sxq += x[i] * q;
			sqq += q * q;
		}
		/* the squared error at the fitted scale is sum x^2 less this; in two steps, so that no square overflows */
		const float scale = sqq > 0 ? sxq / sqq : 0, gain = scale / largest * (sxq / largest);

		if (gain > best_gain) {
			best_gain = gain;
			best = scale;
		}
	}
	return best;
}

static void fill_q6_k(const float *x, knit_q6_k *b) {
	float scales[PARTS6], largest = 0;

	if (!all_finite(x)) {
		b->d = BLOCK_NAN;
		return;
	}
	for (int j = 0; j < PARTS6; ++j) {
		scales[j] = search_scale(x + j * 16);
		if (fabsf(scales[j]) > fabsf(largest))
			largest = scales[j];
	}
	/* the largest becomes -128, the end of the range that has one value more */
	b->d = knit__f32_to_f16(largest / -128);
	const float d = knit__f16_to_f32(b->d), inverse = inverse_of(d);

	for (int j = 0; j < PARTS6; ++j)
		b->scales[j] = (int8_t)nearest(scales[j] * inverse, -128, 127);
	for (int i = 0; i < KNIT_QK_K; ++i) {
		const int q = nearest(x[i] * inverse_of(d * (float)b->scales[i / 16]), -32, 31) + 32;
		const int half = i / 128, at = i % 128; /* quarters of a half: 32 elements each */

		b->low[half * 64 + at % 64] |= (uint8_t)((q & 15) << at / 64 * 4);
		b->high[half * 32 + at % 32] |= (uint8_t)(q >> 4 << at / 32 * 2);
	}
}

void knit__encode_q6_k(const float *x, void *dst) {
	knit_q6_k b = {0};

	fill_q6_k(x, &b);
	memcpy(dst, &b, sizeof b);
}

void knit__decode_q6_k(const void *src, float *y) {
	knit_q6_k b;

	memcpy(&b, src, sizeof b);
	const float d = knit__f16_to_f32(b.d);

	for (int i = 0; i < KNIT_QK_K; ++i) {
		const int half = i / 128, at = i % 128;
		const int q = (b.low[half * 64 + at % 64] >> at / 64 * 4 & 15) | (b.high[half * 32 + at % 32] >> at / 32 * 2 & 3) << 4;

		y[i] = d * (float)b.scales[i / 16] * (float)(q - 32);
	}
}
