/* Owns linear of many rows of x by weights in panels, in AVX-512 with VNNI: two panels at a time, so that four columns of x
 * that were spread over a vector meet two vectors of weights. What an output is does not depend on it: sums are those of
 * linear_panels_avx512.c. The driver is linear.c; reference: ops/linear.c. */
#include "linear.h"
#include "panels_avx512.h"

#include <assert.h>

#define MAX_ROWS 6
#define PANELS 2
#define PARTS (KNIT_LINEAR_SPAN / 32)

/* ---- rows of x --------------------------------------------------------------------------------------------------- */

/* Where rows of x are read, which lie `stride` apart (linear.h): q, its sums by blocks (biases, or what minima multiply), the scales of
 * blocks. A pointer for each row would be more than there are registers. */
typedef struct rows_at {
	const char *q, *sums, *scales;
	int64_t stride, three, five; /* strides */
} rows_at;

/* A sum for every `sum_every` columns: q6_K has them by 16, the others by 32. */
KNIT_INLINE rows_at rows_from(const knit_linear_block *u, int64_t row, int64_t k0, const int64_t sum_every) {
	const int64_t padded = knit__linear_padded(u->k), stride = knit__linear_row_bytes(u->k);
	const char *const x = u->x[row];

	return (rows_at){x + k0, x + padded + k0 / sum_every * 4, x + 2 * padded + k0 / 32 * 4, stride, 3 * stride, 5 * stride};
}
/* To the next k columns. Compilers would make a pointer for each row of what they see through. */
KNIT_INLINE void rows_advance(rows_at *x, int64_t k, const int64_t sum_every) {
	x->q += k;
	x->sums += k / sum_every * 4;
	x->scales += k / 32 * 4;
	__asm__("" : "+r"(x->q), "+r"(x->sums), "+r"(x->scales), "+r"(x->stride), "+r"(x->three), "+r"(x->five));
}
/* The place of row r, given that of the first. */
KNIT_INLINE const char *of_row(const rows_at *x, const char *first, const int r) {
	return first + (r == 3 ? x->three : r == 5 ? x->five : r * x->stride);
}

KNIT_INLINE __m512i spread_int(const char *p) {
	int32_t v;

	memcpy(&v, p, sizeof v);
	return _mm512_set1_epi32(v);
}
KNIT_INLINE __m512 spread_float(const char *p) {
	float v;

	memcpy(&v, p, sizeof v);
	return _mm512_set1_ps(v);
}

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* Four columns (number j) of a block, of all rows, times the two panels' vector of them. */
KNIT_INLINE void four_columns(const rows_at *x, const int rows, const int j, const __m512i w[PANELS],
                              __m512i sum[MAX_ROWS][PANELS]) {
	for (int r = 0; r < rows; ++r) {
		const __m512i four = spread_int(of_row(x, x->q, r) + j * 4);

		for (int p = 0; p < PANELS; ++p)
			sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], w[p], four);
	}
}

/* A block: integer sums are exact, so their order is free. Chains of as many sums as there are results keep the units busy,
 * and vectors of weights are used as they come. */
KNIT_INLINE void dots(const rows_at *x, const knit_dtype t, const int rows, const char *vectors, int64_t panel,
                      __m512i sum[MAX_ROWS][PANELS]) {
	const __m512i low = _mm512_set1_epi8(15);
	__m512i w[PANELS], high[PANELS];

	for (int j = 0; j < (t == KNIT_Q8_0 ? PIECES : PIECES / 2); ++j) {
		for (int p = 0; p < PANELS; ++p) {
			w[p] = _mm512_loadu_si512(vectors + p * panel + j * 64);
			if (t == KNIT_Q8_0)
				continue;
			high[p] = _mm512_and_si512(_mm512_srli_epi16(w[p], 4), low);
			w[p] = _mm512_and_si512(w[p], low);
		}
		four_columns(x, rows, j, w, sum);
		if (t != KNIT_Q8_0)
			four_columns(x, rows, j + PIECES / 2, high, sum);
	}
}

