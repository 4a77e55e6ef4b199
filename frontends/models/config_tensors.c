/* Finds each tensor that the config's visits need and compares its shape with what the config says. */
#include "config_tensors.h"

#include "../formats/limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void knit__decoder_part_shape(const knit__decoder_config *c, knit__part part, int64_t *rows, int64_t *columns) {
	const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;

	*columns = c->dim;
	switch (part) {
	case KNIT__TOKEN_EMBD:
	case KNIT__OUTPUT:
		*rows = c->vocab;
		break;
	case KNIT__ATTN_Q:
		*rows = q;
		break;
	case KNIT__ATTN_K:
	case KNIT__ATTN_V:
		*rows = kv;
		break;
	case KNIT__ATTN_OUTPUT:
		*rows = c->dim;
		*columns = q;
		break;
	case KNIT__FFN_GATE:
	case KNIT__FFN_UP:
		*rows = c->ffn;
		break;
	case KNIT__FFN_DOWN:
		*rows = c->dim;
		*columns = c->ffn;
		break;
	default: /* norms */
		*rows = c->dim;
		*columns = 0;
	}
}

static void shape_text(const knit_weight_entry *e, char *out, size_t bytes) {
	size_t at = (size_t)snprintf(out, bytes, "%s [", knit_dtype_name(e->dtype));

	for (int i = 0; i < e->rank && at < bytes; ++i)
		at += (size_t)snprintf(out + at, bytes - at, "%s%" PRId64, i ? ", " : "", e->dims[i]);
	if (at < bytes)
		snprintf(out + at, bytes - at, "]");
}

/* columns 0: a vector of `rows`. */
static knit_status check_shape(const knit_weight_entry *e, int64_t rows, int64_t columns, knit_diag *diag) {
	const bool vector = columns == 0;
	const bool fits =
		vector ? e->rank == 1 && e->dims[0] == rows : e->rank == 2 && e->dims[0] == rows && e->dims[1] == columns;
	const bool type =
		e->dtype == KNIT_F32 || e->dtype == KNIT_F16 || e->dtype == KNIT_BF16 || (!vector && e->dtype != KNIT_I32);
	char found[128], needed[64];

	if (fits && type)
		return KNIT_OK;
	shape_text(e, found, sizeof found);
	if (vector)
		snprintf(needed, sizeof needed, "floats [%" PRId64 "]", rows);
	else
		snprintf(needed, sizeof needed, "[%" PRId64 ", %" PRId64 "]", rows, columns);
	return knit__fail(diag, KNIT_ERR_SHAPE, 0, "%.80s is %s, the metadata asks for %s: convert the model again",
					  e->name, found, needed);
}

static knit_status check_part(const knit__decoder_config *c, const knit_weights *weights, knit__part part,
							  uint32_t layer, knit_diag *diag) {
	char name[KNIT__NAME_BYTES];
	int64_t rows, columns;

	knit__weight_name(c->names, part, layer, name);
	const knit_weight_entry *e = knit__weights_get(weights, name);
	if (!e)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0,
						  "the tensor %s is missing: the file is incomplete, get it or convert it again", name);
	knit__decoder_part_shape(c, part, &rows, &columns);
	return check_shape(e, rows, columns, diag);
}

/* Tensors that change the arithmetic of a llama-like decoder; a file that has one is another kind of model. */
static knit_status refuse_foreign(const knit__decoder_config *c, const knit_weights *weights, knit_diag *diag) {
	static const char *const gguf[] = {"rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight",
									   "blk.0.ffn_gate_inp.weight", "blk.0.post_attention_norm.weight"};
	static const char *const hf[] = {"model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight",
									 "model.layers.0.pre_feedforward_layernorm.weight"};
	const bool is_hf = c->names == KNIT__NAMES_HF;
	const char *const *list = is_hf ? hf : gguf;
	const size_t count = is_hf ? sizeof hf / sizeof *hf : sizeof gguf / sizeof *gguf;

	for (size_t i = 0; i < count; ++i)
		if (knit__weights_get(weights, list[i]))
			return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
							  "the model has the tensor %s, which knit's decoder does not use: "
							  "it would give wrong answers",
							  list[i]);
	return KNIT_OK;
}

