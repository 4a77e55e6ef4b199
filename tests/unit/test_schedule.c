/* Tests schedules: buffers and their numbers, resolved operands, kernels and their absence, hazards, and the checks that
 * a session must make before a run. */
#include "../tools/fake_target.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "../../graph/op_def.h"
#include "../../graph/schedule.h"

#include <stdio.h>
#include <string.h>

#define N 16

static knit_context *context;
static knit_graph *g;
static knit_dim tokens;
static fake_target target;

static void begin(void) {
	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	tokens = knit_sym(g, "tokens", 1, 8);
	fake_target_init(&target);
}

static knit_tensor input(const char *name, knit_dtype t, int64_t columns) {
	const knit_dim dims[2] = {tokens, knit_n(columns)};

	return knit_input(g, name, t, columns ? 2 : 1, dims);
}

static knit_tensor leaf(knit_storage_kind kind, const char *name, knit_dtype t, int64_t rows, int64_t columns) {
	const knit_type type = {.dtype = t, .rank = 2, .dims = {knit_n(rows), knit_n(columns)}};
	uint32_t value = 0;

	knit__storage_add(g, kind, name, &type, NULL, &value);
	return (knit_tensor){value};
}

static knit_tensor constant(const char *name, int64_t rows, int64_t columns) {
	return leaf(KNIT_STORAGE_CONST, name, KNIT_F32, rows, columns);
}

static void legalise(void) {
	knit_diag d = {0};

	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(fake_target_legalise(&target, g, &d) == KNIT_OK, "%s", d.text);
}

