// Owns the product of many rows of x, split before (linear_split.comp), with f16 weights: prefill where the device
// multiplies matrices of f16 with f32 sums. Matches what linear_tile.comp computes, within the same bound: x is the sum of
// two f16, so each weight is multiplied twice. An infinite weight gives NaN.
//
// Bound: arithmetic, twice the products of linear_tile.comp at many times their rate. Memory as there, x at 4 bytes per
// element.
//
// A group computes ROWS x COLUMNS outputs, each subgroup MY_ROWS x MY_COLUMNS matrices of them. Slabs of 32 elements of k go
// through shared memory as they are, 16 bytes at a time; one vector of padding per row keeps neighbours in different
// banks. The sums go through shared memory matrix by matrix: what follows them is known by row and column, which the
// elements of a cooperative matrix are not.
//
// Some devices cut the sums of matrices short instead of rounding them, which adds up where products have one sign: after
// FOLD slabs they are added, rounded, to sums that stay outside.
//
// Compiled as GL_NV_cooperative_matrix and brought to VK_KHR_cooperative_matrix by coopmat.c, which knows a matrix's use by
// the constants of its size: x is M x K, w is K x N, sums are M x N.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix : require
#pragma use_vulkan_memory_model
#include "common/group.glsl"

layout(constant_id = 1) const uint ROWS = 64;    // of x in a group
layout(constant_id = 2) const uint COLUMNS = 128; // rows of w in a group
layout(constant_id = 3) const uint WIDE = 1;
const uint PARTS = 1;
layout(constant_id = 5) const uint GLU = 0; // part 0 is the gate, part 1 is up
layout(constant_id = 6) const uint MY_ROWS = 2;    // matrices
layout(constant_id = 7) const uint MY_COLUMNS = 4; // likewise
layout(constant_id = 8) const uint M = 16;
layout(constant_id = 9) const uint N = 16;
layout(constant_id = 10) const uint K = 16;

#include "common/linear.glsl"

#define X_MATRIX fcoopmatNV<16, gl_ScopeSubgroup, M, K>
#define W_MATRIX fcoopmatNV<16, gl_ScopeSubgroup, K, N>
#define SUM_MATRIX fcoopmatNV<32, gl_ScopeSubgroup, M, N>

KNIT_IN(1) X_halves { uvec4 v[]; } x_halves;

const uint MAX_ROWS = 2, MAX_COLUMNS = 4, FOLD = 4;
const uint CHUNKS = 4, PITCH = CHUNKS + 1; // of a slab; vectors of 8 halves per row
const uint ACROSS = COLUMNS / (MY_COLUMNS * N), DOWN = ROWS / (MY_ROWS * M); // subgroups
const uint AT_LOW = ROWS * PITCH, AT_W = 2 * AT_LOW;
const uint ENDS = ACROSS * DOWN * M * N;
shared uvec4 stage[AT_W + COLUMNS * PITCH];
shared float sums[ENDS * (GLU != 0 ? 2 : 1)];

SUM_MATRIX acc[MAX_ROWS][MAX_COLUMNS], up[MAX_ROWS][MAX_COLUMNS], recent[MAX_ROWS][MAX_COLUMNS];

uint padded() { return (p.k + 31) / 32 * 32; }

void load_x(uint first, uint slab) {
	for (uint i = knit_lane(); i < ROWS * CHUNKS; i += knit_width()) {
		const uint row = i / CHUNKS, to = row * PITCH + i % CHUNKS;
		const uint at = x_at(first + row) / 4 + slab * CHUNKS + i % CHUNKS;
		const bool there = first + row < p.rows;
		stage[to] = there ? x_halves.v[at] : uvec4(0);
		stage[AT_LOW + to] = there ? x_halves.v[at + padded() / 8] : uvec4(0);
	}
}

void multiply() {
	const uint across = gl_SubgroupID % ACROSS * MY_COLUMNS * N, down = gl_SubgroupID / ACROSS * MY_ROWS * M;
	for (uint q = 0; q < CHUNKS; q += K / 8) {
		X_MATRIX high[MAX_ROWS], low[MAX_ROWS];
		W_MATRIX w;
		[[unroll]] for (uint i = 0; i < MY_ROWS; ++i) {
			coopMatLoadNV(high[i], stage, (down + i * M) * PITCH + q, PITCH, false);
			coopMatLoadNV(low[i], stage, AT_LOW + (down + i * M) * PITCH + q, PITCH, false);
		}
		[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) {
			coopMatLoadNV(w, stage, AT_W + (across + c * N) * PITCH + q, PITCH, true);
			[[unroll]] for (uint i = 0; i < MY_ROWS; ++i) {
				recent[i][c] = coopMatMulAddNV(low[i], w, recent[i][c]);
				recent[i][c] = coopMatMulAddNV(high[i], w, recent[i][c]);
			}
		}
	}
}

