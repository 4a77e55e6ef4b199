/* The decoder's config on models made in code: what is read, what is refused, and how that is said. */
#include "../../frontends/models/hf_config.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads the config of what was put; `part` must be in the message of a refusal. Closes everything. */
static void expect(knit_status status, const char *part) {
	static knit__decoder_config c;
	knit_diag diag = {0};
	const knit_status got = knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag);

	ck_assert_msg(got == status, "%s, not %s: %s", knit_status_name(got), knit_status_name(status), diag.text);
	ck_assert_msg(strstr(diag.text, part) != NULL, "\"%s\" is not in: %s", part, diag.text);
	ck_assert_msg(status == KNIT_OK || diag.status == status, "diag says %s", knit_status_name(diag.status));
	tiny_close();
}

START_TEST(a_full_config_and_its_defaults) {
	static knit__decoder_config c;
	const uint32_t visits[] = {0, 1, 1, 0, 1};
	knit__decoder_parameters p;
	knit_diag diag = {0};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_str_eq(c.architecture, "knit");
	ck_assert_int_eq(c.vocab, VOCAB);
	ck_assert_int_eq(c.head_dim, DIM / HEADS);
	ck_assert_int_eq(c.rope.rotary_dims, DIM / HEADS);
	ck_assert_float_eq(c.rope.theta, 10000);
	ck_assert_int_eq(c.rope.layout, KNIT_ROPE_INTERLEAVED);
	ck_assert_uint_eq(c.visit_count, LAYERS);
	ck_assert(c.tied && c.lora_rank == 0);

	tiny_visits(visits, 5);
	tiny_text("knit.rope.layout", "split");
	tiny_f32("knit.rope.freq_base", 500000);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag), KNIT_OK);
	ck_assert_uint_eq(c.visit_count, 5);
	ck_assert_uint_eq(c.visits[2], 1);
	ck_assert_int_eq(c.rope.layout, KNIT_ROPE_SPLIT);
	ck_assert_float_eq(c.rope.theta, 500000);
	ck_assert_int_eq(knit__weights_seal(tiny.store), KNIT_OK);
	ck_assert_int_eq(knit__decoder_count_parameters(&c, tiny.store, NULL, &p), KNIT_OK);
	const uint64_t layer = 2 * DIM + 2 * DIM * DIM + DIM * DIM + 3 * DIM * FFN, rest = VOCAB * DIM + DIM;
	ck_assert_uint_eq(p.unique, 2 * layer + rest);
	ck_assert_uint_eq(p.visited, 5 * layer + rest + VOCAB * DIM);
	ck_assert_uint_eq(knit__decoder_kv_bytes(&c, KNIT_F16, KNIT_F16), 5 * 2 * (DIM / 2) * 2);
	tiny_close();
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
		tiny_open();
		tiny_keys(NULL, cases[i].key, cases[i].value);
		tiny_tensors(NULL, LAYERS, NULL);
		expect(cases[i].status, cases[i].key);
	}
	for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i) {
		tiny_open();
		tiny_keys(needed[i], NULL, 0);
		tiny_tensors(NULL, LAYERS, NULL);
		expect(KNIT_ERR_NOT_FOUND, needed[i]);
	}
	tiny_open();
	tiny_keys("general.architecture", NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "general.architecture is missing");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	expect(KNIT_ERR_FORMAT, "no tensors");
}
END_TEST

START_TEST(numbers_must_fit_together) {
	tiny_open();
	tiny_keys(NULL, "knit.attention.head_count_kv", 3);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "head_count 4 is no multiple of head_count_kv 3");
	tiny_open();
	tiny_keys(NULL, "knit.attention.head_count", 6);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "embedding_length 8 is no multiple of attention.head_count 6");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.rope.dimension_count", 4); /* of heads that are 2 wide */
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_LIMIT, "knit.rope.dimension_count is 4");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_f32("knit.rope.freq_base", -1);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "knit.rope.freq_base is -1");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_f32("knit.rope.freq_base", NAN);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "knit.rope.freq_base");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_text("knit.rope.layout", "diagonal");
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_FORMAT, "diagonal");
}
END_TEST

