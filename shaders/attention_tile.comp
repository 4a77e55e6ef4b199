#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
/* Attention of many tokens: a group per ROWS rows (tokens x query heads of a kv head) and kv head, CELLS positions at a
 * time. Invocation (x, y) of 16 x 8 holds the scores of rows 4 y .. 4 y + 3 at positions x, x + 16, x + 32, x + 48, then
 * their weighted values at quad x of each slice of 64 elements. Scores exist for one tile only. Loops that need no speed
 * say that they are not to be unrolled: some drivers would, for seconds. Reference: ops/attention.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "params/attention.h"

layout(constant_id = 1) const uint K_TYPE = KNIT_F32;
layout(constant_id = 2) const uint V_TYPE = KNIT_F32;
layout(constant_id = 3) const uint WIDE = 0;
layout(constant_id = 4) const uint SLICES = 1; /* of a head, 16 quads each */

const uint ROWS = 32u, CELLS = 64u; /* and 128 invocations */
const uint STRIDE = 17u;            /* quads of a row in shared memory: no two rows on the same banks */

KNIT_PARAMS { knit_attention_params p; };
KNIT_IN(1) q_buffer { float queries[]; };
KNIT_IN(4) seq_buffer { int seqs[]; };
KNIT_IN(5) pos_buffer { int positions[]; };
KNIT_OUT(6) y_buffer { float y[]; };

#include "common/attention.glsl"

KNIT_KV_VIEWS(2, k, k4, k2, k1, k16)
KNIT_KV_VIEWS(3, v, v4, v2, v1, v16)
KNIT_KV_READER(key_quad, key_one, K_TYPE, WIDE, k4, k2, k1, k16)
KNIT_KV_READER(value_quad, value_one, V_TYPE, WIDE, v4, v2, v1, v16)

shared vec4 left[ROWS * STRIDE];   /* a slice of the queries, then the weights */
shared vec4 right[CELLS * STRIDE]; /* a slice of the keys, then of the values */
shared int row_seq[ROWS];          /* -1: sees nothing */
shared int row_first[ROWS];
shared int row_pos[ROWS];
shared float row_max[ROWS];
shared float row_sum[ROWS];
shared float row_factor[ROWS]; /* for what was summed up to the last tile */
shared float quarter_max[ROWS * 4u];
shared float quarter_sum[ROWS * 4u];
shared uint k_cells[CELLS];
shared uint v_cells[CELLS];
/* Of the sequence that is being read: what its rows see. */
shared int now_seq, now_low, now_high;
shared int all_from, all_to; /* positions that every row of the group sees */

uint tile, kv_head;

/* Row r of the group: its token, and the head in the kv head's share. */
uvec2 row_of(uint r) {
	const uint at = tile * ROWS + r;

	return uvec2(at / p.share, kv_head * p.share + at % p.share);
}
bool exists(uint r) { return tile * ROWS + r < p.tokens * p.share; }

/* The next sequence after `last` that rows see, the lowest first; none: now_seq < 0. */
void next_sequence(int last) {
	int found = -1, low = 2147483647, high = -1, from = 0, to = 2147483647;

	[[dont_unroll]] for (uint r = 0u; r < ROWS; ++r)
		if (row_seq[r] > last && (found < 0 || row_seq[r] < found))
			found = row_seq[r];
	[[dont_unroll]] for (uint r = 0u; r < ROWS; ++r) {
		const bool of_it = row_seq[r] == found;
		const int first = row_first[r], pos = of_it ? row_pos[r] : -1;

		low = of_it ? min(low, first) : low;
		from = max(from, first);
		high = max(high, pos);
		to = min(to, pos);
	}
	now_seq = found;
	now_low = low;
	now_high = high;
	all_from = from;
	all_to = to;
}

void load_queries(uint slice) {
	const uint rows = min(ROWS, p.tokens * p.share - tile * ROWS);

	for (uint i = knit_lane(); i < rows * 16u; i += 128u) {
		const uint r = i / 16u, e = 4u * (16u * slice + i % 16u);
		const uvec2 row = row_of(r);
		const uint at = p.q_at + row.x * p.q_token + row.y * p.q_head;
		vec4 x = vec4(0.0);

		if (e + 3u < p.dim)
			x = vec4(queries[at + e], queries[at + e + 1u], queries[at + e + 2u], queries[at + e + 3u]);
		else
			[[dont_unroll]] for (uint c = 0u; e + c < p.dim; ++c)
				x[c] = queries[at + e + c];
		left[r * STRIDE + i % 16u] = x * p.scale;
	}
}

/* What lies behind `count` is left as it was: nobody sees it. */
void load_right(bool keys, uint slice, uint count) {
	for (uint i = knit_lane(); i < count * 16u; i += 128u) {
		const uint c = i / 16u, e = 4u * (16u * slice + i % 16u);
		vec4 x = vec4(0.0);

		if (e < p.dim) {
			if (keys)
				x = key_quad(k_cells[c] + e, p.dim - e);
			else
				x = value_quad(v_cells[c] + e, p.dim - e);
		}
		right[c * STRIDE + i % 16u] = x;
	}
}

