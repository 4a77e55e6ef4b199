/* Owns the comparison of a graph before and after a pass. Knows no pass. */
#include "pass_check.h"
#include "text.h"
#include "validate.h"

#include <math.h>
#include <string.h>

#define MAX_WORK 2e9 /* flops and elements of one reference run: some seconds */
#define RUNS 2

knit_status knit__check_valid(const knit_graph *g, knit_text *report, knit_diag *d) {
	knit_text faults = {.a = g->a};
	knit_status status = knit__validate(g, &faults);
	const char *text = faults.data ? faults.data : "";

	if (status == KNIT_ERR_MEMORY)
		knit__fail_memory(d, "validation", 0);
	else if (status != KNIT_OK)
		knit__fail(d, status, 0, "%.*s", (int)strcspn(text, "\n"), text);
	if (status == KNIT_ERR_INTERNAL && report) {
		knit__text_add(report, "%s", text);
		knit__print_text(g, report);
	}
	knit__text_clear(&faults);
	return status;
}

knit_status knit__check_text(const knit_graph *g, knit_diag *d) {
	knit_text first = {.a = g->a}, second = {.a = g->a};
	knit_graph *again = NULL;
	knit_diag why = {0};
	knit_status status = knit__print_text(g, &first);

	if (status == KNIT_OK)
		status = knit__parse_text(g->ctx, first.data, &again, &why);
	if (status == KNIT_OK)
		status = knit__print_text(again, &second);
	if (status == KNIT_ERR_MEMORY)
		knit__fail_memory(d, "the text of a graph", 0);
	else if (status != KNIT_OK)
		status = knit__fail(d, KNIT_ERR_INTERNAL, 0, "the printed graph does not parse: %s", why.text);
	else if (strcmp(first.data, second.data) != 0)
		status = knit__fail(d, KNIT_ERR_INTERNAL, 0, "the printed graph, parsed, prints another text");
	knit_graph_destroy(again);
	knit__text_clear(&first);
	knit__text_clear(&second);
	return status;
}

/* ---- random runs ------------------------------------------------------------------------------------------------- */

typedef struct trial {
	const knit_graph *g; /* the graph before */
	int64_t symbols[KNIT_MAX_SYMBOLS];
	int64_t *bound; /* per input: indices below it; 0: no index operand */
	uint64_t random;
} trial;

static uint64_t next(trial *t) {
	uint64_t z = t->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void choose_symbols(trial *t) {
	for (uint32_t i = 0; i < t->g->exprs.symbol_count; ++i) {
		const knit_symbol *s = &t->g->exprs.symbols[i];
		const uint64_t span = s->hi - s->lo < 7 ? (uint64_t)(s->hi - s->lo) : 7;

		t->symbols[i] = s->lo + (int64_t)(next(t) % (span + 1));
	}
}

/* The smallest range that any op wants of an input that it uses as an index. */
static void find_bounds(trial *t) {
	const knit_graph *g = t->g;

	memset(t->bound, 0, g->input_count * sizeof *t->bound);
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];
		const knit_op_def *def = knit__op(n->op);

		for (int r = 0; r < def->index_rule_count; ++r) {
			const knit_index_rule *rule = &def->index_rules[r];

			if (knit__index_rule_void(rule, n->in_count, n->attr) || !n->in[rule->operand] || !n->in[rule->into])
				continue;
			const uint32_t root = knit__value_root(g, n->in[rule->operand]);
			const knit_value *into = knit__value(g, n->in[rule->into]);
			const int64_t size = knit__dim_eval(&g->exprs, t->symbols, into->dims[rule->dim]);

			for (uint32_t k = 0; k < g->input_count; ++k)
				if (g->inputs[k].value == root && (!t->bound[k] || size < t->bound[k]))
					t->bound[k] = size < 1 ? 1 : size;
		}
	}
}

