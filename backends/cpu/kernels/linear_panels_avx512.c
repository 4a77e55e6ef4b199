/* Owns the tiles of linear for weights in panels, in AVX-512 with VNNI. The driver is linear.c; reference:
 * ops/linear.c. */
#include "linear.h"
#include "panels.h"
#include "vec_avx512.h"

#define MAX_ROWS 4
#define PIECES 8 /* four columns each, of a block */

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

KNIT_INLINE __m512i four_columns(const int8_t *x, int j) {
	int32_t v;

	memcpy(&v, x + j * 4, sizeof v);
	return _mm512_set1_epi32(v);
}

/* One block (number `block` of the rows of x) of 16 rows of weights. */
KNIT_INLINE void step(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const char *scales,
                      const char *vectors, int64_t block, __m512 acc[MAX_ROWS]) {
	const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)scales));
	__m512i w[PIECES];

	load_block(t, vectors, w);
	for (int r = 0; r < rows; ++r) {
		const int8_t *const x = (const int8_t *)knit__linear_panel_q(a, r, block);
		__m512i even = _mm512_set1_epi32(knit__linear_panel_bias(a, r, block)), odd = _mm512_setzero_si512();

		for (int j = 0; j < PIECES; j += 2) {
			even = _mm512_dpbusd_epi32(even, w[j], four_columns(x, j));
			odd = _mm512_dpbusd_epi32(odd, w[j + 1], four_columns(x, j + 1));
		}
		const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(knit__linear_panel_scale(a, r, block)));

		acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), scale, acc[r]);
	}
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

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

KNIT_INLINE __m512 halves(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
KNIT_INLINE __m512 bytes(const char *p, const bool is_signed) {
	const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);

	return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(v) : _mm512_cvtepu8_epi32(v));
}

