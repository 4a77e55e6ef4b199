/* The table of ops is complete and coherent; each op infers the types, and counts the operations and bytes, that its
 * definition in knit.h implies. */
#include "../../graph/op_def.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

START_TEST(every_op_is_defined) {
	for (uint16_t op = 1; op < KNIT_OP_COUNT; ++op) {
		const knit_op_def *d = knit__op(op);

		ck_assert_msg(d && d->name && d->infer && d->eval && d->cost, "op %u is incomplete", op);
		ck_assert_uint_eq(knit__op_find(d->name), op); /* names are unique */
		ck_assert(d->min_in >= 1 && d->min_in <= d->max_in && d->max_in <= KNIT_MAX_IN);
		ck_assert(d->out_count >= 1 && d->out_count <= KNIT_MAX_OUT && d->attr_count <= KNIT_MAX_ATTRS);
		for (int i = 0; i < d->attr_count; ++i)
			ck_assert(d->attrs[i].name && *d->attrs[i].name);
		for (int i = 0; i < d->index_rule_count; ++i)
			ck_assert(d->index_rules[i].operand < d->max_in && d->index_rules[i].into < d->max_in &&
					  d->index_rules[i].dim < KNIT_MAX_RANK);
		if (d->flags & KNIT_OP_COMMUTATIVE)
			ck_assert_uint_eq(d->min_in, 2);
	}
	ck_assert_ptr_null(knit__op(KNIT_OP_NONE));
	ck_assert_ptr_null(knit__op(KNIT_OP_COUNT));
	ck_assert_ptr_null(knit__op(UINT16_MAX));
	ck_assert_uint_eq(knit__op_find("no_such_op"), KNIT_OP_NONE);
	ck_assert_uint_eq(knit__op_find(""), KNIT_OP_NONE);
}
END_TEST

/* ---- inference --------------------------------------------------------------------------------------------------- */

static knit_context *ctx;
static knit_graph *g;
static knit_weights *store;

static void is(knit_tensor t, const char *want) {
	char text[96];
	knit_diag d;

	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "for %s: %s", want, d.text);
	knit__value_text(g, t.id, text, sizeof text);
	ck_assert_str_eq(text, want);
	ck_assert(knit__value(g, t.id)->view_of == 0 && knit__value_contiguous(g, t.id));
}

static void weight(knit_dtype type, int rank, int64_t rows, int64_t columns) {
	static const char zeros[64 * 64 * 4];
	const int64_t dims[] = {rank == 2 ? rows : columns, columns};
	uint64_t bytes = 0;
	char name[32];

	ck_assert(knit__dtype_bytes(type, (uint64_t)(rows * columns), &bytes));
	snprintf(name, sizeof name, "%s.%d.%d.%d", knit_dtype_name(type), rank, (int)rows, (int)columns);
	ck_assert_int_eq(knit_weights_add(store, name, type, rank, dims, zeros, (size_t)bytes, NULL), KNIT_OK);
}

