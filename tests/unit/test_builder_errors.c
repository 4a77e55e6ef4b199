/* What the builder says when shapes, types, indices or handles are wrong: the status, the op, the origin, the numbers;
 * and that the first error stays. */
#include "../../graph/ir.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ORIGIN "visit.3.blk.0"

/* Operands of many shapes, made before the call under test. */
static knit_context *ctx;
static knit_weights *store;
static knit_graph *g;
static knit_dim n, m; /* symbols: n in [1, 512], m in [0, 8] */
static knit_tensor x, x3, x4, q, half, ids, pos, seq, fewer, gain, vector3, table, w, w_bad, w_q8, w3, logits,
	odd_heads;
static knit_state slot, slot3;

static void fill(void) {
	static const char zeros[64 * 128 * 4];
	const int64_t two[] = {32, 64}, bad[] = {32, 65}, one[] = {64}, three[] = {3}, rank3[] = {2, 4, 64},
				  blocks[] = {16, 96};

	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "w", KNIT_F32, 2, two, zeros, 32 * 64 * 4, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "w_bad", KNIT_F16, 2, bad, zeros, 32 * 65 * 2, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "w_q8", KNIT_Q8_0, 2, blocks, zeros, 16 * 3 * 34, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "w3", KNIT_F32, 3, rank3, zeros, 2 * 4 * 64 * 4, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "gain", KNIT_F32, 1, one, zeros, 64 * 4, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "three", KNIT_F32, 1, three, zeros, 3 * 4, NULL), KNIT_OK);
}

static void setup(void) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	fill();
	n = knit_sym(g, "tokens", 1, 512);
	m = knit_sym(g, "m", 0, 8);
	x = knit_input(g, "x", KNIT_F32, 2, (knit_dim[]){n, {64}});
	x3 = knit_input(g, "x3", KNIT_F32, 3, (knit_dim[]){n, {4}, {16}});
	x4 = knit_input(g, "x4", KNIT_F32, 4, (knit_dim[]){{2}, n, {4}, {16}});
	q = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {8}, {16}});
	odd_heads = knit_input(g, "odd_heads", KNIT_F32, 3, (knit_dim[]){n, {6}, {16}});
	half = knit_input(g, "half", KNIT_F16, 2, (knit_dim[]){n, {64}});
	ids = knit_input(g, "ids", KNIT_I32, 1, (knit_dim[]){n});
	seq = knit_input(g, "seq", KNIT_I32, 1, (knit_dim[]){n});
	pos = knit_input(g, "pos", KNIT_I32, 1, (knit_dim[]){n});
	fewer = knit_input(g, "fewer", KNIT_I32, 1, (knit_dim[]){m});
	logits = knit_input(g, "logits", KNIT_F32, 1, (knit_dim[]){{512}});
	w = knit_weight(g, store, "w");
	w_bad = knit_weight(g, store, "w_bad");
	w_q8 = knit_weight(g, store, "w_q8");
	w3 = knit_weight(g, store, "w3");
	gain = knit_weight(g, store, "gain");
	vector3 = knit_weight(g, store, "three");
	table = knit_weight(g, store, "w_q8");
	slot = knit_state_define(g, KNIT_F16, 4, (knit_dim[]){{2}, {128}, {4}, {16}}, "k.%d", 0);
	slot3 = knit_state_define(g, KNIT_F32, 3, (knit_dim[]){{1}, {128}, {64}}, "rows");
	knit_origin(g, "visit.%d.blk.%d", 3, 0);
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
}

static void teardown(void) {
	knit_graph_destroy(g);
	knit_weights_release(store);
	knit_context_destroy(ctx);
}

/* ---- the wrong calls --------------------------------------------------------------------------------------------- */

/* clang-format off */
static knit_tensor kv(void) { return knit_state_read(g, slot); }
static void attend(knit_tensor qq, knit_tensor kk, knit_tensor vv, knit_tensor ss, knit_tensor pp, float scale, int64_t window) {
	knit_attention(g, qq, kk, vv, ss, pp, &(knit_attention_desc){.scale = scale, .window = window});
}

