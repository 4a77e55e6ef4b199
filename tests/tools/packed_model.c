/* Owns the quantised model of packed_model.h: its file, its graph, its runs. */
#include "packed_model.h"

#include "../../backends/cpu/cpu.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const pack_tensor pack_made[PACK_MADE] = {
	{"embed", KNIT_Q8_0, PACK_VOCAB, PACK_DIM, true, (uint64_t)(PACK_PANEL - PACK_VOCAB % PACK_PANEL) * (PACK_DIM / 32 * 34)},
	{"up", KNIT_Q8_0, PACK_FF, PACK_DIM, true, 0},
	{"gate", KNIT_Q4_0, PACK_FF, PACK_DIM, true, 0},
	{"down", KNIT_Q4_0, PACK_DIM, PACK_FF, true, (uint64_t)PACK_DIM * 18},
	{"mix", KNIT_Q8_0, PACK_DIM, PACK_DIM, true, 0},
	{"few", KNIT_Q4_0, 20, PACK_DIM, false, 0},
	{"gain", KNIT_F32, 1, PACK_DIM, false, 0},
	{"low.a", KNIT_Q8_0, PACK_LOW, PACK_DIM, false, 0},
	{"low.b", KNIT_Q8_0, PACK_DIM, PACK_LOW, false, 0},
};

pack_environment pack_env;

void pack_ok(knit_status got) { ck_assert_msg(got == KNIT_OK, "%s: %s", knit_status_name(got), pack_env.diag.text); }

