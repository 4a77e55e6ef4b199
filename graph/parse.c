/* Owns the reading of the text form. The text is outside data: every id is bounded by the text's length, every number
 * is checked, and a graph is handed out only after validate has accepted it.
 *
 *     knit-ir 1                                                   first line
 *     symbol tokens [1, 512]
 *     s7 = const "blk.0.w" q8_0 278528 bytes uses=3               const, adapter, input, output, state; uses= is skipped
 *     %9 = const s7 : q8_0 [512, 512]                             the whole of a storage that no node writes
 *     %4 = state s8#0 : f16 [1, 64, 8, 32]                        likewise; #n is the version
 *     %12 = view %11 strides [512, 64, 1] offset 0 : f32 [tokens, 8, 64]
 *     %42 = rope %41, %5 {theta=10000, rotary=32, layout=0} : f32 [tokens, 8, 64] in s40  @visit.0.blk.0.attn_k
 *     input "ids" = %1            output "logits" = %77           state s8 = %60: the last version
 *
 * One item per line, in execution order; `;` starts a comment. `in sN` names the storage that the node writes: a new
 * temporary unless declared before, and any new one where it is left out. An absent operand is `none`. Names that are
 * not plain words are quoted, with \", \\ and \xHH. */
#include "op_def.h"
#include "text.h"
#include "validate.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
	knit_graph *g;
	const char *at;
	uint32_t line, limit; /* limit: of ids */
	knit_diag *d;
	knit_text scratch; /* the string read last */
} parser;

static bool fail(parser *p, const char *fmt, ...) KNIT_PRINTF(2, 3);
static bool fail(parser *p, const char *fmt, ...) {
	char text[sizeof p->d->text];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__fail(p->d, KNIT_ERR_FORMAT, 0, "line %u: %s", p->line, text);
	return false;
}

