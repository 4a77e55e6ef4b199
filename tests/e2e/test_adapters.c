/* Adapters of whole models: the golden LoRA bound to a decoder that was compiled with zeros, sequences of one batch
 * with different adapters, and what is no adapter for a decoder. */
#include "../../graph/pass.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- golden ------------------------------------------------------------------------------------------------------ */

enum { GOLDEN_VOCAB = 512, TOKENS = 32, GOLDEN = TOKENS * GOLDEN_VOCAB };

static char base_path[4096], adapter_path[4096];

static bool golden_there(void) {
	return test_data(KNIT_TEST_DATA, "models/gguf/stories260K-f32.gguf", base_path, sizeof base_path) &&
		   test_data(KNIT_TEST_DATA, "golden/looped-lora/loop_mid3_lora_all_r8.lora.safetensors", adapter_path,
					 sizeof adapter_path);
}

/* The first 32 tokens of the golden greedy text, BOS first. */
static void golden_ids(int32_t ids[TOKENS]) {
	cJSON *root = test_read_json(KNIT_TEST_DATA "/golden/stories260K/golden.json"), *item;
	int count = 1;

	ids[0] = 1;
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "generated_ids")) {
		if (count < TOKENS)
			ids[count++] = item->valueint;
	}
	cJSON_Delete(root);
}

static void check_golden(const float *logits, const char *name, const char *what) {
	char path[4096];

	snprintf(path, sizeof path, "%s/golden/looped-lora/%s.logits_32x512.f32", KNIT_TEST_DATA, name);
	float *expected = test_read_floats(path, GOLDEN);
	const double off = test_largest_difference(logits, expected, GOLDEN);
	printf("%s, %s: logits off by %.1e\n", name, what, off);
	ck_assert_msg(off <= 1e-4, "%s, %s: off by %g", name, what, off);
	free(expected);
}

/* A store of the same names, types and shapes, all zero: every tensor with the bytes of all others of its size. */
static knit_weights *zeros_like(knit_context *ctx, const knit_weights *from) {
	knit_weights *to = NULL;
	knit_weight_info info;
	knit_diag d = {0};

	ck_assert_int_eq(knit_weights_create(ctx, &to), KNIT_OK);
	for (size_t i = 0; knit_weights_at(from, i, &info) == KNIT_OK; ++i) {
		char *zeros = calloc(1, info.bytes);
		ck_assert_msg(knit_weights_add(to, info.name, info.dtype, info.rank, info.dims, zeros, info.bytes, &d) == KNIT_OK,
					  "%s", d.text);
		free(zeros);
	}
	return to;
}

static void open_golden(model_run *r, knit__decoder_desc desc, knit_weights *(*adapter)(knit_context *, const knit_weights *)) {
	const knit__model_desc model = {.path = base_path, .adapter_path = adapter_path};
	knit_diag d = {0};

	memset(r, 0, sizeof *r);
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &r->ctx), KNIT_OK);
	ck_assert_msg(knit__model_load(r->ctx, &model, &r->model, &d) == KNIT_OK, "%s", d.text);
	knit_weights *made = adapter ? adapter(r->ctx, r->model.adapters) : NULL;
	desc.config = &r->model.config;
	desc.base = r->model.file.store;
	desc.adapters = made ? made : r->model.adapters;
	desc.positions = TOKENS;
	desc.max_tokens = desc.max_outputs = 16;
	ck_assert_msg(knit__decoder_open(r->ctx, &desc, &r->decoder, &d) == KNIT_OK, "%s", d.text);
	knit_weights_release(made);
}

