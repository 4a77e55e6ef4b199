/* Owns the graph of llama-like decoders and one compiled instance of it: layers visited in any order, a LoRA per visit,
 * a tied head, KV slots by policy. Knows no file format, no text and no device. */
#ifndef KNIT_DECODER_H
#define KNIT_DECODER_H

#include "config.h"

/* Zero means default where a comment says so. */
typedef struct knit__decoder_desc {
	const knit__decoder_config *config;
	knit_weights *base;
	knit_weights *const *visit_bases; /* a store for each visit's layer weights instead of base; NULL: base for all */
	knit_weights *adapters;           /* NULL: no LoRA, whatever the config says */
	int64_t adapter_slots;            /* 0: `adapters` is compiled in, and may be bound anew for all sequences together; else
	                                   * each sequence chooses one of so many slots, number 0 being no adapter, and
	                                   * `adapters` only says of which shapes they are */
	int64_t sequences;                /* default 1 */
	int64_t positions;                /* of a sequence, at most; default: the model's context, with a window no limit */
	int64_t max_tokens;               /* tokens in one step, at most; default 64; no more than positions */
	int64_t max_outputs;              /* logits rows in one step, at most; default 1 */
	knit_dtype kv;                    /* of keys and values; default f32 */
	knit_dtype kv_k, kv_v;            /* of keys, of values, where they differ from kv */
	int64_t window, sinks;            /* of every slot, as in knit_kv_desc */
	uint64_t memory_limit;            /* as in knit_compile_desc */
	const char *device;               /* as in knit_compile_desc */
	uint64_t device_memory;           /* as in knit_compile_desc */
	const char *disable_passes;
	bool plan_only;                   /* as in knit_compile_desc: the decoder gets a program, but no session */
} knit__decoder_desc;

/* Inputs ids, seq, pos i32 [tokens] and out_rows i32 [outputs]; output logits f32 [outputs, vocab] after the tokens at
 * those rows. Symbols tokens in [1, max_tokens], outputs in [1, max_outputs]. With adapter_slots also the input
 * adapter_of_sequence i32 [sequences]. */
knit_status knit__decoder_graph(knit_context *ctx, const knit__decoder_desc *desc, knit_graph **out, knit_diag *diag);

/* The same compiled, with a bucket for one token and one for more. */
knit_status knit__decoder_compile(knit_context *ctx, const knit__decoder_desc *desc, knit_program **out, knit_diag *diag);

typedef struct knit__decoder {
	knit_program *program;
	knit_session *session;
	int64_t vocab, sequences, max_tokens, max_outputs;
	int64_t positions; /* of a sequence; KNIT__MAX_CONTEXT where only the window is kept */
	int64_t adapter_slots;
} knit__decoder;

/* Builds, compiles (decode and prefill buckets) and opens a session. Slots of adapters are empty, and no sequence has
 * chosen one. */
knit_status knit__decoder_open(knit_context *ctx, const knit__decoder_desc *desc, knit__decoder *out, knit_diag *diag);
void knit__decoder_close(knit__decoder *d);

/* Feeds `tokens` tokens (ids, seq, pos) and writes the logits after rows[0..outputs) of them: [outputs, vocab]. */
knit_status knit__decoder_step(knit__decoder *d, const int32_t *ids, const int32_t *seq, const int32_t *pos,
							   size_t tokens, const int32_t *rows, size_t outputs, float *logits, knit_diag *diag);

/* Whether an adapter can stand in for the one that a decoder was made with: the same visits, projections, rank and
 * alpha. `made_with` and `c` are configs that knit__decoder_config_adapter read. ARGUMENT with the difference; what
 * knit_adapter_open says of shapes is not said here. */
knit_status knit__decoder_adapter_fits(const knit__decoder_config *made_with, const knit_weights *adapter,
									   const knit__decoder_config *c, const knit_weights *other, knit_diag *diag);
/* Every sequence without an adapter, as a decoder begins. */
knit_status knit__decoder_no_adapters(knit_context *ctx, knit__decoder *d, knit_diag *diag);
/* Puts an adapter into a slot (1 and up); NULL: empties it. */
knit_status knit__decoder_fill_slot(knit__decoder *d, int64_t slot, knit_weights *adapter, knit_diag *diag);
/* From the next step on sequence i uses slot adapter_of_sequence[i]; one for each sequence. What its states hold was
 * computed with the slots before. */
knit_status knit__decoder_choose_adapters(knit__decoder *d, const int32_t *adapter_of_sequence, knit_diag *diag);

#endif