KNIT_INLINE void block(const rows_at *x, const knit_dtype t, const int rows, const char *scales, const char *vectors,
                       int64_t panel, __m512 acc[MAX_ROWS][PANELS]) {
	__m512i sum[MAX_ROWS][PANELS];
	__m512 d[PANELS];

	for (int r = 0; r < rows; ++r)
		sum[r][0] = sum[r][1] = spread_int(of_row(x, x->sums, r));
	dots(x, t, rows, vectors, panel, sum);
	for (int p = 0; p < PANELS; ++p)
		d[p] = halves(scales + p * panel);
	for (int r = 0; r < rows; ++r) {
		const __m512 scale = spread_float(of_row(x, x->scales, r));

		for (int p = 0; p < PANELS; ++p)
			acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][p]), _mm512_mul_ps(d[p], scale), acc[r][p]);
	}
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

/* A span of two panels. */
typedef struct pair {
	const knit_linear_block *u;
	int64_t k0, length, column;
	const char *w; /* the first panel, at k0 */
	/* Of super-blocks, unpacked. By part of 32 columns: two vectors of scales for q6_K, or of scales and of minima, of each
	 * panel; and the bytes of q6_K. */
	const float *scales;
	const char *bytes;
} pair;

KNIT_INLINE void clear(const int rows, __m512 acc[MAX_ROWS][PANELS]) {
	for (int r = 0; r < rows; ++r)
		acc[r][0] = acc[r][1] = _mm512_setzero_ps();
}

KNIT_INLINE void store(const pair *s, int64_t row, const int rows, __m512 acc[MAX_ROWS][PANELS]) {
	const __mmask16 columns = knit__first16(knit__min(s->u->columns - s->column - KNIT_PANEL_ROWS, KNIT_PANEL_ROWS));

	for (int r = 0; r < rows; ++r) {
		float *const out = s->u->out + (row + r) * s->u->out_stride + s->column;

		if (s->k0 > 0 || s->u->add) {
			acc[r][0] = _mm512_add_ps(_mm512_loadu_ps(out), acc[r][0]);
			acc[r][1] = _mm512_add_ps(_mm512_maskz_loadu_ps(columns, out + KNIT_PANEL_ROWS), acc[r][1]);
		}
		_mm512_storeu_ps(out, acc[r][0]);
		_mm512_mask_storeu_ps(out + KNIT_PANEL_ROWS, columns, acc[r][1]);
	}
}

KNIT_INLINE void tile(const pair *s, const knit_dtype t, int64_t row, const int rows) {
	const int64_t group_bytes = t == KNIT_Q8_0 ? 1088 : 576, half = t == KNIT_Q8_0 ? 512 : 256;
	rows_at x = rows_from(s->u, row, s->k0, 32);
	int64_t panel = s->u->w_stride;
	const char *group = s->w;
	__m512 acc[MAX_ROWS][PANELS];

	clear(rows, acc);
	for (int64_t i = 0; i < s->length; i += KNIT_PANEL_GROUP, group += group_bytes) {
		__asm__("" : "+r"(group), "+r"(panel));
		block(&x, t, rows, group, group + KNIT_PANEL_SCALES, panel, acc);
		rows_advance(&x, 32, 32);
		block(&x, t, rows, group + 32, group + KNIT_PANEL_SCALES + half, panel, acc);
		rows_advance(&x, 32, 32);
	}
	store(s, row, rows, acc);
}

/* ---- q4_K: parts have the vectors of a q4_0 block, and what minima take off goes by the sum of x -------------------- */

KNIT_INLINE void part4(const rows_at *x, const int rows, const float *scales, const char *vectors, int64_t panel,
                       __m512 acc[MAX_ROWS][PANELS]) {
	__m512i sum[MAX_ROWS][PANELS];

	for (int r = 0; r < rows; ++r)
		sum[r][0] = sum[r][1] = _mm512_setzero_si512();
	dots(x, KNIT_Q4_0, rows, vectors, panel, sum);
	for (int r = 0; r < rows; ++r) {
		const __m512 scale = spread_float(of_row(x, x->scales, r)), all = spread_float(of_row(x, x->sums, r));

		for (int p = 0; p < PANELS; ++p) {
			const __m512 by = _mm512_mul_ps(_mm512_load_ps(scales + p * 32), scale);

			acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][p]), by, acc[r][p]);
			acc[r][p] = _mm512_fnmadd_ps(_mm512_load_ps(scales + p * 32 + 16), all, acc[r][p]);
		}
	}
}

