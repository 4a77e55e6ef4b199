/* The report of a program: its figures agree with each other, with the memory report and with what is known of the small
 * model; a program that is compiled for its figures alone holds no weights. */
#include "../tools/small_model.h"
#include "../tools/report.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static knit_weights *weights;
static knit_graph *graph;
static track_alloc track;
static const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};

static void begin(void) {
	ctx = track_begin(&track);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
}

static void end(void) {
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	track_end(&track, ctx);
}

static knit_program *compiled(const char *device, const char *disable, bool plan_only) {
	const knit_compile_desc desc = {
		.device = device, .buckets = buckets, .bucket_count = 2, .disable_passes = disable, .plan_only = plan_only};
	knit_program *p = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_compile(graph, &desc, &p, &d) == KNIT_OK, "%s", d.text);
	return p;
}

static const char *text(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static void check_storages(const cJSON *root, const knit_memory *m) {
	uint64_t bytes[6] = {0}, by_use = 0, uses = 0, count = 0;
	static const char *const kinds[] = {"weight", "adapter", "state", "input", "output"};
	const cJSON *s;

	cJSON_ArrayForEach(s, cJSON_GetObjectItem(root, "storages")) {
		size_t k = 0;
		while (k < 5 && strcmp(kinds[k], text(s, "kind")) != 0)
			++k;
		ck_assert_msg(k < 5, "kind %s", text(s, "kind"));
		if (!cJSON_GetObjectItem(s, "same_bytes_as"))
			bytes[k] += report_number(s, "bytes");
		if (k == 0) {
			count += !cJSON_GetObjectItem(s, "same_bytes_as");
			uses += report_number(s, "uses");
			by_use += report_number(s, "uses") * report_number(s, "bytes");
		}
		ck_assert(*text(s, "name") && *text(s, "type"));
	}
	ck_assert_uint_eq(bytes[0], m->weight_bytes);
	ck_assert_uint_eq(bytes[1], m->adapter_bytes);
	ck_assert_uint_eq(bytes[2], m->state_bytes);
	ck_assert_uint_eq(bytes[3] + bytes[4], m->io_bytes);
	ck_assert_uint_eq(by_use, m->weight_bytes_by_use);
	ck_assert_uint_eq(uses, m->weight_uses);
	ck_assert_uint_eq(count, m->weight_storages);
}

/* Blocks that share a byte are never alive at one step; where one begins at the step at which the other ends, the step
 * works in place. */
static void check_blocks(const cJSON *bucket) {
	const cJSON *about = cJSON_GetObjectItem(bucket, "about"), *blocks = cJSON_GetObjectItem(bucket, "blocks"), *a, *b;
	const uint64_t steps = (uint64_t)cJSON_GetArraySize(cJSON_GetObjectItem(bucket, "steps"));
	uint64_t in_place = 0;

	ck_assert_uint_le(report_number(about, "arena_lower_bound"), report_number(about, "arena_bytes"));
	cJSON_ArrayForEach(a, blocks) {
		ck_assert_uint_le(report_number(a, "offset") + report_number(a, "bytes"), report_number(about, "arena_bytes"));
		ck_assert_uint_le(report_number(a, "first"), report_number(a, "last"));
		ck_assert_uint_lt(report_number(a, "last"), steps);
		for (b = a->next; b; b = b->next) {
			const bool bytes = report_number(a, "offset") < report_number(b, "offset") + report_number(b, "bytes") &&
			                   report_number(b, "offset") < report_number(a, "offset") + report_number(a, "bytes");
			const bool time = report_number(a, "first") <= report_number(b, "last") && report_number(b, "first") <= report_number(a, "last");
			if (!bytes || !time)
				continue;
			ck_assert(report_number(a, "first") == report_number(b, "last") || report_number(b, "first") == report_number(a, "last"));
			ck_assert_uint_eq(report_number(a, "offset"), report_number(b, "offset"));
			++in_place;
		}
	}
	ck_assert_uint_eq(in_place, report_number(about, "in_place"));
}

static void check_bucket(const cJSON *bucket, const knit_program *p, size_t index) {
	const cJSON *steps = cJSON_GetObjectItem(bucket, "steps"), *about = cJSON_GetObjectItem(bucket, "about");

	ck_assert_uint_eq((size_t)cJSON_GetArraySize(steps), knit_program_step_count(p, index));
	ck_assert_str_eq(text(about, "symbol"), "tokens");
	ck_assert_uint_eq(report_number(about, "lo"), (uint64_t)buckets[index].lo);
	ck_assert_uint_eq(report_number(about, "hi"), (uint64_t)buckets[index].hi);
	check_blocks(bucket);
}

/* The sums are those of the steps. */
static void check_decode(const cJSON *root) {
	const cJSON *decode = cJSON_GetObjectItem(root, "decode"), *step;
	uint64_t flops = 0, read = 0, write = 0, weight_bytes = 0;

	cJSON_ArrayForEach(step, cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(root, "buckets"), 0), "steps")) {
		flops += report_number(step, "flops");
		read += report_number(step, "read_bytes");
		write += report_number(step, "write_bytes");
		weight_bytes += report_number(step, "weight_bytes");
	}
	ck_assert_uint_eq(report_number(decode, "flops"), flops);
	ck_assert_uint_eq(report_number(decode, "read_bytes"), read);
	ck_assert_uint_eq(report_number(decode, "write_bytes"), write);
	ck_assert_uint_eq(report_number(decode, "weight_bytes_read"), weight_bytes);
	ck_assert_uint_eq(report_number(decode, "runs"), 1);
}

