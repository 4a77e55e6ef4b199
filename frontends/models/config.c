/* Reads a decoder's metadata key by key; the tensors are checked in config_tensors.c. */
#include "config_tensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What every reading step needs: where keys come from, the key prefix, where errors go. */
typedef struct key_reader {
	const knit_metadata *m;
	const char *prefix;
	char key[96];
	knit_diag *diag;
} key_reader;

static const char *key_of(key_reader *r, const char *suffix) {
	snprintf(r->key, sizeof r->key, "%s.%s", r->prefix, suffix);
	return r->key;
}

/* A whole number in [lo, hi]; where the key is absent `fallback` if that is in the range. */
static knit_status read_count(key_reader *r, const char *suffix, int64_t lo, int64_t hi, int64_t fallback,
							  int64_t *out) {
	const char *key = key_of(r, suffix);
	uint64_t value;
	const knit_status status = knit__metadata_u64(r->m, key, &value, r->diag);

	if (status == KNIT_ERR_NOT_FOUND && fallback >= lo && fallback <= hi) {
		*out = fallback;
		return KNIT_OK;
	}
	if (status == KNIT_ERR_NOT_FOUND)
		return knit__fail(r->diag, status, 0, "the key %s is missing: convert the model again with its full metadata",
						  key);
	if (status != KNIT_OK)
		return status;
	if (value > (uint64_t)hi)
		return knit__fail(r->diag, KNIT_ERR_LIMIT, 0,
						  "%s is %" PRIu64 ", knit takes at most %" PRId64
						  ": the file is damaged or meant for another program",
						  key, value, hi);
	if (value < (uint64_t)lo)
		return knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
						  "%s is %" PRIu64 ", needs at least %" PRId64 ": the file is damaged, convert the model again",
						  key, value, lo);
	*out = (int64_t)value;
	return KNIT_OK;
}

/* A positive finite number; `fallback` 0 means that the key is needed. */
static knit_status read_positive(key_reader *r, const char *suffix, double fallback, float *out) {
	const char *key = key_of(r, suffix);
	double value = fallback;
	const knit_status status = knit__metadata_f64(r->m, key, &value, r->diag);

	if (status == KNIT_ERR_NOT_FOUND && fallback == 0)
		return knit__fail(r->diag, status, 0, "the key %s is missing: convert the model again with its full metadata",
						  key);
	if (status != KNIT_OK && status != KNIT_ERR_NOT_FOUND)
		return status;
	if (!(value > 0 && value <= (double)1e30f))
		return knit__fail(r->diag, KNIT_ERR_FORMAT, 0, "%s is %g, needs a positive number: convert the model again",
						  key, value);
	*out = (float)value;
	return KNIT_OK;
}

/* A key that changes the model's arithmetic in a way that knit does not do: it must be absent or zero. */
static knit_status refuse_nonzero(key_reader *r, const char *suffix, const char *what) {
	const char *key = key_of(r, suffix);
	double value = 0;

	if (knit__metadata_f64(r->m, key, &value, NULL) == KNIT_OK && value != 0)
		return knit__fail(r->diag, KNIT_ERR_UNSUPPORTED, 0, "%s is %g: knit has no %s yet", key, value, what);
	return KNIT_OK;
}

static knit_status read_architecture(key_reader *r, knit__decoder_config *c) {
	const char *name = NULL;
	const knit_status status = knit__metadata_string(r->m, "general.architecture", &name, r->diag);

	if (status == KNIT_ERR_NOT_FOUND)
		return knit__fail(
			r->diag, KNIT_ERR_FORMAT, 0,
			"general.architecture is missing: the file holds no model that knit can name (weights alone?)");
	if (status != KNIT_OK)
		return status;
	if (strcmp(name, "llama") != 0 && strcmp(name, "knit") != 0)
		return knit__fail(r->diag, KNIT_ERR_UNSUPPORTED, 0,
						  "architecture \"%.40s\" is not supported: knit runs \"llama\" and \"knit\" decoders", name);
	snprintf(c->architecture, sizeof c->architecture, "%s", name);
	r->prefix = c->architecture;
	return KNIT_OK;
}

