/* Owns the reading of the text form. The text is outside data: every id is bounded by the text's length, every number
 * is checked, and a graph is handed out only after validate has accepted it.
 *
 *     knit-ir 1                                                   first line
 *     symbol tokens [1, 512]
 *     s7 = const "blk.0.w" q8_0 278528 bytes uses=3               const, adapter, input, output, state; uses= is
 * skipped, `slots` may stand before it %9 = const s7 : q8_0 [512, 512]                             the whole of a storage that no node writes %4 =
 * state s8#0 : f16 [1, 64, 8, 32]                        likewise; #n is the version %12 = view %11 strides [512, 64,
 * 1] offset 0 : f32 [tokens, 8, 64] %42 = rope %41, %5 {theta=10000, rotary=32, layout=0} : f32 [tokens, 8, 64] in s40
 * @visit.0.blk.0.attn_k input "ids" = %1            output "logits" = %77           state s8 = %60: the last version
 *
 * One item per line, in execution order; `;` starts a comment. `in sN` names the storage that the node writes: a new
 * temporary unless declared before, and any new one where it is left out. An absent operand is `none`. Names that are
 * not plain words are quoted, with \", \\ and \xHH. */
#include "op_def.h"
#include "parse_token.h"
#include "text.h"
#include "validate.h"

#include <string.h>

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* Room for an id, which must not be taken. An entry with a type exists. */
static bool new_value(knit_parser *p, uint32_t id) {
	knit_graph *g = p->g;

	if (!knit__grow(g->a, (void **)&g->values, &g->value_cap, id + 1, sizeof *g->values))
		return knit__parse_no_memory(p);
	if (g->value_count <= id)
		g->value_count = id + 1;
	return !g->values[id].dtype || knit__parse_fail(p, "%%%u is defined twice", id);
}

static bool new_storage(knit_parser *p, uint32_t id) {
	knit_graph *g = p->g;

	if (!knit__grow(g->a, (void **)&g->storages, &g->storage_cap, id + 1, sizeof *g->storages))
		return knit__parse_no_memory(p);
	if (g->storage_count <= id)
		g->storage_count = id + 1;
	return !g->storages[id].kind || knit__parse_fail(p, "s%u is defined twice", id);
}

static bool old_value(knit_parser *p, uint32_t *id) {
	if (!knit__parse_id(p, '%', id))
		return false;
	return (*id < p->g->value_count && p->g->values[*id].dtype) ||
		   knit__parse_fail(p, "%%%u is not defined before", *id);
}

static bool parse_symbol(knit_parser *p) {
	knit_diag why = {0};
	knit_dim dim;
	uint32_t name;
	int64_t lo, hi;

	if (!knit__parse_name(p, &name) || !knit__parse_expect(p, "[") || !knit__parse_i64(p, &lo) ||
		!knit__parse_expect(p, ",") || !knit__parse_i64(p, &hi) || !knit__parse_expect(p, "]"))
		return false;
	for (uint32_t i = 0; i < p->g->exprs.symbol_count; ++i)
		if (p->g->exprs.symbols[i].name == name)
			return knit__parse_fail(p, "symbol \"%s\" is defined twice", knit__strings_get(&p->g->strings, name));
	return knit__parse_expr_ok(p, knit__expr_symbol(&p->g->exprs, name, lo, hi, &dim, &why), &why);
}

static bool parse_storage(knit_parser *p) {
	knit_storage s = {0};
	char word[32];
	uint32_t id;
	uint64_t uses;

	if (!knit__parse_id(p, 's', &id) || !knit__parse_expect(p, "=") || !knit__parse_word(p, word, sizeof word))
		return false;
	s.kind = knit__storage_kind_parse(word);
	if (!s.kind || s.kind == KNIT_STORAGE_TEMP)
		return knit__parse_fail(p, "needs const, adapter, input, output or state, found %s", word);
	if (!knit__parse_name(p, &s.name) || !knit__parse_dtype(p, &s.dtype) ||
		!knit__parse_u64(p, INT64_MAX, &s.max_bytes) || !knit__parse_expect(p, "bytes"))
		return false;
	s.slots = knit__parse_accept(p, "slots");
	if (s.slots && s.kind != KNIT_STORAGE_ADAPTER)
		return knit__parse_fail(p, "only an adapter has slots");
	if (knit__parse_accept(p, "uses") && (!knit__parse_expect(p, "=") || !knit__parse_u64(p, UINT64_MAX, &uses)))
		return false;
	if (!new_storage(p, id))
		return false;
	p->g->storages[id] = s;
	return true;
}

