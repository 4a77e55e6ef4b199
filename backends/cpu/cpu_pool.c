/* Owns the threads of the CPU device: publishing a job, claiming its units, the barrier between phases, sleeping and
 * waking, asking memory for what comes next. Knows nothing of kernels.
 *
 * Nobody waits for a thread that has not come: units are claimed, so a worker that sleeps or is not scheduled simply
 * takes none, and the caller waits only for units that are being computed. Each thread starts with a range of its own
 * (the same weights every token, which helps its caches) and then helps with the ranges of the others.
 *
 * Waiting spins for a bounded time, yields a few times, then sleeps on a condition variable. With more threads than
 * cores nothing spins. */
#include "cpu_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SPIN_IDLE 2000 /* pauses, 20 to 100 microseconds: longer than the gap between two steps of a program */
#define SPIN_BARRIER 4000
#define YIELDS 8
#define ASK_BYTES 256 /* between two looks at the gate: some 10 ns, by what one thread can read */
#define OWN_PARTS 2    /* of what is left of its own range a thread takes one */
#define GAIN_WINDOW_NS 50e6 /* what "lately" means */
#define LOSS_NS 1e6
/* How long a caller stays alone, in times of what it lost: the first time, and at most. */
#define ALONE_FIRST 1.0
#define ALONE_MOST 20.0
#define GAIN_SOUND_NS 10e6 /* gains without a loss between them that long say that the machine is free again */

/* The gate word: epoch (32 bits) | open (1) | workers inside (31). A job's fields change only while the gate is closed
 * and nobody is inside. A caller leaves when all units are done; workers may leave later. */
#define GATE_OPEN (UINT64_C(1) << 31)
#define GATE_INSIDE (GATE_OPEN - 1)
#define GATE_EPOCH(g) ((uint32_t)((g) >> 32))

typedef struct claim { alignas(64) _Atomic int64_t next; } claim;

typedef struct phase_state {
	alignas(64) _Atomic int64_t done;
	int64_t units;
} phase_state;

typedef struct asking { alignas(64) knit_pool_ahead ahead; } asking;

typedef struct worker {
	knit_pool *pool;
	pthread_t thread;
	uint32_t number;
} worker;

/* What one side writes for every job has lines of its own: a line that two cores write or poll costs some 100 ns each time
 * it changes hands, as long as a tiny job takes. */
struct knit_pool {
	alignas(64) _Atomic uint64_t gate;
	alignas(64) atomic_uint sleepers; /* workers asleep between jobs */
	atomic_uint waiters;              /* threads asleep at a barrier */
	atomic_bool stop;
	claim *claims; /* [phase][range] */
	asking *asks;  /* of each thread; changes as a job does */
	worker *workers;
	uint32_t threads, wanted;
	uint32_t spin_idle, spin_barrier;
	bool always_split;
	alignas(64) knit_pool_job job;
	phase_state phase[KNIT_POOL_PHASES];
	alignas(64) atomic_bool busy;
	double gain_ns;      /* what splitting has saved lately; belongs to the caller that holds `busy`, as the next does */
	double alone_factor; /* for the next loss */
	_Atomic uint64_t alone_until_ns;
	alignas(64) pthread_mutex_t lock;
	pthread_cond_t wake, progress;
	knit_allocator a;
};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Cores' worth of time that a container grants (cgroup v2); UINT32_MAX without a limit. */
static uint32_t granted_cores(void) {
	unsigned long long quota, period;
	FILE *const f = fopen("/sys/fs/cgroup/cpu.max", "r");

	if (!f)
		return UINT32_MAX;
	const int read = fscanf(f, "%llu %llu", &quota, &period); /* "max 100000" reads nothing */
	fclose(f);
	if (read != 2 || period == 0 || quota / period >= UINT32_MAX - 1)
		return UINT32_MAX;
	return quota < period ? 1 : (uint32_t)(quota / period + (quota % period != 0));
}

uint32_t knit__pool_cores(void) {
	long n = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
		n = CPU_COUNT(&set);
#endif
	const uint32_t cores = n < 1 ? 1 : (uint32_t)n, granted = granted_cores();
	return cores < granted ? cores : granted;
}

/* ---- one job ----------------------------------------------------------------------------------------------------- */

static int64_t range_begin(int64_t units, uint32_t range, uint32_t ranges) {
	/* 128 bits: units may be any positive number */
	return (int64_t)((__int128)units * range / ranges);
}

static bool phase_done(const knit_pool *p, uint32_t phase) {
	return atomic_load(&p->phase[phase].done) == p->phase[phase].units;
}

static bool gate_empty(const knit_pool *p) { return (atomic_load(&p->gate) & GATE_INSIDE) == 0; }

