/* The safetensors reader: real files, made headers, limits, faults. */
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

/* Opens a header and `data_bytes` of data. */
static knit_status open_json(const char *json, size_t data_bytes, knit_model_file *file, bytes *b) {
	*b = (bytes){0};
	safetensors_header(b, json);
	bytes_fill(b, 0, data_bytes);
	diag = (knit_diag){0};
	return knit__model_open_memory(ctx, b->data, b->count, file, &diag);
}

static knit_status verdict(const char *json, size_t data_bytes) {
	knit_model_file file;
	bytes b;
	const knit_status status = open_json(json, data_bytes, &file, &b);

	ck_assert_int_eq(diag.status, status);
	ck_assert_ptr_null(strchr(diag.text, '\n'));
	knit__model_file_close(&file);
	bytes_clear(&b);
	return status;
}

/* ---- real files -------------------------------------------------------------------------------------------------- */

START_TEST(a_hugging_face_file_holds_the_same_weights) {
	static const char *const pairs[][2] = {
		{"model.embed_tokens.weight", "token_embd.weight"},
		{"model.norm.weight", "output_norm.weight"},
		{"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
		{"model.layers.2.self_attn.v_proj.weight", "blk.2.attn_v.weight"},
		{"model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight"},
		{"model.layers.4.mlp.down_proj.weight", "blk.4.ffn_down.weight"},
	};
	const char *format = NULL;
	knit_model_file hf, gguf;

	if (!have_data("stories260K-hf"))
		return;
	begin();
	ck_assert_int_eq(knit__model_open(ctx, DATA("models/stories260K-hf/model.safetensors"), &hf, &diag), KNIT_OK);
	ck_assert_int_eq(knit__model_open(ctx, DATA("models/gguf/stories260K-f32.gguf"), &gguf, &diag), KNIT_OK);
	ck_assert_int_eq(hf.format, KNIT_MODEL_SAFETENSORS);
	ck_assert_uint_eq(hf.store->count, 47);
	ck_assert_uint_eq(hf.skipped_count, 0);
	ck_assert_int_eq(knit__metadata_string(&hf.metadata, "format", &format, &diag), KNIT_OK);
	ck_assert_str_eq(format, "pt");
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
		const knit_weight_entry *x = knit__weights_get(hf.store, pairs[i][0]);
		const knit_weight_entry *y = knit__weights_get(gguf.store, pairs[i][1]);

		ck_assert_msg(x && y, "%s", pairs[i][0]);
		ck_assert_int_eq(x->rank, y->rank);
		ck_assert_mem_eq(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims);
		ck_assert_mem_eq(x->data, y->data, y->bytes);
	}
	knit__model_file_close(&hf);
	knit__model_file_close(&gguf);
	end();
}
END_TEST

START_TEST(a_lora_file_with_its_metadata) {
	const char *s = NULL;
	knit_model_file file;

	if (!have_data("looped-lora"))
		return;
	begin();
	ck_assert_int_eq(knit__model_open(ctx, DATA("golden/looped-lora/loop_mid3_lora_all_r8.lora.safetensors"), &file, &diag),
	                 KNIT_OK);
	ck_assert_int_eq(knit__metadata_string(&file.metadata, "schedule", &s, &diag), KNIT_OK);
	ck_assert_str_eq(s, "0,1,2,2,2,3,4");
	ck_assert_int_eq(knit__metadata_string(&file.metadata, "rank", &s, &diag), KNIT_OK);
	ck_assert_str_eq(s, "8");
	const knit_weight_entry *a = knit__weights_get(file.store, "steps.6.mlp.down_proj.lora_A.weight");
	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(a->dims[0], 8);
	ck_assert_int_eq(a->dims[1], 172);
	knit__model_file_close(&file);
	end();
}
END_TEST

/* ---- made files -------------------------------------------------------------------------------------------------- */