KNIT_INLINE void tile_q4_k(const pair *s, int64_t row, const int rows) {
	rows_at x = rows_from(s->u, row, s->k0, 32);
	const float *scales = s->scales;
	const char *group = s->w;
	int64_t panel = s->u->w_stride;
	__m512 acc[MAX_ROWS][PANELS];

	clear(rows, acc);
	for (int64_t i = 0; i < s->length; i += 256, group += KNIT_PANEL_Q4_K_BYTES) {
		const char *vectors = group + KNIT_PANEL_Q4_K_VECTORS;

		for (int64_t part = 0; part < 8; ++part, scales += PANELS * 32, vectors += 256) {
			__asm__("" : "+r"(vectors), "+r"(scales), "+r"(panel));
			part4(&x, rows, scales, vectors, panel, acc);
			rows_advance(&x, 32, 32);
		}
	}
	store(s, row, rows, acc);
}

/* Scales and minima of a span of one panel. */
static void unpack_q4_k(const char *group, int64_t length, float *scales) {
	for (int64_t i = 0; i < length; i += 256, group += KNIT_PANEL_Q4_K_BYTES) {
		const __m512 d = halves(group), dmin = halves(group + 32);
		char parts[256];

		unpack_parts(group + 64, parts);
		for (int64_t part = 0; part < 8; ++part, scales += PANELS * 32) {
			_mm512_store_ps(scales, bytes_by(parts + part * 16, false, d));
			_mm512_store_ps(scales + 16, bytes_by(parts + 128 + part * 16, false, dmin));
		}
	}
}

/* ---- q6_K: unpacked to bytes once for all rows ---------------------------------------------------------------------- */

/* Columns [16 half, 16 half + 16) of a part, which have scales of their own. */
KNIT_INLINE void half6(const rows_at *x, const int rows, const int half, const char *bytes, __m512i sum[MAX_ROWS][PANELS]) {
	for (int r = 0; r < rows; ++r)
		sum[r][0] = sum[r][1] = spread_int(of_row(x, x->sums, r) + half * 4);
	for (int j = half * PIECES / 2; j < (half + 1) * PIECES / 2; ++j) {
		const __m512i w[PANELS] = {_mm512_load_si512(bytes + j * 64), _mm512_load_si512(bytes + (PIECES + j) * 64)};

		four_columns(x, rows, j, w, sum);
	}
}

KNIT_INLINE void part6(const rows_at *x, const int rows, const float *scales, const char *bytes,
                       __m512 acc[MAX_ROWS][PANELS]) {
	__m512i low[MAX_ROWS][PANELS], high[MAX_ROWS][PANELS];

	half6(x, rows, 0, bytes, low);
	half6(x, rows, 1, bytes, high);
	for (int r = 0; r < rows; ++r) {
		const __m512 scale = spread_float(of_row(x, x->scales, r));

		for (int p = 0; p < PANELS; ++p) {
			const __m512 second = _mm512_mul_ps(_mm512_cvtepi32_ps(high[r][p]), _mm512_load_ps(scales + p * 32 + 16));

			acc[r][p] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(low[r][p]), _mm512_load_ps(scales + p * 32), second),
			                            scale, acc[r][p]);
		}
	}
}

KNIT_INLINE void tile_q6_k(const pair *s, int64_t row, const int rows) {
	rows_at x = rows_from(s->u, row, s->k0, 16);
	const float *scales = s->scales;
	const char *bytes = s->bytes;
	__m512 acc[MAX_ROWS][PANELS];

	clear(rows, acc);
	for (int64_t i = 0; i < s->length; i += 32, bytes += PANELS * PIECES * 64, scales += PANELS * 32) {
		__asm__("" : "+r"(bytes), "+r"(scales));
		part6(&x, rows, scales, bytes, acc);
		rows_advance(&x, 32, 16);
	}
	store(s, row, rows, acc);
}

