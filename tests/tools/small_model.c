/* Owns a small looped decoder for tests of compiling and running. */
#include "small_model.h"

#include <stdio.h>

static float next_value(uint32_t *state) {
	*state = *state * 1664525u + 1013904223u;
	return ((float)(*state >> 8) / 16777216.0f - 0.5f) * 0.5f;
}

static knit_status add(knit_weights *w, const char *name, int rank, int64_t rows, int64_t columns, uint32_t *seed) {
	float data[SMALL_FF * SMALL_DIM];
	const int64_t dims[] = {rank == 2 ? rows : columns, columns};
	const size_t count = (size_t)(rank == 2 ? rows * columns : columns);

	for (size_t i = 0; i < count; ++i)
		data[i] = next_value(seed) + (rank == 1 ? 1.0f : 0.0f);
	return knit_weights_add(w, name, KNIT_F32, rank, dims, data, count * sizeof *data, NULL);
}

static knit_status add_all(knit_weights *w) {
	static const struct { const char *name; int rank; int64_t rows, columns; } list[] = {
		{"embed", 2, SMALL_VOCAB, SMALL_DIM},  {"norm", 1, 1, SMALL_DIM},
		{"attn_norm", 1, 1, SMALL_DIM},        {"q", 2, SMALL_DIM, SMALL_DIM},
		{"k", 2, SMALL_DIM, SMALL_DIM},        {"v", 2, SMALL_DIM, SMALL_DIM},
		{"o", 2, SMALL_DIM, SMALL_DIM},        {"ff_norm", 1, 1, SMALL_DIM},
		{"gate", 2, SMALL_FF, SMALL_DIM},      {"up", 2, SMALL_FF, SMALL_DIM},
		{"down", 2, SMALL_DIM, SMALL_FF},
	};
	uint32_t seed = 7;
	char name[32];
	knit_status status = KNIT_OK;

	for (size_t i = 0; status == KNIT_OK && i < sizeof list / sizeof *list; ++i)
		status = add(w, list[i].name, list[i].rank, list[i].rows, list[i].columns, &seed);
	for (int visit = 0; status == KNIT_OK && visit < SMALL_VISITS; ++visit) {
		snprintf(name, sizeof name, "visit.%d.q.a", visit);
		status = add(w, name, 2, SMALL_RANK, SMALL_DIM, &seed);
		snprintf(name, sizeof name, "visit.%d.q.b", visit);
		if (status == KNIT_OK)
			status = add(w, name, 2, SMALL_DIM, SMALL_RANK, &seed);
	}
	return status;
}

knit_status small_model_weights(knit_context *ctx, knit_weights **out) {
	knit_status status = knit_weights_create(ctx, out);

	if (status != KNIT_OK)
		return status;
	status = add_all(*out);
	if (status != KNIT_OK) {
		knit_weights_release(*out);
		*out = NULL;
	}
	return status;
}

typedef struct site {
	knit_graph *g;
	knit_weights *w;
	knit_tensor seq, pos;
	int visit;
} site;

static knit_tensor linear(site s, knit_tensor x, const char *name) {
	return knit_linear(s.g, x, knit_weight(s.g, s.w, "%s", name));
}

static knit_tensor heads(site s, knit_tensor x, bool turn) {
	x = knit_split_heads(s.g, x, SMALL_HEADS);
	return turn ? knit_rope(s.g, x, s.pos, NULL) : x;
}

static knit_tensor cached(site s, knit_tensor rows, const char *which) {
	const knit_dim dims[] = {knit_n(SMALL_SEQUENCES), knit_n(SMALL_POSITIONS), knit_n(SMALL_HEADS),
	                         knit_n(SMALL_DIM / SMALL_HEADS)};
	const knit_state slot = knit_state_define(s.g, KNIT_F32, 4, dims, "%s.%d", which, s.visit);

	knit_state_append(s.g, slot, rows, s.seq, s.pos);
	return knit_state_read(s.g, slot);
}

static knit_tensor block(site s, knit_tensor x) {
	knit_origin(s.g, "visit.%d.attn", s.visit);
	knit_tensor n = knit_rms_norm(s.g, x, knit_weight(s.g, s.w, "attn_norm"), 1e-5f);
	knit_tensor low = knit_linear(s.g, n, knit_adapter(s.g, s.w, "visit.%d.q.a", s.visit));
	knit_tensor q = knit_add(s.g, linear(s, n, "q"),
	                         knit_linear(s.g, low, knit_adapter(s.g, s.w, "visit.%d.q.b", s.visit)));
	knit_tensor k = cached(s, heads(s, linear(s, n, "k"), true), "k");
	knit_tensor v = cached(s, heads(s, linear(s, n, "v"), false), "v");
	knit_tensor y = knit_attention(s.g, heads(s, q, true), k, v, s.seq, s.pos, NULL);
	x = knit_add(s.g, x, linear(s, knit_merge_heads(s.g, y), "o"));
	knit_origin(s.g, "visit.%d.ff", s.visit);
	n = knit_rms_norm(s.g, x, knit_weight(s.g, s.w, "ff_norm"), 1e-5f);
	n = knit_mul(s.g, knit_silu(s.g, linear(s, n, "gate")), linear(s, n, "up"));
	return knit_add(s.g, x, linear(s, n, "down"));
}

knit_status small_model_graph(knit_context *ctx, knit_weights *w, knit_graph **out) {
	knit_status status = knit_graph_create(ctx, out);

	if (status != KNIT_OK)
		return status;
	knit_graph *const g = *out;
	const knit_dim tokens = knit_sym(g, "tokens", 1, SMALL_TOKENS);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens);
	site s = {.g = g, .w = w};
	s.seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	s.pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	const knit_tensor embed = knit_weight(g, w, "embed");
	knit_origin(g, "embed");
	knit_tensor x = knit_gather(g, embed, ids);
	for (; s.visit < SMALL_VISITS; ++s.visit)
		x = block(s, x);
	knit_origin(g, "head");
	x = knit_rms_norm(g, x, knit_weight(g, w, "norm"), 1e-5f);
	knit_output(g, "logits", knit_linear(g, x, embed));
	status = knit_graph_status(g, NULL);
	if (status != KNIT_OK) {
		knit_graph_destroy(g);
		*out = NULL;
	}
	return status;
}

uint64_t small_model_weight_bytes(void) {
	return sizeof(float) * (SMALL_VOCAB * SMALL_DIM + 3 * SMALL_DIM + 4 * SMALL_DIM * SMALL_DIM + 3 * SMALL_FF * SMALL_DIM);
}

uint64_t small_model_adapter_bytes(void) { return sizeof(float) * SMALL_VISITS * 2 * SMALL_RANK * SMALL_DIM; }

uint64_t small_model_state_bytes(void) {
	return sizeof(float) * SMALL_VISITS * 2 * SMALL_SEQUENCES * SMALL_POSITIONS * SMALL_DIM;
}
