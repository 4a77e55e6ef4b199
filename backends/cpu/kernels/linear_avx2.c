/* Owns the tiles of linear in AVX2 + FMA + F16C, and the quantising of x for AVX-512 too. The driver is linear.c;
 * reference: ops/linear.c. */
#include "linear.h"
#include "super_blocks.h"
#include "vec_avx2.h"

#define MAX_ROWS 4
#define MAX_COLUMNS 8

/* Adds the lanes of one row's accumulators up and stores or adds them to the output. */
KNIT_INLINE void store_row(const knit_linear_tile_args *a, int row, const __m256 *acc, const int columns) {
	float *const out = a->out + row * a->out_stride;
	int c = 0;

	for (; c + 4 <= columns; c += 4) {
		const __m128 sum = knit__sum4(acc + c);

		_mm_storeu_ps(out + c, a->add ? _mm_add_ps(_mm_loadu_ps(out + c), sum) : sum);
	}
	for (; c < columns; ++c) {
		const float sum = knit__sum1(acc[c]);

		out[c] = a->add ? out[c] + sum : sum;
	}
}

/* ---- float weights ----------------------------------------------------------------------------------------------- */

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	__m256 acc[MAX_ROWS][MAX_COLUMNS], x[MAX_ROWS];
	const int64_t ahead = knit__linear_ahead(a, columns);
	const char *w[MAX_COLUMNS];
	int64_t i = 0;

	for (int c = 0; c < columns; ++c) {
		w[c] = a->w + c * a->w_stride;
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm256_setzero_ps();
	}
	for (; i + 8 <= a->length; i += 8) {
		for (int r = 0; r < rows; ++r)
			x[r] = knit__load8(KNIT_F32, a->x[r], i);
		for (int c = 0; c < columns; ++c) {
			const __m256 v = knit__load8(t, w[c], i);

			if (rows == 1)
				knit__prefetch(w[c] + i * (t == KNIT_F32 ? 4 : 2) + ahead);
			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm256_fmadd_ps(x[r], v, acc[r][c]);
		}
	}
	if (i < a->length) {
		const int64_t rest = a->length - i;

		for (int r = 0; r < rows; ++r)
			x[r] = knit__load8_some(KNIT_F32, a->x[r], i, rest);
		for (int c = 0; c < columns; ++c) {
			const __m256 v = knit__load8_some(t, w[c], i, rest);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = _mm256_fmadd_ps(x[r], v, acc[r][c]);
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- quantised weights ------------------------------------------------------------------------------------------- */

/* The 32 values of a block: signed bytes of q8_0, the nibbles of q4_0 as they are stored. */
KNIT_INLINE __m256i load_block(const knit_dtype t, const char *p) {
	if (t == KNIT_Q8_0)
		return _mm256_loadu_si256((const __m256i *)(const void *)(p + 2));

	const __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p + 2)));
	return _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)), _mm256_set1_epi8(15));
}

/* Sums by fours of w * x; exact: |w| <= 128 and |x| <= 127 keep the 16-bit pairs below 32,768. */
KNIT_INLINE __m256i dot_block(const knit_dtype t, __m256i w, __m256i magnitude, __m256i x, const char *bias) {
	const __m256i ones = _mm256_set1_epi16(1);

	if (t == KNIT_Q8_0)
		return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w)), ones);
	return _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones),
	                        _mm256_loadu_si256((const __m256i *)(const void *)bias));
}

KNIT_INLINE void tile_blocks(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t block_bytes = t == KNIT_Q8_0 ? 34 : 18, ahead = knit__linear_ahead(a, columns);
	__m256 acc[MAX_ROWS][MAX_COLUMNS];
	const char *w[MAX_COLUMNS];

	for (int c = 0; c < columns; ++c) {
		w[c] = a->w + c * a->w_stride;
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm256_setzero_ps();
	}
	for (int64_t i = 0; i < a->length; i += 32) {
		for (int c = 0; c < columns; ++c) {
			const char *const p = w[c] + i / 32 * block_bytes;
			const __m256i v = load_block(t, p), magnitude = _mm256_abs_epi8(v);
			const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((short)knit__load_u16(p)));

			if (rows == 1)
				knit__prefetch(p + ahead);
			for (int r = 0; r < rows; ++r) {
				const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(knit__linear_q(a, r) + i));
				const __m256 dot = _mm256_cvtepi32_ps(dot_block(t, v, magnitude, x, knit__linear_bias(a, r) + i));
				const __m256 scale = _mm256_set1_ps(knit__load_f32(knit__linear_scale(a, r) + i / 8));

				acc[r][c] = _mm256_fmadd_ps(dot, _mm256_mul_ps(d, scale), acc[r][c]);
			}
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

/* Sums by fours of w * x for w from 0 to 63. */
KNIT_INLINE __m256i dot_bytes(__m256i w, const char *x) {
	const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);

	return _mm256_madd_epi16(_mm256_maddubs_epi16(w, v), _mm256_set1_epi16(1));
}

