/* Tests sessions on a split device: the same bits as on one device, whatever lies where; states in files; adapters; and
 * that it is told where one device alone has no such thing as a budget. */
#include "../../backends/guard.h"
#include "../../backends/program.h"
#include "../../backends/split/split.h"
#include "../tools/adapter_model.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 7, LOGITS = TOKENS * SMALL_VOCAB };

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};
static const int32_t ids[TOKENS] = {1, 5, 9, 23, 0, 7, 7}, zeros[TOKENS], rising[TOKENS] = {0, 1, 2, 3, 4, 5, 6};
/* From nothing to everything of a model of some 80 kB. */
static const uint64_t budgets[] = {1, 20000, 35000, 45000, 60000, 80000, 1 << 20, 0};

static knit_context *ctx;
static knit_weights *weights;
static knit_graph *graph;

static void setup(void) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 1}, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
}

static void teardown(void) {
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	knit_context_destroy(ctx);
}

static knit_program *compile_on(const char *device, uint64_t budget) {
	const knit_compile_desc desc = {.device = device, .buckets = decode_prefill, .bucket_count = 2,
	                                .device_memory = budget};
	knit_program *p = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_compile(graph, &desc, &p, &d) == KNIT_OK, "%s: %s", device, d.text);
	return p;
}

static knit_session *session_of(knit_program *p) {
	knit_session *s = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
	return s;
}

static void run(knit_session *s, size_t first, size_t count, float *out) {
	knit_status status = knit_session_set(s, "tokens", (int64_t)count);
	knit_diag d;

	if (status == KNIT_OK)
		status = knit_session_write(s, "ids", ids + first, count * 4);
	if (status == KNIT_OK)
		status = knit_session_write(s, "seq", zeros, count * 4);
	if (status == KNIT_OK)
		status = knit_session_write(s, "pos", rising + first, count * 4);
	if (status == KNIT_OK)
		status = knit_session_run(s);
	if (status == KNIT_OK)
		status = knit_session_read(s, "logits", out + first * SMALL_VOCAB, count * SMALL_VOCAB * sizeof *out);
	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
}

/* Both buckets in turn, then everything anew after a reset. */
static void run_all(knit_session *s, float out[2 * LOGITS]) {
	run(s, 0, 4, out);
	run(s, 4, 1, out);
	run(s, 5, 2, out);
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	for (size_t t = 0; t < TOKENS; ++t)
		run(s, t, 1, out + LOGITS);
}

static void no_faults(const knit_program *p) {
	char text[200] = "";

	if (p->device->backend == &knit__guard_backend)
		ck_assert_msg(knit__guard_faults(p->device->dev, text, sizeof text) == 0, "%s", text);
}

static uint32_t steps_near(const knit_program *p) {
	const knit_schedule *const s = p->buckets[0].schedule;
	uint32_t count = 0;

	for (uint32_t i = 0; i < s->step_count; ++i)
		count += !(s->steps[i].kernel & KNIT_SPLIT_SETTLED_FAR);
	return count;
}

START_TEST(the_same_bits_at_every_budget) {
	static float expected[2 * LOGITS], got[2 * LOGITS];
	knit_program *one = compile_on("cpu", 0);
	knit_session *alone = session_of(one);
	uint32_t before = 0, mixed = 0;

	run_all(alone, expected);
	for (size_t i = 0; i < sizeof budgets / sizeof *budgets; ++i) {
		knit_program *p = compile_on("cpu+cpu", budgets[i]);
		knit_session *s = session_of(p), *other = session_of(p);
		const uint32_t near = steps_near(p);
		ck_assert_uint_ge(near, before);
		mixed += near > 0 && near < p->buckets[0].schedule->step_count;
		before = near;
		memset(got, 0xff, sizeof got);
		run(other, 0, 3, got); /* sessions do not touch each other's states */
		run_all(s, got);
		ck_assert_msg(memcmp(got, expected, sizeof got) == 0, "budget %llu: other bits", (unsigned long long)budgets[i]);
		no_faults(p);
		knit_session_destroy(s);
		knit_session_destroy(other);
		knit_program_release(p);
	}
	ck_assert_uint_ge(mixed, 3);
	knit_session_destroy(alone);
	knit_program_release(one);
}
END_TEST

START_TEST(nothing_is_allocated_per_token) {
	static float out[2 * LOGITS];
	knit_program *p = compile_on("cpu+cpu", 45000);
	knit_session *s = session_of(p);
	knit_counters c;

	run_all(s, out);
	knit_session_counters(s, &c);
	ck_assert_uint_eq(c.allocations, 0);
	ck_assert_uint_eq(c.uploads, 0);
	knit_session_destroy(s);
	knit_program_release(p);
}
END_TEST

START_TEST(null_takes_its_part) {
	static float out[2 * LOGITS];
	static const char *const devices[] = {"cpu+null", "null+cpu", "null+null"};

	for (size_t i = 0; i < 3; ++i) {
		knit_program *p = compile_on(devices[i], 45000);
		knit_session *s = session_of(p);
		run(s, 0, 3, out);
		no_faults(p);
		knit_session_destroy(s);
		knit_program_release(p);
	}
}
END_TEST

