/* Owns what a bench run found: one row per test and subject, and the machine it ran on. Knows no output format. */
#ifndef KNIT_BENCH_ROWS_H
#define KNIT_BENCH_ROWS_H

#include "stats.h"
#include "subject.h"

#include <stdio.h>

#define BENCH_MAX_SAMPLES 256

/* Bytes and FLOP of one token, from the program's report; zeros for a peer. */
typedef struct bench_cost {
	double flops, weight_bytes, weight_bytes_unique, state_bytes, other_bytes;
} bench_cost;

typedef struct bench_row {
	const bench_subject *subject;
	bench_test test;
	double seconds[BENCH_MAX_SAMPLES]; /* of the whole test, without the warm-up */
	size_t count, warm_up;
	bench_stats rate;  /* tokens per second */
	bool steady;       /* the warm-up ended because it had settled, not because it was long enough */
	bench_cost cost;   /* per token */
	bench_stats ratio; /* of this subject's rate to that of the first subject's same test; count 0: it is the first */
} bench_row;

/* What can be had of the machine at best, measured in the same run; 0: not measured. */
typedef struct bench_peaks {
	double read_gbps, copy_gbps;           /* memory */
	double cache_read_gbps[3];             /* L1, L2, last level */
	uint64_t cache_bytes[3];
	double f32_gflops, int8_gops;
	uint32_t threads;
} bench_peaks;

typedef struct bench_run {
	char machine[128], system[96], commit[48], date[32];
	char model[400];
	uint64_t file_bytes, seed;
	uint32_t threads;
	bench_peaks peaks;
	bench_row *rows;
	size_t row_count;
	double busy; /* share of the machine's time that others took while we measured, 0..1 */
} bench_run;

/* bench/print.c. JSON lines: schema "knit.bench/1", described in bench/README.md. */
void bench_print_table(FILE *f, const bench_run *run);
void bench_print_markdown(FILE *f, const bench_run *run);
void bench_print_csv(FILE *f, const bench_run *run);
void bench_print_json(FILE *f, const bench_run *run);

/* bench/machine.c: processor, system and how busy the machine is. */
void bench_machine(bench_run *run);
/* Seconds of processor time that other processes have taken so far, all cores together; the difference over a
 * stretch of time is what they took in it. Negative where the system does not say. */
double bench_others_seconds(void);
uint32_t bench_cores(void);

/* bench/peaks.c */
void bench_measure_peaks(uint32_t threads, bench_peaks *out);

/* bench/device_peaks.c: bytes per second that a device which is not the host's processor reads at best; 0: it could not
 * be measured. */
double bench_device_read_gbps(const char *device);

#endif
