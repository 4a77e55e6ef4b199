/* Owns the CPU kernel of rope. Angles are computed in double once per token and shared by its heads. Reference:
 * ops/rope.c. */
#include "rope.h"
#include "kernels.h"
#include "operand.h"

#include <math.h>
#include <string.h>

enum { THETA, ROTARY, LAYOUT };

#define PIECE 64

static uint64_t scratch(const knit_node_view *node, uint32_t threads) {
	return knit__rope_table_bytes(node->attr[ROTARY].i) * threads;
}

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

knit_rope_table knit__rope_table(double theta, int64_t rotary, knit_rope_layout layout, char *memory) {
	const int64_t half = rotary / 2;
	float *const cosines = (float *)(void *)(memory + half * 8);
	const knit_rope_table t = {half, layout, (double *)(void *)memory, cosines, cosines + half};

	if (half > 0)
		frequencies(theta, rotary, t.frequencies);
	return t;
}

void knit__rope_turn_to(const knit_rope_table *t, int32_t pos) {
	for (int64_t i = 0; i < t->half; ++i) {
		const double angle = (double)pos * t->frequencies[i];

		t->cosines[i] = (float)cos(angle);
		t->sines[i] = (float)sin(angle);
	}
}

void knit__rope_head(const knit_rope_table *t, const float *x, float *y, int64_t dim) {
	if (t->layout == KNIT_ROPE_SPLIT)
		turn(x, y, t->cosines, t->sines, t->half, 1, t->half);
	else
		turn(x, y, t->cosines, t->sines, t->half, 2, 1);
	if (x != y)
		memcpy(y + 2 * t->half, x + 2 * t->half, (size_t)(dim - 2 * t->half) * sizeof *y);
}

static int64_t units(const knit_cpu_step *s) { return s->in[0].dims[0]; }

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t heads = s->in[0].dims[1], dim = s->in[0].dims[2], rotary = s->attr[ROTARY].i;
	const int32_t *const pos = (const int32_t *)(void *)s->in[1].data;
	const knit_rope_table table = knit__rope_table(s->attr[THETA].f, rotary, (knit_rope_layout)s->attr[LAYOUT].i,
	                                               s->scratch + knit__rope_table_bytes(rotary) * thread);

	for (int64_t t = begin; t < end; ++t) {
		knit__rope_turn_to(&table, pos[t]);
		for (int64_t h = 0; h < heads; ++h)
			knit__rope_head(&table, knit__f32_row(&s->in[0], t * heads + h), knit__f32_row(&s->out[0], t * heads + h), dim);
	}
}

static bool accepts(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && node->in[0].rank == 3 && knit__index_vector(&node->in[1]) &&
	       knit__f32_dense(&node->out[0]);
}

const knit_cpu_kernel knit__rope_plain = {"rope", KNIT_OP_ROPE, KNIT_CPU_PLAIN, accepts, scratch, {{units, run}}};
