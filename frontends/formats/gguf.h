/* Owns the reading of GGUF v2 and v3 into a store and metadata. Knows no architecture. */
#ifndef KNIT_FORMATS_GGUF_H
#define KNIT_FORMATS_GGUF_H

#include "model_file.h"

/* Whether the bytes begin as a GGUF file does. */
bool knit__gguf_matches(const uint8_t *data, uint64_t bytes);
knit_status knit__gguf_read(knit_model_file *file, const uint8_t *data, uint64_t bytes, knit_diag *diag);

#endif
