/* Owns the reading of a Hugging Face config.json into the keys that a GGUF file has. Knows no tensors. */
#ifndef KNIT_HF_CONFIG_H
#define KNIT_HF_CONFIG_H

#include "../formats/metadata.h"

/* Adds general.architecture, llama.* and knit.rope.layout = "split" (the layout of these files) to m. FORMAT for bad
 * JSON, UNSUPPORTED for a model type or an option that knit's decoder does not have. */
knit_status knit__hf_config_parse(const char *json, size_t bytes, knit_metadata *m, knit_diag *diag);
/* The same from config.json in the folder of `model_path`. NOT_FOUND, silently, if there is none. */
knit_status knit__hf_config_beside(const char *model_path, knit_metadata *m, knit_diag *diag);

#endif
