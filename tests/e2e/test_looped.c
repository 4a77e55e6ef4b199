/* Layers visited several times, with a LoRA per visit: golden logits, one stored copy, equality with physical copies.
 */
#include "../tools/model_run.h"
#include "../tools/report.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, TOKENS = 32, VISITS = 7 };

/* One layer of stories260K in f32. */
#define LAYER_BYTES ((uint64_t)4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 172 + 2 * 64))

static const char base_file[] = "models/gguf/stories260K-f32.gguf";
static const char looped[] = "0,1,2,2,2,3,4";
static char base_path[4096], adapter_path[4096];

/* The first 32 tokens of the golden greedy text, BOS first. */
static void golden_ids(int32_t ids[TOKENS]) {
	char name[4096];
	int count = 1;

	snprintf(name, sizeof name, "%s/golden/stories260K/golden.json", KNIT_TEST_DATA);
	cJSON *root = test_read_json(name), *item;
	ids[0] = 1;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "generated_ids")) {
		if (count < TOKENS)
			ids[count++] = item->valueint;
	}
	cJSON_Delete(root);
}

/* Feeds the golden ids and compares; leaves the model open for more. */
static bool check_case(model_run *r, const char *visits, const char *adapter, const char *golden, size_t batch) {
	const knit__decoder_desc desc = {.positions = TOKENS, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F32};
	knit__model_desc model = {.path = base_path, .visits = visits};
	char name[4096];
	int32_t ids[TOKENS];

	if (!test_data(KNIT_TEST_DATA, base_file, base_path, sizeof base_path))
		return false;
	if (adapter && !test_data(KNIT_TEST_DATA, adapter, adapter_path, sizeof adapter_path))
		return false;
	model.adapter_path = adapter ? adapter_path : NULL;
	model_run_open(r, &model, desc, 2);
	golden_ids(ids);
	float *logits = model_run_logits(r, ids, TOKENS, batch);
	snprintf(name, sizeof name, "%s/golden/looped-lora/%s.logits_32x512.f32", KNIT_TEST_DATA, golden);
	float *expected = test_read_floats(name, TOKENS * VOCAB);
	const double off = test_largest_difference(logits, expected, TOKENS * VOCAB);
	printf("%s, %zu tokens at once: logits off by %.1e\n", golden, batch, off);
	ck_assert_msg(off <= 1e-4, "%s: off by %g", golden, off);
	free(expected);
	free(logits);
	return true;
}

static knit_memory memory_of(const model_run *r) {
	knit_memory m;

	ck_assert_int_eq(knit_program_memory(r->decoder.program, &m), KNIT_OK);
	return m;
}

/* Bytes of a store's tensors, those with equal bytes once. */
static uint64_t unique_bytes(const knit_weights *store) {
	knit_weight_info info, other;
	uint64_t sum = 0;

	for (size_t i = 0; knit_weights_at(store, i, &info) == KNIT_OK; ++i) {
		bool first = true;
		for (size_t k = 0; k < i && first; ++k)
			first = knit_weights_at(store, k, &other) == KNIT_OK && other.storage != info.storage;
		sum += first ? info.bytes : 0;
	}
	return sum;
}

/* What a program keeps of base weights is what the file holds, to the byte; what kernels' layouts add is told apart, here and in
 * the report, whose storages add up to the same. */
static void check_resident(const model_run *r) {
	const knit_memory m = memory_of(r);
	uint64_t sum = 0;

	ck_assert_uint_eq(m.weight_bytes, unique_bytes(r->model.file.store));
	cJSON *const root = report_of(r->decoder.program, NULL), *item;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "storages")) {
		if (strcmp(cJSON_GetObjectItem(item, "kind")->valuestring, "weight") == 0)
			sum += (uint64_t)cJSON_GetObjectItem(item, "bytes")->valuedouble;
	}
	const cJSON *const memory = cJSON_GetObjectItem(root, "memory");
	ck_assert_double_eq(cJSON_GetObjectItem(memory, "weight_bytes")->valuedouble, (double)m.weight_bytes);
	ck_assert_double_eq(cJSON_GetObjectItem(memory, "packed_bytes")->valuedouble, (double)m.packed_bytes);
	printf("resident: %llu bytes of base weights, %llu more for layouts\n", (unsigned long long)m.weight_bytes,
		   (unsigned long long)m.packed_bytes);
	ck_assert_uint_eq(sum, m.weight_bytes + m.packed_bytes);
	cJSON_Delete(root);
}

/* Base weights resident once: the same bytes for 5, 7 and 7 visits with LoRA. */
START_TEST(golden_cases) {
	static const char lora[] = "golden/looped-lora/loop_mid3_lora_all_r8.lora.safetensors";
	knit_memory once, twice, with_lora;
	model_run r;

	if (!check_case(&r, NULL, NULL, "base_5", 16))
		return;
	once = memory_of(&r);
	check_resident(&r);
	model_run_close(&r);
	check_case(&r, looped, NULL, "loop_mid3", 16);
	twice = memory_of(&r);
	check_resident(&r);
	model_run_close(&r);
	check_case(&r, looped, NULL, "loop_mid3", 1);
	model_run_close(&r);
	check_case(&r, NULL, lora, "loop_mid3_lora_all_r8", 16);
	with_lora = memory_of(&r);
	check_resident(&r);
	ck_assert_uint_eq(r.model.config.visit_count, 7); /* the adapter brought its schedule */
	model_run_close(&r);

	ck_assert_uint_eq(twice.weight_bytes, once.weight_bytes);
	ck_assert_uint_eq(with_lora.weight_bytes, once.weight_bytes);
	ck_assert_uint_eq(twice.weight_storages, once.weight_storages);
	/* Two more visits of one layer, in its bytes. */
	ck_assert_uint_eq(twice.weight_bytes_by_use, once.weight_bytes_by_use + 2 * LAYER_BYTES);
	ck_assert_uint_eq(once.adapter_bytes, 0);
	ck_assert_uint_eq(with_lora.adapter_bytes, UINT64_C(258944));
	ck_assert_uint_eq(twice.state_bytes * 5, once.state_bytes * 7);
}
END_TEST

