/* Tests models on the Vulkan backend end to end: golden texts and logits, layers visited several times with a LoRA per
 * visit, the bundled model with the text of the CPU backend. Validation, where it is installed, has nothing to say. */
#include "../../backends/vulkan/vk_instance.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, FIRST = 16, LOOPED = 32, BYTES = 256 };

static const char demo[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";
static const char stories[] = "models/gguf/stories260K-f32.gguf";
static char path[4096], second[4096];

static float *golden_floats(const char *file, size_t count) {
	char name[4096];

	snprintf(name, sizeof name, "%s/golden/%s", KNIT_TEST_DATA, file);
	return test_read_floats(name, count);
}

/* BOS and the golden ids, as many as wanted. */
static void golden_ids(int32_t *ids, size_t count) {
	char name[4096];
	size_t n = 1;

	snprintf(name, sizeof name, "%s/golden/stories260K/golden.json", KNIT_TEST_DATA);
	cJSON *root = test_read_json(name), *item;
	ids[0] = 1;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "generated_ids")) {
		if (n < count)
			ids[n++] = item->valueint;
	}
	ck_assert_uint_eq(n, count);
	cJSON_Delete(root);
}

/* ---- golden ------------------------------------------------------------------------------------------------------ */

static void check_text(const char *file, const char *tokenizer, const char *golden, size_t tokens) {
	const knit__decoder_desc desc = {
		.positions = 256, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32, .device = "vulkan"};
	const knit_sampler_desc greedy = {.temperature = 0};
	char name[4096];
	size_t bytes;
	model_run r;

	if (!test_data(KNIT_TEST_DATA, file, path, sizeof path) ||
	    (tokenizer && !test_data(KNIT_TEST_DATA, tokenizer, second, sizeof second)))
		return;
	const knit__model_desc model = {
		.path = path, .tokenizer = KNIT__TOKENIZER_NEEDED, .tokenizer_path = tokenizer ? second : NULL};
	snprintf(name, sizeof name, "%s/golden/%s", KNIT_TEST_DATA, golden);
	model_run_open(&r, &model, desc, 1);
	char *const expected = test_read_file(name, &bytes), *const text = model_run_text(&r, &greedy, "", tokens, NULL);
	ck_assert_msg(strcmp(text, expected) == 0, "%s:\n%s\nbut the golden text is\n%s", file, text, expected);
	free(text);
	free(expected);
	model_run_close(&r);
}

START_TEST(greedy_texts) {
	const uint64_t before = knit__vk_messages();

	check_text(stories, NULL, "stories260K/text_256steps.txt", 256);
	check_text("models/llama2xs/model.bin", "models/stories260K/tok512.bin", "llama2xs/text.txt", 150);
	ck_assert_uint_eq(knit__vk_messages(), before);
}
END_TEST

START_TEST(golden_logits) {
	enum { STEPS = 200 };
	const knit__decoder_desc desc = {
		.positions = 256, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32, .device = "vulkan"};
	const uint64_t before = knit__vk_messages();
	int32_t ids[STEPS];
	model_run r;

	if (!test_data(KNIT_TEST_DATA, stories, path, sizeof path))
		return;
	golden_ids(ids, STEPS);
	model_run_open(&r, &(knit__model_desc){.path = path}, desc, 1);
	float *const logits = model_run_logits(&r, ids, STEPS, 16);
	float *const first = golden_floats("stories260K/logits_first16.f32", FIRST * VOCAB);
	float *const last = golden_floats("stories260K/logits_last.f32", VOCAB);
	const double off_first = test_largest_difference(logits, first, FIRST * VOCAB);
	const double off_last = test_largest_difference(logits + (STEPS - 1) * VOCAB, last, VOCAB);
	printf("logits off by %.1e at positions 0 to 15, %.1e at %d\n", off_first, off_last, STEPS - 1);
	ck_assert_msg(off_first <= 1e-4 && off_last <= 1e-4, "off by %g and %g", off_first, off_last);
	free(first);
	free(last);
	free(logits);
	model_run_close(&r);
	ck_assert_uint_eq(knit__vk_messages(), before);
}
END_TEST

