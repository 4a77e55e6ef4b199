/* The oracle on graphs small enough to be worked out by hand: views, states, symbols, weights, bad input. */
#include "../../graph/context.h"
#include "../../graph/interp.h"
#include "../../graph/text.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static knit_graph *g;
static knit_interp *it;

static void setup(void) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	it = NULL;
}

static void teardown(void) {
	knit__interp_destroy(it);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}

static void start(void) {
	knit_diag d = {0};

	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__interp_create(g, 1, &it, &d) == KNIT_OK, "%s", d.text);
}

static void write_input(const char *name, size_t count, const double *data) {
	ck_assert_int_eq(knit__interp_write(it, name, data, count), KNIT_OK);
}

static void run(void) {
	knit_diag d = {0};

	ck_assert_msg(knit__interp_run(it, &d) == KNIT_OK, "%s", d.text);
}

static void expect(const char *name, size_t count, const double *want) {
	const knit_array *x;

	ck_assert_int_eq(knit__interp_output(it, name, &x), KNIT_OK);
	ck_assert_uint_eq((size_t)knit__array_count(x), count);
	for (size_t i = 0; i < count; ++i)
		ck_assert_msg(x->data[i] == want[i], "%s[%zu] is %.17g, not %.17g", name, i, x->data[i], want[i]);
}

START_TEST(views_are_gathered) {
	const knit_dim t = knit_sym(g, "t", 1, 3), dims[2] = {t, knit_n(4)}, six = knit_dim_mul(g, t, 2);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	const knit_tensor right = knit_slice(g, x, 1, 2, knit_n(2));

	knit_output(g, "turned", knit_transpose(g, x, 0, 1));
	knit_output(g, "right", right);
	knit_output(g, "doubled", knit_scale(g, knit_transpose(g, right, 0, 1), 2));
	knit_output(g, "flat", knit_reshape(g, knit_scale(g, right, 1), 1, &six));
	knit_output(g, "heads", knit_transpose(g, knit_split_heads(g, x, 2), 0, 1));
	start();
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 3), KNIT_OK);
	write_input("x", 12, (double[]){0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23});
	run();
	expect("turned", 12, (double[]){0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23});
	expect("right", 6, (double[]){2, 3, 12, 13, 22, 23});
	expect("doubled", 6, (double[]){4, 24, 44, 6, 26, 46});
	expect("flat", 6, (double[]){2, 3, 12, 13, 22, 23});
	expect("heads", 12, (double[]){0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23});
	/* the same interp at another size */
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 1), KNIT_OK);
	write_input("x", 4, (double[]){5, 6, 7, 8});
	run();
	expect("turned", 4, (double[]){5, 6, 7, 8});
	expect("doubled", 2, (double[]){14, 16});
}
END_TEST

START_TEST(states_last_from_run_to_run) {
	const knit_dim t = knit_sym(g, "t", 1, 2), slot[3] = {knit_n(2), knit_n(2), knit_n(2)}, rows[2] = {t, knit_n(2)};
	const knit_dim flat[2] = {knit_n(4), knit_n(2)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, rows), seq = knit_input(g, "seq", KNIT_I32, 1, &t);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &t);
	const knit_state k = knit_state_define(g, KNIT_F16, 3, slot, "k");
	const knit_tensor all = knit_reshape(g, knit_state_read(g, k), 2, flat);

	/* version 0, read after version 1 is made in the text but computed before it in the builder's order */
	knit_output(g, "old", knit_gather(g, all, pos));
	knit_state_append(g, k, x, seq, pos);
	knit_output(g, "new", knit_state_read(g, k));
	start();
	write_input("x", 2, (double[]){1, 2});
	write_input("seq", 1, (double[]){1});
	write_input("pos", 1, (double[]){0});
	run();
	expect("old", 2, (double[]){0, 0});
	expect("new", 8, (double[]){0, 0, 0, 0, 1, 2, 0, 0});
	write_input("x", 2, (double[]){1.0001, 4}); /* rounded to f16 on the way in */
	write_input("seq", 1, (double[]){0});
	write_input("pos", 1, (double[]){0});
	run();
	expect("old", 2, (double[]){0, 0});
	expect("new", 8, (double[]){1, 4, 0, 0, 1, 2, 0, 0});
	run();
	expect("old", 2, (double[]){1, 4});
	knit__interp_reset(it);
	run();
	expect("old", 2, (double[]){0, 0});
	expect("new", 8, (double[]){1, 4, 0, 0, 0, 0, 0, 0});
}
END_TEST

START_TEST(weights_are_decoded) {
	static const float data[6] = {1, 2, 3, 4, 5, 6};
	static const int64_t dims[2] = {2, 3};
	const knit_dim n = knit_n(3);
	knit_weights *w;

	ck_assert_int_eq(knit_weights_create(ctx, &w), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(w, "w", KNIT_F32, 2, dims, data, sizeof data, NULL), KNIT_OK);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 1, &n);
	knit_output(g, "y", knit_linear(g, x, knit_weight(g, w, "w")));
	knit_output(g, "w", knit_transpose(g, knit_weight(g, w, "w"), 0, 1));
	knit_weights_release(w);
	start();
	write_input("x", 3, (double[]){1, 10, 100});
	run();
	expect("y", 2, (double[]){321, 654});
	expect("w", 6, (double[]){1, 4, 2, 5, 3, 6});
}
END_TEST

