/* The statistics of the bench against values worked out by hand. */
#include "../../bench/stats.h"
#include "../tools/suite.h"

START_TEST(medians) {
	bench_stats s;

	bench_stats_of((double[]){3, 1, 2}, 3, 1, &s);
	ck_assert_double_eq(s.median, 2);
	ck_assert_double_eq(s.mad, 1);
	ck_assert_double_eq(s.least, 1);
	ck_assert_double_eq(s.most, 3);
	bench_stats_of((double[]){4, 1, 3, 2}, 4, 1, &s);
	ck_assert_double_eq(s.median, 2.5);
	ck_assert_double_eq(s.mad, 1);
	bench_stats_of((double[]){7}, 1, 1, &s);
	ck_assert(s.median == 7 && s.lo == 7 && s.hi == 7 && s.mad == 0);
	bench_stats_of(NULL, 0, 1, &s);
	ck_assert(s.count == 0 && s.median == 0);
}
END_TEST

START_TEST(outliers_are_counted) {
	const double v[] = {10, 11, 9, 10, 12, 8, 100, 10.5, 9.5};
	bench_stats s;

	bench_stats_of(v, 9, 1, &s);
	ck_assert_uint_eq(s.outliers, 1);
	ck_assert_double_eq(s.median, 10);
	ck_assert(s.lo >= 9 && s.hi <= 12);
}
END_TEST

/* The interval of the median of 0..99 under resampling is about 49.5 +- 2 * 6; it is the same for the same seed. */
START_TEST(intervals) {
	double v[100];
	bench_stats a, b, c;

	for (int i = 0; i < 100; ++i)
		v[i] = i;
	bench_stats_of(v, 100, 1, &a);
	bench_stats_of(v, 100, 1, &b);
	bench_stats_of(v, 100, 2, &c);
	ck_assert(a.lo > 30 && a.lo < 45 && a.hi > 54 && a.hi < 69);
	ck_assert(a.lo == b.lo && a.hi == b.hi);
	ck_assert(a.lo != c.lo || a.hi != c.hi);
}
END_TEST

START_TEST(ratios) {
	const double a[] = {20, 21, 19, 20}, b[] = {10, 10.5, 9.5, 10};
	bench_stats r;

	bench_ratio_of(a, 4, b, 4, 1, &r);
	ck_assert_double_eq(r.median, 2);
	ck_assert(r.lo >= 19 / 10.5 && r.lo < 2 && r.hi > 2 && r.hi <= 21 / 9.5);
	bench_ratio_of(a, 0, b, 4, 1, &r);
	ck_assert_uint_eq(r.count, 0);
}
END_TEST

START_TEST(steadiness) {
	ck_assert(bench_is_steady((double[]){9, 1, 1.01, 1, 0.99}, 5, 4, 0.03));
	ck_assert(!bench_is_steady((double[]){1, 1.2, 1, 1}, 4, 4, 0.03));
	ck_assert(!bench_is_steady((double[]){1, 1, 1}, 3, 4, 0.03));
}
END_TEST

int main(void) {
	const TTest *const tests[] = {medians, outliers_are_counted, intervals, ratios, steadiness};

	return suite_run("bench_stats", tests, (int)(sizeof tests / sizeof tests[0]));
}
