#version 450
#extension GL_GOOGLE_include_directive : require
/* Norms of rows, a group each. Variants: none (rms_norm, layer_norm), ADD (add_rms_norm). Outputs may take the input's
 * place: an invocation reads nothing that another has written. References: ops/norm.c, ops/fused_norm.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#define KNIT_REDUCE_VECTORS
#include "common/reduce.glsl"
#include "params/norm.h"
#include "common/rows.glsl"

layout(constant_id = 1) const uint GAIN_TYPE = KNIT_F32;
layout(constant_id = 2) const bool CENTRED = false; /* layer_norm */
layout(constant_id = 3) const uint BIAS_TYPE = 0;   /* 0: there is none */

KNIT_PARAMS { knit_norm_params p; };
KNIT_IN(1) x_buffer { float x[]; };
#ifdef ADD
KNIT_IN(2) b_buffer { float b[]; };
KNIT_OUT(5) sum_buffer { float sums_out[]; };
#else
KNIT_IN(2) bias_words { uint bias32[]; };
KNIT_IN(2) bias_halves { uint16_t bias16[]; };
KNIT_FLOAT_READER(bias_at, BIAS_TYPE, bias32, bias16)
#endif
KNIT_IN(3) gain_words { uint gain32[]; };
KNIT_IN(3) gain_halves { uint16_t gain16[]; };
KNIT_OUT(4) out_buffer { float result[]; };

KNIT_FLOAT_READER(gain_at, GAIN_TYPE, gain32, gain16)

/* Sums of squares of small, ordinary and large numbers, each scaled so that no square leaves the range of f32 (J. L. Blue
 * 1978): rows of 1e-30 and of 1e30 come out right in one pass. */
const float to_small = 1.2676506002282294e30, to_large = 8.271806125530277e-25; /* 2^100, 2^-80 */

/* precise: drivers that fold the two scales of a product into one would leave the range after all. */
void add_square(inout vec3 sums, float v) {
	const float size = abs(v);
	precise float scaled = v;

	if (size > 2.81474976710656e14) { /* 2^48 */
		scaled *= to_large;
		sums.z += scaled * scaled;
	} else if (size < 8.881784197001252e-16) { /* 2^-50 */
		scaled *= to_small;
		sums.x += scaled * scaled;
	} else
		sums.y += v * v; /* a NaN too */
}

/* What a number is scaled by first, and then, so that its row has mean square 1. */
void factors(vec3 sums, out float first, out float second) {
	precise float eps = p.eps, square;

	first = sums.z > 0.0 ? to_large : sums.y == 0.0 && p.eps < 1e-25 ? to_small : 1.0;
	square = first == to_large ? sums.y * to_large * to_large + sums.z
	         : first == to_small ? sums.x : sums.x / to_small / to_small + sums.y;
	eps = eps * first * first;
	second = inversesqrt(square * p.inverse_n + eps);
}

float at(uint from, uint other, uint i) {
#ifdef ADD
	return x[from + i] + b[other + i];
#else
	return x[from + i];
#endif
}

/* Writes element i of the row, which is v. */
void finish(uint row, uint i, float v, float mean, float first, float second, float gain) {
	precise float y = (v - mean) * first * second * gain;

#ifdef ADD
	sums_out[p.sum_at + row * p.n + i] = v;
#else
	if (BIAS_TYPE != 0u)
		y += bias_at(p.bias_at + i);
#endif
	result[p.out_at + row * p.n + i] = y;
}

/* What an invocation keeps of its row, and the gains for it: a row of four times the group's width is read once, all of
 * it on its way before anything waits (NORM_EACH of kernels/norm.c). Of a longer one the rest is read again. */
#define EACH 4u

void main() {
	const uint row = knit_group(), n = row < p.rows ? p.n : 0u, width = knit_width();
	const uint from = knit_row(p.x, row);
	uint other = 0u;
	float v[EACH], gain[EACH], mean = 0.0, first, second;
	vec3 sums = vec3(0.0);

#ifdef ADD
	other = knit_row(p.b, row);
#endif
	for (uint e = 0; e < EACH; ++e) {
		const uint i = knit_lane() + e * width;

		if (i < n) {
			v[e] = at(from, other, i);
			gain[e] = gain_at(p.gain_at + i);
		}
	}
	if (CENTRED) {
		const float scale = 9.5367431640625e-7; /* 2^-20: no sum of less than 2^20 leaves the range */

		for (uint e = 0; e < EACH; ++e)
			if (knit_lane() + e * width < n)
				mean += v[e] * scale;
		for (uint i = knit_lane() + EACH * width; i < n; i += width)
			mean += at(from, other, i) * scale;
		mean = knit_group_sum(mean) / float(p.n) * 1048576.0;
	}
	for (uint e = 0; e < EACH; ++e)
		if (knit_lane() + e * width < n)
			add_square(sums, v[e] - mean);
	for (uint i = knit_lane() + EACH * width; i < n; i += width)
		add_square(sums, at(from, other, i) - mean);
	factors(knit_group_sum(sums), first, second);

	for (uint e = 0; e < EACH; ++e)
		if (knit_lane() + e * width < n)
			finish(row, knit_lane() + e * width, v[e], mean, first, second, gain[e]);
	for (uint i = knit_lane() + EACH * width; i < n; i += width)
		finish(row, i, at(from, other, i), mean, first, second, gain_at(p.gain_at + i));
}
