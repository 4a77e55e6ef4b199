/* Tests adapters bound per session: identity by name, exchange without work, what is refused. Lifetimes and threads are in
 * test_adapter_life.c, slots in test_adapter_slots.c. */
#include "../../backends/program.h"
#include "../../graph/pass.h"
#include "../tools/adapter_world.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static adapter_world w;

/* ---- identity ---------------------------------------------------------------------------------------------------- */

static uint32_t adapter_storages(const knit_graph *g) {
	uint32_t n = 0;

	for (uint32_t i = 1; i < g->storage_count; ++i)
		n += g->storages[i].kind == KNIT_STORAGE_ADAPTER;
	return n;
}

/* Every B of a new adapter is zero: equal bytes, and yet each is another weight, also after every pass. */
START_TEST(equal_bytes_stay_apart) {
	adapter_world_open(&w);
	knit_weights *fresh = adapter_model_adapter(w.ctx, KNIT_F32, 3, 0);
	const adapter_model m = {.mode = ADAPTER_BOUND, .base = w.base, .adapter = fresh};
	uint32_t changes = 0;
	knit_diag d = {0};
	knit_graph *g = adapter_model_graph(w.ctx, &m, &d);

	ck_assert_msg(g != NULL, "%s", d.text);
	ck_assert_uint_eq(adapter_storages(g), ADAPTER_TENSORS);
	ck_assert_int_eq(knit__pass_dedup_weights(g, NULL, &changes, &d), KNIT_OK);
	ck_assert_int_eq(knit__passes_run(g, NULL, NULL, &d), KNIT_OK);
	ck_assert_uint_eq(adapter_storages(g), ADAPTER_TENSORS);
	knit_graph_destroy(g);
	knit_weights_release(fresh);
	adapter_world_close(&w);
}
END_TEST

/* So a program compiled with zeros takes any adapter. */
START_TEST(a_program_of_zeros_takes_any_adapter) {
	float want[ADAPTER_LOGITS], got[ADAPTER_LOGITS], plain[ADAPTER_LOGITS];

	adapter_world_open(&w);
	knit_weights *fresh = adapter_model_adapter(w.ctx, KNIT_F32, 3, 0);
	adapter_script_of(&w, w.second, NULL, want);
	adapter_script_of(&w, NULL, NULL, plain);
	knit_program *p = adapter_compile(&w, fresh, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.second);
	adapter_script(s, got);
	ck_assert_msg(test_largest_difference(got, plain, ADAPTER_LOGITS) == 0, "B = 0 differs from no adapter by %g",
	              test_largest_difference(got, plain, ADAPTER_LOGITS));
	adapter_bind(s, a);
	adapter_script(s, got);
	ck_assert_msg(memcmp(want, got, sizeof want) == 0, "off by %g", test_largest_difference(want, got, ADAPTER_LOGITS));
	ck_assert(test_largest_difference(got, plain, ADAPTER_LOGITS) > 0.01);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_weights_release(fresh);
	adapter_world_close(&w);
}
END_TEST

START_TEST(one_name_of_two_stores_is_refused) {
	knit_graph *g;
	knit_diag d = {0};

	adapter_world_open(&w);
	ck_assert_int_eq(knit_graph_create(w.ctx, &g), KNIT_OK);
	const knit_tensor a = knit_adapter(g, w.first, "visit.0.q.a"), again = knit_adapter(g, w.first, "visit.0.q.a");
	ck_assert_uint_eq(a.id, again.id);
	ck_assert_uint_eq(knit_adapter(g, w.second, "visit.0.q.a").id, 0);
	ck_assert_int_eq(knit_graph_status(g, &d), KNIT_ERR_ARGUMENT);
	ck_assert_msg(strstr(d.text, "visit.0.q.a") != NULL, "%s", d.text);
	knit_graph_destroy(g);
	adapter_world_close(&w);
}
END_TEST

/* ---- exchanging -------------------------------------------------------------------------------------------------- */

