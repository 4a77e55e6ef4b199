/* Computes linears over the same x in one step (query, key and value; gate and up where they were not fused). Their
 * weights stay apart: nothing is stacked. Leaves alone what has a bias or a residual. */
#include "../fused.h"
#include "fuse.h"

/* A linear over x without anything added to it. */
static bool is_sibling(const knit_graph *g, uint32_t node, uint32_t x) {
	const knit_node *n = &g->nodes[node];

	if (n->op != KNIT_OP_LINEAR && n->op != KNIT_OP_LINEAR_LORA)
		return false;
	return n->in[0] == x && !n->in[KNIT_LORA_BIAS] && !n->in[KNIT_LORA_RESIDUAL];
}

/* All adapters of a group are chosen by the same operands. */
static bool take_choice(knit_fusion *u, const knit_node *n) {
	static const uint32_t from[] = {KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ}, to[] = {KNIT_GROUP_ADAPTERS, KNIT_GROUP_SEQ};

	for (int i = 0; i < 2; ++i) {
		if (u->in[to[i]] && u->in[to[i]] != n->in[from[i]])
			return false;
		u->in[to[i]] = n->in[from[i]];
	}
	return true;
}

static bool fuse_group(knit_fuser *f, const uint32_t *nodes, uint32_t count) {
	const knit_graph *g = f->g;
	knit_fusion u = {.op = KNIT_OP_LINEAR_GROUP,
					 .main = nodes[0],
					 .in = {[KNIT_GROUP_X] = g->nodes[nodes[0]].in[0]},
					 .out_count = (uint8_t)count,
					 .part_count = (uint8_t)count,
					 .attr = {[KNIT_GROUP_N].i = count}};
	bool lora = false;

	for (uint32_t i = 0; i < count; ++i) {
		const knit_node *n = &g->nodes[nodes[i]];
		const bool has_lora = n->in[KNIT_LORA_A] != 0;

		for (uint32_t k = 0; k < 3; ++k)
			u.in[KNIT_GROUP_W + 3 * i + k] = n->in[KNIT_LORA_W + k];
		u.attr[KNIT_GROUP_S + i].f = has_lora ? n->attr[0].f : 0;
		u.out[i] = n->out[0];
		u.part[i] = nodes[i];
		/* The first LoRA says how adapters are chosen, "by nothing" included. */
		if (has_lora && lora && !n->in[KNIT_LORA_ADAPTERS] != !u.in[KNIT_GROUP_ADAPTERS])
			return false;
		if (has_lora && !take_choice(&u, n))
			return false;
		lora = lora || has_lora;
	}
	for (uint32_t i = 0; i < KNIT_GROUP_OPERANDS; ++i)
		if (u.in[i])
			u.in_count = (uint8_t)(i + 1);
	return knit__fuse(f, &u);
}

/* The node with the next two siblings, or with one: the nearest that goes. */
static bool rule(knit_fuser *f, uint32_t node) {
	const knit_graph *g = f->g;
	const uint32_t x = g->nodes[node].in[0];
	uint32_t nodes[KNIT_GROUP_MAX] = {node}, count = 1;

	if (!is_sibling(g, node, x))
		return false;
	for (uint32_t i = f->place[node]; i < g->order_count && count < KNIT_GROUP_MAX; ++i)
		if (is_sibling(g, g->order[i], x))
			nodes[count++] = g->order[i];
	if (count == KNIT_GROUP_MAX && fuse_group(f, nodes, KNIT_GROUP_MAX))
		return true;
	for (uint32_t i = f->place[node]; count > 1 && i < f->g->order_count; ++i) {
		if (!is_sibling(f->g, f->g->order[i], x))
			continue;
		nodes[1] = f->g->order[i];
		if (fuse_group(f, nodes, 2))
			return true;
	}
	return false;
}

knit_status knit__pass_merge_siblings(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	knit_fuser f;

	if (knit__fuser_open(&f, g, t))
		knit__fuse_everywhere(&f, KNIT_FUSE_FORWARDS, rule);
	return knit__fuser_close(&f, changes, d);
}
