/* Owns the measuring of a decoder on a stream of tokens: windows, negative log-likelihood, its standard error. Knows no
 * file and no terminal. */
#ifndef KNIT_PERPLEXITY_H
#define KNIT_PERPLEXITY_H

#include "../models/decoder.h"
#include "tokenizer.h"

#include <signal.h>

/* How a stream is cut into windows, each of which starts from an empty context:
 * TEXT    windows of consecutive tokens that do not overlap. With a BOS (bos >= 0) BOS is fed first and all tokens of
 *         the window are predicted; without, its first token is context only. The last window may be shorter.
 * STREAM  the stream holds its own BOS tokens: `window` inputs, each predicting the token after it; windows share that
 *         one token, and what does not fill a window at the end is left out. */
typedef enum knit__cut { KNIT__CUT_TEXT = 0, KNIT__CUT_STREAM } knit__cut;

typedef struct knit__perplexity_desc {
	knit__decoder *decoder; /* max_outputs tokens are fed at once; sequence 0 is used */
	const int32_t *ids;
	size_t count;
	knit__cut cut;
	size_t window;                   /* 1 .. decoder's positions */
	int32_t bos;                     /* -1: none */
	size_t max_windows;              /* 0: all */
	const knit_tokenizer *tokenizer; /* counts the bytes that the predicted tokens stand for; NULL: not counted */
	const volatile sig_atomic_t *interrupted; /* may be NULL */
	/* Called after each window; may be NULL. */
	void (*progress)(void *user, size_t windows_done, size_t windows, double mean);
	void *user;
} knit__perplexity_desc;

typedef struct knit__perplexity {
	double mean;           /* nats per predicted token */
	double standard_error; /* of the mean, from the spread of whole windows; of tokens if there is one window only */
	double nats;           /* sum over all predicted tokens */
	uint64_t tokens;       /* predicted */
	uint64_t bytes;        /* that they stand for */
	size_t windows, windows_total;
	uint64_t ns;
	bool interrupted;
} knit__perplexity;

/* ARGUMENT for a stream too short to predict anything; whatever the decoder answers otherwise. */
knit_status knit__perplexity_measure(knit_context *ctx, const knit__perplexity_desc *desc, knit__perplexity *out,
									 knit_diag *diag);

#endif
