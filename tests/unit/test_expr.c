/* Symbols and affine expressions: interning, bounds, evaluation, limits. */
#include "../../graph/expr.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>

static knit_exprs e;
static knit_strings names;
static knit_dim tokens, rows;

static void open_exprs(void) {
	knit__exprs_init(&e, &knit__default_allocator);
	knit__strings_init(&names, &knit__default_allocator);
	ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, "tokens"), 1, 512, &tokens, NULL), KNIT_OK);
	ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, "rows"), 0, 10, &rows, NULL), KNIT_OK);
}

static void close_exprs(void) {
	knit__exprs_clear(&e);
	knit__strings_clear(&names);
}

START_TEST(equal_expressions_are_one) {
	knit_dim a, b, c;

	open_exprs();
	knit__expr_add(&e, tokens, rows, &a, NULL);
	knit__expr_add(&e, rows, tokens, &b, NULL);
	ck_assert(knit__dim_equal(a, b));
	knit__expr_mul(&e, a, 3, &a, NULL);
	knit__expr_add(&e, b, b, &c, NULL);
	knit__expr_add(&e, c, b, &c, NULL);
	ck_assert(knit__dim_equal(a, c));
	knit__expr_sub(&e, a, a, &c, NULL);
	ck_assert_int_eq(c.v, 0);
	knit__expr_mul(&e, tokens, 0, &c, NULL);
	ck_assert_int_eq(c.v, 0);
	close_exprs();
}
END_TEST

START_TEST(bounds_and_values) {
	knit_dim d;
	knit_bounds b;
	char text[64];
	const int64_t at[KNIT_MAX_SYMBOLS] = {7, 2};

	open_exprs();
	knit__expr_mul(&e, tokens, 2, &d, NULL);
	knit__expr_add(&e, d, rows, &d, NULL);
	knit__expr_add(&e, d, (knit_dim){3}, &d, NULL);
	ck_assert_int_eq(knit__dim_lo(&e, NULL, d), 5);
	ck_assert_int_eq(knit__dim_hi(&e, NULL, d), 1037);
	ck_assert_int_eq(knit__dim_eval(&e, at, d), 19);
	knit__bounds_declared(&e, &b);
	b.hi[0] = 1;
	ck_assert_int_eq(knit__dim_hi(&e, &b, d), 15);
	knit__dim_text(&e, &names, d, text, sizeof text);
	ck_assert_str_eq(text, "2*tokens+rows+3");
	knit__dim_text(&e, &names, d, text, 5);
	ck_assert_uint_lt(strlen(text), 5);
	close_exprs();
}
END_TEST

START_TEST(what_is_refused) {
	knit_dim d = {77};
	knit_diag why = {0};

	open_exprs();
	ck_assert_int_eq(knit__expr_product(&e, tokens, rows, &d, &why), KNIT_ERR_SHAPE);
	ck_assert_int_eq(d.v, 77);
	ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, "tokens"), 1, 511, &d, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, "bad"), 5, 4, &d, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, "bad"), -1, 4, &d, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__expr_mul(&e, tokens, INT64_MAX / 2, &d, NULL), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__expr_sub(&e, rows, (knit_dim){1}, &d, NULL), KNIT_ERR_SHAPE);
	for (int i = 0; i < KNIT_MAX_SYMBOLS; ++i) {
		char name[8];

		snprintf(name, sizeof name, "s%d", i);
		ck_assert_int_eq(knit__expr_symbol(&e, knit__strings_intern(&names, name), 0, 1, &d, NULL),
		                 i < KNIT_MAX_SYMBOLS - 2 ? KNIT_OK : KNIT_ERR_LIMIT);
	}
	close_exprs();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {equal_expressions_are_one, bounds_and_values, what_is_refused};

	return suite_run("expr", tests, sizeof tests / sizeof tests[0]);
}
