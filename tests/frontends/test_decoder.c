/* The decoder's config and graph on models made in code: what is refused and how it is said, LoRA, visits, memory
 * faults. */
#include "../../frontends/models/decoder.h"
#include "../../frontends/models/hf_config.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIM = 8, FFN = 12, HEADS = 4, KV_HEADS = 2, VOCAB = 16, LAYERS = 2, RANK = 2, CONTEXT = 32, TOKENS = 6 };

static knit_context *ctx;
static knit_weights *store;
static knit_metadata keys;

static void put_u32(const char *key, uint32_t value) {
	ck_assert_int_eq(knit__metadata_add_u32(&keys, key, value, NULL), KNIT_OK);
}

static void put_f32(const char *key, float value) {
	ck_assert_int_eq(knit__metadata_add_f32(&keys, key, value, NULL), KNIT_OK);
}

static void put_text(const char *key, const char *text) {
	ck_assert_int_eq(knit__metadata_add_string(&keys, key, text, strlen(text), NULL), KNIT_OK);
}

static void put_visits(const uint32_t *visits, uint64_t count) {
	ck_assert_int_eq(knit__metadata_add(&keys, "knit.visits", KNIT_METADATA_U32, true, count, visits, NULL), KNIT_OK);
}

/* Keys of the model, without `skip`, with `replace` at `value`. */
static void put_keys(const char *skip, const char *replace, uint32_t value) {
	static const struct {
		const char *key;
		uint32_t value;
	} counts[] = {
		{"knit.embedding_length", DIM},       {"knit.block_count", LAYERS},
		{"knit.feed_forward_length", FFN},    {"knit.context_length", CONTEXT},
		{"knit.attention.head_count", HEADS}, {"knit.attention.head_count_kv", KV_HEADS},
	};

	if (!skip || strcmp(skip, "general.architecture") != 0)
		put_text("general.architecture", "knit");
	if (!skip || strcmp(skip, "knit.attention.layer_norm_rms_epsilon") != 0)
		put_f32("knit.attention.layer_norm_rms_epsilon", 1e-5f);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
		if (skip && strcmp(skip, counts[i].key) == 0)
			continue;
		put_u32(counts[i].key, replace && strcmp(replace, counts[i].key) == 0 ? value : counts[i].value);
	}
}

static float noise(uint32_t *seed, float scale) {
	*seed = *seed * 1664525u + 1013904223u;
	return scale * ((float)(*seed >> 8) / 8388608.0f - 1.0f);
}

/* Random numbers that depend on the name alone. */
static void put_tensor(const char *name, knit_dtype dtype, int64_t rows, int64_t columns, float scale) {
	const int64_t dims[] = {rows, columns};
	const size_t count = (size_t)(rows * (columns ? columns : 1));
	float data[VOCAB * DIM * 2];
	uint32_t seed = 1;
	knit_diag diag = {0};

	for (const char *c = name; *c; ++c)
		seed = seed * 31 + (uint32_t)*c;
	ck_assert_uint_le(count, sizeof data / sizeof *data);
	for (size_t i = 0; i < count; ++i)
		data[i] = columns ? noise(&seed, scale) : 1 + noise(&seed, 0.2f);
	ck_assert_msg(knit_weights_add(store, name, dtype, columns ? 2 : 1, dims, data, count * (dtype == KNIT_F32 ? 4 : 2),
								   &diag) == KNIT_OK,
				  "%s", diag.text);
}

/* Shapes of the seven projections, in the order of knit__part. */
static const int64_t shapes[][2] = {{DIM, DIM}, {DIM / 2, DIM}, {DIM / 2, DIM}, {DIM, DIM},
									{FFN, DIM}, {FFN, DIM},     {DIM, FFN}};

