/* Owns the bits of element types in shaders. Must match ops/quant.c. All conversions are done on integers: exact whatever
 * a driver does with denormals, NaN and rounding. Buffers of f32 and i32 are arrays of uint; those of the other types are
 * arrays of uint16_t (blocks begin at even bytes). */
#define KNIT_F32 1
#define KNIT_F16 2
#define KNIT_BF16 3
#define KNIT_I32 4
#define KNIT_Q8_0 5
#define KNIT_Q4_0 6
#define KNIT_Q4_K 7
#define KNIT_Q6_K 8

#define KNIT_Q8_0_WORDS 17 /* uint16_t of a block of 32: the scale, then two elements in each */
#define KNIT_Q4_K_WORDS 72 /* of a super-block of 256: see ops/quant.h */
#define KNIT_Q6_K_WORDS 105
#define KNIT_Q4_0_WORDS 9  /* the scale, then elements 2 i, 2 i + 1 low, 2 i + 16, 2 i + 17 high */

const uint knit_nan_bits = 0x7fc00000u;

bool knit_bits_nan(uint bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }
/* isnan() may be compiled away where a driver assumes that there are none. */
bool knit_is_nan(float x) { return knit_bits_nan(floatBitsToUint(x)); }

/* ---- to f32 ------------------------------------------------------------------------------------------------------ */

uint knit_f16_bits(uint h) {
	const uint sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;

	if (rest < 0x400u) /* denormal: a multiple of 2^-24 */
		return sign | floatBitsToUint(float(rest) * 5.9604644775390625e-8);
	return sign | (rest < 0x7c00u ? (rest << 13) + 0x38000000u : (rest << 13) | 0x7f800000u);
}
float knit_f16(uint h) { return uintBitsToFloat(knit_f16_bits(h)); }
float knit_bf16(uint h) { return uintBitsToFloat(h << 16); }

/* ---- from f32: to nearest even ----------------------------------------------------------------------------------- */

uint knit_to_f16(uint bits) {
	const uint sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;

	if (a > 0x7f800000u)
		return sign | 0x7e00u;
	if (a >= 0x477ff000u) /* 65520 */
		return sign | 0x7c00u;
	if (a >= 0x38800000u) /* 2^-14 */
		return sign | (a + 0xfffu + (a >> 13 & 1u) - 0x38000000u) >> 13;
	if (a <= 0x33000000u) /* 2^-25 */
		return sign;

	const uint shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;
	const uint whole = m >> shift, rest = m & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
	return sign | (whole + (rest > middle || (rest == middle && (whole & 1u) != 0u) ? 1u : 0u));
}
uint knit_to_bf16(uint bits) {
	return knit_bits_nan(bits) ? (bits >> 16 | 0x40u) : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* The signed byte number `i` of a 32-bit (or, for i < 2, 16-bit) word. */
int knit_byte(uint word, uint i) { return bitfieldExtract(int(word), int(i * 8u), 8); }
/* Element `i` of a block, 0 .. 31, from the word that holds it: KNIT_AT_* says which. */
float knit_q8_0(uint scale, uint word, uint i) { return knit_f16(scale) * float(knit_byte(word, i & 1u)); }
float knit_q4_0(uint scale, uint word, uint i) {
	return knit_f16(scale) * float(int(word >> ((i & 1u) * 8u + (i >> 4) * 4u) & 15u) - 8);
}

/* Scale and minimum of part `part` of a q4_K, from the bytes part % 4, part % 4 + 4 and part % 4 + 8 of the packed 12. */
vec2 knit_q4_k_part(uint part, uvec3 bytes) {
	if (part < 4u)
		return vec2(bytes.xy & 63u);
	return vec2((bytes.z & 15u) | (bytes.x >> 6) << 4, bytes.z >> 4 | (bytes.y >> 6) << 4);
}
/* Rounded as in ops/quant_k.c: no product may be fused with the difference. */
float knit_q4_k(uint d, uint dmin, vec2 part, uint q) {
	precise float y = knit_f16(d) * part.x, off = knit_f16(dmin) * part.y;
	y = y * float(q);
	y = y - off;
	return y;
}
float knit_q6_k(uint d, int scale, uint q) {
	precise float y = knit_f16(d) * float(scale);
	y = y * float(int(q) - 32);
	return y;
}

/* Element i counted from the word number `base` of array `a`, where a block begins. */
#define KNIT_AT_F32(a, base, i) uintBitsToFloat(a[(base) + (i)])
#define KNIT_AT_F16(a, base, i) knit_f16(uint(a[(base) + (i)]))
#define KNIT_AT_BF16(a, base, i) knit_bf16(uint(a[(base) + (i)]))
#define KNIT_AT_Q8_0(a, base, i) knit_q8_0(uint(a[(base) + (i) / 32u * 17u]), \
	uint(a[(base) + (i) / 32u * 17u + 1u + (i) % 32u / 2u]), (i) % 32u)
