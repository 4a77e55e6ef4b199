/* Tests the CPU's thread pool: every unit once, phases in order, several callers, more threads than cores, sleeping.
 * Meant to run under TSan as well: the arrays below are plain memory on purpose. */
#include "../../backends/cpu/cpu_pool.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_UNITS 5000

static const knit_allocator *const heap = &knit__default_allocator;

static knit_pool *make(uint32_t threads) {
	knit_diag d = {0};
	knit_pool *p;

	ck_assert_msg(knit__pool_create(heap, threads, &p, &d) == KNIT_OK, "%s", d.text);
	knit__pool_split_always(p);
	return p;
}

/* Phase i adds one to each of its cells, and checks that the phase before is done everywhere. */
typedef struct counting {
	int64_t units[KNIT_POOL_PHASES];
	unsigned char cells[KNIT_POOL_PHASES][MAX_UNITS];
	uint32_t threads;
	atomic_int faults;
} counting;

static void count_units(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	counting *const c = arg;

	if (thread >= c->threads || begin >= end || begin < 0 || end > c->units[phase])
		atomic_fetch_add(&c->faults, 1);
	for (uint32_t before = 0; before < phase; ++before) {
		for (int64_t i = 0; i < c->units[before]; i += 1 + c->units[before] / 50) {
			if (c->cells[before][i] != 1)
				atomic_fetch_add(&c->faults, 1);
		}
	}
	for (int64_t i = begin; i < end; ++i)
		++c->cells[phase][i];
}

static void count_once(knit_pool *p, int64_t a, int64_t b, int64_t c, bool alone) {
	counting *const work = calloc(1, sizeof *work);

	work->units[0] = a;
	work->units[1] = b;
	work->units[2] = c;
	work->threads = knit__pool_threads(p);
	const knit_pool_job job = {.run = count_units, .arg = work, .phases = c >= 0 ? 3 : b >= 0 ? 2 : 1, .units = {a, b, c}};
	if (alone)
		knit__pool_run_alone(&job);
	else
		knit__pool_run(p, &job);
	ck_assert_int_eq(atomic_load(&work->faults), 0);
	for (uint32_t phase = 0; phase < job.phases; ++phase) {
		int64_t i = 0;
		while (i < MAX_UNITS && work->cells[phase][i] == (i < work->units[phase]))
			++i;
		ck_assert_int_eq(i, MAX_UNITS);
	}
	free(work);
}

START_TEST(each_unit_once) {
	static const uint32_t thread_counts[] = {1, 2, 3, 4, 7, 16};
	static const int64_t unit_counts[] = {0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 1000, MAX_UNITS};

	for (size_t t = 0; t < sizeof thread_counts / sizeof *thread_counts; ++t) {
		knit_pool *const p = make(thread_counts[t]);
		ck_assert_uint_eq(knit__pool_threads(p), thread_counts[t]);
		for (size_t u = 0; u < sizeof unit_counts / sizeof *unit_counts; ++u) {
			count_once(p, unit_counts[u], -1, -1, false);
			count_once(p, unit_counts[u], -1, -1, true);
			count_once(p, unit_counts[u], 1, 100, false);
			count_once(p, 1, unit_counts[u], unit_counts[u], false);
		}
		knit__pool_destroy(p);
	}
}
END_TEST

START_TEST(nothing_to_do) {
	knit_pool *const p = make(4);
	const knit_pool_job job = {.run = count_units};

	knit__pool_run(p, &job);
	knit__pool_run_alone(&job);
	knit__pool_destroy(p);
	knit__pool_destroy(NULL);
}
END_TEST

START_TEST(thread_limits) {
	knit_diag d = {0};
	knit_pool *p;

	ck_assert_int_eq(knit__pool_create(heap, 65, &p, &d), KNIT_ERR_LIMIT);
	ck_assert_ptr_null(p);
	ck_assert_ptr_nonnull(strstr(d.text, "65"));
	p = make(0);
	ck_assert_uint_eq(knit__pool_threads(p), knit__pool_cores() > 64 ? 64 : knit__pool_cores());
	knit__pool_destroy(p);
	p = make(64);
	count_once(p, 3000, 500, 64, false);
	knit__pool_destroy(p);
}
END_TEST

static void sum_units(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	int64_t *const sums = arg;

	(void)thread;
	for (int64_t i = begin; i < end; ++i)
		sums[phase * 16 + i] += i + phase;
}

