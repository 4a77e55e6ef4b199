/* Owns symbols and interned affine expressions: creation, bounds, evaluation, text. */
#include "expr.h"

#include <stdio.h>
#include <string.h>

void knit__exprs_init(knit_exprs *e, const knit_allocator *a) { *e = (knit_exprs){.a = a}; }

void knit__exprs_clear(knit_exprs *e) {
	if (e->data)
		knit__free(e->a, e->data, e->cap * sizeof *e->data);
	knit__exprs_init(e, e->a);
}

bool knit__exprs_copy(knit_exprs *to, const knit_exprs *from) {
	if (!knit__grow(to->a, (void **)&to->data, &to->cap, from->count, sizeof *to->data))
		return false;
	if (from->count)
		memcpy(to->data, from->data, from->count * sizeof *to->data);
	to->count = from->count;
	memcpy(to->symbols, from->symbols, sizeof to->symbols);
	to->symbol_count = from->symbol_count;
	return true;
}

/* A dim id: -1 is expression 0, and so on. */
const knit_expr *knit__expr_get(const knit_exprs *e, knit_dim d) {
	return d.v >= 0 || -(d.v + 1) >= (int64_t)e->count ? NULL : &e->data[-(d.v + 1)];
}

static bool same(const knit_expr *a, const knit_expr *b) {
	if (a->k0 != b->k0 || a->terms != b->terms)
		return false;
	for (int i = 0; i < a->terms; ++i)
		if (a->k[i] != b->k[i] || a->sym[i] != b->sym[i])
			return false;
	return true;
}

/* Bounds of x under b; false on overflow. */
static bool range(const knit_exprs *e, const knit_bounds *b, const knit_expr *x, int64_t *lo, int64_t *hi) {
	*lo = *hi = x->k0;
	for (int i = 0; i < x->terms; ++i) {
		int64_t at_lo, at_hi;

		if (!knit__mul_i64(x->k[i], b ? b->lo[x->sym[i]] : e->symbols[x->sym[i]].lo, &at_lo) ||
		    !knit__mul_i64(x->k[i], b ? b->hi[x->sym[i]] : e->symbols[x->sym[i]].hi, &at_hi))
			return false;
		if (!knit__add_i64(*lo, x->k[i] < 0 ? at_hi : at_lo, lo) || !knit__add_i64(*hi, x->k[i] < 0 ? at_lo : at_hi, hi))
			return false;
	}
	return true;
}

/* Turns x into a dim: a number if no term is left, else the interned expression. */
static knit_status intern(knit_exprs *e, knit_expr *x, knit_dim *out, knit_diag *d) {
	if (x->terms == 0) {
		if (x->k0 < 0)
			return knit__fail(d, KNIT_ERR_SHAPE, 0, "a dimension is %lld, below 0", (long long)x->k0);
		*out = (knit_dim){x->k0};
		return KNIT_OK;
	}
	if (!range(e, NULL, x, &x->lo, &x->hi))
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "the bounds of a symbolic dimension do not fit 64 bits");
	if (x->lo < 0)
		return knit__fail(d, KNIT_ERR_SHAPE, 0, "a symbolic dimension can be %lld, below 0", (long long)x->lo);

	for (uint32_t i = 0; i < e->count; ++i) {
		if (same(&e->data[i], x)) {
			*out = (knit_dim){-(int64_t)i - 1};
			return KNIT_OK;
		}
	}
	if (!knit__grow(e->a, (void **)&e->data, &e->cap, e->count + 1, sizeof *e->data))
		return knit__fail_memory(d, "an expression", sizeof *e->data);
	e->data[e->count] = *x;
	*out = (knit_dim){-(int64_t)e->count++ - 1};
	return KNIT_OK;
}

static knit_expr expand(const knit_exprs *e, knit_dim d) {
	const knit_expr *x = knit__expr_get(e, d);

	return x ? *x : (knit_expr){.k0 = d.v < 0 ? 0 : d.v};
}

knit_status knit__expr_symbol(knit_exprs *e, uint32_t name, int64_t lo, int64_t hi, knit_dim *out, knit_diag *d) {
	uint32_t i;

	if (lo < 0 || lo > hi)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "symbol range [%lld, %lld]: needs 0 <= lo <= hi", (long long)lo,
		                  (long long)hi);
	for (i = 0; i < e->symbol_count && e->symbols[i].name != name; ++i)
		;
	if (i == KNIT_MAX_SYMBOLS)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "more than %d symbols in one graph", KNIT_MAX_SYMBOLS);
	if (i == e->symbol_count)
		e->symbols[e->symbol_count++] = (knit_symbol){name, lo, hi};
	else if (e->symbols[i].lo != lo || e->symbols[i].hi != hi)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "symbol declared twice: range [%lld, %lld], before [%lld, %lld]",
		                  (long long)lo, (long long)hi, (long long)e->symbols[i].lo, (long long)e->symbols[i].hi);

	knit_expr x = {.terms = 1, .k = {1}, .sym = {(uint16_t)i}};
	return intern(e, &x, out, d);
}

