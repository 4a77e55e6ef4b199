/* Owns the sizes of element types. Knows nothing of how their bits are read (ops/quant.h). */
#ifndef KNIT_DTYPE_H
#define KNIT_DTYPE_H

#include "knit.h"

/* Elements are stored in blocks along the innermost dimension; plain types have blocks of one element. */
typedef struct knit_dtype_info {
	const char *name;
	uint32_t block_elements;
	uint32_t block_bytes;
	bool is_float; /* f32, f16, bf16: may be strided, cast and computed on elementwise */
	bool is_block; /* q8_0, q4_0, q4_K, q6_K */
	bool is_state; /* states may be of it: floats, q8_0, q4_0 */
} knit_dtype_info;

/* NULL for an unknown type. */
const knit_dtype_info *knit__dtype_info(knit_dtype dtype);
/* By name ("q8_0"); 0 if there is none. */
knit_dtype knit__dtype_parse(const char *name);
/* Bytes of `elements` elements (a multiple of the block); false on overflow, unknown type or a broken block. */
bool knit__dtype_bytes(knit_dtype dtype, uint64_t elements, uint64_t *bytes);

#endif