START_TEST(types_are_used_skipped_or_refused) {
	static const struct {
		const char *dtype;
		int bytes;
		knit_status status;
		knit_dtype used;
	} cases[] = {
		{"F32", 4, KNIT_OK, KNIT_F32}, {"F16", 2, KNIT_OK, KNIT_F16}, {"BF16", 2, KNIT_OK, KNIT_BF16},
		{"I32", 4, KNIT_OK, KNIT_I32}, {"U8", 1, KNIT_OK, 0},         {"I64", 8, KNIT_OK, 0},
		{"BOOL", 1, KNIT_OK, 0},       {"F64", 8, KNIT_ERR_UNSUPPORTED, 0}, {"F8_E4M3", 1, KNIT_ERR_UNSUPPORTED, 0},
		{"Q9", 1, KNIT_ERR_FORMAT, 0},
	};
	char json[256];
	knit_model_file file;
	bytes b;

	begin();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
		snprintf(json, sizeof json, "{\"w\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}", cases[i].dtype,
		         cases[i].bytes * 3);
		ck_assert_int_eq(open_json(json, (size_t)cases[i].bytes * 3, &file, &b), cases[i].status);
		if (cases[i].used) {
			ck_assert_uint_eq(file.store->count, 1);
			ck_assert_int_eq(file.store->entries[0].dtype, cases[i].used);
		} else if (cases[i].status == KNIT_OK) {
			ck_assert_uint_eq(file.store->count, 0);
			ck_assert_uint_eq(file.skipped_count, 1);
			ck_assert_str_eq(file.skipped[0].name, "w");
			ck_assert_str_eq(file.skipped[0].reason, cases[i].dtype);
		} else {
			ck_assert_ptr_nonnull(strstr(diag.text, "tensor 'w'"));
			ck_assert_ptr_nonnull(strstr(diag.text, cases[i].dtype));
		}
		knit__model_file_close(&file);
		bytes_clear(&b);
	}
	end();
}
END_TEST

