/* Owns the tiles of linear for weights in panels, in AVX2 + FMA + F16C. The driver is linear.c; reference:
 * ops/linear.c. */
#include "linear.h"
#include "panels.h"
#include "vec_avx2.h"

#define MAX_ROWS 4
#define HALF 8 /* weight rows in a vector */

KNIT_INLINE __m256i load(const char *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

KNIT_INLINE __m256i four_columns(const int8_t *x, int j) {
	int32_t v;

	memcpy(&v, x + j * 4, sizeof v);
	return _mm256_set1_epi32(v);
}

/* Keeps a compiler from making a tree of a chain of integer sums, for which there are not enough registers. */
KNIT_INLINE __m256i chained(__m256i v) {
	__asm__("" : "+x"(v));
	return v;
}

/* A tile is `rows` rows of x by `halves` of a panel; result r * halves + h is of row r and half h. What a result is does
 * not depend on it. */
#define MAX_RESULTS 4

/* Nibbles are small enough for the products of a whole block to be added up in 16 bits: |8 * 2 * 15 * 127| < 32,768. */
KNIT_INLINE void dots_q4_0(const knit_linear_tile_args *a, const int rows, const int halves, const char *vectors,
                           int64_t block, const bool biased, __m256i dot[MAX_RESULTS]) {
	__m256i sum[MAX_RESULTS], low[2], high[2];

	for (int i = 0; i < rows * halves; ++i)
		sum[i] = _mm256_setzero_si256();
	for (int j = 0; j < 4; ++j) {
		for (int h = 0; h < halves; ++h) {
			const __m256i v = load(vectors + j * 64 + h * 32), mask = _mm256_set1_epi8(15);

			low[h] = _mm256_and_si256(v, mask);
			high[h] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
		}
		for (int r = 0; r < rows; ++r) {
			const int8_t *const x = (const int8_t *)knit__linear_panel_q(a, r, block);

			for (int h = 0; h < halves; ++h) {
				__m256i *const s = &sum[r * halves + h];

				*s = chained(_mm256_add_epi16(*s, _mm256_maddubs_epi16(low[h], four_columns(x, j))));
				*s = chained(_mm256_add_epi16(*s, _mm256_maddubs_epi16(high[h], four_columns(x, j + 4))));
			}
		}
	}
	for (int i = 0; i < rows * halves; ++i) {
		dot[i] = _mm256_madd_epi16(sum[i], _mm256_set1_epi16(1));
		if (biased)
			dot[i] = _mm256_add_epi32(dot[i], _mm256_set1_epi32(knit__linear_panel_bias(a, i / halves, block)));
	}
}

/* Products of two full bytes leave no room in 16 bits for a second pair. */
KNIT_INLINE void dots_q8_0(const knit_linear_tile_args *a, const int rows, const int halves, const char *vectors,
                           int64_t block, __m256i dot[MAX_RESULTS]) {
	__m256i w[2], magnitude[2];

	for (int i = 0; i < rows * halves; ++i)
		dot[i] = _mm256_setzero_si256();
	for (int j = 0; j < 8; ++j) {
		for (int h = 0; h < halves; ++h) {
			w[h] = _mm256_xor_si256(load(vectors + j * 64 + h * 32), _mm256_set1_epi8((char)0x80));
			magnitude[h] = _mm256_abs_epi8(w[h]);
		}
		for (int r = 0; r < rows; ++r) {
			const __m256i x = four_columns((const int8_t *)knit__linear_panel_q(a, r, block), j);

			for (int h = 0; h < halves; ++h) {
				const __m256i pairs = _mm256_maddubs_epi16(magnitude[h], _mm256_sign_epi8(x, w[h]));
				__m256i *const d = &dot[r * halves + h];

				*d = chained(_mm256_add_epi32(*d, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
			}
		}
	}
}

KNIT_INLINE void step(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int halves,
                      const char *scales, const char *vectors, int64_t block, __m256 acc[MAX_RESULTS]) {
	__m256i dot[MAX_RESULTS];
	__m256 d[2];

	for (int h = 0; h < halves; ++h)
		d[h] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(scales + h * 16)));
	if (t == KNIT_Q8_0)
		dots_q8_0(a, rows, halves, vectors, block, dot);
	else
		dots_q4_0(a, rows, halves, vectors, block, true, dot);
	for (int i = 0; i < rows * halves; ++i) {
		const __m256 x = _mm256_set1_ps(knit__linear_panel_scale(a, i / halves, block));

		acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_mul_ps(d[i % halves], x), acc[i]);
	}
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

/* Of 16 rows: eight parts' scales, then their minima, a byte each. As knit__q4_k_parts. */
KNIT_INLINE void unpack_parts(const char *packed, char out[256]) {
	const __m256i six = _mm256_set1_epi8(63), four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);

	for (int i = 0; i < 64; i += 32) {
		const __m256i a = load(packed + i), b = load(packed + 64 + i), c = load(packed + 128 + i);
		const __m256i v[4] = {
			_mm256_and_si256(a, six),
			_mm256_or_si256(_mm256_and_si256(c, four), _mm256_and_si256(_mm256_srli_epi16(a, 2), two)),
			_mm256_and_si256(b, six),
			_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(c, 4), four), _mm256_and_si256(_mm256_srli_epi16(b, 2), two))};

		for (int k = 0; k < 4; ++k)
			_mm256_storeu_si256((__m256i *)(void *)(out + k * 64 + i), v[k]);
	}
}

