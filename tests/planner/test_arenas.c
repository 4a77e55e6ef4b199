/* Tests schedules whose activations lie in several arenas, because the device limits one buffer: the same bits as from
 * one arena, and a checker that refuses what straddles, leaves its arena or looks into another one. */
#include "../tools/fake_target.h"
#include "../tools/random_graph.h"
#include "../tools/schedule_run.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "../../graph/op_def.h"

#include <stdio.h>
#include <string.h>

#define N 16
#define TOKENS 8
#define RESULT (TOKENS * N * sizeof(float))
#define SCRATCH 256

static knit_context *context;
static knit_graph *g;
static knit_schedule *s;
static fake_target target;

static knit_tensor constant(const char *name, int64_t rows) {
	const knit_type type = {.dtype = KNIT_F32, .rank = 2, .dims = {knit_n(rows), knit_n(N)}};
	uint32_t value = 0;

	knit__storage_add(g, KNIT_STORAGE_CONST, name, &type, NULL, &value);
	return (knit_tensor){value};
}

/* The steps of the graph below. Scratch in SOFT; ACT works in place. */
enum { A, B, SOFT, SUM, ACT, LAST, STEPS };

static void build(void) {
	const knit_dim dims[2] = {knit_n(TOKENS), knit_n(N)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims), w = constant("w", N);

	knit_origin(g, "blk");
	const knit_tensor a = knit_linear(g, x, w), b = knit_linear(g, a, w), soft = knit_softmax(g, b);

	knit_output(g, "y", knit_linear(g, knit_silu(g, knit_mul(g, soft, a)), w));
}

