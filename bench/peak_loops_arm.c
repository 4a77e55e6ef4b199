/* The loops by NEON, and the choice of those of ARMv8.2 where the processor has them. */
#include "peak_loops_arm.h"

#if defined(__aarch64__)
#include <stdbool.h>
#include <stddef.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#if defined(__linux__)
static bool has_halves(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDHP) != 0; }
static bool has_dot(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#elif defined(__APPLE__)
static bool has(const char *name) {
	int present = 0;
	size_t size = sizeof present;

	return sysctlbyname(name, &present, &size, NULL, 0) == 0 && present;
}
static bool has_halves(void) { return has("hw.optional.arm.FEAT_FP16"); }
static bool has_dot(void) { return has("hw.optional.arm.FEAT_DotProd"); }
#else
static bool has_halves(void) { return false; }
static bool has_dot(void) { return false; }
#endif

/* Each of two vectors of factors is used by half of the sums. Widened, they come from memory each time. */
__attribute__((always_inline)) static inline double fma_neon(uint64_t repeat, double *mean, bool widened) {
	static const uint16_t halves[2 * 4] = {0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400}; /* 2^-10 */
	float32x4_t y = vdupq_n_f32(1), acc[SUMS];

	HIDE(y);
#pragma GCC unroll 24
	for (int k = 0; k < SUMS; ++k) {
		acc[k] = vdupq_n_f32(0);
		HIDE(acc[k]);
	}
	for (uint64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 2
		for (int h = 0; h < 2; ++h) {
			float32x4_t x = vdupq_n_f32(0x1p-10f);
			if (widened) {
				uint16x4_t loaded = vld1_u16(halves + 4 * h);
				HIDE(loaded);
				x = vcvt_f32_f16(vreinterpret_f16_u16(loaded));
			}
#pragma GCC unroll 12
			for (int k = 0; k < SUMS / 2; ++k)
				acc[SUMS / 2 * h + k] = vfmaq_f32(acc[SUMS / 2 * h + k], x, y);
		}
	}
#pragma GCC unroll 24
	for (int k = 1; k < SUMS; ++k)
		acc[0] = vaddq_f32(acc[0], acc[k]);
	*mean = (double)vaddvq_f32(acc[0]) / (SUMS * 4);
	return (double)repeat * SUMS * 4 * 2;
}

static double f32_neon(uint64_t repeat, double *mean) { return fma_neon(repeat, mean, false); }
static double f16_widened(uint64_t repeat, double *mean) { return fma_neon(repeat, mean, true); }

/* Without sdot: 8 products to 16 bits, the next 8 added to them, and pairs added to 32 bits. */
static double int8_neon(uint64_t repeat, double *mean) {
	int8x8_t x = vdup_n_s8(1), y = vdup_n_s8(1);
	int32x4_t acc[SUMS / 2];

#pragma GCC unroll 12
	for (int k = 0; k < SUMS / 2; ++k)
		acc[k] = vdupq_n_s32(0);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 12
		for (int k = 0; k < SUMS / 2; ++k) {
			HIDE(x);
			acc[k] = vpadalq_s16(acc[k], vmlal_s8(vmull_s8(x, y), x, y));
		}
#pragma GCC unroll 12
	for (int k = 1; k < SUMS / 2; ++k)
		acc[0] = vaddq_s32(acc[0], acc[k]);
	*mean = (double)vaddvq_s32(acc[0]) / (SUMS / 2 * 4);
	return (double)repeat * SUMS / 2 * 16 * 2;
}

static uint64_t read_neon(const void *data, uint64_t bytes) {
	const uint64_t *const p = data;
	uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;

	for (uint64_t i = 0; i + 8 <= bytes / 8; i += 8) {
		a = veorq_u64(a, vld1q_u64(p + i));
		b = veorq_u64(b, vld1q_u64(p + i + 2));
		c = veorq_u64(c, vld1q_u64(p + i + 4));
		d = veorq_u64(d, vld1q_u64(p + i + 6));
	}
	a = veorq_u64(veorq_u64(a, b), veorq_u64(c, d));
	return vgetq_lane_u64(a, 0) ^ vgetq_lane_u64(a, 1);
}

static bench_peak_loop found(bench_peak_loop loop, const char *name, const char **by) {
	*by = name;
	return loop;
}

bench_peak_loop bench_peak_native(bench_peak_kind kind, const char **by) {
	switch (kind) {
	case BENCH_PEAK_F32:
		return found(f32_neon, "neon", by);
	case BENCH_PEAK_F16:
		return has_halves() ? found(bench_peak_f16_neon, "neon-fp16", by) : found(f16_widened, "widened", by);
	case BENCH_PEAK_INT8:
		return has_dot() ? found(bench_peak_int8_sdot, "sdot", by) : found(int8_neon, "smlal", by);
	default:
		return NULL;
	}
}

bench_peak_reader bench_peak_native_reader(void) { return read_neon; }
#endif
