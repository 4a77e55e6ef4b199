/* Writes header, key-values and tensor table from one buffer, then the tensors' bytes in pieces. */
#include "gguf_write.h"

#include "file_out.h"
#include "limits.h"

#include <string.h>

#define VERSION 3
#define DEFAULT_ALIGNMENT 32
#define PIECE_BYTES (UINT64_C(1) << 20)

enum { GGUF_STRING = 8, GGUF_ARRAY = 9 };

/* The numbers that types have in the file. */
static const uint32_t value_types[] = {
	[KNIT_METADATA_U8] = 0,   [KNIT_METADATA_I8] = 1,   [KNIT_METADATA_U16] = 2,           [KNIT_METADATA_I16] = 3,
	[KNIT_METADATA_U32] = 4,  [KNIT_METADATA_I32] = 5,  [KNIT_METADATA_F32] = 6,           [KNIT_METADATA_BOOL] = 7,
	[KNIT_METADATA_U64] = 10, [KNIT_METADATA_I64] = 11, [KNIT_METADATA_STRING] = GGUF_STRING, [KNIT_METADATA_F64] = 12,
};
static const uint32_t tensor_types[] = {
	[KNIT_F32] = 0, [KNIT_F16] = 1, [KNIT_Q4_0] = 2, [KNIT_Q8_0] = 8, [KNIT_Q4_K] = 12, [KNIT_Q6_K] = 14,
	[KNIT_I32] = 26, [KNIT_BF16] = 30,
};

/* A growing buffer; after a failed allocation `failed` is set and nothing is added. */
typedef struct buffer {
	const knit_allocator *a;
	uint8_t *data;
	uint32_t count, cap;
	bool failed;
} buffer;

static void put(buffer *b, const void *data, uint64_t bytes) {
	if (b->failed || bytes > UINT32_MAX - b->count ||
	    !knit__grow(b->a, (void **)&b->data, &b->cap, b->count + (uint32_t)bytes, 1)) {
		b->failed = true;
		return;
	}
	if (bytes)
		memcpy(b->data + b->count, data, (size_t)bytes);
	b->count += (uint32_t)bytes;
}

static void put_u32(buffer *b, uint32_t v) {
	const uint8_t bytes[] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};

	put(b, bytes, sizeof bytes);
}

static void put_u64(buffer *b, uint64_t v) {
	put_u32(b, (uint32_t)v);
	put_u32(b, (uint32_t)(v >> 32));
}

static void put_text(buffer *b, const char *text, uint64_t bytes) {
	put_u64(b, bytes);
	put(b, text, bytes);
}

static void put_entry(buffer *b, const knit_metadata_entry *e) {
	put_text(b, e->key, strlen(e->key));
	if (e->is_array)
		put_u32(b, GGUF_ARRAY);
	put_u32(b, value_types[e->type]);
	if (e->is_array)
		put_u64(b, e->count);
	if (e->type != KNIT_METADATA_STRING) {
		put(b, e->data, e->count * knit__metadata_type_bytes(e->type));
		return;
	}
	for (uint64_t i = 0; i < e->count; ++i) {
		knit_metadata_text s = {0};
		knit__metadata_string_at(e, i, &s);
		put_text(b, s.text, s.bytes);
	}
}

static uint64_t alignment_of(const knit_metadata *m) {
	uint64_t alignment = DEFAULT_ALIGNMENT;

	if (knit__metadata_u64(m, "general.alignment", &alignment, NULL) != KNIT_OK || alignment < 8 ||
	    (alignment & (alignment - 1)) != 0 || alignment > KNIT_LIMIT_ALIGNMENT)
		return DEFAULT_ALIGNMENT;
	return alignment;
}

static knit_status check(const knit_gguf_write_desc *desc, uint32_t at, knit_diag *diag) {
	const knit_gguf_out *t = &desc->tensors[at], *owner;

	if (strlen(t->name) > KNIT_LIMIT_GGUF_NAME_BYTES)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "the name %.70s... has more than the %d bytes that GGUF allows", t->name,
		                  (int)KNIT_LIMIT_GGUF_NAME_BYTES);
	if (t->same_as > at || (size_t)t->dtype >= sizeof tensor_types / sizeof *tensor_types)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "tensor %.70s is of no type, or shares bytes with a later one", t->name);
	if (!t->data && t->bytes && !desc->fill)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "tensor %.70s has no bytes", t->name);
	owner = &desc->tensors[t->same_as];
	if (owner->same_as != t->same_as || owner->bytes != t->bytes || owner->dtype != t->dtype)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "tensor %.70s cannot share the bytes of %.70s", t->name, owner->name);
	return KNIT_OK;
}

