/* knit on one device, measured through the decoder that `knit run` uses. */
#include "clock.h"
#include "stats.h"
#include "subject.h"

#include "../frontends/models/decoder.h"
#include "../frontends/models/load.h"
#include "../graph/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_BATCH = 512 };

typedef struct knit_subject {
	bench_subject base;
	knit_context *ctx;
	knit__model model;
	knit__decoder decoder;
	int64_t batch;
	int64_t held; /* positions whose keys and values are in the slots */
	int32_t *ids, *seq, *pos;
	float *logits;
	uint64_t state; /* of the made-up prompt */
} knit_subject;

/* Reads `count` made-up tokens from position `at` on; logits of the last. */
static knit_status feed(knit_subject *s, int64_t at, int64_t count, knit_diag *diag) {
	knit_status status = KNIT_OK;

	for (int64_t done = 0; done < count && status == KNIT_OK;) {
		const int64_t n = count - done < s->batch ? count - done : s->batch;
		const int32_t last = (int32_t)(n - 1);
		for (int64_t i = 0; i < n; ++i) {
			s->state = s->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			s->ids[i] = (int32_t)((s->state >> 33) % (uint64_t)s->decoder.vocab);
			s->seq[i] = 0;
			s->pos[i] = (int32_t)(at + done + i);
		}
		status = knit__decoder_step(&s->decoder, s->ids, s->seq, s->pos, (size_t)n, &last, 1, s->logits, diag);
		done += n;
	}
	return status;
}

/* Positions beyond `depth` may hold what an earlier test left: they are written before they are read. */
static knit_status reach(knit_subject *s, int64_t depth, knit_diag *diag) {
	const knit_status status = s->held < depth ? feed(s, s->held, depth - s->held, diag) : KNIT_OK;

	if (status == KNIT_OK && s->held < depth)
		s->held = depth;
	return status;
}

static knit_status run(bench_subject *subject, const bench_test *test, double *out, size_t cap, size_t *count,
                       knit_diag *diag) {
	knit_subject *const s = (knit_subject *)subject;
	knit_status status = reach(s, test->depth, diag);

	*count = 0;
	if (status != KNIT_OK || cap == 0)
		return status;
	const double begin = bench_now();
	if (test->prompt)
		status = feed(s, test->depth, test->prompt, diag);
	for (int64_t i = 0; i < test->made && status == KNIT_OK; ++i)
		status = feed(s, test->depth + i, 1, diag);
	out[0] = bench_now() - begin;
	*count = status == KNIT_OK;
	return status;
}

void bench_knit_let_go(bench_subject *subject) {
	knit_subject *const s = (knit_subject *)subject;

	knit__decoder_close(&s->decoder);
	knit__model_unload(&s->model);
	knit_context_destroy(s->ctx);
	s->decoder = (knit__decoder){0};
	s->model = (knit__model){0};
	s->ctx = NULL;
}

static void subject_close(bench_subject *subject) {
	knit_subject *const s = (knit_subject *)subject;

	if (!s)
		return;
	bench_knit_let_go(subject);
	free(s->ids);
	free(s->seq);
	free(s->pos);
	free(s->logits);
	free(s);
}

static const bench_subject_kind kind = {run, subject_close};

static knit_status open_decoder(knit_subject *s, const bench_knit_desc *desc, knit_diag *diag) {
	const knit_dtype kv = desc->kv ? desc->kv : KNIT_F16;
	const knit__decoder_desc wanted = {
		.config = &s->model.config,
		.base = s->model.file.store,
		.adapters = s->model.adapters,
		.positions = desc->max_depth + s->batch,
		.max_tokens = s->batch,
		.kv = kv,
		.kv_k = kv,
		.kv_v = kv,
		.device = desc->device,
		.device_memory = desc->device_memory,
	};

	knit_status status = knit__decoder_open(s->ctx, &wanted, &s->decoder, diag);
	if (status != KNIT_OK)
		return status;
	s->ids = calloc((size_t)s->batch, sizeof *s->ids);
	s->seq = calloc((size_t)s->batch, sizeof *s->seq);
	s->pos = calloc((size_t)s->batch, sizeof *s->pos);
	s->logits = calloc((size_t)s->decoder.vocab, sizeof *s->logits);
	return s->ids && s->seq && s->pos && s->logits ? KNIT_OK : knit__fail_memory(diag, "the bench", (uint64_t)s->batch * 12);
}

/* Device, memory and, where it is wanted, the driver. */
static void describe(knit_subject *s, bool named) {
	const char *const id = knit_program_device(s->decoder.program);
	knit_device_info list[32];
	size_t count = 0;

	snprintf(s->base.device, sizeof s->base.device, "%.60s", id);
	s->base.on_host = strncmp(id, "cpu", 3) == 0 && strchr(id, '+') == NULL; /* not "cpu+vulkan:0" */
	(void)knit_program_memory(s->decoder.program, &s->base.memory);
	if (!named || knit_devices(s->ctx, list, sizeof list / sizeof *list, &count) != KNIT_OK)
		return;
	for (size_t i = 0; i < count && i < sizeof list / sizeof *list; ++i)
		if (strcmp(list[i].id, id) == 0)
			snprintf(s->base.driver, sizeof s->base.driver, "%.60s; %.90s", list[i].name, list[i].detail);
}