static void wake_waiters(knit_pool *p) {
	if (atomic_load(&p->waiters) == 0)
		return;
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->progress);
	pthread_mutex_unlock(&p->lock);
}

/* phase >= 0: until all its units are done; -1: until no worker is inside. */
static bool reached(const knit_pool *p, int phase) {
	return phase < 0 ? gate_empty(p) : phase_done(p, (uint32_t)phase);
}

static void wait_until(knit_pool *p, int phase) {
	for (uint32_t i = 0; i < p->spin_barrier; ++i) {
		if (reached(p, phase))
			return;
		pause_briefly();
	}
	for (uint32_t i = 0; i < YIELDS; ++i) {
		if (reached(p, phase))
			return;
		sched_yield();
	}
	/* `waiters` is raised before the condition is looked at again, and the finisher looks at `waiters` after making it
	 * true (both sequentially consistent): one of the two sees the other. */
	pthread_mutex_lock(&p->lock);
	atomic_fetch_add(&p->waiters, 1);
	while (!reached(p, phase))
		pthread_cond_wait(&p->progress, &p->lock);
	atomic_fetch_sub(&p->waiters, 1);
	pthread_mutex_unlock(&p->lock);
}

/* Takes a part of what is left of a range: large pieces first, for a thread reads memory best in one stream, single units
 * at last, so that all threads come to the end of a phase together. Returns how many, from *begin on. */
static int64_t part_of(int64_t left, int64_t parts) { return left > parts ? left / parts : 1; }

static int64_t take(claim *c, int64_t end, int64_t parts, int64_t *begin) {
	int64_t next = atomic_load_explicit(&c->next, memory_order_relaxed);

	while (next < end) {
		const int64_t count = part_of(end - next, parts);

		if (atomic_compare_exchange_weak_explicit(&c->next, &next, next + count, memory_order_relaxed,
		                                          memory_order_relaxed)) {
			*begin = next;
			return count;
		}
	}
	return 0;
}

