/* Owns linear of one row of x by float weights, what decoding does, for every instruction set that has a lanes_*.h, which
 * the including file names first. The sums are those of its tiles bit for
 * bit; what differs is the order in which memory is asked. It likes one stream: tiles of weight rows side by
 * side read a fifth less per second, however far ahead they ask. So here a weight row is read to its end, then the next, and
 * what is asked for in advance is simply what lies further on. The driver is linear.c; reference: ops/linear.c. */
#ifndef KNIT_KERNELS_LINEAR_ROW_H
#define KNIT_KERNELS_LINEAR_ROW_H

#include "linear.h"
#include "operand.h"

#define ROWS KNIT_LANES_SUMS
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
KNIT_INLINE knit_lanes finish(const knit_dtype t, const piece *p, int64_t i, const char *ahead, knit_lanes acc) {
	const int64_t step = t == KNIT_F32 ? 16 : 32; /* a line */

	for (; i + step <= p->n; i += step, ahead += 64) {
		ask(ahead);
		for (int64_t j = i; j < i + step; j += KNIT_LANES_STEP)
			acc = knit__lanes_dot(t, p->x, p->w, j, acc);
	}
	for (; i + KNIT_LANES_STEP <= p->n; i += KNIT_LANES_STEP)
		acc = knit__lanes_dot(t, p->x, p->w, i, acc);
	if (i < p->n)
		acc = knit__lanes_dot_some(t, p->x, p->w, i, p->n - i, acc);
	return acc;
}

/* Two pieces at once: the additions of one are a chain, and a chain is not as fast as memory. The second follows the first
 * in memory, so lines are asked for two by two. */
KNIT_INLINE void pair(const knit_dtype t, const piece *a, const piece *b, float *lanes_a, float *lanes_b) {
	const int64_t both = a->n < b->n ? a->n : b->n, step = t == KNIT_F32 ? 16 : 32;
	knit_lanes s = knit__lanes_all(0), u = knit__lanes_all(0);
	const char *ahead = a->w + AHEAD;
	int64_t i = 0;

	for (; i + step <= both; i += step, ahead += 128) {
		ask(ahead);
		ask(ahead + 64);
		for (int64_t j = i; j < i + step; j += KNIT_LANES_STEP) {
			s = knit__lanes_dot(t, a->x, a->w, j, s);
			u = knit__lanes_dot(t, b->x, b->w, j, u);
		}
	}
	knit__lanes_store(lanes_a, finish(t, a, i, ahead, s));
	knit__lanes_store(lanes_b, finish(t, b, i, ahead + bytes_of(t, a->n - i), u));
}

KNIT_INLINE void single(const knit_dtype t, const piece *a, float *lanes) {
	knit__lanes_store(lanes, finish(t, a, 0, a->w + AHEAD, knit__lanes_all(0)));
}

/* All spans of up to ROWS weight rows, k being at most SPANS spans; the lanes of span s of row c go to lanes[s][c]. */
KNIT_INLINE void rows_lanes(const knit_dtype t, const float *x, const char *w, int64_t w_stride, int64_t k, int64_t rows,
                            float lanes[SPANS][ROWS][KNIT_LANES]) {
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
	_Alignas(64) float lanes[SPANS][ROWS][KNIT_LANES];
	knit_lanes sums[ROWS];

	for (int64_t c = 0; c < b->columns; c += ROWS) {
		const int64_t rows = knit__min(ROWS, b->columns - c);
		bool add = b->add;

		for (int64_t k0 = 0; k0 < b->k; k0 += SPANS * KNIT_LINEAR_SPAN) {
			const int64_t k = knit__min(SPANS * KNIT_LINEAR_SPAN, b->k - k0);

			rows_lanes(t, (const float *)(const void *)b->x[0] + k0, b->w + c * b->w_stride + bytes_of(t, k0), b->w_stride, k,
			           rows, lanes);
			for (int64_t s = 0; s * KNIT_LINEAR_SPAN < k; ++s) {
				for (int64_t r = 0; r < ROWS; ++r)
					sums[r] = r < rows ? knit__lanes_load(lanes[s][r]) : knit__lanes_all(0);
				knit__lanes_sums(b->out + c, sums, rows, add);
				add = true;
			}
		}
	}
}

#endif