/* A rough sum, so that a real model is not run by the reference. */
static double work(const trial *t) {
	const knit_graph *g = t->g;
	double sum = 0;

	for (uint32_t i = 1; i < g->storage_count; ++i)
		sum += g->storages[i].kind == KNIT_STORAGE_TEMP ? 0 : (double)g->storages[i].max_bytes;
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];
		knit_shape in[KNIT_MAX_IN] = {{0}}, out[KNIT_MAX_OUT] = {{0}};
		knit_cost cost = {0};

		for (int k = 0; k < n->in_count + n->out_count; ++k) {
			const knit_value *v = knit__value(g, k < n->in_count ? n->in[k] : n->out[k - n->in_count]);
			knit_shape *s = k < n->in_count ? &in[k] : &out[k - n->in_count];

			s->dtype = v->dtype;
			s->rank = v->rank;
			for (int j = 0; j < v->rank; ++j)
				s->dims[j] = knit__dim_eval(&g->exprs, t->symbols, v->dims[j]);
		}
		knit__op(n->op)->cost(n->attr, in, n->in_count, out, INT32_MAX, &cost);
		sum += cost.flops + (double)cost.read_bytes + (double)cost.write_bytes;
	}
	return sum;
}

static int64_t input_elements(const trial *t, uint32_t input) {
	const knit_value *v = knit__value(t->g, t->g->inputs[input].value);
	int64_t count = 1;

	for (int i = 0; i < v->rank; ++i)
		count *= knit__dim_eval(&t->g->exprs, t->symbols, v->dims[i]);
	return count;
}

/* Numbers that the input's type can hold. Indices run on from a random start, so that they differ where there is room.
 */
static void fill_input(trial *t, uint32_t input, double *data, int64_t count) {
	const knit_dtype dtype = knit__value(t->g, t->g->inputs[input].value)->dtype;
	const bool integer = dtype == KNIT_I32;
	const int64_t bound = t->bound[input], start = bound ? (int64_t)(next(t) % (uint64_t)bound) : 0;

	for (int64_t i = 0; i < count; ++i) {
		const uint64_t r = next(t);
		char bits[sizeof(double)];

		if (bound)
			data[i] = (double)((start + i) % bound);
		else
			data[i] = integer ? (double)(r % 16) : (double)(int64_t)(r >> 40) / (double)(1 << 23) - 1.0;
		knit__encode(dtype, &data[i], bits, 1);
		knit__decode(dtype, bits, &data[i], 1);
	}
}

static knit_status write_inputs(trial *t, knit_interp *a, knit_interp *b, knit_diag *d) {
	for (uint32_t i = 0; i < t->g->input_count; ++i) {
		const char *name = knit__strings_get(&t->g->strings, t->g->inputs[i].name);
		const int64_t count = input_elements(t, i);
		double *data = knit__alloc_array(t->g->a, (size_t)count, sizeof *data);

		if (!data)
			return knit__fail_memory(d, "an input of the reference", (uint64_t)count * sizeof *data);
		fill_input(t, i, data, count);
		knit_status status = knit__interp_write(a, name, data, (size_t)count);
		if (status == KNIT_OK)
			status = knit__interp_write(b, name, data, (size_t)count);
		knit__free(t->g->a, data, (size_t)count * sizeof *data);
		if (status != KNIT_OK)
			return knit__fail(d, status, 0, "input \"%s\" cannot be written to both graphs", name);
	}
	return KNIT_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static knit_status compare(const char *what, const char *name, const knit_array *x, const knit_array *y,
						   double tolerance, knit_diag *d) {
	bool same = x && y && x->dtype == y->dtype && x->rank == y->rank;

	for (uint32_t i = 0; same && i < x->rank; ++i)
		same = x->dims[i] == y->dims[i];
	if (!same)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "%s \"%s\" has another type than before", what, name);
	for (int64_t i = 0; i < knit__array_count(x); ++i) {
		const double a = x->data[i], b = y->data[i];

		if (a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tolerance * fmax(fabs(a), fabs(b)))
			continue;
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "%s \"%s\" differs at element %lld: %.17g before, %.17g after", what,
						  name, (long long)i, a, b);
	}
	return KNIT_OK;
}

static const char *state_name(const knit_graph *g, uint32_t i) {
	return knit__strings_get(&g->strings, g->storages[g->states[i].storage].name);
}