knit_status bench_knit_open(const bench_knit_desc *desc, bench_subject **out, knit_diag *diag) {
	const knit_context_desc host = {.cpu_threads = desc->threads};
	knit_subject *const s = calloc(1, sizeof *s);
	const double begin = bench_now();

	*out = NULL;
	if (!s)
		return knit__fail_memory(diag, "the bench", sizeof *s);
	s->base.kind = &kind;
	s->batch = desc->batch ? desc->batch : DEFAULT_BATCH;
	s->state = 1;
	knit_status status = knit_context_create(&host, &s->ctx);
	const knit__model_desc model = {.path = desc->path,
	                                .visits = desc->visits,
	                                .loops = desc->loops,
	                                .no_adapter = desc->no_adapter,
	                                /* not used here, but it belongs to loading, as the search for NaN does */
	                                .tokenizer = KNIT__TOKENIZER_IF_THERE};
	if (status == KNIT_OK)
		status = knit__model_load(s->ctx, &model, &s->model, diag);
	if (status == KNIT_OK)
		status = open_decoder(s, desc, diag);
	if (status != KNIT_OK) {
		subject_close(&s->base);
		return status;
	}
	s->base.load_seconds = bench_now() - begin;
	describe(s, !desc->unnamed);
	snprintf(s->base.name, sizeof s->base.name, "knit %s", desc->device ? desc->device : "best");
	snprintf(s->base.version, sizeof s->base.version, "knit %d.%d.%d", KNIT_VERSION_MAJOR, KNIT_VERSION_MINOR,
	         KNIT_VERSION_PATCH);
	*out = &s->base;
	return KNIT_OK;
}

const knit_program *bench_knit_program(const bench_subject *s) {
	return s->kind == &kind ? ((const knit_subject *)s)->decoder.program : NULL;
}

const knit_session *bench_knit_session(const bench_subject *s) {
	return s->kind == &kind ? ((const knit_subject *)s)->decoder.session : NULL;
}

int64_t bench_knit_vocab(const bench_subject *s) { return ((const knit_subject *)s)->decoder.vocab; }

knit_status bench_knit_first_token(bench_subject *subject, int warm_runs, knit_diag *diag) {
	knit_subject *const s = (knit_subject *)subject;
	double seconds[1 + BENCH_WARM_RUNS] = {0};

	warm_runs = warm_runs < BENCH_WARM_RUNS ? warm_runs : BENCH_WARM_RUNS;

	for (int i = 0; i < 1 + warm_runs; ++i) {
		const double begin = bench_now();
		const knit_status status = feed(s, 0, BENCH_FIRST_PROMPT, diag);
		if (status != KNIT_OK)
			return status;
		seconds[i] = bench_now() - begin;
	}
	subject->first_cold = seconds[0];
	if (warm_runs > 0) {
		bench_sort(seconds + 1, (size_t)warm_runs);
		subject->first_warm = seconds[1 + warm_runs / 2];
	}
	s->held = s->held < BENCH_FIRST_PROMPT ? BENCH_FIRST_PROMPT : s->held;
	return KNIT_OK;
}

knit_status bench_knit_logits(bench_subject *subject, const int32_t *ids, size_t count, size_t from, float *logits,
                              knit_diag *diag) {
	knit_subject *const s = (knit_subject *)subject;
	knit_status status = KNIT_OK;

	for (size_t done = 0; done < count && status == KNIT_OK;) {
		const size_t most = done <= from ? from + 1 - done : 1;
		const size_t n = most < (size_t)s->batch ? most : (size_t)s->batch;
		const int32_t last = (int32_t)(n - 1);
		for (size_t i = 0; i < n; ++i) {
			s->seq[i] = 0;
			s->pos[i] = (int32_t)(done + i);
		}
		status = knit__decoder_step(&s->decoder, ids + done, s->seq, s->pos, n, &last, 1, s->logits, diag);
		done += n;
		if (status == KNIT_OK && done > from)
			memcpy(logits + (done - 1 - from) * (size_t)s->decoder.vocab, s->logits, (size_t)s->decoder.vocab * sizeof *logits);
	}
	s->held = 0; /* other tokens than the made-up ones are there now */
	return status;
}

knit_status bench_knit_step(bench_subject *s, int64_t at, int64_t count, knit_diag *diag) {
	return feed((knit_subject *)s, at, count, diag);
}

knit_status bench_knit_reach(bench_subject *s, int64_t depth, knit_diag *diag) { return reach((knit_subject *)s, depth, diag); }
