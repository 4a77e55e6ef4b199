#include "random_model.h"

#include "../frontends/formats/gguf_write.h"
#include "../frontends/models/names.h"
#include "../graph/op_def.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bytes are put together from a stock of encoded pieces of so many elements, a multiple of every format's block. */
#define PIECE_ELEMENTS 256
#define PIECES 4096
#define DEVIATION 0.02
#define TYPES 32

typedef struct tensor {
	char name[KNIT__NAME_BYTES];
	bool norm;
} tensor;

typedef struct maker {
	const knit_allocator *a;
	const bench_shape *shape;
	knit_metadata metadata;
	knit_gguf_out *tensors;
	tensor *details;
	uint32_t count, cap;
	uint8_t *stock[TYPES];       /* by type: PIECES pieces; NULL: not needed yet */
	uint8_t *norms;              /* f32 near 1 */
	bool (*progress)(void *user, uint64_t done, uint64_t total);
	void *user;
} maker;

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014). */
static uint64_t mix(uint64_t x) {
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static double unit(uint64_t x) { return ((double)(mix(x) >> 11) + 0.5) * 0x1p-53; }

/* Box and Muller. */
static double normal(uint64_t x) { return sqrt(-2 * log(unit(2 * x))) * cos(2 * acos(-1.0) * unit(2 * x + 1)); }

static size_t piece_bytes(knit_dtype type) {
	const knit_dtype_info *const info = knit__dtype_info(type);

	return (size_t)(PIECE_ELEMENTS / info->block_elements * info->block_bytes);
}

static uint8_t *make_stock(const maker *m, knit_dtype type, double mean, double deviation) {
	const size_t bytes = piece_bytes(type);
	uint8_t *const stock = knit__alloc(m->a, PIECES * bytes);
	double values[PIECE_ELEMENTS];

	for (uint64_t i = 0; stock && i < PIECES; ++i) {
		for (uint64_t k = 0; k < PIECE_ELEMENTS; ++k)
			values[k] = mean + deviation * normal(m->shape->seed * UINT64_C(0x100000000) + i * PIECE_ELEMENTS + k);
		knit__encode(type, values, stock + i * bytes, PIECE_ELEMENTS);
	}
	return stock;
}

static void fill(void *user, uint32_t index, uint64_t at, void *out, size_t bytes) {
	const maker *const m = user;
	const knit_gguf_out *const t = &m->tensors[index];
	const uint8_t *const stock = m->details[index].norm ? m->norms : m->stock[t->dtype];
	const size_t piece = piece_bytes(t->dtype);
	uint8_t *to = out;

	while (bytes > 0) {
		const uint64_t number = at / piece, skip = at % piece;
		const size_t n = piece - skip < bytes ? (size_t)(piece - skip) : bytes;
		const uint64_t which = mix(mix(m->shape->seed + index) + number) % PIECES;
		memcpy(to, stock + which * piece + skip, n);
		to += n;
		at += n;
		bytes -= n;
	}
}

static bool on_progress(void *user, uint64_t done, uint64_t total) {
	const maker *const m = user;

	return !m->progress || m->progress(m->user, done, total);
}

static knit_status add(maker *m, const char *name, knit_dtype type, int64_t rows, int64_t columns, bool norm,
                       knit_diag *diag) {
	knit_gguf_out t = {.dtype = type, .rank = columns ? 2 : 1, .dims = {rows, columns}, .same_as = m->count};

	if (!knit__dtype_bytes(type, (uint64_t)(rows * (columns ? columns : 1)), &t.bytes))
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "%s is too large", name);
	if (norm && !m->norms)
		m->norms = make_stock(m, KNIT_F32, 1, 0.1);
	if (!norm && !m->stock[type])
		m->stock[type] = make_stock(m, type, 0, DEVIATION);
	if (m->count == m->cap || (norm ? !m->norms : !m->stock[type]))
		return knit__fail_memory(diag, "a random model", t.bytes);
	snprintf(m->details[m->count].name, KNIT__NAME_BYTES, "%s", name);
	m->details[m->count].norm = norm;
	t.name = m->details[m->count].name;
	m->tensors[m->count++] = t;
	return KNIT_OK;
}

static knit_dtype type_of(const bench_shape *s, knit__part part, bool norm) {
	if (norm)
		return KNIT_F32;
	return part == KNIT__ATTN_V || part == KNIT__FFN_DOWN ? s->rich : s->type;
}

