/* A decoder of 4 layers, each visited 3 times, with a LoRA per visit and a tied head, built by hand: random weights made
 * in code, a few greedy tokens, and the memory report that shows every layer stored once. */
#include "knit.h"

#include <stdio.h>
#include <stdlib.h>

enum { LAYERS = 4, VISITS = 12, DIM = 64, HEADS = 4, FFN = 160, RANK = 4, CTX = 16, VOCAB = 256, PARTS = 7 };
static const struct { const char *name; int out, in; } parts[PARTS] = {
	{"q", DIM, DIM}, {"k", DIM, DIM}, {"v", DIM, DIM}, {"o", DIM, DIM}, {"gate", FFN, DIM}, {"up", FFN, DIM}, {"down", DIM, FFN}};

typedef struct site { knit_graph *g; knit_weights *store; knit_tensor seq, pos; int visit; } site;
static knit_diag diag;

static void check(knit_status status) {
	if (status == KNIT_OK)
		return;
	fprintf(stderr, "looped_decoder: %s: %s\n", knit_status_name(status), diag.text);
	exit(1);
}

/* Adds a matrix of small random numbers; a single row is the gain of a norm, about 1. */
static void add(knit_weights *store, int64_t rows, int64_t columns, const char *fmt, int index, const char *part) {
	static float values[VOCAB * DIM];
	static uint32_t seed = 1;
	const int64_t dims[] = {rows, columns}, n = rows * columns;
	char name[64];
	snprintf(name, sizeof name, fmt, index, part);
	for (int64_t i = 0; i < n; ++i)
		values[i] = 0.3f * ((float)((seed = seed * 1664525u + 1013904223u) >> 8) / 16777216.0f - 0.5f) + (float)(rows == 1);
	check(knit_weights_add(store, name, KNIT_F32, 1 + (rows > 1), dims + (rows == 1), values, (size_t)n * 4, &diag));
}

/* y = x W^T + (x A^T) B^T: W belongs to the layer, A and B to this visit of it. */
static knit_tensor proj(const site *s, knit_tensor x, const char *name) {
	knit_tensor w = knit_weight(s->g, s->store, "blk.%d.%s", s->visit % LAYERS, name);
	knit_tensor a = knit_adapter(s->g, s->store, "visit.%d.%s.a", s->visit, name);
	knit_tensor b = knit_adapter(s->g, s->store, "visit.%d.%s.b", s->visit, name);
	return knit_add(s->g, knit_linear(s->g, x, w), knit_linear(s->g, knit_linear(s->g, x, a), b));
}

/* Appends rows to this visit's KV slot and gives the slot. */
static knit_tensor cached(const site *s, knit_tensor rows, const char *which) {
	const knit_dim dims[] = {knit_n(1), knit_n(CTX), knit_n(HEADS), knit_n(DIM / HEADS)};
	knit_state slot = knit_state_define(s->g, KNIT_F16, 4, dims, "%s.%d", which, s->visit);
	knit_state_append(s->g, slot, rows, s->seq, s->pos);
	return knit_state_read(s->g, slot);
}

static knit_tensor block(const site *s, knit_tensor x, knit_tensor gain) {
	knit_tensor n = knit_rms_norm(s->g, x, gain, 1e-5f), v = knit_split_heads(s->g, proj(s, n, "v"), HEADS);
	knit_tensor q = knit_rope(s->g, knit_split_heads(s->g, proj(s, n, "q"), HEADS), s->pos, NULL);
	knit_tensor k = knit_rope(s->g, knit_split_heads(s->g, proj(s, n, "k"), HEADS), s->pos, NULL);
	knit_tensor y = knit_attention(s->g, q, cached(s, k, "k"), cached(s, v, "v"), s->seq, s->pos, NULL);
	x = knit_add(s->g, x, proj(s, knit_merge_heads(s->g, y), "o"));
	n = knit_rms_norm(s->g, x, gain, 1e-5f);
	return knit_add(s->g, x, proj(s, knit_mul(s->g, knit_silu(s->g, proj(s, n, "gate")), proj(s, n, "up")), "down"));
}

int main(void) {
	knit_context *ctx; knit_program *program; knit_session *run; knit_memory m;
	site s = {0};
	check(knit_context_create(NULL, &ctx));
	check(knit_weights_create(ctx, &s.store));
	add(s.store, VOCAB, DIM, "embd", 0, ""), add(s.store, 1, DIM, "gain", 0, "");
	for (int v = 0, p = 0; v < VISITS; p = (p + 1) % PARTS, v += p == 0) {
		if (v < LAYERS)
			add(s.store, parts[p].out, parts[p].in, "blk.%d.%s", v, parts[p].name);
		add(s.store, RANK, parts[p].in, "visit.%d.%s.a", v, parts[p].name);
		add(s.store, parts[p].out, RANK, "visit.%d.%s.b", v, parts[p].name);
	}
	check(knit_graph_create(ctx, &s.g));
	const knit_dim tokens = knit_sym(s.g, "tokens", 1, CTX);
	s.seq = knit_input(s.g, "seq", KNIT_I32, 1, &tokens);
	s.pos = knit_input(s.g, "pos", KNIT_I32, 1, &tokens);
	knit_tensor embd = knit_weight(s.g, s.store, "embd"), gain = knit_weight(s.g, s.store, "gain");
	knit_tensor x = knit_gather(s.g, embd, knit_input(s.g, "ids", KNIT_I32, 1, &tokens));
	for (s.visit = 0; s.visit < VISITS; ++s.visit)
		x = block(&s, x, gain);
	knit_output(s.g, "next", knit_argmax(s.g, knit_linear(s.g, knit_rms_norm(s.g, x, gain, 1e-5f), embd)));
	/* Builder calls never fail loudly: their first error comes back here. */
	check(knit_compile(s.g, &(knit_compile_desc){.device = "cpu"}, &program, &diag));
	check(knit_session_create(program, &run, &diag)); /* "tokens" starts at its lower bound, 1 */
	for (int32_t pos = 0, id = 1, seq = 0; pos < CTX; ++pos, printf(" %d", (int)id)) {
		check(knit_session_write(run, "ids", &id, sizeof id));
		check(knit_session_write(run, "seq", &seq, sizeof seq));
		check(knit_session_write(run, "pos", &pos, sizeof pos));
		check(knit_session_run(run));
		check(knit_session_read(run, "next", &id, sizeof id));
	}
	check(knit_program_memory(program, &m));
	printf("\nbase weights: %.1f KiB stored once, %.1f KiB as visited; LoRA: %.1f KiB\n", (double)m.weight_bytes / 1024,
	       (double)m.weight_bytes_by_use / 1024, (double)m.adapter_bytes / 1024);
	knit_session_destroy(run);
	knit_program_release(program);
	knit_graph_destroy(s.g);
	knit_weights_release(s.store);
	knit_context_destroy(ctx);
	return 0;
}
