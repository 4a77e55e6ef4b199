/* Owns the changing of a graph: replacing uses, removing nodes, compacting. Knows no op. */
#include "ir.h"
#include "op_def.h"

/* Where a view of `from` (whole, contiguous) lies when `from` is replaced by `to`: the same strides, moved. */
static bool can_move_views(const knit_graph *g, uint32_t from, uint32_t to) {
	if (knit__value_contiguous(g, to))
		return true;
	for (uint32_t i = 1; i < g->value_count; ++i)
		if (g->values[i].view_of == from)
			return false;
	return true;
}

bool knit__replace_uses(knit_graph *g, uint32_t from, uint32_t to) {
	if (from == to)
		return true;
	if (!can_move_views(g, from, to))
		return false;

	const uint32_t root = knit__value_root(g, to);
	for (uint32_t i = 1; i < g->value_count; ++i) {
		knit_value *v = &g->values[i];

		if (v->view_of != from || i == to)
			continue;
		knit_dim offset;
		if (knit__expr_add(&g->exprs, v->offset, g->values[to].offset, &offset, &g->diag) != KNIT_OK)
			return false;
		v->offset = offset;
		v->view_of = root;
		v->storage = g->values[to].storage;
		v->version = g->values[to].version;
	}
	for (uint32_t i = 1; i < g->node_count; ++i)
		for (uint32_t j = 0; j < g->nodes[i].in_count; ++j)
			if (g->nodes[i].op != KNIT_OP_NONE && g->nodes[i].in[j] == from)
				g->nodes[i].in[j] = to;
	for (uint32_t i = 0; i < g->output_count; ++i)
		if (g->outputs[i].value == from)
			g->outputs[i].value = to;
	for (uint32_t i = 0; i < g->state_count; ++i)
		if (g->states[i].current == from)
			g->states[i].current = to;
	return true;
}

void knit__node_remove(knit_graph *g, uint32_t node) {
	uint32_t kept = 0;

	g->nodes[node].op = KNIT_OP_NONE;
	for (uint32_t i = 0; i < g->order_count; ++i)
		if (g->order[i] != node)
			g->order[kept++] = g->order[i];
	g->order_count = kept;
}

/* Marks value v, what it is a view of, and the whole value of its storage. */
static void mark(const knit_graph *g, uint32_t *map, uint32_t v) {
	if (!v)
		return;
	map[v] = 1;
	map[knit__value_root(g, v)] = 1;
	map[g->storages[g->values[v].storage].value] = 1;
}

static uint32_t number(uint32_t *map, uint32_t count) {
	uint32_t next = 1;

	for (uint32_t i = 1; i < count; ++i)
		map[i] = map[i] ? next++ : 0;
	return next;
}

knit_status knit__graph_compact(knit_graph *g) {
	const uint32_t total = g->value_count + g->storage_count + g->node_count;
	uint32_t *map = knit__alloc_array(g->a, total, sizeof *map);
	uint32_t *values = map, *storages = map ? map + g->value_count : NULL, *nodes = map ? storages + g->storage_count : NULL;

	if (!map)
		return knit__fail_memory(&g->diag, "compacting the graph", total * sizeof *map);
	for (uint32_t i = 1; i < g->node_count; ++i) {
		if (g->nodes[i].op == KNIT_OP_NONE)
			continue;
		nodes[i] = 1;
		for (uint32_t j = 0; j < g->nodes[i].in_count; ++j)
			mark(g, values, g->nodes[i].in[j]);
		for (uint32_t j = 0; j < g->nodes[i].out_count; ++j)
			mark(g, values, g->nodes[i].out[j]);
	}
	for (uint32_t i = 0; i < g->input_count; ++i)
		mark(g, values, g->inputs[i].value);
	for (uint32_t i = 0; i < g->output_count; ++i)
		mark(g, values, g->outputs[i].value);
	for (uint32_t i = 0; i < g->state_count; ++i)
		mark(g, values, g->states[i].current);
	for (uint32_t i = 1; i < g->value_count; ++i)
		if (values[i])
			storages[g->values[i].storage] = 1;

	const uint32_t node_count = number(nodes, g->node_count), value_count = number(values, g->value_count);
	const uint32_t storage_count = number(storages, g->storage_count);
	for (uint32_t i = 1; i < g->node_count; ++i) {
		if (!nodes[i])
			continue;
		knit_node *n = &g->nodes[nodes[i]];
		*n = g->nodes[i];
		for (uint32_t j = 0; j < n->in_count; ++j)
			n->in[j] = values[n->in[j]];
		for (uint32_t j = 0; j < n->out_count; ++j)
			n->out[j] = values[n->out[j]];
	}
	for (uint32_t i = 1; i < g->value_count; ++i) {
		if (!values[i])
			continue;
		knit_value *v = &g->values[values[i]];
		*v = g->values[i];
		v->storage = storages[v->storage];
		v->producer = nodes[v->producer];
		v->view_of = values[v->view_of];
	}
	for (uint32_t i = 1; i < g->storage_count; ++i) {
		if (!storages[i])
			continue;
		g->storages[storages[i]] = g->storages[i];
		g->storages[storages[i]].value = values[g->storages[i].value];
	}
	for (uint32_t i = 0; i < g->order_count; ++i)
		g->order[i] = nodes[g->order[i]];
	for (uint32_t i = 0; i < g->input_count; ++i)
		g->inputs[i].value = values[g->inputs[i].value];
	for (uint32_t i = 0; i < g->output_count; ++i)
		g->outputs[i].value = values[g->outputs[i].value];
	for (uint32_t i = 0; i < g->state_count; ++i) {
		g->states[i].storage = storages[g->states[i].storage];
		g->states[i].current = values[g->states[i].current];
	}
	g->node_count = node_count;
	g->value_count = value_count;
	g->storage_count = storage_count;
	knit__free(g->a, map, total * sizeof *map);
	return KNIT_OK;
}
