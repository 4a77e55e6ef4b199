/* Vocabularies that are wrong, allocations that fail, and the limits on texts, tokens and vocabularies. */
#include "../../frontends/formats/limits.h"
#include "../../frontends/text/tokenizer.h"
#include "../tools/bytes.h"
#include "../tools/small_vocabulary.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) {
	diag = (knit_diag){0};
	ctx = track_begin(&track);
}

static void end(void) { track_end(&track, ctx); }

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static knit_status create(knit_metadata *m) {
	knit_tokenizer *t = NULL;

	diag = (knit_diag){0};
	const knit_status status = knit__tokenizer_create(ctx, m, &t, &diag);
	ck_assert_int_eq(diag.status, status);
	ck_assert_int_eq(t != NULL, status == KNIT_OK);
	knit__tokenizer_destroy(t);
	knit__metadata_clear(m);
	return status;
}

START_TEST(faulty_vocabularies) {
	const vocabulary_piece nan_score[] = {{"a", NAN, 1}}, bad_type[] = {{"a", 0, 7}}, bad_byte[] = {{"<0xZZ>", 0, 6}};
	knit_metadata m;

	begin();
	knit__metadata_init(&m, &ctx->a);
	ck_assert_int_eq(create(&m), KNIT_ERR_NOT_FOUND);
	knit__metadata_init(&m, &ctx->a);
	knit__metadata_add_string(&m, "tokenizer.ggml.model", "gpt2", 4, &diag);
	ck_assert_int_eq(create(&m), KNIT_ERR_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(diag.text, "'gpt2'"));
	knit__metadata_init(&m, &ctx->a);
	knit__metadata_add_u32(&m, "tokenizer.ggml.model", 4, &diag);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	knit__metadata_init(&m, &ctx->a);
	knit__metadata_add_string(&m, "tokenizer.ggml.model", "llama", 5, &diag);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "tokens is missing"));
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, 0, 0, 0);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "empty"));
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, 0, VOCABULARY_SMALL);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "scores is missing"));
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL - 1, VOCABULARY_SMALL);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "tokenizer: tokenizer.ggml.scores has 14 elements for 15 tokens");
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	vocabulary_metadata(&m, &ctx->a, nan_score, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "score of token 0"));
	vocabulary_metadata(&m, &ctx->a, bad_type, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	vocabulary_metadata(&m, &ctx->a, bad_byte, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	for (int i = 0; i < 3; ++i) {
		static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
		                                   "tokenizer.ggml.unknown_token_id"};

		vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, VOCABULARY_SMALL);
		knit__metadata_add_u32(&m, keys[i], VOCABULARY_SMALL, &diag);
		ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
		ck_assert_ptr_nonnull(strstr(diag.text, "the vocabulary has 15 tokens"));
		vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, VOCABULARY_SMALL);
		knit__metadata_add_u32(&m, keys[i], VOCABULARY_SMALL - 1, &diag);
		ck_assert_int_eq(create(&m), KNIT_OK);
	}
	end();
}
END_TEST

static void llama2c_piece(bytes *b, float score, const char *text) {
	bytes_f32(b, score);
	bytes_u32(b, (uint32_t)strlen(text));
	bytes_text(b, text);
}

static knit_status open_llama2c(bytes *b) {
	knit_tokenizer *t = NULL;

	diag = (knit_diag){0};
	const knit_status status = knit__tokenizer_open_llama2c_memory(ctx, b->data, b->count, &t, &diag);
	ck_assert_int_eq(diag.status, status);
	knit__tokenizer_destroy(t);
	return status;
}

