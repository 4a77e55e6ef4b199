/* Owns SentencePiece's BPE: a list of neighbouring pieces and a heap of the unions that the vocabulary has. Each merge
 * makes at most two new candidates, so n bytes take O(n log n). */
#include "spm.h"

#include "../formats/reader.h"
#include "utf8.h"

#define NONE UINT32_MAX

/* A piece of the text; merging takes the right one out of the list (bytes 0). */
typedef struct symbol {
	uint32_t begin, bytes, previous, next;
	int32_t id; /* -1: in no piece of the vocabulary */
} symbol;

/* The union of symbol `left` and its right neighbour, as they were when `bytes` was their sum. */
typedef struct candidate {
	float score;
	uint32_t left, bytes;
	int32_t id;
} candidate;

typedef struct merger {
	const knit_vocab *v;
	const knit_allocator *a;
	const char *text;
	symbol *symbols;
	uint32_t count, symbols_cap;
	candidate *heap;
	uint32_t heap_count, heap_cap;
	bool failed;
} merger;

/* ---- the heap: best score first, leftmost among equals ----------------------------------------------------------- */

static bool before(const candidate *a, const candidate *b) {
	return a->score != b->score ? a->score > b->score : a->left < b->left;
}

static void push(merger *m, candidate c) {
	if (!knit__grow(m->a, (void **)&m->heap, &m->heap_cap, m->heap_count + 1, sizeof *m->heap)) {
		m->failed = true;
		return;
	}

	uint32_t i = m->heap_count++;
	for (uint32_t up; i > 0 && before(&c, &m->heap[up = (i - 1) / 2]); i = up)
		m->heap[i] = m->heap[up];
	m->heap[i] = c;
}

static candidate pop(merger *m) {
	const candidate best = m->heap[0], last = m->heap[--m->heap_count];
	uint32_t i = 0;

	for (uint32_t down = 1; down < m->heap_count; down = 2 * i + 1) {
		if (down + 1 < m->heap_count && before(&m->heap[down + 1], &m->heap[down]))
			++down;
		if (!before(&m->heap[down], &last))
			break;
		m->heap[i] = m->heap[down];
		i = down;
	}
	m->heap[i] = last;
	return best;
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static void consider(merger *m, uint32_t left) {
	const uint32_t right = left == NONE ? NONE : m->symbols[left].next;

	if (right == NONE)
		return;
	const uint32_t bytes = m->symbols[left].bytes + m->symbols[right].bytes;
	const int32_t id = knit__vocab_find(m->v, m->text + m->symbols[left].begin, bytes);
	if (id >= 0)
		push(m, (candidate){m->v->score[id], left, bytes, id});
}

/* A character of well-formed UTF-8, else a byte. */
static uint32_t character_bytes(const char *text, uint32_t remaining) {
	const uint32_t n = knit__utf8_sequence_bytes((uint8_t)text[0]);

	return n >= 1 && n <= remaining && knit__utf8_valid(text, n, NULL) ? n : 1;
}

static bool split(merger *m, uint32_t bytes) {
	m->symbols_cap = bytes;
	m->symbols = knit__alloc_array(m->a, bytes, sizeof *m->symbols);
	if (!m->symbols)
		return false;
	for (uint32_t at = 0; at < bytes;) {
		const uint32_t n = character_bytes(m->text + at, bytes - at), i = m->count++;

		m->symbols[i] = (symbol){at, n, i == 0 ? NONE : i - 1, i + 1, knit__vocab_find(m->v, m->text + at, n)};
		at += n;
	}
	m->symbols[m->count - 1].next = NONE;
	return true;
}

static void merge_all(merger *m) {
	for (uint32_t i = 0; i < m->count && !m->failed; ++i)
		consider(m, i);
	while (m->heap_count > 0 && !m->failed) {
		const candidate c = pop(m);
		symbol *left = &m->symbols[c.left];

		/* Candidates are not taken back when one of their symbols changes: its sum of bytes then differs. */
		if (left->bytes == 0 || left->next == NONE || left->bytes + m->symbols[left->next].bytes != c.bytes)
			continue;

		symbol *right = &m->symbols[left->next];
		left->bytes = c.bytes;
		left->id = c.id;
		left->next = right->next;
		right->bytes = 0;
		if (left->next != NONE)
			m->symbols[left->next].previous = c.left;
		consider(m, left->previous);
		consider(m, c.left);
	}
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static bool append(knit_token_list *list, int32_t id) {
	if (!knit__grow(list->a, (void **)&list->ids, &list->cap, list->count + 1, sizeof *list->ids))
		return false;
	list->ids[list->count++] = id;
	return true;
}

static knit_status put_bytes(const merger *m, const symbol *s, knit_token_list *list, knit_diag *diag) {
	const unsigned char *p = (const unsigned char *)m->text + s->begin;
	bool all = true;

	for (uint32_t i = 0; i < s->bytes; ++i)
		all = all && m->v->byte_id[p[i]] >= 0;
	if (!all && m->v->unknown < 0)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
		                  "tokenizer: the character at byte %u is not in the vocabulary, nor is an unknown token", s->begin);
	if (!all)
		return append(list, m->v->unknown) ? KNIT_OK : knit__fail_memory(diag, "the token list", sizeof *list->ids);
	for (uint32_t i = 0; i < s->bytes; ++i)
		if (!append(list, m->v->byte_id[p[i]]))
			return knit__fail_memory(diag, "the token list", sizeof *list->ids);
	return KNIT_OK;
}

static knit_status put_all(const merger *m, knit_token_list *list, knit_diag *diag) {
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; i != NONE && status == KNIT_OK; i = m->symbols[i].next) {
		if (m->symbols[i].id < 0)
			status = put_bytes(m, &m->symbols[i], list, diag);
		else if (!append(list, m->symbols[i].id))
			status = knit__fail_memory(diag, "the token list", sizeof *list->ids);
	}
	return status;
}

knit_status knit__spm_encode(const knit_vocab *v, const knit_allocator *a, const char *text, uint32_t bytes,
                             knit_token_list *list, knit_diag *diag) {
	merger m = {.v = v, .a = a, .text = text};
	const uint32_t before_count = list->count;
	knit_status status;

	if (bytes == 0)
		return KNIT_OK;
	if (!split(&m, bytes)) {
		status = knit__fail_memory(diag, "the text's characters", (uint64_t)bytes * sizeof *m.symbols);
	} else {
		merge_all(&m);
		status = m.failed ? knit__fail_memory(diag, "the merge candidates", (uint64_t)m.heap_cap * 2 * sizeof *m.heap)
		                  : put_all(&m, list, diag);
	}
	knit__free(a, m.symbols, m.symbols_cap * sizeof *m.symbols);
	knit__free(a, m.heap, m.heap_cap * sizeof *m.heap);
	if (status != KNIT_OK)
		list->count = before_count;
	return status;
}
