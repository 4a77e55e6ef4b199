/* Owns a small looped decoder with a LoRA on three projections of every visit, in every way in which adapters can get
 * there: none, compiled in, in slots, merged into weights of their own. For tests of adapters. */
#ifndef KNIT_TEST_ADAPTER_MODEL_H
#define KNIT_TEST_ADAPTER_MODEL_H

#include "knit.h"

enum {
	ADAPTER_DIM = 64,
	ADAPTER_HEADS = 2,
	ADAPTER_VOCAB = 48,
	ADAPTER_RANK = 8,
	ADAPTER_VISITS = 3,
	ADAPTER_SEQUENCES = 3,
	ADAPTER_POSITIONS = 16,
	ADAPTER_TOKENS = 8,
	ADAPTER_TENSORS = ADAPTER_VISITS * 3 * 2,
};
#define ADAPTER_SCALE 0.5f

typedef enum adapter_mode { ADAPTER_NONE, ADAPTER_BOUND, ADAPTER_SLOTS, ADAPTER_MERGED } adapter_mode;

typedef struct adapter_model {
	adapter_mode mode;
	knit_weights *base;
	knit_weights *adapter; /* ADAPTER_BOUND: compiled in; ADAPTER_MERGED: a store of adapter_model_merged */
	int64_t slots;         /* ADAPTER_SLOTS */
	knit_dtype dtype;      /* of slots; 0: f32 */
} adapter_model;

/* Base weights of type `dtype` (the embedding f32), the same for every call. NULL: out of memory, here and below. */
knit_weights *adapter_model_base(knit_context *ctx, knit_dtype dtype);
/* An adapter of type `dtype`, other numbers for another seed; b_range 0: B is zero, as before training. */
knit_weights *adapter_model_adapter(knit_context *ctx, knit_dtype dtype, uint32_t seed, float b_range);
/* The same without the tensor `skip`, or with it of another shape or type (one of them; NULL: nothing is wrong). */
knit_weights *adapter_model_spoiled(knit_context *ctx, const char *skip, const char *other_shape, const char *other_type);
/* W + s B A of every visit, in f32, from an f32 base and adapter. */
knit_weights *adapter_model_merged(knit_context *ctx, const knit_weights *base, const knit_weights *adapter);

/* Inputs ids, seq, pos i32 [tokens], with slots adapter_of_sequence i32 [ADAPTER_SEQUENCES]; output logits f32 [tokens,
 * ADAPTER_VOCAB]; symbol tokens in [1, ADAPTER_TOKENS]. NULL with the graph's error in *d. */
knit_graph *adapter_model_graph(knit_context *ctx, const adapter_model *m, knit_diag *d);
/* The same compiled for decode and prefill. */
knit_program *adapter_model_compile(knit_context *ctx, const adapter_model *m, const char *device,
                                    const char *disable_passes, knit_diag *d);
/* One run; logits has room for `tokens` rows. */
knit_status adapter_model_run(knit_session *s, size_t tokens, const int32_t *ids, const int32_t *seq,
                              const int32_t *pos, float *logits);

#endif
