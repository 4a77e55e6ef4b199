/* What the knit command says when it is asked for help, or for what cannot be done: exit codes and one-line errors. */
#include "../tools/command.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

START_TEST(help_teaches_by_example) {
	static const char *const commands[] = {"run", "info", "graph", "eval", "devices", "tune"};
	static const char *const options[] = {"--save FILE", "--load FILE", "--kv SPEC", "--memory SIZE", "--ctx N",
	                                      "q4_0", "layer:", "first:", "group:N", "window=N", "sinks=N"};
	char example[64];
	command_result r;

	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i) {
		RUN(&r, NULL, commands[i], "--help");
		snprintf(example, sizeof example, "\n  knit %s", commands[i]);
		ck_assert_int_eq(r.code, 0);
		ck_assert_uint_eq(r.err_bytes, 0);
		ck_assert_msg(strstr(r.out, example) != NULL, "no example in: %s", r.out);
		command_clear(&r);
	}
	RUN(&r, NULL, "run", "--help");
	for (size_t i = 0; i < sizeof options / sizeof *options; ++i)
		ck_assert_msg(strstr(r.out, options[i]) != NULL, "no word of %s in: %s", options[i], r.out);
	command_clear(&r);
	RUN(&r, NULL, "--help");
	ck_assert_int_eq(r.code, 0);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
		ck_assert_ptr_nonnull(strstr(r.out, commands[i]));
	command_clear(&r);
	RUN(&r, NULL, "--version");
	ck_assert_int_eq(r.code, 0);
	ck_assert_str_eq(r.out, "knit 0.1.0\n");
	command_clear(&r);
	command_run((const char *const[]){knit, NULL}, NULL, &r);
	ck_assert_int_eq(r.code, 2);
	ck_assert_ptr_nonnull(strstr(r.err, "knit run"));
	command_clear(&r);
}
END_TEST

START_TEST(wrong_usage_is_exit_code_2) {
	command_result r;

	RUN(&r, NULL, "walk");
	command_check_error(&r, 2, "\"walk\" is no command");
	RUN(&r, NULL, "tune", "cpu");
	command_check_error(&r, 2, "\"cpu\" is one operand too many");
	RUN(&r, NULL, "tune", "--device", "cpu");
	command_check_error(&r, 1, "cpu has nothing to tune");
	RUN(&r, NULL, "tune", "--device", "abacus", "--json");
	command_check_error(&r, 1, "no device \"abacus\"");
	RUN(&r, NULL, "run");
	command_check_error(&r, 2, "name a MODEL");
	RUN(&r, NULL, "run", "--fast", model);
	command_check_error(&r, 2, "\"--fast\" is no option");
	RUN(&r, NULL, "run", "-z", model);
	command_check_error(&r, 2, "\"-z\" is no option");
	RUN(&r, NULL, "run", model, "-n");
	command_check_error(&r, 2, "-n needs a value");
	RUN(&r, NULL, "run", model, "-n", "ten");
	command_check_error(&r, 2, "-n \"ten\"");
	RUN(&r, NULL, "run", model, "-n", "-1");
	command_check_error(&r, 2, "-n \"-1\"");
	RUN(&r, NULL, "run", model, "--temp", "hot");
	command_check_error(&r, 2, "--temp \"hot\"");
	RUN(&r, NULL, "run", model, "--top-p", "1.5");
	command_check_error(&r, 2, "--top-p \"1.5\"");
	RUN(&r, NULL, "run", model, "--seed", "-3");
	command_check_error(&r, 2, "--seed");
	RUN(&r, NULL, "run", model, "--threads", "0");
	command_check_error(&r, 2, "--threads");
	RUN(&r, NULL, "run", model, "--ctx", "99999999999999999999");
	command_check_error(&r, 2, "--ctx");
	RUN(&r, NULL, "run", model, "--kv", "f8");
	command_check_error(&r, 2, "--kv");
	RUN(&r, NULL, "run", model, "--sampler", "best");
	command_check_error(&r, 2, "--sampler");
	RUN(&r, NULL, "run", model, "--sampler", "llama2c", "--top-k", "4");
	command_check_error(&r, 2, "--top-k");
	RUN(&r, NULL, "run", model, "Once", "upon");
	command_check_error(&r, 2, "\"Once\" is one operand too many");
	RUN(&r, NULL, "eval", model);
	command_check_error(&r, 2, "name a text FILE");
	RUN(&r, NULL, "eval", model, model, "--last-fraction", "0");
	command_check_error(&r, 2, "--last-fraction");
	RUN(&r, NULL, "graph", model, "--format", "png");
	command_check_error(&r, 2, "--format");
	RUN(&r, NULL, "devices", "cpu");
	command_check_error(&r, 2, "operand");
}
END_TEST

