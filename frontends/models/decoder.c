/* Builds the decoder with the public builder and drives one session of it. */
#include "decoder.h"

#include <string.h>

/* Where the builder stands: this visit of this layer. */
typedef struct site {
	knit_graph *g;
	const knit__decoder_desc *desc;
	const knit__decoder_config *c;
	knit_tensor seq, pos, adapter_of_sequence;
	uint32_t visit, layer;
	const knit__kv_map *map;
	knit_kv_slot *slots; /* by slot number; defined by the first visit that uses them */
} site;

static void origin(const site *s, const char *name) {
	knit_origin(s->g, "visit.%u.blk.%u.%s", (unsigned)s->visit, (unsigned)s->layer, name);
}

static knit_tensor weight(const site *s, knit__part part) {
	const bool of_visit = part >= KNIT__ATTN_NORM && s->desc->visit_bases;
	knit_weights *store = of_visit ? s->desc->visit_bases[s->visit] : s->desc->base;
	char name[KNIT__NAME_BYTES];

	knit__decoder_weight_name(s->c, store, part, s->visit, name);
	return knit_weight(s->g, store, "%s", name);
}

/* The LoRA matrix of this name, or room for one per slot. */
static knit_tensor lora_matrix(const site *s, const char *name) {
	knit_weights *store = s->desc->adapters;
	knit_weight_info info;

	if (!s->desc->adapter_slots || knit_weights_find(store, name, &info) != KNIT_OK || info.rank != 2)
		return knit_adapter(s->g, store, "%s", name);
	return knit_adapter_slots(s->g, info.dtype, s->desc->adapter_slots, info.dims[0], info.dims[1], "%s", name);
}

/* y = x W^T, and + alpha/rank (x A^T) B^T where this visit has a LoRA for the projection. */
static knit_tensor project(const site *s, knit_tensor x, knit__part part) {
	origin(s, knit__part_name(part));
	const knit_tensor y = knit_linear(s->g, x, weight(s, part));
	knit_weights *store = s->desc->adapters;
	char a[KNIT__NAME_BYTES], b[KNIT__NAME_BYTES];
	knit_weight_info info;

	const uint16_t own = s->c->stands_for[s->visit];
	if (!store || s->c->lora_rank == 0 || own == KNIT__NO_VISIT)
		return y;
	knit__adapter_name(s->c->lora_names, part, own, 'a', a);
	knit__adapter_name(s->c->lora_names, part, own, 'b', b);
	if (knit_weights_find(store, a, &info) != KNIT_OK)
		return y;

	const knit_tensor none = {0}, choice = s->adapter_of_sequence;
	const knit_tensor down = lora_matrix(s, a), up = lora_matrix(s, b);
	return knit_add(s->g, y, knit_lora(s->g, x, down, up, s->c->lora_scale, choice, choice.id ? s->seq : none));
}

static knit_tensor norm(const site *s, knit_tensor x, knit__part part) {
	origin(s, knit__part_name(part));
	return knit_rms_norm(s->g, x, weight(s, part), s->c->rms_eps);
}

/* The norm between loops, where the model has one. */
static knit_tensor loop_norm(const site *s, knit_tensor x) {
	char name[KNIT__NAME_BYTES];

	if (!knit__decoder_loop_norm_after(s->c, s->desc->base, s->visit, name))
		return x;
	knit_origin(s->g, "loop.%d.output_norm", (int)knit__visits_loop_end(&s->c->loops, s->visit));
	return knit_rms_norm(s->g, x, knit_weight(s->g, s->desc->base, "%s", name), s->c->rms_eps);
}

static knit_tensor heads_of(const site *s, knit_tensor x, knit__part part, int64_t heads, bool turn) {
	const knit_tensor rows = knit_split_heads(s->g, project(s, x, part), heads);

	return turn ? knit_rope(s->g, rows, s->pos, &s->c->rope) : rows;
}

/* The slot of this visit. */
static knit_kv_slot *slot_of(const site *s) {
	const uint32_t number = s->map->slot[s->visit];
	const knit_kv_desc desc = {.sequences = s->desc->sequences,
							   .positions = s->desc->positions,
							   .kv_heads = s->c->kv_heads,
							   .head_dim = s->c->head_dim,
							   .k = s->desc->kv_k,
							   .v = s->desc->kv_v,
							   .window = s->desc->window,
							   .sinks = s->desc->sinks,
							   .max_tokens = s->desc->max_tokens};

	if (!s->slots[number].k.id)
		s->slots[number] = knit_kv_slot_define(s->g, &desc, "%u", (unsigned)number);
	return &s->slots[number];
}

