/* Owns the vocabulary: text to token ids and back. Three kinds: SentencePiece BPE by scores with byte fallback, the same
 * from a llama2.c tokenizer file, and plain bytes. Knows no model. Immutable once made; may be shared by threads. */
#ifndef KNIT_TEXT_TOKENIZER_H
#define KNIT_TEXT_TOKENIZER_H

#include "../formats/metadata.h"
#include "../../graph/context.h"

typedef struct knit_tokenizer knit_tokenizer;

/* From the keys tokenizer.ggml.* of a model file: "llama" (SentencePiece) or "bytes". NOT_FOUND if the file carries no
 * tokenizer, UNSUPPORTED for another kind (by name), FORMAT for a faulty vocabulary, LIMIT, MEMORY. */
knit_status knit__tokenizer_create(knit_context *ctx, const knit_metadata *m, knit_tokenizer **out, knit_diag *diag);
/* From a llama2.c tokenizer file (tok512.bin, tokenizer.bin). It does not say how many tokens it has: all to its end. */
knit_status knit__tokenizer_open_llama2c(knit_context *ctx, const char *path, knit_tokenizer **out, knit_diag *diag);
knit_status knit__tokenizer_open_llama2c_memory(knit_context *ctx, const void *data, uint64_t bytes,
                                                knit_tokenizer **out, knit_diag *diag);
void knit__tokenizer_destroy(knit_tokenizer *t);

/* "llama", "llama2.c" or "bytes". */
const char *knit__tokenizer_kind(const knit_tokenizer *t);
uint32_t knit__tokenizer_vocab_size(const knit_tokenizer *t);
/* -1 if there is none. */
int32_t knit__tokenizer_bos(const knit_tokenizer *t);
int32_t knit__tokenizer_eos(const knit_tokenizer *t);
/* Whether the model wants a BOS before a text. */
bool knit__tokenizer_wants_bos(const knit_tokenizer *t);

/* A growing list of ids. Set `a` (the context's allocator) and zero the rest; clear it at the end. */
typedef struct knit_token_list {
	const knit_allocator *a;
	int32_t *ids;
	uint32_t count, cap;
} knit_token_list;

void knit__token_list_clear(knit_token_list *list);

/* Appends the ids of a text, which may hold any bytes (what is no token becomes byte tokens). No BOS or EOS is added
 * and none is recognised in the text. LIMIT (KNIT_LIMIT_TEXT_BYTES), MEMORY, UNSUPPORTED if a character is in the vocabulary
 * neither as a token nor as bytes and there is no unknown token. On failure the list is as before. */
knit_status knit__tokenizer_encode(const knit_tokenizer *t, const char *text, size_t bytes, knit_token_list *list,
                                   knit_diag *diag);

/* The bytes that token `id` stands for, given the one before it (-1: none): the space that encoding puts before a text is
 * taken off at the start and after BOS. Control tokens are empty. The bytes may be a part of a UTF-8 character (see
 * utf8.h) and live as long as the tokenizer. ARGUMENT for an id outside the vocabulary. */
knit_status knit__tokenizer_piece(const knit_tokenizer *t, int32_t previous, int32_t id, const char **text,
                                  size_t *bytes);
/* A whole sequence: writes up to cap bytes (no terminator) and the number there is. */
knit_status knit__tokenizer_decode(const knit_tokenizer *t, const int32_t *ids, size_t count, char *out, size_t cap,
                                   size_t *bytes);

#endif
