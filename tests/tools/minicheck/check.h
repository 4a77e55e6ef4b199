/* Owns as much of the interface of Check (libcheck) as the tests of the engine use, in one header: for builds that have no
 * Check, as those for another kind of processor. Tests run in this process, one after the other; the first assertion that
 * fails ends its test. */
#ifndef KNIT_TEST_MINICHECK_H
#define KNIT_TEST_MINICHECK_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct TTest { const char *name; void (*run)(int loop); } TTest;
typedef struct TCase {
	struct { const TTest *test; int begin, end; } tests[128];
	int count;
	void (*setup)(void), (*teardown)(void);
} TCase;
typedef struct Suite { const char *name; TCase *cases[16]; int count; } Suite;
typedef struct SRunner { Suite *suite; int failed; } SRunner;
enum { CK_NORMAL, CK_VERBOSE };
enum { CK_FORK, CK_NOFORK };

/* Where a failed assertion goes back to: one variable, whichever files include this. */
__attribute__((weak)) jmp_buf *minicheck_back;

#define START_TEST(name) \
	static void name##_run(int _i); \
	static const TTest name##_test = {#name, name##_run}, *const name = &name##_test; \
	static void name##_run(int _i __attribute__((unused)))
#define END_TEST

#define minicheck_fail(...) \
	do { \
		printf("%s:%d: ", __FILE__, __LINE__); \
		printf(__VA_ARGS__); \
		printf("\n"); \
		if (!minicheck_back) \
			abort(); \
		longjmp(*minicheck_back, 1); \
	} while (0)
#define ck_abort_msg(...) minicheck_fail(__VA_ARGS__)
#define ck_assert_msg(expr, ...) \
	do { \
		if (!(expr)) \
			minicheck_fail(__VA_ARGS__); \
	} while (0)
#define ck_assert(expr) ck_assert_msg(expr, "not so: %s", #expr)

#define minicheck_compare(type, format, a, op, b) \
	do { \
		type const a_ = (a); \
		type const b_ = (b); \
		if (!(a_ op b_)) \
			minicheck_fail("not so: %s %s %s: %" format ", %" format, #a, #op, #b, a_, b_); \
	} while (0)
#define ck_assert_int_eq(a, b) minicheck_compare(intmax_t, PRIdMAX, a, ==, b)
#define ck_assert_int_ne(a, b) minicheck_compare(intmax_t, PRIdMAX, a, !=, b)
#define ck_assert_int_lt(a, b) minicheck_compare(intmax_t, PRIdMAX, a, <, b)
#define ck_assert_int_le(a, b) minicheck_compare(intmax_t, PRIdMAX, a, <=, b)
#define ck_assert_int_gt(a, b) minicheck_compare(intmax_t, PRIdMAX, a, >, b)
#define ck_assert_int_ge(a, b) minicheck_compare(intmax_t, PRIdMAX, a, >=, b)
#define ck_assert_uint_eq(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, ==, b)
#define ck_assert_uint_ne(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, !=, b)
#define ck_assert_uint_lt(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, <, b)
#define ck_assert_uint_le(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, <=, b)
#define ck_assert_uint_gt(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, >, b)
#define ck_assert_uint_ge(a, b) minicheck_compare(uintmax_t, PRIuMAX, a, >=, b)
#define ck_assert_double_eq(a, b) minicheck_compare(double, "g", a, ==, b)
#define ck_assert_double_lt(a, b) minicheck_compare(double, "g", a, <, b)
#define ck_assert_double_le(a, b) minicheck_compare(double, "g", a, <=, b)
#define ck_assert_ptr_eq(a, b) minicheck_compare(void *, "p", (void *)(uintptr_t)(a), ==, (void *)(uintptr_t)(b))
#define ck_assert_ptr_ne(a, b) minicheck_compare(void *, "p", (void *)(uintptr_t)(a), !=, (void *)(uintptr_t)(b))
#define ck_assert_ptr_null(a) ck_assert_ptr_eq(a, NULL)
#define ck_assert_ptr_nonnull(a) ck_assert_ptr_ne(a, NULL)
#define ck_assert_str_eq(a, b) ck_assert_msg(strcmp(a, b) == 0, "not equal: %s and %s", a, b)
#define ck_assert_str_ne(a, b) ck_assert_msg(strcmp(a, b) != 0, "equal: %s and %s", a, b)
#define ck_assert_mem_eq(a, b, n) ck_assert_msg(memcmp(a, b, n) == 0, "bytes differ: %s and %s", #a, #b)

static inline void *minicheck_new(size_t bytes) {
	void *const p = calloc(1, bytes);

	if (!p)
		abort();
	return p;
}

static inline Suite *suite_create(const char *name) {
	Suite *const s = minicheck_new(sizeof *s);

	s->name = name;
	return s;
}

static inline TCase *tcase_create(const char *name) {
	(void)name;
	return minicheck_new(sizeof(TCase));
}

static inline void suite_add_tcase(Suite *s, TCase *t) {
	if (s->count == (int)(sizeof s->cases / sizeof s->cases[0]))
		abort();
	s->cases[s->count++] = t;
}

static inline void tcase_add_loop_test(TCase *t, const TTest *test, int begin, int end) {
	if (t->count == (int)(sizeof t->tests / sizeof t->tests[0]))
		abort();
	t->tests[t->count].test = test;
	t->tests[t->count].begin = begin;
	t->tests[t->count++].end = end;
}

static inline void tcase_add_test(TCase *t, const TTest *test) { tcase_add_loop_test(t, test, 0, 1); }

static inline void tcase_add_checked_fixture(TCase *t, void (*setup)(void), void (*teardown)(void)) {
	t->setup = setup;
	t->teardown = teardown;
}

static inline void tcase_set_timeout(TCase *t, double seconds) { (void)t, (void)seconds; }
static inline void srunner_set_fork_status(SRunner *r, int status) { (void)r, (void)status; }
static inline int srunner_ntests_failed(const SRunner *r) { return r->failed; }

static inline SRunner *srunner_create(Suite *s) {
	SRunner *const r = minicheck_new(sizeof *r);

	r->suite = s;
	return r;
}

static inline int minicheck_one(const TCase *t, const TTest *test, int loop) {
	jmp_buf back;

	if (setjmp(back)) {
		minicheck_back = NULL;
		printf("FAIL %s, %d\n", test->name, loop);
		return 1;
	}
	minicheck_back = &back;
	if (t->setup)
		t->setup();
	test->run(loop);
	if (t->teardown)
		t->teardown();
	minicheck_back = NULL;
	return 0;
}

static inline void srunner_run_all(SRunner *r, int mode) {
	int ran = 0;

	(void)mode;
	for (int c = 0; c < r->suite->count; ++c) {
		const TCase *const t = r->suite->cases[c];

		for (int i = 0; i < t->count; ++i)
			for (int loop = t->tests[i].begin; loop < t->tests[i].end; ++loop, ++ran)
				r->failed += minicheck_one(t, t->tests[i].test, loop);
	}
	printf("%s: %d tests, %d failed\n", r->suite->name, ran, r->failed);
}

static inline void srunner_free(SRunner *r) {
	for (int c = 0; c < r->suite->count; ++c)
		free(r->suite->cases[c]);
	free(r->suite);
	free(r);
}

#endif
