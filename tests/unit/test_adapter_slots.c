/* Tests slots: sequences of one batch with different adapters, each against itself alone; what a slot may be filled
 * with; and that sessions have their own. Slots in graphs are in test_adapter_slots_graph.c. */
#include "../../backends/program.h"
#include "../../graph/pass.h"
#include "../tools/adapter_model.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4, EACH = 4, ROW = ADAPTER_VOCAB };

/* Three texts of four tokens. */
static const int32_t texts[ADAPTER_SEQUENCES][EACH] = {{1, 17, 40, 3}, {9, 9, 30, 2}, {25, 0, 47, 11}};

static knit_context *ctx;
static knit_weights *base, *adapters[3];

static void open_all(knit_dtype weights, knit_dtype lora) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &ctx), KNIT_OK);
	base = adapter_model_base(ctx, weights);
	for (uint32_t i = 0; i < 3; ++i)
		adapters[i] = adapter_model_adapter(ctx, lora, i + 1, 0.25f);
	ck_assert(base && adapters[0] && adapters[1] && adapters[2]);
}

static void close_all(void) {
	knit_weights_release(base);
	for (int i = 0; i < 3; ++i)
		knit_weights_release(adapters[i]);
	knit_context_destroy(ctx);
}

static knit_session *session_with(const adapter_model *m, const char *disable) {
	knit_session *s = NULL;
	knit_diag d = {0};
	knit_program *p = adapter_model_compile(ctx, m, "cpu", disable, &d);

	ck_assert_msg(p != NULL, "%s", d.text);
	ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
	knit_program_release(p);
	return s;
}

static knit_session *slots_session(knit_dtype lora, const char *disable) {
	return session_with(&(adapter_model){.mode = ADAPTER_SLOTS, .base = base, .slots = SLOTS, .dtype = lora}, disable);
}

static void ok(const knit_session *s, knit_status status) {
	knit_diag d;

	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s: %s", knit_status_name(status), d.text);
}

static void choose(knit_session *s, int32_t a, int32_t b, int32_t c) {
	ok(s, knit_session_write(s, "adapter_of_sequence", (const int32_t[]){a, b, c}, 3 * sizeof(int32_t)));
}

/* One text alone in sequence `seq`, at once or token by token. */
static void alone(knit_session *s, int text, int32_t seq, bool at_once, float out[EACH * ROW]) {
	const int32_t seqs[EACH] = {seq, seq, seq, seq}, pos[EACH] = {0, 1, 2, 3};

	ok(s, knit_session_reset_states(s));
	if (at_once)
		ok(s, adapter_model_run(s, EACH, texts[text], seqs, pos, out));
	for (int t = 0; !at_once && t < EACH; ++t)
		ok(s, adapter_model_run(s, 1, &texts[text][t], &seqs[t], &pos[t], out + t * ROW));
}

/* ---- one batch, several adapters --------------------------------------------------------------------------------- */

/* Two texts in turn, 8 tokens at once, each with its adapter; then each alone. */
static void mixed_batch(knit_dtype weights, knit_dtype lora, const char *disable) {
	int32_t ids[2 * EACH], seq[2 * EACH], pos[2 * EACH];
	float both[2 * EACH * ROW], one[EACH * ROW], own[EACH * ROW], other[EACH * ROW];

	open_all(weights, lora);
	knit_session *s = slots_session(lora, disable);
	for (int i = 0; i < 3; ++i)
		ok(s, knit_session_fill_adapter_slot(s, i + 1, adapters[i]));
	for (int i = 0; i < 2 * EACH; ++i) {
		ids[i] = texts[i % 2][i / 2];
		seq[i] = i % 2 ? 2 : 0;
		pos[i] = i / 2;
	}
	choose(s, 3, 0, 1);
	ok(s, adapter_model_run(s, 2 * EACH, ids, seq, pos, both));
	for (int text = 0; text < 2; ++text) {
		const int adapter = text ? 0 : 2;
		knit_session *bound =
			session_with(&(adapter_model){.mode = ADAPTER_BOUND, .base = base, .adapter = adapters[adapter]}, disable);
		for (int t = 0; t < EACH; ++t)
			memcpy(own + t * ROW, both + (2 * t + text) * ROW, sizeof(float) * ROW);
		choose(s, adapter + 1, adapter + 1, adapter + 1);
		alone(s, text, 1, true, one);
		ck_assert_msg(memcmp(own, one, sizeof own) == 0, "text %d beside another is off by %g", text,
		              test_largest_difference(own, one, EACH * ROW));
		/* The adapter of the other, to see that there is something to see. */
		choose(s, 0, text ? 3 : 1, 0);
		alone(s, text, 1, true, other);
		ck_assert(test_largest_difference(own, other, EACH * ROW) > 0.01);
		/* Compiled in. */
		alone(bound, text, 1, true, other);
		const double off = test_largest_difference(own, other, EACH * ROW);
		printf("%s weights, %s LoRA%s: slot against compiled in: off by %.1e\n", knit_dtype_name(weights),
		       knit_dtype_name(lora), disable ? ", not fused" : "", off);
		ck_assert(off <= 1e-4);
		/* Token by token. */
		choose(s, 0, adapter + 1, 0);
		alone(s, text, 1, false, one);
		ck_assert(test_largest_difference(own, one, EACH * ROW) <= 1e-4);
		knit_session_destroy(bound);
	}
	knit_session_destroy(s);
	close_all();
}

