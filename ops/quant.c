/* Owns the conversion of element types, one value or one row at a time: exact, plain, and the reference for every
 * faster variant. Knows nothing of tensors or strides. */
#include "quant.h"

#include <math.h>
#include <string.h>

/* ---- 16-bit floats ----------------------------------------------------------------------------------------------- */

/* A binary format below f64: sign, `exponent_bits`, `mantissa_bits`, in 16 bits. */
typedef struct small_float {
	int exponent_bits, mantissa_bits;
} small_float;
static const small_float f16_format = {5, 10}, bf16_format = {8, 7};

/* Rounds once, straight from f64, to nearest even. Going through f32 first would round twice and differ at ties. */
static uint16_t round_to_small(small_float f, double x) {
	const int bias = (1 << (f.exponent_bits - 1)) - 1;
	const uint32_t infinity = ((UINT32_C(1) << f.exponent_bits) - 1) << f.mantissa_bits;
	uint64_t bits, fraction, half;
	uint32_t sign, out;
	int exponent, drop;

	memcpy(&bits, &x, sizeof bits);
	sign = (uint32_t)(bits >> 63) << 15;
	exponent = (int)(bits >> 52 & 0x7ff);
	fraction = bits & ((UINT64_C(1) << 52) - 1);

	if (exponent == 0x7ff) {
		if (fraction == 0)
			return (uint16_t)(sign | infinity);
		/* NaN: the payload's top bits stay, the quiet bit makes sure that it does not become an infinity */
		return (uint16_t)(sign | infinity | UINT32_C(1) << (f.mantissa_bits - 1) |
						  (uint32_t)(fraction >> (52 - f.mantissa_bits)));
	}
	if (exponent == 0) /* below 2^-1022: far under half of the smallest denormal */
		return (uint16_t)sign;

	exponent += bias - 1023;
	fraction |= UINT64_C(1) << 52;
	drop = 52 - f.mantissa_bits;
	if (exponent < 1) { /* denormal: exponent field 0, one more bit dropped per step below 1 */
		drop += 1 - exponent;
		exponent = 0;
		if (drop > 54)
			return (uint16_t)sign;
	}
	half = UINT64_C(1) << (drop - 1);
	out = (uint32_t)(fraction >> drop);
	fraction &= (half << 1) - 1;
	if (fraction > half || (fraction == half && (out & 1)))
		++out;
	/* the hidden bit of a normal number adds one to the exponent field; a carry out of the mantissa likewise */
	if (exponent > 0)
		out += (uint32_t)(exponent - 1) << f.mantissa_bits;
	if (out > infinity)
		out = infinity;
	return (uint16_t)(sign | out);
}

uint16_t knit__f32_to_f16(float x) {
	return round_to_small(f16_format, (double)x);
}
uint16_t knit__f32_to_bf16(float x) {
	return round_to_small(bf16_format, (double)x);
}