/* Rows and columns of a projection; columns 0: a norm. */
static void size_of(const bench_shape *s, knit__part part, int64_t *rows, int64_t *columns) {
	const int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;

	*columns = s->dim;
	switch (part) {
	case KNIT__ATTN_Q: *rows = q; return;
	case KNIT__ATTN_K:
	case KNIT__ATTN_V: *rows = kv; return;
	case KNIT__ATTN_OUTPUT: *rows = s->dim, *columns = q; return;
	case KNIT__FFN_GATE:
	case KNIT__FFN_UP: *rows = s->ffn; return;
	case KNIT__FFN_DOWN: *rows = s->dim, *columns = s->ffn; return;
	default: *rows = s->dim, *columns = 0; return;
	}
}

static knit_status add_layers(maker *m, knit_diag *diag) {
	const bench_shape *const s = m->shape;
	char name[KNIT__NAME_BYTES];
	int64_t rows, columns;
	knit_status status = KNIT_OK;

	for (uint32_t layer = 0; layer < s->layers; ++layer)
		for (knit__part part = KNIT__ATTN_NORM; part < KNIT__PART_COUNT && status == KNIT_OK; ++part) {
			size_of(s, part, &rows, &columns);
			knit__weight_name(KNIT__NAMES_GGUF, part, layer, name);
			status = add(m, name, type_of(s, part, columns == 0), rows, columns, columns == 0, diag);
		}
	for (uint32_t visit = 0; s->lora && visit < s->layers * s->visits; ++visit)
		for (knit__part part = KNIT__ATTN_Q; part < KNIT__PART_COUNT && status == KNIT_OK; ++part) {
			size_of(s, part, &rows, &columns);
			knit__adapter_name(KNIT__NAMES_GGUF, part, visit, 'a', name);
			status = add(m, name, KNIT_F16, s->lora, columns, false, diag);
			knit__adapter_name(KNIT__NAMES_GGUF, part, visit, 'b', name);
			if (status == KNIT_OK)
				status = add(m, name, KNIT_F16, rows, s->lora, false, diag);
		}
	return status;
}

static knit_status add_tensors(maker *m, knit_diag *diag) {
	const bench_shape *const s = m->shape;

	m->cap = 3 + (uint32_t)(s->layers * (9 + (s->lora ? 14 * s->visits : 0)));
	m->tensors = knit__alloc_array(m->a, m->cap, sizeof *m->tensors);
	m->details = knit__alloc_array(m->a, m->cap, sizeof *m->details);
	if (!m->tensors || !m->details)
		return knit__fail_memory(diag, "a table of tensors", m->cap * sizeof *m->tensors);
	knit_status status = add(m, "token_embd.weight", s->embedding, s->vocab, s->dim, false, diag);
	if (status == KNIT_OK)
		status = add_layers(m, diag);
	if (status == KNIT_OK)
		status = add(m, "output_norm.weight", KNIT_F32, s->dim, 0, true, diag);
	if (status == KNIT_OK && !s->tied)
		status = add(m, "output.weight", s->rich != s->type ? s->rich : s->embedding, s->vocab, s->dim, false, diag);
	return status;
}

/* A vocabulary that every reader takes: three special tokens, the bytes as far as there is room, made-up words. */
static knit_status add_vocabulary(maker *m, knit_diag *diag) {
	const uint64_t count = (uint64_t)m->shape->vocab;
	float *const scores = knit__alloc_array(m->a, (size_t)count, sizeof *scores);
	int32_t *const types = knit__alloc_array(m->a, (size_t)count, sizeof *types);
	knit_metadata_entry *e = NULL;
	knit_status status = scores && types ? KNIT_OK : knit__fail_memory(diag, "a vocabulary", count * 8);
	uint64_t bytes = 0;
	char text[32];

	for (int pass = 0; pass < 2 && status == KNIT_OK; ++pass) {
		for (uint64_t i = 0; i < count; ++i) {
			static const char *const special[] = {"<unk>", "<s>", "</s>"};
			if (i < 3)
				snprintf(text, sizeof text, "%s", special[i]);
			else if (i < 259)
				snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3));
			else
				snprintf(text, sizeof text, "\xe2\x96\x81w%" PRIu64, i);
			types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
			scores[i] = i < 259 ? 0 : -(float)i;
			if (pass == 0)
				bytes += strlen(text);
			else
				knit__metadata_string_put(e, i, text, strlen(text));
		}
		if (pass == 0)
			status = knit__metadata_add_strings(&m->metadata, "tokenizer.ggml.tokens", true, count, bytes, &e, diag);
	}
	if (status == KNIT_OK)
		status = knit__metadata_add(&m->metadata, "tokenizer.ggml.scores", KNIT_METADATA_F32, true, count, scores, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add(&m->metadata, "tokenizer.ggml.token_type", KNIT_METADATA_I32, true, count, types, diag);
	knit__free(m->a, scores, (size_t)count * sizeof *scores);
	knit__free(m->a, types, (size_t)count * sizeof *types);
	return status;
}

