/* A profile as a table, a line of JSON, and a Chrome trace. */
#include "profile.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <string.h>

double bench_profile_of_peak(const bench_run *run, const bench_profile *p, const bench_profile_kind *k) {
	const double read = bench_read_peak(run, &p->subject), compute = bench_compute_peak(run, &p->subject, p->int8, p->f16);
	const double memory = read > 0 && k->median > 0 ? k->bytes / k->median * 1e-9 / read : 0;
	const double math = compute > 0 && k->median > 0 ? k->flops / k->median * 1e-9 / compute : 0;

	return memory > math ? memory : math;
}

static void row(FILE *f, bool markdown, const char *const cells[9]) {
	if (markdown) {
		for (int i = 0; i < 9; ++i)
			fprintf(f, "| %s ", cells[i]);
		fputs("|\n", f);
		return;
	}
	fprintf(f, "%-24s %5s %10s %10s %7s %8s %9s %8s  %s\n", cells[0], cells[2], cells[3], cells[4], cells[5], cells[6],
	        cells[7], cells[8], cells[1]);
}

void bench_profile_print(FILE *f, const bench_run *run, const bench_profile *p, bool markdown) {
	static const char *const titles[9] = {"step", "made of", "calls", "us", "us each", "share", "GB/s", "GFLOP/s", "of peak"};
	char name[48], text[9][40];

	bench_test_name(&p->test, name);
	fprintf(f, "\n%sprofile of %s, %s: one run of %" PRId64 " token%s takes %.0f us, %.0f of them in steps (medians of %zu runs)\n%s",
	        markdown ? "- " : "", name, p->subject.name, p->tokens, p->tokens == 1 ? "" : "s", p->wall * 1e6, p->inside * 1e6,
	        p->runs, markdown ? "\n" : "");
	row(f, markdown, titles);
	if (markdown)
		fputs("|---|---|---:|---:|---:|---:|---:|---:|---:|\n", f);
	for (size_t i = 0; i < p->kind_count; ++i) {
		const bench_profile_kind *const k = &p->kinds[i];
		const double share = p->steps > 0 ? k->median / p->steps : 0, peak = bench_profile_of_peak(run, p, k);
		snprintf(text[2], 40, "%zu", k->calls);
		snprintf(text[3], 40, "%.1f", k->median * 1e6);
		snprintf(text[4], 40, "%.2f", k->median / (double)k->calls * 1e6);
		snprintf(text[5], 40, "%.1f %%", share * 100);
		snprintf(text[6], 40, "%.1f", k->median > 0 ? k->bytes / k->median * 1e-9 : 0);
		snprintf(text[7], 40, "%.1f", k->median > 0 ? k->flops / k->median * 1e-9 : 0);
		if (peak > 0)
			snprintf(text[8], 40, "%.0f %%", peak * 100);
		else
			snprintf(text[8], 40, "-");
		row(f, markdown, (const char *const[]){k->op, k->parts, text[2], text[3], text[4], text[5], text[6], text[7], text[8]});
	}
}

static void print_json(FILE *f, cJSON *o) {
	char *const text = o ? cJSON_PrintUnformatted(o) : NULL;

	if (text)
		fprintf(f, "%s\n", text);
	cJSON_free(text);
	cJSON_Delete(o);
}

