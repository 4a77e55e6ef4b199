/* `knit bench compare`: verdicts from made-up runs, files that are no results, and what `knit bench --json` writes. */
#include "../../bench/compare.h"
#include "../tools/bytes.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, ...) command_run((const char *const[]){knit, "bench", __VA_ARGS__, NULL}, NULL, result)

/* A row of `runs` runs of 100 tokens, about `seconds` each, spread evenly by 2 %. */
static void put_row(bytes *b, const char *test, const char *folder, int made, double seconds, int runs, const char *more) {
	char text[600];

	snprintf(text, sizeof text,
	         "{\"schema\":\"knit.bench/1\",\"model\":\"%s/m.gguf\",\"subject\":\"knit cpu\",\"kv\":\"f16\",\"test\":\"%s\",\"prompt\":0,"
	         "\"made\":%d,\"depth\":0,\"threads\":2,\"batch\":512,\"machine\":\"a\"%s,\"seconds\":[",
	         folder, test, made, more);
	bytes_text(b, text);
	for (int i = 0; i < runs; ++i) {
		snprintf(text, sizeof text, "%s%.9f", i ? "," : "", seconds * (1 + 0.02 * (i - (runs - 1) / 2.0) / runs));
		bytes_text(b, text);
	}
	bytes_text(b, "]}\n");
}

static void read_back(const bytes *b, bench_results *out) {
	knit_diag d = {0};

	ck_assert_msg(bench_results_read("made up", (const char *)b->data, b->count, out, &d) == KNIT_OK, "%s", d.text);
}

START_TEST(verdicts) {
	static const struct { double seconds; int runs; const char *more; bench_verdict verdict; bool fails; } cases[] = {
		{1.0, 10, "", BENCH_SAME, false},
		{1.005, 10, "", BENCH_SAME, false},
		{1.05, 10, "", BENCH_SLOWER, true}, /* the planted slowdown */
		{1.025, 10, "", BENCH_SLOWER, false}, /* significant, but within 3 % */
		{0.95, 10, "", BENCH_FASTER, false},
		{2.0, 4, "", BENCH_TOO_FEW, false},
		{0.5, 10, ",\"check\":{\"nmse\":0.5,\"wrong\":true}", BENCH_WRONG, true}, /* fast and wrong */
		{0.5, 10, ",\"check\":{\"nmse\":1e-9,\"wrong\":false}", BENCH_FASTER, false},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		bytes old = {0}, new = {0};
		bench_results a, b;
		bench_change c[2];
		put_row(&old, "decode 100", "/old", 100, 1, 10, "");
		put_row(&new, "decode 100", "/elsewhere", 100, cases[i].seconds, cases[i].runs, cases[i].more);
		read_back(&old, &a);
		read_back(&new, &b);
		ck_assert_uint_eq(bench_compare(&a, &b, c), 1);
		ck_assert_msg(c[0].verdict == cases[i].verdict, "case %zu: verdict %d", i, (int)c[0].verdict);
		ck_assert_msg(bench_change_fails(&c[0], 0.03) == cases[i].fails, "case %zu", i);
		ck_assert_double_eq_tol(c[0].ratio.median, 1 / cases[i].seconds, 1e-3 / cases[i].seconds);
		bench_results_clear(&a);
		bench_results_clear(&b);
		bytes_clear(&old);
		bytes_clear(&new);
	}
}
END_TEST

