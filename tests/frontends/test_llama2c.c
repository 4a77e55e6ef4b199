/* The llama2.c reader: real v0 and v1 files against the GGUF of the same weights, made files, faults. */
#include "../../frontends/formats/limits.h"
#include "../../frontends/formats/model_file.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <string.h>

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) { ctx = track_begin(&track); }
static void end(void) { track_end(&track, ctx); }

static void open_file(const char *path, knit_model_file *file) {
	ck_assert_int_eq(knit__model_open(ctx, path, file, &diag), KNIT_OK);
}

/* ---- real files -------------------------------------------------------------------------------------------------- */

/* Every tensor of b is in a, with the same shape and bytes. */
static void same_tensors(const knit_weights *a, const knit_weights *b) {
	ck_assert_uint_eq(a->count, b->count);
	for (uint32_t i = 0; i < b->count; ++i) {
		const knit_weight_entry *y = &b->entries[i], *x = knit__weights_get(a, y->name);

		ck_assert_msg(x != NULL, "%s", y->name);
		ck_assert_int_eq(x->dtype, y->dtype);
		ck_assert_int_eq(x->rank, y->rank);
		ck_assert_mem_eq(x->dims, y->dims, (size_t)y->rank * sizeof *y->dims);
		ck_assert_uint_eq(x->bytes, y->bytes);
		ck_assert_msg(memcmp(x->data, y->data, x->bytes) == 0, "%s", y->name);
	}
}

static void same_numbers(const knit_metadata *a, const knit_metadata *b) {
	static const char *const keys[] = {
		"llama.context_length",       "llama.embedding_length",
		"llama.block_count",          "llama.feed_forward_length",
		"llama.attention.head_count", "llama.attention.head_count_kv",
		"llama.rope.dimension_count", "llama.vocab_size",
		"llama.rope.freq_base",       "llama.attention.layer_norm_rms_epsilon",
	};
	const char *architecture = NULL;

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; ++i) {
		double x = -1, y = -2;

		ck_assert_int_eq(knit__metadata_f64(a, keys[i], &x, &diag), KNIT_OK);
		ck_assert_int_eq(knit__metadata_f64(b, keys[i], &y, &diag), KNIT_OK);
		ck_assert_msg(x == y, "%s: %g, %g", keys[i], x, y);
	}
	ck_assert_int_eq(knit__metadata_string(a, "general.architecture", &architecture, &diag), KNIT_OK);
	ck_assert_str_eq(architecture, "llama");
}

START_TEST(v0_and_v1_equal_the_gguf) {
	static const char *const paths[] = {DATA("models/stories260K/stories260K.bin"), DATA("models/stories260K/stories260K.v1.bin")};
	knit_model_file gguf, file;

	if (!have_data("stories260K"))
		return;
	begin();
	open_file(DATA("models/gguf/stories260K-f32.gguf"), &gguf);
	for (uint32_t version = 0; version < 2; ++version) {
		open_file(paths[version], &file);
		ck_assert_int_eq(file.format, KNIT_MODEL_LLAMA2C);
		ck_assert_uint_eq(file.version, version);
		same_tensors(file.store, gguf.store);
		same_numbers(&file.metadata, &gguf.metadata);
		for (uint32_t i = 0; i < file.store->count; ++i)
			ck_assert(!file.store->entries[i].owned); /* in the mapping */
		knit__model_file_close(&file);
	}
	knit__model_file_close(&gguf);
	end();
}
END_TEST

START_TEST(a_second_model_opens) {
	knit_model_file file;
	uint64_t n = 0;

	if (!have_data("llama2xs"))
		return;
	begin();
	open_file(DATA("models/llama2xs/model.bin"), &file);
	ck_assert_int_eq(knit__metadata_u64(&file.metadata, "llama.feed_forward_length", &n, &diag), KNIT_OK);
	ck_assert_uint_eq(n, 192);
	ck_assert_int_eq(knit__metadata_u64(&file.metadata, "llama.context_length", &n, &diag), KNIT_OK);
	ck_assert_uint_eq(n, 256);
	ck_assert_uint_eq(file.store->count, 47);
	knit__model_file_close(&file);
	end();
}
END_TEST

START_TEST(version_2_is_refused_by_name) {
	knit_model_file file;

	if (!have_data("stories260K-q8"))
		return;
	begin();
	ck_assert_int_eq(knit__model_open(ctx, DATA("models/stories260K/stories260K-q8.ruhai.bin"), &file, &diag),
	                 KNIT_ERR_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(diag.text, "version 2"));
	end();
}
END_TEST

