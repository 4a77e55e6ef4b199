/* Owns the conformance cases of KV slots: attention over every pair of types, windows, sinks and rings; append. */
#include "case_build.h"

#include <string.h>

enum { TOKENS, HEADS, KV_HEADS, HEAD_DIM, SEQUENCES, WINDOW, V_TYPE, SINKS, RING_RUNS };

static const knit_dtype all_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
static const knit_dtype float_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

/* p: as in the enum. Tokens of all sequences together in run 0; run 1 is one more token per sequence. V_TYPE 0: as keys.
 * With RING_RUNS each of so many runs has TOKENS tokens, and the slot is a ring. */
static void build_attention(case_build *b) {
	const int64_t *p = b->c->p, most = p[TOKENS] > p[SEQUENCES] ? p[TOKENS] : p[SEQUENCES];
	knit_dim tokens = case_tokens(b, most);
	const knit_dim q[3] = {tokens, knit_n(p[HEADS]), knit_n(p[HEAD_DIM])};
	const knit_dim kv[3] = {tokens, knit_n(p[KV_HEADS]), knit_n(p[HEAD_DIM])};
	const knit_tensor qt = case_in(b, "q", KNIT_F32, 3, q), kt = case_in(b, "k", KNIT_F32, 3, kv);
	const knit_tensor vt = case_in(b, "v", KNIT_F32, 3, kv);
	const knit_tensor seq = case_in(b, "seq", KNIT_I32, 1, &tokens), pos = case_in(b, "pos", KNIT_I32, 1, &tokens);
	const int64_t positions = (p[TOKENS] + p[SEQUENCES] - 1) / p[SEQUENCES] + 2;
	const knit_kv_desc desc = {.sequences = p[SEQUENCES],
	                           .positions = p[RING_RUNS] || p[WINDOW] ? 0 : positions,
	                           .kv_heads = p[KV_HEADS],
	                           .head_dim = p[HEAD_DIM],
	                           .k = b->c->dtype,
	                           .v = p[V_TYPE] ? (knit_dtype)p[V_TYPE] : b->c->dtype,
	                           .window = p[WINDOW],
	                           .sinks = p[SINKS],
	                           .max_tokens = most + 3};
	knit_kv_desc plain = desc;

	plain.window = plain.sinks = 0;
	plain.positions = positions;
	knit_kv_slot slot = knit_kv_slot_define(b->g, p[RING_RUNS] ? &desc : &plain, "slot");
	slot.desc.window = p[WINDOW];
	slot.desc.sinks = p[SINKS];
	knit_kv_slot_append(b->g, &slot, kt, vt, seq, pos);
	b->t[0] = qt;
	b->t[1] = knit_state_read(b->g, slot.k);
	b->t[2] = knit_state_read(b->g, slot.v);
	b->t[3] = seq;
	b->t[4] = pos;
	knit_output(b->g, "y", knit_kv_slot_attend(b->g, &slot, qt, seq, pos, 0));
}

/* Token t is token t / sequences of this run of sequence t % sequences. */
static void feed_attention(case_build *b, int run) {
	const int64_t *p = b->c->p, sequences = p[SEQUENCES], per_run = (p[TOKENS] + sequences - 1) / sequences;
	const int64_t n = run == 0 || p[RING_RUNS] ? p[TOKENS] : sequences;

	b->tokens = n;
	case_floats(b, "q", KNIT_F32, (uint64_t)(n * p[HEADS] * p[HEAD_DIM]));
	case_floats(b, "k", KNIT_F32, (uint64_t)(n * p[KV_HEADS] * p[HEAD_DIM]));
	case_floats(b, "v", KNIT_F32, (uint64_t)(n * p[KV_HEADS] * p[HEAD_DIM]));
	case_ints(b, "seq", (uint64_t)n, 0, 1, sequences);
	case_ints(b, "pos", (uint64_t)n, 0, 1, INT32_MAX);
	for (case_input *in = b->inputs; in < b->inputs + b->input_count; ++in)
		if (strcmp(in->name, "pos") == 0)
			for (int64_t t = 0; t < n; ++t)
				in->data[t] = (double)(run * per_run + t / sequences);
}

