/* Owns the making of random graphs. */
#include "random_graph.h"
#include "../../graph/op_def.h"

#include <stdio.h>
#include <stdlib.h>

#define POOL 256
#define SEQS 2
#define POSITIONS 12
#define KV_HEADS 2
#define HEAD_DIM 16
#define TABLE_ROWS 40
#define RANK 4
#define STATES 3
#define SLOTS 3   /* adapters that a sequence may choose from */
#define FOLDED 6  /* vectors that one op alone reads */

typedef struct maker {
	knit_graph *g;
	knit_weights *base, *other; /* other: some of base's bytes again, under other names */
	uint64_t random;
	knit_dim tokens, picks;
	knit_tensor ids, seq, pos, pick, use;
	knit_tensor pool[POOL]; /* f32 [tokens, 32 or 64], perhaps strided */
	uint8_t wide[POOL];     /* 1: 64 columns */
	uint32_t pool_count;
	knit_state states[STATES];
	uint32_t folded;
} maker;

static const knit_dtype weight_types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};

static uint32_t below(maker *m, uint32_t n) {
	uint64_t z = m->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)((z ^ (z >> 31)) >> 33) % n;
}

static int64_t columns(int wide) { return wide ? 64 : 32; }

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static knit_status add_weight(maker *m, knit_weights *store, const char *name, knit_dtype type, int rank, int64_t rows,
                              int64_t cols, uint64_t seed, knit_diag *d) {
	const int64_t dims[2] = {rank == 2 ? rows : cols, cols};
	const uint64_t elements = (uint64_t)(rank == 2 ? rows * cols : cols);
	const uint64_t kept = m->random;
	uint64_t bytes = 0;

	knit__dtype_bytes(type, elements, &bytes);
	double *values = malloc(elements * sizeof *values);
	void *data = malloc(bytes);
	knit_status status = KNIT_ERR_MEMORY;
	if (values && data) {
		m->random = seed;
		for (uint64_t i = 0; i < elements; ++i)
			values[i] = ((double)below(m, 2001) - 1000) / 4000;
		knit__encode(type, values, data, elements);
		status = knit_weights_add(store, name, type, rank, dims, data, bytes, d);
	}
	m->random = kept;
	free(values);
	free(data);
	return status;
}

/* Names: w.<type>.<out>.<in>, v.<type>.<n>, t.<type>.<n>, a.<n>, b.<n>; the other store has the same bytes as o.<name>.
 */
static knit_status fill_stores(maker *m, knit_diag *d) {
	knit_status status = KNIT_OK;
	uint64_t seed = 7;
	char name[64];

	for (int store = 0; store < 2; ++store) {
		knit_weights *w = store ? m->other : m->base;
		const char *prefix = store ? "o." : "";

		seed = 7;
		for (int t = 0; t < 5 && status == KNIT_OK; ++t) {
			for (int shape = 0; shape < 4 && status == KNIT_OK; ++shape) {
				snprintf(name, sizeof name, "%sw.%d.%d.%d", prefix, t, shape / 2, shape % 2);
				status = add_weight(m, w, name, weight_types[t], 2, columns(shape / 2), columns(shape % 2), ++seed, d);
			}
			for (int wide = 0; wide < 2 && status == KNIT_OK; ++wide) {
				snprintf(name, sizeof name, "%st.%d.%d", prefix, t, wide);
				status = add_weight(m, w, name, weight_types[t], 2, TABLE_ROWS, columns(wide), ++seed, d);
				snprintf(name, sizeof name, "%sv.%d.%d", prefix, t, wide);
				if (status == KNIT_OK && t < 3)
					status = add_weight(m, w, name, weight_types[t], 1, 1, columns(wide), ++seed, d);
			}
		}
		for (int wide = 0; wide < 2 && status == KNIT_OK; ++wide) {
			snprintf(name, sizeof name, "%sa.%d", prefix, wide);
			status = add_weight(m, w, name, KNIT_F32, 2, RANK, columns(wide), ++seed, d);
			snprintf(name, sizeof name, "%sb.%d", prefix, wide);
			if (status == KNIT_OK)
				status = add_weight(m, w, name, KNIT_F32, 2, columns(wide), RANK, ++seed, d);
		}
	}
	for (int i = 0; i < FOLDED && status == KNIT_OK; ++i) {
		snprintf(name, sizeof name, "f.%d", i);
		status = add_weight(m, m->base, name, KNIT_F32, 1, 1, 64, 1000 + (uint64_t)i, d);
	}
	return status;
}

