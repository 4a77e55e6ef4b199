/* Owns the tiles of linear for weights in panels, in AVX-512 with VNNI. The driver is linear.c; reference:
 * ops/linear.c. */
#include "linear.h"
#include "panels_avx512.h"

#define MAX_ROWS 4

KNIT_INLINE __m512i four_columns(const int8_t *x, int j) {
	int32_t v;

	memcpy(&v, x + j * 4, sizeof v);
	return _mm512_set1_epi32(v);
}

/* One block (number `block` of the rows of x) of 16 rows of weights. */
KNIT_INLINE void step(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const char *scales,
                      const char *vectors, int64_t block, __m512 acc[MAX_ROWS]) {
	const __m512 d = halves(scales);
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

/* A part has the vectors of a q4_0 block, and what its minima take off goes by the sum of x. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const char *group, int64_t block,
                           __m512 acc[MAX_ROWS]) {
	const __m512 d = halves(group), dmin = halves(group + 32);
	char parts[256];

	unpack_parts(group + 64, parts);
	for (int64_t p = 0; p < 8; ++p) {
		const __m512 scale = bytes_by(parts + p * 16, false, d);
		const __m512 min = bytes_by(parts + 128 + p * 16, false, dmin);
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

KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const char *group, int64_t block,
                           __m512 acc[MAX_ROWS]) {
	const __m512 d = halves(group);

	for (int64_t p = 0; p < 8; ++p) {
		const __m512 first = bytes_by(group + KNIT_PANEL_Q6_K_SCALES + p * 32, true, d);
		const __m512 second = bytes_by(group + KNIT_PANEL_Q6_K_SCALES + 16 + p * 32, true, d);
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
