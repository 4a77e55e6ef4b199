/* Malformed files: the public collection with its verdicts, every truncation, and thousands of mutations. Nothing may
 * crash, take long, or allocate by what a file declares. */
#include "../../frontends/formats/model_file.h"
#include "../../frontends/text/tokenizer.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <cjson/cJSON.h>
#include <string.h>
#include <time.h>

/* One allocation: a few times the file, and the fixed buffers (a key's is 64 KiB). */
#define ALLOWED(file_bytes) ((file_bytes) * 8 + 131072)

typedef enum outcome { OPENED, REFUSED_BY_TOKENIZER, REFUSED } outcome;

static track_alloc track;
static knit_diag diag;

static void check_message(void) {
	ck_assert_int_ne(diag.status, KNIT_OK);
	ck_assert_int_ne(diag.status, KNIT_ERR_INTERNAL);
	ck_assert_uint_gt(strlen(diag.text), 10);
	for (const char *p = diag.text; *p; ++p)
		ck_assert_msg(*p >= 0x20 && *p < 0x7f, "%s", diag.text); /* one line, nothing that a terminal obeys */
}

/* Opens a file (path or bytes), its tokenizer if it has one, and encodes with that. */
static outcome try_file(const char *path, const void *data, uint64_t size) {
	knit_tokenizer *t = NULL;
	knit_model_file file;
	outcome result = OPENED;

	track = (track_alloc){0};
	diag = (knit_diag){0};
	knit_context *ctx = track_context(&track);
	ck_assert_ptr_nonnull(ctx);
	if ((path ? knit__model_open(ctx, path, &file, &diag) : knit__model_open_memory(ctx, data, size, &file, &diag)) != KNIT_OK)
		result = REFUSED;
	else if (knit__weights_seal(file.store) != KNIT_OK)
		ck_abort_msg("the store cannot be sealed");
	else if (knit__metadata_find(&file.metadata, "tokenizer.ggml.model") &&
	         knit__tokenizer_create(ctx, &file.metadata, &t, &diag) != KNIT_OK)
		result = REFUSED_BY_TOKENIZER;
	if (t) {
		knit_token_list list = {.a = &ctx->a};
		const char *piece;
		size_t n;

		knit__tokenizer_encode(t, "ab <s>\xff", 7, &list, NULL);
		for (uint32_t i = 0; i < list.count; ++i)
			ck_assert_int_eq(knit__tokenizer_piece(t, -1, list.ids[i], &piece, &n), KNIT_OK);
		knit__token_list_clear(&list);
	}
	if (result != OPENED)
		check_message();
	knit__tokenizer_destroy(t);
	knit__model_file_close(&file);
	knit_context_destroy(ctx);
	ck_assert_uint_eq(track.live, 0);
	ck_assert(!track.bad_free);
	return result;
}

/* ---- the collection ---------------------------------------------------------------------------------------------- */

static void check_entry(const cJSON *entry) {
	const char *name = cJSON_GetObjectItem(entry, "file")->valuestring;
	const char *expect = cJSON_GetObjectItem(entry, "expect")->valuestring;
	const uint64_t size = (uint64_t)cJSON_GetObjectItem(entry, "size")->valuedouble;
	char path[512];

	snprintf(path, sizeof path, "%s/%s", DATA("robustness"), name);
	const clock_t start = clock();
	const outcome got = try_file(path, NULL, 0);
	const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;

	ck_assert_msg(seconds < 1.0, "%s: %.2f s", name, seconds);
	ck_assert_msg(track.largest <= ALLOWED(size), "%s: %llu bytes for a file of %llu", name,
	              (unsigned long long)track.largest, (unsigned long long)size);
	if (strcmp(expect, "accept") == 0 || strcmp(expect, "reject at model build") == 0)
		ck_assert_msg(got == OPENED, "%s: %s", name, diag.text);
	else if (strcmp(expect, "reject at tokenizer") == 0)
		ck_assert_msg(got == REFUSED_BY_TOKENIZER, "%s: outcome %d", name, (int)got);
	else if (strncmp(expect, "reject", 6) == 0)
		ck_assert_msg(got == REFUSED, "%s: outcome %d", name, (int)got);
	else
		ck_assert_msg(strcmp(expect, "either") == 0, "%s: unknown verdict %s", name, expect);
}

START_TEST(the_collection_gets_its_verdicts) {
	const cJSON *entry;
	int entries = 0;
	bytes text;

	if (!have_data("robustness"))
		return;
	ck_assert(bytes_load(&text, DATA("robustness/manifest.json")));
	cJSON *manifest = cJSON_ParseWithLength((const char *)text.data, text.count);
	cJSON_ArrayForEach(entry, manifest) {
		check_entry(entry);
		++entries;
	}
	ck_assert_int_ge(entries, 80);
	cJSON_Delete(manifest);
	bytes_clear(&text);
}
END_TEST

/* ---- made files, cut and changed --------------------------------------------------------------------------------- */