START_TEST(types_of_results) {
	static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	for (int i = 0; i < 5; ++i)
		weight(types[i], 2, 48, 32);
	for (int i = 0; i < 3; ++i)
		weight(types[i], 1, 1, 32);

	const knit_dim n = knit_sym(g, "n", 0, 100), rows = knit_sym(g, "rows", 1, 7);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, (knit_dim[]){n, {32}});
	const knit_tensor x1 = knit_input(g, "x1", KNIT_F32, 1, (knit_dim[]){{32}});
	const knit_tensor x4 = knit_input(g, "x4", KNIT_F32, 4, (knit_dim[]){{2}, n, {3}, {32}});
	const knit_tensor q = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {6}, {8}});
	const knit_tensor last = knit_input(g, "last", KNIT_I32, 1, &rows);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &n);
	const knit_tensor seq = knit_input(g, "seq", KNIT_I32, 1, &n);

	is(knit_gather(g, x, last), "f32 [rows, 32]");
	for (int i = 0; i < 5; ++i) {
		const knit_tensor w = knit_weight(g, store, "%s.2.48.32", knit_dtype_name(types[i]));

		is(knit_gather(g, w, last), "f32 [rows, 32]");
		is(knit_linear(g, x, w), "f32 [n, 48]");
		is(knit_linear(g, x1, w), "f32 [48]");
		is(knit_linear(g, x4, w), "f32 [2, n, 3, 48]");
		if (i > 2)
			continue;
		const knit_tensor v = knit_weight(g, store, "%s.1.1.32", knit_dtype_name(types[i]));
		is(knit_add(g, x4, v), "f32 [2, n, 3, 32]");
		is(knit_mul(g, x1, v), "f32 [32]");
		is(knit_rms_norm(g, x, v, 1e-5f), "f32 [n, 32]");
		is(knit_layer_norm(g, x4, v, v, 1e-5f), "f32 [2, n, 3, 32]");
		is(knit_layer_norm(g, x, v, (knit_tensor){0}, 0), "f32 [n, 32]");
		is(knit_cast(g, x, types[i]), i == 0 ? "f32 [n, 32]" : i == 1 ? "f16 [n, 32]" : "bf16 [n, 32]");
		is(knit_cast(g, knit_cast(g, x4, types[i]), KNIT_BF16), "bf16 [2, n, 3, 32]");
	}
	is(knit_add(g, x4, x4), "f32 [2, n, 3, 32]");
	is(knit_mul(g, x1, x1), "f32 [32]");
	is(knit_scale(g, x, -0.5f), "f32 [n, 32]");
	is(knit_silu(g, x4), "f32 [2, n, 3, 32]");
	is(knit_gelu(g, x1), "f32 [32]");
	is(knit_softmax(g, q), "f32 [n, 6, 8]");
	is(knit_argmax(g, q), "i32 [n, 6]");
	is(knit_argmax(g, x4), "i32 [2, n, 3]");
	is(knit_rope(g, q, pos, NULL), "f32 [n, 6, 8]");
	for (int i = 0; i < 3; ++i) {
		const knit_state s = knit_state_define(g, types[i], 4, (knit_dim[]){{3}, {64}, {2}, {8}}, "s%d", i);

		is(knit_attention(g, q, knit_state_read(g, s), knit_state_read(g, s), seq, pos, NULL), "f32 [n, 6, 8]");
	}
	const uint32_t turned = knit_transpose(g, x4, 1, 3).id;
	is(knit__build(g, KNIT_OP_COPY, 1, &turned, NULL), "f32 [2, 32, 3, n]");
	knit_graph_destroy(g);
	knit_weights_release(store);
	knit_context_destroy(ctx);
}
END_TEST

/* Defaults are resolved when the node is made: a device never sees "0 means default". */
START_TEST(defaults_are_resolved) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim n = knit_n(4);
	const knit_tensor q = knit_input(g, "q", KNIT_F32, 3, (knit_dim[]){n, {2}, {16}});
	const knit_tensor at = knit_input(g, "at", KNIT_I32, 1, &n);
	const knit_tensor kv = knit_input(g, "kv", KNIT_F32, 4, (knit_dim[]){{1}, {8}, {2}, {16}});
	const knit_node *node;

	node = &g->nodes[knit__value(g, knit_rope(g, q, at, NULL).id)->producer];
	ck_assert(node->attr[0].f == 10000 && node->attr[1].i == 16 && node->attr[2].i == KNIT_ROPE_INTERLEAVED);
	node = &g->nodes[knit__value(g, knit_rope(g, q, at, &(knit_rope_desc){5e5f, 4, KNIT_ROPE_SPLIT}).id)->producer];
	ck_assert(node->attr[0].f == 5e5 && node->attr[1].i == 4 && node->attr[2].i == KNIT_ROPE_SPLIT);
	node = &g->nodes[knit__value(g, knit_attention(g, q, kv, kv, at, at, NULL).id)->producer];
	ck_assert(node->attr[0].f == 0.25 && node->attr[1].i == 0);
	const knit_attention_desc ring = {.scale = 0.5f, .window = 2, .ring = 6, .sinks = 2};
	node = &g->nodes[knit__value(g, knit_attention(g, q, kv, kv, at, at, &ring).id)->producer];
	ck_assert(node->attr[0].f == 0.5 && node->attr[1].i == 2 && node->attr[2].i == 6 && node->attr[3].i == 2);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}