/* Compiled with zeros, the golden LoRA bound and taken back: golden both times, and the bits of the LoRA compiled in. */
START_TEST(golden_lora_bound) {
	int32_t ids[TOKENS];
	knit_adapter_set *set = NULL;
	knit_counters c;
	model_run r, compiled;
	knit_diag d = {0};

	if (!golden_there())
		return;
	golden_ids(ids);
	open_golden(&compiled, (knit__decoder_desc){0}, NULL);
	open_golden(&r, (knit__decoder_desc){0}, zeros_like);
	ck_assert_msg(knit_adapter_open(r.decoder.program, r.model.adapters, &set, &d) == KNIT_OK, "%s", d.text);
	for (size_t batch = 1; batch <= 16; batch += 15) {
		for (int bound = 1; bound >= 0; --bound) {
			ck_assert_int_eq(knit_session_bind_adapter(r.decoder.session, bound ? set : NULL), KNIT_OK);
			ck_assert_int_eq(knit_session_reset_states(r.decoder.session), KNIT_OK);
			float *logits = model_run_logits(&r, ids, TOKENS, batch);
			check_golden(logits, bound ? "loop_mid3_lora_all_r8" : "loop_mid3", bound ? "bound" : "taken back");
			ck_assert_int_eq(knit_session_reset_states(compiled.decoder.session), KNIT_OK);
			float *want = model_run_logits(&compiled, ids, TOKENS, batch);
			ck_assert_int_eq(memcmp(want, logits, GOLDEN * sizeof *want) == 0, bound);
			free(want);
			free(logits);
		}
	}
	knit_session_counters(r.decoder.session, &c);
	ck_assert_uint_eq(c.binds, 4);
	ck_assert_uint_eq(c.runs, 2 * (TOKENS + TOKENS / 16));
	ck_assert_uint_eq(c.allocations + c.buffers + c.packs + c.uploads, 0);
	knit_adapter_release(set);
	model_run_close(&compiled);
	model_run_close(&r);
}
END_TEST

/* The same text twice in every step: sequence 0 with the LoRA, sequence 1 without. */
static void mixed_golden(const char *disable) {
	int32_t ids[TOKENS], step_ids[16], seq[16], pos[16], rows[16];
	float *with = malloc(GOLDEN * sizeof *with), *without = malloc(GOLDEN * sizeof *without);
	static float logits[16 * GOLDEN_VOCAB];
	model_run r;
	knit_diag d = {0};

	golden_ids(ids);
	open_golden(&r, (knit__decoder_desc){.sequences = 2, .adapter_slots = 3, .disable_passes = disable}, NULL);
	ck_assert_msg(knit__decoder_fill_slot(&r.decoder, 2, r.model.adapters, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__decoder_choose_adapters(&r.decoder, (const int32_t[]){2, 0}, &d), KNIT_OK);
	for (int at = 0; at < TOKENS; at += 8) {
		for (int t = 0; t < 16; ++t) {
			step_ids[t] = ids[at + t / 2];
			seq[t] = t % 2;
			pos[t] = at + t / 2;
			rows[t] = t;
		}
		ck_assert_msg(knit__decoder_step(&r.decoder, step_ids, seq, pos, 16, rows, 16, logits, &d) == KNIT_OK, "%s",
					  d.text);
		for (int t = 0; t < 16; ++t)
			memcpy((t % 2 ? without : with) + (at + t / 2) * GOLDEN_VOCAB, logits + t * GOLDEN_VOCAB,
				   GOLDEN_VOCAB * sizeof *logits);
	}
	check_golden(with, "loop_mid3_lora_all_r8", "in a slot beside none");
	check_golden(without, "loop_mid3", "slot 0 beside a LoRA");
	free(with);
	free(without);
	model_run_close(&r);
}

START_TEST(golden_lora_in_a_slot) {
	if (golden_there())
		mixed_golden(NULL);
}
END_TEST

START_TEST(golden_lora_in_a_slot_with_each_pass_off) {
	const knit_pass *p;

	for (size_t i = 0; (p = knit__pass_at(i)) != NULL && golden_there(); ++i) {
		if (p->required)
			continue;
		printf("without %s\n", p->name);
		mixed_golden(p->name);
	}
}
END_TEST

/* ---- decoders made in code --------------------------------------------------------------------------------------- */

enum { STEPS = 6, TINY = STEPS * VOCAB };

static const int32_t texts[2][STEPS] = {{1, 9, 4, 4, 15, 0}, {3, 2, 11, 7, 7, 5}};
static const uint16_t tiny_layers[] = {0, 1};

/* A LoRA for tiny's projections in a store of its own; another scale of B makes another one. */
static knit_weights *lora_store(float b_scale) {
	knit_weights *const model = tiny.store;
	knit_weights *store = NULL;

	ck_assert_int_eq(knit_weights_create(tiny.ctx, &store), KNIT_OK);
	tiny.store = store;
	tiny_lora(LAYERS, NULL, RANK, b_scale);
	tiny.store = model;
	return store;
}

static void open_tiny(knit__decoder_config *c) {
	knit_diag d = {0};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, tiny_layers);
	tiny_u32("knit.lora.rank", RANK);
	tiny_f32("knit.lora.alpha", 2 * RANK);
	tiny_lora(LAYERS, NULL, RANK, 0.25f);
	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, c, &d) == KNIT_OK, "%s", d.text);
}