/* A machine whose memory was slower: what that explains is no difference, where memory binds. */
START_TEST(drift) {
	static const struct { const char *bound, *old_read, *new_read; double seconds; bench_verdict verdict; } cases[] = {
		{"memory", "50", "50", 1.1, BENCH_SLOWER},
		{"memory", "50", "46", 1.08, BENCH_SAME}, /* within the tenth that memory may change */
		{"memory", "50", "44", 1.1, BENCH_MACHINE},
		{"memory", "50", "44", 1.2, BENCH_SLOWER},
		{"memory", "50", "60", 1.1, BENCH_SLOWER}, /* it should have been faster */
		{"memory", "50", "60", 0.9, BENCH_MACHINE},
		{"memory", "50", "60", 1, BENCH_MACHINE}, /* a slower program may hide behind it */
		{"memory", "50", "60", 0.7, BENCH_FASTER},
		{"compute", "50", "46", 1.05, BENCH_SLOWER},
		{"compute", "50", "44", 1.1, BENCH_MACHINE}, /* no more than memory changed by */
		{"compute", "50", "57", 1.1, BENCH_MACHINE},
		{"compute", "50", "44", 1.2, BENCH_SLOWER},
		{"compute", "50", "44", 1, BENCH_SAME},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		bytes old = {0}, new = {0};
		bench_results a, b;
		bench_change c[2];
		char more[128];
		snprintf(more, sizeof more, ",\"bound_by\":\"%s\",\"peaks\":{\"read_gb_per_s\":%s}", cases[i].bound, cases[i].old_read);
		put_row(&old, "decode 100", "", 100, 1, 10, more);
		snprintf(more, sizeof more, ",\"bound_by\":\"%s\",\"peaks\":{\"read_gb_per_s\":%s}", cases[i].bound, cases[i].new_read);
		put_row(&new, "decode 100", "", 100, cases[i].seconds, 10, more);
		read_back(&old, &a);
		read_back(&new, &b);
		ck_assert_uint_eq(bench_compare(&a, &b, c), 1);
		ck_assert_msg(c[0].verdict == cases[i].verdict, "case %zu: verdict %d", i, (int)c[0].verdict);
		bench_results_clear(&a);
		bench_results_clear(&b);
		bytes_clear(&old);
		bytes_clear(&new);
	}
}
END_TEST

/* A difference counts for nothing where other programs took of the machine in either run. */
START_TEST(others) {
	static const struct { const char *old, *new; double seconds; bench_verdict verdict; } cases[] = {
		{"0.01", "0.02", 1.5, BENCH_SLOWER},
		{"0.01", "0.39", 1.5, BENCH_MACHINE},
		{"0.39", "0.01", 0.7, BENCH_MACHINE},
		{"0.01", "0.39", 1, BENCH_SAME},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		bytes text[2] = {{0}, {0}};
		bench_results r[2];
		bench_change c[2];
		for (int k = 0; k < 2; ++k) {
			char more[64];
			snprintf(more, sizeof more, ",\"others_share\":%s", k ? cases[i].new : cases[i].old);
			put_row(&text[k], "decode 100", "", 100, k ? cases[i].seconds : 1, 10, more);
			read_back(&text[k], &r[k]);
		}
		ck_assert_uint_eq(bench_compare(&r[0], &r[1], c), 1);
		ck_assert_msg(c[0].verdict == cases[i].verdict, "case %zu: verdict %d", i, (int)c[0].verdict);
		for (int k = 0; k < 2; ++k) {
			bench_results_clear(&r[k]);
			bytes_clear(&text[k]);
		}
	}
}
END_TEST

/* What binds is looked at: a cache that holds what a token reads, arithmetic, the cost of a step. */
START_TEST(what_binds_counts) {
	static const struct { const char *bound, *unique; const char *old, *new; const char *limit; bench_verdict verdict; } cases[] = {
		{"memory", "1e6", "80", "40", "last-level cache", BENCH_MACHINE},
		{"memory", "1e6", "80", "78", "last-level cache", BENCH_SAME},
		{"memory", "1e3", "80", "40", "first cache", BENCH_SAME}, /* another cache's */
		{"memory", "1e9", "80", "40", "memory", BENCH_SAME},
		{"compute", "1e6", "80", "40", "arithmetic", BENCH_SAME},
		{"launch", "1e6", "80", "40", "empty step", BENCH_SAME},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		bytes text[2] = {{0}, {0}};
		bench_results r[2];
		bench_change c[2];
		for (int k = 0; k < 2; ++k) {
			char more[500];
			snprintf(more, sizeof more,
			         ",\"bound_by\":\"%s\",\"per_token\":{\"weight_bytes_unique\":%s,\"state_bytes\":10},\"peaks\":{\"read_gb_per_s\":50,"
			         "\"host_read_gb_per_s\":50,\"compute_gflop_per_s\":100,\"step_s\":1e-7,\"host_caches\":[{\"bytes\":16384,\"read_gb_per_s\":500},"
			         "{\"bytes\":262144,\"read_gb_per_s\":300},{\"bytes\":4194304,\"read_gb_per_s\":%s}]}",
			         cases[i].bound, cases[i].unique, k ? cases[i].new : cases[i].old);
			put_row(&text[k], "decode 100", "", 100, 1, 10, more);
			read_back(&text[k], &r[k]);
		}
		ck_assert_str_eq(r[0].rows[0].limit, cases[i].limit);
		ck_assert_uint_eq(bench_compare(&r[0], &r[1], c), 1);
		ck_assert_msg(c[0].verdict == cases[i].verdict, "case %zu: verdict %d", i, (int)c[0].verdict);
		ck_assert(!bench_change_fails(&c[0], 0));
		for (int k = 0; k < 2; ++k) {
			bench_results_clear(&r[k]);
			bytes_clear(&text[k]);
		}
	}
}
END_TEST

