/* Tests sessions on the CPU: prefill against decode and the reference, reset, threads, allocation, times. */
#include "../../backends/program.h"
#include "../../graph/interp.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static knit_weights *weights;
static knit_graph *graph;
static knit_program *program;
static knit_session *session;
static atomic_long allocations;

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 3, SMALL_TOKENS}};
static const int32_t ids[SMALL_TOKENS] = {1, 5, 9, 23, 0, 7, 7, 2}, zeros[SMALL_TOKENS];
static const int32_t rising[SMALL_TOKENS] = {0, 1, 2, 3, 4, 5, 6, 7};

static void *counting_alloc(void *user, size_t size, size_t align) {
	(void)user;
	atomic_fetch_add(&allocations, 1);
	return knit__default_allocator.alloc(NULL, size, align);
}

static void counting_free(void *user, void *ptr, size_t size) {
	(void)user;
	knit__default_allocator.free(NULL, ptr, size);
}

static void open_on(const char *device) {
	const knit_context_desc desc = {.allocator = {counting_alloc, counting_free, NULL}, .cpu_threads = 2};
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(&desc, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
	ck_assert_msg(knit_compile(graph, &(knit_compile_desc){.device = device, .buckets = decode_prefill, .bucket_count = 2},
	                           &program, &d) == KNIT_OK,
	              "%s", d.text);
	ck_assert_msg(knit_session_create(program, &session, &d) == KNIT_OK, "%s", d.text);
}

static void setup_cpu(void) { open_on("cpu"); }

/* The steps of a small model are too short to be split: here every one is. */
static void setup_split(void) {
	setenv("KNIT_CPU_SPLIT_NS", "0", 1);
	open_on("cpu");
}

static void teardown(void) {
	knit_session_destroy(session);
	knit_program_release(program);
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	knit_context_destroy(ctx);
}

static void ok(knit_status got) {
	knit_diag d;

	knit_session_diag(session, &d);
	ck_assert_msg(got == KNIT_OK, "%s: %s", knit_status_name(got), d.text);
}

static void run_logits(knit_session *s, size_t tokens, const int32_t *what, const int32_t *seq, const int32_t *pos,
                       float *out) {
	ck_assert_int_eq(knit_session_set(s, "tokens", (int64_t)tokens), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "ids", what, tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "seq", seq, tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "pos", pos, tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_run(s), KNIT_OK);
	ck_assert_int_eq(knit_session_read(s, "logits", out, tokens * SMALL_VOCAB * sizeof(float)), KNIT_OK);
}

static void same(const float *a, const float *b, size_t rows) {
	for (size_t i = 0; i < rows * SMALL_VOCAB; ++i)
		ck_assert_msg(a[i] - b[i] < 1e-5f && b[i] - a[i] < 1e-5f, "logit %zu: %g and %g", i, (double)a[i], (double)b[i]);
}

/* Seven tokens at once, and the same seven one by one: decode and prefill share weights and states. */
START_TEST(prefill_equals_decode) {
	float whole[SMALL_TOKENS * SMALL_VOCAB], one[SMALL_VOCAB];

	run_logits(session, 7, ids, zeros, rising, whole);
	ok(knit_session_reset_states(session));
	for (int32_t t = 0; t < 7; ++t) {
		run_logits(session, 1, &ids[t], zeros, &t, one);
		same(one, whole + (size_t)t * SMALL_VOCAB, 1);
	}
}
END_TEST

/* The whole way from builder to logits against the double-precision reference, over several runs. */
START_TEST(logits_equal_the_reference) {
	static const int32_t seq[3][SMALL_TOKENS] = {{0, 0, 0, 0, 0}, {1, 2, 1, 2}, {0}};
	static const int32_t pos[3][SMALL_TOKENS] = {{0, 1, 2, 3, 4}, {0, 0, 1, 1}, {5}};
	static const size_t tokens[3] = {5, 4, 1};
	float got[SMALL_TOKENS * SMALL_VOCAB];
	const knit_array *want;
	knit_interp *it;
	knit_diag d = {0};

	ck_assert_msg(knit__interp_create(graph, 0, &it, &d) == KNIT_OK, "%s", d.text);
	for (int run = 0; run < 3; ++run) {
		const int32_t *const data[3] = {ids, seq[run], pos[run]};
		const char *const names[3] = {"ids", "seq", "pos"};
		run_logits(session, tokens[run], ids, seq[run], pos[run], got);
		ck_assert_int_eq(knit__interp_set_symbol(it, "tokens", (int64_t)tokens[run]), KNIT_OK);
		for (int i = 0; i < 3; ++i) {
			double values[SMALL_TOKENS];
			for (size_t t = 0; t < tokens[run]; ++t)
				values[t] = data[i][t];
			ck_assert_int_eq(knit__interp_write(it, names[i], values, tokens[run]), KNIT_OK);
		}
		ck_assert_msg(knit__interp_run(it, &d) == KNIT_OK, "%s", d.text);
		ck_assert_int_eq(knit__interp_output(it, "logits", &want), KNIT_OK);
		ck_assert_int_eq(knit__array_count(want), (int64_t)tokens[run] * SMALL_VOCAB);
		for (size_t i = 0; i < tokens[run] * SMALL_VOCAB; ++i)
			ck_assert_msg(got[i] - want->data[i] < 1e-5 && want->data[i] - got[i] < 1e-5, "run %d, logit %zu: %g, not %g",
			              run, i, (double)got[i], want->data[i]);
	}
	knit__interp_destroy(it);
}
END_TEST

START_TEST(reset_forgets) {
	const int32_t third = 2;
	float first[SMALL_VOCAB], later[SMALL_VOCAB], again[SMALL_VOCAB];
	float prompt[SMALL_TOKENS * SMALL_VOCAB];

	run_logits(session, 1, ids, zeros, &third, first); /* sees zeros at positions 0 and 1 */
	ok(knit_session_reset_states(session));
	run_logits(session, 4, ids, zeros, rising, prompt);
	run_logits(session, 1, ids, zeros, &third, later);
	ok(knit_session_reset_states(session));
	run_logits(session, 1, ids, zeros, &third, again);
	same(first, again, 1);
	ck_assert_int_ne(memcmp(first, later, sizeof first), 0);
}
END_TEST

START_TEST(a_run_allocates_nothing) {
	float out[SMALL_TOKENS * SMALL_VOCAB];

	run_logits(session, 1, ids, zeros, zeros, out);
	const long before = atomic_load(&allocations);
	for (int32_t t = 1; t < 8; ++t)
		run_logits(session, 1, &ids[t], zeros, &t, out);
	run_logits(session, 8, ids, (const int32_t[]){2, 1, 0, 2, 1, 0, 2, 1}, (const int32_t[]){9, 8, 7, 6, 5, 4, 3, 2}, out);
	ok(knit_session_reset_states(session));
	ck_assert_int_eq(atomic_load(&allocations), before);
}
END_TEST

START_TEST(thread_count_changes_nothing) {
	float want[SMALL_TOKENS * SMALL_VOCAB], got[SMALL_TOKENS * SMALL_VOCAB];

	run_logits(session, 8, ids, zeros, rising, want);
	for (uint32_t threads = 1; threads <= 5; threads += 2) {
		knit_context *other;
		knit_weights *w;
		knit_graph *g;
		knit_program *p;
		knit_session *s;
		ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = threads}, &other), KNIT_OK);
		ck_assert_int_eq(small_model_weights(other, &w), KNIT_OK);
		ck_assert_int_eq(small_model_graph(other, w, &g), KNIT_OK);
		ck_assert_int_eq(knit_compile(g, &(knit_compile_desc){.device = "cpu"}, &p, NULL), KNIT_OK);
		ck_assert_int_eq(knit_session_create(p, &s, NULL), KNIT_OK);
		run_logits(s, 8, ids, zeros, rising, got);
		ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
		knit_session_destroy(s);
		knit_program_release(p);
		knit_graph_destroy(g);
		knit_weights_release(w);
		knit_context_destroy(other);
	}
}
END_TEST

