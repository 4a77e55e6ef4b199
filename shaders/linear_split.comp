#version 450
#extension GL_GOOGLE_include_directive : require
// Owns rows of x as linear_coop.comp reads them: x times a power of two that brings the largest of the row to 2^14, as the
// sum of two f16, which holds 22 bits. Of a row first all high parts, then all low ones, both up to a multiple of 32 with
// zeros, then the inverse of the power. A group per row.
//
// Bound: memory, 8 bytes read (half of them from caches) and 4 written per element.
#include "common/group.glsl"
#include "common/formats.glsl"
#include "common/reduce.glsl"
#include "params/linear_split.h"

KNIT_PARAMS { knit_linear_split_params p; };
KNIT_IN(1) X { float v[]; } x;
KNIT_OUT(2) Result { uint v[]; } result;

// What is infinite or no number is so in the high part alone.
uvec2 split(float v) {
	const uint high = knit_to_f16(floatBitsToUint(v));
	const bool finite = (high & 0x7c00u) != 0x7c00u;

	return uvec2(high, finite ? knit_to_f16(floatBitsToUint(v - knit_f16(high))) : 0);
}

void main() {
	const uint r = knit_group();
	if (r >= p.rows) // all invocations of the group
		return;
	const uint at = p.x_at + r / p.x_d2 / p.x_d1 * p.x_s0 + r / p.x_d2 % p.x_d1 * p.x_s1 + r % p.x_d2 * p.x_s2;
	const uint to = p.out_at + r * p.out_row, pairs = (p.k + 31) / 32 * 16;

	uint most = 0; // of what is finite: positive floats are in the order of their bits
	for (uint i = knit_lane(); i < p.k; i += knit_width()) {
		const uint size = floatBitsToUint(x.v[at + i]) & 0x7fffffffu;
		most = max(most, size < 0x7f800000u ? size : 0);
	}
	const uint exponent = min(268 - (knit_group_max(most) >> 23), 253); // biased; its inverse is no denormal
	const float factor = uintBitsToFloat(exponent << 23);

	for (uint i = knit_lane(); i < pairs; i += knit_width()) {
		const uvec2 a = split(i * 2 < p.k ? x.v[at + i * 2] * factor : 0);
		const uvec2 b = split(i * 2 + 1 < p.k ? x.v[at + i * 2 + 1] * factor : 0);
		result.v[to + i] = a.x | b.x << 16;
		result.v[to + pairs + i] = a.y | b.y << 16;
	}
	if (knit_lane() == 0)
		result.v[to + pairs * 2] = (254 - exponent) << 23;
}
