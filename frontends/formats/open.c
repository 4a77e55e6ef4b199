/* Owns the opening of model files: which format the bytes are, and the life of an opened file. */
#include "model_file.h"

#include "gguf.h"
#include "llama2c.h"
#include "reader.h"
#include "safetensors.h"

#include <string.h>

static const struct {
	const char *name;
	bool (*matches)(const uint8_t *data, uint64_t bytes);
	knit_status (*read)(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag);
} formats[] = {
	[KNIT_MODEL_GGUF] = {"gguf", knit__gguf_matches, knit__gguf_read},
	[KNIT_MODEL_SAFETENSORS] = {"safetensors", knit__safetensors_matches, knit__safetensors_read},
	/* Last: v0 has no magic and is known only by plausible sizes. */
	[KNIT_MODEL_LLAMA2C] = {"llama2.c", knit__llama2c_matches, knit__llama2c_read},
};
#define FORMAT_COUNT (sizeof formats / sizeof formats[0])

const char *knit__model_format_name(knit_model_format format) {
	return format >= KNIT_MODEL_GGUF && (size_t)format < FORMAT_COUNT ? formats[format].name : "?";
}

void knit__model_file_close(knit_model_file *file) {
	if (!file || !file->ctx)
		return;

	const knit_allocator *a = &file->ctx->a;
	for (uint32_t i = 0; i < file->skipped_count; ++i)
		knit__free(a, file->skipped[i].name, strlen(file->skipped[i].name) + 1);
	knit__free(a, file->skipped, file->skipped_cap * sizeof *file->skipped);
	knit__metadata_clear(&file->metadata);
	knit_weights_release(file->store);
	knit__context_release(file->ctx);
	*file = (knit_model_file){0};
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

knit_status knit__model_file_add(knit_model_file *file, const char *name, knit_dtype dtype, int rank,
                                 const int64_t *dims, const void *data, uint64_t bytes, knit_diag *diag) {
	/* Blocks begin with an f16 scale. */
	const uintptr_t align = dtype == KNIT_F32 || dtype == KNIT_I32 ? 4 : 2;

	if ((uintptr_t)data % align == 0)
		return knit__weights_add_mapped(file->store, name, dtype, rank, dims, data, bytes, diag);
	return knit_weights_add(file->store, name, dtype, rank, dims, data, (size_t)bytes, diag);
}

knit_status knit__model_file_skip(knit_model_file *file, const char *name, const char *reason, knit_diag *diag) {
	const knit_allocator *a = &file->ctx->a;
	const size_t bytes = strlen(name) + 1;

	if (!knit__grow(a, (void **)&file->skipped, &file->skipped_cap, file->skipped_count + 1, sizeof *file->skipped))
		return knit__fail_memory(diag, "the list of skipped tensors", (file->skipped_count + 1) * sizeof *file->skipped);
	char *copy = knit__alloc(a, bytes);
	if (!copy)
		return knit__fail_memory(diag, "a tensor name", bytes);
	memcpy(copy, name, bytes);
	file->skipped[file->skipped_count++] = (knit_model_skipped){copy, reason};
	return KNIT_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static knit_status begin(knit_context *ctx, knit_model_file *out, knit_diag *diag) {
	*out = (knit_model_file){0};
	if (knit_weights_create(ctx, &out->store) != KNIT_OK)
		return knit__fail_memory(diag, "a weight store", sizeof *out->store);
	out->ctx = knit__context_retain(ctx);
	knit__metadata_init(&out->metadata, &out->ctx->a);
	return KNIT_OK;
}

static bool is_old_ggml(const uint8_t *data, uint64_t bytes) {
	static const char *const magics[] = {"lmgg", "fmgg", "tjgg", "algg"}; /* ggml, ggmf, ggjt, ggla; little-endian */

	for (size_t i = 0; bytes >= 4 && i < sizeof magics / sizeof magics[0]; ++i)
		if (memcmp(data, magics[i], 4) == 0)
			return true;
	return false;
}

static knit_status read_any(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag) {
	file->file_bytes = bytes;
	for (size_t i = KNIT_MODEL_GGUF; i < FORMAT_COUNT; ++i)
		if (formats[i].matches(data, bytes)) {
			file->format = (knit_model_format)i;
			return formats[i].read(file, data, bytes, diag);
		}
	if (is_old_ggml(data, bytes))
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0, "a ggml file from before GGUF: convert the model to GGUF");
	return knit__fail(diag, KNIT_ERR_FORMAT, 0,
	                  "byte 0: not a model file that knit reads (GGUF, safetensors or llama2.c; %llu bytes)",
	                  (unsigned long long)bytes);
}

knit_status knit__model_open_memory(knit_context *ctx, const void *data, uint64_t bytes, knit_model_file *out,
                                    knit_diag *diag) {
	knit_status status = begin(ctx, out, diag);

	if (status == KNIT_OK)
		status = read_any(out, data, bytes, diag);
	if (status != KNIT_OK)
		knit__model_file_close(out);
	return status;
}

knit_status knit__model_open(knit_context *ctx, const char *path, knit_model_file *out, knit_diag *diag) {
	knit_mapping mapping;
	knit_status status = begin(ctx, out, diag);

	if (status != KNIT_OK)
		return status;
	status = knit__mapping_open(path, &mapping, diag);
	if (status == KNIT_OK) {
		/* The store's from here on, so that one release frees both. */
		knit__weights_own_mapping(out->store, (void *)(uintptr_t)mapping.data, mapping.bytes, knit__mapping_close);
		out->store->forget = knit__mapping_forget;
		status = knit__weights_set_path(out->store, path);
		if (status != KNIT_OK)
			knit__fail_memory(diag, "the file's path", strlen(path) + 1);
		else
			status = read_any(out, mapping.data, mapping.bytes, diag);
	}
	if (status != KNIT_OK)
		knit__model_file_close(out);
	return status;
}

knit_status knit_weights_open(knit_context *ctx, const char *path, knit_weights **out, knit_diag *diag) {
	knit_model_file file;

	if (diag)
		*diag = (knit_diag){0};
	if (!out)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "weights_open needs a place for the result");
	*out = NULL;
	if (!ctx || !path)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "weights_open needs a context and a path");

	knit_status status = knit__model_open(ctx, path, &file, diag);
	if (status != KNIT_OK)
		return status;
	for (uint32_t i = 0; i < file.skipped_count; ++i)
		knit__log(ctx, KNIT_LOG_WARNING, "%s: tensor '%s' left out (%s)", path, file.skipped[i].name, file.skipped[i].reason);
	/* Now, so that knit_weights_at shows which tensors share their bytes. */
	status = knit__weights_seal(file.store);
	if (status == KNIT_OK)
		*out = knit__weights_retain(file.store);
	else
		knit__fail_memory(diag, "the search for equal tensors", file.store->count * sizeof(knit_weight_entry));
	knit__model_file_close(&file);
	return status;
}