static void gather_rank(void) { knit_gather(g, w3, ids); }
static void gather_ids_type(void) { knit_gather(g, table, x); }
static void gather_ids_rank(void) { knit_gather(g, table, knit_input(g, "i2", KNIT_I32, 2, (knit_dim[]){n, {3}})); }
static void gather_from_ids(void) { knit_gather(g, ids, ids); }
static void linear_columns(void) { knit_linear(g, x, w_bad); }
static void linear_weight_rank(void) { knit_linear(g, x, w3); }
static void linear_half_x(void) { knit_linear(g, half, w); }
static void linear_ids(void) { knit_linear(g, x, ids); }
static void linear_symbol(void) { knit_linear(g, x, x); }
static void linear_block(void) {
	const knit_tensor wide = knit_input(g, "wide", KNIT_F32, 2, (knit_dim[]){n, {96}});
	knit_linear(g, wide, knit_slice(g, w_q8, 1, 32, knit_n(40)));
}
static void add_shapes(void) { knit_add(g, x, x3); }
static void add_vector(void) { knit_add(g, x, vector3); }
static void add_half(void) { knit_add(g, x, half); }
static void mul_first(void) { knit_mul(g, ids, ids); }
static void scale_nan(void) { knit_scale(g, x, NAN); }
static void scale_ids(void) { knit_scale(g, ids, 2); }
static void silu_half(void) { knit_silu(g, half); }
static void gelu_none(void) { knit_gelu(g, (knit_tensor){0}); }
static void gelu_foreign(void) { knit_gelu(g, (knit_tensor){4711}); }
static void rms_gain(void) { knit_rms_norm(g, x, vector3, 1e-5f); }
static void rms_gain_rank(void) { knit_rms_norm(g, x, w, 1e-5f); }
static void rms_eps(void) { knit_rms_norm(g, x, gain, -1); }
static void layer_bias(void) { knit_layer_norm(g, x, gain, vector3, 1e-5f); }
static void layer_gain_type(void) { knit_layer_norm(g, x, ids, (knit_tensor){0}, 1e-5f); }
static void softmax_type(void) { knit_softmax(g, half); }
static void argmax_rank(void) { knit_argmax(g, logits); }
static void argmax_empty(void) { knit_argmax(g, knit_input(g, "e", KNIT_F32, 2, (knit_dim[]){{3}, m})); }
static void cast_type(void) { knit_cast(g, x, KNIT_Q8_0); }
static void cast_unknown(void) { knit_cast(g, x, (knit_dtype)99); }
static void cast_from(void) { knit_cast(g, ids, KNIT_F32); }
static void rope_rank(void) { knit_rope(g, x, pos, NULL); }
static void rope_pos(void) { knit_rope(g, q, fewer, NULL); }
static void rope_odd(void) { knit_rope(g, q, pos, &(knit_rope_desc){.rotary_dims = 7}); }
static void rope_wide(void) { knit_rope(g, q, pos, &(knit_rope_desc){.rotary_dims = 18}); }
static void rope_theta(void) { knit_rope(g, q, pos, &(knit_rope_desc){.theta = -1}); }
static void rope_layout(void) { knit_rope(g, q, pos, &(knit_rope_desc){.layout = (knit_rope_layout)5}); }
static void rope_odd_head(void) { knit_rope(g, knit_input(g, "o", KNIT_F32, 3, (knit_dim[]){n, {8}, {15}}), pos, NULL); }
static void reshape_count(void) { knit_reshape(g, x, 3, (knit_dim[]){n, {8}, {9}}); }
static void reshape_symbol(void) { knit_reshape(g, x, 2, (knit_dim[]){m, {64}}); }
static void reshape_rank(void) { knit_reshape(g, x, 5, (knit_dim[]){n, {8}, {4}, {2}, {1}}); }
static void reshape_foreign(void) { knit_reshape(g, x, 1, (knit_dim[]){{-99}}); }
static void reshape_block(void) { knit_reshape(g, w_q8, 2, (knit_dim[]){{32}, {48}}); }
static void reshape_huge(void) { knit_reshape(g, x, 2, (knit_dim[]){{INT64_MAX}, {64}}); }
static void slice_number(void) { knit_slice(g, x, 1, 60, knit_n(5)); }
static void slice_symbol(void) { knit_slice(g, x, 0, 0, knit_n(2)); }
static void slice_other_symbol(void) { knit_slice(g, x, 0, 0, m); }
static void slice_negative(void) { knit_slice(g, x, 1, -1, knit_n(4)); }
static void slice_axis(void) { knit_slice(g, x, 2, 0, knit_n(4)); }
static void slice_block(void) { knit_slice(g, w_q8, 1, 16, knit_n(32)); }
static void slice_overflow(void) { knit_slice(g, x, 1, INT64_MAX, knit_n(INT64_MAX)); }
static void slice_foreign(void) { knit_slice(g, x, 0, 0, (knit_dim){-99}); }
static void transpose_axis(void) { knit_transpose(g, x, 0, 2); }
static void transpose_block(void) { knit_transpose(g, w_q8, 0, 1); }
static void split_indivisible(void) { knit_split_heads(g, x, 7); }
static void split_zero(void) { knit_split_heads(g, x, 0); }
static void split_rank(void) { knit_split_heads(g, x4, 2); }
static void split_block(void) { knit_split_heads(g, w_q8, 6); }
static void merge_rank(void) { knit_merge_heads(g, logits); }
static void merge_symbols(void) { knit_merge_heads(g, knit_input(g, "s", KNIT_F32, 2, (knit_dim[]){n, m})); }
static void state_rank(void) { knit_state_define(g, KNIT_F16, 2, (knit_dim[]){{2}, {3}}, "v"); }
static void state_symbol(void) { knit_state_define(g, KNIT_F16, 3, (knit_dim[]){{2}, n, {3}}, "v"); }
static void state_type(void) { knit_state_define(g, KNIT_I32, 3, (knit_dim[]){{2}, {3}, {32}}, "v"); }
static void state_weights_only(void) { knit_state_define(g, KNIT_Q4_K, 4, (knit_dim[]){{2}, {3}, {4}, {256}}, "v"); }
static void state_block(void) { knit_state_define(g, KNIT_Q8_0, 4, (knit_dim[]){{2}, {3}, {4}, {16}}, "v"); }
static void state_zero(void) { knit_state_define(g, KNIT_F32, 3, (knit_dim[]){{2}, {0}, {32}}, "v"); }
static void state_twice(void) { knit_state_define(g, KNIT_F16, 3, (knit_dim[]){{2}, {3}, {32}}, "k.%d", 0); }
static void state_name(void) { knit_state_define(g, KNIT_F16, 3, (knit_dim[]){{2}, {3}, {32}}, "%s", ""); }
static void append_rows(void) { knit_state_append(g, slot, q, seq, pos); }
static void append_rank(void) { knit_state_append(g, slot, x, seq, pos); }
static void append_rank3(void) { knit_state_append(g, slot3, logits, seq, pos); }
static void append_type(void) { knit_state_append(g, slot3, half, seq, pos); }
static void append_pos(void) { knit_state_append(g, slot3, x, seq, fewer); }
static void append_handle(void) { knit_state_append(g, (knit_state){9}, x, seq, pos); }
static void append_ring(int64_t ring, int64_t sinks) { knit_state_append_ring(g, slot3, x, seq, pos, ring, sinks); }
static void append_ring_cells(void) { append_ring(100, 20); }
static void append_ring_negative(void) { append_ring(-1, 129); }
static void append_ring_sinks(void) { append_ring(0, 4); }
static void append_ring_overflow(void) { append_ring(INT64_MAX, INT64_MAX); }
static void read_handle(void) { knit_state_read(g, (knit_state){0}); }
static void read_stale(void) {
	const knit_tensor old = knit_state_read(g, slot3);
	knit_state_append(g, slot3, x, seq, pos);
	knit_softmax(g, old);
}
static void attention_heads(void) { attend(odd_heads, kv(), kv(), seq, pos, 0, 0); }
static void attention_dim(void) { attend(knit_split_heads(g, x, 8), kv(), kv(), seq, pos, 0, 0); }
static void attention_rank(void) { attend(x, kv(), kv(), seq, pos, 0, 0); }
static void attention_k_rank(void) { attend(q, x3, kv(), seq, pos, 0, 0); }
static void attention_kv(void) { attend(q, kv(), knit_slice(g, kv(), 1, 0, knit_n(64)), seq, pos, 0, 0); }
static void attention_v_type(void) {
	attend(q, kv(), knit_input(g, "vi", KNIT_I32, 4, (knit_dim[]){{2}, {128}, {4}, {16}}), seq, pos, 0, 0);
}
static void attention_seq(void) { attend(q, kv(), kv(), fewer, pos, 0, 0); }
static void attention_pos(void) { attend(q, kv(), kv(), seq, x, 0, 0); }
static void attention_window(void) { attend(q, kv(), kv(), seq, pos, 0, -4); }
static void attention_scale(void) { attend(q, kv(), kv(), seq, pos, INFINITY, 0); }