/* Another depth, length or thread count is another test. */
START_TEST(gone_and_added) {
	bytes old = {0}, new = {0};
	bench_results a, b;
	bench_change c[4];

	put_row(&old, "decode 100", "", 100, 1, 10, "");
	put_row(&old, "decode 50", "", 50, 1, 10, "");
	put_row(&new, "decode 100", "", 100, 1, 10, "");
	put_row(&new, "decode 200", "", 200, 1, 10, "");
	read_back(&old, &a);
	read_back(&new, &b);
	ck_assert_uint_eq(bench_compare(&a, &b, c), 3);
	ck_assert(c[0].verdict == BENCH_SAME && c[1].verdict == BENCH_ADDED && c[2].verdict == BENCH_GONE);
	ck_assert(!bench_change_fails(&c[1], 0) && bench_change_fails(&c[2], 0));
	bench_results_clear(&a);
	bench_results_clear(&b);
	bytes_clear(&old);
	bytes_clear(&new);
}
END_TEST

static void write_file(const char *path, const char *text, size_t count) {
	FILE *const f = fopen(path, "wb");

	ck_assert(f && fwrite(text, 1, count, f) == count && fclose(f) == 0);
}

START_TEST(wrong_files) {
	static const struct { const char *text, *says; } wrong[] = {
		{"", "no results"},
		{"\n\n", "no results"},
		{"hello\n", "line 1: no JSON object"},
		{"[1]\n", "line 1: no JSON object"},
		{"{\"a\":1}\n", "schema is not there"},
		{"{\"schema\":\"knit.bench/2\"}\n", "schema is knit.bench/2"},
		{"{\"schema\":\"knit.bench/1\"}\n", "\"model\""},
		{"{\"schema\":\"knit.bench/1\",\"model\":\"m\",\"subject\":\"s\",\"kv\":\"f16\",\"test\":\"t\",\"prompt\":-1}\n", "\"prompt\""},
	};
	char good_path[64], path[64];
	command_result r;
	bytes good = {0};

	snprintf(good_path, sizeof good_path, "/tmp/knit-compare-good-%ld", (long)getpid());
	snprintf(path, sizeof path, "/tmp/knit-compare-%ld", (long)getpid());
	put_row(&good, "decode 100", "", 100, 1, 10, "");
	write_file(good_path, (const char *)good.data, good.count);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
		write_file(path, wrong[i].text, strlen(wrong[i].text));
		RUN(&r, "compare", good_path, path);
		command_check_error(&r, 1, wrong[i].says);
	}
	/* Cut anywhere: either a line that is whole, or refused. */
	for (size_t cut = 1; cut + 2 < good.count; cut += 37) {
		bench_results out;
		knit_diag d = {0};
		ck_assert_int_eq(bench_results_read("cut", (const char *)good.data, cut, &out, &d), KNIT_ERR_FORMAT);
		ck_assert(d.text[0] && out.count == 0);
	}
	bytes_text(&good, (const char[]){"{\"schema\":\"knit.bench/1\"}\n"});
	write_file(path, (const char *)good.data, good.count);
	RUN(&r, "compare", path, good_path);
	command_check_error(&r, 1, "line 2");
	RUN(&r, "compare", good_path);
	command_check_error(&r, 2, "two files");
	RUN(&r, "compare", good_path, good_path, "--fail-if", "much");
	command_check_error(&r, 2, "percentage");
	RUN(&r, "compare", good_path, "/nowhere/at/all");
	command_check_error(&r, 1, "/nowhere/at/all");
	unlink(path);
	unlink(good_path);
	bytes_clear(&good);
}
END_TEST

