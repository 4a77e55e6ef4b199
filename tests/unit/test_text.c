/* The text form: parse(print(g)) prints identically and is valid; and the form for Graphviz. Malformed text is in
 * test_text_malformed.c. */
#include "../../graph/context.h"
#include "../../graph/op_def.h"
#include "../../graph/pass.h"
#include "../../graph/text.h"
#include "../tools/comma_locale.h"
#include "../tools/graph_look.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

START_TEST(random_graphs_read_back) {
	for (uint64_t seed = 0; seed < 60; ++seed) {
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_msg(random_graph(ctx, seed, 20, &g, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		free(graph_round_trip(g));
		ck_assert_msg(knit__passes_run(g, NULL, NULL, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		free(graph_round_trip(g));
		knit_graph_destroy(g);
	}
}
END_TEST

/* Passes leave removed nodes and unused values behind until the graph is compacted: what is printed then has holes. */
START_TEST(graphs_with_holes_read_back) {
	knit_diag d = {0};
	knit_graph *g;
	uint32_t changes = 0;

	ck_assert_int_eq(random_graph(ctx, 3, 40, &g, &d), KNIT_OK);
	ck_assert_int_eq(knit__pass_cse(g, NULL, &changes, &d), KNIT_OK);
	ck_assert_int_eq(knit__pass_dce(g, NULL, &changes, &d), KNIT_OK);
	ck_assert_uint_ge(changes, 3);
	free(graph_round_trip(g));
	knit_graph_destroy(g);
}
END_TEST

START_TEST(parts_read_back) {
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_eq(random_graph(ctx, 5, 10, &g, &d), KNIT_OK);
	g->nodes[g->order[0]].parts = knit__strings_intern(&g->strings, "linear+scale+add");
	char *text = graph_round_trip(g);
	ck_assert_ptr_nonnull(strstr(text, "linear+scale+add"));
	free(text);
	knit_graph_destroy(g);
}
END_TEST

/* What the whole looks like, line by line. */
START_TEST(form_is_stable) {
	static const char want[] = "knit-ir 1\n"
							   "symbol tokens [1, 8]\n"
							   "s1 = input \"ids\" i32 32 bytes uses=2\n"
							   "s2 = input \"seq\" i32 32 bytes uses=1\n"
							   "s3 = const \"embed\" f32 256 bytes uses=2\n"
							   "s5 = state \"k\" f16 64 bytes uses=2\n"
							   "%1 = input s1 : i32 [tokens]\n"
							   "%2 = input s2 : i32 [tokens]\n"
							   "%3 = const s3 : f32 [8, 8]\n"
							   "%6 = state s5#0 : f16 [2, 4, 4]\n"
							   "%4 = gather %3, %1 : f32 [tokens, 8] in s4  @embed\n"
							   "%5 = view %4 strides [8, 1] offset 4 : f32 [tokens, 4]\n"
							   "%7 = append %6, %5, %2, %1 {ring=0, sinks=0} : f16 [2, 4, 4] in s5#1  @visit.0.k  ; k#0 -> k#1\n"
							   "%8 = linear %4, %3 : f32 [tokens, 8] in s6  @visit.0.k\n"
							   "input \"ids\" = %1\n"
							   "input \"seq\" = %2\n"
							   "output \"logits\" = %8\n"
							   "output \"k\" = %7\n"
							   "state s5 = %7\n";
	static const float data[64] = {1};
	static const int64_t dims[2] = {8, 8};
	const knit_dim slot[3] = {knit_n(2), knit_n(4), knit_n(4)};
	knit_weights *w;
	knit_graph *g;

	knit_weights_create(ctx, &w);
	knit_weights_add(w, "embed", KNIT_F32, 2, dims, data, sizeof data, NULL);
	knit_graph_create(ctx, &g);
	const knit_dim tokens = knit_sym(g, "tokens", 1, 8);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens),
					  seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	knit_origin(g, "embed");
	const knit_tensor x = knit_gather(g, knit_weight(g, w, "embed"), ids);
	const knit_tensor half = knit_slice(g, x, 1, 4, knit_n(4));
	const knit_state k = knit_state_define(g, KNIT_F16, 3, slot, "k");
	knit_origin(g, "visit.0.k");
	knit_state_append(g, k, half, seq, ids);
	knit_output(g, "logits", knit_linear(g, x, knit_weight(g, w, "embed")));
	knit_output(g, "k", knit_state_read(g, k));
	knit_weights_release(w);
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	char *text = graph_round_trip(g);
	ck_assert_str_eq(text, want);
	free(text);
	knit_graph_destroy(g);
}
END_TEST

/* ---- names, numbers, sizes --------------------------------------------------------------------------------------- */

START_TEST(odd_names_are_quoted) {
	static const char *const names[] = {"a b",          "\"quoted\"", "back\\slash", "line\nbreak", "\xc3\xa9t\xc3\xa9",
										"; no comment", "7seven",     "x]",          "\x01\x7f",    "%1",
										"none",         "view"};
	char text[64];

	for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
		knit_graph *g, *again;

		knit_graph_create(ctx, &g);
		const knit_dim n = knit_dim_add(g, knit_dim_mul(g, knit_sym(g, names[i], 1, 3), 2), knit_n(1));
		knit_origin(g, "%s", names[i]);
		knit_output(g, names[i], knit_silu(g, knit_input(g, names[i], KNIT_F32, 1, &n)));
		char *printed = graph_round_trip(g);
		ck_assert_int_eq(knit__parse_text(ctx, printed, &again, NULL), KNIT_OK);
		ck_assert_str_eq(knit__strings_get(&again->strings, again->exprs.symbols[0].name), names[i]);
		ck_assert_str_eq(knit__strings_get(&again->strings, again->inputs[0].name), names[i]);
		ck_assert_str_eq(knit__strings_get(&again->strings, again->outputs[0].name), names[i]);
		ck_assert_str_eq(knit__origin_text(again, &again->nodes[1]), names[i]);
		snprintf(text, sizeof text, "\n\n%s", names[i]); /* raw line breaks never reach the text */
		ck_assert_ptr_null(strstr(printed, "line\nbreak"));
		knit_graph_destroy(again);
		knit_graph_destroy(g);
		free(printed);
	}
}
END_TEST

static double scale_read_back(double s) {
	const knit_dim n = knit_n(4);
	const knit_attr attr = {.f = s};
	knit_graph *g, *again;

	knit_graph_create(ctx, &g);
	const uint32_t x = knit_input(g, "x", KNIT_F32, 1, &n).id;
	knit_output(g, "y", knit__build(g, KNIT_OP_SCALE, 1, &x, &attr));
	char *text = graph_round_trip(g);
	ck_assert_int_eq(knit__parse_text(ctx, text, &again, NULL), KNIT_OK);
	const double back = again->nodes[1].attr[0].f;
	knit_graph_destroy(again);
	knit_graph_destroy(g);
	free(text);
	return back;
}

START_TEST(numbers_read_back_exactly) {
	static const double values[] = {0.1,     (double)1e-5f, -0.0,    1.0 / 3,  DBL_MAX,          DBL_MIN,
									5e-324,  -1e300,        1e22,    0.125f,   (double)FLT_MIN,  123456789.0,
									1e-6,    2.5,           1000000, -1234567, 0.30000000000000004};

	for (size_t i = 0; i < sizeof values / sizeof values[0]; ++i) {
		const double back = scale_read_back(values[i]);

		ck_assert_msg(memcmp(&back, &values[i], sizeof back) == 0, "%.17g came back as %.17g", values[i], back);
	}
	for (uint64_t i = 1; i < 300; ++i) {
		union { uint64_t u; double f; } bits = {i * UINT64_C(0x9e3779b97f4a7c15)};

		if (bits.f - bits.f == 0)
			ck_assert(scale_read_back(bits.f) == bits.f);
	}
}
END_TEST

START_TEST(locale_does_not_matter) {
	if (comma_locale())
		ck_assert(scale_read_back(0.625) == 0.625);
	setlocale(LC_NUMERIC, "C");
}
END_TEST

START_TEST(sizes_read_back) {
	knit_graph *g;
	knit_diag d = {0};
	knit_dim n[4], twice;

	knit_graph_create(ctx, &g);
	const knit_dim a = knit_sym(g, "a", 0, 5), b = knit_sym(g, "odd name", 1, 7), c = knit_sym(g, "c.d_e", 2, 3);
	n[0] = knit_dim_add(g, knit_dim_mul(g, a, 3), knit_dim_add(g, knit_dim_mul(g, b, 2), knit_n(5)));
	n[1] = knit_dim_add(g, knit_dim_add(g, a, b), c);
	twice = knit_dim_mul(g, a, 2);
	ck_assert_int_eq(knit__expr_sub(&g->exprs, knit_n(20), twice, &n[2], &d), KNIT_OK);   /* 20 - 2a */
	ck_assert_int_eq(knit__expr_sub(&g->exprs, n[0], knit_dim_add(g, a, a), &n[3], &d), KNIT_OK);
	for (int i = 0; i < 4; ++i) {
		char name[8] = {'x', (char)('0' + i), 0};

		knit_output(g, name, knit_silu(g, knit_input(g, name, KNIT_F32, 1, &n[i])));
	}
	char *text = graph_round_trip(g);
	ck_assert_ptr_nonnull(strstr(text, "[3*a+2*\"odd name\"+5]"));
	ck_assert_ptr_nonnull(strstr(text, "[-2*a+20]"));
	ck_assert_ptr_nonnull(strstr(text, "[a+\"odd name\"+c.d_e]"));
	free(text);
	knit_graph_destroy(g);
}
END_TEST

START_TEST(free_form_is_accepted) {
	/* no storages for temporaries, comments, blank lines, carriage returns, attributes in any order */
	static const char text[] = "\r\n; hello\nknit-ir 1 ; one\r\n\n  symbol   t[1,4]\n"
							   "s9=input \"x\" f32 256 bytes\ns8 = input \"p\" i32 16 bytes\n"
							   "%30=input s9:f32[t,2,8]\n%31 = input s8 : i32 [t]\n"
							   "%2 = rope %30,%31{layout=1,theta=1e4,rotary=8}:f32[t,2,8]@here;there\n"
							   "%3 = view %2 strides[8,16,1]offset 0:f32[2,t,8]\n"
							   "%4 = copy %3 : f32 [2, t, 8]\n"
							   "input \"x\" = %30\ninput \"p\"=%31\noutput \"y\"=%4";
	knit_graph *g;
	knit_diag d = {0};

	ck_assert_msg(knit__parse_text(ctx, text, &g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(g->order_count, 2);
	ck_assert_uint_eq(g->values[2].storage, 10);
	ck_assert_uint_eq(g->values[4].storage, 11);
	ck_assert_uint_eq(g->storages[11].max_bytes, 256);
	free(graph_round_trip(g));
	knit_graph_destroy(g);
}
END_TEST

/* ---- dot --------------------------------------------------------------------------------------------------------- */

START_TEST(dot_shows_ties) {
	static const char text[] = "knit-ir 1\nsymbol t [1, 4]\ns1 = input \"x\\\"y\" f32 128 bytes\n"
							   "s2 = const \"tied\" f32 256 bytes\ns3 = const \"once\" f32 256 bytes\n"
							   "%1 = input s1 : f32 [t, 8]\n%2 = const s2 : f32 [8, 8]\n%3 = const s3 : f32 [8, 8]\n"
							   "%4 = linear %1, %2 : f32 [t, 8] @visit.0\n%5 = linear %4, %2 : f32 [t, 8] @visit.1\n"
							   "%6 = linear %5, %3 : f32 [t, 8] @last\n"
							   "input \"x\\\"y\" = %1\noutput \"y\" = %6\n";
	knit_text t = {.a = &ctx->a};
	knit_graph *g;
	int filled = 0;

	ck_assert_int_eq(knit__parse_text(ctx, text, &g, NULL), KNIT_OK);
	ck_assert_int_eq(knit__print_dot(g, &t), KNIT_OK);
	ck_assert_ptr_nonnull(strstr(t.data, "digraph knit {"));
	ck_assert_ptr_nonnull(strstr(t.data, "x\\\"y"));
	ck_assert_ptr_nonnull(strstr(t.data, "tied\\nf32 [8, 8]\\n2 uses"));
	const char *colour = strstr(t.data, "fillcolor=");
	ck_assert_ptr_nonnull(colour);
	for (const char *p = t.data; (p = strstr(p, "fillcolor=")) != NULL; ++p, ++filled)
		ck_assert_int_eq(strncmp(p, colour, strcspn(colour, "]")), 0);
	ck_assert_int_eq(filled, 3); /* the weight and both visits, not the weight used once */
	knit__text_clear(&t);
	knit_graph_destroy(g);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {random_graphs_read_back, graphs_with_holes_read_back, parts_read_back,
	                              form_is_stable, odd_names_are_quoted, numbers_read_back_exactly,
	                              locale_does_not_matter, sizes_read_back, free_form_is_accepted, dot_shows_ties};

	return suite_run_around("text", setup, teardown, tests, (int)(sizeof tests / sizeof *tests));
}
