/* Owns the conformance cases of the other fused ops, reached through graphs of plain ops: add_rms_norm, kv_write, map. */
#include "case_build.h"

#include <string.h>

static const knit_dtype float_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16};
static const knit_dtype all_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};

/* ---- add_rms_norm ------------------------------------------------------------------------------------------------ */

/* p: tokens, columns, in place? */
static void build_norm(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {case_tokens(b, p[0]), knit_n(p[1])};
	const knit_tensor x = case_in(b, "x", KNIT_F32, 2, dims), z = case_in(b, "z", KNIT_F32, 2, dims);
	/* an operand that ends here, so that its bytes can be taken over */
	const knit_tensor a = p[2] ? knit_scale(b->g, x, -1) : x, gain = case_weight(b, b->c->dtype, 1, p[1], 0);
	const knit_tensor sum = knit_add(b->g, a, z);

	b->t[0] = b->more[0][0] = a;
	b->t[1] = b->more[0][1] = z;
	b->more[0][2] = gain;
	knit_output(b->g, "y", sum);
	knit_output(b->g, "y.1", knit_rms_norm(b->g, sum, gain, 1e-5f));
}

static void feed_norm(case_build *b, int run) {
	const uint64_t count = (uint64_t)(b->c->p[0] * b->c->p[1]);

	(void)run;
	case_floats(b, "x", KNIT_F32, count);
	case_floats(b, "z", KNIT_F32, count);
}

static void add_norm(case_table *t, knit_dtype type, case_fill fill, const int64_t *p) {
	conf_case *c = case_add(t, KNIT_OP_ADD_RMS_NORM, "", type, fill, build_norm, feed_norm, bound_sum, p);

	c->more[0] = bound_norm_of_sum;
	c->steps = p[2] ? 2 : 1;
}

static void add_norms(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33}, columns[] = {1, 7, 8, 17, 64, 1031};

	for (size_t w = 0; w < COUNT(float_types); ++w)
		for (size_t i = 0; i < COUNT(columns); ++i)
			add_norm(t, float_types[w], FILL_UNIFORM, P(tokens[(w + i) % 4], columns[i], 0));
	for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
		add_norm(t, KNIT_F32, fill, P(3, 50, 0));
	add_norm(t, KNIT_F32, FILL_UNIFORM, P(5, 64, 1));
}

/* ---- kv_write ---------------------------------------------------------------------------------------------------- */

enum { TOKENS, HEADS, KV_HEADS, HEAD_DIM, SEQUENCES, LAYOUT, ROTARY, V_TYPE, RING };

/* p: as in the enum. RING: window; the cells of a ring for it, with two sinks. The queries, and both slots as they stand
 * afterwards, are compared; what attention makes of them is not. */
static void build_kv(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim tokens = case_tokens(b, p[TOKENS]);
	const knit_dim q_dims[2] = {tokens, knit_n(p[HEADS] * p[HEAD_DIM])};
	const knit_dim k_dims[2] = {tokens, knit_n(p[KV_HEADS] * p[HEAD_DIM])};
	const knit_tensor q = case_in(b, "q", KNIT_F32, 2, q_dims), k = case_in(b, "k", KNIT_F32, 2, k_dims);
	const knit_tensor v = case_in(b, "v", KNIT_F32, 2, k_dims);
	const knit_tensor seq = case_in(b, "seq", KNIT_I32, 1, &tokens), pos = case_in(b, "pos", KNIT_I32, 1, &tokens);
	const knit_rope_desc rope = {10000.0f, p[ROTARY], (knit_rope_layout)p[LAYOUT]};
	const knit_kv_desc desc = {.sequences = p[SEQUENCES],
	                           .positions = p[RING] ? 0 : 2 * p[TOKENS] + 3,
	                           .kv_heads = p[KV_HEADS],
	                           .head_dim = p[HEAD_DIM],
	                           .k = b->c->dtype,
	                           .v = p[V_TYPE] ? (knit_dtype)p[V_TYPE] : b->c->dtype,
	                           .window = p[RING],
	                           .sinks = p[RING] ? 2 : 0,
	                           .max_tokens = p[RING] ? p[TOKENS] + 3 : 0};
	const knit_kv_slot slot = knit_kv_slot_define(b->g, &desc, "slot");
	const knit_tensor heads = knit_split_heads(b->g, q, p[HEADS]), turned_q = knit_rope(b->g, heads, pos, &rope);
	const knit_tensor turned_k = knit_rope(b->g, knit_split_heads(b->g, k, p[KV_HEADS]), pos, &rope);

	knit_kv_slot_append(b->g, &slot, turned_k, knit_split_heads(b->g, v, p[KV_HEADS]), seq, pos);
	b->t[0] = heads;
	knit_output(b->g, "y", turned_q);
	knit_output(b->g, "y.1", knit_state_read(b->g, slot.k));
	knit_output(b->g, "y.2", knit_state_read(b->g, slot.v));
	knit_output(b->g, "rest", knit_kv_slot_attend(b->g, &slot, turned_q, seq, pos, 0));
}

/* The parameters of bound_rope are elsewhere in a case of rope. */
static void bound_queries(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	conf_case rope = *c;

	rope.p[3] = c->p[ROTARY];
	rope.p[4] = c->p[LAYOUT];
	bound_rope(&rope, t, out, tol);
}

