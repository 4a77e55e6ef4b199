/* The tokenizers: published vectors, round trips, two forms of one vocabulary. Faults and limits are in
 * test_tokenizer_faults.c. */
#include "../../frontends/formats/model_file.h"
#include "../../frontends/text/tokenizer.h"
#include "../tools/bytes.h"
#include "../tools/small_vocabulary.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) {
	diag = (knit_diag){0};
	ctx = track_begin(&track);
}

static void end(void) { track_end(&track, ctx); }

static knit_tokenizer *from_gguf(const char *path) {
	knit_tokenizer *t = NULL;
	knit_model_file file;

	ck_assert_int_eq(knit__model_open(ctx, path, &file, &diag), KNIT_OK);
	ck_assert_msg(knit__tokenizer_create(ctx, &file.metadata, &t, &diag) == KNIT_OK, "%s", diag.text);
	knit__model_file_close(&file); /* the tokenizer needs it no longer */
	return t;
}

static void encode(const knit_tokenizer *t, const char *text, size_t n, knit_token_list *list) {
	*list = (knit_token_list){.a = &ctx->a};
	ck_assert_int_eq(knit__tokenizer_encode(t, text, n, list, &diag), KNIT_OK);
}

/* Decodes and compares with the text. */
static void round_trip(const knit_tokenizer *t, const knit_token_list *list, const char *text, size_t n) {
	char *back = malloc(n + 1);
	size_t got = 0;

	ck_assert_ptr_nonnull(back);
	ck_assert_int_eq(knit__tokenizer_decode(t, list->ids, list->count, back, n, &got), KNIT_OK);
	ck_assert_uint_eq(got, n);
	ck_assert_msg(memcmp(back, text, n) == 0, "%.*s", (int)(n < 200 ? n : 200), text);
	free(back);
}

/* ---- published vectors ------------------------------------------------------------------------------------------- */

START_TEST(sentencepiece_vectors) {
	static const char mark[] = "\n__ggml_vocab_test__\n";
	bytes inputs = {0}, outputs = {0};
	int cases = 0;

	if (!have_data("ggml-vocab-llama-spm"))
		return;
	begin();
	knit_tokenizer *t = from_gguf(DATA("vocab/ggml-vocab-llama-spm.gguf"));
	ck_assert_str_eq(knit__tokenizer_kind(t), "llama");
	ck_assert_uint_eq(knit__tokenizer_vocab_size(t), 32000);
	ck_assert_int_eq(knit__tokenizer_bos(t), 1);
	ck_assert_int_eq(knit__tokenizer_eos(t), 2);
	ck_assert(knit__tokenizer_wants_bos(t));
	ck_assert(bytes_load(&inputs, DATA("vocab/ggml-vocab-llama-spm.gguf.inp")));
	ck_assert(bytes_load(&outputs, DATA("vocab/ggml-vocab-llama-spm.gguf.out")));
	bytes_u8(&inputs, 0);
	bytes_u8(&outputs, 0);

	/* Every case ends with the mark; its ids are a line. */
	const char *text = (const char *)inputs.data, *line = (const char *)outputs.data;
	for (const char *stop; (stop = strstr(text, mark)) != NULL; text = stop + strlen(mark)) {
		const size_t n = (size_t)(stop - text);
		knit_token_list list;
		char *after;

		encode(t, text, n, &list);
		for (uint32_t i = 0; i < list.count; ++i) {
			ck_assert_msg(*line == ' ', "case %d: more ids than expected: %.*s", cases, (int)n, text);
			ck_assert_int_eq(list.ids[i], strtol(line, &after, 10));
			line = after;
		}
		ck_assert_msg(*line == '\n', "case %d: fewer ids than expected: %.*s", cases, (int)n, text);
		line++;
		round_trip(t, &list, text, n);
		knit__token_list_clear(&list);
		++cases;
	}
	ck_assert_int_eq(cases, 46);
	ck_assert_int_eq(*line, 0);
	bytes_clear(&inputs);
	bytes_clear(&outputs);
	knit__tokenizer_destroy(t);
	end();
}
END_TEST

