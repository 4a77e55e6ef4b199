/* Owns the pieces of a vocabulary and the search by bytes. Everything that a file says about them is checked here. */
#include "vocab.h"

#include "../formats/limits.h"
#include "../formats/reader.h"

#include <math.h>
#include <string.h>

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581: a space in SentencePiece's pieces */

void knit__vocab_clear(knit_vocab *v) {
	const knit_allocator *a = v->a;

	if (a) {
		knit__free(a, v->text, v->text_bytes);
		knit__free(a, v->begin, ((size_t)v->count + 1) * sizeof *v->begin);
		knit__free(a, v->score, v->count * sizeof *v->score);
		knit__free(a, v->type, v->count * sizeof *v->type);
		knit__free(a, v->table, v->table_cap * sizeof *v->table);
	}
	*v = (knit_vocab){0};
}

static knit_status make(knit_vocab *v, const knit_allocator *a, uint64_t count, size_t text_bytes, knit_diag *diag) {
	*v = (knit_vocab){.a = a, .bos = -1, .eos = -1, .unknown = -1};
	memset(v->byte_id, 0xff, sizeof v->byte_id);
	if (count == 0)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: the vocabulary is empty");
	if (count > KNIT_LIMIT_VOCAB)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "tokenizer: %llu tokens, the limit is %llu", (unsigned long long)count,
		                  (unsigned long long)KNIT_LIMIT_VOCAB);

	v->count = (uint32_t)count;
	v->text_bytes = text_bytes;
	for (v->table_cap = 64; v->table_cap < v->count * 2; v->table_cap *= 2)
		;
	v->text = knit__alloc(a, text_bytes);
	v->begin = knit__alloc_array(a, (size_t)count + 1, sizeof *v->begin);
	v->score = knit__alloc_array(a, (size_t)count, sizeof *v->score);
	v->type = knit__alloc_array(a, (size_t)count, sizeof *v->type);
	v->table = knit__alloc_array(a, v->table_cap, sizeof *v->table);
	if (!v->text || !v->begin || !v->score || !v->type || !v->table)
		return knit__fail_memory(diag, "the vocabulary", text_bytes + count * 16);
	return KNIT_OK;
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

static uint32_t *slot_of(const knit_vocab *v, const char *text, size_t bytes) {
	uint32_t i = (uint32_t)knit__hash(KNIT__HASH_SEED, text, bytes) & (v->table_cap - 1);

	for (; v->table[i]; i = (i + 1) & (v->table_cap - 1)) {
		const uint32_t id = v->table[i] - 1;

		if (v->begin[id + 1] - v->begin[id] == bytes && memcmp(v->text + v->begin[id], text, bytes) == 0)
			break;
	}
	return &v->table[i];
}

int32_t knit__vocab_find(const knit_vocab *v, const char *text, size_t bytes) {
	return bytes == 0 || bytes > v->longest ? -1 : (int32_t)*slot_of(v, text, bytes) - 1;
}

/* Text can become a normal piece only: who writes "<s>" or "<0x0A>" gets these characters, not the token. Of equal pieces
 * the first is found. */
