/* Owns a small looped decoder with LoRA for tests of adapters. */
#include "adapter_model.h"

#include "../../graph/op_def.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const projections[] = {"q", "v", "o"};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static double next_value(uint32_t *state) {
	*state = *state * 1664525u + 1013904223u;
	return (double)(*state >> 8) / 8388608.0 - 1.0;
}

static bool add(knit_weights *w, const char *name, knit_dtype dtype, int rank, int64_t rows, int64_t columns,
                const double *data) {
	const int64_t dims[] = {rank == 2 ? rows : columns, columns};
	uint64_t bytes;

	if (!knit__dtype_bytes(dtype, (uint64_t)(rank == 2 ? rows * columns : columns), &bytes))
		return false;
	char *raw = malloc(bytes);
	if (!raw)
		return false;
	knit__encode(dtype, data, raw, (uint64_t)(rank == 2 ? rows * columns : columns));
	const knit_status status = knit_weights_add(w, name, dtype, rank, dims, raw, bytes, NULL);
	free(raw);
	return status == KNIT_OK;
}

static bool add_random(knit_weights *w, const char *name, knit_dtype dtype, int rank, int64_t rows, int64_t columns,
                       float range, float middle, uint32_t *seed) {
	const size_t count = (size_t)(rank == 2 ? rows * columns : columns);
	double *data = calloc(count, sizeof *data);

	for (size_t i = 0; data && i < count; ++i)
		data[i] = (double)middle + (double)range * next_value(seed);
	const bool ok = data && add(w, name, dtype, rank, rows, columns, data);
	free(data);
	return ok;
}

static knit_weights *finish(knit_weights *w, bool ok) {
	if (ok)
		return w;
	knit_weights_release(w);
	return NULL;
}

knit_weights *adapter_model_base(knit_context *ctx, knit_dtype dtype) {
	static const char *const matrices[] = {"q", "k", "v", "o"};
	knit_weights *w = NULL;
	uint32_t seed = 11;

	if (knit_weights_create(ctx, &w) != KNIT_OK)
		return NULL;
	bool ok = add_random(w, "embed", KNIT_F32, 2, ADAPTER_VOCAB, ADAPTER_DIM, 0.5f, 0, &seed) &&
	          add_random(w, "norm", KNIT_F32, 1, 1, ADAPTER_DIM, 0.1f, 1, &seed);
	for (int i = 0; ok && i < 4; ++i)
		ok = add_random(w, matrices[i], dtype, 2, ADAPTER_DIM, ADAPTER_DIM, 0.25f, 0, &seed);
	return finish(w, ok);
}

static void name_of(int visit, const char *projection, char which, char out[32]) {
	snprintf(out, 32, "visit.%d.%s.%c", visit, projection, which);
}

/* Dims of A or B. */
static void dims_of(char which, int64_t dims[2]) {
	dims[0] = which == 'a' ? ADAPTER_RANK : ADAPTER_DIM;
	dims[1] = which == 'a' ? ADAPTER_DIM : ADAPTER_RANK;
}

typedef struct spoil { const char *skip, *other_shape, *other_type; } spoil;

static knit_weights *make_adapter(knit_context *ctx, knit_dtype dtype, uint32_t seed, float b_range, spoil wrong) {
	knit_weights *w = NULL;
	bool ok = knit_weights_create(ctx, &w) == KNIT_OK;
	int64_t dims[2];
	char name[32];

	seed = seed * 2654435761u + 1;
	for (int i = 0; ok && i < ADAPTER_TENSORS; ++i) {
		const char which = i % 2 ? 'b' : 'a';

		name_of(i / 6, projections[i / 2 % 3], which, name);
		dims_of(which, dims);
		if (wrong.skip && strcmp(name, wrong.skip) == 0)
			continue;
		if (wrong.other_shape && strcmp(name, wrong.other_shape) == 0)
			dims[0] += 1;
		const bool other_type = wrong.other_type && strcmp(name, wrong.other_type) == 0;
		ok = add_random(w, name, other_type ? KNIT_F16 : dtype, 2, dims[0], dims[1], which == 'a' ? 0.25f : b_range, 0,
		                &seed);
	}
	return finish(w, ok);
}

