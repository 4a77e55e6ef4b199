/* Owns the small pieces of the text form: words, numbers, strings, ids, sizes, types. Knows no item of a graph. */
#ifndef KNIT_PARSE_TOKEN_H
#define KNIT_PARSE_TOKEN_H

#include "ir.h"

typedef struct knit_parser {
	knit_graph *g;
	const char *at;
	uint32_t line, limit; /* limit: of ids */
	knit_diag *d;
	knit_text scratch; /* the string read last */
} knit_parser;

/* Each of these returns false where the text is not as needed, with the reason in p->d. */

/* Records "line N: <message>" as FORMAT; returns false. */
bool knit__parse_fail(knit_parser *p, const char *fmt, ...) KNIT_PRINTF(2, 3);
bool knit__parse_no_memory(knit_parser *p);
/* Passes on what a function of expr.h said. */
bool knit__parse_expr_ok(knit_parser *p, knit_status status, const knit_diag *why);

void knit__parse_skip_space(knit_parser *p);
/* True and behind it if `token` comes next; records nothing. A word must not go on. */
bool knit__parse_accept(knit_parser *p, const char *token);
bool knit__parse_expect(knit_parser *p, const char *token);
/* Skips a comment; the line must end there. */
bool knit__parse_line_end(knit_parser *p);

/* A letter, then letters and digits. */
bool knit__parse_word(knit_parser *p, char *out, size_t size);
bool knit__parse_u64(knit_parser *p, uint64_t max, uint64_t *out);
bool knit__parse_i64(knit_parser *p, int64_t *out);
bool knit__parse_double(knit_parser *p, double *out);
/* A name, quoted or plain, as a string id. */
bool knit__parse_name(knit_parser *p, uint32_t *id);
/* An id after its letter: "%12", "s7"; from 1 to the limit. */
bool knit__parse_id(knit_parser *p, char letter, uint32_t *id);

bool knit__parse_dim(knit_parser *p, knit_dim *out);
/* [a, b, ...] */
bool knit__parse_dims(knit_parser *p, uint8_t *rank, knit_dim *dims);
bool knit__parse_dtype(knit_parser *p, knit_dtype *out);
/* f32 [a, b] layout 1: fills dtype, rank, dims and layout of v. */
bool knit__parse_type(knit_parser *p, knit_value *v);

static inline bool knit__parse_is_digit(char c) { return c >= '0' && c <= '9'; }

#endif
