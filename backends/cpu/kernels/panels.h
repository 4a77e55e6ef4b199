/* Owns the layout "panels" of quantised weights: 16 rows interleaved, so that a vector holds four neighbours of each row
 * and sums need no shuffling. Made once per weight by pack.c; read by linear's panel tiles and by gather.
 *
 * Rows are filled up to a multiple of 16 and columns to one of 64, with zeros. A panel is 16 rows; it is a sequence of
 * groups of 64 columns (two blocks of every row):
 *   2 x 16 f16 scales, block by block;
 *   q8_0: 2 x 8 vectors, vector j of 64 bytes = columns 4j .. 4j + 3 of the block, of row 0, row 1, ...; q + 128;
 *   q4_0: 2 x 4 vectors, vector j of 64 bytes = bytes 4j .. 4j + 3 of the block in the file, of row 0, row 1, ...
 * Super-blocks of 256 have a group each, of as many bytes as the 16 blocks in the file (q6_K: 32 more, so that vectors are
 * aligned). A value of one row stands beside that of the next; a part of 32 columns has the vectors of a q4_0 block for its
 * nibbles:
 *   q4_K: 16 d; 16 dmin; 12 x 16 bytes of packed scales and minima; 8 x 4 vectors;
 *   q6_K: 16 d and 32 bytes of zeros; 16 x 16 scales; 8 x 4 vectors of low bits; 8 x 2 vectors of high bits, byte i of
 *   which has two bits of each of the columns i, 8 + i, 16 + i, 24 + i. */
#ifndef KNIT_KERNELS_PANELS_H
#define KNIT_KERNELS_PANELS_H

#include "operand.h"

#define KNIT_CPU_PANELS 1 /* knit_value.layout */
#define KNIT_PANEL_ROWS 16
#define KNIT_PANEL_GROUP 64 /* columns; of super-blocks 256 */
#define KNIT_PANEL_SCALES 64 /* bytes of a group before its vectors */

#define KNIT_PANEL_Q4_K_BYTES 2304
#define KNIT_PANEL_Q4_K_VECTORS 256
#define KNIT_PANEL_Q6_K_BYTES 3392
#define KNIT_PANEL_Q6_K_SCALES 64
#define KNIT_PANEL_Q6_K_VECTORS 320
#define KNIT_PANEL_Q6_K_HIGH (KNIT_PANEL_Q6_K_VECTORS + 2048)

static inline int64_t knit__panel_group(knit_dtype t) { return knit__is_super(t) ? 256 : KNIT_PANEL_GROUP; }
static inline int64_t knit__panel_group_bytes(knit_dtype t) {
	if (knit__is_super(t))
		return t == KNIT_Q4_K ? KNIT_PANEL_Q4_K_BYTES : KNIT_PANEL_Q6_K_BYTES;
	return t == KNIT_Q8_0 ? KNIT_PANEL_SCALES + 1024 : KNIT_PANEL_SCALES + 512;
}
/* Of the vectors of one block of every row; of the blocks of 32. */
static inline int64_t knit__panel_block_bytes(knit_dtype t) { return t == KNIT_Q8_0 ? 512 : 256; }
static inline int64_t knit__panel_bytes(knit_dtype t, int64_t columns) {
	return (columns + knit__panel_group(t) - 1) / knit__panel_group(t) * knit__panel_group_bytes(t);
}

/* A whole quantised matrix that lies in panels. */
static inline bool knit__weight_panels(const knit_operand_view *v) {
	return v->layout == KNIT_CPU_PANELS && v->rank == 2 && v->contiguous && knit__is_block(v->dtype);
}

#define KNIT_PANEL_AHEAD 4096 /* bytes: what a core reads while memory answers */
/* Asks for the lines of a group further down the panels, which lie one after the other, so that at the end of one the next is
 * already on its way. Into the first cache: from the last one, too, that is a tenth faster than into the second. The
 * address may lie behind the panels. */
static inline __attribute__((always_inline)) void knit__panel_ahead(const char *group, int64_t group_bytes) {
	for (int64_t line = 0; line < group_bytes; line += 64)
		__builtin_prefetch(group + KNIT_PANEL_AHEAD + line, 0, 3);
}

/* UINT64_MAX where 64 bits cannot count them. */
uint64_t knit__panels_bytes(knit_dtype t, int64_t rows, int64_t columns);
/* Panels [begin, end) of a matrix whose rows lie one after the other in src. */
void knit__panels_pack(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                       int64_t end);
/* The same by vectors, bit for bit: only where the processor has AVX2. */
void knit__panels_pack_avx2(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                            int64_t end);
/* One super-block to its lane of a group and back; block NULL: zeros. */
void knit__panels_pack_super(knit_dtype t, const char *block, char *group, int64_t lane);
void knit__panels_unpack_super(knit_dtype t, const char *group, int64_t lane, char *block);
/* One row as floats, for gather: bit for bit what knit__row_to_f32 makes of the file's row. */
void knit__panels_row(knit_dtype t, const char *panels, int64_t columns, int64_t row, float *out);

#endif
