/* knit plan as text and JSON: what it promises is what knit run then takes, and it grows as the model does. */
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static const cJSON *at(const cJSON *root, const char *path) {
	char name[64];

	for (const char *p = path; root && *p;) {
		const size_t n = strcspn(p, ".");
		snprintf(name, sizeof name, "%.*s", (int)n, p);
		root = cJSON_GetObjectItemCaseSensitive(root, name);
		p += n + (p[n] == '.');
	}
	return root;
}

static double number(const cJSON *root, const char *path) {
	const cJSON *item = at(root, path);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", path);
	return item->valuedouble;
}

static cJSON *planned(const char *option, const char *value) {
	command_result r;

	/* Not command_check_json: what becomes of the LoRA is noted on stderr. */
	RUN(&r, NULL, "plan", model, "--json", option, value);
	ck_assert_msg(r.code == 0, "%s %s: %s", option, value, r.err);
	cJSON *root = cJSON_Parse(r.out);
	ck_assert(cJSON_IsObject(root));
	command_clear(&r);
	return root;
}

START_TEST(text_says_it_all) {
	static const char *const words[] = {"4 layers in 12 visits (0-3x3)", "1,073,280 stored", "stored once, in 38 storages",
										"by use, in ", "sharing saves", "LoRA", "KV cache", "6.00 KiB each",
										"no plan can be below", "gap ", "without sharing", "(decode)", "(prefill)",
										"FLOP", "read again", "per visit", "linear"};
	command_result r;

	RUN(&r, NULL, "plan", model);
	ck_assert_msg(r.code == 0, "%s", r.err);
	for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
		ck_assert_msg(strstr(r.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], r.out);
	ck_assert_uint_eq(r.err_bytes, 0);
	command_clear(&r);
}
END_TEST

/* The same figures as those of a run with the same options. */
START_TEST(the_plan_is_what_runs) {
	static const char *const names[] = {"weight_bytes", "weight_bytes_by_use", "weight_storages", "weight_uses",
										"adapter_bytes", "packed_bytes", "packed_storages", "padding_bytes",
										"arena_bytes", "arena_lower_bound", "arena_unshared", "io_bytes"};
	command_result r;
	char path[64];

	RUN(&r, NULL, "plan", model, "--json", "--ctx", "100");
	cJSON *plan = command_check_json(&r);
	RUN(&r, NULL, "run", model, "--json", "--ctx", "100", "-p", "A", "-n", "1", "--temp", "0");
	cJSON *run = command_check_json(&r);
	for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
		snprintf(path, sizeof path, "report.memory.%s", names[i]);
		const double promised = number(plan, path);
		snprintf(path, sizeof path, "memory.%s", names[i]);
		ck_assert_msg(promised == number(run, path), "%s: planned %.0f, ran with %.0f", names[i], promised,
					  number(run, path));
	}
	ck_assert_double_eq(number(plan, "report.memory.state_bytes"), number(run, "memory.kv_bytes"));
	ck_assert_double_eq(number(plan, "kv.bytes"), number(run, "memory.kv_bytes"));
	ck_assert_double_eq(number(plan, "kv.bytes"), 100 * number(plan, "kv.bytes_per_token"));
	ck_assert_double_eq(number(plan, "context"), 100);
	ck_assert_double_eq(number(plan, "report.decode.context"), 100);
	cJSON_Delete(run);
	RUN(&r, NULL, "info", model, "--json");
	cJSON *info = command_check_json(&r);
	ck_assert_double_eq(number(plan, "parameters.unique"), number(info, "parameters_unique"));
	ck_assert_double_eq(number(plan, "parameters.visited"), number(info, "parameters_visited"));
	/* Every byte of weights in the file, and no other: base and LoRA. */
	ck_assert_double_eq(number(plan, "report.memory.weight_bytes") + number(plan, "report.memory.adapter_bytes"),
						number(info, "weight_bytes"));
	cJSON_Delete(info);
	cJSON_Delete(plan);
}
END_TEST

START_TEST(more_loops_cost_no_weights) {
	cJSON *once = planned("--loops", "1"), *nine = planned("--loops", "9");

	ck_assert_double_eq(number(once, "report.memory.weight_bytes"), number(nine, "report.memory.weight_bytes"));
	ck_assert_double_eq(number(once, "parameters.unique"), number(nine, "parameters.unique"));
	ck_assert_double_eq(9 * number(once, "kv.bytes_per_token"), number(nine, "kv.bytes_per_token"));
	/* Once in each of the nine, but for embedding, head and norms. */
	const double base = number(once, "report.memory.weight_bytes_by_use");
	const double more = number(nine, "report.memory.weight_bytes_by_use") - base;
	ck_assert_double_gt(more, 8 * 0.9 * (number(once, "report.memory.weight_bytes") - 256 * 128 * 2));
	ck_assert_double_eq(more / 8, (double)(int64_t)(more / 8)); /* eight times the same */
	ck_assert_double_gt(number(nine, "report.decode.flops"), 8 * number(once, "report.decode.flops") * 0.9);
	ck_assert_double_eq(number(nine, "report.decode.weight_bytes_unique") - number(nine, "report.memory.adapter_bytes"),
						number(once, "report.decode.weight_bytes_unique") - number(once, "report.memory.adapter_bytes"));
	ck_assert_int_eq(cJSON_GetArraySize(at(nine, "model.visits")), 36);
	ck_assert_double_eq(number(nine, "model.loops.count"), 9);
	/* The ninth loop shares the LoRA of the model's third. */
	ck_assert_double_eq(cJSON_GetArrayItem(at(nine, "model.visit_stands_for"), 35)->valuedouble, 11);
	cJSON_Delete(once);
	cJSON_Delete(nine);
}
END_TEST

