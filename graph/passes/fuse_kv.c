/* Fuses what a visit does to its KV slot before it attends: queries and keys are rotated, keys and values appended. An
 * attention shows which four nodes belong together. */
#include "../fused.h"
#include "fuse.h"

#include <string.h>

enum { ATTENTION_Q, ATTENTION_K, ATTENTION_V };
enum { APPEND_STATE, APPEND_ROWS, APPEND_SEQ, APPEND_POS };
enum { ROPE_X, ROPE_POS };
enum { ROPE_THETA, ROPE_ROTARY, ROPE_LAYOUT, ROPE_ATTRS };
enum { APPEND_RING, APPEND_SINKS, APPEND_ATTRS };

/* The value itself, or what a view that shows all of it in order is a window on; 0 for any other view. */
static uint32_t whole(const knit_graph *g, uint32_t value) {
	const knit_value *v = knit__value(g, value);
	uint64_t shown, all;

	if (!v->view_of)
		return value;
	if (v->offset.v != 0 || !knit__value_contiguous(g, value) || !knit__value_max_elements(g, NULL, value, &shown) ||
		!knit__value_max_elements(g, NULL, v->view_of, &all) || shown != all)
		return 0;
	return v->view_of;
}

static bool same_attrs(const knit_node *a, const knit_node *b, uint32_t count) {
	return memcmp(a->attr, b->attr, count * sizeof *a->attr) == 0;
}

static bool rule(knit_fuser *f, uint32_t node) {
	const knit_graph *g = f->g;
	const knit_node *attention = &g->nodes[node];

	if (attention->op != KNIT_OP_ATTENTION)
		return false;
	const uint32_t q_rope = knit__fuse_writer(f, knit__value_root(g, attention->in[ATTENTION_Q]), KNIT_OP_ROPE);
	const uint32_t k_append =
		knit__fuse_writer(f, knit__value_root(g, attention->in[ATTENTION_K]), KNIT_OP_STATE_APPEND);
	const uint32_t v_append =
		knit__fuse_writer(f, knit__value_root(g, attention->in[ATTENTION_V]), KNIT_OP_STATE_APPEND);
	if (!q_rope || !k_append || !v_append || k_append == v_append)
		return false;
	const knit_node *q = &g->nodes[q_rope], *k = &g->nodes[k_append], *v = &g->nodes[v_append];
	const uint32_t k_rope = knit__fuse_writer(f, whole(g, k->in[APPEND_ROWS]), KNIT_OP_ROPE);
	if (!k_rope || k_rope == q_rope)
		return false;
	const knit_node *turn = &g->nodes[k_rope];
	if (!same_attrs(q, turn, ROPE_ATTRS) || !same_attrs(k, v, APPEND_ATTRS) || k->in[APPEND_SEQ] != v->in[APPEND_SEQ] ||
		k->in[APPEND_POS] != v->in[APPEND_POS] || q->in[ROPE_POS] != k->in[APPEND_POS] ||
		turn->in[ROPE_POS] != k->in[APPEND_POS])
		return false;

	const knit_fusion u = {.op = KNIT_OP_KV_WRITE,
						   .main = node,
						   .in = {[KNIT_KV_KSTATE] = k->in[APPEND_STATE],
								  [KNIT_KV_VSTATE] = v->in[APPEND_STATE],
								  [KNIT_KV_Q] = q->in[ROPE_X],
								  [KNIT_KV_K] = turn->in[ROPE_X],
								  [KNIT_KV_V] = v->in[APPEND_ROWS],
								  [KNIT_KV_SEQ] = k->in[APPEND_SEQ],
								  [KNIT_KV_POS] = k->in[APPEND_POS]},
						   .in_count = KNIT_KV_OPERANDS,
						   .out = {k->out[0], v->out[0], q->out[0]},
						   .out_count = 3,
						   .part = {q_rope, k_rope, k_append, v_append},
						   .part_count = 4,
						   .attr = {[KNIT_KV_THETA] = q->attr[ROPE_THETA],
									[KNIT_KV_ROTARY] = q->attr[ROPE_ROTARY],
									[KNIT_KV_LAYOUT] = q->attr[ROPE_LAYOUT],
									[KNIT_KV_RING] = k->attr[APPEND_RING],
									[KNIT_KV_SINKS] = k->attr[APPEND_SINKS]}};

	return knit__fuse(f, &u);
}

knit_status knit__pass_fuse_kv(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	knit_fuser f;

	if (knit__fuser_open(&f, g, t))
		knit__fuse_everywhere(&f, KNIT_FUSE_FORWARDS, rule);
	return knit__fuser_close(&f, changes, d);
}
