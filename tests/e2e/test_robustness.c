/* Malformed and foreign files through the command: one line, a non-zero exit code, no crash, in little time. */
#include "../tools/command.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";

static double seconds(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Refused in one line that names the file; or, if it may, taken. */
static void check_file(const char *path, bool may_be_taken) {
	const char *const info[] = {knit, "info", path, NULL}, *const run[] = {knit, "run", path, "-p",
																		   "x",  "-n",  "1",  NULL};
	const char *const *const commands[] = {info, run};
	const char *name = strrchr(path, '/') + 1;

	for (int i = 0; i < 2; ++i) {
		command_result r;
		const double begin = seconds();
		command_run(commands[i], NULL, &r);
		const double took = seconds() - begin;
		ck_assert_msg(r.code == 1 || (may_be_taken && r.code == 0), "%s %s: exit code %d: %s", commands[i][1], name,
					  r.code, r.err);
		ck_assert_msg(r.code == 0 || command_lines(r.err) == 1, "%s %s: not one line: %s", commands[i][1], name, r.err);
		ck_assert_msg(r.code == 0 || strstr(r.err, name), "%s is not named: %s", name, r.err);
		ck_assert_msg(r.code == 0 || r.out_bytes == 0, "%s: stdout says %s", name, r.out);
		ck_assert_msg(took < 10, "%s took %g s", name, took); /* sanitizers and a busy machine included */
		command_clear(&r);
	}
}

START_TEST(malformed_files) {
	char path[4096];
	int checked = 0;
	cJSON *root, *item;

	if (!test_data(KNIT_TEST_DATA, "robustness/manifest.json", path, sizeof path))
		return;
	root = test_read_json(path);
	cJSON_ArrayForEach(item, root) {
		const char *file = cJSON_GetObjectItem(item, "file")->valuestring;
		const char *expected = cJSON_GetObjectItem(item, "expect")->valuestring;
		snprintf(path, sizeof path, "%s/robustness/%s", KNIT_TEST_DATA, file);
		/* A file that a reader takes is still no model: the command refuses it, too. */
		check_file(path, strncmp(expected, "reject", 6) != 0);
		++checked;
	}
	printf("%d files\n", checked);
	ck_assert_int_gt(checked, 50);
	cJSON_Delete(root);
}
END_TEST

/* Files of other kinds: a text, JSON, a tokenizer, vocabularies without tensors, a LoRA alone. */
START_TEST(foreign_files) {
	static const char *const files[] = {"README.md",
										"golden/perplexity.json",
										"models/stories260K/tok512.bin",
										"models/stories260K/stories260K-q8.ruhai.bin",
										"vocab/ggml-vocab-llama-spm.gguf",
										"vocab/ggml-vocab-gpt-2.gguf",
										"golden/looped-lora/loop_mid3_lora_all_r8.lora.safetensors"};
	char path[4096];

	for (size_t i = 0; i < sizeof files / sizeof *files; ++i)
		if (test_data(KNIT_TEST_DATA, files[i], path, sizeof path))
			check_file(path, false);
}
END_TEST

/* The third-party GGUF cut off anywhere. */
START_TEST(truncated_real_file) {
	char path[4096], cut_path[] = "/tmp/knit-e2e-XXXXXX";
	size_t bytes;

	if (!test_data(KNIT_TEST_DATA, "models/gguf/stories260K-ggml-org.gguf", path, sizeof path))
		return;
	char *data = test_read_file(path, &bytes);
	const int fd = mkstemp(cut_path);
	ck_assert_int_ge(fd, 0);
	close(fd);
	for (size_t cut = 0; cut < bytes; cut = cut < 64 ? cut + 13 : cut + cut / 2) {
		FILE *f = fopen(cut_path, "wb");
		ck_assert_ptr_nonnull(f);
		ck_assert_uint_eq(fwrite(data, 1, cut, f), cut);
		fclose(f);
		check_file(cut_path, false);
	}
	remove(cut_path);
	free(data);
}
END_TEST

START_TEST(separate_head_is_said_to_be_stored_once) {
	char path[4096];
	command_result r;

	if (!test_data(KNIT_TEST_DATA, "models/gguf/stories260K-ggml-org.gguf", path, sizeof path))
		return;
	command_run((const char *const[]){knit, "info", path, NULL}, NULL, &r);
	ck_assert_int_eq(r.code, 0);
	ck_assert_msg(strstr(r.out, "token_embd.weight = output.weight: equal bytes, stored once"), "%s", r.out);
	command_clear(&r);
}
END_TEST

/* Published figures through the command itself. */
START_TEST(command_repeats_golden_figures) {
	char model[4096], stream[4096];
	command_result r;

	if (!test_data(KNIT_TEST_DATA, "golden/stories260K.ppl_ids.u16", stream, sizeof stream) ||
		!test_data(KNIT_TEST_DATA, "models/stories260K/stories260K.bin", model, sizeof model))
		return;
	command_run(
		(const char *const[]){knit, "eval", model, "--ids", stream, "--ctx", "256", "--windows", "4", "--json", NULL},
		NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	cJSON *root = cJSON_Parse(r.out);
	ck_assert_double_eq(cJSON_GetObjectItem(root, "tokens")->valuedouble, 1024);
	ck_assert_double_eq_tol(cJSON_GetObjectItem(root, "nats_per_token")->valuedouble, 1.6, 0.5);
	cJSON_Delete(root);
	command_clear(&r);

	command_run((const char *const[]){knit, "run", model, "-p", "There was a big", "-n", "195", "--sampler", "llama2c",
									  "--temp", "1", "--top-p", "0.95", "--seed", "42", "-q", NULL},
				NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_msg(strncmp(r.out, "There was a big pretty grass. It was a long elephant.", 53) == 0, "%s", r.out);
	command_clear(&r);
	/* A full vocabulary. */
	if (test_data(KNIT_TEST_DATA, "models/gguf/llama-2-tiny-random.gguf", model, sizeof model)) {
		command_run((const char *const[]){knit, "run", model, "-p", "x", "-n", "2", "--temp", "0", NULL}, NULL, &r);
		ck_assert_msg(r.code == 0, "%s", r.err);
		command_clear(&r);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {malformed_files, foreign_files, truncated_real_file,
								  separate_head_is_said_to_be_stored_once, command_repeats_golden_figures};

	const TTest *const quick[] = {command_repeats_golden_figures};

	if (suite_quick())
		return suite_run("robustness", quick, sizeof quick / sizeof *quick);
	return suite_run("robustness", tests, sizeof tests / sizeof *tests);
}
