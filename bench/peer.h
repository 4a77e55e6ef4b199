/* Owns other programs' benches as subjects: started on the same file, their own JSON read. */
#ifndef KNIT_BENCH_PEER_H
#define KNIT_BENCH_PEER_H

#include "probe.h"

#include <stdint.h>

typedef struct bench_peer_desc {
	const char *spec;  /* "llama-bench=PATH ARGUMENTS": the dialect and the program; "ik-llama-bench:LABEL=PATH" */
	const char *model;
	uint32_t threads;
	int64_t batch;
	int64_t runs;      /* of one start of the program; 0: BENCH_PEER_RUNS */
	knit_dtype kv;     /* 0: f16 */
} bench_peer_desc;

enum { BENCH_PEER_RUNS = 3 };

/* ARGUMENT for a dialect that is not known, NOT_FOUND for a program that cannot be run. Starts nothing yet. */
knit_status bench_peer_open(const bench_peer_desc *desc, bench_subject **out, knit_diag *diag);

/* A bench_probe_fn for what bench_peer_open made: a whole run of its program with a prompt of BENCH_FIRST_PROMPT tokens, which is all
 * in `load`. tokens are not used. */
knit_status bench_peer_probe(void *subject, int64_t tokens, bench_probe *out, knit_diag *diag);

#endif
