// Owns what the linears share: their bindings, where rows of x lie, what follows a product (LoRA, bias, residual,
// activation). group.glsl is included and the constants WIDE, PARTS and GLU are defined beforehand.

#include "../params/linear.h"
#include "formats.glsl"
#include "blocks.glsl"

KNIT_PARAMS { knit_linear_params p; };
KNIT_IN(1) X_vectors { vec4 v[]; } x_vectors;
KNIT_IN(1) X_words { float v[]; } x_words;
DECLARE_WEIGHT(0, 2)
DECLARE_WEIGHT(1, 3)
DECLARE_WEIGHT(2, 4)
KNIT_OUT(5) Out0 { float v[]; } out0;
KNIT_OUT(6) Out1 { float v[]; } out1;
KNIT_OUT(7) Out2 { float v[]; } out2;
KNIT_IN(11) Low { float v[]; } low;
KNIT_IN(13) Residual { float v[]; } residual;
KNIT_IN(14) Adapters { int v[]; } adapters;
KNIT_IN(15) Seq { int v[]; } seq;

// Floats of a type that is known only when the shader runs.
#define DECLARE_FLOATS(name, B) \
	KNIT_IN(B) name##_Words { uint v[]; } name##_words; \
	KNIT_IN(B) name##_Halves { uint16_t v[]; } name##_halves; \
	float name(uint type, uint i) { \
		if (type == KNIT_F32) \
			return uintBitsToFloat(name##_words.v[i]); \
		const uint h = uint(name##_halves.v[i]); \
		return type == KNIT_F16 ? knit_f16(h) : knit_bf16(h); \
	}
DECLARE_FLOATS(factor0, 8)
DECLARE_FLOATS(factor1, 9)
DECLARE_FLOATS(factor2, 10)
DECLARE_FLOATS(bias, 12)

#define NOT_A_NUMBER uintBitsToFloat(knit_nan_bits)

// Where row r of an activation lies: see params/linear.h.
uint row_at(uint at, uint d1, uint d2, uint s0, uint s1, uint s2, uint r) {
	return at + r / d2 / d1 * s0 + r / d2 % d1 * s1 + r % d2 * s2;
}
uint x_at(uint r) { return row_at(p.x_at, p.x_d1, p.x_d2, p.x_s0, p.x_s1, p.x_s2, r); }
uint residual_at(uint r) {
	return row_at(p.residual_at, p.residual_d1, p.residual_d2, p.residual_s0, p.residual_s1, p.residual_s2, r);
}

// The adapter of a row; -1 where an index is out of range.
int slot_of(uint row) {
	if (p.slots == 0)
		return 0;
	const uint s = uint(seq.v[p.seq_at + row]);
	if (s >= p.sequences)
		return -1;
	const uint slot = uint(adapters.v[p.adapters_at + s]);
	return slot < p.slots ? int(slot) : -1;
}

void x_chunk(uint row, uint chunk, out vec4 a, out vec4 b) {
	const uint i = chunk_a(chunk), j = chunk_b(chunk);
	if (WIDE != 0) {
		a = x_vectors.v[(row + i) / 4];
		b = x_vectors.v[(row + j) / 4];
		return;
	}
	for (uint e = 0; e < 4; ++e) {
		a[e] = i + e < p.k ? x_words.v[row + i + e] : 0;
		b[e] = j + e < p.k ? x_words.v[row + j + e] : 0;
	}
}

// Which of the parts a group works for.
uint part_of(uint group) {
	if (PARTS > 2 && group >= p.part[2].first_group)
		return 2;
	return PARTS > 1 && group >= p.part[1].first_group ? 1 : 0;
}

float activate(float x) {
	if (p.act == 0)
		return x / (1 + exp(-x));
	// tanh(y) = 2 / (1 + exp(-2 y)) - 1
	return x / (1 + exp(-1.5957691216 * (x + 0.044715 * x * x * x)));
}

// y: the sum of a row of x and a row of w, of which factors have been added.
void finish(uint part, uint row, uint column, float y, float up) {
	y *= p.part[part].scale;
	if (GLU != 0)
		y = activate(y) * (up * p.part[1].scale);
	if (p.bias_type != 0)
		y += bias(p.bias_type, p.bias_at + column);
	if (p.has_residual != 0)
		y += residual.v[residual_at(row) + column];
	const uint at = p.part[part].out_at + row * p.part[part].out_row + column;
	if (PARTS > 2 && part == 2)
		out2.v[at] = y;
	else if (PARTS > 1 && part == 1)
		out1.v[at] = y;
	else
		out0.v[at] = y;
}