/* A store of its own with a copy of one layer. */
static knit_weights *copy_layer(knit_context *ctx, const knit_weights *base, unsigned layer) {
	knit_weights *copy = NULL;
	knit_weight_info info;
	knit_diag diag = {0};
	char prefix[16];

	ck_assert_int_eq(knit_weights_create(ctx, &copy), KNIT_OK);
	snprintf(prefix, sizeof prefix, "blk.%u.", layer);
	for (size_t i = 0; knit_weights_at(base, i, &info) == KNIT_OK; ++i)
		if (strncmp(info.name, prefix, strlen(prefix)) == 0)
			ck_assert_int_eq(knit_weights_add(copy, info.name, info.dtype, info.rank, info.dims, info.data,
											  (size_t)info.bytes, &diag),
							 KNIT_OK);
	return copy;
}

/* The looped model against the same model with its layers physically copied, which the engine is kept from merging. */
START_TEST(looped_equals_copied_layers) {
	knit__decoder_desc desc = {.positions = TOKENS, .max_tokens = 16, .max_outputs = 16, .kv = KNIT_F16};
	const knit__model_desc model = {.path = base_path, .visits = looped};
	knit_weights *copies[VISITS];
	int32_t ids[TOKENS];
	model_run shared, copied;
	knit_diag diag = {0};

	if (!test_data(KNIT_TEST_DATA, base_file, base_path, sizeof base_path))
		return;
	golden_ids(ids);
	model_run_open(&shared, &model, desc, 2);
	ck_assert_uint_eq(shared.model.config.visit_count, VISITS);
	float *a = model_run_logits(&shared, ids, TOKENS, 16);
	for (int v = 0; v < VISITS; ++v)
		copies[v] = copy_layer(shared.ctx, shared.model.file.store, shared.model.config.visits[v]);
	copied = (model_run){.ctx = shared.ctx};
	desc.config = &shared.model.config;
	desc.base = shared.model.file.store;
	desc.visit_bases = copies;
	desc.disable_passes = "dedup_weights";
	ck_assert_msg(knit__decoder_open(shared.ctx, &desc, &copied.decoder, &diag) == KNIT_OK, "%s", diag.text);
	float *b = model_run_logits(&copied, ids, TOKENS, 16);
	const knit_memory one = memory_of(&shared), many = memory_of(&copied);
	knit__decoder_close(&copied.decoder);
	/* Without the switch the engine finds the copies and stores them once again. */
	desc.disable_passes = NULL;
	ck_assert_int_eq(knit__decoder_open(shared.ctx, &desc, &copied.decoder, &diag), KNIT_OK);
	float *c = model_run_logits(&copied, ids, TOKENS, 16);
	const knit_memory found = memory_of(&copied);
	knit__decoder_close(&copied.decoder);

	printf("weights: %llu bytes shared, %llu copied\n", (unsigned long long)one.weight_bytes,
		   (unsigned long long)many.weight_bytes);
	ck_assert_msg(memcmp(a, b, TOKENS * VOCAB * sizeof *a) == 0, "logits differ by up to %g",
				  test_largest_difference(a, b, TOKENS * VOCAB));
	ck_assert_int_eq(memcmp(a, c, TOKENS * VOCAB * sizeof *a), 0);
	ck_assert_uint_eq(many.weight_bytes, one.weight_bytes + 2 * LAYER_BYTES);
	ck_assert_uint_eq(many.weight_bytes_by_use, one.weight_bytes_by_use);
	if (!suite_pass_is_off("dedup_weights"))
		ck_assert_uint_eq(found.weight_bytes, one.weight_bytes);
	for (int v = 0; v < VISITS; ++v)
		knit_weights_release(copies[v]);
	free(a);
	free(b);
	free(c);
	model_run_close(&shared);
}
END_TEST

/* The file's separate output matrix equals the embedding: found, and stored once in the program. */
START_TEST(separate_head_is_found_to_be_tied) {
	const knit__decoder_desc desc = {.positions = TOKENS, .max_tokens = 16, .max_outputs = 16};
	knit__model_desc model = {.path = base_path};
	knit_weight_info embedding, output;
	model_run r;

	if (!test_data(KNIT_TEST_DATA, base_file, base_path, sizeof base_path))
		return;
	model_run_open(&r, &model, desc, 2);
	const knit_memory tied = memory_of(&r);
	model_run_close(&r);
	if (!test_data(KNIT_TEST_DATA, "models/gguf/stories260K-ggml-org.gguf", base_path, sizeof base_path))
		return;
	model_run_open(&r, &model, desc, 2);
	ck_assert(!r.model.config.tied);
	ck_assert_int_eq(knit_weights_find(r.model.file.store, "token_embd.weight", &embedding), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(r.model.file.store, "output.weight", &output), KNIT_OK);
	ck_assert_uint_eq(embedding.storage, output.storage);
	ck_assert_uint_eq(memory_of(&r).weight_bytes, tied.weight_bytes);
	model_run_close(&r);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {golden_cases, looped_equals_copied_layers, separate_head_is_found_to_be_tied};

	return suite_run("looped", tests, sizeof tests / sizeof *tests);
}
