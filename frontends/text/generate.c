/* Feeds the decoder and hands text out; see generate.h. */
#include "generate.h"

#include "utf8.h"

#include <string.h>
#include <time.h>

typedef struct loop {
	const knit__generate_desc *desc;
	knit__generated *out;
	knit_utf8_stream utf8;
	int32_t previous;
	bool writer_gone;
	float *logits;
	int32_t *pos, *seq; /* max_tokens each */
	int32_t *kept;      /* positions / 2; NULL: stop when the context is full */
} loop;

const char *knit__stop_name(knit__stop stop) {
	static const char *const names[] = {"length", "end", "context", "interrupt", "writer"};

	return (size_t)stop < sizeof names / sizeof *names ? names[stop] : "?";
}

uint64_t knit__clock_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void hand_out(void *user, const char *text, size_t bytes) {
	loop *l = user;

	if (!l->writer_gone && bytes && !l->desc->write(l->desc->user, text, bytes))
		l->writer_gone = true;
}

/* Ids outside the vocabulary (padding rows of an embedding) have no text. */
static void write_piece(loop *l, int32_t id) {
	const char *text = NULL;
	size_t bytes = 0;

	if (l->desc->write && l->desc->tokenizer &&
		knit__tokenizer_piece(l->desc->tokenizer, l->previous, id, &text, &bytes) == KNIT_OK)
		knit__utf8_push(&l->utf8, text, bytes, hand_out, l);
	l->previous = id;
}

static bool stopped(loop *l) {
	if (l->writer_gone)
		l->out->stop = KNIT__STOP_WRITER;
	else if (l->desc->interrupted && *l->desc->interrupted)
		l->out->stop = KNIT__STOP_INTERRUPT;
	else
		return false;
	return true;
}

static bool ends_text(const loop *l, int32_t id) {
	const knit_tokenizer *t = l->desc->tokenizer;

	return t && id >= 0 && (id == knit__tokenizer_eos(t) || id == knit__tokenizer_bos(t));
}

static knit_status step(loop *l, const int32_t *ids, size_t tokens, size_t at, knit_diag *diag) {
	const int32_t last = (int32_t)tokens - 1;

	for (size_t t = 0; t < tokens; ++t)
		l->pos[t] = (int32_t)(at + t);
	return knit__decoder_step(l->desc->decoder, ids, l->seq, l->pos, tokens, &last, 1, l->logits, diag);
}

/* Feeds ids from position `first` on in batches. Sets *halt when the loop has to end before the last of them. */
static knit_status feed(loop *l, const int32_t *ids, size_t first, size_t count, bool *halt, knit_diag *diag) {
	const size_t batch = (size_t)l->desc->decoder->max_tokens;

	for (size_t at = first; at < count && !*halt; at += batch) {
		const size_t left = count - at, tokens = left < batch ? left : batch;
		const knit_status status = step(l, ids + at, tokens, at, diag);
		if (status != KNIT_OK)
			return status;
		l->out->fed = at + tokens;
		*halt = stopped(l);
	}
	return KNIT_OK;
}

static knit_status prefill(loop *l, bool *halt, knit_diag *diag) {
	const knit__generate_desc *d = l->desc;
	const uint64_t begin = knit__clock_ns();
	const knit_status status = feed(l, d->prompt, d->fed, d->prompt_tokens, halt, diag);

	l->out->prompt_ns = knit__clock_ns() - begin;
	if (d->silent)
		l->previous = d->prompt[d->silent - 1];
	for (size_t t = d->silent; t < d->prompt_tokens && !*halt && status == KNIT_OK; ++t)
		write_piece(l, d->prompt[t]);
	*halt = *halt || stopped(l);
	return status;
}

/* Feeds the later half of what the context holds anew, behind the BOS that the prompt began with; *at is then the next
 * free position. The newest token is fed by it too. */
static knit_status start_over(loop *l, size_t *at, bool *halt, knit_diag *diag) {
	const knit__generate_desc *d = l->desc;
	const size_t positions = (size_t)d->decoder->positions, keep = positions / 2;
	const size_t total = d->prompt_tokens + l->out->ids.count, first = total - keep;
	const bool bos = d->tokenizer && d->prompt[0] == knit__tokenizer_bos(d->tokenizer);

	for (size_t i = 0; i < keep; ++i) {
		const size_t from = first + i;
		l->kept[i] = from < d->prompt_tokens ? d->prompt[from] : l->out->ids.ids[from - d->prompt_tokens];
	}
	if (bos)
		l->kept[0] = d->prompt[0];
	*at = keep;
	return feed(l, l->kept, 0, keep, halt, diag);
}

static knit_status add_id(knit_context *ctx, knit_token_list *list, int32_t id, knit_diag *diag) {
	if (!knit__grow(&ctx->a, (void **)&list->ids, &list->cap, list->count + 1, sizeof *list->ids))
		return knit__fail_memory(diag, "the generated ids", (uint64_t)(list->count + 1) * sizeof *list->ids);
	list->ids[list->count++] = id;
	return KNIT_OK;
}