static void setup(uint64_t max_arena) {
	knit_diag d = {0};

	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	build();
	fake_target_init(&target);
	target.target.max_binding_range = max_arena;
	target.scratch[KNIT_OP_SOFTMAX] = SCRATCH;
	ck_assert_msg(fake_target_legalise(&target, g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__schedule_create(g, NULL, &target.target, &s, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(s->step_count, STEPS);
}

static void teardown(void) {
	knit__schedule_destroy(s);
	knit_graph_destroy(g);
}

/* One tensor in each arena. */
static void setup_split(void) {
	setup(RESULT);
	ck_assert_uint_ge(s->arena_count, 3);
	ck_assert_uint_ne(s->steps[B].in[0].buffer, s->steps[B].out[0].buffer);
}

static void refused(const char *first, const char *second) {
	knit_diag d = {0};

	ck_assert_int_eq(knit__memory_check(s, g->a, &d), KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, first) && strstr(d.text, second), "the message is: %s", d.text);
	teardown();
}

/* ---- shape -------------------------------------------------------------------------------------------------------- */

START_TEST(one_arena_is_buffer_0) {
	setup(0);
	ck_assert_uint_eq(s->arena_count, 1);
	ck_assert_uint_eq(s->buffers[0].bytes, s->plan.arena_bytes);
	ck_assert_uint_eq(s->plan.arena_bytes, s->plan.lower_bound);
	ck_assert_uint_eq(knit__schedule_arena(s, 0), 0);
	for (uint32_t i = 1; i < s->buffer_count; ++i)
		ck_assert_int_ne(s->buffers[i].use, KNIT_BUFFER_ARENA);
	teardown();
}
END_TEST

START_TEST(further_arenas_come_last) {
	const knit_buffer_desc *b;
	knit_diag d = {0};
	uint64_t sum = 0;

	setup_split();
	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(s->arena_buffer, 0);
	for (uint32_t i = 0; i < s->arena_count; ++i) {
		b = &s->buffers[knit__schedule_arena(s, i)];
		ck_assert_int_eq(b->use, KNIT_BUFFER_ARENA);
		ck_assert_uint_eq(b->bytes, s->plan.arenas[i]);
		ck_assert_uint_le(b->bytes, RESULT);
		sum += b->bytes;
	}
	ck_assert_uint_eq(sum, s->plan.arena_bytes);
	for (uint32_t i = 1; i < s->buffer_count; ++i)
		ck_assert_int_eq(s->buffers[i].use == KNIT_BUFFER_ARENA, i > s->buffer_count - s->arena_count);

	/* Those that another bucket needs are empty here and change nothing. */
	const uint32_t arenas = s->arena_count, buffers = s->buffer_count;
	ck_assert_int_eq(knit__schedule_add_arenas(s, arenas, &d), KNIT_OK);
	ck_assert_uint_eq(s->buffer_count, buffers);
	ck_assert_int_eq(knit__schedule_add_arenas(s, arenas + 2, &d), KNIT_OK);
	ck_assert_uint_eq(s->arena_count, arenas + 2);
	ck_assert_uint_eq(s->buffer_count, buffers + 2);
	ck_assert_uint_eq(s->buffers[knit__schedule_arena(s, 1)].bytes, s->plan.arenas[1]);
	ck_assert_uint_eq(s->buffers[buffers + 1].bytes, 0);
	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "%s", d.text);
	teardown();
}
END_TEST

static void expect_limit(uint64_t max_buffer, uint64_t max_binding, const char *what, const char *number) {
	knit_diag d = {0};

	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	build();
	fake_target_init(&target);
	target.scratch[KNIT_OP_SOFTMAX] = 2 * RESULT;
	target.target.max_binding_range = max_binding;
	ck_assert_int_eq(fake_target_legalise(&target, g, &d), KNIT_OK);
	target.target.max_buffer = max_buffer;
	ck_assert_int_eq(knit__schedule_create(g, NULL, &target.target, &s, &d), KNIT_ERR_LIMIT);
	ck_assert_msg(strstr(d.text, what) && strstr(d.text, number), "the message is: %s", d.text);
	ck_assert_ptr_null(s);
	knit_graph_destroy(g);
}

START_TEST(tensor_above_the_limit_is_named) {
	expect_limit(0, RESULT - 1, "linear at blk: its result of 512 bytes", "at most 511");
	expect_limit(0, 2 * RESULT - 1, "softmax at blk: its scratch of 1024 bytes", "at most 1023");
	expect_limit(2 * RESULT - 1, 0, "softmax at blk: its scratch of 1024 bytes", "at most 1023");
	expect_limit(2 * RESULT - 1, 4 * RESULT, "softmax at blk: its scratch of 1024 bytes", "at most 1023");
	setup(RESULT); /* at the limit it fits */
	teardown();
}
END_TEST

/* ---- planted faults ----------------------------------------------------------------------------------------------- */

START_TEST(tensor_over_the_end_of_its_arena) {
	knit_operand *o;

	setup_split();
	o = &s->steps[B].out[0];
	o->base = s->buffers[o->buffer].bytes - 64; /* the rest would lie in the next arena */
	refused("step 1 (linear at blk) has", "of arena, which has 512");
}
END_TEST

START_TEST(scratch_over_the_end_of_its_arena) {
	setup_split();
	s->steps[SOFT].scratch_base = s->buffers[s->steps[SOFT].scratch_buffer].bytes - 64;
	refused("step 2 (softmax at blk) has scratch", "which has");
}
END_TEST

START_TEST(arena_above_the_limit) {
	setup_split();
	s->buffers[knit__schedule_arena(s, 1)].bytes = RESULT + 1;
	refused("arena in buffer", "has 513 bytes, the device takes at most 512");
}
END_TEST

START_TEST(arena_that_nobody_counted) {
	setup_split();
	s->buffers[0].use = KNIT_BUFFER_IO;
	refused("buffer 0", "storage 0");
	setup_split();
	--s->arena_count;
	refused("buffers are arenas", "in all");
}
END_TEST

START_TEST(value_in_another_arena) {
	setup_split();
	s->steps[B].in[0].buffer = s->steps[B].out[0].buffer;
	s->steps[B].in[0].base = 0;
	refused("step 1 (linear at blk) reads", "of arena");
}
END_TEST

START_TEST(scratch_in_another_arena) {
	setup_split();
	s->steps[SOFT].scratch_buffer = s->steps[A].out[0].buffer; /* which SUM still reads */
	s->steps[SOFT].scratch_base = s->steps[A].out[0].base;
	refused("step 3 (mul at blk) reads", "holds no value");
}
END_TEST

START_TEST(scratch_in_no_arena) {
	setup_split();
	s->steps[SOFT].scratch_buffer = s->steps[A].in[0].buffer;
	refused("step 2 (softmax at blk) has scratch in buffer", "no arena");
	setup_split();
	s->steps[SOFT].scratch_buffer = s->buffer_count;
	refused("step 2 (softmax at blk) has scratch in buffer", "no arena");
}
END_TEST

START_TEST(hazard_dropped_in_another_arena) {
	uint32_t dropped = 0;

	setup_split();
	for (uint32_t i = 0; i < s->hazard_count; ++i) {
		if (s->hazards[i].before == A && s->hazards[i].after == B) {
			s->hazards[i] = s->hazards[--s->hazard_count];
			++dropped;
		}
	}
	ck_assert_uint_eq(dropped, 1);
	ck_assert_uint_ne(s->steps[A].out[0].buffer, 0);
	refused("step 1 (linear at blk)", "need not wait for step 0");
}
END_TEST

/* ---- random graphs ------------------------------------------------------------------------------------------------ */

#define GRAPHS 25

/* A schedule with `wanted` arenas, by trying limits; NULL where there is none. */
static knit_schedule *schedule_with(const knit_graph *graph, fake_target *f, uint32_t wanted, uint64_t peak) {
	for (uint64_t limit = peak; limit >= 64; limit -= limit / 16 + 1) {
		knit_schedule *made;
		knit_diag d = {0};

		f->target.max_binding_range = limit;
		const knit_status status = knit__schedule_create(graph, NULL, &f->target, &made, &d);
		if (status != KNIT_OK) {
			ck_assert_int_eq(status, KNIT_ERR_LIMIT);
			return NULL;
		}
		if (made->arena_count == wanted)
			return made;
		knit__schedule_destroy(made);
	}
	return NULL;
}

static void check_bits(const schedule_run *want, const knit_schedule *made, const int64_t *symbols, uint32_t seed) {
	uint32_t order[512];
	schedule_run got;

	ck_assert_uint_le(made->step_count, 512);
	for (int i = 0; i < 2; ++i) {
		ck_assert(schedule_run_shuffle(made, seed * 10 + (uint32_t)i, order));
		ck_assert(schedule_run_create(made, symbols, seed, i == 0 ? NULL : order, true, &got));
		ck_assert_msg(schedule_run_equal(want, &got), "seed %u: %u arenas give other bits", seed, made->arena_count);
		schedule_run_clear(&got);
	}
}

START_TEST(same_bits_from_any_number_of_arenas) {
	static const uint32_t counts[] = {1, 2, 5};
	uint32_t met[3] = {0};

	for (uint32_t seed = 1; seed <= GRAPHS; ++seed) {
		int64_t symbols[KNIT_MAX_SYMBOLS];
		uint64_t peak = UINT64_C(1) << 40;
		knit_graph *graph;
		knit_bounds bounds;
		knit_diag d = {0};
		fake_target f;
		schedule_run want = {0};

		fake_target_init(&f);
		f.scratch[KNIT_OP_LINEAR] = seed % 2 ? 1000 : 0;
		f.scratch[KNIT_OP_ATTENTION] = 4096;
		ck_assert_msg(random_graph(context, seed, 24, &graph, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
		ck_assert_msg(fake_target_legalise(&f, graph, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
		knit__bounds_declared(&graph->exprs, &bounds);
		memcpy(symbols, bounds.hi, sizeof symbols);
		for (int i = 0; i < 3; ++i) {
			knit_schedule *made = schedule_with(graph, &f, counts[i], peak);

			if (!made)
				continue;
			++met[i];
			ck_assert_msg(knit__memory_check(made, graph->a, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
			ck_assert_uint_ge(made->plan.arena_bytes, made->plan.lower_bound);
			if (counts[i] == 1) {
				peak = made->plan.arena_bytes;
				ck_assert(schedule_run_create(made, symbols, seed, NULL, false, &want));
			}
			check_bits(&want, made, symbols, seed);
			knit__schedule_destroy(made);
		}
		schedule_run_clear(&want);
		knit_graph_destroy(graph);
	}
	printf("same bits: %u random graphs in 1 arena, %u of them also in 2, %u in 5\n", met[0], met[1], met[2]);
	ck_assert_uint_eq(met[0], GRAPHS);
	ck_assert_uint_ge(met[1], GRAPHS / 2);
	ck_assert_uint_ge(met[2], GRAPHS / 5);
}
END_TEST

START_TEST(allocation_failures) {
	track_alloc t = {0};
	knit_context *own = track_context(&t), *kept = context;
	knit_status status = KNIT_ERR_MEMORY;

	ck_assert_ptr_nonnull(own);
	context = own;
	setup_split();
	knit__schedule_destroy(s);
	const uint64_t live = t.live;
	for (uint64_t fail = 1; status != KNIT_OK; ++fail) {
		knit_diag d = {0};

		t.count = 0;
		t.fail_at = fail;
		status = knit__schedule_create(g, NULL, &target.target, &s, &d);
		if (status == KNIT_OK) {
			status = knit__schedule_add_arenas(s, s->arena_count + 1, &d);
			knit__schedule_destroy(s);
		}
		t.fail_at = 0;
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_uint_eq(t.live, live);
		ck_assert_uint_lt(fail, 1000);
	}
	knit_graph_destroy(g);
	knit_context_destroy(own);
	ck_assert(!t.bad_free);
	context = kept;
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		one_arena_is_buffer_0, further_arenas_come_last, tensor_above_the_limit_is_named, tensor_over_the_end_of_its_arena,
		scratch_over_the_end_of_its_arena, arena_above_the_limit, arena_that_nobody_counted, value_in_another_arena,
		scratch_in_another_arena, scratch_in_no_arena, hazard_dropped_in_another_arena,
		same_bits_from_any_number_of_arenas, allocation_failures,
	};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("arenas", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
