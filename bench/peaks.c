/* What this machine can do at best: bytes read and copied per second, FLOP and 8-bit products per second, on all threads at once. The
 * loops do nothing else, so a kernel cannot beat them by more than noise. */
#include "clock.h"
#include "peak_loops.h"
#include "rows.h"

#include "../graph/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of all threads together, and of each: far beyond any cache. */
#define ALL_BYTES (UINT64_C(1) << 30)
#define MOST_BYTES (UINT64_C(256) << 20)
#define LEAST_BYTES (UINT64_C(32) << 20)
#define ROUNDS 5
#define MIN_SECONDS 0.05

typedef enum work_kind { READ, COPY, COMPUTE } work_kind;

typedef struct work {
	work_kind kind;
	bench_peak_loop loop; /* of COMPUTE */
	char *data;
	uint64_t bytes;
	uint64_t repeat;
	double units; /* bytes or operations that the last run did */
	atomic_int *go; /* 0: wait; 1: begin; -1: there is nothing to do */
	double begin, end;
	volatile uint64_t sink;
	double mean;
} work;

static void *worker(void *arg) {
	work *const w = arg;

	while (atomic_load(w->go) == 0)
		sched_yield();
	if (atomic_load(w->go) < 0)
		return NULL;
	w->begin = bench_now();
	w->units = 0;
	if (w->kind == COMPUTE)
		w->units = w->loop(w->repeat, &w->mean);
	for (uint64_t i = 0; w->kind != COMPUTE && i < w->repeat; ++i) {
		if (w->kind == READ) {
			w->sink += bench_peak_read(w->data, w->bytes);
			w->units += (double)w->bytes;
		} else {
			memcpy(w->data, w->data + w->bytes / 2, (size_t)(w->bytes / 2));
			w->units += (double)w->bytes / 2; /* read once; it is written once besides */
		}
	}
	w->end = bench_now();
	return NULL;
}

/* Units per second of all threads together, from the first's begin to the last's end. 0: the system has no such threads. */
static double run_once(work *works, pthread_t *threads, uint32_t count) {
	atomic_int go = 0;
	uint32_t made = 1;
	double units = 0, begin = 0, end = 0;

	for (uint32_t i = 0; i < count; ++i)
		works[i].go = &go;
	while (made < count && pthread_create(&threads[made], NULL, worker, &works[made]) == 0)
		++made;
	atomic_store(&go, made == count ? 1 : -1);
	worker(&works[0]);
	for (uint32_t i = 1; i < made; ++i)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < made; ++i) {
		units += works[i].units;
		begin = i == 0 || works[i].begin < begin ? works[i].begin : begin;
		end = works[i].end > end ? works[i].end : end;
	}
	return end > begin ? units / (end - begin) : 0;
}

/* ---- all threads together ---------------------------------------------------------------------------------------- */

typedef struct crew {
	work *works;
	pthread_t *threads;
	uint32_t count;
	uint64_t bytes; /* of memory, that each has */
} crew;

static void dismiss(crew *c) {
	for (uint32_t i = 0; c->works && i < c->count; ++i)
		free(c->works[i].data);
	free(c->works);
	free(c->threads);
	*c = (crew){0};
}

/* With memory of its own for each thread. */
static bool gather(crew *c, uint32_t count) {
	const uint64_t share = ALL_BYTES / count / 65536 * 65536;
	*c = (crew){calloc(count, sizeof *c->works), calloc(count, sizeof *c->threads), count,
	            share > MOST_BYTES ? MOST_BYTES : share < LEAST_BYTES ? LEAST_BYTES : share};
	bool ok = c->works && c->threads;

	for (uint32_t i = 0; ok && i < count; ++i) {
		c->works[i].data = aligned_alloc(4096, c->bytes);
		ok = c->works[i].data != NULL;
		if (ok)
			memset(c->works[i].data, (int)i + 1, c->bytes);
	}
	if (!ok)
		dismiss(c);
	return ok;
}

/* The best of some rounds, each long enough to be measured; per nanosecond. */
static double best_of(const crew *c, const work *what) {
	double best = 0;
	uint64_t repeat = 1;

	for (int round = 0; round < ROUNDS;) {
		for (uint32_t i = 0; i < c->count; ++i) {
			work *const w = &c->works[i];
			*w = (work){.kind = what->kind, .loop = what->loop, .bytes = what->bytes, .data = w->data, .repeat = repeat};
		}
		const double rate = run_once(c->works, c->threads, c->count);
		if (rate > 0 && c->works[0].end - c->works[0].begin < MIN_SECONDS && repeat < UINT64_C(1) << 40) {
			repeat *= 4;
			continue;
		}
		if (rate == 0)
			break;
		best = rate > best ? rate : best;
		++round;
	}
	return best * 1e-9;
}

static double best_moving(const crew *c, work_kind kind, uint64_t bytes) { return best_of(c, &(work){.kind = kind, .bytes = bytes}); }

static double best_computing(const crew *c, bench_peak_kind kind, const char **by) {
	const bench_peak_loop loop = bench_peak_loop_of(kind, by);

	return loop ? best_of(c, &(work){.kind = COMPUTE, .loop = loop}) : 0;
}

static uint64_t cache_size(int name, uint64_t fallback) {
	const long n = sysconf(name);

	return n > 0 ? (uint64_t)n : fallback;
}

void bench_measure_peaks(uint32_t count, bench_peaks *out) {
	const uint64_t sizes[] = {cache_size(_SC_LEVEL1_DCACHE_SIZE, 32768), cache_size(_SC_LEVEL2_CACHE_SIZE, 1 << 20),
	                          cache_size(_SC_LEVEL3_CACHE_SIZE, 16 << 20)};
	const char *f32_by;
	crew c;

	*out = (bench_peaks){.threads = count, .f16_by = "", .int8_by = ""};
	if (!gather(&c, count))
		return;
	out->read_gbps = best_moving(&c, READ, c.bytes);
	out->copy_gbps = best_moving(&c, COPY, c.bytes);
	for (int i = 0; i < 3; ++i) {
		/* Half of a level that each core has; the last one is shared. */
		const uint64_t share = i == 2 ? sizes[i] / 2 / count : sizes[i] / 2;
		out->cache_bytes[i] = share < c.bytes ? share / 256 * 256 : c.bytes;
		out->cache_read_gbps[i] = best_moving(&c, READ, out->cache_bytes[i]);
		out->cache_copy_gbps[i] = best_moving(&c, COPY, out->cache_bytes[i]);
	}
	out->f32_gflops = best_computing(&c, BENCH_PEAK_F32, &f32_by);
	out->f16_gflops = best_computing(&c, BENCH_PEAK_F16, &out->f16_by);
	out->int8_gops = best_computing(&c, BENCH_PEAK_INT8, &out->int8_by);
	dismiss(&c);
}

double bench_measure_read(uint32_t count) {
	crew c;

	if (!gather(&c, count))
		return 0;
	const double gbps = best_moving(&c, READ, c.bytes);
	dismiss(&c);
	return gbps;
}
