/* Owns the tiles of linear in AVX-512, int8 products by VNNI. The driver is linear.c; reference: ops/linear.c. */
#include "linear.h"
#include "super_blocks.h"
#include "vec_avx512.h"

#define MAX_ROWS 3
#define MAX_COLUMNS 8

/* Adds the lanes of one row's accumulators up and stores or adds them to the output. */
KNIT_INLINE void store_row(const knit_linear_tile_args *a, int row, const __m512 *acc, const int columns) {
	float *const out = a->out + row * a->out_stride;

	if (columns == 8) {
		const __m256 sum = knit__sum8(acc);

		_mm256_storeu_ps(out, a->add ? _mm256_add_ps(_mm256_loadu_ps(out), sum) : sum);
		return;
	}
	for (int c = 0; c < columns; ++c) {
		const float sum = knit__sum1(acc[c]);

		out[c] = a->add ? out[c] + sum : sum;
	}
}

/* ---- float weights ----------------------------------------------------------------------------------------------- */

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	__m512 acc[MAX_ROWS][MAX_COLUMNS], x[MAX_ROWS];
	const int64_t ahead = knit__linear_ahead(a, columns);
	const char *w[MAX_COLUMNS];
	int64_t i = 0;

	for (int c = 0; c < columns; ++c) {
		w[c] = a->w + c * a->w_stride;
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm512_setzero_ps();
	}
	for (; i + 16 <= a->length; i += 16) {
		for (int r = 0; r < rows; ++r)
			x[r] = knit__load16_all(KNIT_F32, a->x[r], i);
		for (int c = 0; c < columns; ++c) {
			const __m512 v = knit__load16_all(t, w[c], i);

			if (rows == 1)
				knit__prefetch(w[c] + i * (t == KNIT_F32 ? 4 : 2) + ahead);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm512_fmadd_ps(x[r], v, acc[r][c]);
		}
	}
	if (i < a->length) {
		const __mmask16 rest = knit__first16(a->length - i);

		for (int r = 0; r < rows; ++r)
			x[r] = knit__load16(KNIT_F32, a->x[r], i, rest);
		for (int c = 0; c < columns; ++c) {
			const __m512 v = knit__load16(t, w[c], i, rest);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm512_fmadd_ps(x[r], v, acc[r][c]);
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- quantised weights: two blocks of 32 in one vector ------------------------------------------------------------ */

/* Blocks at p and, where `second`, after it: as unsigned bytes (q + 128, or the nibbles as they are stored). */
KNIT_INLINE __m512i load_blocks(const knit_dtype t, const char *p, const bool second) {
	if (t == KNIT_Q8_0) {
		__m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2)));

		v = second ? _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(p + 36)), 1)
		           : _mm512_zextsi256_si512(_mm512_castsi512_si256(v));
		return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80));
	}
	const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
	__m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p + 2)));

	if (second)
		v = _mm512_mask_broadcast_i32x4(v, 0xff00, _mm_loadu_si128((const __m128i *)(const void *)(p + 20)));
	return _mm512_and_si512(_mm512_srlv_epi32(v, shifts), _mm512_set1_epi8(15));
}

/* Their scales, each in the lanes of its block. */
KNIT_INLINE __m512 load_scales(const knit_dtype t, const char *p, const bool second) {
	const int64_t next = t == KNIT_Q8_0 ? 34 : 18;
	__m256i h = _mm256_set1_epi16((short)knit__load_u16(p));

	h = second ? _mm256_mask_set1_epi16(h, 0xff00, (short)knit__load_u16(p + next)) : h;
	return _mm512_cvtph_ps(h);
}

/* One step of the tile: 64 elements of k, or the 32 that are left. Where there is no second block, x is zero. */
KNIT_INLINE void step_blocks(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns,
                             const char *const *w, int64_t i, const bool second, int64_t ahead,
                             __m512 acc[MAX_ROWS][MAX_COLUMNS]) {
	const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
	const int64_t at = i / 32 * (t == KNIT_Q8_0 ? 34 : 18);
	__m512i q[MAX_ROWS], bias[MAX_ROWS];
	__m512 scale[MAX_ROWS];

	for (int r = 0; r < rows; ++r) {
		const __m128i pair = _mm_loadl_epi64((const __m128i *)(const void *)(knit__linear_scale(a, r) + i / 8));

		q[r] = _mm512_loadu_si512(knit__linear_q(a, r) + i);
		bias[r] = _mm512_loadu_si512(knit__linear_bias(a, r) + i);
		scale[r] = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(_mm_castsi128_ps(pair)));
	}
	for (int c = 0; c < columns; ++c) {
		const __m512i v = load_blocks(t, w[c] + at, second);
		const __m512 d = load_scales(t, w[c] + at, second);

		/* a step of q8_0 is 68 bytes, every line must be asked for: 64 a step and one more for the span */
		if (rows == 1)
			knit__prefetch(w[c] + ahead + (t == KNIT_Q8_0 ? i : at));
		for (int r = 0; r < rows; ++r) {
			const __m512 dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(bias[r], v, q[r]));

			acc[r][c] = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, scale[r]), acc[r][c]);
		}
	}
}

