/* Brings graphs that mean the same into the same form: what an op can say of itself (scale by 1, copy of contiguous
 * bytes), operands of commutative ops in order of their ids, views that show the whole of their root. Never removes
 * what is only equal to something else (cse) or unused (dce). */
#include "../pass.h"

static bool same_type(const knit_graph *g, uint32_t a, uint32_t b) {
	const knit_value *x = knit__value(g, a), *y = knit__value(g, b);

	if (x->dtype != y->dtype || x->rank != y->rank || x->layout != y->layout)
		return false;
	for (int i = 0; i < x->rank; ++i)
		if (!knit__dim_equal(x->dims[i], y->dims[i]))
			return false;
	return true;
}

/* A node whose output 0 another value can stand in for. A state is never one: it would be read later, perhaps after
 * the next write. An output's own bytes stay. */
static bool simplify(knit_graph *g, uint32_t id) {
	const knit_op_def *def = knit__op(g->nodes[id].op);
	const uint32_t out = g->nodes[id].out[0];

	if (!def->simplify || def->state_outputs || def->out_count != 1)
		return false;
	const uint32_t by = def->simplify(g, id);
	if (!by || by == out || !same_type(g, out, by) || knit__value_storage(g, by)->kind == KNIT_STORAGE_STATE ||
	    knit__value_storage(g, out)->kind != KNIT_STORAGE_TEMP || !knit__replace_uses(g, out, by))
		return false;
	knit__node_remove(g, id);
	return true;
}

static bool order_operands(knit_graph *g, uint32_t id) {
	knit_node *n = &g->nodes[id];

	if (!(knit__op(n->op)->flags & KNIT_OP_COMMUTATIVE) || n->in[0] <= n->in[1] || !same_type(g, n->in[0], n->in[1]))
		return false;
	const uint32_t first = n->in[0];
	n->in[0] = n->in[1];
	n->in[1] = first;
	return true;
}

/* A view that shows all of its root in its root's own shape. */
static bool shows_whole(const knit_graph *g, uint32_t id) {
	const knit_value *v = knit__value(g, id);

	return v->view_of && v->offset.v == 0 && same_type(g, id, v->view_of) && knit__value_contiguous(g, id);
}

knit_status knit__pass_canonicalise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	uint32_t *uses = knit__alloc_array(g->a, g->value_count, sizeof *uses);
	const uint32_t count = g->value_count;

	(void)t;
	if (!uses)
		return knit__fail_memory(d, "canonicalise", count * sizeof *uses);
	knit__count_uses(g, uses);
	for (uint32_t i = 1; i < count; ++i) {
		if (uses[i] && shows_whole(g, i) && knit__replace_uses(g, i, g->values[i].view_of))
			++*changes;
	}
	knit__free(g->a, uses, count * sizeof *uses);

	for (uint32_t i = 0; i < g->order_count;) {
		const uint32_t id = g->order[i];

		*changes += order_operands(g, id);
		if (simplify(g, id))
			++*changes; /* the next node has moved to place i */
		else
			++i;
	}
	return KNIT_OK;
}
