// Owns the product of few rows of x with weights: decode, and the low-rank parts of any number of rows. Matches
// ops/linear.c, ops/fused_linear.c, ops/lora.c.
//
// Bound: memory. Per step every byte of w is read once for each ROWS rows of x, x once per COLUMNS rows of w (from the
// caches), and 4 bytes are written per output; w's bytes over the memory's rate is the time to expect.
//
// A group computes COLUMNS rows of w times ROWS rows of x. Its invocations take chunks of k in turn, hold the chunk of x
// in registers for all rows of w, and add up at the end: subgroupAdd, then one entry per subgroup in shared memory. The
// small product of a LoRA, t = s A x, comes from an earlier dispatch of this shader; B t is summed together with w x.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common/group.glsl"

layout(constant_id = 1) const uint ROWS = 1;    // of x in a group
layout(constant_id = 2) const uint COLUMNS = 4; // rows of w in a group
layout(constant_id = 3) const uint WIDE = 1;
layout(constant_id = 4) const uint PARTS = 1;
layout(constant_id = 5) const uint GLU = 0; // part 0 is the gate, part 1 is up

#include "common/linear.glsl"

const uint MAX_ROWS = 8, MAX_COLUMNS = 4;
const uint SUBGROUPS = (gl_WorkGroupSize.x + 3) / 4, SUMS = ROWS * COLUMNS * (GLU != 0 ? 2 : 1);
shared float partial[SUMS * SUBGROUPS];

// Of this invocation: the group's rows of x, what of w x it has summed, and for up where there is a gate.
uint first_row, x_place[MAX_ROWS];
int slot[MAX_ROWS];
float acc[MAX_ROWS][MAX_COLUMNS], acc_up[MAX_ROWS][MAX_COLUMNS];

#define DECLARE_SUMS(name, n, acc) \
	void name(uint column, uint part) { \
		uint w[MAX_COLUMNS]; \
		const uint last = p.part[part].columns - 1, rank = p.part[part].rank; \
		const uint first = p.part[part].w_at + (rank == 0 ? uint(max(slot[0], 0)) * p.part[part].slot_step : 0); \
		[[unroll]] for (uint c = 0; c < COLUMNS; ++c) \
			w[c] = first + min(column + c, last) * p.part[part].w_row; \
		for (uint chunk = knit_lane(); chunk * 8 < p.k; chunk += knit_width()) { \
			vec4 xa[MAX_ROWS], xb[MAX_ROWS], wa, wb; \
			[[unroll]] for (uint i = 0; i < ROWS; ++i) \
				x_chunk(x_place[i], chunk, xa[i], xb[i]); \
			[[unroll]] for (uint c = 0; c < COLUMNS; ++c) { \
				const float scale = w_chunk##n(w[c], chunk, p.k, wa, wb); \
				[[unroll]] for (uint i = 0; i < ROWS; ++i) \
					acc[i][c] += scale * (dot(wa, xa[i]) + dot(wb, xb[i])); \
			} \
		} \
		for (uint q = knit_lane(); q < rank; q += knit_width()) \
			[[unroll]] for (uint i = 0; i < ROWS; ++i) { \
				const uint row = min(first_row + i, p.rows - 1); \
				const float t = low.v[row * p.low_row + p.part[part].low_at + q]; \
				const uint b = p.part[part].b_at + uint(max(slot[i], 0)) * p.part[part].slot_step + q; \
				[[unroll]] for (uint c = 0; c < COLUMNS; ++c) \
					acc[i][c] += t * factor##n(p.part[part].b_type, b + min(column + c, last) * rank); \
			} \
	}
DECLARE_SUMS(sums0, 0, acc)
DECLARE_SUMS(sums1, 1, acc)
DECLARE_SUMS(sums2, 2, acc)
DECLARE_SUMS(sums_up, 1, acc_up)

void share(uint sum, float x) {
	const float all = subgroupAdd(x);
	if (subgroupElect())
		partial[sum * SUBGROUPS + gl_SubgroupID] = all;
}

float total(uint sum) {
	float y = 0;
	for (uint s = 0; s < gl_NumSubgroups; ++s)
		y += partial[sum * SUBGROUPS + s];
	return y;
}

void main() {
	const uint group = knit_group();
	if (group >= p.groups) // all invocations of the group
		return;
	const uint part = part_of(group), local = group - p.part[part].first_group;
	const uint column = local / p.row_blocks * COLUMNS;

	first_row = local % p.row_blocks * ROWS;
	[[unroll]] for (uint i = 0; i < ROWS; ++i) {
		const uint row = min(first_row + i, p.rows - 1);
		x_place[i] = x_at(row);
		slot[i] = slot_of(row);
		[[unroll]] for (uint c = 0; c < COLUMNS; ++c)
			acc[i][c] = acc_up[i][c] = 0;
	}
	if (PARTS > 2 && part == 2)
		sums2(column, 2);
	else if (PARTS > 1 && part == 1)
		sums1(column, 1);
	else
		sums0(column, 0);
	if (GLU != 0)
		sums_up(column, 1);
	[[unroll]] for (uint i = 0; i < ROWS; ++i)
		[[unroll]] for (uint c = 0; c < COLUMNS; ++c) {
			share(i * COLUMNS + c, acc[i][c]);
			if (GLU != 0)
				share((ROWS + i) * COLUMNS + c, acc_up[i][c]);
		}
	barrier();

	for (uint sum = knit_lane(); sum < ROWS * COLUMNS; sum += knit_width()) {
		const uint row = first_row + sum / COLUMNS, j = column + sum % COLUMNS;
		if (row >= p.rows || j >= p.part[part].columns)
			continue;
		const float y = slot_of(row) < 0 ? NOT_A_NUMBER : total(sum);
		finish(part, row, j, y, GLU != 0 ? total(ROWS * COLUMNS + sum) : 0);
	}
}
