/* Owns the choice among valid orders by the bytes of activations that are alive at once, estimated at the symbols' upper
 * bounds. Refuses to know placement and scratch: the estimate is the lower bound that the memory plan then has to meet.
 *
 * Two orders stand against the present one, time and again until neither is better:
 *   - greedy: of the nodes that could run, the one after which the fewest bytes more are alive;
 *   - depth first: each result's operands are computed one after the other, the one that leaves most behind first (after
 *     Sethi and Ullman 1970, who show it to be best for trees).
 * Ties go to the place in the present order, never to ids, which change when a graph is compacted. */
#include "order.h"

#include "../op_def.h"

#include <string.h>

#define MAX_NODES 20000 /* beyond, the present order stays: choosing takes quadratic time where many nodes could run */

typedef struct edge { uint32_t from, to; } edge; /* positions in the present order; from runs before to */

typedef struct chooser {
	const knit_graph *g;
	const knit_allocator *a;
	uint32_t count;
	uint32_t *order, *other; /* node ids */
	uint32_t *position;      /* per node, in `order` */
	edge *edges;
	uint32_t edge_count, edge_cap, before_cap, after_cap;
	uint32_t *first_before, *before; /* per position, what must run before it: before[first_before[i] ..) */
	uint32_t *first_after, *after;
	uint32_t *uses;    /* per storage: readings still to come */
	uint32_t *waits;   /* per position: how many edges still hold it back */
	uint32_t *ready, *stack, *next;
	uint64_t *need, *left; /* per position: bytes that computing it takes, and that its results leave */
	uint32_t *reader, *reader_next; /* per value, per reading: lists of those who read a version of a state */
	bool *done;
} chooser;

static uint64_t bytes_of(const chooser *c, uint32_t value) {
	const knit_storage *s = value ? knit__value_storage(c->g, value) : NULL;

	return s && s->kind == KNIT_STORAGE_TEMP ? s->max_bytes : 0;
}

/* ---- what is alive ------------------------------------------------------------------------------------------------ */

static void count_uses(chooser *c) {
	const knit_graph *g = c->g;

	memset(c->uses, 0, g->storage_count * sizeof *c->uses);
	for (uint32_t i = 0; i < c->count; ++i) {
		const knit_node *n = &g->nodes[c->order[i]];

		for (int k = 0; k < n->in_count; ++k)
			c->uses[g->values[n->in[k]].storage] += n->in[k] != 0;
	}
	for (uint32_t i = 0; i < g->output_count; ++i)
		++c->uses[g->values[g->outputs[i].value].storage];
}

static uint64_t made_by(const chooser *c, const knit_node *n) {
	uint64_t bytes = 0;

	for (int k = 0; k < n->out_count; ++k)
		bytes += bytes_of(c, n->out[k]);
	return bytes;
}

/* How often the node reads the storage of its operand k; 0 where an earlier operand is on it too, so that each storage
 * counts once. */
static uint32_t readings(const chooser *c, const knit_node *n, int k) {
	const uint32_t storage = c->g->values[n->in[k]].storage;
	uint32_t found = 0;

	for (int i = 0; i < n->in_count; ++i) {
		if (!n->in[i] || c->g->values[n->in[i]].storage != storage)
			continue;
		if (i < k)
			return 0;
		++found;
	}
	return found;
}

static bool dies(const chooser *c, const knit_node *n, int k) {
	const uint32_t found = n->in[k] ? readings(c, n, k) : 0;

	return found > 0 && c->uses[c->g->values[n->in[k]].storage] == found;
}

/* Bytes that nobody needs after the node has run: operands, and results that nobody reads. */
static uint64_t freed_by(const chooser *c, const knit_node *n) {
	uint64_t bytes = 0;

	for (int k = 0; k < n->in_count; ++k)
		bytes += n->in[k] && dies(c, n, k) ? bytes_of(c, n->in[k]) : 0;
	for (int k = 0; k < n->out_count; ++k)
		bytes += c->uses[c->g->values[n->out[k]].storage] == 0 ? bytes_of(c, n->out[k]) : 0;
	return bytes;
}

