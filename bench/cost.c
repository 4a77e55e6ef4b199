/* What a test has to move and to compute by the ops' own definitions, and what that makes of a measured rate. */
#include "rows.h"

#include "../backends/report.h"

#include <math.h>
#include <string.h>

static uint32_t bucket_of(const knit_program *p, int64_t n) {
	for (uint32_t i = 0; i < p->bucket_count && p->bucket_symbol != KNIT_NO_SYMBOL; ++i)
		if (n >= p->buckets[i].bounds.lo[p->bucket_symbol] && n <= p->buckets[i].bounds.hi[p->bucket_symbol])
			return i;
	return knit__program_largest_bucket(p);
}

/* One run of n tokens of which the average one sees `context` positions. */
static void add_run(const knit_program *p, int64_t n, int64_t context, knit_run_cost *sum, double *steps) {
	const uint32_t bucket = bucket_of(p, n);
	int64_t symbols[KNIT_MAX_SYMBOLS];

	memcpy(symbols, p->buckets[bucket].bounds.lo, sizeof symbols);
	if (p->bucket_symbol != KNIT_NO_SYMBOL)
		symbols[p->bucket_symbol] = n;
	knit__run_cost_add(sum, p, bucket, symbols, context);
	*steps += (double)p->buckets[bucket].schedule->step_count;
}

/* What most bytes of weights are: a block format, whose products are of 8-bit numbers, or f16. */
static void kind_of_weights(const knit_program *p, bench_cost *out) {
	const knit_schedule *const s = p->buckets[0].schedule;
	uint64_t blocks = 0, halves = 0, others = 0;

	for (uint32_t i = 0; i < s->buffer_count; ++i) {
		if (s->buffers[i].use != KNIT_BUFFER_CONST)
			continue;
		const knit_dtype type = p->graph->values[p->graph->storages[s->buffers[i].storage].value].dtype;
		if (type == KNIT_F16)
			halves += s->buffers[i].bytes;
		else if (type == KNIT_F32 || type == KNIT_BF16)
			others += s->buffers[i].bytes;
		else
			blocks += s->buffers[i].bytes;
	}
	out->int8 = blocks > others + halves;
	out->f16 = halves > others + blocks;
}

void bench_cost_of(const knit_program *p, const bench_test *test, int64_t batch, bench_cost *out) {
	const double tokens = (double)(test->prompt + test->made);
	knit_run_cost cost;

	*out = (bench_cost){0};
	if (!p || tokens <= 0 || !knit__run_cost_init(&cost, p))
		return;
	for (int64_t done = 0; done < test->prompt;) {
		const int64_t n = test->prompt - done < batch ? test->prompt - done : batch;
		add_run(p, n, test->depth + done + (n + 1) / 2, &cost, &out->steps);
		done += n;
	}
	/* The context grows by one with each token: the one in the middle stands for all. */
	if (test->made)
		add_run(p, 1, test->depth + test->made / 2 + 1, &cost, &out->steps);
	const double runs = test->made ? 1 : tokens;
	out->flops = cost.sum.flops / runs;
	out->weight_bytes = (double)cost.sum.weights / runs;
	out->weight_bytes_unique = (double)knit__run_cost_unique(&cost) / runs;
	out->state_bytes = (double)(cost.sum.state_read + cost.sum.state_write) / runs;
	out->all_bytes = (double)(cost.sum.read + cost.sum.write) / runs;
	out->steps /= runs;
	kind_of_weights(p, out);
	knit__run_cost_clear(&cost);
}

double bench_token_bytes(const bench_row *r) { return r->cost.weight_bytes + r->cost.state_bytes; }

double bench_gbps(const bench_row *r) { return bench_token_bytes(r) * r->rate.median * 1e-9; }

double bench_gflops(const bench_row *r) { return r->cost.flops * r->rate.median * 1e-9; }

double bench_read_peak(const bench_run *run, const bench_subject *s) {
	const knit_device_peaks *const p = &s->peaks;

	return p->size_count ? p->read[p->size_count - 1] * 1e-9 : s->on_host ? run->peaks.read_gbps : 0;
}

double bench_compute_peak(const bench_run *run, const bench_subject *s, bool int8, bool f16) {
	const knit_device_peaks *const p = &s->peaks;
	const bench_peaks *const host = &run->peaks;
	const double halves = s->on_host ? host->f16_gflops : fmax(p->f16, p->matrix) * 1e-9;
	const double bytes = s->on_host ? host->int8_gops : p->int8 * 1e-9;

	return int8 && bytes > 0 ? bytes : f16 && halves > 0 ? halves : s->on_host ? host->f32_gflops : p->f32 * 1e-9;
}

const char *bench_bound_by(const bench_run *run, const bench_row *r) {
	const double read = bench_read_peak(run, r->subject), compute = bench_compute_peak(run, r->subject, r->cost.int8, r->cost.f16);
	const double memory_seconds = read > 0 ? bench_token_bytes(r) / read * 1e-9 : 0;
	const double compute_seconds = compute > 0 ? r->cost.flops / compute * 1e-9 : 0;
	const double launch_seconds = r->cost.steps * r->subject->step_seconds;

	if (r->cost.flops == 0 || read == 0)
		return "";
	if (launch_seconds > memory_seconds && launch_seconds > compute_seconds)
		return "launch";
	if (compute == 0)
		return "";
	return memory_seconds >= compute_seconds ? "memory" : "compute";
}

double bench_of_peak(const bench_run *run, const bench_row *r) {
	const char *const bound = bench_bound_by(run, r);
	const double read = bench_read_peak(run, r->subject), compute = bench_compute_peak(run, r->subject, r->cost.int8, r->cost.f16);

	if (strcmp(bound, "compute") == 0 && compute > 0)
		return bench_gflops(r) / compute;
	return read > 0 && bench_token_bytes(r) > 0 ? bench_gbps(r) / read : 0;
}
