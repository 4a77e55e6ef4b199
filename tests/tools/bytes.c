/* Owns a growing byte buffer with which tests make files. Stops the program when memory runs out. */
#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bytes_clear(bytes *b) {
	free(b->data);
	*b = (bytes){0};
}

static uint8_t *room(bytes *b, size_t count) {
	if (b->cap - b->count < count) {
		b->cap = (b->cap + count) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	b->count += count;
	return b->data + b->count - count;
}

void bytes_put(bytes *b, const void *data, size_t count) {
	if (count)
		memcpy(room(b, count), data, count);
}

void bytes_fill(bytes *b, uint8_t value, size_t count) {
	if (count)
		memset(room(b, count), value, count);
}

void bytes_u8(bytes *b, uint8_t v) { bytes_put(b, &v, sizeof v); }
void bytes_u32(bytes *b, uint32_t v) { bytes_put(b, &v, sizeof v); }
void bytes_u64(bytes *b, uint64_t v) { bytes_put(b, &v, sizeof v); }
void bytes_f32(bytes *b, float v) { bytes_put(b, &v, sizeof v); }
void bytes_text(bytes *b, const char *text) { bytes_put(b, text, strlen(text)); }

void gguf_header(bytes *b, uint32_t version, uint64_t tensors, uint64_t key_values) {
	bytes_text(b, "GGUF");
	bytes_u32(b, version);
	bytes_u64(b, tensors);
	bytes_u64(b, key_values);
}

void gguf_string(bytes *b, const char *text) {
	bytes_u64(b, strlen(text));
	bytes_text(b, text);
}

void gguf_key_u32(bytes *b, const char *key, uint32_t value) {
	gguf_string(b, key);
	bytes_u32(b, 4);
	bytes_u32(b, value);
}

void gguf_key_string(bytes *b, const char *key, const char *value) {
	gguf_string(b, key);
	bytes_u32(b, 8);
	gguf_string(b, value);
}

void gguf_tensor(bytes *b, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset) {
	gguf_string(b, name);
	bytes_u32(b, rank);
	for (uint32_t i = 0; i < rank; ++i)
		bytes_u64(b, dims[i]);
	bytes_u32(b, type);
	bytes_u64(b, offset);
}

void gguf_pad(bytes *b, size_t alignment) { bytes_fill(b, 0, (alignment - b->count % alignment) % alignment); }

void safetensors_header(bytes *b, const char *json) {
	bytes_u64(b, strlen(json));
	bytes_text(b, json);
}

bool bytes_load(bytes *b, const char *path) {
	FILE *f = fopen(path, "rb");
	uint8_t part[65536];
	size_t n;

	*b = (bytes){0};
	if (!f)
		return false;
	while ((n = fread(part, 1, sizeof part, f)) > 0)
		bytes_put(b, part, n);
	fclose(f);
	return true;
}
