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

/* A base weight goes by its bytes: twins are one storage. An adapter's goes by its name, which is what a session binds
 * another tensor by, so that equal bytes (every B is zero before training) do not make one of two. */
static bool same_storage(const knit_graph *g, const knit_storage *s, knit_storage_kind kind, const void *host,
                         const knit_weight_entry *w) {
	if (s->kind != kind || s->host != host || s->dtype != w->dtype)
		return false;
	return kind == KNIT_STORAGE_CONST || strcmp(knit__strings_get(&g->strings, s->name), w->name) == 0;
}

/* The adapter storage of this name, 0 if there is none. */
static uint32_t adapter_named(const knit_graph *g, const char *name) {
	for (uint32_t i = 1; i < g->storage_count; ++i)
		if (g->storages[i].kind == KNIT_STORAGE_ADAPTER && strcmp(knit__strings_get(&g->strings, g->storages[i].name), name) == 0)
			return i;
	return 0;
}

/* The value for a store entry: found again if it (or, of base weights, a twin with the same bytes and shape) was asked
 * for before. */
static uint32_t weight_value(knit_graph *g, knit_storage_kind kind, const knit_weights *store,
                             const knit_weight_entry *w) {
	const void *host = kind == KNIT_STORAGE_CONST ? store->entries[w->storage].data : w->data;
	knit_type type = {.dtype = w->dtype, .rank = (uint8_t)w->rank};
	uint32_t value = 0, storage;

	for (int i = 0; i < w->rank; ++i)
		type.dims[i].v = w->dims[i];
	for (storage = 1; storage < g->storage_count; ++storage)
		if (same_storage(g, &g->storages[storage], kind, host, w))
			break;
	if (storage == g->storage_count) {
		if (kind == KNIT_STORAGE_ADAPTER && adapter_named(g, w->name)) {
			knit__build_fail(g, "adapter", KNIT_ERR_ARGUMENT,
			                 "there is a \"%s\" with other bytes already: adapter weights go by their names", w->name);
			return 0;
		}
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

/* Whether the type and sizes can be those of slots; records what is wrong. */
static bool slots_type(knit_graph *g, const char *name, knit_dtype t, const int64_t dims[3]) {
	const knit_dtype_info *info = knit__dtype_info(t);

	if (!info || !(info->is_float || info->is_block)) {
		knit__build_fail(g, "adapter_slots", KNIT_ERR_ARGUMENT, "%s has type %s (%d), needs a weight's", name,
		                 knit_dtype_name(t), (int)t);
		return false;
	}
	if (dims[0] < 1 || dims[1] < 1 || dims[2] < 1 || dims[2] % info->block_elements != 0) {
		knit__build_fail(g, "adapter_slots", KNIT_ERR_SHAPE,
		                 "%s is %s [%lld, %lld, %lld], needs positive numbers, rows in whole blocks of %u", name,
		                 info->name, (long long)dims[0], (long long)dims[1], (long long)dims[2], info->block_elements);
		return false;
	}
	return true;
}

knit_tensor knit_adapter_slots(knit_graph *g, knit_dtype t, int64_t count, int64_t rows, int64_t columns,
                               const char *fmt, ...) {
	const int64_t dims[3] = {count, rows, columns};
	knit_type type = {.dtype = t, .rank = 3};
	char name[NAME_BYTES];
	uint32_t value = 0;
	va_list args;

	if (!usable(g))
		return (knit_tensor){0};
	va_start(args, fmt);
	const bool named = name_text(g, "adapter_slots", name, fmt, args);
	va_end(args);
	if (!named || !slots_type(g, name, t, dims))
		return (knit_tensor){0};
	const uint32_t found = adapter_named(g, name);
	bool same = found && g->storages[found].slots && g->storages[found].dtype == t;
	for (int i = 0; i < 3; ++i) {
		type.dims[i].v = dims[i];
		same = same && g->values[g->storages[found].value].dims[i].v == dims[i];
	}
	if (same)
		return (knit_tensor){g->storages[found].value};
	if (found) {
		knit__build_fail(g, "adapter_slots", KNIT_ERR_ARGUMENT, "there is a \"%s\" of another type or shape already", name);
		return (knit_tensor){0};
	}
	const uint32_t storage = knit__storage_add(g, KNIT_STORAGE_ADAPTER, name, &type, NULL, &value);
	if (!storage)
		return (knit_tensor){0};
	g->storages[storage].slots = 1;
	return (knit_tensor){value};
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
