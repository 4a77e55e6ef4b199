/* Owns the typed key-values of an opened model file. Knows no file format and no key by name. */
#include "metadata.h"

#include "limits.h"
#include "reader.h"

#include <string.h>

static const struct {
	const char *name;
	size_t bytes;
} types[] = {
	[KNIT_METADATA_NONE] = {"none", 0},     [KNIT_METADATA_U8] = {"u8", 1},   [KNIT_METADATA_I8] = {"i8", 1},
	[KNIT_METADATA_U16] = {"u16", 2},       [KNIT_METADATA_I16] = {"i16", 2}, [KNIT_METADATA_U32] = {"u32", 4},
	[KNIT_METADATA_I32] = {"i32", 4},       [KNIT_METADATA_U64] = {"u64", 8}, [KNIT_METADATA_I64] = {"i64", 8},
	[KNIT_METADATA_F32] = {"f32", 4},       [KNIT_METADATA_F64] = {"f64", 8}, [KNIT_METADATA_BOOL] = {"bool", 1},
	[KNIT_METADATA_STRING] = {"string", 0},
};

const char *knit__metadata_type_name(knit_metadata_type type) {
	return (size_t)type < sizeof types / sizeof types[0] ? types[type].name : "?";
}

size_t knit__metadata_type_bytes(knit_metadata_type type) {
	return (size_t)type < sizeof types / sizeof types[0] ? types[type].bytes : 0;
}

void knit__metadata_init(knit_metadata *m, const knit_allocator *a) { *m = (knit_metadata){.a = a}; }

static void entry_clear(const knit_allocator *a, knit_metadata_entry *e) {
	if (e->key)
		knit__free(a, e->key, strlen(e->key) + 1);
	knit__free(a, e->data, e->data_bytes);
	if (e->string_begin)
		knit__free(a, e->string_begin, ((size_t)e->count + 1) * sizeof *e->string_begin);
}

void knit__metadata_clear(knit_metadata *m) {
	for (uint32_t i = 0; i < m->count; ++i)
		entry_clear(m->a, &m->entries[i]);
	if (m->a) {
		knit__free(m->a, m->entries, m->cap * sizeof *m->entries);
		knit__free(m->a, m->table, m->table_cap * sizeof *m->table);
	}
	*m = (knit_metadata){.a = m->a};
}

/* ---- lookup ------------------------------------------------------------------------------------------------------ */

/* The table is at most half full, so the search always ends. */
static uint32_t *slot_of(const knit_metadata *m, const char *key) {
	uint32_t i = (uint32_t)knit__hash(KNIT__HASH_SEED, key, strlen(key)) & (m->table_cap - 1);

	while (m->table[i] && strcmp(m->entries[m->table[i] - 1].key, key) != 0)
		i = (i + 1) & (m->table_cap - 1);
	return &m->table[i];
}

const knit_metadata_entry *knit__metadata_find(const knit_metadata *m, const char *key) {
	const uint32_t index = m->table_cap ? *slot_of(m, key) : 0;

	return index ? &m->entries[index - 1] : NULL;
}

