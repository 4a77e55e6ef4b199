/* Owns the bits of element types: f16, bf16 and the block formats, encode and decode. Plain C; the CPU backend's fast
 * variants must match it. */
#ifndef KNIT_QUANT_H
#define KNIT_QUANT_H

#include "../graph/op_def.h"

/* Round to nearest even; infinities and NaN kept. */
uint16_t knit__f32_to_f16(float x);
float knit__f16_to_f32(uint16_t h);
uint16_t knit__f32_to_bf16(float x);
static inline float knit__bf16_to_f32(uint16_t h) {
	union { uint32_t u; float f; } v = {(uint32_t)h << 16};
	return v.f;
}

#define KNIT_QK 32 /* elements of a q8_0 or q4_0 block */
/* x = d * q. GGUF type 8. */
typedef struct knit_q8_0 { uint16_t d; int8_t q[KNIT_QK]; } knit_q8_0;
/* x = d * (q - 8); low nibbles are elements 0..15, high nibbles 16..31. GGUF type 2. */
typedef struct knit_q4_0 { uint16_t d; uint8_t q[KNIT_QK / 2]; } knit_q4_0;
_Static_assert(sizeof(knit_q8_0) == 34 && sizeof(knit_q4_0) == 18, "block formats are packed");

/* n elements, a multiple of the type's block; any of f32, f16, bf16, q8_0, q4_0. */
void knit__row_to_f32(knit_dtype dtype, const void *src, float *dst, size_t n);
void knit__row_from_f32(knit_dtype dtype, const float *src, void *dst, size_t n);

#endif