knit_weights *adapter_model_adapter(knit_context *ctx, knit_dtype dtype, uint32_t seed, float b_range) {
	return make_adapter(ctx, dtype, seed, b_range, (spoil){0});
}

knit_weights *adapter_model_spoiled(knit_context *ctx, const char *skip, const char *other_shape, const char *other_type) {
	return make_adapter(ctx, KNIT_F32, 5, 0.25f, (spoil){skip, other_shape, other_type});
}

static const float *floats(const knit_weights *w, const char *name) {
	knit_weight_info info;

	return knit_weights_find(w, name, &info) == KNIT_OK && info.dtype == KNIT_F32 ? info.data : NULL;
}

static bool merge(knit_weights *to, const knit_weights *base, const knit_weights *adapter, int visit, const char *which) {
	double data[ADAPTER_DIM * ADAPTER_DIM];
	char name[32];

	name_of(visit, which, 'a', name);
	const float *a = floats(adapter, name), *w = floats(base, which);
	name_of(visit, which, 'b', name);
	const float *b = floats(adapter, name);
	if (!a || !b || !w)
		return false;
	for (int i = 0; i < ADAPTER_DIM; ++i) {
		for (int j = 0; j < ADAPTER_DIM; ++j) {
			double sum = 0;

			for (int r = 0; r < ADAPTER_RANK; ++r)
				sum += (double)b[i * ADAPTER_RANK + r] * (double)a[r * ADAPTER_DIM + j];
			data[i * ADAPTER_DIM + j] = (double)w[i * ADAPTER_DIM + j] + (double)ADAPTER_SCALE * sum;
		}
	}
	snprintf(name, sizeof name, "merged.%d.%s", visit, which);
	return add(to, name, KNIT_F32, 2, ADAPTER_DIM, ADAPTER_DIM, data);
}

knit_weights *adapter_model_merged(knit_context *ctx, const knit_weights *base, const knit_weights *adapter) {
	knit_weights *w = NULL;
	bool ok = knit_weights_create(ctx, &w) == KNIT_OK;

	for (int i = 0; ok && i < ADAPTER_VISITS * 3; ++i)
		ok = merge(w, base, adapter, i / 3, projections[i % 3]);
	return finish(w, ok);
}

/* ---- graph ------------------------------------------------------------------------------------------------------- */

typedef struct site {
	knit_graph *g;
	const adapter_model *m;
	knit_tensor seq, pos, adapter_of_sequence;
	int visit;
} site;

static knit_tensor factor(const site *s, const char *projection, char which) {
	char name[32];
	int64_t dims[2];

	name_of(s->visit, projection, which, name);
	dims_of(which, dims);
	if (s->m->mode == ADAPTER_BOUND)
		return knit_adapter(s->g, s->m->adapter, "%s", name);
	return knit_adapter_slots(s->g, s->m->dtype ? s->m->dtype : KNIT_F32, s->m->slots, dims[0], dims[1], "%s", name);
}

static knit_tensor project(const site *s, knit_tensor x, const char *projection) {
	const knit_tensor none = {0};

	knit_origin(s->g, "visit.%d.%s", s->visit, projection);
	if (s->m->mode == ADAPTER_MERGED)
		return knit_linear(s->g, x, knit_weight(s->g, s->m->adapter, "merged.%d.%s", s->visit, projection));
	const knit_tensor y = knit_linear(s->g, x, knit_weight(s->g, s->m->base, "%s", projection));
	if (s->m->mode == ADAPTER_NONE)
		return y;
	const bool slots = s->m->mode == ADAPTER_SLOTS;
	return knit_add(s->g, y, knit_lora(s->g, x, factor(s, projection, 'a'), factor(s, projection, 'b'), ADAPTER_SCALE,
	                                   slots ? s->adapter_of_sequence : none, slots ? s->seq : none));
}

