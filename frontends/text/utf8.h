/* Owns the cutting of a byte stream at UTF-8 characters, for text that arrives a token at a time. */
#ifndef KNIT_TEXT_UTF8_H
#define KNIT_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the sequence that a lead byte begins, 1 to 4; 0 for a byte that begins none. */
uint32_t knit__utf8_sequence_bytes(uint8_t lead);

/* Zero-initialise. Holds the begin of a character until the rest arrives. Bytes that cannot be part of a character
 * pass through unchanged and at once, so nothing is ever lost. */
typedef struct knit_utf8_stream {
	uint8_t held[4];
	uint32_t held_bytes;
} knit_utf8_stream;

typedef void (*knit_utf8_write)(void *user, const char *text, size_t bytes);

/* Writes all complete characters of what was held and `text`, in at most two calls. */
void knit__utf8_push(knit_utf8_stream *s, const char *text, size_t bytes, knit_utf8_write write, void *user);
/* Writes what is held, complete or not: the end of the text. */
void knit__utf8_flush(knit_utf8_stream *s, knit_utf8_write write, void *user);

#endif
