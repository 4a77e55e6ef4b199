/* Real models against golden numbers and texts: greedy text byte for byte, logits, published samples. */
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, FIRST = 16 };

static char path[4096], tokenizer[4096];

/* A file of the stories260K weights and the tokenizer that it needs (NULL: its own). */
typedef struct story_file {
	const char *file, *tokenizer;
} story_file;

static const story_file stories[] = {
	{"models/stories260K/stories260K.bin", NULL}, /* finds tok512.bin beside it */
	{"models/stories260K/stories260K.v1.bin", "models/stories260K/tok512.bin"},
	{"models/gguf/stories260K-f32.gguf", NULL},
	{"models/gguf/stories260K-ggml-org.gguf", NULL},
	{"models/stories260K-hf", "models/stories260K/tok512.bin"},
};
enum { STORIES = sizeof stories / sizeof *stories };

static bool open_model(model_run *r, const char *file, const char *tokenizer_file, int64_t positions) {
	const knit__decoder_desc desc = {.positions = positions, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32};
	knit__model_desc model = {.path = path, .tokenizer = KNIT__TOKENIZER_NEEDED};

	if (!test_data(KNIT_TEST_DATA, file, path, sizeof path))
		return false;
	if (tokenizer_file && !test_data(KNIT_TEST_DATA, tokenizer_file, tokenizer, sizeof tokenizer))
		return false;
	model.tokenizer_path = tokenizer_file ? tokenizer : NULL;
	model_run_open(r, &model, desc, 2);
	return true;
}

static char *golden_text(const char *file) {
	char name[4096];
	size_t bytes;

	snprintf(name, sizeof name, "%s/golden/%s", KNIT_TEST_DATA, file);
	return test_read_file(name, &bytes);
}

static void check_greedy(const char *file, const char *tokenizer_file, const char *golden, size_t tokens) {
	const knit_sampler_desc greedy = {.temperature = 0};
	model_run r;

	if (!open_model(&r, file, tokenizer_file, 256))
		return;
	char *expected = golden_text(golden), *text = model_run_text(&r, &greedy, "", tokens, NULL);
	ck_assert_msg(strcmp(text, expected) == 0, "%s:\n%s\nbut the golden text is\n%s", file, text, expected);
	free(text);
	free(expected);
	model_run_close(&r);
}

START_TEST(greedy_text_of_256_steps) {
	for (int i = 0; i < STORIES; ++i)
		check_greedy(stories[i].file, stories[i].tokenizer, "stories260K/text_256steps.txt", 256);
}
END_TEST

START_TEST(greedy_text_of_llama2xs) {
	check_greedy("models/llama2xs/model.bin", "models/stories260K/tok512.bin", "llama2xs/text.txt", 150);
}
END_TEST

/* BOS and the golden ids, as many as wanted. */
static size_t golden_ids(const char *folder, int32_t *ids, size_t cap) {
	char name[4096];
	size_t count = 1;

	snprintf(name, sizeof name, "%s/golden/%s/golden.json", KNIT_TEST_DATA, folder);
	cJSON *root = test_read_json(name), *item;
	ids[0] = 1;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "generated_ids")) {
		if (count < cap)
			ids[count++] = item->valueint;
	}
	cJSON_Delete(root);
	return count;
}

/* The first 16 positions, and the position of the last golden step. */
static void check_logits(const char *file, const char *tokenizer_file, const char *folder, size_t steps) {
	int32_t ids[256];
	char name[4096];
	model_run r;

	if (!open_model(&r, file, tokenizer_file, 256))
		return;
	ck_assert_uint_ge(golden_ids(folder, ids, 256), steps);
	float *logits = model_run_logits(&r, ids, steps, 16);
	snprintf(name, sizeof name, "%s/golden/%s/logits_first16.f32", KNIT_TEST_DATA, folder);
	float *first = test_read_floats(name, FIRST * VOCAB);
	snprintf(name, sizeof name, "%s/golden/%s/logits_last.f32", KNIT_TEST_DATA, folder);
	float *last = test_read_floats(name, VOCAB);
	const double off_first = test_largest_difference(logits, first, FIRST * VOCAB);
	const double off_last = test_largest_difference(logits + (steps - 1) * VOCAB, last, VOCAB);
	printf("%s: logits off by %.1e at positions 0 to 15, %.1e at %zu\n", file, off_first, off_last, steps - 1);
	ck_assert_msg(off_first <= 1e-4 && off_last <= 1e-4, "%s: off by %g and %g", file, off_first, off_last);
	free(last);
	free(first);
	free(logits);
	model_run_close(&r);
}

START_TEST(logits_of_stories260K) {
	for (int i = 0; i < STORIES; ++i)
		check_logits(stories[i].file, stories[i].tokenizer, "stories260K", 200);
}
END_TEST

START_TEST(logits_of_llama2xs) {
	check_logits("models/llama2xs/model.bin", "models/stories260K/tok512.bin", "llama2xs", 150);
}
END_TEST

START_TEST(published_samples_exactly) {
	char name[4096];
	model_run r;
	cJSON *root, *item;
	int compared = 0;

	if (!test_data(KNIT_TEST_DATA, "golden/stories260K/sampled_published.json", name, sizeof name) ||
		!open_model(&r, stories[0].file, NULL, 256))
		return;
	root = test_read_json(name);
	cJSON_ArrayForEach(item, root) {
		const char *prompt = cJSON_GetObjectItem(item, "prompt")->valuestring;
		const char *expected = cJSON_GetObjectItem(item, "expected")->valuestring;
		const int steps = cJSON_GetObjectItem(item, "steps")->valueint;
		const knit_sampler_desc desc = {
			.kind = KNIT_SAMPLER_LLAMA2C,
			.temperature = (float)cJSON_GetObjectItem(item, "temperature")->valuedouble,
			.top_p = (float)cJSON_GetObjectItem(item, "top_p")->valuedouble,
			.seed = (uint64_t)cJSON_GetObjectItem(item, "seed")->valuedouble,
		};
		knit_token_list tokens = {.a = &r.ctx->a};

		/* llama2.c counts the prompt's tokens after BOS as steps. */
		knit__tokenizer_encode(r.model.tokenizer, prompt, strlen(prompt), &tokens, NULL);
		char *text = model_run_text(&r, &desc, prompt, (size_t)steps - (*prompt ? tokens.count : 0), NULL);
		ck_assert_msg(strcmp(text, expected) == 0, "sample %d:\n%s\npublished:\n%s", compared, text, expected);
		knit__token_list_clear(&tokens);
		free(text);
		++compared;
	}
	ck_assert_int_eq(compared, 4);
	cJSON_Delete(root);
	model_run_close(&r);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {greedy_text_of_256_steps, greedy_text_of_llama2xs, logits_of_stories260K,
								  logits_of_llama2xs, published_samples_exactly};

	const TTest *const quick[] = {greedy_text_of_256_steps, logits_of_stories260K, logits_of_llama2xs};

	if (suite_quick())
		return suite_run("golden", quick, sizeof quick / sizeof *quick);
	return suite_run("golden", tests, sizeof tests / sizeof *tests);
}
