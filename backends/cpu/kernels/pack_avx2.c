/* Owns the packing of weights into panels with AVX2: 16 rows turned at once instead of one lane at a time. Must match pack.c
 * and pack_super.c bit for bit. */
#include "../../../ops/quant.h"
#include "panels.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = KNIT_PANEL_ROWS };

static inline __m128i load(const void *p) { return _mm_loadu_si128(p); }

static inline __m256i pair(const void *low, const void *high) {
	return _mm256_inserti128_si256(_mm256_castsi128_si256(load(low)), load(high), 1);
}

static inline void store(void *p, __m256i v) { _mm256_storeu_si256(p, v); }

/* 16 bytes of each of 16 rows to 4 vectors of four bytes of each. */
static inline __attribute__((always_inline)) void turn4(const char *const rows[ROWS], int64_t at, __m256i flip, char *to) {
	for (int half = 0; half < 2; ++half) {
		const char *const *const r = rows + half * 8;
		const __m256i a = pair(r[0] + at, r[4] + at), b = pair(r[1] + at, r[5] + at);
		const __m256i c = pair(r[2] + at, r[6] + at), d = pair(r[3] + at, r[7] + at);
		const __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
		const __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);

		store(to + half * 32, _mm256_xor_si256(_mm256_unpacklo_epi64(ab0, cd0), flip));
		store(to + half * 32 + 64, _mm256_xor_si256(_mm256_unpackhi_epi64(ab0, cd0), flip));
		store(to + half * 32 + 128, _mm256_xor_si256(_mm256_unpacklo_epi64(ab1, cd1), flip));
		store(to + half * 32 + 192, _mm256_xor_si256(_mm256_unpackhi_epi64(ab1, cd1), flip));
	}
}

/* Two bytes of each row, side by side. */
static inline __attribute__((always_inline)) void scales(const char *const rows[ROWS], int64_t at, char *to) {
	for (int lane = 0; lane < ROWS; ++lane)
		memcpy(to + lane * 2, rows[lane] + at, 2);
}

/* What the next panel begins with is read while this one is written: the 16 rows are as many streams, more than are seen. */
static inline __attribute__((always_inline)) void ahead(const char *const rows[ROWS], int64_t at, int64_t panel_bytes) {
	for (int lane = 0; lane < ROWS; ++lane)
		_mm_prefetch(rows[lane] + at + panel_bytes, _MM_HINT_T1);
}

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

static inline __attribute__((always_inline)) void pack_block(bool q8, const char *const rows[ROWS], int64_t at, char *to_scales,
                                                             char *to) {
	const __m256i flip = _mm256_set1_epi8(q8 ? (char)0x80 : 0);

	scales(rows, at, to_scales);
	turn4(rows, at + 2, flip, to);
	if (q8)
		turn4(rows, at + 18, flip, to + 256);
}

static inline __attribute__((always_inline)) void pack_blocks(knit_dtype t, const char *const rows[ROWS], int64_t columns,
                                                              int64_t row_bytes, char *to) {
	const bool q8 = t == KNIT_Q8_0;
	const int64_t blocks = columns / KNIT_QK, block = q8 ? 34 : 18, vectors = q8 ? 512 : 256;

	for (int64_t b = 0; b < blocks; ++b) {
		char *const group = to + b / 2 * (KNIT_PANEL_SCALES + 2 * vectors);

		if (b % 2 == 0)
			ahead(rows, b * block, ROWS * row_bytes);
		pack_block(q8, rows, b * block, group + b % 2 * ROWS * 2, group + KNIT_PANEL_SCALES + b % 2 * vectors);
	}
	if (blocks % 2 == 0)
		return;
	char *const last = to + blocks / 2 * (KNIT_PANEL_SCALES + 2 * vectors);
	memset(last + ROWS * 2, 0, ROWS * 2);
	memset(last + KNIT_PANEL_SCALES + vectors, 0, (size_t)vectors);
}

/* ---- super-blocks ------------------------------------------------------------------------------------------------ */

static const char *const *own_rows(const char *at, int64_t stride, const char *out[ROWS]) {
	for (int lane = 0; lane < ROWS; ++lane)
		out[lane] = at + lane * stride;
	return out;
}

/* Low four bits of 32 bytes, shifted down: the first 16 below, the others above. */
static inline __m128i nibbles(const uint8_t *bytes, int shift) {
	const __m128i low = _mm_set1_epi8(15);
	const __m128i a = _mm_and_si128(_mm_srli_epi16(load(bytes), shift), low);
	const __m128i b = _mm_and_si128(_mm_srli_epi16(load(bytes + 16), shift), low);

	return _mm_or_si128(a, _mm_slli_epi16(b, 4));
}

