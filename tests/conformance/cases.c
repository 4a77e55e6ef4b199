/* Owns the conformance table's graphs and grids. The bounds are in bounds.c. */
#include "cases.h"

#include "bounds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- data -------------------------------------------------------------------------------------------------------- */

static double uniform(uint64_t *seed) {
	*seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64, Steele et al. 2014 */
	uint64_t z = *seed;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

/* Numbers that the type holds exactly, so that the reference and the device start from the same. */
static void fill_floats(case_build *b, case_fill fill, knit_dtype dtype, double *data, uint64_t count) {
	char *bytes;
	uint64_t size;

	for (uint64_t i = 0; i < count; ++i) {
		switch (fill) {
		case FILL_LARGE: data[i] = 1e4 * uniform(&b->seed); break;
		case FILL_DENORMAL: data[i] = 1e-39 * uniform(&b->seed); break;
		case FILL_EQUAL: data[i] = 0.5; break;
		case FILL_ZEROS: data[i] = i % 2 ? -0.0 : 0.0; break;
		case FILL_NAN:
		case FILL_UNIFORM: data[i] = uniform(&b->seed); break;
		}
	}
	if (!knit__dtype_bytes(dtype, count, &size) || !(bytes = malloc(size + 1)))
		return;
	knit__encode(dtype, data, bytes, count);
	knit__decode(dtype, bytes, data, count);
	free(bytes);
}

static case_input *input_slot(case_build *b, const char *name, knit_dtype dtype) {
	for (uint32_t i = 0; i < b->input_count; ++i)
		if (strcmp(b->inputs[i].name, name) == 0)
			return &b->inputs[i];
	b->inputs[b->input_count] = (case_input){name, dtype, 0, NULL};
	return &b->inputs[b->input_count++];
}

static void feed_floats(case_build *b, const char *name, knit_dtype dtype, uint64_t count) {
	case_input *in = input_slot(b, name, dtype);

	free(in->data);
	in->count = count;
	in->data = calloc(count + 1, sizeof *in->data);
	fill_floats(b, b->c->fill, dtype, in->data, count);
	if (b->c->fill == FILL_NAN && in == &b->inputs[0] && count)
		in->data[count / 2] = NAN;
}

/* value(i) = (first + step * i) % modulo */
static void feed_ints(case_build *b, const char *name, uint64_t count, int64_t first, int64_t step, int64_t modulo) {
	case_input *in = input_slot(b, name, KNIT_I32);

	free(in->data);
	in->count = count;
	in->data = calloc(count + 1, sizeof *in->data);
	for (uint64_t i = 0; i < count; ++i)
		in->data[i] = (double)((first + step * (int64_t)i) % modulo);
}

static knit_tensor input(case_build *b, const char *name, knit_dtype dtype, int rank, const knit_dim *dims) {
	input_slot(b, name, dtype);
	return knit_input(b->g, name, dtype, rank, dims);
}

static knit_tensor weight(case_build *b, knit_dtype dtype, int rank, int64_t d0, int64_t d1) {
	const int64_t dims[2] = {d0, d1};
	const uint64_t count = (uint64_t)(rank == 1 ? d0 : d0 * d1);
	double *data = calloc(count + 1, sizeof *data);
	uint64_t bytes = 0;
	char name[16];

	/* Weights stay ordinary numbers: the fill is about what flows through. */
	fill_floats(b, b->c->fill == FILL_EQUAL ? FILL_EQUAL : FILL_UNIFORM, KNIT_F32, data, count);
	snprintf(name, sizeof name, "w%u", b->weight_count++);
	if (knit__dtype_bytes(dtype, count, &bytes)) {
		char *raw = malloc(bytes + 1);

		knit__encode(dtype, data, raw, count);
		knit_weights_add(b->store, name, dtype, rank, dims, raw, bytes, NULL);
		free(raw);
	}
	free(data);
	/* Sealed by its first use, so several weights need several stores: see weight_done. */
	return knit_weight(b->g, b->store, "%s", name);
}

/* Several weights in one case: each gets a store of its own, since a store is frozen by its first use. */
static knit_tensor next_weight(case_build *b, knit_dtype dtype, int rank, int64_t d0, int64_t d1) {
	knit_weights_release(b->store);
	b->store = NULL;
	knit_weights_create(b->ctx, &b->store);
	return weight(b, dtype, rank, d0, d1);
}

static knit_dim tokens_symbol(case_build *b, int64_t value) {
	b->tokens = value;
	return knit_sym(b->g, "tokens", 1, value + 3);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

/* p: rows, columns, ids */
static void build_gather(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim ids = tokens_symbol(b, p[2]);

	b->t[0] = next_weight(b, b->c->dtype, 2, p[0], p[1]);
	b->t[1] = input(b, "ids", KNIT_I32, 1, &ids);
	knit_output(b->g, "y", knit_gather(b->g, b->t[0], b->t[1]));
}
static void feed_gather(case_build *b, int run) {
	(void)run;
	feed_ints(b, "ids", (uint64_t)b->c->p[2], b->c->p[0] - 1, 7, b->c->p[0]);
}

/* p: rows, columns, ids; the table is an activation */
static void build_gather_rows(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {knit_n(p[0]), knit_n(p[1])};
	knit_dim ids = tokens_symbol(b, p[2]);
	knit_tensor x = input(b, "x", KNIT_F32, 2, dims);

	b->t[0] = knit_scale(b->g, x, 2.0f);
	b->t[1] = input(b, "ids", KNIT_I32, 1, &ids);
	knit_output(b->g, "y", knit_gather(b->g, b->t[0], b->t[1]));
}
static void feed_gather_rows(case_build *b, int run) {
	feed_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
	feed_gather(b, run);
}

/* p: tokens, k, n */
static void build_linear(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {tokens_symbol(b, p[0]), knit_n(p[1])};

	b->t[0] = input(b, "x", KNIT_F32, 2, dims);
	b->t[1] = next_weight(b, b->c->dtype, 2, p[2], p[1]);
	knit_output(b->g, "y", knit_linear(b->g, b->t[0], b->t[1]));
}
static void feed_rows(case_build *b, int run) {
	(void)run;
	feed_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, heads, k, n: x is [tokens, heads, k], a strided window of [tokens, heads, k + 5] */
static void build_linear_view(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[3] = {tokens_symbol(b, p[0]), knit_n(p[1]), knit_n(p[2] + 5)};
	knit_tensor x = input(b, "x", KNIT_F32, 3, dims);

	b->t[0] = knit_slice(b->g, x, 2, 3, knit_n(p[2]));
	b->t[1] = next_weight(b, b->c->dtype, 2, p[3], p[2]);
	knit_output(b->g, "y", knit_linear(b->g, b->t[0], b->t[1]));
}
static void feed_linear_view(case_build *b, int run) {
	(void)run;
	feed_floats(b, "x", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1] * (b->c->p[2] + 5)));
}

/* p: tokens, columns, b is a vector?, in place? */
static void build_binary(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {tokens_symbol(b, p[0]), knit_n(p[1])};
	knit_tensor x = input(b, "x", KNIT_F32, 2, dims), y;

	b->t[0] = p[3] ? knit_scale(b->g, x, -1.0f) : x;
	b->t[1] = p[2] ? next_weight(b, b->c->dtype, 1, p[1], 0) : input(b, "z", KNIT_F32, 2, dims);
	y = b->c->op == KNIT_OP_ADD ? knit_add(b->g, b->t[0], b->t[1]) : knit_mul(b->g, b->t[0], b->t[1]);
	knit_output(b->g, "y", p[3] ? knit_scale(b->g, y, 1.5f) : y);
}
static void feed_binary(case_build *b, int run) {
	feed_rows(b, run);
	if (!b->c->p[2])
		feed_floats(b, "z", KNIT_F32, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, columns */
static void build_unary(case_build *b) {
	const knit_dim dims[2] = {tokens_symbol(b, b->c->p[0]), knit_n(b->c->p[1])};
	knit_tensor x = b->t[0] = input(b, "x", KNIT_F32, 2, dims), y = {0};

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
	const knit_dim dims[2] = {tokens_symbol(b, b->c->p[0]), knit_n(b->c->p[1])};

	b->t[0] = input(b, "x", KNIT_F32, 2, dims);
	b->t[1] = next_weight(b, b->c->dtype, 1, b->c->p[1], 0);
	if (b->c->p[2])
		b->t[2] = next_weight(b, b->c->dtype, 1, b->c->p[1], 0);
	knit_output(b->g, "y", b->c->op == KNIT_OP_RMS_NORM ? knit_rms_norm(b->g, b->t[0], b->t[1], 1e-5f)
	                                                    : knit_layer_norm(b->g, b->t[0], b->t[1], b->t[2], 1e-5f));
}

/* p: tokens, heads, head_dim, rotary, layout, first position */
static void build_rope(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim tokens = tokens_symbol(b, p[0]);
	const knit_dim dims[3] = {tokens, knit_n(p[1]), knit_n(p[2])};
	const knit_rope_desc desc = {10000.0f, p[3], (knit_rope_layout)p[4]};

	b->t[0] = input(b, "x", KNIT_F32, 3, dims);
	b->t[1] = input(b, "pos", KNIT_I32, 1, &tokens);
	knit_output(b->g, "y", knit_rope(b->g, b->t[0], b->t[1], &desc));
}
static void feed_rope(case_build *b, int run) {
	const int64_t *p = b->c->p;

	(void)run;
	feed_floats(b, "x", KNIT_F32, (uint64_t)(p[0] * p[1] * p[2]));
	feed_ints(b, "pos", (uint64_t)p[0], p[5], 1, INT32_MAX);
}

/* p: context tokens of run 0, heads, kv_heads, head_dim, sequences, window; run 1 is one more token per sequence */
static void build_attention(case_build *b) {
	const int64_t *p = b->c->p, positions = (p[0] + p[4] - 1) / p[4] + 2;
	knit_dim tokens = tokens_symbol(b, p[0] > p[4] ? p[0] : p[4]);
	const knit_dim q[3] = {tokens, knit_n(p[1]), knit_n(p[3])}, kv[3] = {tokens, knit_n(p[2]), knit_n(p[3])};
	const knit_dim slot[4] = {knit_n(p[4]), knit_n(positions), knit_n(p[2]), knit_n(p[3])};
	const knit_attention_desc desc = {.window = p[5]};
	const knit_tensor qt = input(b, "q", KNIT_F32, 3, q), kt = input(b, "k", KNIT_F32, 3, kv);
	const knit_tensor vt = input(b, "v", KNIT_F32, 3, kv);
	const knit_tensor seq = input(b, "seq", KNIT_I32, 1, &tokens), pos = input(b, "pos", KNIT_I32, 1, &tokens);
	const knit_state ks = knit_state_define(b->g, b->c->dtype, 4, slot, "k"), vs = knit_state_define(b->g, b->c->dtype, 4, slot, "v");

	knit_state_append(b->g, ks, kt, seq, pos);
	knit_state_append(b->g, vs, vt, seq, pos);
	b->t[0] = qt;
	b->t[1] = knit_state_read(b->g, ks);
	b->t[2] = knit_state_read(b->g, vs);
	b->t[3] = seq;
	b->t[4] = pos;
	knit_output(b->g, "y", knit_attention(b->g, qt, b->t[1], b->t[2], seq, pos, &desc));
}
static void feed_attention(case_build *b, int run) {
	const int64_t *p = b->c->p, n = run == 0 ? p[0] : p[4];

	b->tokens = n;
	feed_floats(b, "q", KNIT_F32, (uint64_t)(n * p[1] * p[3]));
	feed_floats(b, "k", KNIT_F32, (uint64_t)(n * p[2] * p[3]));
	feed_floats(b, "v", KNIT_F32, (uint64_t)(n * p[2] * p[3]));
	feed_ints(b, "seq", (uint64_t)n, 0, 1, p[4]);
	feed_ints(b, "pos", (uint64_t)n, 0, 1, INT32_MAX);
	/* Token t is position t / sequences of sequence t % sequences; run 1 goes on after the longest. */
	for (case_input *in = b->inputs; in < b->inputs + b->input_count; ++in)
		if (strcmp(in->name, "pos") == 0)
			for (int64_t t = 0; t < n; ++t)
				in->data[t] = run == 0 ? (double)(t / p[4]) : (double)((p[0] + p[4] - 1) / p[4]);
}

/* p: tokens, sequences, positions, heads, head_dim; two appends, so that old cells must survive */
static void build_append(case_build *b) {
	const int64_t *p = b->c->p;
	knit_dim tokens = tokens_symbol(b, p[0]);
	const knit_dim rows[3] = {tokens, knit_n(p[3]), knit_n(p[4])};
	const knit_dim slot[4] = {knit_n(p[1]), knit_n(p[2]), knit_n(p[3]), knit_n(p[4])};
	const knit_tensor x = input(b, "x", KNIT_F32, 3, rows);
	const knit_tensor seq = input(b, "seq", KNIT_I32, 1, &tokens), pos = input(b, "pos", KNIT_I32, 1, &tokens);
	const knit_state s = knit_state_define(b->g, b->c->dtype, 4, slot, "s");

	knit_state_append(b->g, s, x, seq, pos);
	b->t[0] = knit_state_read(b->g, s);
	knit_output(b->g, "y", b->t[0]);
}
static void feed_append(case_build *b, int run) {
	const int64_t *p = b->c->p;

	feed_floats(b, "x", KNIT_F32, (uint64_t)(p[0] * p[3] * p[4]));
	feed_ints(b, "seq", (uint64_t)p[0], run, 1, p[1]);
	feed_ints(b, "pos", (uint64_t)p[0], 0, 1, INT32_MAX);
	for (case_input *in = b->inputs; in < b->inputs + b->input_count; ++in)
		if (strcmp(in->name, "pos") == 0)
			for (int64_t t = 0; t < p[0]; ++t)
				in->data[t] = (double)((t / p[1] + run) % p[2]);
}

/* p: tokens, columns, kind: 0 transpose, 1 slice of columns, 2 slice of rows, 3 heads swapped, 4 reshape of a slice */
static void build_copy(case_build *b) {
	const int64_t *p = b->c->p;
	const knit_dim dims[2] = {p[2] == 2 || p[2] == 4 ? knit_n(p[0]) : tokens_symbol(b, p[0]), knit_n(p[1])};
	knit_tensor x = input(b, "x", b->c->dtype, 2, dims);

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
	feed_floats(b, "x", b->c->dtype, (uint64_t)(b->c->p[0] * b->c->p[1]));
}

/* p: tokens, columns, target type */
static void build_cast(case_build *b) {
	const knit_dim dims[2] = {tokens_symbol(b, b->c->p[0]), knit_n(b->c->p[1])};

	b->t[0] = input(b, "x", b->c->dtype, 2, dims);
	knit_output(b->g, "y", knit_cast(b->g, b->t[0], (knit_dtype)b->c->p[2]));
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

typedef struct table { conf_case *data; size_t count, cap; } table;

static conf_case *add(table *t, uint16_t op, const char *what, knit_dtype dtype, case_fill fill, void (*build)(case_build *),
                      void (*feed)(case_build *, int), case_bound bound, const int64_t *p) {
	static const char *const fills[] = {"", "_large", "_denormal", "_equal", "_zeros", "_nan"};

	if (t->count == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 256;
		t->data = realloc(t->data, t->cap * sizeof *t->data);
	}
	conf_case *c = &t->data[t->count++];
	*c = (conf_case){.op = op, .build = build, .feed = feed, .bound = bound, .dtype = dtype, .fill = fill, .runs = 1};
	memcpy(c->p, p, sizeof c->p);
	int at = snprintf(c->name, sizeof c->name, "%s%s_%s%s", knit__op(op)->name, what, knit_dtype_name(dtype), fills[fill]);
	for (int i = 0; i < CASE_PARAMS && at < (int)sizeof c->name; ++i)
		if (i < 3 || p[i])
			at += snprintf(c->name + at, sizeof c->name - (size_t)at, "_%lld", (long long)p[i]);
	return c;
}

#define P(...) (const int64_t[CASE_PARAMS]){__VA_ARGS__}
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const knit_dtype weight_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
static const knit_dtype float_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

static void add_linear(table *t) {
	static const int64_t tokens[] = {1, 2, 3, 4, 5, 7, 8, 16, 33}, ks[] = {32, 64, 96, 160, 1024}, odd[] = {1, 7, 33, 172};
	static const int64_t ns[] = {1, 3, 8, 16, 17, 61, 130};

	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		const bool block = knit__dtype_info(weight_types[w])->is_block;
		const case_bound bound = block ? bound_linear_int8 : bound_linear;

		for (size_t i = 0; i < COUNT(tokens); ++i)
			for (size_t k = 0; k < COUNT(ks); ++k)
				for (size_t n = (i + k) % 3; n < COUNT(ns); n += 3)
					add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound,
					    P(tokens[i], ks[k], ns[n]));
		for (size_t k = 0; !block && k < COUNT(odd); ++k)
			for (size_t i = 0; i < COUNT(tokens); i += 2)
				add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound,
				    P(tokens[i], odd[k], 19));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill) {
			add(t, KNIT_OP_LINEAR, "", weight_types[w], fill, build_linear, feed_rows, bound, P(1, 96, 17));
			add(t, KNIT_OP_LINEAR, "", weight_types[w], fill, build_linear, feed_rows, bound, P(9, 96, 17));
		}
		add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound, P(511, 64, 48));
		add(t, KNIT_OP_LINEAR, "", weight_types[w], FILL_UNIFORM, build_linear, feed_rows, bound, P(512, 64, 48));
		add(t, KNIT_OP_LINEAR, "_view", weight_types[w], FILL_UNIFORM, build_linear_view, feed_linear_view, bound,
		    P(3, 2, 64, 11));
		add(t, KNIT_OP_LINEAR, "_view", weight_types[w], FILL_UNIFORM, build_linear_view, feed_linear_view, bound,
		    P(1, 1, 32, 5));
	}
}

