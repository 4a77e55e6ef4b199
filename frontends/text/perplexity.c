/* Windows through the decoder, log-softmax in double; see perplexity.h. */
#include "perplexity.h"

#include "generate.h"

#include <math.h>
#include <string.h>

/* Sums over windows: of s, n, s^2, s n and n^2 (s nats, n tokens of a window), and of squared nats of tokens. */
typedef struct sums {
	double s, ss, sn, nn, token_ss;
	uint64_t n;
} sums;

typedef struct buffers {
	float *logits;
	int32_t *seq, *pos, *rows; /* a batch each */
	int32_t *inputs;           /* a window */
} buffers;

/* -log softmax(logits)[target] */
static double nats_of(const float *logits, size_t vocab, int32_t target) {
	double largest = (double)logits[0], sum = 0;

	for (size_t i = 1; i < vocab; ++i)
		largest = fmax(largest, (double)logits[i]);
	for (size_t i = 0; i < vocab; ++i)
		sum += exp((double)logits[i] - largest);
	return largest + log(sum) - (double)logits[target];
}

/* Inputs of window i in `inputs`; the number of targets, which stand at *targets. */
static size_t cut_window(const knit__perplexity_desc *d, size_t i, int32_t *inputs, const int32_t **targets) {
	const size_t begin = i * d->window;
	const bool bos = d->cut == KNIT__CUT_TEXT && d->bos >= 0;
	const size_t left = d->count - begin, size = left < d->window ? left : d->window;
	const size_t predicted = bos || d->cut == KNIT__CUT_STREAM ? size : size - 1;

	if (bos) {
		inputs[0] = d->bos;
		memcpy(inputs + 1, d->ids + begin, (predicted - 1) * sizeof *inputs);
		*targets = d->ids + begin;
		return predicted;
	}
	memcpy(inputs, d->ids + begin, predicted * sizeof *inputs);
	*targets = d->ids + begin + 1;
	return predicted;
}

static size_t count_windows(const knit__perplexity_desc *d) {
	size_t windows;

	if (d->cut == KNIT__CUT_STREAM)
		windows = d->count ? (d->count - 1) / d->window : 0;
	else
		windows = d->count / d->window + (d->count % d->window > (d->bos >= 0 ? 0u : 1u));
	if (d->cut == KNIT__CUT_TEXT && d->bos < 0 && d->window < 2)
		windows = 0;
	return d->max_windows && d->max_windows < windows ? d->max_windows : windows;
}

static uint64_t bytes_of(const knit_tokenizer *t, int32_t previous, int32_t id) {
	const char *text;
	size_t bytes = 0;

	if (!t || knit__tokenizer_piece(t, previous, id, &text, &bytes) != KNIT_OK)
		return 0;
	return bytes;
}

static knit_status run_window(const knit__perplexity_desc *d, const buffers *b, const int32_t *targets, size_t n,
							  sums *total, uint64_t *bytes, knit_diag *diag) {
	const size_t vocab = (size_t)d->decoder->vocab, batch = (size_t)d->decoder->max_outputs;
	double window = 0;

	for (size_t at = 0; at < n; at += batch) {
		const size_t tokens = n - at < batch ? n - at : batch;
		for (size_t t = 0; t < tokens; ++t) {
			b->pos[t] = (int32_t)(at + t);
			b->rows[t] = (int32_t)t;
			if (targets[at + t] < 0 || (size_t)targets[at + t] >= vocab)
				return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
								  "the stream holds token %d, the model has %zu: is it of another "
								  "model?",
								  (int)targets[at + t], vocab);
		}
		const knit_status status =
			knit__decoder_step(d->decoder, b->inputs + at, b->seq, b->pos, tokens, b->rows, tokens, b->logits, diag);
		if (status != KNIT_OK)
			return status;
		for (size_t t = 0; t < tokens; ++t) {
			const double nats = nats_of(b->logits + t * vocab, vocab, targets[at + t]);
			if (!isfinite(nats))
				return knit__fail(diag, KNIT_ERR_FORMAT, 0,
								  "the model's logits are not finite: its weights are damaged");
			window += nats;
			total->token_ss += nats * nats;
			*bytes += bytes_of(d->tokenizer, b->inputs[at + t], targets[at + t]);
		}
	}
	total->s += window;
	total->ss += window * window;
	total->sn += window * (double)n;
	total->nn += (double)n * (double)n;
	total->n += n;
	return KNIT_OK;
}

