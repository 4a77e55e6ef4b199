/* The runner of the passes: which it leaves out, by the caller's list and by the environment, what it shows, and what it
 * does where memory runs out. */
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/graph_look.h"
#include "../tools/pass_target.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLERANCE 1e-9

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

static uint32_t count_nodes_after(uint64_t seed, const char *disable, uint32_t *weights) {
	knit_diag d = {0};
	knit_graph *g, *before;
	const knit_target t = pass_target(PASS_CONTIGUOUS);

	ck_assert_int_eq(random_graph(ctx, seed, 24, &g, &d), KNIT_OK);
	ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
	ck_assert_msg(knit__passes_run(g, &t, disable, &d) == KNIT_OK, "%s off: %s", disable ? disable : "nothing", d.text);
	ck_assert_msg(knit__check_equal(before, g, seed, TOLERANCE, NULL, &d) == KNIT_OK, "%s off: %s",
				  disable ? disable : "nothing", d.text);
	const uint32_t nodes = g->order_count;
	graph_weight_bytes(g, weights);
	for (uint32_t i = 0; i < g->output_count; ++i)
		ck_assert_int_eq(knit__value_storage(g, g->outputs[i].value)->kind, KNIT_STORAGE_OUTPUT);
	knit_graph_destroy(before);
	knit_graph_destroy(g);
	return nodes;
}

#define FUSIONS "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise"

/* Nothing is fused here: equal computations, where they stay, give single readers and so more to fuse. */
START_TEST(passes_are_disabled_by_name) {
	static const char *const lists[] = {FUSIONS ",canonicalise",  FUSIONS ",dedup_weights", FUSIONS ",cse",
										FUSIONS ",dce",           FUSIONS ",cse, dce",      FUSIONS ",dce,,cse,",
										FUSIONS};
	uint32_t nodes[7] = {0}, weights[7] = {0}, n;

	for (uint64_t seed = 300; seed < 310; ++seed) {
		for (int i = 0; i < 7; ++i) {
			nodes[i] += count_nodes_after(seed, lists[i], &n);
			weights[i] += n;
		}
	}
	ck_assert_uint_gt(nodes[0], nodes[6]);
	ck_assert_uint_gt(weights[1], weights[6]);
	ck_assert_uint_gt(nodes[2], nodes[6]);
	ck_assert_uint_gt(nodes[3], nodes[6]);
	ck_assert_uint_gt(nodes[4], nodes[3]);
	ck_assert_uint_eq(nodes[4], nodes[5]);
}
END_TEST

/* Each fusion makes the graphs shorter, and none does when all are off. */
START_TEST(fusions_are_disabled_by_name) {
	static const char *const lists[] = {"fuse_linear", "merge_siblings", "fuse_norm", "fuse_kv", "fuse_elementwise"};
	uint32_t nodes[7] = {0}, n;

	for (uint64_t seed = 400; seed < 420; ++seed) {
		for (int i = 0; i < 5; ++i)
			nodes[i] += count_nodes_after(seed, lists[i], &n);
		nodes[5] += count_nodes_after(seed, FUSIONS, &n);
		nodes[6] += count_nodes_after(seed, NULL, &n);
	}
	for (int i = 0; i < 5; ++i) {
		ck_assert_msg(nodes[i] > nodes[6], "without %s: %u nodes, with it %u", lists[i], nodes[i], nodes[6]);
		ck_assert_msg(nodes[i] < nodes[5], "with only %s off: %u nodes, all off %u", lists[i], nodes[i], nodes[5]);
	}
}
END_TEST

START_TEST(wrong_names_are_refused) {
	static const struct { const char *list, *says; } bad[] = {
		{"legalise", "pass legalise cannot be switched off"}, {"cse,order", "pass order cannot be switched off"},
		{"cs", "no pass \"cs\" to switch off"},               {"csee", "no pass \"csee\" to switch off"},
		{"cse;dce", "no pass \"cse;dce\" to switch off"},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_int_eq(random_graph(ctx, 1, 4, &g, &d), KNIT_OK);
		char *before = graph_print(g);
		ck_assert_int_eq(knit__passes_run(g, NULL, bad[i].list, &d), KNIT_ERR_ARGUMENT);
		ck_assert_str_eq(d.text, bad[i].says);
		char *after = graph_print(g);
		ck_assert_str_eq(before, after);
		free(before);
		free(after);
		knit_graph_destroy(g);
	}
}
END_TEST

/* Runs the passes with stderr in a file; returns what was written there. */
static char *run_with_stderr(const char *variable, const char *value) {
	char path[] = "/tmp/knit-passes-XXXXXX";
	const int file = mkstemp(path), kept = dup(2);
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(random_graph(ctx, 2, 12, &g, &d), KNIT_OK);
	fflush(stderr);
	dup2(file, 2);
	setenv(variable, value, 1);
	const knit_status status = knit__passes_run(g, NULL, NULL, &d);
	unsetenv(variable);
	fflush(stderr);
	dup2(kept, 2);
	close(kept);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	knit_graph_destroy(g);
	char *text = calloc(1, 1 << 20);
	ck_assert_int_ge(pread(file, text, (1 << 20) - 1, 0), 0);
	close(file);
	unlink(path);
	return text;
}

