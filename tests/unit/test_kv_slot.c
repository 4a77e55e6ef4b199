/* KV slots: rows rounded into them, the cells of a ring, what the builder makes of a description, and a long run in a
 * ring beside one with a cell for every position. */
#include "../../backends/cpu/kernels/kv_rows.h"
#include "../../graph/ir.h"
#include "../../ops/quant.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};

static uint64_t bytes_of(knit_dtype t, uint64_t n) {
	uint64_t bytes = 0;

	ck_assert(knit__dtype_bytes(t, n, &bytes));
	return bytes;
}

static float random_float(uint64_t *seed) {
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void same_bits(knit_dtype t, const float *x, int n, const char *what) {
	char fast[64 * 4], plain[64 * 4];
	float back[64], want[64];
	const size_t bytes = (size_t)bytes_of(t, (uint64_t)n);

	knit__kv_row_store(t, x, fast, n);
	knit__row_from_f32(t, x, plain, (size_t)n);
	for (size_t i = 0; i < bytes; ++i)
		if (fast[i] != plain[i])
			ck_abort_msg("%s, %s: byte %zu is %02x, needs %02x", knit_dtype_name(t), what, i, (uint8_t)fast[i],
			             (uint8_t)plain[i]);
	knit__kv_row_load(t, plain, back, n);
	knit__row_to_f32(t, plain, want, (size_t)n);
	for (int i = 0; i < n; ++i)
		ck_assert(back[i] == want[i] || (isnan(back[i]) && isnan(want[i])));
}

/* Every step of the rounding: halves, signs, ties of magnitude, denormals, overflow of the scale, zeros. */
START_TEST(rows_are_rounded_as_by_the_reference) {
	static const float sizes[] = {1, 1e-3f, 127, 3e38f, 1e-30f, 1e-38f, 1e-42f, 65504 * 127.0f, 6e-5f, 1e-7f, 0};
	uint64_t seed = 1;
	float x[64];

	for (size_t t = 0; t < 5; ++t) {
		for (int round = 0; round < 3000; ++round) {
			const float size = sizes[round % 11];

			for (int i = 0; i < 64; ++i)
				x[i] = random_float(&seed) * size;
			if (round % 3 == 0) { /* steps of half a unit: every rounding is a tie */
				for (int i = 0; i < 64; ++i)
					x[i] = (float)((int)(random_float(&seed) * 254)) * 0.5f * size;
				x[7] = x[40] = 127 * size;
			}
			if (round % 5 == 0) /* largest magnitude twice, once with each sign */
				x[3] = -(x[17] = size), x[40] = -(x[35] = -size);
			if (round % 7 == 0)
				x[9] = -0.0f;
			same_bits(types[t], x, 64, "random");
		}
		for (int i = 0; i < 64; ++i)
			x[i] = i % 2 ? 0.0f : -0.0f;
		same_bits(types[t], x, 64, "zeros");
		for (int at = 0; at < 64 && t > 2; at += 21) {
			x[at] = at % 2 ? INFINITY : NAN;
			same_bits(types[t], x, 64, "not finite");
		}
	}
}
END_TEST

/* The kernel of append, every type, ranks 3 and 4, with and without a ring. */
START_TEST(rows_go_to_their_cells) {
	const int32_t seq[] = {0, 1, 1, 0, 2, -1, 0, 0}, pos[] = {0, 0, 4, 4, 0, 0, 5, -1}, far[] = {9, 0, 4, 100, 0, 0, 71, -1};

	for (int i = 0; i < 20; ++i) {
		const int rank = 3 + i / 5 % 2, ring = i / 10;
		const int64_t cells[] = {2, 5, rank == 4 ? 3 : 64, 64}, row[] = {8, cells[2], 64};
		const knit_cpu_kernel *k;

		for (size_t n = 0; (k = bench_kernel(KNIT_OP_STATE_APPEND, n)); ++n) {
			kernel_bench b = {.op = KNIT_OP_STATE_APPEND, .seed = (uint64_t)i};

			b.attr[0].i = ring ? 3 : 0;
			b.attr[1].i = ring ? 2 : 0;
			bench_in(&b, 0, types[i % 5], rank, cells, 9, 0, 0);
			bench_in(&b, 1, KNIT_F32, rank - 1, row, 9, 5, 0);
			bench_indices(&b, 2, 8, seq);
			bench_indices(&b, 3, 8, ring ? far : pos);
			bench_out_state(&b);
			ck_assert(bench_accepts(&b, k));
			double *const ref = bench_reference(&b, false);

			bench_run(&b, k, 3, 2);
			double *const got = bench_values(&b.out);
			ck_assert(memcmp(ref, got, (size_t)bench_count(&b.out) * sizeof *ref) == 0);
			free(ref);
			free(got);
			bench_free(&b);
		}
	}
}
END_TEST

/* ---- what a description becomes ---------------------------------------------------------------------------------- */

static void value_is(const knit_graph *g, knit_state s, const char *name, const char *want) {
	const knit_state_slot *const slot = &g->states[s.id - 1];
	char text[96];

	knit__value_text(g, slot->current, text, sizeof text);
	ck_assert_str_eq(text, want);
	ck_assert_str_eq(knit__strings_get(&g->strings, g->storages[slot->storage].name), name);
}

START_TEST(descriptions_become_states) {
	static const struct {
		knit_kv_desc desc;
		int64_t cells, ring;
		const char *k, *v;
	} rows[] = {
		{{.positions = 100, .kv_heads = 2, .head_dim = 64}, 100, 0, "f16 [1, 100, 2, 64]", "f16 [1, 100, 2, 64]"},
		{{.sequences = 3, .positions = 7, .kv_heads = 2, .head_dim = 64, .k = KNIT_Q8_0, .v = KNIT_Q4_0},
		 7, 0, "q8_0 [3, 7, 2, 64]", "q4_0 [3, 7, 2, 64]"},
		{{.positions = 7, .kv_heads = 4, .head_dim = 8, .k = KNIT_Q8_0, .v = KNIT_F32}, 7, 0, "q8_0 [1, 7, 32]",
		 "f32 [1, 7, 4, 8]"},
		/* 10 + 6 - 1 in the ring */
		{{.kv_heads = 1, .head_dim = 32, .window = 10, .max_tokens = 6}, 15, 15, "f16 [1, 15, 1, 32]", "f16 [1, 15, 1, 32]"},
		{{.kv_heads = 1, .head_dim = 32, .window = 10, .sinks = 4, .max_tokens = 1, .k = KNIT_BF16}, 14, 10,
		 "bf16 [1, 14, 1, 32]", "f16 [1, 14, 1, 32]"},
		/* a ring that would never be gone round is none */
		{{.positions = 14, .kv_heads = 1, .head_dim = 32, .window = 10, .sinks = 4, .max_tokens = 1}, 14, 0,
		 "f16 [1, 14, 1, 32]", "f16 [1, 14, 1, 32]"},
		{{.positions = 15, .kv_heads = 1, .head_dim = 32, .window = 10, .sinks = 4, .max_tokens = 1}, 14, 10,
		 "f16 [1, 14, 1, 32]", "f16 [1, 14, 1, 32]"},
	};
	knit_context *ctx;
	knit_graph *g;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		const knit_kv_slot s = knit_kv_slot_define(g, &rows[i].desc, "%d", (int)i);
		char name[16];

		ck_assert_int_eq(s.cells, rows[i].cells);
		ck_assert_int_eq(s.ring, rows[i].ring);
		snprintf(name, sizeof name, "k.%d", (int)i);
		value_is(g, s.k, name, rows[i].k);
		name[0] = 'v';
		value_is(g, s.v, name, rows[i].v);
	}
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}
END_TEST

