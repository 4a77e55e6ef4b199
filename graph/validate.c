/* Owns the checking of every IR invariant. Trusts no id and no count beyond the arrays' own sizes, so that it can be
 * asked about any graph, and changes nothing. */
#include "op_def.h"
#include "text.h"
#include "validate.h"

#include <stdio.h>
#include <string.h>

typedef struct check {
	const knit_graph *g;
	knit_text *faults;
	uint32_t count;
	uint32_t *position; /* per node: place in the order + 1; 0: not in it */
	uint32_t *next;     /* per value: the node that writes the version after it; 0: none */
	bool *sound;        /* per value: may be looked into by later checks */
	bool *chained;      /* per value: a state version reached from its slot */
} check;

static void fault(check *c, const char *fmt, ...) KNIT_PRINTF(2, 3);
static void fault(check *c, const char *fmt, ...) {
	char text[512];
	va_list args;

	c->count++;
	if (!c->faults)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__text_add(c->faults, "%s\n", text);
}

/* ---- symbols and storages ---------------------------------------------------------------------------------------- */

static void check_exprs(check *c) {
	const knit_exprs *e = &c->g->exprs;

	if (e->symbol_count > KNIT_MAX_SYMBOLS) {
		fault(c, "%u symbols, at most %d fit", e->symbol_count, KNIT_MAX_SYMBOLS);
		return;
	}
	for (uint32_t i = 0; i < e->symbol_count; ++i) {
		const knit_symbol *s = &e->symbols[i];

		if (s->name == 0 || s->name > c->g->strings.count || s->lo < 0 || s->lo > s->hi)
			fault(c, "symbol %u: name %u, range [%lld, %lld]", i, s->name, (long long)s->lo, (long long)s->hi);
	}
	for (uint32_t i = 0; i < e->count; ++i) {
		const knit_expr *x = &e->data[i];
		bool good = x->terms >= 1 && x->terms <= KNIT_EXPR_TERMS && x->lo >= 0 && x->lo <= x->hi;

		for (int t = 0; good && t < x->terms; ++t)
			good = x->sym[t] < e->symbol_count && x->k[t] != 0 && (t == 0 || x->sym[t - 1] < x->sym[t]);
		if (!good)
			fault(c, "expression %u is not affine over the symbols, or can be negative", i);
	}
}