static void feed_kv(case_build *b, int run) {
	const int64_t *p = b->c->p, n = p[TOKENS];

	case_floats(b, "q", KNIT_F32, (uint64_t)(n * p[HEADS] * p[HEAD_DIM]));
	case_floats(b, "k", KNIT_F32, (uint64_t)(n * p[KV_HEADS] * p[HEAD_DIM]));
	case_floats(b, "v", KNIT_F32, (uint64_t)(n * p[KV_HEADS] * p[HEAD_DIM]));
	case_ints(b, "seq", (uint64_t)n, run, 1, p[SEQUENCES]);
	case_ints(b, "pos", (uint64_t)n, n * run, 1, INT32_MAX);
}

static void add_kv(case_table *t, knit_dtype type, case_fill fill, int runs, const int64_t *p) {
	conf_case *c = case_add(t, KNIT_OP_KV_WRITE, "", type, fill, build_kv, feed_kv, bound_queries, p);

	c->more[0] = bound_keys;
	c->runs = runs;
	c->steps = 4; /* with the attention and two copies of slots */
}

static void add_kvs(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33};

	for (size_t k = 0; k < COUNT(all_types); ++k) {
		for (size_t i = 0; i < COUNT(tokens); ++i) {
			const knit_dtype v = all_types[(k + i) % COUNT(all_types)];

			add_kv(t, all_types[k], FILL_UNIFORM, 2, P(tokens[i], 4, 2, 32, 1, (int64_t)i % 2, 0, v));
			add_kv(t, all_types[k], FILL_UNIFORM, 2, P(tokens[i], 6, 2, 16, 2, (int64_t)i % 2, 10, v));
			add_kv(t, all_types[k], FILL_UNIFORM, 5, P(tokens[i], 2, 2, 48, 1, 1, 0, v, 6));
		}
		add_kv(t, all_types[k], FILL_ZEROS, 1, P(4, 4, 2, 32, 1, 0));
		add_kv(t, all_types[k], FILL_NAN, 1, P(3, 2, 1, 32, 1, 1));
	}
	add_kv(t, KNIT_F32, FILL_UNIFORM, 2, P(7, 3, 1, 6, 1, 0, 2));
	add_kv(t, KNIT_F16, FILL_UNIFORM, 2, P(3, 3, 3, 10, 1, 1, 6, KNIT_BF16));
}

/* ---- map --------------------------------------------------------------------------------------------------------- */

/* p: tokens, columns, which of case_maps */
static void build_map(case_build *b) {
	const int64_t *p = b->c->p;
	const case_map_step *const steps = case_maps[p[2]];
	const knit_dim dims[2] = {case_tokens(b, p[0]), knit_n(p[1])};
	knit_tensor r[9] = {{0}};
	int count = 0;

	r[0] = case_in(b, "x", KNIT_F32, 2, dims);
	for (int i = 0; i < 6 && steps[i].op; ++i) {
		const bool two = steps[i].op == KNIT_OP_ADD || steps[i].op == KNIT_OP_MUL;

		if ((steps[i].a == 2 || (two && steps[i].b == 2)) && !r[2].id)
			r[2] = case_in(b, "z", KNIT_F32, 2, dims);
		if (two && steps[i].b == 1 && !r[1].id)
			r[1] = case_weight(b, b->c->dtype, 1, p[1], 0);
	}
	memcpy(b->t, r, 3 * sizeof *r);
	for (; count < 6 && steps[count].op; ++count) {
		const knit_tensor a = r[steps[count].a];

		switch (steps[count].op) {
		case KNIT_OP_ADD: r[3 + count] = knit_add(b->g, a, r[steps[count].b]); break;
		case KNIT_OP_MUL: r[3 + count] = knit_mul(b->g, a, r[steps[count].b]); break;
		case KNIT_OP_SCALE: r[3 + count] = knit_scale(b->g, a, steps[count].s); break;
		case KNIT_OP_SILU: r[3 + count] = knit_silu(b->g, a); break;
		default: r[3 + count] = knit_gelu(b->g, a); break;
		}
	}
	knit_output(b->g, "y", r[2 + count]);
}

static void feed_map(case_build *b, int run) {
	const uint64_t count = (uint64_t)(b->c->p[0] * b->c->p[1]);

	(void)run;
	case_floats(b, "x", KNIT_F32, count);
	if (b->t[2].id)
		case_floats(b, "z", KNIT_F32, count);
}

static void add_map(case_table *t, knit_dtype type, case_fill fill, const int64_t *p) {
	case_add(t, KNIT_OP_MAP, "", type, fill, build_map, feed_map, bound_map, p)->steps = 1;
}

static void add_maps(case_table *t) {
	static const int64_t tokens[] = {1, 2, 5, 33}, columns[] = {1, 7, 8, 31, 64, 1000};

	for (int64_t map = 0; map < CASE_MAPS; ++map) {
		for (size_t i = 0; i < COUNT(columns); ++i)
			add_map(t, float_types[(size_t)map % 3], FILL_UNIFORM, P(tokens[((size_t)map + i) % 4], columns[i], map));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			add_map(t, KNIT_F32, fill, P(3, 50, map));
	}
	for (size_t w = 0; w < COUNT(float_types); ++w)
		add_map(t, float_types[w], FILL_UNIFORM, P(5, 33, 0));
	add_map(t, KNIT_F32, FILL_UNIFORM, P(512, 65, 0));
}

void cases_fused(case_table *t) {
	add_norms(t);
	add_kvs(t);
	add_maps(t);
}
