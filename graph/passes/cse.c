/* Merges nodes that compute the same from the same, and views that show the same. Never a node that writes a state, and
 * never one whose result an output owns. */
#include "../pass.h"

#include <string.h>

/* Open addressing over node ids and over view ids; 0 is a free slot. */
typedef struct seen { knit_graph *g; uint32_t *nodes, *views; uint32_t cap; } seen;

/* ---- views ------------------------------------------------------------------------------------------------------- */

/* The stride of a dimension of one element says nothing. */
static knit_dim stride_of(const knit_value *v, int i) { return v->dims[i].v == 1 ? (knit_dim){0} : v->strides[i]; }

static bool same_window(const knit_value *a, const knit_value *b) {
	if (a->view_of != b->view_of || a->dtype != b->dtype || a->rank != b->rank || a->layout != b->layout ||
	    !knit__dim_equal(a->offset, b->offset))
		return false;
	for (int i = 0; i < a->rank; ++i)
		if (!knit__dim_equal(a->dims[i], b->dims[i]) || !knit__dim_equal(stride_of(a, i), stride_of(b, i)))
			return false;
	return true;
}

static uint64_t hash_window(const knit_value *v) {
	uint64_t h = knit__hash(KNIT__HASH_SEED, &v->view_of, sizeof v->view_of);

	h = knit__hash(h, &v->offset, sizeof v->offset);
	for (int i = 0; i < v->rank; ++i) {
		const knit_dim pair[2] = {v->dims[i], stride_of(v, i)};

		h = knit__hash(h, pair, sizeof pair);
	}
	return h;
}

/* Replaces view `id` by the first one that shows the same; true if there was one. */
static bool merge_view(seen *s, uint32_t id) {
	knit_graph *g = s->g;

	if (!id || !g->values[id].view_of)
		return false;
	uint32_t slot = (uint32_t)hash_window(&g->values[id]) & (s->cap - 1);
	while (s->views[slot] && !same_window(&g->values[s->views[slot]], &g->values[id]))
		slot = (slot + 1) & (s->cap - 1);
	if (!s->views[slot])
		s->views[slot] = id;
	return s->views[slot] != id && knit__replace_uses(g, id, s->views[slot]);
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static bool same_node(const knit_node *a, const knit_node *b) {
	return a->op == b->op && a->in_count == b->in_count && memcmp(a->in, b->in, a->in_count * sizeof *a->in) == 0 &&
	       memcmp(a->attr, b->attr, knit__op(a->op)->attr_count * sizeof *a->attr) == 0;
}

static uint64_t hash_node(const knit_node *n) {
	uint64_t h = knit__hash(KNIT__HASH_SEED, &n->op, sizeof n->op);

	h = knit__hash(h, n->in, n->in_count * sizeof *n->in);
	return knit__hash(h, n->attr, knit__op(n->op)->attr_count * sizeof *n->attr);
}

static bool mergeable(const knit_graph *g, const knit_node *n) {
	if (knit__op(n->op)->state_outputs)
		return false;
	for (int i = 0; i < n->out_count; ++i)
		if (knit__value_storage(g, n->out[i])->kind != KNIT_STORAGE_TEMP)
			return false;
	return true;
}

/* All outputs of `id` go over to `first`, or none: a use that cannot move keeps its node. */
static bool merge_node(seen *s, uint32_t id) {
	knit_graph *g = s->g;

	if (!mergeable(g, &g->nodes[id]))
		return false;
	uint32_t slot = (uint32_t)hash_node(&g->nodes[id]) & (s->cap - 1);
	while (s->nodes[slot] && !same_node(&g->nodes[s->nodes[slot]], &g->nodes[id]))
		slot = (slot + 1) & (s->cap - 1);
	if (!s->nodes[slot]) {
		s->nodes[slot] = id;
		return false;
	}
	const knit_node *first = &g->nodes[s->nodes[slot]], *second = &g->nodes[id];
	for (int i = 0; i < second->out_count; ++i)
		if (!knit__replace_uses(g, second->out[i], first->out[i]))
			return false;
	knit__node_remove(g, id);
	return true;
}

knit_status knit__pass_cse(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	seen s = {.g = g, .cap = 16};

	(void)t;
	while (s.cap / 2 < g->value_count || s.cap / 2 < g->node_count)
		s.cap *= 2;
	s.nodes = knit__alloc_array(g->a, s.cap, sizeof *s.nodes);
	s.views = knit__alloc_array(g->a, s.cap, sizeof *s.views);
	const bool memory = s.nodes && s.views;
	/* In order: when a node is met, its operands are merged already, so equal chains fold from the front. */
	for (uint32_t i = 0; memory && i < g->order_count;) {
		const uint32_t id = g->order[i];

		for (int k = 0; k < g->nodes[id].in_count; ++k)
			*changes += merge_view(&s, g->nodes[id].in[k]);
		if (merge_node(&s, id))
			++*changes; /* the next node has moved to place i */
		else
			++i;
	}
	for (uint32_t i = 0; memory && i < g->output_count; ++i)
		*changes += merge_view(&s, g->outputs[i].value);
	knit__free(g->a, s.nodes, s.cap * sizeof *s.nodes);
	knit__free(g->a, s.views, s.cap * sizeof *s.views);
	return memory ? KNIT_OK : knit__fail_memory(d, "cse", s.cap * sizeof *s.nodes);
}
