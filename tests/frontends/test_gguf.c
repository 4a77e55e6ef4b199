/* The GGUF reader: real files, made files of every type, limits, faults. */
#include "../../frontends/formats/limits.h"
#include "../../frontends/formats/model_file.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) { ctx = track_begin(&track); }
static void end(void) { track_end(&track, ctx); }

static knit_status open_bytes(const bytes *b, knit_model_file *file) {
	diag = (knit_diag){0};
	return knit__model_open_memory(ctx, b->data, b->count, file, &diag);
}

/* Opens and closes; on failure the message must be one line that begins with the format and the byte. */
static knit_status verdict(bytes *b) {
	knit_model_file file;
	const knit_status status = open_bytes(b, &file);

	if (status != KNIT_OK) {
		ck_assert_int_eq(diag.status, status);
		ck_assert_int_eq(strncmp(diag.text, "gguf: byte ", 11), 0);
		ck_assert_ptr_null(strchr(diag.text, '\n'));
		ck_assert_ptr_null(file.ctx);
	}
	knit__model_file_close(&file);
	bytes_clear(b);
	return status;
}

/* ---- real files -------------------------------------------------------------------------------------------------- */

START_TEST(a_third_party_file_ties_its_output_matrix) {
	knit_weight_info embd, out, norm;
	knit_weights *store;
	uint64_t unique, named;

	if (!have_data("stories260K-ggml-org.gguf"))
		return;
	begin();
	ck_assert_int_eq(knit_weights_open(ctx, DATA("models/gguf/stories260K-ggml-org.gguf"), &store, &diag), KNIT_OK);
	ck_assert_uint_eq(knit_weights_count(store), 48);
	ck_assert_int_eq(knit_weights_find(store, "token_embd.weight", &embd), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "output.weight", &out), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "blk.0.ffn_down.weight", &norm), KNIT_OK);
	ck_assert_int_eq(embd.rank, 2);
	ck_assert_int_eq(embd.dims[0], 512); /* outermost first: one row per token */
	ck_assert_int_eq(embd.dims[1], 64);
	ck_assert_int_eq(norm.dims[0], 64);
	ck_assert_int_eq(norm.dims[1], 172);
	ck_assert_uint_eq(embd.storage, out.storage);
	ck_assert_ptr_ne(embd.data, out.data);
	knit__weights_bytes(store, &unique, &named);
	ck_assert_uint_eq(named - unique, 512 * 64 * 4);
	knit_weights_release(store);
	end();
}
END_TEST

START_TEST(tensors_lie_in_the_mapping) {
	knit_model_file file;
	uint64_t n = 0;
	const char *s = NULL;
	double eps = 0;

	if (!have_data("stories260K-f32.gguf"))
		return;
	begin();
	ck_assert_int_eq(knit__model_open(ctx, DATA("models/gguf/stories260K-f32.gguf"), &file, &diag), KNIT_OK);
	ck_assert_int_eq(file.format, KNIT_MODEL_GGUF);
	ck_assert_str_eq(knit__model_format_name(file.format), "gguf");
	ck_assert_uint_eq(file.version, 3);
	ck_assert_uint_eq(file.file_bytes, 1054368);
	ck_assert_uint_eq(file.store->count, 47);
	for (uint32_t i = 0; i < file.store->count; ++i) {
		const knit_weight_entry *w = &file.store->entries[i];

		ck_assert(!w->owned);
		ck_assert_uint_eq((uintptr_t)w->data % 32, 0);
		ck_assert((const char *)w->data >= (const char *)file.store->mapping);
		ck_assert((const char *)w->data + w->bytes <= (const char *)file.store->mapping + file.file_bytes);
	}
	ck_assert_uint_lt(track.largest, 100000); /* nothing of a tensor's size was allocated */
	ck_assert_int_eq(knit__metadata_u64(&file.metadata, "llama.block_count", &n, &diag), KNIT_OK);
	ck_assert_uint_eq(n, 5);
	ck_assert_int_eq(knit__metadata_string(&file.metadata, "general.architecture", &s, &diag), KNIT_OK);
	ck_assert_str_eq(s, "llama");
	ck_assert_int_eq(knit__metadata_f64(&file.metadata, "llama.attention.layer_norm_rms_epsilon", &eps, &diag), KNIT_OK);
	ck_assert_double_eq(eps, (double)1e-5f);

	/* The store outlives the file. */
	knit_weights *store = knit__weights_retain(file.store);
	knit__model_file_close(&file);
	ck_assert_ptr_nonnull(knit__weights_get(store, "blk.4.ffn_up.weight"));
	knit_weights_release(store);
	end();
}
END_TEST

