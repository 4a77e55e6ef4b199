/* End-to-end helpers; see model_run.h. */
#include "model_run.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool test_data(const char *root, const char *file, char *out, size_t size) {
	snprintf(out, size, "%s/%s", root, file);
	if (access(out, R_OK) == 0)
		return true;
	printf("SKIP: %s is not there\n", out);
	return false;
}

void model_run_open(model_run *r, const knit__model_desc *model, knit__decoder_desc desc, uint32_t threads) {
	const knit_context_desc context = {.cpu_threads = threads};
	knit_diag diag = {0};

	memset(r, 0, sizeof *r);
	ck_assert_int_eq(knit_context_create(&context, &r->ctx), KNIT_OK);
	ck_assert_msg(knit__model_load(r->ctx, model, &r->model, &diag) == KNIT_OK, "%s", diag.text);
	desc.config = &r->model.config;
	desc.base = r->model.file.store;
	desc.adapters = r->model.adapters;
	ck_assert_msg(knit__decoder_open(r->ctx, &desc, &r->decoder, &diag) == KNIT_OK, "%s", diag.text);
}

void model_run_close(model_run *r) {
	knit__decoder_close(&r->decoder);
	knit__model_unload(&r->model);
	knit_context_destroy(r->ctx);
	memset(r, 0, sizeof *r);
}

float *model_run_logits(model_run *r, const int32_t *ids, size_t count, size_t batch) {
	const size_t vocab = (size_t)r->decoder.vocab;
	float *logits = malloc(count * vocab * sizeof *logits);
	int32_t seq[64] = {0}, pos[64], rows[64];
	knit_diag diag = {0};

	ck_assert_ptr_nonnull(logits);
	ck_assert(batch >= 1 && batch <= 64);
	for (size_t at = 0; at < count; at += batch) {
		const size_t tokens = count - at < batch ? count - at : batch;
		for (size_t t = 0; t < tokens; ++t) {
			pos[t] = (int32_t)(at + t);
			rows[t] = (int32_t)t;
		}
		ck_assert_msg(knit__decoder_step(&r->decoder, ids + at, seq, pos, tokens, rows, tokens, logits + at * vocab,
										 &diag) == KNIT_OK,
					  "%s", diag.text);
	}
	return logits;
}

typedef struct text_buffer {
	char *text;
	size_t bytes;
} text_buffer;

static bool append(void *user, const char *text, size_t bytes) {
	text_buffer *b = user;

	b->text = realloc(b->text, b->bytes + bytes + 1);
	ck_assert_ptr_nonnull(b->text);
	memcpy(b->text + b->bytes, text, bytes);
	b->bytes += bytes;
	b->text[b->bytes] = '\0';
	return true;
}

char *model_run_text(model_run *r, const knit_sampler_desc *sampler_desc, const char *prompt, size_t count,
					 knit_token_list *ids) {
	knit_token_list tokens = {.a = &r->ctx->a};
	knit_sampler *sampler = NULL;
	knit__generated made = {0};
	text_buffer text = {0};
	knit_diag diag = {0};

	ck_assert_int_eq(knit__encode_prompt(r->model.tokenizer, prompt, strlen(prompt), &tokens, &diag), KNIT_OK);
	ck_assert_int_eq(knit__sampler_create(r->ctx, (uint32_t)r->decoder.vocab, sampler_desc, &sampler, &diag), KNIT_OK);
	append(&text, "", 0);
	const knit__generate_desc desc = {
		.decoder = &r->decoder,
		.tokenizer = r->model.tokenizer,
		.sampler = sampler,
		.prompt = tokens.ids,
		.prompt_tokens = tokens.count,
		.max_new = count,
		.write = append,
		.user = &text,
	};
	ck_assert_msg(knit__generate(r->ctx, &desc, &made, &diag) == KNIT_OK, "%s", diag.text);
	knit__sampler_destroy(sampler);
	knit__token_list_clear(&tokens);
	if (ids)
		*ids = made.ids;
	else
		knit__token_list_clear(&made.ids);
	return text.text;
}

char *test_read_file(const char *path, size_t *bytes) {
	FILE *f = fopen(path, "rb");
	char *data;

	ck_assert_msg(f != NULL, "%s cannot be opened", path);
	fseek(f, 0, SEEK_END);
	*bytes = (size_t)ftell(f);
	rewind(f);
	data = malloc(*bytes + 1);
	ck_assert_ptr_nonnull(data);
	ck_assert_uint_eq(fread(data, 1, *bytes, f), *bytes);
	data[*bytes] = '\0';
	fclose(f);
	return data;
}

float *test_read_floats(const char *path, size_t count) {
	size_t bytes;
	char *data = test_read_file(path, &bytes);

	ck_assert_uint_eq(bytes, count * sizeof(float));
	return (float *)(void *)data; /* malloc's alignment */
}

cJSON *test_read_json(const char *path) {
	size_t bytes;
	char *text = test_read_file(path, &bytes);
	cJSON *root = cJSON_ParseWithLength(text, bytes);

	ck_assert_msg(root != NULL, "%s is no JSON", path);
	free(text);
	return root;
}

double test_largest_difference(const float *a, const float *b, size_t count) {
	double largest = 0;

	for (size_t i = 0; i < count; ++i) {
		const double difference = fabs((double)a[i] - (double)b[i]);
		if (!(difference <= largest)) /* a NaN counts as the largest */
			largest = difference;
	}
	return largest;
}
