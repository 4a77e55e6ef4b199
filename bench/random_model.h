/* Owns the making of a model file of a given shape with random weights, for the bench and for a peer that is to run the
 * very same file. */
#ifndef KNIT_BENCH_RANDOM_MODEL_H
#define KNIT_BENCH_RANDOM_MODEL_H

#include "../graph/base.h"
#include "shape.h"

/* Writes a GGUF: architecture llama, or knit where the shape has visits or a LoRA. Matrices are normal with deviation
 * 0.02, norms near 1; the same shape gives the same bytes. progress as in knit_gguf_write_desc, may be NULL. The file appears when it is
 * complete. */
knit_status bench_random_model(const knit_allocator *a, const bench_shape *shape, const char *path,
                               bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                               uint64_t *file_bytes, knit_diag *diag);

#endif