KNIT_INLINE __m256 half_floats(const char *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
KNIT_INLINE __m256 bytes(const char *p, const bool is_signed) {
	const __m128i v = _mm_loadl_epi64((const __m128i *)(const void *)p);

	return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v));
}

/* A part has the vectors of a q4_0 block, and what its minima take off goes by the sum of x. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const int halves, int64_t first,
                           const char *group, int64_t block, __m256 acc[MAX_RESULTS]) {
	__m256 d[2], dmin[2];
	char parts[256];

	unpack_parts(group + 64, parts);
	for (int h = 0; h < halves; ++h) {
		d[h] = half_floats(group + (first + h * HALF) * 2);
		dmin[h] = half_floats(group + 32 + (first + h * HALF) * 2);
	}
	for (int64_t p = 0; p < 8; ++p) {
		__m256i dot[MAX_RESULTS];
		__m256 scale[2], min[2];

		for (int h = 0; h < halves; ++h) {
			scale[h] = _mm256_mul_ps(d[h], bytes(parts + p * 16 + first + h * HALF, false));
			min[h] = _mm256_mul_ps(dmin[h], bytes(parts + 128 + p * 16 + first + h * HALF, false));
		}
		dots_q4_0(a, rows, halves, group + KNIT_PANEL_Q4_K_VECTORS + p * 256 + first * 4, block + p, false, dot);
		for (int i = 0; i < rows * halves; ++i) {
			const __m256 x = _mm256_set1_ps(knit__linear_panel_scale(a, i / halves, block + p));
			const __m256 sum = _mm256_set1_ps(knit__linear_panel_sum(a, i / halves, block + p));

			acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_mul_ps(scale[i % halves], x), acc[i]);
			acc[i] = _mm256_fnmadd_ps(min[i % halves], sum, acc[i]);
		}
	}
}

/* Vector j of a part of q6_K for half h, 0 to 63. */
KNIT_INLINE __m256i load_part6(const char *low, const char *high, const int j) {
	const __m256i v = load(low + j % 4 * 64), h = load(high + j % 2 * 64), two = _mm256_set1_epi8(0x30);
	const __m256i bits = j < 2 ? _mm256_slli_epi16(h, 4) : j < 4 ? _mm256_slli_epi16(h, 2) : j < 6 ? h : _mm256_srli_epi16(h, 2);

	return _mm256_or_si256(_mm256_and_si256(j < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)),
	                       _mm256_and_si256(bits, two));
}