START_TEST(options_are_taken_or_refused) {
	command_result r;

	RUN(&r, NULL, "plan", model, "--device", "null");
	ck_assert_msg(r.code == 0 && strstr(r.out, "on null"), "%s", r.err);
	command_clear(&r);
	RUN(&r, NULL, "plan", model, "--prompt", "1000", "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_double_eq(number(root, "report.prefill.prompt"), 1000);
	ck_assert_double_eq(number(root, "report.prefill.runs"), 16);
	cJSON_Delete(root);
	/* Far more context than there is memory: planning takes none of it. */
	RUN(&r, NULL, "plan", model, "--ctx", "16000000");
	ck_assert_msg(r.code == 0 && strstr(r.out, "for 16000000 positions"), "%s", r.err);
	command_clear(&r);
	RUN(&r, NULL, "plan", model, "--prompt", "0");
	command_check_error(&r, 2, "--prompt \"0\"");
	RUN(&r, NULL, "plan", model, "--html", "x.html", "--json");
	command_check_error(&r, 2, "give one of them");
	RUN(&r, NULL, "plan");
	command_check_error(&r, 2, "name a MODEL");
	RUN(&r, NULL, "plan", model, "--html", "/nowhere/x.html");
	command_check_error(&r, 1, "/nowhere/x.html: No such file");
	RUN(&r, NULL, "plan", "/nowhere.gguf");
	command_check_error(&r, 1, "/nowhere.gguf");
	RUN(&r, NULL, "plan", "--help");
	ck_assert(r.code == 0 && strstr(r.out, "--html FILE"));
	command_clear(&r);
}
END_TEST

/* Storage `name` of a split. */
static const cJSON *split_storage(const cJSON *root, const char *name) {
	const cJSON *item;

	cJSON_ArrayForEach(item, at(root, "report.split.storages"))
		if (strcmp(at(item, "name")->valuestring, name) == 0)
			return item;
	ck_abort_msg("no storage %s", name);
	return NULL;
}

/* A layer that is visited three times goes to the first device before those that are visited once. */
START_TEST(a_split_is_told) {
	static const char *const words[] = {"on null+cpu", "switches per token", "moved in", "3 reads per token", "did not fit",
										"1.00 MiB for the first device", "of weights, read"};
	const char *const options[] = {"--device", "null+cpu", "--device-memory", "1M", "--visits", "0,1,2x3,3", "--adapter",
								   "none", "--ctx", "64"};
	command_result r;

#define SPLIT options[0], options[1], options[2], options[3], options[4], options[5], options[6], options[7], options[8], options[9]
	RUN(&r, NULL, "plan", model, SPLIT);
	ck_assert_msg(r.code == 0, "%s", r.err);
	for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
		ck_assert_msg(strstr(r.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], r.out);
	command_clear(&r);
	RUN(&r, NULL, "plan", model, "--json", SPLIT);
	ck_assert_msg(r.code == 0, "%s", r.err);
	cJSON *root = cJSON_Parse(r.out);
	command_clear(&r);
	ck_assert(cJSON_IsObject(root));
	const cJSON *const often = split_storage(root, "blk.2.ffn_down.weight"), *const once = split_storage(root, "blk.3.ffn_down.weight");
	ck_assert_str_eq(at(often, "on")->valuestring, "first");
	ck_assert_str_eq(at(once, "on")->valuestring, "second");
	ck_assert(number(often, "reads_per_token") > 2.99 && number(once, "reads_per_token") < 1.01);
	const cJSON *const near = cJSON_GetArrayItem(at(root, "report.split.devices"), 0);
	ck_assert_str_eq(at(near, "device")->valuestring, "null");
	ck_assert(number(near, "weight_bytes") + number(near, "state_bytes") + number(near, "arena_bytes") +
				  number(near, "io_bytes") <= number(root, "report.split.budget_bytes"));
	cJSON_Delete(root);
#undef SPLIT
	RUN(&r, NULL, "plan", model, "--device", "null", "--device-memory", "1M");
	command_check_error(&r, 1, "vulkan+cpu");
	RUN(&r, NULL, "plan", model, "--device", "null+cpu", "--device-memory", "lots");
	command_check_error(&r, 2, "--device-memory");
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		text_says_it_all,
		the_plan_is_what_runs,
		more_loops_cost_no_weights,
		a_split_is_told,
		options_are_taken_or_refused,
	};

	const TTest *const quick[] = {text_says_it_all, the_plan_is_what_runs};

	if (suite_quick())
		return suite_run("cli_plan", quick, sizeof quick / sizeof *quick);
	return suite_run("cli_plan", tests, sizeof tests / sizeof *tests);
}
