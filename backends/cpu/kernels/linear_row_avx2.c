/* Owns linear of one row of x by float weights, in AVX2: what decoding does. The sums are those of linear_avx2.c bit for
 * bit; what differs is the order in which memory is asked. It likes one stream: tiles of rows side by
 * side read a fifth less per second, however far ahead it asks. So here a weight row is read to its end, then the next, and
 * what is asked for in advance is simply what lies further on. The driver is linear.c; reference: ops/linear.c. */
#include "linear.h"
#include "operand.h"
#include "vec_avx2.h"

#define ROWS 4  /* weight rows whose lanes are added up together */
#define SPANS 8 /* spans of a row between two sums */
#define AHEAD 8192 /* bytes from what is read to what is asked for */

/* A piece of a weight row and the x that it meets, at most a span long. */
typedef struct piece {
	const float *x;
	const char *w;
	int64_t n;
} piece;

KNIT_INLINE int64_t bytes_of(const knit_dtype t, int64_t n) { return n * (t == KNIT_F32 ? 4 : 2); }

/* Into the first cache; the address may lie behind the matrix. */
KNIT_INLINE void ask(const char *p) { __builtin_prefetch(p, 0, 3); }

/* The lanes from element i to the end of a piece. */
KNIT_INLINE __m256 finish(const knit_dtype t, const piece *p, int64_t i, const char *ahead, __m256 acc) {
	const int64_t step = t == KNIT_F32 ? 16 : 32;

	for (; i + step <= p->n; i += step, ahead += 64) {
		ask(ahead);
		for (int64_t j = i; j < i + step; j += 8)
			acc = _mm256_fmadd_ps(_mm256_loadu_ps(p->x + j), knit__load8(t, p->w, j), acc);
	}
	for (; i + 8 <= p->n; i += 8)
		acc = _mm256_fmadd_ps(_mm256_loadu_ps(p->x + i), knit__load8(t, p->w, i), acc);
	if (i < p->n)
		acc = _mm256_fmadd_ps(knit__load8_some(KNIT_F32, (const char *)p->x, i, p->n - i),
		                      knit__load8_some(t, p->w, i, p->n - i), acc);
	return acc;
}

/* Two pieces at once: the additions of one are a chain, and a chain is not as fast as memory. The second follows the first
 * in memory, so lines are asked for two by two. */
KNIT_INLINE void pair(const knit_dtype t, const piece *a, const piece *b, float *lanes_a, float *lanes_b) {
	const int64_t both = a->n < b->n ? a->n : b->n, step = t == KNIT_F32 ? 16 : 32;
	__m256 s = _mm256_setzero_ps(), u = _mm256_setzero_ps();
	const char *ahead = a->w + AHEAD;
	int64_t i = 0;

	for (; i + step <= both; i += step, ahead += 128) {
		ask(ahead);
		ask(ahead + 64);
		for (int64_t j = i; j < i + step; j += 8) {
			s = _mm256_fmadd_ps(_mm256_loadu_ps(a->x + j), knit__load8(t, a->w, j), s);
			u = _mm256_fmadd_ps(_mm256_loadu_ps(b->x + j), knit__load8(t, b->w, j), u);
		}
	}
	_mm256_store_ps(lanes_a, finish(t, a, i, ahead, s));
	_mm256_store_ps(lanes_b, finish(t, b, i, ahead + bytes_of(t, a->n - i), u));
}

KNIT_INLINE void single(const knit_dtype t, const piece *a, float *lanes) {
	_mm256_store_ps(lanes, finish(t, a, 0, a->w + AHEAD, _mm256_setzero_ps()));
}

/* All spans of up to ROWS weight rows, k being at most SPANS spans; the lanes of span s of row c go to lanes[s][c]. */
KNIT_INLINE void rows_lanes(const knit_dtype t, const float *x, const char *w, int64_t w_stride, int64_t k, int64_t rows,
                            float lanes[SPANS][ROWS][8]) {
	int64_t c = 0;

	if (k <= KNIT_LINEAR_SPAN)
		for (; c + 2 <= rows; c += 2) {
			const piece a = {x, w + c * w_stride, k}, b = {x, w + (c + 1) * w_stride, k};

			pair(t, &a, &b, lanes[0][c], lanes[0][c + 1]);
		}
	for (; c < rows; ++c) {
		const char *const row = w + c * w_stride;
		int64_t s = 0, k0 = 0;

		for (; k0 + KNIT_LINEAR_SPAN < k; k0 += 2 * KNIT_LINEAR_SPAN, s += 2) {
			const int64_t k1 = k0 + KNIT_LINEAR_SPAN;
			const piece a = {x + k0, row + bytes_of(t, k0), KNIT_LINEAR_SPAN};
			const piece b = {x + k1, row + bytes_of(t, k1), knit__min(KNIT_LINEAR_SPAN, k - k1)};

			pair(t, &a, &b, lanes[s][c], lanes[s + 1][c]);
		}
		if (k0 < k) {
			const piece a = {x + k0, row + bytes_of(t, k0), k - k0};

			single(t, &a, lanes[s][c]);
		}
	}
}

KNIT_INLINE void row(const knit_linear_block *b, const knit_dtype t) {
	_Alignas(64) float lanes[SPANS][ROWS][8];
	_Alignas(16) float sum[ROWS];
	__m256 sums[ROWS];

	for (int64_t c = 0; c < b->columns; c += ROWS) {
		const int64_t rows = knit__min(ROWS, b->columns - c);
		bool add = b->add;

		for (int64_t k0 = 0; k0 < b->k; k0 += SPANS * KNIT_LINEAR_SPAN) {
			const int64_t k = knit__min(SPANS * KNIT_LINEAR_SPAN, b->k - k0);

			rows_lanes(t, (const float *)(const void *)b->x[0] + k0, b->w + c * b->w_stride + bytes_of(t, k0), b->w_stride, k,
			           rows, lanes);
			for (int64_t s = 0; s * KNIT_LINEAR_SPAN < k; ++s) {
				for (int64_t r = 0; r < ROWS; ++r)
					sums[r] = r < rows ? _mm256_load_ps(lanes[s][r]) : _mm256_setzero_ps();
				_mm_store_ps(sum, knit__sum4(sums));
				for (int64_t r = 0; r < rows; ++r)
					b->out[c + r] = add ? b->out[c + r] + sum[r] : sum[r];
				add = true;
			}
		}
	}
}

void knit__linear_row_f32_avx2(const knit_linear_block *b) { row(b, KNIT_F32); }
void knit__linear_row_f16_avx2(const knit_linear_block *b) { row(b, KNIT_F16); }
void knit__linear_row_bf16_avx2(const knit_linear_block *b) { row(b, KNIT_BF16); }
