/* Owns the choice of the next token from logits. Knows no model and no vocabulary but its size. */
#ifndef KNIT_TEXT_SAMPLER_H
#define KNIT_TEXT_SAMPLER_H

#include "../../graph/context.h"

typedef struct knit_sampler knit_sampler;

typedef enum knit_sampler_kind {
	KNIT_SAMPLER_STANDARD = 0,
	KNIT_SAMPLER_LLAMA2C = 1, /* the same choices as llama2.c's run program from the same logits and seed; no top-k */
} knit_sampler_kind;

/* Applied in this order: top_k most likely tokens, softmax at temperature, smallest set that reaches top_p, draw. */
typedef struct knit_sampler_desc {
	knit_sampler_kind kind;
	float temperature; /* 0: greedy, the most likely token, the lowest id among equals; seed and the rest then unused */
	uint32_t top_k;    /* 0: all */
	float top_p;       /* 0 or >= 1: all */
	uint64_t seed;     /* any number; llama2.c: not 0 */
} knit_sampler_desc;

/* ARGUMENT for a value out of range. */
knit_status knit__sampler_create(knit_context *ctx, uint32_t vocab_size, const knit_sampler_desc *desc,
                                 knit_sampler **out, knit_diag *diag);
void knit__sampler_destroy(knit_sampler *s);
/* Back to the state after create. */
void knit__sampler_reset(knit_sampler *s);
/* Chooses from vocab_size logits. Allocates nothing. FORMAT if a logit is NaN or none is finite. */
knit_status knit__sampler_next(knit_sampler *s, const float *logits, int32_t *id, knit_diag *diag);

#endif
