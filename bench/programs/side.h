/* Owns what programs share that let programs of knit run in turn: their ends, their runs, random numbers. */
#ifndef KNIT_BENCH_SIDE_H
#define KNIT_BENCH_SIDE_H

#include "../clock.h"
#include "../stats.h"
#include "knit.h"

#include <stdio.h>
#include <stdlib.h>

static knit_diag diag;

/* The first error is the end. */
static inline void check(knit_status status) {
	if (status == KNIT_OK)
		return;
	fprintf(stderr, "%s: %s\n", knit_status_name(status), diag.text);
	exit(1);
}

static inline uint64_t next(uint64_t *state) {
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Between -1 and 1. */
static inline void fill_input(float *x, int64_t count) {
	uint64_t state = 7;

	for (int64_t i = 0; i < count; ++i)
		x[i] = (float)(int32_t)(next(&state) >> 32) * 0x1p-31f;
}

enum { SIDE_MOST_RUNS = 4000 };
typedef struct side { knit_program *program; knit_session *session; double seconds[SIDE_MOST_RUNS]; } side;

/* disable: passes that are left out; x: the input of that name. */
static inline void side_open(side *s, const knit_graph *g, const char *disable, const float *x, size_t bytes) {
	check(knit_compile(g, &(knit_compile_desc){.device = "cpu", .disable_passes = disable}, &s->program, &diag));
	check(knit_session_create(s->program, &s->session, &diag));
	check(knit_session_write(s->session, "x", x, bytes));
}

static inline void side_close(side *s) {
	knit_session_destroy(s->session);
	knit_program_release(s->program);
}

static inline double side_run(side *s) {
	const double start = bench_now();

	check(knit_session_run(s->session));
	return bench_now() - start;
}

#endif