static bool set_strides(knit_parser *p, knit_value *v) {
	if (knit__strides_contiguous(p->g, v->rank, v->dims, v->strides) == KNIT_OK)
		return true;
	const knit_diag why = p->g->diag;
	p->g->diag = (knit_diag){0};
	return knit__parse_expr_ok(p, why.status, &why);
}

/* %id = kind sN[#0] : type */
static bool parse_leaf(knit_parser *p, uint32_t id, knit_storage_kind kind) {
	knit_value v = {0};
	uint64_t version = 0;

	if (!knit__parse_id(p, 's', &v.storage))
		return false;
	if (v.storage >= p->g->storage_count || p->g->storages[v.storage].kind != kind)
		return knit__parse_fail(p, "s%u is no %s defined before", v.storage, knit__storage_kind_name(kind));
	if (kind == KNIT_STORAGE_STATE && (!knit__parse_expect(p, "#") || !knit__parse_u64(p, 0, &version)))
		return false;
	if (kind == KNIT_STORAGE_TEMP || kind == KNIT_STORAGE_OUTPUT)
		return knit__parse_fail(p, "a %s is written by a node", knit__storage_kind_name(kind));
	if (p->g->storages[v.storage].value)
		return knit__parse_fail(p, "s%u is already the storage of %%%u", v.storage, p->g->storages[v.storage].value);
	if (!knit__parse_expect(p, ":") || !knit__parse_type(p, &v) || !set_strides(p, &v) || !new_value(p, id))
		return false;
	p->g->values[id] = v;
	p->g->storages[v.storage].value = id;
	return true;
}

/* %id = view %root strides [..] offset dim : type */
static bool parse_view(knit_parser *p, uint32_t id) {
	knit_value v = {0};
	uint8_t stride_rank;

	if (!old_value(p, &v.view_of))
		return false;
	if (p->g->values[v.view_of].view_of)
		return knit__parse_fail(p, "%%%u is a view itself", v.view_of);
	if (!knit__parse_expect(p, "strides") || !knit__parse_dims(p, &stride_rank, v.strides) ||
		!knit__parse_expect(p, "offset") || !knit__parse_dim(p, &v.offset) || !knit__parse_expect(p, ":") ||
		!knit__parse_type(p, &v))
		return false;
	if (stride_rank != v.rank)
		return knit__parse_fail(p, "%u strides for %u dimensions", stride_rank, v.rank);
	if (!new_value(p, id))
		return false;
	p->g->values[id] = v;
	return true;
}

static bool read_attr(knit_parser *p, const knit_op_def *def, knit_node *n, uint32_t *seen) {
	char word[32];
	int k;

	if (!knit__parse_word(p, word, sizeof word) || !knit__parse_expect(p, "="))
		return false;
	for (k = 0; k < def->attr_count && strcmp(def->attrs[k].name, word) != 0; ++k)
		;
	if (k == def->attr_count)
		return knit__parse_fail(p, "%s has no attribute %s", def->name, word);
	if (*seen & (1u << k))
		return knit__parse_fail(p, "attribute %s is there twice", word);
	*seen |= 1u << k;
	return def->attrs[k].kind == KNIT_ATTR_I ? knit__parse_i64(p, &n->attr[k].i) : knit__parse_double(p, &n->attr[k].f);
}

static bool read_attrs(knit_parser *p, const knit_op_def *def, knit_node *n) {
	uint32_t seen = 0;

	if (knit__parse_accept(p, "{")) {
		do {
			if (!read_attr(p, def, n, &seen))
				return false;
		} while (knit__parse_accept(p, ","));
		if (!knit__parse_expect(p, "}"))
			return false;
	}
	for (int k = 0; k < def->attr_count; ++k)
		if (!(seen & (1u << k)))
			return knit__parse_fail(p, "%s lacks its attribute %s", def->name, def->attrs[k].name);
	return true;
}

static bool read_operands(knit_parser *p, knit_node *n) {
	knit__parse_skip_space(p);
	if (*p->at != '%' && strncmp(p->at, "none", 4) != 0)
		return true;
	do {
		if (n->in_count == KNIT_MAX_IN)
			return knit__parse_fail(p, "more than %d operands", KNIT_MAX_IN);
		uint32_t *in = &n->in[n->in_count++];
		if (!knit__parse_accept(p, "none") && !old_value(p, in))
			return false;
	} while (knit__parse_accept(p, ","));
	return true;
}

