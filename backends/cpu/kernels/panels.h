/* Owns the layout "panels" of quantised weights: 16 rows interleaved, so that a vector holds four neighbours of each row
 * and sums need no shuffling. Made once per weight by pack.c; read by linear's panel tiles and by gather.
 *
 * Rows are filled up to a multiple of 16 and columns to one of 64, with zeros. A panel is 16 rows; it is a sequence of
 * groups of 64 columns (two blocks of every row):
 *   2 x 16 f16 scales, block by block;
 *   q8_0: 2 x 8 vectors, vector j of 64 bytes = columns 4j .. 4j + 3 of the block, of row 0, row 1, ...; q + 128;
 *   q4_0: 2 x 4 vectors, vector j of 64 bytes = bytes 4j .. 4j + 3 of the block in the file, of row 0, row 1, ... */
#ifndef KNIT_KERNELS_PANELS_H
#define KNIT_KERNELS_PANELS_H

#include "operand.h"

#define KNIT_CPU_PANELS 1 /* knit_value.layout */
#define KNIT_PANEL_ROWS 16
#define KNIT_PANEL_GROUP 64 /* columns */
#define KNIT_PANEL_SCALES 64 /* bytes of a group before its vectors */

static inline int64_t knit__panel_group_bytes(knit_dtype t) {
	return t == KNIT_Q8_0 ? KNIT_PANEL_SCALES + 1024 : KNIT_PANEL_SCALES + 512;
}
/* Of the vectors of one block of every row. */
static inline int64_t knit__panel_block_bytes(knit_dtype t) { return t == KNIT_Q8_0 ? 512 : 256; }
static inline int64_t knit__panel_bytes(knit_dtype t, int64_t columns) {
	return (columns + KNIT_PANEL_GROUP - 1) / KNIT_PANEL_GROUP * knit__panel_group_bytes(t);
}

static inline bool knit__has_panels(knit_dtype t) { return t == KNIT_Q8_0 || t == KNIT_Q4_0; }

/* A whole quantised matrix that lies in panels. */
static inline bool knit__weight_panels(const knit_operand_view *v) {
	return v->layout == KNIT_CPU_PANELS && v->rank == 2 && v->contiguous && knit__has_panels(v->dtype);
}

/* UINT64_MAX where 64 bits cannot count them. */
uint64_t knit__panels_bytes(knit_dtype t, int64_t rows, int64_t columns);
/* Panels [begin, end) of a matrix whose rows lie one after the other in src. */
void knit__panels_pack(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                       int64_t end);
/* One row as floats, for gather: bit for bit what knit__row_to_f32 makes of the file's row. */
void knit__panels_row(knit_dtype t, const char *panels, int64_t columns, int64_t row, float *out);

#endif