/* ---- running ----------------------------------------------------------------------------------------------------- */

enum { HEADS = 4, KV_HEADS = 2, DIM = 16, WINDOW = 20, TOKENS = 12, SEQUENCES = 2, POSITIONS = 400, ROW = KV_HEADS * DIM };

/* q, k and v are inputs; y is what attention makes of them. With `plain` a cell for each position, whatever the window. */
static knit_session *open_slot(knit_context *ctx, const char *device, knit_kv_desc desc, bool plain,
                               uint64_t *state_bytes) {
	knit_graph *g = NULL;
	knit_program *p = NULL;
	knit_session *s = NULL;
	knit_memory memory;
	knit_diag d = {0};

	desc.sequences = SEQUENCES;
	desc.kv_heads = KV_HEADS;
	desc.head_dim = DIM;
	desc.max_tokens = TOKENS;
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim n = knit_sym(g, "tokens", 1, TOKENS);
	const knit_tensor q = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {HEADS}, {DIM}});
	const knit_tensor k = knit_input(g, "k", KNIT_F32, 3, (knit_dim[]){n, {KV_HEADS}, {DIM}});
	const knit_tensor v = knit_input(g, "v", KNIT_F32, 3, (knit_dim[]){n, {KV_HEADS}, {DIM}});
	const knit_tensor seq = knit_input(g, "seq", KNIT_I32, 1, &n), pos = knit_input(g, "pos", KNIT_I32, 1, &n);
	knit_origin(g, "here");
	const int64_t window = desc.window, sinks = desc.sinks;
	desc.window = plain ? 0 : window;
	desc.sinks = plain ? 0 : sinks;
	knit_kv_slot slot = knit_kv_slot_define(g, &desc, "slot");
	slot.desc.window = window;
	slot.desc.sinks = sinks;
	knit_kv_slot_append(g, &slot, k, v, seq, pos);
	knit_output(g, "y", knit_kv_slot_attend(g, &slot, q, seq, pos, 0));
	ck_assert_msg(knit_compile(g, &(knit_compile_desc){.device = device}, &p, &d) == KNIT_OK, "%s", d.text);
	knit_graph_destroy(g);
	knit_program_memory(p, &memory);
	*state_bytes = memory.state_bytes;
	ck_assert_int_eq(knit_session_create(p, &s, &d), KNIT_OK);
	knit_program_release(p);
	return s;
}

