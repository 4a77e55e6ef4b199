/* Owns the loops that find what the host's processor can do at best: each does one thing, by the widest instructions there are. */
#ifndef KNIT_BENCH_PEAK_LOOPS_H
#define KNIT_BENCH_PEAK_LOOPS_H

#include <stdint.h>

typedef enum bench_peak_kind { BENCH_PEAK_F32 = 0, BENCH_PEAK_F16, BENCH_PEAK_INT8, BENCH_PEAK_KINDS } bench_peak_kind;

/* Goes on so often. Returns the operations that this were, a multiplication and an addition being two. *mean gets the mean of the
 * sums, which keeps a compiler from leaving them out and a test can know: of the first two kinds repeat / 1024 (up to 2048, where
 * halves end), of the last 4 * repeat. */
typedef double (*bench_peak_loop)(uint64_t repeat, double *mean);
/* NULL: the processor has no instruction for it. *by is how it has it: "avx512", "widened" (f16 loaded from the first cache, made f32
 * and used by as many products as a kernel with blocks of 6 or 8 rows would), "vpdpbusd" ... */
bench_peak_loop bench_peak_loop_of(bench_peak_kind kind, const char **by);

/* Reads bytes (a multiple of 256, aligned to 64) once: the exclusive or of their 64-bit words. */
uint64_t bench_peak_read(const void *data, uint64_t bytes);

/* peak_loops_x86.c, peak_loops_arm.c: the same for what the processor has beyond plain C; NULL: nothing. */
bench_peak_loop bench_peak_native(bench_peak_kind kind, const char **by);
typedef uint64_t (*bench_peak_reader)(const void *data, uint64_t bytes);
bench_peak_reader bench_peak_native_reader(void);

#endif
