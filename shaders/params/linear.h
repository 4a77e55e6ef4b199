/* Owns the parameter block of the linears: matrix-vector and tiled kernels take the same one. */
#ifndef KNIT_PARAMS_LINEAR_H
#define KNIT_PARAMS_LINEAR_H

#include "words.h"

#define KNIT_LINEAR_PARTS 3 /* weights that one dispatch can multiply x with */

/* One weight w [columns, k] of a dispatch. Its places are counted in units: elements, of block types 16-bit words. */
struct knit_linear_part {
	uint first_group;       /* of those that compute its outputs */
	uint columns;           /* rows of w, columns of the output */
	uint w_at, w_row;       /* units: the first; from row to row */
	uint out_at, out_row;   /* elements: the first; from row to row */
	uint b_type, b_at, rank; /* knit_dtype of B; elements: the first, of a row; rank 0: no LoRA */
	uint slot_step;         /* from one adapter's to the next's: elements of B, or, of w itself where rank is 0, units */
	uint low_at;            /* where t begins in a row of the scratch */
	float scale;            /* of the product */
};
#ifndef VULKAN
typedef struct knit_linear_part knit_linear_part;
#endif

/* Row r of an activation of up to four dims lies at at + r / (d1 d2) s0 + r / d2 % d1 s1 + r % d2 s2. */
struct knit_linear_params {
	knit_linear_part part[KNIT_LINEAR_PARTS];
	uint x_at, x_d1, x_d2, x_s0, x_s1, x_s2;
	uint residual_at, residual_d1, residual_d2, residual_s0, residual_s1, residual_s2;
	uint groups, row_blocks; /* groups that have work; per column block */
	uint rows, k;
	uint low_row;            /* elements of a row of the scratch */
	uint bias_type, bias_at, has_residual; /* knit_dtype, 0: no bias */
	uint act;                /* of GLU: 0 silu, 1 gelu */
	uint slots;              /* adapters; 0: one for all rows */
	uint sequences, adapters_at, seq_at;
};
#ifndef VULKAN
typedef struct knit_linear_params knit_linear_params;
#endif

#endif
