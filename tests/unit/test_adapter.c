/* Tests adapters bound per session: identity by name, exchange without work, what is refused, lifetimes, threads. Slots
 * are in test_adapter_slots.c. */
#include "../../backends/program.h"
#include "../../graph/pass.h"
#include "../tools/adapter_model.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPT = 5, STEPS = 7, LOGITS = STEPS * ADAPTER_VOCAB };

static const int32_t ids[STEPS] = {1, 17, 40, 3, 3, 21, 9}, zeros[STEPS], rising[STEPS] = {0, 1, 2, 3, 4, 5, 6};

static knit_context *ctx;
static knit_weights *base, *first, *second;

static void open_all(void) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &ctx), KNIT_OK);
	base = adapter_model_base(ctx, KNIT_F32);
	first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	second = adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f);
	ck_assert(base && first && second);
}

static void close_all(void) {
	knit_weights_release(base);
	knit_weights_release(first);
	knit_weights_release(second);
	knit_context_destroy(ctx);
}

static knit_program *compile_with(knit_weights *adapter, const char *disable) {
	const adapter_model m = {.mode = adapter ? ADAPTER_BOUND : ADAPTER_NONE, .base = base, .adapter = adapter};
	knit_diag d = {0};
	knit_program *p = adapter_model_compile(ctx, &m, "cpu", disable, &d);

	ck_assert_msg(p != NULL, "%s", d.text);
	return p;
}

static knit_session *session_of(knit_program *p) {
	knit_session *s = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
	return s;
}

static knit_adapter_set *set_of(knit_program *p, knit_weights *store) {
	knit_adapter_set *a = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_adapter_open(p, store, &a, &d) == KNIT_OK, "%s", d.text);
	return a;
}

static void bind(knit_session *s, knit_adapter_set *a) {
	knit_diag d;
	const knit_status status = knit_session_bind_adapter(s, a);

	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
}

/* A prompt at once, then token by token, in fresh states. */
static void script(knit_session *s, float out[LOGITS]) {
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	ck_assert_int_eq(adapter_model_run(s, PROMPT, ids, zeros, rising, out), KNIT_OK);
	for (int t = PROMPT; t < STEPS; ++t)
		ck_assert_int_eq(adapter_model_run(s, 1, &ids[t], zeros, &rising[t], out + t * ADAPTER_VOCAB), KNIT_OK);
}

static void script_of(knit_weights *adapter, const char *disable, float out[LOGITS]) {
	knit_program *p = compile_with(adapter, disable);
	knit_session *s = session_of(p);

	script(s, out);
	knit_session_destroy(s);
	knit_program_release(p);
}