static knit_schedule *schedule(const knit_bounds *b) {
	knit_diag d = {0};
	knit_schedule *s = NULL;

	legalise();
	ck_assert_msg(knit__schedule_create(g, b, &target.target, &s, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "%s", d.text);
	return s;
}

/* Refused with the status, in words that contain all of a list with semicolons. */
static void refused(knit_status status, const char *words) {
	knit_diag d = {0};
	knit_schedule *s = NULL;
	char list[256], *word;

	legalise();
	ck_assert_int_eq(knit__schedule_create(g, NULL, &target.target, &s, &d), status);
	ck_assert_int_eq(d.status, status);
	ck_assert_ptr_null(s);
	snprintf(list, sizeof list, "%s", words);
	for (word = strtok(list, ";"); word; word = strtok(NULL, ";"))
		ck_assert_msg(strstr(d.text, word) != NULL, "no \"%s\" in: %s", word, d.text);
	knit_graph_destroy(g);
}

static void end(knit_schedule *s) {
	knit__schedule_destroy(s);
	knit_graph_destroy(g);
}

static uint32_t buffer_named(const knit_schedule *s, const char *name) {
	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (strcmp(s->buffers[i].name, name) == 0)
			return i;
	ck_abort_msg("no buffer %s", name);
}

/* ---- buffers and operands ------------------------------------------------------------------------------------------- */

static void build_decoder(void) {
	const knit_dim slot[3] = {knit_n(1), knit_n(8), knit_n(N)};
	const knit_tensor ids = input("ids", KNIT_I32, 0), seq = input("seq", KNIT_I32, 0), pos = input("pos", KNIT_I32, 0);
	const knit_tensor table = constant("table", 20, N), w = constant("w", N, N);
	const knit_tensor a = leaf(KNIT_STORAGE_ADAPTER, "lora", KNIT_F32, N, N);
	const knit_state kv = knit_state_define(g, KNIT_F16, 3, slot, "kv");
	knit_tensor x = knit_gather(g, table, ids);

	for (int visit = 0; visit < 2; ++visit) {
		knit_origin(g, "visit.%d", visit);
		knit_state_append(g, kv, knit_linear(g, x, w), seq, pos);
		x = knit_add(g, knit_linear(g, x, w), knit_linear(g, x, a));
	}
	constant("unused", 4, N);
	input("unused input", KNIT_F32, 3);
	knit_output(g, "logits", knit_linear(g, x, table));
}

START_TEST(buffers_are_numbered_alike) {
	static const struct { const char *name; knit_buffer_use use; uint64_t bytes; } want[] = {
		{"table", KNIT_BUFFER_CONST, 20 * N * 4},  {"w", KNIT_BUFFER_CONST, N * N * 4},
		{"lora", KNIT_BUFFER_CONST, N * N * 4},    {"kv", KNIT_BUFFER_STATE, 8 * N * 2},
		{"ids", KNIT_BUFFER_IO, 8 * 4},            {"seq", KNIT_BUFFER_IO, 8 * 4},
		{"pos", KNIT_BUFFER_IO, 8 * 4},            {"unused input", KNIT_BUFFER_IO, 8 * 3 * 4},
		{"logits", KNIT_BUFFER_IO, 8 * 20 * 4},
	};
	knit_bounds one, many;

	begin();
	build_decoder();
	knit__bounds_declared(&g->exprs, &one);
	many = one;
	one.hi[0] = 1;
	many.lo[0] = 2;
	knit_schedule *s = schedule(&one), *t = schedule(&many);

	ck_assert_uint_eq(s->buffer_count, 1 + sizeof want / sizeof *want);
	ck_assert_uint_eq(t->buffer_count, s->buffer_count);
	ck_assert_uint_eq(s->arena_buffer, 0);
	ck_assert_int_eq(s->buffers[0].use, KNIT_BUFFER_ARENA);
	ck_assert_uint_eq(s->buffers[0].bytes, s->plan.arena_bytes);
	ck_assert_uint_lt(s->buffers[0].bytes, t->buffers[0].bytes);
	for (uint32_t i = 1; i < s->buffer_count; ++i) {
		ck_assert_str_eq(s->buffers[i].name, want[i - 1].name);
		ck_assert_int_eq(s->buffers[i].use, want[i - 1].use);
		ck_assert_uint_eq(s->buffers[i].bytes, want[i - 1].bytes);
		ck_assert_uint_eq(s->buffers[i].storage, t->buffers[i].storage);
		ck_assert_uint_eq(s->buffers[i].bytes, t->buffers[i].bytes);
		ck_assert_int_eq(s->buffers[i].kind, g->storages[s->buffers[i].storage].kind);
	}
	knit__schedule_destroy(t);
	end(s);
}
END_TEST

START_TEST(weights_are_one_buffer_however_often_used) {
	uint32_t uses = 0;

	begin();
	build_decoder();
	knit_schedule *s = schedule(NULL);
	const uint32_t w = buffer_named(s, "w");

	for (uint32_t at = 0; at < s->step_count; ++at)
		for (uint32_t i = 0; i < s->steps[at].in_count; ++i)
			uses += s->steps[at].in[i].buffer == w;
	ck_assert_uint_eq(uses, 4);
	end(s);
}
END_TEST

START_TEST(operands_are_resolved) {
	begin();
	const knit_type gain_type = {.dtype = KNIT_F16, .rank = 1, .dims = {knit_n(N)}};
	uint32_t gain = 0;

	const knit_tensor y = input("y", KNIT_F32, 2 * N);
	knit__storage_add(g, KNIT_STORAGE_CONST, "gain", &gain_type, NULL, &gain);
	knit_origin(g, "the norm");
	knit_output(g, "out", knit_layer_norm(g, knit_slice(g, y, 1, 4, knit_n(N)), (knit_tensor){gain}, (knit_tensor){0}, 1));
	knit_schedule *s = schedule(NULL);
	const knit_step *step = &s->steps[0];

	ck_assert_uint_eq(s->step_count, 1);
	ck_assert_int_eq(step->op, KNIT_OP_LAYER_NORM);
	ck_assert_uint_eq(step->kernel, KNIT_OP_LAYER_NORM);
	ck_assert_str_eq(step->origin, "the norm");
	ck_assert(step->attr[0].f == 1);
	ck_assert_uint_eq(step->in[0].buffer, buffer_named(s, "y"));
	ck_assert_int_eq(step->in[0].offset.v, 4);
	ck_assert_int_eq(step->in[0].strides[0].v, 2 * N);
	ck_assert_int_eq(step->in[0].dims[1].v, N);
	ck_assert_int_eq(step->in[1].dtype, KNIT_F16);
	if (step->in_count > 2)
		ck_assert_uint_eq(step->in[2].buffer, UINT32_MAX);
	ck_assert_uint_eq(step->out[0].buffer, buffer_named(s, "out"));
	ck_assert_uint_eq(step->out[0].base, 0);
	end(s);
}
END_TEST

START_TEST(scratch_is_what_the_target_asks_for) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), w = constant("w", N, N);

	target.scratch[KNIT_OP_LINEAR] = 100;
	knit_output(g, "y", knit_silu(g, knit_linear(g, x, w)));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->steps[0].scratch_bytes, 100);
	ck_assert_uint_eq(s->steps[1].scratch_bytes, 0);
	ck_assert_uint_eq(s->plan.arena_bytes, 8 * N * 4 + 128);
	end(s);
}
END_TEST

