/* Owns the reading of safetensors (https://github.com/huggingface/safetensors, "Format"): a length, a JSON header, the
 * bytes of the tensors without gaps. The header is checked by json_scan.c before cJSON parses it. */
#include "safetensors.h"

#include "json_scan.h"
#include "limits.h"
#include "reader.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8

typedef enum use { USE_WEIGHT, USE_SKIP, USE_REFUSE } use;

/* Integers and bools that are no weights (position ids, masks) are left out; floats without kernels are refused. */
static const struct {
	const char *name;
	uint64_t bytes;
	use use;
	knit_dtype dtype;
} dtypes[] = {
	{"F32", 4, USE_WEIGHT, KNIT_F32}, {"F16", 2, USE_WEIGHT, KNIT_F16}, {"BF16", 2, USE_WEIGHT, KNIT_BF16},
	{"I32", 4, USE_WEIGHT, KNIT_I32}, {"BOOL", 1, USE_SKIP, 0},         {"U8", 1, USE_SKIP, 0},
	{"I8", 1, USE_SKIP, 0},           {"U16", 2, USE_SKIP, 0},          {"I16", 2, USE_SKIP, 0},
	{"U32", 4, USE_SKIP, 0},          {"U64", 8, USE_SKIP, 0},          {"I64", 8, USE_SKIP, 0},
	{"F64", 8, USE_REFUSE, 0},        {"F8_E4M3", 1, USE_REFUSE, 0},    {"F8_E5M2", 1, USE_REFUSE, 0},
	{"F8_E8M0", 1, USE_REFUSE, 0},    {"F6_E2M3", 1, USE_REFUSE, 0},    {"F6_E3M2", 1, USE_REFUSE, 0},
	{"F4", 1, USE_REFUSE, 0},         {"C64", 8, USE_REFUSE, 0},
};
#define DTYPE_COUNT (sizeof dtypes / sizeof dtypes[0])

typedef struct tensor {
	const cJSON *item;
	size_t dtype; /* index into dtypes */
	uint64_t begin, end;
} tensor;

bool knit__safetensors_matches(const uint8_t *data, uint64_t bytes) {
	return bytes > LENGTH_BYTES && data[LENGTH_BYTES] == '{';
}

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

/* json_scan has made sure that every number is an integer which a double holds exactly. */
static bool number_of(const cJSON *item, uint64_t *out) {
	if (!cJSON_IsNumber(item))
		return false;
	*out = (uint64_t)item->valuedouble;
	return true;
}

static knit_status read_dtype(knit_reader *r, const cJSON *item, tensor *t) {
	const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "dtype");
	char shown[KNIT_PRINTABLE_BYTES];

	if (!cJSON_IsString(name))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "dtype is missing or no string");
	for (t->dtype = 0; t->dtype < DTYPE_COUNT; ++t->dtype)
		if (strcmp(dtypes[t->dtype].name, name->valuestring) == 0)
			break;
	knit__printable(shown, name->valuestring, strlen(name->valuestring));
	if (t->dtype == DTYPE_COUNT)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "unknown dtype '%s'", shown);
	if (dtypes[t->dtype].use == USE_REFUSE)
		return knit__reader_fail(r, KNIT_ERR_UNSUPPORTED, "dtype %s is not supported; convert it to F32, F16 or BF16",
		                         shown);
	return KNIT_OK;
}

/* Outermost first, as knit has it; no dimensions mean one element. rank counts all, dims holds the first ones. */
static knit_status read_shape(knit_reader *r, const cJSON *item, int *rank, int64_t *dims, uint64_t *elements) {
	const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *dim;
	uint64_t n;

	if (!cJSON_IsArray(shape))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "shape is missing or no array");
	*elements = 1;
	*rank = 0;
	cJSON_ArrayForEach(dim, shape) {
		if (!number_of(dim, &n))
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "shape holds something else than a number");
		if (!knit__mul_u64(*elements, n, elements) || *elements > INT64_MAX)
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "shape has more elements than any file");
		if (*rank < KNIT_MAX_RANK)
			dims[*rank] = (int64_t)n;
		++*rank;
	}
	if (*rank == 0)
		dims[(*rank)++] = 1;
	return KNIT_OK;
}

