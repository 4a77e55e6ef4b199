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

#define KNIT_QK_K 256 /* elements of a q4_K or q6_K super-block */
/* Eight parts of 32: x = d * scale * q - dmin * min, scale and min of 6 bits (knit__q4_k_parts). 64 elements in 32 bytes of
 * q: the first 32 in the low nibbles. GGUF type 12. */
typedef struct knit_q4_k { uint16_t d, dmin; uint8_t scales[12], q[KNIT_QK_K / 2]; } knit_q4_k;
/* Sixteen parts of 16: x = d * scale * (q - 32). 128 elements in 64 bytes of `low` (elements 0..63 in the low nibbles) and
 * 32 of `high` (two bits each, elements 0..31 in the lowest). GGUF type 14. */
typedef struct knit_q6_k { uint8_t low[KNIT_QK_K / 2], high[KNIT_QK_K / 4]; int8_t scales[16]; uint16_t d; } knit_q6_k;
_Static_assert(sizeof(knit_q4_k) == 144 && sizeof(knit_q6_k) == 210, "super-block formats are packed");

/* One super-block (quant_k.c); it may lie anywhere. */
void knit__q4_k_parts(const uint8_t packed[12], uint8_t scale[8], uint8_t min[8]);
void knit__encode_q4_k(const float *x, void *dst);
void knit__decode_q4_k(const void *src, float *y);
void knit__encode_q6_k(const float *x, void *dst);
void knit__decode_q6_k(const void *src, float *y);

/* n elements, a multiple of the type's block; any of f32, f16, bf16, q8_0, q4_0, q4_K, q6_K. */
void knit__row_to_f32(knit_dtype dtype, const void *src, float *dst, size_t n);
void knit__row_from_f32(knit_dtype dtype, const float *src, void *dst, size_t n);

#endif
