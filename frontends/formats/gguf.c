/* Owns the reading of GGUF v2 and v3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): header, key-values,
 * tensor table, aligned data. Knows no architecture; everything a file declares is checked before it is used. */
#include "gguf.h"

#include "limits.h"
#include "reader.h"

#include <string.h>

#define DEFAULT_ALIGNMENT 32
#define MIN_ALIGNMENT 8      /* the specification: a multiple of 8; with it every tensor is aligned for its type */
#define MIN_KEY_VALUE_BYTES 13 /* key length, type, a value of one byte */
#define MIN_TENSOR_BYTES 24  /* name length, number of dimensions, type, offset */
#define STRING_LENGTH_BYTES 8

/* Value types by their number in the file. */
enum { GGUF_STRING = 8, GGUF_ARRAY = 9 };
static const knit_metadata_type value_types[] = {
	KNIT_METADATA_U8,   KNIT_METADATA_I8,     KNIT_METADATA_U16,  KNIT_METADATA_I16, KNIT_METADATA_U32,
	KNIT_METADATA_I32,  KNIT_METADATA_F32,    KNIT_METADATA_BOOL, KNIT_METADATA_STRING, KNIT_METADATA_NONE,
	KNIT_METADATA_U64,  KNIT_METADATA_I64,    KNIT_METADATA_F64,
};

/* Tensor types by their number in the file; dtype 0: known, but knit has no kernels for it. Numbers without a name are
 * unknown or were taken out of the format. */
static const struct {
	const char *name;
	knit_dtype dtype;
} tensor_types[] = {
	[0] = {"F32", KNIT_F32},   [1] = {"F16", KNIT_F16},    [2] = {"Q4_0", KNIT_Q4_0}, [3] = {"Q4_1", 0},
	[6] = {"Q5_0", 0},         [7] = {"Q5_1", 0},          [8] = {"Q8_0", KNIT_Q8_0}, [9] = {"Q8_1", 0},
	[10] = {"Q2_K", 0},        [11] = {"Q3_K", 0},         [12] = {"Q4_K", KNIT_Q4_K},       [13] = {"Q5_K", 0},
	[14] = {"Q6_K", KNIT_Q6_K},      [15] = {"Q8_K", 0},         [16] = {"IQ2_XXS", 0},     [17] = {"IQ2_XS", 0},
	[18] = {"IQ3_XXS", 0},     [19] = {"IQ1_S", 0},        [20] = {"IQ4_NL", 0},      [21] = {"IQ3_S", 0},
	[22] = {"IQ2_S", 0},       [23] = {"IQ4_XS", 0},       [24] = {"I8", 0},          [25] = {"I16", 0},
	[26] = {"I32", KNIT_I32},  [27] = {"I64", 0},          [28] = {"F64", 0},         [29] = {"IQ1_M", 0},
	[30] = {"BF16", KNIT_BF16}, [34] = {"TQ1_0", 0},       [35] = {"TQ2_0", 0},       [39] = {"MXFP4", 0},
};

typedef struct gguf_text {
	const uint8_t *text;
	uint64_t bytes;
} gguf_text;

typedef struct gguf_tensor {
	char name[KNIT_LIMIT_GGUF_NAME_BYTES + 1];
	knit_dtype dtype;
	int rank;
	int64_t dims[KNIT_MAX_RANK]; /* outermost first */
	uint64_t offset, bytes;
} gguf_tensor;

bool knit__gguf_matches(const uint8_t *data, uint64_t bytes) { return bytes >= 4 && memcmp(data, "GGUF", 4) == 0; }

static gguf_text read_text(knit_reader *r, const char *field) {
	gguf_text s = {NULL, knit__reader_u64(r, field)};

	s.text = knit__reader_take(r, s.bytes, field);
	return s;
}

/* Reads a name (a key, a tensor's) into a terminated buffer of limit + 1 bytes. */
static knit_status read_name(knit_reader *r, const char *field, char *out, uint64_t limit) {
	const uint64_t at = r->at;
	const gguf_text s = read_text(r, field);

	if (r->status != KNIT_OK)
		return r->status;
	r->field_at = at;
	if (s.bytes == 0)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%s is empty", field);
	if (s.bytes > limit)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "%s has %llu bytes, the limit is %llu", field,
		                         (unsigned long long)s.bytes, (unsigned long long)limit);
	if (memchr(s.text, 0, (size_t)s.bytes))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%s holds a NUL byte", field);
	memcpy(out, s.text, (size_t)s.bytes);
	out[s.bytes] = 0;
	return KNIT_OK;
}

