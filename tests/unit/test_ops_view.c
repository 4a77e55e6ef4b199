/* Views and states: every view must show the elements that its definition names, in the right order; copies appear only
 * where strides cannot express it; state versions follow one another. */
#include "../../graph/op_def.h"
#include "../../graph/validate.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>

#define CELLS 4096

static knit_context *ctx;
static knit_graph *g;
static knit_dim n, m; /* symbols, in [1, 9] and [0, 9] */
static const int64_t symbols[] = {5, 3};

static void begin(void) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	n = knit_sym(g, "n", 1, 9);
	m = knit_sym(g, "m", 0, 9);
}

/* Nothing failed, nothing is invalid. */
static void end(void) {
	knit_text faults = {.a = g->a};
	knit_diag d;

	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__validate(g, &faults) == KNIT_OK, "%s", faults.data);
	knit__text_clear(&faults);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}

static knit_tensor input(int rank, const knit_dim *dims) {
	char name[16];

	snprintf(name, sizeof name, "x%u", g->input_count);
	return knit_input(g, name, KNIT_F32, rank, dims);
}

static int64_t dim(knit_dim d) {
	return knit__dim_eval(&g->exprs, symbols, d);
}

/* Which element of the input each element of value `id` is, in row-major order. Returns how many there are. */
static int64_t elements(uint32_t id, int64_t *out) {
	const knit_value *v = knit__value(g, id);
	const uint32_t root = knit__value_root(g, id), producer = g->values[root].producer;
	int64_t below[CELLS], count = 1, index[KNIT_MAX_RANK] = {0};

	if (producer) {
		ck_assert_int_eq(g->nodes[producer].op, KNIT_OP_COPY);
		elements(g->nodes[producer].in[0], below);
	} else {
		for (int64_t i = 0; i < CELLS; ++i)
			below[i] = i;
	}
	for (int i = 0; i < v->rank; ++i)
		count *= dim(v->dims[i]);
	for (int64_t e = 0; e < count; ++e) {
		int64_t at = dim(v->offset);

		for (int i = 0; i < v->rank; ++i)
			at += index[i] * dim(v->strides[i]);
		ck_assert(at >= 0 && at < CELLS);
		out[e] = below[at];
		for (int i = v->rank - 1; i >= 0 && ++index[i] == dim(v->dims[i]); --i)
			index[i] = 0;
	}
	return count;
}

static void check_dims(knit_tensor t, int rank, const int64_t *dims) {
	ck_assert_uint_ne(t.id, 0);
	ck_assert_int_eq(knit__value(g, t.id)->rank, rank);
	for (int i = 0; i < rank; ++i)
		ck_assert_int_eq(dim(knit__value(g, t.id)->dims[i]), dims[i]);
}

/* ---- reshape ----------------------------------------------------------------------------------------------------- */

/* A reshape shows the same elements in the same order. */
static void check_reshape(knit_tensor x, int rank, const knit_dim *dims, uint32_t copies) {
	const uint32_t before = g->node_count;
	const knit_tensor y = knit_reshape(g, x, rank, dims);
	int64_t from[CELLS], to[CELLS], count;

	ck_assert_uint_ne(y.id, 0);
	ck_assert_uint_eq(g->node_count - before, copies);
	count = elements(x.id, from);
	ck_assert_int_eq(elements(y.id, to), count);
	ck_assert_mem_eq(from, to, (size_t)count * sizeof *from);
	for (int i = 0; i < rank; ++i)
		ck_assert(knit__dim_equal(knit__value(g, y.id)->dims[i], dims[i]));
}