static knit_status add_metadata(maker *m, knit_diag *diag) {
	const bench_shape *const s = m->shape;
	const bool looped = s->visits > 1 || s->lora > 0;
	const char *const arch = looped ? "knit" : "llama";
	char name[320];
	const struct {
		const char *key;
		int64_t value;
	} counts[] = {
		{"context_length", s->context},          {"embedding_length", s->dim},
		{"block_count", s->layers},              {"feed_forward_length", s->ffn},
		{"attention.head_count", s->heads},      {"attention.head_count_kv", s->kv_heads},
		{"attention.key_length", s->head_dim},   {"attention.value_length", s->head_dim},
		{"rope.dimension_count", s->head_dim},   {"vocab_size", s->vocab},
	};
	knit_status status = knit__metadata_add_string(&m->metadata, "general.architecture", arch, strlen(arch), diag);

	bench_shape_text(s, name);
	if (status == KNIT_OK)
		status = knit__metadata_add_string(&m->metadata, "general.name", name, strlen(name), diag);
	for (size_t i = 0; i < sizeof counts / sizeof *counts && status == KNIT_OK; ++i) {
		snprintf(name, sizeof name, "%s.%s", arch, counts[i].key);
		status = knit__metadata_add_u32(&m->metadata, name, (uint32_t)counts[i].value, diag);
	}
	snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", arch);
	if (status == KNIT_OK)
		status = knit__metadata_add_f32(&m->metadata, name, 1e-5f, diag);
	if (status == KNIT_OK && s->visits > 1)
		status = knit__metadata_add_u32(&m->metadata, "knit.loops", (uint32_t)s->visits, diag);
	if (status == KNIT_OK && s->lora)
		status = knit__metadata_add_u32(&m->metadata, "knit.lora.rank", (uint32_t)s->lora, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_string(&m->metadata, "tokenizer.ggml.model", "llama", 5, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_u32(&m->metadata, "tokenizer.ggml.bos_token_id", 1, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_u32(&m->metadata, "tokenizer.ggml.eos_token_id", 2, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_u32(&m->metadata, "tokenizer.ggml.unknown_token_id", 0, diag);
	return status == KNIT_OK ? add_vocabulary(m, diag) : status;
}

knit_status bench_random_model(const knit_allocator *a, const bench_shape *shape, const char *path,
                               bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                               uint64_t *file_bytes, knit_diag *diag) {
	maker m = {.a = a, .shape = shape, .progress = progress, .user = user};

	knit__metadata_init(&m.metadata, a);
	knit_status status = add_metadata(&m, diag);
	if (status == KNIT_OK)
		status = add_tensors(&m, diag);
	if (status == KNIT_OK) {
		const knit_gguf_write_desc desc = {.metadata = &m.metadata,
		                                   .tensors = m.tensors,
		                                   .count = m.count,
		                                   .progress = on_progress,
		                                   .fill = fill,
		                                   .user = &m};
		status = knit__gguf_write(a, path, &desc, file_bytes, diag);
	}
	for (size_t type = 0; type < TYPES; ++type)
		knit__free(a, m.stock[type], m.stock[type] ? PIECES * piece_bytes((knit_dtype)type) : 0);
	knit__free(a, m.norms, PIECES * piece_bytes(KNIT_F32));
	knit__free(a, m.tensors, m.cap * sizeof *m.tensors);
	knit__free(a, m.details, m.cap * sizeof *m.details);
	knit__metadata_clear(&m.metadata);
	return status;
}