START_TEST(foreign_models_are_refused_not_run) {
	tiny_open();
	tiny_text("general.architecture", "gpt2");
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "\"gpt2\"");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_text("knit.rope.scaling.type", "yarn");
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "yarn");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.expert_count", 8);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_UNSUPPORTED, "mixture of experts");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_tensor("blk.0.attn_q.bias", KNIT_F32, DIM, 0, 1);
	expect(KNIT_ERR_UNSUPPORTED, "blk.0.attn_q.bias");
}
END_TEST

START_TEST(visits_are_checked) {
	static uint32_t many[KNIT__MAX_VISITS + 1];
	const uint32_t wrong[] = {0, 1, 2};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_visits(wrong, 3);
	expect(KNIT_ERR_FORMAT, "visit 2 is of layer 2, the model has layers 0 to 1");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_visits(many, KNIT__MAX_VISITS);
	expect(KNIT_OK, "");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_visits(many, KNIT__MAX_VISITS + 1);
	expect(KNIT_ERR_LIMIT, "1025");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_visits(many, 0);
	expect(KNIT_ERR_FORMAT, "knit.visits has 0");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_text("knit.visits", "0,1");
	expect(KNIT_ERR_FORMAT, "knit.visits");
}
END_TEST

START_TEST(a_list_of_visits_from_the_user) {
	static const char *const bad[] = {"", ",", "0,", "0,,1", "a", "0 1", "-1", "2", "99999999999999999999", "1,0,7"};
	static knit__decoder_config c;
	static char longest[KNIT__MAX_VISITS * 2 + 8];
	uint32_t shared_visits, bare;
	knit_diag diag = {0};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag), KNIT_OK);
	ck_assert(!knit__decoder_visits_changed(&c, &shared_visits, &bare));
	ck_assert_int_eq(knit__decoder_config_visits(&c, "1,0,0,1,1", &diag), KNIT_OK);
	ck_assert_uint_eq(c.visit_count, 5);
	ck_assert_uint_eq(c.visits[0], 1);
	ck_assert(knit__decoder_visits_changed(&c, &shared_visits, &bare));
	ck_assert(shared_visits == 3 && bare == 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit_diag d = {0};
		ck_assert_msg(knit__decoder_config_visits(&c, bad[i], &d) == KNIT_ERR_ARGUMENT, "\"%s\" is taken",
					  bad[i]);
		ck_assert(d.text[0]);
	}
	ck_assert_uint_eq(c.visit_count, 5); /* unchanged by what was refused */
	for (int i = 0; i < KNIT__MAX_VISITS + 1; ++i)
		strcat(longest, i ? ",1" : "1");
	ck_assert_int_eq(knit__decoder_config_visits(&c, longest, &diag), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__decoder_config_loops(&c, 3, &diag), KNIT_OK); /* of the model's visits, not of the last list */
	ck_assert_uint_eq(c.visit_count, 6);
	ck_assert_int_eq(knit__decoder_config_loops(&c, KNIT__MAX_VISITS / 2 + 1, &diag), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__decoder_config_loops(&c, 1, &diag), KNIT_OK);
	ck_assert(!knit__decoder_visits_changed(&c, &shared_visits, &bare));
	tiny_close();
}
END_TEST

