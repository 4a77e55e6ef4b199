/* Computes once, by the reference, what depends on weights alone. A fold may not enlarge the constants: its result is
 * at most as large as the weights that nobody else reads and that it frees. Adapters are never folded (they can be
 * bound anew), nor are weights that are shared. */
#include "../pass.h"
#include "../weights.h"

#include <stdio.h>
#include <string.h>

#define MAX_FLOPS 1e8 /* of one fold: the reference is slow */

typedef struct folder {
	knit_graph *g;
	uint32_t *readers; /* per storage: how many operands and ports show bytes of it */
	uint32_t readers_cap;
} folder;

static bool count_readers(folder *f) {
	const knit_graph *g = f->g;

	if (!knit__grow(g->a, (void **)&f->readers, &f->readers_cap, g->storage_count, sizeof *f->readers))
		return false;
	memset(f->readers, 0, g->storage_count * sizeof *f->readers);
	for (uint32_t i = 0; i < g->order_count; ++i)
		for (uint32_t k = 0; k < g->nodes[g->order[i]].in_count; ++k)
			f->readers[g->values[g->nodes[g->order[i]].in[k]].storage]++;
	for (uint32_t i = 0; i < g->output_count; ++i)
		f->readers[g->values[g->outputs[i].value].storage]++;
	return true;
}

/* ---- what may be folded ------------------------------------------------------------------------------------------ */

/* Operands of node n that show bytes of `storage`. */
static uint32_t own_uses(const knit_graph *g, const knit_node *n, uint32_t storage) {
	uint32_t uses = 0;

	for (uint32_t k = 0; k < n->in_count; ++k)
		uses += n->in[k] && g->values[n->in[k]].storage == storage;
	return uses;
}

/* The bytes of the weights that go away with node n; 0 where an operand is none, is shared or has no bytes to read. */
static uint64_t freed_bytes(const folder *f, const knit_node *n) {
	const knit_graph *g = f->g;
	uint64_t bytes = 0;

	for (uint32_t k = 0; k < n->in_count; ++k) {
		if (!n->in[k])
			continue;
		const uint32_t id = g->values[n->in[k]].storage;
		const knit_storage *s = &g->storages[id];
		bool counted = false;

		if (s->kind != KNIT_STORAGE_CONST || !s->host || g->values[n->in[k]].layout ||
			f->readers[id] != own_uses(g, n, id))
			return 0;
		for (uint32_t j = 0; j < k; ++j)
			counted = counted || (n->in[j] && g->values[n->in[j]].storage == id);
		bytes += counted ? 0 : s->max_bytes;
	}
	return bytes;
}

static knit_shape shape_of(const knit_graph *g, uint32_t value) {
	const knit_value *v = knit__value(g, value);
	knit_shape s = {.dtype = v->dtype, .rank = value ? v->rank : 0};

	for (uint32_t i = 0; i < s.rank; ++i)
		s.dims[i] = v->dims[i].v;
	return s;
}

/* A weight's size is a number, so these are; the result's might not be (a copy repeats no dimension, but who knows). */
static bool numbers_only(const knit_graph *g, uint32_t value) {
	const knit_value *v = knit__value(g, value);

	for (int i = 0; i < v->rank; ++i)
		if (!knit__dim_is_number(v->dims[i]) || !knit__dim_is_number(v->strides[i]))
			return false;
	return knit__dim_is_number(v->offset);
}

static bool may_fold(const folder *f, const knit_node *n) {
	const knit_graph *g = f->g;
	const knit_op_def *def = knit__op(n->op);
	knit_shape in[KNIT_MAX_IN] = {{0}}, out;
	knit_cost cost = {0};

	if (def->state_outputs || n->out_count != 1 || knit__value_storage(g, n->out[0])->kind != KNIT_STORAGE_TEMP)
		return false;
	const uint64_t freed = freed_bytes(f, n);
	if (freed == 0 || knit__value_storage(g, n->out[0])->max_bytes > freed || !numbers_only(g, n->out[0]))
		return false;
	for (uint32_t k = 0; k < n->in_count; ++k) {
		if (n->in[k] && !numbers_only(g, n->in[k]))
			return false;
		in[k] = shape_of(g, n->in[k]);
	}
	out = shape_of(g, n->out[0]);
	def->cost(n->attr, in, n->in_count, &out, 0, &cost);
	return cost.flops <= MAX_FLOPS;
}

/* ---- folding ----------------------------------------------------------------------------------------------------- */

static bool make_array(const knit_graph *g, uint32_t value, knit_array *x) {
	const knit_shape s = shape_of(g, value);

	*x = (knit_array){.dtype = s.dtype, .rank = s.rank};
	memcpy(x->dims, s.dims, sizeof x->dims);
	x->data = knit__alloc_array(g->a, (size_t)knit__array_count(x), sizeof *x->data);
	return x->data != NULL;
}