/* ---- made files -------------------------------------------------------------------------------------------------- */

/* dim 4, hidden 6, 2 layers, 2 heads, 1 kv head, vocabulary 3, context 5. Every float is its index in the file. */
static const int32_t sizes[7] = {4, 6, 2, 2, 1, 3, 5};
#define EMBEDDING (3 * 4)
#define LAYER_NORMS (2 * 2 * 4)
#define MATRICES (2 * (4 * 4 + 2 * 4 + 2 * 4 + 4 * 4 + 6 * 4 + 4 * 6 + 6 * 4))
#define ROPE_TABLES (2 * 5 * 1)

static void make(bytes *b, uint32_t version, bool shared, const int32_t values[7]) {
	const size_t floats = EMBEDDING + LAYER_NORMS + 4 + MATRICES + (version ? 0 : ROPE_TABLES) + (shared ? 0 : EMBEDDING);

	*b = (bytes){0};
	if (version) {
		bytes_u32(b, 0x616b3432);
		bytes_u32(b, version);
	}
	for (int i = 0; i < 7; ++i)
		bytes_u32(b, (uint32_t)(i == 5 && !version && !shared ? -values[i] : values[i]));
	if (version) {
		bytes_u8(b, shared);
		bytes_fill(b, 0, 256 - b->count);
	}
	for (size_t i = 0; i < floats; ++i)
		bytes_f32(b, (float)i);
}

static float first_of(const knit_model_file *file, const char *name) {
	const knit_weight_entry *w = knit__weights_get(file->store, name);
	float v;

	ck_assert_msg(w != NULL, "%s", name);
	memcpy(&v, w->data, sizeof v);
	return v;
}

START_TEST(the_order_of_v0_and_v1) {
	knit_model_file file;
	bytes b;

	begin();
	make(&b, 0, false, sizes);
	ck_assert_int_eq(knit__model_open_memory(ctx, b.data, b.count, &file, &diag), KNIT_OK);
	ck_assert_uint_eq(file.store->count, 2 * 9 + 3);
	ck_assert_float_eq(first_of(&file, "token_embd.weight"), 0);
	ck_assert_float_eq(first_of(&file, "blk.0.attn_norm.weight"), 12);
	ck_assert_float_eq(first_of(&file, "blk.1.attn_norm.weight"), 16);
	ck_assert_float_eq(first_of(&file, "blk.0.attn_q.weight"), 20);
	ck_assert_float_eq(first_of(&file, "blk.1.attn_k.weight"), 60);
	ck_assert_float_eq(first_of(&file, "blk.0.ffn_norm.weight"), 116);
	ck_assert_float_eq(first_of(&file, "output_norm.weight"), 268);
	ck_assert_float_eq(first_of(&file, "output.weight"), 282);
	const knit_weight_entry *down = knit__weights_get(file.store, "blk.1.ffn_down.weight");
	ck_assert_int_eq(down->dims[0], 4);
	ck_assert_int_eq(down->dims[1], 6);
	knit__model_file_close(&file);
	bytes_clear(&b);

	make(&b, 1, false, sizes);
	ck_assert_int_eq(knit__model_open_memory(ctx, b.data, b.count, &file, &diag), KNIT_OK);
	ck_assert_float_eq(first_of(&file, "blk.0.attn_norm.weight"), 0);
	ck_assert_float_eq(first_of(&file, "blk.1.ffn_norm.weight"), 12);
	ck_assert_float_eq(first_of(&file, "output_norm.weight"), 16);
	ck_assert_float_eq(first_of(&file, "token_embd.weight"), 20);
	ck_assert_float_eq(first_of(&file, "blk.0.attn_q.weight"), 32);
	ck_assert_float_eq(first_of(&file, "output.weight"), 272);
	knit__model_file_close(&file);
	bytes_clear(&b);

	for (uint32_t version = 0; version < 2; ++version) {
		make(&b, version, true, sizes);
		ck_assert_int_eq(knit__model_open_memory(ctx, b.data, b.count, &file, &diag), KNIT_OK);
		ck_assert_ptr_null(knit__weights_get(file.store, "output.weight"));
		knit__model_file_close(&file);
		bytes_clear(&b);
	}
	end();
}
END_TEST

