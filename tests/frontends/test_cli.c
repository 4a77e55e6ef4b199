/* The knit command as a person meets it: text, figures, JSON, signals, full disks. Runs the
 * built program on the bundled model. */
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static double number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

START_TEST(run_writes_text_and_figures) {
	static const char *const words[] = {"prompt ",  "generated ", "tokens/s", "stored once",          "as visited",
										"adapters", "KV cache",   "arena",    "no plan can be below", "in, out"};
	command_result r, again;

	RUN(&r, NULL, "run", model, "-p", "ROMEO:", "-n", "20", "--seed", "7");
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_int_eq(strncmp(r.out, "ROMEO:", 6), 0);
	ck_assert_uint_ge(r.out_bytes, 6 + 20 + 1); /* the model's tokens are bytes; some may pass as they are */
	ck_assert_int_eq(r.out[r.out_bytes - 1], '\n');
	for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
		ck_assert_msg(strstr(r.err, words[i]) != NULL, "no \"%s\" in: %s", words[i], r.err);

	RUN(&again, NULL, "run", model, "-p", "ROMEO:", "-n", "20", "--seed", "7", "-q", "--threads", "1");
	ck_assert_str_eq(again.out, r.out);
	ck_assert_uint_eq(again.err_bytes, 0);
	command_clear(&again);
	/* The prompt from stdin, with its last newline taken off; -p - says so, a stdin that is no terminal implies it. */
	RUN(&again, "ROMEO:\n", "run", model, "-n", "20", "--seed", "7", "-q");
	ck_assert_str_eq(again.out, r.out);
	command_clear(&again);
	RUN(&again, "ROMEO:", "run", model, "-p", "-", "-n", "20", "--seed", "7", "-q");
	ck_assert_str_eq(again.out, r.out);
	command_clear(&again);
	RUN(&again, NULL, "run", model, "-p", "ROMEO:", "-n", "20", "--seed", "8", "-q");
	ck_assert_str_ne(again.out, r.out);
	command_clear(&again);
	command_clear(&r);
	/* Nothing at all to go on from. */
	RUN(&r, NULL, "run", model, "-n", "5", "--seed", "7");
	ck_assert_int_eq(r.code, 0);
	command_clear(&r);
}
END_TEST

START_TEST(run_says_why_it_stopped) {
	command_result r;

	RUN(&r, NULL, "run", model, "-p", "ROMEO:", "-n", "3");
	ck_assert_ptr_nonnull(strstr(r.err, "3 tokens asked for"));
	command_clear(&r);
	RUN(&r, NULL, "run", model, "-p", "ROMEO:", "-n", "100", "--ctx", "16");
	ck_assert_int_eq(r.code, 0);
	ck_assert_ptr_nonnull(strstr(r.err, "context of 16 positions is full"));
	command_clear(&r);
	RUN(&r, NULL, "run", model, "-p", "ROMEO:", "-n", "100", "--ctx", "16", "--endless", "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "ids")), 100);
	ck_assert_str_eq(cJSON_GetObjectItem(root, "stop")->valuestring, "length");
	cJSON_Delete(root);
}
END_TEST

START_TEST(run_as_json) {
	command_result r;

	RUN(&r, NULL, "run", model, "-p", "JULIET:", "-n", "12", "--temp", "0", "--json", "--ctx", "64");
	cJSON *root = command_check_json(&r), *memory = cJSON_GetObjectItem(root, "memory");
	ck_assert_int_eq(strncmp(cJSON_GetObjectItem(root, "text")->valuestring, "JULIET:", 7), 0);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "prompt_ids")), 7);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "ids")), 12);
	ck_assert_str_eq(cJSON_GetObjectItem(root, "stop")->valuestring, "length");
	ck_assert(cJSON_IsNull(cJSON_GetObjectItem(root, "seed"))); /* greedy: none was used */
	ck_assert(number(cJSON_GetObjectItem(root, "timings"), "decode_tokens_per_s") > 0);
	/* 4 layers visited 3 times: stored once. */
	ck_assert(number(memory, "weight_bytes_by_use") > 2.5 * number(memory, "weight_bytes"));
	ck_assert(number(memory, "adapter_bytes") > 0);
	ck_assert(number(memory, "arena_bytes") >= number(memory, "arena_lower_bound"));
	/* f16 keys and values of 128 for 12 visits and 64 positions */
	ck_assert_double_eq(number(memory, "kv_bytes"), 2.0 * 2 * 128 * 12 * 64);
	cJSON_Delete(root);
	/* The largest seed is printed digit by digit. */
	RUN(&r, NULL, "run", model, "-p", "A", "-n", "1", "--json", "--seed", "18446744073709551615");
	ck_assert_ptr_nonnull(strstr(r.out, "\"seed\":18446744073709551615"));
	command_clear(&r);
}
END_TEST

