/* Where the time of a run goes, from the times that a device keeps of each step when KNIT_TIMES=1. */
#include "profile.h"
#include "clock.h"

#include "../backends/report.h"
#include "../backends/session_impl.h"
#include "../graph/base.h"

#include <stdlib.h>
#include <string.h>

enum { PREFILL_RUNS = 5 };

/* ---- one run ----------------------------------------------------------------------------------------------------- */

/* "linear_group q8_0": the type of the first weight, where a step has one. */
static void name_of(const knit_schedule *s, const knit_step *step, char *out, size_t size) {
	const char *type = NULL;

	for (uint32_t i = 0; i < step->in_count && !type; ++i)
		if (step->in[i].buffer != UINT32_MAX && s->buffers[step->in[i].buffer].use == KNIT_BUFFER_CONST && step->in[i].rank > 1)
			type = knit_dtype_name(step->in[i].dtype);
	snprintf(out, size, "%s%s%s", knit__op(step->op)->name, type ? " " : "", type ? type : "");
}

static bench_profile_kind *kind_of(bench_profile *p, const char *op, const char *parts) {
	for (size_t i = 0; i < p->kind_count; ++i)
		if (strcmp(p->kinds[i].op, op) == 0 && strcmp(p->kinds[i].parts, parts) == 0)
			return &p->kinds[i];
	if (p->kind_count == p->kind_cap) {
		const size_t cap = p->kind_cap ? p->kind_cap * 2 : 32;
		bench_profile_kind *const larger = realloc(p->kinds, cap * sizeof *larger);
		if (!larger)
			return NULL;
		p->kinds = larger;
		p->kind_cap = cap;
	}
	bench_profile_kind *const k = &p->kinds[p->kind_count++];
	*k = (bench_profile_kind){0};
	memcpy(k->op, op, strlen(op) + 1);
	memcpy(k->parts, parts, strlen(parts) + 1);
	return k;
}

static bool trace(bench_profile *p, const bench_trace_step *t) {
	if (p->trace_count == p->trace_cap) {
		const size_t cap = p->trace_cap ? p->trace_cap * 2 : 256;
		bench_trace_step *const larger = realloc(p->trace, cap * sizeof *larger);
		if (!larger)
			return false;
		p->trace = larger;
		p->trace_cap = cap;
	}
	p->trace[p->trace_count++] = *t;
	return true;
}

/* Takes over the times of the session's last run. */
static knit_status add_run(bench_profile *p, const knit_session *session, const knit_step_time *times, size_t count,
                           int64_t context, double begin, knit_diag *diag) {
	const knit_schedule *const s = session->program->buckets[session->run_bucket].schedule;

	for (size_t i = 0; i < count; ++i) {
		if (times[i].step >= s->step_count)
			continue;
		const knit_step *const step = &s->steps[times[i].step];
		bench_trace_step t = {.run = (uint32_t)p->runs, .begin = begin, .seconds = (double)times[i].ns * 1e-9};
		knit_step_cost cost;
		knit__step_cost(s, session->run_symbols, context, step, &cost);
		name_of(s, step, t.name, sizeof t.name);
		snprintf(t.origin, sizeof t.origin, "%s", step->origin ? step->origin : "");
		snprintf(t.parts, sizeof t.parts, "%s", step->parts ? step->parts : "");
		t.flops = cost.flops;
		t.bytes = (double)(cost.read + cost.write);
		bench_profile_kind *const k = kind_of(p, t.name, t.parts);
		if (!k || (p->runs < BENCH_TRACE_RUNS && !trace(p, &t)))
			return knit__fail_memory(diag, "the profile", sizeof t);
		k->seconds[p->runs] += t.seconds;
		if (p->runs == 0) {
			++k->calls;
			k->flops += t.flops;
			k->bytes += t.bytes;
		}
		begin += t.seconds;
	}
	return KNIT_OK;
}