START_TEST(llama2c_file_and_gguf_agree) {
	bytes text = {0};
	knit_token_list a, b;
	knit_tokenizer *bin = NULL;

	if (!have_data("tok512.bin"))
		return;
	begin();
	knit_tokenizer *gguf = from_gguf(DATA("models/gguf/stories260K-ggml-org.gguf"));
	ck_assert_int_eq(knit__tokenizer_open_llama2c(ctx, DATA("models/stories260K/tok512.bin"), &bin, &diag), KNIT_OK);
	ck_assert_str_eq(knit__tokenizer_kind(bin), "llama2.c");
	ck_assert_uint_eq(knit__tokenizer_vocab_size(bin), 512);
	ck_assert(bytes_load(&text, DATA("corpora/tinystories-sample.txt")));
	ck_assert_uint_gt(text.count, 1000000);
	const size_t n = text.count < 200000 ? text.count : 200000;
	encode(bin, (const char *)text.data, n, &a);
	encode(gguf, (const char *)text.data, n, &b);
	ck_assert_uint_eq(a.count, b.count);
	ck_assert_mem_eq(a.ids, b.ids, a.count * sizeof *a.ids);
	ck_assert_uint_lt(a.count, n * 2 / 3); /* pieces, not characters */
	round_trip(bin, &a, (const char *)text.data, n);
	knit__token_list_clear(&a);
	knit__token_list_clear(&b);

	/* Ids by hand: "Once upon a time" as golden/stories260K begins. */
	static const int32_t once[] = {403, 407, 261, 378};
	encode(bin, "Once upon a time", 16, &a);
	ck_assert_uint_eq(a.count, 4);
	ck_assert_mem_eq(a.ids, once, sizeof once);
	knit__token_list_clear(&a);
	bytes_clear(&text);
	knit__tokenizer_destroy(gguf);
	knit__tokenizer_destroy(bin);
	end();
}
END_TEST

static const char *const odd_texts[] = {
	"",       " ",     "\xe2\x96\x81",           "a\0b",         "\xff\xfe", "\xc3",  "\xe2\x82", "\xf0\x9f\xa6\x99",
	"\x80\x80\x80", "\xc3(", "\xf0\x9f\xa6\x99\xf0\x9f\xa6", "<s></s><unk>", "<0x0A>",  "\r\n\t", "  a  b  ",
};

/* Any bytes go in and come out again, in every kind. */
START_TEST(odd_texts_survive) {
	knit_tokenizer *t[3] = {NULL};
	knit_metadata m;
	knit_token_list list;
	char random[512];
	uint32_t state = 1;

	if (!have_data("vocabularies"))
		return;
	begin();
	t[0] = from_gguf(DATA("vocab/ggml-vocab-llama-spm.gguf"));
	ck_assert_int_eq(knit__tokenizer_open_llama2c(ctx, DATA("models/stories260K/tok512.bin"), &t[1], &diag), KNIT_OK);
	knit__metadata_init(&m, &ctx->a);
	ck_assert_int_eq(knit__metadata_add_string(&m, "tokenizer.ggml.model", "bytes", 5, &diag), KNIT_OK);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t[2], &diag), KNIT_OK);
	knit__metadata_clear(&m);
	for (int k = 0; k < 3; ++k) {
		for (size_t i = 0; i < sizeof odd_texts / sizeof odd_texts[0]; ++i) {
			const size_t n = i == 3 ? 3 : strlen(odd_texts[i]);

			encode(t[k], odd_texts[i], n, &list);
			if (k == 0 && i == 2) /* SentencePiece's own mark is a space to it */
				round_trip(t[k], &list, " ", 1);
			else
				round_trip(t[k], &list, odd_texts[i], n);
			for (uint32_t j = 0; k < 2 && j < list.count; ++j)
				ck_assert_int_ge(list.ids[j], 3); /* never a control token from text */
			knit__token_list_clear(&list);
		}
		for (int round = 0; round < 50; ++round) {
			for (size_t i = 0; i < sizeof random; ++i)
				random[i] = (char)((state = state * 1664525 + 1013904223) >> 24);
			encode(t[k], random, sizeof random, &list);
			if (k > 0 || !memmem(random, sizeof random, "\xe2\x96\x81", 3))
				round_trip(t[k], &list, random, sizeof random);
			knit__token_list_clear(&list);
		}
		knit__tokenizer_destroy(t[k]);
	}
	end();
}
END_TEST

START_TEST(a_megabyte_is_quick) {
	bytes text = {0};
	knit_token_list list;

	if (!have_data("tinyshakespeare.txt"))
		return;
	begin();
	knit_tokenizer *t = from_gguf(DATA("vocab/ggml-vocab-llama-spm.gguf"));
	ck_assert(bytes_load(&text, DATA("corpora/tinyshakespeare.txt")));
	const clock_t start = clock();
	encode(t, (const char *)text.data, text.count, &list);
	const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	round_trip(t, &list, (const char *)text.data, text.count);
	knit__token_list_clear(&list);

	/* The worst for merging: one character, over and over. */
	memset(text.data, 'a', text.count);
	encode(t, (const char *)text.data, text.count, &list);
	round_trip(t, &list, (const char *)text.data, text.count);
	printf("%zu bytes in %.2f s, peak %.1f bytes per byte\n", text.count, seconds, (double)track.peak / (double)text.count);
	ck_assert_double_lt(seconds, 20.0); /* quadratic work would take hours; sanitizers and a busy machine are allowed for */
	knit__token_list_clear(&list);
	bytes_clear(&text);
	knit__tokenizer_destroy(t);
	end();
}
END_TEST