static void sum_many(knit_pool *p, int jobs) {
	int64_t sums[48] = {0};
	const knit_pool_job job = {.run = sum_units, .arg = sums, .phases = 3, .units = {16, 3, 9}};

	for (int i = 0; i < jobs; ++i)
		knit__pool_run(p, &job);
	for (int i = 0; i < 16; ++i)
		ck_assert_int_eq(sums[i], (int64_t)jobs * i);
	for (int i = 0; i < 3; ++i)
		ck_assert_int_eq(sums[16 + i], (int64_t)jobs * (i + 1));
	for (int i = 0; i < 9; ++i)
		ck_assert_int_eq(sums[32 + i], (int64_t)jobs * (i + 2));
}

/* Twelve threads on few cores: nobody may wait for a thread that is not scheduled. */
START_TEST(many_small_jobs) {
	static const uint32_t thread_counts[] = {2, 12};

	for (size_t t = 0; t < sizeof thread_counts / sizeof *thread_counts; ++t) {
		knit_pool *const p = make(thread_counts[t]);
		sum_many(p, 3000);
		knit__pool_destroy(p);
	}
}
END_TEST

/* Longer than the workers spin, so that each job wakes them from sleep. */
START_TEST(sleeping_workers_wake) {
	const struct timespec rest = {.tv_nsec = 2000000};
	knit_pool *const p = make(3);

	for (int i = 0; i < 50; ++i) {
		nanosleep(&rest, NULL);
		count_once(p, 200, 50, 7, false);
	}
	knit__pool_destroy(p);
}
END_TEST

/* A unit that takes long is waited for, whoever has it. */
static void slow_units(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const struct timespec rest = {.tv_nsec = 3000000};

	(void)thread;
	for (int64_t i = begin; i < end; ++i) {
		if (phase == 0 && i % 2 == 0)
			nanosleep(&rest, NULL);
		((int *)arg)[phase * 8 + i] += phase == 0 ? 1 : ((int *)arg)[7 - i];
	}
}

START_TEST(slow_units_are_waited_for) {
	knit_pool *const p = make(4);

	for (int k = 0; k < 10; ++k) {
		int cells[16] = {0};
		const knit_pool_job job = {.run = slow_units, .arg = cells, .phases = 2, .units = {8, 8}};
		knit__pool_run(p, &job);
		for (int i = 0; i < 16; ++i)
			ck_assert_int_eq(cells[i], 1);
	}
	knit__pool_destroy(p);
}
END_TEST

static void *caller_main(void *arg) {
	sum_many(arg, 1500);
	return NULL;
}

START_TEST(callers_at_once) {
	knit_pool *const p = make(3);
	pthread_t callers[3];

	for (int i = 0; i < 3; ++i)
		ck_assert_int_eq(pthread_create(&callers[i], NULL, caller_main, p), 0);
	for (int i = 0; i < 3; ++i)
		pthread_join(callers[i], NULL);
	knit__pool_destroy(p);
}
END_TEST

/* Workers that are taken off their core with units in hand. */
typedef struct hampered { atomic_int units, by_workers; } hampered;

static void hampered_units(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const struct timespec rest = {.tv_nsec = 3000000};
	hampered *const h = arg;

	(void)phase;
	atomic_fetch_add(&h->units, (int)(end - begin));
	if (thread == 0)
		return;
	atomic_fetch_add(&h->by_workers, 1);
	nanosleep(&rest, NULL);
}

START_TEST(a_caller_stays_alone_where_splitting_loses) {
	hampered h = {0};
	knit_diag d = {0};
	knit_pool *p;
	const knit_pool_job job = {.run = hampered_units, .arg = &h, .phases = 1, .units = {64}};

	ck_assert_int_eq(knit__pool_create(heap, 2, &p, &d), KNIT_OK);
	for (int i = 0; i < 300; ++i)
		knit__pool_run(p, &job);
	ck_assert_int_eq(atomic_load(&h.units), 300 * 64);
	/* The first one of them costs more than the next 299 jobs alone. */
	ck_assert_int_lt(atomic_load(&h.by_workers), 50);
	knit__pool_destroy(p);
}
END_TEST

START_TEST(made_and_unmade) {
	for (int i = 0; i < 100; ++i) {
		knit_pool *const p = make(1 + (uint32_t)i % 5);
		if (i % 3 == 0)
			count_once(p, 100, -1, -1, false);
		knit__pool_destroy(p);
	}
}
END_TEST

static int64_t budget;

static void *failing_alloc(void *user, size_t size, size_t align) {
	(void)user;
	return budget-- > 0 ? heap->alloc(NULL, size, align) : NULL;
}

