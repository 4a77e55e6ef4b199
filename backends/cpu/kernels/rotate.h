/* Owns the turning of heads for the kernels that do it: angles in double, once per token, shared by its heads. Knows no
 * op. Included by variants (variant_*.h), as whose loops a compiler vectorises it: they give the same bits. Reference:
 * ops/rope.c. */
#ifndef KNIT_KERNELS_ROTATE_H
#define KNIT_KERNELS_ROTATE_H

#include "operand.h"

#include <math.h>
#include <string.h>

/* Frequencies, and the cosines and sines of one position; in a thread's scratch. */
typedef struct rotation {
	int64_t half; /* pairs */
	knit_rope_layout layout;
	double *frequencies;
	float *cosines, *sines;
} rotation;

/* A multiple of 64. */
static inline uint64_t rotation_bytes(int64_t rotary) { return ((uint64_t)rotary * 8 + 63) & ~UINT64_C(63); }

/* theta^(-2i/rotary) by repeated products: off by i roundings of double, far below what f32 can show. */
static void rotation_frequencies(double theta, int64_t rotary, double *out) {
	const double ratio = pow(theta, -2.0 / (double)rotary);

	out[0] = 1;
	for (int64_t i = 1; i < rotary / 2; ++i)
		out[i] = out[i - 1] * ratio;
}

static rotation rotation_of(double theta, int64_t rotary, knit_rope_layout layout, char *memory) {
	const int64_t half = rotary / 2;
	float *const cosines = (float *)(void *)(memory + half * 8);
	const rotation t = {half, layout, (double *)(void *)memory, cosines, cosines + half};

	if (half > 0)
		rotation_frequencies(theta, rotary, t.frequencies);
	return t;
}

/* Sine and cosine of an angle of at most 2^31, to about 1e-13: what is left of it after whole quarter turns (pi / 2 in
 * parts of which a multiple by less than 2^31 is exact), in Taylor's series. No branch and no call, unlike the C
 * library's. */
static inline void turn_of(double angle, float *sine, float *cosine) {
	const double magic = 0x1.8p52; /* a sum with it has whole numbers in its low bits */
	const double shifted = angle * 0x1.45f306dc9c883p-1 + magic, turns = shifted - magic;
	uint64_t bits;
	memcpy(&bits, &shifted, sizeof bits);
	const double r = ((angle - turns * 0x1.921fbp+0) - turns * 0x1.5110bp-22) - turns * 0x1.184698p-44 -
	                 turns * 0x1.3198a2e037073p-69;
	const double z = r * r;
	const double s = r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 +
	                 z * (-1.0 / 39916800 + z * (1.0 / 6227020800.0))))));
	const double c = 1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
	                 z * (1.0 / 479001600 + z * (-1.0 / 87178291200.0)))))));
	/* by quarter turns: s, c; c, -s; -s, -c; -c, s */
	const uint64_t odd = -(bits & 1), sine_sign = (bits & 2) << 62, cosine_sign = ((bits + 1) & 2) << 62;
	uint64_t s_bits, c_bits;
	memcpy(&s_bits, &s, sizeof s_bits);
	memcpy(&c_bits, &c, sizeof c_bits);
	const uint64_t sine_bits = ((s_bits & ~odd) | (c_bits & odd)) ^ sine_sign;
	const uint64_t cosine_bits = ((c_bits & ~odd) | (s_bits & odd)) ^ cosine_sign;
	double sine_value, cosine_value;
	memcpy(&sine_value, &sine_bits, sizeof sine_value);
	memcpy(&cosine_value, &cosine_bits, sizeof cosine_value);
	*sine = (float)sine_value;
	*cosine = (float)cosine_value;
}

static void rotation_turn_to(const rotation *t, int32_t pos) {
	const double *restrict const frequencies = t->frequencies;
	float *restrict const sines = t->sines, *restrict const cosines = t->cosines;

	for (int64_t i = 0; i < t->half; ++i)
		turn_of((double)pos * frequencies[i], &sines[i], &cosines[i]);
}

/* Of x [tokens, heads, dim]. */
static inline float *rotate_row(const knit_cpu_tensor *x, int64_t token, int64_t head) {
	return (float *)(void *)x->data + token * x->strides[0] + head * x->strides[1];
}

#define ROTATE_PIECE 64

/* Turns pairs that lie `half` apart; y may be x. */
static void rotate_split(const rotation *t, const float *x, float *y) {
	float a[ROTATE_PIECE], b[ROTATE_PIECE];

	for (int64_t at = 0; at < t->half; at += ROTATE_PIECE) {
		const int64_t n = knit__min(ROTATE_PIECE, t->half - at);
		const float *const u = x + at, *const v = u + t->half, *const c = t->cosines + at, *const s = t->sines + at;

		for (int64_t i = 0; i < n; ++i) {
			a[i] = u[i] * c[i] - v[i] * s[i];
			b[i] = u[i] * s[i] + v[i] * c[i];
		}
		memcpy(y + at, a, (size_t)n * sizeof *a);
		memcpy(y + t->half + at, b, (size_t)n * sizeof *b);
	}
}

/* Turns pairs of neighbours; y may be x. */
static void rotate_neighbours(const rotation *t, const float *x, float *y) {
	for (int64_t i = 0; i < t->half; ++i) {
		const float u = x[2 * i], v = x[2 * i + 1];

		y[2 * i] = u * t->cosines[i] - v * t->sines[i];
		y[2 * i + 1] = u * t->sines[i] + v * t->cosines[i];
	}
}

/* One head of dim elements; y may be x. */
static void rotate_head(const rotation *t, const float *x, float *y, int64_t dim) {
	if (t->layout == KNIT_ROPE_SPLIT)
		rotate_split(t, x, y);
	else
		rotate_neighbours(t, x, y);
	if (x != y)
		memcpy(y + 2 * t->half, x + 2 * t->half, (size_t)(dim - 2 * t->half) * sizeof *y);
}

#endif