/* A part has the vectors of a q4_0 block, and what its minima take off goes by the sum of x. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const char *group, int64_t block,
                           __m512 acc[MAX_ROWS]) {
	const __m512 d = halves(group), dmin = halves(group + 32);
	char parts[256];

	unpack_parts(group + 64, parts);
	for (int64_t p = 0; p < 8; ++p) {
		const __m512 scale = _mm512_mul_ps(d, bytes(parts + p * 16, false));
		const __m512 min = _mm512_mul_ps(dmin, bytes(parts + 128 + p * 16, false));
		__m512i w[PIECES];

		load_block(KNIT_Q4_0, group + KNIT_PANEL_Q4_K_VECTORS + p * 256, w);
		for (int r = 0; r < rows; ++r) {
			const int8_t *const x = (const int8_t *)knit__linear_panel_q(a, r, block + p);
			__m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();

			for (int j = 0; j < PIECES; j += 2) {
				even = _mm512_dpbusd_epi32(even, w[j], four_columns(x, j));
				odd = _mm512_dpbusd_epi32(odd, w[j + 1], four_columns(x, j + 1));
			}
			const __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(knit__linear_panel_scale(a, r, block + p)));

			acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), by, acc[r]);
			acc[r] = _mm512_fnmadd_ps(min, _mm512_set1_ps(knit__linear_panel_sum(a, r, block + p)), acc[r]);
		}
	}
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

KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const char *group, int64_t block,
                           __m512 acc[MAX_ROWS]) {
	const __m512 d = halves(group);

	for (int64_t p = 0; p < 8; ++p) {
		const __m512 first = _mm512_mul_ps(d, bytes(group + KNIT_PANEL_Q6_K_SCALES + p * 32, true));
		const __m512 second = _mm512_mul_ps(d, bytes(group + KNIT_PANEL_Q6_K_SCALES + 16 + p * 32, true));
		__m512i w[PIECES];

		load_part6(group, p, w);
		for (int r = 0; r < rows; ++r) {
			const int8_t *const x = (const int8_t *)knit__linear_panel_q(a, r, block + p);
			__m512i low = _mm512_set1_epi32(knit__linear_panel_bias(a, r, 2 * (block + p)));
			__m512i high = _mm512_set1_epi32(knit__linear_panel_bias(a, r, 2 * (block + p) + 1));

			for (int j = 0; j < PIECES / 2; ++j) {
				low = _mm512_dpbusd_epi32(low, w[j], four_columns(x, j));
				high = _mm512_dpbusd_epi32(high, w[j + 4], four_columns(x, j + 4));
			}
			const __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), first, _mm512_mul_ps(_mm512_cvtepi32_ps(high), second));

			acc[r] = _mm512_fmadd_ps(sum, _mm512_set1_ps(knit__linear_panel_scale(a, r, block + p)), acc[r]);
		}
	}
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

KNIT_INLINE void store(const knit_linear_tile_args *a, const int rows, __m512 acc[MAX_ROWS]) {
	const __mmask16 columns = knit__first16(a->columns);

	for (int r = 0; r < rows; ++r) {
		float *const out = a->out + r * a->out_stride;

		if (a->add)
			acc[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(columns, out), acc[r]);
		_mm512_mask_storeu_ps(out, columns, acc[r]);
	}
}

KNIT_INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	const int64_t group_bytes = t == KNIT_Q4_K ? KNIT_PANEL_Q4_K_BYTES : KNIT_PANEL_Q6_K_BYTES;
	const char *group = a->w + a->k0 / 256 * group_bytes;
	__m512 acc[MAX_ROWS];

	for (int r = 0; r < rows; ++r)
		acc[r] = _mm512_setzero_ps();
	for (int64_t i = 0; i < a->length; i += 256, group += group_bytes) {
		if (rows == 1)
			knit__panel_ahead(group, group_bytes);
		if (t == KNIT_Q4_K)
			step_q4_k(a, rows, group, (a->k0 + i) / 32, acc);
		else
			step_q6_k(a, rows, group, (a->k0 + i) / 32, acc);
	}
	store(a, rows, acc);
}

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	const int64_t group_bytes = t == KNIT_Q8_0 ? 1088 : 576, half = t == KNIT_Q8_0 ? 512 : 256;
	const char *group = a->w + a->k0 / KNIT_PANEL_GROUP * group_bytes;
	__m512 acc[MAX_ROWS];

	for (int r = 0; r < rows; ++r)
		acc[r] = _mm512_setzero_ps();
	for (int64_t i = 0; i < a->length; i += KNIT_PANEL_GROUP, group += group_bytes) {
		const int64_t block = (a->k0 + i) / 32;

		if (rows == 1)
			knit__panel_ahead(group, group_bytes);
		step(a, t, rows, group, group + KNIT_PANEL_SCALES, block, acc);
		step(a, t, rows, group + 32, group + KNIT_PANEL_SCALES + half, block + 1, acc);
	}
	store(a, rows, acc);
}

#define TILE(name, kind, dtype, rows) \
	static void name##_##rows(const knit_linear_tile_args *a) { kind(a, dtype, rows); }
#define TILES(name, kind, dtype) \
	TILE(name, kind, dtype, 1) TILE(name, kind, dtype, 2) TILE(name, kind, dtype, 3) TILE(name, kind, dtype, 4)
#define SHAPES(name) \
	.max_rows = MAX_ROWS, .panel = KNIT_PANEL_ROWS, .many_columns = 2 * KNIT_PANEL_ROWS, \
	.shapes = {{16, name##_1, NULL}, {16, name##_2, NULL}, {16, name##_3, NULL}, {16, name##_4, NULL}}

TILES(q8_0, tile, KNIT_Q8_0)
TILES(q4_0, tile, KNIT_Q4_0)
TILES(q4_k, tile_super, KNIT_Q4_K)
TILES(q6_k, tile_super, KNIT_Q6_K)

static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0), .many = knit__linear_many_q8_0_avx512, .quantise = knit__linear_quantise_panels};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0), .many = knit__linear_many_q4_0_avx512, .quantise = knit__linear_quantise_panels};
static const knit_linear_isa isa_q4_k = {.dtype = KNIT_Q4_K, SHAPES(q4_k), .many = knit__linear_many_q4_k_avx512, .quantise = knit__linear_quantise_avx2};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k), .many = knit__linear_many_q6_k_avx512, .quantise = knit__linear_quantise_panels16};

KNIT_LINEAR_PANEL_KERNELS(avx512, KNIT_CPU_AVX512)
