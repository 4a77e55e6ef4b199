/* Owns the builder's common part: sticky errors, symbols, inputs, weights, outputs. The ops' own builder functions are
 * in ops/. */
#include "context.h"
#include "op_def.h"
#include "text.h"
#include "weights.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES 256

knit_status knit_graph_status(const knit_graph *g, knit_diag *diag) {
	if (!g)
		return KNIT_ERR_ARGUMENT;
	if (diag)
		*diag = g->diag;
	return g->diag.status;
}

bool knit__build_check(knit_graph *g, const char *op, const char *operand, knit_tensor t) {
	if (t.id && t.id < g->value_count)
		return true;
	if (t.id)
		knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "%s is tensor %u, this graph has %u", operand, t.id,
		                 g->value_count - 1);
	else
		knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "%s is no tensor (id 0)", operand);
	return false;
}

knit_tensor knit__build(knit_graph *g, uint16_t op, uint32_t in_count, const uint32_t *in, const knit_attr *attr) {
	if (g->diag.status != KNIT_OK)
		return (knit_tensor){0};
	const uint32_t node = knit__node_add(g, op, in_count, in, attr);
	return (knit_tensor){node ? g->nodes[node].out[0] : 0};
}

static bool usable(const knit_graph *g) { return g && g->diag.status == KNIT_OK; }

/* ---- dims -------------------------------------------------------------------------------------------------------- */

static bool dim_known(knit_graph *g, const char *op, knit_dim d) {
	if (d.v >= 0 || knit__expr_get(&g->exprs, d))
		return true;
	knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "a dimension is no size of this graph (%lld)", (long long)d.v);
	return false;
}

knit_dim knit_n(int64_t n) { return (knit_dim){n}; }

knit_dim knit_sym(knit_graph *g, const char *name, int64_t lo, int64_t hi) {
	knit_dim d = {0};
	knit_diag why = {0};

	if (!usable(g))
		return d;
	if (!name || !*name) {
		knit__build_fail(g, "symbol", KNIT_ERR_ARGUMENT, "needs a name");
		return d;
	}
	const uint32_t id = knit__strings_intern(&g->strings, name);
	if (id == UINT32_MAX)
		knit__fail_memory(&g->diag, "a name", strlen(name));
	else if (knit__expr_symbol(&g->exprs, id, lo, hi, &d, &why) != KNIT_OK)
		knit__build_fail(g, "symbol", why.status, "%s: %s", name, why.text);
	return d;
}

knit_dim knit_dim_add(knit_graph *g, knit_dim a, knit_dim b) {
	knit_dim d = {0};
	knit_diag why = {0};

	if (usable(g) && dim_known(g, "dim_add", a) && dim_known(g, "dim_add", b) &&
	    knit__expr_add(&g->exprs, a, b, &d, &why) != KNIT_OK)
		knit__build_fail(g, "dim_add", why.status, "%s", why.text);
	return d;
}