END_TEST

/* ---- costs ------------------------------------------------------------------------------------------------------- */

static knit_cost cost(knit_op op, const knit_attr *attr, const knit_shape *in, uint32_t count, knit_shape out,
					  int64_t context) {
	knit_cost c = {-1, 1, 1};

	knit__op((uint16_t)op)->cost(attr, in, count, &out, context, &c);
	return c;
}

static void costs(knit_cost got, double flops, uint64_t read_bytes, uint64_t write_bytes) {
	ck_assert_msg(got.flops == flops && got.read_bytes == read_bytes && got.write_bytes == write_bytes,
				  "%g flops, %llu read, %llu written; not %g, %llu, %llu", got.flops,
				  (unsigned long long)got.read_bytes, (unsigned long long)got.write_bytes, flops,
				  (unsigned long long)read_bytes, (unsigned long long)write_bytes);
}

START_TEST(costs_of_ops) {
	const knit_shape x = {KNIT_F32, 2, {10, 64}}, w = {KNIT_Q8_0, 2, {32, 64}}, y = {KNIT_F32, 2, {10, 32}};
	const knit_shape table = {KNIT_Q4_0, 2, {32000, 64}}, ids = {KNIT_I32, 1, {10}}, vector = {KNIT_F16, 1, {64}},
					 none = {0};
	const knit_attr eps[] = {{.f = 1e-5}}, f16[] = {{.i = KNIT_F16}};

	costs(cost(KNIT_OP_LINEAR, NULL, (knit_shape[]){x, w}, 2, y, 0), 2.0 * 10 * 32 * 64, 2560 + 32 * 2 * 34, 1280);
	/* ten rows of the table, not the 32,000 */
	costs(cost(KNIT_OP_GATHER, NULL, (knit_shape[]){table, ids}, 2, x, 0), 0, 10 * 2 * 18 + 40, 2560);
	costs(cost(KNIT_OP_ADD, NULL, (knit_shape[]){x, x}, 2, x, 0), 640, 5120, 2560);
	costs(cost(KNIT_OP_MUL, NULL, (knit_shape[]){x, vector}, 2, x, 0), 640, 2560 + 128, 2560);
	costs(cost(KNIT_OP_RMS_NORM, eps, (knit_shape[]){x, vector}, 2, x, 0), 4 * 640, 2560 + 128, 2560);
	costs(cost(KNIT_OP_LAYER_NORM, eps, (knit_shape[]){x, vector, none}, 3, x, 0), 7 * 640, 2560 + 128, 2560);
	costs(cost(KNIT_OP_LAYER_NORM, eps, (knit_shape[]){x, vector, vector}, 3, x, 0), 8 * 640, 2560 + 256, 2560);
	costs(cost(KNIT_OP_SOFTMAX, NULL, &x, 1, x, 0), 5 * 640, 2560, 2560);
	costs(cost(KNIT_OP_ARGMAX, NULL, &x, 1, (knit_shape){KNIT_I32, 1, {10}}, 0), 640, 2560, 40);
	costs(cost(KNIT_OP_SCALE, NULL, &x, 1, x, 0), 640, 2560, 2560);
	costs(cost(KNIT_OP_SILU, NULL, &x, 1, x, 0), 4 * 640, 2560, 2560);
	costs(cost(KNIT_OP_GELU, NULL, &x, 1, x, 0), 9 * 640, 2560, 2560);
	costs(cost(KNIT_OP_COPY, NULL, &x, 1, x, 0), 0, 2560, 2560);
	costs(cost(KNIT_OP_CAST, f16, &x, 1, (knit_shape){KNIT_F16, 2, {10, 64}}, 0), 0, 2560, 1280);
}
END_TEST

