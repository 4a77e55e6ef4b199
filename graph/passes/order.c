/* Puts the nodes into an execution order: what a node reads comes before it, and so do all readers of a state's version
 * before the write that makes the next one. Stable: an order that is valid stays as it is. */
#include "../pass.h"

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

knit_status knit__pass_order(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	const size_t readers = (size_t)g->order_count * KNIT_MAX_IN + 1;
	sorter s = {.g = g,
	            .first = knit__alloc_array(g->a, g->value_count, sizeof *s.first),
	            .readers = knit__alloc_array(g->a, readers, sizeof *s.readers),
	            .mark = knit__alloc_array(g->a, g->node_count, sizeof *s.mark),
	            .stack = knit__alloc_array(g->a, g->node_count, sizeof *s.stack),
	            .out = knit__alloc_array(g->a, g->order_count, sizeof *s.out)};
	knit_status status = KNIT_OK;

	(void)t;
	if (s.first && s.readers && s.mark && s.stack && s.out) {
		note_readers(&s);
		for (uint32_t i = 0; i < g->order_count && status == KNIT_OK; ++i)
			if (!place(&s, g->order[i]))
				status = knit__fail(d, KNIT_ERR_INTERNAL, g->order[i], "order: node %u waits for itself", g->order[i]);
		for (uint32_t i = 0; i < g->order_count && status == KNIT_OK; ++i) {
			*changes += g->order[i] != s.out[i];
			g->order[i] = s.out[i];
		}
	} else {
		status = knit__fail_memory(d, "order", readers * sizeof *s.readers);
	}
	knit__free(g->a, s.first, g->value_count * sizeof *s.first);
	knit__free(g->a, s.readers, readers * sizeof *s.readers);
	knit__free(g->a, s.mark, g->node_count * sizeof *s.mark);
	knit__free(g->a, s.stack, g->node_count * sizeof *s.stack);
	knit__free(g->a, s.out, g->order_count * sizeof *s.out);
	return status;
}