static knit_status verdict(bytes *b) {
	knit_model_file file;

	diag = (knit_diag){0};
	const knit_status status = knit__model_open_memory(ctx, b->data, b->count, &file, &diag);
	ck_assert_int_eq(diag.status, status);
	knit__model_file_close(&file);
	bytes_clear(b);
	return status;
}

START_TEST(sizes_that_do_not_fit) {
	/* A v0 file with such sizes is no llama2.c file at all; a v1 file says what is wrong. */
	static const struct {
		int field;
		int32_t value;
		const char *message;
	} cases[] = {
		{0, 0, "dim"},          {0, -4, "dim"},         {0, 5, "n_heads"},  {1, 0, "hidden_dim"},    {2, 0, "n_layers"},
		{2, -1, "n_layers"},    {3, 0, "n_heads"},      {3, 3, "n_heads"},  {3, 4, "n_heads"},       {4, 0, "n_kv_heads"},
		{4, 3, "n_kv_heads"},   {5, 0, "vocab_size"},   {6, 0, "max_seq_len"}, {5, INT32_MIN, "vocab_size"},
		{2, INT32_MAX, "n_layers"}, {1, 7, "declares"}, {2, 3, "declares"}, {5, 4, "declares"},
	};
	bytes b;

	begin();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
		int32_t values[7];

		memcpy(values, sizes, sizeof values);
		values[cases[i].field] = cases[i].value;
		make(&b, 0, true, values);
		ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
		make(&b, 1, true, values);
		ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
		ck_assert_msg(strstr(diag.text, cases[i].message) != NULL, "%s: %s", cases[i].message, diag.text);
		ck_assert_int_eq(strncmp(diag.text, "llama2.c: byte 0: ", 18), 0);
	}
	make(&b, 3, true, sizes);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_UNSUPPORTED);
	end();
}
END_TEST

START_TEST(a_byte_more_or_less_is_an_error) {
	bytes b;

	begin();
	for (uint32_t version = 0; version < 2; ++version)
		for (int more = -1; more <= 1; more += 2) {
			make(&b, version, true, sizes);
			bytes_u8(&b, 0);
			b.count -= more < 0 ? 2 : 0;
			ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);
			ck_assert_ptr_nonnull(strstr(diag.text, "declares a file of"));
		}
	end();
}
END_TEST

START_TEST(limits_hold_to_the_last_one) {
	int32_t values[7];
	bytes b;

	begin();
	memcpy(values, sizes, sizeof values);
	values[6] = KNIT_LIMIT_LLAMA2C_SIZE; /* v1 stores nothing of this size */
	make(&b, 1, true, values);
	ck_assert_int_eq(verdict(&b), KNIT_OK);
	values[6]++;
	make(&b, 1, true, values);
	ck_assert_int_eq(verdict(&b), KNIT_ERR_FORMAT);

	/* Layers of the least size: dim 2, hidden 1, one head, so 2 * 2 norms, 4 * 4 attention, 3 * 2 feed-forward floats. */
	for (int more = 0; more < 2; ++more) {
		const int32_t layers = (int32_t)((KNIT_LIMIT_TENSORS - 2) / 9) + more;
		const int32_t small[7] = {2, 1, layers, 1, 1, 1, 1};

		make(&b, 1, true, small);
		b.count = 256;
		bytes_fill(&b, 0, ((size_t)layers * (4 + 16 + 6) + 2 + 2) * 4);
		ck_assert_int_eq(verdict(&b), more ? KNIT_ERR_LIMIT : KNIT_OK);
	}
	end();
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
	knit_status status = KNIT_ERR_MEMORY;
	knit_model_file file;
	bytes b;

	make(&b, 0, true, sizes);
	for (uint64_t fail_at = 1; status != KNIT_OK; ++fail_at) {
		ck_assert_uint_lt(fail_at, 300);
		begin();
		track.fail_at = track.count + fail_at;
		diag = (knit_diag){0};
		status = knit__model_open_memory(ctx, b.data, b.count, &file, &diag);
		track.fail_at = 0;
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		knit__model_file_close(&file);
		end();
	}
	bytes_clear(&b);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		v0_and_v1_equal_the_gguf, a_second_model_opens,            version_2_is_refused_by_name, the_order_of_v0_and_v1,
		sizes_that_do_not_fit,    a_byte_more_or_less_is_an_error, limits_hold_to_the_last_one,
		every_failed_allocation_is_survived,
	};

	return suite_run("llama2c", tests, sizeof tests / sizeof tests[0]);
}
