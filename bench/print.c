/* A bench run as a table for people, Markdown, CSV and JSON lines. */
#include "rows.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void test_name(const bench_test *t, char out[48]) {
	int n = t->prompt ? snprintf(out, 48, "prefill %" PRId64, t->prompt) : snprintf(out, 48, "decode %" PRId64, t->made);

	if (t->depth && n > 0 && n < 48)
		snprintf(out + n, (size_t)(48 - n), " @ %" PRId64, t->depth);
}

/* Per token of the test: what must be moved, each weight once per step. */
static double token_bytes(const bench_row *r) {
	return r->cost.weight_bytes + r->cost.state_bytes + r->cost.other_bytes;
}

static double achieved_gbps(const bench_row *r) { return token_bytes(r) * r->rate.median * 1e-9; }
static double achieved_gflops(const bench_row *r) { return r->cost.flops * r->rate.median * 1e-9; }

static double read_peak(const bench_run *run, const bench_row *r) {
	return r->subject->peak_read_gbps > 0 ? r->subject->peak_read_gbps : run->peaks.read_gbps;
}

/* What binds, by which of the two is nearer to its peak. */
static const char *bound_by(const bench_run *run, const bench_row *r) {
	const double flops = run->peaks.f32_gflops > run->peaks.int8_gops ? run->peaks.f32_gflops : run->peaks.int8_gops;

	if (r->cost.flops == 0 || run->peaks.read_gbps == 0 || flops == 0 || r->subject->peak_read_gbps > 0)
		return "";
	return achieved_gbps(r) / run->peaks.read_gbps >= achieved_gflops(r) / flops ? "memory" : "compute";
}

static void heads(FILE *f, const bench_run *run, const char *prefix) {
	fprintf(f, "%smodel    %s\n", prefix, run->model);
	fprintf(f, "%smachine  %s; %s; %u threads\n", prefix, run->machine, run->system, run->threads);
	fprintf(f, "%scommit   %s; %s\n", prefix, run->commit[0] ? run->commit : "unknown", run->date);
	if (run->peaks.read_gbps > 0)
		fprintf(f, "%speaks    memory read %.1f GB/s, copy %.1f; f32 %.0f GFLOP/s, int8 %.0f GOP/s\n", prefix,
		        run->peaks.read_gbps, run->peaks.copy_gbps, run->peaks.f32_gflops, run->peaks.int8_gops);
	if (run->busy > 0.05)
		fprintf(f, "%swarning  other processes took %.0f %% of the machine while this was measured\n", prefix,
		        run->busy * 100);
}

void bench_print_table(FILE *f, const bench_run *run) {
	char name[48];

	heads(f, run, "");
	fprintf(f, "\n%-22s %-20s %10s %8s %21s %5s %9s %9s %8s\n", "test", "subject", "tokens/s", "+- mad", "95 % interval",
	        "runs", "GB/s", "of peak", "ratio");
	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_row *const r = &run->rows[i];
		test_name(&r->test, name);
		fprintf(f, "%-22s %-20s %10.2f %8.2f %10.2f-%10.2f %5zu", name, r->subject->name, r->rate.median, r->rate.mad,
		        r->rate.lo, r->rate.hi, r->count);
		if (token_bytes(r) > 0)
			fprintf(f, " %9.1f", achieved_gbps(r));
		else
			fprintf(f, " %9s", "-");
		if (token_bytes(r) > 0 && read_peak(run, r) > 0)
			fprintf(f, " %7.0f %%", achieved_gbps(r) / read_peak(run, r) * 100);
		else
			fprintf(f, " %9s", "-");
		if (r->ratio.count)
			fprintf(f, " %8.3f (%.3f-%.3f)", r->ratio.median, r->ratio.lo, r->ratio.hi);
		fprintf(f, "%s\n", r->steady ? "" : "  not steady");
	}
}

void bench_print_markdown(FILE *f, const bench_run *run) {
	char name[48];

	heads(f, run, "- ");
	fprintf(f, "\n| test | subject | tokens/s | 95 %% interval | runs | GB/s | of peak | ratio |\n|---|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_row *const r = &run->rows[i];
		test_name(&r->test, name);
		fprintf(f, "| %s | %s | %.2f | %.2f to %.2f | %zu |", name, r->subject->name, r->rate.median, r->rate.lo, r->rate.hi,
		        r->count);
		if (token_bytes(r) > 0 && read_peak(run, r) > 0)
			fprintf(f, " %.1f | %.0f %% |", achieved_gbps(r), achieved_gbps(r) / read_peak(run, r) * 100);
		else
			fprintf(f, " | |");
		if (r->ratio.count)
			fprintf(f, " %.3f (%.3f to %.3f) |\n", r->ratio.median, r->ratio.lo, r->ratio.hi);
		else
			fprintf(f, " |\n");
	}
}

