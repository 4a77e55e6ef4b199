/* A bench run as a table for people, Markdown and CSV. */
#include "rows.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void bench_test_name(const bench_test *t, char out[48]) {
	int n = t->prompt ? snprintf(out, 48, "prefill %" PRId64, t->prompt) : snprintf(out, 48, "decode %" PRId64, t->made);

	if (t->depth && n > 0 && n < 48)
		snprintf(out + n, (size_t)(48 - n), " @ %" PRId64, t->depth);
}

static const bench_subject *first_of(const bench_run *run, size_t i) {
	for (size_t k = 0; k < i; ++k)
		if (run->rows[k].subject == run->rows[i].subject)
			return NULL;
	return run->rows[i].subject;
}

static void by(FILE *f, const char *how) {
	if (how && how[0])
		fprintf(f, " (%s)", how);
}

static const char *size_text(uint64_t bytes, char out[24]) {
	snprintf(out, 24, bytes < UINT64_C(1) << 20 ? "%" PRIu64 " KiB" : "%" PRIu64 " MiB", bytes >> (bytes < UINT64_C(1) << 20 ? 10 : 20));
	return out;
}

/* Of a device that is not the host's processor, a line of its own. */
static void device_peaks(FILE *f, const bench_subject *s) {
	const knit_device_peaks *const p = &s->peaks;
	char size[24];

	if (s->no_peaks[0])
		fprintf(f, "  - its peaks were not measured: %s\n", s->no_peaks);
	if (p->size_count == 0)
		return;
	fputs("  - its peaks: read", f);
	for (uint32_t i = 0; i < p->size_count; ++i)
		fprintf(f, "%s %.1f GB/s of %s", i ? "," : "", p->read[i] * 1e-9, size_text(p->bytes[i], size));
	fputs("; copied", f);
	for (uint32_t i = 0; i < p->size_count; ++i)
		fprintf(f, "%s %.1f", i ? "," : "", p->copy[i] * 1e-9);
	fprintf(f, "; f32 %.0f GFLOP/s, f16 %.0f", p->f32 * 1e-9, p->f16 * 1e-9);
	if (p->matrix > 0)
		fprintf(f, ", matrices of f16 %.0f", p->matrix * 1e-9);
	if (p->int8 > 0)
		fprintf(f, ", int8 %.0f GOP/s", p->int8 * 1e-9);
	fprintf(f, "%s%s\n", p->missing[0] ? "; it has " : "", p->missing);
}

static void heads(FILE *f, const bench_run *run, const char *prefix) {
	char warnings[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES];
	const size_t count = bench_warnings(run, warnings);
	const bench_peaks *const p = &run->peaks;

	fprintf(f, "%smodel    %s, %.1f MB\n", prefix, run->model, (double)run->file_bytes * 1e-6);
	fprintf(f, "%smachine  %s; %s; %u threads\n", prefix, run->machine, run->system, run->threads);
	fprintf(f, "%sflags    %s\n", prefix, run->flags[0] ? run->flags : "none");
	fprintf(f, "%scommit   %s; %s; KV %s, batch %" PRId64 ", seed %" PRIu64 "\n", prefix,
	        run->commit[0] ? run->commit : "unknown", run->date, run->kv, run->batch, run->seed);
	if (p->read_gbps > 0) {
		fprintf(f, "%speaks    memory read %.1f GB/s, copy %.1f; caches read %.0f, %.0f, %.0f, copy %.0f, %.0f, %.0f; f32 %.0f GFLOP/s", prefix,
		        p->read_gbps, p->copy_gbps, p->cache_read_gbps[0], p->cache_read_gbps[1], p->cache_read_gbps[2], p->cache_copy_gbps[0],
		        p->cache_copy_gbps[1], p->cache_copy_gbps[2], p->f32_gflops);
		fprintf(f, ", f16 %.0f", p->f16_gflops);
		by(f, p->f16_by);
		fprintf(f, ", int8 %.0f GOP/s", p->int8_gops);
		by(f, p->int8_by);
		fputc('\n', f);
	}
	for (size_t i = 0; i < count; ++i)
		fprintf(f, "%swarning  %s\n", prefix, warnings[i]);
}

/* ---- cells: the same for the table and for Markdown -------------------------------------------------------------- */

enum { CELL = 40, ROW_COLUMNS = 10, SUBJECT_COLUMNS = 16 };

static const char *const row_heads[ROW_COLUMNS] = {"test", "subject", "tokens/s", "95 % interval", "runs", "GB/s", "GFLOP/s",
                                                   "binds", "of peak", "ratio"};
