/* Owns two adapters over one model, and what tests do with them: programs, sessions, sets, and a short text run through a
 * session. */
#ifndef KNIT_TEST_ADAPTER_WORLD_H
#define KNIT_TEST_ADAPTER_WORLD_H

#include "adapter_model.h"

enum { ADAPTER_PROMPT = 5, ADAPTER_STEPS = 7, ADAPTER_LOGITS = ADAPTER_STEPS * ADAPTER_VOCAB };

/* A text, all of one sequence, from the beginning on. */
extern const int32_t adapter_ids[ADAPTER_STEPS], adapter_zeros[ADAPTER_STEPS], adapter_rising[ADAPTER_STEPS];

typedef struct adapter_world {
	knit_context *ctx;
	knit_weights *base, *first, *second;
} adapter_world;

void adapter_world_open(adapter_world *w);
/* Over a context that is there; it is the world's from then on. */
void adapter_world_fill(adapter_world *w, knit_context *ctx);
void adapter_world_close(adapter_world *w);

/* With this adapter compiled in; NULL: none. */
knit_program *adapter_compile(const adapter_world *w, knit_weights *adapter, const char *disable);
knit_session *adapter_session(knit_program *p);
knit_adapter_set *adapter_set(knit_program *p, knit_weights *store);
void adapter_bind(knit_session *s, knit_adapter_set *a);
/* The text, the prompt at once, then token by token, in fresh states. */
void adapter_script(knit_session *s, float out[ADAPTER_LOGITS]);
/* The same of a program compiled for it. */
void adapter_script_of(const adapter_world *w, knit_weights *adapter, const char *disable, float out[ADAPTER_LOGITS]);
/* So many bindings, and nothing else that a session's calls could have cost. */
void adapter_check_idle(const knit_session *s, uint64_t binds);

#endif
