/* Owns the CPU kernels of softmax and argmax: what looks at a whole row. References: ops/reduce.c. Included once by each
 * variant, as whose loops a compiler vectorises it (variant_*.h): they give the same bits. */
#ifndef KNIT_KERNELS_SOFTMAX_ARGMAX_H
#define KNIT_KERNELS_SOFTMAX_ARGMAX_H

#include "exp.h"
#include "kernels.h"
#include "operand.h"

#include <math.h>

#define LANES 8
#define PIECE 256

/* A NaN is never the largest, as in the reference; in softmax it makes its way through the sum. */
static float row_max(const float *x, int64_t n) {
	float lanes[LANES], max;
	int64_t i = 0;

	for (int64_t l = 0; l < LANES; ++l)
		lanes[l] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int64_t l = 0; l < LANES; ++l)
			lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
	max = lanes[0];
	for (int64_t l = 1; l < LANES; ++l)
		max = lanes[l] > max ? lanes[l] : max;
	for (; i < n; ++i)
		max = x[i] > max ? x[i] : max;
	return max;
}

/* Rows may be a vocabulary long: the sum of pieces is kept in double. x may be y. A row of -inf alone has no largest
 * element to subtract, and gives NaN. */
static void row_softmax(const float *x, float *y, int64_t n) {
	const float max = row_max(x, n);
	float e[PIECE];
	double sum = 0;

	for (int64_t at = 0; at < n; at += PIECE) {
		const int64_t piece = knit__min(PIECE, n - at);
		float lanes[LANES] = {0};

		for (int64_t i = 0; i < piece; ++i)
			e[i] = knit__expf(x[at + i] - max);
		for (int64_t i = 0; i < piece; ++i)
			lanes[i % LANES] += e[i];
		for (int64_t l = 0; l < LANES; ++l)
			sum += (double)lanes[l];
		memcpy(y + at, e, (size_t)piece * sizeof *e);
	}

	const float factor = (float)(1 / sum);
	for (int64_t i = 0; i < n; ++i)
		y[i] *= factor;
}

/* The lowest index among equals: whole pieces are passed over unless they hold something larger than the best. */
static int32_t row_argmax(const float *x, int64_t n) {
	float max = -INFINITY;
	int64_t best = -1;

	for (int64_t at = 0; at < n; at += PIECE) {
		const int64_t piece = knit__min(PIECE, n - at);

		if (best >= 0 && !(row_max(x + at, piece) > max))
			continue;
		for (int64_t i = at; i < at + piece; ++i) {
			if (x[i] > max || (best < 0 && !isnan(x[i]))) {
				max = x[i];
				best = i;
			}
		}
	}
	return best < 0 ? 0 : (int32_t)best;
}

static int64_t units(const knit_cpu_step *s) {
	return knit__ceil_div(knit__cpu_outer(&s->in[0], 1), knit__rows_per_unit(knit__row_length(&s->in[0])));
}

static void run_softmax(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t n = knit__row_length(&s->in[0]), step = knit__rows_per_unit(n);
	const int64_t last = knit__min(end * step, knit__cpu_outer(&s->in[0], 1));

	(void)thread;
	for (int64_t r = begin * step; r < last; ++r)
		row_softmax(knit__f32_row(&s->in[0], r), knit__f32_row(&s->out[0], r), n);
}

static void run_argmax(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t n = knit__row_length(&s->in[0]), step = knit__rows_per_unit(n);
	const int64_t last = knit__min(end * step, knit__cpu_outer(&s->in[0], 1));
	int32_t *const out = (int32_t *)(void *)s->out[0].data;

	(void)thread;
	for (int64_t r = begin * step; r < last; ++r)
		out[r] = row_argmax(knit__f32_row(&s->in[0], r), n);
}

static bool accepts_softmax(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && knit__f32_dense(&node->out[0]);
}

static bool accepts_argmax(const knit_node_view *node) {
	const knit_operand_view *const out = &node->out[0];

	return knit__f32_rows(&node->in[0]) && out->dtype == KNIT_I32 && out->layout == 0 && out->contiguous;
}

const knit_cpu_kernel KNIT_VARIANT(softmax) = {
	KNIT_VARIANT_NAME("softmax"), KNIT_OP_SOFTMAX, KNIT_VARIANT_ISA, accepts_softmax, NULL, {{units, run_softmax}}};
const knit_cpu_kernel KNIT_VARIANT(argmax) = {
	KNIT_VARIANT_NAME("argmax"), KNIT_OP_ARGMAX, KNIT_VARIANT_ISA, accepts_argmax, NULL, {{units, run_argmax}}};

#endif