START_TEST(the_environment_shows_and_checks) {
	char *text = run_with_stderr("KNIT_DUMP", "cse");

	ck_assert_ptr_nonnull(strstr(text, "; before cse\nknit-ir 1\n"));
	ck_assert_ptr_nonnull(strstr(text, "; after cse\nknit-ir 1\n"));
	ck_assert_ptr_null(strstr(text, "dce\nknit-ir"));
	free(text);
	text = run_with_stderr("KNIT_CHECK", "1");
	ck_assert_str_eq(text, "");
	free(text);
}
END_TEST

/* KNIT_PASSES_OFF is added to what the caller switches off. */
START_TEST(the_environment_switches_off) {
	static const struct { const char *value, *disable; bool elementwise, cse; } rows[] = {
		{NULL, NULL, true, true},
		{"", NULL, true, true},
		{"fuse_elementwise", NULL, false, true},
		{NULL, "fuse_elementwise", false, true},
		{"fuse_elementwise", "cse", false, false},
		{" cse,, fuse_elementwise", "cse", false, false},
	};
	static const char text[] =
		"knit-ir 1\ns1 = input \"x\" f32 32 bytes\n%1 = input s1 : f32 [8]\n%2 = silu %1 : f32 [8]\n%3 = scale %2 {s=2} : f32 [8]\n"
		"%4 = silu %1 : f32 [8]\n%5 = scale %4 {s=2} : f32 [8]\ninput \"x\" = %1\noutput \"y\" = %3\noutput \"z\" = %5\n";
	knit_graph *g;
	knit_diag d = {0};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		ck_assert_msg(knit__parse_text(ctx, text, &g, &d) == KNIT_OK, "%s", d.text);
		if (rows[i].value)
			setenv("KNIT_PASSES_OFF", rows[i].value, 1);
		const knit_status status = knit__passes_run(g, NULL, rows[i].disable, &d);
		unsetenv("KNIT_PASSES_OFF");
		ck_assert_msg(status == KNIT_OK, "%s", d.text);
		char *after = graph_print(g);
		ck_assert_msg((strstr(after, "= map") != NULL) == rows[i].elementwise, "row %zu:\n%s", i, after);
		const char *const chain = rows[i].elementwise ? "= map" : "= silu", *const first = strstr(after, chain);
		ck_assert_msg((strstr(first + 1, chain) == NULL) == rows[i].cse, "row %zu:\n%s", i, after);
		free(after);
		knit_graph_destroy(g);
	}
	ck_assert_int_eq(knit__parse_text(ctx, text, &g, &d), KNIT_OK);
	setenv("KNIT_PASSES_OFF", "cse,nothing", 1);
	ck_assert_int_eq(knit__passes_run(g, NULL, NULL, &d), KNIT_ERR_ARGUMENT);
	unsetenv("KNIT_PASSES_OFF");
	ck_assert_msg(strstr(d.text, "\"nothing\"") != NULL, "%s", d.text);
	knit_graph_destroy(g);
}
END_TEST

START_TEST(failed_allocations_are_reported) {
	track_alloc track = {0};
	const knit_target t = pass_target(PASS_CONTIGUOUS);
	knit_context *tight;
	knit_graph *g, *work;
	knit_diag d = {0};

	tight = track_context(&track);
	ck_assert_ptr_nonnull(tight);
	const uint64_t base = track.live;
	ck_assert_int_eq(random_graph(tight, 7, 12, &g, &d), KNIT_OK);
	const uint64_t built = track.live;
	for (uint64_t n = 0;; ++n) {
		d = (knit_diag){0};
		ck_assert_int_eq(knit__graph_clone(g, &work, &d), KNIT_OK);
		track.fail_at = track.count + n + 1;
		const knit_status status = knit__passes_run(work, &t, NULL, &d);
		track.fail_at = 0;
		knit_graph_destroy(work);
		ck_assert_uint_eq(track.live, built);
		if (status == KNIT_OK) {
			ck_assert_uint_gt(n, 30);
			break;
		}
		ck_assert_msg(status == KNIT_ERR_MEMORY, "allocation %llu: %s: %s", (unsigned long long)n, knit_status_name(status), d.text);
		ck_assert_int_eq(d.status, KNIT_ERR_MEMORY);
	}
	knit_graph_destroy(g);
	ck_assert_uint_eq(track.live, base);
	knit_context_destroy(tight);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {passes_are_disabled_by_name, fusions_are_disabled_by_name, wrong_names_are_refused,
	                              the_environment_shows_and_checks, the_environment_switches_off,
	                              failed_allocations_are_reported};

	return suite_run_around("passes run", setup, teardown, tests, (int)(sizeof tests / sizeof *tests));
}
