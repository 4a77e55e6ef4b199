#version 450
#extension GL_GOOGLE_include_directive : require
/* Softmax of rows, a group each. The output may take the input's place: an invocation reads nothing that another has
 * written. Reference: ops/reduce.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "common/math.glsl"
#include "common/reduce.glsl"
#include "params/softmax.h"
#include "common/rows.glsl"

KNIT_PARAMS { knit_softmax_params p; };
KNIT_IN(1) x_buffer { float x[]; };
KNIT_OUT(2) out_buffer { float result[]; };

void main() {
	const uint row = knit_group(), n = row < p.rows ? p.n : 0u;
	const uint from = knit_row(p.x, row), to = p.out_at + row * p.n;
	float largest = uintBitsToFloat(0xff800000u), sum = 0.0;

	/* A NaN is never the largest; it makes its way through the sum. */
	for (uint i = knit_lane(); i < n; i += knit_width())
		if (!knit_is_nan(x[from + i]))
			largest = max(largest, x[from + i]);
	largest = knit_group_max(largest);
	for (uint i = knit_lane(); i < n; i += knit_width())
		sum += knit_exp(x[from + i] - largest);
	sum = knit_group_sum(sum);

	const float factor = 1.0 / sum;
	for (uint i = knit_lane(); i < n; i += knit_width())
		result[to + i] = knit_exp(x[from + i] - largest) * factor;
}