/* ---- threads ----------------------------------------------------------------------------------------------------- */

typedef struct worker {
	knit_program *program;
	pthread_t thread;
	float out[2 * LOGITS];
} worker;

static void *work(void *arg) {
	worker *const w = arg;
	knit_session *s = session_of(w->program);

	run_all(s, w->out);
	knit_session_destroy(s);
	return NULL;
}

/* Sessions share weights, which the first plan that needs them brings to a side. */
START_TEST(sessions_in_threads) {
	static worker workers[3];
	knit_program *p = compile_on("cpu+cpu", 45000);

	for (size_t i = 0; i < 3; ++i) {
		workers[i].program = p;
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (size_t i = 0; i < 3; ++i)
		ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
	for (size_t i = 1; i < 3; ++i)
		ck_assert_mem_eq(workers[i].out, workers[0].out, sizeof workers[0].out);
	no_faults(p);
	knit_program_release(p);
}
END_TEST

/* ---- times ------------------------------------------------------------------------------------------------------- */

START_TEST(each_step_has_its_time) {
	static float out[2 * LOGITS];
	static knit_step_time times[256];

	setenv("KNIT_TIMES", "1", 1);
	knit_program *p = compile_on("cpu+cpu", 45000);
	unsetenv("KNIT_TIMES");
	knit_session *s = session_of(p);
	run_all(s, out);
	const size_t count = knit__session_times(s, times, 256);
	ck_assert_uint_eq(count, p->buckets[0].schedule->step_count);
	ck_assert_uint_eq(knit__session_times(s, NULL, 0), count);
	ck_assert_uint_eq(knit__session_times(s, times, 3), count);
	for (size_t i = 0; i < count; ++i)
		ck_assert_uint_eq(times[i].step, i);
	knit_session_destroy(s);
	knit_program_release(p);
}
END_TEST

/* ---- states ------------------------------------------------------------------------------------------------------ */

/* From a split to one device and back to another split: a context is the same wherever it lies. */
START_TEST(states_go_through_files) {
	static float expected[LOGITS], got[LOGITS];
	char path[] = "/tmp/knit-split-XXXXXX";
	static const struct { const char *device; uint64_t budget; } list[] = {{"cpu+cpu", 45000}, {"cpu", 0}, {"cpu+cpu", 35000}};
	knit_session *s = NULL;
	knit_program *p = compile_on("cpu", 0);

	close(mkstemp(path));
	s = session_of(p);
	run(s, 0, 4, expected);
	run(s, 4, 3, expected);
	knit_session_destroy(s);
	knit_program_release(p);
	for (size_t i = 0; i + 1 < sizeof list / sizeof *list; ++i) {
		int64_t used[1] = {4}, back[1] = {0};
		p = compile_on(list[i].device, list[i].budget);
		s = session_of(p);
		run(s, 0, 4, got);
		ck_assert_int_eq(knit_session_save_states(s, path, used, 1, NULL, 0), KNIT_OK);
		knit_session_destroy(s);
		knit_program_release(p);
		p = compile_on(list[i + 1].device, list[i + 1].budget);
		s = session_of(p);
		ck_assert_int_eq(knit_session_load_states(s, path, back, 1, NULL, NULL), KNIT_OK);
		ck_assert_int_eq(back[0], 4);
		run(s, 4, 3, got);
		ck_assert_mem_eq(got, expected, sizeof got);
		knit_session_destroy(s);
		knit_program_release(p);
	}
	unlink(path);
}
END_TEST

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

enum { STEPS = 5 };

static void adapted(knit_session *s, float *out) {
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	ck_assert_int_eq(adapter_model_run(s, STEPS, ids, zeros, rising, out), KNIT_OK);
}

static knit_program *adapter_program(knit_graph *g, const char *device, uint64_t budget) {
	const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, ADAPTER_TOKENS}};
	const knit_compile_desc desc = {.device = device, .buckets = buckets, .bucket_count = 2,
	                                .device_memory = budget};
	knit_program *p = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_compile(g, &desc, &p, &d) == KNIT_OK, "%s", d.text);
	return p;
}

