/* Owns the conformance table's graphs and grids. The bounds are in bounds.c. */
#include "case_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

/* p: rows, columns, ids */
static void build_gather(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim ids = case_tokens(b, p[2]);

	b->t[0] = case_weight(b, b->c->dtype, 2, p[0], p[1]);
	b->t[1] = case_in(b, "ids", KNIT_I32, 1, &ids);
	knit_output(b->g, "y", knit_gather(b->g, b->t[0], b->t[1]));
}
static void feed_gather(case_build *b, int run) {
	(void)run;
	case_ints(b, "ids", (uint64_t)b->c->p[2], b->c->p[0] - 1, 7, b->c->p[0]);
}

/* p: rows, columns, ids; the table is an activation */
static void build_gather_rows(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {knit_n(p[0]), knit_n(p[1])};
	knit_dim ids = case_tokens(b, p[2]);
	knit_tensor x = case_in(b, "x", KNIT_F32, 2, dims);

	b->t[0] = knit_scale(b->g, x, 2.0f);
	b->t[1] = case_in(b, "ids", KNIT_I32, 1, &ids);
	knit_output(b->g, "y", knit_gather(b->g, b->t[0], b->t[1]));
}
static void feed_gather_rows(case_build *b, int run) {
	case_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
	feed_gather(b, run);
}

/* p: tokens, k, n */
static void build_linear(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {case_tokens(b, p[0]), knit_n(p[1])};

	b->t[0] = case_in(b, "x", KNIT_F32, 2, dims);
	b->t[1] = case_weight(b, b->c->dtype, 2, p[2], p[1]);
	knit_output(b->g, "y", knit_linear(b->g, b->t[0], b->t[1]));
}
static void feed_rows(case_build *b, int run) {
	(void)run;
	case_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, heads, k, n: x is [tokens, heads, k], a strided window of [tokens, heads, k + 5] */
static void build_linear_view(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[3] = {case_tokens(b, p[0]), knit_n(p[1]), knit_n(p[2] + 5)};
	knit_tensor x = case_in(b, "x", KNIT_F32, 3, dims);

	b->t[0] = knit_slice(b->g, x, 2, 3, knit_n(p[2]));
	b->t[1] = case_weight(b, b->c->dtype, 2, p[3], p[2]);
	knit_output(b->g, "y", knit_linear(b->g, b->t[0], b->t[1]));
}
static void feed_linear_view(case_build *b, int run) {
	(void)run;
	case_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1] * (b->c->p[2] + 5)));
}