/* Tensors of `layers` layers, without `skip`; layer l has the numbers of layer from[l], if from is given. */
static void put_tensors(const char *skip, uint32_t layers, const uint16_t *from) {
	char name[KNIT__NAME_BYTES];

	if (!skip || strcmp(skip, "token_embd.weight") != 0)
		put_tensor("token_embd.weight", KNIT_F32, VOCAB, DIM, 1);
	put_tensor("output_norm.weight", KNIT_F32, DIM, 0, 1);
	for (uint32_t l = 0; l < layers; ++l)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			const bool norm = p < KNIT__ATTN_Q;
			const int64_t *shape = norm ? NULL : shapes[p - KNIT__ATTN_Q];
			char source[KNIT__NAME_BYTES];
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, name);
			if (skip && strcmp(skip, name) == 0)
				continue;
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, from ? from[l] : l, source);
			if (strcmp(source, name) == 0) {
				put_tensor(name, KNIT_F32, norm ? DIM : shape[0], norm ? 0 : shape[1], 0.4f);
				continue;
			}
			knit_weight_info info; /* the twin's bytes under another name */
			ck_assert_int_eq(knit_weights_find(store, source, &info), KNIT_OK);
			ck_assert_int_eq(
				knit_weights_add(store, name, info.dtype, info.rank, info.dims, info.data, (size_t)info.bytes, NULL),
				KNIT_OK);
		}
}

static void put_lora(uint32_t visits, const char *skip, int64_t rank, float b_scale) {
	char name[KNIT__NAME_BYTES];

	for (uint32_t v = 0; v < visits; ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			const int64_t *shape = shapes[p - KNIT__ATTN_Q];
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'a', name);
			if (!skip || strcmp(skip, name) != 0)
				put_tensor(name, KNIT_F32, rank, shape[1], 0.4f);
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'b', name);
			if (!skip || strcmp(skip, name) != 0)
				put_tensor(name, KNIT_F32, shape[0], rank, b_scale);
		}
}

static void open_empty(void) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	knit__metadata_init(&keys, &ctx->a);
}

static void close_all(void) {
	knit__metadata_clear(&keys);
	knit_weights_release(store);
	knit_context_destroy(ctx);
}

/* Reads the config of what was put; `part` must be in the message of a refusal. Closes everything. */
static void expect(knit_status status, const char *part) {
	static knit__decoder_config c;
	knit_diag diag = {0};
	const knit_status got = knit__decoder_config_read(&keys, store, &c, &diag);

	ck_assert_msg(got == status, "%s, not %s: %s", knit_status_name(got), knit_status_name(status), diag.text);
	ck_assert_msg(strstr(diag.text, part) != NULL, "\"%s\" is not in: %s", part, diag.text);
	ck_assert_msg(status == KNIT_OK || diag.status == status, "diag says %s", knit_status_name(diag.status));
	close_all();
}