/* The scores of a row at these positions; where it does not see, KNIT_UNSEEN. */
vec4 seen_only(vec4 scores, ivec4 pos, int first, int last) {
	const bvec4 inside = lessThanEqual(pos, ivec4(last)), window = greaterThanEqual(pos, ivec4(first));
	const bvec4 sink = lessThan(pos, ivec4(int(p.sinks)));

	return vec4(inside.x && (window.x || sink.x) ? scores.x : KNIT_UNSEEN,
	            inside.y && (window.y || sink.y) ? scores.y : KNIT_UNSEEN,
	            inside.z && (window.z || sink.z) ? scores.z : KNIT_UNSEEN,
	            inside.w && (window.w || sink.w) ? scores.w : KNIT_UNSEEN);
}

/* Scores of `count` positions into the left side: quad x of a row has those of positions x + 16 c. */
void score(uint count) {
	const uint x = knit_lane() % 16u, first_row = knit_lane() / 16u * 4u;
	vec4 s0 = vec4(0.0), s1 = vec4(0.0), s2 = vec4(0.0), s3 = vec4(0.0); /* of a row each */

	[[dont_unroll]] for (uint slice = 0u; slice < SLICES; ++slice) {
		const uint quads = min(16u, p.quads - slice * 16u);

		load_queries(slice);
		load_right(true, slice, count);
		barrier();
		for (uint i = 0u; i < quads; ++i) {
			const vec4 a = right[x * STRIDE + i], b = right[(x + 16u) * STRIDE + i];
			const vec4 c = right[(x + 32u) * STRIDE + i], d = right[(x + 48u) * STRIDE + i];
			vec4 q = left[first_row * STRIDE + i];

			s0 += vec4(dot(q, a), dot(q, b), dot(q, c), dot(q, d));
			q = left[(first_row + 1u) * STRIDE + i];
			s1 += vec4(dot(q, a), dot(q, b), dot(q, c), dot(q, d));
			q = left[(first_row + 2u) * STRIDE + i];
			s2 += vec4(dot(q, a), dot(q, b), dot(q, c), dot(q, d));
			q = left[(first_row + 3u) * STRIDE + i];
			s3 += vec4(dot(q, a), dot(q, b), dot(q, c), dot(q, d));
		}
		barrier();
	}
	left[first_row * STRIDE + x] = s0;
	left[(first_row + 1u) * STRIDE + x] = s1;
	left[(first_row + 2u) * STRIDE + x] = s2;
	left[(first_row + 3u) * STRIDE + x] = s3;
	barrier();
}

/* Weights in place of the scores of `count` positions from `from` on: four invocations for each row. */
void weigh(int from, int count) {
	const uint r = knit_lane() / 4u, at = r * STRIDE + knit_lane() % 4u;
	const int last = row_seq[r] == now_seq ? min(row_pos[r], from + count - 1) : -1, first = row_first[r];
	const ivec4 pos = ivec4(0, 16, 32, 48) + from + int(knit_lane() % 4u);
	float largest = row_max[r], sum = 0.0;

	[[dont_unroll]] for (uint i = 0u; i < 16u; i += 4u) {
		const vec4 s = seen_only(left[at + i], pos + int(i), first, last);

		left[at + i] = s;
		largest = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
	}
	quarter_max[knit_lane()] = largest;
	barrier();
	[[dont_unroll]] for (uint i = 0u; i < 4u; ++i)
		largest = max(largest, quarter_max[r * 4u + i]);
	[[dont_unroll]] for (uint i = 0u; i < 16u; i += 4u) {
		const vec4 s = left[at + i];
		const vec4 w = mix(exp2(s - largest), vec4(0.0), equal(s, vec4(KNIT_UNSEEN)));

		left[at + i] = w;
		sum += w.x + w.y + w.z + w.w;
	}
	quarter_sum[knit_lane()] = sum;
	barrier();
	if (knit_lane() % 4u == 0u) {
		const float factor = exp2(row_max[r] - largest);

		row_sum[r] = row_sum[r] * factor + quarter_sum[r * 4u] + quarter_sum[r * 4u + 1u] + quarter_sum[r * 4u + 2u] +
		             quarter_sum[r * 4u + 3u];
		row_max[r] = largest;
		row_factor[r] = factor;
	}
	barrier();
}

/* What is not seen is left out even if it is no number. */
vec4 add_seen(vec4 sum, vec4 weight, vec4 a, vec4 b, vec4 c, vec4 d) {
	sum += weight.x == 0.0 ? vec4(0.0) : weight.x * a;
	sum += weight.y == 0.0 ? vec4(0.0) : weight.y * b;
	sum += weight.z == 0.0 ? vec4(0.0) : weight.z * c;
	return sum + (weight.w == 0.0 ? vec4(0.0) : weight.w * d);
}
vec4 add(vec4 sum, vec4 weight, vec4 a, vec4 b, vec4 c, vec4 d) {
	return sum + weight.x * a + weight.y * b + weight.z * c + weight.w * d;
}

