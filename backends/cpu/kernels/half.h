/* Owns the 16-bit floats for kernels: branchless, so that compilers vectorise loops over them. Bit for bit the same as
 * ops/quant.c but for the payload of a NaN. */
#ifndef KNIT_KERNELS_HALF_H
#define KNIT_KERNELS_HALF_H

#include "knit.h"

#include <string.h>

static inline float knit__as_float(uint32_t u) {
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}
static inline uint32_t knit__as_bits(float f) {
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	return u;
}

/* All ones where a >= b; both below 2^31, where the signed comparison is the one that every vector unit has. */
static inline uint32_t knit__mask_ge(uint32_t a, uint32_t b) { return -(uint32_t)((int32_t)a >= (int32_t)b); }

/* The 15 magnitude bits, moved to f32's places, are the number times 2^-112, denormals included; infinity and NaN come
 * out as numbers with the right fraction. */
static inline float knit__half_load(uint16_t h) {
	const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
	const uint32_t bits = knit__as_bits(knit__as_float(magnitude) * 0x1p112f);

	return knit__as_float(bits | (knit__mask_ge(magnitude, 0x0f800000) & 0x7f800000) | sign);
}

/* Round to nearest even. Normal: add just under half of the last kept place. Denormal: the sum with 0.5 has its last
 * place at 2^-24, so the addition itself rounds. */
static inline uint16_t knit__half_store(float f) {
	const uint32_t bits = knit__as_bits(f), a = bits & 0x7fffffff;
	const uint32_t normal = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
	const uint32_t denormal = knit__as_bits(knit__as_float(a) + 0.5f) - 0x3f000000;
	const uint32_t special = 0x7c00 | (knit__mask_ge(a, 0x7f800001) & 0x200);
	const uint32_t is_normal = knit__mask_ge(a, 0x38800000), is_special = knit__mask_ge(a, 0x47800000);
	const uint32_t finite = (normal & is_normal) | (denormal & ~is_normal);

	return (uint16_t)((finite & ~is_special) | (special & is_special) | (bits >> 16 & 0x8000));
}

static inline float knit__brain_load(uint16_t h) { return knit__as_float((uint32_t)h << 16); }

static inline uint16_t knit__brain_store(float f) {
	const uint32_t bits = knit__as_bits(f);
	const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;

	const uint32_t is_nan = knit__mask_ge(bits & 0x7fffffff, 0x7f800001);

	return (uint16_t)((rounded & ~is_nan) | ((bits >> 16 | 0x40) & is_nan));
}

/* Mapped files promise no alignment. */
static inline uint16_t knit__load_u16(const void *p) {
	uint16_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline float knit__load_f32(const void *p) {
	float v;
	memcpy(&v, p, sizeof v);
	return v;
}

/* Element i of f32, f16 or bf16 data. */
static inline float knit__load_float(knit_dtype t, const char *p, int64_t i) {
	if (t == KNIT_F16)
		return knit__half_load(knit__load_u16(p + i * 2));
	if (t == KNIT_BF16)
		return knit__brain_load(knit__load_u16(p + i * 2));
	return knit__load_f32(p + i * 4);
}

/* n elements between f32 and f32, f16 or bf16; defined in copy_cast.c. */
void knit__floats_to_f32(knit_dtype t, const char *src, float *dst, int64_t n);
void knit__floats_from_f32(knit_dtype t, const float *src, char *dst, int64_t n);

#endif