START_TEST(half_precision_and_vocabulary_files_open) {
	static const char *const vocabularies[] = {DATA("vocab/ggml-vocab-llama-spm.gguf"), DATA("vocab/ggml-vocab-gpt-2.gguf"),
	                                           DATA("vocab/ggml-vocab-starcoder.gguf")};
	knit_model_file file;

	if (!have_data("llama-2-tiny-random.gguf"))
		return;
	begin();
	ck_assert_int_eq(knit__model_open(ctx, DATA("models/gguf/llama-2-tiny-random.gguf"), &file, &diag), KNIT_OK);
	const knit_weight_entry *w = knit__weights_get(file.store, "token_embd.weight");
	ck_assert_ptr_nonnull(w);
	ck_assert_int_eq(w->dtype, KNIT_F16);
	ck_assert_int_eq(w->dims[0], 32000);
	ck_assert_int_eq(w->dims[1], 8);
	knit__model_file_close(&file);
	for (size_t i = 0; i < 3; ++i) {
		ck_assert_int_eq(knit__model_open(ctx, vocabularies[i], &file, &diag), KNIT_OK);
		ck_assert_uint_eq(file.store->count, 0);
		ck_assert_ptr_nonnull(knit__metadata_find(&file.metadata, "tokenizer.ggml.tokens"));
		knit__model_file_close(&file);
	}
	end();
}
END_TEST

/* ---- made files -------------------------------------------------------------------------------------------------- */

START_TEST(every_value_type) {
	static const struct {
		uint32_t type, bytes;
	} types[] = {{0, 1}, {1, 1}, {2, 2}, {3, 2}, {4, 4}, {5, 4}, {6, 4}, {7, 1}, {10, 8}, {11, 8}, {12, 8}};
	const size_t count = sizeof types / sizeof types[0];
	const uint8_t one[8] = {1};
	knit_metadata_text text;
	knit_model_file file;
	char key[32];
	bytes b = {0};
	uint64_t u;

	begin();
	for (uint32_t version = 2; version <= 3; ++version) {
		gguf_header(&b, version, 0, 2 * count + 2);
		for (size_t i = 0; i < count; ++i) {
			snprintf(key, sizeof key, "plain.%zu", i);
			gguf_string(&b, key);
			bytes_u32(&b, types[i].type);
			bytes_put(&b, one, types[i].bytes);
			snprintf(key, sizeof key, "array.%zu", i);
			gguf_string(&b, key);
			bytes_u32(&b, 9);
			bytes_u32(&b, types[i].type);
			bytes_u64(&b, 2);
			bytes_put(&b, one, types[i].bytes);
			bytes_put(&b, one, types[i].bytes);
		}
		gguf_key_string(&b, "text", "");
		gguf_string(&b, "texts");
		bytes_u32(&b, 9);
		bytes_u32(&b, 8);
		bytes_u64(&b, 2);
		gguf_string(&b, "ab");
		gguf_string(&b, "c");

		ck_assert_int_eq(open_bytes(&b, &file), KNIT_OK);
		ck_assert_uint_eq(file.version, version);
		ck_assert_uint_eq(file.metadata.count, 2 * count + 2);
		for (size_t i = 0; i < count; ++i) {
			snprintf(key, sizeof key, "array.%zu", i);
			const knit_metadata_entry *e = knit__metadata_find(&file.metadata, key);
			ck_assert_ptr_nonnull(e);
			ck_assert_uint_eq(e->count, 2);
			ck_assert_uint_eq(knit__metadata_type_bytes(e->type), types[i].bytes);
			if (knit__metadata_u64_at(e, 1, &u))
				ck_assert_uint_eq(u, 1);
		}
		const knit_metadata_entry *texts = knit__metadata_find(&file.metadata, "texts");
		ck_assert(knit__metadata_string_at(texts, 0, &text));
		ck_assert_str_eq(text.text, "ab");
		ck_assert(knit__metadata_string_at(texts, 1, &text));
		ck_assert_str_eq(text.text, "c");
		knit__model_file_close(&file);
		bytes_clear(&b);
	}
	end();
}
END_TEST

