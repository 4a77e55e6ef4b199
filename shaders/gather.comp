#version 450
#extension GL_GOOGLE_include_directive : require
/* Rows of a table by their numbers; a row of NaN for a number outside of it. A group per row. Reference: ops/gather.c. */
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

void main() {
	const uint row = knit_group();

	if (row >= p.ids)
		return;

	const uint at = p.out_at + row * p.n;
	const int id = ids[p.ids_at + row];
	if (id < 0 || uint(id) >= p.rows) {
		for (uint i = knit_lane(); p.first == 0u && i < p.n; i += knit_width())
			result[at + i] = knit_nan_bits;
		return;
	}
	if (uint(id) < p.first || uint(id) - p.first >= p.count)
		return;

	const uint base = p.base + (uint(id) - p.first) * p.row_words;
	for (uint i = knit_lane(); i < p.n; i += knit_width())
		result[at + i] = TYPE == KNIT_F32 ? table32[base + i] : floatBitsToUint(table_at(base, i));
}