static void check_looped(const char *visits, const char *adapter, const char *golden, size_t batch) {
	const knit__decoder_desc desc = {
		.positions = LOOPED, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32, .device = "vulkan"};
	char file[256];
	int32_t ids[LOOPED];
	model_run r;

	if (!test_data(KNIT_TEST_DATA, stories, path, sizeof path) ||
	    (adapter && !test_data(KNIT_TEST_DATA, adapter, second, sizeof second)))
		return;
	golden_ids(ids, LOOPED);
	model_run_open(&r, &(knit__model_desc){.path = path, .visits = visits, .adapter_path = adapter ? second : NULL}, desc,
	               1);
	snprintf(file, sizeof file, "looped-lora/%s.logits_32x512.f32", golden);
	float *const logits = model_run_logits(&r, ids, LOOPED, batch), *const want = golden_floats(file, LOOPED * VOCAB);
	const double off = test_largest_difference(logits, want, LOOPED * VOCAB);
	printf("%s, %zu tokens at once: logits off by %.1e\n", golden, batch, off);
	ck_assert_msg(off <= 1e-4, "%s: off by %g", golden, off);
	free(want);
	free(logits);
	model_run_close(&r);
}

START_TEST(looped_layers_with_adapters) {
	static const char visits[] = "0,1,2,2,2,3,4";
	static const char lora[] = "golden/looped-lora/loop_mid3_lora_all_r8.lora.safetensors";
	const uint64_t before = knit__vk_messages();

	check_looped(NULL, NULL, "base_5", 16);
	check_looped(visits, NULL, "loop_mid3", 16);
	check_looped(visits, NULL, "loop_mid3", 1);
	check_looped(NULL, lora, "loop_mid3_lora_all_r8", 16);
	check_looped(NULL, lora, "loop_mid3_lora_all_r8", 1);
	ck_assert_uint_eq(knit__vk_messages(), before);
}
END_TEST

/* ---- the bundled model ------------------------------------------------------------------------------------------- */

typedef struct demo_run { char *text; float *logits; } demo_run;

static const char prompt[] = "ROMEO:\nWhat light is this?";

static demo_run run_demo(const char *device, knit_dtype kv, const char *disable) {
	const knit__decoder_desc desc = {
		.positions = 128, .max_tokens = 16, .max_outputs = 16, .kv = kv, .device = device, .disable_passes = disable};
	const knit_sampler_desc greedy = {.temperature = 0};
	const size_t count = sizeof prompt - 1;
	int32_t ids[sizeof prompt];
	demo_run out;
	model_run r;

	for (size_t i = 0; i < count; ++i)
		ids[i] = (uint8_t)prompt[i];
	model_run_open(&r, &(knit__model_desc){.path = demo, .tokenizer = KNIT__TOKENIZER_NEEDED}, desc, 1);
	out.text = model_run_text(&r, &greedy, prompt, 64, NULL);
	out.logits = model_run_logits(&r, ids, count, 16);
	model_run_close(&r);
	return out;
}

static void check_demo(const char *what, knit_dtype kv, const char *disable) {
	demo_run cpu = run_demo("cpu", kv, disable), gpu = run_demo("vulkan", kv, disable);
	const size_t count = (sizeof prompt - 1) * BYTES;
	double scale = 0.0;

	for (size_t i = 0; i < count; ++i)
		scale = fmax(scale, fabs((double)cpu.logits[i]));
	const double off = test_largest_difference(cpu.logits, gpu.logits, count);
	printf("%s: logits of the two devices differ by %.1e of %.1f\n", what, off, scale);
	ck_assert_msg(strcmp(cpu.text, gpu.text) == 0, "%s: the CPU says\n%s\nand the GPU\n%s", what, cpu.text, gpu.text);
	ck_assert_msg(scale > 1 && off <= 2e-3 * scale, "%s: off by %g of %g", what, off, scale);
	free(cpu.text);
	free(cpu.logits);
	free(gpu.text);
	free(gpu.logits);
}

START_TEST(bundled_model_says_the_same) {
	const uint64_t before = knit__vk_messages();

	check_demo("keys and values f32", KNIT_F32, NULL);
	check_demo("keys and values f16", KNIT_F16, NULL);
	check_demo("keys and values q8_0", KNIT_Q8_0, NULL);
	check_demo("nothing fused", KNIT_F16, "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise");
	ck_assert_uint_eq(knit__vk_messages(), before);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {greedy_texts, golden_logits, looped_layers_with_adapters,
	                              bundled_model_says_the_same};

	if (!vulkan_present_checked())
		return 0;
	return suite_run("vulkan/vk_models", tests, sizeof tests / sizeof *tests);
}
