#version 450
#extension GL_GOOGLE_include_directive : require
/* Queries turned to their positions, keys turned on their way into their cells, values written to theirs; rope is the first
 * part alone, append the last. An invocation per pair of a query's elements, and per 4 elements of a row of keys or
 * values. References: ops/fused_kv.c, ops/rope.c, ops/state.c. */
#include "common/group.glsl"
#include "common/formats.glsl"
#include "common/trig.glsl"
#include "common/kv_encode.glsl"
#include "params/kv_write.h"

KNIT_PARAMS { knit_kv_write_params p; };
KNIT_IN(1) q_buffer { uint q_words[]; };
KNIT_IN(2) k_buffer { uint k_words[]; };
KNIT_IN(3) v_buffer { uint v_words[]; };
KNIT_IN(4) seq_buffer { int seqs[]; };
KNIT_IN(5) pos_buffer { int positions[]; };
KNIT_IN(6) table_buffer { uvec2 frequencies[]; };
KNIT_OUT(7) result_buffer { uint result[]; };
KNIT_OUT(8) k_state_words { uint k_state32[]; };
KNIT_OUT(8) k_state_halves { uint16_t k_state16[]; };
KNIT_OUT(9) v_state_words { uint v_state32[]; };
KNIT_OUT(9) v_state_halves { uint16_t v_state16[]; };

shared uint group_largest[gl_WorkGroupSize.x];  /* of each invocation's elements: the bits of the first of the largest */
shared uint group_elements[gl_WorkGroupSize.x]; /* 4 rounded elements, a byte each */

/* The elements of pair i of a head. */
uvec2 pair_at(uint i) { return p.split != 0u ? uvec2(i, i + p.rotary / 2u) : uvec2(2u * i, 2u * i + 1u); }

vec2 turn(uint pair, int pos, float a, float b) {
	const vec2 cs = knit_cos_sin(knit_turn(pos, frequencies[pair]));

	return vec2(a * cs.x - b * cs.y, a * cs.y + b * cs.x);
}

/* Both elements of a pair, since the result may take the place of x; of what is not turned, two neighbours. */
void write_query(uint token, uint unit, int pos) {
	const uint half_dim = (p.q_dim + 1u) / 2u, head = unit / half_dim, i = unit % half_dim;
	const uint from = p.q_at + token * p.q_token + head * p.q_head;
	const uint to = p.result_at + token * p.q_n + head * p.q_dim;

	if (head * p.q_dim >= p.q_n)
		return;
	if (i < p.rotary / 2u) {
		const uvec2 at = pair_at(i);
		const vec2 y = turn(i, pos, uintBitsToFloat(q_words[from + at.x]), uintBitsToFloat(q_words[from + at.y]));

		result[to + at.x] = floatBitsToUint(y.x);
		result[to + at.y] = floatBitsToUint(y.y);
		return;
	}
	result[to + 2u * i] = q_words[from + 2u * i];
	if (2u * i + 1u < p.q_dim)
		result[to + 2u * i + 1u] = q_words[from + 2u * i + 1u];
}

float key(uint token, uint e, int pos) {
	const uint at = p.k_at + token * p.k_token + e / p.k_dim * p.k_head, i = e % p.k_dim;

	if (i >= p.rotary)
		return uintBitsToFloat(k_words[at + i]);
	const uint pair = p.split == 0u ? i / 2u : i < p.rotary / 2u ? i : i - p.rotary / 2u;
	const uvec2 both = pair_at(pair);
	const vec2 y = turn(pair, pos, uintBitsToFloat(k_words[at + both.x]), uintBitsToFloat(k_words[at + both.y]));
	return i == both.x ? y.x : y.y;
}

uint value(uint token, uint e) {
	return v_words[p.v_at + token * p.v_token + e / p.v_dim * p.v_head + e % p.v_dim];
}

/* The cell of a position; -1 where there is none. */
int cell_of(int seq, int pos) {
	const int sinks = int(p.sinks), ring = int(p.ring);
	const int cell = ring > 0 && pos >= sinks ? sinks + (pos - sinks) % ring : pos;

	return pos < 0 || cell >= int(p.cells) || seq < 0 || seq >= int(p.sequences) ? -1 : cell;
}