static void attend_ring(int64_t window, int64_t ring, int64_t sinks) {
	knit_attention(g, q, kv(), kv(), seq, pos, &(knit_attention_desc){.window = window, .ring = ring, .sinks = sinks});
}
static void attention_ring_small(void) { attend_ring(100, 120, 8); }
static void attention_ring_cells(void) { attend_ring(100, 120, 9); }
static void attention_ring_alone(void) { attend_ring(0, 128, 0); }
static void attention_sinks_alone(void) { attend_ring(0, 0, 4); }
static void attention_ring_negative(void) { attend_ring(8, -8, 0); }
static void attention_flat(int64_t kv_heads) {
	knit_attention(g, q, knit_state_read(g, slot3), knit_state_read(g, slot3), seq, pos,
				   &(knit_attention_desc){.kv_heads = kv_heads});
}
static void attention_flat_unnamed(void) { attention_flat(0); }
static void attention_flat_heads(void) { attention_flat(3); }
static void attention_kv_heads(void) { knit_attention(g, q, kv(), kv(), seq, pos, &(knit_attention_desc){.kv_heads = 2}); }
static knit_kv_slot kv_slot(knit_kv_desc desc) { return knit_kv_slot_define(g, &desc, "%d", 7); }
static void slot_heads(void) { kv_slot((knit_kv_desc){.positions = 8, .head_dim = 8}); }
static void slot_dim(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 2}); }
static void slot_positions(void) { kv_slot((knit_kv_desc){.kv_heads = 2, .head_dim = 8}); }
static void slot_type(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 2, .head_dim = 8, .v = KNIT_I32}); }
static void slot_weights_only(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 3, .head_dim = 256, .v = KNIT_Q6_K}); }
static void slot_block(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 3, .head_dim = 8, .k = KNIT_Q4_0}); }
static void slot_window(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 3, .head_dim = 8, .window = -1}); }
static void slot_tokens(void) { kv_slot((knit_kv_desc){.kv_heads = 3, .head_dim = 8, .window = 16}); }
static void slot_sinks(void) { kv_slot((knit_kv_desc){.positions = 8, .kv_heads = 3, .head_dim = 8, .sinks = 2}); }
static void slot_huge(void) { kv_slot((knit_kv_desc){.kv_heads = 3, .head_dim = 8, .window = INT64_MAX, .max_tokens = 2}); }
static void slot_name(void) { knit_kv_slot_define(g, NULL, "%s", ""); }
static void slot_foreign(void) { knit_kv_slot_append(g, &(knit_kv_slot){0}, x3, x3, seq, pos); }
static void slot_ring_tokens(void) {
	const knit_kv_slot s = kv_slot((knit_kv_desc){.kv_heads = 4, .head_dim = 16, .window = 16, .max_tokens = 64});
	knit_kv_slot_attend(g, &s, q, seq, pos, 0);
}