/* type [in sN[#version]]; the storage of a value without one is made at the end. */
static bool parse_result(knit_parser *p, uint32_t id, uint32_t node) {
	knit_graph *g = p->g;
	knit_value v = {.producer = node};
	uint64_t version = 0, elements, bytes;

	if (!knit__parse_type(p, &v) || !set_strides(p, &v) || !new_value(p, id))
		return false;
	if (knit__parse_accept(p, "in")) {
		if (!knit__parse_id(p, 's', &v.storage))
			return false;
		if (v.storage >= g->storage_count || !g->storages[v.storage].kind) {
			if (!new_storage(p, v.storage))
				return false;
			g->storages[v.storage] = (knit_storage){.kind = KNIT_STORAGE_TEMP, .dtype = v.dtype};
		}
		knit_storage *s = &g->storages[v.storage];
		if (knit__parse_accept(p, "#")) {
			if (s->kind != KNIT_STORAGE_STATE)
				return knit__parse_fail(p, "s%u is no state and has no versions", v.storage);
			if (!knit__parse_u64(p, UINT32_MAX, &version))
				return false;
			v.version = (uint32_t)version;
		} else if (s->kind == KNIT_STORAGE_STATE) {
			return knit__parse_fail(p, "s%u is a state: needs # and a version", v.storage);
		} else if (s->value) {
			return knit__parse_fail(p, "s%u is already the storage of %%%u", v.storage, s->value);
		} else {
			s->value = id;
		}
	}
	g->values[id] = v;
	return (knit__value_max_elements(g, NULL, id, &elements) && knit__dtype_bytes(v.dtype, elements, &bytes)) ||
	       knit__parse_fail(p, "the size of %%%u does not fit 64 bits or breaks a block", id);
}

static bool parse_node(knit_parser *p, uint32_t out_count, const uint32_t *out, const char *name) {
	knit_graph *g = p->g;
	const uint32_t id = g->node_count;
	knit_node n = {.op = knit__op_find(name), .out_count = (uint8_t)out_count};
	const knit_op_def *def = knit__op(n.op);

	if (!n.op || !def)
		return knit__parse_fail(p, "unknown op %s", name);
	if (out_count > def->out_count || out_count < (def->min_out ? def->min_out : def->out_count))
		return knit__parse_fail(p, "%s gives %u results, not %u", name, def->out_count, out_count);
	if (!read_operands(p, &n) || !read_attrs(p, def, &n))
		return false;
	for (uint32_t i = 0; i < out_count; ++i) {
		n.out[i] = out[i];
		if (!knit__parse_expect(p, i ? "," : ":") || !parse_result(p, out[i], id))
			return false;
	}
	if (knit__parse_accept(p, "@") && !knit__parse_name(p, &n.origin))
		return false;
	if (knit__parse_accept(p, "~") && !knit__parse_name(p, &n.parts))
		return false;
	if (!knit__grow(g->a, (void **)&g->nodes, &g->node_cap, id + 1, sizeof *g->nodes) ||
	    !knit__grow(g->a, (void **)&g->order, &g->order_cap, g->order_count + 1, sizeof *g->order))
		return knit__parse_no_memory(p);
	g->nodes[g->node_count++] = n;
	g->order[g->order_count++] = id;
	return true;
}

/* %id[, %id] = ... */
static bool parse_value(knit_parser *p) {
	uint32_t ids[KNIT_MAX_OUT], count = 0;
	char word[32];

	do {
		if (count == KNIT_MAX_OUT)
			return knit__parse_fail(p, "more than %d results", KNIT_MAX_OUT);
		if (!knit__parse_id(p, '%', &ids[count++]))
			return false;
	} while (knit__parse_accept(p, ","));
	if (!knit__parse_expect(p, "=") || !knit__parse_word(p, word, sizeof word))
		return false;
	if (count == 1 && strcmp(word, "view") == 0)
		return parse_view(p, ids[0]);
	if (count == 1 && knit__storage_kind_parse(word))
		return parse_leaf(p, ids[0], knit__storage_kind_parse(word));
	return parse_node(p, count, ids, word);
}

static bool parse_port(knit_parser *p, knit_port **ports, uint32_t *count, uint32_t *cap) {
	knit_port port;

	if (!knit__parse_name(p, &port.name) || !knit__parse_expect(p, "=") || !old_value(p, &port.value))
		return false;
	if (!knit__grow(p->g->a, (void **)ports, cap, *count + 1, sizeof **ports))
		return knit__parse_no_memory(p);
	(*ports)[(*count)++] = port;
	return true;
}