KNIT_INLINE __m256 lane(__m256 v, const int i) { return _mm256_permutevar8x32_ps(v, _mm256_set1_epi32(i)); }

/* One q4_K of one column. What the minima take off goes by parts, from the sums of x that its row carries. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const char *p, int64_t i, __m256 *const acc[]) {
	const __m128i head = _mm_loadu_si128((const __m128i *)(const void *)p), parts = knit__q4_k_unpack(head);
	const __m256 d = _mm256_castps128_ps256(_mm_cvtph_ps(head));
	const __m256 step = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(parts)), lane(d, 0));
	const __m256 min = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(parts, 8))), lane(d, 1));
	const __m256i low = _mm256_set1_epi8(15);
	__m256 scale[MAX_ROWS];

	for (int r = 0; r < rows; ++r) {
		scale[r] = _mm256_mul_ps(step, _mm256_loadu_ps((const float *)(const void *)(knit__linear_scale(a, r) + i / 8)));
		*acc[r] = _mm256_fnmadd_ps(
			min, _mm256_loadu_ps((const float *)(const void *)(knit__linear_block_sum(a, r) + i / 8)), *acc[r]);
	}
	for (int g = 0; g < 4; ++g) {
		const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16 + g * 32));
		const __m256i w0 = _mm256_and_si256(v, low), w1 = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);

		for (int r = 0; r < rows; ++r) {
			const char *const x = knit__linear_q(a, r) + i + g * 64;

			*acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot_bytes(w0, x)), lane(scale[r], 2 * g), *acc[r]);
			*acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot_bytes(w1, x + 32)), lane(scale[r], 2 * g + 1), *acc[r]);
		}
	}
}

/* One q6_K of one column; the 32 that its values are stored above are in the rows' sums by fours. */
KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const char *p, int64_t i, __m256 *const acc[]) {
	const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((short)knit__load_u16(p + 208)));
	const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);

	for (int half = 0; half < 2; ++half) {
		const __m256i v0 = _mm256_loadu_si256((const __m256i *)(const void *)(p + half * 64));
		const __m256i v1 = _mm256_loadu_si256((const __m256i *)(const void *)(p + half * 64 + 32));
		const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(p + 128 + half * 32));
		const __m256i w[4] = {
			_mm256_or_si256(_mm256_and_si256(v0, low), _mm256_and_si256(_mm256_slli_epi16(h, 4), high)),
			_mm256_or_si256(_mm256_and_si256(v1, low), _mm256_and_si256(_mm256_slli_epi16(h, 2), high)),
			_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v0, 4), low), _mm256_and_si256(h, high)),
			_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v1, 4), low),
		                    _mm256_and_si256(_mm256_srli_epi16(h, 2), high))};
		const __m128i scales = _mm_loadl_epi64((const __m128i *)(const void *)(p + 192 + half * 8));
		const __m256 step = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)), d);

		for (int j = 0; j < 4; ++j) {
			const int64_t at = i + half * 128 + j * 32;
			const int s = 2 * j, t = s + 1; /* of the elements 0..15 and 16..31 */
			const __m256 pair = _mm256_permutevar8x32_ps(step, _mm256_setr_epi32(s, s, s, s, t, t, t, t));

			for (int r = 0; r < rows; ++r) {
				const __m256i bias = _mm256_loadu_si256((const __m256i *)(const void *)(knit__linear_bias(a, r) + at));
				const __m256i dot = _mm256_add_epi32(dot_bytes(w[j], knit__linear_q(a, r) + at), bias);
				const __m256 scale = _mm256_set1_ps(knit__load_f32(knit__linear_scale(a, r) + at / 8));

				*acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(pair, scale), *acc[r]);
			}
		}
	}
}

