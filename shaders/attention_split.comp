#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
/* Attention of few tokens: a group per token, part of the query heads of a kv head, and chunk of the positions that are
 * seen. Within it LANES neighbouring invocations hold the heads' queries and read one position at a time, all query heads
 * from one reading, each such slot with an online softmax of its own over every SLOTS-th position. Reference:
 * ops/attention.c. exp2's looseness is harmless here: it grows with |x|, and 2^x falls faster. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/attention.h"

layout(constant_id = 1) const uint K_TYPE = KNIT_F32;
layout(constant_id = 2) const uint V_TYPE = KNIT_F32;
layout(constant_id = 3) const uint WIDE = 0;
layout(constant_id = 4) const uint LANES = 8; /* a power of two, no more than a subgroup has */
layout(constant_id = 5) const uint QUADS = 1; /* of each lane: number lane, lane + LANES, ... of a head */
layout(constant_id = 6) const uint HEADS = 1; /* of a group */
layout(constant_id = 7) const uint AHEAD = 1; /* positions that a slot reads at a time */
const uint SLOTS = gl_WorkGroupSize.x / LANES;

KNIT_PARAMS { knit_attention_params p; };
KNIT_IN(1) q_buffer { float queries[]; };
KNIT_IN(4) seq_buffer { int seqs[]; };
KNIT_IN(5) pos_buffer { int positions[]; };
KNIT_OUT(6) y_buffer { float y[]; };
KNIT_OUT(7) part_buffer { vec4 part[]; }; /* per token, head, chunk: maximum and sum, then the weighted values */

#include "common/attention.glsl"

KNIT_KV_VIEWS(2, k, k4, k2, k1, k16)
KNIT_KV_VIEWS(3, v, v4, v2, v1, v16)
KNIT_KV_READER(key_quad, key_one, K_TYPE, WIDE, k4, k2, k1, k16)
KNIT_KV_READER(value_quad, value_one, V_TYPE, WIDE, v4, v2, v1, v16)

shared vec4 head_quads[HEADS * LANES * QUADS]; /* of the queries, then of the result */
shared vec4 slot_values[gl_WorkGroupSize.x * QUADS];
shared float slot_max[SLOTS * HEADS];
shared float slot_sum[SLOTS * HEADS];
shared float head_max[HEADS];
shared float head_sum[HEADS];