START_TEST(a_full_config_and_its_defaults) {
	static knit__decoder_config c;
	const uint32_t visits[] = {0, 1, 1, 0, 1};
	knit__decoder_parameters p;
	knit_diag diag = {0};

	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	ck_assert_msg(knit__decoder_config_read(&keys, store, &c, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_str_eq(c.architecture, "knit");
	ck_assert_int_eq(c.vocab, VOCAB);
	ck_assert_int_eq(c.head_dim, DIM / HEADS);
	ck_assert_int_eq(c.rope.rotary_dims, DIM / HEADS);
	ck_assert_float_eq(c.rope.theta, 10000);
	ck_assert_int_eq(c.rope.layout, KNIT_ROPE_INTERLEAVED);
	ck_assert_uint_eq(c.visit_count, LAYERS);
	ck_assert(c.tied && c.lora_rank == 0);

	put_visits(visits, 5);
	put_text("knit.rope.layout", "split");
	put_f32("knit.rope.freq_base", 500000);
	ck_assert_int_eq(knit__decoder_config_read(&keys, store, &c, &diag), KNIT_OK);
	ck_assert_uint_eq(c.visit_count, 5);
	ck_assert_uint_eq(c.visits[2], 1);
	ck_assert_int_eq(c.rope.layout, KNIT_ROPE_SPLIT);
	ck_assert_float_eq(c.rope.theta, 500000);
	ck_assert_int_eq(knit__weights_seal(store), KNIT_OK);
	knit__decoder_count_parameters(&c, store, NULL, &p);
	const uint64_t layer = 2 * DIM + 2 * DIM * DIM + DIM * DIM + 3 * DIM * FFN, rest = VOCAB * DIM + DIM;
	ck_assert_uint_eq(p.unique, 2 * layer + rest);
	ck_assert_uint_eq(p.visited, 5 * layer + rest + VOCAB * DIM);
	ck_assert_uint_eq(knit__decoder_kv_bytes(&c, KNIT_F16), 5 * 2 * (DIM / 2) * 2);
	close_all();
}
END_TEST

START_TEST(keys_are_refused_by_name) {
	static const struct {
		const char *key;
		uint32_t value;
		knit_status status;
	} cases[] = {
		{"knit.embedding_length", 0, KNIT_ERR_FORMAT},
		{"knit.embedding_length", KNIT__MAX_WIDTH + 1, KNIT_ERR_LIMIT},
		{"knit.block_count", 0, KNIT_ERR_FORMAT},
		{"knit.block_count", KNIT__MAX_LAYERS + 1, KNIT_ERR_LIMIT},
		{"knit.block_count", UINT32_MAX, KNIT_ERR_LIMIT},
		{"knit.feed_forward_length", 0, KNIT_ERR_FORMAT},
		{"knit.feed_forward_length", UINT32_MAX, KNIT_ERR_LIMIT},
		{"knit.context_length", 0, KNIT_ERR_FORMAT},
		{"knit.context_length", KNIT__MAX_CONTEXT + 1, KNIT_ERR_LIMIT},
		{"knit.attention.head_count", 0, KNIT_ERR_FORMAT},
		{"knit.attention.head_count", KNIT__MAX_HEADS + 1, KNIT_ERR_LIMIT},
		{"knit.attention.head_count_kv", 0, KNIT_ERR_FORMAT},
	};
	static const char *const needed[] = {
		"knit.embedding_length", "knit.block_count",          "knit.feed_forward_length",
		"knit.context_length",   "knit.attention.head_count", "knit.attention.layer_norm_rms_epsilon",
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		open_empty();
		put_keys(NULL, cases[i].key, cases[i].value);
		put_tensors(NULL, LAYERS, NULL);
		expect(cases[i].status, cases[i].key);
	}
	for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i) {
		open_empty();
		put_keys(needed[i], NULL, 0);
		put_tensors(NULL, LAYERS, NULL);
		expect(KNIT_ERR_NOT_FOUND, needed[i]);
	}
	open_empty();
	put_keys("general.architecture", NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "general.architecture is missing");
	open_empty();
	put_keys(NULL, NULL, 0);
	expect(KNIT_ERR_FORMAT, "no tensors");
}
END_TEST

START_TEST(numbers_must_fit_together) {
	open_empty();
	put_keys(NULL, "knit.attention.head_count_kv", 3);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "head_count 4 is no multiple of head_count_kv 3");
	open_empty();
	put_keys(NULL, "knit.attention.head_count", 6);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "embedding_length 8 is no multiple of attention.head_count 6");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_u32("knit.rope.dimension_count", 4); /* of heads that are 2 wide */
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_LIMIT, "knit.rope.dimension_count is 4");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_f32("knit.rope.freq_base", -1);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "knit.rope.freq_base is -1");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_f32("knit.rope.freq_base", NAN);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "knit.rope.freq_base");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_text("knit.rope.layout", "diagonal");
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "diagonal");
}
END_TEST

START_TEST(foreign_models_are_refused_not_run) {
	open_empty();
	put_text("general.architecture", "gpt2");
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "\"gpt2\"");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_text("knit.rope.scaling.type", "yarn");
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "yarn");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_u32("knit.expert_count", 8);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "mixture of experts");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_tensor("blk.0.attn_q.bias", KNIT_F32, DIM, 0, 1);
	expect(KNIT_ERR_UNSUPPORTED, "blk.0.attn_q.bias");
}
END_TEST

START_TEST(visits_are_checked) {
	static uint32_t many[KNIT__MAX_VISITS + 1];
	const uint32_t wrong[] = {0, 1, 2};

	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_visits(wrong, 3);
	expect(KNIT_ERR_FORMAT, "visit 2 is of layer 2, the model has layers 0 to 1");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_visits(many, KNIT__MAX_VISITS);
	expect(KNIT_OK, "");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_visits(many, KNIT__MAX_VISITS + 1);
	expect(KNIT_ERR_LIMIT, "1025");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_visits(many, 0);
	expect(KNIT_ERR_FORMAT, "knit.visits has 0");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_text("knit.visits", "0,1");
	expect(KNIT_ERR_FORMAT, "knit.visits");
}
END_TEST

