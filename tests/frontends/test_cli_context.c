/* knit run --save and --load, --memory and --kv, as a person meets them. Runs the built program on the bundled model. */
#include "../tools/command.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";
static char folder[] = "/tmp/knit-context-XXXXXX", path[64];

#define RUN(result, ...) command_run((const char *const[]){knit, "run", model, __VA_ARGS__, NULL}, NULL, result)
/* The context is longer than what the model was made for: the note about it is not what is tested. */
#define LONG "--ctx", "460", "--temp", "0", "-q"

/* A text of `bytes` bytes, which are the bundled model's tokens. */
static const char *text_of(size_t bytes) {
	static const char words[] = "Who comes here to speak of kings? A friend, my lord, and bears a message from the sea.\n";
	static char text[512];

	for (size_t i = 0; i < bytes; ++i)
		text[i] = words[i % (sizeof words - 1)];
	text[bytes] = '\0';
	return text;
}

static void setup(void) {
	strcpy(folder, "/tmp/knit-context-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/context", folder);
}

static int files_there(void) {
	DIR *d = opendir(folder);
	int n = 0;

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void teardown(void) {
	char command[80];

	snprintf(command, sizeof command, "rm -r %s", folder);
	ck_assert_int_eq(system(command), 0);
}

/* 300 tokens read once, kept, brought back: the same text as in one go. In slots of every kind, a ring that has gone round
 * among them. */
START_TEST(a_long_context_goes_on_the_same) {
	static const char *const specs[] = {"f16", "k=q8_0,v=q4_0", "first,f32", "group:2,q8_0", "window=100,sinks=4,k=q4_0,v=bf16"};
	const char *text = text_of(300);
	command_result whole, saved, rest;

	for (size_t i = 0; i < sizeof specs / sizeof *specs; ++i) {
		RUN(&whole, "-p", text, "-n", "60", "--kv", specs[i], LONG);
		ck_assert_msg(whole.code == 0 && whole.out_bytes == 361, "%s", whole.err);
		RUN(&saved, "-p", text, "-n", "0", "--kv", specs[i], LONG, "--save", path);
		ck_assert_msg(saved.code == 0, "%s", saved.err);
		ck_assert_int_eq(files_there(), 1);
		for (int again = 0; again < 2; ++again) {
			RUN(&rest, "-n", "60", "--kv", specs[i], LONG, "--load", path);
			ck_assert_msg(rest.code == 0, "%s", rest.err);
			ck_assert_msg(strcmp(rest.out, whole.out + 300) == 0, "%s: \"%s\", not \"%s\"", specs[i], rest.out, whole.out + 300);
			command_clear(&rest);
		}
		/* Kept in the middle of the new text, and gone on from there with a word more. */
		command_clear(&saved);
		RUN(&saved, "-p", text, "-n", "25", "--kv", specs[i], LONG, "--save", path);
		RUN(&rest, "-n", "35", "--kv", specs[i], LONG, "--load", path, "--save", path);
		ck_assert_str_eq(rest.out, whole.out + 325);
		command_clear(&rest);
		RUN(&rest, "-n", "5", "--kv", specs[i], LONG, "--load", path, "-p", "Then");
		ck_assert_msg(rest.code == 0 && strncmp(rest.out, "Then", 4) == 0 && rest.out_bytes == 10, "%s%s", rest.out, rest.err);
		command_clear(&rest);
		command_clear(&saved);
		command_clear(&whole);
	}
}
END_TEST

START_TEST(foreign_contexts_are_refused) {
	command_result r;
	size_t bytes;

	RUN(&r, "-p", text_of(40), "-n", "0", "--save", path, "-q");
	ck_assert_int_eq(r.code, 0);
	command_clear(&r);
	RUN(&r, "--load", path, "--adapter", "none", "-n", "3", "-q");
	command_check_error(&r, 1, "saved by another model, or with another adapter");
	RUN(&r, "--load", path, "--kv", "q8_0", "-n", "3", "-q");
	command_check_error(&r, 1, "another type or shape (f16 there, q8_0 here)");
	RUN(&r, "--load", path, "--kv", "layer", "-n", "3", "-q");
	command_check_error(&r, 1, "that this model lacks");
	RUN(&r, "--load", path, "--ctx", "39", "-n", "3", "-q");
	command_check_error(&r, 1, "holds 40 positions, this session has room for 39");
	RUN(&r, "--load", model, "-n", "3", "-q");
	command_check_error(&r, 1, "another kind of file");
	RUN(&r, "--load", "/nowhere", "-n", "3", "-q");
	command_check_error(&r, 1, "/nowhere: No such file");
	RUN(&r, "-p", "A", "-n", "3", "-q", "--save", "/nowhere/x", "--json");
	ck_assert(r.code == 1 && strstr(r.err, "/nowhere/x") != NULL);
	command_clear(&r);
	RUN(&r, "-p", "A", "--endless", "--save", path);
	command_check_error(&r, 2, "--endless");

	char *const data = test_read_file(path, &bytes);
	FILE *f = fopen(path, "wb");
	ck_assert_uint_eq(fwrite(data, 1, bytes - 100, f), bytes - 100);
	fclose(f);
	free(data);
	RUN(&r, "--load", path, "-n", "3", "-q");
	command_check_error(&r, 1, "is cut");
}
END_TEST

/* Ctrl-C while text is made: what there is is kept, whole; while the prompt is read: the file stays as it was. */
START_TEST(ctrl_c_leaves_whole_files) {
	const char *const busy[] = {knit, "run", model, "-p", "ROMEO:", "-n", "30000", "--ctx", "32000", "--save", path, NULL};
	command_live live;
	command_result r;

	command_start(busy, &live);
	ck_assert_uint_ge(command_wait_output(&live, 20), 20);
	kill(live.pid, SIGINT);
	command_finish(&live, &r);
	ck_assert_msg(r.code == 130 && strstr(r.err, "saved") != NULL, "exit code %d: %s", r.code, r.err);
	command_clear(&r);
	ck_assert_int_eq(files_there(), 1);
	RUN(&r, "--load", path, "--ctx", "32000", "-n", "3", "-q");
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
}
END_TEST

static double seconds(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Killed at many moments of a run that saves: the context that was there before is there, or the new one. */
START_TEST(kills_leave_the_old_context) {
	char *const text = strdup(text_of(200)); /* text_of has one buffer */
	const char *const long_run[] = {knit, "run", model, "-p", text, "-n", "0", "--ctx", "460", "-q", "--save", path, NULL};
	command_live live;
	command_result r;
	int old = 0;

	const double begin = seconds();
	command_run(long_run, NULL, &r);
	const double whole = seconds() - begin;
	ck_assert_int_eq(r.code, 0);
	command_clear(&r);
	RUN(&r, "-p", text_of(30), "-n", "0", LONG, "--save", path);
	command_clear(&r);
	for (int round = 0; round < 25; ++round) {
		/* Saving is at the end of a run, so there most of the moments lie. */
		command_start(long_run, &live);
		usleep((useconds_t)(whole * 1e6 * (round < 5 ? round / 5.0 : 0.8 + 0.015 * (round - 5))));
		kill(live.pid, SIGKILL);
		command_finish(&live, &r);
		command_clear(&r);
		RUN(&r, "--load", path, "-n", "2", LONG, "--json");
		ck_assert_msg(r.code == 0, "%s", r.err);
		cJSON *root = cJSON_Parse(r.out);
		const int count = cJSON_GetArraySize(cJSON_GetObjectItem(root, "prompt_ids"));
		ck_assert(count == 30 || count == 200);
		old += count == 30;
		cJSON_Delete(root);
		command_clear(&r);
	}
	printf("killed 25 times in up to 1.1 times of the %.0f ms of a run; the old context was still there after %d of them, the new one after the others\n", whole * 1e3, old);
	ck_assert_int_ge(old, 1);
	free(text);
}
END_TEST

static double number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

START_TEST(memory_is_kept_to) {
	command_result r;

	RUN(&r, "-p", "A", "-n", "2", "--memory", "4M", "--json", "-q");
	ck_assert_msg(r.code == 0, "%s", r.err);
	cJSON *root = cJSON_Parse(r.out);
	const double fits = number(root, "context_that_fits");
	ck_assert(fits > 1 && number(root, "memory_limit") == 4 << 20);
	ck_assert(number(root, "context") == (fits < 256 ? fits : 256));
	cJSON_Delete(root);
	command_clear(&r);

	char ctx[32];
	snprintf(ctx, sizeof ctx, "%.0f", fits);
	RUN(&r, "-p", "A", "-n", "2", "--memory", "4M", "--ctx", ctx);
	ck_assert_msg(r.code == 0 && strstr(r.err, "of 4.00 MiB"), "%s", r.err);
	command_clear(&r);
	snprintf(ctx, sizeof ctx, "%.0f", fits + 1);
	RUN(&r, "-p", "A", "-n", "2", "--memory", "4M", "--ctx", ctx);
	ck_assert_int_eq(r.code, 1);
	ck_assert_uint_eq(r.out_bytes, 0);
	ck_assert_msg(strstr(r.err, "positions fit") && strstr(r.err, "weights") && strstr(r.err, "KV cache") &&
					  strstr(r.err, "arena") && strstr(r.err, "sum"),
				  "%s", r.err);
	command_clear(&r);
	RUN(&r, "-p", "A", "--memory", "1M");
	ck_assert(r.code == 1 && strstr(r.err, "not even one position fits") != NULL);
	command_clear(&r);
	RUN(&r, "-p", "A", "--memory", "4Q");
	command_check_error(&r, 2, "--memory \"4Q\"");
	RUN(&r, "-p", "A", "--memory", "0");
	command_check_error(&r, 2, "--memory \"0\"");
	RUN(&r, "-p", "A", "--kv", "first,sinks=3");
	command_check_error(&r, 2, "sinks=3 needs a window");
}
END_TEST

START_TEST(info_tells_the_slots) {
	static const struct { const char *spec; double slots, bytes; } rows[] = {
		{"f16", 12, 12 * 512.0},      {"layer,f32", 4, 4 * 1024.0},  {"first,q8_0", 4, 4 * 2 * 136.0},
		{"group:2,k=q4_0", 6, 6 * (72.0 + 256)}, {"group:4,bf16,window=9", 3, 3 * 512.0},
	};
	command_result r;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		command_run((const char *const[]){knit, "info", model, "--kv", rows[i].spec, "--json", NULL}, NULL, &r);
		cJSON *root = command_check_json(&r);
		ck_assert_double_eq(number(root, "kv_slots"), rows[i].slots);
		ck_assert_double_eq(number(root, "kv_bytes_per_position"), rows[i].bytes);
		cJSON_Delete(root);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {a_long_context_goes_on_the_same, foreign_contexts_are_refused, ctrl_c_leaves_whole_files,
								  kills_leave_the_old_context, memory_is_kept_to, info_tells_the_slots};
	Suite *const s = suite_create("cli_context");
	TCase *const c = tcase_create("all");

	tcase_set_timeout(c, 0);
	tcase_add_checked_fixture(c, setup, teardown);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	return suite_finish(s, CK_NOFORK);
}
