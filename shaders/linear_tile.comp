// Owns the product of many rows of x with weights: prefill. Matches ops/linear.c, ops/fused_linear.c.
//
// Bound: arithmetic, 2 rows k columns operations in f32. Of memory each group reads ROWS + COLUMNS rows, so w is read
// once per ROWS rows of x and x once per COLUMNS rows of w, mostly from caches: groups that share rows of w are
// neighbours.
//
// A group computes a tile of ROWS x COLUMNS outputs, MY_ROWS x MY_COLUMNS of them each invocation. Slabs of 32 elements
// of k go through shared memory as f32, weights decoded once; four elements of k make a vector, so both factors are read
// 16 bytes at a time. One vector of padding per row keeps neighbours in different banks. At the end the sums go through
// the same memory, so that what follows them is one small loop and outputs are written row by row.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common/group.glsl"

layout(constant_id = 1) const uint ROWS = 64;    // of x in a group
layout(constant_id = 2) const uint COLUMNS = 64; // rows of w in a group
layout(constant_id = 3) const uint WIDE = 1;
const uint PARTS = 1;
layout(constant_id = 5) const uint GLU = 0; // part 0 is the gate, part 1 is up
layout(constant_id = 6) const uint MY_ROWS = 4;
layout(constant_id = 7) const uint MY_COLUMNS = 4;

#include "common/linear.glsl"

const uint MAX_ROWS = 8, MAX_COLUMNS = 8;
const uint CHUNKS = 4, PITCH = 2 * CHUNKS + 1; // of a slab; vectors per row
const uint ACROSS = COLUMNS / MY_COLUMNS, DOWN = ROWS / MY_ROWS; // invocations
const uint SLABS = (ROWS + COLUMNS) * PITCH, SUMS = ROWS * COLUMNS * (GLU != 0 ? 2 : 1);
const uint SLAB_W = ROWS * PITCH; // behind that of x
shared vec4 stage[SUMS / 4 > SLABS ? SUMS / 4 : SLABS];

void load_x(uint first, uint slab) {
	for (uint i = knit_lane(); i < ROWS * CHUNKS; i += knit_width()) {
		const uint row = i / CHUNKS, chunk = slab * CHUNKS + i % CHUNKS;
		vec4 a = vec4(0), b = vec4(0);
		if (first + row < p.rows && chunk * 8 < p.k)
			x_chunk(x_at(first + row), chunk, a, b);
		stage[row * PITCH + i % CHUNKS * 2] = a;
		stage[row * PITCH + i % CHUNKS * 2 + 1] = b;
	}
}

void multiply(inout float acc[MAX_ROWS][MAX_COLUMNS]) {
	const uint across = knit_lane() % ACROSS, down = knit_lane() / ACROSS;
	for (uint q = 0; q < 2 * CHUNKS; ++q) {
		vec4 x[MAX_ROWS];
		[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
			x[i] = stage[(down + i * DOWN) * PITCH + q];
		[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) {
			const vec4 w = stage[SLAB_W + (across + c * ACROSS) * PITCH + q];
			[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
				acc[i][c] += dot(x[i], w);
		}
	}
}

#define DECLARE_TILE(n) \
	void load_w##n(uint first, uint slab, uint part) { \
		for (uint i = knit_lane(); i < COLUMNS * CHUNKS; i += knit_width()) { \
			const uint column = i / CHUNKS, chunk = slab * CHUNKS + i % CHUNKS; \
			vec4 a = vec4(0), b = vec4(0); \
			if (first + column < p.part[part].columns && chunk * 8 < p.k) { \
				const float scale = \
					w_chunk##n(p.part[part].w_at + (first + column) * p.part[part].w_row, chunk, p.k, a, b); \
				a *= scale; \
				b *= scale; \
			} \
			stage[SLAB_W + column * PITCH + i % CHUNKS * 2] = a; \
			stage[SLAB_W + column * PITCH + i % CHUNKS * 2 + 1] = b; \
		} \
	} \
	float low##n(uint part, uint row, uint column, int slot) { \
		const uint rank = p.part[part].rank, b = p.part[part].b_at + uint(slot) * p.part[part].slot_step + column * rank; \
		const uint t = row * p.low_row + p.part[part].low_at; \
		float y = 0; \
		for (uint q = 0; q < rank; ++q) \
			y += low.v[t + q] * factor##n(p.part[part].b_type, b + q); \
		return y; \
	} \
	void tile##n(uint row, uint column, uint part, inout float acc[MAX_ROWS][MAX_COLUMNS]) { \
		for (uint slab = 0; slab * CHUNKS * 8 < p.k; ++slab) { \
			load_x(row, slab); \
			load_w##n(column, slab, part); \
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
			stage[sum / 4][sum % 4] = acc[i][c];
			if (GLU != 0)
				stage[(ROWS * COLUMNS + sum) / 4][sum % 4] = up[i][c];
		}
	barrier();

	for (uint sum = knit_lane(); sum < ROWS * COLUMNS; sum += knit_width()) {
		const uint r = row + sum / COLUMNS, j = column + sum % COLUMNS;
		if (r >= p.rows || j >= p.part[0].columns)
			continue;
		const int slot = slot_of(r);
		const float y = stage[sum / 4][sum % 4] + low_of(0, r, j, slot);
		float other = 0;
		if (GLU != 0)
			other = stage[(ROWS * COLUMNS + sum) / 4][sum % 4] + low_of(1, r, j, slot);
		finish(0, r, j, y, other);
	}
}