START_TEST(adapters_are_exchanged) {
	static float expected[3][STEPS * ADAPTER_VOCAB], got[STEPS * ADAPTER_VOCAB];
	knit_weights *base = adapter_model_base(ctx, KNIT_F32);
	knit_weights *const sets[2] = {adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f), adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f)};
	const adapter_model m = {.mode = ADAPTER_BOUND, .base = base, .adapter = sets[0]};
	knit_diag d = {0};
	knit_graph *g = adapter_model_graph(ctx, &m, &d);

	ck_assert_msg(g != NULL, "%s", d.text);
	for (int split = 0; split < 4; ++split) {
		knit_program *p = adapter_program(g, split ? "cpu+cpu" : "cpu", split ? (uint64_t)split * 50000 : 0);
		knit_session *s = session_of(p);
		knit_adapter_set *a = NULL;
		knit_counters before, after;
		ck_assert_msg(knit_adapter_open(p, sets[1], &a, &d) == KNIT_OK, "%s", d.text);
		for (int i = 0; i < 3; ++i) {
			ck_assert_int_eq(knit_session_bind_adapter(s, i == 1 ? a : NULL), KNIT_OK);
			adapted(s, split ? got : expected[i]);
			if (split)
				ck_assert_mem_eq(got, expected[i], sizeof got);
		}
		ck_assert_mem_eq(expected[0], expected[2], sizeof expected[0]);
		ck_assert_int_ne(memcmp(expected[0], expected[1], sizeof expected[0]), 0);
		/* The second time pointers are all that is exchanged. */
		knit_session_counters(s, &before);
		ck_assert_int_eq(knit_session_bind_adapter(s, a), KNIT_OK);
		knit_session_counters(s, &after);
		ck_assert_uint_eq(after.allocations, before.allocations);
		no_faults(p);
		knit_session_destroy(s);
		knit_adapter_release(a);
		knit_program_release(p);
	}
	knit_graph_destroy(g);
	knit_weights_release(base);
	knit_weights_release(sets[0]);
	knit_weights_release(sets[1]);
}
END_TEST

START_TEST(slots_are_filled) {
	static float expected[STEPS * ADAPTER_VOCAB], got[STEPS * ADAPTER_VOCAB];
	static const int32_t which[ADAPTER_SEQUENCES] = {1};
	knit_weights *base = adapter_model_base(ctx, KNIT_F32), *set = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	const adapter_model m = {.mode = ADAPTER_SLOTS, .base = base, .slots = 3};
	knit_diag d = {0};
	knit_graph *g = adapter_model_graph(ctx, &m, &d);

	ck_assert_msg(g != NULL, "%s", d.text);
	for (int split = 0; split < 4; ++split) {
		knit_program *p = adapter_program(g, split ? "cpu+cpu" : "cpu", split ? (uint64_t)split * 50000 : 0);
		knit_session *s = session_of(p);
		ck_assert_int_eq(knit_session_fill_adapter_slot(s, 1, set), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "adapter_of_sequence", which, sizeof which), KNIT_OK);
		adapted(s, split ? got : expected);
		if (split)
			ck_assert_mem_eq(got, expected, sizeof got);
		no_faults(p);
		knit_session_destroy(s);
		knit_program_release(p);
	}
	knit_graph_destroy(g);
	knit_weights_release(base);
	knit_weights_release(set);
}
END_TEST

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static void refused(const char *device, uint64_t budget, knit_status expected, const char *part) {
	knit_program *p = NULL;
	knit_diag d = {0};

	ck_assert_int_eq(knit_compile(graph, &(knit_compile_desc){.device = device, .device_memory = budget}, &p, &d), expected);
	ck_assert(p == NULL);
	ck_assert_msg(strstr(d.text, part) != NULL, "%s", d.text);
}

START_TEST(ids_of_splits) {
	knit_opened *a, *b, *c;

	refused("cpu", 1000, KNIT_ERR_ARGUMENT, "vulkan+cpu");
	refused(NULL, 1000, KNIT_ERR_ARGUMENT, "vulkan+cpu");
	refused("cpu+", 0, KNIT_ERR_NOT_FOUND, "two joined by +");
	refused("+cpu", 0, KNIT_ERR_NOT_FOUND, "two joined by +");
	refused("cpu+tpu", 0, KNIT_ERR_NOT_FOUND, "cpu+tpu");
	refused("cpu+cpu+cpu", 0, KNIT_ERR_NOT_FOUND, "two joined by +");
	ck_assert_int_eq(knit__device_open_within(ctx, "cpu+null", 4096, &a, NULL), KNIT_OK);
	ck_assert_int_eq(knit__device_open_within(ctx, "cpu:0+null", 4096, &b, NULL), KNIT_OK);
	ck_assert_int_eq(knit__device_open(ctx, "cpu+null", &c, NULL), KNIT_OK);
	ck_assert_ptr_eq(a, b);
	ck_assert_ptr_ne(a, c);
	ck_assert_str_eq(a->id, "cpu+null");
	ck_assert_uint_eq(a->memory_budget, 4096);
	ck_assert_uint_eq(c->memory_budget, UINT64_MAX); /* neither says what it has */
}
END_TEST

int main(void) {
	const TTest *const tests[] = {the_same_bits_at_every_budget,
	                              nothing_is_allocated_per_token,
	                              null_takes_its_part,
	                              sessions_in_threads,
	                              each_step_has_its_time,
	                              states_go_through_files,
	                              adapters_are_exchanged,
	                              slots_are_filled,
	                              ids_of_splits};
	Suite *s = suite_create("split");
	TCase *t = tcase_create("split");

	tcase_set_timeout(t, 250);
	tcase_add_checked_fixture(t, setup, teardown);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