/* Everything before the data. offset[i]: of tensor i in the data; *total: bytes of the data. */
static knit_status make_head(const knit_gguf_write_desc *desc, uint64_t alignment, buffer *b, uint64_t *offset,
                             uint64_t *total, knit_diag *diag) {
	const knit_metadata *m = desc->metadata;

	put(b, "GGUF", 4);
	put_u32(b, VERSION);
	put_u64(b, desc->count);
	put_u64(b, m->count);
	for (uint32_t i = 0; i < m->count; ++i)
		put_entry(b, &m->entries[i]);

	*total = 0;
	for (uint32_t i = 0; i < desc->count; ++i) {
		const knit_gguf_out *t = &desc->tensors[i];
		const knit_status status = check(desc, i, diag);
		if (status != KNIT_OK)
			return status;
		if (t->same_as == i) {
			offset[i] = *total;
			if (!knit__add_u64(*total, t->bytes, total) || !knit__align_u64(*total, alignment, total))
				return knit__fail(diag, KNIT_ERR_LIMIT, 0, "the tensors have more bytes than a file can hold");
		} else {
			offset[i] = offset[t->same_as];
		}
		put_text(b, t->name, strlen(t->name));
		put_u32(b, (uint32_t)t->rank);
		for (int d = t->rank - 1; d >= 0; --d)
			put_u64(b, (uint64_t)t->dims[d]);
		put_u32(b, tensor_types[t->dtype]);
		put_u64(b, offset[i]);
	}
	while (b->count % alignment != 0 && !b->failed)
		put(b, "", 1);
	return b->failed ? knit__fail_memory(diag, "the head of a GGUF file", b->count) : KNIT_OK;
}

/* piece: PIECE_BYTES of room for what fill makes; NULL where all tensors have data. */
static knit_status write_tensor(const knit_file_out *f, const knit_gguf_write_desc *desc, uint32_t index,
                                uint64_t alignment, uint64_t done, uint64_t total, void *piece, knit_diag *diag) {
	static const uint8_t zeros[512];
	const knit_gguf_out *t = &desc->tensors[index];
	knit_status status = KNIT_OK;

	for (uint64_t at = 0; at < t->bytes && status == KNIT_OK; at += PIECE_BYTES) {
		const uint64_t left = t->bytes - at, n = left < PIECE_BYTES ? left : PIECE_BYTES;
		if (desc->progress && !desc->progress(desc->user, done + at, total))
			return KNIT_ERR_STATE;
		if (!t->data)
			desc->fill(desc->user, index, at, piece, (size_t)n);
		status = knit__file_out_write(f, t->data ? (const uint8_t *)t->data + at : piece, (size_t)n, diag);
	}
	for (uint64_t pad = (alignment - t->bytes % alignment) % alignment; pad && status == KNIT_OK;) {
		const uint64_t n = pad < sizeof zeros ? pad : sizeof zeros;
		status = knit__file_out_write(f, zeros, (size_t)n, diag);
		pad -= n;
	}
	return status;
}

knit_status knit__gguf_write(const knit_allocator *a, const char *path, const knit_gguf_write_desc *desc,
                             uint64_t *file_bytes, knit_diag *diag) {
	const uint64_t alignment = alignment_of(desc->metadata);
	uint64_t *offset = knit__alloc_array(a, desc->count, sizeof *offset), total = 0;
	buffer head = {.a = a};
	knit_file_out f = {0};
	void *piece = desc->fill ? knit__alloc(a, PIECE_BYTES) : NULL;

	if (!offset || (desc->fill && !piece)) {
		knit__free(a, offset, desc->count * sizeof *offset);
		knit__free(a, piece, PIECE_BYTES);
		return knit__fail_memory(diag, "a tensor table", desc->count * sizeof *offset);
	}
	knit_status status = make_head(desc, alignment, &head, offset, &total, diag);
	if (status == KNIT_OK)
		status = knit__file_out_open(a, path, &f, diag);
	if (status == KNIT_OK)
		status = knit__file_out_write(&f, head.data, head.count, diag);
	for (uint32_t i = 0; i < desc->count && status == KNIT_OK; ++i)
		if (desc->tensors[i].same_as == i)
			status = write_tensor(&f, desc, i, alignment, offset[i], total, piece, diag);
	if (status == KNIT_OK && desc->progress && !desc->progress(desc->user, total, total))
		status = KNIT_ERR_STATE;
	if (status == KNIT_OK)
		status = knit__file_out_commit(&f, diag);
	else
		knit__file_out_abort(&f);
	*file_bytes = head.count + total;
	knit__free(a, head.data, head.cap);
	knit__free(a, piece, PIECE_BYTES);
	knit__free(a, offset, desc->count * sizeof *offset);
	return status;
}
