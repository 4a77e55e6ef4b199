/* What is said of a run: warnings, what binds, and that each form has all its columns. */
#include "../../bench/rows.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bench_subject subjects[2];
static bench_row rows[4];

/* Two subjects at 100 and 50 tokens per second, 1e9 bytes and 1e9 FLOP each, peaks of 200. */
static bench_run made(void) {
	bench_run run = {.machine = "a, \"b\"", .system = "s", .commit = "c", .date = "d", .model = "m,x=1", .flags = "-p 1", .kv = "f16",
	                 .threads = 2, .batch = 512, .rows = rows, .row_count = 4,
	                 .peaks = {.read_gbps = 200, .copy_gbps = 100, .f32_gflops = 400, .int8_gops = 1000}};

	for (int i = 0; i < 2; ++i) {
		subjects[i] = (bench_subject){.on_host = true, .load_seconds = 0.5, .first_cold = 0.25, .first_warm = 0.1,
		                              .memory = {.weight_bytes = 1000}, .check = {.rows = 5, .nmse = 1e-6, .top1 = 0.8, .reference = "r"}};
		snprintf(subjects[i].name, sizeof subjects[i].name, "s%d", i);
	}
	for (int i = 0; i < 4; ++i) {
		double rates[10], firsts[10];
		rows[i] = (bench_row){.subject = &subjects[i % 2], .count = 10, .steady = true, .cost = {.flops = 1e9, .weight_bytes = 1e9, .steps = 10}};
		rows[i].test = i < 2 ? (bench_test){.prompt = 8} : (bench_test){.made = 8, .depth = 16};
		for (int k = 0; k < 10; ++k) {
			rates[k] = (i % 2 ? 50 : 100) * (1 + 0.001 * k);
			firsts[k] = 100 * (1 + 0.001 * k);
			rows[i].seconds[k] = 8 / rates[k];
		}
		bench_stats_of(rates, 10, 1, &rows[i].rate);
		if (i % 2)
			bench_ratio_of(rates, 10, firsts, 10, 1, &rows[i].ratio);
	}
	return run;
}

static bool warned(const bench_run *run, const char *part) {
	char warnings[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES];
	const size_t count = bench_warnings(run, warnings);

	for (size_t i = 0; i < count; ++i)
		if (strstr(warnings[i], part))
			return true;
	return false;
}

START_TEST(warnings) {
	char all[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES];
	bench_run run = made();

	run.clock_before = 1;
	run.clock_after = 1.01;
	ck_assert_uint_eq(bench_warnings(&run, all), 0);
	run.busy = 0.5;
	ck_assert(warned(&run, "other processes took 50 %"));
	run.clock_after = 1.2;
	ck_assert(warned(&run, "20 % slower at the end"));
	run.clock_after = 0.8;
	ck_assert(warned(&run, "20 % faster at the end"));
	rows[1].rate.mad = 0.1 * rows[1].rate.median;
	ck_assert(warned(&run, "prefill 8, s1: runs spread by 10 %"));
	rows[2].rate.outliers = 2;
	ck_assert(warned(&run, "decode 8 @ 16, s0: 2 of 10 runs lie far"));
	rows[3].count = 4;
	ck_assert(warned(&run, "decode 8 @ 16, s1: 4 runs say little"));
	subjects[1].check.nmse = 0.1;
	ck_assert(warned(&run, "s1 computes something else"));
	subjects[1].check.nmse = NAN;
	ck_assert(warned(&run, "s1 computes something else") && bench_is_wrong(&subjects[1]));
	ck_assert_uint_eq(bench_warnings(&run, all), 6); /* each once */
	run.planted = 0.05;
	ck_assert(warned(&run, "5 % slower on purpose"));
	run.cached_after_drop = 1;
	ck_assert(warned(&run, "kept 100 % of the file"));
	run.peaks.read_gbps_first = 150;
	ck_assert(warned(&run, "read at 150 GB/s at one end of the run and at 200"));
	run.peaks.read_gbps_first = 190;
	ck_assert(!warned(&run, "GB/s at one end"));
}
END_TEST

/* One GB per token at 200 GB/s is 5 ms, one GFLOP at 400 GFLOP/s 2.5 ms. */
START_TEST(what_binds) {
	const bench_run run = made();
	bench_row *const r = &rows[0];

	ck_assert_str_eq(bench_bound_by(&run, r), "memory");
	ck_assert_double_eq_tol(bench_of_peak(&run, r), 0.5, 0.01);
	r->cost.flops = 4e9; /* 10 ms */
	ck_assert_str_eq(bench_bound_by(&run, r), "compute");
	ck_assert_double_eq_tol(bench_of_peak(&run, r), 1, 0.01);
	r->cost.int8 = true; /* 4 ms */
	ck_assert_str_eq(bench_bound_by(&run, r), "memory");
	subjects[0].step_seconds = 1e-3; /* 10 ms */
	ck_assert_str_eq(bench_bound_by(&run, r), "launch");
	subjects[0].on_host = false; /* nothing is known of its peaks */
	ck_assert_str_eq(bench_bound_by(&run, r), "");
	ck_assert(bench_of_peak(&run, r) == 0);
}
END_TEST

static char *printed(const bench_run *run, void (*print)(FILE *, const bench_run *)) {
	char *text = NULL;
	size_t bytes = 0;
	FILE *const f = open_memstream(&text, &bytes);

	ck_assert_ptr_nonnull(f);
	print(f, run);
	fclose(f);
	return text;
}

/* Commas outside of quotes. */
static unsigned columns(const char *line, char separator) {
	unsigned n = 0;
	bool quoted = false;

	for (; *line; ++line) {
		quoted ^= *line == '"';
		n += *line == separator && !quoted;
	}
	return n;
}

START_TEST(forms) {
	bench_run run = made();
	char *save = NULL;
	unsigned lines = 0, heads = 0;

	subjects[1].check.nmse = 0.5; /* fast or not: it gets no ratio */
	char *text = printed(&run, bench_print_csv);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), ++lines) {
		heads = lines == 0 ? columns(line, ',') : heads;
		ck_assert_uint_eq(columns(line, ','), heads);
	}
	ck_assert_uint_eq(lines, 5);
	free(text);

	text = printed(&run, bench_print_markdown);
	lines = 0;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] != '|')
			continue;
		heads = lines == 0 || lines == 6 ? columns(line, '|') : heads; /* rows, then subjects */
		ck_assert_uint_eq(columns(line, '|'), heads);
		ck_assert_msg((strstr(line, "| s1 ") != NULL) == (strstr(line, "WRONG") != NULL), "%s", line);
		++lines;
	}
	ck_assert_uint_eq(lines, 2 + 4 + 2 + 2);
	free(text);

	text = printed(&run, bench_print_table);
	ck_assert(strstr(text, "750.0 ms") && strstr(text, "4 of 5") && strstr(text, "memory")); /* load and first token: 0.5 + 0.25 */
	free(text);

	text = printed(&run, bench_print_json);
	lines = 0;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), ++lines) {
		cJSON *const o = cJSON_Parse(line);
		ck_assert(cJSON_IsObject(o) && (cJSON_GetObjectItem(o, "ratio_to_first") != NULL) == (lines % 2 == 1));
		ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(o, "check"), "wrong")) == (lines % 2 == 1));
		cJSON_Delete(o);
	}
	ck_assert_uint_eq(lines, 4);
	free(text);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {warnings, what_binds, forms};

	return suite_run("bench_print", tests, (int)(sizeof tests / sizeof tests[0]));
}
