/* Malformed text is refused with its line; nothing that anyone can write, and no allocation that fails, crashes the parser. */
#include "../../graph/pass.h"
#include "../../graph/text.h"
#include "../tools/graph_look.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdlib.h>
#include <string.h>

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

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
		char *original = graph_print(g);
		knit_graph_destroy(g);
		for (int i = 0; i < 250; ++i) {
			char *text = strdup(original);

			for (uint32_t n = 1 + below(3); n > 0 && *text; --n)
				mutate(text, strlen(text));
			const knit_status status = knit__parse_text(ctx, text, &g, &d);
			ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_FORMAT, "%s", knit_status_name(status));
			if (status == KNIT_OK) {
				free(graph_round_trip(g));
				uint32_t changes = 0;
				knit__pass_canonicalise(g, NULL, &changes, &d);
				knit__pass_cse(g, NULL, &changes, &d);
				knit__pass_dce(g, NULL, &changes, &d);
				knit__pass_legalise(g, NULL, &changes, &d);
				knit__pass_order(g, NULL, &changes, &d);
				ck_assert_int_eq(knit__graph_compact(g), KNIT_OK);
				free(graph_round_trip(g));
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

START_TEST(failed_allocations_are_reported) {
	track_alloc track = {0};
	knit_context *tight;
	knit_graph *g, *again;
	uint64_t n = 0;

	ck_assert_int_eq(random_graph(ctx, 5, 12, &g, NULL), KNIT_OK);
	char *text = graph_print(g);
	knit_graph_destroy(g);
	tight = track_context(&track);
	ck_assert_ptr_nonnull(tight);
	const uint64_t base = track.live;
	for (;; ++n) {
		knit_diag d = {0};

		track.fail_at = track.count + n + 1;
		const knit_status status = knit__parse_text(tight, text, &again, &d);
		track.fail_at = 0;
		if (status == KNIT_OK)
			break;
		ck_assert_msg(status == KNIT_ERR_MEMORY, "allocation %llu: %s: %s", (unsigned long long)n, knit_status_name(status), d.text);
		ck_assert_uint_eq(track.live, base);
	}
	ck_assert_uint_gt(n, 50);
	const uint64_t parsed = track.live;
	for (n = 0;; ++n) {
		knit_text t = {.a = again->a};

		track.fail_at = track.count + n + 1;
		const knit_status status = knit__print_text(again, &t);
		track.fail_at = 0;
		knit__text_clear(&t);
		ck_assert_uint_eq(track.live, parsed);
		if (status == KNIT_OK)
			break;
		ck_assert_int_eq(status, KNIT_ERR_MEMORY);
	}
	knit_graph_destroy(again);
	ck_assert_uint_eq(track.live, base);
	knit_context_destroy(tight);
	free(text);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {malformed_text_is_refused, mutated_text_never_crashes,
	                              failed_allocations_are_reported};

	return suite_run_around("text malformed", setup, teardown, tests, (int)(sizeof tests / sizeof *tests));
}
