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

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	const int64_t group_bytes = t == KNIT_Q8_0 ? 1088 : 576, half = t == KNIT_Q8_0 ? 512 : 256;
	const __mmask16 columns = knit__first16(a->columns);
	const char *group = a->w + a->k0 / KNIT_PANEL_GROUP * group_bytes;
	__m512 acc[MAX_ROWS];

	for (int r = 0; r < rows; ++r)
		acc[r] = _mm512_setzero_ps();
	for (int64_t i = 0; i < a->length; i += KNIT_PANEL_GROUP, group += group_bytes) {
		const int64_t block = (a->k0 + i) / 32;

		step(a, t, rows, group, group + KNIT_PANEL_SCALES, block, acc);
		step(a, t, rows, group + 32, group + KNIT_PANEL_SCALES + half, block + 1, acc);
	}
	for (int r = 0; r < rows; ++r) {
		float *const out = a->out + r * a->out_stride;

		if (a->add)
			acc[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(columns, out), acc[r]);
		_mm512_mask_storeu_ps(out, columns, acc[r]);
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

KNIT_LINEAR_PANEL_KERNELS(avx512, KNIT_CPU_AVX512)