START_TEST(a_list_of_visits_from_the_user) {
	static const char *const bad[] = {"", ",", "0,", "0,,1", "a", "0 1", "-1", "2", "99999999999999999999", "1,0,7"};
	static knit__decoder_config c;
	static char longest[KNIT__MAX_VISITS * 2 + 8];
	bool dropped = true;
	knit_diag diag = {0};

	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&keys, store, &c, &diag), KNIT_OK);
	ck_assert_int_eq(knit__decoder_config_visits(&c, "1,0,0,1,1", &dropped, &diag), KNIT_OK);
	ck_assert_uint_eq(c.visit_count, 5);
	ck_assert_uint_eq(c.visits[0], 1);
	ck_assert(!dropped);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit_diag d = {0};
		ck_assert_msg(knit__decoder_config_visits(&c, bad[i], NULL, &d) == KNIT_ERR_ARGUMENT, "\"%s\" is taken",
					  bad[i]);
		ck_assert(d.text[0]);
	}
	ck_assert_uint_eq(c.visit_count, 5); /* unchanged by what was refused */
	for (int i = 0; i < KNIT__MAX_VISITS + 1; ++i)
		strcat(longest, i ? ",1" : "1");
	ck_assert_int_eq(knit__decoder_config_visits(&c, longest, NULL, &diag), KNIT_ERR_LIMIT);
	/* LoRA belongs to the model's own visits. */
	c.lora_rank = 4;
	ck_assert_int_eq(knit__decoder_config_visits(&c, "1,0,0,1,1", &dropped, NULL), KNIT_OK);
	ck_assert(!dropped && c.lora_rank == 4);
	ck_assert_int_eq(knit__decoder_config_visits(&c, "1,0", &dropped, NULL), KNIT_OK);
	ck_assert(dropped && c.lora_rank == 0);
	close_all();
}
END_TEST

START_TEST(tensors_are_checked) {
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors("blk.1.ffn_up.weight", LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "blk.1.ffn_up.weight is missing");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors("token_embd.weight", LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "token_embd.weight is missing");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors("blk.1.attn_k.weight", LAYERS, NULL);
	put_tensor("blk.1.attn_k.weight", KNIT_F32, DIM, DIM, 1);
	expect(KNIT_ERR_SHAPE, "blk.1.attn_k.weight is f32 [8, 8], the metadata asks for [4, 8]");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors("blk.0.ffn_norm.weight", LAYERS, NULL);
	put_tensor("blk.0.ffn_norm.weight", KNIT_F32, 1, DIM, 1);
	expect(KNIT_ERR_SHAPE, "blk.0.ffn_norm.weight is f32 [1, 8], the metadata asks for floats [8]");
	open_empty();
	put_keys(NULL, "knit.embedding_length", 16);
	put_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_SHAPE, "token_embd.weight is f32 [16, 8], the metadata asks for [16, 16]");
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_tensor("output.weight", KNIT_F32, VOCAB - 1, DIM, 1);
	expect(KNIT_ERR_SHAPE, "output.weight");
}
END_TEST

START_TEST(lora_is_checked) {
	static const char part[] = "visit.1.ffn_down.lora_b";

	for (int i = 0; i < 6; ++i) {
		open_empty();
		put_keys(NULL, NULL, 0);
		put_tensors(NULL, LAYERS, NULL);
		if (i != 1)
			put_u32("knit.lora.rank", i == 5 ? KNIT__MAX_LORA_RANK + 1 : RANK);
		if (i != 2)
			put_lora(i == 4 ? LAYERS + 1 : LAYERS, i == 3 ? part : NULL, RANK, 0.4f);
		switch (i) {
		case 0:
			expect(KNIT_OK, "");
			break;
		case 1:
			expect(KNIT_ERR_FORMAT, "no knit.lora.rank");
			break;
		case 2:
			expect(KNIT_ERR_NOT_FOUND, "rank 2 is announced");
			break;
		case 3:
			expect(KNIT_ERR_NOT_FOUND, part);
			break;
		case 4:
			expect(KNIT_ERR_FORMAT, "14 of 42 LoRA tensors fit no visit");
			break;
		default:
			expect(KNIT_ERR_LIMIT, "knit.lora.rank is 4097");
		}
	}
	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	put_u32("knit.lora.rank", RANK);
	put_lora(LAYERS, NULL, RANK + 1, 0.4f);
	expect(KNIT_ERR_SHAPE, "visit.0.attn_q.lora_a is f32 [3, 8], the metadata asks for [2, 8]");
}
END_TEST

