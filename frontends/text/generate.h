/* Owns the generation loop: prompt in batches, then a token at a time, text as it is made, figures at the end. Knows no
 * file and no terminal. */
#ifndef KNIT_GENERATE_H
#define KNIT_GENERATE_H

#include "../models/decoder.h"
#include "sampler.h"
#include "tokenizer.h"

#include <signal.h>

typedef enum knit__stop {
	KNIT__STOP_LENGTH = 0, /* as many tokens as asked for */
	KNIT__STOP_END,        /* the model ended its text (EOS, or BOS, which begins the next one) */
	KNIT__STOP_CONTEXT,    /* no position left */
	KNIT__STOP_INTERRUPT,  /* *interrupted was set */
	KNIT__STOP_WRITER,     /* write answered false */
} knit__stop;

/* "length", "end", "context", "interrupt", "writer". */
const char *knit__stop_name(knit__stop stop);

typedef struct knit__generate_desc {
	knit__decoder *decoder; /* sequence 0 is used, from position 0 */
	const knit_tokenizer *tokenizer;
	knit_sampler *sampler;
	const int32_t *prompt;
	size_t prompt_tokens; /* at least 1 */
	size_t fed;           /* of them, the first so many are in the decoder's slots already; less than prompt_tokens */
	size_t silent;        /* the text of the first so many is not written */
	size_t max_new;
	bool endless; /* when the context is full, go on from the second half of it instead of stopping */
	const volatile sig_atomic_t *interrupted; /* may be NULL */
	/* Gets the prompt's text and then the new text in pieces that end at UTF-8 characters; false ends the loop. NULL:
	 * no text is wanted. */
	bool (*write)(void *user, const char *text, size_t bytes);
	void *user;
} knit__generate_desc;

typedef struct knit__generated {
	knit_token_list ids; /* the new ones; clear it with knit__token_list_clear */
	knit__stop stop;
	uint64_t prompt_ns; /* until the first logits were there */
	uint64_t decode_ns; /* of decode_steps steps, sampling included: one fewer than tokens, the first comes with the
						   prompt */
	uint64_t decode_steps;
	size_t fed; /* positions in the slots at the end: of the prompt and ids, the first so many (without endless) */
} knit__generated;

/* LIMIT if the prompt does not fit the context. What was generated before a failure is in *out. */
knit_status knit__generate(knit_context *ctx, const knit__generate_desc *desc, knit__generated *out, knit_diag *diag);

/* Encodes a prompt, with BOS where the model wants one. An empty prompt of a model without BOS begins with a newline.
 */
knit_status knit__encode_prompt(const knit_tokenizer *t, const char *text, size_t bytes, knit_token_list *ids,
								knit_diag *diag);

uint64_t knit__clock_ns(void);

#endif