static bool parse_state(knit_parser *p) {
	knit_graph *g = p->g;
	knit_state_slot slot;

	if (!knit__parse_id(p, 's', &slot.storage) || !knit__parse_expect(p, "=") || !old_value(p, &slot.current))
		return false;
	if (!knit__grow(g->a, (void **)&g->states, &g->state_cap, g->state_count + 1, sizeof *g->states))
		return knit__parse_no_memory(p);
	g->states[g->state_count++] = slot;
	return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool parse_item(knit_parser *p) {
	knit_graph *g = p->g;

	if (*p->at == '%')
		return parse_value(p);
	if (*p->at == 's' && knit__parse_is_digit(p->at[1]))
		return parse_storage(p);
	if (knit__parse_accept(p, "symbol"))
		return parse_symbol(p);
	if (knit__parse_accept(p, "input"))
		return parse_port(p, &g->inputs, &g->input_count, &g->input_cap);
	if (knit__parse_accept(p, "output"))
		return parse_port(p, &g->outputs, &g->output_count, &g->output_cap);
	if (knit__parse_accept(p, "state"))
		return parse_state(p);
	return knit__parse_fail(p, "needs %%id, sid, symbol, input, output or state");
}

static bool parse_lines(knit_parser *p) {
	bool header = false;

	for (;; ++p->at, ++p->line) {
		knit__parse_skip_space(p);
		if (*p->at && *p->at != '\n' && *p->at != ';') {
			if (!header && (!knit__parse_accept(p, "knit-ir") || !knit__parse_accept(p, "1")))
				return knit__parse_fail(p, "a graph starts with \"knit-ir 1\"");
			if (header && !parse_item(p))
				return false;
			header = true;
		}
		if (!knit__parse_line_end(p))
			return false;
		if (!*p->at)
			return header || knit__parse_fail(p, "a graph starts with \"knit-ir 1\"");
	}
}

/* What later lines decide: storages of temporaries, and what views take over from their roots. */
static bool finish(knit_parser *p) {
	knit_graph *g = p->g;

	for (uint32_t i = 1; i < g->value_count; ++i) {
		knit_value *v = &g->values[i];

		if (!v->producer || v->storage)
			continue;
		const uint32_t id = g->storage_count;
		if (!new_storage(p, id))
			return false;
		g->storages[id] = (knit_storage){.kind = KNIT_STORAGE_TEMP, .value = i, .dtype = v->dtype};
		v->storage = id;
	}
	for (uint32_t i = 1; i < g->storage_count; ++i) {
		knit_storage *s = &g->storages[i];

		if (s->kind != KNIT_STORAGE_TEMP || knit__storage_max_bytes(g, NULL, i, &s->max_bytes))
			continue;
		knit__fail(p->d, KNIT_ERR_FORMAT, 0, "not a valid graph: rows of %%%u break a block", s->value);
		return false;
	}
	for (uint32_t i = 1; i < g->value_count; ++i) {
		knit_value *v = &g->values[i];

		if (v->view_of) {
			v->storage = g->values[v->view_of].storage;
			v->version = g->values[v->view_of].version;
		}
	}
	return true;
}

static bool check(knit_parser *p) {
	knit_text faults = {.a = p->g->a};
	const knit_status status = knit__validate(p->g, &faults);

	if (status == KNIT_ERR_MEMORY)
		knit__parse_no_memory(p);
	else if (status != KNIT_OK)
		knit__fail(p->d, KNIT_ERR_FORMAT, 0, "not a valid graph: %.*s",
				   (int)strcspn(faults.data ? faults.data : "", "\n"), faults.data ? faults.data : "");
	knit__text_clear(&faults);
	return status == KNIT_OK;
}

knit_status knit__parse_text(knit_context *ctx, const char *text, knit_graph **out, knit_diag *d) {
	knit_diag own = {0};
	knit_parser p = {.at = text, .line = 1, .d = d ? d : &own};
	const size_t length = strlen(text);

	*out = NULL;
	p.d->status = KNIT_OK;
	if (length > UINT32_MAX / 2)
		return knit__fail(p.d, KNIT_ERR_LIMIT, 0, "a graph's text is longer than 2 GiB");
	/* No printed graph needs ids above a fraction of its length; a short text must not ask for large arrays. */
	p.limit = 64 + (uint32_t)(length / 4);
	if (knit_graph_create(ctx, &p.g) != KNIT_OK)
		return knit__fail_memory(p.d, "a parsed graph", 0);
	p.scratch.a = p.g->a;
	if (parse_lines(&p) && finish(&p) && check(&p))
		*out = p.g;
	knit__text_clear(&p.scratch);
	if (!*out)
		knit_graph_destroy(p.g);
	return p.d->status;
}