static void make_gguf(bytes *b) {
	static const char *const tokens[] = {"<unk>", "<s>", "</s>", "<0x61>", "a", "b", "ab", "\xe2\x96\x81"};
	const uint64_t dims[] = {32, 2};

	gguf_header(b, 3, 2, 6);
	gguf_key_string(b, "general.architecture", "llama");
	gguf_key_u32(b, "general.alignment", 32);
	gguf_key_string(b, "tokenizer.ggml.model", "llama");
	gguf_string(b, "tokenizer.ggml.tokens");
	bytes_u32(b, 9);
	bytes_u32(b, 8);
	bytes_u64(b, 8);
	for (int i = 0; i < 8; ++i)
		gguf_string(b, tokens[i]);
	gguf_string(b, "tokenizer.ggml.scores");
	bytes_u32(b, 9);
	bytes_u32(b, 6);
	bytes_u64(b, 8);
	for (int i = 0; i < 8; ++i)
		bytes_f32(b, (float)-i);
	gguf_string(b, "tokenizer.ggml.token_type");
	bytes_u32(b, 9);
	bytes_u32(b, 5);
	bytes_u64(b, 8);
	for (uint32_t i = 0; i < 8; ++i)
		bytes_u32(b, i == 0 ? 2 : i < 3 ? 3 : i == 3 ? 6 : 1);
	gguf_tensor(b, "blk.0.attn_q.weight", 2, dims, 8, 0);
	gguf_tensor(b, "token_embd.weight", 2, dims, 0, 96);
	gguf_pad(b, 32);
	bytes_fill(b, 1, 96 + 256);
}

static void make_safetensors(bytes *b) {
	safetensors_header(b, "{\"__metadata__\":{\"rank\":\"8\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
	                      "\"b\\u00e9\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[24,32]},"
	                      "\"m\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[32,33]}}  ");
	bytes_fill(b, 1, 33);
}

static void make_llama2c(bytes *b, uint32_t version) {
	static const uint32_t sizes[7] = {4, 2, 1, 2, 1, 3, 2};

	if (version) {
		bytes_u32(b, 0x616b3432);
		bytes_u32(b, version);
	}
	for (int i = 0; i < 7; ++i)
		bytes_u32(b, sizes[i]);
	if (version) {
		bytes_u8(b, 1);
		bytes_fill(b, 0, 256 - b->count);
	}
	bytes_fill(b, 1, 4 * (3 * 4 + 3 * 4 + 16 + 8 + 8 + 16 + 3 * 8 + (version ? 0 : 2 * 2)));
}

static void make(bytes *b, int kind) {
	*b = (bytes){0};
	if (kind == 0)
		make_gguf(b);
	else if (kind == 1)
		make_safetensors(b);
	else
		make_llama2c(b, (uint32_t)kind - 2);
}

START_TEST(every_truncation_is_refused) {
	for (int kind = 0; kind < 4; ++kind) {
		bytes b;

		make(&b, kind);
		ck_assert_msg(try_file(NULL, b.data, b.count) == OPENED, "%d: %s", kind, diag.text);
		for (size_t n = 0; n < b.count; ++n) {
			/* An exact copy, so that reading one byte past it is seen. */
			bytes cut = {0};

			bytes_put(&cut, b.data, n);
			ck_assert_msg(try_file(NULL, cut.data, n) == REFUSED, "kind %d, %zu of %zu bytes", kind, n, b.count);
			ck_assert_uint_le(track.largest, ALLOWED(n));
			bytes_clear(&cut);
		}
		bytes_clear(&b);
	}
}
END_TEST

static uint32_t random_state;
static uint32_t random_below(uint32_t n) {
	random_state = random_state * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)random_state * n >> 32);
}

static void mutate(bytes *b) {
	static const uint64_t numbers[] = {0, 1, 2, 31, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
	                                   UINT64_C(1) << 32, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
	const uint32_t times = 1 + random_below(4);

	for (uint32_t i = 0; i < times; ++i) {
		const uint32_t at = random_below((uint32_t)b->count), kind = random_below(4);
		const uint64_t v = numbers[random_below(sizeof numbers / sizeof numbers[0])];
		const size_t room = b->count - at;

		if (kind == 0)
			b->data[at] ^= (uint8_t)(1u << random_below(8));
		else if (kind == 1)
			b->data[at] = (uint8_t)random_below(256);
		else
			memcpy(b->data + at, &v, kind == 2 ? (room < 4 ? room : 4) : (room < 8 ? room : 8));
	}
}

START_TEST(mutations_are_survived) {
	int opened = 0, refused = 0;

	random_state = 20240229;
	for (int kind = 0; kind < 4; ++kind)
		for (int round = 0; round < 4000; ++round) {
			bytes b;

			make(&b, kind);
			mutate(&b);
			if (try_file(NULL, b.data, b.count) == OPENED)
				++opened;
			else
				++refused;
			ck_assert_uint_le(track.largest, ALLOWED(b.count));
			bytes_clear(&b);
		}
	ck_assert_int_gt(opened, 100); /* changed data bytes */
	ck_assert_int_gt(refused, 1000);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {the_collection_gets_its_verdicts, every_truncation_is_refused, mutations_are_survived};

	return suite_run("corrupt", tests, sizeof tests / sizeof tests[0]);
}