START_TEST(exit_codes) {
	char old_path[64], new_path[64];
	command_result r;
	bytes old = {0}, new = {0};

	snprintf(old_path, sizeof old_path, "/tmp/knit-compare-old-%ld", (long)getpid());
	snprintf(new_path, sizeof new_path, "/tmp/knit-compare-new-%ld", (long)getpid());
	put_row(&old, "decode 100", "", 100, 1, 10, "");
	put_row(&new, "decode 100", "", 100, 1.05, 10, "");
	write_file(old_path, (const char *)old.data, old.count);
	write_file(new_path, (const char *)new.data, new.count);
	const struct { const char *first, *second, *limit; int code; const char *says; } calls[] = {
		{old_path, new_path, "3%", 1, "SLOWER by 4.8 %  FAILS"},
		{old_path, new_path, "10", 0, "SLOWER by 4.8 %\n"},
		{new_path, old_path, "3%", 0, "faster by 5.0 %"},
		{old_path, old_path, "0", 0, "no difference"},
	};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i) {
		RUN(&r, "compare", calls[i].first, calls[i].second, "--fail-if", calls[i].limit);
		ck_assert_int_eq(r.code, calls[i].code);
		ck_assert_msg(strstr(r.out, calls[i].says) != NULL, "%s", r.out);
		ck_assert_uint_eq(r.err_bytes, 0);
		command_clear(&r);
	}
	RUN(&r, "compare", old_path, new_path);
	ck_assert(r.code == 0 && strstr(r.out, "warning") == NULL);
	command_clear(&r);
	/* What makes the comparison worth less is said. */
	bytes_clear(&new);
	put_row(&new, "decode 100", "", 100, 1, 10, ",\"others_share\":0.3,\"clock_loop_after_s\":1.2");
	write_file(new_path, (const char *)new.data, new.count);
	bytes_clear(&old);
	put_row(&old, "decode 100", "", 100, 1, 10, ",\"clock_loop_after_s\":1");
	write_file(old_path, (const char *)old.data, old.count);
	RUN(&r, "compare", old_path, new_path);
	ck_assert_msg(strstr(r.out, "in the old run, 30 % in the new one") && strstr(r.out, "20 % longer"), "%s", r.out);
	command_clear(&r);
	/* A fifth slower is the machine and not the program: neither good nor bad, and CI can know. */
	RUN(&r, "compare", old_path, new_path, "--fail-if", "3%");
	ck_assert_int_eq(r.code, 3);
	ck_assert_msg(strstr(r.out, "CANNOT TELL: the machine, 0.83 x in its clock") && strstr(r.out, "take turns in one run"), "%s", r.out);
	command_clear(&r);
	unlink(old_path);
	unlink(new_path);
	bytes_clear(&old);
	bytes_clear(&new);
}
END_TEST

