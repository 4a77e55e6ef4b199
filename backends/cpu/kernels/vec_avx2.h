/* Owns what the AVX2 kernels share: loads that widen, sums of lanes, exp. Include from *_avx2.c only. */
#ifndef KNIT_KERNELS_VEC_AVX2_H
#define KNIT_KERNELS_VEC_AVX2_H

#include "exp.h"

#include <immintrin.h>

#define KNIT_INLINE static inline __attribute__((always_inline))

KNIT_INLINE __m256 knit__widen8(knit_dtype t, __m128i v) {
	if (t == KNIT_F16)
		return _mm256_cvtph_ps(v);
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* Elements [i, i + 8) of f32, f16 or bf16 data. */
KNIT_INLINE __m256 knit__load8(knit_dtype t, const char *p, int64_t i) {
	if (t == KNIT_F32)
		return _mm256_loadu_ps((const float *)(const void *)(p + i * 4));
	return knit__widen8(t, _mm_loadu_si128((const __m128i *)(const void *)(p + i * 2)));
}

/* Lanes below n are all ones. */
KNIT_INLINE __m256i knit__first8(int64_t n) {
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n (1..7) of them; what follows is not read and gives 0. */
KNIT_INLINE __m256 knit__load8_some(knit_dtype t, const char *p, int64_t i, int64_t n) {
	uint16_t some[8] = {0};

	if (t == KNIT_F32)
		return _mm256_maskload_ps((const float *)(const void *)(p + i * 4), knit__first8(n));
	for (int64_t j = 0; j < n; ++j)
		some[j] = knit__load_u16(p + (i + j) * 2);
	return knit__widen8(t, _mm_loadu_si128((const __m128i *)(const void *)some));
}

/* Lane l with l + 4, the sums with those 2 and 1 further: the tree of knit__sum4 for one vector. */
KNIT_INLINE float knit__sum1(__m256 v) {
	const __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));

	return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

KNIT_INLINE __m256 knit__sum_halves(__m256 a, __m256 b) {
	return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* The sums of four vectors. */
KNIT_INLINE __m128 knit__sum4(const __m256 v[4]) {
	const __m256 e = knit__sum_halves(v[0], v[1]), f = knit__sum_halves(v[2], v[3]);
	const __m256 c = _mm256_add_ps(_mm256_shuffle_ps(e, f, 0x44), _mm256_shuffle_ps(e, f, 0xee));
	const __m256 d = _mm256_add_ps(c, _mm256_permute_ps(c, 0xb1));

	return _mm256_castps256_ps128(_mm256_permutevar8x32_ps(d, _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0)));
}

/* As knit__expf, 2^n in two halves. max and min hand back their second operand where one is NaN. */
KNIT_INLINE __m256 knit__exp8(__m256 x) {
	const __m256 c =
		_mm256_min_ps(_mm256_set1_ps(KNIT__EXP_HI), _mm256_max_ps(_mm256_set1_ps(KNIT__EXP_LO), x));
	const __m256 n = _mm256_round_ps(_mm256_mul_ps(c, _mm256_set1_ps(KNIT__LOG2E)),
	                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(KNIT__LN2_LO), _mm256_fnmadd_ps(n, _mm256_set1_ps(KNIT__LN2_HI), c));
	const __m256i e = _mm256_cvtps_epi32(n), e1 = _mm256_srai_epi32(e, 1), e2 = _mm256_sub_epi32(e, e1);
	const __m256i bias = _mm256_set1_epi32(127);
	__m256 p = _mm256_set1_ps(1.0f / 5040);

	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
	p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
	p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e1, bias), 23)));
	return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e2, bias), 23)));
}

#endif