START_TEST(names_are_unescaped) {
	knit_model_file file;
	bytes b;

	begin();
	ck_assert_int_eq(open_json("{\"a\\\"\\\\\\u00e9\\ud83e\\udd99\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, &file, &b),
	                 KNIT_OK);
	ck_assert_ptr_nonnull(knit__weights_get(file.store, "a\"\\\xc3\xa9\xf0\x9f\xa6\x99"));
	ck_assert_int_eq(file.store->entries[0].rank, 1); /* a scalar is one element */
	knit__model_file_close(&file);
	bytes_clear(&b);
	end();
}
END_TEST

/* The header's length decides where the data begins: often at an odd address. */
START_TEST(misaligned_tensors_are_copied) {
	const float values[] = {1, 2, 3};
	char json[128];

	begin();
	for (int pad = 0; pad < 4; ++pad) {
		knit_model_file file;
		bytes b = {0};

		snprintf(json, sizeof json, "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}%*s", pad, "");
		safetensors_header(&b, json);
		const bool aligned = b.count % 4 == 0;
		bytes_put(&b, values, sizeof values);
		ck_assert_int_eq(knit__model_open_memory(ctx, b.data, b.count, &file, &diag), KNIT_OK);
		const knit_weight_entry *w = knit__weights_get(file.store, "w");
		ck_assert_int_eq(w->owned, !aligned);
		ck_assert_uint_eq((uintptr_t)w->data % 4, 0);
		ck_assert_mem_eq(w->data, values, sizeof values);
		knit__model_file_close(&file);
		bytes_clear(&b);
	}
	end();
}
END_TEST

#define GOOD "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

START_TEST(what_a_header_may_not_say) {
	static const struct {
		const char *json;
		size_t data;
		const char *message;
	} cases[] = {
		{"{\"w\":1}", 0, "is no object"},
		{"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape is missing"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[true],\"data_offsets\":[0,4]}}", 4, "shape holds"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets is missing"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets is missing"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "data_offsets is missing"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "shape and dtype need"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "after a gap"},
		{"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "do not lie"},
		{"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "without a name"},
		{GOOD "}", 5, "the tensors end at data byte 4"},
		{GOOD "}{}", 4, "after the end"},
		{GOOD "}x", 4, "after the end"},
		{GOOD ",\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "second tensor"},
		{GOOD ",\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 4, "occurs twice"},
		{GOOD ",\"__metadata__\":{},\"__metadata__\":{}}", 4, "occurs twice"},
		{GOOD ",\"__metadata__\":[]}", 4, "__metadata__: is no object"},
		{GOOD ",\"__metadata__\":{\"a\":1}}", 4, "something else than strings"},
		{"{\"w\\u0000\":1}", 0, "NUL"},
		{"{\"w\\udc00\":1}", 0, "lone low"},
		{"{\"w\\ud800\\u0041\":1}", 0, "lone high"},
		{"{\"w\\ud800", 0, "lone high"},
		{"{\"w\\u12", 0, "hexadecimal"},
		{"{\"w\\x\":1}", 0, "unknown escape"},
		{"{\"w\\", 0, "unknown escape"},
		{"{\"w\n\":1}", 0, "control character"},
		{"{\"w", 0, "does not end"},
		{"{\"w\":[1,2", 0, "inside a bracket"},
		{"{}}", 0, "closes nothing"},
		{"{\"w\":01}", 0, "begins with 0"},
		{"{\"w\":1.5}", 0, "no plain integer"},
		{"{\"w\":1e5}", 0, "no plain integer"},
		{"{\"w\":-1}", 0, "sign"},
		{"{\"w\":\"\xff\"}", 0, "not UTF-8"},
		{"{\"w\"}", 0, "no valid JSON"},
		{"{\"w\":nul}", 0, "no valid JSON"},
		{"{1:2}", 0, "no valid JSON"},
	};

	begin();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
		ck_assert_int_eq(verdict(cases[i].json, cases[i].data), KNIT_ERR_FORMAT);
		ck_assert_msg(strstr(diag.text, cases[i].message) != NULL, "%s: %s", cases[i].json, diag.text);
		ck_assert_int_eq(strncmp(diag.text, "safetensors: byte ", 18), 0);
	}
	ck_assert_int_eq(verdict("{\"ab\":-1}", 0), KNIT_ERR_FORMAT);
	ck_assert_str_eq(diag.text, "safetensors: byte 14: a number has a sign");
	ck_assert_int_eq(verdict(GOOD ",\"extra\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4],\"other\":null}} \n", 4),
	                 KNIT_OK);
	end();
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

/* '{"w":{... "x": nested }}' with `depth` brackets at the deepest place. */
static knit_status with_depth(int depth) {
	char json[256] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":";

	for (int i = 2; i < depth; ++i)
		strcat(json, "[");
	for (int i = 2; i < depth; ++i)
		strcat(json, "]");
	strcat(json, "}}");
	return verdict(json, 4);
}

static knit_status with_values(uint64_t values) {
	static const char head[] = "{\"__metadata__\":{},\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":[0";
	const uint64_t in_head = 17; /* keys count too */
	bytes b = {0};

	bytes_text(&b, head);
	for (uint64_t i = in_head; i < values; ++i)
		bytes_text(&b, ",0");
	bytes_text(&b, "]}}");
	bytes_u8(&b, 0);
	const knit_status status = verdict((const char *)b.data, 4);
	bytes_clear(&b);
	return status;
}

static knit_status with_name_bytes(size_t count) {
	char json[512] = "{\"";

	memset(json + 2, 'n', count);
	strcat(json, "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
	return verdict(json, 4);
}

static knit_status with_key_bytes(size_t count) {
	bytes b = {0};

	bytes_text(&b, "{\"__metadata__\":{\"");
	bytes_fill(&b, 'k', count);
	bytes_text(&b, "\":\"v\"}}");
	bytes_u8(&b, 0);
	const knit_status status = verdict((const char *)b.data, 0);
	bytes_clear(&b);
	return status;
}

static knit_status with_tensors(uint64_t count) {
	bytes b = {0};
	char one[96];

	bytes_text(&b, "{\"__metadata__\":{}");
	for (uint64_t i = 0; i < count; ++i) {
		snprintf(one, sizeof one, ",\"%llu\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}", (unsigned long long)i);
		bytes_text(&b, one);
	}
	bytes_text(&b, "}");
	bytes_u8(&b, 0);
	const knit_status status = verdict((const char *)b.data, 0);
	bytes_clear(&b);
	return status;
}

static knit_status with_header_bytes(uint64_t count) {
	knit_model_file file;
	uint8_t *data = malloc(8 + count);

	ck_assert_ptr_nonnull(data);
	memcpy(data, &count, 8);
	memset(data + 8, ' ', count);
	memcpy(data + 8, "{}", 2);
	diag = (knit_diag){0};
	const knit_status status = knit__model_open_memory(ctx, data, 8 + count, &file, &diag);
	knit__model_file_close(&file);
	free(data);
	return status;
}

START_TEST(limits_hold_to_the_last_one) {
	begin();
	ck_assert_int_eq(with_depth(KNIT_LIMIT_JSON_DEPTH), KNIT_OK);
	ck_assert_int_eq(with_depth(KNIT_LIMIT_JSON_DEPTH + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_values(KNIT_LIMIT_JSON_VALUES), KNIT_OK);
	ck_assert_int_eq(with_values(KNIT_LIMIT_JSON_VALUES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_name_bytes(KNIT_LIMIT_NAME_BYTES), KNIT_OK);
	ck_assert_int_eq(with_name_bytes(KNIT_LIMIT_NAME_BYTES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_key_bytes(KNIT_LIMIT_KEY_BYTES), KNIT_OK);
	ck_assert_int_eq(with_key_bytes(KNIT_LIMIT_KEY_BYTES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_tensors(KNIT_LIMIT_TENSORS), KNIT_OK);
	ck_assert_int_eq(with_tensors(KNIT_LIMIT_TENSORS + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(with_header_bytes(KNIT_LIMIT_JSON_BYTES), KNIT_OK);
	ck_assert_int_eq(with_header_bytes(KNIT_LIMIT_JSON_BYTES + 1), KNIT_ERR_LIMIT);
	ck_assert_int_eq(verdict("{\"w\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,4],\"data_offsets\":[0,4]}}", 4), KNIT_OK); /* left out */
	ck_assert_int_eq(verdict("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1],\"data_offsets\":[0,4]}}", 4), KNIT_OK);
	ck_assert_int_eq(verdict("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4), KNIT_ERR_LIMIT);
	ck_assert_int_eq(verdict("{\"w\":{\"dtype\":\"F32\",\"shape\":[0,9007199254740991],\"data_offsets\":[0,0]}}", 0), KNIT_OK);
	ck_assert_int_eq(verdict("{\"w\":{\"dtype\":\"F32\",\"shape\":[0,9007199254740992],\"data_offsets\":[0,0]}}", 0),
	                 KNIT_ERR_LIMIT);
	end();
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
	knit_status status = KNIT_ERR_MEMORY;
	knit_model_file file;
	bytes b = {0};

	for (uint64_t fail_at = 1; status != KNIT_OK; ++fail_at) {
		ck_assert_uint_lt(fail_at, 200);
		begin();
		track.fail_at = track.count + fail_at;
		status = open_json(GOOD ",\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},\"__metadata__\":{\"a\":\"b\"}}", 8, &file, &b);
		track.fail_at = 0;
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_int_eq(diag.status, status);
		knit__model_file_close(&file);
		bytes_clear(&b);
		end();
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		a_hugging_face_file_holds_the_same_weights, a_lora_file_with_its_metadata, types_are_used_skipped_or_refused,
		names_are_unescaped,                        misaligned_tensors_are_copied, what_a_header_may_not_say,
		limits_hold_to_the_last_one,                every_failed_allocation_is_survived,
	};

	return suite_run("safetensors", tests, sizeof tests / sizeof tests[0]);
}
