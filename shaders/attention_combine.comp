#version 450
#extension GL_GOOGLE_include_directive : require
/* The chunks of attention_split put together: a group per token and query head. Reference: ops/attention.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/attention.h"

KNIT_PARAMS { knit_attention_params p; };
KNIT_IN(1) seq_buffer { int seqs[]; };
KNIT_IN(2) pos_buffer { int positions[]; };
KNIT_IN(3) part_buffer { vec4 part[]; };
KNIT_OUT(4) y_buffer { float y[]; };

#include "common/attention.glsl"

const uint MOST = 64u; /* chunks: KNIT_VK_ATTENTION_CHUNKS */
shared float chunk_max[MOST];
shared float chunk_sum[MOST];
shared float weights[MOST];

void main() {
	const uint row = knit_group();

	if (row >= p.groups)
		return;

	const uint token = row / p.heads, stride = p.quads + 1u, from = row * p.chunks * stride, to = p.y_at + row * p.dim;
	const knit_sight sight = knit_sees(seqs[p.seq_at + token], positions[p.pos_at + token]);
	const uint used = (uint(sight.count) + p.chunk - 1u) / p.chunk;
	float largest = KNIT_UNSEEN, total = 0.0;

	for (uint c = knit_lane(); c < used; c += knit_width()) {
		const vec4 head = part[from + c * stride];

		chunk_max[c] = head.x;
		chunk_sum[c] = head.y;
	}
	barrier();
	for (uint c = 0u; c < used; ++c)
		largest = max(largest, chunk_max[c]);
	for (uint c = knit_lane(); c < used; c += knit_width())
		weights[c] = exp2(chunk_max[c] - largest);
	barrier();
	for (uint c = 0u; c < used; ++c)
		total += weights[c] * chunk_sum[c];
	for (uint quad = knit_lane(); quad < p.quads; quad += knit_width()) {
		vec4 x = vec4(0.0);

		for (uint c = 0u; c < used; ++c)
			x += weights[c] * part[from + c * stride + 1u + quad];
		x = used == 0u ? vec4(uintBitsToFloat(knit_nan_bits)) : x / total;
		for (uint i = 0u; i < 4u && 4u * quad + i < p.dim; ++i)
			y[to + 4u * quad + i] = x[i];
	}
}
