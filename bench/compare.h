/* Owns the comparison of two bench runs that were written as JSON lines. Knows no command line. */
#ifndef KNIT_BENCH_COMPARE_H
#define KNIT_BENCH_COMPARE_H

#include "../graph/base.h"
#include "rows.h"

/* One row as it was read. Two rows are of the same test when their keys are equal. */
typedef struct bench_result {
	char key[640];
	char test[112], subject[64], machine[128], commit[48];
	double seconds[BENCH_MAX_SAMPLES], tokens; /* of the whole test; a single op counts as one token */
	size_t count;
	double clock; /* seconds of the fixed loop at the end of the run; 0: not known */
	double read_gbps; /* of memory, measured in the same run; 0: not known */
	char limit[24];   /* what binds the row and was measured: "memory", "last-level cache", "arithmetic", "empty step"; "": neither */
	double peak;      /* of that, per second */
	double busy;  /* share of the machine that others took during the run */
	bool wrong;   /* it computes something else than the model */
	double nmse;
} bench_result;

typedef struct bench_results { bench_result *rows; size_t count, cap; } bench_results;

/* Lines of schema "knit.bench/1" or "knit.ops/1"; profiles are passed over. FORMAT with the line's number and what is wrong with it; an empty text is wrong, too. */
knit_status bench_results_read(const char *name, const char *text, size_t bytes, bench_results *out, knit_diag *diag);
void bench_results_clear(bench_results *r);

typedef enum bench_verdict {
	BENCH_SAME = 0,    /* the intervals of the two overlap */
	BENCH_FASTER, BENCH_SLOWER, /* they part */
	BENCH_WRONG,       /* the new one computes something else: its speed counts for nothing */
	BENCH_TOO_FEW,     /* runs on either side to tell */
	BENCH_MACHINE,     /* the machine itself changed by more than BENCH_DRIFT, in what binds the row or in its memory, and no more was
	                    * seen than that; or there is a difference, and others took more than BENCH_BUSY of the machine */
	BENCH_GONE, BENCH_ADDED, /* the test is in one of the two only */
} bench_verdict;

/* Fewer runs than these part by chance too often: two sets of 5 do so once in 126 times. */
enum { BENCH_ENOUGH_RUNS = 5 };
#define BENCH_DRIFT 0.1

typedef struct bench_change {
	const bench_result *old, *new; /* one is NULL where the test is gone or was added */
	bench_stats old_rate, new_rate, ratio; /* tokens per second; ratio new / old */
	bench_verdict verdict;
	char doubt[48]; /* of BENCH_MACHINE: what changed */
} bench_change;

/* Room for old->count + new->count changes; returns how many there are. In the order of the new run, then what is gone. */
size_t bench_compare(const bench_results *old, const bench_results *new, bench_change *out);
/* Whether the change is a reason to fail: slower, significantly and by more than `limit` (0.03: 3 %), wrong, or gone. */
bool bench_change_fails(const bench_change *c, double limit);
/* limit negative: nothing fails, and the last line says nothing of it. */
void bench_print_changes(FILE *f, const bench_change *changes, size_t count, double limit);

#endif