/* Whether every visit of the layer has its own norm `part`: then the layer needs none. */
static bool has_own_norms(const knit__decoder_config *c, const knit_weights *weights, knit__part part, uint32_t layer) {
	const knit__visit_list *m = &c->model_visits;
	char name[KNIT__NAME_BYTES];
	uint32_t visits = 0;

	if (part > KNIT__FFN_NORM)
		return false;
	for (uint32_t v = 0; v < m->count; ++v) {
		if (m->layer[v] != layer)
			continue;
		++visits;
		knit__visit_norm_name(c->names, part, v, name);
		if (!knit__weights_get(weights, name))
			return false;
	}
	return visits > 0;
}

/* A layer that only reads what another has written may come without the projections of keys and values. */
static bool needs_no_kv(const knit__decoder_config *c, const knit_weights *weights, knit__part part, uint32_t layer) {
	char name[KNIT__NAME_BYTES];

	if (part != KNIT__ATTN_K && part != KNIT__ATTN_V)
		return false;
	knit__weight_name(c->names, part, layer, name);
	return !knit__weights_get(weights, name) && !knit__decoder_layer_writes_kv(c, layer);
}

knit_status knit__decoder_check_weights(knit__decoder_config *c, const knit_weights *weights, knit_diag *diag) {
	char name[KNIT__NAME_BYTES];
	knit_status status = refuse_foreign(c, weights, diag);
	if (status != KNIT_OK)
		return status;

	knit__weight_name(c->names, KNIT__TOKEN_EMBD, 0, name);
	const knit_weight_entry *embd = knit__weights_get(weights, name);
	if (!embd)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0,
						  "the tensor %s is missing: the file holds no decoder, or is incomplete", name);
	c->vocab = embd->rank == 2 ? embd->dims[0] : 0;
	if (c->vocab < 1 || (uint64_t)c->vocab > KNIT_LIMIT_VOCAB)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "%s of rank %d has %" PRId64 " rows, knit takes 1 to %" PRIu64, name,
						  embd->rank, c->vocab, (uint64_t)KNIT_LIMIT_VOCAB);
	knit__weight_name(c->names, KNIT__OUTPUT, 0, name);
	c->tied = knit__weights_get(weights, name) == NULL;

	status = check_part(c, weights, KNIT__TOKEN_EMBD, 0, diag);
	if (status == KNIT_OK)
		status = check_part(c, weights, KNIT__OUTPUT_NORM, 0, diag);
	if (status == KNIT_OK && !c->tied)
		status = check_part(c, weights, KNIT__OUTPUT, 0, diag);
	for (uint32_t layer = 0; layer < c->layers && status == KNIT_OK; ++layer)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT && status == KNIT_OK; ++p)
			if (!has_own_norms(c, weights, (knit__part)p, layer) && !needs_no_kv(c, weights, (knit__part)p, layer))
				status = check_part(c, weights, (knit__part)p, layer, diag);
	return status;
}

/* How many names begin with `prefix` and a digit. */
static uint32_t count_numbered(const knit_weights *weights, const char *prefix) {
	const size_t n = strlen(prefix);
	uint32_t count = 0;

	for (uint32_t i = 0; i < weights->count; ++i) {
		const char *name = weights->entries[i].name;
		count += strncmp(name, prefix, n) == 0 && name[n] >= '0' && name[n] <= '9';
	}
	return count;
}

/* Adds 1 to *found where the tensor is there and has the shape of a norm. */
static knit_status check_own_norm(const knit__decoder_config *c, const knit_weights *weights, const char *name,
								  uint32_t *found, knit_diag *diag) {
	const knit_weight_entry *e = knit__weights_get(weights, name);

	if (!e)
		return KNIT_OK;
	++*found;
	return check_shape(e, c->dim, 0, diag);
}

static uint32_t own_norms(const knit__decoder_config *c, const knit_weights *weights) {
	uint32_t count = 0;
	char name[KNIT__NAME_BYTES];

	for (uint32_t v = 0; v < c->model_visits.count; ++v)
		for (int p = KNIT__ATTN_NORM; p <= KNIT__FFN_NORM; ++p) {
			knit__visit_norm_name(c->names, (knit__part)p, v, name);
			count += knit__weights_get(weights, name) != NULL;
		}
	return count;
}

