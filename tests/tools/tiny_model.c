/* The tiny decoder; see tiny_model.h. */
#include "tiny_model.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

tiny_model tiny;

void tiny_u32(const char *key, uint32_t value) {
	ck_assert_int_eq(knit__metadata_add_u32(&tiny.keys, key, value, NULL), KNIT_OK);
}

void tiny_f32(const char *key, float value) {
	ck_assert_int_eq(knit__metadata_add_f32(&tiny.keys, key, value, NULL), KNIT_OK);
}

void tiny_text(const char *key, const char *text) {
	ck_assert_int_eq(knit__metadata_add_string(&tiny.keys, key, text, strlen(text), NULL), KNIT_OK);
}

void tiny_visits(const uint32_t *visits, uint64_t count) {
	ck_assert_int_eq(knit__metadata_add(&tiny.keys, "knit.visits", KNIT_METADATA_U32, true, count, visits, NULL),
					 KNIT_OK);
}

/* Keys of the model, without `skip`, with `replace` at `value`. */
void tiny_keys(const char *skip, const char *replace, uint32_t value) {
	static const struct {
		const char *key;
		uint32_t value;
	} counts[] = {
		{"knit.embedding_length", DIM},       {"knit.block_count", LAYERS},
		{"knit.feed_forward_length", FFN},    {"knit.context_length", CONTEXT},
		{"knit.attention.head_count", HEADS}, {"knit.attention.head_count_kv", KV_HEADS},
	};

	if (!skip || strcmp(skip, "general.architecture") != 0)
		tiny_text("general.architecture", "knit");
	if (!skip || strcmp(skip, "knit.attention.layer_norm_rms_epsilon") != 0)
		tiny_f32("knit.attention.layer_norm_rms_epsilon", 1e-5f);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
		if (skip && strcmp(skip, counts[i].key) == 0)
			continue;
		tiny_u32(counts[i].key, replace && strcmp(replace, counts[i].key) == 0 ? value : counts[i].value);
	}
}

static float noise(uint32_t *seed, float scale) {
	*seed = *seed * 1664525u + 1013904223u;
	return scale * ((float)(*seed >> 8) / 8388608.0f - 1.0f);
}

/* Random numbers that depend on the name alone. */
void tiny_tensor(const char *name, knit_dtype dtype, int64_t rows, int64_t columns, float scale) {
	const int64_t dims[] = {rows, columns};
	const size_t count = (size_t)(rows * (columns ? columns : 1));
	float data[VOCAB * DIM * 2];
	uint32_t seed = 1;
	knit_diag diag = {0};

	for (const char *c = name; *c; ++c)
		seed = seed * 31 + (uint32_t)*c;
	ck_assert_uint_le(count, sizeof data / sizeof *data);
	for (size_t i = 0; i < count; ++i)
		data[i] = columns ? noise(&seed, scale) : 1 + noise(&seed, 0.2f);
	ck_assert_msg(knit_weights_add(tiny.store, name, dtype, columns ? 2 : 1, dims, data,
								   count * (dtype == KNIT_F32 ? 4 : 2), &diag) == KNIT_OK,
				  "%s", diag.text);
}

/* Shapes of the seven projections, in the order of knit__part. */
static const int64_t shapes[][2] = {{DIM, DIM}, {DIM / 2, DIM}, {DIM / 2, DIM}, {DIM, DIM},
									{FFN, DIM}, {FFN, DIM},     {DIM, FFN}};

/* Tensors of `layers` layers, without `skip`; layer l has the numbers of layer from[l], if from is given. */
void tiny_tensors(const char *skip, uint32_t layers, const uint16_t *from) {
	char name[KNIT__NAME_BYTES];

	if (!skip || strcmp(skip, "token_embd.weight") != 0)
		tiny_tensor("token_embd.weight", KNIT_F32, VOCAB, DIM, 1);
	tiny_tensor("output_norm.weight", KNIT_F32, DIM, 0, 1);
	for (uint32_t l = 0; l < layers; ++l)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			const bool norm = p < KNIT__ATTN_Q;
			const int64_t *shape = norm ? NULL : shapes[p - KNIT__ATTN_Q];
			char source[KNIT__NAME_BYTES];
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, name);
			if (skip && strcmp(skip, name) == 0)
				continue;
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, from ? from[l] : l, source);
			if (strcmp(source, name) == 0) {
				tiny_tensor(name, KNIT_F32, norm ? DIM : shape[0], norm ? 0 : shape[1], 0.4f);
				continue;
			}
			knit_weight_info info; /* the twin's bytes under another name */
			ck_assert_int_eq(knit_weights_find(tiny.store, source, &info), KNIT_OK);
			ck_assert_int_eq(knit_weights_add(tiny.store, name, info.dtype, info.rank, info.dims, info.data,
											  (size_t)info.bytes, NULL),
							 KNIT_OK);
		}
}

void tiny_lora(uint32_t visits, const char *skip, int64_t rank, float b_scale) {
	char name[KNIT__NAME_BYTES];

	for (uint32_t v = 0; v < visits; ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			const int64_t *shape = shapes[p - KNIT__ATTN_Q];
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'a', name);
			if (!skip || strcmp(skip, name) != 0)
				tiny_tensor(name, KNIT_F32, rank, shape[1], 0.4f);
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'b', name);
			if (!skip || strcmp(skip, name) != 0)
				tiny_tensor(name, KNIT_F32, shape[0], rank, b_scale);
		}
}

void tiny_open_in(knit_context *ctx) {
	tiny.ctx = ctx;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	knit__metadata_init(&tiny.keys, &tiny.ctx->a);
}

void tiny_open(void) {
	knit_context *ctx = NULL;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	tiny_open_in(ctx);
}

void tiny_close(void) {
	knit__metadata_clear(&tiny.keys);
	knit_weights_release(tiny.store);
	knit_context_destroy(tiny.ctx);
	memset(&tiny, 0, sizeof tiny);
}