START_TEST(reshape_numbers_and_symbols) {
	begin();
	const knit_tensor x = input(2, (knit_dim[]){n, {64}});
	check_reshape(x, 3, (knit_dim[]){n, {8}, {8}}, 0);
	check_reshape(x, 4, (knit_dim[]){{1}, n, {32}, {2}}, 0);
	check_reshape(x, 3, (knit_dim[]){{4}, n, {16}}, 0);
	check_reshape(x, 2, (knit_dim[]){knit_dim_mul(g, n, 2), {32}}, 0);
	check_reshape(x, 1, (knit_dim[]){knit_dim_mul(g, n, 64)}, 0);
	check_reshape(x, 2, (knit_dim[]){{64}, n}, 0);
	/* the greatest common divisor comes out of a sum: 4n + 6 = 2 (2n + 3) */
	const knit_dim sum = knit_dim_add(g, knit_dim_mul(g, n, 4), knit_n(6));
	const knit_dim half = knit_dim_add(g, knit_dim_mul(g, n, 2), knit_n(3));
	check_reshape(input(2, (knit_dim[]){sum, {3}}), 3, (knit_dim[]){{6}, half, {1}}, 0);
	/* two symbols, as long as no stride multiplies them */
	check_reshape(input(3, (knit_dim[]){n, m, {4}}), 2, (knit_dim[]){knit_dim_mul(g, m, 2), knit_dim_mul(g, n, 2)}, 0);
	ck_assert_uint_eq(knit_reshape(g, x, 2, (knit_dim[]){n, {64}}).id, x.id);
	end();
}
END_TEST

START_TEST(reshape_copies_what_is_not_contiguous) {
	begin();
	const knit_tensor x = input(2, (knit_dim[]){{6}, {8}});
	check_reshape(knit_transpose(g, x, 0, 1), 1, (knit_dim[]){{48}}, 1);
	check_reshape(knit_slice(g, x, 1, 2, knit_n(4)), 3, (knit_dim[]){{6}, {2}, {2}}, 1);
	/* whole rows lie together, and a dimension of one has no stride to speak of */
	check_reshape(knit_slice(g, x, 0, 2, knit_n(3)), 2, (knit_dim[]){{4}, {6}}, 0);
	check_reshape(knit_slice(g, knit_slice(g, x, 1, 4, knit_n(4)), 0, 5, knit_n(1)), 2, (knit_dim[]){{2}, {2}}, 0);
	end();
}
END_TEST

/* ---- slice ------------------------------------------------------------------------------------------------------- */

/* Against the definition: out[i][j][k] is x[i][j][k] with `begin_at` added to the index of the axis. */
static void check_slice(knit_tensor x, int axis, int64_t begin_at, knit_dim size) {
	const knit_tensor y = knit_slice(g, x, axis, begin_at, size);
	const knit_value *v = knit__value(g, x.id);
	int64_t from[CELLS], to[CELLS], d[3] = {1, 1, 1}, e[3] = {1, 1, 1}, at = 0;

	ck_assert_uint_ne(y.id, 0);
	ck_assert_int_le(v->rank, 3);
	for (int i = 0; i < v->rank; ++i)
		d[i] = e[i] = dim(v->dims[i]);
	e[axis] = dim(size);
	elements(x.id, from);
	ck_assert_int_eq(elements(y.id, to), e[0] * e[1] * e[2]);
	for (int64_t i = 0; i < e[0]; ++i)
		for (int64_t j = 0; j < e[1]; ++j)
			for (int64_t k = 0; k < e[2]; ++k) {
				const int64_t p = i + (axis == 0 ? begin_at : 0), q = j + (axis == 1 ? begin_at : 0);
				const int64_t r = k + (axis == 2 ? begin_at : 0);

				ck_assert_int_eq(to[at++], from[(p * d[1] + q) * d[2] + r]);
			}
}

START_TEST(slice_every_axis) {
	begin();
	const knit_tensor x = input(3, (knit_dim[]){{6}, n, {8}});
	const knit_tensor wide = input(2, (knit_dim[]){knit_dim_add(g, n, knit_n(4)), {3}});
	check_slice(x, 0, 2, knit_n(3)); /* the offset is symbolic here: 2 * 8n */
	check_slice(x, 0, 0, knit_n(6));
	check_slice(x, 1, 0, n);
	check_slice(x, 1, 0, knit_n(1)); /* n is at least 1 */
	check_slice(x, 2, 7, knit_n(1));
	check_slice(wide, 0, 4, n);
	check_slice(wide, 0, 1, knit_dim_add(g, n, knit_n(3)));
	check_slice(wide, 0, 0, knit_n(5));
	check_slice(knit_slice(g, x, 0, 1, knit_n(4)), 2, 3, knit_n(2));
	check_slice(knit_slice(g, knit_slice(g, x, 2, 2, knit_n(5)), 0, 1, knit_n(5)), 2, 1, knit_n(3));
	check_slice(knit_transpose(g, x, 0, 2), 0, 3, knit_n(2));
	ck_assert_uint_eq(g->node_count, 1); /* views only */
	ck_assert_uint_eq(knit_slice(g, x, 1, 0, n).id, x.id);
	end();
}
END_TEST

