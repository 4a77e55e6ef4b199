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
                           int64_t block, __m256i dot[MAX_RESULTS]) {
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
	for (int i = 0; i < rows * halves; ++i)
		dot[i] = _mm256_add_epi32(_mm256_madd_epi16(sum[i], _mm256_set1_epi16(1)),
		                          _mm256_set1_epi32(knit__linear_panel_bias(a, i / halves, block)));
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
		dots_q4_0(a, rows, halves, vectors, block, dot);
	for (int i = 0; i < rows * halves; ++i) {
		const __m256 x = _mm256_set1_ps(knit__linear_panel_scale(a, i / halves, block));

		acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_mul_ps(d[i % halves], x), acc[i]);
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

		step(a, t, rows, halves, scales, vectors, block, acc);
		step(a, t, rows, halves, scales + 32, vectors + half, block + 1, acc);
	}
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

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	if (rows * 2 <= MAX_RESULTS) {
		part(a, t, rows, 2, 0);
		return;
	}
	part(a, t, rows, 1, 0);
	if (a->columns > HALF)
		part(a, t, rows, 1, HALF);
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

#define TILE(name, dtype, rows) \
	static void name##_##rows(const knit_linear_tile_args *a) { tile(a, dtype, rows); }
#define TILES(name, dtype) TILE(name, dtype, 1) TILE(name, dtype, 2) TILE(name, dtype, 3) TILE(name, dtype, 4)
#define SHAPES(name) \
	.max_rows = MAX_ROWS, .panel = KNIT_PANEL_ROWS, \
	.shapes = {{16, name##_1, NULL}, {16, name##_2, NULL}, {16, name##_3, NULL}, {16, name##_4, NULL}}

TILES(q8_0, KNIT_Q8_0)
TILES(q4_0, KNIT_Q4_0)

static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0), .quantise = knit__linear_quantise_panels};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0), .quantise = knit__linear_quantise_panels};

KNIT_LINEAR_PANEL_KERNELS(avx2, KNIT_CPU_AVX2)
