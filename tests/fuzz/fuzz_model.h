/* Owns what the fuzz targets of model files share: open the bytes, use everything that was made of them, close. */
#ifndef KNIT_FUZZ_MODEL_H
#define KNIT_FUZZ_MODEL_H

#include "../../frontends/formats/model_file.h"
#include "../../frontends/formats/nonfinite.h"
#include "../../frontends/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A result that the compiler cannot drop. */
static volatile uint64_t fuzz_sink;

static inline void fuzz_use_tokenizer(knit_context *ctx, const knit_tokenizer *t, const uint8_t *text, size_t bytes) {
	knit_token_list list = {.a = &ctx->a};
	char out[4096];
	size_t n;

	if (knit__tokenizer_encode(t, (const char *)text, bytes, &list, NULL) == KNIT_OK &&
	    knit__tokenizer_decode(t, list.ids, list.count, out, sizeof out, &n) != KNIT_OK)
		abort(); /* its own ids */
	knit__token_list_clear(&list);
}

static inline void fuzz_use_model(knit_context *ctx, const knit_model_file *file, const uint8_t *data, size_t bytes) {
	knit_tokenizer *t = NULL;
	knit_weight_info w;
	knit_nonfinite found;
	uint64_t u;
	double f;

	if (knit__weights_seal(file->store) != KNIT_OK)
		abort();
	for (size_t i = 0; knit_weights_at(file->store, i, &w) == KNIT_OK; ++i) {
		knit__weights_all_finite(&w, &found);
		fuzz_sink += found.nan + (w.bytes ? ((const uint8_t *)w.data)[w.bytes - 1] : 0);
	}
	for (uint32_t i = 0; i < file->metadata.count; ++i) {
		const knit_metadata_entry *e = &file->metadata.entries[i];
		knit_metadata_text text;

		if (knit__metadata_find(&file->metadata, e->key) != e)
			abort();
		for (uint64_t k = 0; k < e->count && k < 100; ++k)
			if (knit__metadata_u64_at(e, k, &u) || knit__metadata_f64_at(e, k, &f))
				fuzz_sink += u;
			else if (knit__metadata_string_at(e, k, &text))
				fuzz_sink += strlen(text.text) > text.bytes;
	}
	if (knit__tokenizer_create(ctx, &file->metadata, &t, NULL) == KNIT_OK)
		fuzz_use_tokenizer(ctx, t, data, bytes < 300 ? bytes : 300);
	knit__tokenizer_destroy(t);
}

/* Every status has its message, and a file that opens can be used. */
static inline void fuzz_model(const uint8_t *data, size_t bytes) {
	knit_context *ctx;
	knit_model_file file;
	knit_diag diag = {0};

	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		abort();
	const knit_status status = knit__model_open_memory(ctx, data, bytes, &file, &diag);
	if (status != diag.status || (status != KNIT_OK && diag.text[0] == 0))
		abort();
	if (status == KNIT_OK)
		fuzz_use_model(ctx, &file, data, bytes);
	knit__model_file_close(&file);
	knit_context_destroy(ctx);
}

#endif