float knit__f16_to_f32(uint16_t h) {
	const uint32_t sign = (uint32_t)(h & 0x8000) << 16, mantissa = h & 0x3ff;
	const uint32_t exponent = h >> 10 & 0x1f;
	union {
		uint32_t u;
		float f;
	} v;

	if (exponent == 0) { /* zero or denormal: mantissa * 2^-24, exact in f32 */
		v.f = (float)mantissa * 0x1p-24f;
		v.u |= sign;
		return v.f;
	}
	if (exponent == 31)
		v.u = sign | UINT32_C(0x7f800000) | mantissa << 13;
	else
		v.u = sign | (exponent + 127 - 15) << 23 | mantissa << 13;
	return v.f;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Sources may lie anywhere in a mapped file: nothing here assumes alignment. */
static uint16_t load_u16(const void *src) {
	uint16_t v;
	memcpy(&v, src, sizeof v);
	return v;
}

static bool all_finite(const float *x, size_t n) {
	for (size_t i = 0; i < n; ++i)
		if (!isfinite(x[i]))
			return false;
	return true;
}

/* A block cannot hold an infinity or a NaN beside numbers: the whole block becomes NaN, so that it is seen. */
#define BLOCK_NAN UINT16_C(0x7e00)

static void fill_q8_0(const float *x, knit_q8_0 *b) {
	float max = 0.0f, d, inverse;

	if (!all_finite(x, KNIT_QK)) {
		b->d = BLOCK_NAN;
		return;
	}
	for (int i = 0; i < KNIT_QK; ++i)
		max = fmaxf(max, fabsf(x[i]));
	d = max / 127.0f;
	inverse = d != 0.0f ? 1.0f / d : 0.0f;
	if (!isfinite(inverse)) /* d is a denormal that f16 cannot hold either: the block is zero */
		return;
	b->d = knit__f32_to_f16(d);
	for (int i = 0; i < KNIT_QK; ++i)
		b->q[i] = (int8_t)roundf(x[i] * inverse);
}

static void encode_q8_0(const float *x, void *dst) {
	knit_q8_0 b = {0};

	fill_q8_0(x, &b);
	memcpy(dst, &b, sizeof b);
}

static void fill_q4_0(const float *x, knit_q4_0 *b) {
	float max = 0.0f, signed_max = 0.0f, d, inverse;

	if (!all_finite(x, KNIT_QK)) {
		b->d = BLOCK_NAN;
		return;
	}
	/* the element of largest magnitude becomes -8 exactly, the end of the range that has one value more */
	for (int i = 0; i < KNIT_QK; ++i) {
		if (fabsf(x[i]) > max) {
			max = fabsf(x[i]);
			signed_max = x[i];
		}
	}
	d = signed_max / -8.0f;
	inverse = d != 0.0f ? 1.0f / d : 0.0f;
	if (!isfinite(inverse))
		d = inverse = 0.0f;
	b->d = knit__f32_to_f16(d);
	for (int i = 0; i < KNIT_QK / 2; ++i) {
		const int low = (int)(x[i] * inverse + 8.5f), high = (int)(x[i + KNIT_QK / 2] * inverse + 8.5f);
		b->q[i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
	}
}

static void encode_q4_0(const float *x, void *dst) {
	knit_q4_0 b = {0};

	fill_q4_0(x, &b);
	memcpy(dst, &b, sizeof b);
}

static void decode_q8_0(const void *src, float *y) {
	knit_q8_0 b;
	float d;

	memcpy(&b, src, sizeof b);
	d = knit__f16_to_f32(b.d);
	for (int i = 0; i < KNIT_QK; ++i)
		y[i] = d * (float)b.q[i];
}

static void decode_q4_0(const void *src, float *y) {
	knit_q4_0 b;
	float d;

	memcpy(&b, src, sizeof b);
	d = knit__f16_to_f32(b.d);
	for (int i = 0; i < KNIT_QK / 2; ++i) {
		y[i] = d * (float)((int)(b.q[i] & 15) - 8);
		y[i + KNIT_QK / 2] = d * (float)((int)(b.q[i] >> 4) - 8);
	}
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void decode_blocks(const char *src, float *dst, size_t n, size_t block, size_t bytes,
                          void (*decode)(const void *, float *)) {
	for (size_t i = 0; i < n / block; ++i)
		decode(src + i * bytes, dst + i * block);
}

static void encode_blocks(const float *src, char *dst, size_t n, size_t block, size_t bytes,
                          void (*encode)(const float *, void *)) {
	for (size_t i = 0; i < n / block; ++i)
		encode(src + i * block, dst + i * bytes);
}

void knit__row_to_f32(knit_dtype dtype, const void *src, float *dst, size_t n) {
	const char *p = src;

	switch (dtype) {
	case KNIT_F32:
		memcpy(dst, src, n * sizeof *dst);
		return;
	case KNIT_F16:
		for (size_t i = 0; i < n; ++i)
			dst[i] = knit__f16_to_f32(load_u16(p + i * 2));
		return;
	case KNIT_BF16:
		for (size_t i = 0; i < n; ++i)
			dst[i] = knit__bf16_to_f32(load_u16(p + i * 2));
		return;
	case KNIT_Q8_0:
		decode_blocks(p, dst, n, KNIT_QK, sizeof(knit_q8_0), decode_q8_0);
		return;
	case KNIT_Q4_0:
		decode_blocks(p, dst, n, KNIT_QK, sizeof(knit_q4_0), decode_q4_0);
		return;
	case KNIT_Q4_K:
		decode_blocks(p, dst, n, KNIT_QK_K, sizeof(knit_q4_k), knit__decode_q4_k);
		return;
	case KNIT_Q6_K:
		decode_blocks(p, dst, n, KNIT_QK_K, sizeof(knit_q6_k), knit__decode_q6_k);
		return;
	case KNIT_I32:
		return;
	}
}

void knit__row_from_f32(knit_dtype dtype, const float *src, void *dst, size_t n) {
	char *p = dst;

	switch (dtype) {
	case KNIT_F32:
		memcpy(dst, src, n * sizeof *src);
		return;
	case KNIT_F16:
	case KNIT_BF16:
		for (size_t i = 0; i < n; ++i) {
			const uint16_t h = dtype == KNIT_F16 ? knit__f32_to_f16(src[i]) : knit__f32_to_bf16(src[i]);
			memcpy(p + i * 2, &h, sizeof h);
		}
		return;
	case KNIT_Q8_0:
		encode_blocks(src, p, n, KNIT_QK, sizeof(knit_q8_0), encode_q8_0);
		return;
	case KNIT_Q4_0:
		encode_blocks(src, p, n, KNIT_QK, sizeof(knit_q4_0), encode_q4_0);
		return;
	case KNIT_Q4_K:
		encode_blocks(src, p, n, KNIT_QK_K, sizeof(knit_q4_k), knit__encode_q4_k);
		return;
	case KNIT_Q6_K:
		encode_blocks(src, p, n, KNIT_QK_K, sizeof(knit_q6_k), knit__encode_q6_k);
		return;
	case KNIT_I32:
		return;
	}
}

/* ---- doubles, for the reference ---------------------------------------------------------------------------------- */

/* A block of f32 at a time, so that no buffer depends on the row length. */
static void decode_by_blocks(knit_dtype dtype, const char *src, double *dst, uint64_t elements) {
	const knit_dtype_info *const info = knit__dtype_info(dtype);
	const uint64_t block = info->block_elements;
	float y[KNIT_QK_K];

	for (uint64_t at = 0; at + block <= elements; at += block, src += info->block_bytes) {
		knit__row_to_f32(dtype, src, y, block);
		for (uint64_t i = 0; i < block; ++i)
			dst[at + i] = (double)y[i];
	}
}

static void encode_by_blocks(knit_dtype dtype, const double *src, char *dst, uint64_t elements) {
	const knit_dtype_info *const info = knit__dtype_info(dtype);
	const uint64_t block = info->block_elements;
	float x[KNIT_QK_K];

	for (uint64_t at = 0; at + block <= elements; at += block, dst += info->block_bytes) {
		for (uint64_t i = 0; i < block; ++i)
			x[i] = (float)src[at + i];
		knit__row_from_f32(dtype, x, dst, block);
	}
}

static int32_t round_to_i32(double x) {
	if (isnan(x))
		return 0;
	if (x <= (double)INT32_MIN)
		return INT32_MIN;
	if (x >= (double)INT32_MAX)
		return INT32_MAX;
	return (int32_t)nearbyint(x);
}

void knit__decode(knit_dtype dtype, const void *src, double *dst, uint64_t elements) {
	const char *p = src;

	switch (dtype) {
	case KNIT_F32:
		for (uint64_t i = 0; i < elements; ++i) {
			float v;
			memcpy(&v, p + i * sizeof v, sizeof v);
			dst[i] = (double)v;
		}
		return;
	case KNIT_F16:
		for (uint64_t i = 0; i < elements; ++i)
			dst[i] = (double)knit__f16_to_f32(load_u16(p + i * 2));
		return;
	case KNIT_BF16:
		for (uint64_t i = 0; i < elements; ++i)
			dst[i] = (double)knit__bf16_to_f32(load_u16(p + i * 2));
		return;
	case KNIT_I32:
		for (uint64_t i = 0; i < elements; ++i) {
			int32_t v;
			memcpy(&v, p + i * sizeof v, sizeof v);
			dst[i] = (double)v;
		}
		return;
	case KNIT_Q8_0:
	case KNIT_Q4_0:
	case KNIT_Q4_K:
	case KNIT_Q6_K:
		decode_by_blocks(dtype, p, dst, elements);
		return;
	}
}

void knit__encode(knit_dtype dtype, const double *src, void *dst, uint64_t elements) {
	char *p = dst;

	switch (dtype) {
	case KNIT_F32:
		for (uint64_t i = 0; i < elements; ++i) {
			const float v = (float)src[i];
			memcpy(p + i * sizeof v, &v, sizeof v);
		}
		return;
	case KNIT_F16:
	case KNIT_BF16:
		for (uint64_t i = 0; i < elements; ++i) {
			const uint16_t h = round_to_small(dtype == KNIT_F16 ? f16_format : bf16_format, src[i]);
			memcpy(p + i * 2, &h, sizeof h);
		}
		return;
	case KNIT_I32:
		for (uint64_t i = 0; i < elements; ++i) {
			const int32_t v = round_to_i32(src[i]);
			memcpy(p + i * sizeof v, &v, sizeof v);
		}
		return;
	case KNIT_Q8_0:
	case KNIT_Q4_0:
	case KNIT_Q4_K:
	case KNIT_Q6_K:
		encode_by_blocks(dtype, src, p, elements);
		return;
	}
}
