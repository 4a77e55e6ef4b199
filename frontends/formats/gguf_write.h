/* Owns the writing of GGUF v3. Knows no architecture: keys and tensors are written as they are given. */
#ifndef KNIT_FORMATS_GGUF_WRITE_H
#define KNIT_FORMATS_GGUF_WRITE_H

#include "metadata.h"

/* A tensor of the file. same_as: the index of an earlier tensor whose bytes it names too; its own index: bytes of its
 * own. */
typedef struct knit_gguf_out {
	const char *name;
	knit_dtype dtype;
	int rank;
	int64_t dims[KNIT_MAX_RANK]; /* outermost first */
	const void *data; /* NULL: the description's fill makes the bytes */
	uint64_t bytes;
	uint32_t same_as;
} knit_gguf_out;

typedef struct knit_gguf_write_desc {
	const knit_metadata *metadata; /* a general.alignment in it is obeyed */
	const knit_gguf_out *tensors;
	uint32_t count;
	/* Called between pieces of the data; false: stop, the file is not written. May be NULL. */
	bool (*progress)(void *user, uint64_t done, uint64_t total);
	/* Makes `bytes` bytes of tensor number `tensor` from byte `at` on. Called in rising order. */
	void (*fill)(void *user, uint32_t tensor, uint64_t at, void *out, size_t bytes);
	void *user;
} knit_gguf_write_desc;

/* Bytes lie in the order of the tensors, without gaps but for the alignment. The file appears under `path` when it is complete;
 * *file_bytes is its size. IO, MEMORY, LIMIT (a name of more than 63 bytes), ARGUMENT; STATE, without a text, where
 * progress stopped it. */
knit_status knit__gguf_write(const knit_allocator *a, const char *path, const knit_gguf_write_desc *desc,
                             uint64_t *file_bytes, knit_diag *diag);

#endif