KNIT_INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t block_bytes = t == KNIT_Q4_K ? KNIT_Q4_K_BYTES : KNIT_Q6_K_BYTES, ahead = knit__linear_ahead(a, columns);
	__m256 acc[MAX_ROWS][MAX_COLUMNS];

	for (int c = 0; c < columns; ++c)
		for (int r = 0; r < rows; ++r)
			acc[r][c] = _mm256_setzero_ps();
	for (int64_t i = 0; i < a->length; i += 256) {
		for (int c = 0; c < columns; ++c) {
			const char *const p = a->w + c * a->w_stride + i / 256 * block_bytes;
			__m256 *const of[MAX_ROWS] = {&acc[0][c], &acc[1][c], &acc[2][c]};

			for (int line = 0; rows == 1 && line < block_bytes; line += 64)
				knit__prefetch(p + ahead + line);
			if (t == KNIT_Q4_K)
				step_q4_k(a, rows, p, i, of);
			else
				step_q6_k(a, rows, p, i, of);
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- quantising x ------------------------------------------------------------------------------------------------ */

KNIT_INLINE uint32_t max_lane(__m256i v) {
	__m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

	m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
	m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
	return (uint32_t)_mm_cvtsi128_si32(m);
}

static void quantise_block(const float *x, int8_t *q, float *scale) {
	const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
	__m256i max = _mm256_setzero_si256(), n[4];
	__m256 v[4];

	for (int i = 0; i < 4; ++i) {
		v[i] = _mm256_loadu_ps(x + i * 8);
		max = _mm256_max_epu32(max, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
	}
	const uint32_t bits = max_lane(max);
	if (bits < KNIT_LINEAR_MAX_LO || bits >= KNIT_LINEAR_MAX_HI) {
		knit__linear_quantise_block(x, q, scale);
		return;
	}
	const float largest = knit__as_float(bits);
	const __m256 inverse = _mm256_set1_ps(127.0f / largest);

	for (int i = 0; i < 4; ++i)
		n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
	const __m256i packed =
		_mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3])); /* by 128-bit halves */
	_mm256_storeu_si256((__m256i *)(void *)q,
	                    _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
	*scale = largest / 127.0f;
}

void knit__linear_quantise_avx2(const float *x, int64_t k, int32_t bias, char *row) {
	const int64_t padded = knit__linear_padded(k);
	float *const scales = (float *)(void *)(row + 2 * padded);

	for (int64_t b = 0; b < k / 32; ++b)
		quantise_block(x + b * 32, (int8_t *)row + b * 32, &scales[b]);
	for (int64_t i = k; i < padded; i += 32) {
		_mm256_storeu_si256((__m256i *)(void *)(row + i), _mm256_setzero_si256());
		scales[i / 32] = 0;
	}
	for (int64_t i = 0; i < padded; i += 32) {
		const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(row + i));
		const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);

		_mm256_storeu_si256((__m256i *)(void *)(row + padded + i),
		                    _mm256_madd_epi16(pairs, _mm256_set1_epi16((short)-bias)));
	}
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

TILES(f32, tile, KNIT_F32, 8, 4, 4)
TILES(f16, tile, KNIT_F16, 8, 4, 4)
TILES(bf16, tile, KNIT_BF16, 8, 4, 4)
TILES(q8_0, tile_blocks, KNIT_Q8_0, 4, 4, 2)
TILES(q4_0, tile_blocks, KNIT_Q4_0, 4, 4, 2)
TILES(q4_k, tile_super, KNIT_Q4_K, 4, 2, 2)
TILES(q6_k, tile_super, KNIT_Q6_K, 4, 2, 2)

KNIT_INLINE void widen(const knit_dtype t, const char *src, float *dst, int64_t n) {
	int64_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i, knit__load8(t, src, i));
	for (; i < n; ++i)
		dst[i] = knit__load_float(t, src, i);
}
static void widen_f32(const char *src, float *dst, int64_t n) { widen(KNIT_F32, src, dst, n); }
static void widen_f16(const char *src, float *dst, int64_t n) { widen(KNIT_F16, src, dst, n); }
static void widen_bf16(const char *src, float *dst, int64_t n) { widen(KNIT_BF16, src, dst, n); }

static const knit_linear_isa isa_f32 = {
	.dtype = KNIT_F32, SHAPES(f32, 8, 4, 4), .widened = &isa_f32, .widen = widen_f32,
	.row = knit__linear_row_f32_avx2};
static const knit_linear_isa isa_f16 = {
	.dtype = KNIT_F16, SHAPES(f16, 8, 4, 4), .widened = &isa_f32, .widen = widen_f16,
	.row = knit__linear_row_f16_avx2};
static const knit_linear_isa isa_bf16 = {
	.dtype = KNIT_BF16, SHAPES(bf16, 8, 4, 4), .widened = &isa_f32, .widen = widen_bf16,
	.row = knit__linear_row_bf16_avx2};
static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0, 4, 4, 2), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0, 4, 4, 2), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q4_k = {
	.dtype = KNIT_Q4_K, SHAPES(q4_k, 4, 2, 2), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k, 4, 2, 2), .quantise = knit__linear_quantise_avx2};

KNIT_LINEAR_KERNELS(avx2, KNIT_CPU_AVX2)