START_TEST(sequences_with_different_adapters) { mixed_batch(KNIT_F32, KNIT_F32, NULL); }
END_TEST

START_TEST(sequences_with_different_f16_adapters) { mixed_batch(KNIT_F16, KNIT_F16, NULL); }
END_TEST

START_TEST(sequences_with_different_adapters_over_q8_0) { mixed_batch(KNIT_Q8_0, KNIT_F32, NULL); }
END_TEST

/* The steps of a small model are too short to be split: here every one is. */
START_TEST(sequences_with_different_adapters_split) {
	setenv("KNIT_CPU_SPLIT_NS", "0", 1);
	mixed_batch(KNIT_F32, KNIT_F32, NULL);
	unsetenv("KNIT_CPU_SPLIT_NS");
}
END_TEST

/* The unfused op, whatever passes there are. */
START_TEST(sequences_with_different_adapters_not_fused) {
	mixed_batch(KNIT_F32, KNIT_F32, knit__pass_find("fuse_linear") ? "fuse_linear" : NULL);
}
END_TEST

/* Slot 0, an empty slot, one that was emptied, and one with B = 0: the bits of the model without adapters. */
START_TEST(no_adapter_is_no_adapter) {
	float want[EACH * ROW], got[EACH * ROW];

	open_all(KNIT_F32, KNIT_F32);
	knit_weights *fresh = adapter_model_adapter(ctx, KNIT_F32, 9, 0);
	knit_session *plain = session_with(&(adapter_model){.mode = ADAPTER_NONE, .base = base}, NULL);
	knit_session *s = slots_session(KNIT_F32, NULL);
	ok(s, knit_session_fill_adapter_slot(s, 1, adapters[0]));
	ok(s, knit_session_fill_adapter_slot(s, 2, fresh));
	ok(s, knit_session_fill_adapter_slot(s, 3, adapters[1]));
	ok(s, knit_session_fill_adapter_slot(s, 3, NULL));
	for (int at_once = 0; at_once < 2; ++at_once) {
		alone(plain, 0, 1, at_once, want);
		for (int32_t slot = 0; slot < SLOTS; ++slot) {
			choose(s, 1, slot, 1);
			alone(s, 0, 1, at_once, got);
			ck_assert_msg((test_largest_difference(want, got, EACH * ROW) == 0) == (slot != 1), "slot %d: off by %g", slot,
			              test_largest_difference(want, got, EACH * ROW));
		}
	}
	knit_session_destroy(plain);
	knit_session_destroy(s);
	knit_weights_release(fresh);
	close_all();
}
END_TEST