typedef struct runner {
	const float *want;
	int32_t shift;
	int faults;
} runner;

static void *runner_main(void *arg) {
	runner *const r = arg;
	float got[SMALL_VOCAB];
	knit_session *s;

	if (knit_session_create(program, &s, NULL) != KNIT_OK) {
		r->faults = 1000;
		return NULL;
	}
	for (int round = 0; round < 20; ++round) {
		for (int32_t t = 0; t < SMALL_TOKENS; ++t) {
			const int32_t seq = r->shift;
			r->faults += knit_session_set(s, "tokens", 1) != KNIT_OK;
			r->faults += knit_session_write(s, "ids", &ids[t], 4) != KNIT_OK;
			r->faults += knit_session_write(s, "seq", &seq, 4) != KNIT_OK;
			r->faults += knit_session_write(s, "pos", &t, 4) != KNIT_OK;
			r->faults += knit_session_run(s) != KNIT_OK;
			r->faults += knit_session_read(s, "logits", got, sizeof got) != KNIT_OK;
			r->faults += memcmp(got, r->want + (size_t)t * SMALL_VOCAB, sizeof got) != 0;
		}
		r->faults += knit_session_reset_states(s) != KNIT_OK;
	}
	knit_session_destroy(s);
	return NULL;
}

/* Sessions of one program share weights and the pool, and nothing else. */
START_TEST(two_sessions_in_two_threads) {
	float want[SMALL_TOKENS * SMALL_VOCAB];
	pthread_t threads[3];
	runner runners[3];

	for (int32_t t = 0; t < SMALL_TOKENS; ++t)
		run_logits(session, 1, &ids[t], zeros, &t, want + (size_t)t * SMALL_VOCAB);
	for (int i = 0; i < 3; ++i) {
		runners[i] = (runner){.want = want, .shift = i};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, runner_main, &runners[i]), 0);
	}
	for (int i = 0; i < 3; ++i)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 3; ++i)
		ck_assert_int_eq(runners[i].faults, 0);
}
END_TEST

