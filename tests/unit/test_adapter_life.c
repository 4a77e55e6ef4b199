/* Tests how long sets of adapters live, sessions in several threads with different ones, and that binding is quick. */
#include "../tools/adapter_world.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static adapter_world w;

/* ---- lifetimes --------------------------------------------------------------------------------------------------- */

/* Everything let go of while the session still computes with it. */
START_TEST(a_bound_set_stays_as_long_as_the_session) {
	track_alloc t = {0};
	float want[ADAPTER_LOGITS], got[ADAPTER_LOGITS];

	adapter_world_fill(&w, track_context(&t));
	adapter_script_of(&w, w.second, NULL, want);
	knit_program *p = adapter_compile(&w, w.first, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.second);
	adapter_bind(s, a);
	knit_adapter_release(a);
	knit_program_release(p);
	adapter_world_close(&w);
	adapter_script(s, got);
	ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
	adapter_bind(s, NULL); /* the last use of the set goes here */
	adapter_script(s, got);
	ck_assert_int_ne(memcmp(want, got, sizeof want), 0);
	knit_session_destroy(s);
	ck_assert_uint_eq(t.live, 0);
	ck_assert(!t.bad_free);
}
END_TEST

/* A set keeps its program. */
START_TEST(a_set_may_go_last) {
	track_alloc t = {0};

	adapter_world_fill(&w, track_context(&t));
	knit_program *p = adapter_compile(&w, w.first, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.first);
	adapter_bind(s, a);
	knit_session_destroy(s);
	knit_program_release(p);
	adapter_world_close(&w);
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

		adapter_world_fill(&w, track_context(&t));
		knit_program *p = adapter_compile(&w, w.first, NULL);
		knit_session *s = adapter_session(p);
		const uint64_t live = t.live;
		t.fail_at = t.count + n;
		status = knit_adapter_open(p, w.second, &a, &d);
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "allocation %llu: %s", (unsigned long long)n, d.text);
		ck_assert(!a == (status != KNIT_OK));
		/* The list of weights may have grown, which stays. */
		ck_assert_msg(status == KNIT_OK || t.live <= live + 4096, "%llu bytes left", (unsigned long long)(t.live - live));
		if (a)
			ck_assert_int_eq(knit_session_bind_adapter(s, a), KNIT_OK);
		knit_adapter_release(a);
		knit_session_destroy(s);
		knit_program_release(p);
		adapter_world_close(&w);
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
	worker *const job = arg;
	float got[ADAPTER_LOGITS];

	for (int round = 0; round < 6; ++round) {
		const int which = round % 2;

		job->faults += knit_session_bind_adapter(job->session, job->sets[which]) != KNIT_OK;
		adapter_script(job->session, got);
		job->faults += memcmp(got, job->want[which], sizeof got) != 0;
	}
	return NULL;
}

/* One program, two sessions in two threads, each with the adapter that the other has not; sets are shared. */
static void two_sessions(void) {
	float want[2][ADAPTER_LOGITS];
	pthread_t threads[2];

	adapter_world_open(&w);
	adapter_script_of(&w, w.first, NULL, want[0]);
	adapter_script_of(&w, w.second, NULL, want[1]);
	knit_program *p = adapter_compile(&w, w.first, NULL);
	knit_adapter_set *a = adapter_set(p, w.first), *b = adapter_set(p, w.second);
	worker job[2] = {{adapter_session(p), {a, b}, {want[0], want[1]}, 0}, {adapter_session(p), {b, NULL}, {want[1], want[0]}, 0}};
	for (int i = 0; i < 2; ++i)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &job[i]), 0);
	for (int i = 0; i < 4; ++i) /* meanwhile */
		knit_adapter_release(adapter_set(p, i % 2 ? w.first : w.second));
	for (int i = 0; i < 2; ++i)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; ++i) {
		ck_assert_int_eq(job[i].faults, 0);
		adapter_check_idle(job[i].session, 6);
		knit_session_destroy(job[i].session);
	}
	knit_adapter_release(a);
	knit_adapter_release(b);
	knit_program_release(p);
	adapter_world_close(&w);
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
	adapter_world_open(&w);
	knit_program *p = adapter_compile(&w, w.first, NULL);
	knit_session *s = adapter_session(p);
	knit_adapter_set *a = adapter_set(p, w.second);
	for (int i = 0; i < 200; ++i) {
		const double start = now_us();

		adapter_bind(s, i % 2 ? NULL : a);
		best = fmin(best, now_us() - start);
	}
	printf("binding %d weights in 2 buckets: %.2f us\n", ADAPTER_TENSORS, best);
	ck_assert(best < 1000);
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	adapter_world_close(&w);
	unsetenv("KNIT_GUARD");
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		a_bound_set_stays_as_long_as_the_session,
		a_set_may_go_last,
		opening_out_of_memory,
		two_sessions_with_different_adapters,
		two_sessions_without_the_guard,
		binding_takes_microseconds,
	};

	return suite_run("adapter life", tests, sizeof tests / sizeof *tests);
}