/* What one session has in a slot the other has not; reset_states leaves slots alone; the store may go. */
START_TEST(slots_belong_to_a_session) {
	float a[EACH * ROW], b[EACH * ROW], again[EACH * ROW], none[EACH * ROW];
	const adapter_model m = {.mode = ADAPTER_SLOTS, .base = NULL, .slots = 2};
	knit_session *s[2];
	knit_diag d = {0};

	open_all(KNIT_F32, KNIT_F32);
	adapter_model mine = m;
	mine.base = base;
	knit_program *p = adapter_model_compile(ctx, &mine, "cpu", NULL, &d);
	ck_assert_msg(p != NULL, "%s", d.text);
	for (int i = 0; i < 2; ++i) {
		ck_assert_int_eq(knit_session_create(p, &s[i], &d), KNIT_OK);
		choose(s[i], 1, 1, 1);
	}
	alone(s[0], 0, 0, true, none);
	for (int i = 0; i < 2; ++i) {
		ok(s[i], knit_session_fill_adapter_slot(s[i], 1, adapters[i]));
		knit_weights_release(adapters[i]);
		adapters[i] = NULL;
	}
	alone(s[0], 0, 0, true, a);
	alone(s[1], 0, 0, true, b);
	alone(s[0], 0, 0, true, again);
	ck_assert_int_eq(memcmp(a, again, sizeof a), 0);
	ck_assert_int_ne(memcmp(a, b, sizeof a), 0);
	ck_assert_int_ne(memcmp(a, none, sizeof a), 0);
	knit_session_destroy(s[0]);
	knit_session_destroy(s[1]);
	knit_program_release(p);
	close_all();
}
END_TEST

/* What is fused where an adapter is compiled in is fused with slots too. */
START_TEST(as_many_steps_as_with_one_adapter) {
	adapter_model m[2] = {{.mode = ADAPTER_BOUND}, {.mode = ADAPTER_SLOTS, .slots = SLOTS}};
	size_t steps[2][2];
	knit_diag d = {0};

	open_all(KNIT_F32, KNIT_F32);
	for (int i = 0; i < 2; ++i) {
		m[i].base = base;
		m[i].adapter = adapters[0];
		knit_program *p = adapter_model_compile(ctx, &m[i], "cpu", NULL, &d);
		ck_assert_msg(p != NULL, "%s", d.text);
		for (size_t b = 0; b < 2; ++b)
			steps[i][b] = knit_program_step_count(p, b);
		knit_program_release(p);
	}
	printf("steps with one adapter %zu, with slots %zu\n", steps[0][0], steps[1][0]);
	ck_assert_uint_eq(steps[0][0], steps[1][0]);
	ck_assert_uint_eq(steps[0][1], steps[1][1]);
	close_all();
}
END_TEST

START_TEST(memory_counts_the_slots) {
	const uint64_t each = ADAPTER_TENSORS * sizeof(float) * ADAPTER_RANK * ADAPTER_DIM;
	knit_memory m;
	knit_diag d = {0};

	open_all(KNIT_F32, KNIT_F32);
	knit_program *p = adapter_model_compile(
		ctx, &(adapter_model){.mode = ADAPTER_SLOTS, .base = base, .slots = SLOTS}, "cpu", NULL, &d);
	ck_assert_int_eq(knit_program_memory(p, &m), KNIT_OK);
	ck_assert_uint_eq(m.adapter_bytes, SLOTS * each);
	ck_assert_uint_eq(m.packed_bytes, 0);
	knit_program_release(p);
	close_all();
}
END_TEST

/* ---- filling ----------------------------------------------------------------------------------------------------- */

static void refused(knit_session *s, int64_t slot, knit_weights *store, knit_status status, const char *part) {
	knit_diag d;

	ck_assert_int_eq(knit_session_fill_adapter_slot(s, slot, store), status);
	knit_session_diag(s, &d);
	ck_assert_int_eq(d.status, status);
	ck_assert_msg(strstr(d.text, part) != NULL, "\"%s\" does not say \"%s\"", d.text, part);
}

static void refused_store(knit_session *s, knit_weights *store, knit_status status, const char *part) {
	refused(s, 1, store, status, part);
	knit_weights_release(store);
}

