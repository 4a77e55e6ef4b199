/* Calls of `knit bench` that are wrong end at once with what to do about it, and an interrupted one leaves nothing half written. */
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

START_TEST(wrong_calls) {
	static const struct { const char *words[4]; int code; const char *says; } calls[] = {
		{{"--shape", "foo"}, 2, "is no shape"},
		{{"--shape", "15m,dim=-5"}, 2, "needs a number from 1"},
		{{"--shape", "15m,bogus=1"}, 2, "has no \"bogus\""},
		{{"--shape", "15m,type=q9"}, 2, "no type of weights"},
		{{"--shape", "15m", "extra.gguf"}, 2, "one too many"},
		{{"nowhere.gguf"}, 1, "nowhere.gguf"},
		{{model, "-p", "abc"}, 2, "needs numbers with commas"},
		{{model, "-r", "0"}, 2, "needs a number from 1 to 256"},
		{{model, "--plant-slowdown", "500%"}, 2, "percentage"},
		{{model, "-p0", "-n0"}, 2, "nothing to measure"},
		{{model, "-d0,1,2,3,4,5,6,7,8,9,10,11", "-p1,2,3,4", "-n1,2"}, 2, "72 tests are more than 64"},
		{{model, "--peer", "llama-bench"}, 2, "needs llama-bench=PATH"},
		{{model, "--peer", "llama-bench=/nowhere/llama-bench"}, 1, "/nowhere/llama-bench"},
		{{model, "--device", "gpu7"}, 1, "no device \"gpu7\""},
		/* before anything is measured, which with these options takes minutes */
		{{model, "-r200", "-o", "/nowhere/out.md"}, 1, "/nowhere/out.md"},
		{{model, "-r200", "--html", "/nowhere/out.html"}, 1, "/nowhere/out.html"},
		{{model, "-r200", "--trace", "/tmp"}, 1, "/tmp: Is a directory"},
	};

	for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i) {
		const char *const *const w = calls[i].words;
		command_result r;
		command_run((const char *const[]){knit, "bench", w[0], w[1], w[2], w[3], NULL}, NULL, &r);
		command_check_error(&r, calls[i].code, calls[i].says);
	}
}
END_TEST

/* After a second, in the middle of some test: what was measured is there and whole, no file beside it, no model. */
START_TEST(interrupted) {
	char folder[] = "/tmp/knit-bench-calls-XXXXXX", path[64], name[160];
	command_result r;
	size_t files = 0;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	setenv("TMPDIR", folder, 1);
	snprintf(path, sizeof path, "%s/out.jsonl", folder);
	command_run((const char *const[]){"/usr/bin/timeout", "--preserve-status", "-s", "INT", "2", knit, "bench", "--shape",
	                                  "llama:dim=64,layers=2,heads=2,ff=128,vocab=256", "-p", "256", "-n", "0", "-d", "0,1,2,3,4,5,6,7,8,9", "-r", "200",
	                                  "--seconds", "30", "--no-peaks", "--no-check", "--no-load", "--json", "-o", path, NULL},
	            NULL, &r);
	unsetenv("TMPDIR");
	ck_assert_msg(r.code == 130 || r.code == 0, "%d: %s", r.code, r.err); /* 0: a fast machine was done before */
	DIR *const d = opendir(folder);
	for (const struct dirent *e; (e = readdir(d)) != NULL;) {
		if (e->d_name[0] == '.')
			continue;
		ck_assert_str_eq(e->d_name, "out.jsonl");
		++files;
	}
	closedir(d);
	ck_assert_uint_le(files, 1);
	FILE *const f = files ? fopen(path, "r") : NULL;
	static char line[1 << 16];
	while (f && fgets(line, sizeof line, f)) {
		cJSON *const o = cJSON_Parse(line);
		ck_assert_msg(o && cJSON_GetObjectItem(o, "seconds"), "%.200s", line);
		ck_assert_int_eq(cJSON_IsTrue(cJSON_GetObjectItem(o, "interrupted")), r.code == 130);
		cJSON_Delete(o);
	}
	if (f)
		fclose(f);
	command_clear(&r);
	snprintf(name, sizeof name, "%s/out.jsonl", folder);
	unlink(name);
	ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {wrong_calls, interrupted};

	return suite_run("bench_calls", tests, sizeof tests / sizeof *tests);
}
