/* Owns what the two files of loops for 64-bit ARM share: the second is compiled for ARMv8.2. */
#ifndef KNIT_BENCH_PEAK_LOOPS_ARM_H
#define KNIT_BENCH_PEAK_LOOPS_ARM_H

#include "peak_loops.h"

#if defined(__aarch64__)
#include <arm_neon.h>

/* What is equal or constant to a compiler is computed once, or before the loop. */
#define HIDE(v) __asm__ volatile("" : "+w"(v))

enum { SUMS = 24 }; /* four pipes of latency four, with some to spare; 32 registers */

double bench_peak_f16_neon(uint64_t repeat, double *mean);
double bench_peak_int8_sdot(uint64_t repeat, double *mean);
#endif

#endif