static void pack_q4_k(const char *const rows[ROWS], int64_t at, char *group) {
	const __m256i none = _mm256_setzero_si256();
	char parts[8][ROWS][16];
	const char *turned[ROWS];

	scales(rows, at, group);
	scales(rows, at + 2, group + 32);
	for (int lane = 0; lane < ROWS; ++lane) {
		const uint8_t *const q = (const uint8_t *)rows[lane] + at + 16;

		for (int i = 0; i < 12; ++i)
			group[64 + i * ROWS + lane] = rows[lane][at + 4 + i];
		for (int part = 0; part < 8; ++part)
			_mm_storeu_si128((__m128i *)parts[part][lane], nibbles(q + part / 2 * 32, part % 2 * 4));
	}
	for (int part = 0; part < 8; ++part)
		turn4(own_rows(parts[part][0], 16, turned), 0, none, group + KNIT_PANEL_Q4_K_VECTORS + part * 256);
}

/* Two bits of each of 32 bytes, of bytes i, 8 + i, 16 + i and 24 + i side by side: 8 bytes. */
static inline uint64_t quarters(const uint8_t *bytes, int shift) {
	uint64_t out = 0;

	for (int f = 0; f < 4; ++f) {
		uint64_t eight;

		memcpy(&eight, bytes + f * 8, 8);
		out |= (eight >> shift & UINT64_C(0x0303030303030303)) << 2 * f;
	}
	return out;
}

static void pack_q6_k(const char *const rows[ROWS], int64_t at, char *group) {
	const __m256i none = _mm256_setzero_si256();
	char low[8][ROWS][16], high[4][ROWS][16];
	const char *turned[ROWS];

	scales(rows, at + 208, group);
	memset(group + 32, 0, 32);
	for (int lane = 0; lane < ROWS; ++lane) {
		const uint8_t *const ql = (const uint8_t *)rows[lane] + at, *const qh = ql + 128;

		for (int i = 0; i < 16; ++i)
			group[KNIT_PANEL_Q6_K_SCALES + i * ROWS + lane] = rows[lane][at + 192 + i];
		for (int part = 0; part < 8; ++part) {
			const uint64_t two = quarters(qh + part / 4 * 32, part % 4 * 2);

			_mm_storeu_si128((__m128i *)low[part][lane], nibbles(ql + part / 4 * 64 + part % 2 * 32, part % 4 / 2 * 4));
			memcpy(high[part / 2][lane] + part % 2 * 8, &two, 8);
		}
	}
	for (int part = 0; part < 8; ++part)
		turn4(own_rows(low[part][0], 16, turned), 0, none, group + KNIT_PANEL_Q6_K_VECTORS + part * 256);
	for (int two = 0; two < 4; ++two)
		turn4(own_rows(high[two][0], 16, turned), 0, none, group + KNIT_PANEL_Q6_K_HIGH + two * 256);
}

static void pack_supers(knit_dtype t, const char *const rows[ROWS], int64_t columns, int64_t row_bytes, char *to) {
	const int64_t bytes = knit__bytes_of(t, KNIT_QK_K);

	for (int64_t b = 0; b < columns / KNIT_QK_K; ++b) {
		for (int64_t line = 0; line < bytes; line += 64)
			ahead(rows, b * bytes + line, ROWS * row_bytes);
		if (t == KNIT_Q4_K)
			pack_q4_k(rows, b * bytes, to + b * KNIT_PANEL_Q4_K_BYTES);
		else
			pack_q6_k(rows, b * bytes, to + b * KNIT_PANEL_Q6_K_BYTES);
	}
}

/* ------------------------------------------------------------------------------------------------------------------ */

static bool known(knit_dtype t) { return t == KNIT_Q8_0 || t == KNIT_Q4_0 || t == KNIT_Q4_K || t == KNIT_Q6_K; }

void knit__panels_pack_avx2(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin,
                            int64_t end) {
	const int64_t row_bytes = knit__bytes_of(t, columns), panel_bytes = knit__panel_bytes(t, columns);

	for (int64_t panel = begin; panel < end; ++panel) {
		const int64_t first = panel * ROWS;
		char *const to = out + panel * panel_bytes;
		const char *at[ROWS];

		if (!known(t) || rows - first < ROWS) { /* rows of zeros are filled in */
			knit__panels_pack(t, rows, columns, src, out, panel, panel + 1);
			continue;
		}
		own_rows(src + first * row_bytes, row_bytes, at);
		if (t == KNIT_Q8_0)
			pack_blocks(KNIT_Q8_0, at, columns, row_bytes, to);
		else if (t == KNIT_Q4_0)
			pack_blocks(KNIT_Q4_0, at, columns, row_bytes, to);
		else
			pack_supers(t, at, columns, row_bytes, to);
	}
}
