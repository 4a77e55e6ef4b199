/* Owns the reading of super-blocks of 256 that AVX2 and AVX-512 share. Include from *_avx2.c and *_avx512.c only. The bits:
 * ops/quant.h. */
#ifndef KNIT_KERNELS_SUPER_BLOCKS_H
#define KNIT_KERNELS_SUPER_BLOCKS_H

#include <immintrin.h>

#define KNIT_Q4_K_BYTES 144
#define KNIT_Q6_K_BYTES 210

/* From the first 16 bytes of a q4_K (d, dmin, packed): eight scales, then eight minima. As knit__q4_k_parts. */
static inline __attribute__((always_inline)) __m128i knit__q4_k_unpack(__m128i head) {
	const __m128i low_from = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m128i high_from = _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11);
	const __m128i mask = _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
	const __m128i low = _mm_srlv_epi32(_mm_shuffle_epi8(head, low_from), _mm_setr_epi32(0, 0, 0, 4));
	const __m128i high = _mm_srli_epi32(_mm_shuffle_epi8(head, high_from), 2);

	return _mm_or_si128(_mm_and_si128(low, mask), _mm_and_si128(high, _mm_set1_epi8(0x30)));
}

#endif