START_TEST(slice_blocks_at_their_borders) {
	static const char zeros[4 * 3 * 34];
	knit_weights *store;
	int64_t at[CELLS];

	begin();
	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(store, "w", KNIT_Q8_0, 2, (int64_t[]){4, 96}, zeros, sizeof zeros, NULL),
					 KNIT_OK);
	const knit_tensor w = knit_weight(g, store, "w");
	const knit_tensor y = knit_slice(g, knit_slice(g, w, 1, 32, knit_n(64)), 0, 1, knit_n(2));
	check_dims(y, 2, (int64_t[]){2, 64});
	ck_assert_int_eq(elements(y.id, at), 128);
	ck_assert(at[0] == 128 && at[63] == 191 && at[64] == 224);
	check_dims(knit_split_heads(g, w, 3), 3, (int64_t[]){4, 3, 32});
	check_dims(knit_transpose(g, knit_split_heads(g, w, 3), 0, 1), 3, (int64_t[]){3, 4, 32});
	check_dims(knit_reshape(g, w, 2, (knit_dim[]){{12}, {32}}), 2, (int64_t[]){12, 32});
	knit_weights_release(store);
	end();
}
END_TEST

/* ---- transpose and heads ----------------------------------------------------------------------------------------- */

START_TEST(transpose_swaps) {
	int64_t at[CELLS];

	begin();
	const knit_tensor x = input(3, (knit_dim[]){{2}, n, {4}}), y = knit_transpose(g, x, 2, 0);
	check_dims(y, 3, (int64_t[]){4, 5, 2});
	elements(y.id, at);
	for (int64_t i = 0; i < 4; ++i)
		for (int64_t j = 0; j < 5; ++j)
			for (int64_t k = 0; k < 2; ++k)
				ck_assert_int_eq(at[(i * 5 + j) * 2 + k], (k * 5 + j) * 4 + i);
	ck_assert_uint_eq(knit_transpose(g, x, 1, 1).id, x.id);
	end();
}
END_TEST

START_TEST(heads_split_and_merge) {
	int64_t at[CELLS];

	begin();
	const knit_tensor x = input(2, (knit_dim[]){n, {12}}), heads = knit_split_heads(g, x, 3);
	check_dims(heads, 3, (int64_t[]){5, 3, 4});
	ck_assert_int_eq(elements(heads.id, at), 60);
	for (int64_t i = 0; i < 60; ++i)
		ck_assert_int_eq(at[i], i);
	const knit_tensor back = knit_merge_heads(g, heads);
	check_dims(back, 2, (int64_t[]){5, 12});
	ck_assert_uint_eq(g->node_count, 1);
	ck_assert(knit__value_contiguous(g, back.id));

	/* part of each row: rows are apart, but heads of a row are together */
	const knit_tensor part = knit_merge_heads(g, knit_split_heads(g, knit_slice(g, x, 1, 4, knit_n(6)), 2));
	check_dims(part, 2, (int64_t[]){5, 6});
	elements(part.id, at);
	ck_assert(at[0] == 4 && at[5] == 9 && at[6] == 16);
	ck_assert_uint_eq(g->node_count, 1);

	/* heads before tokens: merging needs a copy, and gives token-wise heads of the transposed order */
	const knit_tensor turned = knit_merge_heads(g, knit_transpose(g, heads, 0, 1));
	check_dims(turned, 2, (int64_t[]){3, 20});
	ck_assert_uint_eq(g->node_count, 2);
	elements(turned.id, at);
	for (int64_t h = 0; h < 3; ++h)
		for (int64_t i = 0; i < 20; ++i)
			ck_assert_int_eq(at[h * 20 + i], i / 4 * 12 + h * 4 + i % 4);

	/* one head, and heads of one element, merge wherever they lie */
	const knit_tensor tall = knit_transpose(g, input(2, (knit_dim[]){{3}, {7}}), 0, 1);
	const knit_tensor one =
		knit_merge_heads(g, knit_reshape(g, input(1, (knit_dim[]){{7}}), 2, (knit_dim[]){{1}, {7}}));
	const knit_tensor thin = knit_merge_heads(g, knit_split_heads(g, tall, 3));
	ck_assert_uint_eq(g->node_count, 2);
	check_dims(one, 1, (int64_t[]){7});
	check_dims(thin, 2, (int64_t[]){7, 3});
	elements(thin.id, at);
	ck_assert(at[0] == 0 && at[1] == 7 && at[3] == 1);
	check_dims(knit_merge_heads(g, knit_transpose(g, tall, 0, 1)), 1, (int64_t[]){21});
	const knit_tensor column = knit_merge_heads(g, knit_slice(g, heads, 2, 1, knit_n(1)));
	check_dims(column, 2, (int64_t[]){5, 3});
	elements(column.id, at);
	ck_assert(at[0] == 1 && at[1] == 5 && at[2] == 9 && at[3] == 13);
	ck_assert_uint_eq(g->node_count, 2);
	end();
}
END_TEST