#define KNIT_AT_Q4_0(a, base, i) knit_q4_0(uint(a[(base) + (i) / 32u * 9u]), \
	uint(a[(base) + (i) / 32u * 9u + 1u + (i) % 16u / 2u]), (i) % 32u)

/* Byte i from the word number `at` on. */
#define KNIT_BYTE_AT(a, at, i) (uint(a[(at) + (i) / 2u]) >> ((i) & 1u) * 8u & 255u)
#define KNIT_SUPER_READER(name, a) \
	float name##_q4_k(uint at, uint i) { \
		const uint part = i / 32u, s = part & 3u; \
		const uvec3 bytes = uvec3(KNIT_BYTE_AT(a, at + 2u, s), KNIT_BYTE_AT(a, at + 4u, s), KNIT_BYTE_AT(a, at + 6u, s)); \
		const uint q = KNIT_BYTE_AT(a, at + 8u, part / 2u * 32u + i % 32u) >> (part & 1u) * 4u & 15u; \
		return knit_q4_k(uint(a[at]), uint(a[at + 1u]), knit_q4_k_part(part, bytes), q); \
	} \
	float name##_q6_k(uint at, uint i) { \
		const uint first = i / 128u, j = i % 128u; \
		const uint low = KNIT_BYTE_AT(a, at, first * 64u + j % 64u) >> j / 64u * 4u & 15u; \
		const uint high = KNIT_BYTE_AT(a, at + 64u, first * 32u + j % 32u) >> j / 32u * 2u & 3u; \
		return knit_q6_k(uint(a[at + 104u]), knit_byte(uint(a[at + 96u + i / 32u]), i / 16u & 1u), low | high << 4); \
	}

/* A function float name(uint base, uint i) that reads any of the types; dtype is best a specialization constant, so that
 * one case of it is left. a32 and a16 are two views of one binding:
 *   KNIT_IN(1) table_words { uint table32[]; };
 *   KNIT_IN(1) table_halves { uint16_t table16[]; };
 *   KNIT_READER(table_at, TABLE_TYPE, table32, table16) */
#define KNIT_READER(name, dtype, a32, a16) \
	float name(uint base, uint i) { \
		if (dtype == KNIT_F32) \
			return KNIT_AT_F32(a32, base, i); \
		if (dtype == KNIT_F16) \
			return KNIT_AT_F16(a16, base, i); \
		if (dtype == KNIT_BF16) \
			return KNIT_AT_BF16(a16, base, i); \
		if (dtype == KNIT_Q8_0) \
			return KNIT_AT_Q8_0(a16, base, i); \
		return KNIT_AT_Q4_0(a16, base, i); \
	}
/* The same of f32, f16 and bf16 alone. */
#define KNIT_FLOAT_READER(name, dtype, a32, a16) \
	float name(uint i) { \
		if (dtype == KNIT_F32) \
			return uintBitsToFloat(a32[i]); \
		return dtype == KNIT_F16 ? knit_f16(uint(a16[i])) : knit_bf16(uint(a16[i])); \
	}
