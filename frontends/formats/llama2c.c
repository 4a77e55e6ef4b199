/* Owns the reading of llama2.c model files (https://github.com/karpathy/llama2.c, export.py): seven int32 of sizes, then
 * f32 tensors in a fixed order without names. Gives them GGUF names and keys, so that nothing else knows this format. */
#include "llama2c.h"

#include "limits.h"
#include "reader.h"

#include <stdio.h>
#include <string.h>

#define MAGIC 0x616b3432u /* "ak42"; begins v1 and later */
#define V0_HEADER_BYTES 28
#define V1_HEADER_BYTES 256

typedef struct header {
	int32_t dim, hidden_dim, layers, heads, kv_heads, vocab, context;
	bool shared_classifier;
} header;

/* One tensor, or one per layer, of the fixed order. */
typedef enum shape { VOCAB_DIM, DIM, DIM_DIM, KV_DIM, HIDDEN_DIM, DIM_HIDDEN, ROPE_TABLE } shape;
typedef struct segment {
	const char *name; /* with the layer's number where per_layer; NULL: not used by knit */
	bool per_layer;
	bool only_if_separate; /* there only if the classifier is not shared with the embedding */
	shape shape;
} segment;

static const segment v0_order[] = {
	{"token_embd.weight", false, false, VOCAB_DIM},
	{"blk.%d.attn_norm.weight", true, false, DIM},
	{"blk.%d.attn_q.weight", true, false, DIM_DIM},
	{"blk.%d.attn_k.weight", true, false, KV_DIM},
	{"blk.%d.attn_v.weight", true, false, KV_DIM},
	{"blk.%d.attn_output.weight", true, false, DIM_DIM},
	{"blk.%d.ffn_norm.weight", true, false, DIM},
	{"blk.%d.ffn_gate.weight", true, false, HIDDEN_DIM},
	{"blk.%d.ffn_down.weight", true, false, DIM_HIDDEN},
	{"blk.%d.ffn_up.weight", true, false, HIDDEN_DIM},
	{"output_norm.weight", false, false, DIM},
	{NULL, false, false, ROPE_TABLE}, /* cosines and sines, which knit computes itself */
	{NULL, false, false, ROPE_TABLE},
	{"output.weight", false, true, VOCAB_DIM},
};

static const segment v1_order[] = {
	{"blk.%d.attn_norm.weight", true, false, DIM},
	{"blk.%d.ffn_norm.weight", true, false, DIM},
	{"output_norm.weight", false, false, DIM},
	{"token_embd.weight", false, false, VOCAB_DIM},
	{"blk.%d.attn_q.weight", true, false, DIM_DIM},
	{"blk.%d.attn_k.weight", true, false, KV_DIM},
	{"blk.%d.attn_v.weight", true, false, KV_DIM},
	{"blk.%d.attn_output.weight", true, false, DIM_DIM},
	{"blk.%d.ffn_gate.weight", true, false, HIDDEN_DIM},
	{"blk.%d.ffn_down.weight", true, false, DIM_HIDDEN},
	{"blk.%d.ffn_up.weight", true, false, HIDDEN_DIM},
	{"output.weight", false, true, VOCAB_DIM},
};

/* ---- the header -------------------------------------------------------------------------------------------------- */

static int32_t read_i32(knit_reader *r, const char *field) {
	const uint32_t bits = knit__reader_u32(r, field);
	int32_t v;

	memcpy(&v, &bits, sizeof v);
	return v;
}

static void read_sizes(knit_reader *r, header *h) {
	h->dim = read_i32(r, "dim");
	h->hidden_dim = read_i32(r, "hidden_dim");
	h->layers = read_i32(r, "n_layers");
	h->heads = read_i32(r, "n_heads");
	h->kv_heads = read_i32(r, "n_kv_heads");
	h->vocab = read_i32(r, "vocab_size");
	h->context = read_i32(r, "max_seq_len");
}

/* v0 says with the sign of vocab_size whether the classifier is shared. */
static void take_v0_sign(header *h) {
	h->shared_classifier = h->vocab > 0;
	if (h->vocab < 0 && h->vocab > INT32_MIN)
		h->vocab = -h->vocab;
}

/* A v0 file has no magic: sizes beyond the limit are taken for another kind of file. */
static bool plausible(int32_t size) { return size > 0 && size <= KNIT_LIMIT_LLAMA2C_SIZE; }