static void plain_free(void *user, void *ptr, size_t size) {
	(void)user;
	heap->free(NULL, ptr, size);
}

/* What each thread makes for itself is there before its first unit, once. */
typedef struct owning {
	int made[KNIT_POOL_PHASES][KNIT_POOL_MAX_THREADS];
	atomic_int faults, units;
} owning;

static void own_make(void *arg, uint32_t phase, uint32_t thread) { ++((owning *)arg)->made[phase][thread]; }

static void own_use(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	owning *const o = arg;

	atomic_fetch_add(&o->faults, o->made[phase][thread] != 1);
	atomic_fetch_add(&o->units, (int)(end - begin));
}

START_TEST(each_thread_makes_its_own_once) {
	for (uint32_t threads = 1; threads <= 12; threads += 11) {
		knit_pool *const p = make(threads);
		for (int i = 0; i < 500; ++i) {
			owning o = {0};
			const knit_pool_job job = {.run = own_use, .own = own_make, .arg = &o, .phases = 3, .units = {7, 0, 40}};
			if (i % 10 == 0)
				knit__pool_run_alone(&job);
			else
				knit__pool_run(p, &job);
			ck_assert_int_eq(atomic_load(&o.faults), 0);
			ck_assert_int_eq(atomic_load(&o.units), 47);
			for (uint32_t t = 0; t < KNIT_POOL_MAX_THREADS; ++t)
				ck_assert_int_eq(o.made[1][t], 0);
		}
		knit__pool_destroy(p);
	}
}
END_TEST

/* What is asked for ahead is never read: it may be gone, or nowhere. */
START_TEST(asking_ahead_reads_nothing) {
	const struct timespec rest = {.tv_nsec = 300000};
	knit_pool *const p = make(2);

	for (int i = 0; i < 200; ++i) {
		char *const gone = malloc(1 << 16);
		knit_pool_ahead *const ahead = calloc(2, sizeof *ahead);
		int64_t sums[48] = {0};
		for (int t = 0; t < 2; ++t)
			ahead[t] = (knit_pool_ahead){{{gone, 1 << 16}, {(const char *)(uintptr_t)64, 1000}, {gone, 0}}};
		const knit_pool_job job = {.run = sum_units, .arg = sums, .phases = 3, .units = {16, 3, 9}, .ahead = ahead};
		knit__pool_run(p, &job);
		free(ahead);
		free(gone);
		if (i % 20 == 0)
			nanosleep(&rest, NULL);
		for (int k = 0; k < 16; ++k)
			ck_assert_int_eq(sums[k], k);
	}
	knit__pool_destroy(p);
}
END_TEST

START_TEST(first_takes_are_parts_of_ranges) {
	knit_pool *const p = make(3);

	for (int64_t units = 0; units < 40; ++units) {
		int64_t before = 0;
		for (uint32_t t = 0; t < 3; ++t) {
			int64_t begin, end;
			knit__pool_first_take(p, units, t, &begin, &end);
			ck_assert_int_ge(begin, before);
			ck_assert_int_le(begin, end);
			ck_assert_int_le(end, units);
			ck_assert(units < 3 || begin < end);
			before = end;
		}
	}
	knit__pool_destroy(p);
}
END_TEST

START_TEST(allocation_failures) {
	const knit_allocator failing = {failing_alloc, plain_free, NULL};
	knit_status status;
	knit_pool *p;
	int64_t n = 0;

	do {
		knit_diag d = {0};
		budget = n++;
		status = knit__pool_create(&failing, 2, &p, &d);
		ck_assert(status == KNIT_OK || (status == KNIT_ERR_MEMORY && !p && d.text[0]));
	} while (status != KNIT_OK);
	ck_assert_int_ge(n, 3);
	knit__pool_destroy(p);
}
END_TEST

int main(void) {
	Suite *s = suite_create("pool");
	TCase *t = tcase_create("pool");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, each_unit_once);
	tcase_add_test(t, nothing_to_do);
	tcase_add_test(t, thread_limits);
	tcase_add_test(t, many_small_jobs);
	tcase_add_test(t, sleeping_workers_wake);
	tcase_add_test(t, slow_units_are_waited_for);
	tcase_add_test(t, callers_at_once);
	tcase_add_test(t, a_caller_stays_alone_where_splitting_loses);
	tcase_add_test(t, made_and_unmade);
	tcase_add_test(t, each_thread_makes_its_own_once);
	tcase_add_test(t, asking_ahead_reads_nothing);
	tcase_add_test(t, first_takes_are_parts_of_ranges);
	tcase_add_test(t, allocation_failures);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
