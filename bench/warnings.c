/* What makes the numbers of a run worth less, in words. */
#include "probe.h"
#include "rows.h"

#include <math.h>
#include <stdarg.h>

#define CLOCK_DRIFT 0.05
#define SPREAD 0.05

typedef struct list {
	char (*out)[BENCH_WARNING_BYTES];
	size_t count;
} list;

static void add(list *l, const char *fmt, ...) KNIT_PRINTF(2, 3);
static void add(list *l, const char *fmt, ...) {
	va_list args;

	if (l->count == BENCH_MAX_WARNINGS)
		return;
	va_start(args, fmt);
	vsnprintf(l->out[l->count++], BENCH_WARNING_BYTES, fmt, args);
	va_end(args);
}

static void of_row(const bench_row *r, list *l) {
	char name[48];

	bench_test_name(&r->test, name);
	if (r->count < 5)
		add(l, "%s, %.40s: %zu runs say little: `knit bench compare` asks for 5", name, r->subject->name, r->count);
	if (r->rate.median > 0 && r->rate.mad > SPREAD * r->rate.median)
		add(l, "%s, %.40s: runs spread by %.0f %% (median distance from the median)", name, r->subject->name,
		    r->rate.mad / r->rate.median * 100);
	if (r->rate.count >= 10 && r->rate.outliers * 10 > r->rate.count)
		add(l, "%s, %.40s: %zu of %zu runs lie far from the others", name, r->subject->name, r->rate.outliers, r->rate.count);
}

size_t bench_warnings(const bench_run *run, char out[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES]) {
	list l = {out, 0};

	for (size_t i = 0; i < run->row_count; ++i) {
		const bench_subject *const s = run->rows[i].subject;
		bool said = false;
		for (size_t k = 0; k < i; ++k)
			said |= run->rows[k].subject == s;
		if (!said && bench_is_wrong(s))
			add(&l, "%.40s computes something else than the model (NMSE %.2g): its speed counts for nothing", s->name,
			    s->check.nmse);
	}
	if (run->interrupted)
		add(&l, "stopped before all tests were measured: what is there is whole, the rest is missing");
	if (run->planted > 0)
		add(&l, "knit was made %.3g %% slower on purpose (--plant-slowdown): not for showing around", run->planted * 100);
	if (run->peaks.read_gbps_first > 0 && run->peaks.read_gbps > 1.1 * run->peaks.read_gbps_first)
		add(&l, "memory was read at %.0f GB/s at one end of the run and at %.0f at the other: others use it", run->peaks.read_gbps_first,
		    run->peaks.read_gbps);
	if (run->cached_after_drop > BENCH_DROPPED)
		add(&l, "the system kept %.0f %% of the file in memory when asked to drop it: loading from disk was not measured",
		    run->cached_after_drop * 100);
	if (run->busy > BENCH_BUSY)
		add(&l, "other processes took %.0f %% of the machine while this was measured", run->busy * 100);
	if (run->clock_before > 0 && fabs(run->clock_after / run->clock_before - 1) > CLOCK_DRIFT)
		add(&l, "the processor was %.0f %% %s at the end than at the beginning (a fixed loop): its clock changed, or others ran",
		    fabs(run->clock_after / run->clock_before - 1) * 100, run->clock_after > run->clock_before ? "slower" : "faster");
	for (size_t i = 0; i < run->row_count; ++i)
		of_row(&run->rows[i], &l);
	return l.count;
}
