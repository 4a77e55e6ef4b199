/* A bench run as JSON lines, schema "knit.bench/1": bench/README.md says what each member is. */
#include "rows.h"

#include <cjson/cJSON.h>

#include <math.h>

static void put(cJSON *o, const char *name, double v) {
	if (isfinite(v))
		cJSON_AddNumberToObject(o, name, v);
	else
		cJSON_AddNullToObject(o, name);
}

static cJSON *json_stats(const bench_stats *s) {
	cJSON *const o = cJSON_CreateObject();

	put(o, "median", s->median);
	put(o, "lo", s->lo);
	put(o, "hi", s->hi);
	put(o, "mad", s->mad);
	put(o, "outliers", (double)s->outliers);
	return o;
}

static void add_run(cJSON *o, const bench_run *run) {
	cJSON_AddStringToObject(o, "schema", "knit.bench/1");
	cJSON_AddStringToObject(o, "date", run->date);
	cJSON_AddStringToObject(o, "commit", run->commit);
	cJSON_AddStringToObject(o, "machine", run->machine);
	cJSON_AddStringToObject(o, "system", run->system);
	cJSON_AddStringToObject(o, "flags", run->flags);
	put(o, "threads", run->threads);
	cJSON_AddStringToObject(o, "model", run->model);
	put(o, "file_bytes", (double)run->file_bytes);
	put(o, "seed", (double)run->seed);
	cJSON_AddStringToObject(o, "kv", run->kv);
	put(o, "batch", (double)run->batch);
	if (run->interrupted)
		cJSON_AddTrueToObject(o, "interrupted");
	if (run->planted > 0)
		put(o, "planted", run->planted);
	put(o, "cached_after_drop", run->cached_after_drop);
	put(o, "others_share", run->busy);
	put(o, "clock_loop_before_s", run->clock_before);
	put(o, "clock_loop_after_s", run->clock_after);
}

static cJSON *json_resident(const bench_resident *m) {
	cJSON *const o = cJSON_CreateObject();

	put(o, "peak_bytes", (double)m->peak);
	put(o, "anon_bytes", (double)m->anon);
	put(o, "file_bytes", (double)m->file);
	return o;
}

static cJSON *json_memory(const knit_memory *m) {
	cJSON *const o = cJSON_CreateObject();

	put(o, "weight_bytes", (double)m->weight_bytes);
	put(o, "weight_bytes_by_use", (double)m->weight_bytes_by_use);
	put(o, "packed_bytes", (double)m->packed_bytes);
	put(o, "adapter_bytes", (double)m->adapter_bytes);
	put(o, "state_bytes", (double)m->state_bytes);
	put(o, "arena_bytes", (double)m->arena_bytes);
	put(o, "io_bytes", (double)m->io_bytes);
	put(o, "all_bytes", (double)bench_planned_bytes(m));
	return o;
}

static void add_subject(cJSON *o, const bench_subject *s) {
	cJSON_AddStringToObject(o, "subject", s->name);
	cJSON_AddStringToObject(o, "version", s->version);
	cJSON_AddStringToObject(o, "device", s->device);
	cJSON_AddStringToObject(o, "driver", s->driver);
	if (s->model[0])
		cJSON_AddStringToObject(o, "subject_model", s->model);
	if (s->load_seconds > 0)
		put(o, "load_s", s->load_seconds);
	if (s->first_cold > 0)
		put(o, "first_token_cold_s", s->load_seconds + s->first_cold);
	if (s->first_warm > 0)
		put(o, "first_token_warm_s", s->first_warm);
	if (s->disk_load > 0)
		put(o, "load_from_disk_s", s->disk_load);
	if (s->disk_first > 0)
		put(o, "first_token_from_disk_s", s->disk_first);
	if (s->memory.weight_bytes)
		cJSON_AddItemToObject(o, "memory", json_memory(&s->memory));
	if (s->seen.peak)
		cJSON_AddItemToObject(o, "resident", json_resident(&s->seen));
	if (s->check.rows) {
		cJSON *const check = cJSON_AddObjectToObject(o, "check");
		put(check, "nmse", s->check.nmse);
		put(check, "top1", s->check.top1);
		put(check, "rows", (double)s->check.rows);
		cJSON_AddStringToObject(check, "reference", s->check.reference);
		cJSON_AddBoolToObject(check, "wrong", bench_is_wrong(s));
	}
}

static void add_size(cJSON *sizes, double bytes, double read, double copy) {
	cJSON *const c = cJSON_CreateObject();

	put(c, "bytes", bytes);
	put(c, "read_gb_per_s", read);
	put(c, "copy_gb_per_s", copy);
	cJSON_AddItemToArray(sizes, c);
}