START_TEST(graph_without_steps) {
	begin();
	input("x", KNIT_F32, N);
	knit_schedule *s = schedule(NULL);

	ck_assert_uint_eq(s->step_count, 0);
	ck_assert_uint_eq(s->buffer_count, 2);
	ck_assert_uint_eq(s->buffers[0].bytes, 0);
	end(s);
}
END_TEST

/* ---- refusals ----------------------------------------------------------------------------------------------------- */

START_TEST(missing_kernel_is_named) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, 32), w = leaf(KNIT_STORAGE_CONST, "w", KNIT_Q4_0, 48, 32);

	target.refuse[KNIT_OP_LINEAR] = true;
	knit_origin(g, "visit.3.blk.0.attn_k");
	knit_output(g, "y", knit_linear(g, x, w));
	refused(KNIT_ERR_UNSUPPORTED, "linear at visit.3.blk.0.attn_k;f32 [tokens, 32], q4_0 [48, 32] -> f32 [tokens, 48]");
}
END_TEST

START_TEST(missing_kernel_for_strides_says_so) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, 32);

	target.dense[KNIT_OP_SILU] = true;
	target.refuse[KNIT_OP_COPY] = true; /* so that no copy can help */
	knit_output(g, "y", knit_silu(g, knit_transpose(g, x, 0, 1)));
	refused(KNIT_ERR_UNSUPPORTED, "silu;f32 [32, tokens] (strided)");
}
END_TEST

START_TEST(buffer_beyond_the_limit_is_named) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N);

	target.target.max_buffer = N * N * 4 - 1;
	knit_output(g, "y", knit_linear(g, x, constant("big weight", N, N)));
	refused(KNIT_ERR_LIMIT, "big weight;1024;1023");
}
END_TEST

START_TEST(arena_beyond_the_limit_is_named) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), w = constant("w", N, N);

	target.target.max_buffer = 2047;
	target.scratch[KNIT_OP_LINEAR] = 4096;
	knit_output(g, "y", knit_linear(g, x, w));
	refused(KNIT_ERR_LIMIT, "linear;scratch of 4096 bytes;2047");
}
END_TEST

