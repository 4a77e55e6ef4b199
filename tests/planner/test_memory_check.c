/* Tests the checker of plans with planted faults: a right schedule passes, each wrong one is refused with a message that
 * names the step and the bytes. */
#include "../tools/fake_target.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "../../graph/schedule.h"
#include "../../graph/op_def.h"

#include <stdio.h>
#include <string.h>

#define N 16
#define TOKENS 8

static knit_context *context;
static knit_graph *g;
static knit_schedule *s;
static fake_target target;

static knit_tensor constant(const char *name, int64_t rows, int64_t columns) {
	const knit_type type = {.dtype = KNIT_F32, .rank = 2, .dims = {knit_n(rows), knit_n(columns)}};
	uint32_t value = 0;

	knit__storage_add(g, KNIT_STORAGE_CONST, name, &type, NULL, &value);
	return (knit_tensor){value};
}

/* The steps of the graph below, by number. */
enum { GATHER, K1, APPEND1, Q, ATTEND1, MERGED, SUM, ACT, K2, APPEND2, ATTEND2, LAST, STEPS };

/* Two visits of one layer over one KV slot: two appends to one state, in-place work, scratch in the attention. */
static void build(void) {
	const knit_dim tokens = knit_sym(g, "tokens", 1, TOKENS);
	const knit_dim slot[4] = {knit_n(2), knit_n(TOKENS), knit_n(2), knit_n(N / 2)};
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens), seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	const knit_tensor table = constant("table", 20, N), wk = constant("k", N, N), wq = constant("q", N, N);
	const knit_state kv = knit_state_define(g, KNIT_F32, 4, slot, "kv");
	knit_tensor x, h, a;

	knit_origin(g, "visit.0");
	x = knit_gather(g, table, ids);                                                       /* GATHER */
	knit_state_append(g, kv, knit_split_heads(g, knit_linear(g, x, wk), 2), seq, pos);     /* K1, APPEND1 */
	a = knit_split_heads(g, knit_linear(g, x, wq), 2);                                     /* Q */
	a = knit_attention(g, a, knit_state_read(g, kv), knit_state_read(g, kv), seq, pos, NULL); /* ATTEND1 */
	h = knit_linear(g, knit_merge_heads(g, a), wq);                                        /* MERGED */
	x = knit_add(g, h, x);                                                                 /* SUM: in place */
	knit_origin(g, "visit.1");
	a = knit_silu(g, x);                                                                   /* ACT: in place */
	knit_state_append(g, kv, knit_split_heads(g, knit_linear(g, a, wk), 2), seq, pos);     /* K2, APPEND2 */
	a = knit_attention(g, knit_split_heads(g, a, 2), knit_state_read(g, kv), knit_state_read(g, kv), seq, pos,
	                   NULL);                                                              /* ATTEND2 */
	knit_output(g, "y", knit_linear(g, knit_merge_heads(g, a), table));                    /* LAST */
}

/* The first 4 of 8 rows of a result. */
static void build_slice(void) {
	const knit_dim dims[2] = {knit_n(TOKENS), knit_n(N)};
	const knit_tensor w = constant("w", N, N), a = knit_linear(g, knit_input(g, "x", KNIT_F32, 2, dims), w);

	knit_output(g, "y", knit_linear(g, knit_slice(g, a, 0, 0, knit_n(4)), w));
}

static void setup_for(void (*make)(void)) {
	knit_diag d = {0};

	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	make();
	fake_target_init(&target);
	target.scratch[KNIT_OP_ATTENTION] = 256;
	target.scratch[KNIT_OP_GATHER] = 64;
	ck_assert_msg(fake_target_legalise(&target, g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__schedule_create(g, NULL, &target.target, &s, &d) == KNIT_OK, "%s", d.text);
}

static void setup(void) {
	setup_for(build);
	ck_assert_uint_eq(s->step_count, STEPS);
}

static void teardown(void) {
	s->step_count = g->order_count; /* a fault may have changed it, and memory is freed by it */
	knit__schedule_destroy(s);
	knit_graph_destroy(g);
}

/* The schedule is refused as our own bug, in words that contain both. */
static void refused(const char *first, const char *second) {
	knit_diag d = {0};

	ck_assert_int_eq(knit__memory_check(s, g->a, &d), KNIT_ERR_INTERNAL);
	ck_assert_int_eq(d.status, KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, first) && strstr(d.text, second), "the message is: %s", d.text);
	teardown();
}