START_TEST(config_json_of_hugging_face) {
	static const char good[] =
		"{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,"
		"\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":32,"
		"\"rms_norm_eps\":1e-05,\"rope_theta\":5e5,\"rope_scaling\":null,\"hidden_act\":\"silu\"}";
	static const struct {
		const char *json, *part;
		knit_status status;
	} bad[] = {
		{"", "no JSON object", KNIT_ERR_FORMAT},
		{"[]", "no JSON object", KNIT_ERR_FORMAT},
		{"{\"model_type\":", "no JSON object", KNIT_ERR_FORMAT},
		{"{}", "model_type", KNIT_ERR_FORMAT},
		{"{\"model_type\":\"gemma\"}", "gemma", KNIT_ERR_UNSUPPORTED},
		{"{\"model_type\":\"llama\",\"rope_scaling\":{\"factor\":8}}", "rope_scaling", KNIT_ERR_UNSUPPORTED},
		{"{\"model_type\":\"llama\",\"attention_bias\":true}", "attention_bias", KNIT_ERR_UNSUPPORTED},
		{"{\"model_type\":\"llama\",\"hidden_act\":\"gelu\"}", "hidden_act", KNIT_ERR_UNSUPPORTED},
		{"{\"model_type\":\"llama\",\"hidden_size\":-1}", "hidden_size", KNIT_ERR_FORMAT},
		{"{\"model_type\":\"llama\",\"hidden_size\":1.5}", "hidden_size", KNIT_ERR_FORMAT},
		{"{\"model_type\":\"llama\",\"hidden_size\":1e300}", "hidden_size", KNIT_ERR_FORMAT},
		{"{\"model_type\":\"llama\",\"rope_theta\":\"x\"}", "rope_theta", KNIT_ERR_FORMAT},
	};
	uint64_t n = 0;
	const char *text = NULL;

	open_empty();
	ck_assert_int_eq(knit__hf_config_parse(good, sizeof good - 1, &keys, NULL), KNIT_OK);
	ck_assert_int_eq(knit__metadata_u64(&keys, "llama.attention.head_count_kv", &n, NULL), KNIT_OK);
	ck_assert_uint_eq(n, 2);
	ck_assert_int_eq(knit__metadata_string(&keys, "knit.rope.layout", &text, NULL), KNIT_OK);
	ck_assert_str_eq(text, "split");
	close_all();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit_diag diag = {0};
		open_empty();
		const knit_status status = knit__hf_config_parse(bad[i].json, strlen(bad[i].json), &keys, &diag);
		ck_assert_msg(status == bad[i].status, "%s: %s", bad[i].json, diag.text);
		ck_assert_msg(strstr(diag.text, bad[i].part) != NULL, "%s: %s", bad[i].json, diag.text);
		close_all();
	}
}
END_TEST

/* ---- running ----------------------------------------------------------------------------------------------------- */

static const int32_t ids[TOKENS] = {3, 15, 0, 7, 7, 1}, seq[TOKENS], rows[TOKENS] = {0, 1, 2, 3, 4, 5},
					 pos[TOKENS] = {0, 1, 2, 3, 4, 5};

static void run(const knit__decoder_config *c, knit_weights *base, knit_weights *adapters, float *logits,
				knit_memory *m) {
	const knit__decoder_desc desc = {
		.config = c, .base = base, .adapters = adapters, .max_tokens = 8, .max_outputs = 8};
	knit__decoder d;
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_open(ctx, &desc, &d, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_msg(knit__decoder_step(&d, ids, seq, pos, TOKENS, rows, TOKENS, logits, &diag) == KNIT_OK, "%s",
				  diag.text);
	ck_assert_int_eq(knit_program_memory(d.program, m), KNIT_OK);
	knit__decoder_close(&d);
}

static double distance(const float *a, const float *b) {
	double largest = 0;

	for (int i = 0; i < TOKENS * VOCAB; ++i)
		largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
	return largest;
}

/* LoRA off; on with B = 0: the same; on: something else, by the same weights. */
START_TEST(lora_changes_what_it_should) {
	static knit__decoder_config c;
	float off[TOKENS * VOCAB], zero[TOKENS * VOCAB], on[TOKENS * VOCAB];
	const uint32_t visits[] = {0, 1, 1};
	knit_memory m_off, m_zero, m_on;
	knit_weights *base;

	open_empty();
	put_keys(NULL, NULL, 0);
	put_visits(visits, 3);
	put_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&keys, store, &c, NULL), KNIT_OK);
	base = store;
	run(&c, base, NULL, off, &m_off);
	put_u32("knit.lora.rank", RANK);
	put_f32("knit.lora.alpha", 6);

	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	put_lora(3, NULL, RANK, 0);
	ck_assert_int_eq(knit__decoder_config_adapter(&c, &keys, store, NULL), KNIT_OK);
	ck_assert_float_eq(c.lora_scale, 3);
	run(&c, base, store, zero, &m_zero);
	knit_weights_release(store);
	ck_assert_double_eq(distance(off, zero), 0);

	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	put_lora(3, NULL, RANK, 0.4f);
	run(&c, base, store, on, &m_on);
	ck_assert(distance(off, on) > 1e-3);
	ck_assert_uint_eq(m_on.weight_bytes, m_off.weight_bytes);
	ck_assert_uint_eq(m_off.adapter_bytes, 0);
	ck_assert_uint_gt(m_on.adapter_bytes, 0);
	knit_weights_release(base);
	close_all();
}
END_TEST

