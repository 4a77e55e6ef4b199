#include "stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RESAMPLES 2000
#define MAX_VALUES 1024 /* of one series; more are cut off at the front */
#define OUTLIER_MADS 5.0

static int by_value(const void *a, const void *b) {
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void bench_sort(double *values, size_t count) { qsort(values, count, sizeof *values, by_value); }

/* Sorts its values. */
static double median_of(double *values, size_t count) {
	bench_sort(values, count);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static double median_copy(const double *values, size_t count) {
	double sorted[MAX_VALUES];

	memcpy(sorted, values, count * sizeof *sorted);
	return median_of(sorted, count);
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016). */
static uint64_t next(uint64_t *state) {
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

static double resampled_median(const double *values, size_t count, uint64_t *state) {
	double drawn[MAX_VALUES];

	for (size_t i = 0; i < count; ++i)
		drawn[i] = values[next(state) % count];
	return median_of(drawn, count);
}

static const double *last_values(const double *values, size_t *count) {
	const size_t skip = *count > MAX_VALUES ? *count - MAX_VALUES : 0;

	*count -= skip;
	return values + skip;
}

static void interval(double *medians, bench_stats *out) {
	qsort(medians, RESAMPLES, sizeof *medians, by_value);
	out->lo = medians[(size_t)(RESAMPLES * 0.025)];
	out->hi = medians[(size_t)(RESAMPLES * 0.975)];
}

void bench_stats_of(const double *values, size_t count, uint64_t seed, bench_stats *out) {
	double distances[MAX_VALUES], medians[RESAMPLES];
	uint64_t state = seed * 2 + 1;

	*out = (bench_stats){0};
	if (count == 0)
		return;
	values = last_values(values, &count);
	out->count = count;
	out->median = median_copy(values, count);
	out->least = out->most = values[0];
	for (size_t i = 0; i < count; ++i) {
		distances[i] = fabs(values[i] - out->median);
		out->least = fmin(out->least, values[i]);
		out->most = fmax(out->most, values[i]);
	}
	out->mad = median_of(distances, count);
	for (size_t i = 0; i < count; ++i)
		out->outliers += fabs(values[i] - out->median) > OUTLIER_MADS * out->mad && out->mad > 0;
	for (size_t i = 0; i < RESAMPLES; ++i)
		medians[i] = resampled_median(values, count, &state);
	interval(medians, out);
}

void bench_ratio_of(const double *a, size_t a_count, const double *b, size_t b_count, uint64_t seed, bench_stats *out) {
	double ratios[RESAMPLES];
	uint64_t state = seed * 2 + 1;

	*out = (bench_stats){0};
	if (a_count == 0 || b_count == 0)
		return;
	a = last_values(a, &a_count);
	b = last_values(b, &b_count);
	out->count = a_count < b_count ? a_count : b_count;
	out->median = median_copy(a, a_count) / median_copy(b, b_count);
	for (size_t i = 0; i < RESAMPLES; ++i) {
		const double over = resampled_median(a, a_count, &state);
		ratios[i] = over / resampled_median(b, b_count, &state);
	}
	interval(ratios, out);
}

bool bench_is_steady(const double *values, size_t count, size_t window, double tolerance) {
	if (count < window || window < 2 || window > MAX_VALUES)
		return false;
	const double *const from = values + count - window;
	const double first = median_copy(from, window / 2), second = median_copy(from + window / 2, window - window / 2);

	return fabs(first - second) <= tolerance * fmin(fabs(first), fabs(second));
}