void main() {
	const uint group = knit_group();

	if (group >= p.groups)
		return;

	const uint x = knit_lane() % 16u, first_row = knit_lane() / 16u * 4u;
	vec4 sums[SLICES * 4u];

	/* the last tokens see most: they begin first */
	tile = (p.groups - 1u - group) / p.kv_heads;
	kv_head = group % p.kv_heads;
	if (knit_lane() < ROWS) {
		const uint r = knit_lane(), token = exists(r) ? row_of(r).x : 0u;
		const int seq = seqs[p.seq_at + token];
		const knit_sight sight = knit_sees(seq, positions[p.pos_at + token]);

		row_seq[r] = exists(r) && sight.count > 0 ? seq : -1;
		row_first[r] = sight.first;
		row_pos[r] = sight.pos;
		row_max[r] = KNIT_UNSEEN;
		row_sum[r] = 0.0;
	}
	[[dont_unroll]] for (uint i = 0u; i < SLICES * 4u; ++i)
		sums[i] = vec4(0.0);
	for (int last = -1;; last = now_seq) {
		barrier();
		if (knit_lane() == 0u)
			next_sequence(last);
		barrier();
		if (now_seq < 0)
			break;

		/* sinks before the window first, as far as no row has them in its window */
		int from = min(int(p.sinks), now_low) > 0 ? 0 : now_low;
		while (from <= now_high) {
			const int end = from < now_low ? min(int(p.sinks), now_low) : now_high + 1;
			const uint count = uint(min(end - from, int(CELLS)));
			const bool all_seen = count == CELLS && from >= all_from && from + int(CELLS) - 1 <= all_to;

			if (knit_lane() < count) {
				const uint cell = knit_cell(from + int(knit_lane()));

				k_cells[knit_lane()] = p.k_at + uint(now_seq) * p.k_seq + cell * p.k_cell + kv_head * p.k_head;
				v_cells[knit_lane()] = p.v_at + uint(now_seq) * p.v_seq + cell * p.v_cell + kv_head * p.v_head;
			}
			barrier();
			score(count);
			weigh(from, int(count));
			[[dont_unroll]] for (uint slice = 0u; slice < SLICES; ++slice) {
				vec4 s0 = sums[slice * 4u] * row_factor[first_row], s1 = sums[slice * 4u + 1u] * row_factor[first_row + 1u];
				vec4 s2 = sums[slice * 4u + 2u] * row_factor[first_row + 2u];
				vec4 s3 = sums[slice * 4u + 3u] * row_factor[first_row + 3u];

				load_right(false, slice, count);
				barrier();
				for (uint i = 0u; i < min(count, 16u); ++i) {
					const vec4 a = right[i * STRIDE + x], b = right[(i + 16u) * STRIDE + x];
					const vec4 c = right[(i + 32u) * STRIDE + x], d = right[(i + 48u) * STRIDE + x];
					const vec4 w0 = left[first_row * STRIDE + i], w1 = left[(first_row + 1u) * STRIDE + i];
					const vec4 w2 = left[(first_row + 2u) * STRIDE + i], w3 = left[(first_row + 3u) * STRIDE + i];

					if (all_seen) {
						s0 = add(s0, w0, a, b, c, d);
						s1 = add(s1, w1, a, b, c, d);
						s2 = add(s2, w2, a, b, c, d);
						s3 = add(s3, w3, a, b, c, d);
					} else {
						s0 = add_seen(s0, w0, a, b, c, d);
						s1 = add_seen(s1, w1, a, b, c, d);
						s2 = add_seen(s2, w2, a, b, c, d);
						s3 = add_seen(s3, w3, a, b, c, d);
					}
				}
				sums[slice * 4u] = s0;
				sums[slice * 4u + 1u] = s1;
				sums[slice * 4u + 2u] = s2;
				sums[slice * 4u + 3u] = s3;
				barrier();
			}
			from += int(count);
			if (from == end && end <= now_low)
				from = now_low;
		}
	}
	[[dont_unroll]] for (uint i = 0u; i < SLICES * 4u; ++i) {
		const uint r = first_row + i % 4u, e = 4u * (i / 4u * 16u + x);
		const uvec2 row = row_of(r);
		const uint to = p.y_at + (row.x * p.heads + row.y) * p.dim + e;
		const vec4 result = row_seq[r] < 0 ? vec4(uintBitsToFloat(knit_nan_bits)) : sums[i] / row_sum[r];

		[[dont_unroll]] for (uint c = 0u; c < 4u && e + c < p.dim && exists(r); ++c)
			y[to + c] = result[c];
	}
}