KNIT_INLINE void tile_blocks(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t ahead = knit__linear_ahead(a, columns);
	__m512 acc[MAX_ROWS][MAX_COLUMNS];
	const char *w[MAX_COLUMNS];
	int64_t i = 0;

	for (int c = 0; c < columns; ++c) {
		w[c] = a->w + c * a->w_stride;
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm512_setzero_ps();
		if (rows == 1 && t == KNIT_Q8_0)
			knit__prefetch(w[c] + ahead + a->length);
	}
	for (; i + 64 <= a->length; i += 64)
		step_blocks(a, t, rows, columns, w, i, true, ahead, acc);
	if (i < a->length)
		step_blocks(a, t, rows, columns, w, i, false, ahead, acc);
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

KNIT_INLINE __m256 load8(const char *p) { return _mm256_loadu_ps((const float *)(const void *)p); }

/* What a row of x brings to the scales of a super-block. q4_K: lanes 0..7 by part, lanes 8..15 the sums that the minima
 * multiply. q6_K: by part of 16. */
KNIT_INLINE __m512 row_scales(const knit_linear_tile_args *a, const knit_dtype t, int r, int64_t i) {
	const __m256 scale = load8(knit__linear_scale(a, r) + i / 8);
	const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);

	if (t == KNIT_Q4_K)
		return _mm512_insertf32x8(_mm512_castps256_ps512(scale), load8(knit__linear_block_sum(a, r) + i / 8), 1);
	return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(scale));
}

/* Elements 64 g .. 64 g + 63 as stored: 0 to 15, or 0 to 63. */
KNIT_INLINE __m512i load_super(const knit_dtype t, const char *p, const int g) {
	const __m512i low = _mm512_set1_epi8(15);

	if (t == KNIT_Q4_K) {
		const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
		const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16 + g * 32));

		return _mm512_and_si512(_mm512_srlv_epi32(_mm512_broadcast_i64x4(v), shifts), low);
	}
	const __m512i v = _mm512_loadu_si512(p + g / 2 * 64);
	const __m512i h =
		_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)(p + 128 + g / 2 * 32)));
	const __m512i left = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
	const __m512i right = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
	const __m512i high = _mm512_and_si512(g % 2 ? _mm512_srlv_epi32(h, right) : _mm512_sllv_epi32(h, left),
	                                      _mm512_set1_epi8(0x30));

	return _mm512_ternarylogic_epi32(g % 2 ? _mm512_srli_epi16(v, 4) : v, low, high, 0xea); /* v & low | high */
}

/* The scales of a super-block in the lanes of row_scales, the block's own included. */
KNIT_INLINE __m512 super_scales(const knit_dtype t, const char *p) {
	if (t == KNIT_Q4_K) {
		const __m512i by = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
		const __m128i head = _mm_loadu_si128((const __m128i *)(const void *)p);
		const __m512 d = _mm512_permutexvar_ps(by, _mm512_castps128_ps512(_mm_cvtph_ps(head)));

		return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(knit__q4_k_unpack(head))), d);
	}
	const __m128i scales = _mm_loadu_si128((const __m128i *)(const void *)(p + 192));
	const __m512 d = _mm512_cvtph_ps(_mm256_set1_epi16((short)knit__load_u16(p + 208)));

	return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), d);
}

