/* Owns the statistics of repeated measurements: what a number is worth. Knows not what was measured. */
#ifndef KNIT_BENCH_STATS_H
#define KNIT_BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bench_stats {
	size_t count;
	size_t outliers;      /* further than 5 MAD from the median */
	double median, mad;   /* mad: median of the distances from the median */
	double lo, hi;        /* 95 % interval of the median, by bootstrap */
	double least, most;
} bench_stats;

/* In rising order. */
void bench_sort(double *values, size_t count);
/* Zeros for count 0. The same numbers and seed give the same interval. */
void bench_stats_of(const double *values, size_t count, uint64_t seed, bench_stats *out);
/* The ratio of the medians a / b, with the interval that resampling both gives. mad, least and most are 0. */
void bench_ratio_of(const double *a, size_t a_count, const double *b, size_t b_count, uint64_t seed, bench_stats *out);
/* Whether the last `window` values have settled: their medians, first half against second, differ by less than
 * `tolerance`, a fraction. False with fewer values. */
bool bench_is_steady(const double *values, size_t count, size_t window, double tolerance);

#endif