/* p: tokens, sequences, cells, heads, head_dim, ring, sinks, flat; two appends, so that old cells must survive */
static void build_append(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim tokens = case_tokens(b, p[0]);
	const int rank = p[7] ? 3 : 4;
	const knit_dim rows[3] = {tokens, knit_n(p[3]), knit_n(p[4])};
	const knit_dim slot[4] = {knit_n(p[1]), knit_n(p[2]), knit_n(p[7] ? p[3] * p[4] : p[3]), knit_n(p[4])};
	const knit_tensor x = case_in(b, "x", KNIT_F32, 3, rows);
	const knit_tensor seq = case_in(b, "seq", KNIT_I32, 1, &tokens), pos = case_in(b, "pos", KNIT_I32, 1, &tokens);
	const knit_state s = knit_state_define(b->g, b->c->dtype, rank, slot, "s");

	knit_state_append_ring(b->g, s, p[7] ? knit_merge_heads(b->g, x) : x, seq, pos, p[5], p[6]);
	b->t[0] = knit_state_read(b->g, s);
	knit_output(b->g, "y", b->t[0]);
}

static void feed_append(case_build *b, int run) {
	const int64_t *p = b->c->p;

	case_floats(b, "x", KNIT_F32, (uint64_t)(p[0] * p[3] * p[4]));
	case_ints(b, "seq", (uint64_t)p[0], run, 1, p[1]);
	case_ints(b, "pos", (uint64_t)p[0], 0, 1, INT32_MAX);
	for (case_input *in = b->inputs; in < b->inputs + b->input_count; ++in)
		if (strcmp(in->name, "pos") == 0)
			for (int64_t t = 0; t < p[0]; ++t)
				in->data[t] = (double)(p[5] ? t / p[1] + 7 * run : (t / p[1] + run) % p[2]);
}

static void attention(case_table *t, knit_dtype dtype, case_fill fill, int runs, const int64_t *p) {
	case_add(t, KNIT_OP_ATTENTION, "", dtype, fill, build_attention, feed_attention, bound_attention, p)->runs = runs;
}

static void append(case_table *t, knit_dtype dtype, case_fill fill, int runs, const int64_t *p) {
	case_add(t, KNIT_OP_STATE_APPEND, "", dtype, fill, build_append, feed_append, NULL, p)->runs = runs;
}

static void add_plain(case_table *t) {
	/* tokens, heads, kv_heads, head_dim, sequences, window */
	static const int64_t grid[][6] = {{1, 1, 1, 1, 1, 0},  {1, 4, 2, 8, 1, 0},    {5, 4, 4, 16, 1, 0},   {17, 8, 2, 32, 1, 0},
	                                  {33, 6, 3, 7, 1, 0}, {64, 4, 1, 64, 1, 0},  {65, 9, 3, 64, 1, 0},  {12, 4, 2, 16, 3, 0},
	                                  {40, 2, 1, 48, 2, 5}, {129, 2, 2, 12, 1, 32}, {130, 8, 4, 8, 5, 0}, {511, 2, 1, 16, 1, 0},
	                                  {512, 2, 1, 16, 1, 100}, {31, 5, 5, 33, 1, 1}};

	for (size_t w = 0; w < COUNT(float_types); ++w) {
		for (size_t i = 0; i < COUNT(grid); ++i)
			attention(t, float_types[w], FILL_UNIFORM, 2,
			          P(grid[i][0], grid[i][1], grid[i][2], grid[i][3], grid[i][4], grid[i][5]));
		attention(t, float_types[w], FILL_EQUAL, 1, P(20, 4, 2, 16, 1, 0));
		attention(t, float_types[w], FILL_ZEROS, 1, P(20, 4, 2, 16, 1, 0));
		attention(t, float_types[w], FILL_NAN, 1, P(20, 4, 2, 16, 1, 0));
	}
	/* Scores so far apart that one position takes all: exp must neither overflow nor lose the winner. */
	attention(t, KNIT_F32, FILL_LARGE, 1, P(20, 4, 2, 16, 1, 0));
}

/* Groups of 5 to 9 heads and others, dimensions that leave something over of every vector, at depths on both sides of a tile
 * and of a chunk: many tokens together, then one more. */