/* At a high temperature the byte model begins characters that it does not end: none of them is printed half. */
START_TEST(no_half_character_is_printed) {
	char seed[8];
	command_result r;

	for (int i = 1; i <= 8; ++i) {
		snprintf(seed, sizeof seed, "%d", i);
		RUN(&r, NULL, "run", model, "-p", "A", "-n", "30", "--temp", "60", "--top-p", "1", "--seed", seed, "-q");
		ck_assert_msg(r.code == 0, "%s", r.err);
		ck_assert_uint_ge(r.out_bytes, 2);
		ck_assert_msg(((uint8_t)r.out[r.out_bytes - 2] & 0xc0) != 0xc0 || (uint8_t)r.out[r.out_bytes - 2] > 0xf4 ||
						  (uint8_t)r.out[r.out_bytes - 2] < 0xc2,
					  "the text ends with the begin of a character: %02x", (uint8_t)r.out[r.out_bytes - 2]);
		command_clear(&r);
		RUN(&r, NULL, "run", model, "-p", "A", "-n", "30", "--temp", "60", "--top-p", "1", "--seed", seed, "--json");
		cJSON_Delete(command_check_json(&r));
	}
}
END_TEST

START_TEST(ctrl_c_ends_cleanly) {
	const char *const busy[] = {knit, "run", model, "-p", "ROMEO:", "-n", "30000", "--ctx", "32000", NULL};
	const char *const waiting[] = {knit, "run", model, "-p", "-", NULL};
	command_live live;
	command_result r;

	command_start(busy, &live);
	ck_assert_uint_ge(command_wait_output(&live, 20), 20);
	kill(live.pid, SIGINT);
	command_finish(&live, &r);
	ck_assert_msg(r.code == 130, "exit code %d: %s", r.code, r.err);
	ck_assert_msg(strstr(r.err, "interrupted") && strstr(r.err, "KV cache"), "no summary: %s", r.err);
	command_clear(&r);

	command_start(waiting, &live);
	usleep(300000);
	kill(live.pid, SIGINT);
	command_finish(&live, &r);
	ck_assert_msg(r.code == 130, "exit code %d: %s", r.code, r.err);
	command_clear(&r);
}
END_TEST

START_TEST(a_closed_pipe_ends_it_quietly) {
	const char *const busy[] = {knit, "run", model, "-p", "ROMEO:", "-n", "30000", "--ctx", "32000", "-q", NULL};
	command_live live;
	command_result r;

	command_start(busy, &live);
	ck_assert_uint_ge(command_wait_output(&live, 20), 20);
	close(live.out);
	live.out = -1;
	command_finish(&live, &r);
	ck_assert_msg(r.code == 141, "exit code %d: %s", r.code, r.err);
	ck_assert_msg(strstr(r.err, "cannot") == NULL, "%s", r.err);
	command_clear(&r);
}
END_TEST

START_TEST(a_full_disk_is_reported) {
	static const char *const commands[][8] = {
		{knit, "run", model, "-p", "ROMEO:", "-n", "5", NULL},
		{knit, "run", model, "-p", "ROMEO:", "-n5", "--json", NULL},
		{knit, "info", model, NULL},
		{knit, "info", model, "--json", NULL},
		{knit, "graph", model, NULL},
		{knit, "devices", NULL},
		{knit, "--help", NULL},
	};
	command_result r;

	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i) {
		command_run_to(commands[i], "/dev/full", &r);
		ck_assert_msg(r.code == 1, "%s: exit code %d: %s", commands[i][1], r.code, r.err);
		ck_assert_msg(strstr(r.err, "No space left"), "%s: %s", commands[i][1], r.err);
		ck_assert_uint_eq(command_lines(r.err), 1);
		command_clear(&r);
	}
}
END_TEST