/* clang-format on */

typedef struct wrong_call {
	void (*call)(void);
	knit_status status;
	const char *op;
	const char *says[4];
} wrong_call;

#define ARGUMENT KNIT_ERR_ARGUMENT
#define SHAPE KNIT_ERR_SHAPE
static const wrong_call calls[] = {
	{gather_rank, SHAPE, "gather", {"table is f32 [2, 4, 64]", "rank 3", "needs rank 2"}},
	{gather_ids_type, SHAPE, "gather", {"ids is f32 [tokens, 64]", "needs i32"}},
	{gather_ids_rank, SHAPE, "gather", {"ids is i32 [tokens, 3]", "needs rank 1"}},
	{gather_from_ids, SHAPE, "gather", {"table is i32 [tokens]", "needs f32, f16, bf16, q8_0, q4_0, q4_K or q6_K"}},
	{linear_columns, SHAPE, "linear", {"f32 [tokens, 64]", "f16 [32, 65]", "needs x with 65"}},
	{linear_weight_rank, SHAPE, "linear", {"w is f32 [2, 4, 64]", "rank 3, needs rank 2"}},
	{linear_half_x, SHAPE, "linear", {"x is f16 [tokens, 64]", "needs f32"}},
	{linear_ids, SHAPE, "linear", {"w is i32 [tokens]", "needs f32, f16"}},
	{linear_symbol, SHAPE, "linear", {"w is f32 [tokens, 64]", "needs numbers"}},
	{linear_block, SHAPE, "slice", {"40 elements from 32", "q8_0 block of 32"}},
	{add_shapes, SHAPE, "add", {"[tokens, 64]", "[tokens, 4, 16]", "needs equal shapes"}},
	{add_vector, SHAPE, "add", {"[tokens, 64]", "f32 [3]", "vector"}},
	{add_half, SHAPE, "add", {"b is f16 [tokens, 64]", "needs f32 unless it is a vector"}},
	{mul_first, SHAPE, "mul", {"a is i32 [tokens]", "needs f32"}},
	{scale_nan, ARGUMENT, "scale", {"s is nan", "finite"}},
	{scale_ids, SHAPE, "scale", {"x is i32 [tokens]"}},
	{silu_half, SHAPE, "silu", {"x is f16 [tokens, 64]"}},
	{gelu_none, ARGUMENT, "gelu", {"x is no tensor"}},
	{gelu_foreign, ARGUMENT, "gelu", {"x is tensor 4711"}},
	{rms_gain, SHAPE, "rms_norm", {"gain is f32 [3]", "x f32 [tokens, 64]"}},
	{rms_gain_rank, SHAPE, "rms_norm", {"gain is f32 [32, 64]", "needs rank 1"}},
	{rms_eps, ARGUMENT, "rms_norm", {"eps is -1"}},
	{layer_bias, SHAPE, "layer_norm", {"bias is f32 [3]", "x f32 [tokens, 64]"}},
	{layer_gain_type, SHAPE, "layer_norm", {"gain is i32 [tokens]", "needs f32, f16 or bf16"}},
	{softmax_type, SHAPE, "softmax", {"x is f16 [tokens, 64]"}},
	{argmax_rank, SHAPE, "argmax", {"x is f32 [512]", "rank 1", "needs rank 2 to 4"}},
	{argmax_empty, SHAPE, "argmax", {"x is f32 [3, m]", "at least 1"}},
	{cast_type, SHAPE, "cast", {"f32 [tokens, 64]", "q8_0", "needs f32, f16 or bf16"}},
	{cast_unknown, SHAPE, "cast", {"type 99"}},
	{cast_from, SHAPE, "cast", {"x is i32 [tokens]"}},
	{rope_rank, SHAPE, "rope", {"x is f32 [tokens, 64]", "rank 2, needs rank 3"}},
	{rope_pos, SHAPE, "rope", {"pos is i32 [m]", "x f32 [tokens, 8, 16]"}},
	{rope_odd, SHAPE, "rope", {"rotary_dims is 7", "[tokens, 8, 16]"}},
	{rope_wide, SHAPE, "rope", {"rotary_dims is 18", "[tokens, 8, 16]"}},
	{rope_theta, ARGUMENT, "rope", {"theta is -1"}},
	{rope_layout, ARGUMENT, "rope", {"layout is 5"}},
	{rope_odd_head, SHAPE, "rope", {"rotary_dims is 15", "[tokens, 8, 15]"}},
	{reshape_count, SHAPE, "reshape", {"[tokens, 64]", "[tokens, 8, 9]"}},
	{reshape_symbol, SHAPE, "reshape", {"[tokens, 64]", "[m, 64]"}},
	{reshape_rank, ARGUMENT, "reshape", {"rank 5", "1 to 4"}},
	{reshape_foreign, ARGUMENT, "reshape", {"dimension 0"}},
	{reshape_block, SHAPE, "reshape", {"[32, 48] of q8_0", "block of 32"}},
	{reshape_huge, KNIT_ERR_LIMIT, "reshape", {"[9223372036854775807, 64]", "64 bits"}},
	{slice_number, SHAPE, "slice", {"5 elements from 60", "dimension 1", "[tokens, 64]"}},
	{slice_symbol, SHAPE, "slice", {"2 elements from 0", "dimension 0", "[tokens, 64]"}},
	{slice_other_symbol, SHAPE, "slice", {"m elements from 0", "[tokens, 64]"}},
	{slice_negative, SHAPE, "slice", {"from -1"}},
	{slice_axis, ARGUMENT, "slice", {"axis 2 of [tokens, 64]", "0 to 1"}},
	{slice_block, SHAPE, "slice", {"32 elements from 16", "q8_0 block of 32"}},
	{slice_overflow, SHAPE, "slice", {"9223372036854775807 elements"}},
	{slice_foreign, ARGUMENT, "slice", {"size"}},
	{transpose_axis, ARGUMENT, "transpose", {"axis 2 of [tokens, 64]"}},
	{transpose_block, SHAPE, "transpose", {"q8_0 [16, 96]", "innermost"}},
	{split_indivisible, SHAPE, "split_heads", {"[tokens, 64] into 7 heads"}},
	{split_zero, SHAPE, "split_heads", {"into 0 heads"}},
	{split_rank, SHAPE, "split_heads", {"[2, tokens, 4, 16]", "rank 4"}},
	{split_block, SHAPE, "split_heads", {"head_dim 16", "q8_0 block of 32"}},
	{merge_rank, SHAPE, "merge_heads", {"[512]", "rank 1"}},
	{merge_symbols, SHAPE, "merge_heads", {"two symbolic dimensions"}},
	{state_rank, SHAPE, "state", {"v has rank 2", "3 or 4"}},
	{state_symbol, SHAPE, "state", {"v: dimension 1 is tokens"}},
	{state_type, SHAPE, "state", {"v is of type i32", "needs f32, f16, bf16, q8_0 or q4_0"}},
	{state_weights_only, SHAPE, "state", {"v is of type q4_K", "needs f32, f16, bf16, q8_0 or q4_0"}},
	{state_block, SHAPE, "state", {"v: rows of 16 elements", "q8_0 needs a multiple of 32"}},
	{state_zero, SHAPE, "state", {"v: dimension 1 is 0"}},
	{state_twice, ARGUMENT, "state", {"k.0 is defined twice"}},
	{state_name, ARGUMENT, "state", {"the name has 0 bytes"}},
	{append_rows, SHAPE, "append", {"f32 [tokens, 8, 16]", "f16 [2, 128, 4, 16]"}},
	{append_rank, SHAPE, "append", {"f32 [tokens, 64]", "f16 [2, 128, 4, 16]"}},
	{append_rank3, SHAPE, "append", {"rows is f32 [512]", "rank 1, needs rank 2 to 4"}},
	{append_type, SHAPE, "append", {"rows is f16 [tokens, 64]"}},
	{append_pos, SHAPE, "append", {"pos is i32 [m]", "rows f32 [tokens, 64]"}},
	{append_handle, ARGUMENT, "append", {"id 9", "2 states"}},
	{append_ring_cells, SHAPE, "append", {"state f32 [1, 128, 64]", "a ring of 100 cells after 20 sinks"}},
	{append_ring_negative, ARGUMENT, "append", {"ring is -1 and sinks 129"}},
	{append_ring_sinks, ARGUMENT, "append", {"ring is 0 and sinks 4"}},
	{append_ring_overflow, SHAPE, "append", {"a ring of 9223372036854775807"}},
	{read_handle, ARGUMENT, "state_read", {"id 0"}},
	{read_stale, KNIT_ERR_STATE, "softmax", {"state rows after 0 appends", "there are 1"}},
	{attention_heads, SHAPE, "attention", {"q f32 [tokens, 6, 16] has 6 heads", "4 kv_heads", "[2, 128, 4, 16]"}},
	{attention_dim, SHAPE, "attention", {"q f32 [tokens, 8, 8] has head_dim 8", "has 16"}},
	{attention_rank, SHAPE, "attention", {"q is f32 [tokens, 64]", "rank 2, needs rank 3"}},
	{attention_k_rank, SHAPE, "attention", {"k is f32 [tokens, 4, 16]", "needs rank 4"}},
	{attention_kv, SHAPE, "attention", {"[2, 128, 4, 16]", "[2, 64, 4, 16]", "equal shapes"}},
	{attention_v_type, SHAPE, "attention", {"v is i32 [2, 128, 4, 16]"}},
	{attention_seq, SHAPE, "attention", {"seq is i32 [m]", "q f32 [tokens, 8, 16]"}},
	{attention_pos, SHAPE, "attention", {"pos is f32 [tokens, 64]", "needs i32"}},
	{attention_window, ARGUMENT, "attention", {"window is -4"}},
	{attention_scale, ARGUMENT, "attention", {"scale is inf"}},
	{attention_ring_small, ARGUMENT, "attention", {"ring of 120 cells is too small", "window of 100", "512 tokens", "611"}},
	{attention_ring_cells, SHAPE, "attention", {"k f16 [2, 128, 4, 16]", "a ring of 120 cells after 9 sinks"}},
	{attention_ring_alone, ARGUMENT, "attention", {"ring is 128", "window of 0", "needs a window"}},
	{attention_sinks_alone, ARGUMENT, "attention", {"sinks 4", "needs a window"}},
	{attention_ring_negative, ARGUMENT, "attention", {"ring is -8"}},
	{attention_flat_unnamed, SHAPE, "attention", {"k is f32 [1, 128, 64]", "kv_heads (0)", "[tokens, 8, 16]"}},
	{attention_flat_heads, SHAPE, "attention", {"k is f32 [1, 128, 64]", "kv_heads (3)"}},
	{attention_kv_heads, SHAPE, "attention", {"kv_heads is 2", "[2, 128, 4, 16]", "has 4"}},
	{slot_heads, ARGUMENT, "kv_slot", {"7: kv_heads is 0"}},
	{slot_dim, ARGUMENT, "kv_slot", {"7: head_dim is 0"}},
	{slot_positions, ARGUMENT, "kv_slot", {"7: positions is 0, needs 1"}},
	{slot_type, SHAPE, "kv_slot", {"7: v of type i32", "q8_0 or q4_0"}},
	{slot_weights_only, SHAPE, "kv_slot", {"v of type q6_K", "q8_0 or q4_0"}},
	{slot_block, SHAPE, "kv_slot", {"7: k of type q4_0", "(24)", "multiple of 32"}},
	{slot_window, ARGUMENT, "kv_slot", {"7: window is -1"}},
	{slot_tokens, ARGUMENT, "kv_slot", {"7: max_tokens is 0"}},
	{slot_sinks, ARGUMENT, "kv_slot", {"7: 2 sinks without a window"}},
	{slot_huge, KNIT_ERR_LIMIT, "kv_slot", {"7: the size does not fit"}},
	{slot_name, ARGUMENT, "kv_slot", {"the name has 0 bytes"}},
	{slot_foreign, ARGUMENT, "kv_slot", {"none that knit_kv_slot_define has made"}},
	{slot_ring_tokens, ARGUMENT, "attention", {"ring of 79 cells is too small", "512 tokens", "527"}},
};