KNIT_INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t block_bytes = t == KNIT_Q4_K ? KNIT_Q4_K_BYTES : KNIT_Q6_K_BYTES, ahead = knit__linear_ahead(a, columns);
	/* from the lanes of the scales to those of 64 elements: two parts of 32, or four of 16 */
	const __m512i spread = t == KNIT_Q4_K ? _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
	                                      : _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
	__m512 acc[MAX_ROWS][MAX_COLUMNS], x_scale[MAX_ROWS], scale[MAX_ROWS];

	for (int c = 0; c < columns; ++c)
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm512_setzero_ps();
	for (int64_t i = 0; i < a->length; i += 256) {
		for (int r = 0; r < rows; ++r)
			x_scale[r] = row_scales(a, t, r, i);
		for (int c = 0; c < columns; ++c) {
			const char *const p = a->w + c * a->w_stride + i / 256 * block_bytes;
			const __m512 step = super_scales(t, p);

			for (int line = 0; rows == 1 && line < block_bytes; line += 64)
				knit__prefetch(p + ahead + line);
			for (int r = 0; r < rows; ++r) {
				scale[r] = _mm512_mul_ps(step, x_scale[r]);
				if (t == KNIT_Q4_K) /* the minima */
					acc[r][c] = _mm512_mask_sub_ps(acc[r][c], 0xff00, acc[r][c], scale[r]);
			}
			for (int g = 0; g < 4; ++g) {
				const __m512i w = load_super(t, p, g);
				const __m512i from = _mm512_add_epi32(spread, _mm512_set1_epi32(g * (t == KNIT_Q4_K ? 2 : 4)));

				for (int r = 0; r < rows; ++r) {
					const int64_t at = i + g * 64;
					const __m512i bias =
						t == KNIT_Q4_K ? _mm512_setzero_si512() : _mm512_loadu_si512(knit__linear_bias(a, r) + at);
					const __m512i dot = _mm512_dpbusd_epi32(bias, w, _mm512_loadu_si512(knit__linear_q(a, r) + at));

					acc[r][c] =
						_mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_permutexvar_ps(from, scale[r]), acc[r][c]);
				}
			}
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- instances --------------------------------------------------------------------------------------------------- */

#define TILE(name, kind, dtype, rows, columns) \
	static void name##_##rows##_##columns(const knit_linear_tile_args *a) { kind(a, dtype, rows, columns); }
#define TILES(name, kind, dtype, c1, c2, c3) \
	TILE(name, kind, dtype, 1, c1) TILE(name, kind, dtype, 2, c2) TILE(name, kind, dtype, 3, c3) \
	TILE(name, kind, dtype, 1, 1) TILE(name, kind, dtype, 2, 1) TILE(name, kind, dtype, 3, 1)
#define SHAPES(name, c1, c2, c3) \
	.max_rows = 3, .shapes = {{c1, name##_1_##c1, name##_1_1}, {c2, name##_2_##c2, name##_2_1}, \
	                          {c3, name##_3_##c3, name##_3_1}}

TILES(f32, tile, KNIT_F32, 8, 8, 8)
TILES(f16, tile, KNIT_F16, 8, 8, 8)
TILES(bf16, tile, KNIT_BF16, 8, 8, 8)
TILES(q8_0, tile_blocks, KNIT_Q8_0, 4, 4, 4)
TILES(q4_0, tile_blocks, KNIT_Q4_0, 8, 4, 4)
TILES(q4_k, tile_super, KNIT_Q4_K, 4, 4, 4)
TILES(q6_k, tile_super, KNIT_Q6_K, 4, 4, 4)

KNIT_INLINE void widen(const knit_dtype t, const char *src, float *dst, int64_t n) {
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		_mm512_storeu_ps(dst + i, knit__load16_all(t, src, i));
	if (i < n)
		_mm512_mask_storeu_ps(dst + i, knit__first16(n - i), knit__load16(t, src, i, knit__first16(n - i)));
}
static void widen_f32(const char *src, float *dst, int64_t n) { widen(KNIT_F32, src, dst, n); }
static void widen_f16(const char *src, float *dst, int64_t n) { widen(KNIT_F16, src, dst, n); }
static void widen_bf16(const char *src, float *dst, int64_t n) { widen(KNIT_BF16, src, dst, n); }

#define MANY .many = knit__linear_many_floats_avx512, .many_columns = 6

static const knit_linear_isa isa_f32 = {
	.dtype = KNIT_F32, SHAPES(f32, 8, 8, 8), .widened = &isa_f32, .widen = widen_f32,
	.row = knit__linear_row_f32_avx512, MANY};
static const knit_linear_isa isa_f16 = {
	.dtype = KNIT_F16, SHAPES(f16, 8, 8, 8), .widened = &isa_f32, .widen = widen_f16,
	.row = knit__linear_row_f16_avx512, MANY};
static const knit_linear_isa isa_bf16 = {
	.dtype = KNIT_BF16, SHAPES(bf16, 8, 8, 8), .widened = &isa_f32, .widen = widen_bf16,
	.row = knit__linear_row_bf16_avx512, MANY};
static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0, 4, 4, 4), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0, 8, 4, 4), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q4_k = {
	.dtype = KNIT_Q4_K, SHAPES(q4_k, 4, 4, 4), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k, 4, 4, 4), .quantise = knit__linear_quantise_avx2};

KNIT_LINEAR_KERNELS(avx512, KNIT_CPU_AVX512)