START_TEST(info_shows_visits_and_sharing) {
	static const char *const parts[] = {"12 of 4 layers: 0-3x3", "rank 8", "tied", "bytes, 256 tokens",
										"f16"};
	command_result r;

	RUN(&r, NULL, "info", model);
	ck_assert_msg(r.code == 0, "%s", r.err);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i)
		ck_assert_msg(strstr(r.out, parts[i]) != NULL, "no \"%s\" in: %s", parts[i], r.out);
	command_clear(&r);
	RUN(&r, NULL, "info", model, "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "visits")), 12);
	ck_assert_double_eq(number(root, "layers"), 4);
	ck_assert(number(root, "parameters_visited") > 2 * number(root, "parameters_unique"));
	ck_assert_double_eq(number(root, "kv_bytes_per_position_f16"), 2 * 2 * 128 * 12);
	ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(root, "head_tied")));
	cJSON_Delete(root);
	/* Other visits than the model's: what becomes of its LoRA is said. */
	RUN(&r, NULL, "info", model, "--visits", "3,3,0");
	ck_assert_int_eq(r.code, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "3 of 4 layers: 3x2,0"));
	ck_assert_ptr_nonnull(strstr(r.err, "LoRA"));
	command_clear(&r);
	RUN(&r, NULL, "info", model, "--loops", "5");
	ck_assert_ptr_nonnull(strstr(r.out, "20 of 4 layers: 0-3x5"));
	ck_assert_ptr_nonnull(strstr(r.err, "8 more share those of its last"));
	command_clear(&r);
	RUN(&r, NULL, "info", model, "--loops", "2", "--adapter", "none");
	ck_assert_uint_eq(r.err_bytes, 0);
	ck_assert_ptr_null(strstr(r.out, "LoRA"));
	command_clear(&r);
	RUN(&r, NULL, "info", model, "--loops", "2", "--visits", "0-3");
	command_check_error(&r, 1, "give one of them");
	RUN(&r, NULL, "info", model, "--loops", "0");
	command_check_error(&r, 2, "--loops \"0\"");
}
END_TEST

START_TEST(graph_as_text_and_dot) {
	char folder[] = "/tmp/knit-graph-XXXXXX", file[64];
	struct stat st;
	command_result r, to_file;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(file, sizeof file, "%s/g.txt", folder);
	RUN(&r, NULL, "graph", model);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "visit.11.blk.3.ffn_down"));
	ck_assert_ptr_nonnull(strstr(r.out, "blk.0.attn_k.weight"));
	RUN(&to_file, NULL, "graph", model, "-o", file);
	ck_assert_int_eq(to_file.code, 0);
	ck_assert_uint_eq(to_file.out_bytes, 0);
	ck_assert_int_eq(stat(file, &st), 0);
	ck_assert_int_eq(st.st_size, (off_t)r.out_bytes);
	unlink(file);
	ck_assert_msg(rmdir(folder) == 0, "something is left in %s", folder); /* no temporary file stays */
	command_clear(&to_file);
	command_clear(&r);
	/* A device stays a device; a failed write says so. */
	RUN(&r, NULL, "graph", model, "-o", "/dev/full");
	command_check_error(&r, 1, "/dev/full: No space left");
	RUN(&r, NULL, "graph", model, "-o", "/dev/null");
	ck_assert_int_eq(r.code, 0);
	command_clear(&r);
	ck_assert(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
	RUN(&r, NULL, "graph", model, "-o", "/tmp");
	command_check_error(&r, 1, "/tmp: Is a directory");
	RUN(&r, NULL, "graph", model, "--format", "dot");
	ck_assert_int_eq(r.code, 0);
	ck_assert_int_eq(strncmp(r.out, "digraph", 7), 0);
	command_clear(&r);
}
END_TEST

START_TEST(eval_measures) {
	const char text[] = KNIT_SOURCE_DIR "/LICENSE";
	command_result r;

	RUN(&r, NULL, "eval", model, text, "--ctx", "64", "--windows", "3", "--json");
	cJSON *root = command_check_json(&r);
	const double nats = number(root, "nats_per_byte");
	ck_assert_double_eq(number(root, "windows"), 3);
	ck_assert_double_eq(number(root, "tokens"), 3 * 63); /* no BOS: the first of each is context */
	ck_assert_double_eq(number(root, "bytes"), 3 * 63);
	ck_assert_double_eq_tol(nats, number(root, "nats_per_token"), 1e-12);
	ck_assert_double_eq_tol(number(root, "perplexity"), exp(nats), 1e-6 * exp(nats));
	ck_assert(nats > 0.5 && nats < 8 && number(root, "standard_error") > 0);
	cJSON_Delete(root);
	/* The last part begins where it should, and a text on stdin is as good. */
	RUN(&r, "0123456789", "eval", model, "-", "--last-fraction", "0.3", "--json");
	root = command_check_json(&r);
	ck_assert_double_eq(number(root, "tokens"), 2); /* 789 */
	cJSON_Delete(root);
	RUN(&r, NULL, "eval", model, text, "--ctx", "64", "--windows", "2");
	ck_assert_int_eq(r.code, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "nats per byte"));
	ck_assert_uint_eq(r.err_bytes, 0); /* no bar: stderr is no terminal */
	command_clear(&r);
}
END_TEST