static double largest_difference(const float *a, const float *b) {
	double most = 0;

	for (int i = 0; i < LOGITS; ++i)
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
	return most;
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

static uint32_t adapter_storages(const knit_graph *g) {
	uint32_t n = 0;

	for (uint32_t i = 1; i < g->storage_count; ++i)
		n += g->storages[i].kind == KNIT_STORAGE_ADAPTER;
	return n;
}

/* Every B of a new adapter is zero: equal bytes, and yet each is another weight, also after every pass. */
START_TEST(equal_bytes_stay_apart) {
	open_all();
	knit_weights *fresh = adapter_model_adapter(ctx, KNIT_F32, 3, 0);
	const adapter_model m = {.mode = ADAPTER_BOUND, .base = base, .adapter = fresh};
	uint32_t changes = 0;
	knit_diag d = {0};
	knit_graph *g = adapter_model_graph(ctx, &m, &d);

	ck_assert_msg(g != NULL, "%s", d.text);
	ck_assert_uint_eq(adapter_storages(g), ADAPTER_TENSORS);
	ck_assert_int_eq(knit__pass_dedup_weights(g, NULL, &changes, &d), KNIT_OK);
	ck_assert_int_eq(knit__passes_run(g, NULL, NULL, &d), KNIT_OK);
	ck_assert_uint_eq(adapter_storages(g), ADAPTER_TENSORS);
	knit_graph_destroy(g);
	knit_weights_release(fresh);
	close_all();
}
END_TEST

/* So a program compiled with zeros takes any adapter. */
START_TEST(a_program_of_zeros_takes_any_adapter) {
	float want[LOGITS], got[LOGITS], plain[LOGITS];

	open_all();
	knit_weights *fresh = adapter_model_adapter(ctx, KNIT_F32, 3, 0);
	script_of(second, NULL, want);
	script_of(NULL, NULL, plain);
	knit_program *p = compile_with(fresh, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, second);
	script(s, got);
	ck_assert_msg(largest_difference(got, plain) == 0, "B = 0 differs from no adapter by %g",
	              largest_difference(got, plain));
	bind(s, a);
	script(s, got);
	ck_assert_msg(memcmp(want, got, sizeof want) == 0, "off by %g", largest_difference(want, got));
	ck_assert(largest_difference(got, plain) > 0.01);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_weights_release(fresh);
	close_all();
}
END_TEST

START_TEST(one_name_of_two_stores_is_refused) {
	knit_graph *g;
	knit_diag d = {0};

	open_all();
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_tensor a = knit_adapter(g, first, "visit.0.q.a"), again = knit_adapter(g, first, "visit.0.q.a");
	ck_assert_uint_eq(a.id, again.id);
	ck_assert_uint_eq(knit_adapter(g, second, "visit.0.q.a").id, 0);
	ck_assert_int_eq(knit_graph_status(g, &d), KNIT_ERR_ARGUMENT);
	ck_assert_msg(strstr(d.text, "visit.0.q.a") != NULL, "%s", d.text);
	knit_graph_destroy(g);
	close_all();
}
END_TEST

/* ---- exchanging -------------------------------------------------------------------------------------------------- */

static void check_idle(const knit_session *s, uint64_t binds) {
	knit_counters c;

	knit_session_counters(s, &c);
	ck_assert_uint_eq(c.binds, binds);
	ck_assert_uint_eq(c.allocations, 0);
	ck_assert_uint_eq(c.buffers, 0);
	ck_assert_uint_eq(c.packs, 0);
	ck_assert_uint_eq(c.uploads, 0);
}

/* Bound, exchanged, taken back: each time the bits of a program compiled with that adapter, in decode and prefill. */
static void exchange(const char *disable) {
	float want[2][LOGITS], got[LOGITS];

	open_all();
	script_of(first, disable, want[0]);
	script_of(second, disable, want[1]);
	ck_assert(largest_difference(want[0], want[1]) > 0.01);
	knit_program *p = compile_with(first, disable);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, first), *b = set_of(p, second);
	knit_adapter_set *const order[] = {NULL, b, a, b, NULL, b, NULL};
	for (size_t i = 0; i < sizeof order / sizeof *order; ++i) {
		bind(s, order[i]);
		script(s, got);
		ck_assert_msg(memcmp(got, want[order[i] == b], sizeof got) == 0, "exchange %zu: off by %g", i,
		              largest_difference(got, want[order[i] == b]));
	}
	/* Half a text with one, half with the other: the states stay. */
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	ck_assert_int_eq(adapter_model_run(s, PROMPT, ids, zeros, rising, got), KNIT_OK);
	bind(s, b);
	ck_assert_int_eq(adapter_model_run(s, 1, &ids[PROMPT], zeros, &rising[PROMPT], got + PROMPT * ADAPTER_VOCAB), KNIT_OK);
	ck_assert_int_eq(memcmp(got, want[0], PROMPT * ADAPTER_VOCAB * sizeof *got), 0);
	ck_assert_int_ne(memcmp(got + PROMPT * ADAPTER_VOCAB, want[1] + PROMPT * ADAPTER_VOCAB, ADAPTER_VOCAB * sizeof *got), 0);
	check_idle(s, 8);
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_session_destroy(s);
	knit_program_release(p);
	close_all();
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
	float out[LOGITS];

	ctx = track_context(&t);
	base = adapter_model_base(ctx, KNIT_F32);
	first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	second = adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f);
	knit_program *p = compile_with(first, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, second);
	script(s, out);
	const uint64_t before = t.count;
	for (int i = 0; i < 10; ++i) {
		bind(s, i % 2 ? NULL : a);
		script(s, out);
	}
	ck_assert_uint_eq(t.count, before);
	check_idle(s, 10);
	/* The counter counts: what opening a second set asks for is seen by the thread's count. */
	const uint64_t asked = knit__alloc_count();
	knit_adapter_set *b = set_of(p, second);
	ck_assert_uint_eq(knit__alloc_count() - asked, t.count - before);
	ck_assert_uint_gt(t.count, before);
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_session_destroy(s);
	knit_program_release(p);
	close_all();
	ck_assert_uint_eq(t.live, 0);
	ck_assert(!t.bad_free);
}
END_TEST

