/* Owns what a subject needs from nothing to its first token, and the memory it then has: each in a process of its own. */
#ifndef KNIT_BENCH_PROBE_H
#define KNIT_BENCH_PROBE_H

#include "subject.h"

typedef struct bench_probe {
	double load, first;    /* seconds to a ready session, and of a prompt of BENCH_FIRST_PROMPT tokens after it */
	bench_resident loaded; /* when the session was ready */
	bench_resident memory; /* after `tokens` tokens from the beginning, and one more */
} bench_probe;

/* knit's, in a child process that has no other model. To be called while this process has no threads. tokens 0: only the first. */
knit_status bench_probe_knit(const bench_knit_desc *desc, int64_t tokens, bench_probe *out, knit_diag *diag);

/* What the file does to loading: `disk` from the disk, where the system can be made to drop the file (share_kept: of its pages, what
 * stayed), `cached` the median of some with the file in the page cache. */
typedef struct bench_loading {
	bench_probe disk, cached;
	double share_kept; /* above BENCH_DROPPED (or negative: not known) disk is zeros */
} bench_loading;
#define BENCH_DROPPED 0.02

/* By `probe` for a subject of whatever kind; tokens are for its first call alone. */
typedef knit_status (*bench_probe_fn)(void *subject, int64_t tokens, bench_probe *out, knit_diag *diag);
knit_status bench_loading_measure(const char *path, bench_probe_fn probe, void *subject, int64_t tokens, bench_loading *out,
                                  knit_diag *diag);

#endif