static float input_value(int what, int seq, int pos, int i) {
	uint64_t seed = (uint64_t)what * 1000003 + (uint64_t)seq * 50021 + (uint64_t)pos * 521 + (uint64_t)i;

	random_float(&seed);
	random_float(&seed);
	return random_float(&seed);
}

/* Tokens `first` to first + count - 1 of sequence `which`, or of both sequences for 2. */
static knit_status feed(knit_session *s, int first, int count, int which, float *y) {
	float q[TOKENS * HEADS * DIM], k[TOKENS * ROW], v[TOKENS * ROW];
	int32_t seq[TOKENS], pos[TOKENS];
	const int tokens = which == 2 ? 2 * count : count;

	for (int t = 0; t < tokens; ++t) {
		seq[t] = which == 2 ? t >= count : which;
		pos[t] = first + t % count;
		for (int i = 0; i < HEADS * DIM; ++i)
			q[t * HEADS * DIM + i] = 3 * input_value(0, seq[t], pos[t], i);
		for (int i = 0; i < ROW; ++i) {
			k[t * ROW + i] = input_value(1, seq[t], pos[t], i);
			v[t * ROW + i] = input_value(2, seq[t], pos[t], i);
		}
	}
	ck_assert_int_eq(knit_session_set(s, "tokens", tokens), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "q", q, (size_t)(tokens * HEADS * DIM) * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "k", k, (size_t)(tokens * ROW) * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "v", v, (size_t)(tokens * ROW) * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "seq", seq, (size_t)tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "pos", pos, (size_t)tokens * 4), KNIT_OK);
	const knit_status status = knit_session_run(s);
	if (status == KNIT_OK)
		ck_assert_int_eq(knit_session_read(s, "y", y, (size_t)(tokens * HEADS * DIM) * 4), KNIT_OK);
	return status;
}

/* 400 positions through a ring of 31 cells, in steps of every size: the same bits as with a cell for each position and
 * the same window. Keys and values of every type in turn. */
START_TEST(a_long_run_in_a_ring) {
	static const int steps[] = {1, 12, 5, 6, 3, 1, 1, 11};
	knit_context *ctx;
	uint64_t plain_bytes, ring_bytes;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	for (int pair = 0; pair < 5; ++pair) {
		const int sinks = pair % 3 == 0 ? 0 : 3, cells = sinks + WINDOW + TOKENS - 1;
		knit_kv_desc desc = {.window = WINDOW, .sinks = sinks, .k = types[pair], .v = types[(pair + 2) % 5]};
		float a[TOKENS * HEADS * DIM], b[TOKENS * HEADS * DIM];
		knit_session *const ring = open_slot(ctx, "cpu", desc, false, &ring_bytes);

		desc.positions = POSITIONS;
		knit_session *const plain = open_slot(ctx, "cpu", desc, true, &plain_bytes);
		ck_assert_uint_eq(ring_bytes / (uint64_t)cells, plain_bytes / POSITIONS);
		ck_assert_uint_eq(plain_bytes / POSITIONS, SEQUENCES * (bytes_of(desc.k, ROW) + bytes_of(desc.v, ROW)));
		for (int at = 0, i = 0; at < POSITIONS - TOKENS; at += steps[i++ % 8]) {
			const int count = steps[i % 8];
			const bool both = count <= TOKENS / 2;

			for (int which = both ? 2 : 0; which < (both ? 3 : 2); ++which) {
				ck_assert_int_eq(feed(ring, at, count, which, a), KNIT_OK);
				ck_assert_int_eq(feed(plain, at, count, which, b), KNIT_OK);
				ck_assert_msg(memcmp(a, b, (size_t)((both ? 2 : 1) * count * HEADS * DIM) * 4) == 0,
				              "pair %d, position %d, %d tokens of sequence %d", pair, at, count, which);
			}
		}
		knit_session_destroy(ring);
		knit_session_destroy(plain);
	}
	knit_context_destroy(ctx);
}
END_TEST