START_TEST(faulty_llama2c_tokenizers) {
	bytes b = {0};

	begin();
	bytes_u32(&b, 3);
	ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "empty"));
	llama2c_piece(&b, 0, "abc");
	ck_assert_int_eq(open_llama2c(&b), KNIT_OK);
	llama2c_piece(&b, 0, "abcd");
	ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "llama2.c tokenizer: byte 19: token 1: a length of 4, the file's largest is 3");
	b.count = 15;
	llama2c_piece(&b, NAN, "abc");
	ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_FORMAT);
	b.count = 15;
	llama2c_piece(&b, 0, "abc");
	for (b.count--; b.count > 15; b.count--)
		ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_FORMAT);
	bytes_clear(&b);
	if (have_data("stories260K.bin")) {
		knit_tokenizer *t = NULL;

		ck_assert_int_ne(knit__tokenizer_open_llama2c(ctx, DATA("models/stories260K/stories260K.bin"), &t, &diag), KNIT_OK);
		ck_assert_ptr_null(t);
	}
	end();
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
	knit_status status = KNIT_ERR_MEMORY;

	for (uint64_t fail_at = 1; status != KNIT_OK; ++fail_at) {
		knit_tokenizer *t = NULL;
		knit_token_list list;
		knit_metadata m;

		ck_assert_uint_lt(fail_at, 100);
		begin();
		vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, VOCABULARY_SMALL);
		list = (knit_token_list){.a = &ctx->a};
		track.fail_at = track.count + fail_at;
		status = knit__tokenizer_create(ctx, &m, &t, &diag);
		if (status == KNIT_OK)
			status = knit__tokenizer_encode(t, "aba<abab>abab", 13, &list, &diag);
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_int_eq(diag.status, status);
		if (status != KNIT_OK)
			ck_assert_uint_eq(list.count, 0);
		track.fail_at = 0;
		knit__token_list_clear(&list);
		knit__tokenizer_destroy(t);
		knit__metadata_clear(&m);
		end();
	}
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

START_TEST(limits_hold_to_the_last_one) {
	knit_tokenizer *t = NULL;
	knit_token_list list;
	knit_metadata m;
	bytes b = {0};

	begin();
	knit__metadata_init(&m, &ctx->a);
	ck_assert_int_eq(knit__metadata_add_string(&m, "tokenizer.ggml.model", "bytes", 5, &diag), KNIT_OK);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t, &diag), KNIT_OK);
	knit__metadata_clear(&m);
	char *text = calloc(KNIT_LIMIT_TEXT_BYTES + 1, 1);
	ck_assert_ptr_nonnull(text);
	list = (knit_token_list){.a = &ctx->a};
	ck_assert_int_eq(knit__tokenizer_encode(t, text, KNIT_LIMIT_TEXT_BYTES, &list, &diag), KNIT_OK);
	ck_assert_uint_eq(list.count, KNIT_LIMIT_TEXT_BYTES);
	ck_assert_int_eq(knit__tokenizer_encode(t, text, KNIT_LIMIT_TEXT_BYTES + 1, &list, &diag), KNIT_ERR_LIMIT);
	knit__token_list_clear(&list);
	free(text);
	knit__tokenizer_destroy(t);

	/* The longest token, and one byte more. */
	bytes_u32(&b, KNIT_LIMIT_TOKEN_BYTES);
	bytes_f32(&b, 0);
	bytes_u32(&b, KNIT_LIMIT_TOKEN_BYTES);
	bytes_fill(&b, 'x', KNIT_LIMIT_TOKEN_BYTES);
	ck_assert_int_eq(open_llama2c(&b), KNIT_OK);
	const uint32_t more = KNIT_LIMIT_TOKEN_BYTES + 1;
	memcpy(b.data, &more, 4);
	ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_LIMIT);
	bytes_clear(&b);

	for (uint64_t extra = 0; extra < 2; ++extra) {
		char *longest = calloc(KNIT_LIMIT_TOKEN_BYTES + 2, 1);

		ck_assert_ptr_nonnull(longest);
		memset(longest, 'x', KNIT_LIMIT_TOKEN_BYTES + extra);
		const vocabulary_piece one[] = {{longest, 0, 1}};
		vocabulary_metadata(&m, &ctx->a, one, 1, 1, 1);
		ck_assert_int_eq(create(&m), extra ? KNIT_ERR_LIMIT : KNIT_OK);
		free(longest);
	}

	/* The largest vocabulary, of empty tokens, and one more. */
	bytes_u32(&b, 4);
	bytes_fill(&b, 0, KNIT_LIMIT_VOCAB * 8);
	ck_assert_int_eq(open_llama2c(&b), KNIT_OK);
	bytes_fill(&b, 0, 8);
	ck_assert_int_eq(open_llama2c(&b), KNIT_ERR_LIMIT);
	bytes_clear(&b);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {faulty_vocabularies, faulty_llama2c_tokenizers, every_failed_allocation_is_survived,
	                              limits_hold_to_the_last_one};

	return suite_run("tokenizer faults", tests, sizeof tests / sizeof tests[0]);
}
