/* Owns the main function that every Check program of the project shares. */
#ifndef KNIT_TEST_SUITE_H
#define KNIT_TEST_SUITE_H

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Whether only what depends on what is computed should run, and little of it: the programs run once more for each pass that
 * can be off (e2e/test_passes_off.c). */
static inline bool suite_quick(void) {
	const char *set = getenv("KNIT_TEST_QUICK");

	return set && strcmp(set, "1") == 0;
}

/* Whether KNIT_PASSES_OFF is this pass. */
static inline bool suite_pass_is_off(const char *name) {
	const char *set = getenv("KNIT_PASSES_OFF");

	return set && strcmp(set, name) == 0;
}

/* Runs the suite and frees it. fork: CK_FORK, each test in a process of its own, with a time limit, unless the environment's
 * CK_FORK is "no"; or CK_NOFORK. Returns the exit code. */
static inline int suite_finish(Suite *s, int fork) {
	SRunner *const r = srunner_create(s);

	if (fork == CK_NOFORK)
		srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

/* Runs the tests in this process (sanitizers and debuggers see them), each between setup and teardown (NULL: nothing).
 * Returns the exit code. */
static inline int suite_run_around(const char *name, void (*setup)(void), void (*teardown)(void), const TTest *const *tests,
                                   int count) {
	Suite *s = suite_create(name);
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, 0);
	if (setup)
		tcase_add_checked_fixture(t, setup, teardown);
	for (int i = 0; i < count; ++i)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_NOFORK);
}

static inline int suite_run(const char *name, const TTest *const *tests, int count) {
	return suite_run_around(name, NULL, NULL, tests, count);
}

#endif
