/* Owns the way into a KV slot for the kernels that write or read one: the cell of a position, and rows of f32 rounded to
 * any type a state may have. Knows no op. Reference: ops/quant.c. */
#ifndef KNIT_KERNELS_KV_ROWS_H
#define KNIT_KERNELS_KV_ROWS_H

#include "knit.h"

/* n elements, a multiple of 32 for the block types. Bit for bit what knit__row_from_f32 writes, but for the payload of a
 * NaN. */
void knit__kv_row_store(knit_dtype t, const float *x, char *out, int64_t n);

/* The same backwards: n elements as f32. */
void knit__kv_row_load(knit_dtype t, const char *src, float *x, int64_t n);

/* The cell of a position; -1 where there is none. ring 0: a cell for every position. */
static inline int64_t knit__kv_cell(int64_t pos, int64_t ring, int64_t sinks, int64_t cells) {
	const int64_t cell = ring > 0 && pos >= sinks ? sinks + (pos - sinks) % ring : pos;

	return pos >= 0 && cell < cells ? cell : -1;
}

#endif
