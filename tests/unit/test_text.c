/* The text form: parse(print(g)) prints identically and is valid; malformed text is refused with its line; nothing that
 * anyone can write crashes the parser. */
#include "../../graph/context.h"
#include "../../graph/op_def.h"
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/random_graph.h"

#include <check.h>
#include <float.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

static char *print(const knit_graph *g) {
	knit_text t = {.a = g->a};

	ck_assert_int_eq(knit__print_text(g, &t), KNIT_OK);
	char *copy = strdup(t.data);
	knit__text_clear(&t);
	return copy;
}

/* The graph must be valid, print, parse back and print the same. Returns the text. */
static char *round_trip(const knit_graph *g) {
	knit_diag d = {0};
	knit_graph *again;
	char *first = print(g);

	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "%s\n%s", d.text, first);
	ck_assert_msg(knit__parse_text(ctx, first, &again, &d) == KNIT_OK, "%s\n%s", d.text, first);
	char *second = print(again);
	ck_assert_str_eq(first, second);
	ck_assert_msg(knit__check_valid(again, NULL, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(again->order_count, g->order_count);
	ck_assert_uint_eq(again->input_count, g->input_count);
	ck_assert_uint_eq(again->output_count, g->output_count);
	ck_assert_uint_eq(again->state_count, g->state_count);
	knit_graph_destroy(again);
	free(second);
	return first;
}

START_TEST(random_graphs_read_back) {
	for (uint64_t seed = 0; seed < 60; ++seed) {
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_msg(random_graph(ctx, seed, 20, &g, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		free(round_trip(g));
		ck_assert_msg(knit__passes_run(g, NULL, NULL, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		free(round_trip(g));
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
	free(round_trip(g));
	knit_graph_destroy(g);
}
END_TEST

START_TEST(parts_read_back) {
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_eq(random_graph(ctx, 5, 10, &g, &d), KNIT_OK);
	g->nodes[g->order[0]].parts = knit__strings_intern(&g->strings, "linear+scale+add");
	char *text = round_trip(g);
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
	char *text = round_trip(g);
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
		char *printed = round_trip(g);
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
	char *text = round_trip(g);
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
	static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
	const char *set = NULL;

	for (size_t i = 0; i < sizeof locales / sizeof locales[0] && !set; ++i)
		set = setlocale(LC_NUMERIC, locales[i]);
	if (set)
		ck_assert(scale_read_back(0.625) == 0.625);
	else
		printf("SKIP: no locale with a decimal comma is installed\n");
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
	char *text = round_trip(g);
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
	free(round_trip(g));
	knit_graph_destroy(g);
}
END_TEST

/* ---- malformed text ---------------------------------------------------------------------------------------------- */

#define HEAD "knit-ir 1\nsymbol t [1, 4]\ns1 = input \"x\" f32 128 bytes uses=1\n%1 = input s1 : f32 [t, 8]\n"
#define TAIL "input \"x\" = %1\noutput \"y\" = %1\n"

static const struct { const char *text, *says;
} malformed[] = {
	{"", "line 1: a graph starts with"},
	{"\n\n", "line 3: a graph starts with"},
	{"knit-ir 2\n", "line 1: a graph starts with"},
	{"digraph knit {", "line 1: a graph starts with"},
	{"knit-ir 1 2\n", "line 1: more text"},
	{HEAD "what\n", "line 5: needs %id, sid"},
	{HEAD "%2 = silu %1 : f32 [t, 8] extra\n", "line 5: more text"},
	{HEAD "%2 = silu %3 : f32 [t, 8]\n", "line 5: %3 is not defined before"},
	{HEAD "%2 = silu %2 : f32 [t, 8]\n", "line 5: %2 is not defined before"},
	{HEAD "%2 = sillu %1 : f32 [t, 8]\n", "line 5: unknown op sillu"},
	{HEAD "%2 = silu %1 : f33 [t, 8]\n", "line 5: unknown element type f33"},
	{HEAD "%2 = silu %1 : f32 [t, 8\n", "line 5: needs ']'"},
	{HEAD "%2 = silu %1 : f32 [t, 8, 1, 1, 1]\n", "line 5: more than 4 dimensions"},
	{HEAD "%2 = silu %1 : f32 [u, 8]\n", "line 5: unknown symbol \"u\""},
	{HEAD "%2 = silu %1 : f32 [-8]\n", "line 5: a dimension is -8"},
	{HEAD "%2 = silu %1 : f32 [t-2]\n", "line 5: a symbolic dimension can be -1"},
	{HEAD "%2 = silu %1 : f32 [t*t]\n", "line 5: needs ']'"},
	{HEAD "%2 = silu %1 : f32 [t, t]\n", "not a valid graph"},
	{HEAD "%2 = silu %1 : f32 [99999999999999999999]\n", "line 5: a number is above"},
	{HEAD "%2 = silu %1 : f32 [9223372036854775807*t]\n", "line 5: "},
	{HEAD "%2 = silu %1 : f32 [4611686018427387904, 4611686018427387904]\n", "line 5: "},
	{HEAD "%2 = scale %1 : f32 [t, 8]\n", "line 5: scale lacks its attribute s"},
	{HEAD "%2 = scale %1 {s=1, s=2} : f32 [t, 8]\n", "line 5: attribute s is there twice"},
	{HEAD "%2 = scale %1 {r=1} : f32 [t, 8]\n", "line 5: scale has no attribute r"},
	{HEAD "%2 = scale %1 {s=one} : f32 [t, 8]\n", "line 5: needs a number"},
	{HEAD "%2 = scale %1 {s=} : f32 [t, 8]\n", "line 5: needs a number"},
	{HEAD "%2 = scale %1 {s=nan} : f32 [t, 8]\n" TAIL, "not a valid graph: node 1 (%2 = scale): scale: s is nan"},
	{HEAD "%2, %3 = silu %1 : f32 [t, 8], f32 [t, 8]\n", "line 5: silu gives 1 results, not 2"},
	{HEAD "%2, %3, %4, %5 = silu %1\n", "line 5: more than 3 results"},
	{HEAD "%1 = silu %1 : f32 [t, 8]\n", "line 5: %1 is defined twice"},
	{HEAD "%0 = silu %1 : f32 [t, 8]\n", "line 5: ids count from 1"},
	{HEAD "%4000000000 = silu %1 : f32 [t, 8]\n", "line 5: a number is above"},
	{HEAD "%2 = silu %1 : f32 [t, 8] in s4000000000\n", "line 5: a number is above"},
	{HEAD "%2 = silu %1 : f32 [t, 8] in s1\n", "line 5: s1 is already the storage of %1"},
	{HEAD "%2 = silu %1 : f32 [t, 8] in s2#1\n", "line 5: s2 is no state"},
	{HEAD "%2 = add %1, none : f32 [t, 8]\n" TAIL, "not a valid graph: node 1 (%2 = add): input 1 is %0"},
	{HEAD "%2 = add %1 : f32 [t, 8]\n" TAIL, "not a valid graph: node 1 (%2 = add): 1 inputs"},
	{HEAD "%2 = silu %1, %1, %1, %1, %1, %1, %1, %1, %1, %1, %1, %1, %1 : f32 [t, 8]\n", "line 5: more than 12 operands"},
	{HEAD "%2 = silu %1 : f32 [t, 4]\n" TAIL, "not a valid graph: node 1 (%2 = silu): output 0 is f32 [t, 4]"},
	{HEAD "%2 = silu %1 : f32 [t, 8] @\"open\n", "line 5: a string is not closed"},
	{HEAD "%2 = silu %1 : f32 [t, 8] @\"a\\n\"\n", "line 5: unknown escape"},
	{HEAD "%2 = silu %1 : f32 [t, 8] @\"a\\x0\"\n", "line 5: needs two hexadecimal digits"},
	{HEAD "%2 = silu %1 : f32 [t, 8] @\"a\\x00\"\n", "line 5: needs two hexadecimal digits"},
	{HEAD "%2 = silu %1 : f32 [t, 8] @\n", "line 5: needs a name"},
	{HEAD "%2 = view %1 strides [8] offset 0 : f32 [t, 8]\n", "line 5: 1 strides for 2 dimensions"},
	{HEAD "%2 = view %1 strides [8, 1] offset 1 : f32 [t, 8]\n" TAIL,
	 "not a valid graph: %2: reaches past the end of %1"},
	{HEAD "%2 = view %1 strides [8, 1] offset 0 : f32 [4, 8]\n" TAIL,
	 "not a valid graph: %2: reaches past the end of %1"},
	{HEAD "%2 = view %1 strides [1] offset 0 : f32 [8]\n%3 = view %2 strides [1] offset 0 : f32 [8]\n",
	 "line 6: %2 is a view itself"},
	{HEAD "%2 = view %1 strides [8, 1] offset 0 : i32 [t, 8]\n" TAIL, "not a valid graph: %2: type i32"},
	{HEAD "%2 = input s1 : f32 [t, 8]\n", "line 5: s1 is already the storage of %1"},
	{HEAD "%2 = const s1 : f32 [t, 8]\n", "line 5: s1 is no const"},
	{HEAD "%2 = output s1 : f32 [t, 8]\n", "line 5: s1 is no output"},
	{HEAD "s1 = const \"w\" f32 4 bytes\n", "line 5: s1 is defined twice"},
	{HEAD "s2 = temp \"w\" f32 4 bytes\n", "line 5: needs const, adapter"},
	{HEAD "s2 = const \"w\" f32 4 bits\n", "line 5: needs 'bytes'"},
	{HEAD "s2 = const \"w\" f32 4 bytes uses=\n", "line 5: needs a number"},
	{HEAD "s2 = const \"w\" f32 4 bytes\n" TAIL, "not a valid graph: s2: whole value 0 does not exist"},
	{HEAD "s2 = const \"w\" f32 4 bytes\n%2 = const s2 : f32 [2]\n" TAIL, "not a valid graph: %2: takes 8 bytes"},
	{HEAD "s2 = const \"w\" q8_0 34 bytes\n%2 = const s2 : q8_0 [31]\n" TAIL, "not a valid graph: %2: "},
	{HEAD "s2 = const \"w\" f32 16 bytes\n%2 = const s2 : f32 [t]\n" TAIL, "not a valid graph: %2: a const whose size"},
	{HEAD "s2 = const \"\" f32 16 bytes\n%2 = const s2 : f32 [4]\n" TAIL, "not a valid graph: s2: name 0"},
	{HEAD "s2 = state \"k\" f32 16 bytes\n%2 = state s2#1 : f32 [1, 1, 4]\n", "line 6: a number is above 0"},
	{HEAD "s2 = state \"k\" f32 16 bytes\n%2 = state s2 : f32 [1, 1, 4]\n", "line 6: needs '#'"},
	{HEAD "s2 = state \"k\" f32 16 bytes\n%2 = state s2#0 : f32 [1, 1, 4]\n" TAIL,
	 "not a valid graph: %2: a version of s2"},
	{HEAD "symbol t [1, 5]\n", "line 5: symbol \"t\" is defined twice"},
	{HEAD "symbol u [5, 1]\n", "line 5: symbol range [5, 1]"},
	{HEAD "symbol u [-1, 1]\n", "line 5: symbol range [-1, 1]"},
	{HEAD "output \"y\" = %1\n" TAIL, "not a valid graph: output 1: \"y\" is there twice"},
	{HEAD "output \"y\" = %9\n", "line 5: %9 is not defined before"},
	{HEAD "output \"y\" = %1\n", "not a valid graph: s1: its input is listed 0 times"},
	{HEAD "state s1 = %1\n" TAIL, "not a valid graph: state 0: s1 is no state"},
};

START_TEST(malformed_text_is_refused) {
	for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; ++i) {
		knit_graph *g;
		knit_diag d = {0};

		const knit_status status = knit__parse_text(ctx, malformed[i].text, &g, &d);
		ck_assert_msg(status == KNIT_ERR_FORMAT, "case %zu: %s\n%s", i, knit_status_name(status), malformed[i].text);
		ck_assert_ptr_null(g);
		ck_assert_msg(strncmp(d.text, malformed[i].says, strlen(malformed[i].says)) == 0,
					  "case %zu says '%s', not '%s'", i, d.text, malformed[i].says);
	}
	knit_graph *g;
	ck_assert_int_eq(knit__parse_text(ctx, HEAD TAIL, &g, NULL), KNIT_OK);
	knit_graph_destroy(g);
	ck_assert_int_eq(knit__parse_text(ctx, "nonsense", &g, NULL), KNIT_ERR_FORMAT);
}
END_TEST

static uint64_t random_state;
static uint32_t below(uint32_t n) {
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33) % n;
}

/* Changes the text in place; buffer has room for one more line. */
static void mutate(char *text, size_t length) {
	static const char alphabet[] = "%s=:,[]{}#@\"\\;0123456789-+*. \nabcdefnortuvwx";
	const uint32_t at = below((uint32_t)length);

	switch (below(6)) {
	case 0: /* another character */
		text[at] = alphabet[below(sizeof alphabet - 1)];
		break;
	case 1: /* an end */
		text[at] = 0;
		break;
	case 2: { /* a piece is lost */
		const uint32_t lost = below((uint32_t)(length - at));

		memmove(text + at, text + at + lost, length - at - lost + 1);
		break;
	}
	case 3: { /* a piece appears twice, over another */
		const uint32_t from = below((uint32_t)length), longest = (uint32_t)length - (at > from ? at : from);

		memmove(text + at, text + from, below(longest < 60 ? longest : 60));
		break;
	}
	case 4: /* a digit */
		for (uint32_t i = at; text[i]; ++i) {
			if (text[i] >= '0' && text[i] <= '9') {
				text[i] = (char)('0' + below(10));
				break;
			}
		}
		break;
	default: /* any byte */
		text[at] = (char)(1 + below(255));
	}
}

/* What still parses must be as good as any graph: it prints, reads back, and the passes either take it or say why not.
 */
START_TEST(mutated_text_never_crashes) {
	uint32_t parsed = 0;

	random_state = 42;
	for (uint64_t seed = 0; seed < 20; ++seed) {
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_int_eq(random_graph(ctx, 1000 + seed, 8, &g, &d), KNIT_OK);
		char *original = print(g);
		knit_graph_destroy(g);
		for (int i = 0; i < 250; ++i) {
			char *text = strdup(original);

			for (uint32_t n = 1 + below(3); n > 0 && *text; --n)
				mutate(text, strlen(text));
			const knit_status status = knit__parse_text(ctx, text, &g, &d);
			ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_FORMAT, "%s", knit_status_name(status));
			if (status == KNIT_OK) {
				free(round_trip(g));
				uint32_t changes = 0;
				knit__pass_canonicalise(g, NULL, &changes, &d);
				knit__pass_cse(g, NULL, &changes, &d);
				knit__pass_dce(g, NULL, &changes, &d);
				knit__pass_legalise(g, NULL, &changes, &d);
				knit__pass_order(g, NULL, &changes, &d);
				ck_assert_int_eq(knit__graph_compact(g), KNIT_OK);
				free(round_trip(g));
				knit_graph_destroy(g);
				++parsed;
			}
			free(text);
			d = (knit_diag){0};
		}
		free(original);
	}
	ck_assert_uint_gt(parsed, 100); /* else the test looks at error paths only */
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct budget { long left, live; } budget;

static void *budget_alloc(void *user, size_t size, size_t align) {
	budget *b = user;
	void *p = NULL;

	if (b->left == 0)
		return NULL;
	b->left -= b->left > 0;
	if (posix_memalign(&p, align, size) != 0)
		return NULL;
	b->live++;
	return p;
}

static void budget_free(void *user, void *ptr, size_t size) {
	(void)size;
	((budget *)user)->live--;
	free(ptr);
}

START_TEST(failed_allocations_are_reported) {
	budget b = {.left = -1};
	const knit_context_desc desc = {.allocator = {budget_alloc, budget_free, &b}};
	knit_context *tight;
	knit_graph *g, *again;
	long n = 0;

	ck_assert_int_eq(random_graph(ctx, 5, 12, &g, NULL), KNIT_OK);
	char *text = print(g);
	knit_graph_destroy(g);
	ck_assert_int_eq(knit_context_create(&desc, &tight), KNIT_OK);
	const long base = b.live;
	for (;; ++n) {
		knit_diag d = {0};

		b.left = n;
		const knit_status status = knit__parse_text(tight, text, &again, &d);
		b.left = -1;
		if (status == KNIT_OK)
			break;
		ck_assert_msg(status == KNIT_ERR_MEMORY, "allocation %ld: %s: %s", n, knit_status_name(status), d.text);
		ck_assert_int_eq(b.live, base);
	}
	ck_assert_int_gt(n, 50);
	const long parsed = b.live;
	for (n = 0;; ++n) {
		knit_text t = {.a = again->a};

		b.left = n;
		const knit_status status = knit__print_text(again, &t);
		b.left = -1;
		knit__text_clear(&t);
		ck_assert_int_eq(b.live, parsed);
		if (status == KNIT_OK)
			break;
		ck_assert_int_eq(status, KNIT_ERR_MEMORY);
	}
	knit_graph_destroy(again);
	ck_assert_int_eq(b.live, base);
	knit_context_destroy(tight);
	free(text);
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
	Suite *s = suite_create("text");
	TCase *c = tcase_create("text");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, random_graphs_read_back);
	tcase_add_test(c, graphs_with_holes_read_back);
	tcase_add_test(c, parts_read_back);
	tcase_add_test(c, form_is_stable);
	tcase_add_test(c, odd_names_are_quoted);
	tcase_add_test(c, numbers_read_back_exactly);
	tcase_add_test(c, locale_does_not_matter);
	tcase_add_test(c, sizes_read_back);
	tcase_add_test(c, free_form_is_accepted);
	tcase_add_test(c, malformed_text_is_refused);
	tcase_add_test(c, mutated_text_never_crashes);
	tcase_add_test(c, failed_allocations_are_reported);
	tcase_add_test(c, dot_shows_ties);
	suite_add_tcase(s, c);

	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
