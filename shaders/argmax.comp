#version 450
#extension GL_GOOGLE_include_directive : require
/* The index of the largest element of rows, a group each: the lowest of equals, NaN passed over, 0 where there is nothing
 * else. Compared as integers of the same order, exact whatever a driver does with denormals. Reference: ops/reduce.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "common/reduce.glsl"
#include "params/softmax.h"
#include "common/rows.glsl"

KNIT_PARAMS { knit_softmax_params p; };
KNIT_IN(1) x_buffer { uint x[]; };
KNIT_OUT(2) out_buffer { uint result[]; };

/* Rises with the number; 0: a NaN. Both zeros are one. */
uint key(uint bits) {
	if (knit_bits_nan(bits))
		return 0u;
	if ((bits & 0x7fffffffu) == 0u)
		return 0x80000000u;
	return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

void main() {
	const uint row = knit_group(), n = row < p.rows ? p.n : 0u;
	const uint from = knit_row(p.x, row);
	uint best = 0u, best_at = 0u;

	for (uint i = knit_lane(); i < n; i += knit_width()) {
		const uint k = key(x[from + i]);

		if (k > best) {
			best = k;
			best_at = i;
		}
	}

	const uint largest = knit_group_max(best);
	const uint at = knit_group_min(best == largest ? best_at : 0xffffffffu);
	if (row < p.rows && knit_lane() == 0u)
		result[p.out_at + row] = largest == 0u ? 0u : at;
}