static knit_status decode(knit_context *ctx, loop *l, knit_diag *diag) {
	const knit__generate_desc *d = l->desc;
	const size_t positions = (size_t)d->decoder->positions;
	size_t at = d->prompt_tokens;
	bool halt = false;

	l->out->stop = KNIT__STOP_LENGTH;
	for (size_t made = 0; made < d->max_new; ++made) {
		int32_t id = 0;
		knit_status status = knit__sampler_next(d->sampler, l->logits, &id, diag);
		if (status != KNIT_OK)
			return status;
		if (ends_text(l, id)) {
			l->out->stop = KNIT__STOP_END;
			return KNIT_OK;
		}
		status = add_id(ctx, &l->out->ids, id, diag);
		if (status != KNIT_OK)
			return status;
		write_piece(l, id);
		if (stopped(l) || made + 1 == d->max_new)
			return KNIT_OK;
		if (at == positions && !l->kept) {
			l->out->stop = KNIT__STOP_CONTEXT;
			return KNIT_OK;
		}
		status = at == positions ? start_over(l, &at, &halt, diag) : step(l, &id, 1, at++, diag);
		if (status != KNIT_OK || halt)
			return status;
		l->out->fed = at;
		++l->out->decode_steps;
	}
	return KNIT_OK;
}

knit_status knit__generate(knit_context *ctx, const knit__generate_desc *desc, knit__generated *out, knit_diag *diag) {
	loop l = {.desc = desc, .out = out, .previous = -1};
	const size_t batch = (size_t)desc->decoder->max_tokens, vocab = (size_t)desc->decoder->vocab,
				 keep = (size_t)desc->decoder->positions / 2;
	knit_status status = KNIT_OK;
	bool halt = false;

	memset(out, 0, sizeof *out);
	out->ids.a = &ctx->a;
	if (desc->prompt_tokens < 1 || desc->prompt_tokens > (size_t)desc->decoder->positions)
		return knit__fail(diag, desc->prompt_tokens ? KNIT_ERR_LIMIT : KNIT_ERR_ARGUMENT, 0,
						  "the prompt has %zu tokens, needs 1 to %lld: shorten it or raise the context (--ctx)",
						  desc->prompt_tokens, (long long)desc->decoder->positions);
	if (desc->fed >= desc->prompt_tokens || desc->silent > desc->prompt_tokens)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "%zu of %zu prompt tokens are fed: needs one more to go on from",
						  desc->fed, desc->prompt_tokens);
	out->fed = desc->fed;
	l.logits = knit__alloc_array(&ctx->a, vocab, sizeof *l.logits);
	l.pos = knit__alloc_array(&ctx->a, batch, sizeof *l.pos);
	l.seq = knit__alloc_array(&ctx->a, batch, sizeof *l.seq);
	if (desc->endless && desc->decoder->positions > 3)
		l.kept = knit__alloc_array(&ctx->a, keep, sizeof *l.kept);
	if (!l.logits || !l.pos || !l.seq || (desc->endless && desc->decoder->positions > 3 && !l.kept))
		status = knit__fail_memory(diag, "the generation loop", vocab * sizeof *l.logits);
	if (status == KNIT_OK)
		status = prefill(&l, &halt, diag);
	const uint64_t begin = knit__clock_ns();
	if (status == KNIT_OK && !halt)
		status = decode(ctx, &l, diag);
	out->decode_ns = knit__clock_ns() - begin;
	/* What utf8 still holds is the begin of a character that never came: it is not printed. */
	knit__free(&ctx->a, l.kept, keep * sizeof *l.kept);
	knit__free(&ctx->a, l.seq, batch * sizeof *l.seq);
	knit__free(&ctx->a, l.pos, batch * sizeof *l.pos);
	knit__free(&ctx->a, l.logits, vocab * sizeof *l.logits);
	return status;
}

knit_status knit__encode_prompt(const knit_tokenizer *t, const char *text, size_t bytes, knit_token_list *ids,
								knit_diag *diag) {
	const bool bos = knit__tokenizer_wants_bos(t) && knit__tokenizer_bos(t) >= 0;

	if (bos) {
		if (!knit__grow(ids->a, (void **)&ids->ids, &ids->cap, ids->count + 1, sizeof *ids->ids))
			return knit__fail_memory(diag, "the prompt", sizeof *ids->ids);
		ids->ids[ids->count++] = knit__tokenizer_bos(t);
	}
	if (bytes == 0 && !bos)
		return knit__tokenizer_encode(t, "\n", 1, ids, diag);
	return bytes ? knit__tokenizer_encode(t, text, bytes, ids, diag) : KNIT_OK;
}
