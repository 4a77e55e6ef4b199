/* Tests the plan of a graph: lifetimes, scratch, and for each reason to work in place or not a graph that has it and a
 * twin that has not. */
#include "../tools/fake_target.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "../../graph/memory_plan.h"
#include "../../graph/op_def.h"

#include <stdio.h>
#include <string.h>

#define N 32

static const knit_memory_rules rules = {.align = 64};
static knit_context *context;
static knit_graph *g;
static knit_dim tokens;
static knit_tensor x; /* input f32 [tokens, 32] */

static void begin(void) {
	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	tokens = knit_sym(g, "tokens", 1, 16);
	const knit_dim dims[2] = {tokens, knit_n(N)};
	x = knit_input(g, "x", KNIT_F32, 2, dims);
}

static knit_tensor constant(const char *name, int64_t rows, int64_t columns) {
	const knit_type type = {.dtype = KNIT_F32,
	                        .rank = rows ? 2 : 1,
	                        .dims = {rows ? knit_n(rows) : knit_n(columns), knit_n(columns)}};
	uint32_t value = 0;

	knit__storage_add(g, KNIT_STORAGE_CONST, name, &type, NULL, &value);
	return (knit_tensor){value};
}

/* A result of an op that never works in place. */
static knit_tensor made(knit_tensor from) {
	static int number;
	char name[32];

	snprintf(name, sizeof name, "w%d", number++);
	return knit_linear(g, from, constant(name, N, N));
}

/* Names the result an output and plans at the given upper bound of tokens (0: as declared), without scratch. */
static knit_memory_plan plan(knit_tensor result, int64_t hi) {
	fake_target f;
	knit_memory_plan p;
	knit_diag d = {0};
	knit_bounds b;

	/* A copy of the result, so that the result itself stays in the arena. */
	fake_target_init(&f);
	knit_output(g, "y", knit_linear(g, result, constant("head", N, N)));
	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(fake_target_legalise(&f, g, &d) == KNIT_OK, "%s", d.text);
	knit__bounds_declared(&g->exprs, &b);
	if (hi)
		b.hi[0] = hi;
	ck_assert_msg(knit__memory_plan_create(g, &b, NULL, &rules, &p, &d) == KNIT_OK, "%s", d.text);
	return p;
}

static bool shared(const knit_memory_plan *p, knit_tensor a, knit_tensor b) {
	const uint32_t s = g->values[a.id].storage, t = g->values[b.id].storage;

	ck_assert(p->slot[s] == UINT32_MAX || p->slot[t] == UINT32_MAX || p->slot[s] != p->slot[t] ||
	          p->offset[s] == p->offset[t]);
	return p->slot[s] != UINT32_MAX && p->slot[s] == p->slot[t];
}

static void end(knit_memory_plan *p) {
	knit__memory_plan_clear(p, g->a);
	knit_graph_destroy(g);
	g = NULL;
}

/* ---- in place ----------------------------------------------------------------------------------------------------- */

static void expect_in_place(knit_tensor from, knit_tensor to, bool want) {
	knit_memory_plan p = plan(to, 0);

	ck_assert_int_eq(shared(&p, from, to), want);
	ck_assert_uint_eq(p.inplace_count, want);
	end(&p);
}

START_TEST(dying_operand_is_taken) {
	begin();
	const knit_tensor a = made(x);
	expect_in_place(a, knit_silu(g, a), true);
}
END_TEST

START_TEST(op_without_the_flag_is_not) {
	begin();
	const knit_tensor a = made(x);
	expect_in_place(a, made(a), false);
}
END_TEST

START_TEST(operand_read_later_is_not) {
	begin();
	const knit_tensor a = made(x), b = knit_silu(g, a), c = made(a);
	knit_memory_plan p = plan(knit_add(g, b, c), 0);

	ck_assert(!shared(&p, a, b));
	ck_assert_uint_eq(p.inplace_count, 1); /* the addition takes b */
	end(&p);
}
END_TEST

