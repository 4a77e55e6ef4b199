/* Owns the oracle: every value of a run as a dense array of doubles, made by the ops' references in graph order. Knows
 * no memory plan, no target and no schedule; views are gathered, state versions are copies. */
#include "interp.h"

#include <math.h>
#include <string.h>

struct knit_interp {
	const knit_graph *g;
	const knit_allocator *a;
	uint64_t seed;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	knit_array *values; /* per value of the graph; data NULL: not computed in this run */
	knit_array *inputs; /* per input: what was written last; data NULL: nothing */
	knit_array *states; /* per state: its contents between runs; data NULL: zeros */
};

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

static void array_clear(const knit_allocator *a, knit_array *x) {
	knit__free(a, x->data, x->data ? (size_t)knit__array_count(x) * sizeof *x->data : 0);
	x->data = NULL;
}

/* The shape of a value at the present symbols; false where its size does not fit. */
static bool array_shape(const knit_interp *it, uint32_t value, knit_array *x) {
	const knit_value *v = knit__value(it->g, value);
	int64_t count = 1;

	*x = (knit_array){.dtype = v->dtype, .rank = v->rank};
	for (int i = 0; i < v->rank; ++i) {
		x->dims[i] = knit__dim_eval(&it->g->exprs, it->symbols, v->dims[i]);
		if (!knit__mul_i64(count, x->dims[i], &count) || count > INT64_MAX / (int64_t)sizeof(double))
			return false;
	}
	return true;
}

static knit_status array_make(const knit_interp *it, uint32_t value, knit_array *x, knit_diag *d) {
	const bool fits = array_shape(it, value, x);

	if (fits)
		x->data = knit__alloc_array(it->a, (size_t)knit__array_count(x), sizeof *x->data);
	if (!x->data)
		return knit__fail_memory(d, "an array of the reference",
								 fits ? (uint64_t)knit__array_count(x) * 8 : UINT64_MAX);
	return KNIT_OK;
}