knit_dim knit_dim_mul(knit_graph *g, knit_dim a, int64_t factor) {
	knit_dim d = {0};
	knit_diag why = {0};

	if (usable(g) && dim_known(g, "dim_mul", a) && knit__expr_mul(&g->exprs, a, factor, &d, &why) != KNIT_OK)
		knit__build_fail(g, "dim_mul", why.status, "%s", why.text);
	return d;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Formats a name into out (NAME_BYTES); false with an error where it is empty or too long. */
static bool name_text(knit_graph *g, const char *op, char *out, const char *fmt, va_list args) {
	const int n = fmt ? vsnprintf(out, NAME_BYTES, fmt, args) : 0;

	if (n > 0 && n < NAME_BYTES)
		return true;
	knit__build_fail(g, op, n <= 0 ? KNIT_ERR_ARGUMENT : KNIT_ERR_LIMIT,
	                 n <= 0 ? "needs a name" : "the name is longer than 255 bytes");
	return false;
}

void knit_origin(knit_graph *g, const char *fmt, ...) {
	char text[NAME_BYTES] = "";
	va_list args;

	if (!usable(g))
		return;
	va_start(args, fmt);
	if (fmt)
		vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	const uint32_t id = knit__strings_intern(&g->strings, text);
	if (id == UINT32_MAX)
		knit__fail_memory(&g->diag, "a name", sizeof text);
	else
		g->origin = id;
}

/* ---- inputs, weights, outputs ------------------------------------------------------------------------------------ */

static bool port_exists(const knit_graph *g, const knit_port *ports, uint32_t count, const char *name) {
	for (uint32_t i = 0; i < count; ++i)
		if (strcmp(knit__strings_get(&g->strings, ports[i].name), name) == 0)
			return true;
	return false;
}

static bool port_add(knit_graph *g, knit_port **ports, uint32_t *count, uint32_t *cap, const char *name, uint32_t value) {
	const uint32_t id = knit__strings_intern(&g->strings, name);

	if (id == UINT32_MAX || !knit__grow(g->a, (void **)ports, cap, *count + 1, sizeof **ports)) {
		knit__fail_memory(&g->diag, "the graph", 0);
		return false;
	}
	(*ports)[(*count)++] = (knit_port){id, value};
	return true;
}

knit_tensor knit_input(knit_graph *g, const char *name, knit_dtype t, int rank, const knit_dim *dims) {
	knit_type type = {.dtype = t, .rank = (uint8_t)rank};
	uint32_t value = 0;

	if (!usable(g))
		return (knit_tensor){0};
	if (!name || !*name) {
		knit__build_fail(g, "input", KNIT_ERR_ARGUMENT, "needs a name");
		return (knit_tensor){0};
	}
	if (port_exists(g, g->inputs, g->input_count, name)) {
		knit__build_fail(g, "input", KNIT_ERR_ARGUMENT, "there is an input \"%s\" already", name);
		return (knit_tensor){0};
	}
	if (!knit__dtype_info(t) || knit__dtype_info(t)->is_block) {
		knit__build_fail(g, "input", KNIT_ERR_ARGUMENT, "%s has type %s (%d), needs f32, f16, bf16 or i32", name,
		                 knit_dtype_name(t), (int)t);
		return (knit_tensor){0};
	}
	if (rank < 1 || rank > KNIT_MAX_RANK || !dims) {
		knit__build_fail(g, "input", KNIT_ERR_SHAPE, "%s has rank %d, needs 1 to %d", name, rank, KNIT_MAX_RANK);
		return (knit_tensor){0};
	}
	for (int i = 0; i < rank; ++i) {
		if (!dim_known(g, "input", dims[i]))
			return (knit_tensor){0};
		type.dims[i] = dims[i];
	}
	if (!knit__storage_add(g, KNIT_STORAGE_INPUT, name, &type, NULL, &value) ||
	    !port_add(g, &g->inputs, &g->input_count, &g->input_cap, name, value))
		return (knit_tensor){0};
	return (knit_tensor){value};
}

void knit_output(knit_graph *g, const char *name, knit_tensor t) {
	if (!usable(g))
		return;
	if (!name || !*name)
		knit__build_fail(g, "output", KNIT_ERR_ARGUMENT, "needs a name");
	else if (port_exists(g, g->outputs, g->output_count, name))
		knit__build_fail(g, "output", KNIT_ERR_ARGUMENT, "there is an output \"%s\" already", name);
	else if (knit__build_check(g, "output", name, t))
		port_add(g, &g->outputs, &g->output_count, &g->output_cap, name, t.id);
}

static bool retain_store(knit_graph *g, knit_weights *store) {
	for (uint32_t i = 0; i < g->store_count; ++i)
		if (g->stores[i] == store)
			return true;
	if (knit__weights_seal(store) != KNIT_OK ||
	    !knit__grow(g->a, (void **)&g->stores, &g->store_cap, g->store_count + 1, sizeof *g->stores)) {
		knit__fail_memory(&g->diag, "a weight store", 0);
		return false;
	}
	g->stores[g->store_count++] = knit__weights_retain(store);
	return true;
}

static bool same_dims(const knit_value *v, const knit_weight_entry *w) {
	if (v->rank != w->rank)
		return false;
	for (int i = 0; i < w->rank; ++i)
		if (v->dims[i].v != w->dims[i])
			return false;
	return true;
}

/* The value for a store entry: found again if it (or a twin with the same bytes and shape) was asked for before. */
static uint32_t weight_value(knit_graph *g, knit_storage_kind kind, const knit_weights *store,
                             const knit_weight_entry *w) {
	const void *host = store->entries[w->storage].data;
	knit_type type = {.dtype = w->dtype, .rank = (uint8_t)w->rank};
	uint32_t value = 0, storage;

	for (int i = 0; i < w->rank; ++i)
		type.dims[i].v = w->dims[i];
	for (storage = 1; storage < g->storage_count; ++storage)
		if (g->storages[storage].kind == kind && g->storages[storage].host == host && g->storages[storage].dtype == w->dtype)
			break;
	if (storage == g->storage_count) {
		knit__storage_add(g, kind, w->name, &type, host, &value);
		return value;
	}
	for (uint32_t i = g->storages[storage].value; i < g->value_count; ++i)
		if (g->values[i].storage == storage && g->values[i].offset.v == 0 && same_dims(&g->values[i], w) &&
		    knit__value_contiguous(g, i))
			return i;
	/* The same bytes under another shape. */
	knit_dim strides[KNIT_MAX_RANK];
	if (knit__strides_contiguous(g, type.rank, type.dims, strides) != KNIT_OK)
		return 0;
	return knit__view_add(g, g->storages[storage].value, type.rank, type.dims, strides, (knit_dim){0});
}

static knit_tensor weight(knit_graph *g, knit_storage_kind kind, knit_weights *store, const char *fmt, va_list args) {
	const char *op = kind == KNIT_STORAGE_CONST ? "weight" : "adapter";
	char name[NAME_BYTES];

	if (!usable(g) || !name_text(g, op, name, fmt, args))
		return (knit_tensor){0};
	if (!store) {
		knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "\"%s\" is asked of no store (NULL)", name);
		return (knit_tensor){0};
	}
	if (!retain_store(g, store))
		return (knit_tensor){0};
	const knit_weight_entry *w = knit__weights_get(store, name);
	if (!w) {
		knit__build_fail(g, op, KNIT_ERR_NOT_FOUND, "no tensor \"%s\" among the %u of %s", name, store->count,
		                 store->path ? store->path : "the store");
		return (knit_tensor){0};
	}
	return (knit_tensor){weight_value(g, kind, store, w)};
}

