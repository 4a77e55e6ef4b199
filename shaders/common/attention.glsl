/* Owns what the shaders of attention share: what a token sees, where that lies, its keys and values four elements at a
 * time. After formats.glsl and the block of parameters, `p`. */

const float KNIT_UNSEEN = -3.4e38; /* below every score; a score that is not seen */

/* What a token sees: positions [0, sinks) and [first, pos], together `count`; 0 where it has no cell. */
struct knit_sight {
	int sinks, first, pos, count;
};

knit_sight knit_sees(int seq, int pos) {
	const int window = int(p.window), sinks = int(p.sinks);

	if (seq < 0 || seq >= int(p.sequences) || pos < 0 || (p.ring == 0u && pos >= int(p.cells)))
		return knit_sight(0, 0, -1, 0);
	const int first = window > 0 && window <= pos ? pos - window + 1 : 0, before = min(sinks, first);
	return knit_sight(before, first, pos, before + pos - first + 1);
}

/* The i-th position that is seen. */
int knit_seen(knit_sight sight, int i) { return i < sight.sinks ? i : sight.first + i - sight.sinks; }

uint knit_cell(int pos) {
	const int sinks = int(p.sinks);

	return uint(p.ring > 0u && pos >= sinks ? sinks + (pos - sinks) % int(p.ring) : pos);
}

vec4 knit_unpack_f16(uvec2 w) { return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y)); }
vec4 knit_unpack_bf16(uvec2 w) {
	return uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u));
}
vec4 knit_unpack_q8_0(uint scale, uint low, uint high) {
	return unpackHalf2x16(scale).x * vec4(knit_byte(low, 0u), knit_byte(low, 1u), knit_byte(high, 0u), knit_byte(high, 1u));
}
/* word: four bytes, of which the low nibbles count. */
vec4 knit_unpack_q4_0(uint scale, uint word) {
	const uvec4 q = uvec4(word, word >> 8, word >> 16, word >> 24) & 15u;

	return unpackHalf2x16(scale).x * (vec4(q) - 8.0);
}

/* Four views of one binding, by which a reader takes elements from the widest word there is. */
#define KNIT_KV_VIEWS(n, name, a4, a2, a1, a16) \
	KNIT_IN(n) name##_quads { vec4 a4[]; }; \
	KNIT_IN(n) name##_pairs { uvec2 a2[]; }; \
	KNIT_IN(n) name##_words { uint a1[]; }; \
	KNIT_IN(n) name##_halves { uint16_t a16[]; };

/* A function vec4 name(uint e, uint n) that reads elements e .. e + 3 of the type. WIDE: e is a multiple of 4 and there are
 * four, else there may be but n of them, the others are 0. */
#define KNIT_KV_READER(name, name_one, TYPE, WIDE, a4, a2, a1, a16) \
	KNIT_READER(name_one, TYPE, a1, a16) \
	vec4 name(uint e, uint n) { \
		if (WIDE == 0u) { \
			vec4 x = vec4(0.0); \
			for (uint i = 0u; i < 4u && i < n; ++i) \
				x[i] = name_one(0u, e + i); \
			return x; \
		} \
		if (TYPE == KNIT_F32) \
			return a4[e / 4u]; \
		if (TYPE == KNIT_F16) \
			return knit_unpack_f16(a2[e / 4u]); \
		if (TYPE == KNIT_BF16) \
			return knit_unpack_bf16(a2[e / 4u]); \
		if (TYPE == KNIT_Q8_0) { \
			const uint block = e / 32u * 17u, word = block + 1u + e % 32u / 2u; \
			return knit_unpack_q8_0(uint(a16[block]), uint(a16[word]), uint(a16[word + 1u])); \
		} \
		const uint block = e / 32u * 9u, word = block + 1u + e % 16u / 2u; \
		return knit_unpack_q4_0(uint(a16[block]), \
			(uint(a16[word]) | uint(a16[word + 1u]) << 16) >> (e % 32u / 16u * 4u)); \
	}