static knit_status compare_all(const knit_graph *before, const knit_graph *after, const knit_interp *a,
                               const knit_interp *b, double tolerance, knit_diag *d) {
	knit_status status = KNIT_OK;

	if (before->output_count != after->output_count || before->state_count != after->state_count)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "outputs or states were added or lost");
	for (uint32_t i = 0; i < before->output_count && status == KNIT_OK; ++i) {
		const char *name = knit__strings_get(&before->strings, before->outputs[i].name);
		const knit_array *x, *y;

		knit__interp_output(a, name, &x);
		knit__interp_output(b, name, &y);
		status = compare("output", name, x, y, tolerance, d);
	}
	for (uint32_t i = 0; i < before->state_count && status == KNIT_OK; ++i) {
		uint32_t j = 0;

		while (j < after->state_count && strcmp(state_name(before, i), state_name(after, j)) != 0)
			++j;
		status = compare("state", state_name(before, i), knit__interp_value(a, before->states[i].current),
		                 j < after->state_count ? knit__interp_value(b, after->states[j].current) : NULL, tolerance, d);
	}
	return status;
}

static knit_status set_symbols(const trial *t, knit_interp *it, knit_diag *d) {
	const knit_exprs *e = &t->g->exprs;

	for (uint32_t i = 0; i < e->symbol_count; ++i) {
		const char *name = knit__strings_get(&t->g->strings, e->symbols[i].name);

		if (knit__interp_set_symbol(it, name, t->symbols[i]) != KNIT_OK)
			return knit__fail(d, KNIT_ERR_INTERNAL, 0, "symbol \"%s\" was lost", name);
	}
	return KNIT_OK;
}

/* A run that fails must fail in both, for the same reason in words. */
static knit_status run_both(trial *t, const knit_graph *after, knit_interp *a, knit_interp *b, double tolerance,
                            knit_diag *d) {
	knit_diag da = {0}, db = {0};
	knit_status status = set_symbols(t, a, d);

	if (status == KNIT_OK)
		status = set_symbols(t, b, d);
	find_bounds(t);
	if (status == KNIT_OK)
		status = write_inputs(t, a, b, d);
	if (status != KNIT_OK)
		return status;
	const knit_status first = knit__interp_run(a, &da), second = knit__interp_run(b, &db);
	if (first == KNIT_ERR_MEMORY || second == KNIT_ERR_MEMORY)
		return knit__fail(d, KNIT_ERR_MEMORY, 0, "%s", first == KNIT_ERR_MEMORY ? da.text : db.text);
	if (first != second)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "runs with %s before (%.60s) and %s after (%.60s)",
						  knit_status_name(first), da.text, knit_status_name(second), db.text);
	return first == KNIT_OK ? compare_all(t->g, after, a, b, tolerance, d) : KNIT_OK;
}

knit_status knit__check_equal(const knit_graph *before, const knit_graph *after, uint64_t seed, double tolerance,
                              bool *skipped, knit_diag *d) {
	trial t = {.g = before, .random = seed};
	knit_interp *a = NULL, *b = NULL;
	knit_status status = KNIT_OK;
	bool ran = false;

	t.bound = knit__alloc_array(before->a, before->input_count, sizeof *t.bound);
	if (!t.bound)
		return knit__fail_memory(d, "a comparison", before->input_count * sizeof *t.bound);
	choose_symbols(&t);
	if (work(&t) < MAX_WORK) {
		status = knit__interp_create(before, seed, &a, d);
		if (status == KNIT_OK)
			status = knit__interp_create(after, seed, &b, d);
		for (int run = 0; run < RUNS && status == KNIT_OK; ++run) {
			status = run_both(&t, after, a, b, tolerance, d);
			choose_symbols(&t);
			ran = true;
		}
	}
	if (skipped)
		*skipped = !ran;
	knit__interp_destroy(a);
	knit__interp_destroy(b);
	knit__free(before->a, t.bound, before->input_count * sizeof *t.bound);
	return status;
}
