#version 450
#extension GL_GOOGLE_include_directive : require
/* A chain of elementwise operations (graph/fused.h), the program being specialization constants: nothing of it is left at
 * run time. An operand may be a vector, which repeats along the rows. Reference: ops/map.c, ops/elementwise.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "common/math.glsl"
#include "params/map.h"

/* Per instruction: bits 0-7 the operation, 8-15 register a, 16-23 register b; 0: there is none. */
layout(constant_id = 1) const uint STEP0 = 0;
layout(constant_id = 2) const uint STEP1 = 0;
layout(constant_id = 3) const uint STEP2 = 0;
layout(constant_id = 4) const uint STEP3 = 0;
layout(constant_id = 5) const uint STEP4 = 0;
layout(constant_id = 6) const uint STEP5 = 0;
/* Per operand eight bits: the type, 0 where there is none; bit 7: a vector. */
layout(constant_id = 7) const uint OPERANDS = 0;

#define ADD 1
#define MUL 2
#define SCALE 3
#define SILU 4
#define GELU 5

KNIT_PARAMS { knit_map_params p; };
KNIT_IN(1) a_words { uint a32[]; };
KNIT_IN(2) b_words { uint b32[]; };
KNIT_IN(3) c_words { uint c32[]; };
KNIT_IN(4) d_words { uint d32[]; };
KNIT_IN(2) b_halves { uint16_t b16[]; };
KNIT_IN(3) c_halves { uint16_t c16[]; };
KNIT_IN(4) d_halves { uint16_t d16[]; };
KNIT_OUT(5) out_buffer { float result[]; };

KNIT_FLOAT_READER(b_at, (OPERANDS >> 8 & 0x7fu), b32, b16)
KNIT_FLOAT_READER(c_at, (OPERANDS >> 16 & 0x7fu), c32, c16)
KNIT_FLOAT_READER(d_at, (OPERANDS >> 24 & 0x7fu), d32, d16)

uint place(uint operand, uint i) {
	return p.at[operand] + ((OPERANDS >> operand * 8u & 0x80u) != 0u ? i % p.row : i);
}

float registers[10];

void apply(uint instr, uint index) {
	if (instr == 0u)
		return;

	const uint op = instr & 0xffu;
	const float a = registers[instr >> 8 & 0xffu];
	float y = 0.0;

	if (op == ADD)
		y = a + registers[instr >> 16 & 0xffu];
	else if (op == MUL)
		y = a * registers[instr >> 16 & 0xffu];
	else if (op == SCALE)
		y = a * p.scale[index];
	else if (op == SILU)
		y = knit_silu(a);
	else
		y = knit_gelu(a);
	registers[4u + index] = y;
}

uint last() {
	return STEP5 != 0u ? 9u : STEP4 != 0u ? 8u : STEP3 != 0u ? 7u : STEP2 != 0u ? 6u : STEP1 != 0u ? 5u : 4u;
}

float element(uint i) {
	registers[0] = uintBitsToFloat(a32[place(0u, i)]);
	if ((OPERANDS >> 8 & 0x7fu) != 0u)
		registers[1] = b_at(place(1u, i));
	if ((OPERANDS >> 16 & 0x7fu) != 0u)
		registers[2] = c_at(place(2u, i));
	if ((OPERANDS >> 24 & 0x7fu) != 0u)
		registers[3] = d_at(place(3u, i));
	apply(STEP0, 0u);
	apply(STEP1, 1u);
	apply(STEP2, 2u);
	apply(STEP3, 3u);
	apply(STEP4, 4u);
	apply(STEP5, 5u);
	return registers[last()];
}

/* Each invocation has four elements (MAP_EACH of kernels/map.c), a group's width apart, all of them read before one is
 * written. */
void main() {
	const uint first = knit_group() * knit_width() * 4u + knit_lane();
	float y[4];

	for (uint e = 0; e < 4u; ++e)
		if (first + e * knit_width() < p.count)
			y[e] = element(first + e * knit_width());
	for (uint e = 0; e < 4u; ++e)
		if (first + e * knit_width() < p.count)
			result[p.out_at + first + e * knit_width()] = y[e];
}
