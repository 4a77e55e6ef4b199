/* Owns how bytes of an outside file are reached: the read-only mapping and a bounded little-endian reader over it.
 * Knows no file format. */
#ifndef KNIT_FORMATS_READER_H
#define KNIT_FORMATS_READER_H

#include "../../graph/base.h"

/* ---- the mapping ------------------------------------------------------------------------------------------------- */

typedef struct knit_mapping {
	const uint8_t *data; /* page-aligned */
	uint64_t bytes;
} knit_mapping;

/* Maps a regular, non-empty file read-only. NOT_FOUND, IO, FORMAT (empty). The file must not be shortened while it is
 * mapped: the operating system then ends the process that reads it. */
knit_status knit__mapping_open(const char *path, knit_mapping *out, knit_diag *diag);
/* In the form that knit__weights_own_mapping takes. */
void knit__mapping_close(void *data, uint64_t bytes);
/* The pages of a part of a mapping go back to the system; they are read from the file again when they are touched. */
void knit__mapping_forget(const void *data, uint64_t bytes);
/* All of a part will be read soon: its pages come at once and not one by one. */
void knit__mapping_expect(const void *data, uint64_t bytes);

/* ---- the reader -------------------------------------------------------------------------------------------------- */

/* Errors are sticky: after the first, reads return 0 and NULL and move nothing, and `status` keeps it. */
typedef struct knit_reader {
	const uint8_t *data;
	uint64_t bytes;
	uint64_t at;        /* the next byte to be read */
	uint64_t field_at;  /* where the last read field began: the offset that messages give */
	const char *format; /* "gguf": begins every message */
	char subject[80];   /* what is being read ("tensor 'a'"), may be empty */
	knit_diag *diag;    /* may be NULL */
	knit_status status;
} knit_reader;

void knit__reader_init(knit_reader *r, const char *format, const void *data, uint64_t bytes, knit_diag *diag);
/* Names what is read from here on. */
void knit__reader_subject(knit_reader *r, const char *fmt, ...) KNIT_PRINTF(2, 3);
/* Records "format: byte N: subject: text" and returns `status`; a failure that is there already is kept. */
knit_status knit__reader_fail(knit_reader *r, knit_status status, const char *fmt, ...) KNIT_PRINTF(3, 4);

static inline uint64_t knit__reader_remaining(const knit_reader *r) { return r->bytes - r->at; }

/* `field` is named in the message when the file ends too early. */
uint8_t knit__reader_u8(knit_reader *r, const char *field);
uint16_t knit__reader_u16(knit_reader *r, const char *field);
uint32_t knit__reader_u32(knit_reader *r, const char *field);
uint64_t knit__reader_u64(knit_reader *r, const char *field);
float knit__reader_f32(knit_reader *r, const char *field);
/* `bytes` bytes in place; NULL if fewer remain. */
const uint8_t *knit__reader_take(knit_reader *r, uint64_t bytes, const char *field);

/* ---- text for messages ------------------------------------------------------------------------------------------- */

#define KNIT_PRINTABLE_BYTES 52
/* A name from a file made fit for a one-line message: other than printable ASCII becomes '?', long names are cut.
 * Returns `out`. */
const char *knit__printable(char out[KNIT_PRINTABLE_BYTES], const void *text, uint64_t bytes);
/* Whether `bytes` bytes are well-formed UTF-8 (RFC 3629: no overlong forms, surrogates or values over U+10FFFF).
 * If not, *bad (may be NULL) is the offset of the first byte of the bad sequence. */
bool knit__utf8_valid(const void *text, uint64_t bytes, uint64_t *bad);

#endif