START_TEST(figures_agree) {
	static const char *const disable[] = {NULL, "dedup_weights", "cse", "dce"};

	for (size_t i = 0; i < sizeof disable / sizeof *disable; ++i)
		for (int device = 0; device < 2; ++device) {
			knit_memory m;
			begin();
			knit_program *p = compiled(device ? "null" : "cpu", disable[i], false);
			cJSON *root = report_of(p, NULL);
			ck_assert_str_eq(text(root, "schema"), "knit.report/1");
			ck_assert_str_eq(text(root, "device"), device ? "null" : "cpu");
			ck_assert_int_eq(knit_program_memory(p, &m), KNIT_OK);
			const cJSON *memory = cJSON_GetObjectItem(root, "memory");
			ck_assert_uint_eq(report_number(memory, "weight_bytes"), m.weight_bytes);
			ck_assert_uint_eq(report_number(memory, "arena_bytes"), m.arena_bytes);
			ck_assert_uint_eq(report_number(memory, "state_bytes"), m.state_bytes);
			check_storages(root, &m);
			const cJSON *list = cJSON_GetObjectItem(root, "buckets");
			ck_assert_int_eq(cJSON_GetArraySize(list), 2);
			for (int k = 0; k < 2; ++k)
				check_bucket(cJSON_GetArrayItem(list, k), p, (size_t)k);
			check_decode(root);
			cJSON_Delete(root);
			knit_program_release(p);
			end();
		}
}
END_TEST