/* 16 columns of a part, the first or the second: |2 * 2 * 63 * 127| < 32,768, so two products fit 16 bits. */
KNIT_INLINE void dots_q6_k(const knit_linear_tile_args *a, const int rows, const int halves, const char *low,
                           const char *high, int64_t block, const int second, __m256i dot[MAX_RESULTS]) {
	for (int i = 0; i < rows * halves; ++i)
		dot[i] = _mm256_set1_epi32(knit__linear_panel_bias(a, i / halves, 2 * block + second));
	for (int j = second * 4; j < second * 4 + 4; j += 2)
		for (int h = 0; h < halves; ++h) {
			const __m256i w0 = load_part6(low + h * 32, high + h * 32, j), w1 = load_part6(low + h * 32, high + h * 32, j + 1);

			for (int r = 0; r < rows; ++r) {
				const int8_t *const x = (const int8_t *)knit__linear_panel_q(a, r, block);
				const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, four_columns(x, j)),
				                                       _mm256_maddubs_epi16(w1, four_columns(x, j + 1)));
				__m256i *const d = &dot[r * halves + h];

				*d = chained(_mm256_add_epi32(*d, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
			}
		}
}

KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const int halves, int64_t first,
                           const char *group, int64_t block, __m256 acc[MAX_RESULTS]) {
	for (int64_t p = 0; p < 8; ++p) {
		const char *const low = group + KNIT_PANEL_Q6_K_VECTORS + p * 256 + first * 4;
		const char *const high = group + KNIT_PANEL_Q6_K_HIGH + p * 128 + first * 4;

		for (int second = 0; second < 2; ++second) {
			__m256i dot[MAX_RESULTS];
			__m256 scale[2];

			for (int h = 0; h < halves; ++h)
				scale[h] = _mm256_mul_ps(half_floats(group + (first + h * HALF) * 2),
				                         bytes(group + KNIT_PANEL_Q6_K_SCALES + p * 32 + second * 16 + first + h * HALF, true));
			dots_q6_k(a, rows, halves, low, high, block + p, second, dot);
			for (int i = 0; i < rows * halves; ++i) {
				const __m256 x = _mm256_set1_ps(knit__linear_panel_scale(a, i / halves, block + p));

				acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_mul_ps(scale[i % halves], x), acc[i]);
			}
		}
	}
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

KNIT_INLINE void store(const knit_linear_tile_args *a, const int rows, const int halves, int64_t first,
                       __m256 acc[MAX_RESULTS]) {
	for (int i = 0; i < rows * halves; ++i) {
		const int64_t column = first + i % halves * HALF, columns = knit__min(a->columns - column, HALF);
		float *const out = a->out + i / halves * a->out_stride + column;

		if (columns <= 0)
			continue;
		if (a->add)
			acc[i] = _mm256_add_ps(_mm256_maskload_ps(out, knit__first8(columns)), acc[i]);
		_mm256_maskstore_ps(out, knit__first8(columns), acc[i]);
	}
}

/* Weight rows from `first` on: 0 or 8. */
KNIT_INLINE void part(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int halves,
                      int64_t first) {
	const int64_t group_bytes = t == KNIT_Q8_0 ? 1088 : 576, half = t == KNIT_Q8_0 ? 512 : 256;
	const char *group = a->w + a->k0 / KNIT_PANEL_GROUP * group_bytes;
	__m256 acc[MAX_RESULTS];

	for (int i = 0; i < rows * halves; ++i)
		acc[i] = _mm256_setzero_ps();
	for (int64_t i = 0; i < a->length; i += KNIT_PANEL_GROUP, group += group_bytes) {
		const char *const scales = group + first * 2, *const vectors = group + KNIT_PANEL_SCALES + first * 4;
		const int64_t block = (a->k0 + i) / 32;

		if (rows == 1)
			knit__panel_ahead(group, group_bytes);
		step(a, t, rows, halves, scales, vectors, block, acc);
		step(a, t, rows, halves, scales + 32, vectors + half, block + 1, acc);
	}
	store(a, rows, halves, first, acc);
}

