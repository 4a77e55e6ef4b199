/* Owns the choice between the kinds of tokenizer, what encoding puts before a text, and what decoding takes off again. */
#include "tokenizer.h"

#include "../formats/limits.h"
#include "../formats/reader.h"
#include "spm.h"

#include <string.h>

typedef enum tokenizer_kind { KIND_SPM, KIND_LLAMA2C, KIND_BYTES } tokenizer_kind;

struct knit_tokenizer {
	knit_context *ctx; /* retained */
	tokenizer_kind kind;
	knit_vocab vocab;
	bool space_prefix; /* encoding puts a space before the text */
	bool wants_bos;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static knit_tokenizer *new_tokenizer(knit_context *ctx, tokenizer_kind kind) {
	knit_tokenizer *t = knit__alloc_zero(&ctx->a, sizeof *t);

	if (!t)
		return NULL;
	t->ctx = knit__context_retain(ctx);
	t->kind = kind;
	return t;
}

void knit__tokenizer_destroy(knit_tokenizer *t) {
	if (!t)
		return;

	knit_context *ctx = t->ctx;
	knit__vocab_clear(&t->vocab);
	knit__free(&ctx->a, t, sizeof *t);
	knit__context_release(ctx);
}

static knit_status find_kind(const knit_metadata *m, tokenizer_kind *kind, knit_diag *diag) {
	char shown[KNIT_PRINTABLE_BYTES];
	const char *model = NULL;
	const knit_status status = knit__metadata_string(m, "tokenizer.ggml.model", &model, diag);

	if (status == KNIT_ERR_NOT_FOUND || (status == KNIT_OK && strcmp(model, "none") == 0))
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "the model file carries no tokenizer");
	if (status != KNIT_OK)
		return status;
	if (strcmp(model, "llama") == 0) {
		*kind = KIND_SPM;
		return KNIT_OK;
	}
	if (strcmp(model, "bytes") == 0) {
		*kind = KIND_BYTES;
		return KNIT_OK;
	}
	return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
	                  "tokenizer '%s' is not supported (knit has 'llama', SentencePiece BPE, and 'bytes')",
	                  knit__printable(shown, model, strlen(model)));
}

static knit_status read_flag(const knit_metadata *m, const char *key, bool missing, bool *out, knit_diag *diag) {
	const knit_status status = knit__metadata_bool(m, key, out, diag);

	if (status == KNIT_ERR_NOT_FOUND)
		*out = missing;
	return status == KNIT_ERR_NOT_FOUND ? KNIT_OK : status;
}

static knit_status fill(knit_tokenizer *t, const knit_metadata *m, knit_diag *diag) {
	const knit_allocator *a = &t->ctx->a;
	const bool spm = t->kind == KIND_SPM;
	knit_status status = spm ? knit__vocab_from_metadata(&t->vocab, a, m, diag) : knit__vocab_bytes(&t->vocab, a, diag);

	if (status == KNIT_OK)
		status = read_flag(m, "tokenizer.ggml.add_space_prefix", spm, &t->space_prefix, diag);
	if (status == KNIT_OK)
		status = read_flag(m, "tokenizer.ggml.add_bos_token", spm, &t->wants_bos, diag);
	t->space_prefix = t->space_prefix && spm;
	t->wants_bos = t->wants_bos && t->vocab.bos >= 0;
	return status;
}

knit_status knit__tokenizer_create(knit_context *ctx, const knit_metadata *m, knit_tokenizer **out, knit_diag *diag) {
	tokenizer_kind kind = KIND_SPM;
	knit_status status = find_kind(m, &kind, diag);

	*out = NULL;
	if (status != KNIT_OK)
		return status;
	knit_tokenizer *t = new_tokenizer(ctx, kind);
	if (!t)
		return knit__fail_memory(diag, "a tokenizer", sizeof *t);
	status = fill(t, m, diag);
	if (status != KNIT_OK) {
		knit__tokenizer_destroy(t);
		return status;
	}
	*out = t;
	return KNIT_OK;
}

knit_status knit__tokenizer_open_llama2c_memory(knit_context *ctx, const void *data, uint64_t bytes,
                                                knit_tokenizer **out, knit_diag *diag) {
	knit_tokenizer *t = new_tokenizer(ctx, KIND_LLAMA2C);

	*out = NULL;
	if (!t)
		return knit__fail_memory(diag, "a tokenizer", sizeof *t);
	const knit_status status = knit__vocab_from_llama2c(&t->vocab, &ctx->a, data, bytes, diag);
	if (status != KNIT_OK) {
		knit__tokenizer_destroy(t);
		return status;
	}
	t->space_prefix = true;
	t->wants_bos = t->vocab.bos >= 0;
	*out = t;
	return KNIT_OK;
}