static knit_status read_sizes(key_reader *r, knit__decoder_config *c) {
	int64_t layers = 0;
	knit_status status = read_count(r, "embedding_length", 1, KNIT__MAX_WIDTH, 0, &c->dim);

	if (status == KNIT_OK)
		status = read_count(r, "block_count", 1, KNIT__MAX_LAYERS, 0, &layers);
	if (status == KNIT_OK)
		status = read_count(r, "feed_forward_length", 1, KNIT__MAX_WIDTH, 0, &c->ffn);
	if (status == KNIT_OK)
		status = read_count(r, "context_length", 1, KNIT__MAX_CONTEXT, 0, &c->context);
	if (status == KNIT_OK)
		status = read_count(r, "attention.head_count", 1, KNIT__MAX_HEADS, 0, &c->heads);
	if (status == KNIT_OK)
		status = read_count(r, "attention.head_count_kv", 1, KNIT__MAX_HEADS, c->heads, &c->kv_heads);
	if (status != KNIT_OK)
		return status;
	c->layers = (uint32_t)layers;
	if (c->heads % c->kv_heads != 0)
		return knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
						  "%s.attention.head_count %" PRId64 " is no multiple of head_count_kv %" PRId64
						  ": convert the model again",
						  r->prefix, c->heads, c->kv_heads);

	const int64_t even_share = c->dim % c->heads == 0 ? c->dim / c->heads : 0;
	int64_t value_length = 0;
	status = read_count(r, "attention.key_length", 1, KNIT__MAX_WIDTH, even_share, &c->head_dim);
	if (status == KNIT_ERR_NOT_FOUND && r->diag)
		snprintf(r->diag->text, sizeof r->diag->text,
				 "%s.embedding_length %" PRId64 " is no multiple of attention.head_count %" PRId64
				 " and attention.key_length is missing: convert the model again",
				 r->prefix, c->dim, c->heads);
	if (status == KNIT_OK)
		status = read_count(r, "attention.value_length", 1, KNIT__MAX_WIDTH, c->head_dim, &value_length);
	if (status == KNIT_OK && value_length != c->head_dim)
		status =
			knit__fail(r->diag, KNIT_ERR_UNSUPPORTED, 0,
					   "attention.key_length %" PRId64 " and value_length %" PRId64 " differ: knit needs them equal",
					   c->head_dim, value_length);
	if (status == KNIT_OK && c->head_dim > KNIT__MAX_WIDTH / c->heads)
		status = knit__fail(r->diag, KNIT_ERR_LIMIT, 0, "%" PRId64 " heads of %" PRId64 " are more than %d wide",
							c->heads, c->head_dim, (int)KNIT__MAX_WIDTH);
	return status;
}

static knit_status read_rope(key_reader *r, knit__decoder_config *c) {
	const char *text = NULL;
	knit_status status = read_count(r, "rope.dimension_count", 2, c->head_dim, c->head_dim, &c->rope.rotary_dims);

	if (status == KNIT_OK && c->rope.rotary_dims % 2 != 0)
		status = knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
							"%s.rope.dimension_count is %" PRId64 ", needs an even number: convert the model again",
							r->prefix, c->rope.rotary_dims);
	if (status == KNIT_OK)
		status = read_positive(r, "rope.freq_base", 10000, &c->rope.theta);
	if (status == KNIT_OK)
		status = read_positive(r, "attention.layer_norm_rms_epsilon", 0, &c->rms_eps);
	if (status != KNIT_OK)
		return status;

	if (knit__metadata_string(r->m, key_of(r, "rope.scaling.type"), &text, NULL) == KNIT_OK &&
		strcmp(text, "none") != 0)
		return knit__fail(r->diag, KNIT_ERR_UNSUPPORTED, 0, "%s is \"%.40s\": knit has no scaled rope yet", r->key,
						  text);
	c->rope.layout = KNIT_ROPE_INTERLEAVED;
	status = knit__metadata_string(r->m, "knit.rope.layout", &text, r->diag);
	if (status == KNIT_ERR_NOT_FOUND)
		return KNIT_OK;
	if (status != KNIT_OK)
		return status;
	if (strcmp(text, "split") == 0)
		c->rope.layout = KNIT_ROPE_SPLIT;
	else if (strcmp(text, "interleaved") != 0)
		return knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
						  "knit.rope.layout is \"%.40s\", needs \"interleaved\" or \"split\": correct the key", text);
	return KNIT_OK;
}

/* The model's own visits become those that run. */
static void adopt(knit__decoder_config *c) {
	const knit__visit_list *m = &c->model_visits;

	memcpy(c->visits, m->layer, sizeof c->visits);
	c->visit_count = m->count;
	c->loops = m->shape;
	knit__visits_stand_for(m, m, c->stands_for);
}

