/* Each pass on random graphs: run twice, checked, and compared by the oracle before and after; and that the oracle sees
 * what a wrong pass could do. */
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/graph_look.h"
#include "../tools/pass_target.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"

#include <string.h>

#define TOLERANCE 1e-9

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

static void run_pass(const knit_pass *pass, knit_graph *g, const knit_target *t, uint64_t seed, uint32_t *fired) {
	uint32_t changes = 0, again = 0, storages_before, storages_after;
	const uint64_t bytes_before = graph_weight_bytes(g, &storages_before);
	knit_graph *before;
	knit_diag d = {0};
	bool skipped;

	ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
	ck_assert_msg(pass->run(g, t, &changes, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(pass->run(g, t, &again, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(again == 0, "seed %llu: %s reports %u changes on its own result", (unsigned long long)seed,
				  pass->name, again);
	ck_assert_int_eq(knit__graph_compact(g), KNIT_OK);
	ck_assert_int_eq(g->diag.status, KNIT_OK);
	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_text(g, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_equal(before, g, seed, TOLERANCE, &skipped, &d) == KNIT_OK, "seed %llu, %s: %s",
				  (unsigned long long)seed, pass->name, d.text);
	ck_assert(!skipped);
	/* No pass may enlarge the constants or split a storage. */
	ck_assert_uint_le(graph_weight_bytes(g, &storages_after), bytes_before);
	ck_assert_uint_le(storages_after, storages_before);
	*fired += changes;
	knit_graph_destroy(before);
}

START_TEST(random_graphs_keep_their_meaning) {
	uint32_t fired[16] = {0};
	const knit_pass *p;

	for (uint64_t seed = 0; seed < 80; ++seed) {
		const knit_target t = pass_target((pass_mode)(seed % PASS_MODES));
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_msg(random_graph(ctx, seed, 24, &g, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i)
			run_pass(p, g, &t, seed, &fired[i]);
		knit_graph_destroy(g);
	}
	/* The random graphs must give every pass work, except order, which finds valid orders only. */
	for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i)
		ck_assert_msg(fired[i] > 20 || strcmp(p->name, "order") == 0, "%s fired %u times", p->name, fired[i]);
}
END_TEST

/* Any order of the passes, several times. */
START_TEST(passes_in_any_order_keep_the_meaning) {
	size_t count = 0;

	while (knit__pass_at(count))
		++count;
	for (uint64_t seed = 100; seed < 120; ++seed) {
		const knit_target t = pass_target((pass_mode)(seed % PASS_MODES));
		uint64_t random = seed;
		uint32_t fired = 0;
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_int_eq(random_graph(ctx, seed, 16, &g, &d), KNIT_OK);
		for (int i = 0; i < 10; ++i) {
			random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			run_pass(knit__pass_at((size_t)(random >> 33) % count), g, &t, seed, &fired);
		}
		knit_graph_destroy(g);
	}
}
END_TEST

/* A shuffled order, repaired, is valid again: the order pass needs no help from the others. */
START_TEST(shuffled_orders_are_repaired) {
	for (uint64_t seed = 200; seed < 240; ++seed) {
		uint64_t random = seed;
		uint32_t changes = 0, again = 0;
		knit_diag d = {0};
		knit_graph *g, *before;

		ck_assert_int_eq(random_graph(ctx, seed, 24, &g, &d), KNIT_OK);
		ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
		for (uint32_t i = g->order_count; i-- > 1;) {
			random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			const uint32_t j = (uint32_t)(random >> 33) % (i + 1), kept = g->order[i];
			g->order[i] = g->order[j];
			g->order[j] = kept;
		}
		ck_assert_int_eq(knit__pass_order(g, NULL, &changes, &d), KNIT_OK);
		ck_assert_uint_gt(changes, 0);
		ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed, d.text);
		ck_assert_msg(knit__check_equal(before, g, seed, 0, NULL, &d) == KNIT_OK, "%s", d.text);
		ck_assert_int_eq(knit__pass_order(g, NULL, &again, &d), KNIT_OK);
		ck_assert_uint_eq(again, 0);
		knit_graph_destroy(before);
		knit_graph_destroy(g);
	}
}
END_TEST

START_TEST(a_circle_has_no_order) {
	static const char text[] =
		"knit-ir 1\ns1 = input \"x\" f32 16 bytes\n%1 = input s1 : f32 [4]\n%2 = silu %1 : f32 [4]\n"
		"%3 = gelu %2 : f32 [4]\ninput \"x\" = %1\noutput \"y\" = %3\n";
	uint32_t changes = 0;
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_eq(knit__parse_text(ctx, text, &g, &d), KNIT_OK);
	g->nodes[1].in[0] = 3;
	ck_assert_int_eq(knit__pass_order(g, NULL, &changes, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(d.text, "waits for itself"));
	ck_assert_uint_eq(g->order[0], 1);
	knit_graph_destroy(g);
}
END_TEST

/* The oracle must see what a wrong pass could do. */
START_TEST(differences_are_found) {
	static const char text[] =
		"knit-ir 1\nsymbol t [1, 4]\ns1 = input \"x\" f32 128 bytes\ns2 = input \"p\" i32 16 bytes\n"
		"s3 = state \"k\" f32 256 bytes\n%1 = input s1 : f32 [t, 8]\n%2 = input s2 : i32 [t]\n"
		"%3 = state s3#0 : f32 [2, 4, 8]\n%4 = scale %1 {s=2} : f32 [t, 8]\n"
		"%5 = append %3, %4, %2, %2 {ring=0, sinks=0} : f32 [2, 4, 8] in s3#1\n%6 = silu %4 : f32 [t, 8]\n"
		"input \"x\" = %1\ninput \"p\" = %2\noutput \"y\" = %6\noutput \"z\" = %4\nstate s3 = %5\n";
	knit_graph *a, *b;
	knit_diag d = {0};
	bool skipped;

	ck_assert_msg(knit__parse_text(ctx, text, &a, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__graph_clone(a, &b, &d), KNIT_OK);
	/* p indexes sequences and positions: below both bounds */
	ck_assert_msg(knit__check_equal(a, b, 1, 0, &skipped, &d) == KNIT_OK, "%s", d.text);
	ck_assert(!skipped);
	b->nodes[3].op = KNIT_OP_GELU;
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, "output \"y\" differs at element 0") == d.text, "%s", d.text);
	b->nodes[3].op = KNIT_OP_SILU;
	b->nodes[2].in[1] = 1;
	d = (knit_diag){0};
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, "state \"k\" differs at element ") == d.text, "%s", d.text);
	b->nodes[2].in[1] = 4;
	b->output_count = 1;
	d = (knit_diag){0};
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	b->output_count = 2;
	b->nodes[1].attr[0].f = 2 * (1 + 1e-12); /* within the tolerance, but not equal */
	d = (knit_diag){0};
	ck_assert_msg(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__check_equal(a, b, 1, 0, NULL, &d), KNIT_ERR_INTERNAL);
	knit_graph_destroy(a);
	knit_graph_destroy(b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {random_graphs_keep_their_meaning, passes_in_any_order_keep_the_meaning,
	                              shuffled_orders_are_repaired, a_circle_has_no_order, differences_are_found};

	return suite_run_around("passes on random graphs", setup, teardown, tests, (int)(sizeof tests / sizeof *tests));
}