static void array_copy(knit_array *to, const knit_array *from) {
	memcpy(to->data, from->data, (size_t)knit__array_count(from) * sizeof *to->data);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

knit_status knit__interp_create(const knit_graph *g, uint64_t seed, knit_interp **out, knit_diag *d) {
	*out = NULL;
	if (g->diag.status != KNIT_OK)
		return knit__fail(d, g->diag.status, g->diag.node, "%s", g->diag.text);

	knit_interp *it = knit__alloc_zero(g->a, sizeof *it);
	if (!it)
		return knit__fail_memory(d, "the reference", sizeof *it);
	it->g = g;
	it->a = g->a;
	it->seed = seed;
	it->values = knit__alloc_array(it->a, g->value_count, sizeof *it->values);
	it->inputs = knit__alloc_array(it->a, g->input_count, sizeof *it->inputs);
	it->states = knit__alloc_array(it->a, g->state_count, sizeof *it->states);
	if (!it->values || !it->inputs || !it->states) {
		knit__interp_destroy(it);
		return knit__fail_memory(d, "the reference", g->value_count * sizeof *it->values);
	}
	for (uint32_t i = 0; i < g->exprs.symbol_count; ++i)
		it->symbols[i] = g->exprs.symbols[i].lo;
	*out = it;
	return KNIT_OK;
}

static void clear_all(const knit_allocator *a, knit_array *arrays, uint32_t count) {
	for (uint32_t i = 0; arrays && i < count; ++i)
		array_clear(a, &arrays[i]);
}

void knit__interp_destroy(knit_interp *it) {
	if (!it)
		return;
	const knit_graph *g = it->g;
	clear_all(it->a, it->values, g->value_count);
	clear_all(it->a, it->inputs, g->input_count);
	clear_all(it->a, it->states, g->state_count);
	knit__free(it->a, it->values, g->value_count * sizeof *it->values);
	knit__free(it->a, it->inputs, g->input_count * sizeof *it->inputs);
	knit__free(it->a, it->states, g->state_count * sizeof *it->states);
	knit__free(it->a, it, sizeof *it);
}

void knit__interp_reset(knit_interp *it) { clear_all(it->a, it->states, it->g->state_count); }

knit_status knit__interp_set_symbol(knit_interp *it, const char *name, int64_t value) {
	const knit_exprs *e = &it->g->exprs;

	for (uint32_t i = 0; i < e->symbol_count; ++i) {
		if (strcmp(knit__strings_get(&it->g->strings, e->symbols[i].name), name) != 0)
			continue;
		if (value < e->symbols[i].lo || value > e->symbols[i].hi)
			return KNIT_ERR_LIMIT;
		it->symbols[i] = value;
		return KNIT_OK;
	}
	return KNIT_ERR_NOT_FOUND;
}

static uint32_t find_port(const knit_graph *g, const knit_port *ports, uint32_t count, const char *name) {
	uint32_t i;

	for (i = 0; i < count && strcmp(knit__strings_get(&g->strings, ports[i].name), name) != 0; ++i)
		;
	return i;
}

knit_status knit__interp_write(knit_interp *it, const char *input, const double *data, size_t count) {
	const uint32_t i = find_port(it->g, it->g->inputs, it->g->input_count, input);
	knit_array x;

	if (i == it->g->input_count)
		return KNIT_ERR_NOT_FOUND;
	if (!array_shape(it, it->g->inputs[i].value, &x) || (size_t)knit__array_count(&x) != count)
		return KNIT_ERR_SHAPE;
	const knit_status status = array_make(it, it->g->inputs[i].value, &x, NULL);
	if (status != KNIT_OK)
		return status;
	if (count)
		memcpy(x.data, data, count * sizeof *data);
	array_clear(it->a, &it->inputs[i]);
	it->inputs[i] = x;
	return KNIT_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static bool is_weight(const knit_graph *g, uint32_t value) {
	const knit_storage_kind kind = knit__value_storage(g, value)->kind;

	return kind == KNIT_STORAGE_CONST || kind == KNIT_STORAGE_ADAPTER;
}

/* Numbers in [-0.5, 0.5), the same for the same seed and name: what a weight without bytes stands for does not depend
 * on ids, which passes change. Integers are 0, a valid index into anything. */
static void fill(const knit_interp *it, const knit_storage *s, knit_array *x) {
	const char *name = knit__strings_get(&it->g->strings, s->name);
	const uint64_t start = knit__hash(KNIT__HASH_SEED ^ it->seed, name, strlen(name));

	for (int64_t i = 0; s->dtype != KNIT_I32 && i < knit__array_count(x); ++i) {
		uint64_t z = start + (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		x->data[i] = (double)((z ^ (z >> 31)) >> 40) / (double)(1 << 24) - 0.5;
	}
}

static knit_status read_input(const knit_interp *it, uint32_t value, knit_array *x, knit_diag *d) {
	const knit_graph *g = it->g;

	for (uint32_t i = 0; i < g->input_count; ++i) {
		if (g->inputs[i].value != value)
			continue;
		if (!it->inputs[i].data || knit__array_count(&it->inputs[i]) != knit__array_count(x))
			return knit__fail(d, KNIT_ERR_STATE, 0, "input \"%s\" needs %lld elements, %lld were written",
			                  knit__strings_get(&g->strings, g->inputs[i].name), (long long)knit__array_count(x),
			                  it->inputs[i].data ? (long long)knit__array_count(&it->inputs[i]) : 0LL);
		array_copy(x, &it->inputs[i]);
		return KNIT_OK;
	}
	return knit__fail(d, KNIT_ERR_INTERNAL, 0, "%%%u lies in an input that is not listed", value);
}

static void read_state(const knit_interp *it, uint32_t value, knit_array *x) {
	for (uint32_t i = 0; i < it->g->state_count; ++i)
		if (it->g->states[i].storage == knit__value(it->g, value)->storage && it->states[i].data)
			array_copy(x, &it->states[i]);
}

static knit_status make_leaf(const knit_interp *it, uint32_t value, knit_array *x, knit_diag *d) {
	const knit_storage *s = knit__value_storage(it->g, value);
	knit_status status;

	if (knit__value(it->g, value)->producer)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "%%%u is read before it is written", value);
	status = array_make(it, value, x, d);
	if (status != KNIT_OK)
		return status;
	if (is_weight(it->g, value) && s->host)
		knit__decode(s->dtype, s->host, x->data, (uint64_t)knit__array_count(x));
	else if (is_weight(it->g, value))
		fill(it, s, x);
	else if (s->kind == KNIT_STORAGE_INPUT)
		status = read_input(it, value, x, d);
	else
		read_state(it, value, x);
	if (status != KNIT_OK)
		array_clear(it->a, x);
	return status;
}

/* Copies the elements of a window out of its root, row-major. */
static knit_status gather(const knit_interp *it, uint32_t value, const knit_array *root, knit_array *x, knit_diag *d) {
	const knit_value *v = knit__value(it->g, value);
	const knit_exprs *e = &it->g->exprs;
	int64_t dims[KNIT_MAX_RANK] = {1, 1, 1, 1}, strides[KNIT_MAX_RANK] = {0}, at = 0;
	const int64_t offset = knit__dim_eval(e, it->symbols, v->offset);
	int64_t last = offset;

	for (int i = 0; i < v->rank; ++i) {
		dims[KNIT_MAX_RANK - v->rank + i] = x->dims[i];
		strides[KNIT_MAX_RANK - v->rank + i] = knit__dim_eval(e, it->symbols, v->strides[i]);
	}
	if (knit__array_count(x) == 0)
		return KNIT_OK;
	for (int i = 0; i < KNIT_MAX_RANK; ++i) {
		int64_t span = 0;

		if (!knit__mul_i64(dims[i] - 1, strides[i], &span) || !knit__add_i64(last, span, &last))
			last = INT64_MAX;
	}
	if (last >= knit__array_count(root))
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "%%%u reaches element %lld of %%%u, which has %lld at these symbols",
						  value, (long long)last, v->view_of, (long long)knit__array_count(root));
	for (int64_t i = 0; i < dims[0]; ++i)
		for (int64_t j = 0; j < dims[1]; ++j)
			for (int64_t k = 0; k < dims[2]; ++k)
				for (int64_t l = 0; l < dims[3]; ++l)
					x->data[at++] =
						root->data[offset + i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3]];
	return KNIT_OK;
}