START_TEST(output_in_the_arena_is_our_bug) {
	knit_diag d = {0};
	knit_schedule *s = NULL;

	begin();
	knit_output(g, "y", knit_silu(g, input("x", KNIT_F32, N)));
	ck_assert_int_eq(knit__schedule_create(g, NULL, &target.target, &s, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(d.text, "\"y\""));
	knit_graph_destroy(g);
}
END_TEST

/* ---- hazards ------------------------------------------------------------------------------------------------------ */

static bool has_hazard(const knit_schedule *s, uint32_t before, uint32_t after, knit_hazard_kind kind) {
	for (uint32_t i = 0; i < s->hazard_count; ++i)
		if (s->hazards[i].before == before && s->hazards[i].after == after)
			return s->hazards[i].kind == kind;
	return false;
}

/* Independent branches wait for nobody; a join waits for both. */
START_TEST(reads_wait_for_writes) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), w = constant("w", N, N);
	const knit_tensor a = knit_linear(g, x, w), b = knit_silu(g, x);

	knit_output(g, "y", knit_add(g, a, b));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->hazard_count, 2);
	ck_assert(has_hazard(s, 0, 2, KNIT_HAZARD_RAW));
	ck_assert(has_hazard(s, 1, 2, KNIT_HAZARD_RAW));
	end(s);
}
END_TEST

/* 0: a = f(x); 1: b = f(a); 2: y0 = f(b), 3: c = f(x) takes a's bytes, so it waits for step 1, which is no edge of the
 * graph; 4: y1 = f(c). */
START_TEST(reuse_waits_for_readers) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), w = constant("w", N, N);
	const knit_tensor a = knit_linear(g, x, w), b = knit_linear(g, a, w);

	knit_output(g, "y0", knit_linear(g, b, w));
	const knit_tensor c = knit_linear(g, x, w);
	knit_output(g, "y1", knit_linear(g, c, w));
	knit_schedule *s = schedule(NULL);
	const uint64_t base_a = s->steps[0].out[0].base, base_c = s->steps[3].out[0].base;

	ck_assert(has_hazard(s, 0, 1, KNIT_HAZARD_RAW));
	ck_assert(has_hazard(s, 1, 2, KNIT_HAZARD_RAW));
	ck_assert(has_hazard(s, 3, 4, KNIT_HAZARD_RAW));
	ck_assert(has_hazard(s, base_c == base_a ? 1 : 2, 3, KNIT_HAZARD_WAR));
	ck_assert_uint_eq(s->hazard_count, 4);
	end(s);
}
END_TEST

/* Scratch and results that nobody reads are written over by others: write after write. */
START_TEST(writes_wait_for_writes) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N);

	target.scratch[KNIT_OP_SILU] = 64;
	knit_output(g, "y0", knit_silu(g, x));
	knit_output(g, "y1", knit_silu(g, x));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->hazard_count, 1);
	ck_assert(has_hazard(s, 0, 1, KNIT_HAZARD_WAW));
	end(s);
}
END_TEST

/* append 0 -> read 1 -> append 2 -> read 3, over one state. */
START_TEST(state_versions_are_ordered) {
	begin();
	const knit_dim slot[3] = {knit_n(1), knit_n(8), knit_n(N)}, rows[2] = {knit_n(8), knit_n(N)};
	const knit_tensor x = input("x", KNIT_F32, N), seq = input("seq", KNIT_I32, 0), pos = input("pos", KNIT_I32, 0);
	const knit_state kv = knit_state_define(g, KNIT_F32, 3, slot, "kv");

	knit_state_append(g, kv, x, seq, pos);
	knit_output(g, "y0", knit_silu(g, knit_reshape(g, knit_state_read(g, kv), 2, rows)));
	knit_state_append(g, kv, x, seq, pos);
	knit_output(g, "y1", knit_silu(g, knit_reshape(g, knit_state_read(g, kv), 2, rows)));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->step_count, 4);
	ck_assert(has_hazard(s, 0, 1, KNIT_HAZARD_RAW));
	ck_assert(has_hazard(s, 1, 2, KNIT_HAZARD_WAR));
	ck_assert(has_hazard(s, 2, 3, KNIT_HAZARD_RAW));
	end(s);
}
END_TEST

/* ---- checks before a run -------------------------------------------------------------------------------------------- */