/* Bound, exchanged, taken back: each time the bits of a program compiled with that adapter, in decode and prefill. */
static void exchange(const char *disable) {
	float want[2][ADAPTER_LOGITS], got[ADAPTER_LOGITS];

	adapter_world_open(&w);
	adapter_script_of(&w, w.first, disable, want[0]);
	adapter_script_of(&w, w.second, disable, want[1]);
	ck_assert(test_largest_difference(want[0], want[1], ADAPTER_LOGITS) > 0.01);
	knit_program *p = adapter_compile(&w, w.first, disable);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.first), *b = adapter_set(p, w.second);
	knit_adapter_set *const order[] = {NULL, b, a, b, NULL, b, NULL};
	for (size_t i = 0; i < sizeof order / sizeof *order; ++i) {
		adapter_bind(s, order[i]);
		adapter_script(s, got);
		ck_assert_msg(memcmp(got, want[order[i] == b], sizeof got) == 0, "exchange %zu: off by %g", i,
		              test_largest_difference(got, want[order[i] == b], ADAPTER_LOGITS));
	}
	/* Half a text with one, half with the other: the states stay. */
	const size_t first = ADAPTER_PROMPT * ADAPTER_VOCAB; /* logit behind the prompt */
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	ck_assert_int_eq(adapter_model_run(s, ADAPTER_PROMPT, adapter_ids, adapter_zeros, adapter_rising, got), KNIT_OK);
	adapter_bind(s, b);
	ck_assert_int_eq(adapter_model_run(s, 1, &adapter_ids[ADAPTER_PROMPT], adapter_zeros, &adapter_rising[ADAPTER_PROMPT],
	                                   got + first),
	                 KNIT_OK);
	ck_assert_int_eq(memcmp(got, want[0], first * sizeof *got), 0);
	ck_assert_int_ne(memcmp(got + first, want[1] + first, ADAPTER_VOCAB * sizeof *got), 0);
	adapter_check_idle(s, 8);
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_session_destroy(s);
	knit_program_release(p);
	adapter_world_close(&w);
}

START_TEST(exchange_equals_compiling) { exchange(NULL); }
END_TEST

START_TEST(exchange_equals_compiling_without_the_guard) {
	setenv("KNIT_GUARD", "0", 1);
	exchange(NULL);
	unsetenv("KNIT_GUARD");
}
END_TEST

/* An allocator that counts, under everything: binding and running ask it for nothing. */
START_TEST(binding_allocates_nothing) {
	track_alloc t = {0};
	float out[ADAPTER_LOGITS];

	adapter_world_fill(&w, track_context(&t));
	knit_program *p = adapter_compile(&w, w.first, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.second);
	adapter_script(s, out);
	const uint64_t before = t.count;
	for (int i = 0; i < 10; ++i) {
		adapter_bind(s, i % 2 ? NULL : a);
		adapter_script(s, out);
	}
	ck_assert_uint_eq(t.count, before);
	adapter_check_idle(s, 10);
	/* The counter counts: what opening a second set asks for is seen by the thread's count. */
	const uint64_t asked = knit__alloc_count();
	knit_adapter_set *b = adapter_set(p, w.second);
	ck_assert_uint_eq(knit__alloc_count() - asked, t.count - before);
	ck_assert_uint_gt(t.count, before);
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_session_destroy(s);
	knit_program_release(p);
	adapter_world_close(&w);
	ck_assert_uint_eq(t.live, 0);
	ck_assert(!t.bad_free);
}
END_TEST

/* The same function by another way: W + s B A computed beforehand, in doubles. */
START_TEST(an_adapter_on_equals_merged_weights) {
	float bound[ADAPTER_LOGITS], merged[ADAPTER_LOGITS], plain[ADAPTER_LOGITS];
	double scale = 0;

	adapter_world_open(&w);
	knit_weights *folded = adapter_model_merged(w.ctx, w.base, w.first);
	ck_assert(folded != NULL);
	const adapter_model m = {.mode = ADAPTER_MERGED, .base = w.base, .adapter = folded};
	knit_diag d = {0};
	knit_program *p = adapter_model_compile(w.ctx, &m, "cpu", NULL, &d);
	ck_assert_msg(p != NULL, "%s", d.text);
	knit_session *s = adapter_session(p);
	adapter_script(s, merged);
	adapter_script_of(&w, w.first, NULL, bound);
	adapter_script_of(&w, NULL, NULL, plain);
	for (int i = 0; i < ADAPTER_LOGITS; ++i)
		scale = fmax(scale, fabs((double)merged[i]));
	/* Sums of 64 and 8 products in another order, three visits deep. */
	printf("adapter against merged weights: logits off by %.1e of %.2f; without adapter by %.2f\n",
	       test_largest_difference(bound, merged, ADAPTER_LOGITS), scale, test_largest_difference(plain, merged, ADAPTER_LOGITS));
	ck_assert(test_largest_difference(bound, merged, ADAPTER_LOGITS) <= 2e-5 * scale);
	ck_assert(test_largest_difference(plain, merged, ADAPTER_LOGITS) > 0.01 * scale);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_weights_release(folded);
	adapter_world_close(&w);
}
END_TEST

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refuse(knit_program *p, knit_weights *store, knit_status status, const char *const *parts) {
	knit_adapter_set *a = (knit_adapter_set *)&status;
	knit_diag d = {0};

	ck_assert_int_eq(knit_adapter_open(p, store, &a, &d), status);
	ck_assert_ptr_null(a);
	ck_assert_int_eq(d.status, status);
	for (; *parts; ++parts)
		ck_assert_msg(strstr(d.text, *parts) != NULL, "\"%s\" does not say \"%s\"", d.text, *parts);
	knit_weights_release(store);
}