KNIT_INLINE void part_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int halves,
                            int64_t first) {
	const int64_t group_bytes = t == KNIT_Q4_K ? KNIT_PANEL_Q4_K_BYTES : KNIT_PANEL_Q6_K_BYTES;
	const char *group = a->w + a->k0 / 256 * group_bytes;
	__m256 acc[MAX_RESULTS];

	for (int i = 0; i < rows * halves; ++i)
		acc[i] = _mm256_setzero_ps();
	for (int64_t i = 0; i < a->length; i += 256, group += group_bytes) {
		if (rows == 1)
			knit__panel_ahead(group, group_bytes);
		if (t == KNIT_Q4_K)
			step_q4_k(a, rows, halves, first, group, (a->k0 + i) / 32, acc);
		else
			step_q6_k(a, rows, halves, first, group, (a->k0 + i) / 32, acc);
	}
	store(a, rows, halves, first, acc);
}

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	if (rows * 2 <= MAX_RESULTS) {
		part(a, t, rows, 2, 0);
		return;
	}
	part(a, t, rows, 1, 0);
	if (a->columns > HALF)
		part(a, t, rows, 1, HALF);
}

KNIT_INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	if (rows * 2 <= MAX_RESULTS) {
		part_super(a, t, rows, 2, 0);
		return;
	}
	part_super(a, t, rows, 1, 0);
	if (a->columns > HALF)
		part_super(a, t, rows, 1, HALF);
}

void knit__linear_quantise_panels(const float *x, int64_t k, int32_t bias, char *row) {
	const int64_t padded = knit__linear_padded(k);
	char *const sums = row + padded;

	knit__linear_quantise_avx2(x, k, bias, row);
	for (int64_t b = 0; b < padded / 32; ++b) {
		const __m256i eight = load(sums + b * 32);
		__m128i sum = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));

		sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
		sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
		const int32_t total = _mm_cvtsi128_si32(sum);
		memcpy(sums + b * 4, &total, sizeof total);
	}
}

void knit__linear_quantise_panels16(const float *x, int64_t k, int32_t bias, char *row) {
	char *const sums = row + knit__linear_padded(k);

	knit__linear_quantise_avx2(x, k, bias, row);
	for (int64_t b = 0; b < k / 16; ++b) {
		__m128i sum = _mm_loadu_si128((const __m128i *)(const void *)(sums + b * 16));

		sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
		sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
		const int32_t total = _mm_cvtsi128_si32(sum);
		memcpy(sums + b * 4, &total, sizeof total);
	}
}

#define TILE(name, kind, dtype, rows) \
	static void name##_##rows(const knit_linear_tile_args *a) { kind(a, dtype, rows); }
#define TILES(name, kind, dtype) \
	TILE(name, kind, dtype, 1) TILE(name, kind, dtype, 2) TILE(name, kind, dtype, 3) TILE(name, kind, dtype, 4)
#define SHAPES(name) \
	.max_rows = MAX_ROWS, .panel = KNIT_PANEL_ROWS, \
	.shapes = {{16, name##_1, NULL}, {16, name##_2, NULL}, {16, name##_3, NULL}, {16, name##_4, NULL}}

TILES(q8_0, tile, KNIT_Q8_0)
TILES(q4_0, tile, KNIT_Q4_0)
TILES(q4_k, tile_super, KNIT_Q4_K)
TILES(q6_k, tile_super, KNIT_Q6_K)

static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0), .quantise = knit__linear_quantise_panels};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0), .quantise = knit__linear_quantise_panels};
static const knit_linear_isa isa_q4_k = {.dtype = KNIT_Q4_K, SHAPES(q4_k), .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k), .quantise = knit__linear_quantise_panels16};

KNIT_LINEAR_PANEL_KERNELS(avx2, KNIT_CPU_AVX2)