START_TEST(says_what_and_where) {
	const wrong_call *c = &calls[_i];
	char start[64];
	knit_diag d;

	c->call();
	ck_assert_msg(knit_graph_status(g, &d) == c->status, "call %d: %s: %s", _i, knit_status_name(d.status), d.text);
	ck_assert_int_eq(d.status, c->status);
	snprintf(start, sizeof start, "%s at " ORIGIN ": ", c->op);
	ck_assert_msg(strncmp(d.text, start, strlen(start)) == 0, "call %d: \"%s\" does not start with \"%s\"", _i, d.text,
				  start);
	for (int i = 0; i < 4 && c->says[i]; ++i)
		ck_assert_msg(strstr(d.text, c->says[i]) != NULL, "call %d: \"%s\" lacks \"%s\"", _i, d.text, c->says[i]);
	ck_assert_uint_lt(strlen(d.text), sizeof d.text - 1); /* not cut off */
}
END_TEST

/* ---- sticky ------------------------------------------------------------------------------------------------------ */

START_TEST(first_error_stays_and_nothing_is_built_after_it) {
	knit_diag first, later;

	knit_linear(g, x, w_bad);
	knit_graph_status(g, &first);
	const uint32_t nodes = g->node_count, values = g->value_count, storages = g->storage_count, states = g->state_count;
	const knit_tensor none[] = {
		knit_gather(g, table, ids),
		knit_linear(g, x, w),
		knit_add(g, x, x),
		knit_mul(g, x, gain),
		knit_scale(g, x, 2),
		knit_silu(g, x),
		knit_gelu(g, x),
		knit_rms_norm(g, x, gain, 1e-5f),
		knit_layer_norm(g, x, gain, (knit_tensor){0}, 1e-5f),
		knit_softmax(g, x),
		knit_argmax(g, x),
		knit_cast(g, x, KNIT_F16),
		knit_rope(g, q, pos, NULL),
		knit_reshape(g, x, 3, (knit_dim[]){n, {8}, {8}}),
		knit_slice(g, x, 1, 0, knit_n(8)),
		knit_transpose(g, x, 0, 1),
		knit_split_heads(g, x, 4),
		knit_merge_heads(g, x3),
		knit_state_read(g, slot),
		knit_attention(g, q, x4, x4, seq, pos, NULL),
	};
	knit_state_append(g, slot3, x, seq, pos);
	ck_assert_uint_eq(knit_state_define(g, KNIT_F16, 3, (knit_dim[]){{2}, {3}, {32}}, "new").id, 0);
	for (size_t i = 0; i < sizeof none / sizeof *none; ++i)
		ck_assert_msg(none[i].id == 0, "call %zu built something", i);
	ck_assert(g->node_count == nodes && g->value_count == values && g->storage_count == storages &&
			  g->state_count == states);

	knit_gelu(g, (knit_tensor){0});
	knit_origin(g, "elsewhere");
	knit_softmax(g, half);
	ck_assert_int_eq(knit_graph_status(g, &later), KNIT_ERR_SHAPE);
	ck_assert_str_eq(first.text, later.text);
}
END_TEST