/* One tensor [2, columns] of a type, with `data_bytes` of data. */
static void one_tensor(bytes *b, uint32_t type, uint64_t columns, size_t data_bytes) {
	const uint64_t dims[] = {columns, 2};

	gguf_header(b, 3, 1, 0);
	gguf_tensor(b, "blk.0.w", 2, dims, type, 0);
	gguf_pad(b, 32);
	bytes_fill(b, 0, data_bytes);
}

START_TEST(every_tensor_type) {
	static const struct {
		uint32_t type;
		size_t bytes;
		knit_dtype dtype;
	} good[] = {{0, 256, KNIT_F32}, {1, 128, KNIT_F16}, {2, 36, KNIT_Q4_0}, {8, 68, KNIT_Q8_0}, {26, 256, KNIT_I32}, {30, 128, KNIT_BF16},
	            {12, 288, KNIT_Q4_K}, {14, 420, KNIT_Q6_K}};
	knit_model_file file;
	bytes b = {0};

	begin();
	for (size_t i = 0; i < sizeof good / sizeof good[0]; ++i) {
		const uint64_t columns = knit__dtype_info(good[i].dtype)->block_elements == 256 ? 256 : 32;

		one_tensor(&b, good[i].type, columns, good[i].bytes);
		ck_assert_int_eq(open_bytes(&b, &file), KNIT_OK);
		ck_assert_int_eq(file.store->entries[0].dtype, good[i].dtype);
		ck_assert_uint_eq(file.store->entries[0].bytes, good[i].bytes);
		ck_assert_int_eq(file.store->entries[0].dims[0], 2);
		ck_assert_int_eq(file.store->entries[0].dims[1], (int64_t)columns);
		knit__model_file_close(&file);
		b.count--; /* the last byte is missing */
		ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
		ck_assert_ptr_nonnull(strstr(diag.text, "past the end"));
	}
	for (uint32_t type = 0; type < 64; ++type) {
		bool known = false;

		for (size_t i = 0; i < sizeof good / sizeof good[0]; ++i)
			known = known || good[i].type == type;
		if (known)
			continue;
		one_tensor(&b, type, 32, 512);
		const knit_status status = verdict(&b);
		ck_assert(status == KNIT_ERR_FORMAT || status == KNIT_ERR_UNSUPPORTED);
	}
	one_tensor(&b, 13, 32, 512);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(diag.text, "blk.0.w"));
	ck_assert_ptr_nonnull(strstr(diag.text, "type Q5_K is not supported"));
	ck_assert_ptr_nonnull(strstr(diag.text, "Q6_K, Q4_K or Q4_0"));
	ck_assert_ptr_nonnull(strstr(diag.text, "convert"));
	one_tensor(&b, 77, 32, 512);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "unknown tensor type 77"));
	one_tensor(&b, 14, 224, 512);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "rows of 224 elements, type Q6_K needs a multiple of 256"));
	end();
}
END_TEST

START_TEST(messages_give_offset_and_field) {
	const uint64_t dims[] = {4}, broken[] = {33};
	bytes b = {0};

	begin();
	gguf_header(&b, 3, 0, 1);
	gguf_string(&b, "k");
	bytes_u32(&b, 4);
	bytes_u8(&b, 1);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "gguf: byte 37: key 'k': 1 values of u32 declared, the file ends after 1 bytes");

	gguf_header(&b, 3, 2, 0);
	gguf_tensor(&b, "a", 1, dims, 0, 0);
	gguf_tensor(&b, "a", 1, dims, 0, 32);
	gguf_pad(&b, 32);
	bytes_fill(&b, 0, 64);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "tensor 'a': a second tensor"));

	gguf_header(&b, 3, 1, 0);
	gguf_tensor(&b, "q\n", 1, broken, 8, 0);
	bytes_fill(&b, 0, 64);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "tensor 'q?': rows of 33 elements, type Q8_0 needs a multiple of 32"));

	gguf_header(&b, 3, 0, 1);
	gguf_string(&b, "flag");
	bytes_u32(&b, 7);
	bytes_u8(&b, 2); /* undefined if it were read into a _Bool */
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "gguf: byte 40: key 'flag': a bool is 2, needs 0 or 1");

	/* Counts that the bytes cannot hold are refused at once, by name. */
	gguf_header(&b, 3, 5, 0);
	bytes_fill(&b, 0, 100);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "gguf: byte 16: 5 tensors and 0 key-values declared, 100 bytes follow");

	gguf_header(&b, 1, 0, 0);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_UNSUPPORTED);
	gguf_header(&b, 4, 0, 0);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	gguf_header(&b, 3, 0, 2);
	gguf_key_u32(&b, "twice", 1);
	gguf_key_u32(&b, "twice", 1);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "'twice' occurs twice"));
	end();
}
END_TEST

