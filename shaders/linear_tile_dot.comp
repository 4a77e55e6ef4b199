// Owns the product of many rows of x, quantised before (linear_quantise.comp), with weights in blocks of 8 or 4 bits:
// prefill where the device multiplies four 8-bit integers at once. Matches what linear_tile.comp computes but for the
// rounding of x, as on the CPU.
//
// Bound: arithmetic, a quarter of the instructions of linear_tile.comp. Memory as there, x at 1.125 bytes per element.
//
// Tiles as in linear_tile.comp. A slab is a block of 32: a row of it is two vectors of 16 bytes of 8-bit integers and one
// for the scale, which also keeps neighbours in different banks.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_spirv_intrinsics : require
#include "common/group.glsl"

layout(constant_id = 1) const uint ROWS = 64;    // of x in a group
layout(constant_id = 2) const uint COLUMNS = 64; // rows of w in a group
const uint WIDE = 1, PARTS = 1;
layout(constant_id = 5) const uint GLU = 0; // part 0 is the gate, part 1 is up
layout(constant_id = 6) const uint MY_ROWS = 4;
layout(constant_id = 7) const uint MY_COLUMNS = 4;

#include "common/linear.glsl"

// OpSDot of four 8-bit integers in a word each; format 0: packed.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int sdot_4x8(uint a, uint b, spirv_literal int format);

KNIT_IN(1) X_quantised { uvec4 v[]; } x_quantised;
KNIT_IN(1) X_scales { float v[]; } x_scales;

const uint MAX_ROWS = 8, MAX_COLUMNS = 8;
const uint PITCH = 3; // vectors of a row of a slab
const uint ACROSS = COLUMNS / MY_COLUMNS, DOWN = ROWS / MY_ROWS; // invocations
const uint SLABS = (ROWS + COLUMNS) * PITCH, SUMS = ROWS * COLUMNS * (GLU != 0 ? 2 : 1);
const uint SLAB_W = ROWS * PITCH; // behind that of x
shared uvec4 stage[SUMS / 4 > SLABS ? SUMS / 4 : SLABS];

void load_x(uint first, uint block) {
	for (uint i = knit_lane(); i < ROWS * 2; i += knit_width()) {
		const uint row = i / 2, at = x_at(first + row);
		uvec4 q = uvec4(0);
		float scale = 0;
		if (first + row < p.rows) {
			q = x_quantised.v[at / 4 + block * 2 + i % 2];
			scale = x_scales.v[at + p.k / 4 + block];
		}
		stage[row * PITCH + i % 2] = q;
		if (i % 2 == 0)
			stage[row * PITCH + 2].x = floatBitsToUint(scale);
	}
}

int dot_vectors(uvec4 a, uvec4 b) {
	return sdot_4x8(a.x, b.x, 0) + sdot_4x8(a.y, b.y, 0) + sdot_4x8(a.z, b.z, 0) + sdot_4x8(a.w, b.w, 0);
}

void multiply(inout float acc[MAX_ROWS][MAX_COLUMNS]) {
	const uint across = knit_lane() % ACROSS, down = knit_lane() / ACROSS;
	uvec4 x0[MAX_ROWS], x1[MAX_ROWS];
	float scale[MAX_ROWS];

	[[unroll]] for (uint i = 0; i < MY_ROWS; ++i) {
		const uint at = (down + i * DOWN) * PITCH;
		x0[i] = stage[at];
		x1[i] = stage[at + 1];
		scale[i] = uintBitsToFloat(stage[at + 2].x);
	}
	[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) {
		const uint at = SLAB_W + (across + c * ACROSS) * PITCH;
		const uvec4 w0 = stage[at], w1 = stage[at + 1];
		const float w_scale = uintBitsToFloat(stage[at + 2].x);
		[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
			acc[i][c] += float(dot_vectors(x0[i], w0) + dot_vectors(x1[i], w1)) * (scale[i] * w_scale);
	}
}

#define DECLARE_TILE(n) \
	void load_w##n(uint first, uint block, uint part) { \
		for (uint i = knit_lane(); i < COLUMNS; i += knit_width()) { \
			uvec4 a = uvec4(0), b = uvec4(0); \
			float scale = 0; \
			if (first + i < p.part[part].columns) \
				scale = w_block##n(p.part[part].w_at + (first + i) * p.part[part].w_row, block, a, b); \
			stage[SLAB_W + i * PITCH] = a; \
			stage[SLAB_W + i * PITCH + 1] = b; \
			stage[SLAB_W + i * PITCH + 2].x = floatBitsToUint(scale); \
		} \
	} \
	float low##n(uint part, uint row, uint column, int slot) { \
		const uint rank = p.part[part].rank; \
		const uint b = p.part[part].b_at + uint(slot) * p.part[part].slot_step + column * rank; \
		const uint t = row * p.low_row + p.part[part].low_at; \
		float y = 0; \
		for (uint q = 0; q < rank; ++q) \
			y += low.v[t + q] * factor##n(p.part[part].b_type, b + q); \
		return y; \
	} \
	void tile##n(uint row, uint column, uint part, inout float acc[MAX_ROWS][MAX_COLUMNS]) { \
		for (uint block = 0; block * 32 < p.k; ++block) { \
			load_x(row, block); \
			load_w##n(column, block, part); \
			barrier(); \
			multiply(acc); \
			barrier(); \
		} \
	}
DECLARE_TILE(0)
DECLARE_TILE(1)

float low_of(uint part, uint row, uint column, int slot) {
	if (p.part[part].rank == 0)
		return 0;
	if (slot < 0)
		return NOT_A_NUMBER;
	if (GLU != 0 && part == 1)
		return low1(part, row, column, slot);
	return low0(part, row, column, slot);
}

void main() {
	const uint group = knit_group();
	if (group >= p.groups) // all invocations of the group
		return;
		const uint row = group % p.row_blocks * ROWS, column = group / p.row_blocks * COLUMNS;
	const uint across = knit_lane() % ACROSS, down = knit_lane() / ACROSS;
	float acc[MAX_ROWS][MAX_COLUMNS], up[MAX_ROWS][MAX_COLUMNS];

	[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
		[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c)
			acc[i][c] = up[i][c] = 0;
	tile0(row, column, 0, acc);
	if (GLU != 0)
		tile1(row, column, 1, up);

	[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
		[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) {
			const uint sum = (down + i * DOWN) * COLUMNS + across + c * ACROSS;
			stage[sum / 4][sum % 4] = floatBitsToUint(acc[i][c]);
			if (GLU != 0)
				stage[(ROWS * COLUMNS + sum) / 4][sum % 4] = floatBitsToUint(up[i][c]);
		}
	barrier();

	for (uint sum = knit_lane(); sum < ROWS * COLUMNS; sum += knit_width()) {
		const uint r = row + sum / COLUMNS, j = column + sum % COLUMNS;
		if (r >= p.rows || j >= p.part[0].columns)
			continue;
		const int slot = slot_of(r);
		const float y = uintBitsToFloat(stage[sum / 4][sum % 4]) + low_of(0, r, j, slot);
		float other = 0;
		if (GLU != 0)
			other = uintBitsToFloat(stage[(ROWS * COLUMNS + sum) / 4][sum % 4]) + low_of(1, r, j, slot);
		finish(0, r, j, y, other);
	}
}