static void add_groups(case_table *t) {
	/* tokens, heads, kv_heads, head_dim, sequences, window */
	static const int64_t floats[][6] = {{70, 10, 2, 20, 1, 0}, {35, 12, 2, 40, 1, 0}, {37, 14, 2, 72, 1, 50}, {34, 16, 2, 80, 2, 0},
	                                    {300, 9, 1, 24, 1, 0}, {36, 15, 3, 44, 1, 0}, {6, 13, 1, 100, 1, 0},  {9, 6, 1, 128, 1, 0},
	                                    {3, 11, 1, 256, 1, 0}, {67, 3, 3, 5, 1, 0}};
	static const int64_t blocks[][6] = {{35, 10, 2, 48, 1, 0}, {37, 7, 1, 96, 1, 0},   {34, 12, 2, 80, 1, 30},
	                                    {300, 9, 1, 32, 1, 0}, {7, 8, 1, 160, 1, 0},   {66, 24, 4, 40, 1, 0}};

	for (size_t w = 0; w < COUNT(float_types); ++w)
		for (size_t i = 0; i < COUNT(floats); ++i)
			attention(t, float_types[w], FILL_UNIFORM, 2,
			          P(floats[i][0], floats[i][1], floats[i][2], floats[i][3], floats[i][4], floats[i][5]));
	for (size_t k = 0; k < COUNT(all_types); ++k)
		for (size_t i = 0; i < COUNT(blocks); ++i)
			attention(t, all_types[k], FILL_UNIFORM, 2,
			          P(blocks[i][0], blocks[i][1], blocks[i][2], blocks[i][3], blocks[i][4], blocks[i][5],
			            all_types[3 + (i + k) % 2]));
}

/* Each pair of types: heads that fill blocks, heads that begin within one, one token and many, a window with sinks, a
 * ring that is gone round several times. */
static void add_pairs(case_table *t) {
	for (size_t k = 0; k < COUNT(all_types); ++k) {
		for (size_t v = 0; v < COUNT(all_types); ++v) {
			const knit_dtype type = all_types[v];

			attention(t, all_types[k], FILL_UNIFORM, 2, P(33, 6, 3, 32, 1, 0, type));
			attention(t, all_types[k], FILL_UNIFORM, 2, P(19, 8, 4, 24, 2, 0, type));
			attention(t, all_types[k], FILL_UNIFORM, 2, P(70, 4, 4, 64, 1, 20, type, 3));
			attention(t, all_types[k], FILL_UNIFORM, 9, P(10, 4, 2, 16, 2, 7, type, 2, 1));
		}
		attention(t, all_types[k], FILL_UNIFORM, 2, P(600, 2, 1, 32, 1, 0, KNIT_Q8_0));
		attention(t, all_types[k], FILL_UNIFORM, 12, P(1, 2, 1, 96, 1, 5, KNIT_Q4_0, 4, 1));
		attention(t, all_types[k], FILL_UNIFORM, 2, P(40, 18, 1, 32, 1, 33, KNIT_F16, 40));
	}
	attention(t, KNIT_Q8_0, FILL_NAN, 1, P(20, 4, 2, 32, 1, 0));
	attention(t, KNIT_Q4_0, FILL_NAN, 1, P(20, 4, 2, 32, 1, 0));
}

void cases_kv(case_table *t) {
	add_plain(t);
	add_groups(t);
	add_pairs(t);
	for (size_t w = 0; w < COUNT(all_types); ++w) {
		const bool block = w >= COUNT(float_types);

		append(t, all_types[w], FILL_UNIFORM, 3, block ? P(6, 2, 9, 3, 64) : P(6, 2, 9, 3, 5));
		append(t, all_types[w], FILL_UNIFORM, 3, P(1, 1, 4, 2, 32));
		append(t, all_types[w], FILL_UNIFORM, 6, P(4, 2, 7, 2, 32, 5, 2));
		append(t, all_types[w], FILL_UNIFORM, 3, P(5, 1, 9, 4, 8, 0, 0, 1));
		append(t, all_types[w], FILL_LARGE, 1, P(3, 1, 9, 2, 32));
		append(t, all_types[w], FILL_NAN, 1, block ? P(4, 1, 4, 2, 32) : P(4, 1, 4, 2, 8));
	}
}