START_TEST(indices_from_inputs_are_checked) {
	begin();
	const knit_tensor ids = input("ids", KNIT_I32, 0), small = constant("small", 5, N), large = constant("large", 9, N);

	knit_origin(g, "embed");
	const knit_tensor a = knit_gather(g, small, ids), b = knit_gather(g, large, ids), c = knit_gather(g, small, ids);
	knit_output(g, "y", knit_add(g, knit_add(g, a, b), c));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->index_check_count, 2); /* (ids, 5) is asked for twice and listed once */
	ck_assert_int_eq(s->index_checks[0].bound.v, 5);
	ck_assert_int_eq(s->index_checks[1].bound.v, 9);
	ck_assert_uint_eq(s->index_checks[0].buffer, buffer_named(s, "ids"));
	ck_assert_str_eq(s->index_checks[0].input, "ids");
	ck_assert_str_eq(s->index_checks[0].op, "gather");
	ck_assert_str_eq(s->index_checks[0].origin, "embed");
	ck_assert_uint_eq(s->pair_check_count, 0);
	end(s);
}
END_TEST

START_TEST(bound_may_be_a_symbol) {
	begin();
	const knit_dim picks = knit_sym(g, "picks", 1, 4);
	const knit_tensor x = input("x", KNIT_F32, N), pick = knit_input(g, "pick", KNIT_I32, 1, &picks);

	knit_output(g, "y", knit_gather(g, knit_silu(g, x), pick));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->index_check_count, 1);
	ck_assert_int_eq(s->index_checks[0].bound.v, tokens.v);
	end(s);
}
END_TEST

START_TEST(indices_are_followed_through_views_and_copies) {
	begin();
	const knit_dim dims[2] = {knit_n(4), tokens}, flat = knit_dim_mul(g, tokens, 4);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 2, dims), table = constant("table", 5, N);
	const knit_tensor one = knit_reshape(g, ids, 1, &flat), turned = knit_transpose(g, ids, 0, 1);

	knit_output(g, "y", knit_gather(g, table, one));
	/* The bytes of a transposed view can be flat only after a copy. */
	knit_output(g, "z", knit_gather(g, table, knit_reshape(g, turned, 1, &flat)));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->index_check_count, 1);
	ck_assert_uint_eq(s->index_checks[0].buffer, buffer_named(s, "ids"));
	end(s);
}
END_TEST

START_TEST(small_argmax_needs_no_check) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), table = constant("table", N, 8);

	knit_output(g, "y", knit_gather(g, table, knit_argmax(g, x)));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->index_check_count, 0);
	end(s);
}
END_TEST

START_TEST(large_argmax_is_refused) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N), table = constant("table", N - 1, 8);

	knit_origin(g, "choose");
	knit_output(g, "y", knit_gather(g, table, knit_argmax(g, x)));
	refused(KNIT_ERR_UNSUPPORTED, "gather at choose;operand 1;below 15;an input of the graph");
}
END_TEST

/* Over up to 8 tokens, into as many rows as there are tokens: fits at every size, though the bounds alone do not say so. */
START_TEST(argmax_over_the_bound_itself_fits) {
	begin();
	const knit_tensor x = input("x", KNIT_F32, N);

	target.dense[KNIT_OP_ARGMAX] = true;
	knit_output(g, "y", knit_gather(g, x, knit_argmax(g, knit_transpose(g, x, 0, 1))));
	knit_schedule *s = schedule(NULL);
	ck_assert_uint_eq(s->index_check_count, 0);
	end(s);
}
END_TEST

START_TEST(constant_indices_are_refused) {
	begin();
	const knit_type type = {.dtype = KNIT_I32, .rank = 1, .dims = {knit_n(4)}};
	uint32_t ids = 0;

	knit__storage_add(g, KNIT_STORAGE_CONST, "ids", &type, NULL, &ids);
	knit_output(g, "y", knit_gather(g, constant("table", 5, N), (knit_tensor){ids}));
	refused(KNIT_ERR_UNSUPPORTED, "gather;operand 1;below 5");
}
END_TEST

