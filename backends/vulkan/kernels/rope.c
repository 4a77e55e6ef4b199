/* Owns the kernel of rope, and the table of frequencies for all kernels that turn pairs. Reference: ops/rope.c. */
#include "rope.h"
#include "kernels.h"

#include <math.h>

enum { THETA, ROTARY, LAYOUT };

/* 1 / (2 pi) */
#define TURN_HIGH 0x1.45f306dc9c883p-3
#define TURN_LOW (-0x1.6b01ec5417056p-57)

/* An angle per position as a fraction of a turn in 64 bits; whole turns do not count. */
static uint64_t turns(double angle) {
	double high = angle * TURN_HIGH;
	const double low = fma(angle, TURN_HIGH, -high) + angle * TURN_LOW;

	high -= floor(high);
	const double upper = floor(high * 0x1p32), rest = (high * 0x1p32 - upper) + low * 0x1p32;
	if (!(fabs(rest) < 0x1p30)) /* angles past any use: nothing is left of them in a double either */
		return (uint64_t)upper << 32;
	return ((uint64_t)upper << 32) + (uint64_t)(int64_t)floor(rest * 0x1p32);
}

uint64_t knit__vk_rope_table_bytes(int64_t rotary) { return (uint64_t)(rotary > 2 ? rotary / 2 : 1) * sizeof(uint64_t); }

void knit__vk_rope_table(double theta, int64_t rotary, uint64_t *out) {
	out[0] = 0;
	for (int64_t i = 0; i < rotary / 2; ++i)
		out[i] = turns(pow(theta, -2.0 * (double)i / (double)rotary));
}

void knit__vk_rope_params(const knit_vk_tensor *q, const knit_vk_tensor *result, int64_t rotary, int64_t layout,
                          struct knit_kv_write_params *p) {
	p->tokens = (uint)q->dims[0];
	p->rotary = (uint)rotary;
	p->split = layout == KNIT_ROPE_SPLIT;
	p->result_at = (uint)result->offset;
	p->q_at = (uint)q->offset;
	p->q_token = (uint)q->strides[0];
	p->q_head = (uint)q->strides[1];
	p->q_dim = (uint)q->dims[2];
	p->q_n = (uint)(q->dims[1] * q->dims[2]);
	p->q_units = knit__vk_kv_units(q->dims[1] * ((q->dims[2] + 1) / 2));
}

void knit__vk_kv_groups(const knit_vk_caps *caps, struct knit_kv_write_params *p, uint32_t groups[3]) {
	const uint64_t units = (uint64_t)p->q_units + p->k_units + p->v_units;
	const uint64_t count = knit__vk_ceil_div(units * p->tokens, knit__vk_local(caps, KNIT_VK_KV_WIDTH));

	p->groups = (uint)count;
	knit__vk_grid(caps, count, groups);
}

knit_vk_dispatch knit__vk_kv_dispatch(const knit_vk_caps *caps) {
	return (knit_vk_dispatch){.shader = "kv_write",
	                          .spec = {knit__vk_local(caps, KNIT_VK_KV_WIDTH)},
	                          .spec_count = 1,
	                          .bindings = {[KNIT_VK_KV_RESULT] = knit__vk_out(0),
	                                       [KNIT_VK_KV_KSTATE] = knit__vk_out(0),
	                                       [KNIT_VK_KV_VSTATE] = knit__vk_out(0)},
	                          .binding_count = KNIT_VK_KV_BINDINGS};
}

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0];

	return knit__vk_f32_rows(x) && x->rank == 3 && knit__vk_index_vector(&node->in[1]) &&
	       knit__vk_f32_dense(&node->out[0]) && knit__vk_all_bind(caps, node, 0);
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)s;
	if (!out || cap < 1)
		return 1;
	*out = knit__vk_kv_dispatch(caps);
	out->bindings[KNIT_VK_KV_Q] = knit__vk_in(0);
	out->bindings[KNIT_VK_KV_POS] = knit__vk_in(1);
	out->bindings[KNIT_VK_KV_TABLE] = (knit_vk_binding){.source = KNIT_VK_TABLE};
	out->bindings[KNIT_VK_KV_RESULT] = knit__vk_out(0);
	return 1;
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	struct knit_kv_write_params *const p = params;

	(void)index;
	knit__vk_rope_params(&s->in[0], &s->out[0], s->attr[ROTARY].i, s->attr[LAYOUT].i, p);
	p->pos_at = (uint)s->in[1].offset;
	knit__vk_kv_groups(caps, p, groups);
}

static uint64_t table_bytes(const knit_vk_caps *caps, const knit_vk_step *s) {
	(void)caps;
	return knit__vk_rope_table_bytes(s->attr[ROTARY].i);
}

static void table_fill(const knit_vk_caps *caps, const knit_vk_step *s, void *out) {
	(void)caps;
	knit__vk_rope_table(s->attr[THETA].f, s->attr[ROTARY].i, out);
}

const knit_vk_kernel knit__vk_rope = {.name = "rope",
                                      .op = KNIT_OP_ROPE,
                                      .accepts = accepts,
                                      .plan = plan,
                                      .fill = fill,
                                      .table_bytes = table_bytes,
                                      .table_fill = table_fill};
