/* Owns what the bench compares: something that opens a model file, reads prompts and makes tokens. knit on a device is
 * one, another program is another. */
#ifndef KNIT_BENCH_SUBJECT_H
#define KNIT_BENCH_SUBJECT_H

#include "knit.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bench_subject bench_subject;

/* What is measured: `prompt` tokens read after `depth` tokens that are there already, or `made` tokens made one by one
 * after them. One of the two is 0. */
typedef struct bench_test { int64_t prompt, made, depth; } bench_test;

typedef struct bench_subject_kind {
	/* Runs the test once (several times for a program that is slow to start): seconds of each into out. DEVICE, IO ... with a
	 * text; *count is how many were written, at most cap. */
	knit_status (*run)(bench_subject *s, const bench_test *test, double *out, size_t cap, size_t *count, knit_diag *diag);
	void (*close)(bench_subject *s);
} bench_subject_kind;

struct bench_subject {
	const bench_subject_kind *kind;
	char name[64];    /* "knit cpu", "llama-bench" */
	char version[96]; /* of the program and its driver */
	double load_seconds;
	double peak_read_gbps; /* of its device, where that is not the host's processor; 0: the host's */
};

typedef struct bench_knit_desc {
	const char *path, *device; /* device NULL: the best */
	uint32_t threads;
	int64_t max_depth, batch; /* batch: tokens of one prefill step, default 512 */
	knit_dtype kv;
	const char *visits;
	uint32_t loops;
	bool no_adapter;
} bench_knit_desc;

/* bench/knit_subject.c: opens the model. What it holds can be asked for afterwards. */
knit_status bench_knit_open(const bench_knit_desc *desc, bench_subject **out, knit_diag *diag);
/* The program of a subject that bench_knit_open made; NULL for others. */
const knit_program *bench_knit_program(const bench_subject *s);

#endif