knit_tensor knit_weight(knit_graph *g, knit_weights *store, const char *fmt, ...) {
	va_list args;

	va_start(args, fmt);
	const knit_tensor t = weight(g, KNIT_STORAGE_CONST, store, fmt, args);
	va_end(args);
	return t;
}

knit_tensor knit_adapter(knit_graph *g, knit_weights *store, const char *fmt, ...) {
	va_list args;

	va_start(args, fmt);
	const knit_tensor t = weight(g, KNIT_STORAGE_ADAPTER, store, fmt, args);
	va_end(args);
	return t;
}

knit_status knit_graph_print(const knit_graph *g, knit_graph_format format,
                             void (*write)(void *user, const char *text, size_t bytes), void *user) {
	if (!g || !write || (format != KNIT_GRAPH_TEXT && format != KNIT_GRAPH_DOT))
		return KNIT_ERR_ARGUMENT;
	if (g->diag.status != KNIT_OK)
		return g->diag.status;

	knit_text t = {.a = g->a};
	knit_status status = format == KNIT_GRAPH_TEXT ? knit__print_text(g, &t) : knit__print_dot(g, &t);
	if (status == KNIT_OK && t.failed)
		status = KNIT_ERR_MEMORY;
	if (status == KNIT_OK && t.count)
		write(user, t.data, t.count);
	knit__text_clear(&t);
	return status;
}