static uint32_t storage_of(const knit_operand *o) { return g->values[o->value].storage; }

/* Every operand on `storage` from step `from` on. */
static void move(uint32_t storage, uint64_t base, uint32_t from) {
	for (uint32_t at = from; at < s->step_count; ++at) {
		for (uint32_t i = 0; i < s->steps[at].in_count; ++i)
			if (s->steps[at].in[i].buffer == 0 && storage_of(&s->steps[at].in[i]) == storage)
				s->steps[at].in[i].base = base;
		for (uint32_t i = 0; i < s->steps[at].out_count; ++i)
			if (s->steps[at].out[i].buffer == 0 && storage_of(&s->steps[at].out[i]) == storage)
				s->steps[at].out[i].base = base;
	}
}

static bool drop_hazard(uint32_t before, uint32_t after) {
	for (uint32_t i = 0; i < s->hazard_count; ++i) {
		if (s->hazards[i].before != before || s->hazards[i].after != after)
			continue;
		s->hazards[i] = s->hazards[--s->hazard_count];
		return true;
	}
	return false;
}

/* ---- right ones --------------------------------------------------------------------------------------------------- */

START_TEST(right_schedule_passes) {
	knit_diag d = {0};

	setup();
	ck_assert_uint_eq(s->plan.inplace_count, 2);
	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__memory_check(s, g->a, NULL), KNIT_OK);
	teardown();
}
END_TEST

START_TEST(step_by_step_hazards_pass) {
	knit_diag d = {0};

	/* A chain through all steps orders everything: more than is needed is allowed. */
	setup();
	ck_assert_uint_ge(s->hazard_count, STEPS - 1);
	for (uint32_t i = 0; i + 1 < STEPS; ++i)
		s->hazards[i] = (knit_hazard){i, i + 1, KNIT_HAZARD_RAW};
	s->hazard_count = STEPS - 1;
	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "%s", d.text);
	teardown();
}
END_TEST

/* ---- places ------------------------------------------------------------------------------------------------------- */

/* As if x had been thought dead after MERGED, while SUM still reads it. */
START_TEST(lifetime_cut_short) {
	setup();
	move(storage_of(&s->steps[MERGED].out[0]), s->steps[GATHER].out[0].base, 0);
	refused("step 6 (add at visit.0) reads", "of arena");
}
END_TEST

START_TEST(result_over_another_live_one) {
	setup();
	move(storage_of(&s->steps[Q].out[0]), s->steps[GATHER].out[0].base, 0);
	refused("step 3 (linear at visit.0) writes", "over its input");
}
END_TEST

START_TEST(result_partly_over_another) {
	setup();
	move(storage_of(&s->steps[MERGED].out[0]), s->steps[GATHER].out[0].base + 64, 0);
	refused("step 6 (add at visit.0) reads", "from byte 64 on they hold");
}
END_TEST

START_TEST(reader_looks_elsewhere) {
	setup();
	s->steps[K1].in[0].base += 64;
	refused("step 1 (linear at visit.0)", "of arena");
}
END_TEST

/* All bytes that it reads hold the right value, but rows 1 to 4 of it instead of 0 to 3. */
START_TEST(reader_starts_inside_the_value) {
	setup_for(build_slice);
	ck_assert_int_eq(knit__memory_check(s, g->a, NULL), KNIT_OK);
	s->buffers[0].bytes += N * sizeof(float);
	s->steps[1].in[0].base += N * sizeof(float);
	refused("step 1 (linear) reads", "but it was written from byte 0 on");
}
END_TEST

START_TEST(writer_writes_elsewhere) {
	setup();
	s->steps[K1].out[0].base = s->steps[K1].out[0].base == 512 ? 1024 : 512;
	refused("(append at visit.0)", "of arena");
}
END_TEST

