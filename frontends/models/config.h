/* Owns the description of a llama-like decoder: sizes, visits, LoRA, read from a file's metadata and checked against
 * its tensors. Knows no graph and no device. */
#ifndef KNIT_CONFIG_H
#define KNIT_CONFIG_H

#include "kv.h"
#include "names.h"

#include "../../graph/weights.h"
#include "../formats/metadata.h"

/* Limits on what a file may ask for, with those of visits.h; one past each is refused with LIMIT. */
enum {
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
	knit__loop_shape loops;                /* of these visits */
	knit__visit_list model_visits;         /* what the file, or its adapter, was made for */
	uint16_t stands_for[KNIT__MAX_VISITS]; /* visit of model_visits whose LoRA and norms visit v has, or KNIT__NO_VISIT */
	bool visit_norms, loop_norms;          /* the model has norms of single visits, after its loops */
	knit__kv_policy kv_policy, own_kv_policy; /* what runs; what the file says (KNIT__KV_MODEL: nothing, or own_kv) */
	uint32_t kv_group, own_kv_group;
	knit__kv_map own_kv;    /* from the file; count 0: it has none */
	uint64_t own_kv_visits; /* hash of the visits that it is for */
	int64_t lora_rank; /* 0: the model has no LoRA */
	float lora_scale;  /* alpha / rank */
	knit__name_style lora_names;
} knit__decoder_config;

/* Reads and checks everything that can be checked without building: keys, ranges, divisibility, presence and shapes of
 * every tensor of every layer. FORMAT, LIMIT, NOT_FOUND, SHAPE or UNSUPPORTED; the message says what was found,
 * what is needed and what to do. */
knit_status knit__decoder_config_read(const knit_metadata *metadata, const knit_weights *weights,
									  knit__decoder_config *out, knit_diag *diag);

/* Runs other visits than the model's: a list as of knit__visits_parse, or another number of loops. LoRA and norms of visits
 * go along as knit__visits_stand_for says. ARGUMENT for a bad list, UNSUPPORTED where loops cannot be told. */
knit_status knit__decoder_config_visits(knit__decoder_config *c, const char *list, knit_diag *diag);
knit_status knit__decoder_config_loops(knit__decoder_config *c, uint32_t loops, knit_diag *diag);
/* Whether the visits are others than the model's. Then *shared is how many of them have the LoRA and norms of a visit that an
 * earlier one has too, and *bare how many are of a layer that the model does not visit. */
bool knit__decoder_visits_changed(const knit__decoder_config *c, uint32_t *shared, uint32_t *bare);

/* Reads rank, alpha and (where it has one) the schedule of visits of an adapter file and checks its matrices against
 * the model. */
knit_status knit__decoder_config_adapter(knit__decoder_config *c, const knit_metadata *metadata,
										 const knit_weights *adapter, knit_diag *diag);

/* Rows and columns that a weight must have; columns 0 means a vector. */
void knit__decoder_part_shape(const knit__decoder_config *c, knit__part part, int64_t *rows, int64_t *columns);

/* The name of the weight that part `part` of visit `visit` uses: the layer's, or the visit's own norm where `weights` has
 * one. */
void knit__decoder_weight_name(const knit__decoder_config *c, const knit_weights *weights, knit__part part,
							   uint32_t visit, char out[KNIT__NAME_BYTES]);
/* The norm that follows a visit, because a loop ends there; false if there is none. With more loops than the model's, those
 * past its last have the last one's. */
bool knit__decoder_loop_norm_after(const knit__decoder_config *c, const knit_weights *weights, uint32_t visit,
								   char out[KNIT__NAME_BYTES]);

/* Parameters stored in the layers that are visited plus embedding, norms and head (unique), the same counted once per
 * visit (visited), and those of the LoRA matrices. */
typedef struct knit__decoder_parameters {
	uint64_t unique, visited, lora;
} knit__decoder_parameters;
/* Tensors with equal bytes count once in `unique`. MEMORY. */
knit_status knit__decoder_count_parameters(const knit__decoder_config *c, const knit_weights *base,
										   const knit_weights *adapters, knit__decoder_parameters *out);

/* The slots of the visits that run, under kv_policy. UNSUPPORTED where the file's own map is wanted and other visits run
 * than it is for. */
knit_status knit__decoder_kv_map(const knit__decoder_config *c, knit__kv_map *out, knit_diag *diag);
/* Whether the file's own policy lets any visit of this layer write keys and values: only then it needs the projections. */
bool knit__decoder_layer_writes_kv(const knit__decoder_config *c, uint32_t layer);
/* Bytes of KV cache that one position takes: slots * kv_heads * head_dim elements of keys and of values. */
uint64_t knit__decoder_kv_bytes(const knit__decoder_config *c, knit_dtype k, knit_dtype v);

#endif