/* ---- states ------------------------------------------------------------------------------------------------------ */

START_TEST(states_have_versions) {
	begin();
	const knit_tensor rows = input(3, (knit_dim[]){n, {2}, {4}}), more = input(3, (knit_dim[]){n, {2}, {4}});
	const knit_tensor seq = knit_input(g, "seq", KNIT_I32, 1, &n), pos = knit_input(g, "pos", KNIT_I32, 1, &n);
	const knit_state a = knit_state_define(g, KNIT_F16, 4, (knit_dim[]){{3}, {16}, {2}, {4}}, "slot.%d", 0);
	const knit_state b = knit_state_define(g, KNIT_F16, 4, (knit_dim[]){{3}, {16}, {2}, {4}}, "slot.%d", 1);
	ck_assert(a.id == 1 && b.id == 2);

	const knit_tensor first = knit_state_read(g, a);
	check_dims(first, 4, (int64_t[]){3, 16, 2, 4});
	ck_assert_uint_eq(knit__value(g, first.id)->version, 0);
	ck_assert_int_eq(knit__value_storage(g, first.id)->kind, KNIT_STORAGE_STATE);
	ck_assert_uint_eq(knit_state_read(g, a).id, first.id);
	knit_state_append(g, a, rows, seq, pos);
	const knit_tensor second = knit_state_read(g, a);
	knit_state_append(g, a, more, seq, pos);
	const knit_tensor third = knit_state_read(g, a);
	ck_assert_uint_eq(knit__value(g, second.id)->version, 1);
	ck_assert_uint_eq(knit__value(g, third.id)->version, 2);
	ck_assert_uint_eq(knit__value(g, second.id)->storage, knit__value(g, third.id)->storage);
	ck_assert_int_eq(knit__value(g, third.id)->dtype, KNIT_F16);
	ck_assert_uint_eq(knit__value(g, knit_state_read(g, b).id)->version, 0);
	ck_assert_uint_ne(knit__value(g, knit_state_read(g, b).id)->storage, knit__value(g, third.id)->storage);
	ck_assert_uint_eq(g->node_count, 3);
	/* a view on the latest version is a view on that version */
	const knit_tensor window = knit_slice(g, third, 1, 4, knit_n(8));
	ck_assert_uint_eq(knit__value(g, window.id)->version, 2);
	knit_output(g, "window", knit_cast(g, window, KNIT_F32));
	end();
}
END_TEST

/* ---- simplify ---------------------------------------------------------------------------------------------------- */

static uint32_t simplified(knit_tensor t) {
	const uint32_t node = knit__value(g, t.id)->producer;

	return knit__op(g->nodes[node].op)->simplify(g, node);
}

