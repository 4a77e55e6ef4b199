/* Owns a small looped decoder, built with public functions only: one layer visited twice, a LoRA and KV slots per
 * visit, a tied head. For tests of compiling and running. */
#ifndef KNIT_TEST_SMALL_MODEL_H
#define KNIT_TEST_SMALL_MODEL_H

#include "knit.h"

enum {
	SMALL_DIM = 32,
	SMALL_HEADS = 2,
	SMALL_VOCAB = 24,
	SMALL_FF = 64,
	SMALL_RANK = 4,
	SMALL_VISITS = 2,
	SMALL_SEQUENCES = 3,
	SMALL_POSITIONS = 16,
	SMALL_TOKENS = 8,
};

/* Weights from a fixed seed. On failure the status of the first call that failed; nothing is left behind. */
knit_status small_model_weights(knit_context *ctx, knit_weights **out);
/* Inputs ids, seq, pos i32 [tokens]; output logits f32 [tokens, SMALL_VOCAB]; symbol tokens in [1, SMALL_TOKENS].
 * On failure nothing is left behind. */
knit_status small_model_graph(knit_context *ctx, knit_weights *w, knit_graph **out);

/* Bytes of its weights, each once, without adapters; of its adapters; of its states. */
uint64_t small_model_weight_bytes(void);
uint64_t small_model_adapter_bytes(void);
uint64_t small_model_state_bytes(void);

#endif