static void clear_array(const knit_graph *g, knit_array *x) {
	knit__free(g->a, x->data, x->data ? (size_t)knit__array_count(x) * sizeof *x->data : 0);
}

/* The elements of a weight, or of a window on it, row-major. */
static bool read_weight(const knit_graph *g, uint32_t value, knit_array *x) {
	const knit_value *v = knit__value(g, value);
	const knit_storage *s = knit__value_storage(g, value);
	knit_array whole;
	int64_t at[KNIT_MAX_RANK] = {0};

	if (!make_array(g, s->value, &whole))
		return false;
	knit__decode(s->dtype, s->host, whole.data, (uint64_t)knit__array_count(&whole));
	if (!v->view_of) {
		*x = whole;
		return true;
	}
	const bool made = make_array(g, value, x);
	for (int64_t i = 0; made && i < knit__array_count(x); ++i) {
		int64_t from = v->offset.v;

		for (int k = 0; k < v->rank; ++k)
			from += at[k] * v->strides[k].v;
		x->data[i] = whole.data[from];
		for (int k = v->rank - 1; k >= 0 && ++at[k] == v->dims[k].v; --k)
			at[k] = 0;
	}
	clear_array(g, &whole);
	return made;
}

/* A weight of a store of its own that holds `result`, rounded to its type; 0 on failure. */
static uint32_t add_constant(folder *f, const char *name, const knit_array *result) {
	knit_graph *g = f->g;
	knit_weights *store = NULL;
	uint64_t bytes = 0;
	uint32_t value = 0;

	if (!knit__grow(g->a, (void **)&g->stores, &g->store_cap, g->store_count + 1, sizeof *g->stores) ||
		knit_weights_create(g->ctx, &store) != KNIT_OK)
		return 0;
	knit__dtype_bytes(result->dtype, (uint64_t)knit__array_count(result), &bytes);
	void *data = knit__alloc(g->a, (size_t)bytes);
	if (data)
		knit__encode(result->dtype, result->data, data, (uint64_t)knit__array_count(result));
	const bool added = data && knit_weights_add(store, name, result->dtype, (int)result->rank, result->dims, data,
												(size_t)bytes, NULL) == KNIT_OK;
	knit__free(g->a, data, (size_t)bytes);
	if (!added) {
		knit_weights_release(store);
		return 0;
	}
	g->stores[g->store_count++] = store; /* our reference becomes the graph's */

	knit_type type = {.dtype = result->dtype, .rank = (uint8_t)result->rank};
	for (uint32_t i = 0; i < result->rank; ++i)
		type.dims[i].v = result->dims[i];
	return knit__storage_add(g, KNIT_STORAGE_CONST, name, &type, knit__weights_get(store, name)->data, &value) ? value
																											   : 0;
}

static bool compute(const knit_graph *g, const knit_node *n, knit_array *result) {
	knit_array in[KNIT_MAX_IN] = {{0}};
	bool ok = make_array(g, n->out[0], result);

	for (uint32_t k = 0; ok && k < n->in_count; ++k)
		ok = !n->in[k] || read_weight(g, n->in[k], &in[k]);
	if (ok)
		knit__op(n->op)->eval(n->attr, in, n->in_count, result);
	for (uint32_t k = 0; k < n->in_count; ++k)
		clear_array(g, &in[k]);
	return ok;
}

/* "scale(blk.0.ffn_norm.weight)" */
static void name_result(const knit_graph *g, const knit_node *n, char *out, size_t size) {
	snprintf(out, size, "%s(%s)", knit__op(n->op)->name,
			 knit__strings_get(&g->strings, knit__value_storage(g, n->in[0])->name));
}

/* 1: folded, 0: cannot be, -1: out of memory. */
static int fold(folder *f, uint32_t id) {
	knit_graph *g = f->g;
	knit_array result = {0};
	char name[256];

	if (!may_fold(f, &g->nodes[id]))
		return 0;
	name_result(g, &g->nodes[id], name, sizeof name);
	const bool computed = compute(g, &g->nodes[id], &result);
	const uint32_t value = computed ? add_constant(f, name, &result) : 0;
	clear_array(g, &result);
	if (!value)
		return -1;
	if (!knit__replace_uses(g, g->nodes[id].out[0], value))
		return -1; /* both are whole and contiguous: only memory can be short */
	knit__node_remove(g, id);
	return count_readers(f) ? 1 : -1;
}

knit_status knit__pass_fold(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	folder f = {.g = g};
	bool memory = count_readers(&f);

	(void)t;
	/* In order, so that what depends on a folded node is met after it. */
	for (uint32_t i = 0; memory && i < g->order_count;) {
		const int done = fold(&f, g->order[i]);

		memory = done >= 0;
		if (done > 0)
			++*changes; /* the next node has moved to place i */
		else
			++i;
	}
	knit__free(g->a, f.readers, f.readers_cap * sizeof *f.readers);
	return memory ? KNIT_OK : knit__fail_memory(d, "fold", f.readers_cap * sizeof *f.readers);
}
