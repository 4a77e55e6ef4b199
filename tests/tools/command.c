/* fork and exec with caught output; see command.h. */
#include "command.h"

#include <check.h>
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 200 };

static void child(const char *const *argv, int in, int out, int err) {
	/* What drivers leak by themselves is no fault of the command. */
	setenv("LSAN_OPTIONS", "suppressions=" KNIT_SOURCE_DIR "/tests/tools/driver_leaks.supp:print_suppressions=0", 0);
	/* Checks and test runners may have changed these; a program starts with the defaults. */
	signal(SIGINT, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	for (int fd = 3; fd < 64; ++fd)
		close(fd);
	alarm(SECONDS);
	execv(argv[0], (char *const *)(const void *)argv);
	_exit(127);
}

static int temporary(void) {
	char name[] = "/tmp/knit-test-XXXXXX";
	const int fd = mkstemp(name);

	ck_assert_int_ge(fd, 0);
	unlink(name);
	return fd;
}

static char *read_back(int fd, size_t *bytes) {
	const off_t end = lseek(fd, 0, SEEK_END);
	char *text = malloc((size_t)end + 1);

	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(pread(fd, text, (size_t)end, 0), end);
	text[end] = '\0';
	*bytes = (size_t)end;
	return text;
}

static int wait_for(pid_t pid) {
	int status = 0;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void run(const char *const *argv, const char *input, int out_fd, command_result *out) {
	const int err = temporary(), in = input ? temporary() : open("/dev/null", O_RDONLY);

	if (input) {
		ck_assert_int_eq(write(in, input, strlen(input)), (ssize_t)strlen(input));
		lseek(in, 0, SEEK_SET);
	}
	fflush(NULL);
	const pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		child(argv, in, out_fd, err);
	out->code = wait_for(pid);
	out->err = read_back(err, &out->err_bytes);
	close(in);
	close(err);
}

void command_run(const char *const *argv, const char *input, command_result *out) {
	const int fd = temporary();

	memset(out, 0, sizeof *out);
	run(argv, input, fd, out);
	out->out = read_back(fd, &out->out_bytes);
	close(fd);
}

void command_run_to(const char *const *argv, const char *stdout_path, command_result *out) {
	const int fd = open(stdout_path, O_WRONLY);

	ck_assert_int_ge(fd, 0);
	memset(out, 0, sizeof *out);
	run(argv, NULL, fd, out);
	close(fd);
}

void command_clear(command_result *r) {
	free(r->out);
	free(r->err);
	memset(r, 0, sizeof *r);
}

void command_start(const char *const *argv, command_live *out) {
	int in[2], from[2];

	ck_assert_int_eq(pipe(in), 0);
	ck_assert_int_eq(pipe(from), 0);
	out->err = temporary();
	fflush(NULL);
	out->pid = fork();
	ck_assert_int_ge(out->pid, 0);
	if (out->pid == 0)
		child(argv, in[0], from[1], out->err);
	close(in[0]);
	close(from[1]);
	out->in = in[1];
	out->out = from[0];
}

size_t command_wait_output(const command_live *c, size_t bytes) {
	char buffer[4096];
	size_t count = 0;

	while (count < bytes) {
		const ssize_t n = read(c->out, buffer, sizeof buffer);
		if (n <= 0)
			break;
		count += (size_t)n;
	}
	return count;
}

void command_finish(command_live *c, command_result *out) {
	memset(out, 0, sizeof *out);
	if (c->in >= 0)
		close(c->in);
	if (c->out >= 0) { /* what still comes, so that the program is not stuck writing */
		while (command_wait_output(c, 1 << 20) == 1 << 20)
			;
	}
	out->code = wait_for(c->pid);
	if (c->out >= 0)
		close(c->out);
	out->err = read_back(c->err, &out->err_bytes);
	close(c->err);
}

size_t command_lines(const char *text) {
	size_t n = 0;

	for (; *text; ++text)
		n += *text == '\n';
	return n;
}

void command_check_error(command_result *r, int code, const char *part) {
	ck_assert_msg(r->code == code, "exit code %d, not %d: %s", r->code, code, r->err);
	ck_assert_msg(r->out_bytes == 0, "stdout says: %s", r->out);
	ck_assert_msg(command_lines(r->err) == 1 && r->err[r->err_bytes - 1] == '\n', "not one line: %s", r->err);
	ck_assert_msg(strncmp(r->err, "knit", 4) == 0 && strstr(r->err, part) != NULL, "\"%s\" is not in: %s", part,
				  r->err);
	command_clear(r);
}

struct cJSON *command_check_json(command_result *r) {
	ck_assert_msg(r->code == 0, "exit code %d: %s", r->code, r->err);
	ck_assert_msg(r->err_bytes == 0, "stderr says: %s", r->err);
	ck_assert_uint_eq(command_lines(r->out), 1);
	cJSON *root = cJSON_ParseWithLength(r->out, r->out_bytes);
	ck_assert_msg(cJSON_IsObject(root), "no JSON object: %s", r->out);
	command_clear(r);
	return root;
}
