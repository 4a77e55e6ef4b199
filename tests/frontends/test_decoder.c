/* The decoder's graph on models made in code: LoRA, visits, checked steps, failing allocations. */
#include "../../frontends/models/load.h"
#include "../../frontends/text/generate.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 6 };

static const int32_t ids[TOKENS] = {3, 15, 0, 7, 7, 1}, seq[TOKENS], rows[TOKENS] = {0, 1, 2, 3, 4, 5},
					 pos[TOKENS] = {0, 1, 2, 3, 4, 5};

static void run(const knit__decoder_config *c, knit_weights *base, knit_weights *adapters, float *logits,
				knit_memory *m) {
	const knit__decoder_desc desc = {
		.config = c, .base = base, .adapters = adapters, .max_tokens = 8, .max_outputs = 8};
	knit__decoder d;
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_open(tiny.ctx, &desc, &d, &diag) == KNIT_OK, "%s", diag.text);
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

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_visits(visits, 3);
	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, NULL), KNIT_OK);
	base = tiny.store;
	run(&c, base, NULL, off, &m_off);
	tiny_u32("knit.lora.rank", RANK);
	tiny_f32("knit.lora.alpha", 6);

	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_lora(3, NULL, RANK, 0);
	ck_assert_int_eq(knit__decoder_config_adapter(&c, &tiny.keys, tiny.store, NULL), KNIT_OK);
	ck_assert_float_eq(c.lora_scale, 3);
	run(&c, base, tiny.store, zero, &m_zero);
	knit_weights_release(tiny.store);
	ck_assert_double_eq(distance(off, zero), 0);

	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_lora(3, NULL, RANK, 0.4f);
	run(&c, base, tiny.store, on, &m_on);
	ck_assert(distance(off, on) > 1e-3);
	ck_assert_uint_eq(m_on.weight_bytes, m_off.weight_bytes);
	ck_assert_uint_eq(m_off.adapter_bytes, 0);
	ck_assert_uint_gt(m_on.adapter_bytes, 0);
	knit_weights_release(base);
	tiny_close();
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

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_visits(visits, 4);
	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, NULL), KNIT_OK);
	run(&c, tiny.store, NULL, a, &shared);
	base = tiny.store;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_tensors(NULL, 4, from);
	copied = c;
	copied.layers = 4;
	for (uint16_t v = 0; v < 4; ++v)
		copied.visits[v] = v;
	run(&copied, tiny.store, NULL, b, &twins);
	ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
	ck_assert_uint_eq(shared.weight_bytes, twins.weight_bytes); /* equal numbers are found and stored once */
	knit_weights_release(base);
	tiny_close();
}
END_TEST

START_TEST(steps_are_checked) {
	static knit__decoder_config c;
	int32_t wrong[TOKENS] = {0, 1, 2, 3, 4, VOCAB};
	float logits[TOKENS * VOCAB];
	knit__decoder d;
	knit_diag diag = {0};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, NULL), KNIT_OK);
	const knit__decoder_desc desc = {
		.config = &c, .base = tiny.store, .positions = 4, .max_tokens = 8, .max_outputs = 8};
	ck_assert_int_eq(knit__decoder_open(tiny.ctx, &desc, &d, &diag), KNIT_OK);
	ck_assert_int_ne(knit__decoder_step(&d, wrong, seq, pos, 4, rows, 4, logits, &diag), KNIT_ERR_INTERNAL);
	ck_assert_int_ne(knit__decoder_step(&d, wrong + 2, seq, pos, 4, rows, 4, logits, &diag), KNIT_OK); /* id 16 of 16 */
	ck_assert_msg(strstr(diag.text, "16") != NULL, "%s", diag.text);
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 6, rows, 1, logits, NULL), KNIT_OK); /* position 4 of 4 */
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 9, rows, 1, logits, NULL), KNIT_OK); /* 9 of 8 tokens */
	ck_assert_int_ne(knit__decoder_step(&d, ids, seq, pos, 2, rows + 2, 1, logits, NULL), KNIT_OK); /* row 2 of 2 */
	ck_assert_int_eq(knit__decoder_step(&d, ids, seq, pos, 4, rows, 4, logits, NULL), KNIT_OK);
	knit__decoder_close(&d);
	const knit__decoder_desc huge = {.config = &c, .base = tiny.store, .positions = KNIT__MAX_CONTEXT + 1};
	memset(&diag, 0, sizeof diag);
	ck_assert_int_eq(knit__decoder_open(tiny.ctx, &huge, &d, &diag), KNIT_ERR_LIMIT);
	ck_assert(d.program == NULL && diag.text[0]);
	tiny_close();
}
END_TEST