/* The array of a value, made now if it is a leaf or a view. */
static knit_status get(knit_interp *it, uint32_t value, const knit_array **out, knit_diag *d) {
	knit_array *x = &it->values[value];
	const uint32_t root = it->g->values[value].view_of;
	knit_status status = KNIT_OK;

	if (!x->data && root) {
		const knit_array *whole;

		status = get(it, root, &whole, d);
		if (status == KNIT_OK)
			status = array_make(it, value, x, d);
		if (status == KNIT_OK)
			status = gather(it, value, whole, x, d);
		if (status != KNIT_OK)
			array_clear(it->a, x);
	} else if (!x->data) {
		status = make_leaf(it, value, x, d);
	}
	*out = x;
	return status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static knit_status check_indices(const knit_interp *it, uint32_t node, const knit_op_def *def, const knit_array *in,
                                 knit_diag *d) {
	for (int r = 0; r < def->index_rule_count; ++r) {
		const knit_index_rule *rule = &def->index_rules[r];
		const knit_node *n = &it->g->nodes[node];
		const knit_array *x = &in[rule->operand];

		if (knit__index_rule_void(rule, n->in_count, n->attr) || !n->in[rule->operand] || !n->in[rule->into])
			continue;
		const int64_t bound = in[rule->into].dims[rule->dim];

		for (int64_t i = 0; i < knit__array_count(x); ++i)
			if (!(x->data[i] >= 0 && x->data[i] < (double)bound && x->data[i] == floor(x->data[i])))
				return knit__fail(d, KNIT_ERR_ARGUMENT, node, "%s at %s: index %g of operand %u, needs 0 to %lld",
								  def->name, knit__origin_text(it->g, &it->g->nodes[node]), x->data[i], rule->operand,
								  (long long)bound - 1);
	}
	return KNIT_OK;
}

static knit_status run_node(knit_interp *it, uint32_t id, knit_diag *d) {
	const knit_node *n = &it->g->nodes[id];
	const knit_op_def *def = knit__op(n->op);
	knit_array in[KNIT_MAX_IN] = {{0}}, out[KNIT_MAX_OUT] = {{0}};
	knit_status status;

	for (int i = 0; i < n->in_count; ++i) {
		const knit_array *x;

		if (!n->in[i])
			continue;
		status = get(it, n->in[i], &x, d);
		if (status != KNIT_OK)
			return status;
		in[i] = *x;
	}
	status = check_indices(it, id, def, in, d);
	for (int i = 0; i < n->out_count && status == KNIT_OK; ++i) {
		status = array_make(it, n->out[i], &it->values[n->out[i]], d);
		out[i] = it->values[n->out[i]];
	}
	if (status != KNIT_OK)
		return status;
	for (uint32_t i = 0; i < def->state_outputs; ++i)
		array_copy(&out[i], &in[i]);
	def->eval(n->attr, in, n->in_count, out);
	return KNIT_OK;
}

static knit_status keep_states(knit_interp *it, knit_diag *d) {
	for (uint32_t i = 0; i < it->g->state_count; ++i) {
		const knit_array *last;
		knit_status status = get(it, it->g->states[i].current, &last, d);

		if (status == KNIT_OK && !it->states[i].data)
			status = array_make(it, it->g->states[i].current, &it->states[i], d);
		if (status != KNIT_OK)
			return status;
		array_copy(&it->states[i], last);
	}
	return KNIT_OK;
}

knit_status knit__interp_run(knit_interp *it, knit_diag *d) {
	const knit_graph *g = it->g;
	const knit_array *x;
	knit_status status = KNIT_OK;

	for (uint32_t i = 1; i < g->value_count; ++i)
		if (!g->values[i].storage || g->values[i].view_of || !is_weight(g, i))
			array_clear(it->a, &it->values[i]);
	for (uint32_t i = 0; i < g->order_count && status == KNIT_OK; ++i)
		status = run_node(it, g->order[i], d);
	for (uint32_t i = 0; i < g->output_count && status == KNIT_OK; ++i)
		status = get(it, g->outputs[i].value, &x, d);
	return status == KNIT_OK ? keep_states(it, d) : status;
}

knit_status knit__interp_output(const knit_interp *it, const char *output, const knit_array **out) {
	const uint32_t i = find_port(it->g, it->g->outputs, it->g->output_count, output);

	*out = NULL;
	if (i == it->g->output_count)
		return KNIT_ERR_NOT_FOUND;
	*out = knit__interp_value(it, it->g->outputs[i].value);
	return *out ? KNIT_OK : KNIT_ERR_STATE;
}

const knit_array *knit__interp_value(const knit_interp *it, uint32_t value) {
	return value && value < it->g->value_count && it->values[value].data ? &it->values[value] : NULL;
}