/* p: tokens, columns, b is a vector?, in place? */
static void build_binary(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {case_tokens(b, p[0]), knit_n(p[1])};
	knit_tensor x = case_in(b, "x", KNIT_F32, 2, dims), y;

	b->t[0] = p[3] ? knit_scale(b->g, x, -1.0f) : x;
	b->t[1] = p[2] ? case_weight(b, b->c->dtype, 1, p[1], 0) : case_in(b, "z", KNIT_F32, 2, dims);
	y = b->c->op == KNIT_OP_ADD ? knit_add(b->g, b->t[0], b->t[1]) : knit_mul(b->g, b->t[0], b->t[1]);
	knit_output(b->g, "y", p[3] ? knit_scale(b->g, y, 1.5f) : y);
}
static void feed_binary(case_build *b, int run) {
	feed_rows(b, run);
	if (!b->c->p[2])
		case_floats(b, "z", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, columns */
static void build_unary(case_build *b) {
	const knit_dim dims[2] = {case_tokens(b, b->c->p[0]), knit_n(b->c->p[1])};
	knit_tensor x = b->t[0] = case_in(b, "x", KNIT_F32, 2, dims), y = {0};

	switch (b->c->op) {
	case KNIT_OP_SCALE: y = knit_scale(b->g, x, -0.375f); break;
	case KNIT_OP_SILU: y = knit_silu(b->g, x); break;
	case KNIT_OP_GELU: y = knit_gelu(b->g, x); break;
	case KNIT_OP_SOFTMAX: y = knit_softmax(b->g, x); break;
	case KNIT_OP_ARGMAX: y = knit_argmax(b->g, x); break;
	}
	knit_output(b->g, "y", y);
}

/* p: tokens, columns, bias? */
static void build_norm(case_build *b) {
	const knit_dim dims[2] = {case_tokens(b, b->c->p[0]), knit_n(b->c->p[1])};

	b->t[0] = case_in(b, "x", KNIT_F32, 2, dims);
	b->t[1] = case_weight(b, b->c->dtype, 1, b->c->p[1], 0);
	if (b->c->p[2])
		b->t[2] = case_weight(b, b->c->dtype, 1, b->c->p[1], 0);
	knit_output(b->g, "y", b->c->op == KNIT_OP_RMS_NORM ? knit_rms_norm(b->g, b->t[0], b->t[1], 1e-5f)
	                                                    : knit_layer_norm(b->g, b->t[0], b->t[1], b->t[2], 1e-5f));
}

/* p: tokens, heads, head_dim, rotary, layout, first position */
static void build_rope(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim tokens = case_tokens(b, p[0]);
	const knit_dim dims[3] = {tokens, knit_n(p[1]), knit_n(p[2])};
	const knit_rope_desc desc = {10000.0f, p[3], (knit_rope_layout)p[4]};

	b->t[0] = case_in(b, "x", KNIT_F32, 3, dims);
	b->t[1] = case_in(b, "pos", KNIT_I32, 1, &tokens);
	knit_output(b->g, "y", knit_rope(b->g, b->t[0], b->t[1], &desc));
}
static void feed_rope(case_build *b, int run) {
	const int64_t *p = b->c->p;

	(void)run;
	case_floats(b, "x", KNIT_F32, (uint64_t)(p[0] * p[1] * p[2]));
	case_ints(b, "pos", (uint64_t)p[0], p[5], 1, INT32_MAX);
}

/* p: tokens, columns, kind: 0 transpose, 1 slice of columns, 2 slice of rows, 3 heads swapped, 4 reshape of a slice */
static void build_copy(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {p[2] == 2 || p[2] == 4 ? knit_n(p[0]) : case_tokens(b, p[0]), knit_n(p[1])};
	knit_tensor x = case_in(b, "x", b->c->dtype, 2, dims);

	if (p[2] == 0)
		x = knit_transpose(b->g, x, 0, 1);
	else if (p[2] == 1)
		x = knit_slice(b->g, x, 1, 1, knit_n(p[1] - 2));
	else if (p[2] == 2)
		x = knit_slice(b->g, x, 0, 1, knit_n(p[0] - 1));
	else if (p[2] == 3)
		x = knit_transpose(b->g, knit_split_heads(b->g, x, 3), 0, 1);
	else {
		const knit_dim flat = knit_n(p[0] * (p[1] - 2));

		x = knit_reshape(b->g, knit_slice(b->g, x, 1, 1, knit_n(p[1] - 2)), 1, &flat);
	}
	b->t[0] = x;
	knit_output(b->g, "y", x);
}
static void feed_copy(case_build *b, int run) {
	(void)run;
	case_floats(b, "x", b->c->dtype, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, columns, target type */
static void build_cast(case_build *b) {
	const knit_dim dims[2] = {case_tokens(b, b->c->p[0]), knit_n(b->c->p[1])};

	b->t[0] = case_in(b, "x", b->c->dtype, 2, dims);
	knit_output(b->g, "y", knit_cast(b->g, b->t[0], (knit_dtype)b->c->p[2]));
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const knit_dtype weight_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K};
static const knit_dtype float_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

/* What tiles of 2 to 16 rows of x, 4 to 96 columns and any vector leave over, and the next span of k. */
static void add_linear_tails(case_table *t, knit_dtype type, case_bound bound) {
	/* tokens, k of block types, k of the others, n */
	static const int64_t grid[][4] = {{6, 1056, 1027, 9}, {10, 288, 46, 30}, {11, 96, 75, 41}, {18, 64, 27, 39},
	                                  {34, 96, 70, 54},   {35, 32, 59, 77},  {36, 160, 109, 100}, {97, 32, 21, 21},
	                                  /* so many columns that a CPU's units are wide, several tiles and a part of one */
	                                  {10, 64, 46, 701},  {35, 32, 59, 373}, {110, 32, 27, 169}};
	const bool block = knit__dtype_info(type)->is_block;

	for (size_t i = 0; i < COUNT(grid); ++i)
		case_add(t, KNIT_OP_LINEAR, "", type, FILL_UNIFORM, build_linear, feed_rows, bound,
		    P(grid[i][0], block ? case_columns(type, grid[i][1]) : grid[i][2], grid[i][3]));
}

static void add_linear(case_table *t) {
	static const int64_t tokens[] = {1, 2, 3, 4, 5, 7, 8, 16, 33}, ks32[] = {32, 64, 96, 160, 1024},
	                     ks256[] = {256, 512, 768, 1280, 2048}, odd[] = {1, 7, 33, 172};
	static const int64_t ns[] = {1, 3, 8, 16, 17, 61, 130};

	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		const bool block = knit__dtype_info(weight_types[w])->is_block;
		const case_bound bound = block ? bound_linear_int8 : bound_linear;
		const int64_t *const ks = case_columns(weight_types[w], 32) == 256 ? ks256 : ks32;
		const int64_t c32 = case_columns(weight_types[w], 32), c64 = case_columns(weight_types[w], 64);
		const int64_t c96 = case_columns(weight_types[w], 96);

		for (size_t i = 0; i < COUNT(tokens); ++i)
			for (size_t k = 0; k < COUNT(ks32); ++k)
				for (size_t n = (i + k) % 3; n < COUNT(ns); n += 3)
					case_add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound,
					    P(tokens[i], ks[k], ns[n]));
		for (size_t k = 0; !block && k < COUNT(odd); ++k)
			for (size_t i = 0; i < COUNT(tokens); i += 2)
				case_add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound,
				    P(tokens[i], odd[k], 19));
		add_linear_tails(t, weight_types[w], bound);
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill) {
			case_add(t, KNIT_OP_LINEAR, "", weight_types[w], fill, build_linear, feed_rows, bound, P(1, c96, 17));
			case_add(t, KNIT_OP_LINEAR, "", weight_types[w], fill, build_linear, feed_rows, bound, P(9, c96, 17));
		}
		case_add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound, P(511, c64, 48));
		case_add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound, P(512, c64, 48));
		case_add(t, KNIT_OP_LINEAR, "_view", weight_types[w], FILL_UNIFORM, build_linear_view, feed_linear_view, bound,
		    P(3, 2, c64, 11));
		case_add(t, KNIT_OP_LINEAR, "_view", weight_types[w], FILL_UNIFORM, build_linear_view, feed_linear_view, bound,
		    P(1, 1, c32, 5));
	}
}