static void insert(knit_vocab *v, uint32_t id) {
	const size_t bytes = v->begin[id + 1] - v->begin[id];
	const int32_t signed_id = (int32_t)id;

	if (bytes == 0 || (v->type[id] != KNIT_PIECE_NORMAL && v->type[id] != KNIT_PIECE_USER_DEFINED) ||
	    signed_id == v->bos || signed_id == v->eos || signed_id == v->unknown)
		return;

	uint32_t *slot = slot_of(v, v->text + v->begin[id], bytes);
	if (*slot == 0)
		*slot = id + 1;
	if (bytes > v->longest)
		v->longest = (uint32_t)bytes;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static int hex_digit(char c) {
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "<0x0A>", or -1. */
static int byte_of(const char *text, uint64_t bytes) {
	if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
		return -1;

	const int high = hex_digit(text[3]), low = hex_digit(text[4]);
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Copies the bytes that piece `id` stands for behind those before it. Returns false for a byte token without a byte. */
static bool put(knit_vocab *v, uint32_t id, const char *text, uint64_t bytes, bool marks_are_spaces) {
	char *to = v->text + v->begin[id];
	const char *const end = text + bytes;

	if (v->type[id] == KNIT_PIECE_BYTE) {
		const int byte = byte_of(text, bytes);

		if (byte < 0)
			return false;
		if (v->byte_id[byte] < 0)
			v->byte_id[byte] = (int32_t)id;
		*to++ = (char)byte;
		text = end;
	}
	while (text < end) {
		if (marks_are_spaces && end - text >= 3 && memcmp(text, space_mark, 3) == 0) {
			*to++ = ' ';
			text += 3;
		} else {
			/* In such a vocabulary a plain space is a character that no text can hold. */
			if (marks_are_spaces && *text == ' ' && v->type[id] == KNIT_PIECE_NORMAL)
				v->type[id] = KNIT_PIECE_UNUSED;
			*to++ = *text++;
		}
	}
	v->begin[id + 1] = (size_t)(to - v->text);
	return true;
}

/* ---- from metadata ----------------------------------------------------------------------------------------------- */

/* An array of `count` elements, or with count 0 of any length. */
static knit_status find_array(const knit_metadata *m, const char *key, uint64_t count, const knit_metadata_entry **out,
                              knit_diag *diag) {
	const knit_status status = knit__metadata_array(m, key, out, diag);

	if (status == KNIT_OK && count && (*out)->count != count)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: %s has %llu elements for %llu tokens", key,
		                  (unsigned long long)(*out)->count, (unsigned long long)count);
	return status;
}

/* A missing key means `missing`, if the vocabulary has that id. Writers put 2^32 - 1 for "none". */
static knit_status special_id(const knit_vocab *v, const knit_metadata *m, const char *key, int32_t missing, int32_t *id,
                              knit_diag *diag) {
	int64_t value = missing < (int64_t)v->count ? missing : -1;
	const knit_status status = knit__metadata_i64(m, key, &value, diag);

	if (status != KNIT_OK && status != KNIT_ERR_NOT_FOUND)
		return status;
	if (value == -1 || value == UINT32_MAX) {
		*id = -1;
		return KNIT_OK;
	}
	if (value < 0 || value >= (int64_t)v->count)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: %s is %lld, the vocabulary has %u tokens", key,
		                  (long long)value, v->count);
	*id = (int32_t)value;
	return KNIT_OK;
}

static knit_status fill(knit_vocab *v, const knit_metadata_entry *tokens, const knit_metadata_entry *scores,
                        const knit_metadata_entry *types, knit_diag *diag) {
	for (uint32_t id = 0; id < v->count; ++id) {
		knit_metadata_text piece = {"", 0};
		double score = 0.0;
		int64_t type = 0;

		if (!knit__metadata_string_at(tokens, id, &piece))
			return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: tokenizer.ggml.tokens needs strings");
		if (piece.bytes > KNIT_LIMIT_TOKEN_BYTES)
			return knit__fail(diag, KNIT_ERR_LIMIT, 0, "tokenizer: token %u has %llu bytes, the limit is %llu", id,
			                  (unsigned long long)piece.bytes, (unsigned long long)KNIT_LIMIT_TOKEN_BYTES);
		if (!knit__metadata_f64_at(scores, id, &score) || isnan(score))
			return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: the score of token %u is no number", id);
		if (types && (!knit__metadata_i64_at(types, id, &type) || type < 0 || type > KNIT_PIECE_BYTE))
			return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: unknown type of token %u", id);
		if (!types)
			type = byte_of(piece.text, piece.bytes) >= 0 ? KNIT_PIECE_BYTE : KNIT_PIECE_NORMAL;
		v->score[id] = (float)score;
		v->type[id] = (uint8_t)type;
		if (!put(v, id, piece.text, piece.bytes, true))
			return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: byte token %u does not look like <0x0A>", id);
	}
	return KNIT_OK;
}

static knit_status read_metadata(knit_vocab *v, const knit_allocator *a, const knit_metadata *m, knit_diag *diag) {
	const knit_metadata_entry *tokens = NULL, *scores = NULL, *types = NULL;
	knit_status status = find_array(m, "tokenizer.ggml.tokens", 0, &tokens, diag);

	if (status != KNIT_OK)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: tokenizer.ggml.tokens is missing");
	status = make(v, a, tokens->count, tokens->data_bytes, diag);
	if (status != KNIT_OK)
		return status;
	status = find_array(m, "tokenizer.ggml.scores", tokens->count, &scores, diag);
	if (status != KNIT_OK)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "tokenizer: tokenizer.ggml.scores is missing");
	status = find_array(m, "tokenizer.ggml.token_type", tokens->count, &types, diag);
	if (status != KNIT_OK && status != KNIT_ERR_NOT_FOUND)
		return status;

	status = fill(v, tokens, scores, types, diag);
	if (status == KNIT_OK)
		status = special_id(v, m, "tokenizer.ggml.bos_token_id", 1, &v->bos, diag);
	if (status == KNIT_OK)
		status = special_id(v, m, "tokenizer.ggml.eos_token_id", 2, &v->eos, diag);
	if (status == KNIT_OK)
		status = special_id(v, m, "tokenizer.ggml.unknown_token_id", 0, &v->unknown, diag);
	for (uint32_t id = 0; id < v->count && status == KNIT_OK; ++id)
		insert(v, id);
	return status;
}

