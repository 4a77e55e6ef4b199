/* The loops that find the processor's peaks compute what they say: sums and counts of operations. Their speed is nobody's promise. */
#include "../../bench/peak_loops.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>

START_TEST(loops_compute) {
	static const char *const names[BENCH_PEAK_KINDS] = {"f32", "f16", "int8"};

	for (bench_peak_kind kind = 0; kind < BENCH_PEAK_KINDS; ++kind) {
		const char *by = NULL;
		const bench_peak_loop loop = bench_peak_loop_of(kind, &by);
		double few = -1, many = -1;

		printf("%s: %s\n", names[kind], loop ? by : "none");
		ck_assert(loop || kind != BENCH_PEAK_F32);
		ck_assert((loop != NULL) == (by[0] != '\0'));
		if (!loop)
			continue;
		const double operations = loop(64, &few);
		ck_assert(operations > 0);
		ck_assert(loop(1000, &many) == operations / 64 * 1000);
		ck_assert(few == (kind == BENCH_PEAK_INT8 ? 4 * 64 : 64 / 1024.));
		ck_assert(many == (kind == BENCH_PEAK_INT8 ? 4 * 1000 : 1000 / 1024.));
	}
}
END_TEST

START_TEST(reading_sees_all) {
	enum { WORDS = 256 / 8 * 5 };
	uint64_t *const data = aligned_alloc(64, WORDS * sizeof *data), wanted = 0;

	ck_assert_ptr_nonnull(data);
	for (uint64_t i = 0; i < WORDS; ++i) {
		data[i] = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
		wanted ^= data[i];
	}
	ck_assert(bench_peak_read(data, WORDS * sizeof *data) == wanted);
	data[WORDS - 1] ^= 1;
	ck_assert(bench_peak_read(data, WORDS * sizeof *data) == (wanted ^ 1));
	free(data);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {loops_compute, reading_sees_all};

	return suite_run("peak_loops", tests, sizeof tests / sizeof *tests);
}