/* What is known of the small model without knowing its graph. */
START_TEST(costs_are_those_of_the_model) {
	enum { ROW = SMALL_DIM * sizeof(float), CONTEXT = 5, PROMPT = 2 * SMALL_TOKENS + 3 };
	const uint64_t embed = (uint64_t)SMALL_VOCAB * ROW;
	const uint64_t once = small_model_weight_bytes(), adapters = small_model_adapter_bytes();
	const uint64_t layer = once - embed - ROW; /* all but embedding and last norm: visited twice */
	const uint64_t matrices = (SMALL_VISITS * (layer - 2 * ROW) + embed + adapters) / sizeof(float);
	knit_report_desc desc = {.context = CONTEXT, .prompt = PROMPT};

	begin();
	knit_program *p = compiled("cpu", NULL, false);
	cJSON *root = report_of(p, &desc);
	const cJSON *decode = cJSON_GetObjectItem(root, "decode"), *prefill = cJSON_GetObjectItem(root, "prefill");
	ck_assert_uint_eq(report_number(decode, "context"), CONTEXT);
	ck_assert_uint_eq(report_number(decode, "weight_bytes_unique"), once + adapters);
	ck_assert_uint_eq(report_number(decode, "weight_bytes_read"), SMALL_VISITS * layer + ROW + embed + ROW + adapters);
	ck_assert_uint_eq(report_number(decode, "state_bytes_read"), (uint64_t)SMALL_VISITS * 2 * CONTEXT * ROW);
	ck_assert_uint_eq(report_number(decode, "state_bytes_written"), (uint64_t)SMALL_VISITS * 2 * ROW);
	/* Multiply and add for each parameter of a matrix, and little beside. */
	ck_assert_uint_ge(report_number(decode, "flops"), 2 * matrices);
	ck_assert_uint_le(report_number(decode, "flops"), 2 * matrices + matrices / 4);

	ck_assert_uint_eq(report_number(prefill, "prompt"), PROMPT);
	ck_assert_uint_eq(report_number(prefill, "runs"), 3);
	ck_assert_uint_eq(report_number(prefill, "state_bytes_written"), (uint64_t)PROMPT * SMALL_VISITS * 2 * ROW);
	/* Three steps that see 4, 12 and all positions on average: tokens may be of three sequences, of which each is read once a step. */
	ck_assert_uint_eq(report_number(prefill, "state_bytes_read"),
	                  (uint64_t)SMALL_VISITS * 2 * SMALL_SEQUENCES * (4 + 12 + SMALL_POSITIONS) * ROW);
	ck_assert_uint_eq(report_number(prefill, "weight_bytes_unique"), once + adapters);
	ck_assert_uint_eq(report_number(prefill, "weight_bytes_read"),
	                  3 * (SMALL_VISITS * layer + embed + ROW + adapters) + PROMPT * ROW);
	ck_assert_uint_ge(report_number(prefill, "flops"), PROMPT * 2 * matrices);
	cJSON_Delete(root);

	/* A longer context costs what its cells hold, and no more than there are. */
	desc.context = SMALL_POSITIONS * 10;
	root = report_of(p, &desc);
	ck_assert_uint_eq(report_number(cJSON_GetObjectItem(root, "decode"), "state_bytes_read"),
	                  (uint64_t)SMALL_VISITS * 2 * SMALL_POSITIONS * ROW);
	cJSON_Delete(root);
	report_text none = {0};
	ck_assert_int_eq(knit_program_report(p, &(knit_report_desc){.context = -1}, report_take, &none), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_program_report(p, &(knit_report_desc){.prompt = (1 << 17) + 1}, report_take, &none),
	                 KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_program_report(NULL, NULL, report_take, &none), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_program_report(p, NULL, NULL, &none), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_null(none.text);
	knit_program_release(p);
	end();
}
END_TEST

START_TEST(a_plan_holds_no_weights) {
	knit_session *s = NULL;
	knit_memory a, b;
	knit_diag d = {0};

	begin();
	knit_program *plan = compiled("cpu", NULL, true), *whole = compiled("cpu", NULL, false);
	ck_assert_int_eq(knit_program_memory(plan, &a), KNIT_OK);
	ck_assert_int_eq(knit_program_memory(whole, &b), KNIT_OK);
	ck_assert_int_eq(memcmp(&a, &b, sizeof a), 0);
	cJSON *one = report_of(plan, NULL), *other = report_of(whole, NULL);
	ck_assert(cJSON_Compare(one, other, true));
	cJSON_Delete(one);
	cJSON_Delete(other);
	ck_assert_int_eq(knit_session_create(plan, &s, &d), KNIT_ERR_STATE);
	ck_assert_ptr_nonnull(strstr(d.text, "plan_only"));
	ck_assert_ptr_null(s);
	knit_program_release(whole);
	knit_program_release(plan);
	end();
}
END_TEST

START_TEST(failing_allocations) {
	knit_status status = KNIT_ERR_MEMORY;
	uint64_t n = 0;

	begin();
	knit_program *p = compiled("cpu", NULL, true);
	for (; status != KNIT_OK; ++n) {
		report_text got = {0};
		const uint64_t live = track.live;
		track.fail_at = track.count + 1 + n;
		status = knit_program_report(p, NULL, report_take, &got);
		track.fail_at = 0;
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_uint_eq(track.live, live);
		free(got.text);
	}
	ck_assert_uint_gt(n, 3);
	knit_program_release(p);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		figures_agree,
		costs_are_those_of_the_model,
		a_plan_holds_no_weights,
		failing_allocations,
	};

	return suite_run("report", tests, sizeof tests / sizeof *tests);
}
