/* Owns the replacing of several nodes by one: what is legal for every fusion is decided here, once. Knows no pattern.
 */
#include "fuse.h"

#include <string.h>

/* ---- the fuser --------------------------------------------------------------------------------------------------- */

static bool recount(knit_fuser *f) {
	const knit_graph *g = f->g;

	if (!knit__grow(g->a, (void **)&f->uses, &f->uses_cap, g->value_count, sizeof *f->uses) ||
		!knit__grow(g->a, (void **)&f->place, &f->place_cap, g->node_count, sizeof *f->place)) {
		f->status = KNIT_ERR_MEMORY;
		return false;
	}
	knit__count_uses(g, f->uses);
	memset(f->place, 0, g->node_count * sizeof *f->place);
	for (uint32_t i = 0; i < g->order_count; ++i)
		f->place[g->order[i]] = i + 1;
	return true;
}

bool knit__fuser_open(knit_fuser *f, knit_graph *g, const knit_target *target) {
	*f = (knit_fuser){.g = g, .target = target, .status = KNIT_OK};
	return recount(f);
}

knit_status knit__fuser_close(knit_fuser *f, uint32_t *changes, knit_diag *d) {
	knit__free(f->g->a, f->uses, f->uses_cap * sizeof *f->uses);
	knit__free(f->g->a, f->place, f->place_cap * sizeof *f->place);
	*changes += f->changes;
	return f->status == KNIT_OK ? KNIT_OK : knit__fail_memory(d, "fusing", f->place_cap * sizeof *f->place);
}

uint32_t knit__fuse_writer(const knit_fuser *f, uint32_t value, uint16_t op) {
	const uint32_t node = value ? f->g->values[value].producer : 0;

	return node && f->g->nodes[node].op == op ? node : 0;
}

/* ---- legality ---------------------------------------------------------------------------------------------------- */

static bool is_part(const knit_fusion *u, uint32_t node) {
	for (uint32_t i = 0; i < u->part_count; ++i)
		if (u->part[i] == node)
			return true;
	return false;
}

static bool names(const uint32_t *values, uint32_t count, uint32_t value) {
	for (uint32_t i = 0; i < count; ++i)
		if (values[i] == value)
			return true;
	return false;
}

/* How many operands of the parts show bytes of `value`. */
static uint32_t uses_by_parts(const knit_fuser *f, const knit_fusion *u, uint32_t value) {
	uint32_t uses = 0;

	for (uint32_t i = 0; i < u->part_count; ++i) {
		const knit_node *n = &f->g->nodes[u->part[i]];

		for (uint32_t k = 0; k < n->in_count; ++k)
			uses += n->in[k] && knit__value_root(f->g, n->in[k]) == value;
	}
	return uses;
}

/* The parts are different nodes, and what they write is an output of the fused node or theirs alone. */
static bool parts_closed(const knit_fuser *f, const knit_fusion *u) {
	for (uint32_t i = 0; i < u->part_count; ++i) {
		const knit_node *n = &f->g->nodes[u->part[i]];
		const uint32_t states = knit__op(n->op)->state_outputs;

		if (names(u->part, i, u->part[i]))
			return false;
		for (uint32_t k = 0; k < n->out_count; ++k) {
			if (names(u->out, u->out_count, n->out[k]))
				continue;
			if (k < states || f->uses[n->out[k]] != uses_by_parts(f, u, n->out[k]))
				return false;
		}
	}
	for (uint32_t i = 0; i < u->in_count; ++i)
		if (u->in[i] && is_part(u, knit__value_producer(f->g, u->in[i])))
			return false;
	return true;
}

/* The op takes these operands and gives what the parts' outputs are. */
static bool types_fit(const knit_fuser *f, const knit_fusion *u) {
	const knit_op_def *def = knit__op(u->op);
	knit_graph *g = f->g;
	knit_diag why = {0};
	knit_infer c = {.graph = g,
					.in_count = u->in_count,
					.attr = u->attr,
					.op = def->name,
					.origin = "",
					.diag = &why,
					.out_count = def->out_count};

	for (uint32_t i = 0; i < u->in_count; ++i)
		c.in[i] = u->in[i] ? &g->values[u->in[i]] : NULL;
	if (!def->infer(&c) || c.out_count != u->out_count)
		return false;
	for (uint32_t i = 0; i < u->out_count; ++i) {
		const knit_value *v = knit__value(g, u->out[i]);
		const bool state = knit__value_storage(g, u->out[i])->kind == KNIT_STORAGE_STATE;

		if (v->view_of || state != (i < def->state_outputs))
			return false;
		if (state)
			continue;
		if (v->dtype != c.out[i].dtype || v->rank != c.out[i].rank)
			return false;
		for (int k = 0; k < v->rank; ++k)
			if (!knit__dim_equal(v->dims[k], c.out[i].dims[k]))
				return false;
	}
	return true;
}