static const char *const subject_heads[SUBJECT_COLUMNS] = {"subject", "load", "first cold", "from disk", "first warm", "weights", "packed",
                                                           "adapters", "KV", "arena", "in/out", "planned", "resident", "beyond plan", "NMSE", "top-1"};

static void number(char out[CELL], double v, int places) {
	if (v > 0)
		snprintf(out, CELL, "%.*f", places, v);
	else
		snprintf(out, CELL, "-");
}

static void row_cells(const bench_run *run, const bench_row *r, char out[][CELL]) {
	const char *const bound = bench_bound_by(run, r);
	const double share = bench_of_peak(run, r);

	bench_test_name(&r->test, out[0]);
	snprintf(out[1], CELL, "%.38s", r->subject->name);
	number(out[2], r->rate.median, 2);
	snprintf(out[3], CELL, "%.2f to %.2f", r->rate.lo, r->rate.hi);
	snprintf(out[4], CELL, "%zu%s", r->count, r->steady ? "" : " unsteady");
	number(out[5], bench_gbps(r), 1);
	number(out[6], bench_gflops(r), 0);
	snprintf(out[7], CELL, "%s", bound[0] ? bound : "-");
	if (share > 0)
		snprintf(out[8], CELL, "%.0f %%", share * 100);
	else
		snprintf(out[8], CELL, "-");
	if (bench_is_wrong(r->subject))
		snprintf(out[9], CELL, "WRONG");
	else if (r->ratio.count)
		snprintf(out[9], CELL, "%.3f (%.3f to %.3f)", r->ratio.median, r->ratio.lo, r->ratio.hi);
	else
		out[9][0] = '\0';
}

static void duration(char out[CELL], double s) {
	if (s <= 0)
		snprintf(out, CELL, "-");
	else if (s < 1)
		snprintf(out, CELL, "%.1f ms", s * 1e3);
	else
		snprintf(out, CELL, "%.2f s", s);
}

static void bytes(char out[CELL], uint64_t n) { snprintf(out, CELL, "%.1f MB", (double)n * 1e-6); }

static void subject_cells(const bench_subject *s, char out[][CELL]) {
	const knit_memory *const m = &s->memory;
	const uint64_t sizes[] = {m->weight_bytes, m->packed_bytes, m->adapter_bytes, m->state_bytes, m->arena_bytes, m->io_bytes,
	                          bench_planned_bytes(m)};

	snprintf(out[0], CELL, "%.38s", s->name);
	duration(out[1], s->load_seconds);
	duration(out[2], s->first_cold > 0 ? s->load_seconds + s->first_cold : 0);
	duration(out[3], s->disk_first);
	duration(out[4], s->first_warm);
	for (int i = 0; i < 7; ++i) {
		if (m->weight_bytes)
			bytes(out[5 + i], sizes[i]);
		else
			snprintf(out[5 + i], CELL, "-");
	}
	bytes(out[12], s->seen.peak);
	if (s->seen.peak == 0)
		snprintf(out[12], CELL, "-");
	if (s->seen.peak && m->weight_bytes)
		snprintf(out[13], CELL, "%+.1f MB", ((double)s->seen.peak - (double)sizes[6]) * 1e-6);
	else
		snprintf(out[13], CELL, "-");
	if (s->check.rows == 0) {
		snprintf(out[14], CELL, "-");
		snprintf(out[15], CELL, "-");
		return;
	}
	snprintf(out[14], CELL, "%.1e%s", s->check.nmse, bench_is_wrong(s) ? " WRONG" : "");
	snprintf(out[15], CELL, "%.0f of %zu", s->check.top1 * (double)s->check.rows, s->check.rows);
}

/* Columns as wide as their widest cell; the first two to the left. */
static void print_columns(FILE *f, const char *const *titles, char (*cells)[CELL], size_t rows, size_t columns, size_t left) {
	for (size_t i = 0; i <= rows; ++i) {
		for (size_t c = 0; c < columns; ++c) {
			size_t wide = strlen(titles[c]);
			for (size_t k = 0; k < rows; ++k)
				wide = strlen(cells[k * columns + c]) > wide ? strlen(cells[k * columns + c]) : wide;
			const char *const text = i ? cells[(i - 1) * columns + c] : titles[c];
			fprintf(f, "%s%*s", c ? "  " : "", c < left ? -(int)wide : (int)wide, text);
		}
		fputc('\n', f);
	}
}

static void print_pipes(FILE *f, const char *const *titles, char (*cells)[CELL], size_t rows, size_t columns, size_t left) {
	for (size_t c = 0; c < columns; ++c)
		fprintf(f, "| %s ", titles[c]);
	fputs("|\n", f);
	for (size_t c = 0; c < columns; ++c)
		fputs(c < left ? "|---" : "|---:", f);
	fputs("|\n", f);
	for (size_t i = 0; i < rows; ++i) {
		for (size_t c = 0; c < columns; ++c)
			fprintf(f, "| %s ", cells[i * columns + c]);
		fputs("|\n", f);
	}
}