/* A ring that holds window + tokens - 1 positions is just large enough. */
START_TEST(rings_are_large_enough) {
	for (int64_t ring = 30; ring <= 32; ++ring) {
		knit_context *ctx;
		knit_graph *g;
		knit_diag d;

		ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
		ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
		const knit_dim n = knit_sym(g, "tokens", 1, TOKENS);
		const knit_tensor q = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {HEADS}, {DIM}});
		const knit_tensor at = knit_input(g, "at", KNIT_I32, 1, &n);
		const knit_state s = knit_state_define(g, KNIT_F16, 4, (knit_dim[]){{1}, {ring}, {KV_HEADS}, {DIM}}, "s");
		const knit_attention_desc desc = {.window = WINDOW, .ring = ring};

		knit_attention(g, q, knit_state_read(g, s), knit_state_read(g, s), at, at, &desc);
		ck_assert_int_eq(knit_graph_status(g, &d), ring < WINDOW + TOKENS - 1 ? KNIT_ERR_ARGUMENT : KNIT_OK);
		ck_assert(ring != 30 || strstr(d.text, "12 tokens in a run need 31") != NULL);
		knit_graph_destroy(g);
		knit_context_destroy(ctx);
	}
}
END_TEST

/* What would make a token lose cells of its own run, or write below the slot, is refused before any work. */
START_TEST(a_run_may_not_go_round_itself) {
	const knit_kv_desc desc = {.window = WINDOW, .sinks = 3};
	float q[2 * HEADS * DIM] = {0}, rows[2 * ROW] = {0};
	knit_context *ctx;
	uint64_t bytes;
	knit_diag d;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	knit_session *const s = open_slot(ctx, "cpu", desc, false, &bytes);
	static const struct {
		int32_t seq[2], pos[2];
		const char *says;
	} runs[] = {
		{{0, 0}, {100, 111}, NULL}, /* a ring of 31 for a window of 20: 11 apart */
		{{0, 0}, {100, 112}, "sequence 0 has positions 100 and 112"},
		{{0, 0}, {112, 100}, "at most 11 apart"},
		{{0, 1}, {100, 2000}, NULL},
		{{0, 0}, {2, 2000}, NULL}, /* sinks have cells of their own */
		{{0, 0}, {3, 2000}, "sequence 0 has positions 3 and 2000"},
		{{0, 0}, {-1, 5}, "position -1"},
		{{0, 2}, {1, 5}, "is 2: "},
		{{1, 1}, {INT32_MAX, INT32_MAX - 1}, NULL},
	};

	ck_assert_int_eq(knit_session_set(s, "tokens", 2), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "q", q, sizeof q), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "k", rows, sizeof rows), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "v", rows, sizeof rows), KNIT_OK);
	for (size_t i = 0; i < sizeof runs / sizeof *runs; ++i) {
		ck_assert_int_eq(knit_session_write(s, "seq", runs[i].seq, 8), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "pos", runs[i].pos, 8), KNIT_OK);
		const knit_status status = knit_session_run(s);

		knit_session_diag(s, &d);
		ck_assert_msg(status == (runs[i].says ? KNIT_ERR_ARGUMENT : KNIT_OK), "run %zu: %s", i, d.text);
		ck_assert_msg(!runs[i].says || strstr(d.text, runs[i].says), "run %zu: %s", i, d.text);
	}
	knit_session_destroy(s);
	knit_context_destroy(ctx);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {rows_are_rounded_as_by_the_reference, rows_go_to_their_cells, descriptions_become_states,
	                              a_long_run_in_a_ring, rings_are_large_enough,
	                              a_run_may_not_go_round_itself};

	return suite_run("kv_slot", tests, (int)(sizeof tests / sizeof tests[0]));
}
