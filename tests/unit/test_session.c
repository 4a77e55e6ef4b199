/* Tests knit_session_* on the null device: symbols, inputs, checks before a run, failures in a run, reset. */
#include "../../backends/null/null.h"
#include "../../backends/program.h"
#include "../../backends/session_check.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static knit_weights *weights;
static knit_graph *graph;
static knit_program *program;
static knit_session *session;

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 3, SMALL_TOKENS}};
static const int32_t ids[SMALL_TOKENS] = {1, 5, 9, 23, 0, 7, 7, 2}, zeros[SMALL_TOKENS];
static const int32_t rising[SMALL_TOKENS] = {0, 1, 2, 3, 4, 5, 6, 7};

static void open_on(const char *device) {
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
	ck_assert_msg(knit_compile(graph, &(knit_compile_desc){.device = device, .buckets = decode_prefill, .bucket_count = 2},
	                           &program, &d) == KNIT_OK,
	              "%s", d.text);
	ck_assert_msg(knit_session_create(program, &session, &d) == KNIT_OK, "%s", d.text);
}

static void setup_null(void) { open_on("null"); }

static void teardown(void) {
	knit_session_destroy(session);
	knit_program_release(program);
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	knit_context_destroy(ctx);
}

/* The call answered `status`, and the session's diag says the same and `words`. */
static void expect(knit_status got, knit_status status, const char *words) {
	knit_diag d;

	knit_session_diag(session, &d);
	ck_assert_msg(got == status, "%s: %s", knit_status_name(got), d.text);
	ck_assert_int_eq(d.status, status);
	ck_assert_msg(strstr(d.text, words), "\"%s\" does not say \"%s\"", d.text, words);
}

static void ok(knit_status got) { expect(got, KNIT_OK, ""); }

static void write_tokens(size_t tokens, const int32_t *seq, const int32_t *pos) {
	ok(knit_session_write(session, "ids", ids, tokens * 4));
	ok(knit_session_write(session, "seq", seq, tokens * 4));
	ok(knit_session_write(session, "pos", pos, tokens * 4));
}

START_TEST(symbols) {
	expect(knit_session_set(session, "token", 1), KNIT_ERR_NOT_FOUND, "the graph has: tokens");
	expect(knit_session_set(session, "tokens", 0), KNIT_ERR_LIMIT, "1 to 8");
	expect(knit_session_set(session, "tokens", 9), KNIT_ERR_LIMIT, "tokens = 9");
	expect(knit_session_set(session, "tokens", INT64_MIN), KNIT_ERR_LIMIT, "1 to 8");
	expect(knit_session_set(session, NULL, 1), KNIT_ERR_ARGUMENT, "NULL");
	/* They start at lo, and a refused value changes nothing. */
	write_tokens(1, zeros, zeros);
	ok(knit_session_run(session));
	/* In the symbol's range, in no bucket. */
	ok(knit_session_set(session, "tokens", 2));
	expect(knit_session_run(session), KNIT_ERR_LIMIT, "1 to 1, 3 to 8");
}
END_TEST

