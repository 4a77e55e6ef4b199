/* The loops in plain C, and which are taken. */
#include "peak_loops.h"

/* The inner loops here and beside are unrolled so that their sums are registers: a compiler that leaves them an array in memory
 * measures its stack. */
static double plain_f32(uint64_t repeat, double *mean) {
	volatile const float unknown = 1; /* a product with what is known to be 1 is none */
	const float x = unknown;
	float acc[16];

	for (int k = 0; k < 16; ++k)
		acc[k] = unknown - 1; /* nor are equal sums more than one */
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k)
			acc[k] = acc[k] * x + 0x1p-10f;
	*mean = 0;
#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		*mean += (double)acc[k] / 16;
	return (double)repeat * 16 * 2;
}

static uint64_t plain_read(const void *data, uint64_t bytes) {
	const uint64_t *const p = data;
	uint64_t sum[8] = {0};

	for (uint64_t i = 0; i + 8 <= bytes / 8; i += 8)
#pragma GCC unroll 16
		for (int k = 0; k < 8; ++k)
			sum[k] ^= p[i + k];
	return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

#if !defined(__x86_64__) && !defined(__aarch64__)
bench_peak_loop bench_peak_native(bench_peak_kind kind, const char **by) {
	(void)kind, (void)by;
	return NULL;
}

bench_peak_reader bench_peak_native_reader(void) { return NULL; }
#endif

bench_peak_loop bench_peak_loop_of(bench_peak_kind kind, const char **by) {
	*by = "";
	const bench_peak_loop native = bench_peak_native(kind, by);
	if (native || kind != BENCH_PEAK_F32)
		return native;
	*by = "plain";
	return plain_f32;
}

uint64_t bench_peak_read(const void *data, uint64_t bytes) {
	const bench_peak_reader native = bench_peak_native_reader();

	return native ? native(data, bytes) : plain_read(data, bytes);
}