static void add_gather(table *t) {
	for (size_t w = 0; w < COUNT(weight_types); ++w) {
		add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL, P(11, 32, 1));
		add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL, P(97, 160, 13));
		add(t, KNIT_OP_GATHER, "", weight_types[w], FILL_UNIFORM, build_gather, feed_gather, NULL, P(5, 64, 511));
	}
	add(t, KNIT_OP_GATHER, "", KNIT_F32, FILL_UNIFORM, build_gather, feed_gather, NULL, P(3, 7, 5));
	add(t, KNIT_OP_GATHER, "", KNIT_F16, FILL_UNIFORM, build_gather, feed_gather, NULL, P(3, 7, 5));
	add(t, KNIT_OP_GATHER, "_rows", KNIT_F32, FILL_UNIFORM, build_gather_rows, feed_gather_rows, NULL, P(9, 33, 4));
	add(t, KNIT_OP_GATHER, "_rows", KNIT_F32, FILL_LARGE, build_gather_rows, feed_gather_rows, NULL, P(1, 8, 1));
}

static void add_elementwise(table *t) {
	static const int64_t columns[] = {1, 7, 8, 16, 31, 64, 1000};
	static const uint16_t binary[] = {KNIT_OP_ADD, KNIT_OP_MUL}, unary[] = {KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU};
	static const case_bound unary_bound[] = {bound_rounding, bound_silu, bound_gelu};

	for (size_t o = 0; o < COUNT(binary); ++o) {
		for (size_t i = 0; i < COUNT(columns); ++i) {
			add(t, binary[o], "", KNIT_F32, FILL_UNIFORM, build_binary, feed_binary, bound_rounding, P(3, columns[i], 0));
			add(t, binary[o], "_vector", float_types[i % 3], FILL_UNIFORM, build_binary, feed_binary, bound_rounding,
			    P(5, columns[i], 1));
			add(t, binary[o], "_inplace", KNIT_F32, FILL_UNIFORM, build_binary, feed_binary, bound_rounding,
			    P(2, columns[i], i % 2, 1));
		}
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			add(t, binary[o], "", KNIT_F32, fill, build_binary, feed_binary, bound_rounding, P(2, 37, 0));
	}
	for (size_t o = 0; o < COUNT(unary); ++o) {
		for (size_t i = 0; i < COUNT(columns); ++i)
			add(t, unary[o], "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, unary_bound[o], P(3, columns[i], 0));
		for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill)
			add(t, unary[o], "", KNIT_F32, fill, build_unary, feed_rows, unary_bound[o], P(2, 37, 0));
		add(t, unary[o], "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, unary_bound[o], P(511, 65, 0));
	}
}

static void add_rows(table *t) {
	static const int64_t columns[] = {1, 7, 8, 17, 64, 100, 1031};

	for (size_t i = 0; i < COUNT(columns); ++i) {
		add(t, KNIT_OP_SOFTMAX, "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, bound_softmax, P(3, columns[i], 0));
		add(t, KNIT_OP_ARGMAX, "", KNIT_F32, FILL_UNIFORM, build_unary, feed_rows, NULL, P(5, columns[i], 0));
		for (size_t w = 0; w < COUNT(float_types); ++w) {
			add(t, KNIT_OP_RMS_NORM, "", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 0));
			add(t, KNIT_OP_LAYER_NORM, "", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 0));
			add(t, KNIT_OP_LAYER_NORM, "_bias", float_types[w], FILL_UNIFORM, build_norm, feed_rows, bound_norm,
			    P(4, columns[i], 1));
		}
	}
	for (case_fill fill = FILL_LARGE; fill <= FILL_NAN; ++fill) {
		add(t, KNIT_OP_SOFTMAX, "", KNIT_F32, fill, build_unary, feed_rows, bound_softmax, P(3, 50, 0));
		if (fill != FILL_NAN)
			add(t, KNIT_OP_ARGMAX, "", KNIT_F32, fill, build_unary, feed_rows, NULL, P(3, 50, 0));
		add(t, KNIT_OP_RMS_NORM, "", KNIT_F32, fill, build_norm, feed_rows, bound_norm, P(3, 50, 0));
		add(t, KNIT_OP_LAYER_NORM, "_bias", KNIT_F32, fill, build_norm, feed_rows, bound_norm, P(3, 50, 1));
	}
	add(t, KNIT_OP_RMS_NORM, "", KNIT_F32, FILL_UNIFORM, build_norm, feed_rows, bound_norm, P(512, 64, 0));
}

