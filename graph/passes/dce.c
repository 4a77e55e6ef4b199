/* Removes nodes that neither an output nor a state write needs. Inputs stay: they are the caller's interface. */
#include "../pass.h"

static void need(const knit_graph *g, bool *needed, uint32_t value) {
	const uint32_t node = value ? knit__value_producer(g, value) : 0;

	if (node)
		needed[node] = true;
}

knit_status knit__pass_dce(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	bool *needed = knit__alloc_array(g->a, g->node_count, sizeof *needed);

	(void)t;
	if (!needed)
		return knit__fail_memory(d, "dce", g->node_count * sizeof *needed);
	for (uint32_t i = 0; i < g->output_count; ++i)
		need(g, needed, g->outputs[i].value);
	/* Backwards: users come after what they use, so one walk marks and removes. */
	for (uint32_t i = g->order_count; i-- > 0;) {
		const uint32_t id = g->order[i];
		const knit_node *n = &g->nodes[id];

		if (!needed[id] && !knit__op(n->op)->state_outputs) {
			knit__node_remove(g, id);
			++*changes;
			continue;
		}
		for (int k = 0; k < n->in_count; ++k)
			need(g, needed, n->in[k]);
	}
	knit__free(g->a, needed, g->node_count * sizeof *needed);
	return KNIT_OK;
}
