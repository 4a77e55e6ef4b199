#version 450
#extension GL_GOOGLE_include_directive : require
/* Rows of a table by their numbers, each split over groups; a row of NaN for a number outside of it. Reference:
 * ops/gather.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/gather.h"

layout(constant_id = 1) const uint TYPE = KNIT_F32;

KNIT_PARAMS { knit_gather_params p; };
KNIT_IN(1) table_words { uint table32[]; };
KNIT_IN(1) table_halves { uint16_t table16[]; };
KNIT_IN(2) ids_buffer { int ids[]; };
KNIT_OUT(3) out_buffer { uint result[]; };

KNIT_READER(table_at, TYPE, table32, table16)
KNIT_SUPER_READER(table_at, table16)

/* Four elements of an invocation (GATHER_EACH of kernels/gather.c), all read before one is written: the compiler cannot
 * know that the output is not the table. */
#define EACH 4u

void main() {
	const uint row = knit_group() / p.pieces;

	if (row >= p.ids)
		return;

	const uint lane = knit_group() % p.pieces * EACH * knit_width() + knit_lane(), at = p.out_at + row * p.n;
	const int id = ids[p.ids_at + row];
	const bool inside = id >= 0 && uint(id) < p.rows;
	uint y[EACH];

	if (inside ? uint(id) < p.first || uint(id) - p.first >= p.count : p.first != 0u)
		return;

	const uint base = p.base + (uint(id) - p.first) * p.row_words;
	for (uint e = 0; e < EACH; ++e) {
		const uint i = lane + e * knit_width();

		y[e] = knit_nan_bits;
		if (inside && i < p.n) {
			if (TYPE == KNIT_F32)
				y[e] = table32[base + i];
			else if (TYPE == KNIT_Q4_K)
				y[e] = floatBitsToUint(table_at_q4_k(base + i / 256u * KNIT_Q4_K_WORDS, i % 256u));
			else if (TYPE == KNIT_Q6_K)
				y[e] = floatBitsToUint(table_at_q6_k(base + i / 256u * KNIT_Q6_K_WORDS, i % 256u));
			else
				y[e] = floatBitsToUint(table_at(base, i));
		}
	}
	for (uint e = 0; e < EACH; ++e)
		if (lane + e * knit_width() < p.n)
			result[at + lane + e * knit_width()] = y[e];
}
