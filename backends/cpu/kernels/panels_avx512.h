/* Owns how AVX-512 kernels read panels: the vectors of a block as bytes, scales as floats. Include from *_avx512.c only. */
#ifndef KNIT_KERNELS_PANELS_AVX512_H
#define KNIT_KERNELS_PANELS_AVX512_H

#include "panels.h"
#include "vec_avx512.h"

#define PIECES 8 /* of a block, four columns each */

/* The vectors of one block of 16 rows as unsigned bytes: q + 128, or the nibbles as they are stored. */
KNIT_INLINE void load_block(const knit_dtype t, const char *p, __m512i w[PIECES]) {
	if (t == KNIT_Q8_0) {
		for (int j = 0; j < PIECES; ++j)
			w[j] = _mm512_loadu_si512(p + j * 64);
		return;
	}
	for (int j = 0; j < PIECES / 2; ++j) {
		const __m512i v = _mm512_loadu_si512(p + j * 64), low = _mm512_set1_epi8(15);

		w[j] = _mm512_and_si512(v, low);
		w[j + PIECES / 2] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
	}
}

KNIT_INLINE __m512 halves(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
KNIT_INLINE __m512 bytes_by(const char *p, const bool is_signed, __m512 by) {
	const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);

	return _mm512_mul_ps(by, _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(v) : _mm512_cvtepu8_epi32(v)));
}

/* Of 16 rows: eight parts' scales, then their minima, a byte each. As knit__q4_k_parts. */
KNIT_INLINE void unpack_parts(const char *packed, char out[256]) {
	const __m512i a = _mm512_loadu_si512(packed), b = _mm512_loadu_si512(packed + 64), c = _mm512_loadu_si512(packed + 128);
	const __m512i six = _mm512_set1_epi8(63), four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);

	_mm512_storeu_si512(out, _mm512_and_si512(a, six));
	_mm512_storeu_si512(out + 64, _mm512_or_si512(_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi16(a, 2), two)));
	_mm512_storeu_si512(out + 128, _mm512_and_si512(b, six));
	_mm512_storeu_si512(out + 192, _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(c, 4), four),
	                                               _mm512_and_si512(_mm512_srli_epi16(b, 2), two)));
}

/* Part p of a q6_K, 0 to 63: the nibbles, and above them two bits of one of two vectors. */
KNIT_INLINE void load_part6(const char *group, int64_t p, __m512i w[PIECES]) {
	const char *const high = group + KNIT_PANEL_Q6_K_HIGH + p * 128;
	const __m512i h[2] = {_mm512_loadu_si512(high), _mm512_loadu_si512(high + 64)}, two = _mm512_set1_epi8(0x30);

	load_block(KNIT_Q4_0, group + KNIT_PANEL_Q6_K_VECTORS + p * 256, w);
	for (int k = 0; k < 2; ++k) {
		w[k] = _mm512_ternarylogic_epi32(w[k], _mm512_slli_epi16(h[k], 4), two, 0xf8); /* w | h & two */
		w[k + 2] = _mm512_ternarylogic_epi32(w[k + 2], _mm512_slli_epi16(h[k], 2), two, 0xf8);
		w[k + 4] = _mm512_ternarylogic_epi32(w[k + 4], h[k], two, 0xf8);
		w[k + 6] = _mm512_ternarylogic_epi32(w[k + 6], _mm512_srli_epi16(h[k], 2), two, 0xf8);
	}
}

#endif