/* Nothing is copied where something is wrong. */
START_TEST(wrong_slots_and_stores_are_refused) {
	float want[EACH * ROW], got[EACH * ROW];
	knit_counters before, after;

	open_all(KNIT_F32, KNIT_F32);
	knit_session *s = slots_session(KNIT_F32, NULL), *plain = session_with(&(adapter_model){.base = base}, NULL);
	ok(s, knit_session_fill_adapter_slot(s, 1, adapters[0]));
	choose(s, 1, 1, 1);
	alone(s, 0, 0, true, want);
	knit_session_counters(s, &before);
	refused(s, 0, adapters[0], KNIT_ERR_ARGUMENT, "0 stays empty");
	refused(s, -1, adapters[0], KNIT_ERR_ARGUMENT, "1 to 3");
	refused(s, SLOTS, adapters[0], KNIT_ERR_ARGUMENT, "1 to 3");
	refused_store(s, adapter_model_spoiled(ctx, "visit.2.o.b", NULL, NULL), KNIT_ERR_NOT_FOUND, "visit.2.o.b");
	refused_store(s, adapter_model_spoiled(ctx, NULL, "visit.2.o.a", NULL), KNIT_ERR_SHAPE, "f32 [8, 64]");
	refused_store(s, adapter_model_spoiled(ctx, NULL, NULL, "visit.2.o.b"), KNIT_ERR_SHAPE, "f16 [64, 8]");
	refused(plain, 1, adapters[0], KNIT_ERR_ARGUMENT, "no slots");
	ck_assert_int_eq(knit_session_fill_adapter_slot(NULL, 1, adapters[0]), KNIT_ERR_ARGUMENT);
	knit_session_counters(s, &after);
	ck_assert_uint_eq(before.uploads, ADAPTER_TENSORS);
	ck_assert_uint_eq(after.uploads, before.uploads);
	ck_assert_uint_eq(after.slots, 1);
	ck_assert_uint_eq(after.allocations, 0);
	ck_assert_uint_eq(after.packs, 0);
	alone(s, 0, 0, true, got);
	ck_assert_int_eq(memcmp(want, got, sizeof want), 0);
	knit_session_destroy(s);
	knit_session_destroy(plain);
	close_all();
}
END_TEST

/* A number past the slots, or a sequence past adapter_of_sequence, would make a kernel read foreign memory. */
START_TEST(indices_are_checked_before_a_run) {
	const int32_t far = ADAPTER_SEQUENCES, zero = 0;
	float out[ROW];
	knit_diag d;

	open_all(KNIT_F32, KNIT_F32);
	knit_session *s = slots_session(KNIT_F32, NULL);
	ck_assert_int_eq(adapter_model_run(s, 1, texts[0], &zero, &zero, out), KNIT_ERR_STATE); /* never written */
	for (int32_t bad = -1; bad <= SLOTS; bad += SLOTS + 1) {
		choose(s, 0, bad, 0);
		ck_assert_int_eq(adapter_model_run(s, 1, texts[0], &zero, &zero, out), KNIT_ERR_ARGUMENT);
		knit_session_diag(s, &d);
		ck_assert_msg(strstr(d.text, "adapter_of_sequence") != NULL, "%s", d.text);
	}
	choose(s, 3, 0, 0);
	ck_assert_int_eq(adapter_model_run(s, 1, texts[0], &far, &zero, out), KNIT_ERR_ARGUMENT);
	ok(s, adapter_model_run(s, 1, texts[0], &zero, &zero, out));
	knit_session_destroy(s);
	close_all();
}
END_TEST