START_TEST(operand_read_later_through_a_view_is_not) {
	begin();
	const knit_tensor a = made(x), b = knit_silu(g, a), c = knit_transpose(g, knit_transpose(g, a, 0, 1), 0, 1);
	knit_memory_plan p = plan(made(knit_add(g, b, c)), 0);

	ck_assert(!shared(&p, a, b));
	end(&p);
}
END_TEST

START_TEST(operand_that_occurs_twice_is_not) {
	begin();
	const knit_tensor a = made(x);
	expect_in_place(a, knit_add(g, a, a), false);
}
END_TEST

START_TEST(operand_that_occurs_again_as_a_view_is_not) {
	begin();
	const knit_dim flat[1] = {knit_n(N)};
	const knit_tensor a = made(x);
	const knit_tensor row = knit_reshape(g, knit_slice(g, a, 0, 0, knit_n(1)), 1, flat);
	expect_in_place(a, knit_add(g, a, row), false);
}
END_TEST

START_TEST(second_operand_is_not_taken) {
	begin();
	const knit_tensor a = made(x), b = made(a), c = knit_mul(g, a, b);
	knit_memory_plan p = plan(knit_add(g, c, made(a)), 0);

	ck_assert(!shared(&p, b, c)); /* b dies there, but only operand 0 may be overwritten */
	end(&p);
}
END_TEST

START_TEST(input_is_not_taken) {
	begin();
	expect_in_place(x, knit_silu(g, x), false);
}
END_TEST

START_TEST(weight_is_not_taken) {
	begin();
	const knit_tensor w = constant("table", 16, N);
	expect_in_place(w, knit_scale(g, w, 2), false);
}
END_TEST

START_TEST(state_is_not_taken) {
	begin();
	const knit_dim dims[3] = {knit_n(1), knit_n(8), knit_n(N)};
	const knit_tensor s = knit_state_read(g, knit_state_define(g, KNIT_F32, 3, dims, "s"));
	const knit_tensor y = knit_silu(g, s);
	knit_memory_plan p = plan(y, 0);

	ck_assert(!shared(&p, s, y));
	ck_assert_uint_eq(p.inplace_count, 0);
	end(&p);
}
END_TEST

START_TEST(output_is_not_taken_and_takes_nothing) {
	begin();
	const knit_tensor a = made(x), b = knit_silu(g, a), c = knit_silu(g, b);

	knit_output(g, "b", b);
	knit_memory_plan p = plan(c, 0);
	ck_assert_uint_eq(p.slot[g->values[b.id].storage], UINT32_MAX);
	ck_assert_uint_eq(p.offset[g->values[b.id].storage], UINT64_MAX);
	ck_assert_uint_eq(p.inplace_count, 0);
	end(&p);
}
END_TEST

START_TEST(whole_reshaped_operand_is_taken) {
	begin();
	const knit_tensor a = made(x), heads = knit_split_heads(g, a, 4), y = knit_silu(g, heads);
	knit_memory_plan p = plan(knit_merge_heads(g, y), 0);

	ck_assert(shared(&p, a, y));
	end(&p);
}
END_TEST

START_TEST(part_of_an_operand_is_not_taken) {
	begin();
	const knit_tensor a = made(x), half = knit_slice(g, a, 1, 0, knit_n(N / 2));
	const knit_tensor y = knit_silu(g, half);
	const knit_tensor back = knit_linear(g, y, constant("back", N, N / 2));
	knit_memory_plan p = plan(back, 0);

	ck_assert(!shared(&p, a, y));
	end(&p);
}
END_TEST

START_TEST(first_rows_of_an_operand_are_not_taken) {
	begin();
	const knit_dim dims[2] = {knit_n(8), knit_n(N)};
	const knit_tensor z = knit_input(g, "z", KNIT_F32, 2, dims), a = made(z);
	const knit_tensor y = knit_silu(g, knit_slice(g, a, 0, 0, knit_n(4)));
	knit_memory_plan p = plan(y, 0);

	ck_assert(!shared(&p, a, y)); /* contiguous, but not the whole storage */
	end(&p);
}
END_TEST