static knit_status read_tensor(knit_reader *r, const cJSON *item, uint64_t data_bytes, tensor *t) {
	const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
	int64_t dims[KNIT_MAX_RANK];
	uint64_t elements, bytes;
	int rank;

	t->item = item;
	if (!cJSON_IsObject(item))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "is no object");
	knit_status status = read_dtype(r, item, t);
	if (status == KNIT_OK)
		status = read_shape(r, item, &rank, dims, &elements);
	if (status != KNIT_OK)
		return status;
	if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !number_of(offsets->child, &t->begin) ||
	    !number_of(offsets->child->next, &t->end))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "data_offsets is missing or no array of two numbers");
	if (t->begin > t->end || t->end > data_bytes)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "data_offsets [%llu, %llu] do not lie in the %llu bytes of data",
		                         (unsigned long long)t->begin, (unsigned long long)t->end,
		                         (unsigned long long)data_bytes);
	if (!knit__mul_u64(elements, dtypes[t->dtype].bytes, &bytes) || bytes != t->end - t->begin)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "shape and dtype need %llu elements of %llu bytes, data_offsets give %llu bytes",
		                         (unsigned long long)elements, (unsigned long long)dtypes[t->dtype].bytes,
		                         (unsigned long long)(t->end - t->begin));
	return KNIT_OK;
}

static knit_status add_tensor(knit_reader *r, knit_model_file *file, const tensor *t, const uint8_t *data) {
	const char *name = t->item->string;
	int64_t dims[KNIT_MAX_RANK];
	uint64_t elements;
	knit_diag d = {0};
	int rank;

	if (!*name)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "a tensor without a name");
	if (strlen(name) > KNIT_LIMIT_NAME_BYTES)
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "a name of %zu bytes, the limit is %llu", strlen(name),
		                         (unsigned long long)KNIT_LIMIT_NAME_BYTES);
	knit_status status = read_shape(r, t->item, &rank, dims, &elements);
	if (status != KNIT_OK)
		return status;
	if (dtypes[t->dtype].use == USE_SKIP) {
		status = knit__model_file_skip(file, name, dtypes[t->dtype].name, &d);
	} else if (rank > KNIT_MAX_RANK) {
		return knit__reader_fail(r, KNIT_ERR_LIMIT, "%d dimensions, the limit is %d", rank, KNIT_MAX_RANK);
	} else if (knit__weights_get(file->store, name)) {
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "a second tensor of this name");
	} else {
		status = knit__model_file_add(file, name, dtypes[t->dtype].dtype, rank, dims, data + t->begin, t->end - t->begin, &d);
	}
	return status == KNIT_OK ? KNIT_OK : knit__reader_fail(r, status, "%s", d.text);
}

/* ---- the header -------------------------------------------------------------------------------------------------- */

static int compare_begins(const void *x, const void *y) {
	const tensor *a = x, *b = y;

	if (a->begin != b->begin)
		return a->begin < b->begin ? -1 : 1;
	return a->end < b->end ? -1 : a->end > b->end;
}

static void show_subject(knit_reader *r, const cJSON *item) {
	char shown[KNIT_PRINTABLE_BYTES];

	knit__reader_subject(r, "tensor '%s'", knit__printable(shown, item->string, strlen(item->string)));
}

/* The format allows neither gaps nor overlaps nor bytes after the last tensor: a file has one meaning only. */
static knit_status check_ranges(knit_reader *r, tensor *tensors, uint64_t count, uint64_t data_bytes) {
	uint64_t at = 0;

	qsort(tensors, (size_t)count, sizeof *tensors, compare_begins);
	for (uint64_t i = 0; i < count; ++i) {
		show_subject(r, tensors[i].item);
		if (tensors[i].begin != at)
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "data_offsets begin at %llu, %s byte %llu",
			                         (unsigned long long)tensors[i].begin,
			                         tensors[i].begin < at ? "inside another tensor, which ends at" : "after a gap from",
			                         (unsigned long long)at);
		at = tensors[i].end;
	}
	knit__reader_subject(r, "%s", "");
	if (at != data_bytes)
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "the tensors end at data byte %llu, the file has %llu",
		                         (unsigned long long)at, (unsigned long long)data_bytes);
	return KNIT_OK;
}