/* ---- key-values -------------------------------------------------------------------------------------------------- */

/* Strings are walked twice: first to check and to add up their sizes, then to copy them into one allocation. */
static knit_status read_strings(knit_reader *r, knit_metadata *m, const char *key, bool is_array, uint64_t count) {
	const uint64_t begin = r->at;
	uint64_t total = 0;
	knit_metadata_entry *e;

	for (uint64_t i = 0; i < count && r->status == KNIT_OK; ++i)
		total += read_text(r, "a string").bytes; /* cannot wrap: each lies inside the file */
	if (r->status != KNIT_OK)
		return r->status;

	knit_diag d = {0};
	const knit_status status = knit__metadata_add_strings(m, key, is_array, count, total, &e, &d);
	if (status != KNIT_OK)
		return knit__reader_fail(r, status, "%s", d.text);
	r->at = begin;
	for (uint64_t i = 0; i < count; ++i) {
		const gguf_text s = read_text(r, "a string");

		knit__metadata_string_put(e, i, s.text, s.bytes);
	}
	return r->status;
}

static knit_status read_numbers(knit_reader *r, knit_metadata *m, const char *key, knit_metadata_type type, bool is_array,
                                uint64_t count) {
	const uint64_t size = knit__metadata_type_bytes(type);
	knit_diag d = {0};

	r->field_at = r->at;
	/* Divided, not multiplied: the count is the file's. */
	if (count > knit__reader_remaining(r) / size)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%llu values of %s declared, the file ends after %llu bytes",
		                         (unsigned long long)count, knit__metadata_type_name(type),
		                         (unsigned long long)knit__reader_remaining(r));
	const uint8_t *p = knit__reader_take(r, count * size, "value");
	if (!p)
		return r->status;
	for (uint64_t i = 0; type == KNIT_METADATA_BOOL && i < count; ++i)
		if (p[i] > 1)
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "a bool is %u, needs 0 or 1", p[i]);

	const knit_status status = knit__metadata_add(m, key, type, is_array, count, p, &d);
	return status == KNIT_OK ? KNIT_OK : knit__reader_fail(r, status, "%s", d.text);
}

static knit_status read_key_value(knit_reader *r, knit_metadata *m, char *key) {
	char shown[KNIT_PRINTABLE_BYTES];
	knit_status status = read_name(r, "key", key, KNIT_LIMIT_KEY_BYTES);

	if (status != KNIT_OK)
		return status;
	knit__reader_subject(r, "key '%s'", knit__printable(shown, key, strlen(key)));

	uint32_t type = knit__reader_u32(r, "value type");
	const bool is_array = type == GGUF_ARRAY;
	uint64_t count = 1;
	if (is_array) {
		type = knit__reader_u32(r, "element type");
		if (r->status == KNIT_OK && type == GGUF_ARRAY)
			return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED, "an array of arrays");
	}
	if (r->status == KNIT_OK && type >= sizeof value_types / sizeof value_types[0])
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "unknown value type %u", type);
	if (is_array)
		count = knit__reader_u64(r, "element count");
	if (r->status != KNIT_OK)
		return r->status;
	if (type != GGUF_STRING)
		return read_numbers(r, m, key, value_types[type], is_array, count);
	r->field_at = r->at;
	if (count > knit__reader_remaining(r) / STRING_LENGTH_BYTES)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%llu strings declared, the file ends after %llu bytes",
		                         (unsigned long long)count, (unsigned long long)knit__reader_remaining(r));
	return read_strings(r, m, key, is_array, count);
}

/* Keys are read into one buffer of the greatest length. */
static knit_status read_key_values(knit_reader *r, knit_model_file *file, uint64_t count) {
	const knit_allocator *a = &file->ctx->a;
	char *key = knit__alloc(a, KNIT_LIMIT_KEY_BYTES + 1);
	knit_status status = KNIT_OK;

	if (!key)
		return knit__fail_memory(r->diag, "a metadata key", KNIT_LIMIT_KEY_BYTES + 1);
	for (uint64_t i = 0; i < count && status == KNIT_OK; ++i) {
		knit__reader_subject(r, "key-value %llu", (unsigned long long)i);
		status = read_key_value(r, &file->metadata, key);
	}
	knit__free(a, key, KNIT_LIMIT_KEY_BYTES + 1);
	return status;
}