// Eight halves of a row of w that begins at element `row`.
#define DECLARE_COOP(n) \
	uint w_half##n(uint row, uint i) { return i < p.k ? uint(w_words##n.v[row + i]) : 0; } \
	uint w_two##n(uint row, uint i) { return w_half##n(row, i) | w_half##n(row, i + 1) << 16; } \
	uvec4 w_halves##n(uint row, uint i) { \
		if (WIDE != 0) \
			return w_vectors##n.v[(row + i) / 8]; \
		return uvec4(w_two##n(row, i), w_two##n(row, i + 2), w_two##n(row, i + 4), w_two##n(row, i + 6)); \
	} \
	void load_w##n(uint first, uint slab, uint part) { \
		for (uint i = knit_lane(); i < COLUMNS * CHUNKS; i += knit_width()) { \
			const uint column = i / CHUNKS, at = (slab * CHUNKS + i % CHUNKS) * 8; \
			uvec4 w = uvec4(0); \
			if (first + column < p.part[part].columns && at < p.k) \
				w = w_halves##n(p.part[part].w_at + (first + column) * p.part[part].w_row, at); \
			stage[AT_W + column * PITCH + i % CHUNKS] = w; \
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
	void tile##n(uint row, uint column, uint part, uint first) { \
		for (uint slab = first; slab < first + FOLD && slab * CHUNKS * 8 < p.k; ++slab) { \
			load_x(row, slab); \
			load_w##n(column, slab, part); \
			barrier(); \
			multiply(); \
			barrier(); \
		} \
	}
DECLARE_COOP(0)
DECLARE_COOP(1)

float low_of(uint part, uint row, uint column, int slot) {
	if (p.part[part].rank == 0)
		return 0;
	if (slot < 0)
		return NOT_A_NUMBER;
	if (GLU != 0 && part == 1)
		return low1(part, row, column, slot);
	return low0(part, row, column, slot);
}

// What follows the sums of the matrix whose first element is output (row, column), from those in shared memory.
void end(uint row, uint column) {
	const uint at = gl_SubgroupID * M * N;
	for (uint e = gl_SubgroupInvocationID; e < M * N; e += gl_SubgroupSize) {
		const uint r = row + e / N, j = column + e % N;
		if (r >= p.rows || j >= p.part[0].columns)
			continue;
		const int slot = slot_of(r);
		const float inverse = x_words.v[x_at(r) + padded()];
		const float y = sums[at + e] * inverse + low_of(0, r, j, slot);
		float other = 0;
		if (GLU != 0)
			other = sums[ENDS + at + e] * inverse + low_of(1, r, j, slot);
		finish(0, r, j, y, other);
	}
}

#define EACH_MATRIX(what) \
	[[unroll]] for (uint i = 0; i < MY_ROWS; ++i) \
		[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) \
			what;

void main() {
	const uint group = knit_group();
	if (group >= p.groups) // all invocations of the group
		return;
	const uint row = group % p.row_blocks * ROWS, column = group / p.row_blocks * COLUMNS;
	const uint my_row = row + gl_SubgroupID / ACROSS * MY_ROWS * M;
	const uint my_column = column + gl_SubgroupID % ACROSS * MY_COLUMNS * N;

	EACH_MATRIX(acc[i][c] = SUM_MATRIX(0))
	EACH_MATRIX(up[i][c] = SUM_MATRIX(0))
	for (uint first = 0; first * CHUNKS * 8 < p.k; first += FOLD) {
		EACH_MATRIX(recent[i][c] = SUM_MATRIX(0))
		tile0(row, column, 0, first);
		EACH_MATRIX(acc[i][c] += recent[i][c])
		if (GLU == 0)
			continue;
		EACH_MATRIX(recent[i][c] = SUM_MATRIX(0))
		tile1(row, column, 1, first);
		EACH_MATRIX(up[i][c] += recent[i][c])
	}

	for (uint t = 0; t < MY_ROWS * MY_COLUMNS; ++t) {
		[[unroll]] for (uint i = 0; i < MY_ROWS; ++i)
			[[unroll]] for (uint c = 0; c < MY_COLUMNS; ++c) {
				if (t != i * MY_COLUMNS + c) // the same for all: matrices in an array need a number that is known
					continue;
				coopMatStoreNV(acc[i][c], sums, gl_SubgroupID * M * N, N, false);
				if (GLU != 0)
					coopMatStoreNV(up[i][c], sums, ENDS + gl_SubgroupID * M * N, N, false);
			}
		barrier();
		end(my_row + t / MY_COLUMNS * M, my_column + t % MY_COLUMNS * N);
		barrier();
	}
}