static void check_storage(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_storage *s = &g->storages[id];

	if (!s->kind)
		return;
	if ((unsigned)s->kind > KNIT_STORAGE_STATE)
		fault(c, "s%u: unknown kind %d", id, (int)s->kind);
	if (!knit__dtype_info(s->dtype))
		fault(c, "s%u: unknown element type %d", id, (int)s->dtype);
	if (s->name > g->strings.count || (s->kind == KNIT_STORAGE_TEMP) != (s->name == 0))
		fault(c, "s%u: name %u does not suit its kind", id, s->name);
	if (s->host && s->kind != KNIT_STORAGE_CONST && s->kind != KNIT_STORAGE_ADAPTER)
		fault(c, "s%u: host bytes on a storage that is no weight", id);
	if (s->slots && (s->kind != KNIT_STORAGE_ADAPTER || s->host))
		fault(c, "s%u: slots on a storage that is no adapter, or has bytes of its own", id);
	if (s->value == 0 || s->value >= g->value_count)
		fault(c, "s%u: whole value %u does not exist", id, s->value);
	else if (g->values[s->value].storage != id || g->values[s->value].view_of)
		fault(c, "s%u: %%%u is not its whole value", id, s->value);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static bool dim_good(const knit_graph *g, knit_dim d) { return d.v >= 0 || knit__expr_get(&g->exprs, d); }

static bool shape_good(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_value *v = &g->values[id];

	if (v->rank > KNIT_MAX_RANK) {
		fault(c, "%%%u: rank %u", id, v->rank);
		return false;
	}
	bool good = dim_good(g, v->offset);
	for (int i = 0; i < v->rank; ++i)
		good = good && dim_good(g, v->dims[i]) && dim_good(g, v->strides[i]);
	if (!good)
		fault(c, "%%%u: a size, stride or offset names no expression", id);
	return good;
}

static void check_whole(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_value *v = &g->values[id];
	const knit_storage *s = &g->storages[v->storage];
	uint64_t elements, bytes;

	if (s->kind != KNIT_STORAGE_STATE && s->value != id)
		fault(c, "%%%u: s%u belongs to %%%u", id, v->storage, s->value);
	if (s->kind != KNIT_STORAGE_STATE && v->version)
		fault(c, "%%%u: version %u of a storage that is no state", id, v->version);
	if (v->offset.v != 0 || !knit__value_contiguous(g, id))
		fault(c, "%%%u: is no view, but not the whole storage either", id);
	if (!knit__value_max_elements(g, NULL, id, &elements) || !knit__dtype_bytes(v->dtype, elements, &bytes))
		fault(c, "%%%u: its size does not fit 64 bits or breaks a block", id);
	else if (bytes != s->max_bytes)
		fault(c, "%%%u: takes %llu bytes, s%u has %llu", id, (unsigned long long)bytes, v->storage,
		      (unsigned long long)s->max_bytes);
	for (int i = 0; i < v->rank; ++i)
		if (v->dims[i].v < 0 &&
		    (s->kind == KNIT_STORAGE_CONST || s->kind == KNIT_STORAGE_ADAPTER || s->kind == KNIT_STORAGE_STATE))
			fault(c, "%%%u: a %s whose size depends on symbols", id, knit__storage_kind_name(s->kind));
	const knit_dtype_info *info = knit__dtype_info(v->dtype);
	if (info->is_block && (v->rank == 0 || v->dims[v->rank - 1].v % info->block_elements != 0))
		fault(c, "%%%u: rows break a %s block", id, info->name);
}

/* Whether the last element of view v lies inside its root where every symbol has the value in `at`. */
static bool window_fits(const knit_graph *g, const knit_value *v, const int64_t *at) {
	const knit_value *root = &g->values[v->view_of];
	int64_t whole = 1, last = knit__dim_eval(&g->exprs, at, v->offset);

	for (int i = 0; i < root->rank; ++i)
		if (!knit__mul_i64(whole, knit__dim_eval(&g->exprs, at, root->dims[i]), &whole))
			return false;
	for (int i = 0; i < v->rank; ++i)
		if (knit__dim_eval(&g->exprs, at, v->dims[i]) == 0)
			return true;
	for (int i = 0; i < v->rank; ++i) {
		const int64_t n = knit__dim_eval(&g->exprs, at, v->dims[i]),
					  stride = knit__dim_eval(&g->exprs, at, v->strides[i]);
		int64_t span;

		if (!knit__mul_i64(n - 1, stride, &span) || !knit__add_i64(last, span, &last))
			return false;
	}
	return last < whole;
}

/* At the symbols' lower bounds and at their upper bounds. */
static void check_window(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_value *v = &g->values[id];
	const knit_dtype_info *info = knit__dtype_info(v->dtype);
	const uint32_t block = info->block_elements;
	knit_bounds b;

	knit__bounds_declared(&g->exprs, &b);
	if (!window_fits(g, v, b.lo) || !window_fits(g, v, b.hi))
		fault(c, "%%%u: reaches past the end of %%%u", id, v->view_of);
	if (block == 1)
		return;
	bool aligned = v->offset.v >= 0 && v->offset.v % block == 0 && v->rank > 0 && v->strides[v->rank - 1].v == 1 &&
	               v->dims[v->rank - 1].v >= 0 && v->dims[v->rank - 1].v % block == 0;
	for (int i = 0; i + 1 < v->rank; ++i)
		aligned = aligned && v->strides[i].v >= 0 && v->strides[i].v % block == 0;
	if (!aligned)
		fault(c, "%%%u: cuts %s blocks", id, info->name);
}

static void check_producer(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_value *v = &g->values[id];
	const knit_storage_kind kind = g->storages[v->storage].kind;
	uint32_t found = 0;

	if (!v->producer)
		return;
	if (kind != KNIT_STORAGE_TEMP && kind != KNIT_STORAGE_OUTPUT && (kind != KNIT_STORAGE_STATE || !v->version))
		fault(c, "%%%u: written by node %u, but lies in a storage that no node writes", id, v->producer);
	const knit_node *n = &g->nodes[v->producer];
	for (int i = 0; i < n->out_count && i < KNIT_MAX_OUT; ++i)
		found += n->out[i] == id;
	if (found != 1)
		fault(c, "%%%u: node %u names it %u times among its outputs", id, v->producer, found);
}

static void check_value(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_value *v = &g->values[id];

	if (!knit__value_live(g, id) || (g->storages[v->storage].kind > KNIT_STORAGE_STATE))
		return;
	if (!knit__dtype_info(v->dtype) || v->dtype != g->storages[v->storage].dtype) {
		fault(c, "%%%u: type %s, s%u has %s", id, knit_dtype_name(v->dtype), v->storage,
		      knit_dtype_name(g->storages[v->storage].dtype));
		return;
	}
	if (!shape_good(c, id))
		return;
	if (v->layout && (v->view_of || v->producer || g->storages[v->storage].kind != KNIT_STORAGE_CONST))
		fault(c, "%%%u: layout %u, but it is no whole constant", id, v->layout);
	if (!v->view_of) {
		check_whole(c, id);
		check_producer(c, id);
		c->sound[id] = true;
		return;
	}
	const knit_value *root = &g->values[v->view_of];
	if (v->storage != root->storage || v->version != root->version || v->dtype != root->dtype || v->producer)
		fault(c, "%%%u: disagrees with %%%u, which it is a view of", id, v->view_of);
	else if (root->layout)
		fault(c, "%%%u: a view of %%%u, which has layout %u", id, v->view_of, root->layout);
	else if (shape_good(c, v->view_of)) {
		check_window(c, id);
		c->sound[id] = true;
	}
}

/* ---- order and nodes --------------------------------------------------------------------------------------------- */

static void check_order(check *c) {
	const knit_graph *g = c->g;

	for (uint32_t i = 0; i < g->order_count; ++i) {
		const uint32_t id = g->order[i];

		if (id == 0 || id >= g->node_count || g->nodes[id].op == KNIT_OP_NONE)
			fault(c, "order: place %u names node %u, which does not exist", i, id);
		else if (c->position[id])
			fault(c, "order: node %u stands at places %u and %u", id, c->position[id] - 1, i);
		else
			c->position[id] = i + 1;
	}
	for (uint32_t i = 1; i < g->node_count; ++i)
		if (g->nodes[i].op != KNIT_OP_NONE && !c->position[i])
			fault(c, "order: node %u is missing", i);
}

static const char *node_name(const check *c, uint32_t id, char *out, size_t size) {
	const knit_op_def *def = knit__op(c->g->nodes[id].op);
	const char *origin = knit__origin_text(c->g, &c->g->nodes[id]);

	snprintf(out, size, "node %u (%%%u = %s%s%s)", id, c->g->nodes[id].out[0], def ? def->name : "?",
			 *origin ? " @" : "", origin);
	return out;
}

/* Operands and outputs exist and are written before they are read. */
static bool check_node(check *c, uint32_t id) {
	const knit_graph *g = c->g;
	const knit_node *n = &g->nodes[id];
	const knit_op_def *def = knit__op(n->op);
	const uint32_t before = c->count;
	char name[128];

	node_name(c, id, name, sizeof name);
	if (!def) {
		fault(c, "%s: unknown op %u", name, n->op);
		return false;
	}
	if (n->in_count < def->min_in || n->in_count > def->max_in || n->in_count > KNIT_MAX_IN ||
	    n->out_count > def->out_count || n->out_count < (def->min_out ? def->min_out : def->out_count) ||
	    n->out_count > KNIT_MAX_OUT) {
		fault(c, "%s: %u inputs and %u outputs, %s takes %u to %u and gives %u", name, n->in_count, n->out_count,
			  def->name, def->min_in, def->max_in, def->out_count);
		return false;
	}
	if (n->origin > g->strings.count)
		fault(c, "%s: its origin is no string", name);
	for (int i = 0; i < n->in_count; ++i) {
		const uint32_t in = n->in[i];

		if (!in && i >= def->min_in)
			continue;
		if (!knit__value_live(g, in) || !c->sound[in]) {
			fault(c, "%s: input %d is %%%u, which does not exist or is broken", name, i, in);
			continue;
		}
		const uint32_t writer = knit__value_producer(g, in);
		if (writer && c->position[id] && c->position[writer] >= c->position[id])
			fault(c, "%s: reads %%%u before node %u writes it", name, in, writer);
	}
	for (int i = 0; i < n->out_count; ++i) {
		const uint32_t out = n->out[i];

		if (out == 0 || out >= g->value_count || g->values[out].producer != id || g->values[out].view_of ||
			!c->sound[out])
			fault(c, "%s: output %d is %%%u, which is broken or not its own", name, i, out);
		else if ((g->storages[g->values[out].storage].kind == KNIT_STORAGE_STATE) !=
		         (i < def->state_outputs))
			fault(c, "%s: output %d is in a %s storage", name, i,
			      knit__storage_kind_name(g->storages[g->values[out].storage].kind));
	}
	return c->count == before;
}

/* `graph` is a shallow copy of c->g with expressions of its own: infer makes new ones. */
static void check_infer(check *c, knit_graph *graph, uint32_t id) {
	const knit_node *n = &c->g->nodes[id];
	const knit_op_def *def = knit__op(n->op);
	knit_diag d = {0};
	knit_infer infer = {.graph = graph,
	                    .in_count = n->in_count,
	                    .attr = n->attr,
	                    .out_count = def->out_count,
	                    .op = def->name,
	                    .origin = knit__origin_text(c->g, n),
	                    .diag = &d};
	char name[128];

	node_name(c, id, name, sizeof name);
	for (int i = 0; i < n->in_count; ++i)
		infer.in[i] = n->in[i] ? &c->g->values[n->in[i]] : NULL;
	if (!def->infer(&infer)) {
		fault(c, "%s: %s", name, d.text);
		return;
	}
	if (infer.out_count != n->out_count) {
		fault(c, "%s: %u outputs, its attributes give %u", name, n->out_count, infer.out_count);
		return;
	}
	for (int i = 0; i < n->out_count; ++i) {
		const knit_value *v = &c->g->values[n->out[i]];
		knit_type want = infer.out[i];

		if (i < def->state_outputs) {
			const knit_value *in = &c->g->values[n->in[i]];

			want = (knit_type){.dtype = in->dtype, .rank = in->rank};
			memcpy(want.dims, in->dims, sizeof want.dims);
		}
		bool same = v->dtype == want.dtype && v->rank == want.rank;
		for (int k = 0; same && k < v->rank; ++k)
			same = v->dims[k].v == want.dims[k].v;
		if (!same) {
			char text[96];

			knit__value_text(c->g, n->out[i], text, sizeof text);
			fault(c, "%s: output %d is %s, which its inputs do not give", name, i, text);
		}
	}
}

static void check_nodes(check *c, bool exprs_good, bool *memory) {
	knit_graph own = *c->g;

	knit__exprs_init(&own.exprs, c->g->a);
	if (exprs_good && !knit__exprs_copy(&own.exprs, &c->g->exprs)) {
		*memory = false;
		return;
	}
	for (uint32_t i = 1; i < c->g->node_count; ++i)
		if (c->g->nodes[i].op != KNIT_OP_NONE && check_node(c, i) && exprs_good)
			check_infer(c, &own, i);
	knit__exprs_clear(&own.exprs);
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

/* The version that node n wrote over when it made version v; 0 if v is none of its states. */
static uint32_t state_before(const knit_node *n, const knit_op_def *def, uint32_t v) {
	for (uint32_t i = 0; i < def->state_outputs && i < n->in_count; ++i)
		if (n->out[i] == v)
			return n->in[i];
	return 0;
}

/* Follows the versions from the last one back to 0 and notes which node writes after each. */
static void check_slot(check *c, uint32_t index) {
	const knit_graph *g = c->g;
	const uint32_t storage = g->states[index].storage;
	uint32_t v = g->states[index].current;

	if (storage == 0 || storage >= g->storage_count || g->storages[storage].kind != KNIT_STORAGE_STATE) {
		fault(c, "state %u: s%u is no state", index, storage);
		return;
	}
	for (uint32_t i = 0; i < index; ++i)
		if (g->states[i].storage == storage)
			fault(c, "state %u: s%u is listed twice", index, storage);
	for (;;) {
		if (!knit__value_live(g, v) || !c->sound[v] || g->values[v].storage != storage || g->values[v].view_of) {
			fault(c, "state %u: %%%u is no version of s%u", index, v, storage);
			return;
		}
		if (c->chained[v]) {
			fault(c, "state %u: %%%u comes after itself", index, v);
			return;
		}
		c->chained[v] = true;
		if (!g->values[v].producer)
			break;

		const knit_node *n = &g->nodes[g->values[v].producer];
		const knit_op_def *def = knit__op(n->op);
		const uint32_t before = def ? state_before(n, def, v) : 0;
		if (before == 0 || before >= g->value_count ||
		    g->values[before].storage != storage || g->values[before].version + 1 != g->values[v].version) {
			fault(c, "state %u: %%%u does not follow from the version before it", index, v);
			return;
		}
		c->next[before] = g->values[v].producer;
		v = before;
	}
	if (v != g->storages[storage].value)
		fault(c, "state %u: %%%u is not the first version of s%u", index, v, storage);
}

static void check_states(check *c) {
	const knit_graph *g = c->g;

	for (uint32_t i = 0; i < g->state_count; ++i)
		check_slot(c, i);
	for (uint32_t i = 1; i < g->value_count; ++i)
		if (c->sound[i] && !g->values[i].view_of && g->storages[g->values[i].storage].kind == KNIT_STORAGE_STATE &&
		    !c->chained[i])
			fault(c, "%%%u: a version of s%u that its state does not reach", i, g->values[i].storage);
	for (uint32_t i = 1; i < g->node_count; ++i) {
		const knit_node *n = &g->nodes[i];

		for (int k = 0; n->op != KNIT_OP_NONE && k < n->in_count && k < KNIT_MAX_IN; ++k) {
			if (!knit__value_live(g, n->in[k]))
				continue;
			const uint32_t writer = c->next[knit__value_root(g, n->in[k])];
			if (writer && writer != i && c->position[writer] < c->position[i])
				fault(c, "node %u: reads %%%u after node %u has written the next version", i, n->in[k], writer);
		}
	}
}

/* ---- ports ------------------------------------------------------------------------------------------------------- */

static void check_ports(check *c, const char *what, const knit_port *ports, uint32_t count) {
	for (uint32_t i = 0; i < count; ++i) {
		if (ports[i].name == 0 || ports[i].name > c->g->strings.count)
			fault(c, "%s %u: has no name", what, i);
		if (!knit__value_live(c->g, ports[i].value) || !c->sound[ports[i].value])
			fault(c, "%s %u: %%%u does not exist or is broken", what, i, ports[i].value);
		for (uint32_t j = 0; j < i; ++j)
			if (ports[j].name == ports[i].name)
				fault(c, "%s %u: \"%s\" is there twice", what, i, knit__strings_get(&c->g->strings, ports[i].name));
	}
}

/* Storages of the kinds that the caller sees are in their table, once. */
static void check_tables(check *c) {
	const knit_graph *g = c->g;

	check_ports(c, "input", g->inputs, g->input_count);
	check_ports(c, "output", g->outputs, g->output_count);
	for (uint32_t id = 1; id < g->storage_count; ++id) {
		const knit_storage *s = &g->storages[id];
		uint32_t found = 0;

		for (uint32_t i = 0; s->kind == KNIT_STORAGE_INPUT && i < g->input_count; ++i)
			found += g->inputs[i].value == s->value && g->inputs[i].name == s->name;
		for (uint32_t i = 0; s->kind == KNIT_STORAGE_OUTPUT && i < g->output_count; ++i)
			found += g->outputs[i].value == s->value && g->outputs[i].name == s->name;
		for (uint32_t i = 0; s->kind == KNIT_STORAGE_STATE && i < g->state_count; ++i)
			found += g->states[i].storage == id;
		const bool listed =
			s->kind == KNIT_STORAGE_INPUT || s->kind == KNIT_STORAGE_OUTPUT || s->kind == KNIT_STORAGE_STATE;
		if (listed && found != 1)
			fault(c, "s%u: its %s is listed %u times", id, knit__storage_kind_name(s->kind), found);
	}
	for (uint32_t i = 0; i < g->input_count; ++i)
		if (g->inputs[i].value < g->value_count && g->values[g->inputs[i].value].storage < g->storage_count &&
		    g->storages[g->values[g->inputs[i].value].storage].kind != KNIT_STORAGE_INPUT)
			fault(c, "input %u: %%%u is no input", i, g->inputs[i].value);
}

knit_status knit__validate(const knit_graph *g, knit_text *faults) {
	check c = {.g = g, .faults = faults};
	bool memory = true;

	if (!g->storage_count || !g->value_count || !g->node_count) {
		fault(&c, "the arrays lack their element 0");
		return KNIT_ERR_INTERNAL;
	}
	c.position = knit__alloc_array(g->a, g->node_count, sizeof *c.position);
	c.next = knit__alloc_array(g->a, g->value_count, sizeof *c.next);
	c.sound = knit__alloc_array(g->a, g->value_count, sizeof *c.sound);
	c.chained = knit__alloc_array(g->a, g->value_count, sizeof *c.chained);
	if (c.position && c.next && c.sound && c.chained) {
		check_exprs(&c);
		const bool exprs_good = c.count == 0;
		for (uint32_t i = 1; i < g->storage_count; ++i)
			check_storage(&c, i);
		for (uint32_t i = 1; exprs_good && i < g->value_count; ++i)
			check_value(&c, i);
		check_order(&c);
		check_nodes(&c, exprs_good, &memory);
		check_states(&c);
		check_tables(&c);
	} else {
		memory = false;
	}
	knit__free(g->a, c.position, g->node_count * sizeof *c.position);
	knit__free(g->a, c.next, g->value_count * sizeof *c.next);
	knit__free(g->a, c.sound, g->value_count * sizeof *c.sound);
	knit__free(g->a, c.chained, g->value_count * sizeof *c.chained);
	if (!memory || (faults && faults->failed))
		return KNIT_ERR_MEMORY;
	return c.count ? KNIT_ERR_INTERNAL : KNIT_OK;
}
