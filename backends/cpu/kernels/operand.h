/* Owns what kernels ask about their operands: in accepts(), from symbolic views; in a run, where a row lies. Knows no
 * op. */
#ifndef KNIT_KERNELS_OPERAND_H
#define KNIT_KERNELS_OPERAND_H

#include "../cpu_kernel.h"

/* ---- in accepts() ------------------------------------------------------------------------------------------------ */

static inline bool knit__is_float(knit_dtype t) { return t == KNIT_F32 || t == KNIT_F16 || t == KNIT_BF16; }
static inline bool knit__is_super(knit_dtype t) { return t == KNIT_Q4_K || t == KNIT_Q6_K; }
static inline bool knit__is_block(knit_dtype t) { return t == KNIT_Q8_0 || t == KNIT_Q4_0 || knit__is_super(t); }

/* An activation whose rows may lie apart. */
static inline bool knit__f32_rows(const knit_operand_view *v) {
	return v->dtype == KNIT_F32 && v->layout == 0 && v->rank >= 1 && v->rows_contiguous;
}
static inline bool knit__f32_dense(const knit_operand_view *v) {
	return v->dtype == KNIT_F32 && v->layout == 0 && v->rank >= 1 && v->contiguous;
}
/* A vector of parameters [n]. */
static inline bool knit__float_vector(const knit_operand_view *v) {
	return knit__is_float(v->dtype) && v->layout == 0 && v->rank == 1 && v->contiguous;
}
static inline bool knit__index_vector(const knit_operand_view *v) {
	return v->dtype == KNIT_I32 && v->layout == 0 && v->rank == 1 && v->contiguous;
}

/* Rows of a matrix or table. Blocks must start at multiples of the block, which no symbol can promise. */
static inline bool knit__weight_rows(const knit_operand_view *v) {
	if (v->layout != 0 || v->rank != 2 || !v->rows_contiguous)
		return false;
	if (!knit__is_block(v->dtype))
		return knit__is_float(v->dtype);
	const int64_t block = knit__is_super(v->dtype) ? 256 : 32;
	return v->dims[1].v >= 0 && v->dims[1].v % block == 0 &&
	       (v->contiguous || (v->strides[0].v >= 0 && v->strides[0].v % block == 0));
}

/* Largest number of rows (all dims but the innermost `inner` ones) that v can have. */
static inline uint64_t knit__max_rows(const knit_node_view *node, const knit_operand_view *v, int inner) {
	uint64_t rows = 1;

	for (int i = 0; i + inner < v->rank; ++i)
		if (!knit__mul_u64(rows, (uint64_t)knit__dim_hi(&node->graph->exprs, node->bounds, v->dims[i]), &rows))
			return UINT64_MAX;
	return rows;
}

/* ---- in a run ---------------------------------------------------------------------------------------------------- */

/* Element offset of row r, rows being counted over all dims but the innermost `inner` ones. */
static inline int64_t knit__row_offset(const knit_cpu_tensor *t, int64_t r, int inner) {
	int64_t offset = 0;

	for (int i = t->rank - inner - 1; i > 0; --i) {
		offset += r % t->dims[i] * t->strides[i];
		r /= t->dims[i];
	}
	return t->rank > inner ? offset + r * t->strides[0] : 0;
}

static inline float *knit__f32_row(const knit_cpu_tensor *t, int64_t r) {
	return (float *)(void *)t->data + knit__row_offset(t, r, 1);
}

static inline int64_t knit__row_length(const knit_cpu_tensor *t) { return t->dims[t->rank - 1]; }

/* Bytes of `elements` elements, for types and counts that accepts() let pass. */
static inline int64_t knit__bytes_of(knit_dtype t, int64_t elements) {
	switch (t) {
	case KNIT_F32:
	case KNIT_I32:
		return elements * 4;
	case KNIT_F16:
	case KNIT_BF16:
		return elements * 2;
	case KNIT_Q8_0:
		return elements / 32 * 34;
	case KNIT_Q4_0:
		return elements / 32 * 18;
	case KNIT_Q4_K:
		return elements / 256 * 144;
	case KNIT_Q6_K:
		return elements / 256 * 210;
	}
	return 0;
}

static inline int64_t knit__min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t knit__max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t knit__ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Rows that one unit of a row-wise kernel takes: enough elements to be worth the bookkeeping. */
static inline int64_t knit__rows_per_unit(int64_t row_length) {
	return row_length >= 4096 ? 1 : row_length <= 4 ? 1024 : 4096 / row_length;
}

#endif
