/* Owns the pieces of a vocabulary: their bytes, scores and kinds, and the search by bytes. Knows no algorithm. */
#ifndef KNIT_TEXT_VOCAB_H
#define KNIT_TEXT_VOCAB_H

#include "../formats/metadata.h"

/* Numbered as in tokenizer.ggml.token_type, which has the numbers of SentencePiece's model file. */
typedef enum knit_piece_type {
	KNIT_PIECE_UNDEFINED = 0,
	KNIT_PIECE_NORMAL,
	KNIT_PIECE_UNKNOWN,
	KNIT_PIECE_CONTROL,
	KNIT_PIECE_USER_DEFINED,
	KNIT_PIECE_UNUSED,
	KNIT_PIECE_BYTE,
} knit_piece_type;

typedef struct knit_vocab {
	const knit_allocator *a;
	uint32_t count;
	char *text;    /* the bytes that pieces stand for, one after the other: spaces as spaces, byte tokens as the byte */
	size_t *begin; /* count + 1 offsets into text */
	float *score;
	uint8_t *type;   /* knit_piece_type */
	uint32_t *table; /* piece bytes -> id + 1, of the pieces that text may become; open addressing */
	uint32_t table_cap;
	uint32_t longest; /* bytes of the longest piece in the table */
	size_t text_bytes;
	int32_t byte_id[256]; /* the token of each byte, -1 if there is none */
	int32_t bos, eos, unknown; /* -1 if there is none */
} knit_vocab;

/* The vocabulary of tokenizer.ggml.{tokens,scores,token_type,*_token_id}. On failure *v is cleared. */
knit_status knit__vocab_from_metadata(knit_vocab *v, const knit_allocator *a, const knit_metadata *m, knit_diag *diag);
/* The vocabulary of a llama2.c tokenizer file: largest length, then for each token score, length, bytes. */
knit_status knit__vocab_from_llama2c(knit_vocab *v, const knit_allocator *a, const void *data, uint64_t bytes,
                                     knit_diag *diag);
/* 256 pieces of one byte each. */
knit_status knit__vocab_bytes(knit_vocab *v, const knit_allocator *a, knit_diag *diag);
void knit__vocab_clear(knit_vocab *v);

/* The id of the piece with these bytes, -1 if there is none that text may become. */
int32_t knit__vocab_find(const knit_vocab *v, const char *text, size_t bytes);

#endif