static void add_rope(table *t) {
	for (int64_t layout = 0; layout < 2; ++layout) {
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(1, 1, 2, 0, layout, 0));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(1, 8, 64, 0, layout, 1));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(7, 3, 8, 0, layout, 16000));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(5, 3, 48, 20, layout, 100));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(3, 2, 10, 6, layout, 511));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_LARGE, build_rope, feed_rope, bound_rope, P(3, 2, 16, 0, layout, 5));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_NAN, build_rope, feed_rope, bound_rope, P(3, 2, 16, 0, layout, 5));
		add(t, KNIT_OP_ROPE, "", KNIT_F32, FILL_UNIFORM, build_rope, feed_rope, bound_rope, P(512, 2, 16, 0, layout, 0));
	}
}

static void add_attention(table *t) {
	/* tokens, heads, kv_heads, head_dim, sequences, window */
	static const int64_t grid[][6] = {{1, 1, 1, 1, 1, 0},  {1, 4, 2, 8, 1, 0},    {5, 4, 4, 16, 1, 0},   {17, 8, 2, 32, 1, 0},
	                                  {33, 6, 3, 7, 1, 0}, {64, 4, 1, 64, 1, 0},  {65, 9, 3, 64, 1, 0},  {12, 4, 2, 16, 3, 0},
	                                  {40, 2, 1, 48, 2, 5}, {129, 2, 2, 12, 1, 32}, {130, 8, 4, 8, 5, 0}, {511, 2, 1, 16, 1, 0},
	                                  {512, 2, 1, 16, 1, 100}, {31, 5, 5, 33, 1, 1}};
	conf_case *c;

	for (size_t w = 0; w < COUNT(float_types); ++w) {
		for (size_t i = 0; i < COUNT(grid); ++i) {
			c = add(t, KNIT_OP_ATTENTION, "", float_types[w], FILL_UNIFORM, build_attention, feed_attention,
			        bound_attention, P(grid[i][0], grid[i][1], grid[i][2], grid[i][3], grid[i][4], grid[i][5]));
			c->runs = 2;
		}
		c = add(t, KNIT_OP_ATTENTION, "", float_types[w], FILL_EQUAL, build_attention, feed_attention, bound_attention,
		        P(20, 4, 2, 16, 1, 0));
		c = add(t, KNIT_OP_ATTENTION, "", float_types[w], FILL_ZEROS, build_attention, feed_attention, bound_attention,
		        P(20, 4, 2, 16, 1, 0));
		c = add(t, KNIT_OP_ATTENTION, "", float_types[w], FILL_NAN, build_attention, feed_attention, bound_attention,
		        P(20, 4, 2, 16, 1, 0));
		c->runs = 1;
	}
	/* Scores so far apart that one position takes all: exp must neither overflow nor lose the winner. */
	add(t, KNIT_OP_ATTENTION, "", KNIT_F32, FILL_LARGE, build_attention, feed_attention, bound_attention,
	    P(20, 4, 2, 16, 1, 0));
}