/* Windows are the independent units: tokens within one are not. The variance of the ratio sum(s) / sum(n), linearised.
 */
static double standard_error(const sums *t, double mean, size_t windows) {
	const double n = (double)t->n;

	if (windows < 2)
		return t->n < 2 ? 0 : sqrt(fmax(0, (t->token_ss / n - mean * mean) / (n - 1)));
	const double residual = t->ss - 2 * mean * t->sn + mean * mean * t->nn;
	return sqrt(fmax(0, residual * (double)windows / (double)(windows - 1))) / n;
}

static knit_status run_all(const knit__perplexity_desc *d, const buffers *b, knit__perplexity *out, knit_diag *diag) {
	const uint64_t begin = knit__clock_ns();
	sums total = {0};

	for (size_t i = 0; i < out->windows_total; ++i) {
		const int32_t *targets = NULL;
		const size_t n = cut_window(d, i, b->inputs, &targets);
		const knit_status status = run_window(d, b, targets, n, &total, &out->bytes, diag);
		if (status != KNIT_OK)
			return status;
		out->windows = i + 1;
		if (d->progress)
			d->progress(d->user, i + 1, out->windows_total, total.s / (double)total.n);
		if (d->interrupted && *d->interrupted) {
			out->interrupted = i + 1 < out->windows_total;
			break;
		}
	}
	out->nats = total.s;
	out->tokens = total.n;
	out->mean = total.s / (double)total.n;
	out->standard_error = standard_error(&total, out->mean, out->windows);
	out->ns = knit__clock_ns() - begin;
	return KNIT_OK;
}

knit_status knit__perplexity_measure(knit_context *ctx, const knit__perplexity_desc *d, knit__perplexity *out,
									 knit_diag *diag) {
	const size_t batch = (size_t)d->decoder->max_outputs, vocab = (size_t)d->decoder->vocab;
	knit_status status = KNIT_OK;

	memset(out, 0, sizeof *out);
	if (d->window < 1 || d->window > (size_t)d->decoder->positions || batch > (size_t)d->decoder->max_tokens)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "windows of %zu tokens do not fit %lld positions", d->window,
						  (long long)d->decoder->positions);
	out->windows_total = count_windows(d);
	if (out->windows_total == 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "%zu tokens are too few to predict one in windows of %zu: give more "
						  "text or a smaller --ctx",
						  d->count, d->window);

	buffers b = {
		.logits = knit__alloc_array(&ctx->a, vocab * batch, sizeof *b.logits),
		.seq = knit__alloc_array(&ctx->a, batch, sizeof *b.seq),
		.pos = knit__alloc_array(&ctx->a, batch, sizeof *b.pos),
		.rows = knit__alloc_array(&ctx->a, batch, sizeof *b.rows),
		.inputs = knit__alloc_array(&ctx->a, d->window, sizeof *b.inputs),
	};
	if (b.logits && b.seq && b.pos && b.rows && b.inputs)
		status = run_all(d, &b, out, diag);
	else
		status = knit__fail_memory(diag, "the logits of a batch", vocab * batch * sizeof *b.logits);
	knit__free(&ctx->a, b.inputs, d->window * sizeof *b.inputs);
	knit__free(&ctx->a, b.rows, batch * sizeof *b.rows);
	knit__free(&ctx->a, b.pos, batch * sizeof *b.pos);
	knit__free(&ctx->a, b.seq, batch * sizeof *b.seq);
	knit__free(&ctx->a, b.logits, vocab * batch * sizeof *b.logits);
	return status;
}