START_TEST(arena_too_small) {
	setup();
	s->buffers[0].bytes = s->steps[K1].out[0].base + 448;
	s->steps[GATHER].scratch_bytes = 0;
	refused("step 1 (linear at visit.0)", "of arena, which has");
}
END_TEST

START_TEST(output_buffer_too_small) {
	setup();
	s->buffers[s->buffer_count - 1].bytes -= 1;
	refused("step", "which has");
}
END_TEST

START_TEST(weight_buffer_too_small) {
	setup();
	s->buffers[s->steps[GATHER].in[0].buffer].bytes /= 2;
	refused("step 0 (gather at visit.0)", "of table");
}
END_TEST

START_TEST(wrong_buffer) {
	setup();
	s->steps[K1].in[1].buffer = s->steps[Q].in[1].buffer;
	refused("step 1 (linear at visit.0)", "not where its storage lies");
}
END_TEST

START_TEST(buffer_that_does_not_exist) {
	setup();
	s->steps[K1].in[1].buffer = s->buffer_count;
	refused("step 1 (linear at visit.0)", "in buffer");
}
END_TEST

START_TEST(weight_written) {
	knit_operand *o;

	setup();
	o = &s->steps[K1].out[0];
	o->buffer = s->steps[K1].in[1].buffer;
	o->base = 0;
	refused("step 1 (linear at visit.0)", "not where its storage lies");
}
END_TEST

/* ---- in place ----------------------------------------------------------------------------------------------------- */

START_TEST(in_place_without_leave) {
	setup();
	move(storage_of(&s->steps[K1].out[0]), s->steps[K1].in[0].base, K1);
	refused("step 1 (linear at visit.0) writes", "over its input");
}
END_TEST

START_TEST(in_place_over_the_second_operand) {
	setup();
	move(storage_of(&s->steps[SUM].out[0]), s->steps[SUM].in[1].base, SUM);
	refused("step 6 (add at visit.0) writes", "over its input");
}
END_TEST

/* x = a + silu(a): the op may work in place, but a is read again. */
static void build_residual(void) {
	const knit_dim dims[2] = {knit_n(TOKENS), knit_n(N)};
	const knit_tensor w = constant("w", N, N), a = knit_linear(g, knit_input(g, "x", KNIT_F32, 2, dims), w);

	knit_output(g, "y", knit_linear(g, knit_add(g, a, knit_silu(g, a)), w));
}

START_TEST(in_place_over_an_operand_still_needed) {
	setup_for(build_residual);
	ck_assert_int_eq(knit__memory_check(s, g->a, NULL), KNIT_OK);
	move(storage_of(&s->steps[1].out[0]), s->steps[1].in[0].base, 1);
	refused("step 2 (add) reads", "they hold");
}
END_TEST

START_TEST(in_place_with_a_shift) {
	setup();
	s->buffers[0].bytes += 64;
	move(storage_of(&s->steps[ACT].out[0]), s->steps[ACT].in[0].base + 64, ACT);
	refused("step 7 (silu at visit.1) writes", "over its input");
}
END_TEST

/* ---- scratch ------------------------------------------------------------------------------------------------------ */

START_TEST(scratch_over_an_input) {
	setup();
	s->steps[ATTEND1].scratch_base = s->steps[ATTEND1].in[0].base;
	refused("step 4 (attention at visit.0) has scratch", "over its input");
}
END_TEST

START_TEST(scratch_over_the_output) {
	setup();
	s->steps[ATTEND1].scratch_base = s->steps[ATTEND1].out[0].base;
	refused("step 4 (attention at visit.0) has scratch", "over its output");
}
END_TEST

START_TEST(scratch_over_a_value_read_later) {
	setup();
	s->steps[ATTEND1].scratch_base = s->steps[GATHER].out[0].base;
	refused("step 6 (add at visit.0) reads", "holds no value");
}
END_TEST

START_TEST(scratch_outside_the_arena) {
	setup();
	s->steps[ATTEND1].scratch_base = s->buffers[0].bytes - 64;
	refused("step 4 (attention at visit.0) has scratch", "which has");
}
END_TEST

/* ---- order -------------------------------------------------------------------------------------------------------- */