static knit_status read_list(key_reader *r, const knit__decoder_config *c, const knit_metadata_entry *array,
							 knit__visit_list *out) {
	memset(out, 0, sizeof *out);
	if (array->count < 1 || array->count > KNIT__MAX_VISITS)
		return knit__fail(r->diag, array->count ? KNIT_ERR_LIMIT : KNIT_ERR_FORMAT, 0,
						  "knit.visits has %" PRIu64 " entries, needs 1 to %d", array->count, (int)KNIT__MAX_VISITS);
	for (; out->count < array->count; ++out->count) {
		uint64_t layer = 0;
		if (!knit__metadata_u64_at(array, out->count, &layer) || layer >= c->layers)
			return knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
							  "visit %u is of layer %" PRIu64 ", the model has layers 0 to %u: "
							  "correct the list of visits",
							  (unsigned)out->count, layer, (unsigned)c->layers - 1);
		out->layer[out->count] = (uint16_t)layer;
	}
	knit__visits_find_loops(out);
	return KNIT_OK;
}

/* The keys that describe visits as loops; *any: at least one is there. */
static knit_status read_loop_counts(key_reader *r, knit__loop_counts *out, bool *any) {
	const struct {
		const char *key;
		uint64_t *value, least;
	} keys[] = {
		{"knit.prelude", &out->prelude, 0},
		{"knit.coda", &out->coda, 0},
		{"knit.loops", &out->loops, 1},
		{"knit.block.layers", &out->block, 1},
		{"knit.block.repeats", &out->repeats, 1},
	};

	memset(out, 0, sizeof *out);
	for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
		const knit_status status = knit__metadata_u64(r->m, keys[i].key, keys[i].value, r->diag);
		if (status == KNIT_ERR_NOT_FOUND)
			continue;
		if (status != KNIT_OK)
			return status;
		*any = true;
		if (*keys[i].value < keys[i].least)
			return knit__fail(r->diag, KNIT_ERR_FORMAT, 0, "%s is %" PRIu64 ", needs at least %" PRIu64 ": correct the key",
							  keys[i].key, *keys[i].value, keys[i].least);
	}
	return KNIT_OK;
}

/* knit.visits, or the loops that knit.loops and its companions describe; where both are there they must agree. */
static knit_status read_visits(key_reader *r, knit__decoder_config *c) {
	const knit_metadata_entry *array = NULL;
	const knit_status found = knit__metadata_array(r->m, "knit.visits", &array, r->diag);
	knit__visit_list listed;
	knit__loop_counts counts;
	bool looped = false;

	if (found != KNIT_OK && found != KNIT_ERR_NOT_FOUND)
		return found;
	knit_status status = read_loop_counts(r, &counts, &looped);
	if (status == KNIT_OK && (looped || found == KNIT_ERR_NOT_FOUND))
		status = knit__visits_make(c->layers, &counts, &c->model_visits, r->diag);
	if (status == KNIT_OK && found == KNIT_OK)
		status = read_list(r, c, array, &listed);
	if (status != KNIT_OK)
		return status;
	if (looped && found == KNIT_OK &&
		(listed.count != c->model_visits.count ||
		 memcmp(listed.layer, c->model_visits.layer, listed.count * sizeof *listed.layer) != 0))
		return knit__fail(r->diag, KNIT_ERR_FORMAT, 0,
						  "knit.visits (%u entries) is not what knit.loops and its companions describe (%u visits): "
						  "correct one or leave it out",
						  (unsigned)listed.count, (unsigned)c->model_visits.count);
	if (!looped && found == KNIT_OK)
		c->model_visits = listed;
	adopt(c);
	return KNIT_OK;
}

static knit_status read_lora(key_reader *r, knit__decoder_config *c) {
	float alpha = 0;
	knit_status status;

	r->prefix = "knit";
	if (!knit__metadata_find(r->m, "knit.lora.rank")) {
		c->lora_rank = 0;
		return KNIT_OK;
	}
	status = read_count(r, "lora.rank", 1, KNIT__MAX_LORA_RANK, 0, &c->lora_rank);
	if (status == KNIT_OK)
		status = read_positive(r, "lora.alpha", (double)c->lora_rank, &alpha);
	if (status == KNIT_OK)
		c->lora_scale = alpha / (float)c->lora_rank;
	return status;
}

knit_status knit__decoder_config_read(const knit_metadata *metadata, const knit_weights *weights,
									  knit__decoder_config *out, knit_diag *diag) {
	key_reader r = {.m = metadata, .diag = diag};

	memset(out, 0, sizeof *out);
	if (weights->count == 0)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "the file holds no tensors: it is a vocabulary or metadata alone, name a model instead");
	out->names = knit__weights_get(weights, "model.embed_tokens.weight") ? KNIT__NAMES_HF : KNIT__NAMES_GGUF;
	out->lora_names = out->names; /* of a LoRA in the same file */
	knit_status status = read_architecture(&r, out);
	if (status == KNIT_OK)
		status = read_sizes(&r, out);
	if (status == KNIT_OK)
		status = read_rope(&r, out);
	if (status == KNIT_OK)
		status = refuse_nonzero(&r, "expert_count", "mixture of experts");
	if (status == KNIT_OK)
		status = refuse_nonzero(&r, "attention.sliding_window", "sliding window from a file");
	if (status == KNIT_OK)
		status = read_visits(&r, out);
	if (status == KNIT_OK)
		status = knit__decoder_read_kv(out, metadata, diag);
	if (status == KNIT_OK)
		status = read_lora(&r, out);
	if (status == KNIT_OK)
		status = knit__decoder_check_weights(out, weights, diag);
	if (status == KNIT_OK)
		status = knit__decoder_check_own_norms(out, weights, diag);
	if (status == KNIT_OK)
		status = knit__decoder_check_adapters(out, weights, diag);
	return status;
}