/* Bytes of the result that lie on a dying operand. */
static uint64_t taken_over(const chooser *c, uint32_t node) {
	const knit_node *n = &c->g->nodes[node];

	for (uint32_t k = 0; k < n->in_count && k < 2; ++k)
		if (knit__inplace_fits(c->g, node, k) && dies(c, n, (int)k))
			return bytes_of(c, n->out[0]);
	return 0;
}

static void use(chooser *c, const knit_node *n) {
	for (int k = 0; k < n->in_count; ++k)
		if (n->in[k])
			--c->uses[c->g->values[n->in[k]].storage];
}

/* The most bytes alive at one node. */
static uint64_t find_peak(chooser *c, const uint32_t *order) {
	uint64_t alive = 0, peak = 0;

	count_uses(c);
	for (uint32_t i = 0; i < c->count; ++i) {
		const knit_node *n = &c->g->nodes[order[i]];
		const uint64_t with = alive + made_by(c, n), here = with - taken_over(c, order[i]);

		peak = here > peak ? here : peak;
		alive = with - freed_by(c, n);
		use(c, n);
	}
	return peak;
}

/* ---- what must wait for what ---------------------------------------------------------------------------------------- */

static bool add_edge(chooser *c, uint32_t from, uint32_t to) {
	if (!knit__grow(c->a, (void **)&c->edges, &c->edge_cap, c->edge_count + 1, sizeof *c->edges))
		return false;
	c->edges[c->edge_count++] = (edge){from, to};
	return true;
}

/* The present order is valid, so a reader of a version of a state has been met when its writer comes. */
static bool find_edges(chooser *c) {
	const knit_graph *g = c->g;
	uint32_t reading = 0;

	c->edge_count = 0;
	memset(c->reader, 0, g->value_count * sizeof *c->reader);
	for (uint32_t i = 0; i < c->count; ++i) {
		const knit_node *n = &g->nodes[c->order[i]];

		for (uint32_t k = 0; k < n->in_count; ++k) {
			const uint32_t root = n->in[k] ? knit__value_root(g, n->in[k]) : 0, writer = root ? g->values[root].producer : 0;

			if (writer && !add_edge(c, c->position[writer], i))
				return false;
			if (root && k < knit__op(n->op)->state_outputs)
				for (uint32_t r = c->reader[root]; r; r = c->reader_next[r])
					if ((r - 1) / KNIT_MAX_IN != i && !add_edge(c, (r - 1) / KNIT_MAX_IN, i))
						return false;
			if (root && knit__value_storage(g, root)->kind == KNIT_STORAGE_STATE) {
				reading = i * KNIT_MAX_IN + k + 1;
				c->reader_next[reading] = c->reader[root];
				c->reader[root] = reading;
			}
		}
	}
	return true;
}

static bool list_edges(chooser *c) {
	const size_t bytes = (c->count + 1) * sizeof(uint32_t);

	if (!find_edges(c))
		return false;
	if (!knit__grow(c->a, (void **)&c->before, &c->before_cap, c->edge_count, sizeof *c->before) ||
	    !knit__grow(c->a, (void **)&c->after, &c->after_cap, c->edge_count, sizeof *c->after))
		return false;
	/* Two counting sorts. */
	memset(c->first_before, 0, bytes);
	memset(c->first_after, 0, bytes);
	for (uint32_t i = 0; i < c->edge_count; ++i) {
		++c->first_before[c->edges[i].to + 1];
		++c->first_after[c->edges[i].from + 1];
	}
	for (uint32_t i = 0; i < c->count; ++i) {
		c->first_before[i + 1] += c->first_before[i];
		c->first_after[i + 1] += c->first_after[i];
	}
	memcpy(c->next, c->first_before, bytes);
	for (uint32_t i = 0; i < c->edge_count; ++i)
		c->before[c->next[c->edges[i].to]++] = c->edges[i].from;
	memcpy(c->next, c->first_after, bytes);
	for (uint32_t i = 0; i < c->edge_count; ++i)
		c->after[c->next[c->edges[i].from]++] = c->edges[i].to;
	return true;
}

