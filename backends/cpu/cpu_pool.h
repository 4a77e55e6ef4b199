/* Owns the contract of the thread pool: a job of a few phases, each of independent units, split over threads. Knows
 * nothing of kernels. */
#ifndef KNIT_CPU_POOL_H
#define KNIT_CPU_POOL_H

#include "../../graph/base.h"

#define KNIT_POOL_MAX_THREADS 64
#define KNIT_POOL_PHASES 3

typedef struct knit_pool knit_pool;

/* What a thread is going to read in a later job, in that order: asked for while it has nothing else to do, and never read
 * by the pool, so it may be gone by then. */
#define KNIT_POOL_STRETCHES 3
typedef struct knit_pool_ahead {
	struct knit_pool_stretch { const char *at; int64_t bytes; } stretch[KNIT_POOL_STRETCHES]; /* those of 0 bytes: none */
} knit_pool_ahead;

/* run() gets contiguous ranges of the units of one phase. All units of a phase are done, and their writes visible to
 * every thread, before the next phase starts. `thread` is below the pool's thread count, and no two ranges run at the
 * same time under one number. */
typedef struct knit_pool_job {
	void (*run)(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread);
	/* Called by each thread that takes units of a phase, once and before it runs any: for what is cheaper made by each than
	 * waited for. NULL: nothing. */
	void (*own)(void *arg, uint32_t phase, uint32_t thread);
	void *arg;
	uint32_t phases;
	int64_t units[KNIT_POOL_PHASES];
	const knit_pool_ahead *ahead; /* of each thread; copied. NULL: none */
} knit_pool_job;

/* threads: 1 to 64, the calling one included; 0: one per core that this process may use. Where the system refuses to
 * start some of them the pool is smaller: ask knit__pool_threads. */
knit_status knit__pool_create(const knit_allocator *a, uint32_t threads, knit_pool **out, knit_diag *d);
/* No run may be under way. */
void knit__pool_destroy(knit_pool *p);
uint32_t knit__pool_threads(const knit_pool *p);

/* Runs the job to its end; the calling thread takes part as thread 0. Two callers at once are allowed: one gets the
 * workers, the other runs its job alone. So does a caller that has lately lost time by splitting, because the machine
 * is busy with other work. Allocates nothing. */
void knit__pool_run(knit_pool *p, const knit_pool_job *job);
/* The units that a thread takes first of a phase, unless others were there before it. */
void knit__pool_first_take(const knit_pool *p, int64_t units, uint32_t thread, int64_t *begin, int64_t *end);
/* For tests: split even where it does not pay. */
void knit__pool_split_always(knit_pool *p);
/* The same on the calling thread only. */
void knit__pool_run_alone(const knit_pool_job *job);

/* Cores that this process may use, at least 1. */
uint32_t knit__pool_cores(void);

#endif
