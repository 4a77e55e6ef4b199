#version 450
#extension GL_GOOGLE_include_directive : require
// Owns rows of x as weights in blocks meet them where integers are multiplied: per block of 32 the scale max |x| / 127 and
// x / scale rounded to 8 bits, in natural order. An invocation per block. Must agree with the CPU's
// knit__linear_quantise_block: a block with a NaN or an infinity has the scale NaN.
//
// Bound: memory, 4 bytes read and 1.125 written per element, a small part of what the product after it reads.
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/linear_quantise.h"

KNIT_PARAMS { knit_linear_quantise_params p; };
KNIT_IN(1) X { float v[]; } x;
KNIT_OUT(2) Result { uint v[]; } result;

void main() {
	const uint i = knit_group() * knit_width() + knit_lane();

	if (i >= p.rows * p.blocks)
		return;
	const uint r = i / p.blocks, block = i % p.blocks;
	const uint at = p.x_at + r / p.x_d2 / p.x_d1 * p.x_s0 + r / p.x_d2 % p.x_d1 * p.x_s1 + r % p.x_d2 * p.x_s2 + block * 32;
	uint most = 0;
	for (uint e = 0; e < 32; ++e)
		most = max(most, floatBitsToUint(x.v[at + e]) & 0x7fffffffu);

	const bool finite = most < 0x7f800000u;
	const float factor = most < 0x0d800000u ? 1.2676506002282294e30 : 1; // 2^100 below 2^-100
	const float size = uintBitsToFloat(most) * factor, inverse = size > 0 ? 127 / size : 0;
	for (uint w = 0; w < 8; ++w) {
		uint word = 0;
		for (uint e = 0; e < 4 && finite; ++e)
			word |= (uint(int(roundEven(x.v[at + w * 4 + e] * factor * inverse))) & 255u) << e * 8;
		result.v[r * p.out_row + p.q_at + block * 8 + w] = word;
	}
	result.v[r * p.out_row + p.scale_at + block] = finite ? floatBitsToUint(size / 127 / factor) : knit_nan_bits;
}
