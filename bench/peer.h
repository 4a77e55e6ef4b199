/* Owns other programs' benches as subjects: started on the same file, their own JSON read. */
#ifndef KNIT_BENCH_PEER_H
#define KNIT_BENCH_PEER_H

#include "subject.h"

#include <stdint.h>

typedef struct bench_peer_desc {
	const char *spec;  /* "llama-bench=PATH": the dialect and the program */
	const char *model;
	uint32_t threads;
	int64_t batch;
	knit_dtype kv;     /* 0: f16 */
} bench_peer_desc;

/* ARGUMENT for a dialect that is not known, NOT_FOUND for a program that cannot be run. Starts nothing yet. */
knit_status bench_peer_open(const bench_peer_desc *desc, bench_subject **out, knit_diag *diag);

#endif
