/* A program as a child process: a pipe for its output, a look at its memory from time to time (what wait tells of it counts what this
 * process had when the child began). */
#include "child.h"

#include "clock.h"

#include "../graph/base.h"

#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_OUTPUT = 1 << 20, LOOK_MS = 20 };

static int start(char *const *argv, const int ends[2], pid_t *child) {
	posix_spawn_file_actions_t actions;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	posix_spawn_file_actions_addclose(&actions, ends[1]);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0); /* O_WRONLY */
	const int error = posix_spawnp(child, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* What comes is read while it runs, so that it never waits for us; what is too much is dropped. */
static void listen_to(int from, pid_t child, bench_child *out) {
	char dropped[4096];
	size_t have = 0;

	for (;;) {
		struct pollfd p = {.fd = from, .events = POLLIN};
		const int ready = poll(&p, 1, LOOK_MS);
		(void)bench_resident_look(child, &out->memory);
		if (ready == 0 || (ready < 0 && errno == EINTR))
			continue;
		const bool room = have < MAX_OUTPUT - 1;
		const ssize_t n = read(from, room ? out->text + have : dropped, room ? MAX_OUTPUT - 1 - have : sizeof dropped);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		have += room ? (size_t)n : 0;
	}
}

knit_status bench_child_run(char *const *argv, bench_child *out, knit_diag *diag) {
	int ends[2], state = 0;
	pid_t child;

	*out = (bench_child){.text = calloc(1, MAX_OUTPUT)};
	if (!out->text || pipe(ends) != 0) {
		free(out->text);
		out->text = NULL;
		return knit__fail(diag, KNIT_ERR_IO, 0, "no pipe to %s: %s", argv[0], strerror(errno));
	}
	const double begin = bench_now();
	const int error = start(argv, ends, &child);
	close(ends[1]);
	if (error == 0) {
		listen_to(ends[0], child, out);
		while (waitpid(child, &state, 0) < 0 && errno == EINTR)
			;
	}
	out->seconds = bench_now() - begin;
	close(ends[0]);
	if (error || !WIFEXITED(state) || WEXITSTATUS(state) != 0) {
		free(out->text);
		out->text = NULL;
		return knit__fail(diag, error ? KNIT_ERR_NOT_FOUND : KNIT_ERR_IO, 0, "%s %s", argv[0],
		                  error ? strerror(error) : "ended with an error: run it by hand to see why");
	}
	return KNIT_OK;
}