/* Scales and values, 0 to 63, of a span of one panel. */
static void unpack_q6_k(const char *group, int64_t length, float *scales, char *bytes) {
	for (int64_t i = 0; i < length; i += 256, group += KNIT_PANEL_Q6_K_BYTES) {
		const __m512 d = halves(group);

		for (int64_t part = 0; part < 8; ++part, scales += PANELS * 32, bytes += PANELS * PIECES * 64) {
			const char *const by = group + KNIT_PANEL_Q6_K_SCALES + part * 32;
			__m512i w[PIECES];

			load_part6(group, part, w);
			for (int j = 0; j < PIECES; ++j)
				_mm512_store_si512(bytes + j * 64, w[j]);
			_mm512_store_ps(scales, bytes_by(by, true, d));
			_mm512_store_ps(scales + 16, bytes_by(by + 16, true, d));
		}
	}
}

/* ---- spans ------------------------------------------------------------------------------------------------------- */

KNIT_INLINE void tile_of(const pair *s, const knit_dtype t, int64_t row, const int rows) {
	if (t == KNIT_Q4_K)
		tile_q4_k(s, row, rows);
	else if (t == KNIT_Q6_K)
		tile_q6_k(s, row, rows);
	else
		tile(s, t, row, rows);
}

KNIT_INLINE void all_rows(const pair *s, const knit_dtype t) {
	const int64_t rows = s->u->rows;
	int64_t row = 0;

	if (t == KNIT_Q8_0) /* taking nibbles apart, minima or second sums need the registers */
		for (; row + 6 <= rows; row += 6)
			tile_of(s, t, row, 6);
	for (; row + 4 <= rows; row += 4)
		tile_of(s, t, row, 4);
	if (rows - row == 3)
		tile_of(s, t, row, 3);
	else if (rows - row == 2)
		tile_of(s, t, row, 2);
	else if (rows - row == 1)
		tile_of(s, t, row, 1);
}

static pair pair_of(const knit_linear_block *u, int64_t k0, int64_t column) {
	const knit_dtype t = u->isa->dtype;

	assert(u->x[u->rows - 1] == u->x[0] + (u->rows - 1) * knit__linear_row_bytes(u->k));
	return (pair){.u = u,
	              .k0 = k0,
	              .length = knit__min(KNIT_LINEAR_SPAN, u->k - k0),
	              .column = column,
	              .w = u->w + column / KNIT_PANEL_ROWS * u->w_stride + k0 / knit__panel_group(t) * knit__panel_group_bytes(t)};
}

void knit__linear_many_q8_0_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	const pair s = pair_of(u, k0, column);

	all_rows(&s, KNIT_Q8_0);
}

void knit__linear_many_q4_0_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	const pair s = pair_of(u, k0, column);

	all_rows(&s, KNIT_Q4_0);
}

void knit__linear_many_q4_k_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	_Alignas(64) float scales[PARTS * PANELS * 32];
	pair s = pair_of(u, k0, column);

	for (int p = 0; p < PANELS; ++p)
		unpack_q4_k(s.w + p * u->w_stride, s.length, scales + p * 32);
	s.scales = scales;
	all_rows(&s, KNIT_Q4_K);
}

void knit__linear_many_q6_k_avx512(const knit_linear_block *u, int64_t k0, int64_t column) {
	_Alignas(64) float scales[PARTS * PANELS * 32];
	_Alignas(64) char bytes[PARTS * PANELS * PIECES * 64];
	pair s = pair_of(u, k0, column);

	for (int p = 0; p < PANELS; ++p)
		unpack_q6_k(s.w + p * u->w_stride, s.length, scales + p * 32, bytes + p * PIECES * 64);
	s.scales = scales;
	s.bytes = bytes;
	all_rows(&s, KNIT_Q6_K);
}
