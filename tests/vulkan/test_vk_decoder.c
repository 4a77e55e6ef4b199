/* Tests whole decoders on the Vulkan backend: every barrier of a decode and a prefill plan is needed, a token costs one
 * submit and little of the host's time, prefill and decode and several sessions share what they should. */
#include "../../backends/session_impl.h"
#include "../../backends/vulkan/vk_plan.h"
#include "../tools/adapter_model.h"
#include "../tools/model_run.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};
static const int32_t ids[SMALL_TOKENS] = {1, 5, 9, 23, 0, 7, 7, 2}, zeros[SMALL_TOKENS];
static const int32_t rising[SMALL_TOKENS] = {0, 1, 2, 3, 4, 5, 6, 7};

typedef struct small_run {
	knit_context *ctx;
	knit_weights *weights;
	knit_graph *graph;
	knit_program *program;
	knit_session *session;
} small_run;

static void small_open(small_run *r, const char *device) {
	knit_diag d = {0};

	*r = (small_run){0};
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.log = vulkan_say}, &r->ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(r->ctx, &r->weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(r->ctx, r->weights, &r->graph), KNIT_OK);
	const knit_compile_desc desc = {.device = device, .buckets = decode_prefill, .bucket_count = 2};
	ck_assert_msg(knit_compile(r->graph, &desc, &r->program, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit_session_create(r->program, &r->session, &d) == KNIT_OK, "%s", d.text);
}

static void small_close(small_run *r) {
	knit_session_destroy(r->session);
	knit_program_release(r->program);
	knit_graph_destroy(r->graph);
	knit_weights_release(r->weights);
	knit_context_destroy(r->ctx);
}

static void run_logits(knit_session *s, size_t tokens, const int32_t *what, const int32_t *seq, const int32_t *pos,
                       float *out) {
	knit_diag d;

	ck_assert_int_eq(knit_session_set(s, "tokens", (int64_t)tokens), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "ids", what, tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "seq", seq, tokens * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "pos", pos, tokens * 4), KNIT_OK);
	const knit_status status = knit_session_run(s);
	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit_session_read(s, "logits", out, tokens * SMALL_VOCAB * sizeof(float)), KNIT_OK);
}

static void same(const float *a, const float *b, size_t rows) {
	for (size_t i = 0; i < rows * SMALL_VOCAB; ++i)
		ck_assert_msg(fabsf(a[i] - b[i]) < 1e-4f, "logit %zu: %g and %g", i, (double)a[i], (double)b[i]);
}

static const knit_vk_counters *counters_of(const knit_program *p) { return knit__vk_counters(p->device->dev); }

/* ---- barriers ---------------------------------------------------------------------------------------------------- */

/* A session whose plans are recorded without barrier k; how many messages validation had about that. */
static uint64_t record_without(small_run *r, uint32_t bucket, uint32_t k) {
	const uint64_t before = knit__vk_messages();
	knit_session *s = NULL;
	char number[16];
	knit_diag d = {0};

	snprintf(number, sizeof number, "%u", k);
	setenv("KNIT_VK_SKIP_BARRIER", number, 1);
	ck_assert_msg(knit_session_create(r->program, &s, &d) == KNIT_OK, "%s", d.text);
	unsetenv("KNIT_VK_SKIP_BARRIER");
	ck_assert_int_eq(knit__vk_barrier_check(s->plans[bucket], &d), KNIT_ERR_INTERNAL);
	knit_session_destroy(s);
	return knit__vk_messages() - before;
}

