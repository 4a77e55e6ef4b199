/* Whole models split over two devices: the bits of one device at every budget, the greedy text of the CPU with the software
 * GPU in front, and what the report says of it. */
#include "../../backends/program.h"
#include "../../backends/split/split.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 24, BATCH = 7 };

static const char bundled[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";
static int32_t ids[COUNT];

static void open_on(model_run *r, const char *path, const char *visits, const char *device, uint64_t budget) {
	const knit__model_desc model = {.path = path, .visits = visits, .tokenizer = KNIT__TOKENIZER_NEEDED};
	const knit__decoder_desc desc = {.positions = 96, .max_tokens = BATCH, .max_outputs = BATCH, .device = device,
									 .device_memory = budget};

	model_run_open(r, &model, desc, 2);
}

static uint32_t steps_near(const model_run *r, uint32_t *all) {
	const knit_schedule *const s = r->decoder.program->buckets[0].schedule;
	uint32_t count = 0;

	*all = s->step_count;
	for (uint32_t i = 0; i < s->step_count; ++i)
		count += !(s->steps[i].kernel & KNIT_SPLIT_SETTLED_FAR);
	return count;
}

/* Prefill in batches with a rest, then the same tokens one by one. */
static float *logits_of(model_run *r, size_t *count) {
	float *const a = model_run_logits(r, ids, COUNT, BATCH);

	ck_assert_int_eq(knit_session_reset_states(r->decoder.session), KNIT_OK);
	float *const b = model_run_logits(r, ids, COUNT, 1);
	const size_t half = COUNT * (size_t)r->decoder.vocab;
	float *const both = malloc(2 * half * sizeof *both);
	ck_assert(both != NULL);
	memcpy(both, a, half * sizeof *a);
	memcpy(both + half, b, half * sizeof *b);
	free(a);
	free(b);
	*count = 2 * half;
	return both;
}

static void check_every_budget(const char *path, const char *visits, int steps) {
	uint32_t before = 0, all = 0, mixed = 0;
	size_t count = 0, again = 0;
	model_run r;

	for (int i = 0; i < COUNT; ++i)
		ids[i] = (i * 37 + 11) % 200;
	open_on(&r, path, visits, "cpu", 0);
	const knit_memory m = r.decoder.program->memory;
	const uint64_t everything = m.weight_bytes + m.adapter_bytes + m.state_bytes + m.arena_bytes + m.io_bytes;
	float *const expected = logits_of(&r, &count);
	model_run_close(&r);
	for (int i = 0; i <= steps; ++i) {
		/* From nothing to a bit more than everything. */
		const uint64_t budget = 1 + everything * (uint64_t)i / (uint64_t)steps + (i == steps ? 65536 : 0);
		open_on(&r, path, visits, "cpu+cpu", budget);
		const uint32_t near = steps_near(&r, &all);
		ck_assert_uint_ge(near, before);
		before = near;
		mixed += near > 0 && near < all;
		float *const got = logits_of(&r, &again);
		ck_assert_uint_eq(again, count);
		ck_assert_msg(memcmp(got, expected, count * sizeof *got) == 0, "budget %llu: other bits than the CPU alone",
					  (unsigned long long)budget);
		free(got);
		model_run_close(&r);
	}
	ck_assert_uint_eq(before, all);
	ck_assert_uint_gt(mixed, 0);
	free(expected);
}

START_TEST(bundled_model_at_every_budget) { check_every_budget(bundled, NULL, suite_quick() ? 2 : 6); }
END_TEST

START_TEST(stories_at_every_budget) {
	char path[4096];

	if (test_data(KNIT_TEST_DATA, "models/gguf/stories260K-f32.gguf", path, sizeof path))
		check_every_budget(path, "0,1,2,2,2,3,4", suite_quick() ? 2 : 6);
}
END_TEST

/* ---- with a GPU in front ----------------------------------------------------------------------------------------- */

static void check_text(const char *path) {
	static const struct { const char *device; uint64_t budget; } list[] = {
		{"vulkan+cpu", 1}, {"vulkan+cpu", 900000}, {"vulkan+cpu", 0}, {"cpu+vulkan", 900000}};
	const knit_sampler_desc greedy = {0};
	model_run r;

	open_on(&r, path, NULL, "cpu", 0);
	char *const expected = model_run_text(&r, &greedy, "Once upon a time", 32, NULL);
	model_run_close(&r);
	for (size_t i = 0; i < sizeof list / sizeof *list; ++i) {
		uint32_t all;
		open_on(&r, path, NULL, list[i].device, list[i].budget);
		const uint32_t near = steps_near(&r, &all);
		char *const text = model_run_text(&r, &greedy, "Once upon a time", 32, NULL);
		printf("%s, %llu bytes: %u of %u steps on the first\n", list[i].device, (unsigned long long)list[i].budget, near, all);
		ck_assert_msg(strcmp(text, expected) == 0, "%s: \"%s\", not \"%s\"", list[i].device, text, expected);
		free(text);
		model_run_close(&r);
	}
	free(expected);
}

START_TEST(greedy_text_with_a_gpu_in_front) {
	char path[4096];

	if (!vulkan_present())
		return;
	check_text(bundled);
	if (!suite_quick() && test_data(KNIT_TEST_DATA, "models/gguf/stories260K-f32.gguf", path, sizeof path))
		check_text(path);
}
END_TEST

/* A context goes from the GPU's side to the CPU and back. */
START_TEST(states_move_between_splits) {
	static const struct { const char *device; uint64_t budget; } list[] = {{"vulkan+cpu", 900000}, {"cpu", 0}, {"cpu+vulkan", 700000}};
	static const char path[] = KNIT_BINARY_DIR "/test-split.states";
	int64_t used = COUNT;
	model_run r;

	if (!vulkan_present())
		return;
	for (int i = 0; i < COUNT; ++i)
		ids[i] = (i * 37 + 11) % 200;
	for (size_t i = 0; i < sizeof list / sizeof *list; ++i) {
		open_on(&r, bundled, NULL, list[i].device, list[i].budget);
		if (i == 0) {
			free(model_run_logits(&r, ids, COUNT, BATCH));
			ck_assert_int_eq(knit_session_save_states(r.decoder.session, path, &used, 1, NULL, 0), KNIT_OK);
		} else {
			int64_t back = 0;
			char copy[4200];
			snprintf(copy, sizeof copy, "%s.2", path);
			ck_assert_int_eq(knit_session_load_states(r.decoder.session, path, &back, 1, NULL, NULL), KNIT_OK);
			ck_assert_int_eq(back, COUNT);
			ck_assert_int_eq(knit_session_save_states(r.decoder.session, copy, &used, 1, NULL, 0), KNIT_OK);
			size_t bytes = 0, copied = 0;
			char *const a = test_read_file(path, &bytes), *const b = test_read_file(copy, &copied);
			ck_assert_uint_eq(bytes, copied);
			ck_assert_mem_eq(a, b, bytes);
			free(a);
			free(b);
			remove(copy);
		}
		model_run_close(&r);
	}
	remove(path);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {bundled_model_at_every_budget, stories_at_every_budget, greedy_text_with_a_gpu_in_front,
								  states_move_between_splits};

	return suite_run("split", tests, sizeof tests / sizeof *tests);
}