static knit_tensor cached(const site *s, knit_tensor rows, const char *which) {
	const knit_dim dims[] = {knit_n(ADAPTER_SEQUENCES), knit_n(ADAPTER_POSITIONS), knit_n(ADAPTER_HEADS),
	                         knit_n(ADAPTER_DIM / ADAPTER_HEADS)};
	const knit_state slot = knit_state_define(s->g, KNIT_F32, 4, dims, "%s.%d", which, s->visit);

	knit_state_append(s->g, slot, rows, s->seq, s->pos);
	return knit_state_read(s->g, slot);
}

static knit_tensor block(const site *s, knit_tensor x) {
	const knit_tensor n = knit_rms_norm(s->g, x, knit_weight(s->g, s->m->base, "norm"), 1e-5f);
	const knit_tensor q = knit_split_heads(s->g, project(s, n, "q"), ADAPTER_HEADS);
	const knit_tensor plain_k = knit_linear(s->g, n, knit_weight(s->g, s->m->base, "k"));
	const knit_tensor k = cached(s, knit_rope(s->g, knit_split_heads(s->g, plain_k, ADAPTER_HEADS), s->pos, NULL), "k");
	const knit_tensor v = cached(s, knit_split_heads(s->g, project(s, n, "v"), ADAPTER_HEADS), "v");
	const knit_tensor y = knit_attention(s->g, knit_rope(s->g, q, s->pos, NULL), k, v, s->seq, s->pos, NULL);

	return knit_add(s->g, x, project(s, knit_merge_heads(s->g, y), "o"));
}

knit_graph *adapter_model_graph(knit_context *ctx, const adapter_model *m, knit_diag *d) {
	const knit_dim sequences = knit_n(ADAPTER_SEQUENCES);
	knit_graph *g = NULL;

	if (knit_graph_create(ctx, &g) != KNIT_OK)
		return NULL;
	site s = {.g = g, .m = m};
	const knit_dim tokens = knit_sym(g, "tokens", 1, ADAPTER_TOKENS);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens);
	s.seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	s.pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	if (m->mode == ADAPTER_SLOTS)
		s.adapter_of_sequence = knit_input(g, "adapter_of_sequence", KNIT_I32, 1, &sequences);
	const knit_tensor embed = knit_weight(g, m->base, "embed");
	knit_tensor x = knit_gather(g, embed, ids);
	for (; s.visit < ADAPTER_VISITS; ++s.visit)
		x = block(&s, x);
	knit_output(g, "logits", knit_linear(g, x, embed));
	if (knit_graph_status(g, d) == KNIT_OK)
		return g;
	knit_graph_destroy(g);
	return NULL;
}

knit_program *adapter_model_compile(knit_context *ctx, const adapter_model *m, const char *device,
                                    const char *disable_passes, knit_diag *d) {
	static const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, ADAPTER_TOKENS}};
	const knit_compile_desc desc = {
		.device = device, .buckets = buckets, .bucket_count = 2, .disable_passes = disable_passes};
	knit_graph *g = adapter_model_graph(ctx, m, d);
	knit_program *p = NULL;

	if (g)
		knit_compile(g, &desc, &p, d);
	knit_graph_destroy(g);
	return p;
}

knit_status adapter_model_run(knit_session *s, size_t tokens, const int32_t *ids, const int32_t *seq,
                              const int32_t *pos, float *logits) {
	knit_status status = knit_session_set(s, "tokens", (int64_t)tokens);

	if (status == KNIT_OK)
		status = knit_session_write(s, "ids", ids, tokens * sizeof *ids);
	if (status == KNIT_OK)
		status = knit_session_write(s, "seq", seq, tokens * sizeof *seq);
	if (status == KNIT_OK)
		status = knit_session_write(s, "pos", pos, tokens * sizeof *pos);
	if (status == KNIT_OK)
		status = knit_session_run(s);
	return status == KNIT_OK ? knit_session_read(s, "logits", logits, tokens * ADAPTER_VOCAB * sizeof *logits) : status;
}