/* The keys that describe loops, and what they must not be. */
START_TEST(loops_from_metadata) {
	static const struct {
		const char *keys[3];
		uint32_t values[3];
		knit_status status;
		const char *text; /* the visits, or a part of the message */
	} cases[] = {
		{{"knit.loops"}, {3}, KNIT_OK, "0-1x3"},
		{{"knit.loops", "knit.prelude"}, {3, 1}, KNIT_OK, "0,1x3"},
		{{"knit.loops", "knit.coda"}, {2, 1}, KNIT_OK, "0x2,1"},
		{{"knit.block.repeats"}, {2}, KNIT_OK, "0x2,1x2"},
		{{"knit.block.repeats", "knit.loops"}, {2, 2}, KNIT_OK, "0x2,1x2,0x2,1x2"},
		{{"knit.block.repeats", "knit.block.layers"}, {2, 2}, KNIT_OK, "0-1x2"},
		{{"knit.loops"}, {0}, KNIT_ERR_FORMAT, "knit.loops is 0"},
		{{"knit.prelude", "knit.coda"}, {1, 1}, KNIT_ERR_FORMAT, "leave none of 2 for the core"},
		{{"knit.prelude"}, {0xffffffff}, KNIT_ERR_FORMAT, "knit.prelude"},
		{{"knit.block.layers"}, {3}, KNIT_ERR_FORMAT, "no whole number of blocks of 3"},
		{{"knit.loops"}, {513}, KNIT_ERR_LIMIT, "more than 1024"},
		{{"knit.loops", "knit.block.repeats"}, {0xffffffff, 0xffffffff}, KNIT_ERR_LIMIT, "more than 1024"},
	};
	static knit__decoder_config c;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		knit_diag diag = {0};
		char text[64];
		tiny_open();
		tiny_keys(NULL, NULL, 0);
		tiny_tensors(NULL, LAYERS, NULL);
		for (int k = 0; k < 3 && cases[i].keys[k]; ++k)
			tiny_u32(cases[i].keys[k], cases[i].values[k]);
		const knit_status status = knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag);
		ck_assert_msg(status == cases[i].status, "case %zu: %s", i, diag.text);
		knit__visits_text(&c.model_visits, text, sizeof text);
		ck_assert_msg(strstr(status == KNIT_OK ? text : diag.text, cases[i].text), "case %zu: \"%s\" %s", i, text,
					  diag.text);
		tiny_close();
	}
}
END_TEST

/* knit.visits beside knit.loops: both, where they say the same. */
START_TEST(visits_and_loops_agree) {
	const uint32_t looped[] = {0, 1, 0, 1, 0, 1};

	for (uint32_t loops = 2; loops <= 3; ++loops) {
		tiny_open();
		tiny_keys(NULL, NULL, 0);
		tiny_tensors(NULL, LAYERS, NULL);
		tiny_visits(looped, 6);
		tiny_u32("knit.loops", loops);
		if (loops == 3)
			expect(KNIT_OK, "");
		else
			expect(KNIT_ERR_FORMAT, "knit.visits (6 entries) is not what knit.loops");
	}
}
END_TEST