static void add_gather(case_table *t) {
	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		case_add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL,
		    P(11, case_columns(weight_types[w], 32), 1));
		case_add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL,
		    P(97, case_columns(weight_types[w], 160), 13));
		case_add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL,
		    P(5, case_columns(weight_types[w], 64), 511));
	}
	case_add(t, KNIT_OP_GATHER, "", KNIT_F32, FILL_UNIFORM, build_gather, feed_gather, NULL, P(3, 7, 5));
	case_add(t, KNIT_OP_GATHER, "", KNIT_F16, FILL_UNIFORM, build_gather, feed_gather, NULL, P(3, 7, 5));
	case_add(t, KNIT_OP_GATHER, "_rows", KNIT_F32, FILL_UNIFORM, build_gather_rows, feed_gather_rows, NULL, P(9, 33, 4));
	case_add(t, KNIT_OP_GATHER, "_rows", KNIT_F32, FILL_LARGE, build_gather_rows, feed_gather_rows, NULL, P(1, 8, 1));
}

static void add_elementwise(case_table *t) {
	static const int64_t columns[] = {1, 7, 8, 16, 31, 64, 1000};
	static const uint16_t binary[] = {KNIT_OP_ADD, KNIT_OP_MUL}, unary[] = {KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU};
	static const case_bound unary_bound[] = {bound_rounding, bound_silu, bound_gelu};

	for (size_t o = 0; o < COUNT(binary); ++o) {
		for (size_t i = 0; i < COUNT(columns); ++i) {
			case_add(t, binary[o], "", KNIT_F32, FILL_UNIFORM, build_binary, feed_binary, bound_rounding, P(3, columns[i], 0));
			case_add(t, binary[o], "_vector", float_types[i % 3], FILL_UNIFORM, build_binary, feed_binary, bound_rounding,
			    P(5, columns[i], 1));
			case_add(t, binary[o], "_inplace", KNIT_F32, FILL_UNIFORM, build_binary, feed_binary, bound_rounding,
			    P(2, columns[i], i % 2, 1));
		}
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			case_add(t, binary[o], "", KNIT_F32, fill, build_binary, feed_binary, bound_rounding, P(2, 37, 0));
	}
	for (size_t o = 0; o < COUNT(unary); ++o) {
		for (size_t i = 0; i < COUNT(columns); ++i)
			case_add(t, unary[o], "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, unary_bound[o], P(3, columns[i], 0));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			case_add(t, unary[o], "", KNIT_F32, fill, build_unary, feed_rows, unary_bound[o], P(2, 37, 0));
		case_add(t, unary[o], "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, unary_bound[o], P(511, 65, 0));
	}
}

static void add_rows(case_table *t) {
	static const int64_t columns[] = {1, 7, 8, 17, 64, 100, 1031};

	for (size_t i = 0; i < COUNT(columns); ++i) {
		case_add(t, KNIT_OP_SOFTMAX, "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, bound_softmax, P(3, columns[i], 0));
		case_add(t, KNIT_OP_ARGMAX, "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, NULL, P(5, columns[i], 0));
		for (size_t w = 0; w < COUNT(float_types); ++w) {
			case_add(t, KNIT_OP_RMS_NORM, "", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 0));
			case_add(t, KNIT_OP_LAYER_NORM, "", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 0));
			case_add(t, KNIT_OP_LAYER_NORM, "_bias", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 1));
		}
	}
	for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill) {
		case_add(t, KNIT_OP_SOFTMAX, "", KNIT_F32, fill, build_unary, feed_rows, bound_softmax, P(3, 50, 0));
		if (fill != FILL_NAN)
			case_add(t, KNIT_OP_ARGMAX, "", KNIT_F32, fill, build_unary, feed_rows, NULL, P(3, 50, 0));
		case_add(t, KNIT_OP_RMS_NORM, "", KNIT_F32, fill, build_norm, feed_rows, bound_norm, P(3, 50, 0));
		case_add(t, KNIT_OP_LAYER_NORM, "_bias", KNIT_F32, fill, build_norm, feed_rows, bound_norm, P(3, 50, 1));
	}
	case_add(t, KNIT_OP_RMS_NORM, "", KNIT_F32, FILL_UNIFORM, build_norm, feed_rows, bound_norm, P(512, 64, 0));
}

