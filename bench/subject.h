/* Owns what the bench compares: something that opens a model file, reads prompts and makes tokens. knit on a device is
 * one, another program is another. */
#ifndef KNIT_BENCH_SUBJECT_H
#define KNIT_BENCH_SUBJECT_H

#include "resident.h"

#include "../backends/peaks.h"
#include "knit.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bench_subject bench_subject;

/* What is measured: `prompt` tokens read after `depth` tokens that are there already, or `made` tokens made one by one
 * after them. One of the two is 0. */
typedef struct bench_test { int64_t prompt, made, depth; } bench_test;

typedef struct bench_subject_kind {
	/* Runs the test once (several times for a program that is slow to start): seconds of each into out. DEVICE, IO ... with a
	 * text; *count is how many were written, at most cap. UNSUPPORTED: it has no such test. */
	knit_status (*run)(bench_subject *s, const bench_test *test, double *out, size_t cap, size_t *count, knit_diag *diag);
	void (*close)(bench_subject *s);
	bool warms_itself; /* before what it counts: no run is thrown away for it */
} bench_subject_kind;

/* Whether it computes the right thing, against a reference that shares no kernel with it. */
typedef struct bench_check {
	size_t rows;        /* of logits that were compared; 0: not checked */
	double nmse;        /* sum of squared differences over the sum of squares of the reference */
	double top1;        /* share of rows whose largest logit is the reference's, 0..1 */
	char reference[64]; /* what it was compared with */
} bench_check;

/* A row above this computes something else than the model: rounding and 8-bit activations stay orders below. */
#define BENCH_NMSE_WRONG 5e-3

struct bench_subject {
	const bench_subject_kind *kind;
	char name[64];    /* "knit cpu", "llama-bench" */
	char version[96]; /* of the program */
	char device[64], driver[160];
	char model[200];  /* the file it runs where that is not the run's; "" otherwise */
	bool on_host;          /* its device is the host's processor */
	double load_seconds;   /* from nothing to a session that is ready */
	double first_cold, first_warm; /* seconds of a prompt of BENCH_FIRST_PROMPT tokens, right after loading and later; 0: none */
	double disk_load, disk_first;  /* the same with nothing of the file in the page cache; 0: not measured */
	knit_device_peaks peaks; /* of its device, where that is not the host's processor; zeros: not measured */
	char no_peaks[200];      /* why not; "" where they were, or nobody asked */
	double submit_seconds, step_seconds; /* of a run that does nothing, of one more step in it; 0: not measured */
	knit_memory memory;    /* planned; zeros for a peer */
	bench_resident seen;   /* of a process that has only this subject; 0: not looked at */
	bench_check check;
};

static inline uint64_t bench_planned_bytes(const knit_memory *m) {
	return m->weight_bytes + m->packed_bytes + m->adapter_bytes + m->state_bytes + m->arena_bytes + m->io_bytes;
}

static inline bool bench_is_wrong(const bench_subject *s) {
	return s->check.rows > 0 && !(s->check.nmse <= BENCH_NMSE_WRONG);
}

enum { BENCH_FIRST_PROMPT = 16 };

typedef struct bench_knit_desc {
	const char *path, *device; /* device NULL: the best */
	uint64_t device_memory;    /* of a split; 0: what its first device has */
	uint32_t threads;
	int64_t max_depth, batch; /* batch: tokens of one prefill step, default 512 */
	knit_dtype kv;
	const char *visits;
	uint32_t loops;
	bool no_adapter;
	bool unnamed; /* the driver is not asked for: listing devices loads those of GPUs, a hundred MB of a process's memory */
} bench_knit_desc;

/* bench/knit_subject.c: opens the model. What it holds can be asked for afterwards. */
knit_status bench_knit_open(const bench_knit_desc *desc, bench_subject **out, knit_diag *diag);
/* The program of a subject that bench_knit_open made; NULL for others. */
const knit_program *bench_knit_program(const bench_subject *s);
const knit_session *bench_knit_session(const bench_subject *s);
/* One step of `count` made-up tokens (at most the batch) from position `at` on; those before must be there: see
 * bench_knit_reach. */
knit_status bench_knit_step(bench_subject *s, int64_t at, int64_t count, knit_diag *diag);
knit_status bench_knit_reach(bench_subject *s, int64_t depth, knit_diag *diag);
/* Gives back model and session; what is known of the subject stays. */
void bench_knit_let_go(bench_subject *s);
/* Fills in first_cold and, from so many more runs, first_warm; cold only as the first thing that is done with a subject. */
enum { BENCH_WARM_RUNS = 5 };
knit_status bench_knit_first_token(bench_subject *s, int warm_runs, knit_diag *diag);
/* Logits after each of the prompt's tokens from number `from` on (0-based): the tokens up to `from` in one step, then one
 * by one. count - from rows of bench_knit_vocab floats. */
knit_status bench_knit_logits(bench_subject *s, const int32_t *ids, size_t count, size_t from, float *logits, knit_diag *diag);
int64_t bench_knit_vocab(const bench_subject *s);

/* bench/check.c: what the logits of a short made-up text should be. By the ops' double-precision definitions where the
 * model is small, else by the CPU's kernels in plain C. The desc's device is not used. */
typedef struct bench_reference bench_reference;
knit_status bench_reference_make(const bench_knit_desc *desc, bench_reference **out, knit_diag *diag);
void bench_reference_free(bench_reference *r);
/* Fills in s->check. */
knit_status bench_reference_check(const bench_reference *r, bench_subject *s, knit_diag *diag);

#endif
