/* Answers that must not depend on how the work is cut: batches, sequences, threads, passes. On the bundled model, which
 * has visits and LoRA, so nothing outside is needed. */
#include "../../graph/pass.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 256, TOKENS = 24 };

static const char model_path[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";
static const char text[] = "ROMEO:\nWhat light is this? JULIET:\nNone";

static void bytes_of(const char *from, int32_t ids[TOKENS]) {
	for (int i = 0; i < TOKENS; ++i)
		ids[i] = (uint8_t)from[i];
}

static void open_run(model_run *r, int64_t sequences, uint32_t threads, const char *disable) {
	const knit__decoder_desc desc = {
		.sequences = sequences,
		.positions = 64,
		.max_tokens = 48,
		.max_outputs = 48,
		.kv = KNIT_F16,
		.disable_passes = disable,
	};

	model_run_open(r, &(knit__model_desc){.path = model_path}, desc, threads);
}

static float *logits_with(uint32_t threads, size_t batch, const char *disable) {
	int32_t ids[TOKENS];
	model_run r;

	bytes_of(text, ids);
	open_run(&r, 1, threads, disable);
	float *logits = model_run_logits(&r, ids, TOKENS, batch);
	model_run_close(&r);
	return logits;
}

/* Decode and prefill may use other kernels with another order of sums: equal up to rounding. */
static void check_close(const float *a, const float *b, const char *what) {
	double scale = 0;

	for (size_t i = 0; i < TOKENS * VOCAB; ++i)
		scale = fmax(scale, fabs((double)a[i]));
	const double off = test_largest_difference(a, b, TOKENS * VOCAB);
	printf("%s: logits off by %.1e of %.1f\n", what, off, scale);
	ck_assert_msg(scale > 1 && off <= 2e-4 * scale, "%s: logits off by %g of %g", what, off, scale);
}

START_TEST(prefill_equals_token_by_token) {
	float *all = logits_with(2, TOKENS, NULL), *one = logits_with(2, 1, NULL), *seven = logits_with(2, 7, NULL);

	check_close(all, one, "token by token");
	check_close(all, seven, "seven at once");
	free(all);
	free(one);
	free(seven);
}
END_TEST

START_TEST(threads_do_not_matter) {
	for (size_t batch = 1; batch <= TOKENS; batch += TOKENS - 1) {
		float *one = logits_with(1, batch, NULL);
		for (uint32_t threads = 2; threads <= 5; ++threads) {
			float *many = logits_with(threads, batch, NULL);
			ck_assert_msg(memcmp(one, many, TOKENS * VOCAB * sizeof *one) == 0, "%u threads, %zu tokens at once",
						  (unsigned)threads, batch);
			free(many);
		}
		free(one);
	}
}
END_TEST

/* Two different texts, their tokens interleaved in every step, against each alone. */
START_TEST(two_sequences_equal_each_alone) {
	static const char other[] = "First Citizen:\nBefore we proceed any further";
	int32_t ids[2][TOKENS], mixed[2 * TOKENS], seq[2 * TOKENS], pos[2 * TOKENS], rows[2 * TOKENS];
	float *both = malloc(2 * TOKENS * VOCAB * sizeof *both), *alone;
	knit_diag diag = {0};
	model_run r;

	bytes_of(text, ids[0]);
	bytes_of(other, ids[1]);
	for (int i = 0; i < 2 * TOKENS; ++i) {
		mixed[i] = ids[i % 2][i / 2];
		seq[i] = i % 2 ? 2 : 0; /* sequence 1 stays empty between them */
		pos[i] = i / 2;
		rows[i] = i;
	}
	for (size_t batch = 2; batch <= 2 * TOKENS; batch += 46) {
		open_run(&r, 3, 2, NULL);
		for (size_t at = 0; at < 2 * TOKENS; at += batch)
			ck_assert_msg(knit__decoder_step(&r.decoder, mixed + at, seq + at, pos + at, batch, rows, batch,
											 both + at * VOCAB, &diag) == KNIT_OK,
						  "%s", diag.text);
		model_run_close(&r);
		for (int s = 0; s < 2; ++s) {
			float own[TOKENS * VOCAB];
			open_run(&r, 1, 2, NULL);
			alone = model_run_logits(&r, ids[s], TOKENS, batch == 2 ? 1 : TOKENS);
			for (int t = 0; t < TOKENS; ++t)
				memcpy(own + t * VOCAB, both + (2 * t + s) * VOCAB, VOCAB * sizeof *own);
			check_close(alone, own, s ? "the second of two sequences" : "the first of two sequences");
			free(alone);
			model_run_close(&r);
		}
	}
	free(both);
}
END_TEST

/* A second text in a used slot: nothing of the first may be seen. */
START_TEST(a_used_slot_gives_the_same_answers) {
	int32_t ids[TOKENS], other[TOKENS];
	model_run r;

	bytes_of(text, ids);
	bytes_of("Nothing to see here, only other words", other);
	open_run(&r, 1, 2, NULL);
	float *fresh = model_run_logits(&r, ids, TOKENS, 8);
	free(model_run_logits(&r, other, TOKENS, 8));
	float *again = model_run_logits(&r, ids, TOKENS, 8);
	ck_assert_int_eq(memcmp(fresh, again, TOKENS * VOCAB * sizeof *fresh), 0);
	free(fresh);
	free(again);
	model_run_close(&r);
}
END_TEST

START_TEST(each_pass_can_be_off) {
	float *all = logits_with(2, TOKENS, NULL);
	const knit_pass *pass;
	int off = 0;

	for (size_t i = 0; (pass = knit__pass_at(i)) != NULL; ++i) {
		if (pass->required)
			continue;
		float *without = logits_with(2, TOKENS, pass->name);
		check_close(all, without, pass->name);
		free(without);
		++off;
	}
	ck_assert_int_ge(off, 3);
	free(all);
}
END_TEST

/* An endless text in 16 positions: what comes after the context was full is what a fresh start from the last 8 bytes
 * gives. */
START_TEST(endless_text_goes_on_from_its_second_half) {
	const knit__decoder_desc desc = {.positions = 16, .max_tokens = 8, .kv = KNIT_F16};
	const knit_sampler_desc greedy = {.temperature = 0};
	int32_t prompt[10], fresh[8];
	knit__generated made, again;
	knit_sampler *sampler = NULL;
	knit_diag diag = {0};
	model_run r;

	model_run_open(&r, &(knit__model_desc){.path = model_path}, desc, 2);
	for (int i = 0; i < 10; ++i)
		prompt[i] = (uint8_t)text[i];
	ck_assert_int_eq(knit__sampler_create(r.ctx, VOCAB, &greedy, &sampler, &diag), KNIT_OK);
	knit__generate_desc generate = {
		.decoder = &r.decoder, .sampler = sampler, .prompt = prompt, .prompt_tokens = 10, .max_new = 40};
	ck_assert_int_eq(knit__generate(r.ctx, &generate, &made, &diag), KNIT_OK);
	ck_assert_int_eq(made.stop, KNIT__STOP_CONTEXT);
	ck_assert_uint_eq(made.ids.count, 7); /* positions 10 to 15 and one more from the last logits */
	generate.endless = true;
	ck_assert_int_eq(knit__generate(r.ctx, &generate, &again, &diag), KNIT_OK);
	ck_assert_int_eq(again.stop, KNIT__STOP_LENGTH);
	ck_assert_uint_eq(again.ids.count, 40);
	ck_assert_int_eq(memcmp(made.ids.ids, again.ids.ids, 7 * sizeof *made.ids.ids), 0);
	knit__token_list_clear(&made.ids);

	for (int i = 0; i < 8; ++i)
		fresh[i] = i < 1 ? prompt[9] : again.ids.ids[i - 1];
	generate = (knit__generate_desc){
		.decoder = &r.decoder, .sampler = sampler, .prompt = fresh, .prompt_tokens = 8, .max_new = 9};
	ck_assert_int_eq(knit__generate(r.ctx, &generate, &made, &diag), KNIT_OK);
	ck_assert_uint_eq(made.ids.count, 9);
	ck_assert_int_eq(memcmp(made.ids.ids, again.ids.ids + 7, 9 * sizeof *made.ids.ids), 0);
	knit__token_list_clear(&made.ids);
	knit__token_list_clear(&again.ids);
	knit__sampler_destroy(sampler);
	model_run_close(&r);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {prefill_equals_token_by_token,  threads_do_not_matter,
								  two_sequences_equal_each_alone, a_used_slot_gives_the_same_answers,
								  each_pass_can_be_off,           endless_text_goes_on_from_its_second_half};

	const TTest *const quick[] = {prefill_equals_token_by_token, two_sequences_equal_each_alone,
								  a_used_slot_gives_the_same_answers};

	if (suite_quick())
		return suite_run("equalities", quick, sizeof quick / sizeof *quick);
	return suite_run("equalities", tests, sizeof tests / sizeof *tests);
}
