// Owns the reading of weights of every type. One of W_F32, W_F16, W_BF16, W_Q8_0, W_Q4_0, W_Q4_K, W_Q6_K is defined
// beforehand, and the constant WIDE; group.glsl and formats.glsl are included. WIDE: rows of x and of float weights begin at multiples of
// 16 bytes and hold whole chunks.
//
// A row is read in chunks of 8 elements: two vectors of 4, at chunk_a and chunk_b of the row. They are what one
// invocation's loads bring best: neighbours where 8 elements lie side by side, halves of a block of q4_0. Neighbouring
// invocations take neighbouring chunks, so a subgroup reads whole cache lines.
//
// DECLARE_WEIGHT(n, B) makes the buffer of weight n at binding B and
//   float w_chunk<n>(uint row, uint chunk, uint k, out vec4 a, out vec4 b)
// for the row that begins at unit `row` (elements; 16-bit words of block types): the elements are the result times a, b.
// Elements at or past k are 0. Of q8_0 and q4_0 also
//   float w_block<n>(uint row, uint block, out uvec4 a, out uvec4 b)
// for a whole block of 32 as 8-bit integers, in natural order: a the first 16 elements, b the others.

#ifdef W_Q4_0
uint chunk_a(uint chunk) { return (chunk >> 2) * 32 + (chunk & 3) * 4; }
uint chunk_b(uint chunk) { return chunk_a(chunk) + 16; }
#elif defined(W_Q4_K)
uint chunk_a(uint chunk) { return (chunk >> 3) * 64 + (chunk & 7) * 4; }
uint chunk_b(uint chunk) { return chunk_a(chunk) + 32; }
#elif defined(W_Q6_K)
uint chunk_a(uint chunk) { return (chunk >> 4) * 128 + (chunk >> 3 & 1) * 32 + (chunk & 7) * 4; }
uint chunk_b(uint chunk) { return chunk_a(chunk) + 64; }
#else
uint chunk_a(uint chunk) { return chunk * 8; }
uint chunk_b(uint chunk) { return chunk * 8 + 4; }
#endif

#if defined(W_F32)