/* The two keys that the format itself gives a meaning. */
static knit_status read_alignment(knit_reader *r, const knit_metadata *m, uint64_t *alignment) {
	const knit_metadata_entry *e = knit__metadata_find(m, "general.alignment");
	const knit_metadata_entry *architecture = knit__metadata_find(m, "general.architecture");

	*alignment = DEFAULT_ALIGNMENT;
	knit__reader_subject(r, "%s", "");
	if (architecture && (architecture->is_array || architecture->type != KNIT_METADATA_STRING))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "general.architecture is of type %s, needs a string",
		                         knit__metadata_type_name(architecture->type));
	if (!e)
		return KNIT_OK;
	if (e->is_array || e->type != KNIT_METADATA_U32 || !knit__metadata_u64_at(e, 0, alignment))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "general.alignment is of type %s, needs a u32",
		                         knit__metadata_type_name(e->type));
	if (*alignment < MIN_ALIGNMENT || (*alignment & (*alignment - 1)) != 0)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "general.alignment is %llu, needs a power of two of at least %d",
		                         (unsigned long long)*alignment, MIN_ALIGNMENT);
	if (*alignment > KNIT_LIMIT_ALIGNMENT)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "general.alignment is %llu, the limit is %llu",
		                         (unsigned long long)*alignment, (unsigned long long)KNIT_LIMIT_ALIGNMENT);
	return KNIT_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static knit_status check_type(knit_reader *r, uint32_t type, gguf_tensor *t) {
	const bool known = type < sizeof tensor_types / sizeof tensor_types[0] && tensor_types[type].name;

	if (!known)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "unknown tensor type %u", type);
	if (!tensor_types[type].dtype)
		return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED,
		                         "type %s is not supported; convert the model to F32, F16, BF16, Q8_0, Q6_K, Q4_K or Q4_0",
		                         tensor_types[type].name);
	t->dtype = tensor_types[type].dtype;
	return KNIT_OK;
}

/* The file lists the innermost dimension first; no dimensions at all mean one element. */
static knit_status read_dims(knit_reader *r, gguf_tensor *t, uint64_t *elements) {
	const uint32_t n = knit__reader_u32(r, "number of dimensions");

	*elements = 1;
	if (r->status != KNIT_OK)
		return r->status;
	if (n > KNIT_MAX_RANK)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "%u dimensions, the limit is %d", n, KNIT_MAX_RANK);

	t->rank = n ? (int)n : 1;
	t->dims[0] = 1;
	for (uint32_t i = 0; i < n; ++i) {
		const uint64_t dim = knit__reader_u64(r, "dimension");

		if (r->status != KNIT_OK)
			return r->status;
		if (dim == 0 || dim > INT64_MAX || !knit__mul_u64(*elements, dim, elements) || *elements > INT64_MAX)
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "dimension %u is %llu: no tensor has that many elements", i,
			                         (unsigned long long)dim);
		t->dims[n - 1 - i] = (int64_t)dim;
	}
	return KNIT_OK;
}

/* Reads one row of the tensor table. `t->offset` counts from the begin of the data, which is not known yet. */
static knit_status read_tensor(knit_reader *r, uint64_t index, uint64_t alignment, gguf_tensor *t) {
	char shown[KNIT_PRINTABLE_BYTES];
	uint64_t elements;

	knit__reader_subject(r, "tensor %llu", (unsigned long long)index);
	knit_status status = read_name(r, "tensor name", t->name, KNIT_LIMIT_GGUF_NAME_BYTES);
	if (status != KNIT_OK)
		return status;
	knit__reader_subject(r, "tensor '%s'", knit__printable(shown, t->name, strlen(t->name)));
	status = read_dims(r, t, &elements);
	if (status != KNIT_OK)
		return status;

	const uint32_t type = knit__reader_u32(r, "type");
	status = r->status != KNIT_OK ? r->status : check_type(r, type, t);
	if (status != KNIT_OK)
		return status;
	const uint32_t block = knit__dtype_info(t->dtype)->block_elements;
	if (t->dims[t->rank - 1] % block != 0)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "rows of %lld elements, type %s needs a multiple of %u",
		                         (long long)t->dims[t->rank - 1], tensor_types[type].name, block);
	if (!knit__dtype_bytes(t->dtype, elements, &t->bytes))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "its size in bytes overflows");

	t->offset = knit__reader_u64(r, "offset");
	if (r->status == KNIT_OK && t->offset % alignment != 0)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "offset %llu is no multiple of the alignment %llu",
		                         (unsigned long long)t->offset, (unsigned long long)alignment);
	return r->status;
}

