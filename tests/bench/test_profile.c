/* Where the time goes: every step of the program is told once, costs add up to the test's, and the trace is one that a
 * viewer of Chrome traces takes. No time is asked to be anything but not negative. */
#include "../../bench/profile.h"
#include "../tools/bytes.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

START_TEST(all_steps_are_told) {
	const bench_knit_desc desc = {.path = model, .device = "cpu", .threads = 2, .max_depth = 32, .batch = 8};
	const bench_test tests[] = {{.prompt = 8}, {.made = 3, .depth = 16}, {.made = 40}};
	bench_profile *profiles;
	bench_subject *s;
	knit_diag d = {0};
	size_t count;

	ck_assert_int_eq(bench_knit_open(&desc, &s, &d), KNIT_OK);
	ck_assert_msg(bench_profile_run(&desc, s, tests, 2, &profiles, &count, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(count, 2);
	for (size_t i = 0; i < count; ++i) {
		const bench_profile *const p = &profiles[i];
		const size_t steps = knit_program_step_count(bench_knit_program(s), i == 0 ? 1 : 0); /* decode is bucket 0 */
		const size_t traced = p->runs < BENCH_TRACE_RUNS ? p->runs : BENCH_TRACE_RUNS;
		size_t calls = 0;
		double flops = 0, sum = 0;
		bench_cost cost;
		ck_assert(p->tokens == (i == 0 ? 8 : 1) && p->runs == (i == 0 ? 5 : 3));
		for (size_t k = 0; k < p->kind_count; ++k) {
			calls += p->kinds[k].calls;
			flops += p->kinds[k].flops;
			sum += p->kinds[k].median;
			ck_assert(k == 0 || p->kinds[k].median <= p->kinds[k - 1].median);
		}
		ck_assert_uint_eq(calls, steps);
		ck_assert_uint_eq(p->trace_count, steps * traced);
		ck_assert_double_eq_tol(sum, p->steps, 1e-12);
		bench_cost_of(bench_knit_program(s), &tests[i], 8, &cost);
		/* A run stands for the test's tokens to within the growth of its context. */
		ck_assert_double_eq_tol(flops / (double)p->tokens / cost.flops, 1, 0.02);
	}
	bench_profiles_clear(profiles, count);
	free(profiles);

	/* A device that keeps no times has no profile. */
	const bench_knit_desc null_desc = {.path = model, .device = "null", .threads = 1, .max_depth = 48, .batch = 8};
	ck_assert_int_eq(bench_profile_run(&null_desc, s, tests, 3, &profiles, &count, &d), KNIT_OK);
	ck_assert_uint_eq(count, 0);
	free(profiles);
	s->kind->close(s);
}
END_TEST

static double number(const cJSON *o, const char *name) {
	const cJSON *const item = cJSON_GetObjectItem(o, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

static cJSON *load(const char *path) {
	bytes b = {0};

	ck_assert(bytes_load(&b, path));
	cJSON *const root = cJSON_ParseWithLength((const char *)b.data, b.count);
	bytes_clear(&b);
	ck_assert_ptr_nonnull(root);
	return root;
}

/* Threads have names; events of one thread follow one another; what is told of a step is there. */
static void check_trace(const cJSON *root) {
	const cJSON *const events = cJSON_GetObjectItem(root, "traceEvents"), *e;
	double end[8] = {0};
	unsigned steps[8] = {0}, names = 0;

	ck_assert(cJSON_IsArray(events));
	cJSON_ArrayForEach(e, events) {
		const char *const phase = cJSON_GetObjectItem(e, "ph")->valuestring;
		const cJSON *const args = cJSON_GetObjectItem(e, "args");
		const int tid = (int)number(e, "tid");
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(e, "name")) && number(e, "pid") == 1 && tid >= 0 && tid < 8);
		if (strcmp(phase, "M") == 0) {
			ck_assert(cJSON_IsString(cJSON_GetObjectItem(args, "name")));
			++names;
			continue;
		}
		ck_assert_str_eq(phase, "X");
		ck_assert_double_ge(number(e, "ts"), end[tid] - 1e-3);
		ck_assert_double_ge(number(e, "dur"), 0);
		end[tid] = number(e, "ts") + number(e, "dur");
		ck_assert(cJSON_IsString(cJSON_GetObjectItem(args, "origin")) && number(args, "bytes") > 0 && number(args, "flops") >= 0);
		++steps[tid];
	}
	ck_assert_uint_eq(names, 3);
	ck_assert(steps[0] == 0 && steps[1] > 20 && steps[2] > 20 && steps[3] == 0);
}

START_TEST(the_command) {
	char trace[64], out[64];
	command_result r;

	snprintf(trace, sizeof trace, "/tmp/knit-trace-%ld.json", (long)getpid());
	snprintf(out, sizeof out, "/tmp/knit-profile-%ld.jsonl", (long)getpid());
	command_run((const char *const[]){knit, "bench", model, "-p", "8", "-n", "3", "-r", "1", "--seconds", "1", "--threads", "1", "--device",
	                                  "cpu", "--no-peaks", "--no-check", "--profile", "--trace", trace, "--json", "-o", out, NULL},
	            NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
	cJSON *const root = load(trace);
	check_trace(root);
	cJSON_Delete(root);

	FILE *const f = fopen(out, "rb");
	static char line[1 << 16];
	unsigned profiles = 0;
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f)) {
		cJSON *const o = cJSON_Parse(line), *k;
		double sum = 0;
		ck_assert(cJSON_IsObject(o));
		if (strcmp(cJSON_GetObjectItem(o, "schema")->valuestring, "knit.profile/1") == 0) {
			cJSON_ArrayForEach(k, cJSON_GetObjectItem(o, "kinds")) {
				sum += number(k, "median_s");
				ck_assert(number(k, "calls") >= 1 && cJSON_IsString(cJSON_GetObjectItem(k, "op")));
			}
			ck_assert_double_eq_tol(sum, number(o, "steps_s"), 1e-9);
			++profiles;
		}
		cJSON_Delete(o);
	}
	fclose(f);
	ck_assert_uint_eq(profiles, 2);
	/* Rows of other kinds are passed over. */
	command_run((const char *const[]){knit, "bench", "compare", out, out, NULL}, NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
	unlink(trace);
	unlink(out);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {all_steps_are_told, the_command};

	return suite_run("bench_profile", tests, (int)(sizeof tests / sizeof tests[0]));
}