START_TEST(transposed_operand_is_not_taken) {
	begin();
	const knit_dim dims[2] = {knit_n(N), knit_n(N)};
	const knit_tensor z = knit_input(g, "z", KNIT_F32, 2, dims), a = made(z);
	const knit_tensor y = knit_silu(g, knit_transpose(g, a, 0, 1));
	knit_memory_plan p = plan(y, 0);

	ck_assert(!shared(&p, a, y)); /* the same shape and bytes, other strides */
	end(&p);
}
END_TEST

/* Equal at this bucket's bounds is not enough: the windows must be the same at every size. */
START_TEST(equal_size_by_chance_is_not_taken) {
	begin();
	const knit_dim rows = knit_sym(g, "rows", 1, 16), dims[2] = {rows, knit_n(N)};
	const knit_tensor a = made(x), b = made(knit_input(g, "z", KNIT_F32, 2, dims));
	const knit_tensor ya = knit_silu(g, a), yb = knit_silu(g, b);
	knit_output(g, "b", made(yb));
	knit_memory_plan p = plan(ya, 0);

	ck_assert(shared(&p, a, ya) && shared(&p, b, yb));
	ck_assert(!shared(&p, a, yb));
	end(&p);
}
END_TEST

START_TEST(chain_is_one_slot) {
	begin();
	knit_tensor first = made(x), last = first;

	for (int i = 0; i < 10; ++i)
		last = i % 2 ? knit_scale(g, last, 2) : knit_gelu(g, last);
	knit_memory_plan p = plan(last, 0);
	ck_assert_uint_eq(p.inplace_count, 10);
	ck_assert(shared(&p, first, last));
	ck_assert_uint_eq(p.arena_bytes, 16 * N * 4);
	ck_assert_uint_eq(p.lower_bound, 16 * N * 4);
	ck_assert_uint_eq(p.unshared_bytes, 11 * 16 * N * 4);
	end(&p);
}
END_TEST

/* The slot's life reaches to the last of its tenants. */
START_TEST(chain_lives_to_its_end) {
	begin();
	const knit_tensor a = made(x), b = knit_silu(g, a), other = made(b), c = made(other);
	knit_memory_plan p = plan(knit_add(g, c, b), 0);

	ck_assert(shared(&p, a, b));
	ck_assert_uint_ne(p.offset[g->values[b.id].storage], p.offset[g->values[other.id].storage]);
	ck_assert_uint_ne(p.offset[g->values[b.id].storage], p.offset[g->values[c.id].storage]);
	end(&p);
}
END_TEST

/* ---- sizes -------------------------------------------------------------------------------------------------------- */

START_TEST(bucket_decides_the_size) {
	begin();
	knit_memory_plan p = plan(made(made(x)), 0), one;
	knit_bounds b;
	knit_diag d = {0};

	knit__bounds_declared(&g->exprs, &b);
	b.hi[0] = 1;
	ck_assert_int_eq(knit__memory_plan_create(g, &b, NULL, &rules, &one, &d), KNIT_OK);
	ck_assert_uint_eq(p.arena_bytes, 2 * 16 * N * 4);
	ck_assert_uint_eq(one.arena_bytes, 2 * N * 4);
	ck_assert_uint_eq(p.lower_bound, p.arena_bytes);
	knit__memory_plan_clear(&one, g->a);
	end(&p);
}
END_TEST

START_TEST(empty_tensors_are_legal) {
	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	tokens = knit_sym(g, "tokens", 0, 0);
	const knit_dim dims[2] = {tokens, knit_n(N)};
	x = knit_input(g, "x", KNIT_F32, 2, dims);
	knit_memory_plan p = plan(knit_silu(g, made(knit_silu(g, x))), 0);

	ck_assert_uint_eq(p.arena_bytes, 0);
	ck_assert_uint_eq(p.lower_bound, 0);
	end(&p);
}
END_TEST