/* Allocation 1, 2, 3 ... of open and the first step fails: MEMORY, nothing leaked, no crash. */
START_TEST(failing_allocations_of_a_decoder) {
	static knit__decoder_config c;
	float logits[TOKENS * VOCAB];
	knit_status status = KNIT_ERR_MEMORY;
	uint64_t n = 0;

	while (status != KNIT_OK) {
		track_alloc t = {0};
		knit_diag diag = {0};
		knit__decoder d;

		tiny_open_in(track_context(&t));
		tiny_keys(NULL, NULL, 0);
		tiny_tensors(NULL, LAYERS, NULL);
		ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &c, NULL), KNIT_OK);
		const knit__decoder_desc desc = {.config = &c, .base = tiny.store, .max_tokens = 8, .max_outputs = 8};
		t.fail_at = t.count + ++n;
		status = knit__decoder_open(tiny.ctx, &desc, &d, &diag);
		if (status == KNIT_OK) {
			status = knit__decoder_step(&d, ids, seq, pos, TOKENS, rows, TOKENS, logits, &diag);
			knit__decoder_close(&d);
		}
		tiny_close();
		ck_assert_msg(status == KNIT_OK || (status == KNIT_ERR_MEMORY && diag.text[0]), "allocation %llu: %s: %s",
					  (unsigned long long)n, knit_status_name(status), diag.text);
		ck_assert_msg(t.live == 0 && !t.bad_free, "allocation %llu: %llu bytes leaked", (unsigned long long)n,
					  (unsigned long long)t.live);
	}
	printf("%llu allocations failed in turn\n", (unsigned long long)n - 1);
	ck_assert_uint_gt(n, 50);
}
END_TEST

static bool ignore_text(void *user, const char *text, size_t bytes) {
	(void)user;
	(void)text;
	(void)bytes;
	return true;
}

/* The same for loading the bundled model, and for the generation loop on it. */
START_TEST(failing_allocations_of_load_and_generate) {
	const knit__model_desc desc = {.path = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf",
								   .tokenizer = KNIT__TOKENIZER_NEEDED,
								   .skip_finite_check = true};
	static knit__model model;
	knit_status status = KNIT_ERR_MEMORY;
	uint64_t n = 0;

	/* Every fourth: a file has hundreds of tensors, all added by one piece of code. */
	for (n = 1; status != KNIT_OK; n += n < 40 ? 1 : 4) {
		track_alloc t = {0};
		knit_diag diag = {0};
		knit_context *ctx = track_context(&t);

		t.fail_at = t.count + n;
		status = knit__model_load(ctx, &desc, &model, &diag);
		knit__model_unload(&model);
		knit_context_destroy(ctx);
		ck_assert_msg(status == KNIT_OK || (status == KNIT_ERR_MEMORY && diag.text[0]), "allocation %llu: %s: %s",
					  (unsigned long long)n, knit_status_name(status), diag.text);
		ck_assert_msg(t.live == 0 && !t.bad_free, "allocation %llu leaks", (unsigned long long)n);
	}
	ck_assert_uint_gt(n, 50);

	track_alloc t = {0};
	knit_context *ctx = track_context(&t);
	knit__decoder d;
	knit_sampler *sampler = NULL;
	const int32_t prompt[] = {'A', 'B', 'C'};
	ck_assert_int_eq(knit__model_load(ctx, &desc, &model, NULL), KNIT_OK);
	const knit__decoder_desc decoder = {
		.config = &model.config, .base = model.file.store, .adapters = model.adapters, .positions = 8, .max_tokens = 2};
	ck_assert_int_eq(knit__decoder_open(ctx, &decoder, &d, NULL), KNIT_OK);
	ck_assert_int_eq(knit__sampler_create(ctx, 256, &(knit_sampler_desc){0}, &sampler, NULL), KNIT_OK);
	const knit__generate_desc generate = {.decoder = &d,
										  .tokenizer = model.tokenizer,
										  .sampler = sampler,
										  .prompt = prompt,
										  .prompt_tokens = 3,
										  .max_new = 5,
										  .write = ignore_text};
	status = KNIT_ERR_MEMORY;
	for (n = 1; status != KNIT_OK; ++n) {
		knit__generated made;
		knit_diag diag = {0};
		const uint64_t before = t.live;
		t.fail_at = t.count + n;
		status = knit__generate(ctx, &generate, &made, &diag);
		t.fail_at = 0;
		knit__token_list_clear(&made.ids);
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "%s", diag.text);
		ck_assert_uint_eq(t.live, before);
	}
	ck_assert_uint_gt(n, 4);
	knit__sampler_destroy(sampler);
	knit__decoder_close(&d);
	knit__model_unload(&model);
	knit_context_destroy(ctx);
	ck_assert(t.live == 0 && !t.bad_free);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {lora_changes_what_it_should, visits_equal_layers_with_equal_numbers,
								  steps_are_checked, failing_allocations_of_a_decoder,
								  failing_allocations_of_load_and_generate};

	return suite_run("decoder", tests, sizeof tests / sizeof *tests);
}