/* Visits 0,1,1,0 of two layers against four layers that hold the same numbers under names of their own. */
START_TEST(visits_equal_layers_with_equal_numbers) {
	static knit__decoder_config c, copied;
	static const uint16_t from[] = {0, 1, 1, 0};
	const uint32_t visits[] = {0, 1, 1, 0};
	float a[TOKENS * VOCAB], b[TOKENS * VOCAB];
	knit_memory shared, twins;
	knit_weights *base;

	open_empty();
	put_keys(NULL, NULL, 0);
	put_visits(visits, 4);
	put_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&keys, store, &c, NULL), KNIT_OK);
	run(&c, store, NULL, a, &shared);
	base = store;
	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	put_tensors(NULL, 4, from);
	copied = c;
	copied.layers = 4;
	for (uint16_t v = 0; v < 4; ++v)
		copied.visits[v] = v;
	run(&copied, store, NULL, b, &twins);
	ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
	ck_assert_uint_eq(shared.weight_bytes, twins.weight_bytes); /* equal numbers are found and stored once */
	knit_weights_release(base);
	close_all();
}
END_TEST

START_TEST(steps_are_checked) {
	static knit__decoder_config c;
	int32_t wrong[TOKENS] = {0, 1, 2, 3, 4, VOCAB};
	float logits[TOKENS * VOCAB];
	knit__decoder d;
	knit_diag diag = {0};

	open_empty();
	put_keys(NULL, NULL, 0);
	put_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&keys, store, &c, NULL), KNIT_OK);
	const knit__decoder_desc desc = {.config = &c, .base = store, .positions = 4, .max_tokens = 8, .max_outputs = 8};
	ck_assert_int_eq(knit__decoder_open(ctx, &desc, &d, &diag), KNIT_OK);
	ck_assert_int_ne(knit__decoder_step(&d, wrong, seq, pos, 4, rows, 4, logits, &diag), KNIT_ERR_INTERNAL);
	ck_assert_int_ne(knit__decoder_step(&d, wrong + 2, seq, pos, 4, rows, 4, logits, &diag), KNIT_OK); /* id 16 of 16 */
	ck_assert_msg(strstr(diag.text, "16") != NULL, "%s", diag.text);
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 6, rows, 1, logits, NULL), KNIT_OK); /* position 4 of 4 */
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 9, rows, 1, logits, NULL), KNIT_OK); /* 9 of 8 tokens */
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 2, rows + 2, 1, logits, NULL), KNIT_OK); /* row 2 of 2 */
	ck_assert_int_eq(knit__decoder_step(&d, ids, seq, pos, 4, rows, 4, logits, NULL), KNIT_OK);
	knit__decoder_close(&d);
	const knit__decoder_desc huge = {.config = &c, .base = store, .positions = KNIT__MAX_CONTEXT + 1};
	memset(&diag, 0, sizeof diag);
	ck_assert_int_eq(knit__decoder_open(ctx, &huge, &d, &diag), KNIT_ERR_LIMIT);
	ck_assert(d.program == NULL && diag.text[0]);
	close_all();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		a_full_config_and_its_defaults,
		keys_are_refused_by_name,
		numbers_must_fit_together,
		foreign_models_are_refused_not_run,
		visits_are_checked,
		a_list_of_visits_from_the_user,
		tensors_are_checked,
		lora_is_checked,
		config_json_of_hugging_face,
		lora_changes_what_it_should,
		visits_equal_layers_with_equal_numbers,
		steps_are_checked,
	};

	return suite_run("decoder", tests, sizeof tests / sizeof *tests);
}