static void add_state_copy_cast(table *t) {
	for (size_t w = 0; w < COUNT(float_types); ++w) {
		conf_case *c = add(t, KNIT_OP_STATE_APPEND, "", float_types[w], FILL_UNIFORM, build_append, feed_append, NULL,
		                   P(6, 2, 9, 3, 5));
		c->runs = 3;
		c = add(t, KNIT_OP_STATE_APPEND, "", float_types[w], FILL_UNIFORM, build_append, feed_append, NULL,
		        P(1, 1, 4, 2, 32));
		c->runs = 3;
		add(t, KNIT_OP_STATE_APPEND, "", float_types[w], FILL_NAN, build_append, feed_append, NULL, P(4, 1, 4, 2, 8));
		for (int64_t kind = 0; kind < 5; ++kind) {
			add(t, KNIT_OP_COPY, "", float_types[w], FILL_UNIFORM, build_copy, feed_copy, NULL, P(5, 12, kind));
			add(t, KNIT_OP_COPY, "", float_types[w], FILL_UNIFORM, build_copy, feed_copy, NULL, P(67, 33, kind));
		}
		for (size_t to = 0; to < COUNT(float_types); ++to) {
			if (to == w)
				continue;
			add(t, KNIT_OP_CAST, "", float_types[w], FILL_UNIFORM, build_cast, feed_copy, NULL, P(3, 37, float_types[to]));
			add(t, KNIT_OP_CAST, "", float_types[w], FILL_LARGE, build_cast, feed_copy, NULL, P(1, 8, float_types[to]));
			add(t, KNIT_OP_CAST, "", float_types[w], FILL_ZEROS, build_cast, feed_copy, NULL, P(1, 9, float_types[to]));
			add(t, KNIT_OP_CAST, "", float_types[w], FILL_NAN, build_cast, feed_copy, NULL, P(1, 9, float_types[to]));
		}
	}
	add(t, KNIT_OP_COPY, "", KNIT_I32, FILL_UNIFORM, build_copy, feed_copy, NULL, P(5, 12, 0));
}

conf_case *cases_make(size_t *count) {
	table t = {0};

	add_gather(&t);
	add_linear(&t);
	add_elementwise(&t);
	add_rows(&t);
	add_rope(&t);
	add_attention(&t);
	add_state_copy_cast(&t);
	*count = t.count;
	return t.data;
}

void cases_free(conf_case *cases) { free(cases); }

/* ---- one case ---------------------------------------------------------------------------------------------------- */

bool case_open(case_build *b, knit_context *ctx, const conf_case *c) {
	*b = (case_build){.ctx = ctx, .c = c, .seed = knit__hash(KNIT__HASH_SEED, c->name, strlen(c->name))};
	if (knit_graph_create(ctx, &b->g) != KNIT_OK)
		return false;
	knit_origin(b->g, "case.%s", c->name);
	c->build(b);
	case_feed(b, 0);
	return knit_graph_status(b->g, NULL) == KNIT_OK;
}

void case_feed(case_build *b, int run) { b->c->feed(b, run); }

void case_close(case_build *b) {
	for (uint32_t i = 0; i < b->input_count; ++i)
		free(b->inputs[i].data);
	knit_weights_release(b->store);
	knit_graph_destroy(b->g);
}