/* a + factor * b */
static knit_status combine(knit_exprs *e, knit_dim a, knit_dim b, int64_t factor, knit_dim *out, knit_diag *d) {
	const knit_expr x = expand(e, a), y = expand(e, b);
	knit_expr sum = {0};
	int64_t part;
	int i = 0, j = 0;

	if (!knit__mul_i64(y.k0, factor, &part) || !knit__add_i64(x.k0, part, &sum.k0))
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "a dimension does not fit 64 bits");
	while (i < x.terms || j < y.terms) {
		const bool from_x = j == y.terms || (i < x.terms && x.sym[i] <= y.sym[j]);
		const bool from_y = i == x.terms || (j < y.terms && y.sym[j] <= x.sym[i]);
		const uint16_t sym = from_x ? x.sym[i] : y.sym[j];
		int64_t k = from_x ? x.k[i] : 0;

		if (from_y && (!knit__mul_i64(y.k[j], factor, &part) || !knit__add_i64(k, part, &k)))
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "a dimension does not fit 64 bits");
		i += from_x;
		j += from_y;
		if (k == 0)
			continue;
		if (sum.terms == KNIT_EXPR_TERMS)
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "a dimension with more than %d symbols", KNIT_EXPR_TERMS);
		sum.k[sum.terms] = k;
		sum.sym[sum.terms++] = sym;
	}
	return intern(e, &sum, out, d);
}

knit_status knit__expr_add(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d) {
	return combine(e, a, b, 1, out, d);
}

knit_status knit__expr_sub(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d) {
	return combine(e, a, b, -1, out, d);
}

knit_status knit__expr_mul(knit_exprs *e, knit_dim a, int64_t factor, knit_dim *out, knit_diag *d) {
	return combine(e, (knit_dim){0}, a, factor, out, d);
}

knit_status knit__expr_product(knit_exprs *e, knit_dim a, knit_dim b, knit_dim *out, knit_diag *d) {
	if (knit__dim_is_number(b))
		return knit__expr_mul(e, a, b.v, out, d);
	if (knit__dim_is_number(a))
		return knit__expr_mul(e, b, a.v, out, d);
	return knit__fail(d, KNIT_ERR_SHAPE, 0, "two symbolic dimensions would be multiplied");
}

int64_t knit__dim_lo(const knit_exprs *e, const knit_bounds *b, knit_dim d) {
	const knit_expr *x = knit__expr_get(e, d);
	int64_t lo, hi;

	if (!x)
		return d.v;
	return b && range(e, b, x, &lo, &hi) ? lo : x->lo;
}

int64_t knit__dim_hi(const knit_exprs *e, const knit_bounds *b, knit_dim d) {
	const knit_expr *x = knit__expr_get(e, d);
	int64_t lo, hi;

	if (!x)
		return d.v;
	return b && range(e, b, x, &lo, &hi) ? hi : x->hi;
}

int64_t knit__dim_eval(const knit_exprs *e, const int64_t *symbols, knit_dim d) {
	const knit_expr *x = knit__expr_get(e, d);

	if (!x)
		return d.v;
	int64_t v = x->k0; /* cannot overflow: the symbols lie in the ranges for which the bounds were computed */
	for (int i = 0; i < x->terms; ++i)
		v += x->k[i] * symbols[x->sym[i]];
	return v;
}

void knit__bounds_declared(const knit_exprs *e, knit_bounds *out) {
	*out = (knit_bounds){{0}, {0}};
	for (uint32_t i = 0; i < e->symbol_count; ++i) {
		out->lo[i] = e->symbols[i].lo;
		out->hi[i] = e->symbols[i].hi;
	}
}

void knit__dim_text(const knit_exprs *e, const knit_strings *names, knit_dim d, char *out, size_t size) {
	const knit_expr *x = knit__expr_get(e, d);
	size_t at = 0;

	if (!size)
		return;
	out[0] = 0;
	if (!x) {
		snprintf(out, size, "%lld", (long long)d.v);
		return;
	}
	for (int i = 0; i < x->terms && at < size; ++i) {
		const char *name = knit__strings_get(names, e->symbols[x->sym[i]].name);
		const char *plus = i && x->k[i] >= 0 ? "+" : "";
		const int n = x->k[i] == 1 ? snprintf(out + at, size - at, "%s%s", plus, name)
		                           : snprintf(out + at, size - at, "%s%lld*%s", plus, (long long)x->k[i], name);

		at += n > 0 ? (size_t)n : 0;
	}
	if (x->k0 && at < size)
		snprintf(out + at, size - at, "%+lld", (long long)x->k0);
}
