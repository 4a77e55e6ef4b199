/* Owns the reading of the text form's small pieces. The text is outside data: every number is checked. */
#include "parse_token.h"

#include <stdio.h>
#include <string.h>

bool knit__parse_fail(knit_parser *p, const char *fmt, ...) {
	char text[sizeof p->d->text];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__fail(p->d, KNIT_ERR_FORMAT, 0, "line %u: %s", p->line, text);
	return false;
}

bool knit__parse_no_memory(knit_parser *p) {
	knit__fail_memory(p->d, "a parsed graph", 0);
	return false;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

void knit__parse_skip_space(knit_parser *p) {
	while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')
		++p->at;
}

bool knit__parse_accept(knit_parser *p, const char *token) {
	const size_t n = strlen(token);

	knit__parse_skip_space(p);
	if (strncmp(p->at, token, n) != 0)
		return false;
	/* A word must not go on. */
	if (is_letter(token[n - 1]) && (is_letter(p->at[n]) || knit__parse_is_digit(p->at[n])))
		return false;
	p->at += n;
	return true;
}

bool knit__parse_expect(knit_parser *p, const char *token) {
	return knit__parse_accept(p, token) || knit__parse_fail(p, "needs '%s'", token);
}

bool knit__parse_line_end(knit_parser *p) {
	knit__parse_skip_space(p);
	if (*p->at == ';')
		while (*p->at && *p->at != '\n')
			++p->at;
	return !*p->at || *p->at == '\n' || knit__parse_fail(p, "more text than the line needs");
}

bool knit__parse_word(knit_parser *p, char *out, size_t size) {
	size_t n = 0;

	knit__parse_skip_space(p);
	if (is_letter(*p->at))
		while (is_letter(*p->at) || knit__parse_is_digit(*p->at)) {
			if (n + 1 == size)
				return knit__parse_fail(p, "a word is longer than %zu letters", size - 1);
			out[n++] = *p->at++;
		}
	out[n] = 0;
	return n || knit__parse_fail(p, "needs a word");
}

bool knit__parse_u64(knit_parser *p, uint64_t max, uint64_t *out) {
	knit__parse_skip_space(p);
	if (!knit__parse_is_digit(*p->at))
		return knit__parse_fail(p, "needs a number");
	for (*out = 0; knit__parse_is_digit(*p->at); ++p->at)
		if (!knit__mul_u64(*out, 10, out) || !knit__add_u64(*out, (uint64_t)(*p->at - '0'), out) || *out > max)
			return knit__parse_fail(p, "a number is above %llu", (unsigned long long)max);
	return true;
}

bool knit__parse_i64(knit_parser *p, int64_t *out) {
	const bool minus = knit__parse_accept(p, "-");
	uint64_t n;

	if (!knit__parse_u64(p, (uint64_t)INT64_MAX + minus, &n))
		return false;
	*out = minus ? (int64_t)(0 - n) : (int64_t)n;
	return true;
}

bool knit__parse_double(knit_parser *p, double *out) {
	char text[64];
	size_t n = 0;

	knit__parse_skip_space(p);
	while (knit__parse_is_digit(*p->at) || is_letter(*p->at) || *p->at == '-' || *p->at == '+' || *p->at == '.') {
		if (n + 1 == sizeof text)
			return knit__parse_fail(p, "a number is too long");
		text[n++] = *p->at++;
	}
	text[n] = 0;
	return knit__text_to_double(text, out) || knit__parse_fail(p, "needs a number");
}

static int hex_digit(char c) {
	if (knit__parse_is_digit(c))
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_quoted(knit_parser *p) {
	for (++p->at; *p->at != '"';) {
		int c = (unsigned char)*p->at++;

		if (c == 0 || c == '\n')
			return knit__parse_fail(p, "a string is not closed");
		if (c == '\\') {
			c = (unsigned char)*p->at++;
			if (c == 'x') {
				const int high = hex_digit(p->at[0]), low = high < 0 ? -1 : hex_digit(p->at[1]);

				c = high * 16 + low;
				if (low < 0 || c == 0)
					return knit__parse_fail(p, "needs two hexadecimal digits other than 00");
				p->at += 2;
			} else if (c != '"' && c != '\\') {
				return knit__parse_fail(p, "unknown escape in a string");
			}
		}
		knit__text_add(&p->scratch, "%c", c);
	}
	++p->at;
	return true;
}

bool knit__parse_name(knit_parser *p, uint32_t *id) {
	knit__text_clear(&p->scratch);
	knit__parse_skip_space(p);
	if (*p->at == '"') {
		if (!read_quoted(p))
			return false;
	} else if (is_letter(*p->at)) {
		for (; is_letter(*p->at) || knit__parse_is_digit(*p->at) || *p->at == '.'; ++p->at)
			knit__text_add(&p->scratch, "%c", *p->at);
	} else {
		return knit__parse_fail(p, "needs a name");
	}
	if (p->scratch.failed)
		return knit__parse_no_memory(p);
	*id = knit__strings_intern(&p->g->strings, p->scratch.data ? p->scratch.data : "");
	return *id != UINT32_MAX || knit__parse_no_memory(p);
}

bool knit__parse_id(knit_parser *p, char letter, uint32_t *id) {
	uint64_t n;

	knit__parse_skip_space(p);
	if (*p->at != letter || !knit__parse_is_digit(p->at[1]))
		return knit__parse_fail(p, "needs %c and a number", letter);
	++p->at;
	if (!knit__parse_u64(p, p->limit, &n))
		return false;
	*id = (uint32_t)n;
	return n > 0 || knit__parse_fail(p, "ids count from 1");
}

/* ---- sizes and types --------------------------------------------------------------------------------------------- */

static bool find_symbol(knit_parser *p, uint32_t name, knit_dim *out) {
	const knit_exprs *e = &p->g->exprs;

	for (uint32_t i = 0; i < e->symbol_count; ++i)
		if (e->symbols[i].name == name)
			return knit__expr_symbol(&p->g->exprs, name, e->symbols[i].lo, e->symbols[i].hi, out, p->d) == KNIT_OK;
	return knit__parse_fail(p, "unknown symbol \"%s\"", knit__strings_get(&p->g->strings, name));
}

bool knit__parse_expr_ok(knit_parser *p, knit_status status, const knit_diag *why) {
	if (status == KNIT_OK)
		return true;
	return status == KNIT_ERR_MEMORY ? knit__parse_no_memory(p) : knit__parse_fail(p, "%s", why->text);
}

/* [number *] symbol, or a number */
static bool read_term(knit_parser *p, knit_dim *out) {
	knit_diag why = {0};
	uint64_t factor = 1;
	uint32_t name;

	knit__parse_skip_space(p);
	if (knit__parse_is_digit(*p->at)) {
		if (!knit__parse_u64(p, INT64_MAX, &factor))
			return false;
		if (!knit__parse_accept(p, "*")) {
			*out = (knit_dim){(int64_t)factor};
			return true;
		}
	}
	if (!knit__parse_name(p, &name) || !find_symbol(p, name, out))
		return false;
	return knit__parse_expr_ok(p, knit__expr_mul(&p->g->exprs, *out, (int64_t)factor, out, &why), &why);
}

/* What is subtracted is collected apart, so that no part of the sum is negative. */
bool knit__parse_dim(knit_parser *p, knit_dim *out) {
	knit_dim plus = {0}, minus = {0}, term;
	knit_diag why = {0};
	bool negative = knit__parse_accept(p, "-");

	for (;;) {
		knit_dim *sum = negative ? &minus : &plus;

		if (!read_term(p, &term) || !knit__parse_expr_ok(p, knit__expr_add(&p->g->exprs, *sum, term, sum, &why), &why))
			return false;
		if (knit__parse_accept(p, "+"))
			negative = false;
		else if (knit__parse_accept(p, "-"))
			negative = true;
		else
			break;
	}
	return knit__parse_expr_ok(p, knit__expr_sub(&p->g->exprs, plus, minus, out, &why), &why);
}

bool knit__parse_dims(knit_parser *p, uint8_t *rank, knit_dim *dims) {
	*rank = 0;
	if (!knit__parse_expect(p, "["))
		return false;
	if (knit__parse_accept(p, "]"))
		return true;
	do {
		if (*rank == KNIT_MAX_RANK)
			return knit__parse_fail(p, "more than %d dimensions", KNIT_MAX_RANK);
		if (!knit__parse_dim(p, &dims[(*rank)++]))
			return false;
	} while (knit__parse_accept(p, ","));
	return knit__parse_expect(p, "]");
}

bool knit__parse_dtype(knit_parser *p, knit_dtype *out) {
	char word[32];

	if (!knit__parse_word(p, word, sizeof word))
		return false;
	*out = knit__dtype_parse(word);
	return *out || knit__parse_fail(p, "unknown element type %s", word);
}

bool knit__parse_type(knit_parser *p, knit_value *v) {
	uint64_t layout = 0;

	if (!knit__parse_dtype(p, &v->dtype) || !knit__parse_dims(p, &v->rank, v->dims))
		return false;
	if (knit__parse_accept(p, "layout") && !knit__parse_u64(p, UINT8_MAX, &layout))
		return false;
	v->layout = (uint8_t)layout;
	return true;
}
