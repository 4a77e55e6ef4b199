/* Every end-to-end program and those of the command once more with each pass off: answers do not depend on any of them. The
 * programs run the quick part of their tests (suite_quick) and hear of the pass through KNIT_PASSES_OFF. */
#include "../../graph/pass.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <time.h>

static double seconds(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run(const char *program, const char *off, command_result *out) {
	char path[4096];

	snprintf(path, sizeof path, "%s/tests/%s", KNIT_BINARY_DIR, program);
	ck_assert(setenv("KNIT_PASSES_OFF", off, 1) == 0 && setenv("KNIT_TEST_QUICK", "1", 1) == 0);
	command_run((const char *const[]){path, NULL}, NULL, out);
	unsetenv("KNIT_PASSES_OFF");
	unsetenv("KNIT_TEST_QUICK");
}

static bool next_program(const char **at, char *name, size_t size) {
	const size_t length = strcspn(*at, " ");

	if (!length)
		return false;
	ck_assert_uint_lt(length, size);
	memcpy(name, *at, length);
	name[length] = '\0';
	*at += length + strspn(*at + length, " ");
	return true;
}

static void check_all_without(const char *pass) {
	const double begin = seconds();
	const char *at = KNIT_PROGRAMS;
	char program[128];
	int programs = 0;

	for (; next_program(&at, program, sizeof program); ++programs) {
		command_result r;

		run(program, pass, &r);
		ck_assert_msg(r.code == 0, "%s fails without %s (exit code %d):\n%s%s", program, pass, r.code, r.out, r.err);
		command_clear(&r);
	}
	ck_assert_int_ge(programs, 8);
	printf("without %-16s %d programs pass, in %.1f s\n", pass, programs, seconds() - begin);
	fflush(stdout);
}

START_TEST(everything_passes_with_each_pass_off) {
	const knit_pass *pass;
	int off = 0;

	for (size_t i = 0; (pass = knit__pass_at(i)) != NULL; ++i) {
		if (pass->required)
			continue;
		check_all_without(pass->name);
		++off;
	}
	ck_assert_int_ge(off, 10);
}
END_TEST

/* What is said above means something only if programs, and the programs that they run, hear of the pass. */
START_TEST(programs_hear_of_it) {
	static const char *const programs[] = {"test-e2e-equalities", "test-frontends-cli"}; /* need no outside data */

	for (size_t i = 0; i < sizeof programs / sizeof *programs; ++i) {
		command_result r;

		run(programs[i], "no_such_pass", &r);
		ck_assert_msg(r.code == 1 && strstr(r.out, "no pass \"no_such_pass\"") != NULL, "%s: %s%s", programs[i], r.out, r.err);
		command_clear(&r);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {programs_hear_of_it, everything_passes_with_each_pass_off};

	return suite_run("passes_off", tests, sizeof tests / sizeof *tests);
}