/* Two tensors may name the same bytes: nothing is copied, and a file may tie its weights so. */
static knit_status add_tensor(knit_reader *r, knit_model_file *file, const gguf_tensor *t, uint64_t data_at) {
	uint64_t begin, end;
	knit_diag d = {0};

	if (!knit__add_u64(data_at, t->offset, &begin) || !knit__add_u64(begin, t->bytes, &end) || end > r->bytes)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%llu bytes at data offset %llu reach past the end of the file (%llu)",
		                         (unsigned long long)t->bytes, (unsigned long long)t->offset,
		                         (unsigned long long)r->bytes);
	if (knit__weights_get(file->store, t->name))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "a second tensor of this name");

	const knit_status status =
		knit__model_file_add(file, t->name, t->dtype, t->rank, t->dims, r->data + begin, t->bytes, &d);
	return status == KNIT_OK ? KNIT_OK : knit__reader_fail(r, status, "%s", d.text);
}

/* The table is walked twice, so that it needs no memory: to find where the data begins, and to add the tensors. */
static knit_status read_tensors(knit_reader *r, knit_model_file *file, uint64_t count, uint64_t alignment) {
	const uint64_t table_at = r->at;
	knit_status status = KNIT_OK;
	gguf_tensor t;
	uint64_t data_at;

	for (uint64_t i = 0; i < count && status == KNIT_OK; ++i)
		status = read_tensor(r, i, alignment, &t);
	if (status != KNIT_OK)
		return status;
	if (!knit__align_u64(r->at, alignment, &data_at))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "the begin of the data overflows");

	r->at = table_at;
	for (uint64_t i = 0; i < count && status == KNIT_OK; ++i) {
		status = read_tensor(r, i, alignment, &t);
		if (status == KNIT_OK)
			status = add_tensor(r, file, &t, data_at);
	}
	return status;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static knit_status read_header(knit_reader *r, uint32_t *version, uint64_t *tensors, uint64_t *key_values) {
	knit__reader_take(r, 4, "magic");
	*version = knit__reader_u32(r, "version");
	if (r->status != KNIT_OK)
		return r->status;
	if (*version != 0 && (*version & 0xffff) == 0)
		return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED, "a big-endian file (version reads 0x%08x)", *version);
	if (*version != 2 && *version != 3)
		return knit__reader_fail(r, *version == 1 ? KNIT_ERR_UNSUPPORTED : KNIT_ERR_FORMAT,
		                         "version %u, versions 2 and 3 are supported", *version);

	*tensors = knit__reader_u64(r, "tensor count");
	*key_values = knit__reader_u64(r, "key-value count");
	if (r->status != KNIT_OK)
		return r->status;

	const uint64_t remaining = knit__reader_remaining(r);
	if (*tensors > remaining / MIN_TENSOR_BYTES || *key_values > remaining / MIN_KEY_VALUE_BYTES)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "%llu tensors and %llu key-values declared, %llu bytes follow",
		                         (unsigned long long)*tensors, (unsigned long long)*key_values,
		                         (unsigned long long)remaining);
	if (*tensors > KNIT_LIMIT_TENSORS)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "%llu tensors, the limit is %llu", (unsigned long long)*tensors,
		                         (unsigned long long)KNIT_LIMIT_TENSORS);
	if (*key_values > KNIT_LIMIT_METADATA_ENTRIES)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "%llu key-values, the limit is %llu",
		                         (unsigned long long)*key_values, (unsigned long long)KNIT_LIMIT_METADATA_ENTRIES);
	return KNIT_OK;
}

knit_status knit__gguf_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag) {
	uint64_t tensors = 0, key_values = 0, alignment = DEFAULT_ALIGNMENT;
	knit_reader r;

	knit__reader_init(&r, "gguf", data, bytes, diag);
	knit_status status = read_header(&r, &file->version, &tensors, &key_values);
	if (status == KNIT_OK)
		status = read_key_values(&r, file, key_values);
	if (status == KNIT_OK)
		status = read_alignment(&r, &file->metadata, &alignment);
	return status == KNIT_OK ? read_tensors(&r, file, tensors, alignment) : status;
}