/* Returns how many units this thread has done. */
static int64_t work(knit_pool *p, uint32_t phase, uint32_t thread) {
	phase_state *const s = &p->phase[phase];
	claim *const claims = p->claims + (size_t)phase * p->threads;
	int64_t did = 0;

	for (uint32_t i = 0; i < p->threads; ++i) {
		const uint32_t range = thread + i < p->threads ? thread + i : thread + i - p->threads;
		const int64_t end = range_begin(s->units, range + 1, p->threads), parts = i == 0 ? OWN_PARTS : p->threads;
		int64_t begin, count;

		while ((count = take(&claims[range], end, parts, &begin)) > 0) {
			if (did == 0 && p->job.own)
				p->job.own(p->job.arg, phase, thread);
			p->job.run(p->job.arg, phase, begin, begin + count, thread);
			did += count;
		}
	}
	if (did && atomic_fetch_add(&s->done, did) + did == s->units)
		wake_waiters(p);
	return did;
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

/* Asks for the next piece. False where there is none left. */
static bool ask(knit_pool_ahead *a) {
	for (int i = 0; i < KNIT_POOL_STRETCHES; ++i) {
		struct knit_pool_stretch *const s = &a->stretch[i];
		const int64_t bytes = s->bytes < ASK_BYTES ? s->bytes : ASK_BYTES;

		if (bytes <= 0)
			continue;
		for (int64_t at = 0; at < bytes; at += 64)
			__builtin_prefetch(s->at + at, 0, 3);
		s->at += bytes;
		s->bytes -= bytes;
		return true;
	}
	return false;
}

/* Waits for a job later than `seen`. False when the pool stops. */
static bool wait_for_job(knit_pool *p, uint32_t seen, knit_pool_ahead *ahead) {
	for (uint32_t i = 0; i < p->spin_idle; ++i) {
		if (GATE_EPOCH(atomic_load_explicit(&p->gate, memory_order_relaxed)) != seen)
			return true;
		if (atomic_load_explicit(&p->stop, memory_order_relaxed))
			return false;
		if (!ask(ahead))
			pause_briefly();
	}
	pthread_mutex_lock(&p->lock);
	atomic_fetch_add(&p->sleepers, 1);
	while (!atomic_load(&p->stop) && GATE_EPOCH(atomic_load(&p->gate)) == seen)
		pthread_cond_wait(&p->wake, &p->lock);
	atomic_fetch_sub(&p->sleepers, 1);
	pthread_mutex_unlock(&p->lock);
	return !atomic_load(&p->stop);
}

/* The lines that a worker is going to read, all at once instead of one after the other. */
static void fetch_job(const knit_pool *p, uint32_t number) {
	const char *const job = (const char *)&p->job;

	for (size_t at = 0; at < sizeof p->job; at += 64)
		__builtin_prefetch(job + at);
	__builtin_prefetch(&p->phase[0]);
	__builtin_prefetch(&p->claims[number], 1);
	__builtin_prefetch(&p->asks[number]);
}

/* False if the gate closed before this worker was inside. *seen: the job that it now knows. */
static bool enter(knit_pool *p, uint32_t *seen) {
	uint64_t gate = atomic_load(&p->gate);

	do {
		*seen = GATE_EPOCH(gate);
		if (!(gate & GATE_OPEN))
			return false;
	} while (!atomic_compare_exchange_weak(&p->gate, &gate, gate + 1));
	return true;
}

static void leave(knit_pool *p) {
	const uint64_t before = atomic_fetch_sub(&p->gate, 1);

	if ((before & GATE_INSIDE) == 1)
		wake_waiters(p);
}

static void *worker_main(void *arg) {
	const worker *const w = arg;
	knit_pool *const p = w->pool;
	knit_pool_ahead ahead = {0};
	uint32_t seen = 0;

	while (wait_for_job(p, seen, &ahead)) {
		fetch_job(p, w->number);
		if (!enter(p, &seen))
			continue;
		const uint32_t phases = p->job.phases;
		for (uint32_t i = 0; i < phases; ++i) {
			work(p, i, w->number);
			if (i + 1 < phases)
				wait_until(p, (int)i);
		}
		ahead = p->asks[w->number].ahead;
		leave(p);
	}
	return NULL;
}

/* ---- callers ----------------------------------------------------------------------------------------------------- */

void knit__pool_run_alone(const knit_pool_job *job) {
	for (uint32_t i = 0; i < job->phases; ++i) {
		if (job->units[i] <= 0)
			continue;
		if (job->own)
			job->own(job->arg, i, 0);
		job->run(job->arg, i, 0, job->units[i], 0);
	}
}

static void publish(knit_pool *p, const knit_pool_job *job) {
	p->job = *job;
	for (uint32_t i = 0; i < job->phases; ++i) {
		const int64_t units = job->units[i] > 0 ? job->units[i] : 0;

		p->phase[i].units = units;
		atomic_store_explicit(&p->phase[i].done, 0, memory_order_relaxed);
		for (uint32_t r = 0; r < p->threads; ++r)
			atomic_store_explicit(&p->claims[(size_t)i * p->threads + r].next, range_begin(units, r, p->threads),
			                      memory_order_relaxed);
	}
	for (uint32_t r = 1; r < p->threads; ++r)
		p->asks[r].ahead = job->ahead ? job->ahead[r] : (knit_pool_ahead){0};
	const uint64_t epoch = (uint64_t)GATE_EPOCH(atomic_load_explicit(&p->gate, memory_order_relaxed)) + 1;
	atomic_store(&p->gate, (epoch << 32) | GATE_OPEN);
	if (atomic_load(&p->sleepers) == 0)
		return;
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

static uint64_t now_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* On a machine that is busy with other work, a thread that has claimed units may be taken off its core with them, for
 * far longer than the whole job takes. So the caller keeps count of what splitting has saved, by its own speed on its
 * own units, and stays alone for a while when that is a loss: as long as it lost where that is rare (an interrupt), twice
 * as long each time it happens again, until trying costs one part in ALONE_MOST. */
static void settle(knit_pool *p, double alone_ns, uint64_t begin_ns, uint64_t end_ns) {
	const double took_ns = (double)(end_ns - begin_ns);

	p->gain_ns -= p->gain_ns * (took_ns < GAIN_WINDOW_NS ? took_ns / GAIN_WINDOW_NS : 1.0);
	p->gain_ns += alone_ns - took_ns;
	if (p->gain_ns > GAIN_SOUND_NS)
		p->alone_factor = ALONE_FIRST;
	if (p->gain_ns >= -LOSS_NS || p->always_split)
		return;
	atomic_store_explicit(&p->alone_until_ns, end_ns + (uint64_t)(-p->gain_ns * p->alone_factor), memory_order_relaxed);
	p->alone_factor = p->alone_factor * 2 < ALONE_MOST ? p->alone_factor * 2 : ALONE_MOST;
	p->gain_ns = 0.0;
}

static void run_split(knit_pool *p, const knit_pool_job *job, uint64_t begin_ns) {
	uint64_t start_ns = begin_ns;
	double alone_ns = 0.0;

	/* A worker may still be on its way out of the job before: it looks at the job's fields, but runs nothing. */
	if (!gate_empty(p)) {
		wait_until(p, -1);
		start_ns = now_ns();
	}
	publish(p, job);
	for (uint32_t i = 0; i < job->phases; ++i) {
		if (job->units[i] <= 0)
			continue;
		const int64_t did = work(p, i, 0);
		const double worked_ns = (double)(now_ns() - start_ns);
		/* A caller that came too late to do anything has no speed of its own: then take it as even. */
		alone_ns += did ? worked_ns * ((double)p->phase[i].units / (double)did) : worked_ns;
		wait_until(p, (int)i);
		start_ns = now_ns();
	}
	atomic_fetch_and(&p->gate, ~GATE_OPEN);
	settle(p, alone_ns, begin_ns, start_ns);
}

void knit__pool_run(knit_pool *p, const knit_pool_job *job) {
	if (p->threads == 1) {
		knit__pool_run_alone(job);
		return;
	}
	const uint64_t begin_ns = now_ns();
	if (begin_ns < atomic_load_explicit(&p->alone_until_ns, memory_order_relaxed) ||
	    atomic_exchange_explicit(&p->busy, true, memory_order_acquire)) {
		knit__pool_run_alone(job);
		return;
	}
	run_split(p, job, begin_ns);
	atomic_store_explicit(&p->busy, false, memory_order_release);
}

void knit__pool_first_take(const knit_pool *p, int64_t units, uint32_t thread, int64_t *begin, int64_t *end) {
	*begin = range_begin(units, thread, p->threads);
	*end = range_begin(units, thread + 1, p->threads);
	if (*begin < *end)
		*end = *begin + part_of(*end - *begin, OWN_PARTS);
}

void knit__pool_split_always(knit_pool *p) { p->always_split = true; }

uint32_t knit__pool_threads(const knit_pool *p) { return p->threads; }

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void pool_free(knit_pool *p) {
	const knit_allocator a = p->a;

	knit__free(&a, p->claims, (size_t)p->wanted * KNIT_POOL_PHASES * sizeof *p->claims);
	knit__free(&a, p->asks, (size_t)p->wanted * sizeof *p->asks);
	knit__free(&a, p->workers, (size_t)p->wanted * sizeof *p->workers);
	knit__free(&a, p, sizeof *p);
}

/* Starts workers 1 .. wanted - 1; fewer where the system says no. None of them looks at `threads` before the first
 * job, which is published after this. */
static uint32_t start_workers(knit_pool *p) {
	sigset_t all, before;
	uint32_t i = 1;

	/* Signals belong to the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (; i < p->wanted; ++i) {
		p->workers[i] = (worker){.pool = p, .number = i};
		if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]) != 0)
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return i;
}

knit_status knit__pool_create(const knit_allocator *a, uint32_t threads, knit_pool **out, knit_diag *d) {
	const uint32_t cores = knit__pool_cores();

	*out = NULL;
	if (threads > KNIT_POOL_MAX_THREADS)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "%u CPU threads asked for: use 1 to %d, or 0 for one per core", threads,
		                  KNIT_POOL_MAX_THREADS);
	if (threads == 0)
		threads = cores < KNIT_POOL_MAX_THREADS ? cores : KNIT_POOL_MAX_THREADS;

	knit_pool *p = knit__alloc_zero(a, sizeof *p);
	if (!p)
		return knit__fail_memory(d, "the thread pool", sizeof *p);
	p->a = *a;
	p->wanted = threads;
	p->claims = knit__alloc_array(a, (size_t)threads * KNIT_POOL_PHASES, sizeof *p->claims);
	p->asks = knit__alloc_array(a, threads, sizeof *p->asks);
	p->workers = knit__alloc_array(a, threads, sizeof *p->workers);
	if (!p->claims || !p->asks || !p->workers) {
		pool_free(p);
		return knit__fail_memory(d, "the thread pool", (uint64_t)threads * sizeof(claim));
	}
	atomic_init(&p->gate, 0);
	atomic_init(&p->sleepers, 0);
	atomic_init(&p->waiters, 0);
	atomic_init(&p->stop, false);
	atomic_init(&p->busy, false);
	p->alone_factor = ALONE_FIRST;
	atomic_init(&p->alone_until_ns, 0);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->progress, NULL);
	p->spin_idle = threads <= cores ? SPIN_IDLE : 0;
	p->spin_barrier = threads <= cores ? SPIN_BARRIER : 0;
	p->threads = start_workers(p);
	*out = p;
	return KNIT_OK;
}

void knit__pool_destroy(knit_pool *p) {
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	atomic_store(&p->stop, true);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 1; i < p->threads; ++i)
		pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->progress);
	pthread_mutex_destroy(&p->lock);
	pool_free(p);
}