static knit__decoder open_decoder(const knit__decoder_config *c, knit_weights *adapters, int64_t slots) {
	const knit__decoder_desc desc = {.config = c,
									 .base = tiny.store,
									 .adapters = adapters,
									 .adapter_slots = slots,
									 .sequences = 3,
									 .max_tokens = 2 * STEPS,
									 .max_outputs = 2 * STEPS};
	knit__decoder d;
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_open(tiny.ctx, &desc, &d, &diag) == KNIT_OK, "%s", diag.text);
	return d;
}

static void run_alone(knit__decoder *d, const int32_t *ids, int32_t seq, float out[TINY]) {
	int32_t seqs[STEPS], pos[STEPS];
	knit_diag diag = {0};

	for (int t = 0; t < STEPS; ++t) {
		seqs[t] = seq;
		pos[t] = t;
	}
	ck_assert_int_eq(knit_session_reset_states(d->session), KNIT_OK);
	ck_assert_msg(knit__decoder_step(d, ids, seqs, pos, STEPS, pos, STEPS, out, &diag) == KNIT_OK, "%s", diag.text);
}

/* Two texts in one step with different adapters, each against the decoder that was made with its adapter alone. */
START_TEST(two_sequences_two_adapters) {
	float both[2 * TINY], own[TINY], alone[TINY];
	int32_t ids[2 * STEPS], seq[2 * STEPS], pos[2 * STEPS], rows[2 * STEPS];
	knit__decoder_config c;
	knit_diag diag = {0};

	open_tiny(&c);
	knit_weights *stores[2] = {lora_store(0.25f), lora_store(-0.5f)};
	knit__decoder d = open_decoder(&c, stores[0], 3);
	for (int i = 0; i < 2; ++i)
		ck_assert_msg(knit__decoder_fill_slot(&d, i + 1, stores[i], &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_int_eq(knit__decoder_choose_adapters(&d, (const int32_t[]){1, 0, 2}, &diag), KNIT_OK);
	for (int t = 0; t < 2 * STEPS; ++t) {
		ids[t] = texts[t % 2][t / 2];
		seq[t] = t % 2 ? 2 : 0;
		pos[t] = t / 2;
		rows[t] = t;
	}
	ck_assert_msg(knit__decoder_step(&d, ids, seq, pos, 2 * STEPS, rows, 2 * STEPS, both, &diag) == KNIT_OK, "%s",
				  diag.text);
	for (int i = 0; i < 2; ++i) {
		knit__decoder compiled = open_decoder(&c, stores[i], 0);
		for (int t = 0; t < STEPS; ++t)
			memcpy(own + t * VOCAB, both + (2 * t + i) * VOCAB, VOCAB * sizeof *own);
		run_alone(&d, texts[i], i ? 2 : 0, alone);
		ck_assert_msg(memcmp(own, alone, sizeof own) == 0, "beside another and alone differ by %g",
					  test_largest_difference(own, alone, TINY));
		run_alone(&compiled, texts[i], 1, alone);
		printf("adapter %d in a slot against compiled in: off by %.1e\n", i + 1, test_largest_difference(own, alone, TINY));
		ck_assert(test_largest_difference(own, alone, TINY) <= 1e-5);
		run_alone(&compiled, texts[1 - i], 1, alone);
		ck_assert(test_largest_difference(own, alone, TINY) > 1e-3);
		knit__decoder_close(&compiled);
	}
	/* Without adapters, as a decoder begins. */
	knit__decoder plain = open_decoder(&c, NULL, 0);
	run_alone(&plain, texts[0], 1, own);
	run_alone(&d, texts[0], 1, alone);
	ck_assert_int_eq(memcmp(own, alone, sizeof own), 0);
	ck_assert_int_eq(knit__decoder_no_adapters(tiny.ctx, &d, &diag), KNIT_OK);
	run_alone(&d, texts[0], 2, alone);
	ck_assert_int_eq(memcmp(own, alone, sizeof own), 0);
	knit__decoder_close(&plain);
	knit__decoder_close(&d);
	knit_weights_release(stores[0]);
	knit_weights_release(stores[1]);
	tiny_close();
}
END_TEST

static void says(const knit_diag *d, knit_status status, const char *part) {
	ck_assert_int_eq(d->status, status);
	ck_assert_msg(strstr(d->text, part) != NULL, "\"%s\" does not say \"%s\"", d->text, part);
}

START_TEST(wrong_slots_are_refused) {
	knit__decoder_config c;
	knit__decoder d;
	knit_diag diag = {0};

	open_tiny(&c);
	knit__decoder_desc desc = {.config = &c, .base = tiny.store, .adapter_slots = 2};
	ck_assert_int_ne(knit__decoder_open(tiny.ctx, &desc, &d, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "2 slots");
	desc.adapters = tiny.store;
	desc.adapter_slots = -1;
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_open(tiny.ctx, &desc, &d, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "-1 slots");
	d = open_decoder(&c, tiny.store, 2);
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_fill_slot(&d, 2, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "slot 2");
	knit__decoder_close(&d);
	d = open_decoder(&c, tiny.store, 0);
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_fill_slot(&d, 1, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "without slots");
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_choose_adapters(&d, (const int32_t[]){0, 0, 0}, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "without slots");
	knit__decoder_close(&d);
	tiny_close();
}
END_TEST

/* The scale is in the program and not in the tensors, so an adapter with another alpha may not be bound. */
START_TEST(adapters_that_do_not_fit) {
	knit__decoder_config c, other;
	knit_diag diag = {0};

	open_tiny(&c);
	knit_weights *model = tiny.store, *fewer = NULL;
	ck_assert_int_eq(knit__decoder_adapter_fits(&c, tiny.store, &c, tiny.store, &diag), KNIT_OK);
	other = c;
	other.lora_scale *= 2;
	ck_assert_int_ne(knit__decoder_adapter_fits(&c, tiny.store, &other, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "alpha");
	other = c;
	other.model_visits.layer[1] = 0;
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_adapter_fits(&c, tiny.store, &other, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "visits");
	other = c;
	other.lora_names = KNIT__NAMES_HF;
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_adapter_fits(&c, tiny.store, &other, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "named");
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &fewer), KNIT_OK);
	tiny.store = fewer;
	tiny_lora(LAYERS, "visit.1.ffn_up.lora_a", RANK, 0.25f);
	tiny.store = model;
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_adapter_fits(&c, tiny.store, &c, fewer, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "lacks a LoRA for ffn_up of visit 1");
	diag = (knit_diag){0};
	ck_assert_int_ne(knit__decoder_adapter_fits(&c, fewer, &c, tiny.store, &diag), KNIT_OK);
	says(&diag, KNIT_ERR_ARGUMENT, "has a LoRA for ffn_up of visit 1");
	knit_weights_release(fewer);
	tiny_close();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {golden_lora_bound, golden_lora_in_a_slot,
								  golden_lora_in_a_slot_with_each_pass_off, two_sequences_two_adapters,
								  wrong_slots_are_refused, adapters_that_do_not_fit};

	const TTest *const quick[] = {golden_lora_bound, golden_lora_in_a_slot, two_sequences_two_adapters};

	if (suite_quick())
		return suite_run("adapters", quick, sizeof quick / sizeof *quick);
	return suite_run("adapters", tests, sizeof tests / sizeof *tests);
}