/* Validation speaks while commands are recorded, so nothing has to run. */
START_TEST(each_barrier_of_a_decoder_is_missed) {
	small_run r;

	if (!vulkan_present())
		return;
	const uint64_t before = knit__vk_messages();
	small_open(&r, "vulkan");
	ck_assert_uint_eq(knit__vk_messages(), before);
	for (uint32_t bucket = 0; bucket < 2; ++bucket) {
		const knit_plan *const plan = r.session->plans[bucket];
		uint32_t reported = 0;

		ck_assert_int_eq(knit__vk_barrier_check(plan, NULL), KNIT_OK);
		ck_assert_uint_ge(plan->barrier_count, 10);
		vulkan_quiet = true;
		for (uint32_t k = 0; k < plan->barrier_count; ++k)
			reported += record_without(&r, bucket, k) > 0;
		vulkan_quiet = false;
		printf("%s: %u steps, %u dispatches, %u barriers; synchronization validation noticed that %u were left out\n",
		       bucket ? "prefill" : "decode", plan->step_count, plan->work_count, plan->barrier_count, reported);
		if (plan->dev->host.validation == KNIT_VK_VALIDATE_SYNC)
			ck_assert_uint_eq(reported, plan->barrier_count);
	}
	small_close(&r);
}
END_TEST

/* ---- runs -------------------------------------------------------------------------------------------------------- */

/* Prefill and decode in turn on one session, against the CPU. */
START_TEST(prefill_and_decode_take_turns) {
	static const size_t tokens[] = {1, 4, 1, 1, 3, 2, 1};
	float got[SMALL_TOKENS * SMALL_VOCAB], want[SMALL_TOKENS * SMALL_VOCAB];
	int32_t pos[SMALL_TOKENS];
	small_run gpu, cpu;
	int32_t at = 0;

	if (!vulkan_present())
		return;
	const uint64_t before = knit__vk_messages();
	small_open(&gpu, "vulkan");
	small_open(&cpu, "cpu");
	for (size_t i = 0; i < sizeof tokens / sizeof *tokens; ++i) {
		for (size_t t = 0; t < tokens[i]; ++t)
			pos[t] = at++;
		run_logits(gpu.session, tokens[i], ids, zeros, pos, got);
		run_logits(cpu.session, tokens[i], ids, zeros, pos, want);
		same(got, want, tokens[i]);
	}
	ck_assert_int_eq(knit_session_reset_states(gpu.session), KNIT_OK);
	ck_assert_int_eq(knit_session_reset_states(cpu.session), KNIT_OK);
	run_logits(gpu.session, 1, ids, zeros, zeros, got);
	run_logits(cpu.session, 1, ids, zeros, zeros, want);
	same(got, want, 1);
	small_close(&gpu);
	small_close(&cpu);
	ck_assert_uint_eq(knit__vk_messages(), before);
}
END_TEST

/* Two sessions of one program, interleaved: each gets what it gets alone, and the second makes no pipeline and no
 * weight. */
START_TEST(sessions_do_not_meet) {
	float alone[2][4][SMALL_VOCAB], got[SMALL_VOCAB];
	knit_session *second = NULL;
	small_run r;

	if (!vulkan_present())
		return;
	small_open(&r, "vulkan");
	for (int s = 0; s < 2; ++s) {
		ck_assert_int_eq(knit_session_reset_states(r.session), KNIT_OK);
		for (int t = 0; t < 4; ++t)
			run_logits(r.session, 1, &ids[s * 4 + t], zeros, &rising[t], alone[s][t]);
	}
	ck_assert_int_eq(knit_session_reset_states(r.session), KNIT_OK);
	const uint64_t pipelines = counters_of(r.program)->pipelines;
	ck_assert_int_eq(knit_session_create(r.program, &second, NULL), KNIT_OK);
	ck_assert_uint_eq(counters_of(r.program)->pipelines, pipelines);
	for (uint32_t i = 0; i < r.program->buffer_count; ++i)
		if (r.program->weights[i])
			ck_assert_ptr_eq(second->buffers[i], r.session->buffers[i]);
	for (int t = 0; t < 4; ++t) {
		run_logits(r.session, 1, &ids[t], zeros, &rising[t], got);
		ck_assert_int_eq(memcmp(got, alone[0][t], sizeof got), 0);
		run_logits(second, 1, &ids[4 + t], zeros, &rising[t], got);
		ck_assert_int_eq(memcmp(got, alone[1][t], sizeof got), 0);
	}
	knit_session_destroy(second);
	small_close(&r);
}
END_TEST

typedef struct thread_run {
	knit_program *program;
	int32_t first;
	float logits[6][SMALL_VOCAB];
} thread_run;

