/* Owns the CPU kernel of rope. Reference: ops/rope.c. Included once by each variant, as whose loops a compiler vectorises it
 * (variant_*.h): they give the same bits. */
#ifndef KNIT_KERNELS_ROPE_H
#define KNIT_KERNELS_ROPE_H

#include "kernels.h"
#include "rotate.h"

enum { THETA, ROTARY, LAYOUT };

static uint64_t scratch(const knit_node_view *node, uint32_t threads) {
	return rotation_bytes(node->attr[ROTARY].i) * threads;
}

static int64_t units(const knit_cpu_step *s) { return s->in[0].dims[0]; }

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t heads = s->in[0].dims[1], dim = s->in[0].dims[2], rotary = s->attr[ROTARY].i;
	const int32_t *const pos = (const int32_t *)(void *)s->in[1].data;
	const rotation turn = rotation_of(s->attr[THETA].f, rotary, (knit_rope_layout)s->attr[LAYOUT].i,
	                                  s->scratch + rotation_bytes(rotary) * thread);

	for (int64_t t = begin; t < end; ++t) {
		rotation_turn_to(&turn, pos[t]);
		for (int64_t h = 0; h < heads; ++h)
			rotate_head(&turn, rotate_row(&s->in[0], t, h), rotate_row(&s->out[0], t, h), dim);
	}
}

static bool accepts(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && node->in[0].rank == 3 && knit__index_vector(&node->in[1]) &&
	       knit__f32_dense(&node->out[0]);
}

const knit_cpu_kernel KNIT_VARIANT(rope) = {
	KNIT_VARIANT_NAME("rope"), KNIT_OP_ROPE, KNIT_VARIANT_ISA, accepts, scratch, {{units, run}}};

#endif
