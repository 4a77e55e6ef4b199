/* Owns the typed key-values of an opened model file, looked up by key. Knows no file format and no key by name. */
#ifndef KNIT_FORMATS_METADATA_H
#define KNIT_FORMATS_METADATA_H

#include "../../graph/base.h"

typedef enum knit_metadata_type {
	KNIT_METADATA_NONE = 0,
	KNIT_METADATA_U8,
	KNIT_METADATA_I8,
	KNIT_METADATA_U16,
	KNIT_METADATA_I16,
	KNIT_METADATA_U32,
	KNIT_METADATA_I32,
	KNIT_METADATA_U64,
	KNIT_METADATA_I64,
	KNIT_METADATA_F32,
	KNIT_METADATA_F64,
	KNIT_METADATA_BOOL,
	KNIT_METADATA_STRING,
} knit_metadata_type;

/* One key with its value, or its array of values of one type. Everything is owned by the metadata. */
typedef struct knit_metadata_entry {
	char *key;
	knit_metadata_type type; /* of the value or of the elements */
	bool is_array;
	uint64_t count;         /* elements; 1 for a plain value */
	uint8_t *data;          /* little-endian elements; for strings all texts one after the other, each terminated */
	uint64_t *string_begin; /* strings: begin of each text in `data`, and the end of the last: count + 1 numbers */
	size_t data_bytes;
} knit_metadata_entry;

typedef struct knit_metadata {
	const knit_allocator *a;
	knit_metadata_entry *entries; /* in the file's order */
	uint32_t *table;              /* key -> index + 1, open addressing */
	uint32_t count, cap, table_cap;
} knit_metadata;

/* A piece of text that need not be terminated and may hold any byte. */
typedef struct knit_metadata_text {
	const char *text;
	uint64_t bytes;
} knit_metadata_text;

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Each of these answers NOT_FOUND, silently, if the key is absent (*out untouched), and FORMAT, with a text, if the value is of
 * another type, an array, or does not fit. Integer widths and signedness do not matter where the value fits. */
knit_status knit__metadata_u64(const knit_metadata *m, const char *key, uint64_t *out, knit_diag *diag);
knit_status knit__metadata_i64(const knit_metadata *m, const char *key, int64_t *out, knit_diag *diag);
/* f32 or f64, or an integer. */
knit_status knit__metadata_f64(const knit_metadata *m, const char *key, double *out, knit_diag *diag);
knit_status knit__metadata_bool(const knit_metadata *m, const char *key, bool *out, knit_diag *diag);
/* The text is terminated and lives as long as the metadata; a text with an embedded NUL is a FORMAT error here. */
knit_status knit__metadata_string(const knit_metadata *m, const char *key, const char **out, knit_diag *diag);
/* An array of any type, to be read with the _at functions. */
knit_status knit__metadata_array(const knit_metadata *m, const char *key, const knit_metadata_entry **out, knit_diag *diag);

/* NULL if there is none. */
const knit_metadata_entry *knit__metadata_find(const knit_metadata *m, const char *key);

/* Element i of an entry (0 for a plain value). False if i is out of range, or the type differs or does not fit. */
bool knit__metadata_u64_at(const knit_metadata_entry *e, uint64_t i, uint64_t *out);
bool knit__metadata_i64_at(const knit_metadata_entry *e, uint64_t i, int64_t *out);
bool knit__metadata_f64_at(const knit_metadata_entry *e, uint64_t i, double *out);
bool knit__metadata_bool_at(const knit_metadata_entry *e, uint64_t i, bool *out);
/* The text is followed by a terminator. */
bool knit__metadata_string_at(const knit_metadata_entry *e, uint64_t i, knit_metadata_text *out);

/* "u32", "string" ... */
const char *knit__metadata_type_name(knit_metadata_type type);
/* Bytes of one element; 0 for strings. */
size_t knit__metadata_type_bytes(knit_metadata_type type);

/* ---- filling (file readers) -------------------------------------------------------------------------------------- */

void knit__metadata_init(knit_metadata *m, const knit_allocator *a);
void knit__metadata_clear(knit_metadata *m);

/* These copy. FORMAT for a key that is there already, LIMIT for too many, MEMORY. `data` holds `count` little-endian
 * elements; is_array false needs count 1. Type STRING goes through _add_strings. */
knit_status knit__metadata_add(knit_metadata *m, const char *key, knit_metadata_type type, bool is_array, uint64_t count,
                               const void *data, knit_diag *diag);
/* Makes an entry of `count` strings that hold `text_bytes` bytes together, to be filled with _string_put in order. */
knit_status knit__metadata_add_strings(knit_metadata *m, const char *key, bool is_array, uint64_t count,
                                       uint64_t text_bytes, knit_metadata_entry **out, knit_diag *diag);
void knit__metadata_string_put(knit_metadata_entry *e, uint64_t i, const void *text, uint64_t bytes);
/* Shorthands for plain values. */
knit_status knit__metadata_add_u32(knit_metadata *m, const char *key, uint32_t value, knit_diag *diag);
knit_status knit__metadata_add_f32(knit_metadata *m, const char *key, float value, knit_diag *diag);
knit_status knit__metadata_add_string(knit_metadata *m, const char *key, const void *text, uint64_t bytes, knit_diag *diag);

#endif