bool pack_panels_here(void) {
	if (knit__cpu_isa_found() != KNIT_CPU_PLAIN)
		return true;
	printf("SKIP: no kernel of this machine reads weights in panels\n");
	return false;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

uint64_t pack_bytes(size_t i) {
	uint64_t bytes = 0;

	ck_assert(knit__dtype_bytes(pack_made[i].type, (uint64_t)(pack_made[i].rows * pack_made[i].columns), &bytes));
	return bytes;
}

static uint64_t next(uint64_t *state) {
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Random blocks whose scales, powers of two, keep the size of what goes through; or ones. */
void *pack_contents(size_t i, uint64_t seed) {
	const size_t block = pack_made[i].type == KNIT_Q8_0 ? 34 : 18, bytes = (size_t)pack_bytes(i);
	unsigned char *const data = malloc(bytes);
	uint64_t state = seed * 1000 + i + 1;

	if (pack_made[i].type == KNIT_F32) {
		for (int64_t k = 0; k < pack_made[i].columns; ++k)
			((float *)(void *)data)[k] = 1;
		return data;
	}
	for (size_t at = 0; at < bytes; at += block) {
		const int exponent = (pack_made[i].type == KNIT_Q8_0 ? 9 : 5) + (int)(next(&state) % 2);
		const uint16_t scale = (uint16_t)((15 - exponent) << 10);

		memcpy(data + at, &scale, 2);
		for (size_t k = 2; k < block; ++k)
			data[at + k] = (unsigned char)(next(&state) >> 32);
	}
	return data;
}

void pack_write(const knit_gguf_out *tensors, uint32_t count) {
	knit_metadata m;
	uint64_t size;

	knit__metadata_init(&m, &knit__default_allocator);
	const knit_gguf_write_desc desc = {.metadata = &m, .tensors = tensors, .count = count};
	pack_ok(knit__gguf_write(&knit__default_allocator, pack_env.path, &desc, &size, &pack_env.diag));
	knit__metadata_clear(&m);
}

void pack_begin(knit_context *context) {
	knit_gguf_out tensors[PACK_MADE];

	unsetenv("KNIT_CPU_ISA");
	pack_env.ctx = context;
	if (!pack_env.ctx)
		pack_ok(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &pack_env.ctx));
	snprintf(pack_env.folder, sizeof pack_env.folder, "/tmp/knit-pack-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(pack_env.folder));
	snprintf(pack_env.path, sizeof pack_env.path, "%s/model.gguf", pack_env.folder);
	snprintf(pack_env.states_path, sizeof pack_env.states_path, "%s/states", pack_env.folder);
	for (uint32_t i = 0; i < PACK_MADE; ++i)
		tensors[i] = (knit_gguf_out){pack_made[i].name, pack_made[i].type, pack_made[i].type == KNIT_F32 ? 1 : 2,
		                             {pack_made[i].type == KNIT_F32 ? pack_made[i].columns : pack_made[i].rows, pack_made[i].columns},
		                             pack_contents(i, 1), pack_bytes(i), i};
	pack_write(tensors, PACK_MADE);
	for (uint32_t i = 0; i < PACK_MADE; ++i)
		free((void *)(uintptr_t)tensors[i].data);
}

void pack_end(void) {
	knit_context_destroy(pack_env.ctx);
	unlink(pack_env.path);
	unlink(pack_env.states_path);
	ck_assert_int_eq(rmdir(pack_env.folder), 0);
}

knit_weights *pack_weights(void) {
	knit_weights *store = NULL;

	pack_ok(knit_weights_open(pack_env.ctx, pack_env.path, &store, &pack_env.diag));
	return store;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

knit_graph *pack_graph(knit_weights *const stores[PACK_VISITS]) {
	knit_graph *g;

	pack_ok(knit_graph_create(pack_env.ctx, &g));
	const knit_dim tokens = knit_sym(g, "tokens", 1, PACK_TOKENS);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens), seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	const knit_dim cells[] = {knit_n(1), knit_n(PACK_POSITIONS), knit_n(PACK_DIM)};
	const knit_state seen = knit_state_define(g, KNIT_F32, 3, cells, "seen");
	knit_tensor x = knit_gather(g, knit_weight(g, stores[0], "embed"), ids);

	for (int v = 0; v < PACK_VISITS; ++v) {
		const knit_tensor h = knit_rms_norm(g, x, knit_weight(g, stores[v], "gain"), 1e-5f);
		const knit_tensor up = knit_linear(g, h, knit_weight(g, stores[v], "up"));
		const knit_tensor gate = knit_silu(g, knit_linear(g, h, knit_weight(g, stores[v], "gate")));
		x = knit_add(g, x, knit_linear(g, knit_mul(g, gate, up), knit_weight(g, stores[v], "down")));
		x = knit_add(g, x, knit_linear(g, knit_linear(g, x, knit_adapter(g, stores[0], "low.a")),
		                               knit_adapter(g, stores[0], "low.b")));
		x = knit_linear(g, x, knit_weight(g, stores[v], "mix"));
	}
	knit_state_append(g, seen, x, seq, pos);
	knit_output(g, "few", knit_linear(g, x, knit_weight(g, stores[0], "few")));
	knit_output(g, "logits", knit_linear(g, x, knit_weight(g, stores[0], "embed")));
	pack_ok(knit_graph_status(g, &pack_env.diag));
	return g;
}

knit_graph *pack_graph_tied(knit_weights *store) {
	knit_weights *const stores[PACK_VISITS] = {store, store, store};

	return pack_graph(stores);
}

const knit_bucket pack_buckets[] = {{"tokens", 1, 1}, {"tokens", 2, PACK_TOKENS}};

knit_program *pack_compile(const knit_graph *g, const char *disable) {
	const knit_compile_desc desc = {
		.device = "cpu", .buckets = pack_buckets, .bucket_count = 2, .disable_passes = disable};
	knit_program *p = NULL;

	pack_ok(knit_compile(g, &desc, &p, &pack_env.diag));
	return p;
}

knit_session *pack_session(knit_program *p) {
	knit_session *s = NULL;

	pack_ok(knit_session_create(p, &s, &pack_env.diag));
	return s;
}

float *pack_logits(knit_session *s, size_t batch) {
	float *const out = malloc(sizeof(float) * PACK_TOKENS * PACK_VOCAB);
	int32_t ids[PACK_TOKENS], seq[PACK_TOKENS] = {0}, pos[PACK_TOKENS];

	for (int i = 0; i < PACK_TOKENS; ++i) {
		ids[i] = i * 1237 % PACK_VOCAB;
		pos[i] = i;
	}
	ids[PACK_TOKENS - 1] = PACK_VOCAB - 1;
	for (size_t at = 0; at < PACK_TOKENS; at += batch) {
		pack_ok(knit_session_set(s, "tokens", (int64_t)batch));
		pack_ok(knit_session_write(s, "ids", ids + at, batch * 4));
		pack_ok(knit_session_write(s, "seq", seq + at, batch * 4));
		pack_ok(knit_session_write(s, "pos", pos + at, batch * 4));
		pack_ok(knit_session_run(s));
		pack_ok(knit_session_read(s, "logits", out + at * PACK_VOCAB, batch * PACK_VOCAB * 4));
	}
	return out;
}

float *pack_logits_of(knit_program *p, size_t batch) {
	knit_session *const s = pack_session(p);
	float *const out = pack_logits(s, batch);

	knit_session_destroy(s);
	return out;
}