void bench_profile_json(FILE *f, const bench_run *run, const bench_profile *p) {
	cJSON *const o = cJSON_CreateObject(), *const kinds = cJSON_CreateArray();
	char name[48];

	bench_test_name(&p->test, name);
	cJSON_AddStringToObject(o, "schema", "knit.profile/1");
	cJSON_AddStringToObject(o, "date", run->date);
	cJSON_AddStringToObject(o, "commit", run->commit);
	cJSON_AddStringToObject(o, "machine", run->machine);
	cJSON_AddStringToObject(o, "flags", run->flags);
	cJSON_AddStringToObject(o, "model", run->model);
	cJSON_AddNumberToObject(o, "threads", run->threads);
	cJSON_AddStringToObject(o, "subject", p->subject.name);
	cJSON_AddStringToObject(o, "device", p->subject.device);
	cJSON_AddStringToObject(o, "driver", p->subject.driver);
	cJSON_AddStringToObject(o, "test", name);
	cJSON_AddNumberToObject(o, "depth", (double)p->test.depth);
	cJSON_AddNumberToObject(o, "tokens", (double)p->tokens);
	cJSON_AddNumberToObject(o, "runs", (double)p->runs);
	cJSON_AddNumberToObject(o, "wall_s", p->wall);
	cJSON_AddNumberToObject(o, "inside_s", p->inside);
	cJSON_AddNumberToObject(o, "steps_s", p->steps);
	for (size_t i = 0; i < p->kind_count; ++i) {
		const bench_profile_kind *const k = &p->kinds[i];
		cJSON *const item = cJSON_CreateObject();
		cJSON_AddStringToObject(item, "op", k->op);
		cJSON_AddStringToObject(item, "parts", k->parts);
		cJSON_AddNumberToObject(item, "calls", (double)k->calls);
		cJSON_AddNumberToObject(item, "median_s", k->median);
		cJSON_AddNumberToObject(item, "flops", k->flops);
		cJSON_AddNumberToObject(item, "bytes", k->bytes);
		cJSON_AddNumberToObject(item, "of_peak", bench_profile_of_peak(run, p, k));
		cJSON_AddItemToArray(kinds, item);
	}
	cJSON_AddItemToObject(o, "kinds", kinds);
	print_json(f, o);
}

/* ---- Chrome trace ------------------------------------------------------------------------------------------------ */

static cJSON *event(const char *name, const char *phase, size_t thread) {
	cJSON *const e = cJSON_CreateObject();

	cJSON_AddStringToObject(e, "name", name);
	cJSON_AddStringToObject(e, "ph", phase);
	cJSON_AddNumberToObject(e, "pid", 1);
	cJSON_AddNumberToObject(e, "tid", (double)thread);
	return e;
}

static cJSON *named(const char *what, size_t thread, const char *name) {
	cJSON *const e = event(what, "M", thread);

	cJSON_AddStringToObject(cJSON_AddObjectToObject(e, "args"), "name", name);
	return e;
}

static cJSON *step_event(const bench_trace_step *t, size_t thread) {
	cJSON *const e = event(t->name, "X", thread), *const args = cJSON_AddObjectToObject(e, "args");

	cJSON_AddStringToObject(e, "cat", "step");
	cJSON_AddNumberToObject(e, "ts", t->begin * 1e6);
	cJSON_AddNumberToObject(e, "dur", t->seconds * 1e6);
	cJSON_AddStringToObject(args, "origin", t->origin);
	if (t->parts[0])
		cJSON_AddStringToObject(args, "parts", t->parts);
	cJSON_AddNumberToObject(args, "run", t->run);
	cJSON_AddNumberToObject(args, "bytes", t->bytes);
	cJSON_AddNumberToObject(args, "flops", t->flops);
	if (t->seconds > 0) {
		cJSON_AddNumberToObject(args, "gb_per_s", t->bytes / t->seconds * 1e-9);
		cJSON_AddNumberToObject(args, "gflop_per_s", t->flops / t->seconds * 1e-9);
	}
	return e;
}

/* Piece by piece: a trace may be long. */
static void emit(FILE *f, cJSON *e, bool *first) {
	char *const text = e ? cJSON_PrintUnformatted(e) : NULL;

	if (text)
		fprintf(f, "%s%s", *first ? "" : ",\n", text);
	*first = *first && !text;
	cJSON_free(text);
	cJSON_Delete(e);
}

void bench_profile_trace(FILE *f, const bench_profile *profiles, size_t count) {
	char name[48], title[120];
	bool first = true;

	fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", f);
	emit(f, named("process_name", 0, "knit bench"), &first);
	for (size_t i = 0; i < count; ++i) {
		const bench_profile *const p = &profiles[i];
		bench_test_name(&p->test, name);
		snprintf(title, sizeof title, "%s, %s", name, p->subject.name);
		emit(f, named("thread_name", i + 1, title), &first);
		for (size_t k = 0; k < p->trace_count; ++k)
			emit(f, step_event(&p->trace[k], i + 1), &first);
	}
	fputs("\n]}\n", f);
}
