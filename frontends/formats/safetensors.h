/* Owns the reading of safetensors files into a store and metadata. Tensors keep the names that they have in the file. */
#ifndef KNIT_FORMATS_SAFETENSORS_H
#define KNIT_FORMATS_SAFETENSORS_H

#include "model_file.h"

/* Whether the bytes begin as a safetensors file does: a length, then '{'. */
bool knit__safetensors_matches(const uint8_t *data, uint64_t bytes);
knit_status knit__safetensors_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag);

#endif
