/* Perplexity: golden figures of real models, and the bundled model against its training script. */
#include "../../frontends/text/perplexity.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char demo[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

static char path[4096], tokenizer[4096];

/* windows 0: the whole stream of 94. */
static void check_perplexity(const char *file, size_t windows, double expected) {
	char name[4096];
	knit__perplexity p;
	knit_diag diag = {0};
	model_run r;
	size_t bytes;

	/* Both models have one vocabulary and were measured on the same stream. */
	if (!test_data(KNIT_TEST_DATA, "golden/stories260K.ppl_ids.u16", name, sizeof name) ||
		!test_data(KNIT_TEST_DATA, file, path, sizeof path) ||
		!test_data(KNIT_TEST_DATA, "models/stories260K/tok512.bin", tokenizer, sizeof tokenizer))
		return;
	model_run_open(&r,
				   &(knit__model_desc){.path = path, .tokenizer = KNIT__TOKENIZER_NEEDED, .tokenizer_path = tokenizer},
				   (knit__decoder_desc){.positions = 256, .max_tokens = 64, .max_outputs = 64}, 0);
	char *stream = test_read_file(name, &bytes);
	int32_t *ids = malloc(bytes / 2 * sizeof *ids);
	ck_assert_ptr_nonnull(ids);
	for (size_t i = 0; i < bytes / 2; ++i)
		ids[i] = (uint8_t)stream[2 * i] | (uint8_t)stream[2 * i + 1] << 8;
	const knit__perplexity_desc desc = {
		.decoder = &r.decoder,
		.ids = ids,
		.count = bytes / 2,
		.cut = KNIT__CUT_STREAM,
		.window = 256,
		.max_windows = windows,
		.bos = -1,
		.tokenizer = r.model.tokenizer,
	};
	ck_assert_msg(knit__perplexity_measure(r.ctx, &desc, &p, &diag) == KNIT_OK, "%s", diag.text);
	printf("%s: %.6f nats per token, golden %.6f\n", file, p.mean, expected);
	ck_assert_uint_eq(p.tokens, (windows ? windows : 94) * 256);
	ck_assert_double_eq_tol(p.mean, expected, 1e-4);
	ck_assert(p.standard_error > 0 && p.standard_error < 0.3);
	ck_assert_uint_gt(p.bytes, p.tokens);
	free(ids);
	free(stream);
	model_run_close(&r);
}

START_TEST(perplexity_of_golden_streams) {
	check_perplexity("models/stories260K/stories260K.bin", 0, 1.599420);
	check_perplexity("models/llama2xs/model.bin", 0, 2.175442);
}
END_TEST

/* The beginning of the same streams: no golden figures, but what gave them. */
START_TEST(perplexity_of_two_windows) {
	check_perplexity("models/stories260K/stories260K.bin", 2, 1.429398);
	check_perplexity("models/llama2xs/model.bin", 2, 1.936414);
}
END_TEST

/* What the training script says of the file, beside it in the repository. */
static cJSON *expected_of_demo(void) {
	return test_read_json(KNIT_SOURCE_DIR "/frontends/demo/expected.json");
}

START_TEST(demo_logits_equal_the_training_script) {
	const knit__decoder_desc desc = {.positions = 64, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32};
	cJSON *root = expected_of_demo(), *item;
	const char *prompt = cJSON_GetObjectItem(root, "prompt")->valuestring;
	const size_t count = strlen(prompt);
	int32_t ids[64];
	int compared = 0;
	model_run r;

	ck_assert(count > 0 && count <= 64);
	for (size_t i = 0; i < count; ++i)
		ids[i] = (uint8_t)prompt[i];
	model_run_open(&r, &(knit__model_desc){.path = demo}, desc, 0);
	float *logits = model_run_logits(&r, ids, count, 16), *last = logits + (count - 1) * 256;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "logits_last_top5")) {
		const double expected = cJSON_GetObjectItem(item, "logit")->valuedouble;
		const int byte = cJSON_GetObjectItem(item, "byte")->valueint;
		ck_assert_double_eq_tol((double)last[byte], expected, 1e-3);
		++compared;
	}
	ck_assert_int_eq(compared, 5);
	free(logits);
	model_run_close(&r);
	cJSON_Delete(root);
}
END_TEST

/* The last tenth of the text, as `knit eval --last-fraction 0.1` cuts it. Minutes under sanitizers, seconds without. */
START_TEST(demo_perplexity_equals_the_training_script) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
	printf("SKIP: the whole last tenth takes minutes in this build\n");
#else
	const knit__decoder_desc desc = {.positions = 256, .max_tokens = 64, .max_outputs = 64, .kv = KNIT_F32};
	char file[4096];
	size_t bytes;
	knit__perplexity p;
	knit_diag diag = {0};
	model_run r;

	if (!test_data(KNIT_TEST_DATA, "corpora/tinyshakespeare.txt", file, sizeof file))
		return;
	cJSON *root = expected_of_demo();
	char *text = test_read_file(file, &bytes);
	const size_t cut = bytes * 9 / 10;
	int32_t *ids = malloc((bytes - cut) * sizeof *ids);
	ck_assert_ptr_nonnull(ids);
	for (size_t i = cut; i < bytes; ++i)
		ids[i - cut] = (uint8_t)text[i];
	model_run_open(&r, &(knit__model_desc){.path = demo}, desc, 0);
	const knit__perplexity_desc measure = {
		.decoder = &r.decoder, .ids = ids, .count = bytes - cut, .cut = KNIT__CUT_TEXT, .window = 256, .bos = -1};
	ck_assert_msg(knit__perplexity_measure(r.ctx, &measure, &p, &diag) == KNIT_OK, "%s", diag.text);
	printf("%.6f +- %.6f nats per byte, the training script says %.6f\n", p.mean, p.standard_error,
		   cJSON_GetObjectItem(root, "val_nats_per_byte")->valuedouble);
	ck_assert_uint_eq(p.windows, (size_t)cJSON_GetObjectItem(root, "windows")->valuedouble);
	ck_assert_uint_eq(p.tokens, (uint64_t)cJSON_GetObjectItem(root, "bytes_predicted")->valuedouble);
	ck_assert_double_eq_tol(p.mean, cJSON_GetObjectItem(root, "val_nats_per_byte")->valuedouble, 0.01);
	free(ids);
	free(text);
	model_run_close(&r);
	cJSON_Delete(root);
#endif
}
END_TEST

int main(void) {
	const TTest *const tests[] = {perplexity_of_golden_streams, perplexity_of_two_windows, demo_logits_equal_the_training_script,
								  demo_perplexity_equals_the_training_script};

	const TTest *const quick[] = {perplexity_of_two_windows, demo_logits_equal_the_training_script};

	if (suite_quick())
		return suite_run("perplexity", quick, sizeof quick / sizeof *quick);
	return suite_run("perplexity", tests, sizeof tests / sizeof *tests);
}
