/* Owns the CPU kernel of rope. Angles are computed in double once per token and shared by its heads. Reference:
 * ops/rope.c. */
#include "kernels.h"
#include "operand.h"

#include <math.h>
#include <string.h>

enum { THETA, ROTARY, LAYOUT };

#define PIECE 64

/* Per thread: frequencies (double), then cosines and sines of one token (float). */
static uint64_t thread_bytes(int64_t rotary) { return ((uint64_t)rotary * 8 + 63) & ~UINT64_C(63); }

static uint64_t scratch(const knit_node_view *node, uint32_t threads) {
	return thread_bytes(node->attr[ROTARY].i) * threads;
}

static int64_t units(const knit_cpu_step *s) { return s->in[0].dims[0]; }

/* theta^(-2i/rotary) by repeated products: off by i roundings of double, far below what f32 can show. */
static void frequencies(double theta, int64_t rotary, double *out) {
	const double ratio = pow(theta, -2.0 / (double)rotary);

	out[0] = 1;
	for (int64_t i = 1; i < rotary / 2; ++i)
		out[i] = out[i - 1] * ratio;
}

/* Turns `pairs` pairs (x[i * step], x[i * step + gap]); y may be x. */
static void turn(const float *x, float *y, const float *c, const float *s, int64_t pairs, int64_t step, int64_t gap) {
	float a[PIECE], b[PIECE];

	for (int64_t at = 0; at < pairs; at += PIECE) {
		const int64_t n = knit__min(PIECE, pairs - at);

		for (int64_t i = 0; i < n; ++i) {
			const float u = x[(at + i) * step], v = x[(at + i) * step + gap];

			a[i] = u * c[at + i] - v * s[at + i];
			b[i] = u * s[at + i] + v * c[at + i];
		}
		for (int64_t i = 0; i < n; ++i) {
			y[(at + i) * step] = a[i];
			y[(at + i) * step + gap] = b[i];
		}
	}
}

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t heads = s->in[0].dims[1], dim = s->in[0].dims[2], rotary = s->attr[ROTARY].i, half = rotary / 2;
	const bool split = s->attr[LAYOUT].i == KNIT_ROPE_SPLIT;
	const int32_t *const pos = (const int32_t *)(void *)s->in[1].data;
	char *const own = s->scratch + thread_bytes(rotary) * thread;
	double *const frequency = (double *)(void *)own;
	float *const cosines = (float *)(void *)(own + half * 8), *const sines = cosines + half;

	if (half > 0)
		frequencies(s->attr[THETA].f, rotary, frequency);
	for (int64_t t = begin; t < end; ++t) {
		for (int64_t i = 0; i < half; ++i) {
			const double angle = (double)pos[t] * frequency[i];

			cosines[i] = (float)cos(angle);
			sines[i] = (float)sin(angle);
		}
		for (int64_t h = 0; h < heads; ++h) {
			const float *const x = knit__f32_row(&s->in[0], t * heads + h);
			float *const y = knit__f32_row(&s->out[0], t * heads + h);

			if (split)
				turn(x, y, cosines, sines, half, 1, half);
			else
				turn(x, y, cosines, sines, half, 2, 1);
			if (x != y)
				memcpy(y + rotary, x + rotary, (size_t)(dim - rotary) * sizeof *y);
		}
	}
}

static bool accepts(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && node->in[0].rank == 3 && knit__index_vector(&node->in[1]) &&
	       knit__f32_dense(&node->out[0]);
}

const knit_cpu_kernel knit__rope_plain = {"rope", KNIT_OP_ROPE, KNIT_CPU_PLAIN, accepts, scratch, {{units, run}}};
