/* Owns the look of one dispatch of the linears' shaders: x times up to three weights, and what follows. Which dispatches
 * an op needs is said by linear.c and lora.c. */
#ifndef KNIT_VK_LINEAR_H
#define KNIT_VK_LINEAR_H

#include "kernels.h"
#include "operand.h"

#include "../../../shaders/params/linear.h"

_Static_assert(sizeof(knit_linear_params) <= KNIT_VK_PARAM_BYTES, "a linear's parameters fit");

/* How a shader cuts its outputs. */
typedef struct knit_vk_linear_form {
	bool tile;                     /* linear_tile; else linear_matvec */
	bool dot;                      /* linear_tile_dot: x is in the scratch, quantised, and weights are blocks */
	bool coop;                     /* linear_coop: x is in the scratch, split */
	uint32_t rows, columns;        /* of a group: rows of x, rows of w */
	uint32_t my_rows, my_columns;  /* of an invocation of a tile; of linear_coop matrices of a subgroup */
} knit_vk_linear_form;

/* The form of matrices of the device's size; rows is 0 where it has none. */
knit_vk_linear_form knit__vk_coop_form(const knit_vk_caps *caps, bool glu);
/* The matrix-vector form for at most so many rows at once: 1, 4 or 8. */
knit_vk_linear_form knit__vk_matvec_form(const knit_vk_caps *caps, uint32_t rows, bool glu);
/* Whether the device has the invocations and the shared memory for it. */
bool knit__vk_linear_form_fits(const knit_vk_caps *caps, const knit_vk_linear_form *form, bool glu);

typedef struct knit_vk_linear_operand {
	const knit_vk_tensor *t; /* NULL: absent, or the scratch where that makes sense */
	uint8_t index;
} knit_vk_linear_operand;

typedef struct knit_vk_linear_weight {
	knit_vk_linear_operand w, b;  /* b absent: no LoRA */
	knit_vk_linear_operand out;   /* NULL: the scratch */
	uint64_t first, count;        /* rows of w */
	bool whole;                   /* w's storage is bound whole; else the bytes of these rows */
	bool per_slot;                /* w is [slots, rows, k] */
	uint32_t low_at;              /* of b, and where out is the scratch: where the product begins in its rows */
	float scale;
} knit_vk_linear_weight;

typedef struct knit_vk_linear {
	knit_vk_linear_form form;
	knit_vk_linear_weight weight[KNIT_LINEAR_PARTS];
	uint32_t weights;
	bool glu, waits;                      /* glu: weight 0 is the gate, 1 is up */
	uint32_t act;
	knit_vk_linear_operand x;             /* NULL: the scratch */
	knit_vk_linear_operand bias, residual, adapters, seq;
	uint64_t rows, k;
	uint32_t low_row, x_low_at;           /* elements of a row of the scratch; where x begins in it, if x is there */
	uint32_t slots;                       /* 0: no adapters to choose from */
} knit_vk_linear;

/* Rows of w that one binding can show; 0: not even one. */
uint64_t knit__vk_linear_range(const knit_vk_caps *caps, knit_dtype w, int64_t row_elements);
void knit__vk_linear_dispatch(const knit_vk_caps *caps, const knit_vk_linear *l, knit_vk_dispatch *out);
void knit__vk_linear_fill(const knit_vk_caps *caps, const knit_vk_linear *l, knit_linear_params *p, uint32_t groups[3]);

/* Rows of x to 8-bit integers in the scratch: words of a row (q, then scales, up to a multiple of four), the dispatch. */
uint32_t knit__vk_quantised_words(uint64_t k);
void knit__vk_quantise_dispatch(const knit_vk_caps *caps, knit_vk_linear_operand x, knit_vk_dispatch *out);
void knit__vk_quantise_fill(const knit_vk_caps *caps, const knit_vk_tensor *x, uint32_t at, uint32_t row, void *params,
                            uint32_t groups[3]);

/* Rows of x to two f16 each in the scratch, and a factor: words of a row, the dispatch. */
uint32_t knit__vk_split_words(uint64_t k);
void knit__vk_split_dispatch(const knit_vk_caps *caps, knit_vk_linear_operand x, knit_vk_dispatch *out);
void knit__vk_split_fill(const knit_vk_caps *caps, const knit_vk_tensor *x, uint32_t at, uint32_t row, void *params,
                         uint32_t groups[3]);

/* Where row r of an activation of up to four dims lies: params/linear.h. */
typedef struct knit_vk_rows_at { uint32_t at, d1, d2, s0, s1, s2; } knit_vk_rows_at;
knit_vk_rows_at knit__vk_rows_at(const knit_vk_tensor *t);

/* In accepts(): offset and strides, but for the innermost, are numbers or, whatever the symbols are, multiples of four
 * elements, so that 16 bytes at a time can be decided on once. */
bool knit__vk_linear_steady(const knit_node_view *node, uint32_t in);

#endif
