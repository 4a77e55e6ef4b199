/* Owns the ends of the fused linears in AVX2 + FMA + F16C. The driver is linear_fused.c; references:
 * ops/fused_linear.c. */
#include "activation.h"
#include "fused_isa.h"
#include "vec_avx2.h"

#define COLUMNS 4

KNIT_INLINE int64_t row_bytes_of(const knit_dtype t, int64_t rank) { return rank * (t == KNIT_F32 ? 4 : 2); }

KNIT_INLINE __m256 lanes_of(const knit_dtype t, const char *b, int64_t rank, const float *low) {
	__m256 acc = _mm256_setzero_ps();
	int64_t i = 0;

	for (; i + 8 <= rank; i += 8)
		acc = _mm256_fmadd_ps(_mm256_loadu_ps(low + i), knit__load8(t, b, i), acc);
	if (i < rank)
		acc = _mm256_fmadd_ps(knit__load8_some(KNIT_F32, (const char *)low, i, rank - i),
		                      knit__load8_some(t, b, i, rank - i), acc);
	return acc;
}

KNIT_INLINE void add_rows(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                          int64_t columns) {
	const int64_t row = row_bytes_of(t, rank);
	int64_t c = 0;

	for (; c + COLUMNS <= columns; c += COLUMNS, b += COLUMNS * row) {
		const __m256 lanes[COLUMNS] = {lanes_of(t, b, rank, low), lanes_of(t, b + row, rank, low),
		                               lanes_of(t, b + 2 * row, rank, low), lanes_of(t, b + 3 * row, rank, low)};

		knit__fused_ask(b, COLUMNS * row);
		_mm_storeu_ps(out + c, _mm_add_ps(_mm_loadu_ps(out + c), knit__sum4(lanes)));
	}
	for (; c < columns; ++c, b += row)
		out[c] += knit__sum1(lanes_of(t, b, rank, low));
}

/* The rank that adapters mostly have: two vectors a row. */
KNIT_INLINE void add_any(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                         int64_t columns) {
	if (rank == 16)
		add_rows(t, b, 16, low, out, columns);
	else
		add_rows(t, b, rank, low, out, columns);
}

static void add_low(knit_dtype t, const char *b, int64_t rank, const float *low, float *out, int64_t columns) {
	if (t == KNIT_F16)
		add_any(KNIT_F16, b, rank, low, out, columns);
	else if (t == KNIT_BF16)
		add_any(KNIT_BF16, b, rank, low, out, columns);
	else
		add_any(KNIT_F32, b, rank, low, out, columns);
}

/* x / (1 + exp(-y)) */
KNIT_INLINE __m256 gated(__m256 x, __m256 y) {
	const __m256 minus = _mm256_xor_ps(y, _mm256_set1_ps(-0.0f));

	return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), knit__exp8(minus)));
}

KNIT_INLINE __m256 activated(const int64_t act, __m256 x) {
	if (act == KNIT_GLU_SILU)
		return gated(x, x);
	const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_mul_ps(x, _mm256_set1_ps(0.044715f)));

	return gated(x, _mm256_mul_ps(_mm256_set1_ps(1.59576912160573071f), _mm256_add_ps(x, cube))); /* 2 sqrt(2/pi) */
}

KNIT_INLINE void glu_of(const int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	int64_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(out + i, _mm256_mul_ps(activated(act, _mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
	if (i < n) {
		const __m256i some = knit__first8(n - i);
		const __m256 g = activated(act, _mm256_maskload_ps(gate + i, some));

		_mm256_maskstore_ps(out + i, some, _mm256_mul_ps(g, _mm256_maskload_ps(up + i, some)));
	}
}

static void glu(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	if (act == KNIT_GLU_SILU)
		glu_of(KNIT_GLU_SILU, gate, up, out, n);
	else
		glu_of(KNIT_GLU_GELU, gate, up, out, n);
}

const knit_fused_isa knit__fused_avx2 = {&knit__linear_level_avx2, &knit__linear_panels_avx2, add_low, glu};