void main() {
	const uint group = knit_group();

	if (group >= p.groups)
		return;

	/* chunks outermost: groups that run together read neighbouring heads of the same cells */
	const uint head_part = group % p.parts, kv_head = group / p.parts % p.kv_heads;
	const uint token = group / (p.parts * p.kv_heads) % p.tokens, chunk = group / (p.parts * p.kv_heads * p.tokens);
	const int seq = seqs[p.seq_at + token];
	const knit_sight sight = knit_sees(seq, positions[p.pos_at + token]);
	const int begin = int(chunk * p.chunk), end = min(begin + int(p.chunk), sight.count);
	const uint lane = knit_lane() % LANES, slot = knit_lane() / LANES;
	const uint first_head = kv_head * p.share + head_part * HEADS, heads = min(HEADS, p.share - head_part * HEADS);

	if (begin >= sight.count && chunk > 0u)
		return;

	/* loops that need no speed are not to be unrolled: some drivers would, for seconds */
	for (uint i = knit_lane(); i < HEADS * LANES * QUADS; i += knit_width()) {
		const uint h = i / (LANES * QUADS), e = 4u * (i % (LANES * QUADS));
		const uint at = p.q_at + token * p.q_token + (first_head + h) * p.q_head;
		vec4 x = vec4(0.0);

		[[dont_unroll]] for (uint c = 0u; c < 4u && e + c < p.dim && h < heads; ++c)
			x[c] = queries[at + e + c];
		head_quads[i] = x * p.scale;
	}
	barrier();

	vec4 q[HEADS * QUADS], sum[HEADS * QUADS];
	float largest[HEADS], total[HEADS];
	[[unroll]] for (uint h = 0u; h < HEADS; ++h) {
		largest[h] = KNIT_UNSEEN;
		total[h] = 0.0;
		[[unroll]] for (uint j = 0u; j < QUADS; ++j) {
			q[h * QUADS + j] = head_quads[(h * QUADS + j) * LANES + lane];
			sum[h * QUADS + j] = vec4(0.0);
		}
	}

	const uint k_head = p.k_at + uint(seq) * p.k_seq + kv_head * p.k_head;
	const uint v_head = p.v_at + uint(seq) * p.v_seq + kv_head * p.v_head;
	for (int at = begin; at < end; at += int(SLOTS * AHEAD)) {
		vec4 k[AHEAD * QUADS], v[AHEAD * QUADS];
		float score[AHEAD * HEADS];

		[[unroll]] for (uint a = 0u; a < AHEAD; ++a) {
			const int i = at + int(a * SLOTS + slot);
			const uint cell = knit_cell(knit_seen(sight, min(i, end - 1)));

			[[unroll]] for (uint j = 0u; j < QUADS; ++j) {
				const uint quad = lane + j * LANES, e = 4u * quad;

				k[a * QUADS + j] = v[a * QUADS + j] = vec4(0.0);
				if (quad < p.quads && i < end) {
					k[a * QUADS + j] = key_quad(k_head + cell * p.k_cell + e, p.dim - e);
					v[a * QUADS + j] = value_quad(v_head + cell * p.v_cell + e, p.dim - e);
				}
			}
		}
		[[unroll]] for (uint a = 0u; a < AHEAD; ++a) {
			[[unroll]] for (uint h = 0u; h < HEADS; ++h) {
				float s = 0.0;

				[[unroll]] for (uint j = 0u; j < QUADS; ++j)
					s += dot(q[h * QUADS + j], k[a * QUADS + j]);
				score[a * HEADS + h] = s;
			}
		}
		[[unroll]] for (uint mask = LANES / 2u; mask > 0u; mask /= 2u)
			[[unroll]] for (uint i = 0u; i < AHEAD * HEADS; ++i)
				score[i] += subgroupShuffleXor(score[i], mask);
		[[unroll]] for (uint h = 0u; h < HEADS; ++h) {
			float new_largest = largest[h];

			[[unroll]] for (uint a = 0u; a < AHEAD; ++a)
				if (at + int(a * SLOTS + slot) < end)
					new_largest = max(new_largest, score[a * HEADS + h]);
			const float factor = exp2(largest[h] - new_largest);
			largest[h] = new_largest;
			total[h] *= factor;
			[[unroll]] for (uint j = 0u; j < QUADS; ++j)
				sum[h * QUADS + j] *= factor;
			[[unroll]] for (uint a = 0u; a < AHEAD; ++a) {
				const bool seen = at + int(a * SLOTS + slot) < end;
				const float weight = seen ? exp2(score[a * HEADS + h] - new_largest) : 0.0;

				total[h] += weight;
				[[unroll]] for (uint j = 0u; j < QUADS; ++j)
					sum[h * QUADS + j] += weight * v[a * QUADS + j];
			}
		}
	}

	if (lane == 0u) {
		[[unroll]] for (uint h = 0u; h < HEADS; ++h) {
			slot_max[slot * HEADS + h] = largest[h];
			slot_sum[slot * HEADS + h] = total[h];
		}
	}
	barrier();
	if (knit_lane() < HEADS) {
		float all_largest = KNIT_UNSEEN, all_total = 0.0;

		[[dont_unroll]] for (uint s = knit_lane(); s < SLOTS * HEADS; s += HEADS)
			all_largest = max(all_largest, slot_max[s]);
		[[dont_unroll]] for (uint s = knit_lane(); s < SLOTS * HEADS; s += HEADS)
			all_total += slot_sum[s] * exp2(slot_max[s] - all_largest);
		head_max[knit_lane()] = all_largest;
		head_sum[knit_lane()] = all_total;
	}
	barrier();
	[[unroll]] for (uint h = 0u; h < HEADS; ++h) {
		const float factor = exp2(largest[h] - head_max[h]);

		[[unroll]] for (uint j = 0u; j < QUADS; ++j)
			slot_values[(slot * QUADS + j) * LANES + lane] = sum[h * QUADS + j] * factor;
		barrier();
		[[dont_unroll]] for (uint i = knit_lane(); i < LANES * QUADS; i += knit_width()) {
			vec4 x = vec4(0.0);

			[[dont_unroll]] for (uint s = i; s < SLOTS * LANES * QUADS; s += LANES * QUADS)
				x += slot_values[s];
			head_quads[h * LANES * QUADS + i] = x;
		}
		barrier();
	}

	const uint row = token * p.heads + first_head;
	[[dont_unroll]] for (uint i = knit_lane(); i < heads * LANES * QUADS; i += knit_width()) {
		const uint h = i / (LANES * QUADS), quad = i % (LANES * QUADS);
		const uint to = ((row + h) * p.chunks + chunk) * (p.quads + 1u);
		vec4 x = head_quads[i];

		if (quad >= p.quads)
			continue;
		if (p.chunks > 1u) {
			if (quad == 0u)
				part[to] = vec4(head_max[h], head_sum[h], 0.0, 0.0);
			part[to + 1u + quad] = x;
			continue;
		}
		x = sight.count == 0 ? vec4(uintBitsToFloat(knit_nan_bits)) : x / head_sum[h];
		[[dont_unroll]] for (uint c = 0u; c < 4u && 4u * quad + c < p.dim; ++c)
			y[p.y_at + (row + h) * p.dim + 4u * quad + c] = x[c];
	}
}