START_TEST(wrong_input_is_exit_code_1_and_one_line) {
	command_result r;

	RUN(&r, NULL, "info", "/nowhere/model.gguf");
	command_check_error(&r, 1, "/nowhere/model.gguf");
	RUN(&r, NULL, "info", KNIT_SOURCE_DIR);
	command_check_error(&r, 1, "model.safetensors");
	RUN(&r, NULL, "info", knit); /* an executable */
	command_check_error(&r, 1, "not a model file");
	RUN(&r, NULL, "run", KNIT_SOURCE_DIR "/LICENSE", "-p", "x");
	command_check_error(&r, 1, "LICENSE");
	RUN(&r, NULL, "run", model, "-p", "x", "--device", "abacus");
	command_check_error(&r, 1, "abacus");
	RUN(&r, NULL, "run", model, "-p", "a prompt that is too long", "--ctx", "8");
	command_check_error(&r, 1, "25 tokens, the context 8");
	RUN(&r, NULL, "run", model, "--visits", "0,1,9");
	command_check_error(&r, 1, "layer 9");
	RUN(&r, NULL, "run", model, "--visits", "0,,1");
	command_check_error(&r, 1, "visits \"0,,1\"");
	RUN(&r, NULL, "run", model, "--adapter", "/nowhere/lora");
	command_check_error(&r, 1, "/nowhere/lora");
	RUN(&r, NULL, "run", model, "--tokenizer", "/nowhere/tok.bin");
	command_check_error(&r, 1, "/nowhere/tok.bin");
	RUN(&r, NULL, "eval", model, "/nowhere/text");
	command_check_error(&r, 1, "/nowhere/text");
	RUN(&r, NULL, "eval", model, "/dev/null");
	command_check_error(&r, 1, "too few");
	RUN(&r, NULL, "graph", model, "-o", "/nowhere/g.txt");
	command_check_error(&r, 1, "/nowhere/g.txt");
}
END_TEST

/* The bundled model cut off at many places: one line and code 1 each time. */
START_TEST(truncated_files) {
	char path[] = "/tmp/knit-cut-XXXXXX";
	const int fd = mkstemp(path);
	FILE *f = fopen(model, "rb");
	static char data[4 << 20];
	const size_t bytes = f ? fread(data, 1, sizeof data, f) : 0;
	command_result r;

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_gt(bytes, 1000000);
	fclose(f);
	for (size_t cut = 0; cut < bytes; cut = cut * 3 + 1) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq(pwrite(fd, data, cut, 0), (ssize_t)cut);
		RUN(&r, NULL, "run", path, "-p", "x", "-n", "1");
		command_check_error(&r, 1, path);
	}
	ck_assert_int_eq(pwrite(fd, data, bytes - 1, 0), (ssize_t)bytes - 1);
	RUN(&r, NULL, "run", path, "-p", "x", "-n", "1");
	command_check_error(&r, 1, path);
	close(fd);
	unlink(path);
}
END_TEST

/* A NaN in a weight is reported, not spread. */
START_TEST(damaged_weights) {
	char path[] = "/tmp/knit-nan-XXXXXX", ones[64];
	const int fd = mkstemp(path);
	FILE *f = fopen(model, "rb");
	static char data[4 << 20];
	const size_t bytes = f ? fread(data, 1, sizeof data, f) : 0;
	command_result r;

	ck_assert_int_ge(fd, 0);
	memset(ones, 0xff, sizeof ones);
	ck_assert_int_eq(pwrite(fd, data, bytes, 0), (ssize_t)bytes);
	ck_assert_int_eq(pwrite(fd, ones, sizeof ones, (off_t)(bytes / 5 * 3)), (ssize_t)sizeof ones);
	fclose(f);
	RUN(&r, NULL, "run", path, "-p", "x", "-n", "1");
	command_check_error(&r, 1, "NaN");
	close(fd);
	unlink(path);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {help_teaches_by_example, wrong_usage_is_exit_code_2,
								  wrong_input_is_exit_code_1_and_one_line, truncated_files, damaged_weights};

	return suite_run("cli_errors", tests, sizeof tests / sizeof *tests);
}