/* The same function by another way: W + s B A computed beforehand, in doubles. */
START_TEST(an_adapter_on_equals_merged_weights) {
	float bound[LOGITS], merged[LOGITS], plain[LOGITS];
	double scale = 0;

	open_all();
	knit_weights *folded = adapter_model_merged(ctx, base, first);
	ck_assert(folded != NULL);
	const adapter_model m = {.mode = ADAPTER_MERGED, .base = base, .adapter = folded};
	knit_diag d = {0};
	knit_program *p = adapter_model_compile(ctx, &m, "cpu", NULL, &d);
	ck_assert_msg(p != NULL, "%s", d.text);
	knit_session *s = session_of(p);
	script(s, merged);
	script_of(first, NULL, bound);
	script_of(NULL, NULL, plain);
	for (int i = 0; i < LOGITS; ++i)
		scale = fmax(scale, fabs((double)merged[i]));
	/* Sums of 64 and 8 products in another order, three visits deep. */
	printf("adapter against merged weights: logits off by %.1e of %.2f; without adapter by %.2f\n",
	       largest_difference(bound, merged), scale, largest_difference(plain, merged));
	ck_assert(largest_difference(bound, merged) <= 2e-5 * scale);
	ck_assert(largest_difference(plain, merged) > 0.01 * scale);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_weights_release(folded);
	close_all();
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

	open_all();
	knit_program *p = compile_with(first, NULL);
	refuse(p, adapter_model_spoiled(ctx, "visit.1.v.b", NULL, NULL), KNIT_ERR_NOT_FOUND,
	       (const char *const[]){"visit.1.v.b", NULL});
	refuse(p, adapter_model_spoiled(ctx, NULL, "visit.2.o.a", NULL), KNIT_ERR_SHAPE,
	       (const char *const[]){"visit.2.o.a", "f32 [9, 64]", "f32 [8, 64]", NULL});
	refuse(p, adapter_model_spoiled(ctx, NULL, NULL, "visit.0.q.b"), KNIT_ERR_SHAPE,
	       (const char *const[]){"visit.0.q.b", "f16 [64, 8]", "f32 [64, 8]", NULL});
	ck_assert_int_eq(knit_adapter_open(NULL, first, &a, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, NULL, &a, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, first, NULL, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_adapter_open(p, first, &a, NULL), KNIT_OK);
	knit_adapter_release(a);
	knit_adapter_release(NULL);
	knit_program_release(p);
	knit_graph *g = adapter_model_graph(ctx, &(adapter_model){.mode = ADAPTER_BOUND, .base = base, .adapter = first}, &d);
	ck_assert_int_eq(knit_compile(g, &(knit_compile_desc){.device = "cpu", .plan_only = true}, &p, &d), KNIT_OK);
	refuse(p, adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f), KNIT_ERR_STATE, (const char *const[]){"plan_only", NULL});
	knit_program_release(p);
	knit_graph_destroy(g);
	p = compile_with(NULL, NULL);
	refuse(p, adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f), KNIT_ERR_ARGUMENT, (const char *const[]){"no adapter", NULL});
	knit_program_release(p);
	close_all();
}
END_TEST

START_TEST(a_set_of_another_program_is_refused) {
	float want[LOGITS], got[LOGITS];
	knit_diag d;

	open_all();
	knit_program *p = compile_with(first, NULL), *other = compile_with(first, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(other, second);
	script(s, want);
	ck_assert_int_eq(knit_session_bind_adapter(s, a), KNIT_ERR_ARGUMENT);
	knit_session_diag(s, &d);
	ck_assert_msg(strstr(d.text, "another program") != NULL, "%s", d.text);
	ck_assert_int_eq(knit_session_bind_adapter(NULL, a), KNIT_ERR_ARGUMENT);
	script(s, got);
	ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
	check_idle(s, 0);
	knit_session_counters(NULL, NULL);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_program_release(other);
	close_all();
}
END_TEST

/* ---- lifetimes --------------------------------------------------------------------------------------------------- */

/* Everything let go of while the session still computes with it. */
START_TEST(a_bound_set_stays_as_long_as_the_session) {
	track_alloc t = {0};
	float want[LOGITS], got[LOGITS];

	ctx = track_context(&t);
	base = adapter_model_base(ctx, KNIT_F32);
	first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	second = adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f);
	script_of(second, NULL, want);
	knit_program *p = compile_with(first, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, second);
	bind(s, a);
	knit_adapter_release(a);
	knit_program_release(p);
	close_all();
	script(s, got);
	ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
	bind(s, NULL); /* the last use of the set goes here */
	script(s, got);
	ck_assert_int_ne(memcmp(want, got, sizeof want), 0);
	knit_session_destroy(s);
	ck_assert_uint_eq(t.live, 0);
	ck_assert(!t.bad_free);
}
END_TEST

/* A set keeps its program. */
START_TEST(a_set_may_go_last) {
	track_alloc t = {0};

	ctx = track_context(&t);
	base = adapter_model_base(ctx, KNIT_F32);
	first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	second = NULL;
	knit_program *p = compile_with(first, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, first);
	bind(s, a);
	knit_session_destroy(s);
	knit_program_release(p);
	close_all();
	ck_assert_uint_gt(t.live, 0);
	knit_adapter_release(a);
	ck_assert_uint_eq(t.live, 0);
}
END_TEST