/* ---- a small vocabulary ------------------------------------------------------------------------------------------- */

static void check_ids(const knit_tokenizer *t, const char *text, const char *expected) {
	knit_token_list list;
	char got[256] = "";

	encode(t, text, strlen(text), &list);
	for (uint32_t i = 0; i < list.count; ++i)
		snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", list.ids[i]);
	ck_assert_msg(strcmp(got, expected) == 0, "'%s': %s, not %s", text, got, expected);
	knit__token_list_clear(&list);
}

START_TEST(merges_by_score_leftmost_first) {
	knit_tokenizer *t = NULL;
	knit_metadata m;

	begin();
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, VOCABULARY_SMALL);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t, &diag), KNIT_OK);
	check_ids(t, "a", "9");        /* the space before the text is merged in */
	check_ids(t, "b", "3 5");
	check_ids(t, "ab", "3 6");     /* "ab" (-2) before " a" (-4); the first of two equal pieces */
	check_ids(t, "aba", "3 8");    /* "ba" (-1) is the best; then "aba" (-3), a union that only now exists, before " a" */
	check_ids(t, "baba", "3 7 7");
	check_ids(t, "abab", "3 8 5");
	check_ids(t, "<s>", "3 13 12"); /* never the BOS token */
	check_ids(t, "az", "9 0");     /* no bytes in this vocabulary: unknown */
	check_ids(t, "", "");
	knit__tokenizer_destroy(t);
	knit__metadata_clear(&m);

	/* Without types and space. */
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, 0);
	const uint8_t no = 0;
	ck_assert_int_eq(knit__metadata_add(&m, "tokenizer.ggml.add_space_prefix", KNIT_METADATA_BOOL, false, 1, &no, &diag), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "tokenizer.ggml.add_bos_token", KNIT_METADATA_BOOL, false, 1, &no, &diag), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_u32(&m, "tokenizer.ggml.eos_token_id", UINT32_MAX, &diag), KNIT_OK);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t, &diag), KNIT_OK);
	ck_assert(!knit__tokenizer_wants_bos(t));
	ck_assert_int_eq(knit__tokenizer_bos(t), 1);
	ck_assert_int_eq(knit__tokenizer_eos(t), -1);
	check_ids(t, " b", "3 5");
	check_ids(t, "<s>", "13 12");
	knit__tokenizer_destroy(t);
	knit__metadata_clear(&m);
	end();
}
END_TEST

static void check_piece(const knit_tokenizer *t, int32_t previous, int32_t id, const char *expected) {
	const char *text;
	size_t n;

	ck_assert_int_eq(knit__tokenizer_piece(t, previous, id, &text, &n), KNIT_OK);
	ck_assert_uint_eq(n, strlen(expected));
	ck_assert_mem_eq(text, expected, n);
}

START_TEST(pieces_one_at_a_time) {
	knit_tokenizer *t = NULL;
	const char *text;
	knit_metadata m;
	size_t n;

	begin();
	vocabulary_metadata(&m, &ctx->a, vocabulary_small, VOCABULARY_SMALL, VOCABULARY_SMALL, VOCABULARY_SMALL);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t, &diag), KNIT_OK);
	check_piece(t, -1, 9, "a");
	check_piece(t, 1, 9, "a");
	check_piece(t, 4, 9, " a");
	check_piece(t, 4, 1, "");
	check_piece(t, 4, 2, "");
	check_piece(t, 4, 0, "<unk>");
	ck_assert_int_eq(knit__tokenizer_piece(t, 4, -1, &text, &n), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__tokenizer_piece(t, 4, VOCABULARY_SMALL, &text, &n), KNIT_ERR_ARGUMENT);
	knit__tokenizer_destroy(t);
	knit__metadata_clear(&m);
	if (have_data("tok512.bin")) {
		ck_assert_int_eq(knit__tokenizer_open_llama2c(ctx, DATA("models/stories260K/tok512.bin"), &t, &diag), KNIT_OK);
		check_piece(t, 1, 403, "Once");
		check_piece(t, 407, 403, " Once");
		check_piece(t, 403, 13, "\n"); /* <0x0A> */
		check_piece(t, 1, 35, " ");    /* <0x20>: a byte of the text, no prefix */
		check_piece(t, 403, 1, "");
		knit__tokenizer_destroy(t);
	}
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		sentencepiece_vectors, llama2c_file_and_gguf_agree, odd_texts_survive, a_megabyte_is_quick, merges_by_score_leftmost_first,
		pieces_one_at_a_time,
	};

	return suite_run("tokenizer", tests, sizeof tests / sizeof tests[0]);
}