void bench_print_csv(FILE *f, const bench_run *run) {
	char name[48];

	fprintf(f, "date,commit,threads,test,subject,runs,tokens_per_s,mad,lo,hi,gb_per_s,gflop_per_s,read_peak_gb_per_s,ratio,ratio_lo,"
	           "ratio_hi\n");
	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_row *const r = &run->rows[i];
		test_name(&r->test, name);
		fprintf(f, "%s,%s,%u,%s,%s,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,", run->date, run->commit, run->threads, name,
		        r->subject->name, r->count, r->rate.median, r->rate.mad, r->rate.lo, r->rate.hi, achieved_gbps(r),
		        achieved_gflops(r), read_peak(run, r));
		if (r->ratio.count)
			fprintf(f, "%.6g,%.6g,%.6g\n", r->ratio.median, r->ratio.lo, r->ratio.hi);
		else
			fprintf(f, ",,\n");
	}
}

static cJSON *json_stats(const bench_stats *s) {
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "median", s->median);
	cJSON_AddNumberToObject(o, "lo", s->lo);
	cJSON_AddNumberToObject(o, "hi", s->hi);
	cJSON_AddNumberToObject(o, "mad", s->mad);
	cJSON_AddNumberToObject(o, "outliers", (double)s->outliers);
	return o;
}

static cJSON *json_row(const bench_run *run, const bench_row *r) {
	cJSON *o = cJSON_CreateObject(), *samples = cJSON_CreateArray(), *cost = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "schema", "knit.bench/1");
	cJSON_AddStringToObject(o, "date", run->date);
	cJSON_AddStringToObject(o, "commit", run->commit);
	cJSON_AddStringToObject(o, "machine", run->machine);
	cJSON_AddStringToObject(o, "system", run->system);
	cJSON_AddNumberToObject(o, "threads", run->threads);
	cJSON_AddStringToObject(o, "model", run->model);
	cJSON_AddNumberToObject(o, "file_bytes", (double)run->file_bytes);
	cJSON_AddNumberToObject(o, "seed", (double)run->seed);
	cJSON_AddStringToObject(o, "subject", r->subject->name);
	cJSON_AddStringToObject(o, "version", r->subject->version);
	cJSON_AddNumberToObject(o, "load_seconds", r->subject->load_seconds);
	cJSON_AddNumberToObject(o, "prompt", (double)r->test.prompt);
	cJSON_AddNumberToObject(o, "made", (double)r->test.made);
	cJSON_AddNumberToObject(o, "depth", (double)r->test.depth);
	cJSON_AddNumberToObject(o, "warm_up", (double)r->warm_up);
	cJSON_AddBoolToObject(o, "steady", r->steady);
	for (size_t i = 0; i < r->count; ++i)
		cJSON_AddItemToArray(samples, cJSON_CreateNumber(r->seconds[i]));
	cJSON_AddItemToObject(o, "seconds", samples);
	cJSON_AddItemToObject(o, "tokens_per_s", json_stats(&r->rate));
	if (r->ratio.count)
		cJSON_AddItemToObject(o, "ratio_to_first", json_stats(&r->ratio));
	cJSON_AddNumberToObject(cost, "flops", r->cost.flops);
	cJSON_AddNumberToObject(cost, "weight_bytes", r->cost.weight_bytes);
	cJSON_AddNumberToObject(cost, "weight_bytes_unique", r->cost.weight_bytes_unique);
	cJSON_AddNumberToObject(cost, "state_bytes", r->cost.state_bytes);
	cJSON_AddNumberToObject(cost, "other_bytes", r->cost.other_bytes);
	cJSON_AddItemToObject(o, "per_token", cost);
	cJSON_AddNumberToObject(o, "gb_per_s", achieved_gbps(r));
	cJSON_AddNumberToObject(o, "gflop_per_s", achieved_gflops(r));
	cJSON_AddStringToObject(o, "bound_by", bound_by(run, r));
	cJSON_AddNumberToObject(o, "peak_read_gb_per_s", read_peak(run, r));
	cJSON_AddNumberToObject(o, "peak_f32_gflop_per_s", run->peaks.f32_gflops);
	cJSON_AddNumberToObject(o, "peak_int8_gop_per_s", run->peaks.int8_gops);
	cJSON_AddNumberToObject(o, "others_share", run->busy);
	return o;
}

void bench_print_json(FILE *f, const bench_run *run) {
	for (size_t i = 0; i < run->row_count; ++i) {
		cJSON *const o = json_row(run, &run->rows[i]);
		char *const text = o ? cJSON_PrintUnformatted(o) : NULL;
		if (text)
			fprintf(f, "%s\n", text);
		cJSON_free(text);
		cJSON_Delete(o);
	}
}
