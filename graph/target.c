/* Owns the description of a node as a device sees it when it decides. Knows no device. */
#include "target.h"

#include <string.h>

static void operand_view(const knit_graph *g, const knit_bounds *b, uint32_t value, knit_operand_view *out) {
	const knit_value *v = knit__value(g, value);

	out->kind = knit__value_storage(g, value)->kind;
	out->dtype = v->dtype;
	out->rank = v->rank;
	out->layout = v->layout;
	out->contiguous = knit__value_contiguous(g, value);
	out->rows_contiguous = knit__value_rows_contiguous(g, value);
	memcpy(out->dims, v->dims, sizeof out->dims);
	memcpy(out->strides, v->strides, sizeof out->strides);
	if (!knit__value_max_elements(g, b, value, &out->max_elements))
		out->max_elements = UINT64_MAX; /* no kernel and no buffer can take it */
}

void knit__node_view(const knit_graph *g, const knit_bounds *b, uint32_t node, knit_node_view *out) {
	const knit_node *n = &g->nodes[node];

	*out = (knit_node_view){.op = n->op,
	                        .in_count = n->in_count,
	                        .out_count = n->out_count,
	                        .graph = g,
	                        .bounds = b,
	                        .node = node,
	                        .attr = n->attr};
	for (uint32_t i = 0; i < n->in_count; ++i)
		if (n->in[i])
			operand_view(g, b, n->in[i], &out->in[i]);
	for (uint32_t i = 0; i < n->out_count; ++i)
		operand_view(g, b, n->out[i], &out->out[i]);
}

bool knit__shape_equal(const knit_shape *a, const knit_shape *b) {
	bool equal = a->dtype == b->dtype && a->rank == b->rank;

	for (uint32_t i = 0; equal && i < a->rank; ++i)
		equal = a->dims[i] == b->dims[i];
	return equal;
}

bool knit__weight_shape(const knit_graph *g, uint32_t storage, knit_shape *out) {
	const knit_value *v = knit__value(g, g->storages[storage].value);

	*out = (knit_shape){.dtype = v->dtype, .rank = v->rank};
	for (int i = 0; i < v->rank; ++i) {
		if (v->dims[i].v < 0)
			return false;
		out->dims[i] = v->dims[i].v;
	}
	return true;
}
