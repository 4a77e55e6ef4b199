/* Owns a growing byte buffer with which tests make files, and small help to read and write files. */
#ifndef KNIT_TEST_BYTES_H
#define KNIT_TEST_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bytes {
	uint8_t *data;
	size_t count, cap;
} bytes;

void bytes_clear(bytes *b);
void bytes_put(bytes *b, const void *data, size_t count);
void bytes_u8(bytes *b, uint8_t v);
void bytes_u32(bytes *b, uint32_t v);
void bytes_u64(bytes *b, uint64_t v);
void bytes_f32(bytes *b, float v);
void bytes_text(bytes *b, const char *text); /* without its terminator */
void bytes_fill(bytes *b, uint8_t value, size_t count);

/* GGUF: the header, a key-value of each common type, a row of the tensor table, padding. */
void gguf_header(bytes *b, uint32_t version, uint64_t tensors, uint64_t key_values);
void gguf_string(bytes *b, const char *text);
void gguf_key_u32(bytes *b, const char *key, uint32_t value);
void gguf_key_string(bytes *b, const char *key, const char *value);
/* dims as in the file, innermost first. */
void gguf_tensor(bytes *b, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset);
void gguf_pad(bytes *b, size_t alignment);

/* safetensors: the header's length and text; the data follows with bytes_fill. */
void safetensors_header(bytes *b, const char *json);

/* The whole file; false if it cannot be read. */
bool bytes_load(bytes *b, const char *path);
/* Only where KNIT_TEST_DATA is defined: in the tests themselves. */
#ifdef KNIT_TEST_DATA
#include <stdio.h>
#include <sys/stat.h>

/* Whether the outside data is there; if not, prints "SKIP: ..." for `what`. */
static inline bool have_data(const char *what) {
	struct stat st;

	if (stat(KNIT_TEST_DATA, &st) == 0)
		return true;
	printf("SKIP: %s: %s is not there\n", what, KNIT_TEST_DATA);
	return false;
}
#define DATA(relative) KNIT_TEST_DATA "/" relative
#endif

#endif
