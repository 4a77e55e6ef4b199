/* Saving states where something fails, a disk, an allocation, the whole process: what is left under the name. */
#include "../../backends/whole_file.h"
#include "../tools/states_model.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LARGE = 20000 };

static void save_context(const states_model *m, int used_positions, const char *note) {
	const int64_t used[] = {used_positions};

	states_says(m, knit_session_save_states(m->session, states_path, used, 1, note, strlen(note)), KNIT_OK, "");
}

/* One of the two contexts that were ever saved under the name, whole. */
static void check_either(const states_model *m, const char *a, const char *b) {
	char note[16] = "";
	size_t note_bytes = sizeof note;
	int64_t used[1];

	states_says(m, knit_session_load_states(m->session, states_path, used, 1, note, &note_bytes), KNIT_OK, "");
	ck_assert((note_bytes == strlen(a) && memcmp(note, a, note_bytes) == 0 && used[0] == 5) ||
	          (note_bytes == strlen(b) && memcmp(note, b, note_bytes) == 0 && used[0] == 24));
}

/* The file keeps its mode, and a link stays one. */
START_TEST(files_are_replaced) {
	states_model a = states_open(states_usual);
	struct stat st;
	char link[80];

	states_feed_up_to(&a, 0, 24);
	knit__whole_file_names_only = _i;
	umask(027);
	save_context(&a, 5, "first");
	ck_assert(stat(states_path, &st) == 0 && (st.st_mode & 0777) == 0640);
	ck_assert_int_eq(chmod(states_path, 0604), 0);
	snprintf(link, sizeof link, "%s/other", states_folder);
	ck_assert_int_eq(symlink("context", link), 0);
	const int64_t used[] = {24};
	states_says(&a, knit_session_save_states(a.session, link, used, 1, "second", 6), KNIT_OK, "");
	ck_assert(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	ck_assert(lstat(states_path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0604);
	check_either(&a, "-", "second");
	knit__whole_file_names_only = false;
	umask(022);
	states_close(&a);
}
END_TEST

/* A disk that is full at any point: IO, the old file as it was, nothing beside it. */
START_TEST(full_disks_leave_the_old_file) {
	states_model a = states_open(states_usual);
	const int64_t used[] = {24};
	struct rlimit old, small;
	size_t bytes, now;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	states_feed_up_to(&a, 0, 24);
	knit__whole_file_names_only = _i;
	save_context(&a, 5, "first");
	char *const first = states_slurp(states_path, &bytes);
	states_says(&a, knit_session_save_states(a.session, states_other, used, 1, "second", 6), KNIT_OK, "");
	free(states_slurp(states_other, &now));
	const rlim_t whole = (rlim_t)now;
	for (rlim_t at = 0; at < whole; at += at < 40 || whole - at < 40 ? 1 : 199) {
		small = old;
		small.rlim_cur = at;
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
		const knit_status status = knit_session_save_states(a.session, states_path, used, 1, "second", 6);
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
		states_says(&a, status, KNIT_ERR_IO, "File too large");
		char *const there = states_slurp(states_path, &now);
		ck_assert(now == bytes && memcmp(there, first, bytes) == 0);
		free(there);
		ck_assert_int_eq(states_strangers(), 0);
	}
	free(first);
	knit__whole_file_names_only = false;
	states_close(&a);
}
END_TEST

/* A process killed at any point while it saves over and over: what is under the name is whole. */
START_TEST(kills_leave_a_whole_file) {
	states_spec s = states_usual;
	uint64_t seed = 12345;
	int saved = 0;

	s.positions = LARGE; /* 4 MiB a file: most of the time is spent writing */
	states_model a = states_open(s);
	states_feed_up_to(&a, 0, 24);
	save_context(&a, 5, "first");
	for (int round = 0; round < 60; ++round) {
		const pid_t child = fork();

		ck_assert_int_ge(child, 0);
		if (child == 0) {
			knit__whole_file_names_only = round % 2;
			const int64_t few[] = {24}, all[] = {LARGE};

			for (;;) {
				knit_session_save_states(a.session, states_other, all, 1, "large", 5);
				knit_session_save_states(a.session, states_path, few, 1, "second", 6);
			}
		}
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		const struct timespec wait = {0, (long)(seed >> 40) * 4 % 60000000};
		nanosleep(&wait, NULL);
		ck_assert_int_eq(kill(child, SIGKILL), 0);
		ck_assert_int_eq(waitpid(child, NULL, 0), child);
		check_either(&a, "first", "second");
		int64_t used[1];
		if (access(states_other, F_OK) == 0) {
			states_says(&a, knit_session_load_states(a.session, states_other, used, 1, NULL, NULL), KNIT_OK, "");
			ck_assert_int_eq(used[0], LARGE);
			++saved;
		}
	}
	printf("killed 60 times while saving; the large file was there, and whole, after %d of them\n", saved);
	states_close(&a);
	/* Between link and rename a complete file may have been left under its passing name; without files without names any. */
	char command[96];
	snprintf(command, sizeof command, "rm -f %s/context.* %s/other.*", states_folder, states_folder);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Each allocation in turn fails: MEMORY, nothing leaked, nothing left, the session as it was. */
START_TEST(allocations_may_fail) {
	track_alloc t = {0};
	states_model m = {0};
	const int64_t used[] = {5};
	int64_t back[1];
	float before[STATES_VOCAB], after[STATES_VOCAB];
	bool done = false;

	m.ctx = track_context(&t);
	ck_assert_ptr_nonnull(m.ctx);
	ck_assert_int_eq(states_build(&states_usual, &m), KNIT_OK);
	states_feed_up_to(&m, 0, 6);
	states_says(&m, knit_session_save_states(m.session, states_path, used, 1, "n", 1), KNIT_OK, "");
	states_probe(&m, before);
	const uint64_t live = t.live;
	for (int call = 0; call < 2; ++call, done = false) {
		for (int fail_at = 1; !done; ++fail_at) {
			t.fail_at = t.count + (uint64_t)fail_at;
			const knit_status status = call ? knit_session_load_states(m.session, states_path, back, 1, NULL, NULL)
			                                : knit_session_save_states(m.session, states_other, used, 1, "n", 1);
			done = status == KNIT_OK;
			ck_assert_msg(done || status == KNIT_ERR_MEMORY, "%s", knit_status_name(status));
			ck_assert_uint_eq(t.live, live);
			ck_assert(done || call || access(states_other, F_OK) != 0);
			ck_assert_int_lt(fail_at, 100);
			t.fail_at = 0;
			if (!done) {
				states_probe(&m, after);
				ck_assert(memcmp(before, after, sizeof after) == 0);
			}
		}
	}
	states_close(&m);
	ck_assert(t.live == 0 && !t.bad_free);
}
END_TEST

int main(void) {
	Suite *const s = suite_create("states_file faults");
	TCase *const c = tcase_create("all");
	const TTest *const tests[] = {files_are_replaced, full_disks_leave_the_old_file, kills_leave_a_whole_file,
	                              allocations_may_fail};

	tcase_set_timeout(c, 0);
	tcase_add_checked_fixture(c, states_setup, states_teardown);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i)
		tcase_add_loop_test(c, tests[i], 0,
		                    tests[i] == files_are_replaced || tests[i] == full_disks_leave_the_old_file ? 2 : 1);
	suite_add_tcase(s, c);
	return suite_finish(s, CK_NOFORK);
}