static knit_tensor block(const site *s, knit_tensor x) {
	knit_tensor n = norm(s, x, KNIT__ATTN_NORM);
	const knit_tensor q = heads_of(s, n, KNIT__ATTN_Q, s->c->heads, true);
	const knit_kv_slot *slot = slot_of(s);

	/* A visit that only reads has no keys and values to compute. */
	if (s->map->writes[s->visit]) {
		const knit_tensor k = heads_of(s, n, KNIT__ATTN_K, s->c->kv_heads, true);
		const knit_tensor v = heads_of(s, n, KNIT__ATTN_V, s->c->kv_heads, false);

		origin(s, "attention");
		knit_kv_slot_append(s->g, slot, k, v, s->seq, s->pos);
	}
	origin(s, "attention");
	const knit_tensor y = knit_kv_slot_attend(s->g, slot, q, s->seq, s->pos, 0);
	x = knit_add(s->g, x, project(s, knit_merge_heads(s->g, y), KNIT__ATTN_OUTPUT));

	n = norm(s, x, KNIT__FFN_NORM);
	const knit_tensor gate = knit_silu(s->g, project(s, n, KNIT__FFN_GATE));
	const knit_tensor up = project(s, n, KNIT__FFN_UP);
	return knit_add(s->g, x, project(s, knit_mul(s->g, gate, up), KNIT__FFN_DOWN));
}

/* The caller's desc with defaults filled in. */
static knit_status resolve(const knit__decoder_desc *in, knit__decoder_desc *out, knit_diag *diag) {
	*out = *in;
	if (!out->sequences)
		out->sequences = 1;
	if (!out->positions && !out->window)
		out->positions = in->config->context;
	if (!out->max_tokens)
		out->max_tokens = 64;
	if (!out->max_outputs)
		out->max_outputs = 1;
	if (!out->kv)
		out->kv = KNIT_F32;
	if (!out->kv_k)
		out->kv_k = out->kv;
	if (!out->kv_v)
		out->kv_v = out->kv;
	if (out->sequences < 1 || out->positions < (out->window > 0 ? 0 : 1) || out->max_tokens < 1 || out->max_outputs < 1)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "decoder: sequences, positions and batch sizes must be positive");
	if (out->positions > KNIT__MAX_CONTEXT || out->sequences > KNIT__MAX_CONTEXT)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "decoder: %lld sequences of %lld positions, at most %d of %d",
						  (long long)out->sequences, (long long)out->positions, (int)KNIT__MAX_CONTEXT,
						  (int)KNIT__MAX_CONTEXT);
	if (out->adapter_slots && (out->adapter_slots < 1 || !out->adapters))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "decoder: %lld slots for adapters: needs 1 or more, and an adapter that says of which shapes",
						  (long long)out->adapter_slots);
	if (out->positions && out->max_tokens > out->positions * out->sequences)
		out->max_tokens = out->positions * out->sequences;
	return KNIT_OK;
}

knit_status knit__decoder_graph(knit_context *ctx, const knit__decoder_desc *desc, knit_graph **out, knit_diag *diag) {
	knit__decoder_desc full;
	knit_status status = resolve(desc, &full, diag);

	knit__kv_map map;
	knit_kv_slot slots[KNIT__MAX_VISITS];

	*out = NULL;
	if (status == KNIT_OK)
		status = knit__decoder_kv_map(full.config, &map, diag);
	if (status != KNIT_OK)
		return status;
	memset(slots, 0, sizeof slots);
	site s = {.desc = &full, .c = full.config, .map = &map, .slots = slots};
	status = knit_graph_create(ctx, &s.g);
	if (status != KNIT_OK)
		return knit__fail(diag, status, 0, "out of memory while creating the decoder's graph");

	const knit_dim tokens = knit_sym(s.g, "tokens", 1, full.max_tokens);
	const knit_dim outputs = knit_sym(s.g, "outputs", 1, full.max_outputs);
	const knit_tensor ids = knit_input(s.g, "ids", KNIT_I32, 1, &tokens);
	s.seq = knit_input(s.g, "seq", KNIT_I32, 1, &tokens);
	s.pos = knit_input(s.g, "pos", KNIT_I32, 1, &tokens);
	const knit_tensor rows = knit_input(s.g, "out_rows", KNIT_I32, 1, &outputs);
	const knit_dim sequences = knit_n(full.sequences);
	if (full.adapter_slots)
		s.adapter_of_sequence = knit_input(s.g, "adapter_of_sequence", KNIT_I32, 1, &sequences);

	knit_origin(s.g, "token_embd");
	const knit_tensor embd = weight(&s, KNIT__TOKEN_EMBD);
	knit_tensor x = knit_gather(s.g, embd, ids);
	for (s.visit = 0; s.visit < s.c->visit_count; ++s.visit) {
		s.layer = s.c->visits[s.visit];
		x = loop_norm(&s, block(&s, x));
	}
	/* Only the rows whose logits are asked for go through the head: the vocabulary is the widest matrix. */
	knit_origin(s.g, "output_norm");
	x = knit_rms_norm(s.g, knit_gather(s.g, x, rows), weight(&s, KNIT__OUTPUT_NORM), s.c->rms_eps);
	knit_origin(s.g, "output");
	knit_output(s.g, "logits", knit_linear(s.g, x, s.c->tied ? embd : weight(&s, KNIT__OUTPUT)));

	status = knit_graph_status(s.g, diag);
	if (status != KNIT_OK) {
		knit_graph_destroy(s.g);
		return status;
	}
	*out = s.g;
	return KNIT_OK;
}