static knit_status add_metadata(knit_reader *r, knit_metadata *m, const cJSON *object) {
	const cJSON *item;
	knit_diag d = {0};

	knit__reader_subject(r, "__metadata__");
	if (!cJSON_IsObject(object))
		return knit__reader_fail(r, KNIT_ERR_FORMAT, "is no object");
	cJSON_ArrayForEach(item, object) {
		if (!cJSON_IsString(item))
			return knit__reader_fail(r, KNIT_ERR_FORMAT, "holds something else than strings");
		if (strlen(item->string) > KNIT_LIMIT_KEY_BYTES)
			return knit__reader_fail(r, KNIT_ERR_LIMIT, "a key of %zu bytes, the limit is %llu", strlen(item->string),
			                         (unsigned long long)KNIT_LIMIT_KEY_BYTES);
		const knit_status status =
			knit__metadata_add_string(m, item->string, item->valuestring, strlen(item->valuestring), &d);
		if (status != KNIT_OK)
			return knit__reader_fail(r, status, "%s", d.text);
	}
	return KNIT_OK;
}

/* `tensors` has room for every member of the root. */
static knit_status read_members(knit_reader *r, knit_model_file *file, const cJSON *root, tensor *tensors,
                                const uint8_t *data, uint64_t data_bytes) {
	knit_status status = KNIT_OK;
	uint64_t count = 0;
	bool has_metadata = false;
	const cJSON *item;

	cJSON_ArrayForEach(item, root) {
		if (strcmp(item->string, "__metadata__") == 0) {
			if (has_metadata)
				return knit__reader_fail(r, KNIT_ERR_FORMAT, "__metadata__ occurs twice");
			has_metadata = true;
			status = add_metadata(r, &file->metadata, item);
		} else if (count == KNIT_LIMIT_TENSORS) {
			return knit__reader_fail(r, KNIT_ERR_LIMIT, "more than %llu tensors", (unsigned long long)KNIT_LIMIT_TENSORS);
		} else {
			show_subject(r, item);
			status = read_tensor(r, item, data_bytes, &tensors[count++]);
		}
		if (status != KNIT_OK)
			return status;
	}
	status = check_ranges(r, tensors, count, data_bytes);
	for (uint64_t i = 0; i < count && status == KNIT_OK; ++i) {
		show_subject(r, tensors[i].item);
		status = add_tensor(r, file, &tensors[i], data);
	}
	return status;
}

static knit_status read_root(knit_reader *r, knit_model_file *file, const cJSON *root, const uint8_t *data,
                             uint64_t data_bytes) {
	const knit_allocator *a = &file->ctx->a;
	const uint64_t members = (uint64_t)cJSON_GetArraySize(root);

	tensor *tensors = knit__alloc_array(a, (size_t)members, sizeof *tensors);
	if (!tensors)
		return knit__fail_memory(r->diag, "the tensor table", members * sizeof *tensors);

	const knit_status status = read_members(r, file, root, tensors, data, data_bytes);
	knit__free(a, tensors, (size_t)members * sizeof *tensors);
	return status;
}

knit_status knit__safetensors_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag) {
	uint64_t end;
	knit_reader r;

	knit__reader_init(&r, "safetensors", data, bytes, diag);
	const uint64_t header_bytes = knit__reader_u64(&r, "header length");
	if (r.status == KNIT_OK && header_bytes > KNIT_LIMIT_JSON_BYTES)
		return knit__reader_fail(&r, KNIT_ERR_LIMIT, "a header of %llu bytes, the limit is %llu",
		                         (unsigned long long)header_bytes, (unsigned long long)KNIT_LIMIT_JSON_BYTES);
	const uint8_t *text = knit__reader_take(&r, header_bytes, "header");
	if (!text)
		return r.status;

	/* The header alone: the scan must not look into the data. */
	knit_reader header = r;
	header.bytes = LENGTH_BYTES + header_bytes;
	header.at = header.field_at = LENGTH_BYTES;
	knit_status status = knit__json_scan(&header);
	if (status != KNIT_OK)
		return status;

	cJSON *root = knit__json_parse(text, header_bytes, &end);
	r.field_at = LENGTH_BYTES + end;
	if (!root)
		return knit__reader_fail(&r, KNIT_ERR_FORMAT, "the header is no valid JSON");
	for (; end < header_bytes; ++end)
		if (!strchr(" \t\r\n", text[end]) || !text[end])
			break;
	r.field_at = end < header_bytes ? LENGTH_BYTES + end : LENGTH_BYTES;
	if (end < header_bytes)
		status = knit__reader_fail(&r, KNIT_ERR_FORMAT, "text after the end of the header's object");
	else if (!cJSON_IsObject(root))
		status = knit__reader_fail(&r, KNIT_ERR_FORMAT, "the header is no object");
	else
		status = read_root(&r, file, root, data + LENGTH_BYTES + header_bytes, bytes - LENGTH_BYTES - header_bytes);
	cJSON_Delete(root);
	return status;
}