START_TEST(tensors_may_share_bytes) {
	const uint64_t dims[] = {4};
	knit_model_file file;
	bytes b = {0};

	begin();
	gguf_header(&b, 3, 2, 0);
	gguf_tensor(&b, "a", 1, dims, 0, 0);
	gguf_tensor(&b, "b", 1, dims, 0, 0);
	gguf_pad(&b, 32);
	bytes_fill(&b, 0, 16);
	ck_assert_int_eq(open_bytes(&b, &file), KNIT_OK);
	ck_assert_ptr_eq(file.store->entries[0].data, file.store->entries[1].data);
	knit__model_file_close(&file);
	bytes_clear(&b);
	end();
}
END_TEST

/* Bytes in memory at an odd address: no float is read through a misaligned pointer. */
START_TEST(misaligned_tensors_are_copied) {
	const uint64_t dims[] = {4};
	const float values[] = {1, 2, 3, 4};
	knit_model_file file;
	bytes b = {0};

	begin();
	gguf_header(&b, 3, 1, 0);
	gguf_tensor(&b, "a", 1, dims, 0, 0);
	gguf_pad(&b, 32);
	bytes_put(&b, values, sizeof values);
	uint8_t *odd = malloc(b.count + 1);
	ck_assert_ptr_nonnull(odd);
	memcpy(odd + 1, b.data, b.count);
	ck_assert_int_eq(knit__model_open_memory(ctx, odd + 1, b.count, &file, &diag), KNIT_OK);
	ck_assert(file.store->entries[0].owned);
	ck_assert_uint_eq((uintptr_t)file.store->entries[0].data % 4, 0);
	ck_assert_mem_eq(file.store->entries[0].data, values, sizeof values);
	knit__model_file_close(&file);
	free(odd);
	bytes_clear(&b);
	end();
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static knit_status with_key_values(uint64_t count) {
	bytes b = {0};
	char key[32];

	gguf_header(&b, 3, 0, count);
	for (uint64_t i = 0; i < count; ++i) {
		snprintf(key, sizeof key, "%llu", (unsigned long long)i);
		gguf_key_u32(&b, key, 1);
	}
	return verdict(&b);
}

static knit_status with_key_bytes(size_t count) {
	bytes b = {0};

	gguf_header(&b, 3, 0, 1);
	bytes_u64(&b, count);
	bytes_fill(&b, 'k', count);
	bytes_u32(&b, 4);
	bytes_u32(&b, 1);
	return verdict(&b);
}

static knit_status with_tensors(uint64_t count) {
	const uint64_t dims[] = {1};
	bytes b = {0};
	char name[32];

	gguf_header(&b, 3, count, 0);
	for (uint64_t i = 0; i < count; ++i) {
		snprintf(name, sizeof name, "%llu", (unsigned long long)i);
		gguf_tensor(&b, name, 1, dims, 0, 0);
	}
	gguf_pad(&b, 32);
	bytes_f32(&b, 0);
	return verdict(&b);
}

static knit_status with_name_bytes(size_t count) {
	const uint64_t dims[] = {1};
	char name[128] = "";
	bytes b = {0};

	memset(name, 'n', count);
	gguf_header(&b, 3, 1, 0);
	gguf_tensor(&b, name, 1, dims, 0, 0);
	gguf_pad(&b, 32);
	bytes_f32(&b, 0);
	return verdict(&b);
}

static knit_status with_alignment(uint32_t alignment) {
	const uint64_t dims[] = {1};
	bytes b = {0};

	gguf_header(&b, 3, 1, 1);
	gguf_key_u32(&b, "general.alignment", alignment);
	gguf_tensor(&b, "a", 1, dims, 0, 0);
	gguf_pad(&b, alignment);
	bytes_f32(&b, 0);
	return verdict(&b);
}

static knit_status with_rank(uint32_t rank) {
	const uint64_t dims[] = {2, 2, 2, 2, 2};
	bytes b = {0};

	gguf_header(&b, 3, 1, 0);
	gguf_tensor(&b, "a", rank, dims, 0, 0);
	gguf_pad(&b, 32);
	bytes_fill(&b, 0, (size_t)4 << rank);
	return verdict(&b);
}

START_TEST(limits_hold_to_the_last_one) {
	begin();
	ck_assert_int_eq(with_key_values(KNIT_LIMIT_METADATA_ENTRIES), KNIT_OK);
	ck_assert_int_eq(with_key_values(KNIT_LIMIT_METADATA_ENTRIES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_key_bytes(KNIT_LIMIT_KEY_BYTES), KNIT_OK);
	ck_assert_int_eq(with_key_bytes(KNIT_LIMIT_KEY_BYTES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_tensors(KNIT_LIMIT_TENSORS), KNIT_OK);
	ck_assert_int_eq(with_tensors(KNIT_LIMIT_TENSORS + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_name_bytes(KNIT_LIMIT_GGUF_NAME_BYTES), KNIT_OK);
	ck_assert_int_eq(with_name_bytes(KNIT_LIMIT_GGUF_NAME_BYTES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_alignment(8), KNIT_OK);
	ck_assert_int_eq(with_alignment(4), KNIT_ERR_FORMAT);
	ck_assert_int_eq(with_alignment(KNIT_LIMIT_ALIGNMENT), KNIT_OK);
	ck_assert_int_eq(with_alignment(2 * KNIT_LIMIT_ALIGNMENT), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_rank(0), KNIT_OK);
	ck_assert_int_eq(with_rank(KNIT_MAX_RANK), KNIT_OK);
	ck_assert_int_eq(with_rank(KNIT_MAX_RANK + 1), KNIT_ERR_LIMIT);
	end();
}
END_TEST

/* ---- faults ------------------------------------------------------------------------------------------------------ */

START_TEST(every_failed_allocation_is_survived) {
	const uint64_t dims[] = {4};
	knit_model_file file;
	knit_status status = KNIT_ERR_MEMORY;
	bytes b = {0};

	gguf_header(&b, 3, 2, 3);
	gguf_key_u32(&b, "n", 1);
	gguf_key_string(&b, "s", "text");
	gguf_string(&b, "a");
	bytes_u32(&b, 9);
	bytes_u32(&b, 8);
	bytes_u64(&b, 1);
	gguf_string(&b, "x");
	gguf_tensor(&b, "a", 1, dims, 0, 0);
	gguf_tensor(&b, "b", 1, dims, 0, 32);
	gguf_pad(&b, 32);
	bytes_fill(&b, 0, 48);
	for (uint64_t fail_at = 1; status != KNIT_OK; ++fail_at) {
		ck_assert_uint_lt(fail_at, 200);
		begin();
		track.fail_at = track.count + fail_at;
		status = open_bytes(&b, &file);
		track.fail_at = 0;
		if (status != KNIT_OK) {
			ck_assert_int_eq(status, KNIT_ERR_MEMORY);
			ck_assert_int_eq(diag.status, KNIT_ERR_MEMORY);
		}
		knit__model_file_close(&file);
		end();
	}
	bytes_clear(&b);
}
END_TEST

START_TEST(opening_what_is_no_model) {
	knit_weights *store = (knit_weights *)&diag;

	begin();
	ck_assert_int_eq(knit_weights_open(ctx, "/nowhere/model.gguf", &store, &diag), KNIT_ERR_NOT_FOUND);
	ck_assert_ptr_null(store);
	ck_assert_int_eq(knit_weights_open(ctx, KNIT_SOURCE_DIR "/LICENSE", &store, &diag), KNIT_ERR_FORMAT);
	ck_assert_ptr_nonnull(strstr(diag.text, "not a model file"));
	ck_assert_int_eq(knit_weights_open(NULL, KNIT_SOURCE_DIR "/LICENSE", &store, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_open(ctx, NULL, &store, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_open(ctx, KNIT_SOURCE_DIR "/LICENSE", NULL, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_open(ctx, KNIT_SOURCE_DIR "/LICENSE", &store, NULL), KNIT_ERR_FORMAT);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		a_third_party_file_ties_its_output_matrix, tensors_lie_in_the_mapping, half_precision_and_vocabulary_files_open,
		every_value_type,                          every_tensor_type,          messages_give_offset_and_field,
		tensors_may_share_bytes,                   misaligned_tensors_are_copied, limits_hold_to_the_last_one,
		every_failed_allocation_is_survived,       opening_what_is_no_model,
	};

	return suite_run("gguf", tests, sizeof tests / sizeof tests[0]);
}