START_TEST(devices_are_listed) {
	command_result r;
	bool cpu = false;

	RUN(&r, NULL, "devices");
	ck_assert_int_eq(r.code, 0);
	ck_assert_int_eq(strncmp(r.out, "cpu", 3), 0);
	command_clear(&r);
	RUN(&r, NULL, "devices", "--json");
	cJSON *root = command_check_json(&r), *item;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "devices")) {
		if (strcmp(cJSON_GetObjectItem(item, "id")->valuestring, "cpu") == 0)
			cpu = cJSON_IsTrue(cJSON_GetObjectItem(item, "available"));
	}
	ck_assert(cpu);
	cJSON_Delete(root);
}
END_TEST

START_TEST(a_missing_loader_is_told) {
	command_result r;

	setenv("KNIT_VK_LOADER", "/nonexistent/libvulkan.so", 1);
	RUN(&r, NULL, "devices", "-v");
	unsetenv("KNIT_VK_LOADER");
	ck_assert_int_eq(r.code, 0);
	ck_assert(strstr(r.out, "no Vulkan loader: /nonexistent/libvulkan.so is not installed") ||
	          strstr(r.out, "built without Vulkan"));
	command_clear(&r);
	setenv("KNIT_VK_LOADER", "libm.so.6", 1);
	RUN(&r, NULL, "devices");
	unsetenv("KNIT_VK_LOADER");
	ck_assert(strstr(r.out, "libm.so.6 is no Vulkan loader") || strstr(r.out, "built without Vulkan"));
	command_clear(&r);
}
END_TEST

/* Whatever is known of the Vulkan devices that can be used, in both forms. */
START_TEST(devices_tell_all_that_is_known) {
	command_result r;
	bool usable = false;

	RUN(&r, NULL, "devices", "-v", "--json");
	cJSON *root = command_check_json(&r), *item;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "devices")) {
		const cJSON *const facts = cJSON_GetObjectItem(item, "facts");
		ck_assert(cJSON_IsObject(facts));
		if (strncmp(cJSON_GetObjectItem(item, "id")->valuestring, "vulkan:", 7) != 0 ||
		    !cJSON_IsTrue(cJSON_GetObjectItem(item, "available")))
			continue;
		usable = true;
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetObjectItem(facts, "device"), "driver")));
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetObjectItem(facts, "memory"), "heap 0")));
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetObjectItem(facts, "limits"), "subgroup")));
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetObjectItem(facts, "kernels"), "on")));
	}
	cJSON_Delete(root);
	RUN(&r, NULL, "devices", "-v");
	ck_assert_int_eq(r.code, 0);
	ck_assert(!usable == !strstr(r.out, "shared memory of a group"));
	command_clear(&r);
	if (!usable)
		printf("SKIP: no Vulkan device to tell of\n");
}
END_TEST

START_TEST(examples_run) {
	command_result r;

	command_run((const char *const[]){KNIT_BINARY_DIR "/example-looped_decoder", NULL}, NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "stored once"));
	ck_assert_uint_eq(command_lines(r.out), 2);
	command_clear(&r);
	command_run((const char *const[]){KNIT_BINARY_DIR "/example-mlp", NULL}, NULL, &r);
	ck_assert_msg(r.code == 0, "%s%s", r.out, r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "50 points, 0 in the wrong class"));
	command_clear(&r);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		run_writes_text_and_figures,
		run_says_why_it_stopped,
		run_as_json,
		no_half_character_is_printed,
		ctrl_c_ends_cleanly,
		a_closed_pipe_ends_it_quietly,
		a_full_disk_is_reported,
		info_shows_visits_and_sharing,
		graph_as_text_and_dot,
		eval_measures,
		devices_are_listed,
		a_missing_loader_is_told,
		devices_tell_all_that_is_known,
		examples_run,
	};

	const TTest *const quick[] = {run_writes_text_and_figures, run_as_json, eval_measures, examples_run};

	if (suite_quick())
		return suite_run("cli", quick, sizeof quick / sizeof *quick);
	return suite_run("cli", tests, sizeof tests / sizeof *tests);
}