static void add_rope(case_table *t) {
	for (int64_t layout = 0; layout < 2; ++layout) {
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(1, 1, 2, 0, layout, 0));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(1, 8, 64, 0, layout, 1));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(7, 3, 8, 0, layout, 16000));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(5, 3, 48, 20, layout, 100));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(3, 2, 10, 6, layout, 511));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(2, 5, 46, 26, layout, 9));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(6, 7, 30, 0, layout, 77));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_LARGE, build_rope, feed_rope, bound_rope, P(3, 2, 16, 0, layout, 5));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_NAN, build_rope, feed_rope, bound_rope, P(3, 2, 16, 0, layout, 5));
		case_add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(512, 2, 16, 0, layout, 0));
	}
}

static void add_copy_cast(case_table *t) {
	for (size_t w = 0; w < COUNT(float_types); ++w) {
		for (int64_t kind = 0; kind < 5; ++kind) {
			case_add(t, KNIT_OP_COPY, "", float_types[w], FILL_UNIFORM, build_copy, feed_copy, NULL, P(5, 12, kind));
			case_add(t, KNIT_OP_COPY, "", float_types[w], FILL_UNIFORM, build_copy, feed_copy, NULL, P(67, 33, kind));
		}
		for (size_t to = 0; to < COUNT(float_types); ++to) {
			if (to == w)
				continue;
			case_add(t, KNIT_OP_CAST, "", float_types[w], FILL_UNIFORM, build_cast, feed_copy, NULL, P(3, 37, float_types[to]));
			case_add(t, KNIT_OP_CAST, "", float_types[w], FILL_LARGE, build_cast, feed_copy, NULL, P(1, 8, float_types[to]));
			case_add(t, KNIT_OP_CAST, "", float_types[w], FILL_ZEROS, build_cast, feed_copy, NULL, P(1, 9, float_types[to]));
			case_add(t, KNIT_OP_CAST, "", float_types[w], FILL_NAN, build_cast, feed_copy, NULL, P(1, 9, float_types[to]));
		}
	}
	case_add(t, KNIT_OP_COPY, "", KNIT_I32, FILL_UNIFORM, build_copy, feed_copy, NULL, P(5, 12, 0));
}

conf_case *cases_make(size_t *count) {
	case_table t = {0};

	add_gather(&t);
	add_linear(&t);
	add_elementwise(&t);
	add_rows(&t);
	add_rope(&t);
	cases_kv(&t);
	cases_lora(&t);
	cases_fused_linear(&t);
	cases_fused(&t);
	add_copy_cast(&t);
	*count = t.count;
	return t.data;
}

void cases_free(conf_case *cases) { free(cases); }

/* ---- one case ---------------------------------------------------------------------------------------------------- */

static bool open_case(case_build *b, knit_context *ctx, const conf_case *c, bool exact) {
	*b = (case_build){
		.ctx = ctx, .c = c, .seed = knit__hash(KNIT__HASH_SEED, c->name, strlen(c->name)), .exact = exact};
	if (knit_graph_create(ctx, &b->g) != KNIT_OK)
		return false;
	knit_origin(b->g, "case.%s", c->name);
	c->build(b);
	case_feed(b, 0);
	return knit_graph_status(b->g, NULL) == KNIT_OK;
}

bool case_open(case_build *b, knit_context *ctx, const conf_case *c) { return open_case(b, ctx, c, false); }

bool case_open_exact(case_build *b, knit_context *ctx, const conf_case *c) { return open_case(b, ctx, c, true); }

void case_feed(case_build *b, int run) { b->c->feed(b, run); }

void case_close(case_build *b) {
	for (uint32_t i = 0; i < b->input_count; ++i)
		free(b->inputs[i].data);
	knit_weights_release(b->store);
	knit_graph_destroy(b->g);
}