/* Slots are of no set: a program that has both kinds binds the one and fills the other. */
START_TEST(slots_are_not_bound) {
	const knit_dim tokens = knit_n(2), sequences = knit_n(1);
	const knit_dim dims[] = {tokens, knit_n(ADAPTER_DIM)};
	static float x[2 * ADAPTER_DIM], y[2 * ADAPTER_DIM];
	static const int32_t seq[2] = {0, 0}, one = 1;
	const knit_tensor none = {0};
	knit_graph *g;
	knit_program *p = NULL;
	knit_session *s = NULL;
	knit_adapter_set *a = NULL;
	knit_diag d = {0};

	open_all(KNIT_F32, KNIT_F32);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_tensor in = knit_input(g, "x", KNIT_F32, 2, dims), sq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	const knit_tensor which = knit_input(g, "which", KNIT_I32, 1, &sequences);
	const knit_tensor bound = knit_lora(g, in, knit_adapter(g, adapters[0], "visit.0.q.a"),
	                                    knit_adapter(g, adapters[0], "visit.0.q.b"), 1, none, none);
	const knit_tensor slots =
		knit_lora(g, bound, knit_adapter_slots(g, KNIT_F32, 2, ADAPTER_RANK, ADAPTER_DIM, "visit.1.q.a"),
	              knit_adapter_slots(g, KNIT_F32, 2, ADAPTER_DIM, ADAPTER_RANK, "visit.1.q.b"), 1, which, sq);
	knit_output(g, "y", slots);
	ck_assert_msg(knit_compile(g, &(knit_compile_desc){.device = "cpu"}, &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit_session_create(p, &s, &d), KNIT_OK);
	ck_assert_msg(knit_adapter_open(p, adapters[1], &a, &d) == KNIT_OK, "%s", d.text);
	ok(s, knit_session_fill_adapter_slot(s, 1, adapters[2]));
	ok(s, knit_session_bind_adapter(s, a));
	for (int i = 0; i < 2 * ADAPTER_DIM; ++i)
		x[i] = (float)(i % 7) - 3;
	ok(s, knit_session_write(s, "x", x, sizeof x));
	ok(s, knit_session_write(s, "seq", seq, sizeof seq));
	ok(s, knit_session_write(s, "which", &one, sizeof one));
	ok(s, knit_session_run(s));
	ok(s, knit_session_read(s, "y", y, sizeof y));
	/* By hand from the stores. */
	for (int t = 0; t < 2; ++t) {
		double v[ADAPTER_DIM], low[ADAPTER_RANK];

		for (int i = 0; i < ADAPTER_DIM; ++i)
			v[i] = (double)x[t * ADAPTER_DIM + i];
		for (int stage = 0; stage < 2; ++stage) {
			knit_weight_info down, up;

			knit_weights_find(adapters[1 + stage], stage ? "visit.1.q.a" : "visit.0.q.a", &down);
			knit_weights_find(adapters[1 + stage], stage ? "visit.1.q.b" : "visit.0.q.b", &up);
			for (int r = 0; r < ADAPTER_RANK; ++r) {
				low[r] = 0;
				for (int i = 0; i < ADAPTER_DIM; ++i)
					low[r] += (double)((const float *)down.data)[r * ADAPTER_DIM + i] * v[i];
			}
			for (int i = 0; i < ADAPTER_DIM; ++i) {
				v[i] = 0;
				for (int r = 0; r < ADAPTER_RANK; ++r)
					v[i] += (double)((const float *)up.data)[i * ADAPTER_RANK + r] * low[r];
			}
		}
		for (int i = 0; i < ADAPTER_DIM; ++i)
			ck_assert_msg(fabs((double)y[t * ADAPTER_DIM + i] - v[i]) < 1e-3, "%g, not %g", (double)y[t * ADAPTER_DIM + i],
			              v[i]);
	}
	knit_adapter_release(a);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_graph_destroy(g);
	close_all();
}
END_TEST

/* Every allocation of making a session with slots, and of filling them (there is none). */
START_TEST(out_of_memory) {
	knit_status status = KNIT_ERR_MEMORY;

	for (uint64_t n = 1; status != KNIT_OK; ++n) {
		track_alloc t = {0};
		knit_session *s = NULL;
		knit_diag d = {0};

		ctx = track_context(&t);
		base = adapter_model_base(ctx, KNIT_F32);
		for (uint32_t i = 0; i < 3; ++i)
			adapters[i] = adapter_model_adapter(ctx, KNIT_F32, i + 1, 0.25f);
		knit_program *p = adapter_model_compile(
			ctx, &(adapter_model){.mode = ADAPTER_SLOTS, .base = base, .slots = SLOTS}, "cpu", NULL, &d);
		ck_assert(p != NULL);
		t.fail_at = t.count + n;
		status = knit_session_create(p, &s, &d);
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "%s", d.text);
		if (s) {
			t.fail_at = t.count + 1;
			ok(s, knit_session_fill_adapter_slot(s, 2, adapters[1]));
			ok(s, knit_session_fill_adapter_slot(s, 2, NULL));
		}
		knit_session_destroy(s);
		knit_program_release(p);
		close_all();
		ck_assert_uint_eq(t.live, 0);
		ck_assert(!t.bad_free);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		sequences_with_different_adapters,
		sequences_with_different_f16_adapters,
		sequences_with_different_adapters_over_q8_0,
		sequences_with_different_adapters_split,
		sequences_with_different_adapters_not_fused,
		no_adapter_is_no_adapter,
		slots_belong_to_a_session,
		as_many_steps_as_with_one_adapter,
		memory_counts_the_slots,
		wrong_slots_and_stores_are_refused,
		indices_are_checked_before_a_run,
		slots_are_not_bound,
		out_of_memory,
	};

	return suite_run("adapter_slots", tests, sizeof tests / sizeof *tests);
}
