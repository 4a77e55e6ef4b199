/* Owns running another program to its end: what it wrote, how long it took, what memory it had. */
#ifndef KNIT_BENCH_CHILD_H
#define KNIT_BENCH_CHILD_H

#include "resident.h"

#include "knit.h"

typedef struct bench_child {
	char *text;     /* its stdout, terminated; the caller frees it */
	double seconds; /* from its start to its end */
	bench_resident memory;
} bench_child;

/* argv[0] is looked for in PATH. Its stderr is thrown away. NOT_FOUND: it cannot be started; IO: it ended with an error. */
knit_status bench_child_run(char *const *argv, bench_child *out, knit_diag *diag);

#endif
