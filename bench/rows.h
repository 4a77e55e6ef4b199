/* Owns what a bench run found: one row per test and subject, and the machine it ran on. Knows no output format. */
#ifndef KNIT_BENCH_ROWS_H
#define KNIT_BENCH_ROWS_H

#include "stats.h"
#include "subject.h"

#include <stdio.h>

#define BENCH_MAX_SAMPLES 256
#define BENCH_BUSY 0.05 /* share of the machine that others may take before numbers are doubted */

/* Of one token, by the ops' own definitions; zeros for a peer. */
typedef struct bench_cost {
	double flops, weight_bytes, weight_bytes_unique, state_bytes;
	double all_bytes; /* with activations */
	double steps;     /* of the program */
	bool f16;         /* most of its weights are */
	bool int8;        /* its weights are of block formats: 8-bit products are the peak it can be held against */
} bench_cost;

typedef struct bench_row {
	const bench_subject *subject;
	bench_test test;
	double seconds[BENCH_MAX_SAMPLES]; /* of the whole test, without the warm-up */
	size_t count, warm_up;
	bench_stats rate;  /* tokens per second */
	bool absent;       /* the subject has no such test */
	bool steady;       /* the warm-up ended because it had settled, not because it was long enough */
	bench_cost cost;   /* per token */
	bench_stats ratio; /* of this subject's rate to that of the first subject's same test; count 0: it is the first */
} bench_row;

/* What can be had of the machine at best, measured in the same run; 0: not measured. */
typedef struct bench_peaks {
	double read_gbps, copy_gbps;           /* memory */
	double cache_read_gbps[3], cache_copy_gbps[3]; /* L1, L2, last level */
	uint64_t cache_bytes[3];
	double read_gbps_first;  /* read_gbps is the better of two measurements, before and after the tests: this was the first; 0: the only one */
	double f32_gflops, f16_gflops, int8_gops;
	const char *f16_by;      /* "widened" to f32, "avx512-fp16", "neon-fp16" */
	const char *int8_by;     /* "vpdpbusd", "sdot" ... */
	uint32_t threads;
} bench_peaks;

typedef struct bench_run {
	char machine[128], system[96], commit[48], date[32];
	char model[400], flags[400], kv[16];
	uint64_t file_bytes, seed;
	int64_t batch;
	uint32_t threads;
	bench_peaks peaks;
	bench_row *rows;
	size_t row_count;
	bool interrupted; /* tests that were asked for are not there */
	double planted; /* share of its time by which each run of knit was made longer on purpose, to see whether that is found */
	double busy; /* share of the machine's time that others took while we measured, 0..1 */
	double cached_after_drop; /* share of the file that the system kept in memory when asked to drop it; negative: not asked */
	double clock_before, clock_after; /* seconds of one fixed loop before and after; 0: not measured */
} bench_run;

/* bench/cost.c. p NULL: zeros. */
void bench_cost_of(const knit_program *p, const bench_test *test, int64_t batch, bench_cost *out);
/* What must be moved for a token: each weight once per step, and keys and values. */
double bench_token_bytes(const bench_row *r);
double bench_gbps(const bench_row *r);
double bench_gflops(const bench_row *r);
/* GB/s; 0: not known. */
double bench_read_peak(const bench_run *run, const bench_subject *s);
/* GFLOP/s of the kind of product that weights ask for which are mostly in blocks (int8) or f16; 0: not known. */
double bench_compute_peak(const bench_run *run, const bench_subject *s, bool int8, bool f16);
/* "memory", "compute" or "launch": which of the three would take longest if each ran at its peak; "": not known. */
const char *bench_bound_by(const bench_run *run, const bench_row *r);
/* Of the peak of what binds (of memory where that is not known), 0..1; 0: not known. */
double bench_of_peak(const bench_run *run, const bench_row *r);

/* bench/print.c */
void bench_test_name(const bench_test *t, char out[48]);
void bench_print_table(FILE *f, const bench_run *run);
void bench_print_markdown(FILE *f, const bench_run *run);
void bench_print_csv(FILE *f, const bench_run *run);
/* bench/print_json.c. JSON lines: schema "knit.bench/1", described in bench/README.md. */
void bench_print_json(FILE *f, const bench_run *run);

/* bench/warnings.c: what makes the numbers worth less, a line each: neighbours, a clock that changed, spread, a subject
 * that computes something else. Returns how many. */
enum { BENCH_MAX_WARNINGS = 16, BENCH_WARNING_BYTES = 200 };
size_t bench_warnings(const bench_run *run, char out[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES]);

/* bench/machine.c: processor, system and how busy the machine is. */
void bench_machine(bench_run *run);
/* Seconds of processor time that other processes have taken so far, all cores together; the difference over a
 * stretch of time is what they took in it. Negative where the system does not say. */
double bench_others_seconds(void);
uint32_t bench_cores(void);
/* Seconds that a fixed chain of additions and multiplications takes at best: it changes with the clock and not with memory. */
double bench_clock_loop(void);

/* bench/peaks.c */
void bench_measure_peaks(uint32_t threads, bench_peaks *out);
/* Of memory, GB/s, once more. */
double bench_measure_read(uint32_t threads);

/* bench/device_peaks.c: of a device which is not the host's processor. Zeros and why where they could not be measured. */
void bench_device_peaks(const char *device, knit_device_peaks *out, char why[200]);
/* What a run costs that computes next to nothing, and what one more step adds, in seconds; 0: not measured. */
void bench_device_latency(const char *device, uint32_t threads, double *submit, double *step);

#endif
