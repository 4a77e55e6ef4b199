/* Owns the packing of weights into panels and the reading of one row back. Knows no kernel. Reference: ops/quant.c. */
#include "../../../ops/quant.h"
#include "panels.h"

#include <string.h>

uint64_t knit__panels_bytes(knit_dtype t, int64_t rows, int64_t columns) {
	const uint64_t panels = ((uint64_t)rows + KNIT_PANEL_ROWS - 1) / KNIT_PANEL_ROWS;
	const uint64_t width = (uint64_t)knit__panel_group(t), groups = ((uint64_t)columns + width - 1) / width;
	uint64_t n;

	if (!knit__mul_u64(panels, groups, &n) || !knit__mul_u64(n, (uint64_t)knit__panel_group_bytes(t), &n))
		return UINT64_MAX;
	return n;
}

/* One block of one row to its lane; NULL: a block of zeros. */
static void pack_block(knit_dtype t, const char *block, char *scales, char *vectors, int64_t lane) {
	const int64_t pieces = t == KNIT_Q8_0 ? 8 : 4;

	if (!block) {
		memset(scales + lane * 2, 0, 2);
		for (int64_t j = 0; j < pieces; ++j)
			memset(vectors + j * 64 + lane * 4, 0, 4);
		return;
	}
	memcpy(scales + lane * 2, block, 2);
	for (int64_t j = 0; j < pieces; ++j) {
		uint32_t piece;

		memcpy(&piece, block + 2 + j * 4, 4);
		piece ^= t == KNIT_Q8_0 ? UINT32_C(0x80808080) : 0;
		memcpy(vectors + j * 64 + lane * 4, &piece, 4);
	}
}

static void pack_supers(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                        int64_t end) {
	const int64_t row_bytes = knit__bytes_of(t, columns), block_bytes = knit__bytes_of(t, KNIT_QK_K);

	for (int64_t panel = begin; panel < end; ++panel)
		for (int64_t b = 0; b < columns / KNIT_QK_K; ++b)
			for (int64_t lane = 0; lane < KNIT_PANEL_ROWS; ++lane) {
				const int64_t row = panel * KNIT_PANEL_ROWS + lane;

				knit__panels_pack_super(t, row < rows ? src + row * row_bytes + b * block_bytes : NULL,
				                        out + panel * knit__panel_bytes(t, columns) + b * knit__panel_group_bytes(t), lane);
			}
}

void knit__panels_pack(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                       int64_t end) {
	const int64_t blocks = columns / KNIT_QK, row_bytes = knit__bytes_of(t, columns), block_bytes = knit__bytes_of(t, KNIT_QK);
	const int64_t groups = (blocks + 1) / 2;

	if (knit__is_super(t)) {
		pack_supers(t, rows, columns, src, out, begin, end);
		return;
	}

	for (int64_t panel = begin; panel < end; ++panel) {
		char *const to = out + panel * knit__panel_bytes(t, columns);

		for (int64_t b = 0; b < groups * 2; ++b) {
			char *const group = to + b / 2 * knit__panel_group_bytes(t);
			char *const vectors = group + KNIT_PANEL_SCALES + b % 2 * knit__panel_block_bytes(t);

			for (int64_t lane = 0; lane < KNIT_PANEL_ROWS; ++lane) {
				const int64_t row = panel * KNIT_PANEL_ROWS + lane;

				pack_block(t, row < rows && b < blocks ? src + row * row_bytes + b * block_bytes : NULL,
				           group + b % 2 * KNIT_PANEL_ROWS * 2, vectors, lane);
			}
		}
	}
}

void knit__panels_row(knit_dtype t, const char *panels, int64_t columns, int64_t row, float *out) {
	const char *const panel = panels + row / KNIT_PANEL_ROWS * knit__panel_bytes(t, columns);
	const int64_t lane = row % KNIT_PANEL_ROWS, pieces = t == KNIT_Q8_0 ? 8 : 4;

	for (int64_t b = 0; knit__is_super(t) && b < columns / KNIT_QK_K; ++b) {
		char block[sizeof(knit_q6_k)];

		knit__panels_unpack_super(t, panel + b * knit__panel_group_bytes(t), lane, block);
		knit__row_to_f32(t, block, out + b * KNIT_QK_K, KNIT_QK_K);
	}
	if (knit__is_super(t))
		return;
	for (int64_t b = 0; b < columns / KNIT_QK; ++b) {
		const char *const group = panel + b / 2 * knit__panel_group_bytes(t);
		const char *const vectors = group + KNIT_PANEL_SCALES + b % 2 * knit__panel_block_bytes(t) + lane * 4;
		char block[sizeof(knit_q8_0)];

		memcpy(block, group + b % 2 * KNIT_PANEL_ROWS * 2 + lane * 2, 2);
		for (int64_t j = 0; j < pieces; ++j) {
			uint32_t piece;

			memcpy(&piece, vectors + j * 64, 4);
			piece ^= t == KNIT_Q8_0 ? UINT32_C(0x80808080) : 0;
			memcpy(block + 2 + j * 4, &piece, 4);
		}
		knit__row_to_f32(t, block, out + b * KNIT_QK, KNIT_QK);
	}
}
