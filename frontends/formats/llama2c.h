/* Owns the reading of llama2.c model files, v0 and v1, into a store with GGUF tensor names and metadata with GGUF keys. */
#ifndef KNIT_FORMATS_LLAMA2C_H
#define KNIT_FORMATS_LLAMA2C_H

#include "model_file.h"

/* Whether the bytes begin with the magic of v1 and later, or with seven plausible header fields of v0 (which has no
 * magic). */
bool knit__llama2c_matches(const uint8_t *data, uint64_t bytes);
knit_status knit__llama2c_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag);

#endif