/* Runs `list` instead of the model's visits. */
static knit_status run_list(knit__decoder_config *c, const knit__visit_list *list, knit_diag *diag) {
	if (c->loop_norms && list->shape.loops == 0)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
						  "the model has a norm after each loop, and these visits repeat themselves in more than one "
						  "way: give visits with one loop");
	memcpy(c->visits, list->layer, sizeof c->visits);
	c->visit_count = list->count;
	c->loops = list->shape;
	knit__visits_stand_for(&c->model_visits, list, c->stands_for);
	return KNIT_OK;
}

knit_status knit__decoder_config_visits(knit__decoder_config *c, const char *text, knit_diag *diag) {
	knit__visit_list list;
	const knit_status status = knit__visits_parse(text, c->layers, &list, diag);

	return status == KNIT_OK ? run_list(c, &list, diag) : status;
}

knit_status knit__decoder_config_loops(knit__decoder_config *c, uint32_t loops, knit_diag *diag) {
	knit__visit_list list = c->model_visits;
	const knit_status status = knit__visits_set_loops(&list, loops, diag);

	return status == KNIT_OK ? run_list(c, &list, diag) : status;
}

bool knit__decoder_visits_changed(const knit__decoder_config *c, uint32_t *shared, uint32_t *bare) {
	bool used[KNIT__MAX_VISITS] = {false};

	*shared = *bare = 0;
	for (uint32_t v = 0; v < c->visit_count; ++v) {
		const uint16_t own = c->stands_for[v];
		if (own == KNIT__NO_VISIT) {
			++*bare;
			continue;
		}
		*shared += used[own];
		used[own] = true;
	}
	return c->visit_count != c->model_visits.count ||
		   memcmp(c->visits, c->model_visits.layer, c->visit_count * sizeof *c->visits) != 0;
}

/* A number stored as text, as safetensors' __metadata__ holds it. */
static knit_status text_number(const knit_metadata *m, const char *key, double hi, double *out, knit_diag *diag) {
	const char *text = NULL;
	const knit_status status = knit__metadata_string(m, key, &text, diag);

	if (status == KNIT_ERR_NOT_FOUND)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "the adapter's metadata has no \"%s\": save it again with rank and alpha", key);
	if (status != KNIT_OK)
		return status;
	if (!knit__text_to_double(text, out) || !(*out > 0 && *out <= hi))
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "the adapter's %s is \"%.40s\", needs a number up to %g", key, text,
						  hi);
	return KNIT_OK;
}

knit_status knit__decoder_config_adapter(knit__decoder_config *c, const knit_metadata *metadata,
										 const knit_weights *adapter, knit_diag *diag) {
	key_reader r = {.m = metadata, .diag = diag};
	double rank = 0, alpha = 0;
	const char *schedule = NULL;
	knit_status status;

	if (knit__metadata_find(metadata, "knit.lora.rank")) {
		status = read_lora(&r, c);
		c->lora_names = KNIT__NAMES_GGUF;
		if (status == KNIT_OK && knit__metadata_find(metadata, "knit.visits"))
			status = read_visits(&r, c);
		return status == KNIT_OK ? knit__decoder_check_adapters(c, adapter, diag) : status;
	}
	status = text_number(metadata, "rank", KNIT__MAX_LORA_RANK, &rank, diag);
	if (status == KNIT_OK)
		status = text_number(metadata, "alpha", 1e6, &alpha, diag);
	if (status == KNIT_OK && knit__metadata_string(metadata, "schedule", &schedule, NULL) == KNIT_OK) {
		status = knit__visits_parse(schedule, c->layers, &c->model_visits, diag);
		if (status == KNIT_OK)
			adopt(c);
	}
	if (status != KNIT_OK)
		return status;
	if (rank != floor(rank))
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "the adapter's rank is %g, needs a whole number", rank);
	c->lora_rank = (int64_t)rank;
	c->lora_scale = (float)(alpha / rank);
	c->lora_names = knit__adapter_names_of(adapter);
	return knit__decoder_check_adapters(c, adapter, diag);
}