/* ---- the other orders ----------------------------------------------------------------------------------------------- */

static void order_greedily(chooser *c) {
	uint32_t ready = 0, placed = 0;

	count_uses(c);
	for (uint32_t i = 0; i < c->count; ++i) {
		c->waits[i] = c->first_before[i + 1] - c->first_before[i];
		if (c->waits[i] == 0)
			c->ready[ready++] = i;
	}
	while (ready > 0) {
		uint32_t best = 0;
		int64_t least = 0;

		for (uint32_t k = 0; k < ready; ++k) {
			const knit_node *n = &c->g->nodes[c->order[c->ready[k]]];
			const int64_t growth = (int64_t)made_by(c, n) - (int64_t)freed_by(c, n);

			if (k > 0 && (growth > least || (growth == least && c->ready[k] > c->ready[best])))
				continue;
			best = k;
			least = growth;
		}

		const uint32_t at = c->ready[best];

		c->ready[best] = c->ready[--ready];
		use(c, &c->g->nodes[c->order[at]]);
		c->other[placed++] = c->order[at];
		for (uint32_t k = c->first_after[at]; k < c->first_after[at + 1]; ++k)
			if (--c->waits[c->after[k]] == 0)
				c->ready[ready++] = c->after[k];
	}
}

/* What computing x takes beyond what it leaves: operands with more of it come first. */
static bool comes_first(const chooser *c, uint32_t x, uint32_t y) {
	const uint64_t p = c->need[x] - c->left[x], q = c->need[y] - c->left[y];

	return p != q ? p > q : x < y;
}

/* Sorts what must run before each position, and finds how many bytes it needs if nothing is shared. */
static void find_needs(chooser *c) {
	for (uint32_t i = 0; i < c->count; ++i) {
		uint32_t *list = &c->before[c->first_before[i]];
		const uint32_t count = c->first_before[i + 1] - c->first_before[i];
		uint64_t kept = 0, need = 0;

		for (uint32_t k = 1; k < count; ++k) {
			const uint32_t moved = list[k];
			uint32_t at = k;

			for (; at > 0 && comes_first(c, moved, list[at - 1]); --at)
				list[at] = list[at - 1];
			list[at] = moved;
		}
		for (uint32_t k = 0; k < count; ++k) {
			if (k > 0 && list[k] == list[k - 1])
				continue;
			need = kept + c->need[list[k]] > need ? kept + c->need[list[k]] : need;
			kept += c->left[list[k]];
		}
		c->left[i] = made_by(c, &c->g->nodes[c->order[i]]);
		c->need[i] = kept + c->left[i] > need ? kept + c->left[i] : need;
	}
}