knit_status knit__decoder_check_own_norms(knit__decoder_config *c, const knit_weights *weights, knit_diag *diag) {
	const knit__loop_shape *s = &c->model_visits.shape;
	const char *prefix = c->names == KNIT__NAMES_HF ? "model.loops." : "loop.";
	const uint32_t numbered = count_numbered(weights, prefix);
	uint32_t found = 0, of_loops = 0, of_all = 0;
	char name[KNIT__NAME_BYTES];
	knit_status status = KNIT_OK;

	for (uint32_t v = 0; v < c->model_visits.count && status == KNIT_OK; ++v)
		for (int p = KNIT__ATTN_NORM; p <= KNIT__FFN_NORM && status == KNIT_OK; ++p) {
			knit__visit_norm_name(c->names, (knit__part)p, v, name);
			status = check_own_norm(c, weights, name, &found, diag);
		}
	for (uint32_t loop = 0; loop < s->loops && status == KNIT_OK; ++loop) {
		knit__loop_norm_name(c->names, (int32_t)loop, name);
		status = check_own_norm(c, weights, name, &of_loops, diag);
	}
	knit__loop_norm_name(c->names, -1, name);
	if (status == KNIT_OK)
		status = check_own_norm(c, weights, name, &of_all, diag);
	if (status != KNIT_OK)
		return status;
	c->visit_norms = found > 0;
	c->loop_norms = numbered + of_all > 0;
	if (c->loop_norms && s->loops == 0)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "there are norms after loops (%s...), but knit.visits repeats itself in more than one way: "
						  "describe the loops with knit.loops",
						  prefix);
	if (numbered != of_loops)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "%u of %u tensors %s* fit no loop: the visits have loops 0 to %u, "
						  "each with one norm",
						  (unsigned)(numbered - of_loops), (unsigned)numbered, prefix, (unsigned)s->loops - 1);
	return KNIT_OK;
}

void knit__decoder_weight_name(const knit__decoder_config *c, const knit_weights *weights, knit__part part,
							   uint32_t visit, char out[KNIT__NAME_BYTES]) {
	if (part < KNIT__ATTN_NORM) {
		knit__weight_name(c->names, part, 0, out);
		return;
	}
	if (part <= KNIT__FFN_NORM && c->stands_for[visit] != KNIT__NO_VISIT) {
		knit__visit_norm_name(c->names, part, c->stands_for[visit], out);
		if (knit__weights_get(weights, out))
			return;
	}
	knit__weight_name(c->names, part, c->visits[visit], out);
}

bool knit__decoder_loop_norm_after(const knit__decoder_config *c, const knit_weights *weights, uint32_t visit,
								   char out[KNIT__NAME_BYTES]) {
	const int32_t loop = c->loop_norms ? knit__visits_loop_end(&c->loops, visit) : -1;
	const int32_t last = (int32_t)c->model_visits.shape.loops - 1;

	if (loop < 0)
		return false;
	knit__loop_norm_name(c->names, loop < last ? loop : last, out);
	if (knit__weights_get(weights, out))
		return true;
	/* The norm of all loops does not stand directly before the output norm. */
	knit__loop_norm_name(c->names, -1, out);
	return visit + 1 < c->visit_count && knit__weights_get(weights, out);
}

knit__name_style knit__adapter_names_of(const knit_weights *adapters) {
	for (uint32_t i = 0; i < adapters->count; ++i)
		if (strncmp(adapters->entries[i].name, "steps.", 6) == 0)
			return KNIT__NAMES_HF;
	return KNIT__NAMES_GGUF;
}

/* Whether a name is that of a LoRA matrix in this style. */
static bool is_adapter_name(knit__name_style style, const char *name) {
	if (style == KNIT__NAMES_HF)
		return strncmp(name, "steps.", 6) == 0;
	return strncmp(name, "visit.", 6) == 0;
}

static knit_status check_pair(const knit__decoder_config *c, const knit_weights *adapters, knit__part part,
							  uint32_t visit, uint32_t *used, knit_diag *diag) {
	char a[KNIT__NAME_BYTES], b[KNIT__NAME_BYTES];
	int64_t rows, columns;

	knit__adapter_name(c->lora_names, part, visit, 'a', a);
	knit__adapter_name(c->lora_names, part, visit, 'b', b);
	const knit_weight_entry *ea = knit__weights_get(adapters, a), *eb = knit__weights_get(adapters, b);
	if (!ea && !eb)
		return KNIT_OK;
	if (!ea || !eb)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "the tensor %s is missing beside %s: a LoRA needs both matrices",
						  ea ? b : a, ea ? a : b);
	*used += 2;
	knit__decoder_part_shape(c, part, &rows, &columns);
	const knit_status status = check_shape(ea, c->lora_rank, columns, diag);
	return status == KNIT_OK ? check_shape(eb, rows, c->lora_rank, diag) : status;
}