static bool no_memory(parser *p) {
	knit__fail_memory(p->d, "a parsed graph", 0);
	return false;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void skip_space(parser *p) {
	while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')
		++p->at;
}

static bool accept(parser *p, const char *token) {
	const size_t n = strlen(token);

	skip_space(p);
	if (strncmp(p->at, token, n) != 0)
		return false;
	/* A word must not go on. */
	if (is_letter(token[n - 1]) && (is_letter(p->at[n]) || is_digit(p->at[n])))
		return false;
	p->at += n;
	return true;
}

static bool expect(parser *p, const char *token) { return accept(p, token) || fail(p, "needs '%s'", token); }

static bool end_of_line(parser *p) {
	skip_space(p);
	if (*p->at == ';')
		while (*p->at && *p->at != '\n')
			++p->at;
	return !*p->at || *p->at == '\n' || fail(p, "more text than the line needs");
}

static bool read_word(parser *p, char *out, size_t size) {
	size_t n = 0;

	skip_space(p);
	if (is_letter(*p->at))
		while (is_letter(*p->at) || is_digit(*p->at)) {
			if (n + 1 == size)
				return fail(p, "a word is longer than %zu letters", size - 1);
			out[n++] = *p->at++;
		}
	out[n] = 0;
	return n || fail(p, "needs a word");
}

static bool read_u64(parser *p, uint64_t max, uint64_t *out) {
	skip_space(p);
	if (!is_digit(*p->at))
		return fail(p, "needs a number");
	for (*out = 0; is_digit(*p->at); ++p->at)
		if (!knit__mul_u64(*out, 10, out) || !knit__add_u64(*out, (uint64_t)(*p->at - '0'), out) || *out > max)
			return fail(p, "a number is above %llu", (unsigned long long)max);
	return true;
}

static bool read_i64(parser *p, int64_t *out) {
	const bool minus = accept(p, "-");
	uint64_t n;

	if (!read_u64(p, (uint64_t)INT64_MAX + minus, &n))
		return false;
	*out = minus ? (int64_t)(0 - n) : (int64_t)n;
	return true;
}

static bool read_double(parser *p, double *out) {
	char text[64];
	size_t n = 0;
	const char *point = localeconv()->decimal_point;

	skip_space(p);
	while (is_digit(*p->at) || is_letter(*p->at) || *p->at == '-' || *p->at == '+' || *p->at == '.') {
		const char *piece = *p->at == '.' ? point : p->at;
		const size_t bytes = *p->at == '.' ? strlen(point) : 1;

		if (n + bytes >= sizeof text)
			return fail(p, "a number is too long");
		memcpy(text + n, piece, bytes);
		n += bytes;
		++p->at;
	}
	text[n] = 0;
	char *end;
	*out = strtod(text, &end);
	return (n && !*end) || fail(p, "needs a number");
}

static int hex_digit(char c) {
	if (is_digit(c))
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_quoted(parser *p) {
	for (++p->at; *p->at != '"';) {
		int c = (unsigned char)*p->at++;

		if (c == 0 || c == '\n')
			return fail(p, "a string is not closed");
		if (c == '\\') {
			c = (unsigned char)*p->at++;
			if (c == 'x') {
				const int high = hex_digit(p->at[0]), low = high < 0 ? -1 : hex_digit(p->at[1]);

				c = high * 16 + low;
				if (low < 0 || c == 0)
					return fail(p, "needs two hexadecimal digits other than 00");
				p->at += 2;
			} else if (c != '"' && c != '\\') {
				return fail(p, "unknown escape in a string");
			}
		}
		knit__text_add(&p->scratch, "%c", c);
	}
	++p->at;
	return true;
}

/* A name, quoted or plain, as a string id. */
static bool read_name(parser *p, uint32_t *id) {
	knit__text_clear(&p->scratch);
	skip_space(p);
	if (*p->at == '"') {
		if (!read_quoted(p))
			return false;
	} else if (is_letter(*p->at)) {
		for (; is_letter(*p->at) || is_digit(*p->at) || *p->at == '.'; ++p->at)
			knit__text_add(&p->scratch, "%c", *p->at);
	} else {
		return fail(p, "needs a name");
	}
	if (p->scratch.failed)
		return no_memory(p);
	*id = knit__strings_intern(&p->g->strings, p->scratch.data ? p->scratch.data : "");
	return *id != UINT32_MAX || no_memory(p);
}

/* An id after its letter: "%12", "s7". */
static bool read_id(parser *p, char letter, uint32_t *id) {
	uint64_t n;

	skip_space(p);
	if (*p->at != letter || !is_digit(p->at[1]))
		return fail(p, "needs %c and a number", letter);
	++p->at;
	if (!read_u64(p, p->limit, &n))
		return false;
	*id = (uint32_t)n;
	return n > 0 || fail(p, "ids count from 1");
}

/* ---- sizes and types --------------------------------------------------------------------------------------------- */

static bool find_symbol(parser *p, uint32_t name, knit_dim *out) {
	const knit_exprs *e = &p->g->exprs;

	for (uint32_t i = 0; i < e->symbol_count; ++i)
		if (e->symbols[i].name == name)
			return knit__expr_symbol(&p->g->exprs, name, e->symbols[i].lo, e->symbols[i].hi, out, p->d) == KNIT_OK;
	return fail(p, "unknown symbol \"%s\"", knit__strings_get(&p->g->strings, name));
}

/* Names the line of a failure that an expression function reports. */
static bool expr_ok(parser *p, knit_status status, const knit_diag *why) {
	if (status == KNIT_OK)
		return true;
	return status == KNIT_ERR_MEMORY ? no_memory(p) : fail(p, "%s", why->text);
}

/* [number *] symbol, or a number */
static bool read_term(parser *p, knit_dim *out) {
	knit_diag why = {0};
	uint64_t factor = 1;
	uint32_t name;

	skip_space(p);
	if (is_digit(*p->at)) {
		if (!read_u64(p, INT64_MAX, &factor))
			return false;
		if (!accept(p, "*")) {
			*out = (knit_dim){(int64_t)factor};
			return true;
		}
	}
	if (!read_name(p, &name) || !find_symbol(p, name, out))
		return false;
	return expr_ok(p, knit__expr_mul(&p->g->exprs, *out, (int64_t)factor, out, &why), &why);
}

/* What is subtracted is collected apart, so that no part of the sum is negative. */
static bool read_dim(parser *p, knit_dim *out) {
	knit_dim plus = {0}, minus = {0}, term;
	knit_diag why = {0};
	bool negative = accept(p, "-");

	for (;;) {
		knit_dim *sum = negative ? &minus : &plus;

		if (!read_term(p, &term) || !expr_ok(p, knit__expr_add(&p->g->exprs, *sum, term, sum, &why), &why))
			return false;
		if (accept(p, "+"))
			negative = false;
		else if (accept(p, "-"))
			negative = true;
		else
			break;
	}
	return expr_ok(p, knit__expr_sub(&p->g->exprs, plus, minus, out, &why), &why);
}

static bool read_dims(parser *p, uint8_t *rank, knit_dim *dims) {
	*rank = 0;
	if (!expect(p, "["))
		return false;
	if (accept(p, "]"))
		return true;
	do {
		if (*rank == KNIT_MAX_RANK)
			return fail(p, "more than %d dimensions", KNIT_MAX_RANK);
		if (!read_dim(p, &dims[(*rank)++]))
			return false;
	} while (accept(p, ","));
	return expect(p, "]");
}

static bool read_dtype(parser *p, knit_dtype *out) {
	char word[32];

	if (!read_word(p, word, sizeof word))
		return false;
	*out = knit__dtype_parse(word);
	return *out || fail(p, "unknown element type %s", word);
}

static bool read_type(parser *p, knit_value *v) {
	uint64_t layout = 0;

	if (!read_dtype(p, &v->dtype) || !read_dims(p, &v->rank, v->dims))
		return false;
	if (accept(p, "layout") && !read_u64(p, UINT8_MAX, &layout))
		return false;
	v->layout = (uint8_t)layout;
	return true;
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* Room for an id, which must not be taken. An entry with a type exists. */
static bool new_value(parser *p, uint32_t id) {
	knit_graph *g = p->g;

	if (!knit__grow(g->a, (void **)&g->values, &g->value_cap, id + 1, sizeof *g->values))
		return no_memory(p);
	if (g->value_count <= id)
		g->value_count = id + 1;
	return !g->values[id].dtype || fail(p, "%%%u is defined twice", id);
}

static bool new_storage(parser *p, uint32_t id) {
	knit_graph *g = p->g;

	if (!knit__grow(g->a, (void **)&g->storages, &g->storage_cap, id + 1, sizeof *g->storages))
		return no_memory(p);
	if (g->storage_count <= id)
		g->storage_count = id + 1;
	return !g->storages[id].kind || fail(p, "s%u is defined twice", id);
}

static bool old_value(parser *p, uint32_t *id) {
	if (!read_id(p, '%', id))
		return false;
	return (*id < p->g->value_count && p->g->values[*id].dtype) || fail(p, "%%%u is not defined before", *id);
}

static bool parse_symbol(parser *p) {
	knit_diag why = {0};
	knit_dim dim;
	uint32_t name;
	int64_t lo, hi;

	if (!read_name(p, &name) || !expect(p, "[") || !read_i64(p, &lo) || !expect(p, ",") || !read_i64(p, &hi) ||
	    !expect(p, "]"))
		return false;
	for (uint32_t i = 0; i < p->g->exprs.symbol_count; ++i)
		if (p->g->exprs.symbols[i].name == name)
			return fail(p, "symbol \"%s\" is defined twice", knit__strings_get(&p->g->strings, name));
	return expr_ok(p, knit__expr_symbol(&p->g->exprs, name, lo, hi, &dim, &why), &why);
}

static bool parse_storage(parser *p) {
	knit_storage s = {0};
	char word[32];
	uint32_t id;
	uint64_t uses;

	if (!read_id(p, 's', &id) || !expect(p, "=") || !read_word(p, word, sizeof word))
		return false;
	s.kind = knit__storage_kind_parse(word);
	if (!s.kind || s.kind == KNIT_STORAGE_TEMP)
		return fail(p, "needs const, adapter, input, output or state, found %s", word);
	if (!read_name(p, &s.name) || !read_dtype(p, &s.dtype) || !read_u64(p, INT64_MAX, &s.max_bytes) || !expect(p, "bytes"))
		return false;
	if (accept(p, "uses") && (!expect(p, "=") || !read_u64(p, UINT64_MAX, &uses)))
		return false;
	if (!new_storage(p, id))
		return false;
	p->g->storages[id] = s;
	return true;
}

static bool set_strides(parser *p, knit_value *v) {
	if (knit__strides_contiguous(p->g, v->rank, v->dims, v->strides) == KNIT_OK)
		return true;
	const knit_diag why = p->g->diag;
	p->g->diag = (knit_diag){0};
	return expr_ok(p, why.status, &why);
}

/* %id = kind sN[#0] : type */
static bool parse_leaf(parser *p, uint32_t id, knit_storage_kind kind) {
	knit_value v = {0};
	uint64_t version = 0;

	if (!read_id(p, 's', &v.storage))
		return false;
	if (v.storage >= p->g->storage_count || p->g->storages[v.storage].kind != kind)
		return fail(p, "s%u is no %s defined before", v.storage, knit__storage_kind_name(kind));
	if (kind == KNIT_STORAGE_STATE && (!expect(p, "#") || !read_u64(p, 0, &version)))
		return false;
	if (kind == KNIT_STORAGE_TEMP || kind == KNIT_STORAGE_OUTPUT)
		return fail(p, "a %s is written by a node", knit__storage_kind_name(kind));
	if (p->g->storages[v.storage].value)
		return fail(p, "s%u is already the storage of %%%u", v.storage, p->g->storages[v.storage].value);
	if (!expect(p, ":") || !read_type(p, &v) || !set_strides(p, &v) || !new_value(p, id))
		return false;
	p->g->values[id] = v;
	p->g->storages[v.storage].value = id;
	return true;
}

/* %id = view %root strides [..] offset dim : type */
static bool parse_view(parser *p, uint32_t id) {
	knit_value v = {0};
	uint8_t stride_rank;

	if (!old_value(p, &v.view_of))
		return false;
	if (p->g->values[v.view_of].view_of)
		return fail(p, "%%%u is a view itself", v.view_of);
	if (!expect(p, "strides") || !read_dims(p, &stride_rank, v.strides) || !expect(p, "offset") ||
	    !read_dim(p, &v.offset) || !expect(p, ":") || !read_type(p, &v))
		return false;
	if (stride_rank != v.rank)
		return fail(p, "%u strides for %u dimensions", stride_rank, v.rank);
	if (!new_value(p, id))
		return false;
	p->g->values[id] = v;
	return true;
}

static bool read_attr(parser *p, const knit_op_def *def, knit_node *n, uint32_t *seen) {
	char word[32];
	int k;

	if (!read_word(p, word, sizeof word) || !expect(p, "="))
		return false;
	for (k = 0; k < def->attr_count && strcmp(def->attrs[k].name, word) != 0; ++k)
		;
	if (k == def->attr_count)
		return fail(p, "%s has no attribute %s", def->name, word);
	if (*seen & (1u << k))
		return fail(p, "attribute %s is there twice", word);
	*seen |= 1u << k;
	return def->attrs[k].kind == KNIT_ATTR_I ? read_i64(p, &n->attr[k].i) : read_double(p, &n->attr[k].f);
}

static bool read_attrs(parser *p, const knit_op_def *def, knit_node *n) {
	uint32_t seen = 0;

	if (accept(p, "{")) {
		do {
			if (!read_attr(p, def, n, &seen))
				return false;
		} while (accept(p, ","));
		if (!expect(p, "}"))
			return false;
	}
	for (int k = 0; k < def->attr_count; ++k)
		if (!(seen & (1u << k)))
			return fail(p, "%s lacks its attribute %s", def->name, def->attrs[k].name);
	return true;
}

static bool read_operands(parser *p, knit_node *n) {
	skip_space(p);
	if (*p->at != '%' && strncmp(p->at, "none", 4) != 0)
		return true;
	do {
		if (n->in_count == KNIT_MAX_IN)
			return fail(p, "more than %d operands", KNIT_MAX_IN);
		uint32_t *in = &n->in[n->in_count++];
		if (!accept(p, "none") && !old_value(p, in))
			return false;
	} while (accept(p, ","));
	return true;
}

/* type [in sN[#version]]; the storage of a value without one is made at the end. */
static bool parse_result(parser *p, uint32_t id, uint32_t node) {
	knit_graph *g = p->g;
	knit_value v = {.producer = node};
	uint64_t version = 0;

	if (!read_type(p, &v) || !set_strides(p, &v) || !new_value(p, id))
		return false;
	if (accept(p, "in")) {
		if (!read_id(p, 's', &v.storage))
			return false;
		if (v.storage >= g->storage_count || !g->storages[v.storage].kind) {
			if (!new_storage(p, v.storage))
				return false;
			g->storages[v.storage] = (knit_storage){.kind = KNIT_STORAGE_TEMP, .dtype = v.dtype};
		}
		knit_storage *s = &g->storages[v.storage];
		if (accept(p, "#")) {
			if (s->kind != KNIT_STORAGE_STATE)
				return fail(p, "s%u is no state and has no versions", v.storage);
			if (!read_u64(p, UINT32_MAX, &version))
				return false;
			v.version = (uint32_t)version;
		} else if (s->kind == KNIT_STORAGE_STATE) {
			return fail(p, "s%u is a state: needs # and a version", v.storage);
		} else if (s->value) {
			return fail(p, "s%u is already the storage of %%%u", v.storage, s->value);
		} else {
			s->value = id;
		}
	}
	g->values[id] = v;
	return true;
}

static bool parse_node(parser *p, uint32_t out_count, const uint32_t *out, const char *name) {
	knit_graph *g = p->g;
	const uint32_t id = g->node_count;
	knit_node n = {.op = knit__op_find(name), .out_count = (uint8_t)out_count};
	const knit_op_def *def = knit__op(n.op);

	if (!n.op || !def)
		return fail(p, "unknown op %s", name);
	if (def->out_count != out_count)
		return fail(p, "%s gives %u results, not %u", name, def->out_count, out_count);
	if (!read_operands(p, &n) || !read_attrs(p, def, &n))
		return false;
	for (uint32_t i = 0; i < out_count; ++i) {
		n.out[i] = out[i];
		if (!expect(p, i ? "," : ":") || !parse_result(p, out[i], id))
			return false;
	}
	if (accept(p, "@") && !read_name(p, &n.origin))
		return false;
	if (!knit__grow(g->a, (void **)&g->nodes, &g->node_cap, id + 1, sizeof *g->nodes) ||
	    !knit__grow(g->a, (void **)&g->order, &g->order_cap, g->order_count + 1, sizeof *g->order))
		return no_memory(p);
	g->nodes[g->node_count++] = n;
	g->order[g->order_count++] = id;
	return true;
}

/* %id[, %id] = ... */
static bool parse_value(parser *p) {
	uint32_t ids[KNIT_MAX_OUT], count = 0;
	char word[32];

	do {
		if (count == KNIT_MAX_OUT)
			return fail(p, "more than %d results", KNIT_MAX_OUT);
		if (!read_id(p, '%', &ids[count++]))
			return false;
	} while (accept(p, ","));
	if (!expect(p, "=") || !read_word(p, word, sizeof word))
		return false;
	if (count == 1 && strcmp(word, "view") == 0)
		return parse_view(p, ids[0]);
	if (count == 1 && knit__storage_kind_parse(word))
		return parse_leaf(p, ids[0], knit__storage_kind_parse(word));
	return parse_node(p, count, ids, word);
}

static bool parse_port(parser *p, knit_port **ports, uint32_t *count, uint32_t *cap) {
	knit_port port;

	if (!read_name(p, &port.name) || !expect(p, "=") || !old_value(p, &port.value))
		return false;
	if (!knit__grow(p->g->a, (void **)ports, cap, *count + 1, sizeof **ports))
		return no_memory(p);
	(*ports)[(*count)++] = port;
	return true;
}

static bool parse_state(parser *p) {
	knit_graph *g = p->g;
	knit_state_slot slot;

	if (!read_id(p, 's', &slot.storage) || !expect(p, "=") || !old_value(p, &slot.current))
		return false;
	if (!knit__grow(g->a, (void **)&g->states, &g->state_cap, g->state_count + 1, sizeof *g->states))
		return no_memory(p);
	g->states[g->state_count++] = slot;
	return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool parse_item(parser *p) {
	knit_graph *g = p->g;

	if (*p->at == '%')
		return parse_value(p);
	if (*p->at == 's' && is_digit(p->at[1]))
		return parse_storage(p);
	if (accept(p, "symbol"))
		return parse_symbol(p);
	if (accept(p, "input"))
		return parse_port(p, &g->inputs, &g->input_count, &g->input_cap);
	if (accept(p, "output"))
		return parse_port(p, &g->outputs, &g->output_count, &g->output_cap);
	if (accept(p, "state"))
		return parse_state(p);
	return fail(p, "needs %%id, sid, symbol, input, output or state");
}

static bool parse_lines(parser *p) {
	bool header = false;

	for (;; ++p->at, ++p->line) {
		skip_space(p);
		if (*p->at && *p->at != '\n' && *p->at != ';') {
			if (!header && (!accept(p, "knit-ir") || !accept(p, "1")))
				return fail(p, "a graph starts with \"knit-ir 1\"");
			if (header && !parse_item(p))
				return false;
			header = true;
		}
		if (!end_of_line(p))
			return false;
		if (!*p->at)
			return header || fail(p, "a graph starts with \"knit-ir 1\"");
	}
}

/* What later lines decide: storages of temporaries, and what views take over from their roots. */
static bool finish(parser *p) {
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

		if (s->kind == KNIT_STORAGE_TEMP && !knit__storage_max_bytes(g, NULL, i, &s->max_bytes))
			return fail(p, "the size of %%%u does not fit 64 bits or breaks a block", s->value);
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

static bool check(parser *p) {
	knit_text faults = {.a = p->g->a};
	const knit_status status = knit__validate(p->g, &faults);

	if (status == KNIT_ERR_MEMORY)
		no_memory(p);
	else if (status != KNIT_OK)
		knit__fail(p->d, KNIT_ERR_FORMAT, 0, "not a valid graph: %.*s", (int)strcspn(faults.data ? faults.data : "", "\n"),
		           faults.data ? faults.data : "");
	knit__text_clear(&faults);
	return status == KNIT_OK;
}

knit_status knit__parse_text(knit_context *ctx, const char *text, knit_graph **out, knit_diag *d) {
	knit_diag own = {0};
	parser p = {.at = text, .line = 1, .d = d ? d : &own};
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
