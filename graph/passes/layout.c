/* Owns the pass layout: a constant that the target would rather have packed gets that layout, for all of its uses
 * together or not at all, so that there is one packed copy of it. What a layout is, only the target knows. */
#include "../pass.h"

/* The uses of storage s are uses[first[s] .. first[s + 1]). */
typedef struct weight_uses {
	uint32_t *first;
	knit_weight_use *uses;
	bool *odd; /* per storage: used by a window or as an output, so it must lie plain */
	uint32_t count;
} weight_uses;

static void uses_free(const knit_graph *g, weight_uses *u) {
	knit__free(g->a, u->first, ((size_t)g->storage_count + 1) * sizeof *u->first);
	knit__free(g->a, u->odd, g->storage_count * sizeof *u->odd);
	knit__free(g->a, u->uses, u->count * sizeof *u->uses);
}

/* Counts the uses of each storage in `at`, or writes them down from there on. */
static void each_use(const knit_graph *g, uint32_t *at, weight_uses *u, bool write) {
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *const n = &g->nodes[g->order[i]];

		for (uint8_t k = 0; k < n->in_count; ++k) {
			if (!n->in[k])
				continue;
			const uint32_t storage = g->values[n->in[k]].storage;

			u->odd[storage] |= n->in[k] != g->storages[storage].value;
			if (write)
				u->uses[at[storage]] = (knit_weight_use){g->order[i], n->op, k};
			++at[storage];
		}
	}
}

static knit_status uses_find(const knit_graph *g, weight_uses *u, knit_diag *d) {
	u->first = knit__alloc_array(g->a, (size_t)g->storage_count + 1, sizeof *u->first);
	u->odd = knit__alloc_array(g->a, g->storage_count, sizeof *u->odd);
	if (!u->first || !u->odd)
		return knit__fail_memory(d, "the pass layout", (uint64_t)g->storage_count * sizeof *u->first);
	each_use(g, u->first, u, false);
	for (uint32_t i = 0; i <= g->storage_count; ++i) {
		const uint32_t count = u->first[i];

		u->first[i] = u->count;
		u->count += count;
	}
	u->uses = knit__alloc_array(g->a, u->count, sizeof *u->uses);
	if (!u->uses)
		return knit__fail_memory(d, "the pass layout", (uint64_t)u->count * sizeof *u->uses);
	each_use(g, u->first, u, true);
	/* Each place has moved to where the next storage's begins. */
	for (uint32_t i = g->storage_count; i > 0; --i)
		u->first[i] = u->first[i - 1];
	u->first[0] = 0;
	for (uint32_t i = 0; i < g->output_count; ++i)
		u->odd[g->values[g->outputs[i].value].storage] = true;
	return KNIT_OK;
}

static bool all_accepted(const knit_graph *g, const knit_target *t, const knit_weight_use *uses, uint32_t count) {
	knit_node_view view;

	for (uint32_t i = 0; i < count; ++i) {
		knit__node_view(g, NULL, uses[i].node, &view);
		if (t->select(t->device, &view) == 0)
			return false;
	}
	return true;
}

knit_status knit__pass_layout(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	weight_uses u = {0};

	if (!t || !t->weight_layout)
		return KNIT_OK;
	const knit_status status = uses_find(g, &u, d);
	for (uint32_t s = 1; status == KNIT_OK && s < g->storage_count; ++s) {
		const knit_weight_use *const uses = u.uses + u.first[s];
		const uint32_t count = u.first[s + 1] - u.first[s];
		knit_value *const whole = &g->values[g->storages[s].value];
		knit_shape shape;

		if (g->storages[s].kind != KNIT_STORAGE_CONST || count == 0 || u.odd[s] || whole->layout ||
		    !knit__weight_shape(g, s, &shape))
			continue;
		whole->layout = t->weight_layout(t->device, &shape, uses, count);
		if (whole->layout && all_accepted(g, t, uses, count))
			++*changes;
		else
			whole->layout = 0;
	}
	uses_free(g, &u);
	return status;
}