/* A graph that could not be created is NULL; its builder calls do nothing, and knit_graph_status says ARGUMENT. */
START_TEST(no_graph) {
	const knit_tensor t = {1};

	ck_assert_uint_eq(knit_linear(NULL, t, t).id, 0);
	ck_assert_uint_eq(knit_rope(NULL, t, t, NULL).id, 0);
	ck_assert_uint_eq(knit_attention(NULL, t, t, t, t, t, NULL).id, 0);
	ck_assert_uint_eq(knit_reshape(NULL, t, 1, &n).id, 0);
	ck_assert_uint_eq(knit_state_define(NULL, KNIT_F32, 3, &n, "s").id, 0);
	ck_assert_uint_eq(knit_state_read(NULL, (knit_state){1}).id, 0);
	knit_state_append(NULL, (knit_state){1}, t, t, t);
	ck_assert_int_eq(knit_graph_status(NULL, NULL), KNIT_ERR_ARGUMENT);
}
END_TEST

START_TEST(no_origin_no_at) {
	knit_diag d;

	knit_origin(g, "%s", "");
	knit_linear(g, x, w_bad);
	knit_graph_status(g, &d);
	ck_assert_msg(strncmp(d.text, "linear: x f32 [tokens, 64]", 26) == 0, "%s", d.text);
}
END_TEST

int main(void) {
	Suite *s = suite_create("builder_errors");
	TCase *t = tcase_create("messages");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, says_what_and_where, 0, (int)(sizeof calls / sizeof *calls));
	tcase_add_test(t, first_error_stays_and_nothing_is_built_after_it);
	tcase_add_test(t, no_graph);
	tcase_add_test(t, no_origin_no_at);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_NOFORK);
}