static void order_depth_first(chooser *c) {
	uint32_t placed = 0;

	find_needs(c);
	memset(c->done, 0, c->count * sizeof *c->done);
	memcpy(c->next, c->first_before, c->count * sizeof *c->next);
	for (uint32_t i = 0; i < c->count; ++i) {
		uint32_t depth = 0;

		if (c->first_after[i] != c->first_after[i + 1])
			continue; /* somebody waits for it, and will ask for it */
		c->stack[depth++] = i;
		while (depth > 0) {
			const uint32_t top = c->stack[depth - 1];

			while (c->next[top] < c->first_before[top + 1] && c->done[c->before[c->next[top]]])
				++c->next[top];
			if (c->next[top] < c->first_before[top + 1]) {
				c->stack[depth++] = c->before[c->next[top]];
				continue;
			}
			c->done[top] = true;
			c->other[placed++] = c->order[top];
			--depth;
		}
	}
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static bool open_chooser(chooser *c) {
	const size_t n = c->count;

	c->other = knit__alloc_array(c->a, n, sizeof *c->other);
	c->position = knit__alloc_array(c->a, c->g->node_count, sizeof *c->position);
	c->first_before = knit__alloc_array(c->a, n + 1, sizeof *c->first_before);
	c->first_after = knit__alloc_array(c->a, n + 1, sizeof *c->first_after);
	c->uses = knit__alloc_array(c->a, c->g->storage_count, sizeof *c->uses);
	c->waits = knit__alloc_array(c->a, n, sizeof *c->waits);
	c->ready = knit__alloc_array(c->a, n, sizeof *c->ready);
	c->stack = knit__alloc_array(c->a, n, sizeof *c->stack);
	c->next = knit__alloc_array(c->a, n + 1, sizeof *c->next);
	c->need = knit__alloc_array(c->a, n, sizeof *c->need);
	c->left = knit__alloc_array(c->a, n, sizeof *c->left);
	c->reader = knit__alloc_array(c->a, c->g->value_count, sizeof *c->reader);
	c->reader_next = knit__alloc_array(c->a, n * KNIT_MAX_IN + 1, sizeof *c->reader_next);
	c->done = knit__alloc_array(c->a, n, sizeof *c->done);
	return c->other && c->position && c->first_before && c->first_after && c->uses && c->waits && c->ready && c->stack &&
	       c->next && c->need && c->left && c->reader && c->reader_next && c->done;
}

static void close_chooser(chooser *c) {
	const size_t n = c->count;

	knit__free(c->a, c->other, n * sizeof *c->other);
	knit__free(c->a, c->position, c->g->node_count * sizeof *c->position);
	knit__free(c->a, c->before, c->before_cap * sizeof *c->before);
	knit__free(c->a, c->after, c->after_cap * sizeof *c->after);
	knit__free(c->a, c->first_before, (n + 1) * sizeof *c->first_before);
	knit__free(c->a, c->first_after, (n + 1) * sizeof *c->first_after);
	knit__free(c->a, c->uses, c->g->storage_count * sizeof *c->uses);
	knit__free(c->a, c->waits, n * sizeof *c->waits);
	knit__free(c->a, c->ready, n * sizeof *c->ready);
	knit__free(c->a, c->stack, n * sizeof *c->stack);
	knit__free(c->a, c->next, (n + 1) * sizeof *c->next);
	knit__free(c->a, c->need, n * sizeof *c->need);
	knit__free(c->a, c->left, n * sizeof *c->left);
	knit__free(c->a, c->reader, c->g->value_count * sizeof *c->reader);
	knit__free(c->a, c->reader_next, (n * KNIT_MAX_IN + 1) * sizeof *c->reader_next);
	knit__free(c->a, c->done, n * sizeof *c->done);
	knit__free(c->a, c->edges, c->edge_cap * sizeof *c->edges);
}

/* Takes the other order if it needs less. */
static bool take_if_lower(chooser *c, uint64_t *peak) {
	const uint64_t other = find_peak(c, c->other);

	if (other >= *peak)
		return false;
	*peak = other;
	memcpy(c->order, c->other, c->count * sizeof *c->order);
	return true;
}

static bool choose(chooser *c) {
	uint64_t peak = find_peak(c, c->order);
	bool changed = true;

	while (changed) {
		for (uint32_t i = 0; i < c->count; ++i)
			c->position[c->order[i]] = i;
		if (!list_edges(c))
			return false;
		order_greedily(c);
		changed = take_if_lower(c, &peak);
		if (changed)
			continue;
		order_depth_first(c);
		changed = take_if_lower(c, &peak);
	}
	return true;
}

knit_status knit__order_lower_peak(const knit_graph *g, uint32_t *order, knit_diag *d) {
	chooser c = {.g = g, .a = g->a, .count = g->order_count, .order = order};
	bool ok;

	if (g->order_count < 2 || g->order_count > MAX_NODES)
		return KNIT_OK;
	ok = open_chooser(&c) && choose(&c);
	close_chooser(&c);
	return ok ? KNIT_OK : knit__fail_memory(d, "order", (uint64_t)g->order_count * sizeof *c.edges);
}