/* Of a device that is not the host's processor. */
static void add_device_peaks(cJSON *peaks, const bench_subject *s) {
	const knit_device_peaks *const p = &s->peaks;

	if (s->no_peaks[0])
		cJSON_AddStringToObject(peaks, "device_not_measured", s->no_peaks);
	if (p->size_count == 0)
		return;
	cJSON *const sizes = cJSON_AddArrayToObject(peaks, "device_sizes");
	for (uint32_t i = 0; i < p->size_count; ++i)
		add_size(sizes, (double)p->bytes[i], p->read[i] * 1e-9, p->copy[i] * 1e-9);
	put(peaks, "device_f32_gflop_per_s", p->f32 * 1e-9);
	put(peaks, "device_f16_gflop_per_s", p->f16 * 1e-9);
	put(peaks, "device_matrix_gflop_per_s", p->matrix * 1e-9);
	put(peaks, "device_int8_gop_per_s", p->int8 * 1e-9);
	cJSON_AddStringToObject(peaks, "device_missing", p->missing);
}

static void add_peaks(cJSON *o, const bench_run *run, const bench_row *r) {
	const bench_peaks *const p = &run->peaks;
	cJSON *const peaks = cJSON_AddObjectToObject(o, "peaks"), *const caches = cJSON_CreateArray();

	put(peaks, "read_gb_per_s", bench_read_peak(run, r->subject));
	put(peaks, "compute_gflop_per_s", bench_compute_peak(run, r->subject, r->cost.int8, r->cost.f16));
	put(peaks, "host_read_gb_per_s", p->read_gbps);
	put(peaks, "host_copy_gb_per_s", p->copy_gbps);
	for (int i = 0; i < 3; ++i)
		add_size(caches, (double)p->cache_bytes[i], p->cache_read_gbps[i], p->cache_copy_gbps[i]);
	cJSON_AddItemToObject(peaks, "host_caches", caches);
	put(peaks, "host_f32_gflop_per_s", p->f32_gflops);
	put(peaks, "host_f16_gflop_per_s", p->f16_gflops);
	cJSON_AddStringToObject(peaks, "host_f16_by", p->f16_by ? p->f16_by : "");
	if (p->read_gbps_first > 0)
		put(peaks, "host_read_gb_per_s_before", p->read_gbps_first);
	put(peaks, "host_int8_gop_per_s", p->int8_gops);
	cJSON_AddStringToObject(peaks, "host_int8_by", p->int8_by ? p->int8_by : "");
	add_device_peaks(peaks, r->subject);
	put(peaks, "submit_s", r->subject->submit_seconds);
	put(peaks, "step_s", r->subject->step_seconds);
}

static cJSON *json_row(const bench_run *run, const bench_row *r) {
	cJSON *const o = cJSON_CreateObject(), *const samples = cJSON_CreateArray(), *const cost = cJSON_CreateObject();
	char name[48];

	bench_test_name(&r->test, name);
	add_run(o, run);
	add_subject(o, r->subject);
	cJSON_AddStringToObject(o, "test", name);
	put(o, "prompt", (double)r->test.prompt);
	put(o, "made", (double)r->test.made);
	put(o, "depth", (double)r->test.depth);
	put(o, "warm_up", (double)r->warm_up);
	cJSON_AddBoolToObject(o, "steady", r->steady);
	for (size_t i = 0; i < r->count; ++i)
		cJSON_AddItemToArray(samples, cJSON_CreateNumber(r->seconds[i]));
	cJSON_AddItemToObject(o, "seconds", samples);
	cJSON_AddItemToObject(o, "tokens_per_s", json_stats(&r->rate));
	if (r->ratio.count)
		cJSON_AddItemToObject(o, "ratio_to_first", json_stats(&r->ratio));
	put(cost, "flops", r->cost.flops);
	put(cost, "weight_bytes", r->cost.weight_bytes);
	put(cost, "weight_bytes_unique", r->cost.weight_bytes_unique);
	put(cost, "state_bytes", r->cost.state_bytes);
	put(cost, "all_bytes", r->cost.all_bytes);
	put(cost, "steps", r->cost.steps);
	cJSON_AddItemToObject(o, "per_token", cost);
	put(o, "gb_per_s", bench_gbps(r));
	put(o, "gflop_per_s", bench_gflops(r));
	cJSON_AddStringToObject(o, "bound_by", bench_bound_by(run, r));
	put(o, "of_peak", bench_of_peak(run, r));
	add_peaks(o, run, r);
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
