/* Owns the ends of the fused linears in AVX-512. The driver is linear_fused.c; references: ops/fused_linear.c. */
#include "fused_isa.h"
#include "vec_avx512.h"

#define COLUMNS 8

KNIT_INLINE int64_t row_bytes_of(const knit_dtype t, int64_t rank) { return rank * (t == KNIT_F32 ? 4 : 2); }

/* The lanes of `columns` rows. Eight accumulators by name: arrays of them go through memory with some compilers. */
KNIT_INLINE __m512 lanes_of(const knit_dtype t, const char *b, int64_t rank, const float *low) {
	__m512 acc = _mm512_setzero_ps();
	int64_t i = 0;

	for (; i + 16 <= rank; i += 16)
		acc = _mm512_fmadd_ps(_mm512_loadu_ps(low + i), knit__load16_all(t, b, i), acc);
	if (i < rank) {
		const __mmask16 rest = knit__first16(rank - i);

		acc = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rest, low + i), knit__load16(t, b, i, rest), acc);
	}
	return acc;
}

KNIT_INLINE void add_rows(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                          int64_t columns) {
	const int64_t row = row_bytes_of(t, rank);
	int64_t c = 0;

	for (; c + COLUMNS <= columns; c += COLUMNS, b += COLUMNS * row) {
		const __m512 lanes[COLUMNS] = {
			lanes_of(t, b, rank, low),           lanes_of(t, b + row, rank, low),     lanes_of(t, b + 2 * row, rank, low),
			lanes_of(t, b + 3 * row, rank, low), lanes_of(t, b + 4 * row, rank, low), lanes_of(t, b + 5 * row, rank, low),
			lanes_of(t, b + 6 * row, rank, low), lanes_of(t, b + 7 * row, rank, low)};

		knit__fused_ask(b, COLUMNS * row);
		_mm256_storeu_ps(out + c, _mm256_add_ps(_mm256_loadu_ps(out + c), knit__sum8(lanes)));
	}
	for (; c < columns; ++c, b += row)
		out[c] += knit__sum1(lanes_of(t, b, rank, low));
}

/* The rank that adapters mostly have: one vector a row. */
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
KNIT_INLINE __m512 gated(__m512 x, __m512 y) {
	const __m512 minus = _mm512_xor_ps(y, _mm512_set1_ps(-0.0f));

	return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), knit__exp16(minus)));
}

KNIT_INLINE __m512 activated(const int64_t act, __m512 x) {
	if (act == KNIT_GLU_SILU)
		return gated(x, x);
	const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(x, _mm512_set1_ps(0.044715f)));

	return gated(x, _mm512_mul_ps(_mm512_set1_ps(1.59576912160573071f), _mm512_add_ps(x, cube))); /* 2 sqrt(2/pi) */
}

KNIT_INLINE void glu_of(const int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	for (int64_t i = 0; i < n; i += 16) {
		const __mmask16 some = n - i >= 16 ? 0xffff : knit__first16(n - i);
		const __m512 g = activated(act, _mm512_maskz_loadu_ps(some, gate + i));

		_mm512_mask_storeu_ps(out + i, some, _mm512_mul_ps(g, _mm512_maskz_loadu_ps(some, up + i)));
	}
}

static void glu(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	if (act == KNIT_GLU_SILU)
		glu_of(KNIT_GLU_SILU, gate, up, out, n);
	else
		glu_of(KNIT_GLU_GELU, gate, up, out, n);
}

const knit_fused_isa knit__fused_avx512 = {&knit__linear_level_avx512, &knit__linear_panels_avx512, add_low, glu};