/* Every allocation of open fails in turn. */
START_TEST(opening_out_of_memory) {
	knit_status status = KNIT_ERR_MEMORY;
	uint64_t tried = 0;

	for (uint64_t n = 1; status != KNIT_OK; ++n) {
		track_alloc t = {0};
		knit_adapter_set *a = NULL;
		knit_diag d = {0};

		ctx = track_context(&t);
		base = adapter_model_base(ctx, KNIT_F32);
		first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
		second = adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f);
		knit_program *p = compile_with(first, NULL);
		knit_session *s = session_of(p);
		const uint64_t live = t.live;
		t.fail_at = t.count + n;
		status = knit_adapter_open(p, second, &a, &d);
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "allocation %llu: %s", (unsigned long long)n, d.text);
		ck_assert(!a == (status != KNIT_OK));
		/* The list of weights may have grown, which stays. */
		ck_assert_msg(status == KNIT_OK || t.live <= live + 4096, "%llu bytes left", (unsigned long long)(t.live - live));
		if (a)
			ck_assert_int_eq(knit_session_bind_adapter(s, a), KNIT_OK);
		knit_adapter_release(a);
		knit_session_destroy(s);
		knit_program_release(p);
		close_all();
		ck_assert_uint_eq(t.live, 0);
		ck_assert(!t.bad_free);
		tried = n;
	}
	ck_assert_uint_gt(tried, ADAPTER_TENSORS);
}
END_TEST

/* ---- several sessions -------------------------------------------------------------------------------------------- */

typedef struct worker {
	knit_session *session;
	knit_adapter_set *sets[2];
	const float *want[2]; /* of sets[0] and sets[1] */
	int faults;
} worker;

static void *work(void *arg) {
	worker *const w = arg;
	float got[LOGITS];

	for (int round = 0; round < 6; ++round) {
		const int which = round % 2;

		w->faults += knit_session_bind_adapter(w->session, w->sets[which]) != KNIT_OK;
		script(w->session, got);
		w->faults += memcmp(got, w->want[which], sizeof got) != 0;
	}
	return NULL;
}

/* One program, two sessions in two threads, each with the adapter that the other has not; sets are shared. */
static void two_sessions(void) {
	float want[2][LOGITS];
	pthread_t threads[2];

	open_all();
	script_of(first, NULL, want[0]);
	script_of(second, NULL, want[1]);
	knit_program *p = compile_with(first, NULL);
	knit_adapter_set *a = set_of(p, first), *b = set_of(p, second);
	worker w[2] = {{session_of(p), {a, b}, {want[0], want[1]}, 0}, {session_of(p), {b, NULL}, {want[1], want[0]}, 0}};
	for (int i = 0; i < 2; ++i)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &w[i]), 0);
	for (int i = 0; i < 4; ++i) /* meanwhile */
		knit_adapter_release(set_of(p, i % 2 ? first : second));
	for (int i = 0; i < 2; ++i)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; ++i) {
		ck_assert_int_eq(w[i].faults, 0);
		check_idle(w[i].session, 6);
		knit_session_destroy(w[i].session);
	}
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_program_release(p);
	close_all();
}

START_TEST(two_sessions_with_different_adapters) { two_sessions(); }
END_TEST

/* The guard takes a lock at every call, behind which a race could hide. */
START_TEST(two_sessions_without_the_guard) {
	setenv("KNIT_GUARD", "0", 1);
	two_sessions();
	unsetenv("KNIT_GUARD");
}
END_TEST

/* ---- time -------------------------------------------------------------------------------------------------------- */

static double now_us(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* A figure to look at; the bound is for machines that are busy, and sanitizers. */
START_TEST(binding_takes_microseconds) {
	double best = 1e9;

	setenv("KNIT_GUARD", "0", 1);
	open_all();
	knit_program *p = compile_with(first, NULL);
	knit_session *s = session_of(p);
	knit_adapter_set *a = set_of(p, second);
	for (int i = 0; i < 200; ++i) {
		const double start = now_us();

		bind(s, i % 2 ? NULL : a);
		best = fmin(best, now_us() - start);
	}
	printf("binding %d weights in 2 buckets: %.2f us\n", ADAPTER_TENSORS, best);
	ck_assert(best < 1000);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	close_all();
	unsetenv("KNIT_GUARD");
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
		a_bound_set_stays_as_long_as_the_session,
		a_set_may_go_last,
		opening_out_of_memory,
		two_sessions_with_different_adapters,
		two_sessions_without_the_guard,
		binding_takes_microseconds,
	};

	return suite_run("adapter", tests, sizeof tests / sizeof *tests);
}