knit_status knit__vocab_from_metadata(knit_vocab *v, const knit_allocator *a, const knit_metadata *m, knit_diag *diag) {
	*v = (knit_vocab){0};
	const knit_status status = read_metadata(v, a, m, diag);

	if (status != KNIT_OK)
		knit__vocab_clear(v);
	return status;
}

/* ---- from a llama2.c tokenizer file ------------------------------------------------------------------------------ */

typedef struct llama2c_piece {
	const char *text;
	uint32_t bytes;
	float score;
} llama2c_piece;

static knit_status read_piece(knit_reader *r, uint64_t id, uint32_t longest, llama2c_piece *out) {
	knit__reader_subject(r, "token %llu", (unsigned long long)id);
	out->score = knit__reader_f32(r, "score");
	if (r->status == KNIT_OK && isnan(out->score))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "the score is NaN");
	out->bytes = knit__reader_u32(r, "length");
	if (r->status == KNIT_OK && out->bytes > longest)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "a length of %u, the file's largest is %u", out->bytes, longest);
	out->text = (const char *)knit__reader_take(r, out->bytes, "text");
	return r->status;
}

/* The file does not say how many tokens it has: it is walked once to count them, once to take them. */
static knit_status read_llama2c(knit_vocab *v, const knit_allocator *a, knit_reader *r) {
	const uint32_t longest = knit__reader_u32(r, "max_token_length");
	const uint64_t begin = r->at;
	uint64_t count = 0;
	size_t text_bytes = 0;
	llama2c_piece p;

	if (r->status == KNIT_OK && longest > KNIT_LIMIT_TOKEN_BYTES)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "max_token_length is %u, the limit is %llu", longest,
		                         (unsigned long long)KNIT_LIMIT_TOKEN_BYTES);
	while (r->status == KNIT_OK && knit__reader_remaining(r) > 0) {
		if (read_piece(r, count++, longest, &p) == KNIT_OK)
			text_bytes += p.bytes;
	}
	if (r->status != KNIT_OK)
		return r->status;

	const knit_status status = make(v, a, count, text_bytes, r->diag);
	if (status != KNIT_OK)
		return status;
	v->unknown = 0; /* the first three are fixed: unknown, BOS, EOS */
	v->bos = v->count > 1 ? 1 : -1;
	v->eos = v->count > 2 ? 2 : -1;
	r->at = begin;
	for (uint32_t id = 0; id < v->count; ++id) {
		if (read_piece(r, id, longest, &p) != KNIT_OK)
			return r->status;
		v->score[id] = p.score;
		if (id < 3)
			v->type[id] = id == 0 ? KNIT_PIECE_UNKNOWN : KNIT_PIECE_CONTROL;
		else
			v->type[id] = byte_of(p.text, p.bytes) >= 0 ? KNIT_PIECE_BYTE : KNIT_PIECE_NORMAL;
		put(v, id, p.text, p.bytes, false);
		insert(v, id);
	}
	return KNIT_OK;
}

knit_status knit__vocab_from_llama2c(knit_vocab *v, const knit_allocator *a, const void *data, uint64_t bytes,
                                     knit_diag *diag) {
	knit_reader r;

	*v = (knit_vocab){0};
	knit__reader_init(&r, "llama2.c tokenizer", data, bytes, diag);
	const knit_status status = read_llama2c(v, a, &r);
	if (status != KNIT_OK)
		knit__vocab_clear(v);
	return status;
}

/* ---- plain bytes ------------------------------------------------------------------------------------------------- */

knit_status knit__vocab_bytes(knit_vocab *v, const knit_allocator *a, knit_diag *diag) {
	const knit_status status = make(v, a, 256, 256, diag);

	if (status != KNIT_OK) {
		knit__vocab_clear(v);
		return status;
	}
	for (uint32_t id = 0; id < 256; ++id) {
		v->text[id] = (char)id;
		v->begin[id + 1] = id + 1;
		v->type[id] = KNIT_PIECE_BYTE;
		v->byte_id[id] = (int32_t)id;
	}
	return KNIT_OK;
}