static double number(const cJSON *o, const char *name) {
	const cJSON *const item = cJSON_GetObjectItem(o, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

/* Single ops are compared, too; a case that a device has no kernel for has no runs. */
START_TEST(ops) {
	static const char rows[] =
		"{\"schema\":\"knit.ops/1\",\"op\":\"linear\",\"operands\":\"q8_0, 64 x 64, 1 token\",\"device\":\"cpu\",\"threads\":1,"
		"\"seconds\":[1e-6,1e-6,1e-6,1e-6,1e-6]}\n"
		"{\"schema\":\"knit.ops/1\",\"op\":\"linear\",\"operands\":\"q8_0, 64 x 64, 1 token\",\"device\":\"vulkan:0\",\"threads\":1,"
		"\"seconds\":[]}\n";
	const bytes b = {.data = (uint8_t *)(uintptr_t)rows, .count = sizeof rows - 1};
	bench_results a;
	bench_change c[4];

	read_back(&b, &a);
	ck_assert_uint_eq(bench_compare(&a, &a, c), 2);
	ck_assert(c[0].verdict == BENCH_SAME && c[1].verdict == BENCH_TOO_FEW);
	ck_assert_double_eq_tol(c[0].new_rate.median, 1e6, 1);
	ck_assert_str_eq(c[1].new->subject, "vulkan:0");
	bench_results_clear(&a);
}
END_TEST

/* Every column is there and holds what it says; no time is asked to be anything but positive. */
START_TEST(rows_are_complete) {
	static const char *const texts[] = {"date", "commit", "machine", "system", "flags", "model", "kv", "subject", "version",
	                                    "device", "driver", "test", "bound_by"};
	static const char *const positive[] = {"threads", "file_bytes", "batch", "clock_loop_before_s", "clock_loop_after_s", "load_s",
	                                       "first_token_cold_s", "first_token_warm_s", "gb_per_s", "gflop_per_s"};
	char path[64];
	command_result r;
	unsigned lines = 0;

	snprintf(path, sizeof path, "/tmp/knit-bench-%ld.jsonl", (long)getpid());
	RUN(&r, model, "-p", "8", "-n", "4", "-d", "0,16", "-r", "5", "--seconds", "1", "--threads", "1", "--device", "cpu",
	    "--no-peaks", "--json", "-o", path);
	ck_assert_msg(r.code == 0 && r.out_bytes == 0, "%s", r.err);
	command_clear(&r);
	RUN(&r, "compare", path, path, "--fail-if", "0");
	ck_assert_msg(r.code == 0 && strstr(r.out, "4 without a difference"), "%s%s", r.out, r.err);
	command_clear(&r);

	FILE *const f = fopen(path, "rb");
	char line[16384];
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f)) {
		cJSON *const o = cJSON_Parse(line);
		ck_assert(cJSON_IsObject(o));
		for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i)
			ck_assert_msg(cJSON_IsString(cJSON_GetObjectItem(o, texts[i])), "%s is no text", texts[i]);
		for (size_t i = 0; i < sizeof positive / sizeof *positive; ++i)
			ck_assert_msg(number(o, positive[i]) > 0, "%s is not positive", positive[i]);
		ck_assert(number(o, "first_token_cold_s") > number(o, "load_s"));
		const cJSON *const check = cJSON_GetObjectItem(o, "check"), *const memory = cJSON_GetObjectItem(o, "memory");
		ck_assert(number(check, "nmse") >= 0 && number(check, "nmse") < 1e-4 && number(check, "top1") > 0.7);
		ck_assert(number(check, "rows") >= 5 && cJSON_IsFalse(cJSON_GetObjectItem(check, "wrong")));
		ck_assert(number(memory, "weight_bytes") > 0 && number(memory, "arena_bytes") > 0 && number(memory, "state_bytes") > 0);
		ck_assert_int_ge(cJSON_GetArraySize(cJSON_GetObjectItem(o, "seconds")), 1);
		cJSON_Delete(o);
		++lines;
	}
	fclose(f);
	ck_assert_uint_eq(lines, 4);
	unlink(path);
}
END_TEST

/* Another seed of the same shape is another model: its logits must be found to be wrong. */
START_TEST(the_check_can_fail) {
	bench_knit_desc desc = {.path = model, .device = "cpu", .threads = 1, .max_depth = 32, .batch = 8};
	bench_reference *right;
	bench_subject *s;
	knit_diag d = {0};

	ck_assert_msg(bench_reference_make(&desc, &right, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(bench_knit_open(&desc, &s, &d), KNIT_OK);
	ck_assert_int_eq(bench_reference_check(right, s, &d), KNIT_OK);
	ck_assert(!bench_is_wrong(s) && s->check.top1 > 0.7);
	s->kind->close(s);
	desc.loops = 1; /* fewer visits: the same vocabulary, another function */
	ck_assert_int_eq(bench_knit_open(&desc, &s, &d), KNIT_OK);
	ck_assert_int_eq(bench_reference_check(right, s, &d), KNIT_OK);
	ck_assert(bench_is_wrong(s));
	s->kind->close(s);
	bench_reference_free(right);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {verdicts, drift, others, what_binds_counts, gone_and_added, wrong_files, exit_codes, ops, rows_are_complete, the_check_can_fail};

	return suite_run("bench_compare", tests, (int)(sizeof tests / sizeof tests[0]));
}
