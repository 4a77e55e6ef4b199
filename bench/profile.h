/* Owns where the time of a run goes: the steps of a program by kind, and when each ran. Knows no output but its own. */
#ifndef KNIT_BENCH_PROFILE_H
#define KNIT_BENCH_PROFILE_H

#include "rows.h"

enum { BENCH_PROFILE_RUNS = 32, BENCH_TRACE_RUNS = 4 };

/* Steps of one op, made of the same parts, over weights of one type. */
typedef struct bench_profile_kind {
	char op[48];                        /* "linear_group q8_0" */
	char parts[120];                    /* what a fused step was made of; "": itself */
	size_t calls;                       /* in one run */
	double flops, bytes;                /* in one run, by the ops' definitions */
	double seconds[BENCH_PROFILE_RUNS]; /* in each run */
	double median;                      /* of these */
} bench_profile_kind;

/* One step of one run, for the trace. */
typedef struct bench_trace_step {
	uint32_t run;
	double begin, seconds; /* begin: since the test's first run. Steps of a run lie end to end: devices tell durations only */
	char name[48], origin[80], parts[120];
	double flops, bytes;
} bench_trace_step;

/* Of one test on one subject: runs of the program for one token (decode), or for one batch of the prompt. */
typedef struct bench_profile {
	bench_subject subject; /* a copy: device, peaks */
	bench_test test;
	int64_t tokens; /* of one run */
	bench_profile_kind *kinds; /* by time, the longest first */
	size_t kind_count, kind_cap;
	bench_trace_step *trace;
	size_t trace_count, trace_cap;
	size_t runs;
	double walls[BENCH_PROFILE_RUNS]; /* of the whole runs */
	double wall, inside; /* medians: of a whole run, of what of it is in steps */
	double steps;        /* sum of the kinds' medians: what shares are of */
	bool int8, f16; /* most of the weights' bytes */
} bench_profile;

/* Opens the subject again with KNIT_TIMES=1, so that times are kept, and runs each test. As many profiles as tests that
 * could be timed come back in *out, which the caller clears; none where the device keeps no times. */
knit_status bench_profile_run(const bench_knit_desc *desc, const bench_subject *like, const bench_test *tests, size_t count,
                              bench_profile **out, size_t *out_count, knit_diag *diag);
void bench_profiles_clear(bench_profile *profiles, size_t count);

/* Share of the peak that is nearer, 0..1; 0: peaks are not known. */
double bench_profile_of_peak(const bench_run *run, const bench_profile *p, const bench_profile_kind *k);

void bench_profile_print(FILE *f, const bench_run *run, const bench_profile *p, bool markdown);
/* A line of schema "knit.profile/1". */
void bench_profile_json(FILE *f, const bench_run *run, const bench_profile *p);
/* Chrome trace JSON of all profiles, one thread each. */
void bench_profile_trace(FILE *f, const bench_profile *profiles, size_t count);

#endif