/* A parsed graph has no bytes: the numbers depend on seed and name, not on ids. */
START_TEST(missing_weights_depend_on_seed_and_name) {
	static const char form[] = "knit-ir 1\ns1 = input \"x\" f32 16 bytes\n%s%%1 = input s1 : f32 [4]\n"
							   "%s%%9 = mul %%1, %%8 : f32 [4]\ninput \"x\" = %%1\noutput \"y\" = %%9\n";
	static const char *const weights[][2] = {
		{"s2 = const \"a\" f32 16 bytes\n", "%8 = const s2 : f32 [4]\n"},
		{"s7 = const \"a\" f32 16 bytes\n", "%8 = const s7 : f32 [4]\n"},
		{"s2 = const \"b\" f32 16 bytes\n", "%8 = const s2 : f32 [4]\n"},
	};
	double first[4] = {0};

	for (uint64_t i = 0; i < 4; ++i) {
		char text[512];
		knit_diag d = {0};
		knit_graph *parsed;
		const knit_array *y;

		snprintf(text, sizeof text, form, weights[i % 3][0], weights[i % 3][1]);
		ck_assert_msg(knit__parse_text(ctx, text, &parsed, &d) == KNIT_OK, "%s", d.text);
		ck_assert_int_eq(knit__interp_create(parsed, i == 3 ? 2 : 1, &it, &d), KNIT_OK);
		write_input("x", 4, (double[]){1, 1, 1, 1});
		run();
		ck_assert_int_eq(knit__interp_output(it, "y", &y), KNIT_OK);
		if (i == 0)
			memcpy(first, y->data, sizeof first);
		ck_assert_int_eq(memcmp(first, y->data, sizeof first) == 0, i < 2);
		ck_assert(fabs(y->data[0]) <= 0.5 && y->data[0] != y->data[1]);
		knit__interp_destroy(it);
		it = NULL;
		knit_graph_destroy(parsed);
	}
}
END_TEST

START_TEST(values_can_be_looked_at) {
	const knit_dim n = knit_n(2);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 1, &n), twice = knit_scale(g, x, 2);

	knit_output(g, "y", knit_scale(g, twice, 3));
	start();
	ck_assert_ptr_null(knit__interp_value(it, twice.id));
	write_input("x", 2, (double[]){1, 2});
	run();
	ck_assert(knit__interp_value(it, twice.id)->data[1] == 4);
	ck_assert_ptr_null(knit__interp_value(it, 0));
	ck_assert_ptr_null(knit__interp_value(it, 1000));
}
END_TEST

START_TEST(wrong_use_is_reported) {
	const knit_dim t = knit_sym(g, "t", 1, 4), table[2] = {knit_n(3), knit_n(2)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, table), ids = knit_input(g, "ids", KNIT_I32, 1, &t);
	const knit_array *y;
	knit_diag d = {0};

	knit_origin(g, "here");
	knit_output(g, "y", knit_gather(g, x, ids));
	start();
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 5), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 0), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__interp_set_symbol(it, "u", 1), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 2), KNIT_OK);
	ck_assert_int_eq(knit__interp_write(it, "z", (double[]){0}, 1), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit__interp_write(it, "ids", (double[]){0}, 1), KNIT_ERR_SHAPE);
	ck_assert_int_eq(knit__interp_output(it, "y", &y), KNIT_ERR_STATE);
	ck_assert_int_eq(knit__interp_output(it, "z", &y), KNIT_ERR_NOT_FOUND);

	write_input("x", 6, (double[]){0, 1, 10, 11, 20, 21});
	ck_assert_int_eq(knit__interp_run(it, &d), KNIT_ERR_STATE);
	ck_assert_str_eq(d.text, "input \"ids\" needs 2 elements, 0 were written");
	/* indices: too large, below 0, no integer, no number; never an access outside the table */
	static const double bad[] = {3, -1, 0.5, 1e300};
	for (size_t i = 0; i < 5; ++i) {
		write_input("ids", 2, (double[]){2, i < 4 ? bad[i] : (double)NAN});
		d = (knit_diag){0};
		ck_assert_int_eq(knit__interp_run(it, &d), KNIT_ERR_ARGUMENT);
		ck_assert_msg(strstr(d.text, "gather at here: index ") == d.text, "%s", d.text);
	}
	write_input("ids", 2, (double[]){2, 0});
	run();
	expect("y", 4, (double[]){20, 21, 0, 1});
	/* the input was written for another size */
	ck_assert_int_eq(knit__interp_set_symbol(it, "t", 1), KNIT_OK);
	d = (knit_diag){0};
	ck_assert_int_eq(knit__interp_run(it, &d), KNIT_ERR_STATE);
	ck_assert_str_eq(d.text, "input \"ids\" needs 1 elements, 2 were written");
}
END_TEST

START_TEST(a_failed_graph_is_refused) {
	knit_diag d = {0};

	knit_output(g, "y", (knit_tensor){99});
	ck_assert_int_eq(knit__interp_create(g, 1, &it, &d), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_null(it);
}
END_TEST

int main(void) {
	Suite *s = suite_create("interp");
	TCase *c = tcase_create("interp");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, views_are_gathered);
	tcase_add_test(c, states_last_from_run_to_run);
	tcase_add_test(c, weights_are_decoded);
	tcase_add_test(c, missing_weights_depend_on_seed_and_name);
	tcase_add_test(c, values_can_be_looked_at);
	tcase_add_test(c, wrong_use_is_reported);
	tcase_add_test(c, a_failed_graph_is_refused);
	suite_add_tcase(s, c);
	return suite_finish(s, CK_FORK);
}
