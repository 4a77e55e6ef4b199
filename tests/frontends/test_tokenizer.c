/* The tokenizers: published vectors, round trips, two forms of one vocabulary, faults, limits. */
#include "../../frontends/formats/limits.h"
#include "../../frontends/formats/model_file.h"
#include "../../frontends/text/tokenizer.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) {
	track = (track_alloc){0};
	diag = (knit_diag){0};
	ctx = track_context(&track);
	ck_assert_ptr_nonnull(ctx);
}

static void end(void) {
	knit_context_destroy(ctx);
	ck_assert_uint_eq(track.live, 0);
	ck_assert(!track.bad_free);
}

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

/* ---- a small vocabulary, made here --------------------------------------------------------------------------------- */

typedef struct piece {
	const char *text;
	float score;
	int32_t type;
} piece;

static const piece small[] = {
	{"<unk>", 0, 2}, {"<s>", 0, 3},   {"</s>", 0, 3},    {"\xe2\x96\x81", -9, 1}, {"a", -9, 1},
	{"b", -9, 1},    {"ab", -2, 1},   {"ba", -1, 1},     {"aba", -3, 1},          {"\xe2\x96\x81" "a", -4, 1},
	{"<", -9, 1},    {"s", -9, 1},    {">", -9, 1},      {"<s", -1, 1},           {"ab", -1, 1},
};
#define SMALL (sizeof small / sizeof small[0])

static void small_metadata(knit_metadata *m, const piece *pieces, uint64_t count, uint64_t scores, uint64_t types) {
	knit_metadata_entry *e;
	uint64_t text = 0;
	float score[SMALL];
	int32_t type[SMALL];

	knit__metadata_init(m, &ctx->a);
	for (uint64_t i = 0; i < count; ++i) {
		text += strlen(pieces[i].text);
		score[i] = pieces[i].score;
		type[i] = pieces[i].type;
	}
	ck_assert_int_eq(knit__metadata_add_string(m, "tokenizer.ggml.model", "llama", 5, &diag), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_strings(m, "tokenizer.ggml.tokens", true, count, text, &e, &diag), KNIT_OK);
	for (uint64_t i = 0; i < count; ++i)
		knit__metadata_string_put(e, i, pieces[i].text, strlen(pieces[i].text));
	if (scores)
		ck_assert_int_eq(knit__metadata_add(m, "tokenizer.ggml.scores", KNIT_METADATA_F32, true, scores, score, &diag), KNIT_OK);
	if (types)
		ck_assert_int_eq(knit__metadata_add(m, "tokenizer.ggml.token_type", KNIT_METADATA_I32, true, types, type, &diag), KNIT_OK);
}

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
	small_metadata(&m, small, SMALL, SMALL, SMALL);
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
	small_metadata(&m, small, SMALL, SMALL, 0);
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
	small_metadata(&m, small, SMALL, SMALL, SMALL);
	ck_assert_int_eq(knit__tokenizer_create(ctx, &m, &t, &diag), KNIT_OK);
	check_piece(t, -1, 9, "a");
	check_piece(t, 1, 9, "a");
	check_piece(t, 4, 9, " a");
	check_piece(t, 4, 1, "");
	check_piece(t, 4, 2, "");
	check_piece(t, 4, 0, "<unk>");
	ck_assert_int_eq(knit__tokenizer_piece(t, 4, -1, &text, &n), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__tokenizer_piece(t, 4, SMALL, &text, &n), KNIT_ERR_ARGUMENT);
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
	const piece nan_score[] = {{"a", NAN, 1}}, bad_type[] = {{"a", 0, 7}}, bad_byte[] = {{"<0xZZ>", 0, 6}};
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
	small_metadata(&m, small, 0, 0, 0);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "empty"));
	small_metadata(&m, small, SMALL, 0, SMALL);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "scores is missing"));
	small_metadata(&m, small, SMALL, SMALL - 1, SMALL);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "tokenizer: tokenizer.ggml.scores has 14 elements for 15 tokens");
	small_metadata(&m, small, SMALL, SMALL, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	small_metadata(&m, nan_score, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "score of token 0"));
	small_metadata(&m, bad_type, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	small_metadata(&m, bad_byte, 1, 1, 1);
	ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
	for (int i = 0; i < 3; ++i) {
		static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
		                                   "tokenizer.ggml.unknown_token_id"};

		small_metadata(&m, small, SMALL, SMALL, SMALL);
		knit__metadata_add_u32(&m, keys[i], SMALL, &diag);
		ck_assert_int_eq(create(&m), KNIT_ERR_FORMAT);
		ck_assert_ptr_nonnull(strstr(diag.text, "the vocabulary has 15 tokens"));
		small_metadata(&m, small, SMALL, SMALL, SMALL);
		knit__metadata_add_u32(&m, keys[i], SMALL - 1, &diag);
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
		small_metadata(&m, small, SMALL, SMALL, SMALL);
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
	encode(t, text, KNIT_LIMIT_TEXT_BYTES, &list);
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
		const piece one[] = {{longest, 0, 1}};
		small_metadata(&m, one, 1, 1, 1);
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
	const TTest *const tests[] = {
		sentencepiece_vectors, llama2c_file_and_gguf_agree,         odd_texts_survive,           a_megabyte_is_quick,
		merges_by_score_leftmost_first, pieces_one_at_a_time,       faulty_vocabularies,         faulty_llama2c_tokenizers,
		every_failed_allocation_is_survived, limits_hold_to_the_last_one,
	};

	return suite_run("tokenizer", tests, sizeof tests / sizeof tests[0]);
}