/* NULL, or which size is wrong. */
static const char *bad_size(const header *h) {
	if (!plausible(h->dim))
		return "dim";
	if (!plausible(h->hidden_dim))
		return "hidden_dim";
	if (!plausible(h->layers))
		return "n_layers";
	if (!plausible(h->heads) || h->dim % h->heads != 0 || h->dim / h->heads % 2 != 0)
		return "n_heads";
	if (!plausible(h->kv_heads) || h->heads % h->kv_heads != 0)
		return "n_kv_heads";
	if (!plausible(h->vocab))
		return "vocab_size";
	return plausible(h->context) ? NULL : "max_seq_len";
}

bool knit__llama2c_matches(const uint8_t *data, uint64_t bytes) {
	knit_reader r;
	header h;

	knit__reader_init(&r, "llama2.c", data, bytes, NULL);
	if (knit__reader_u32(&r, "magic") == MAGIC)
		return true;
	knit__reader_init(&r, "llama2.c", data, bytes, NULL);
	read_sizes(&r, &h);
	take_v0_sign(&h);
	return r.status == KNIT_OK && !bad_size(&h);
}

static knit_status read_header(knit_reader *r, uint32_t *version, header *h) {
	*version = 0;
	if (knit__reader_u32(r, "magic") == MAGIC)
		*version = knit__reader_u32(r, "version");
	else
		r->at = 0;
	if (r->status == KNIT_OK && *version == 2)
		return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED,
		                         "version 2 (int8 in groups) is not supported: export the model as version 0 or 1 (f32)");
	if (r->status == KNIT_OK && *version > 1)
		return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED, "version %u, versions 0 and 1 are supported", *version);

	read_sizes(r, h);
	if (*version == 0) {
		take_v0_sign(h);
	} else {
		h->shared_classifier = knit__reader_u8(r, "shared_classifier") != 0;
		r->at = r->status == KNIT_OK ? 0 : r->at;
		knit__reader_take(r, V1_HEADER_BYTES, "header");
	}
	if (r->status != KNIT_OK)
		return r->status;

	const char *bad = bad_size(h);
	if (!bad)
		return KNIT_OK;
	r->field_at = 0;
	return knit__reader_fail(r, KNIT_ERR_FORMAT, "%s does not fit (dim %d, heads %d, kv heads %d, layers %d, vocabulary %d)",
	                         bad, h->dim, h->heads, h->kv_heads, h->layers, h->vocab);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static int shape_of(const header *h, shape s, int64_t dims[2]) {
	const int64_t dim = h->dim, head_dim = dim / h->heads;

	dims[0] = dims[1] = 1;
	switch (s) {
	case DIM:
		dims[0] = dim;
		return 1;
	case VOCAB_DIM:
		dims[0] = h->vocab;
		dims[1] = dim;
		return 2;
	case DIM_DIM:
		dims[0] = dims[1] = dim;
		return 2;
	case KV_DIM:
		dims[0] = head_dim * h->kv_heads;
		dims[1] = dim;
		return 2;
	case HIDDEN_DIM:
		dims[0] = h->hidden_dim;
		dims[1] = dim;
		return 2;
	case DIM_HIDDEN:
		dims[0] = dim;
		dims[1] = h->hidden_dim;
		return 2;
	case ROPE_TABLE:
		dims[0] = h->context;
		dims[1] = head_dim / 2;
		return 2;
	}
	return 0;
}

/* Sizes are at most 2^28, so the product of two and four bytes fits. */
static uint64_t bytes_of(const int64_t *dims, int rank) {
	return (uint64_t)dims[0] * (rank > 1 ? (uint64_t)dims[1] : 1) * sizeof(float);
}

/* What the header makes the whole file be, and how many tensors knit takes from it; false on overflow. */
static bool file_bytes(const header *h, const segment *order, size_t count, uint64_t header_bytes, uint64_t *out,
                       uint64_t *tensors) {
	uint64_t total = header_bytes;

	*tensors = 0;
	for (size_t i = 0; i < count; ++i) {
		int64_t dims[2];
		const int rank = shape_of(h, order[i].shape, dims);
		const uint64_t times = order[i].per_layer ? (uint64_t)h->layers : 1;
		uint64_t bytes;

		if (order[i].only_if_separate && h->shared_classifier)
			continue;
		if (!knit__mul_u64(bytes_of(dims, rank), times, &bytes) || !knit__add_u64(total, bytes, &total))
			return false;
		*tensors += order[i].name ? times : 0;
	}
	*out = total;
	return true;
}