void store16(bool is_key, uint at, uint word) {
	if (is_key)
		k_state16[at] = uint16_t(word);
	else
		v_state16[at] = uint16_t(word);
}

void store_float(bool is_key, uint dtype, uint at, uint bits) {
	if (dtype != KNIT_F32)
		store16(is_key, at, dtype == KNIT_F16 ? knit_to_f16(bits) : knit_to_bf16(bits));
	else if (is_key)
		k_state32[at] = bits;
	else
		v_state32[at] = bits;
}

void main() {
	const uint group = knit_group(), lane = knit_lane();

	if (group >= p.groups)
		return;

	const uint index = group * knit_width() + lane, per_token = p.q_units + p.k_units + p.v_units;
	const uint token = index / per_token, unit = index % per_token;
	const bool live = token < p.tokens, is_query = unit < p.q_units, is_key = !is_query && unit < p.q_units + p.k_units;
	const int pos = live ? positions[p.pos_at + token] : 0;
	int cell = -1, seq = 0;
	uint bits[4], first = 0u, n = 0u, largest = 0u;

	if (live && is_query)
		write_query(token, unit, pos);
	if (live && !is_query) {
		seq = seqs[p.seq_at + token];
		cell = cell_of(seq, pos);
		first = 4u * (unit - p.q_units - (is_key ? 0u : p.k_units));
		n = is_key ? p.k_n : p.v_n;
	}
	for (uint i = 0u; i < 4u; ++i) {
		bits[i] = 0u;
		if (first + i >= n)
			continue;
		bits[i] = is_key ? floatBitsToUint(key(token, first + i, pos)) : value(token, first + i);
		if (i == 0u || (bits[i] & 0x7fffffffu) > (largest & 0x7fffffffu))
			largest = bits[i];
	}

	/* ---- blocks: of the 8 invocations, 4 elements in each ---- */
	const uint dtype = is_key ? p.k_dtype : p.v_dtype;
	const uint leader = lane & ~7u, part = lane & 7u;
	const bool is_q8 = dtype == KNIT_Q8_0, is_block = is_q8 || dtype == KNIT_Q4_0;
	uint rounded = 0u;

	group_largest[lane] = largest;
	barrier();
	for (uint i = 0u; i < 8u; ++i) {
		const uint other = group_largest[leader + i];

		if (i == 0u || (other & 0x7fffffffu) > (largest & 0x7fffffffu))
			largest = other;
	}
	knit_block_scale scale = knit_block_scale(0u, 0.0, true);
	if (is_block)
		scale = is_q8 ? knit_q8_0_scale(largest & 0x7fffffffu) : knit_q4_0_scale(largest);
	for (uint i = 0u; is_block && !scale.is_nan && i < 4u; ++i) {
		const float x = uintBitsToFloat(bits[i]);

		rounded |= (is_q8 ? knit_q8_0_round(x, scale) : knit_q4_0_round(x, scale)) << (8u * i);
	}
	group_elements[lane] = rounded;
	barrier();
	if (cell < 0 || first >= n)
		return;

	const uint row = is_key ? p.k_state_at + uint(seq) * p.k_state_seq + uint(cell) * p.k_state_cell
	                        : p.v_state_at + uint(seq) * p.v_state_seq + uint(cell) * p.v_state_cell;
	if (!is_block) {
		for (uint i = 0u; i < 4u; ++i)
			if (first + i < n)
				store_float(is_key, dtype, row + first + i, bits[i]);
		return;
	}
	const uint block = row + first / 32u * (is_q8 ? KNIT_Q8_0_WORDS : KNIT_Q4_0_WORDS);
	if (part == 0u)
		store16(is_key, block, scale.half_bits);
	if (!is_q8) {
		if (part >= 4u)
			return;
		rounded |= group_elements[lane + 4u] << 4;
	}
	store16(is_key, block + 1u + 2u * part, rounded & 0xffffu);
	store16(is_key, block + 2u + 2u * part, rounded >> 16);
}