START_TEST(costs_of_attention_and_append) {
	const knit_shape q = {KNIT_F32, 3, {3, 8, 16}}, kv = {KNIT_F16, 4, {2, 100, 4, 16}}, at = {KNIT_I32, 1, {3}};
	const knit_shape rows = {KNIT_F32, 3, {3, 4, 16}};
	const knit_shape in[] = {q, kv, kv, at, at};
	const knit_attr all[5] = {{.f = 0.25}}, window[5] = {{.f = 0.25}, {.i = 7}}, no_ring[2] = {0};
	const knit_attr flat[5] = {{.f = 0.25}, {.i = 7}, {.i = 0}, {.i = 2}, {.i = 4}};
	const uint64_t small = 3 * 8 * 16 * 4 + 2 * 12; /* q and the indices */

	/* 40 positions of 4 kv heads, keys and values, of each of the two sequences: half of the heads, and once for all tokens */
	costs(cost(KNIT_OP_ATTENTION, all, in, 5, q, 40), 3.0 * 8 * 40 * (4 * 16 + 4), small + 2 * 40 * 4 * 16 * 2 * 2,
		  1536);
	costs(cost(KNIT_OP_ATTENTION, window, in, 5, q, 40), 3.0 * 8 * 7 * 68, small + 2 * 7 * 4 * 16 * 4, 1536);
	/* one token is of one sequence */
	const knit_shape one = {KNIT_F32, 3, {1, 8, 16}}, here = {KNIT_I32, 1, {1}};
	costs(cost(KNIT_OP_ATTENTION, all, (knit_shape[]){one, kv, kv, here, here}, 5, one, 40), 8.0 * 40 * 68,
		  512 + 8 + 40 * 4 * 16 * 2 * 2, 512);
	/* no more positions than the slot has */
	costs(cost(KNIT_OP_ATTENTION, all, in, 5, q, 4000), 3.0 * 8 * 100 * 68, small + 2 * 100 * 4 * 16 * 4, 1536);
	/* two sinks beside the window; keys in lines of q8_0, 34 bytes for 32 elements */
	const knit_shape q8 = {KNIT_Q8_0, 3, {2, 100, 64}}, mixed[] = {q, q8, kv, at, at};
	costs(cost(KNIT_OP_ATTENTION, flat, mixed, 5, q, 40), 3.0 * 8 * 9 * 68, small + 2 * 9 * (2 * 34 + 4 * 16 * 2), 1536);
	/* 6 of 8 pairs of each head turn, 9 operations each */
	const knit_attr rope[] = {{.f = 10000}, {.i = 12}, {.i = 0}};
	costs(cost(KNIT_OP_ROPE, rope, (knit_shape[]){q, at}, 2, q, 0), 9.0 * 3 * 8 * 6, 1536 + 12, 1536);
	/* rows in f32 are read, rows in f16 are written; the slot is not touched otherwise */
	costs(cost(KNIT_OP_STATE_APPEND, no_ring, (knit_shape[]){kv, rows, at, at}, 4, kv, 0), 0, 3 * 64 * 4 + 24, 3 * 64 * 2);
	const knit_shape lines = {KNIT_F32, 2, {3, 64}};
	costs(cost(KNIT_OP_STATE_APPEND, no_ring, (knit_shape[]){q8, lines, at, at}, 4, q8, 0), 0, 3 * 64 * 4 + 24, 3 * 68);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		every_op_is_defined, types_of_results, defaults_are_resolved, costs_of_ops, costs_of_attention_and_append,
	};

	return suite_run("ops_table", tests, (int)(sizeof tests / sizeof *tests));
}