static bool table_make_room(knit_metadata *m) {
	if ((m->count + 1) * 2 <= m->table_cap)
		return true;

	knit_metadata next = *m;
	next.table_cap = m->table_cap ? m->table_cap * 2 : 32;
	next.table = knit__alloc_array(m->a, next.table_cap, sizeof *next.table);
	if (!next.table)
		return false;
	for (uint32_t i = 0; i < m->count; ++i)
		*slot_of(&next, m->entries[i].key) = i + 1;
	knit__free(m->a, m->table, m->table_cap * sizeof *m->table);
	*m = next;
	return true;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

static bool is_integer(knit_metadata_type type) { return type >= KNIT_METADATA_U8 && type <= KNIT_METADATA_I64; }

/* The bits of integer element i, sign-extended for the signed types. */
static uint64_t integer_bits(const knit_metadata_entry *e, uint64_t i) {
	const size_t bytes = types[e->type].bytes;
	uint64_t v = 0;

	memcpy(&v, e->data + i * bytes, bytes);
	switch (e->type) {
	case KNIT_METADATA_I8:
		return (uint64_t)(int64_t)(int8_t)v;
	case KNIT_METADATA_I16:
		return (uint64_t)(int64_t)(int16_t)v;
	case KNIT_METADATA_I32:
		return (uint64_t)(int64_t)(int32_t)v;
	default:
		return v;
	}
}

static bool is_signed(knit_metadata_type type) {
	return type == KNIT_METADATA_I8 || type == KNIT_METADATA_I16 || type == KNIT_METADATA_I32 || type == KNIT_METADATA_I64;
}

bool knit__metadata_u64_at(const knit_metadata_entry *e, uint64_t i, uint64_t *out) {
	if (i >= e->count || !is_integer(e->type))
		return false;

	const uint64_t v = integer_bits(e, i);
	if (is_signed(e->type) && v > INT64_MAX)
		return false;
	*out = v;
	return true;
}

bool knit__metadata_i64_at(const knit_metadata_entry *e, uint64_t i, int64_t *out) {
	if (i >= e->count || !is_integer(e->type))
		return false;

	const uint64_t v = integer_bits(e, i);
	if (!is_signed(e->type) && v > INT64_MAX)
		return false;
	*out = (int64_t)v;
	return true;
}

bool knit__metadata_f64_at(const knit_metadata_entry *e, uint64_t i, double *out) {
	float f;

	if (i >= e->count)
		return false;
	if (e->type == KNIT_METADATA_F32) {
		memcpy(&f, e->data + i * sizeof f, sizeof f);
		*out = (double)f;
		return true;
	}
	if (e->type == KNIT_METADATA_F64) {
		memcpy(out, e->data + i * sizeof *out, sizeof *out);
		return true;
	}
	if (!is_integer(e->type))
		return false;

	const uint64_t v = integer_bits(e, i);
	*out = is_signed(e->type) ? (double)(int64_t)v : (double)v;
	return true;
}

bool knit__metadata_bool_at(const knit_metadata_entry *e, uint64_t i, bool *out) {
	if (i >= e->count || e->type != KNIT_METADATA_BOOL)
		return false;

	*out = e->data[i] != 0;
	return true;
}

bool knit__metadata_string_at(const knit_metadata_entry *e, uint64_t i, knit_metadata_text *out) {
	if (i >= e->count || e->type != KNIT_METADATA_STRING)
		return false;

	out->text = (const char *)e->data + e->string_begin[i];
	out->bytes = e->string_begin[i + 1] - e->string_begin[i] - 1;
	return true;
}

/* ---- plain values by key ----------------------------------------------------------------------------------------- */

static knit_status mismatch(const knit_metadata_entry *e, const char *wanted, knit_diag *diag) {
	char key[KNIT_PRINTABLE_BYTES];

	return knit__fail(diag, KNIT_ERR_FORMAT, 0, "metadata '%s' is %s%s, %s is needed",
	                  knit__printable(key, e->key, strlen(e->key)), e->is_array ? "an array of " : "of type ",
	                  knit__metadata_type_name(e->type), wanted);
}

knit_status knit__metadata_u64(const knit_metadata *m, const char *key, uint64_t *out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (e->is_array || !knit__metadata_u64_at(e, 0, out))
		return mismatch(e, "an integer that is not negative", diag);
	return KNIT_OK;
}

knit_status knit__metadata_i64(const knit_metadata *m, const char *key, int64_t *out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (e->is_array || !knit__metadata_i64_at(e, 0, out))
		return mismatch(e, "an integer below 2^63", diag);
	return KNIT_OK;
}

knit_status knit__metadata_f64(const knit_metadata *m, const char *key, double *out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (e->is_array || !knit__metadata_f64_at(e, 0, out))
		return mismatch(e, "a number", diag);
	return KNIT_OK;
}

knit_status knit__metadata_bool(const knit_metadata *m, const char *key, bool *out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (e->is_array || !knit__metadata_bool_at(e, 0, out))
		return mismatch(e, "a bool", diag);
	return KNIT_OK;
}

knit_status knit__metadata_string(const knit_metadata *m, const char *key, const char **out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);
	knit_metadata_text text;

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (e->is_array || !knit__metadata_string_at(e, 0, &text))
		return mismatch(e, "a string", diag);
	if (memchr(text.text, 0, text.bytes))
		return mismatch(e, "a string without NUL bytes", diag);
	*out = text.text;
	return KNIT_OK;
}