knit_status knit__decoder_check_adapters(const knit__decoder_config *c, const knit_weights *adapters, knit_diag *diag) {
	uint32_t there = 0, used = 0;
	const char *first = "";

	for (uint32_t i = 0; i < adapters->count; ++i)
		if (is_adapter_name(c->lora_names, adapters->entries[i].name)) {
			first = there ? first : adapters->entries[i].name;
			++there;
		}
	used = own_norms(c, adapters);
	if (c->lora_rank == 0 && there == used)
		return KNIT_OK;
	if (c->lora_rank == 0)
		return knit__fail(
			diag, KNIT_ERR_FORMAT, 0,
			"there are LoRA tensors (%.80s) but no knit.lora.rank: add knit.lora.rank and knit.lora.alpha", first);
	const uint32_t norms = used;
	for (uint32_t v = 0; v < c->model_visits.count; ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			const knit_status status = check_pair(c, adapters, (knit__part)p, v, &used, diag);
			if (status != KNIT_OK)
				return status;
		}
	if (used == norms)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0,
						  "a LoRA of rank %" PRId64 " is announced but there is none for visits 0 to %u", c->lora_rank,
						  (unsigned)c->model_visits.count - 1);
	if (used != there)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "%u of %u LoRA tensors fit no visit or projection (visits 0 to %u): "
						  "correct their names or knit.visits",
						  (unsigned)(there - used), (unsigned)(there - norms), (unsigned)c->model_visits.count - 1);
	return KNIT_OK;
}

static uint64_t elements(const knit_weight_entry *e) {
	uint64_t n = 1;

	for (int i = 0; i < e->rank; ++i)
		n *= (uint64_t)e->dims[i]; /* the store checked the product */
	return n;
}

/* What knit__decoder_count_parameters fills: each use counts, each storage once. */
typedef struct counter {
	knit__decoder_parameters *out;
	bool *seen; /* per entry of the store: its storage was counted */
} counter;

static void count_use(counter *k, const knit_weights *store, const char *name) {
	const knit_weight_entry *e = knit__weights_get(store, name);

	if (!e)
		return;
	/* Which tensors share bytes is known once the store is sealed. */
	const size_t storage = atomic_load(&store->sealed) ? e->storage : (size_t)(e - store->entries);
	k->out->visited += elements(e);
	if (!k->seen[storage])
		k->out->unique += elements(e);
	k->seen[storage] = true;
}

knit_status knit__decoder_count_parameters(const knit__decoder_config *c, const knit_weights *base,
										   const knit_weights *adapters, knit__decoder_parameters *out) {
	const knit_allocator *a = &base->ctx->a;
	counter k = {out, knit__alloc_array(a, base->count, sizeof *k.seen)};
	char name[KNIT__NAME_BYTES];

	memset(out, 0, sizeof *out);
	if (!k.seen)
		return KNIT_ERR_MEMORY;
	for (int p = 0; p < KNIT__ATTN_NORM; ++p) {
		knit__weight_name(c->names, p == KNIT__OUTPUT && c->tied ? KNIT__TOKEN_EMBD : (knit__part)p, 0, name);
		count_use(&k, base, name);
	}
	for (uint32_t v = 0; v < c->visit_count; ++v) {
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			knit__decoder_weight_name(c, base, (knit__part)p, v, name);
			count_use(&k, base, name);
		}
		if (knit__decoder_loop_norm_after(c, base, v, name))
			count_use(&k, base, name);
	}
	knit__free(a, k.seen, base->count * sizeof *k.seen);
	if (!adapters || c->lora_rank == 0)
		return KNIT_OK;
	for (uint32_t i = 0; i < adapters->count; ++i)
		if (is_adapter_name(c->lora_names, adapters->entries[i].name))
			out->lora += elements(&adapters->entries[i]);
	out->lora -= (uint64_t)own_norms(c, adapters) * (uint64_t)c->dim;
	return KNIT_OK;
}