START_TEST(cells_are_checked_in_pairs) {
	begin();
	build_decoder();
	knit_schedule *s = schedule(NULL);

	ck_assert_uint_eq(s->pair_check_count, 1); /* two appends, one pair of inputs */
	ck_assert_uint_eq(s->pair_checks[0].seq_buffer, buffer_named(s, "seq"));
	ck_assert_uint_eq(s->pair_checks[0].pos_buffer, buffer_named(s, "pos"));
	ck_assert_str_eq(s->pair_checks[0].state, "kv");
	ck_assert_uint_eq(s->index_check_count, 3); /* ids < 20, seq < 1, pos < 8 */
	end(s);
}
END_TEST

static void append_with(knit_tensor seq, knit_tensor pos) {
	const knit_dim slot[3] = {knit_n(N), knit_n(N), knit_n(N)}, rows[2] = {knit_n(N * N), knit_n(N)};
	const knit_state kv = knit_state_define(g, KNIT_F32, 3, slot, "kv");

	knit_origin(g, "visit.0");
	knit_state_append(g, kv, input("rows", KNIT_F32, N), seq, pos);
	knit_output(g, "y", knit_silu(g, knit_reshape(g, knit_state_read(g, kv), 2, rows)));
}

START_TEST(computed_cells_are_refused) {
	begin();
	append_with(input("seq", KNIT_I32, 0), knit_argmax(g, input("x", KNIT_F32, N)));
	refused(KNIT_ERR_UNSUPPORTED, "append to kv at visit.0;whole inputs");
}
END_TEST

START_TEST(cells_from_a_part_of_an_input_are_refused) {
	begin();
	const knit_dim all = knit_n(16);
	const knit_tensor seq = input("seq", KNIT_I32, 0), pos = knit_input(g, "pos", KNIT_I32, 1, &all);

	append_with(seq, knit_slice(g, pos, 0, 0, tokens));
	refused(KNIT_ERR_UNSUPPORTED, "append to kv at visit.0;whole inputs");
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------- */

START_TEST(allocation_failures) {
	track_alloc t = {0};
	knit_context *kept = context;
	knit_status status = KNIT_ERR_MEMORY;

	context = track_context(&t);
	ck_assert_ptr_nonnull(context);
	begin();
	build_decoder();
	legalise();
	const uint64_t live = t.live;
	for (uint64_t fail = 1; status != KNIT_OK; ++fail) {
		knit_schedule *s = NULL;
		knit_diag d = {0};

		t.count = 0;
		t.fail_at = fail;
		status = knit__schedule_create(g, NULL, &target.target, &s, &d);
		ck_assert(status == KNIT_OK ? s != NULL : status == KNIT_ERR_MEMORY && d.status == status && !s);
		knit__schedule_destroy(s);
		ck_assert_uint_eq(t.live, live);
		ck_assert_uint_lt(fail, 200);
	}
	t.fail_at = 0;
	knit_graph_destroy(g);
	knit_context_destroy(context);
	ck_assert(!t.bad_free);
	context = kept;
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		buffers_are_numbered_alike, weights_are_one_buffer_however_often_used, operands_are_resolved,
		scratch_is_what_the_target_asks_for, graph_without_steps, missing_kernel_is_named,
		missing_kernel_for_strides_says_so, buffer_beyond_the_limit_is_named, arena_beyond_the_limit_is_named,
		output_in_the_arena_is_our_bug, reads_wait_for_writes, reuse_waits_for_readers, writes_wait_for_writes,
		state_versions_are_ordered, indices_from_inputs_are_checked, bound_may_be_a_symbol,
		indices_are_followed_through_views_and_copies, small_argmax_needs_no_check, large_argmax_is_refused,
		argmax_over_the_bound_itself_fits, constant_indices_are_refused, cells_are_checked_in_pairs,
		computed_cells_are_refused, cells_from_a_part_of_an_input_are_refused, allocation_failures,
	};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("schedule", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
