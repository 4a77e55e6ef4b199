/* Owns the life of a graph and the making of storages, values and nodes. Knows ops only through op_def.h. */
#include "context.h"
#include "op_def.h"
#include "weights.h"

#include <stdio.h>
#include <string.h>

/* ---- life -------------------------------------------------------------------------------------------------------- */

static bool reserve_zeroth(knit_graph *g) {
	if (!knit__grow(g->a, (void **)&g->storages, &g->storage_cap, 1, sizeof *g->storages) ||
	    !knit__grow(g->a, (void **)&g->values, &g->value_cap, 1, sizeof *g->values) ||
	    !knit__grow(g->a, (void **)&g->nodes, &g->node_cap, 1, sizeof *g->nodes))
		return false;
	g->storage_count = g->value_count = g->node_count = 1;
	return true;
}

knit_status knit_graph_create(knit_context *ctx, knit_graph **out) {
	if (!out)
		return KNIT_ERR_ARGUMENT;
	*out = NULL;
	if (!ctx)
		return KNIT_ERR_ARGUMENT;

	knit_graph *g = knit__alloc_zero(&ctx->a, sizeof *g);
	if (!g)
		return KNIT_ERR_MEMORY;
	g->ctx = knit__context_retain(ctx);
	g->a = &ctx->a;
	knit__strings_init(&g->strings, g->a);
	knit__exprs_init(&g->exprs, g->a);
	if (!reserve_zeroth(g)) {
		knit_graph_destroy(g);
		return KNIT_ERR_MEMORY;
	}
	*out = g;
	return KNIT_OK;
}

void knit_graph_destroy(knit_graph *g) {
	if (!g)
		return;
	for (uint32_t i = 0; i < g->store_count; ++i)
		knit_weights_release(g->stores[i]);
	knit__strings_clear(&g->strings);
	knit__exprs_clear(&g->exprs);
	knit__free(g->a, g->storages, g->storage_cap * sizeof *g->storages);
	knit__free(g->a, g->values, g->value_cap * sizeof *g->values);
	knit__free(g->a, g->nodes, g->node_cap * sizeof *g->nodes);
	knit__free(g->a, g->order, g->order_cap * sizeof *g->order);
	knit__free(g->a, g->inputs, g->input_cap * sizeof *g->inputs);
	knit__free(g->a, g->outputs, g->output_cap * sizeof *g->outputs);
	knit__free(g->a, g->states, g->state_cap * sizeof *g->states);
	knit__free(g->a, g->stores, g->store_cap * sizeof *g->stores);
	knit_context *ctx = g->ctx;
	knit__free(g->a, g, sizeof *g);
	knit__context_release(ctx);
}

static bool copy_array(const knit_allocator *a, void **to, uint32_t *cap, uint32_t *count, const void *from,
                       uint32_t from_count, size_t size) {
	if (!knit__grow(a, to, cap, from_count, size))
		return false;
	if (from_count)
		memcpy(*to, from, from_count * size);
	*count = from_count;
	return true;
}

#define COPY(field, n, c) copy_array(g->a, (void **)&g->field, &g->c, &g->n, from->field, from->n, sizeof *g->field)