knit_status knit__metadata_array(const knit_metadata *m, const char *key, const knit_metadata_entry **out, knit_diag *diag) {
	const knit_metadata_entry *e = knit__metadata_find(m, key);

	if (!e)
		return KNIT_ERR_NOT_FOUND;
	if (!e->is_array)
		return mismatch(e, "an array", diag);
	*out = e;
	return KNIT_OK;
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

/* Adds an entry that has its key and `data_bytes` uninitialised bytes, and for strings the table of their begins. */
static knit_status add_entry(knit_metadata *m, const char *key, knit_metadata_type type, bool is_array, uint64_t count,
                             uint64_t data_bytes, knit_metadata_entry **out, knit_diag *diag) {
	char shown[KNIT_PRINTABLE_BYTES];
	const size_t key_bytes = strlen(key) + 1;

	if (knit__metadata_find(m, key))
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "metadata key '%s' occurs twice",
		                  knit__printable(shown, key, key_bytes - 1));
	if (m->count >= KNIT_LIMIT_METADATA_ENTRIES)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "more than %llu metadata keys",
		                  (unsigned long long)KNIT_LIMIT_METADATA_ENTRIES);
	if (data_bytes > SIZE_MAX || count >= SIZE_MAX / sizeof(uint64_t))
		return knit__fail_memory(diag, "a metadata value", data_bytes);
	if (!table_make_room(m) || !knit__grow(m->a, (void **)&m->entries, &m->cap, m->count + 1, sizeof *m->entries))
		return knit__fail_memory(diag, "the metadata table", (m->count + 1) * sizeof *m->entries);

	knit_metadata_entry e = {.type = type, .is_array = is_array, .count = count, .data_bytes = (size_t)data_bytes};
	e.key = knit__alloc(m->a, key_bytes);
	e.data = knit__alloc(m->a, e.data_bytes);
	if (type == KNIT_METADATA_STRING)
		e.string_begin = knit__alloc_array(m->a, (size_t)count + 1, sizeof *e.string_begin);
	if (!e.key || !e.data || (type == KNIT_METADATA_STRING && !e.string_begin)) {
		knit__free(m->a, e.key, key_bytes);
		e.key = NULL; /* not filled yet: entry_clear would measure it */
		entry_clear(m->a, &e);
		return knit__fail_memory(diag, "a metadata value", data_bytes);
	}
	memcpy(e.key, key, key_bytes);
	m->entries[m->count] = e;
	*slot_of(m, key) = m->count + 1;
	*out = &m->entries[m->count++];
	return KNIT_OK;
}

knit_status knit__metadata_add(knit_metadata *m, const char *key, knit_metadata_type type, bool is_array, uint64_t count,
                               const void *data, knit_diag *diag) {
	knit_metadata_entry *e;
	uint64_t bytes;

	if (knit__metadata_type_bytes(type) == 0 || (!is_array && count != 1) ||
	    !knit__mul_u64(count, knit__metadata_type_bytes(type), &bytes))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "metadata '%s': bad type or count", key);

	const knit_status status = add_entry(m, key, type, is_array, count, bytes, &e, diag);
	if (status == KNIT_OK && bytes)
		memcpy(e->data, data, (size_t)bytes);
	return status;
}

knit_status knit__metadata_add_strings(knit_metadata *m, const char *key, bool is_array, uint64_t count,
                                       uint64_t text_bytes, knit_metadata_entry **out, knit_diag *diag) {
	uint64_t bytes;

	if ((!is_array && count != 1) || !knit__add_u64(text_bytes, count, &bytes))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "metadata '%s': bad count", key);
	return add_entry(m, key, KNIT_METADATA_STRING, is_array, count, bytes, out, diag);
}

void knit__metadata_string_put(knit_metadata_entry *e, uint64_t i, const void *text, uint64_t bytes) {
	uint8_t *to = e->data + e->string_begin[i];

	if (bytes)
		memcpy(to, text, (size_t)bytes);
	to[bytes] = 0;
	e->string_begin[i + 1] = e->string_begin[i] + bytes + 1;
}

knit_status knit__metadata_add_u32(knit_metadata *m, const char *key, uint32_t value, knit_diag *diag) {
	return knit__metadata_add(m, key, KNIT_METADATA_U32, false, 1, &value, diag);
}

knit_status knit__metadata_add_f32(knit_metadata *m, const char *key, float value, knit_diag *diag) {
	return knit__metadata_add(m, key, KNIT_METADATA_F32, false, 1, &value, diag);
}

knit_status knit__metadata_add_string(knit_metadata *m, const char *key, const void *text, uint64_t bytes,
                                      knit_diag *diag) {
	knit_metadata_entry *e;
	const knit_status status = knit__metadata_add_strings(m, key, false, 1, bytes, &e, diag);

	if (status == KNIT_OK)
		knit__metadata_string_put(e, 0, text, bytes);
	return status;
}