START_TEST(times_when_asked) {
	static knit_step_time times[256];
	float out[SMALL_VOCAB];

	run_logits(session, 1, ids, zeros, zeros, out);
	ck_assert_uint_eq(knit__session_times(session, times, 256), 0);
	teardown();
	setenv("KNIT_TIMES", "1", 1);
	open_on("cpu");
	unsetenv("KNIT_TIMES");
	ck_assert_uint_eq(knit__session_times(session, times, 256), 0);
	run_logits(session, 1, ids, zeros, zeros, out);
	const size_t n = knit__session_times(session, times, 256);
	ck_assert_uint_eq(n, knit_program_step_count(program, 0));
	ck_assert_uint_gt(times[0].ns, 0);
	ck_assert_uint_eq(times[n - 1].step, n - 1);
}
END_TEST

/* ---- a graph that is no language model --------------------------------------------------------------------------- */

START_TEST(two_symbols_and_an_unused_input) {
	knit_program *p;
	knit_graph *g;
	float x[12], y[12];

	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim dims[] = {knit_sym(g, "rows", 0, 3), knit_sym(g, "columns", 1, 4)}, one = knit_n(2);
	const knit_tensor in = knit_input(g, "x", KNIT_F32, 2, dims);
	knit_input(g, "unused", KNIT_F32, 1, &one);
	knit_output(g, "y", knit_scale(g, in, 3.0f));
	knit_output(g, "x_again", in);
	knit_diag d = {0};
	ck_assert_msg(knit_compile(g, NULL, &p, &d) == KNIT_OK, "%s", d.text);
	knit_graph_destroy(g);
	knit_session_destroy(session);
	ck_assert_msg(knit_session_create(p, &session, &d) == KNIT_OK, "%s", d.text);
	for (int i = 0; i < 12; ++i)
		x[i] = (float)i - 5.5f;
	for (int64_t rows = 0; rows <= 3; ++rows) {
		for (int64_t columns = 1; columns <= 4; ++columns) {
			const size_t count = (size_t)(rows * columns), bytes = count * sizeof(float);
			ok(knit_session_set(session, "rows", rows));
			ok(knit_session_set(session, "columns", columns));
			ok(knit_session_write(session, "x", bytes ? x : NULL, bytes));
			ok(knit_session_write(session, "unused", x, 8));
			ok(knit_session_run(session));
			ok(knit_session_read(session, "y", bytes ? y : NULL, bytes));
			for (size_t i = 0; i < count; ++i)
				ck_assert(y[i] == 3.0f * x[i]);
			ok(knit_session_read(session, "x_again", bytes ? y : NULL, bytes));
			for (size_t i = 0; i < count; ++i)
				ck_assert(y[i] == x[i]);
		}
	}
	knit_program_release(p);
}
END_TEST

int main(void) {
	Suite *s = suite_create("session_cpu");
	TCase *c = tcase_create("cpu"), *p = tcase_create("cpu, split");

	tcase_add_checked_fixture(c, setup_cpu, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, prefill_equals_decode);
	tcase_add_test(c, logits_equal_the_reference);
	tcase_add_test(c, reset_forgets);
	tcase_add_test(c, a_run_allocates_nothing);
	tcase_add_test(c, thread_count_changes_nothing);
	tcase_add_test(c, two_sessions_in_two_threads);
	tcase_add_test(c, times_when_asked);
	tcase_add_test(c, two_symbols_and_an_unused_input);
	tcase_add_checked_fixture(p, setup_split, teardown);
	tcase_set_timeout(p, 60);
	tcase_add_test(p, prefill_equals_decode);
	tcase_add_test(p, logits_equal_the_reference);
	tcase_add_test(p, a_run_allocates_nothing);
	tcase_add_test(p, thread_count_changes_nothing);
	tcase_add_test(p, two_sessions_in_two_threads);
	suite_add_tcase(s, c);
	suite_add_tcase(s, p);
	return suite_finish(s, CK_FORK);
}