/* Whether node `other`, at its place, allows the fused node at `place` (counted from 1). */
static bool order_allows(const knit_fuser *f, const knit_fusion *u, uint32_t place, uint32_t other) {
	const knit_graph *g = f->g;
	const knit_node *n = &g->nodes[other];
	const bool before = f->place[other] < place;

	for (uint32_t k = 0; k < n->in_count; ++k) {
		const uint32_t root = n->in[k] ? knit__value_root(g, n->in[k]) : 0;

		if (!root)
			continue;
		if (before && names(u->out, u->out_count, root))
			return false; /* reads what is not written yet */
		if (!before && names(u->in, knit__op(u->op)->state_outputs, root))
			return false; /* reads a version that is overwritten by then */
	}
	for (uint32_t k = 0; before && k < knit__op(n->op)->state_outputs; ++k)
		for (uint32_t i = 0; i < u->in_count; ++i)
			if (u->in[i] && knit__value_root(g, u->in[i]) == n->in[k])
				return false; /* has overwritten what the fused node reads */
	return true;
}

static bool place_allowed(const knit_fuser *f, const knit_fusion *u, uint32_t place) {
	const knit_graph *g = f->g;

	for (uint32_t i = 0; i < u->in_count; ++i) {
		const uint32_t writer = u->in[i] ? knit__value_producer(g, u->in[i]) : 0;

		if (writer && f->place[writer] >= place)
			return false;
	}
	for (uint32_t i = 0; i < g->order_count; ++i)
		if (!is_part(u, g->order[i]) && !order_allows(f, u, place, g->order[i]))
			return false;
	return true;
}

/* The part whose place the fused node can take, the last one if there are several; 0 if there is none. */
static uint32_t find_place(const knit_fuser *f, const knit_fusion *u) {
	uint32_t best = 0;

	for (uint32_t i = 0; i < u->part_count; ++i)
		if ((!best || f->place[u->part[i]] > f->place[best]) && place_allowed(f, u, f->place[u->part[i]]))
			best = u->part[i];
	return best;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* "linear+scale+add": what the parts are called, or were made of. UINT32_MAX out of memory. */
static uint32_t parts_text(const knit_graph *g, const knit_fusion *u, knit_strings *strings) {
	knit_text t = {.a = g->a};

	for (uint32_t i = 0; i < u->part_count; ++i) {
		const knit_node *n = &g->nodes[u->part[i]];

		knit__text_add(&t, "%s%s", i ? "+" : "",
					   n->parts ? knit__strings_get(&g->strings, n->parts) : knit__op(n->op)->name);
	}
	const uint32_t id = t.failed ? UINT32_MAX : knit__strings_intern(strings, t.data);
	knit__text_clear(&t);
	return id;
}

static bool accepted(const knit_fuser *f, uint32_t node) {
	knit_node_view view;

	if (!f->target)
		return true;
	knit__node_view(f->g, NULL, node, &view);
	return f->target->select(f->target->device, &view) != 0;
}

bool knit__fuse(knit_fuser *f, const knit_fusion *u) {
	knit_graph *g = f->g;

	if (f->status != KNIT_OK || !parts_closed(f, u) || !types_fit(f, u))
		return false;
	const uint32_t at = find_place(f, u);
	if (!at)
		return false;

	const uint32_t id = g->node_count;
	knit_node node = {
		.op = u->op, .in_count = u->in_count, .out_count = u->out_count, .origin = g->nodes[u->main].origin};
	memcpy(node.in, u->in, sizeof node.in);
	memcpy(node.out, u->out, sizeof node.out);
	memcpy(node.attr, u->attr, sizeof node.attr);
	if (!knit__grow(g->a, (void **)&g->nodes, &g->node_cap, id + 1, sizeof *g->nodes)) {
		f->status = KNIT_ERR_MEMORY;
		return false;
	}
	g->nodes[id] = node; /* not in the graph yet: the target is to see it first */
	if (!accepted(f, id)) {
		g->nodes[id] = (knit_node){0};
		return false;
	}
	g->nodes[id].parts = parts_text(g, u, &g->strings);
	if (g->nodes[id].parts == UINT32_MAX) {
		g->nodes[id] = (knit_node){0};
		f->status = KNIT_ERR_MEMORY;
		return false;
	}

	g->node_count++;
	g->order[f->place[at] - 1] = id;
	g->nodes[at].op = KNIT_OP_NONE;
	for (uint32_t i = 0; i < u->part_count; ++i)
		if (u->part[i] != at)
			knit__node_remove(g, u->part[i]);
	for (uint32_t i = 0; i < u->out_count; ++i)
		g->values[u->out[i]].producer = id;
	f->changes++;
	return recount(f);
}

static bool sweep(knit_fuser *f, knit_fuse_direction direction, bool (*rule)(knit_fuser *f, uint32_t node)) {
	bool any = false;

	/* A rule shortens the order: what it skips or meets again comes up in the next sweep. */
	if (direction == KNIT_FUSE_FORWARDS) {
		for (uint32_t i = 0; i < f->g->order_count && f->status == KNIT_OK; ++i)
			any = rule(f, f->g->order[i]) || any;
		return any;
	}
	for (uint32_t i = f->g->order_count; i-- > 0 && f->status == KNIT_OK;)
		if (i < f->g->order_count)
			any = rule(f, f->g->order[i]) || any;
	return any;
}

void knit__fuse_everywhere(knit_fuser *f, knit_fuse_direction direction, bool (*rule)(knit_fuser *f, uint32_t node)) {
	while (f->status == KNIT_OK && sweep(f, direction, rule))
		;
}