START_TEST(wrong_adapters_are_refused) {
	knit_adapter_set *a = NULL;
	knit_diag d = {0};

	adapter_world_open(&w);
	knit_program *p = adapter_compile(&w, w.first, NULL);
	refuse(p, adapter_model_spoiled(w.ctx, "visit.1.v.b", NULL, NULL), KNIT_ERR_NOT_FOUND,
	       (const char *const[]){"visit.1.v.b", NULL});
	refuse(p, adapter_model_spoiled(w.ctx, NULL, "visit.2.o.a", NULL), KNIT_ERR_SHAPE,
	       (const char *const[]){"visit.2.o.a", "f32 [9, 64]", "f32 [8, 64]", NULL});
	refuse(p, adapter_model_spoiled(w.ctx, NULL, NULL, "visit.0.q.b"), KNIT_ERR_SHAPE,
	       (const char *const[]){"visit.0.q.b", "f16 [64, 8]", "f32 [64, 8]", NULL});
	ck_assert_int_eq(knit_adapter_open(NULL, w.first, &a, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, NULL, &a, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, w.first, NULL, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, w.first, &a, NULL), KNIT_OK);
	knit_adapter_release(a);
	knit_adapter_release(NULL);
	knit_program_release(p);
	knit_graph *g = adapter_model_graph(w.ctx, &(adapter_model){.mode = ADAPTER_BOUND, .base = w.base, .adapter = w.first}, &d);
	ck_assert_int_eq(knit_compile(g, &(knit_compile_desc){.device = "cpu", .plan_only = true}, &p, &d), KNIT_OK);
	refuse(p, adapter_model_adapter(w.ctx, KNIT_F32, 1, 0.25f), KNIT_ERR_STATE, (const char *const[]){"plan_only", NULL});
	knit_program_release(p);
	knit_graph_destroy(g);
	p = adapter_compile(&w, NULL, NULL);
	refuse(p, adapter_model_adapter(w.ctx, KNIT_F32, 1, 0.25f), KNIT_ERR_ARGUMENT, (const char *const[]){"no adapter", NULL});
	knit_program_release(p);
	adapter_world_close(&w);
}
END_TEST

START_TEST(a_set_of_another_program_is_refused) {
	float want[ADAPTER_LOGITS], got[ADAPTER_LOGITS];
	knit_diag d;

	adapter_world_open(&w);
	knit_program *p = adapter_compile(&w, w.first, NULL), *other = adapter_compile(&w, w.first, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(other, w.second);
	adapter_script(s, want);
	ck_assert_int_eq(knit_session_bind_adapter(s, a), KNIT_ERR_ARGUMENT);
	knit_session_diag(s, &d);
	ck_assert_msg(strstr(d.text, "another program") != NULL, "%s", d.text);
	ck_assert_int_eq(knit_session_bind_adapter(NULL, a), KNIT_ERR_ARGUMENT);
	adapter_script(s, got);
	ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
	adapter_check_idle(s, 0);
	knit_session_counters(NULL, NULL);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_program_release(other);
	adapter_world_close(&w);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		equal_bytes_stay_apart,
		a_program_of_zeros_takes_any_adapter,
		one_name_of_two_stores_is_refused,
		exchange_equals_compiling,
		exchange_equals_compiling_without_the_guard,
		binding_allocates_nothing,
		an_adapter_on_equals_merged_weights,
		wrong_adapters_are_refused,
		a_set_of_another_program_is_refused,
	};

	return suite_run("adapter", tests, sizeof tests / sizeof *tests);
}
