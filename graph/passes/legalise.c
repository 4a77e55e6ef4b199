/* Makes the graph one that the target can run and the caller can read: copies where the target refuses an operand's
 * strides but would take it contiguous, and outputs that own their bytes. Does not judge whether an op is supported at
 * all: the schedule reports that. */
#include "../pass.h"

#include <string.h>

typedef struct legaliser {
	knit_graph *g;
	const knit_target *t;
	uint32_t *copy_of; /* per old value: its contiguous copy, 0: none yet */
	uint32_t value_count, changes;
} legaliser;

/* Takes the last node of the order to place `at`. */
static void move_last(knit_graph *g, uint32_t at) {
	const uint32_t last = g->order[g->order_count - 1];

	memmove(&g->order[at + 1], &g->order[at], (g->order_count - 1 - at) * sizeof *g->order);
	g->order[at] = last;
}

/* A copy of `value` made at place `at` of the order. 0 on failure, with g->diag set. */
static uint32_t insert_copy(legaliser *l, uint32_t value, uint32_t at, uint32_t origin) {
	knit_graph *g = l->g;
	const uint32_t kept = g->origin;

	g->origin = origin;
	const uint32_t node = knit__node_add(g, KNIT_OP_COPY, 1, &value, NULL);
	g->origin = kept;
	if (!node)
		return 0;
	move_last(g, at);
	l->changes++;
	return g->nodes[node].out[0];
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

/* The operand as its copy would look; false where no contiguous strides exist. */
static bool make_contiguous(knit_graph *g, knit_operand_view *o) {
	if (knit__strides_contiguous(g, o->rank, o->dims, o->strides) != KNIT_OK) {
		if (g->diag.status != KNIT_ERR_MEMORY)
			g->diag = (knit_diag){0};
		return false;
	}
	o->contiguous = o->rows_contiguous = true;
	o->kind = KNIT_STORAGE_TEMP;
	return true;
}

static bool selects(const legaliser *l, const knit_node_view *v) { return l->t->select(l->t->device, v) != 0; }

static bool can_copy(const legaliser *l, const knit_node_view *v, const knit_operand_view *from,
                     const knit_operand_view *to) {
	const knit_node_view copy = {.op = KNIT_OP_COPY,
	                             .in_count = 1,
	                             .out_count = 1,
	                             .graph = v->graph,
	                             .bounds = v->bounds,
	                             .node = v->node,
	                             .attr = v->attr,
	                             .in = {*from},
	                             .out = {*to}};

	return selects(l, &copy);
}

/* Which operands need a copy, as bits: as few as the target lets us get away with, later operands first. */
static uint32_t choose(legaliser *l, uint32_t id) {
	knit_node_view now, wanted;
	uint32_t copies = 0;

	knit__node_view(l->g, NULL, id, &now);
	if (selects(l, &now))
		return 0;
	wanted = now;
	for (int i = 0; i < now.in_count; ++i) {
		if (!now.in[i].kind || now.in[i].contiguous || !make_contiguous(l->g, &wanted.in[i]))
			continue;
		if (can_copy(l, &now, &now.in[i], &wanted.in[i]))
			copies |= 1u << i;
		else
			wanted.in[i] = now.in[i];
	}
	if (!copies || !selects(l, &wanted))
		return 0;
	for (int i = 0; i < now.in_count; ++i) {
		const knit_operand_view contiguous = wanted.in[i];

		if (!(copies & 1u << i))
			continue;
		wanted.in[i] = now.in[i];
		if (selects(l, &wanted))
			copies &= ~(1u << i);
		else
			wanted.in[i] = contiguous;
	}
	return copies;
}

/* A write that reads its own state through another operand would change the bytes under that operand. */
static uint32_t own_state(const knit_graph *g, const knit_node *n) {
	uint32_t copies = 0;

	const uint32_t states = knit__op(n->op)->state_outputs;

	for (uint32_t s = 0; s < states; ++s)
		for (uint32_t i = states; i < n->in_count; ++i)
			if (n->in[i] && g->values[n->in[i]].storage == g->values[n->in[s]].storage)
				copies |= 1u << i;
	return copies;
}

static bool legalise_node(legaliser *l, uint32_t *at) {
	knit_graph *g = l->g;
	const uint32_t id = g->order[*at];
	uint32_t copies = own_state(g, &g->nodes[id]);

	if (l->t && g->nodes[id].op != KNIT_OP_COPY)
		copies |= choose(l, id);
	for (uint32_t i = 0; i < g->nodes[id].in_count; ++i) {
		if (!(copies & 1u << i))
			continue;
		const uint32_t value = g->nodes[id].in[i];
		if (value >= l->value_count || !l->copy_of[value]) {
			const uint32_t copy = insert_copy(l, value, *at, g->nodes[id].origin);

			if (!copy)
				return false;
			++*at;
			if (value < l->value_count)
				l->copy_of[value] = copy;
			g->nodes[id].in[i] = copy;
		} else {
			g->nodes[id].in[i] = l->copy_of[value];
			l->changes++;
		}
	}
	return g->diag.status == KNIT_OK;
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

/* Where a value can be read last: before the write that makes the state's next version, else at the end. */
static uint32_t last_place(const knit_graph *g, uint32_t value) {
	const uint32_t root = knit__value_root(g, value);
	uint32_t i = g->order_count;

	if (g->storages[g->values[root].storage].kind != KNIT_STORAGE_STATE)
		return i;
	for (i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];

		for (uint32_t s = 0; s < knit__op(n->op)->state_outputs; ++s)
			if (n->in[s] == root)
				return i;
	}
	return i;
}

static bool legalise_output(legaliser *l, uint32_t port) {
	knit_graph *g = l->g;
	const uint32_t name = g->outputs[port].name;
	uint32_t value = g->outputs[port].value;
	const knit_storage *s = knit__value_storage(g, value);

	if (!g->values[value].view_of && s->kind == KNIT_STORAGE_OUTPUT && s->name == name)
		return true;
	if (g->values[value].view_of || s->kind != KNIT_STORAGE_TEMP) {
		const uint32_t writer = knit__value_producer(g, value);

		value = insert_copy(l, value, last_place(g, value), writer ? g->nodes[writer].origin : 0);
		if (!value)
			return false;
		g->outputs[port].value = value;
	} else {
		l->changes++;
	}
	g->storages[g->values[value].storage].kind = KNIT_STORAGE_OUTPUT;
	g->storages[g->values[value].storage].name = name;
	return true;
}

knit_status knit__pass_legalise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	legaliser l = {.g = g, .t = t, .value_count = g->value_count};
	bool ok = true;

	l.copy_of = knit__alloc_array(g->a, l.value_count, sizeof *l.copy_of);
	if (!l.copy_of)
		return knit__fail_memory(d, "legalise", l.value_count * sizeof *l.copy_of);
	for (uint32_t at = 0; ok && at < g->order_count; ++at)
		ok = legalise_node(&l, &at);
	for (uint32_t i = 0; ok && i < g->output_count; ++i)
		ok = legalise_output(&l, i);
	knit__free(g->a, l.copy_of, l.value_count * sizeof *l.copy_of);
	*changes += l.changes;
	return ok ? KNIT_OK : knit__fail(d, g->diag.status, 0, "%s", g->diag.text);
}
