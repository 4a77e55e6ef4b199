/* Slots in graphs: what the builder refuses, and that the text form and the passes keep what slots are. What they do in
 * sessions is in test_adapter_slots.c. */
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/adapter_model.h"
#include "../tools/suite.h"

#include <string.h>

enum { SLOTS = 4 };

static knit_context *ctx;
static knit_weights *base, *adapter;

static void setup(void) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 1}, &ctx), KNIT_OK);
	base = adapter_model_base(ctx, KNIT_F32);
	adapter = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	ck_assert(base && adapter);
}

static void teardown(void) {
	knit_weights_release(base);
	knit_weights_release(adapter);
	knit_context_destroy(ctx);
}

START_TEST(the_builder_checks) {
	static const struct { knit_dtype t; int64_t count, rows, columns; } bad[] = {
		{KNIT_I32, 2, 4, 4}, {KNIT_F32, 0, 4, 4}, {KNIT_F32, 2, -1, 4}, {KNIT_F32, 2, 4, 0}, {KNIT_Q8_0, 2, 4, 48},
	};
	knit_graph *g;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
		ck_assert_uint_eq(knit_adapter_slots(g, bad[i].t, bad[i].count, bad[i].rows, bad[i].columns, "a").id, 0);
		ck_assert_int_ne(knit_graph_status(g, NULL), KNIT_OK);
		ck_assert_uint_eq(knit_adapter_slots(g, KNIT_F32, 2, 4, 4, "b").id, 0); /* sticky */
		knit_graph_destroy(g);
	}
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_tensor a = knit_adapter_slots(g, KNIT_F32, 2, 4, 8, "slots.%d", 1);
	ck_assert_uint_ne(a.id, 0);
	ck_assert_uint_eq(knit_adapter_slots(g, KNIT_F32, 2, 4, 8, "slots.1").id, a.id);
	ck_assert_uint_eq(knit_adapter_slots(g, KNIT_F32, 2, 8, 4, "slots.1").id, 0);
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_ERR_ARGUMENT);
	knit_graph_destroy(g);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	knit_adapter(g, adapter, "visit.0.q.a");
	ck_assert_uint_eq(knit_adapter_slots(g, KNIT_F32, 2, ADAPTER_RANK, ADAPTER_DIM, "visit.0.q.a").id, 0);
	knit_graph_destroy(g);
	ck_assert_uint_eq(knit_adapter_slots(NULL, KNIT_F32, 2, 4, 8, "x").id, 0);
}
END_TEST

/* The text form keeps what slots are. */
START_TEST(text_keeps_slots) {
	knit_text t, again;
	knit_graph *g, *read = NULL;
	knit_diag d = {0};

	g = adapter_model_graph(ctx, &(adapter_model){.mode = ADAPTER_SLOTS, .base = base, .slots = SLOTS}, &d);
	ck_assert_msg(g != NULL, "%s", d.text);
	t = (knit_text){.a = g->a};
	again = t;
	ck_assert_int_eq(knit__print_text(g, &t), KNIT_OK);
	ck_assert_msg(knit__parse_text(ctx, t.data, &read, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__print_text(read, &again), KNIT_OK);
	ck_assert_str_eq(t.data, again.data);
	ck_assert_ptr_nonnull(strstr(t.data, "bytes slots uses=1"));
	uint32_t slots = 0;
	for (uint32_t i = 1; i < read->storage_count; ++i)
		slots += read->storages[i].slots;
	ck_assert_uint_eq(slots, ADAPTER_TENSORS);
	knit__text_clear(&t);
	knit__text_clear(&again);
	knit_graph_destroy(g);
	knit_graph_destroy(read);
	ck_assert_int_ne(knit__parse_text(ctx, "knit-ir 1\ns1 = const \"w\" f32 16 bytes slots\n%1 = const s1 : f32 [1, 2, 2]\n",
	                                  &read, &d),
	                 KNIT_OK);
}
END_TEST

/* Every pass, checked by the reference, on the graph with slots. */
START_TEST(passes_keep_the_meaning) {
	knit_graph *g, *before;
	knit_diag d = {0};
	bool skipped = true;

	g = adapter_model_graph(ctx, &(adapter_model){.mode = ADAPTER_SLOTS, .base = base, .slots = SLOTS}, &d);
	ck_assert_msg(g != NULL, "%s", d.text);
	ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
	ck_assert_msg(knit__passes_run(g, NULL, NULL, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__check_equal(before, g, 4, 1e-9, &skipped, &d) == KNIT_OK, "%s", d.text);
	ck_assert(!skipped);
	knit_graph_destroy(g);
	knit_graph_destroy(before);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {the_builder_checks, text_keeps_slots, passes_keep_the_meaning};

	return suite_run_around("adapter_slots in graphs", setup, teardown, tests, sizeof tests / sizeof *tests);
}