static void print_tables(FILE *f, const bench_run *run,
                         void (*print)(FILE *, const char *const *, char (*)[CELL], size_t, size_t, size_t)) {
	char(*const cells)[CELL] = calloc(run->row_count * SUBJECT_COLUMNS + 1, sizeof *cells);
	size_t subjects = 0;

	if (!cells)
		return;
	fputc('\n', f);
	for (size_t i = 0; i < run->row_count; ++i)
		row_cells(run, &run->rows[i], cells + i * ROW_COLUMNS);
	print(f, row_heads, cells, run->row_count, ROW_COLUMNS, 2);
	fputc('\n', f);
	for (size_t i = 0; i < run->row_count; ++i)
		if (first_of(run, i))
			subject_cells(run->rows[i].subject, cells + subjects++ * SUBJECT_COLUMNS);
	print(f, subject_heads, cells, subjects, SUBJECT_COLUMNS, 1);
	fputc('\n', f);
	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_subject *const s = first_of(run, i);
		if (!s)
			continue;
		fprintf(f, "- %s: %s%s%s; %s%s", s->name, s->version, s->driver[0] ? "; " : "", s->driver,
		        s->check.rows ? "checked against " : "not checked", s->check.reference);
		if (s->model[0])
			fprintf(f, "; it ran %s", s->model);
		if (s->step_seconds > 0)
			fprintf(f, "; an empty run takes %.1f us, a step in it %.2f us", s->submit_seconds * 1e6, s->step_seconds * 1e6);
		fputc('\n', f);
		device_peaks(f, s);
	}
	free(cells);
}

void bench_print_table(FILE *f, const bench_run *run) {
	heads(f, run, "");
	print_tables(f, run, print_columns);
}

void bench_print_markdown(FILE *f, const bench_run *run) {
	heads(f, run, "- ");
	print_tables(f, run, print_pipes);
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

/* Quoted, as names of models have commas. */
static void quoted(FILE *f, const char *text) {
	fputc('"', f);
	for (; *text; ++text) {
		if (*text == '"')
			fputc('"', f);
		fputc(*text, f);
	}
	fputs("\",", f);
}

void bench_print_csv(FILE *f, const bench_run *run) {
	char name[48];

	fputs("date,commit,machine,model,flags,threads,seed,kv,batch,test,subject,device,version,runs,tokens_per_s,mad,lo,hi,"
	      "gb_per_s,gflop_per_s,bound_by,of_peak,load_s,first_token_cold_s,first_token_from_disk_s,first_token_warm_s,weight_bytes,packed_bytes,"
	      "adapter_bytes,state_bytes,arena_bytes,planned_bytes,resident_peak_bytes,resident_anon_bytes,resident_file_bytes,nmse,top1,ratio,ratio_lo,ratio_hi\n", f);
	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_row *const r = &run->rows[i];
		const bench_subject *const s = r->subject;
		bench_test_name(&r->test, name);
		fprintf(f, "%s,%s,", run->date, run->commit);
		quoted(f, run->machine);
		quoted(f, run->model);
		quoted(f, run->flags);
		fprintf(f, "%u,%" PRIu64 ",%s,%" PRId64 ",%s,", run->threads, run->seed, run->kv, run->batch, name);
		quoted(f, s->name);
		quoted(f, s->device);
		quoted(f, s->version);
		fprintf(f, "%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%s,%.4g,%.6g,", r->count, r->rate.median, r->rate.mad, r->rate.lo,
		        r->rate.hi, bench_gbps(r), bench_gflops(r), bench_bound_by(run, r), bench_of_peak(run, r), s->load_seconds);
		fprintf(f, "%.6g,%.6g,%.6g,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",",
		        s->first_cold > 0 ? s->load_seconds + s->first_cold : 0, s->disk_first, s->first_warm, s->memory.weight_bytes,
		        s->memory.packed_bytes, s->memory.adapter_bytes, s->memory.state_bytes, s->memory.arena_bytes);
		fprintf(f, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",", bench_planned_bytes(&s->memory), s->seen.peak, s->seen.anon, s->seen.file);
		if (s->check.rows)
			fprintf(f, "%.4g,%.4g,", s->check.nmse, s->check.top1);
		else
			fputs(",,", f);
		if (r->ratio.count)
			fprintf(f, "%.6g,%.6g,%.6g\n", r->ratio.median, r->ratio.lo, r->ratio.hi);
		else
			fputs(",,\n", f);
	}
}
