/* Owns what the AVX-512 kernels share: loads that widen, sums of lanes, exp. Include from *_avx512.c only. */
#ifndef KNIT_KERNELS_VEC_AVX512_H
#define KNIT_KERNELS_VEC_AVX512_H

#include "exp.h"

#include <immintrin.h>

#define KNIT_INLINE static inline __attribute__((always_inline))

/* The first n (0..16) lanes. */
KNIT_INLINE __mmask16 knit__first16(int64_t n) { return (__mmask16)((1u << n) - 1); }

/* Elements [i, i + 16) of f32, f16 or bf16 data; those outside the mask are not read and give 0. */
KNIT_INLINE __m512 knit__load16(knit_dtype t, const char *p, int64_t i, __mmask16 mask) {
	if (t == KNIT_F16)
		return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p + i * 2));
	if (t == KNIT_BF16)
		return _mm512_castsi512_ps(
			_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p + i * 2)), 16));
	return _mm512_maskz_loadu_ps(mask, p + i * 4);
}
KNIT_INLINE __m512 knit__load16_all(knit_dtype t, const char *p, int64_t i) {
	if (t == KNIT_F16)
		return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + i * 2)));
	if (t == KNIT_BF16)
		return _mm512_castsi512_ps(_mm512_slli_epi32(
			_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p + i * 2))), 16));
	return _mm512_loadu_ps(p + i * 4);
}

/* Lane l with l + 8, the sums with those 4, 2 and 1 further: the tree of knit__sum8 for one vector. */
KNIT_INLINE float knit__sum1(__m512 v) {
	const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
	const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));

	return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Sums of lanes of two vectors at once: one shuffle and a blend, which any unit does, not two shuffles. */
KNIT_INLINE __m512 knit__sum_halves(__m512 a, __m512 b) {
	return _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
}
/* Quarters of the result: a, b, a, b. */
KNIT_INLINE __m512 knit__sum_quarters(__m512 a, __m512 b) {
	const __m512i others = _mm512_setr_epi64(2, 3, 8, 9, 6, 7, 12, 13);
	const __m512d other = _mm512_permutex2var_pd(_mm512_castps_pd(a), others, _mm512_castps_pd(b));

	return _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_castpd_ps(other));
}

/* What is left of the sums of eight vectors: e is sum_quarters of the sum_halves of the first four, f of the others. */
KNIT_INLINE __m256 knit__sum8_ends(__m512 e, __m512 f) {
	const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 0, 0, 0, 0, 0, 0, 0, 0);
	const __m512 c = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, e, f), _mm512_shuffle_ps(e, f, 0x4e));
	const __m512 d = _mm512_add_ps(c, _mm512_permute_ps(c, 0xb1));

	return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, d));
}

/* The sums of eight vectors. */
KNIT_INLINE __m256 knit__sum8(const __m512 v[8]) {
	return knit__sum8_ends(knit__sum_quarters(knit__sum_halves(v[0], v[1]), knit__sum_halves(v[2], v[3])),
	                       knit__sum_quarters(knit__sum_halves(v[4], v[5]), knit__sum_halves(v[6], v[7])));
}

/* As knit__expf. max and min hand back their second operand where one is NaN. */
KNIT_INLINE __m512 knit__exp16(__m512 x) {
	const __m512 c =
		_mm512_min_ps(_mm512_set1_ps(KNIT__EXP_HI), _mm512_max_ps(_mm512_set1_ps(KNIT__EXP_LO), x));
	const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(KNIT__LOG2E)),
	                                      _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(KNIT__LN2_LO), _mm512_fnmadd_ps(n, _mm512_set1_ps(KNIT__LN2_HI), c));
	__m512 p = _mm512_set1_ps(1.0f / 5040);

	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
	p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
	return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

#endif
