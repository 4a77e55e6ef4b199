/* Owns the opened model file: its weight store and its metadata, whatever its format. Knows no architecture: what the
 * keys and names mean is for models/ and text/. */
#ifndef KNIT_FORMATS_MODEL_FILE_H
#define KNIT_FORMATS_MODEL_FILE_H

#include "../../graph/weights.h"
#include "metadata.h"

typedef enum knit_model_format {
	KNIT_MODEL_GGUF = 1,
	KNIT_MODEL_SAFETENSORS,
	KNIT_MODEL_LLAMA2C,
} knit_model_format;

/* A tensor that the file holds and the store does not: of a type that is no weight (u8, i64, bool ...), or empty. */
typedef struct knit_model_skipped {
	char *name;
	const char *reason; /* "U8", "empty" */
} knit_model_skipped;

typedef struct knit_model_file {
	knit_context *ctx;      /* retained */
	knit_weights *store;    /* owns the mapping; keep it with knit__weights_retain beyond the file's close */
	knit_metadata metadata; /* GGUF keys (made up for llama2.c); for safetensors its __metadata__ strings */
	knit_model_format format;
	uint32_t version;    /* GGUF 2 or 3, llama2.c 0 or 1, safetensors 0 */
	uint64_t file_bytes;
	knit_model_skipped *skipped;
	uint32_t skipped_count, skipped_cap;
} knit_model_file;

/* Opens a file by its content. On failure *out is cleared. Errors as of knit_weights_open; the text names the format,
 * the byte offset and the field, not the path. */
knit_status knit__model_open(knit_context *ctx, const char *path, knit_model_file *out, knit_diag *diag);
/* The same over bytes that the caller keeps alive and unchanged, longer than the store lives. */
knit_status knit__model_open_memory(knit_context *ctx, const void *data, uint64_t bytes, knit_model_file *out,
                                    knit_diag *diag);
/* Closing a cleared file does nothing. */
void knit__model_file_close(knit_model_file *file);
/* "gguf", "safetensors", "llama2.c". */
const char *knit__model_format_name(knit_model_format format);

/* ---- for the readers (gguf.c, safetensors.c, llama2c.c): fill the store and metadata of `file` from bytes ---------- */

/* Adds a tensor in place, or as a copy where the bytes are not aligned for their type. */
knit_status knit__model_file_add(knit_model_file *file, const char *name, knit_dtype dtype, int rank,
                                 const int64_t *dims, const void *data, uint64_t bytes, knit_diag *diag);
knit_status knit__model_file_skip(knit_model_file *file, const char *name, const char *reason, knit_diag *diag);

#endif