#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_vectors##n { vec4 v[]; } w_vectors##n; \
	KNIT_IN(B) W_words##n { float v[]; } w_words##n; \
	float w_element##n(uint row, uint i, uint k) { return i < k ? w_words##n.v[row + i] : 0; } \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint i = chunk * 8; \
		if (WIDE != 0) { \
			a = w_vectors##n.v[(row + i) / 4]; \
			b = w_vectors##n.v[(row + i) / 4 + 1]; \
			return 1; \
		} \
		a = vec4(w_element##n(row, i, k), w_element##n(row, i + 1, k), w_element##n(row, i + 2, k), \
		         w_element##n(row, i + 3, k)); \
		b = vec4(w_element##n(row, i + 4, k), w_element##n(row, i + 5, k), w_element##n(row, i + 6, k), \
		         w_element##n(row, i + 7, k)); \
		return 1; \
	}

#elif defined(W_F16) || defined(W_BF16)

#ifdef W_F16
float word_to_float(uint h) { return knit_f16(h); }
vec4 words_to_floats(uvec2 u) { return vec4(unpackHalf2x16(u.x), unpackHalf2x16(u.y)); }
#else
float word_to_float(uint h) { return knit_bf16(h); }
vec4 words_to_floats(uvec2 u) {
	return uintBitsToFloat(uvec4(u.x << 16, u.x & 0xffff0000u, u.y << 16, u.y & 0xffff0000u));
}
#endif

#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_vectors##n { uvec4 v[]; } w_vectors##n; \
	KNIT_IN(B) W_words##n { uint16_t v[]; } w_words##n; \
	float w_element##n(uint row, uint i, uint k) { return i < k ? word_to_float(uint(w_words##n.v[row + i])) : 0; } \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint i = chunk * 8; \
		if (WIDE != 0) { \
			const uvec4 u = w_vectors##n.v[(row + i) / 8]; \
			a = words_to_floats(u.xy); \
			b = words_to_floats(u.zw); \
			return 1; \
		} \
		a = vec4(w_element##n(row, i, k), w_element##n(row, i + 1, k), w_element##n(row, i + 2, k), \
		         w_element##n(row, i + 3, k)); \
		b = vec4(w_element##n(row, i + 4, k), w_element##n(row, i + 5, k), w_element##n(row, i + 6, k), \
		         w_element##n(row, i + 7, k)); \
		return 1; \
	}

#elif defined(W_Q8_0)

vec4 bytes_to_floats(uint u) {
	const int v = int(u);
	return vec4(bitfieldExtract(v, 0, 8), bitfieldExtract(v, 8, 8), bitfieldExtract(v, 16, 8), bitfieldExtract(v, 24, 8));
}

// A block is 17 words: the scale, 32 bytes.
#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_words##n { uint16_t v[]; } w_words##n; \
	uint w_pair##n(uint i) { return uint(w_words##n.v[i]) | uint(w_words##n.v[i + 1]) << 16; } \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint block = row + (chunk >> 2) * 17, q = block + 1 + (chunk & 3) * 4; \
		a = bytes_to_floats(w_pair##n(q)); \
		b = bytes_to_floats(w_pair##n(q + 2)); \
		return knit_f16(uint(w_words##n.v[block])); \
	} \
	float w_block##n(uint row, uint block, out uvec4 a, out uvec4 b) { \
		const uint at = row + block * 17, q = at + 1; \
		a = uvec4(w_pair##n(q), w_pair##n(q + 2), w_pair##n(q + 4), w_pair##n(q + 6)); \
		b = uvec4(w_pair##n(q + 8), w_pair##n(q + 10), w_pair##n(q + 12), w_pair##n(q + 14)); \
		return knit_f16(uint(w_words##n.v[at])); \
	}

#elif defined(W_Q4_0)

vec4 nibbles_to_floats(uint u) { // the low nibble of each byte
	return vec4(u & 15u, u >> 8 & 15u, u >> 16 & 15u, u >> 24 & 15u) - 8;
}

uvec4 nibbles_to_bytes(uvec4 u) { // likewise; 8 is taken from each byte, without a carry into the next
	return (((u & 0x0f0f0f0fu) | 0x80808080u) - 0x08080808u) ^ 0x80808080u;
}

// A block is 9 words: the scale, 16 bytes of which low nibbles are elements 0 to 15, high ones 16 to 31.
#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_words##n { uint16_t v[]; } w_words##n; \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint block = row + (chunk >> 2) * 9, q = block + 1 + (chunk & 3) * 2; \
		const uint u = uint(w_words##n.v[q]) | uint(w_words##n.v[q + 1]) << 16; \
		a = nibbles_to_floats(u); \
		b = nibbles_to_floats(u >> 4); \
		return knit_f16(uint(w_words##n.v[block])); \
	} \
	uint w_pair##n(uint i) { return uint(w_words##n.v[i]) | uint(w_words##n.v[i + 1]) << 16; } \
	float w_block##n(uint row, uint block, out uvec4 a, out uvec4 b) { \
		const uint at = row + block * 9, q = at + 1; \
		const uvec4 u = uvec4(w_pair##n(q), w_pair##n(q + 2), w_pair##n(q + 4), w_pair##n(q + 6)); \
		a = nibbles_to_bytes(u); \
		b = nibbles_to_bytes(u >> 4); \
		return knit_f16(uint(w_words##n.v[at])); \
	}

#elif defined(W_Q4_K)

vec4 nibbles_to_floats(uint u) { return vec4(u & 15u, u >> 8 & 15u, u >> 16 & 15u, u >> 24 & 15u); }

// A super-block is 72 words: the scale of scales, that of minima, 12 bytes of both, 128 bytes of nibbles.
#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_words##n { uint16_t v[]; } w_words##n; \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint block = row + (chunk >> 5) * KNIT_Q4_K_WORDS, part = (chunk >> 3 & 3) * 2; \
		const uint q = block + 8 + (chunk >> 3 & 3) * 16 + (chunk & 7) * 2; \
		const uint u = uint(w_words##n.v[q]) | uint(w_words##n.v[q + 1]) << 16, s = block + 2 + part % 4 / 2; \
		/* the bytes of two neighbouring parts stand in one word */ \
		const uvec3 words = uvec3(w_words##n.v[s], w_words##n.v[s + 2], w_words##n.v[s + 4]); \
		const vec2 d = vec2(knit_f16(uint(w_words##n.v[block])), knit_f16(uint(w_words##n.v[block + 1]))); \
		const vec2 first = d * knit_q4_k_part(part, words & 255u), second = d * knit_q4_k_part(part, words >> 8); \
		a = nibbles_to_floats(u) * first.x - first.y; \
		b = nibbles_to_floats(u >> 4) * second.x - second.y; \
		return 1; \
	}

#elif defined(W_Q6_K)

vec4 sixes_to_floats(uint low, uint high) { // the low nibble of each byte, and the low two bits of each
	const uint u = (low & 0x0f0f0f0fu) | (high & 0x03030303u) << 4;
	return vec4(u & 63u, u >> 8 & 63u, u >> 16 & 63u, u >> 24 & 63u) - 32;
}

// A super-block is 105 words: 128 bytes of low nibbles, 64 of high bits, 16 of scales, the scale of scales.
#define DECLARE_WEIGHT(n, B) \
	KNIT_IN(B) W_words##n { uint16_t v[]; } w_words##n; \
	uint w_pair##n(uint i) { return uint(w_words##n.v[i]) | uint(w_words##n.v[i + 1]) << 16; } \
	float w_scale##n(uint block, uint i) { return float(knit_byte(uint(w_words##n.v[block + 96 + i / 2]), i & 1u)); } \
	float w_chunk##n(uint row, uint chunk, uint k, out vec4 a, out vec4 b) { \
		const uint block = row + (chunk >> 5) * KNIT_Q6_K_WORDS, half_of = chunk >> 4 & 1, run = chunk >> 3 & 1, at = chunk & 7; \
		const uint low = w_pair##n(block + half_of * 32 + run * 16 + at * 2); \
		const uint high = w_pair##n(block + 64 + half_of * 16 + at * 2) >> run * 2, s = half_of * 8 + run * 2 + at / 4; \
		a = sixes_to_floats(low, high) * w_scale##n(block, s); \
		b = sixes_to_floats(low >> 4, high >> 4) * w_scale##n(block, s + 4); \
		return knit_f16(uint(w_words##n.v[block + 104])); \
	}

#endif