static knit_tensor matrix(maker *m, int to, int from) {
	const int other = below(m, 3) == 0;

	const uint32_t type = below(m, 2) ? 3 : below(m, 5); /* often the same, so that weights are met again */

	return knit_weight(m->g, other ? m->other : m->base, "%sw.%u.%d.%d", other ? "o." : "", type, to, from);
}

static knit_tensor vector(maker *m, int wide) {
	const int other = below(m, 4) == 0;

	return knit_weight(m->g, other ? m->other : m->base, "%sv.%u.%d", other ? "o." : "", below(m, 3), wide);
}

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

static void put(maker *m, knit_tensor t, int wide) {
	if (m->pool_count == POOL)
		return;
	m->pool[m->pool_count] = t;
	m->wide[m->pool_count++] = (uint8_t)wide;
}

/* A tensor of the pool, late ones more often. */
static uint32_t choose(maker *m) {
	const uint32_t a = below(m, m->pool_count), b = below(m, m->pool_count);

	return a > b ? a : b;
}

static uint32_t choose_width(maker *m, int wide) {
	for (int i = 0; i < 20; ++i) {
		const uint32_t at = choose(m);

		if (m->wide[at] == wide)
			return at;
	}
	for (uint32_t i = m->pool_count; i-- > 0;)
		if (m->wide[i] == wide)
			return i;
	return 0;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static knit_tensor elementwise(maker *m, knit_tensor x, int wide) {
	static const float factors[] = {1, 0.5f, -2};

	switch (below(m, 9)) {
	case 0:
		return knit_add(m->g, x, m->pool[choose_width(m, wide)]);
	case 1:
		return knit_mul(m->g, m->pool[choose_width(m, wide)], x);
	case 2:
		return below(m, 2) ? knit_add(m->g, x, vector(m, wide)) : knit_mul(m->g, x, vector(m, wide));
	case 3:
		return knit_scale(m->g, x, factors[below(m, 3)]);
	case 4:
		return knit_silu(m->g, x);
	case 5:
		return knit_gelu(m->g, x);
	case 6:
		return knit_softmax(m->g, x);
	case 7:
		return knit_rms_norm(m->g, x, vector(m, wide), 1e-5f);
	default:
		return knit_layer_norm(m->g, x, vector(m, wide), below(m, 2) ? vector(m, wide) : (knit_tensor){0}, 1e-5f);
	}
}

/* A scale, now and then, by a factor that f32 holds. */
static knit_tensor maybe_scaled(maker *m, knit_tensor x) {
	static const float factors[] = {0.5f, -2, 3, 0.1f};

	return below(m, 2) ? x : knit_scale(m->g, x, factors[below(m, 4)]);
}

/* The sum in either order of operands. */
static knit_tensor either_sum(maker *m, knit_tensor a, knit_tensor b) {
	return below(m, 2) ? knit_add(m->g, a, b) : knit_add(m->g, b, a);
}

/* Scales behind either factor, both, or none; or adapters chosen by sequence. */
static knit_tensor low_rank(maker *m, knit_tensor x, int to, int from) {
	if (below(m, 4) == 0) {
		const knit_tensor a = knit_adapter_slots(m->g, KNIT_F32, SLOTS, RANK, columns(from), "slots.a.%d", from);
		const knit_tensor b = knit_adapter_slots(m->g, KNIT_F32, SLOTS, columns(to), RANK, "slots.b.%d", to);

		return maybe_scaled(m, knit_lora(m->g, x, a, b, 0.5f, m->use, m->seq));
	}
	const knit_tensor down = knit_linear(m->g, x, knit_adapter(m->g, m->base, "a.%d", from));

	return maybe_scaled(m, knit_linear(m->g, maybe_scaled(m, down), knit_adapter(m->g, m->base, "b.%d", to)));
}

/* A linear with a LoRA or without. Seldom one whose low-rank part starts from something else. */
static knit_tensor projection(maker *m, knit_tensor x, int to, int from) {
	const knit_tensor y = knit_linear(m->g, x, matrix(m, to, from));

	if (below(m, 2))
		return y;
	return either_sum(m, y, low_rank(m, below(m, 8) ? x : m->pool[choose_width(m, from)], to, from));
}

/* With bias and residual in any order, or without. */
static knit_tensor lora(maker *m, knit_tensor x, int to, int from) {
	knit_tensor y = projection(m, x, to, from);

	for (int i = 0; i < 2; ++i) {
		const uint32_t what = below(m, 4);

		if (what == 0)
			y = knit_add(m->g, y, vector(m, to));
		else if (what == 1)
			y = either_sum(m, y, m->pool[choose_width(m, to)]);
	}
	return y;
}

/* The intermediate results are read by others now and then. */
static knit_tensor gated(maker *m, knit_tensor x, int to, int from) {
	const knit_tensor gate = projection(m, x, to, from);
	const knit_tensor act = below(m, 2) ? knit_silu(m->g, gate) : knit_gelu(m->g, gate);
	const knit_tensor up = projection(m, below(m, 8) ? x : m->pool[choose_width(m, from)], to, from);

	if (below(m, 8) == 0)
		put(m, below(m, 2) ? gate : act, to);
	return below(m, 2) ? knit_mul(m->g, act, up) : knit_mul(m->g, up, act);
}

static void siblings(maker *m, knit_tensor x, int from) {
	for (uint32_t i = 2 + below(m, 3); i-- > 0;) {
		const int to = (int)below(m, 2);
		const knit_tensor y = projection(m, x, to, from);

		put(m, below(m, 2) ? knit_silu(m->g, y) : y, to);
	}
}

/* The sum goes on beside its norm. */
static void residual_stream(maker *m, knit_tensor x, int wide) {
	const knit_tensor sum = knit_add(m->g, x, m->pool[choose_width(m, wide)]);

	put(m, knit_rms_norm(m->g, sum, vector(m, wide), 1e-5f), wide);
	if (below(m, 8))
		put(m, sum, wide);
}

static knit_tensor chain(maker *m, knit_tensor x, int wide) {
	for (uint32_t i = 2 + below(m, 8); i-- > 0;) {
		knit_tensor y = {0};

		switch (below(m, 6)) {
		case 0: y = knit_silu(m->g, x); break;
		case 1: y = knit_scale(m->g, x, below(m, 2) ? 0.1f : -0.5f); break;
		case 2: y = knit_mul(m->g, x, vector(m, wide)); break;
		case 3: y = either_sum(m, x, m->pool[choose_width(m, wide)]); break;
		case 4: y = knit_mul(m->g, x, knit_gelu(m->g, x)); break;
		default: y = knit_add(m->g, knit_silu(m->g, x), knit_scale(m->g, x, 2)); break;
		}
		if (below(m, 10) == 0)
			put(m, y, wide);
		x = y;
	}
	return x;
}

/* Powers of two, so that a constant is exact in f32. */
static knit_tensor folded(maker *m, knit_tensor x) {
	if (m->folded == FOLDED)
		return x;
	knit_tensor v = knit_weight(m->g, m->base, "f.%u", m->folded++);

	for (uint32_t i = 1 + below(m, 2); i-- > 0;)
		v = knit_scale(m->g, v, below(m, 2) ? 0.5f : -4);
	return knit_mul(m->g, x, v);
}

/* Equal work twice, once in another order of operands. */
static knit_tensor twice(maker *m, knit_tensor x) {
	const knit_tensor a = knit_silu(m->g, x), b = knit_silu(m->g, x);

	return knit_mul(m->g, knit_add(m->g, a, x), knit_add(m->g, x, b));
}

/* Through a transposed view, so that strides reach ops; the result is a strided view. */
static knit_tensor transposed(maker *m, knit_tensor x) {
	return knit_transpose(m->g, knit_silu(m->g, knit_transpose(m->g, x, 0, 1)), 0, 1);
}

static knit_tensor reshaped(maker *m, knit_tensor x, int wide) {
	const knit_dim flat = knit_dim_mul(m->g, m->tokens, columns(wide)), dims[2] = {m->tokens, knit_n(columns(wide))};

	return knit_reshape(m->g, knit_gelu(m->g, knit_reshape(m->g, x, 1, &flat)), 2, dims);
}

static knit_tensor roped(maker *m, knit_tensor x) {
	const knit_rope_desc desc = {.rotary_dims = below(m, 2) ? 8 : 0,
	                             .layout = below(m, 2) ? KNIT_ROPE_SPLIT : KNIT_ROPE_INTERLEAVED};
	const knit_tensor heads = knit_split_heads(m->g, x, x.id ? (int64_t)(1 + below(m, 2)) : 1);

	return knit_merge_heads(m->g, knit_rope(m->g, heads, m->pos, &desc));
}

static knit_tensor attention(maker *m, knit_tensor x, int wide) {
	const knit_state k = m->states[below(m, STATES)], v = m->states[below(m, STATES)];
	const knit_attention_desc desc = {.window = below(m, 3) ? 0 : 3};
	knit_tensor q = knit_split_heads(m->g, x, columns(wide) / HEAD_DIM);

	knit_state_append(m->g, k, knit_split_heads(m->g, m->pool[choose_width(m, 0)], KV_HEADS), m->seq, m->pos);
	knit_state_append(m->g, v, knit_split_heads(m->g, m->pool[choose_width(m, 0)], KV_HEADS), m->seq, m->pos);
	q = knit_attention(m->g, q, knit_state_read(m->g, k), knit_state_read(m->g, v), m->seq, m->pos, &desc);
	return knit_merge_heads(m->g, q);
}

/* Rows of a state as a table: a view of a version, which a later step may make old. */
static knit_tensor recall(maker *m) {
	const knit_dim dims[2] = {knit_n(SEQS * POSITIONS), knit_n(KV_HEADS * HEAD_DIM)};

	return knit_gather(m->g, knit_reshape(m->g, knit_state_read(m->g, m->states[below(m, STATES)]), 2, dims), m->pos);
}

/* What a visit does: rotated queries and keys, keys and values to their slot, attention. Seldom something that keeps it
 * from being one step. */
static knit_tensor visit(maker *m, knit_tensor x, int wide) {
	const uint32_t slot = below(m, STATES);
	const knit_state k = m->states[slot], v = m->states[(slot + 1 + below(m, STATES - 1)) % STATES];
	const knit_rope_desc desc = {.rotary_dims = below(m, 2) ? 8 : 0,
	                             .layout = below(m, 2) ? KNIT_ROPE_SPLIT : KNIT_ROPE_INTERLEAVED};
	const knit_rope_desc other = {.theta = 500, .rotary_dims = 8};
	const knit_tensor q = knit_rope(m->g, knit_split_heads(m->g, x, columns(wide) / HEAD_DIM), m->pos, &desc);
	const knit_tensor keys = knit_split_heads(m->g, m->pool[choose_width(m, 0)], KV_HEADS);
	const knit_tensor turned = knit_rope(m->g, keys, below(m, 8) ? m->pos : m->seq, below(m, 8) ? &desc : &other);

	knit_state_append(m->g, k, turned, m->seq, m->pos);
	if (below(m, 4) == 0)
		put(m, recall(m), 0);
	knit_state_append(m->g, v, knit_split_heads(m->g, m->pool[choose_width(m, 0)], KV_HEADS), m->seq, m->pos);
	if (below(m, 6) == 0)
		put(m, knit_merge_heads(m->g, turned), 0);
	return knit_merge_heads(m->g, knit_attention(m->g, q, knit_state_read(m->g, k), knit_state_read(m->g, v), m->seq,
	                                             m->pos, NULL));
}

static void step(maker *m, uint32_t number) {
	const uint32_t at = choose(m);
	const knit_tensor x = m->pool[at];
	const int wide = m->wide[at], to = (int)below(m, 2);

	knit_origin(m->g, "visit.%u.step.%u", number / 4, number % 4);
	switch (below(m, 24)) {
	case 0:
	case 1:
		put(m, knit_linear(m->g, x, matrix(m, to, wide)), to);
		break;
	case 2:
		put(m, lora(m, x, to, wide), to);
		break;
	case 3:
		put(m, twice(m, x), wide);
		break;
	case 4:
		put(m, transposed(m, x), wide);
		break;
	case 5:
		put(m, reshaped(m, x, wide), wide);
		break;
	case 6:
		put(m, roped(m, x), wide);
		break;
	case 7:
		put(m, attention(m, x, wide), wide);
		break;
	case 8:
		put(m, recall(m), 0);
		break;
	case 9:
		put(m, knit_cast(m->g, knit_cast(m->g, x, below(m, 2) ? KNIT_F16 : KNIT_BF16), KNIT_F32), wide);
		break;
	case 10: /* the left or right half */
		if (wide)
			put(m, knit_slice(m->g, x, 1, 32 * (int64_t)below(m, 2), knit_n(32)), 0);
		break;
	case 11: /* 32 columns: always rows of the table */
		put(m, knit_gather(m->g, knit_weight(m->g, m->base, "t.%u.%d", below(m, 5), to),
		                   knit_argmax(m->g, m->pool[choose_width(m, 0)])), to);
		break;
	case 12:
	case 13:
		put(m, gated(m, x, to, wide), to);
		break;
	case 14:
		siblings(m, x, wide);
		break;
	case 15:
		residual_stream(m, x, wide);
		break;
	case 16:
	case 17:
		put(m, visit(m, x, wide), wide);
		break;
	case 18:
	case 19:
		put(m, chain(m, x, wide), wide);
		break;
	case 20:
		if (wide)
			put(m, folded(m, x), wide);
		break;
	default:
		put(m, elementwise(m, x, wide), wide);
	}
}

/* The sum of everything of one width, so that nothing is unused. */
static knit_tensor sum(maker *m, int wide) {
	const uint32_t count = m->pool_count;
	knit_tensor all = {0};

	for (uint32_t i = 0; i < count; ++i)
		if (m->wide[i] == wide)
			all = all.id ? knit_add(m->g, all, m->pool[i]) : m->pool[i];
	return all;
}

static void outputs(maker *m) {
	const uint32_t last = m->pool_count - 1, any = choose(m);
	const knit_dim flat[2] = {knit_n(SEQS * POSITIONS * KV_HEADS), knit_n(HEAD_DIM)};

	knit_output(m->g, "last", m->pool[last]);
	knit_output(m->g, "picked", knit_gather(m->g, m->pool[any], m->pick));
	if (below(m, 2)) {
		knit_output(m->g, "narrow sum", sum(m, 0));
		knit_output(m->g, "wide sum", sum(m, 1));
	}
	if (below(m, 2))
		knit_output(m->g, "last again", m->pool[last]);
	if (below(m, 3) == 0)
		knit_output(m->g, "x\"out\n", m->pool[0]);
	if (below(m, 3) == 0)
		knit_output(m->g, "weight", vector(m, 1));
	if (below(m, 3) == 0)
		knit_output(m->g, "turned", knit_transpose(m->g, m->pool[choose(m)], 0, 1));
	if (below(m, 3) == 0)
		knit_output(m->g, "state", knit_reshape(m->g, knit_state_read(m->g, m->states[below(m, STATES)]), 2, flat));
}

static void build(maker *m, uint32_t steps) {
	static const knit_dtype state_types[STATES] = {KNIT_F32, KNIT_F16, KNIT_BF16};
	const knit_dim slot[4] = {knit_n(SEQS), knit_n(POSITIONS), knit_n(KV_HEADS), knit_n(HEAD_DIM)};

	m->tokens = knit_sym(m->g, "tokens", 1, 6);
	m->picks = knit_sym(m->g, "picks", 1, 3);
	const knit_dim x_dims[2] = {m->tokens, knit_n(64)};
	put(m, knit_input(m->g, "x", KNIT_F32, 2, x_dims), 1);
	m->ids = knit_input(m->g, "ids", KNIT_I32, 1, &m->tokens);
	m->seq = knit_input(m->g, "seq", KNIT_I32, 1, &m->tokens);
	m->pos = knit_input(m->g, "pos", KNIT_I32, 1, &m->tokens);
	m->pick = knit_input(m->g, "pick", KNIT_I32, 1, &m->picks);
	const knit_dim sequences = {SEQS};
	m->use = knit_input(m->g, "use", KNIT_I32, 1, &sequences);
	for (int i = 0; i < STATES; ++i)
		m->states[i] = knit_state_define(m->g, state_types[i], 4, slot, "slot.%d", i);
	put(m, knit_gather(m->g, knit_weight(m->g, m->base, "t.%u.0", below(m, 5)), m->ids), 0);
	for (uint32_t i = 0; i < steps; ++i)
		step(m, i);
	knit_origin(m->g, "end");
	outputs(m);
}

knit_status random_graph(knit_context *ctx, uint64_t seed, uint32_t steps, knit_graph **out, knit_diag *d) {
	maker m = {.random = seed};

	*out = NULL;
	knit_status status = knit_weights_create(ctx, &m.base);
	if (status == KNIT_OK)
		status = knit_weights_create(ctx, &m.other);
	if (status == KNIT_OK)
		status = fill_stores(&m, d);
	if (status == KNIT_OK)
		status = knit_graph_create(ctx, &m.g);
	if (status == KNIT_OK) {
		build(&m, steps);
		status = knit_graph_status(m.g, d);
	}
	knit_weights_release(m.base);
	knit_weights_release(m.other);
	if (status == KNIT_OK)
		*out = m.g;
	else
		knit_graph_destroy(m.g);
	return status;
}