START_TEST(simplify_only_where_nothing_changes) {
	begin();
	const knit_tensor x = input(2, (knit_dim[]){n, {8}}), y = knit_silu(g, x);
	const knit_tensor turned = knit_transpose(g, y, 0, 1), rows = knit_slice(g, y, 0, 0, knit_n(1));
	ck_assert_uint_eq(simplified(knit_scale(g, y, 1)), y.id);
	ck_assert_uint_eq(simplified(knit_scale(g, y, 0.999f)), 0);
	ck_assert_uint_eq(simplified(knit_scale(g, x, 1)), x.id);
	ck_assert_uint_eq(simplified(knit_scale(g, rows, 1)), rows.id);
	ck_assert_uint_eq(simplified(knit_scale(g, turned, 1)), 0);
	ck_assert_uint_eq(simplified(knit_cast(g, y, KNIT_F32)), y.id);
	ck_assert_uint_eq(simplified(knit_cast(g, y, KNIT_BF16)), 0);
	ck_assert_uint_eq(simplified(knit__build(g, KNIT_OP_COPY, 1, &y.id, NULL)), y.id);
	ck_assert_uint_eq(simplified(knit__build(g, KNIT_OP_COPY, 1, &turned.id, NULL)), 0);

	/* a state may be written before the copy's readers run; an input or a view cannot become an output's bytes */
	const knit_state s = knit_state_define(g, KNIT_F32, 3, (knit_dim[]){{1}, {2}, {8}}, "s");
	ck_assert_uint_eq(simplified(knit_scale(g, knit_state_read(g, s), 1)), 0);
	const knit_tensor out_x = knit_scale(g, x, 1), out_y = knit_scale(g, y, 1), out_rows = knit_scale(g, rows, 1);
	knit_output(g, "x", out_x);
	knit_output(g, "y", out_y);
	knit_output(g, "rows", out_rows);
	ck_assert_uint_eq(simplified(out_x), 0);
	ck_assert_uint_eq(simplified(out_rows), 0);
	ck_assert_uint_eq(simplified(out_y), y.id);
	end();
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct limited {
	size_t left, live;
} limited;

static void *limited_alloc(void *user, size_t size, size_t align) {
	limited *l = user;

	if (l->left == 0)
		return NULL;
	l->left--;
	l->live++;
	return knit__default_allocator.alloc(knit__default_allocator.user, size, align);
}

static void limited_free(void *user, void *ptr, size_t size) {
	limited *l = user;

	l->live -= ptr != NULL;
	knit__default_allocator.free(knit__default_allocator.user, ptr, size);
}

static void build_everything(knit_graph *gg) {
	const knit_dim t = knit_sym(gg, "tokens", 1, 4);
	const knit_tensor x = knit_input(gg, "x", KNIT_F32, 2, (knit_dim[]){t, {16}});
	const knit_tensor seq = knit_input(gg, "seq", KNIT_I32, 1, &t), pos = knit_input(gg, "pos", KNIT_I32, 1, &t);

	for (int i = 0; i < 6; ++i) { /* enough to make every array grow */
		const knit_state s = knit_state_define(gg, KNIT_F16, 4, (knit_dim[]){{1}, {8}, {2}, {4}}, "slot.%d", i);
		const knit_tensor q = knit_rope(gg, knit_split_heads(gg, x, 4), pos, NULL);

		knit_origin(gg, "visit.%d", i);
		knit_state_append(gg, s, knit_split_heads(gg, knit_slice(gg, x, 1, 0, knit_n(8)), 2), seq, pos);
		const knit_tensor y = knit_attention(gg, q, knit_state_read(gg, s), knit_state_read(gg, s), seq, pos, NULL);
		const knit_tensor z = knit_reshape(gg, knit_transpose(gg, y, 0, 1), 1, (knit_dim[]){knit_dim_mul(gg, t, 16)});
		knit_output(gg, i ? i == 1 ? "b" : "c" : "a", z);
		if (i > 1)
			return;
	}
}

START_TEST(every_failed_allocation_is_reported) {
	size_t failures = 0;

	for (size_t left = 0;; ++left) {
		limited l = {left, 0};
		const knit_context_desc desc = {.allocator = {limited_alloc, limited_free, &l}};
		knit_status status = knit_context_create(&desc, &ctx);

		if (status == KNIT_OK && (status = knit_graph_create(ctx, &g)) == KNIT_OK) {
			build_everything(g);
			status = knit_graph_status(g, NULL);
			knit_graph_destroy(g);
		}
		knit_context_destroy(ctx);
		ck_assert_uint_eq(l.live, 0);
		if (status == KNIT_OK)
			break;
		ck_assert_int_eq(status, KNIT_ERR_MEMORY);
		failures++;
		ck_assert_uint_lt(left, 1000);
	}
	ck_assert_uint_gt(failures, 10);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		reshape_numbers_and_symbols,
		reshape_copies_what_is_not_contiguous,
		slice_every_axis,
		slice_blocks_at_their_borders,
		transpose_swaps,
		heads_split_and_merge,
		states_have_versions,
		simplify_only_where_nothing_changes,
		every_failed_allocation_is_reported,
	};

	return suite_run("ops_view", tests, (int)(sizeof tests / sizeof *tests));
}