START_TEST(null_arguments) {
	knit_diag d = {0};
	knit_session *s;

	ck_assert_int_eq(knit_session_set(NULL, "tokens", 1), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_write(NULL, "ids", ids, 4), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_run(NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_read(NULL, "logits", &d, 4), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_reset_states(NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_create(NULL, &s, &d), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_create(program, NULL, NULL), KNIT_ERR_ARGUMENT);
	knit_session_diag(NULL, &d);
	knit_session_destroy(NULL);
	expect(knit_session_write(session, NULL, ids, 4), KNIT_ERR_ARGUMENT, "name is NULL");
	expect(knit_session_write(session, "ids", NULL, 4), KNIT_ERR_ARGUMENT, "data is NULL");
	expect(knit_session_read(session, "logits", NULL, 4), KNIT_ERR_ARGUMENT, "data is NULL");
}
END_TEST

START_TEST(inputs) {
	static const int32_t many[SMALL_TOKENS + 1];

	expect(knit_session_run(session), KNIT_ERR_STATE, "\"ids\" was never written: it needs 4 bytes");
	expect(knit_session_write(session, "id", ids, 4), KNIT_ERR_NOT_FOUND, "the graph has: ids, seq, pos");
	expect(knit_session_write(session, "ids", many, sizeof many), KNIT_ERR_SHAPE, "room for 32");
	write_tokens(1, zeros, zeros);
	ok(knit_session_run(session));
	/* Inputs stay written. */
	ok(knit_session_run(session));
	/* ... until their size changes. */
	ok(knit_session_set(session, "tokens", 3));
	expect(knit_session_run(session), KNIT_ERR_SHAPE, "with 4 bytes and needs 12");
	ok(knit_session_write(session, "ids", ids, 12));
	expect(knit_session_run(session), KNIT_ERR_SHAPE, "\"seq\"");
	write_tokens(3, zeros, rising);
	ok(knit_session_run(session));
	/* Written before the symbol is set: only the run decides. */
	write_tokens(4, zeros, rising);
	ok(knit_session_set(session, "tokens", 4));
	ok(knit_session_run(session));
}
END_TEST

START_TEST(outputs) {
	float out[SMALL_TOKENS * SMALL_VOCAB];
	const size_t row = SMALL_VOCAB * sizeof(float);

	expect(knit_session_read(session, "logits", out, row), KNIT_ERR_STATE, "call knit_session_run");
	write_tokens(1, zeros, zeros);
	ok(knit_session_run(session));
	expect(knit_session_read(session, "logit", out, row), KNIT_ERR_NOT_FOUND, "the graph has: logits");
	expect(knit_session_read(session, "logits", out, row - 1), KNIT_ERR_SHAPE, "has 96 bytes");
	memset(out, 0xff, sizeof out);
	ok(knit_session_read(session, "logits", out, row));
	for (int i = 0; i < SMALL_VOCAB; ++i)
		ck_assert(out[i] == 0.0f); /* null outputs are zeros */
	/* The size is that of the last run, whatever the symbols are now. */
	ok(knit_session_set(session, "tokens", 5));
	ok(knit_session_read(session, "logits", out, row));
	expect(knit_session_read(session, "logits", out, 5 * row), KNIT_ERR_SHAPE, "has 96 bytes");
	/* A refused run is no run: the old outputs stay. */
	expect(knit_session_run(session), KNIT_ERR_SHAPE, "write it again");
	ok(knit_session_read(session, "logits", out, row));
}
END_TEST

static void refuse_ids(const int32_t *bad, const char *words) {
	ok(knit_session_write(session, "ids", bad, 12));
	expect(knit_session_run(session), KNIT_ERR_ARGUMENT, words);
	ok(knit_session_write(session, "ids", ids, 12));
	ok(knit_session_run(session));
}

START_TEST(indices) {
	ok(knit_session_set(session, "tokens", 3));
	write_tokens(3, zeros, rising);
	ok(knit_session_run(session));
	refuse_ids((const int32_t[]){0, 1, SMALL_VOCAB}, "\"ids\"[2] is 24: gather at embed takes 0 to 23");
	refuse_ids((const int32_t[]){-1, 1, 2}, "\"ids\"[0] is -1");
	refuse_ids((const int32_t[]){0, INT32_MIN, 2}, "\"ids\"[1] is -2147483648");
	refuse_ids((const int32_t[]){0, 1, INT32_MAX}, "\"ids\"[2] is 2147483647");
	write_tokens(3, (const int32_t[]){0, 3, 1}, rising);
	expect(knit_session_run(session), KNIT_ERR_ARGUMENT, "\"seq\"[1] is 3");
	write_tokens(3, zeros, (const int32_t[]){0, 1, SMALL_POSITIONS});
	expect(knit_session_run(session), KNIT_ERR_ARGUMENT, "\"pos\"[2] is 16");
	/* None of these left the session unusable. */
	write_tokens(3, zeros, (const int32_t[]){13, 14, 15});
	ok(knit_session_run(session));
}
END_TEST

START_TEST(pairs) {
	ok(knit_session_set(session, "tokens", 4));
	write_tokens(4, (const int32_t[]){0, 0, 1, 1}, (const int32_t[]){4, 5, 0, 1});
	ok(knit_session_run(session));
	write_tokens(4, (const int32_t[]){2, 1, 2, 0}, (const int32_t[]){3, 3, 2, 3});
	ok(knit_session_run(session));
	write_tokens(4, (const int32_t[]){2, 1, 2, 0}, (const int32_t[]){3, 3, 3, 3});
	expect(knit_session_run(session), KNIT_ERR_ARGUMENT, "tokens 0 and 2 both write cell (seq 2, pos 3)");
	write_tokens(4, zeros, (const int32_t[]){0, 1, 1, 2});
	expect(knit_session_run(session), KNIT_ERR_ARGUMENT, "tokens 1 and 2");
}
END_TEST

/* The sort behind the pair check, against a plain quadratic search. */
START_TEST(pairs_at_random) {
	int32_t seq[64], pos[64];
	uint64_t keys[64];
	uint32_t state = 3;
	int found = 0;

	for (int round = 0; round < 3000; ++round) {
		const size_t n = 1 + (state >> 8) % 64;
		bool twice = false;
		for (size_t i = 0; i < n; ++i) {
			state = state * 1664525u + 1013904223u;
			seq[i] = (int32_t)((state >> 8) % 8);
			pos[i] = (int32_t)((state >> 16) % 200);
			for (size_t k = 0; k < i; ++k)
				twice |= seq[k] == seq[i] && pos[k] == pos[i];
		}
		found += twice;
		ck_assert_int_eq(knit__check_pairs(seq, pos, n, keys, "kv", NULL), twice ? KNIT_ERR_ARGUMENT : KNIT_OK);
	}
	ck_assert_int_gt(found, 100);
	ck_assert_int_lt(found, 2900);
}
END_TEST

START_TEST(empty_table) {
	knit_diag d = {0};

	ck_assert_int_eq(knit__check_indices(NULL, 0, 0, "ids", "gather", "here", &d), KNIT_OK);
	ck_assert_int_eq(knit__check_indices(zeros, 1, 0, "ids", "gather", "here", &d), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_nonnull(strstr(d.text, "is empty"));
}
END_TEST

/* ---- failures in the work ---------------------------------------------------------------------------------------- */

static knit_backend faulty;
static knit_status submit_answer, wait_answer, write_answer, clear_answer;

static knit_status faulty_submit(knit_plan *plan, const int64_t *values) {
	return submit_answer != KNIT_OK ? submit_answer : knit__null_backend.plan_submit(plan, values);
}

static knit_status faulty_wait(knit_plan *plan, uint64_t timeout_ns) {
	const knit_status status = knit__null_backend.plan_wait(plan, timeout_ns);

	return wait_answer != KNIT_OK ? wait_answer : status;
}

static knit_status faulty_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	return write_answer != KNIT_OK ? write_answer : knit__null_backend.buffer_write(dev, buf, at, src, bytes);
}

static knit_status faulty_clear(knit_device *dev, knit_buffer *buf) {
	return clear_answer != KNIT_OK ? clear_answer : knit__null_backend.buffer_clear(dev, buf);
}

static void setup_faulty(void) {
	const knit_compile_desc none = {0};
	knit_opened *o;

	faulty = knit__null_backend;
	faulty.plan_submit = faulty_submit;
	faulty.plan_wait = faulty_wait;
	faulty.buffer_write = faulty_write;
	faulty.buffer_clear = faulty_clear;
	submit_answer = wait_answer = write_answer = clear_answer = KNIT_OK;
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
	ck_assert_int_eq(knit__device_open_backend(ctx, &faulty, 0, &o, NULL), KNIT_OK);
	ck_assert_int_eq(knit__compile_on(graph, &none, o, &program, NULL), KNIT_OK);
	ck_assert_int_eq(knit_session_create(program, &session, NULL), KNIT_OK);
	write_tokens(1, zeros, zeros);
	ok(knit_session_run(session));
}

START_TEST(a_failed_run_leaves_states_unknown) {
	float out[SMALL_VOCAB];

	for (int in_wait = 0; in_wait < 2; ++in_wait) {
		*(in_wait ? &wait_answer : &submit_answer) = KNIT_ERR_MEMORY;
		expect(knit_session_run(session), KNIT_ERR_MEMORY, "the run failed");
		submit_answer = wait_answer = KNIT_OK;
		expect(knit_session_run(session), KNIT_ERR_STATE, "call knit_session_reset_states");
		expect(knit_session_read(session, "logits", out, sizeof out), KNIT_ERR_STATE, "the last one failed");
		ok(knit_session_set(session, "tokens", 1));
		clear_answer = KNIT_ERR_IO;
		expect(knit_session_reset_states(session), KNIT_ERR_IO, "clearing");
		expect(knit_session_run(session), KNIT_ERR_STATE, "call knit_session_reset_states");
		clear_answer = KNIT_OK;
		ok(knit_session_reset_states(session));
		ok(knit_session_run(session));
		ok(knit_session_read(session, "logits", out, sizeof out));
	}
}
END_TEST

START_TEST(a_lost_device_kills_the_session_only) {
	float out[SMALL_VOCAB];
	knit_session *next;

	wait_answer = KNIT_ERR_DEVICE;
	expect(knit_session_run(session), KNIT_ERR_DEVICE, "the run failed");
	wait_answer = KNIT_OK;
	expect(knit_session_run(session), KNIT_ERR_DEVICE, "make a new one");
	expect(knit_session_reset_states(session), KNIT_ERR_DEVICE, "make a new one");
	expect(knit_session_set(session, "tokens", 1), KNIT_ERR_DEVICE, "make a new one");
	expect(knit_session_write(session, "ids", ids, 4), KNIT_ERR_DEVICE, "make a new one");
	expect(knit_session_read(session, "logits", out, sizeof out), KNIT_ERR_DEVICE, "make a new one");
	ck_assert_int_eq(knit_session_create(program, &next, NULL), KNIT_OK);
	knit_session_destroy(session);
	session = next;
	write_tokens(1, zeros, zeros);
	ok(knit_session_run(session));
}
END_TEST

START_TEST(a_failed_write_is_no_write) {
	write_answer = KNIT_ERR_IO;
	expect(knit_session_write(session, "ids", ids, 4), KNIT_ERR_IO, "upload");
	write_answer = KNIT_OK;
	expect(knit_session_run(session), KNIT_ERR_STATE, "never written");
	ok(knit_session_write(session, "ids", ids, 4));
	ok(knit_session_run(session));
}
END_TEST

int main(void) {
	Suite *s = suite_create("session");
	TCase *t = tcase_create("null"), *f = tcase_create("faults");

	tcase_add_checked_fixture(t, setup_null, teardown);
	tcase_add_test(t, symbols);
	tcase_add_test(t, null_arguments);
	tcase_add_test(t, inputs);
	tcase_add_test(t, outputs);
	tcase_add_test(t, indices);
	tcase_add_test(t, pairs);
	tcase_add_test(t, pairs_at_random);
	tcase_add_test(t, empty_table);
	tcase_add_checked_fixture(f, setup_faulty, teardown);
	tcase_add_test(f, a_failed_run_leaves_states_unknown);
	tcase_add_test(f, a_lost_device_kills_the_session_only);
	tcase_add_test(f, a_failed_write_is_no_write);
	suite_add_tcase(s, t);
	suite_add_tcase(s, f);
	return suite_finish(s, CK_FORK);
}