knit_status knit__tokenizer_open_llama2c(knit_context *ctx, const char *path, knit_tokenizer **out, knit_diag *diag) {
	knit_mapping mapping;
	knit_status status = knit__mapping_open(path, &mapping, diag);

	*out = NULL;
	if (status != KNIT_OK)
		return status;
	/* The vocabulary copies what it needs. */
	status = knit__tokenizer_open_llama2c_memory(ctx, mapping.data, mapping.bytes, out, diag);
	knit__mapping_close((void *)(uintptr_t)mapping.data, mapping.bytes);
	return status;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

const char *knit__tokenizer_kind(const knit_tokenizer *t) {
	static const char *const names[] = {[KIND_SPM] = "llama", [KIND_LLAMA2C] = "llama2.c", [KIND_BYTES] = "bytes"};

	return names[t->kind];
}

uint32_t knit__tokenizer_vocab_size(const knit_tokenizer *t) { return t->vocab.count; }
int32_t knit__tokenizer_bos(const knit_tokenizer *t) { return t->vocab.bos; }
int32_t knit__tokenizer_eos(const knit_tokenizer *t) { return t->vocab.eos; }
bool knit__tokenizer_wants_bos(const knit_tokenizer *t) { return t->wants_bos; }

void knit__token_list_clear(knit_token_list *list) {
	if (list->a)
		knit__free(list->a, list->ids, list->cap * sizeof *list->ids);
	*list = (knit_token_list){.a = list->a};
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static knit_status encode_bytes(const char *text, uint32_t bytes, knit_token_list *list, knit_diag *diag) {
	const uint64_t need = (uint64_t)list->count + bytes;

	if (need > UINT32_MAX || !knit__grow(list->a, (void **)&list->ids, &list->cap, (uint32_t)need, sizeof *list->ids))
		return knit__fail_memory(diag, "the token list", need * sizeof *list->ids);
	for (uint32_t i = 0; i < bytes; ++i)
		list->ids[list->count++] = (uint8_t)text[i];
	return KNIT_OK;
}

/* Writes the text as the vocabulary has it: with the space before it and, as SentencePiece does, U+2581 as a space. */
static uint32_t normalise(const knit_tokenizer *t, const char *text, size_t bytes, char *out) {
	uint32_t n = 0;

	if (t->space_prefix)
		out[n++] = ' ';
	for (size_t i = 0; i < bytes;) {
		if (t->kind == KIND_SPM && bytes - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0) {
			out[n++] = ' ';
			i += 3;
		} else {
			out[n++] = text[i++];
		}
	}
	return n;
}

knit_status knit__tokenizer_encode(const knit_tokenizer *t, const char *text, size_t bytes, knit_token_list *list,
                                   knit_diag *diag) {
	const knit_allocator *a = &t->ctx->a;

	if (bytes > KNIT_LIMIT_TEXT_BYTES)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "tokenizer: a text of %zu bytes, the limit is %llu", bytes,
		                  (unsigned long long)KNIT_LIMIT_TEXT_BYTES);
	if (bytes == 0)
		return KNIT_OK;
	if (t->kind == KIND_BYTES)
		return encode_bytes(text, (uint32_t)bytes, list, diag);

	char *normal = knit__alloc(a, bytes + 1);
	if (!normal)
		return knit__fail_memory(diag, "the normalised text", bytes + 1);
	const knit_status status = knit__spm_encode(&t->vocab, a, normal, normalise(t, text, bytes, normal), list, diag);
	knit__free(a, normal, bytes + 1);
	return status;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

knit_status knit__tokenizer_piece(const knit_tokenizer *t, int32_t previous, int32_t id, const char **text,
                                  size_t *bytes) {
	const knit_vocab *v = &t->vocab;

	*text = "";
	*bytes = 0;
	if (id < 0 || (uint32_t)id >= v->count)
		return KNIT_ERR_ARGUMENT;
	if (v->type[id] == KNIT_PIECE_CONTROL || id == v->bos || id == v->eos)
		return KNIT_OK;

	*text = v->text + v->begin[id];
	*bytes = v->begin[id + 1] - v->begin[id];
	/* A byte token stands for a byte of the text: even a space is no prefix then. */
	if (t->space_prefix && (previous < 0 || previous == v->bos) && *bytes > 0 && **text == ' ' &&
	    v->type[id] != KNIT_PIECE_BYTE) {
		++*text;
		--*bytes;
	}
	return KNIT_OK;
}

knit_status knit__tokenizer_decode(const knit_tokenizer *t, const int32_t *ids, size_t count, char *out, size_t cap,
                                   size_t *bytes) {
	int32_t previous = -1;

	*bytes = 0;
	for (size_t i = 0; i < count; ++i) {
		const char *piece;
		size_t n;
		const knit_status status = knit__tokenizer_piece(t, previous, ids[i], &piece, &n);

		if (status != KNIT_OK)
			return status;
		if (*bytes < cap)
			memcpy(out + *bytes, piece, n < cap - *bytes ? n : cap - *bytes);
		*bytes += n;
		previous = ids[i];
	}
	return KNIT_OK;
}
