#version 450
#extension GL_GOOGLE_include_directive : require
/* Elements put in a dense row, converted between f32, f16 and bf16 where the types differ. Reference: ops/cast.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/copy.h"

/* Types; of equal ones only the size matters: KNIT_I32 for words of 32 bits, KNIT_F16 for words of 16. */
layout(constant_id = 1) const uint FROM = KNIT_I32;
layout(constant_id = 2) const uint TO = KNIT_I32;
layout(constant_id = 3) const bool DENSE = false; /* so is the input */

KNIT_PARAMS { knit_copy_params p; };
KNIT_IN(1) x_words { uint x32[]; };
KNIT_IN(1) x_halves { uint16_t x16[]; };
KNIT_OUT(2) out_words { uint result32[]; };
KNIT_OUT(2) out_halves { uint16_t result16[]; };

uint place(uint i) {
	if (DENSE)
		return p.at + i;

	const uint row = i / p.size[2], plane = row / p.size[1];
	return p.at + i % p.size[2] * p.stride[3] + row % p.size[1] * p.stride[2] + plane % p.size[0] * p.stride[1] +
	       plane / p.size[0] * p.stride[0];
}

/* The bits of an element in the output's type. */
uint element(uint i) {
	uint bits;

	if (FROM == KNIT_I32 || FROM == KNIT_F32)
		bits = x32[i];
	else
		bits = uint(x16[i]);
	if (FROM == TO)
		return bits;
	if (FROM == KNIT_F16)
		bits = knit_f16_bits(bits);
	else if (FROM == KNIT_BF16)
		bits = bits << 16;
	if (TO == KNIT_F16)
		return knit_to_f16(bits);
	return TO == KNIT_BF16 ? knit_to_bf16(bits) : bits;
}

/* Each invocation has four elements (COPY_EACH of kernels/copy.c), a group's width apart. */
void main() {
	const uint first = knit_group() * knit_width() * 4u + knit_lane();
	uint y[4];

	for (uint e = 0; e < 4u; ++e)
		if (first + e * knit_width() < p.count)
			y[e] = element(place(first + e * knit_width()));
	for (uint e = 0; e < 4u; ++e) {
		const uint i = first + e * knit_width();

		if (i < p.count) {
			if (TO == KNIT_F32 || TO == KNIT_I32)
				result32[p.out_at + i] = y[e];
			else
				result16[p.out_at + i] = uint16_t(y[e]);
		}
	}
}