START_TEST(own_norms_are_checked) {
	static const struct {
		const char *tensor, *left_out;
		int64_t n;
		knit_status status;
		const char *part;
	} cases[] = {
		{"visit.3.attn_norm.weight", NULL, DIM, KNIT_OK, ""},
		{"visit.3.attn_norm.weight", NULL, DIM + 1, KNIT_ERR_SHAPE, "visit.3.attn_norm.weight"},
		{"visit.4.attn_norm.weight", NULL, DIM, KNIT_ERR_FORMAT, "visit.4.attn_norm.weight"}, /* there are 4 visits */
		{"visit.3.attn_norm.weight", "blk.1.attn_norm.weight", DIM, KNIT_ERR_NOT_FOUND, "blk.1.attn_norm.weight"},
		{"loop.1.output_norm.weight", NULL, DIM, KNIT_OK, ""},
		{"loop.1.output_norm.weight", NULL, DIM - 1, KNIT_ERR_SHAPE, "loop.1.output_norm.weight"},
		{"loop.2.output_norm.weight", NULL, DIM, KNIT_ERR_FORMAT, "1 of 1 tensors loop.* fit no loop"},
		{"loop_norm.weight", NULL, DIM, KNIT_OK, ""},
		{"loop_norm.weight", NULL, DIM + 1, KNIT_ERR_SHAPE, "loop_norm.weight"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		tiny_open();
		tiny_keys(NULL, NULL, 0);
		tiny_tensors(cases[i].left_out, LAYERS, NULL);
		tiny_u32("knit.loops", 2);
		tiny_tensor(cases[i].tensor, KNIT_F32, cases[i].n, 0, 1);
		expect(cases[i].status, cases[i].part);
	}
	/* A layer needs no norm where each of its visits has one. */
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors("blk.1.attn_norm.weight", LAYERS, NULL);
	tiny_u32("knit.loops", 2);
	tiny_tensor("visit.1.attn_norm.weight", KNIT_F32, DIM, 0, 1);
	tiny_tensor("visit.3.attn_norm.weight", KNIT_F32, DIM, 0, 1);
	expect(KNIT_OK, "");
	/* A norm between loops needs loops that can be told. */
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_visits((const uint32_t[]){0, 0, 1, 0, 1, 1, 1}, 7);
	tiny_tensor("loop_norm.weight", KNIT_F32, DIM, 0, 1);
	expect(KNIT_ERR_FORMAT, "norms after loops");
}
END_TEST

START_TEST(tensors_are_checked) {
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors("blk.1.ffn_up.weight", LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "blk.1.ffn_up.weight is missing");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors("token_embd.weight", LAYERS, NULL);
	expect(KNIT_ERR_NOT_FOUND, "token_embd.weight is missing");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors("blk.1.attn_k.weight", LAYERS, NULL);
	tiny_tensor("blk.1.attn_k.weight", KNIT_F32, DIM, DIM, 1);
	expect(KNIT_ERR_SHAPE, "blk.1.attn_k.weight is f32 [8, 8], the metadata asks for [4, 8]");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors("blk.0.ffn_norm.weight", LAYERS, NULL);
	tiny_tensor("blk.0.ffn_norm.weight", KNIT_F32, 1, DIM, 1);
	expect(KNIT_ERR_SHAPE, "blk.0.ffn_norm.weight is f32 [1, 8], the metadata asks for floats [8]");
	tiny_open();
	tiny_keys(NULL, "knit.embedding_length", 16);
	tiny_tensors(NULL, LAYERS, NULL);
	expect(KNIT_ERR_SHAPE, "token_embd.weight is f32 [16, 8], the metadata asks for [16, 16]");
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_tensor("output.weight", KNIT_F32, VOCAB - 1, DIM, 1);
	expect(KNIT_ERR_SHAPE, "output.weight");
}
END_TEST

START_TEST(lora_is_checked) {
	static const char part[] = "visit.1.ffn_down.lora_b";

	for (int i = 0; i < 6; ++i) {
		tiny_open();
		tiny_keys(NULL, NULL, 0);
		tiny_tensors(NULL, LAYERS, NULL);
		if (i != 1)
			tiny_u32("knit.lora.rank", i == 5 ? KNIT__MAX_LORA_RANK + 1 : RANK);
		if (i != 2)
			tiny_lora(i == 4 ? LAYERS + 1 : LAYERS, i == 3 ? part : NULL, RANK, 0.4f);
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
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_u32("knit.lora.rank", RANK);
	tiny_lora(LAYERS, NULL, RANK + 1, 0.4f);
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

	tiny_open();
	ck_assert_int_eq(knit__hf_config_parse(good, sizeof good - 1, &tiny.keys, NULL), KNIT_OK);
	ck_assert_int_eq(knit__metadata_u64(&tiny.keys, "llama.attention.head_count_kv", &n, NULL), KNIT_OK);
	ck_assert_uint_eq(n, 2);
	ck_assert_int_eq(knit__metadata_string(&tiny.keys, "knit.rope.layout", &text, NULL), KNIT_OK);
	ck_assert_str_eq(text, "split");
	tiny_close();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit_diag diag = {0};
		tiny_open();
		const knit_status status = knit__hf_config_parse(bad[i].json, strlen(bad[i].json), &tiny.keys, &diag);
		ck_assert_msg(status == bad[i].status, "%s: %s", bad[i].json, diag.text);
		ck_assert_msg(strstr(diag.text, bad[i].part) != NULL, "%s: %s", bad[i].json, diag.text);
		tiny_close();
	}
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
		loops_from_metadata,
		visits_and_loops_agree,
		own_norms_are_checked,
		tensors_are_checked,
		lora_is_checked,
		config_json_of_hugging_face,
	};

	return suite_run("decoder_config", tests, sizeof tests / sizeof *tests);
}