static void swap(uint32_t a, uint32_t b) {
	const knit_step moved = s->steps[a];

	s->steps[a] = s->steps[b];
	s->steps[b] = moved;
}

START_TEST(steps_exchanged) {
	setup();
	swap(GATHER, K1);
	refused("step 0 (linear at visit.0) reads", "holds no value");
}
END_TEST

START_TEST(state_versions_exchanged) {
	setup();
	swap(APPEND1, APPEND2);
	refused("step", "reads");
}
END_TEST

/* The attention of visit 0 must not see what visit 1 appends. */
START_TEST(state_read_too_late) {
	setup();
	swap(ATTEND1, ATTEND2);
	refused("step", "reads");
}
END_TEST

START_TEST(state_version_left_out) {
	setup();
	++g->values[s->steps[APPEND1].out[0].value].version;
	refused("step 2 (append at visit.0) writes", "of kv, over its input");
}
END_TEST

START_TEST(view_past_the_end) {
	setup_for(build_slice);
	g->values[s->steps[1].in[0].value].offset = s->steps[1].in[0].offset = knit_n(5 * N);
	refused("step 1 (linear) touches bytes [320, 576)", "whose storage has 512");
}
END_TEST

START_TEST(step_left_out) {
	setup();
	s->steps[LAST] = s->steps[ACT];
	refused("step 11", "a second time");
}
END_TEST

START_TEST(step_missing_at_the_end) {
	setup();
	s->step_count = LAST;
	refused("at the end", "has not run");
}
END_TEST

START_TEST(step_of_another_op) {
	setup();
	s->steps[ACT].op = KNIT_OP_GELU;
	refused("step 7", "is not what node");
}
END_TEST

START_TEST(step_with_another_shape) {
	setup();
	s->steps[SUM].in[0].dims[1] = knit_n(N / 2);
	refused("step 6", "another type or shape");
}
END_TEST

/* ---- hazards ------------------------------------------------------------------------------------------------------ */

START_TEST(read_before_write_is_done) {
	setup();
	ck_assert(drop_hazard(GATHER, K1));
	refused("step 1 (linear at visit.0) reads", "need not wait for step 0");
}
END_TEST

START_TEST(state_write_before_its_readers_are_done) {
	setup();
	/* SUM comes after ATTEND1, so that more than one way leads from ATTEND1 to APPEND2: all are cut. */
	ck_assert(drop_hazard(ATTEND1, APPEND2));
	for (uint32_t i = 0; i < s->hazard_count;) {
		if (s->hazards[i].before == ATTEND1)
			s->hazards[i] = s->hazards[--s->hazard_count];
		else
			++i;
	}
	refused("need not wait for step 4", "bytes");
}
END_TEST

START_TEST(no_hazards_at_all) {
	setup();
	s->hazard_count = 0;
	refused("need not wait for step", "bytes");
}
END_TEST

static void set_hazards(const uint32_t (*pairs)[2], uint32_t count) {
	ck_assert_uint_le(count, s->hazard_cap);
	for (uint32_t i = 0; i < count; ++i)
		s->hazards[i] = (knit_hazard){pairs[i][0], pairs[i][1], KNIT_HAZARD_RAW};
	s->hazard_count = count;
}

/* 0: a; 1, 2: read a; 3: c over a; 4: read c. */
static void build_two_readers(void) {
	const knit_dim dims[2] = {knit_n(TOKENS), knit_n(N)};
	const knit_tensor w = constant("w", N, N), x = knit_input(g, "x", KNIT_F32, 2, dims), a = knit_linear(g, x, w);

	knit_output(g, "y0", knit_linear(g, a, w));
	knit_output(g, "y1", knit_linear(g, a, w));
	knit_output(g, "y2", knit_linear(g, knit_linear(g, x, w), w));
}

START_TEST(write_waits_for_all_readers) {
	static const uint32_t right[][2] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}, {3, 4}}, one[][2] = {{0, 1}, {0, 2}, {2, 3}, {3, 4}};

	setup_for(build_two_readers);
	ck_assert_uint_eq(s->steps[0].out[0].base, s->steps[3].out[0].base);
	set_hazards(right, 5);
	ck_assert_int_eq(knit__memory_check(s, g->a, NULL), KNIT_OK);
	set_hazards(one, 4);
	refused("step 3 (linear) writes", "need not wait for step 1");
}
END_TEST

