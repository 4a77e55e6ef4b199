/* Owns the description of a llama-like decoder: sizes, visits, LoRA, read from a file's metadata and checked against
 * its tensors. Knows no graph and no device. */
#ifndef KNIT_CONFIG_H
#define KNIT_CONFIG_H

#include "names.h"

#include "../../graph/weights.h"
#include "../formats/metadata.h"

/* Limits on what a file may ask for; one past each is refused with LIMIT. */
enum {
	KNIT__MAX_LAYERS = 1024,
	KNIT__MAX_VISITS = 1024,
	KNIT__MAX_WIDTH = 1 << 20, /* embedding and feed-forward length */
	KNIT__MAX_HEADS = 4096,
	KNIT__MAX_CONTEXT = 1 << 24,
	KNIT__MAX_LORA_RANK = 4096,
};

typedef struct knit__decoder_config {
	char architecture[32];
	knit__name_style names;
	int64_t dim, ffn, heads, kv_heads, head_dim, vocab, context;
	uint32_t layers;
	float rms_eps;
	knit_rope_desc rope;
	bool tied;                         /* no output matrix in the file: the head is token_embd */
	uint16_t visits[KNIT__MAX_VISITS]; /* visit v runs layer visits[v] */
	uint32_t visit_count;
	int64_t lora_rank; /* 0: the model has no LoRA */
	float lora_scale;  /* alpha / rank */
	knit__name_style lora_names;
} knit__decoder_config;

/* Reads and checks everything that can be checked without building: keys, ranges, divisibility, presence and shapes of
 * every tensor of every layer. FORMAT, LIMIT, NOT_FOUND, SHAPE or UNSUPPORTED; the message says what was found,
 * what is needed and what to do. */
knit_status knit__decoder_config_read(const knit_metadata *metadata, const knit_weights *weights,
									  knit__decoder_config *out, knit_diag *diag);

/* Replaces the visits ("0,1,2,2,2,3,4"). A model's own LoRA belongs to its own visits: it is dropped, which `*dropped`
 * reports (may be NULL). ARGUMENT for a bad list. */
knit_status knit__decoder_config_visits(knit__decoder_config *c, const char *list, bool *dropped, knit_diag *diag);

/* Reads rank, alpha and (where it has one) the schedule of visits of an adapter file and checks its matrices against
 * the model. */
knit_status knit__decoder_config_adapter(knit__decoder_config *c, const knit_metadata *metadata,
										 const knit_weights *adapter, knit_diag *diag);

/* Rows and columns that a weight must have; columns 0 means a vector. */
void knit__decoder_part_shape(const knit__decoder_config *c, knit__part part, int64_t *rows, int64_t *columns);

/* Parameters stored in the layers that are visited plus embedding, norms and head (unique), the same counted once per
 * visit (visited), and those of the LoRA matrices. */
typedef struct knit__decoder_parameters {
	uint64_t unique, visited, lora;
} knit__decoder_parameters;
void knit__decoder_count_parameters(const knit__decoder_config *c, const knit_weights *base,
									const knit_weights *adapters, knit__decoder_parameters *out);

/* Bytes of KV cache that one position takes over all visits. */
uint64_t knit__decoder_kv_bytes(const knit__decoder_config *c, knit_dtype kv);

#endif