/* ---- one test ---------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *values, size_t count) {
	double sorted[BENCH_PROFILE_RUNS];

	if (count == 0)
		return 0;
	memcpy(sorted, values, count * sizeof *sorted);
	qsort(sorted, count, sizeof *sorted, by_value);
	return sorted[count / 2];
}

static int by_time(const void *a, const void *b) {
	const double x = ((const bench_profile_kind *)a)->median, y = ((const bench_profile_kind *)b)->median;

	return (x < y) - (x > y);
}

static void finish(bench_profile *p) {
	double sums[BENCH_PROFILE_RUNS] = {0};

	for (size_t i = 0; i < p->kind_count; ++i)
		for (size_t k = 0; k < p->runs; ++k)
			sums[k] += p->kinds[i].seconds[k];
	p->wall = median(p->walls, p->runs);
	p->inside = median(sums, p->runs);
	for (size_t i = 0; i < p->kind_count; ++i) {
		p->kinds[i].median = median(p->kinds[i].seconds, p->runs);
		p->steps += p->kinds[i].median;
	}
	if (p->kind_count)
		qsort(p->kinds, p->kind_count, sizeof *p->kinds, by_time);
}

static knit_status run_test(bench_subject *s, const bench_knit_desc *desc, bench_profile *p, knit_step_time *times, size_t cap,
                            knit_diag *diag) {
	const knit_session *const session = bench_knit_session(s);
	const int64_t batch = desc->batch;
	const size_t runs = p->test.prompt ? PREFILL_RUNS
	                    : p->test.made < BENCH_PROFILE_RUNS ? (size_t)p->test.made : BENCH_PROFILE_RUNS;
	double first = 0;

	p->tokens = p->test.prompt ? (p->test.prompt < batch ? p->test.prompt : batch) : 1;
	knit_status status = bench_knit_reach(s, p->test.depth, diag);
	for (int i = 0; i < 2 && status == KNIT_OK; ++i) /* warm */
		status = bench_knit_step(s, p->test.depth, p->tokens, diag);
	for (size_t i = 0; i < runs && status == KNIT_OK; ++i) {
		const int64_t at = p->test.depth + (p->test.prompt ? 0 : (int64_t)i);
		const double begin = bench_now();
		first = i == 0 ? begin : first;
		status = bench_knit_step(s, at, p->tokens, diag);
		p->walls[i] = bench_now() - begin;
		if (status != KNIT_OK)
			break;
		const size_t count = knit__session_times(session, times, cap);
		if (count == 0 || count > cap)
			break; /* the device keeps no times */
		status = add_run(p, session, times, count, at + (p->tokens + 1) / 2, begin - first, diag);
		p->runs += status == KNIT_OK;
	}
	finish(p);
	return status;
}

static size_t most_steps(const knit_program *p) {
	size_t most = 1;

	for (uint32_t i = 0; i < p->bucket_count; ++i)
		most = p->buckets[i].schedule->step_count > most ? p->buckets[i].schedule->step_count : most;
	return most;
}

static knit_status run_tests(bench_subject *s, const bench_knit_desc *desc, const bench_subject *like, const bench_test *tests,
                             size_t count, bench_profile *out, size_t *out_count, knit_diag *diag) {
	const size_t cap = most_steps(bench_knit_program(s));
	knit_step_time *const times = calloc(cap, sizeof *times);
	knit_status status = times ? KNIT_OK : knit__fail_memory(diag, "the profile", cap * sizeof *times);

	for (size_t i = 0; i < count && status == KNIT_OK; ++i) {
		bench_profile *const p = &out[*out_count];
		bench_cost cost;
		*p = (bench_profile){.subject = *like, .test = tests[i]};
		bench_cost_of(bench_knit_program(s), &tests[i], desc->batch, &cost);
		p->int8 = cost.int8;
		p->f16 = cost.f16;
		++*out_count;
		status = run_test(s, desc, p, times, cap, diag);
		if (p->runs == 0) {
			bench_profiles_clear(p, 1);
			--*out_count;
		}
	}
	free(times);
	return status;
}

knit_status bench_profile_run(const bench_knit_desc *desc, const bench_subject *like, const bench_test *tests, size_t count,
                              bench_profile **out, size_t *out_count, knit_diag *diag) {
	const char *const before = getenv("KNIT_TIMES");
	char *const kept = before ? strdup(before) : NULL;
	bench_subject *s = NULL;
	bench_profile *const profiles = calloc(count ? count : 1, sizeof *profiles);

	*out = NULL;
	*out_count = 0;
	if (!profiles) {
		free(kept);
		return knit__fail_memory(diag, "the profile", count * sizeof *profiles);
	}
	setenv("KNIT_TIMES", "1", 1);
	knit_status status = bench_knit_open(desc, &s, diag);
	if (kept)
		setenv("KNIT_TIMES", kept, 1);
	else
		unsetenv("KNIT_TIMES");
	free(kept);
	if (status == KNIT_OK)
		status = run_tests(s, desc, like, tests, count, profiles, out_count, diag);
	if (s)
		s->kind->close(s);
	if (status != KNIT_OK) {
		bench_profiles_clear(profiles, *out_count);
		free(profiles);
		*out_count = 0;
		return status;
	}
	*out = profiles;
	return KNIT_OK;
}

void bench_profiles_clear(bench_profile *profiles, size_t count) {
	for (size_t i = 0; i < count; ++i) {
		free(profiles[i].kinds);
		free(profiles[i].trace);
		profiles[i].kinds = NULL;
		profiles[i].trace = NULL;
	}
}
