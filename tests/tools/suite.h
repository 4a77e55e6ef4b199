/* Owns the main function that every Check program of the project shares. */
#ifndef KNIT_TEST_SUITE_H
#define KNIT_TEST_SUITE_H

#include <check.h>

/* Runs the tests in this process (sanitizers and debuggers see them) unless CK_FORK=yes. Returns the exit code. */
static inline int suite_run(const char *name, const TTest *const *tests, int count) {
	Suite *s = suite_create(name);
	TCase *t = tcase_create(name);
	SRunner *r;

	tcase_set_timeout(t, 0);
	for (int i = 0; i < count; ++i)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

#endif
