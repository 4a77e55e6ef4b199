/* Owns the questions that every stage asks of a graph: contiguity, sizes, uses, texts. Changes nothing but the interned
 * expressions. */
#include "op_def.h"

#include <stdio.h>
#include <string.h>

knit_status knit__strides_contiguous(knit_graph *g, uint8_t rank, const knit_dim *dims, knit_dim *strides) {
	knit_dim stride = {1};

	for (int i = rank - 1; i >= 0; --i) {
		knit_diag why = {0};

		strides[i] = stride;
		if (i > 0 && knit__expr_product(&g->exprs, stride, dims[i], &stride, &why) != KNIT_OK) {
			knit__build_fail(g, "tensor", why.status, "its strides cannot be written down: %s", why.text);
			return g->diag.status;
		}
	}
	return KNIT_OK;
}

bool knit__value_contiguous(const knit_graph *g, uint32_t id) {
	const knit_value *v = &g->values[id];
	const knit_expr *scaled; /* the running stride: scale * dim, where at most one dim is symbolic */
	int64_t number = 1;
	knit_dim symbolic = {1};

	for (int i = v->rank - 1; i >= 0; --i) {
		if (v->dims[i].v != 1) {
			const knit_expr *have = knit__expr_get(&g->exprs, v->strides[i]);

			scaled = knit__expr_get(&g->exprs, symbolic);
			if (!scaled) {
				if (v->strides[i].v != number)
					return false;
			} else {
				if (!have || have->terms != scaled->terms || have->k0 != scaled->k0 * number)
					return false;
				for (int t = 0; t < have->terms; ++t)
					if (have->sym[t] != scaled->sym[t] || have->k[t] != scaled->k[t] * number)
						return false;
			}
		}
		if (i == 0)
			break;
		if (knit__dim_is_number(v->dims[i])) {
			if (!knit__mul_i64(number, v->dims[i].v, &number))
				return false;
		} else if (knit__dim_is_number(symbolic)) {
			symbolic = v->dims[i];
		} else {
			return false;
		}
	}
	return true;
}

bool knit__value_rows_contiguous(const knit_graph *g, uint32_t id) {
	const knit_value *v = &g->values[id];

	return v->rank == 0 || v->strides[v->rank - 1].v == 1 || v->dims[v->rank - 1].v == 1;
}

bool knit__value_max_elements(const knit_graph *g, const knit_bounds *b, uint32_t id, uint64_t *out) {
	const knit_value *v = &g->values[id];

	*out = 1;
	for (int i = 0; i < v->rank; ++i)
		if (!knit__mul_u64(*out, (uint64_t)knit__dim_hi(&g->exprs, b, v->dims[i]), out))
			return false;
	return *out <= INT64_MAX;
}

bool knit__storage_max_bytes(const knit_graph *g, const knit_bounds *b, uint32_t storage, uint64_t *out) {
	const knit_value *v = &g->values[g->storages[storage].value];
	const knit_dtype_info *info = knit__dtype_info(v->dtype);
	uint64_t elements;

	/* Blocks lie along the innermost dimension, so that one must hold whole ones. */
	if (!info || (info->is_block && (v->rank == 0 || v->dims[v->rank - 1].v < 0 ||
	                                 v->dims[v->rank - 1].v % info->block_elements != 0)))
		return false;
	return knit__value_max_elements(g, b, g->storages[storage].value, &elements) &&
	       knit__dtype_bytes(v->dtype, elements, out) && *out <= INT64_MAX;
}

void knit__count_uses(const knit_graph *g, uint32_t *uses) {
	memset(uses, 0, g->value_count * sizeof *uses);
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];

		for (uint32_t j = 0; j < n->in_count; ++j) {
			if (!n->in[j])
				continue;
			uses[n->in[j]]++;
			if (g->values[n->in[j]].view_of)
				uses[g->values[n->in[j]].view_of]++;
		}
	}
	for (uint32_t i = 0; i < g->output_count; ++i) {
		uses[g->outputs[i].value]++;
		if (g->values[g->outputs[i].value].view_of)
			uses[g->values[g->outputs[i].value].view_of]++;
	}
}

static void shape_text(const knit_graph *g, const knit_value *v, char *out, size_t size) {
	int at = snprintf(out, size, "%s [", knit_dtype_name(v->dtype));

	for (int i = 0; i < v->rank && at >= 0 && (size_t)at < size; ++i) {
		char dim[64];

		knit__dim_text(&g->exprs, &g->strings, v->dims[i], dim, sizeof dim);
		at += snprintf(out + at, size - (size_t)at, "%s%s", i ? ", " : "", dim);
	}
	if (at >= 0 && (size_t)at < size)
		snprintf(out + at, size - (size_t)at, "]");
}

knit_shape_text knit__infer_shape(const knit_infer *c, const knit_value *v) {
	knit_shape_text t = {"none"};

	if (v)
		shape_text(c->graph, v, t.text, sizeof t.text);
	return t;
}

void knit__value_text(const knit_graph *g, uint32_t id, char *out, size_t size) {
	shape_text(g, &g->values[id], out, size);
}

const char *knit__origin_text(const knit_graph *g, const knit_node *n) { return knit__strings_get(&g->strings, n->origin); }

static bool root_live(const knit_graph *g, uint32_t id) {
	const knit_value *v = &g->values[id];

	if (v->storage == 0 || v->storage >= g->storage_count || !g->storages[v->storage].kind)
		return false;
	if (v->producer)
		return v->producer < g->node_count && g->nodes[v->producer].op != KNIT_OP_NONE;
	const knit_storage_kind kind = g->storages[v->storage].kind;
	return (kind == KNIT_STORAGE_CONST || kind == KNIT_STORAGE_ADAPTER || kind == KNIT_STORAGE_INPUT ||
	        kind == KNIT_STORAGE_STATE) && v->version == 0;
}

bool knit__value_live(const knit_graph *g, uint32_t id) {
	if (id == 0 || id >= g->value_count)
		return false;
	const uint32_t root = g->values[id].view_of;
	if (!root)
		return root_live(g, id);
	return root < g->value_count && !g->values[root].view_of && root_live(g, root) &&
	       g->values[id].storage < g->storage_count && g->storages[g->values[id].storage].kind;
}
