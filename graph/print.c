/* Owns the text form of a graph and its Graphviz form. Reads only: it checks every id itself, because it must also show
 * graphs that validate has just found broken. The grammar is described at knit__parse_text (parse.c). */
#include "op_def.h"
#include "text.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"?", "const", "adapter", "temp", "input", "output", "state"};

const char *knit__storage_kind_name(knit_storage_kind kind) {
	return (unsigned)kind <= KNIT_STORAGE_STATE ? kind_names[kind] : "?";
}

knit_storage_kind knit__storage_kind_parse(const char *name) {
	for (int i = KNIT_STORAGE_CONST; i <= KNIT_STORAGE_STATE; ++i)
		if (strcmp(kind_names[i], name) == 0)
			return (knit_storage_kind)i;
	return (knit_storage_kind)0;
}

/* ---- small pieces ------------------------------------------------------------------------------------------------ */

static void add_quoted(knit_text *t, const char *text) {
	knit__text_add(t, "\"");
	for (const unsigned char *p = (const unsigned char *)text; *p; ++p) {
		if (*p == '"' || *p == '\\')
			knit__text_add(t, "\\%c", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			knit__text_add(t, "\\x%02x", *p);
		else
			knit__text_add(t, "%c", *p);
	}
	knit__text_add(t, "\"");
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* A name that needs no quotes: letter first, then letters, digits and dots. */
static void add_name(knit_text *t, const char *text) {
	const char *p = text;

	if (is_letter(*p))
		while (is_letter(*p) || is_digit(*p) || *p == '.')
			++p;
	if (p != text && !*p)
		knit__text_add(t, "%s", text);
	else
		add_quoted(t, text);
}

/* The shortest text that reads back as the same double, with a point whatever the locale says. */
static void add_double(knit_text *t, double x) {
	char text[64];

	if (isnan(x)) {
		knit__text_add(t, "nan");
		return;
	}
	for (int digits = 6; digits <= 17; digits += digits < 15 ? 9 : 1) {
		snprintf(text, sizeof text, "%.*g", digits, x);
		if (strtod(text, NULL) == x)
			break;
	}
	const char *point = localeconv()->decimal_point, *found = *point ? strstr(text, point) : NULL;
	if (found)
		knit__text_add(t, "%.*s.%s", (int)(found - text), text, found + strlen(point));
	else
		knit__text_add(t, "%s", text);
}

static void add_dim(knit_text *t, const knit_graph *g, knit_dim d) {
	const knit_expr *x = knit__expr_get(&g->exprs, d);

	if (!x) {
		knit__text_add(t, d.v < 0 ? "?%lld" : "%lld", (long long)d.v);
		return;
	}
	for (int i = 0; i < x->terms && i < KNIT_EXPR_TERMS; ++i) {
		if (i && x->k[i] >= 0)
			knit__text_add(t, "+");
		if (x->k[i] == -1)
			knit__text_add(t, "-");
		else if (x->k[i] != 1)
			knit__text_add(t, "%lld*", (long long)x->k[i]);
		if (x->sym[i] < g->exprs.symbol_count)
			add_name(t, knit__strings_get(&g->strings, g->exprs.symbols[x->sym[i]].name));
		else
			knit__text_add(t, "?%u", x->sym[i]);
	}
	if (x->k0)
		knit__text_add(t, "%+lld", (long long)x->k0);
}

static void add_dims(knit_text *t, const knit_graph *g, uint8_t rank, const knit_dim *dims) {
	knit__text_add(t, "[");
	for (int i = 0; i < rank && i < KNIT_MAX_RANK; ++i) {
		if (i)
			knit__text_add(t, ", ");
		add_dim(t, g, dims[i]);
	}
	knit__text_add(t, "]");
}

static void add_type(knit_text *t, const knit_graph *g, const knit_value *v) {
	knit__text_add(t, "%s ", knit_dtype_name(v->dtype));
	add_dims(t, g, v->rank, v->dims);
	if (v->layout)
		knit__text_add(t, " layout %u", v->layout);
}

static const knit_storage *storage_of(const knit_graph *g, const knit_value *v) {
	static const knit_storage none;

	return v->storage && v->storage < g->storage_count ? &g->storages[v->storage] : &none;
}

static bool is_state(const knit_graph *g, const knit_value *v) { return storage_of(g, v)->kind == KNIT_STORAGE_STATE; }

/* ---- an index of what must be printed where ---------------------------------------------------------------------- */

/* uses: per storage. first_view, next_view: the live views of a value, as lists; both per value. */
typedef struct index { uint32_t *uses, *first_view, *next_view; } index_lists;

static void index_clear(const knit_graph *g, index_lists *x) {
	knit__free(g->a, x->uses, g->storage_count * sizeof(uint32_t));
	knit__free(g->a, x->first_view, g->value_count * sizeof(uint32_t));
	knit__free(g->a, x->next_view, g->value_count * sizeof(uint32_t));
}

static void count_use(const knit_graph *g, index_lists *x, uint32_t value) {
	if (value && value < g->value_count && g->values[value].storage < g->storage_count)
		x->uses[g->values[value].storage]++;
}

static bool index_make(const knit_graph *g, index_lists *x) {
	x->uses = knit__alloc_array(g->a, g->storage_count, sizeof(uint32_t));
	x->first_view = knit__alloc_array(g->a, g->value_count, sizeof(uint32_t));
	x->next_view = knit__alloc_array(g->a, g->value_count, sizeof(uint32_t));
	if (!x->uses || !x->first_view || !x->next_view) {
		index_clear(g, x);
		return false;
	}
	for (uint32_t i = 0; i < g->order_count; ++i) {
		if (g->order[i] >= g->node_count)
			continue;
		const knit_node *n = &g->nodes[g->order[i]];
		for (uint32_t j = 0; j < n->in_count && j < KNIT_MAX_IN; ++j)
			count_use(g, x, n->in[j]);
	}
	for (uint32_t i = 0; i < g->output_count; ++i)
		count_use(g, x, g->outputs[i].value);
	for (uint32_t i = g->value_count; i-- > 1;) {
		const uint32_t root = g->values[i].view_of;

		if (!root || root >= g->value_count || !knit__value_live(g, i))
			continue;
		x->next_view[i] = x->first_view[root];
		x->first_view[root] = i;
	}
	return true;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void print_storage(const knit_graph *g, knit_text *t, uint32_t id, uint32_t uses) {
	const knit_storage *s = &g->storages[id];

	knit__text_add(t, "s%u = %s ", id, knit__storage_kind_name(s->kind));
	add_quoted(t, knit__strings_get(&g->strings, s->name));
	knit__text_add(t, " %s %llu bytes%s uses=%u\n", knit_dtype_name(s->dtype), (unsigned long long)s->max_bytes,
	               s->slots ? " slots" : "", uses);
}

static void print_views(const knit_graph *g, knit_text *t, const index_lists *x, uint32_t root) {
	for (uint32_t i = x->first_view[root]; i; i = x->next_view[i]) {
		const knit_value *v = &g->values[i];

		knit__text_add(t, "%%%u = view %%%u strides ", i, root);
		add_dims(t, g, v->rank, v->strides);
		knit__text_add(t, " offset ");
		add_dim(t, g, v->offset);
		knit__text_add(t, " : ");
		add_type(t, g, v);
		knit__text_add(t, "\n");
	}
}

static void print_leaf(const knit_graph *g, knit_text *t, uint32_t id) {
	const knit_value *v = &g->values[id];

	knit__text_add(t, "%%%u = %s s%u", id, knit__storage_kind_name(storage_of(g, v)->kind), v->storage);
	if (is_state(g, v))
		knit__text_add(t, "#%u", v->version);
	knit__text_add(t, " : ");
	add_type(t, g, v);
	knit__text_add(t, "\n");
}

static void add_attrs(knit_text *t, const knit_op_def *def, const knit_node *n) {
	if (!def || !def->attr_count)
		return;
	knit__text_add(t, " {");
	for (int i = 0; i < def->attr_count; ++i) {
		knit__text_add(t, "%s%s=", i ? ", " : "", def->attrs[i].name);
		if (def->attrs[i].kind == KNIT_ATTR_I)
			knit__text_add(t, "%lld", (long long)n->attr[i].i);
		else
			add_double(t, n->attr[i].f);
	}
	knit__text_add(t, "}");
}

/* For the reader only: which state goes from which version to which. The parser skips it. */
static void add_state_note(const knit_graph *g, knit_text *t, const knit_node *n) {
	const uint32_t in = n->in[0], out = n->out[0];

	if (!in || in >= g->value_count || !out || out >= g->value_count || !is_state(g, &g->values[out]))
		return;
	knit__text_add(t, "  ; ");
	for (int i = 0; i < 2; ++i) {
		const knit_value *v = &g->values[i ? out : in];

		knit__text_add(t, i ? " -> " : "");
		add_name(t, knit__strings_get(&g->strings, storage_of(g, v)->name));
		knit__text_add(t, "#%u", v->version);
	}
}

static void print_node(const knit_graph *g, knit_text *t, const index_lists *x, uint32_t id) {
	if (!id || id >= g->node_count) {
		knit__text_add(t, "; no node %u\n", id);
		return;
	}
	const knit_node *n = &g->nodes[id];
	const knit_op_def *def = knit__op(n->op);
	const uint32_t outs = n->out_count < KNIT_MAX_OUT ? n->out_count : KNIT_MAX_OUT;

	for (uint32_t i = 0; i < outs; ++i)
		knit__text_add(t, "%s%%%u", i ? ", " : "", n->out[i]);
	knit__text_add(t, " = %s", def ? def->name : "?");
	for (uint32_t i = 0; i < n->in_count && i < KNIT_MAX_IN; ++i)
		knit__text_add(t, n->in[i] ? "%s%%%u" : "%snone", i ? ", " : " ", n->in[i]);
	add_attrs(t, def, n);
	for (uint32_t i = 0; i < outs; ++i) {
		knit__text_add(t, i ? ", " : " : ");
		if (n->out[i] >= g->value_count)
			continue;
		const knit_value *v = &g->values[n->out[i]];
		add_type(t, g, v);
		knit__text_add(t, " in s%u", v->storage);
		if (is_state(g, v))
			knit__text_add(t, "#%u", v->version);
	}
	if (n->origin) {
		knit__text_add(t, "  @");
		add_name(t, knit__origin_text(g, n));
	}
	if (n->parts) {
		knit__text_add(t, "  ~");
		add_name(t, knit__strings_get(&g->strings, n->parts));
	}
	if (outs)
		add_state_note(g, t, n);
	knit__text_add(t, "\n");
	for (uint32_t i = 0; i < outs; ++i)
		if (n->out[i] < g->value_count)
			print_views(g, t, x, n->out[i]);
}

static void print_ports(const knit_graph *g, knit_text *t, const char *word, const knit_port *ports, uint32_t count) {
	for (uint32_t i = 0; i < count; ++i) {
		knit__text_add(t, "%s ", word);
		add_quoted(t, knit__strings_get(&g->strings, ports[i].name));
		knit__text_add(t, " = %%%u\n", ports[i].value);
	}
}

knit_status knit__print_text(const knit_graph *g, knit_text *t) {
	index_lists x;

	if (!index_make(g, &x))
		return KNIT_ERR_MEMORY;
	knit__text_add(t, "knit-ir 1\n");
	for (uint32_t i = 0; i < g->exprs.symbol_count; ++i) {
		const knit_symbol *s = &g->exprs.symbols[i];

		knit__text_add(t, "symbol ");
		add_name(t, knit__strings_get(&g->strings, s->name));
		knit__text_add(t, " [%lld, %lld]\n", (long long)s->lo, (long long)s->hi);
	}
	/* The storage of a temporary is told by the node that writes it. */
	for (uint32_t i = 1; i < g->storage_count; ++i)
		if (g->storages[i].kind && g->storages[i].kind != KNIT_STORAGE_TEMP)
			print_storage(g, t, i, x.uses[i]);
	for (uint32_t i = 1; i < g->value_count; ++i) {
		if (g->values[i].producer || g->values[i].view_of || !knit__value_live(g, i))
			continue;
		print_leaf(g, t, i);
		print_views(g, t, &x, i);
	}
	for (uint32_t i = 0; i < g->order_count; ++i)
		print_node(g, t, &x, g->order[i]);
	print_ports(g, t, "input", g->inputs, g->input_count);
	print_ports(g, t, "output", g->outputs, g->output_count);
	for (uint32_t i = 0; i < g->state_count; ++i)
		knit__text_add(t, "state s%u = %%%u\n", g->states[i].storage, g->states[i].current);
	index_clear(g, &x);
	return t->failed ? KNIT_ERR_MEMORY : KNIT_OK;
}

/* ---- dot --------------------------------------------------------------------------------------------------------- */

/* Inside a dot string: what Graphviz reads as escapes is escaped, line breaks and the rest of ASCII's controls are
 * shown as '?'. */
static void dot_text(knit_text *t, const char *text) {
	for (const unsigned char *p = (const unsigned char *)text; *p; ++p) {
		if (*p == '"' || *p == '\\')
			knit__text_add(t, "\\%c", *p);
		else
			knit__text_add(t, "%c", *p < 0x20 || *p == 0x7f ? '?' : *p);
	}
}

static void dot_type(knit_text *t, const knit_graph *g, const knit_value *v) {
	knit_text type = {.a = t->a};

	add_type(&type, g, v);
	dot_text(t, type.data ? type.data : "");
	t->failed |= type.failed;
	knit__text_clear(&type);
}

/* Hues a golden angle apart, so that neighbours in the list differ most. */
static void dot_colour(knit_text *t, uint32_t storage) {
	knit__text_add(t, "\"0.%03u 0.40 0.97\"", (unsigned)((uint64_t)storage * 618 % 1000));
}

static bool is_weight(const knit_storage *s) {
	return s->kind == KNIT_STORAGE_CONST || s->kind == KNIT_STORAGE_ADAPTER;
}

static void dot_storage(const knit_graph *g, knit_text *t, uint32_t id, uint32_t uses) {
	const knit_storage *s = &g->storages[id];
	const char *shape = s->kind == KNIT_STORAGE_STATE   ? "cylinder"
	                    : s->kind == KNIT_STORAGE_INPUT ? "parallelogram"
	                                                    : "ellipse";

	knit__text_add(t, "\ts%u [shape=%s, label=\"", id, shape);
	dot_text(t, knit__strings_get(&g->strings, s->name));
	knit__text_add(t, "\\n");
	if (s->value && s->value < g->value_count)
		dot_type(t, g, &g->values[s->value]);
	if (uses > 1)
		knit__text_add(t, "\\n%u uses", uses);
	knit__text_add(t, "\"");
	if (uses > 1 && is_weight(s)) {
		knit__text_add(t, ", style=filled, fillcolor=");
		dot_colour(t, id);
	}
	knit__text_add(t, "];\n");
}

/* Where an operand comes from: the node that wrote it, or the box of its storage. */
static void dot_source(const knit_graph *g, knit_text *t, const knit_value *v, uint32_t root) {
	if (g->values[root].producer)
		knit__text_add(t, "\tn%u", g->values[root].producer);
	else
		knit__text_add(t, "\ts%u", v->storage);
}

static void dot_edge(const knit_graph *g, knit_text *t, uint32_t value, const char *to, uint32_t id, bool state) {
	if (!value || value >= g->value_count || !knit__value_live(g, value))
		return;
	const knit_value *v = &g->values[value];

	dot_source(g, t, v, knit__value_root(g, value));
	knit__text_add(t, " -> %s%u [", to, id);
	if (v->view_of) {
		knit__text_add(t, "label=\"view ");
		dot_type(t, g, v);
		knit__text_add(t, "\", ");
	}
	knit__text_add(t, "style=%s];\n", state ? "dashed" : "solid");
}

static void dot_node(const knit_graph *g, knit_text *t, const index_lists *x, uint32_t id) {
	const knit_node *n = &g->nodes[id];
	const knit_op_def *def = knit__op(n->op);
	uint32_t weight = 0;

	knit__text_add(t, "\tn%u [shape=box, label=\"%s\\n", id, def ? def->name : "?");
	dot_text(t, knit__origin_text(g, n));
	knit__text_add(t, "\\n");
	for (uint32_t i = 0; i < n->out_count && i < KNIT_MAX_OUT; ++i)
		if (n->out[i] < g->value_count)
			dot_type(t, g, &g->values[n->out[i]]);
	knit__text_add(t, "\"");
	/* A node wears the colour of the tied weight that it reads. */
	for (uint32_t i = 0; i < n->in_count && i < KNIT_MAX_IN; ++i) {
		if (!n->in[i] || n->in[i] >= g->value_count)
			continue;
		const knit_storage *s = storage_of(g, &g->values[n->in[i]]);
		if (is_weight(s) && x->uses[g->values[n->in[i]].storage] > 1)
			weight = g->values[n->in[i]].storage;
	}
	if (weight) {
		knit__text_add(t, ", style=filled, fillcolor=");
		dot_colour(t, weight);
	}
	knit__text_add(t, "];\n");
	for (uint32_t i = 0; i < n->in_count && i < KNIT_MAX_IN; ++i)
		dot_edge(g, t, n->in[i], "n", id, n->in[i] && n->in[i] < g->value_count && is_state(g, &g->values[n->in[i]]));
}

knit_status knit__print_dot(const knit_graph *g, knit_text *t) {
	index_lists x;

	if (!index_make(g, &x))
		return KNIT_ERR_MEMORY;
	knit__text_add(t, "digraph knit {\n\trankdir=TB;\n\tnode [fontname=\"Helvetica\", fontsize=10];\n");
	for (uint32_t i = 1; i < g->storage_count; ++i) {
		const knit_storage_kind kind = g->storages[i].kind;

		if (kind && kind != KNIT_STORAGE_TEMP && kind != KNIT_STORAGE_OUTPUT)
			dot_storage(g, t, i, x.uses[i]);
	}
	for (uint32_t i = 0; i < g->order_count; ++i)
		if (g->order[i] && g->order[i] < g->node_count)
			dot_node(g, t, &x, g->order[i]);
	for (uint32_t i = 0; i < g->output_count; ++i) {
		knit__text_add(t, "\to%u [shape=parallelogram, label=\"", i);
		dot_text(t, knit__strings_get(&g->strings, g->outputs[i].name));
		knit__text_add(t, "\"];\n");
		dot_edge(g, t, g->outputs[i].value, "o", i, false);
	}
	knit__text_add(t, "}\n");
	index_clear(g, &x);
	return t->failed ? KNIT_ERR_MEMORY : KNIT_OK;
}
