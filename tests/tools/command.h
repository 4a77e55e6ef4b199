/* Owns running a program and catching what it says. */
#ifndef KNIT_TEST_COMMAND_H
#define KNIT_TEST_COMMAND_H

#include <stddef.h>
#include <sys/types.h>

typedef struct command_result {
	int code; /* exit code, or 1000 + the signal that ended it */
	char *out, *err;
	size_t out_bytes, err_bytes;
} command_result;

/* argv[0] is the path; ends with NULL. input: stdin's bytes, NULL for none (/dev/null). A program that runs for 200
 * seconds is killed. The result is cleared with command_clear. */
void command_run(const char *const *argv, const char *input, command_result *out);
/* The same with stdout going to a file of this name (/dev/full). */
void command_run_to(const char *const *argv, const char *stdout_path, command_result *out);
void command_clear(command_result *r);

size_t command_lines(const char *text);
/* Exit code, nothing on stdout, one line on stderr that holds `part`. Clears the result. */
void command_check_error(command_result *r, int code, const char *part);
/* Exit code 0, nothing on stderr, one line on stdout that is a JSON object. Clears the result; the caller deletes the
 * object. */
struct cJSON *command_check_json(command_result *r);

/* A program that goes on running: its stdin and stdout are pipes, stderr goes to a file that command_finish reads. */
typedef struct command_live {
	pid_t pid;
	int in, out, err; /* our ends; err is the file */
} command_live;

void command_start(const char *const *argv, command_live *out);
/* Reads stdout until `bytes` bytes came or it ends; returns how many came. */
size_t command_wait_output(const command_live *c, size_t bytes);
/* Closes our ends that are still open (>= 0), waits, fills in code and err. */
void command_finish(command_live *c, command_result *out);

#endif
