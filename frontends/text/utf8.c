/* Owns the cutting of a byte stream at UTF-8 characters. */
#include "utf8.h"

#include <stdbool.h>
#include <string.h>

uint32_t knit__utf8_sequence_bytes(uint8_t lead) {
	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

static bool is_continuation(uint8_t byte) { return (byte & 0xc0) == 0x80; }

/* Bytes at the end of the text that begin a character and lack its rest: 0 to 3. */
static size_t open_tail(const char *text, size_t bytes) {
	for (size_t back = 1; back <= 3 && back <= bytes; ++back) {
		const uint8_t byte = (uint8_t)text[bytes - back];

		if (!is_continuation(byte))
			return knit__utf8_sequence_bytes(byte) > back ? back : 0;
	}
	return 0;
}

void knit__utf8_push(knit_utf8_stream *s, const char *text, size_t bytes, knit_utf8_write write, void *user) {
	/* First what is held, with as many bytes as belong to it. */
	while (s->held_bytes > 0 && bytes > 0) {
		const bool goes_on = s->held_bytes < sizeof s->held && is_continuation((uint8_t)*text);

		if (goes_on) {
			s->held[s->held_bytes++] = (uint8_t)*text++;
			--bytes;
		}
		if (!goes_on || s->held_bytes == knit__utf8_sequence_bytes(s->held[0]))
			knit__utf8_flush(s, write, user);
	}

	const size_t tail = open_tail(text, bytes);
	if (bytes > tail)
		write(user, text, bytes - tail);
	memcpy(s->held + s->held_bytes, text + bytes - tail, tail);
	s->held_bytes += (uint32_t)tail;
}

void knit__utf8_flush(knit_utf8_stream *s, knit_utf8_write write, void *user) {
	if (s->held_bytes > 0)
		write(user, (const char *)s->held, s->held_bytes);
	s->held_bytes = 0;
}
