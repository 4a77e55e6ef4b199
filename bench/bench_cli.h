/* Owns what the files of the `knit bench` command share: its options, and what runs them. */
#ifndef KNIT_BENCH_CLI_H
#define KNIT_BENCH_CLI_H

#include "../frontends/cli/cli.h"
#include "rows.h"

enum { BENCH_MAX_LIST = 16, BENCH_MAX_SUBJECTS = 8, BENCH_MAX_TESTS = 64 };

typedef enum bench_format { BENCH_TABLE = 0, BENCH_JSON, BENCH_MARKDOWN, BENCH_CSV } bench_format;

typedef struct bench_options {
	cli_common common;
	const char *shape, *keep, *output;
	const char *devices[BENCH_MAX_SUBJECTS], *peers[BENCH_MAX_SUBJECTS];
	size_t device_count, peer_count;
	int64_t prompts[BENCH_MAX_LIST], makes[BENCH_MAX_LIST], depths[BENCH_MAX_LIST];
	size_t prompt_count, make_count, depth_count;
	int64_t runs, batch;
	int64_t peer_runs, peer_starts; /* runs of one start of a peer, 0: its default; its starts, 0: one for each of `runs` */
	const char *peer_model; /* what peers run instead; NULL: the same file */
	double seconds, planted; /* planted: bench_run's */
	bool no_peaks, no_check, no_load, profile;
	const char *trace, *html; /* files to write; NULL: none */
	bench_format format;
	char flags[400]; /* the arguments as they were given */
} bench_options;

/* bench/bench_measure.c: the model, its subjects, the measurements, the output. Returns the exit code. */
int bench_all(const bench_options *o);

/* "0,4096": numbers in [0, hi]. */
bool bench_take_list(const char *value, int64_t hi, int64_t *out, size_t *count);
/* "3%" or "3": a fraction. */
bool bench_take_percent(const char *text, double *out);
/* "cpu,vulkan": cuts `value` into its names. */
bool bench_take_names(char *value, const char **out, size_t *count);

/* bench/bench_write.c. Opens -o FILE or stdout, lets `print` write, closes. Prints its own error. */
int bench_write(const char *path, void (*print)(FILE *f, void *user), void *user);
/* Whether that could be, known before minutes of measuring; NULL: stdout. Leaves what is there as it is. */
int bench_write_check(const char *path);

/* bench/bench_compare.c: `knit bench compare`. argv[0] is "compare". */
int bench_compare_main(int argc, char **argv);
/* bench/bench_ops.c: `knit bench ops`. argv[0] is "ops"; flags: the call, for the output. */
int bench_ops_main(int argc, char **argv, const char *flags);

#endif