static void *decode_alone(void *arg) {
	thread_run *const t = arg;
	knit_session *s = NULL;

	if (knit_session_create(t->program, &s, NULL) != KNIT_OK)
		return NULL;
	for (int i = 0; i < 6; ++i) {
		const int32_t id = (t->first + i) % SMALL_VOCAB;
		bool ok = knit_session_set(s, "tokens", 1) == KNIT_OK && knit_session_write(s, "ids", &id, 4) == KNIT_OK &&
		          knit_session_write(s, "seq", zeros, 4) == KNIT_OK;
		ok = ok && knit_session_write(s, "pos", &rising[i], 4) == KNIT_OK && knit_session_run(s) == KNIT_OK;
		ok = ok && knit_session_read(s, "logits", t->logits[i], sizeof t->logits[i]) == KNIT_OK;
		if (!ok)
			break;
		t->program = i == 5 ? NULL : t->program; /* done */
	}
	knit_session_destroy(s);
	return NULL;
}

/* Two threads make sessions, plans and pipelines and run them at once. */
START_TEST(sessions_run_at_once) {
	thread_run alone = {.first = 3}, runs[2] = {{.first = 3}, {.first = 3}};
	pthread_t threads[2];
	small_run r;

	if (!vulkan_present())
		return;
	small_open(&r, "vulkan");
	for (int i = 0; i < 2; ++i) {
		runs[i].program = r.program;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, decode_alone, &runs[i]), 0);
	}
	for (int i = 0; i < 2; ++i)
		pthread_join(threads[i], NULL);
	alone.program = r.program;
	decode_alone(&alone);
	ck_assert_ptr_null(alone.program);
	for (int i = 0; i < 2; ++i) {
		ck_assert_ptr_null(runs[i].program);
		ck_assert_int_eq(memcmp(runs[i].logits, alone.logits, sizeof alone.logits), 0);
	}
	small_close(&r);
}
END_TEST

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* Another adapter bound, and the program's own again: what the CPU computes with it; no allocation, no pipeline. */
START_TEST(adapters_are_bound_anew) {
	static const char *const devices[] = {"cpu", "vulkan"};
	float logits[2][3][ADAPTER_VOCAB];
	knit_diag d = {0};

	if (!vulkan_present())
		return;
	for (int i = 0; i < 2; ++i) {
		knit_adapter_set *set = NULL;
		knit_session *s = NULL;
		knit_context *ctx = NULL;

		ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
		const adapter_model m = {.mode = ADAPTER_BOUND,
		                         .base = adapter_model_base(ctx, KNIT_F32),
		                         .adapter = adapter_model_adapter(ctx, KNIT_F32, 1, 1.0f)};
		knit_weights *const other = adapter_model_adapter(ctx, KNIT_F32, 2, 1.0f);
		knit_program *const p = adapter_model_compile(ctx, &m, devices[i], NULL, &d);
		ck_assert_msg(p && knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
		ck_assert_msg(knit_adapter_open(p, other, &set, &d) == KNIT_OK, "%s", d.text);
		for (int run = 0; run < 3; ++run) {
			const knit_vk_counters before = i ? *counters_of(p) : (knit_vk_counters){0};
			if (run > 0)
				ck_assert_int_eq(knit_session_bind_adapter(s, run == 1 ? set : NULL), KNIT_OK);
			ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
			ck_assert_int_eq(adapter_model_run(s, 1, ids, zeros, zeros, logits[i][run]), KNIT_OK);
			if (i && run > 0) {
				ck_assert_uint_gt(counters_of(p)->descriptor_writes, before.descriptor_writes);
				ck_assert_uint_eq(counters_of(p)->allocations, before.allocations);
				ck_assert_uint_eq(counters_of(p)->pipelines, before.pipelines);
				ck_assert_uint_le(counters_of(p)->records, before.records + 1); /* of the bucket that ran */
			}
		}
		knit_session_destroy(s);
		knit_adapter_release(set);
		knit_program_release(p);
		knit_weights_release(other);
		knit_weights_release(m.adapter);
		knit_weights_release(m.base);
		knit_context_destroy(ctx);
	}
	for (int run = 0; run < 3; ++run)
		ck_assert(test_largest_difference(logits[0][run], logits[1][run], ADAPTER_VOCAB) < 1e-4);
	ck_assert(test_largest_difference(logits[1][0], logits[1][1], ADAPTER_VOCAB) > 1e-2);
	ck_assert_int_eq(memcmp(logits[1][0], logits[1][2], sizeof logits[1][0]), 0);
}
END_TEST

/* ---- the host's work --------------------------------------------------------------------------------------------- */

static uint64_t cpu_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Thirty layers, decoded token by token: one submit each and nothing else, and the host works less than 100 us on it. */
START_TEST(a_token_costs_one_submit_and_little_time) {
	enum { TOKENS = 40, WARM = 4 };
	char path[4096], visits[128] = "";
	const knit__decoder_desc desc = {.positions = 64, .kv = KNIT_F16, .device = "vulkan"};
	uint64_t least = UINT64_MAX, sum = 0;
	const char *const validate = getenv("KNIT_VK_VALIDATE");
	char kept[16] = "";
	model_run r;

	if (!test_data(KNIT_TEST_DATA, "models/gguf/stories260K-f32.gguf", path, sizeof path))
		return;
	snprintf(kept, sizeof kept, "%s", validate ? validate : "");
	setenv("KNIT_VK_VALIDATE", "0", 1); /* its time would be counted */
	if (vulkan_present()) {
		for (int i = 0; i < 30; ++i)
			snprintf(visits + strlen(visits), sizeof visits - strlen(visits), "%s%d", i ? "," : "", i % 5);
		model_run_open(&r, &(knit__model_desc){.path = path, .visits = visits}, desc, 1);
		const knit_vk_counters *const now = counters_of(r.decoder.program);
		knit_vk_counters before = {0};
		float *const logits = malloc((size_t)r.decoder.vocab * sizeof *logits);
		for (int32_t t = 0; t < TOKENS; ++t) {
			const int32_t id = 1 + t, row = 0, seq = 0;
			if (t == WARM)
				before = *now;
			const uint64_t start = cpu_ns();
			ck_assert_int_eq(knit__decoder_step(&r.decoder, &id, &seq, &t, 1, &row, 1, logits, NULL), KNIT_OK);
			const uint64_t took = cpu_ns() - start;
			sum += t >= WARM ? took : 0;
			least = t >= WARM && took < least ? took : least;
		}
		const knit_plan *const plan = r.decoder.session->plans[0];
		ck_assert_uint_eq(now->submits - before.submits, TOKENS - WARM);
		ck_assert_uint_eq(now->records - before.records, 0);
		ck_assert_uint_eq(now->descriptor_writes - before.descriptor_writes, 0);
		ck_assert_uint_eq(now->parameter_writes - before.parameter_writes, 0);
		ck_assert_uint_eq(now->allocations - before.allocations, 0);
		knit_counters session;
		knit_session_counters(r.decoder.session, &session);
		ck_assert_uint_eq(session.allocations, 0);
		printf("30 layers, %u steps, %u dispatches, %u barriers: host %.1f us per token, at least %.1f; of that submit %.1f\n",
		       plan->step_count, plan->work_count, plan->barrier_count, (double)sum / (TOKENS - WARM) / 1e3,
		       (double)least / 1e3, (double)(now->submit_ns - before.submit_ns) / (TOKENS - WARM) / 1e3);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		ck_assert_uint_lt(least, 100000);
#endif
		free(logits);
		model_run_close(&r);
	}
	if (*kept)
		setenv("KNIT_VK_VALIDATE", kept, 1);
	else
		unsetenv("KNIT_VK_VALIDATE");
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		each_barrier_of_a_decoder_is_missed,
		prefill_and_decode_take_turns,
		sessions_do_not_meet,
		sessions_run_at_once,
		adapters_are_bound_anew,
		a_token_costs_one_submit_and_little_time,
	};

	setenv("KNIT_GUARD", "0", 1); /* its plans stand before ours, and tests look inside */
	vulkan_present_checked();
	return suite_run("vulkan/vk_decoder", tests, sizeof tests / sizeof *tests);
}
