/* Measured ops as a table and as JSON lines. */
#include "ops.h"

#include <cjson/cJSON.h>

#include <string.h>

static void line(FILE *f, bool markdown, const char *const cells[11]) {
	if (markdown) {
		for (int i = 0; i < 11; ++i)
			fprintf(f, "| %s ", cells[i]);
		fputs("|\n", f);
		return;
	}
	fprintf(f, "%-10s %-40s %-16s %-14s %11s %23s %8s %9s %8s %8s  %s\n", cells[0], cells[1], cells[2], cells[3], cells[4], cells[5],
	        cells[6], cells[7], cells[8], cells[9], cells[10]);
}

static void print_row(FILE *f, const bench_run *run, const bench_op_row *r, bool markdown) {
	char text[80], cells[11][80];
	const bench_row *const row = &r->row;
	const double share = bench_of_peak(run, row);
	const char *pointers[11];

	bench_op_text(&r->c, text);
	snprintf(cells[0], 80, "%s", bench_op_name(r->c.kind));
	snprintf(cells[1], 80, "%s", text);
	snprintf(cells[2], 80, "%s", r->c.where);
	snprintf(cells[3], 80, "%.14s", row->subject->name);
	for (int i = 4; i < 11; ++i)
		snprintf(cells[i], 80, "-");
	if (r->unsupported) {
		snprintf(cells[10], 80, "no kernel");
	} else if (row->rate.median > 0) {
		snprintf(cells[4], 80, "%.2f us", 1e6 / row->rate.median);
		snprintf(cells[5], 80, "%.2f to %.2f", 1e6 / row->rate.hi, 1e6 / row->rate.lo);
		snprintf(cells[6], 80, "%.1f", bench_gbps(row));
		snprintf(cells[7], 80, "%.1f", bench_gflops(row));
		if (bench_bound_by(run, row)[0])
			snprintf(cells[8], 80, "%s", bench_bound_by(run, row));
		if (share > 0)
			snprintf(cells[9], 80, "%.0f %%", share * 100);
		cells[10][0] = '\0';
		if (r->nmse > BENCH_NMSE_WRONG)
			snprintf(cells[10], 80, "other results: NMSE %.1e", r->nmse);
		else if (row->ratio.count)
			snprintf(cells[10], 80, "%.2f x (%.2f to %.2f)", row->ratio.median, row->ratio.lo, row->ratio.hi);
	}
	for (int i = 0; i < 11; ++i)
		pointers[i] = cells[i];
	line(f, markdown, pointers);
}

void bench_ops_print(FILE *f, const bench_run *run, const bench_op_row *rows, size_t count, bool markdown) {
	static const char *const titles[11] = {"op", "operands", "where", "device", "time", "95 % interval", "GB/s", "GFLOP/s", "binds", "of peak",
	                                       "to the first"};
	const char *const prefix = markdown ? "- " : "";

	fprintf(f, "%smachine  %s; %s; %u threads\n%scommit   %s; %s\n%sflags    %s\n", prefix, run->machine, run->system, run->threads, prefix,
	        run->commit, run->date, prefix, run->flags);
	if (run->peaks.read_gbps > 0)
		fprintf(f, "%speaks    memory read %.1f GB/s; f32 %.0f GFLOP/s, f16 %.0f, int8 %.0f GOP/s\n", prefix, run->peaks.read_gbps,
		        run->peaks.f32_gflops, run->peaks.f16_gflops, run->peaks.int8_gops);
	if (run->busy > 0.05)
		fprintf(f, "%swarning  other processes took %.0f %% of the machine while this was measured\n", prefix, run->busy * 100);
	fputc('\n', f);
	line(f, markdown, titles);
	if (markdown)
		fputs("|---|---|---|---|---:|---:|---:|---:|---:|---:|---|\n", f);
	for (size_t i = 0; i < count; ++i)
		print_row(f, run, &rows[i], markdown);
}

static cJSON *json_row(const bench_run *run, const bench_op_row *r) {
	cJSON *const o = cJSON_CreateObject(), *const samples = cJSON_CreateArray();
	const bench_row *const row = &r->row;
	char text[80];

	bench_op_text(&r->c, text);
	cJSON_AddStringToObject(o, "schema", "knit.ops/1");
	cJSON_AddStringToObject(o, "date", run->date);
	cJSON_AddStringToObject(o, "commit", run->commit);
	cJSON_AddStringToObject(o, "machine", run->machine);
	cJSON_AddStringToObject(o, "flags", run->flags);
	cJSON_AddNumberToObject(o, "threads", run->threads);
	cJSON_AddStringToObject(o, "op", bench_op_name(r->c.kind));
	cJSON_AddStringToObject(o, "operands", text);
	cJSON_AddStringToObject(o, "where", r->c.where);
	cJSON_AddStringToObject(o, "device", row->subject->device);
	cJSON_AddStringToObject(o, "driver", row->subject->driver);
	cJSON_AddBoolToObject(o, "supported", !r->unsupported);
	cJSON_AddNumberToObject(o, "copies", r->copies);
	for (size_t i = 0; i < row->count; ++i)
		cJSON_AddItemToArray(samples, cJSON_CreateNumber(row->seconds[i]));
	cJSON_AddItemToObject(o, "seconds", samples);
	cJSON_AddNumberToObject(o, "median_s", row->rate.median > 0 ? 1 / row->rate.median : 0);
	cJSON_AddNumberToObject(o, "flops", row->cost.flops);
	cJSON_AddNumberToObject(o, "bytes", row->cost.all_bytes);
	cJSON_AddNumberToObject(o, "gb_per_s", bench_gbps(row));
	cJSON_AddNumberToObject(o, "gflop_per_s", bench_gflops(row));
	cJSON_AddStringToObject(o, "bound_by", bench_bound_by(run, row));
	cJSON_AddNumberToObject(o, "of_peak", bench_of_peak(run, row));
	if (row->ratio.count) {
		cJSON_AddNumberToObject(o, "ratio_to_first", row->ratio.median);
		cJSON_AddNumberToObject(o, "ratio_lo", row->ratio.lo);
		cJSON_AddNumberToObject(o, "ratio_hi", row->ratio.hi);
	}
	if (r->nmse >= 0)
		cJSON_AddNumberToObject(o, "nmse_to_first", r->nmse);
	return o;
}

void bench_ops_json(FILE *f, const bench_run *run, const bench_op_row *rows, size_t count) {
	for (size_t i = 0; i < count; ++i) {
		cJSON *const o = json_row(run, &rows[i]);
		char *const text = o ? cJSON_PrintUnformatted(o) : NULL;
		if (text)
			fprintf(f, "%s\n", text);
		cJSON_free(text);
		cJSON_Delete(o);
	}
}