/* Scratch lives for its step: beside the step's operands, over everything else. */
START_TEST(scratch_lives_for_one_step) {
	fake_target f;
	knit_diag d = {0};
	knit_memory_plan p;
	uint64_t scratch[8] = {0};

	begin();
	fake_target_init(&f);
	knit_output(g, "y", made(made(made(x))));
	ck_assert_int_eq(fake_target_legalise(&f, g, &d), KNIT_OK);
	ck_assert_uint_eq(g->order_count, 3);
	scratch[0] = scratch[2] = 4096;
	scratch[1] = 100;
	ck_assert_int_eq(knit__memory_plan_create(g, NULL, scratch, &rules, &p, &d), KNIT_OK);
	/* Step 1 has both results of 2048 bytes and 128 of scratch; steps 0 and 2 one result and 4096. */
	ck_assert_uint_eq(p.lower_bound, 2048 + 4096);
	ck_assert_uint_eq(p.arena_bytes, 2048 + 4096);
	ck_assert_uint_eq(p.unshared_bytes, 2 * 2048 + 2 * 4096 + 128);
	for (int i = 0; i < 3; ++i)
		ck_assert_uint_ne(p.scratch_offset[i], UINT64_MAX);
	end(&p);
}
END_TEST

START_TEST(result_that_nobody_reads_has_a_place) {
	begin();
	const knit_tensor unused = made(x), y = made(x);
	knit_memory_plan p = plan(y, 0);

	ck_assert_uint_ne(p.offset[g->values[unused.id].storage], UINT64_MAX);
	end(&p);
}
END_TEST

START_TEST(broken_order_is_found) {
	knit_memory_plan p;
	knit_diag d = {0};

	begin();
	const knit_tensor y = knit_silu(g, made(x));
	knit_output(g, "y", y);
	const uint32_t moved = g->order[0];
	g->order[0] = g->order[1];
	g->order[1] = moved;
	ck_assert_int_eq(knit__memory_plan_create(g, NULL, NULL, &rules, &p, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(d.text, "before any step writes it"));
	ck_assert_ptr_null(p.offset);
	knit_graph_destroy(g);
}
END_TEST

START_TEST(allocation_failures) {
	track_alloc t = {0};
	knit_context *own = track_context(&t);
	knit_context *kept = context;
	knit_status status = KNIT_ERR_MEMORY;

	ck_assert_ptr_nonnull(own);
	context = own;
	begin();
	knit_output(g, "y", made(knit_silu(g, made(x))));
	const uint64_t live = t.live, first = t.count + 1;
	for (uint64_t fail = first; status != KNIT_OK; ++fail) {
		knit_memory_plan p;
		knit_diag d = {0};

		t.count = 0;
		t.fail_at = fail - first + 1;
		status = knit__memory_plan_create(g, NULL, NULL, &rules, &p, &d);
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		if (status == KNIT_OK)
			knit__memory_plan_clear(&p, g->a);
		ck_assert_uint_eq(t.live, live);
		ck_assert_uint_lt(fail, first + 100);
	}
	t.fail_at = 0;
	knit_graph_destroy(g);
	knit_context_destroy(own);
	ck_assert(!t.bad_free);
	context = kept;
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		dying_operand_is_taken, op_without_the_flag_is_not, operand_read_later_is_not,
		operand_read_later_through_a_view_is_not, operand_that_occurs_twice_is_not,
		operand_that_occurs_again_as_a_view_is_not, second_operand_is_not_taken, input_is_not_taken, weight_is_not_taken,
		state_is_not_taken, output_is_not_taken_and_takes_nothing, whole_reshaped_operand_is_taken,
		part_of_an_operand_is_not_taken, first_rows_of_an_operand_are_not_taken, transposed_operand_is_not_taken,
		equal_size_by_chance_is_not_taken, chain_is_one_slot, chain_lives_to_its_end, bucket_decides_the_size,
		empty_tensors_are_legal, scratch_lives_for_one_step, result_that_nobody_reads_has_a_place, broken_order_is_found,
		allocation_failures,
	};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("memory_plan", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