knit_status knit__graph_clone(const knit_graph *from, knit_graph **out, knit_diag *d) {
	knit_graph *g;

	*out = NULL;
	if (knit_graph_create(from->ctx, &g) != KNIT_OK)
		return knit__fail_memory(d, "a copy of the graph", sizeof *g);

	/* Interning in the same order gives the same ids. */
	bool ok = true;
	for (uint32_t i = 1; ok && i <= from->strings.count; ++i)
		ok = knit__strings_intern(&g->strings, knit__strings_get(&from->strings, i)) == i;
	ok = ok && knit__exprs_copy(&g->exprs, &from->exprs) && COPY(storages, storage_count, storage_cap) &&
	     COPY(values, value_count, value_cap) && COPY(nodes, node_count, node_cap) &&
	     COPY(order, order_count, order_cap) && COPY(inputs, input_count, input_cap) &&
	     COPY(outputs, output_count, output_cap) && COPY(states, state_count, state_cap) &&
	     knit__grow(g->a, (void **)&g->stores, &g->store_cap, from->store_count, sizeof *g->stores);
	if (!ok) {
		knit_graph_destroy(g);
		return knit__fail_memory(d, "a copy of the graph", sizeof *g);
	}
	for (; g->store_count < from->store_count; ++g->store_count)
		g->stores[g->store_count] = knit__weights_retain(from->stores[g->store_count]);
	g->origin = from->origin;
	g->diag = from->diag;
	*out = g;
	return KNIT_OK;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static uint32_t out_of_memory(knit_graph *g) {
	knit__fail_memory(&g->diag, "the graph", 0);
	return 0;
}

static uint32_t value_add(knit_graph *g, const knit_value *v) {
	if (!knit__grow(g->a, (void **)&g->values, &g->value_cap, g->value_count + 1, sizeof *g->values))
		return out_of_memory(g);
	g->values[g->value_count] = *v;
	return g->value_count++;
}

uint32_t knit__storage_add(knit_graph *g, knit_storage_kind kind, const char *name, const knit_type *type,
                           const void *host, uint32_t *value) {
	const uint32_t id = g->storage_count;
	const uint32_t text = name ? knit__strings_intern(&g->strings, name) : 0;
	knit_value v = {.storage = id, .dtype = type->dtype, .rank = type->rank};

	if (text == UINT32_MAX ||
	    !knit__grow(g->a, (void **)&g->storages, &g->storage_cap, id + 1, sizeof *g->storages))
		return out_of_memory(g);
	memcpy(v.dims, type->dims, sizeof v.dims);
	if (knit__strides_contiguous(g, v.rank, v.dims, v.strides) != KNIT_OK)
		return 0;

	const uint32_t whole = value_add(g, &v);
	if (!whole)
		return 0;
	g->storages[id] = (knit_storage){.kind = kind, .name = text, .value = whole, .dtype = type->dtype, .host = host};
	if (!knit__storage_max_bytes(g, NULL, id, &g->storages[id].max_bytes)) {
		knit__build_fail(g, "tensor", KNIT_ERR_LIMIT, "the size of %s%s does not fit 64 bits or breaks a %s block",
		                 name ? name : "a result", name ? "" : " of this op", knit_dtype_name(type->dtype));
		return 0;
	}
	g->storage_count++;
	if (value)
		*value = whole;
	return id;
}

uint32_t knit__view_add(knit_graph *g, uint32_t of, uint8_t rank, const knit_dim *dims, const knit_dim *strides,
                        knit_dim offset) {
	const knit_value *base = &g->values[of];
	knit_value v = {.storage = base->storage,
	                .view_of = knit__value_root(g, of),
	                .version = base->version,
	                .dtype = base->dtype,
	                .rank = rank,
	                .offset = offset};

	memcpy(v.dims, dims, rank * sizeof *dims);
	memcpy(v.strides, strides, rank * sizeof *strides);
	return value_add(g, &v);
}

void knit__build_fail(knit_graph *g, const char *op, knit_status status, const char *fmt, ...) {
	const char *origin = knit__strings_get(&g->strings, g->origin);
	char text[sizeof g->diag.text];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__fail(&g->diag, status, 0, "%s%s%s: %s", op, *origin ? " at " : "", origin, text);
}

bool knit__infer_fail(knit_infer *c, knit_status status, const char *fmt, ...) {
	char text[sizeof c->diag->text];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__fail(c->diag, status, 0, "%s%s%s: %s", c->op, *c->origin ? " at " : "", c->origin, text);
	return false;
}

/* The state slot on a storage; NULL if the storage is no state. */
static knit_state_slot *state_slot(knit_graph *g, uint32_t storage) {
	for (uint32_t i = 0; i < g->state_count; ++i)
		if (g->states[i].storage == storage)
			return &g->states[i];
	return NULL;
}

/* The next version of the state in value `of`. */
static uint32_t version_add(knit_graph *g, uint32_t of, uint32_t node, const char *op) {
	knit_value next = g->values[of];
	knit_state_slot *slot = state_slot(g, next.storage);

	if (!slot || slot->current != of) {
		knit__build_fail(g, op, KNIT_ERR_STATE, "writes to %s, needs the latest version of a state",
		                 slot ? "an old version" : "a tensor that is no state");
		return 0;
	}
	next.version++;
	next.producer = node;
	const uint32_t value = value_add(g, &next);
	if (value)
		slot->current = value;
	return value;
}

uint32_t knit__node_add(knit_graph *g, uint16_t op, uint32_t in_count, const uint32_t *in, const knit_attr *attr) {
	const knit_op_def *def = knit__op(op);
	const uint32_t id = g->node_count;
	knit_node node = {.op = op, .in_count = (uint8_t)in_count, .origin = g->origin};
	knit_infer c = {.graph = g,
	                .in_count = in_count,
	                .attr = attr,
	                .out_count = def->out_count,
	                .op = def->name,
	                .origin = knit__strings_get(&g->strings, g->origin),
	                .diag = &g->diag};

	for (uint32_t i = 0; i < in_count; ++i) {
		c.in[i] = in[i] ? &g->values[in[i]] : NULL;
		node.in[i] = in[i];
	}
	if (attr)
		memcpy(node.attr, attr, def->attr_count * sizeof *attr);
	if (!knit__grow(g->a, (void **)&g->nodes, &g->node_cap, id + 1, sizeof *g->nodes) ||
	    !knit__grow(g->a, (void **)&g->order, &g->order_cap, g->order_count + 1, sizeof *g->order))
		return out_of_memory(g);
	if (!def->infer(&c))
		return 0;

	node.out_count = (uint8_t)c.out_count;
	for (uint32_t i = 0; i < node.out_count; ++i) {
		if (i < def->state_outputs) {
			node.out[i] = version_add(g, in[i], id, def->name);
		} else if (knit__storage_add(g, KNIT_STORAGE_TEMP, NULL, &c.out[i], NULL, &node.out[i])) {
			g->values[node.out[i]].producer = id;
		}
		if (!node.out[i])
			return 0;
	}
	g->nodes[id] = node;
	g->order[g->order_count++] = id;
	g->node_count++;
	return id;
}
