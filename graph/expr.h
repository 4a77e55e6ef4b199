/* Owns run-time sizes: symbols with bounds, and affine expressions over them (k0 + sum k[i] * symbol[i]), interned so
 * that equal expressions have equal ids. Refuses products of symbols. */
#ifndef KNIT_EXPR_H
#define KNIT_EXPR_H

#include "base.h"

#define KNIT_EXPR_TERMS 4
#define KNIT_MAX_SYMBOLS 16

typedef struct knit_symbol { uint32_t name; int64_t lo, hi; } knit_symbol;

typedef struct knit_expr {
	int64_t k0, k[KNIT_EXPR_TERMS];
	uint16_t sym[KNIT_EXPR_TERMS]; /* ascending */
	uint8_t terms;                 /* >= 1: constants are never interned, they are the knit_dim itself */
	int64_t lo, hi;                /* from the symbols' declared ranges */
} knit_expr;

typedef struct knit_exprs {
	const knit_allocator *a;
	knit_symbol symbols[KNIT_MAX_SYMBOLS];
	knit_expr *data;
	uint32_t symbol_count, count, cap;
} knit_exprs;

/* Narrower bounds than declared, one pair per symbol, for a bucket. */
typedef struct knit_bounds { int64_t lo[KNIT_MAX_SYMBOLS], hi[KNIT_MAX_SYMBOLS]; } knit_bounds;

void knit__exprs_init(knit_exprs *e, const knit_allocator *a);
void knit__exprs_clear(knit_exprs *e);
bool knit__exprs_copy(knit_exprs *to, const knit_exprs *from); /* `to` initialised and empty */

/* `name` is an id in the graph's string pool. LIMIT past KNIT_MAX_SYMBOLS, ARGUMENT if declared before with another
 * range or lo > hi or lo < 0. */
knit_status knit__expr_symbol(knit_exprs *e, uint32_t name, int64_t lo, int64_t hi, knit_dim *out, knit_diag *d);
knit_status knit__expr_add(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d);
knit_status knit__expr_sub(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d);
knit_status knit__expr_mul(knit_exprs *e, knit_dim a, int64_t factor, knit_dim *out, knit_diag *d);
/* Product of two dims, at most one of them symbolic; SHAPE otherwise ("two symbols are never multiplied"). */
knit_status knit__expr_product(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d);

static inline bool knit__dim_is_number(knit_dim d) { return d.v >= 0; }
static inline bool knit__dim_equal(knit_dim a, knit_dim b) { return a.v == b.v; } /* interned: same id, same value */
/* NULL for a number or an id out of range. */
const knit_expr *knit__expr_get(const knit_exprs *e, knit_dim d);
int64_t knit__dim_lo(const knit_exprs *e, const knit_bounds *b, knit_dim d); /* b NULL: declared ranges */
int64_t knit__dim_hi(const knit_exprs *e, const knit_bounds *b, knit_dim d);
/* Value with one number per symbol. */
int64_t knit__dim_eval(const knit_exprs *e, const int64_t *symbols, knit_dim d);
void knit__bounds_declared(const knit_exprs *e, knit_bounds *out);
/* "7", "tokens", "2*tokens+3". Writes at most `size` bytes, always terminated. */
void knit__dim_text(const knit_exprs *e, const knit_strings *names, knit_dim d, char *out, size_t size);

#endif
