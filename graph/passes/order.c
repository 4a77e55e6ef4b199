/* Puts the nodes into an execution order: what a node reads comes before it, and so do all readers of a state's version
 * before the write that makes the next one. A valid order stays as it is, unless order_peak.c finds one in which fewer
 * bytes are alive at once. Operands of ops that commute are swapped where only the second one dies, so that the result
 * can take its place. */
#include "order.h"

typedef struct reader { uint32_t node, next; } reader;

typedef struct sorter {
	const knit_graph *g;
	uint32_t *first;   /* per value: its readers, if it is a version of a state; index into readers, 0: none */
	reader *readers;
	uint8_t *mark;     /* per node: 0 untouched, 1 waiting for what it needs, 2 placed */
	uint32_t *stack;   /* nodes that wait, the deepest last */
	uint32_t *out;
	uint32_t reader_count, depth, placed;
} sorter;

static void note_readers(sorter *s) {
	const knit_graph *g = s->g;

	/* Backwards, so that lists run in order. */
	for (uint32_t i = g->order_count; i-- > 0;) {
		const knit_node *n = &g->nodes[g->order[i]];

		for (int k = n->in_count; k-- > 0;) {
			const uint32_t root = n->in[k] ? knit__value_root(g, n->in[k]) : 0;

			if (!root || g->storages[g->values[root].storage].kind != KNIT_STORAGE_STATE)
				continue;
			s->readers[++s->reader_count] = (reader){g->order[i], s->first[root]};
			s->first[root] = s->reader_count;
		}
	}
}

/* A node that must run before `id` and is not placed yet; 0 if there is none. */
static uint32_t missing(const sorter *s, uint32_t id) {
	const knit_node *n = &s->g->nodes[id];

	for (int k = 0; k < n->in_count; ++k) {
		const uint32_t writer = n->in[k] ? knit__value_producer(s->g, n->in[k]) : 0;

		if (writer && s->mark[writer] != 2)
			return writer;
	}
	for (uint32_t k = 0; k < knit__op(n->op)->state_outputs; ++k)
		for (uint32_t r = s->first[n->in[k]]; r; r = s->readers[r].next)
			if (s->readers[r].node != id && s->mark[s->readers[r].node] != 2)
				return s->readers[r].node;
	return 0;
}

/* Places `id` after everything that it needs; false where that leads back to a waiting node. */
static bool place(sorter *s, uint32_t id) {
	if (s->mark[id] == 2)
		return true;
	s->stack[s->depth++] = id;
	s->mark[id] = 1;
	while (s->depth) {
		const uint32_t top = s->stack[s->depth - 1], before = missing(s, top);

		if (before && s->mark[before] == 1)
			return false;
		if (before) {
			s->mark[before] = 1;
			s->stack[s->depth++] = before;
			continue;
		}
		s->mark[top] = 2;
		s->out[s->placed++] = top;
		--s->depth;
	}
	return true;
}

/* ---- operands ----------------------------------------------------------------------------------------------------- */

/* last: per storage, the position of its last reader. */
static void find_last_readers(const knit_graph *g, uint32_t *last) {
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];

		for (int k = 0; k < n->in_count; ++k)
			if (n->in[k])
				last[g->values[n->in[k]].storage] = i;
	}
	for (uint32_t i = 0; i < g->output_count; ++i)
		last[g->values[g->outputs[i].value].storage] = g->order_count;
}

static bool same_type(const knit_graph *g, uint32_t a, uint32_t b) {
	const knit_value *x = knit__value(g, a), *y = knit__value(g, b);

	if (x->dtype != y->dtype || x->rank != y->rank)
		return false;
	for (int i = 0; i < x->rank; ++i)
		if (!knit__dim_equal(x->dims[i], y->dims[i]))
			return false;
	return true;
}

static uint32_t swap_operands(knit_graph *g, const uint32_t *last) {
	uint32_t changes = 0;

	for (uint32_t i = 0; i < g->order_count; ++i) {
		knit_node *n = &g->nodes[g->order[i]];
		const uint32_t first = n->in[0], second = n->in[1];

		if (!knit__inplace_fits(g, g->order[i], 1) || last[g->values[second].storage] != i)
			continue;
		if (!first || (knit__inplace_fits(g, g->order[i], 0) && last[g->values[first].storage] == i))
			continue;
		if (!same_type(g, first, second)) /* a vector that is repeated stays second */
			continue;
		n->in[0] = second;
		n->in[1] = first;
		++changes;
	}
	return changes;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static knit_status sort(sorter *s, knit_diag *d) {
	for (uint32_t i = 0; i < s->g->order_count; ++i)
		if (!place(s, s->g->order[i]))
			return knit__fail(d, KNIT_ERR_INTERNAL, s->g->order[i], "order: node %u waits for itself", s->g->order[i]);
	return KNIT_OK;
}

static uint32_t take_order(knit_graph *g, const uint32_t *order) {
	uint32_t changes = 0;

	for (uint32_t i = 0; i < g->order_count; ++i) {
		changes += g->order[i] != order[i];
		g->order[i] = order[i];
	}
	return changes;
}

knit_status knit__pass_order(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	const size_t readers = (size_t)g->order_count * KNIT_MAX_IN + 1;
	uint32_t *last = knit__alloc_array(g->a, g->storage_count, sizeof *last);
	sorter s = {.g = g,
	            .first = knit__alloc_array(g->a, g->value_count, sizeof *s.first),
	            .readers = knit__alloc_array(g->a, readers, sizeof *s.readers),
	            .mark = knit__alloc_array(g->a, g->node_count, sizeof *s.mark),
	            .stack = knit__alloc_array(g->a, g->node_count, sizeof *s.stack),
	            .out = knit__alloc_array(g->a, g->order_count, sizeof *s.out)};
	knit_status status = KNIT_OK;

	(void)t;
	if (last && s.first && s.readers && s.mark && s.stack && s.out) {
		note_readers(&s);
		status = sort(&s, d);
		if (status == KNIT_OK)
			status = knit__order_lower_peak(g, s.out, d);
		if (status == KNIT_OK) {
			*changes += take_order(g, s.out);
			find_last_readers(g, last);
			*changes += swap_operands(g, last);
		}
	} else {
		status = knit__fail_memory(d, "order", readers * sizeof *s.readers);
	}
	knit__free(g->a, last, g->storage_count * sizeof *last);
	knit__free(g->a, s.first, g->value_count * sizeof *s.first);
	knit__free(g->a, s.readers, readers * sizeof *s.readers);
	knit__free(g->a, s.mark, g->node_count * sizeof *s.mark);
	knit__free(g->a, s.stack, g->node_count * sizeof *s.stack);
	knit__free(g->a, s.out, g->order_count * sizeof *s.out);
	return status;
}
