/* Owns what the subcommands of `knit` share: exit codes, error lines, common options, opening a model, output. Each
 * subcommand is one file with one function. */
#ifndef KNIT_CLI_H
#define KNIT_CLI_H

#include "../formats/file_out.h"
#include "../models/decoder.h"
#include "../models/fit.h"
#include "../models/load.h"

#include <cjson/cJSON.h>

#include <getopt.h>
#include <signal.h>
#include <stdio.h>

enum {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_INTERRUPTED = 130, /* 128 + SIGINT, as shells report it */
	CLI_PIPE_CLOSED = 141, /* 128 + SIGPIPE */
};

int cli_run(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_graph(int argc, char **argv);
int cli_eval(int argc, char **argv);
int cli_plan(int argc, char **argv);
int cli_tie(int argc, char **argv);
int cli_devices(int argc, char **argv);
int cli_tune(int argc, char **argv);
int cli_bench(int argc, char **argv); /* bench/bench.c */

/* ---- errors: one line on stderr ---------------------------------------------------------------------------------- */

/* "knit: <text>"; returns CLI_FAILED. */
int cli_fail(const char *fmt, ...) KNIT_PRINTF(1, 2);
/* "knit <command>: <text> (see knit <command> --help)"; returns CLI_USAGE. */
int cli_usage(const char *command, const char *fmt, ...) KNIT_PRINTF(2, 3);
/* The text of a failed call. */
int cli_fail_diag(knit_status status, const knit_diag *diag);

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Long options that several subcommands have. Short options begin at 'a', so these stay clear of them. */
enum {
	CLI_OPT_DEVICE = 256,
	CLI_OPT_DEVICE_MEMORY,
	CLI_OPT_THREADS,
	CLI_OPT_CTX,
	CLI_OPT_KV,
	CLI_OPT_MEMORY,
	CLI_OPT_JSON,
	CLI_OPT_VISITS,
	CLI_OPT_LOOPS,
	CLI_OPT_ADAPTER,
	CLI_OPT_TOKENIZER,
	CLI_OPT_OWN /* subcommands number their own from here */
};

typedef struct cli_common {
	const char *command;
	knit__model_desc model;
	const char *device;
	uint32_t threads;
	int64_t ctx; /* 0: not given */
	knit__kv_spec kv;
	uint64_t memory; /* bytes; 0: not given */
	uint64_t device_memory; /* of a split device; 0: not given */
	bool plan_only;  /* compile for the figures alone */
	bool json;
} cli_common;

/* Fills in one of the common options; *exit_code is set and false returned if its value is bad or the option is none of
 * them (getopt's '?' and ':' included). */
bool cli_common_option(cli_common *c, int option, char **argv, int *exit_code);
/* The model's path, the only operand left, or with `second` the first of two. */
bool cli_operands(cli_common *c, int argc, char **argv, const char **second, const char *second_name, int *exit_code);

/* Whole text, in the range; false otherwise. */
bool cli_parse_i64(const char *text, int64_t lo, int64_t hi, int64_t *out);
bool cli_parse_u64(const char *text, uint64_t *out);
bool cli_parse_double(const char *text, double lo, double hi, double *out);
/* "4G", "1.5g", "512M", "100000": bytes, the letters standing for powers of 1024; not 0. */
bool cli_parse_bytes(const char *text, uint64_t *out);

/* ---- a model to run ---------------------------------------------------------------------------------------------- */

typedef struct cli_model {
	knit_context *ctx;
	knit__model model;
	knit__decoder decoder;
	knit__kv_spec kv;  /* with its types filled in */
	int64_t positions; /* of the context; KNIT__MAX_CONTEXT where a window has no end */
	knit__fit fit;     /* with --memory: what fits */
} cli_model;

/* Context and files. Prints its own error. */
int cli_model_open(const cli_common *c, cli_model *m);
/* Takes over --kv; types that it does not name become `type`. */
void cli_model_set_kv(const cli_common *c, cli_model *m, knit_dtype type);
/* The context that is asked for: --ctx, or what --memory has room for, or the model's up to 4096 positions; 0 where a
 * window has no end. Prints its own error, which for --ctx beyond --memory is the sum. */
int cli_model_context(const cli_common *c, cli_model *m, int64_t max_tokens, int64_t max_outputs, int64_t *positions);
/* Compiles for so many positions (0: no end). Prints its own error. */
int cli_model_compile(const cli_common *c, cli_model *m, int64_t positions, int64_t max_tokens, int64_t max_outputs);
void cli_model_close(cli_model *m);

/* Brings a context back that cli_context_save wrote: its tokens, of which the first *fed are in the slots. Prints its own
 * error. */
int cli_context_load(const cli_model *m, const char *path, knit_token_list *ids, size_t *fed);
/* Writes the context of sequence 0: the slots of the first `fed` tokens of prompt and made, and all of these. Prints its own
 * error. */
int cli_context_save(const cli_model *m, const char *path, const knit_token_list *prompt, const knit_token_list *made,
					 size_t fed);

/* ---- output ------------------------------------------------------------------------------------------------------ */

/* "4.07 MiB" */
const char *cli_bytes(uint64_t bytes, char out[32]);
/* What the memory limit is spent on, line by line. */
void cli_print_fit(FILE *f, const knit__fit *fit);
cJSON *cli_json_kv(const knit__kv_spec *kv);
/* "1,234,567" */
const char *cli_count(uint64_t n, char out[32]);
/* Exact, where a double would round. NULL on failure, which cJSON takes as nothing to add. */
cJSON *cli_json_u64(uint64_t n);
/* Text for JSON: bytes that are no UTF-8 become U+FFFD. NULL when out of memory. */
cJSON *cli_json_text(const char *text, size_t bytes);
cJSON *cli_json_memory(const knit_memory *m);
/* Prints the object on one line and deletes it. */
int cli_json_print(cJSON *root);
/* Flushes stdout and says what went wrong with it, if anything did. */
int cli_finish_stdout(void);
/* Writes all bytes to a file descriptor; false with errno. */
bool cli_write_all(int fd, const char *data, size_t bytes);

/* A file that appears when it is complete: opened, written in pieces, closed. */
typedef struct cli_file {
	knit_file_out out;
	knit_diag diag; /* of the first failed write */
} cli_file;
/* Prints its own error. */
int cli_file_open(const knit_allocator *a, const char *path, cli_file *f);
/* In the form that knit's printing functions take; user is the cli_file. */
void cli_file_write(void *user, const char *text, size_t bytes);
/* Brings the file to its name, or removes it where `status` or a write failed, and says why. */
int cli_file_close(cli_file *f, knit_status status);

/* Whole file, or stdin for "-", at most `limit` bytes. Prints its own error. The caller frees *data. */
int cli_read_file(const char *path, size_t limit, char **data, size_t *bytes);

/* ---- signals ----------------------------------------------------------------------------------------------------- */

/* Set by the first Ctrl-C; the second one kills. */
extern volatile sig_atomic_t cli_interrupted;
void cli_catch_interrupts(void);

#endif