static knit_status add_tensor(knit_reader *r, knit_model_file *file, const header *h, const segment *s, int layer) {
	char name[48] = "a rope table";
	int64_t dims[2];
	const int rank = shape_of(h, s->shape, dims);
	const uint64_t bytes = bytes_of(dims, rank);
	knit_diag d = {0};

	if (s->name && s->per_layer) {
		/* The table's names hold at most one %d; split there, since a format must be a literal. */
		const char *number = strstr(s->name, "%d");

		snprintf(name, sizeof name, "%.*s%d%s", (int)(number - s->name), s->name, layer, number + 2);
	} else if (s->name) {
		snprintf(name, sizeof name, "%s", s->name);
	}

	const uint8_t *data = knit__reader_take(r, bytes, name);
	if (!data || !s->name)
		return r->status;
	const knit_status status = knit__model_file_add(file, name, KNIT_F32, rank, dims, data, bytes, &d);
	return status == KNIT_OK ? KNIT_OK : knit__reader_fail(r, status, "%s", d.text);
}

static knit_status add_tensors(knit_reader *r, knit_model_file *file, const header *h, const segment *order,
                               size_t count) {
	knit_status status = KNIT_OK;

	for (size_t i = 0; i < count; ++i) {
		if (order[i].only_if_separate && h->shared_classifier)
			continue;
		const int times = order[i].per_layer ? h->layers : 1;
		for (int layer = 0; layer < times && status == KNIT_OK; ++layer)
			status = add_tensor(r, file, h, &order[i], layer);
	}
	return status;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

/* rms epsilon and rope base are no part of the format: llama2.c has them as constants. */
static knit_status add_metadata(knit_metadata *m, const header *h, knit_diag *diag) {
	const struct {
		const char *key;
		int32_t value;
	} sizes[] = {
		{"llama.context_length", h->context},
		{"llama.embedding_length", h->dim},
		{"llama.block_count", h->layers},
		{"llama.feed_forward_length", h->hidden_dim},
		{"llama.attention.head_count", h->heads},
		{"llama.attention.head_count_kv", h->kv_heads},
		{"llama.rope.dimension_count", h->dim / h->heads},
		{"llama.vocab_size", h->vocab},
	};
	knit_status status = knit__metadata_add_string(m, "general.architecture", "llama", 5, diag);

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == KNIT_OK; ++i)
		status = knit__metadata_add_u32(m, sizes[i].key, (uint32_t)sizes[i].value, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f, diag);
	if (status == KNIT_OK)
		status = knit__metadata_add_f32(m, "llama.rope.freq_base", 10000.0f, diag);
	return status;
}

knit_status knit__llama2c_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag) {
	uint64_t expected, tensors;
	knit_reader r;
	header h;

	knit__reader_init(&r, "llama2.c", data, bytes, diag);
	knit_status status = read_header(&r, &file->version, &h);
	if (status != KNIT_OK)
		return status;

	const segment *order = file->version ? v1_order : v0_order;
	const size_t count = file->version ? sizeof v1_order / sizeof *order : sizeof v0_order / sizeof *order;
	const uint64_t header_bytes = file->version ? V1_HEADER_BYTES : V0_HEADER_BYTES;
	r.field_at = 0;
	/* The whole size is known from the header: one comparison stands for all bounds and counts. */
	if (!file_bytes(&h, order, count, header_bytes, &expected, &tensors))
		return knit__reader_fail(&r, KNIT_ERR_FORMAT, "the size that the header declares overflows");
	if (expected != bytes)
		return knit__reader_fail(&r, KNIT_ERR_FORMAT, "the v%u header declares a file of %llu bytes, it has %llu",
		                         file->version, (unsigned long long)expected, (unsigned long long)bytes);

	if (tensors > KNIT_LIMIT_TENSORS)
		return knit__reader_fail(&r, KNIT_ERR_LIMIT, "%d layers make %llu tensors, the limit is %llu", h.layers,
		                         (unsigned long long)tensors, (unsigned long long)KNIT_LIMIT_TENSORS);

	r.at = header_bytes;
	status = add_tensors(&r, file, &h, order, count);
	return status == KNIT_OK ? add_metadata(&file->metadata, &h, diag) : status;
}