/* 0: b; 1: read b; 2: d, which nobody reads; 3: c, as large as both; 4: read c. */
static void build_halves(void) {
	const knit_dim dims[2] = {knit_n(TOKENS), knit_n(N)};
	const knit_tensor w = constant("w", N, N), x = knit_input(g, "x", KNIT_F32, 2, dims);

	knit_output(g, "y0", knit_linear(g, knit_linear(g, x, w), w));
	knit_linear(g, x, w);
	knit_output(g, "y1", knit_linear(g, knit_linear(g, x, constant("wide", 2 * N, N)), constant("back", N, 2 * N)));
}

START_TEST(write_waits_for_what_a_part_of_it_held) {
	static const uint32_t right[][2] = {{0, 1}, {1, 3}, {2, 3}, {3, 4}}, one[][2] = {{0, 1}, {2, 3}, {3, 4}};

	setup_for(build_halves);
	move(storage_of(&s->steps[2].out[0]), TOKENS * N * sizeof(float), 2);
	ck_assert_uint_eq(s->steps[0].out[0].base, 0);
	ck_assert_uint_eq(s->steps[3].out[0].base, 0);
	set_hazards(right, 4);
	ck_assert_int_eq(knit__memory_check(s, g->a, NULL), KNIT_OK);
	set_hazards(one, 3);
	refused("step 3 (linear) writes", "need not wait for step 1");
}
END_TEST

START_TEST(hazard_backwards) {
	setup();
	s->hazards[0] = (knit_hazard){K1, K1, KNIT_HAZARD_RAW};
	refused("hazard 0", "waits for");
}
END_TEST

START_TEST(every_hazard_matters_or_is_implied) {
	uint32_t needed = 0;

	setup();
	for (uint32_t i = 0; i < s->hazard_count; ++i) {
		const knit_hazard kept = s->hazards[i];
		knit_diag d = {0};

		s->hazards[i] = (knit_hazard){0, STEPS - 1, KNIT_HAZARD_RAW}; /* harmless: the first before the last */
		needed += knit__memory_check(s, g->a, &d) != KNIT_OK;
		s->hazards[i] = kept;
	}
	/* The list is direct, not minimal; but a good part must be needed. */
	ck_assert_uint_ge(needed * 3, s->hazard_count);
	teardown();
}
END_TEST

START_TEST(allocation_failures) {
	track_alloc t = {0};
	const knit_allocator a = track_allocator(&t);
	knit_status status = KNIT_ERR_MEMORY;

	setup();
	for (uint64_t fail = 1; status != KNIT_OK; ++fail) {
		knit_diag d = {0};

		t.count = 0;
		t.fail_at = fail;
		status = knit__memory_check(s, &a, &d);
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_uint_eq(t.live, 0);
		ck_assert_uint_lt(fail, 200);
	}
	ck_assert(!t.bad_free);
	teardown();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		right_schedule_passes, step_by_step_hazards_pass, lifetime_cut_short, result_over_another_live_one,
		result_partly_over_another, reader_looks_elsewhere, reader_starts_inside_the_value, writer_writes_elsewhere,
		arena_too_small, output_buffer_too_small, weight_buffer_too_small, wrong_buffer, buffer_that_does_not_exist,
		weight_written, in_place_without_leave, in_place_over_the_second_operand,
		in_place_over_an_operand_still_needed, in_place_with_a_shift, scratch_over_an_input, scratch_over_the_output,
		scratch_over_a_value_read_later, scratch_outside_the_arena, steps_exchanged, state_versions_exchanged,
		state_read_too_late, state_version_left_out, view_past_the_end, step_left_out, step_missing_at_the_end,
		step_of_another_op, step_with_another_shape, read_before_write_is_done,
		state_write_before_its_readers_are_done, no_hazards_at_all, write_waits_for_all_readers,
		write_waits_for_what_a_part_of_it_held, hazard_backwards, every_hazard_matters_or_is_implied,
		allocation_failures,
	};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("memory_check", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