knit_status knit__decoder_compile(knit_context *ctx, const knit__decoder_desc *desc, knit_program **out, knit_diag *diag) {
	knit__decoder_desc full;
	knit_graph *g = NULL;
	knit_status status = resolve(desc, &full, diag);

	*out = NULL;
	if (status == KNIT_OK)
		status = knit__decoder_graph(ctx, &full, &g, diag);
	if (status != KNIT_OK)
		return status;

	const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, full.max_tokens}};
	const knit_compile_desc compile = {
		.device = full.device,
		.device_memory = full.device_memory,
		.buckets = buckets,
		.bucket_count = full.max_tokens > 1 ? 2 : 1,
		.memory_limit = full.memory_limit,
		.disable_passes = full.disable_passes,
		.plan_only = full.plan_only,
	};
	status = knit_compile(g, &compile, out, diag);
	knit_graph_destroy(g);
	return status;
}

knit_status knit__decoder_open(knit_context *ctx, const knit__decoder_desc *desc, knit__decoder *out, knit_diag *diag) {
	knit__decoder_desc full;

	memset(out, 0, sizeof *out);
	knit_status status = resolve(desc, &full, diag);
	if (status != KNIT_OK)
		return status;
	status = knit__decoder_compile(ctx, &full, &out->program, diag);
	out->sequences = full.sequences;
	out->adapter_slots = full.adapter_slots;
	if (status == KNIT_OK && !full.plan_only)
		status = knit_session_create(out->program, &out->session, diag);
	if (status == KNIT_OK && out->session && out->adapter_slots)
		status = knit__decoder_no_adapters(ctx, out, diag);
	if (status != KNIT_OK) {
		knit__decoder_close(out);
		return status;
	}
	out->vocab = full.config->vocab;
	out->positions = full.positions ? full.positions : KNIT__MAX_CONTEXT;
	out->max_tokens = full.max_tokens;
	out->max_outputs = full.max_outputs;
	return KNIT_OK;
}

void knit__decoder_close(knit__decoder *d) {
	knit_session_destroy(d->session);
	knit_program_release(d->program);
	memset(d, 0, sizeof *d);
}

knit_status knit__decoder_step(knit__decoder *d, const int32_t *ids, const int32_t *seq, const int32_t *pos,
							   size_t tokens, const int32_t *rows, size_t outputs, float *logits, knit_diag *diag) {
	knit_session *s = d->session;
	knit_status status = knit_session_set(s, "tokens", (int64_t)tokens);

	if (status == KNIT_OK)
		status = knit_session_set(s, "outputs", (int64_t)outputs);
	if (status == KNIT_OK)
		status = knit_session_write(s, "ids", ids, tokens * sizeof *ids);
	if (status == KNIT_OK)
		status = knit_session_write(s, "seq", seq, tokens * sizeof *seq);
	if (status == KNIT_OK)
		status = knit_session_write(s, "pos", pos, tokens * sizeof *pos);
	if (status == KNIT_OK)
		status = knit_session_write(s, "out_rows", rows, outputs * sizeof *rows);
	if (status == KNIT_OK)
		status = knit_session_run(s);
	if (status == KNIT_OK)
		status = knit_session_read(s, "logits", logits, outputs * (size_t)d->vocab * sizeof *logits);
	if (status != KNIT_OK && diag && diag->status == KNIT_OK)
		knit_session_diag(s, diag);
	return status;
}
