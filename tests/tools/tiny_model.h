/* Owns a decoder of two tiny layers made in code: keys and tensors put one by one, so that tests can leave out or spoil
 * any of them. For one model at a time. */
#ifndef KNIT_TEST_TINY_MODEL_H
#define KNIT_TEST_TINY_MODEL_H

#include "../../frontends/models/decoder.h"

enum { DIM = 8, FFN = 12, HEADS = 4, KV_HEADS = 2, VOCAB = 16, LAYERS = 2, RANK = 2, CONTEXT = 32 };

typedef struct tiny_model {
	knit_context *ctx;
	knit_weights *store; /* where tensors go; a test may exchange it */
	knit_metadata keys;
} tiny_model;

extern tiny_model tiny;

void tiny_open(void);
/* The same with an allocator of the test's. */
void tiny_open_in(knit_context *ctx);
void tiny_close(void);

void tiny_u32(const char *key, uint32_t value);
void tiny_f32(const char *key, float value);
void tiny_text(const char *key, const char *text);
void tiny_visits(const uint32_t *visits, uint64_t count);
/* The keys of the model, without `skip`, with `replace` at `value` (either may be NULL). */
void tiny_keys(const char *skip, const char *replace, uint32_t value);
/* Random numbers that depend on the name alone; columns 0: a vector around 1. */
void tiny_tensor(const char *name, knit_dtype dtype, int64_t rows, int64_t columns, float scale);
/* All tensors of `layers` layers without `skip`; layer l has the numbers of layer from[l] <= l, if from is given. */
void tiny_tensors(const char *skip, uint32_t layers, const uint16_t *from);
/* A LoRA for every projection of `visits` visits, without the tensor `skip`. */
void tiny_lora(uint32_t visits, const char *skip, int64_t rank, float b_scale);

#endif
