/* The bench's clock. */
#ifndef KNIT_BENCH_CLOCK_H
#define KNIT_BENCH_CLOCK_H

#include "../frontends/text/generate.h"

/* Seconds of a clock that only goes forward. */
static inline double bench_now(void) { return (double)knit__clock_ns() * 1e-9; }

#endif
