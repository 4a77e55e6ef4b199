/* The loops by AVX2 and AVX-512, with VNNI and half precision where there is that. */
#include "peak_loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

#define WITH(isa) __attribute__((target(isa)))
#define INSIDE(isa) __attribute__((target(isa), always_inline)) static inline

/* What is equal or constant to a compiler is computed once, or before the loop. */
#define HIDE(v) __asm__ volatile("" : "+x"(v))
#define HIDE512(v) __asm__ volatile("" : "+v"(v))

static const uint16_t halves[32] = {0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400,
                                    0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400,
                                    0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400, 0x1400}; /* 2^-10 */

/* ---- f32, and f16 made f32 --------------------------------------------------------------------------------------- */

/* Each of two vectors of factors is used by half of the sums. Widened, they come from memory each time. */
INSIDE("avx512f") double fma_avx512(uint64_t repeat, double *mean, bool widened) {
	__m512 y = _mm512_set1_ps(1.0f), acc[16];

	HIDE512(y);
#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k) {
		acc[k] = _mm512_setzero_ps();
		HIDE512(acc[k]);
	}
	for (uint64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 2
		for (int h = 0; h < 2; ++h) {
			__m512 x = _mm512_set1_ps(0x1p-10f);
			if (widened) {
				__m256i loaded = _mm256_loadu_si256((const __m256i *)(halves + 16 * h));
				HIDE(loaded);
				x = _mm512_cvtph_ps(loaded);
			}
#pragma GCC unroll 8
			for (int k = 0; k < 8; ++k)
				acc[8 * h + k] = _mm512_fmadd_ps(x, y, acc[8 * h + k]);
		}
	}
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_ps(acc[0], acc[k]);
	*mean = (double)_mm512_reduce_add_ps(acc[0]) / (16 * 16);
	return (double)repeat * 16 * 16 * 2;
}

WITH("avx512f") static double f32_avx512(uint64_t repeat, double *mean) { return fma_avx512(repeat, mean, false); }
WITH("avx512f") static double f16_avx512(uint64_t repeat, double *mean) { return fma_avx512(repeat, mean, true); }

INSIDE("avx2,fma,f16c") double fma_avx2(uint64_t repeat, double *mean, bool widened) {
	__m256 y = _mm256_set1_ps(1.0f), acc[12];
	float last[8];

	HIDE(y);
#pragma GCC unroll 16
	for (int k = 0; k < 12; ++k) {
		acc[k] = _mm256_setzero_ps();
		HIDE(acc[k]);
	}
	for (uint64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 2
		for (int h = 0; h < 2; ++h) {
			__m256 x = _mm256_set1_ps(0x1p-10f);
			if (widened) {
				__m128i loaded = _mm_loadu_si128((const __m128i *)(halves + 8 * h));
				HIDE(loaded);
				x = _mm256_cvtph_ps(loaded);
			}
#pragma GCC unroll 6
			for (int k = 0; k < 6; ++k)
				acc[6 * h + k] = _mm256_fmadd_ps(x, y, acc[6 * h + k]);
		}
	}
#pragma GCC unroll 16
	for (int k = 1; k < 12; ++k)
		acc[0] = _mm256_add_ps(acc[0], acc[k]);
	_mm256_storeu_ps(last, acc[0]);
	*mean = 0;
	for (int i = 0; i < 8; ++i)
		*mean += (double)last[i] / (12 * 8);
	return (double)repeat * 12 * 8 * 2;
}

WITH("avx2,fma,f16c") static double f32_avx2(uint64_t repeat, double *mean) { return fma_avx2(repeat, mean, false); }
WITH("avx2,fma,f16c") static double f16_avx2(uint64_t repeat, double *mean) { return fma_avx2(repeat, mean, true); }

/* ---- f16 as it is: with the compilers that know the instructions ------------------------------------------------- */

#if (defined(__clang_major__) && __clang_major__ >= 15) || (!defined(__clang_major__) && __GNUC__ >= 12)
#define KNIT_BENCH_FP16
/* Sums in half precision, too. */
WITH("avx512f,avx512fp16") static double f16_avx512fp16(uint64_t repeat, double *mean) {
	__m512h x = _mm512_castsi512_ph(_mm512_set1_epi16(0x1400)), y = _mm512_castsi512_ph(_mm512_set1_epi16(0x3c00)), acc[16];
	double sum = 0;

	HIDE512(y);
#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k) {
		acc[k] = _mm512_castsi512_ph(_mm512_setzero_si512());
		HIDE512(acc[k]);
	}
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k)
			acc[k] = _mm512_fmadd_ph(x, y, acc[k]);
#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		sum += (double)_mm512_reduce_add_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_castph_si512(acc[k]))));
	*mean = sum / (16 * 16);
	return (double)repeat * 16 * 32 * 2;
}

static bool has_avx512fp16(void) {
	unsigned a, b, c, d;

	return __builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 23 & 1);
}
#endif


/* ---- products of bytes summed to 32 bits: vpdpbusd, or vpmaddubsw, vpmaddwd and an addition ----------------------- */

WITH("avx512f,avx512vnni") static double int8_vnni(uint64_t repeat, double *mean) {
	const __m512i x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(1);
	__m512i acc[16];

#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		acc[k] = _mm512_setzero_si512();
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k) {
			acc[k] = _mm512_dpbusd_epi32(acc[k], x, y);
			HIDE512(acc[k]);
		}
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_epi32(acc[0], acc[k]);
	*mean = (double)_mm512_reduce_add_epi32(acc[0]) / (16 * 16);
	return (double)repeat * 16 * 64 * 2;
}

WITH("avx2") static double int8_avx2(uint64_t repeat, double *mean) {
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(1), acc[8];
	int32_t last[8];

#pragma GCC unroll 16
	for (int k = 0; k < 8; ++k)
		acc[k] = _mm256_setzero_si256();
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 8; ++k) {
			HIDE(x);
			acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
		}
#pragma GCC unroll 16
	for (int k = 1; k < 8; ++k)
		acc[0] = _mm256_add_epi32(acc[0], acc[k]);
	_mm256_storeu_si256((__m256i *)last, acc[0]);
	*mean = 0;
	for (int i = 0; i < 8; ++i)
		*mean += (double)last[i] / (8 * 8);
	return (double)repeat * 8 * 32 * 2;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

WITH("avx2") static uint64_t read_avx2(const void *data, uint64_t bytes) {
	const char *const p = data;
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;

	for (uint64_t i = 0; i + 128 <= bytes; i += 128) {
		a = _mm256_xor_si256(a, _mm256_load_si256((const __m256i *)(p + i)));
		b = _mm256_xor_si256(b, _mm256_load_si256((const __m256i *)(p + i + 32)));
		c = _mm256_xor_si256(c, _mm256_load_si256((const __m256i *)(p + i + 64)));
		d = _mm256_xor_si256(d, _mm256_load_si256((const __m256i *)(p + i + 96)));
	}
	a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
	return (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 1) ^ (uint64_t)_mm256_extract_epi64(a, 2) ^
	       (uint64_t)_mm256_extract_epi64(a, 3);
}

WITH("avx512f") static uint64_t read_avx512(const void *data, uint64_t bytes) {
	const char *const p = data;
	__m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
	uint64_t last[8], sum = 0;

	for (uint64_t i = 0; i + 256 <= bytes; i += 256) {
		a = _mm512_xor_si512(a, _mm512_load_si512(p + i));
		b = _mm512_xor_si512(b, _mm512_load_si512(p + i + 64));
		c = _mm512_xor_si512(c, _mm512_load_si512(p + i + 128));
		d = _mm512_xor_si512(d, _mm512_load_si512(p + i + 192));
	}
	_mm512_storeu_si512(last, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
	for (int i = 0; i < 8; ++i)
		sum ^= last[i];
	return sum;
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static bench_peak_loop found(bench_peak_loop loop, const char *name, const char **by) {
	*by = name;
	return loop;
}

bench_peak_loop bench_peak_native(bench_peak_kind kind, const char **by) {
	const bool avx512 = __builtin_cpu_supports("avx512f");
	const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* F16C came before them */

	switch (kind) {
	case BENCH_PEAK_F32:
		return avx512 ? found(f32_avx512, "avx512", by) : avx2 ? found(f32_avx2, "avx2", by) : NULL;
	case BENCH_PEAK_F16:
#ifdef KNIT_BENCH_FP16
		if (has_avx512fp16())
			return found(f16_avx512fp16, "avx512-fp16", by);
#endif
		return avx512 ? found(f16_avx512, "widened", by) : avx2 ? found(f16_avx2, "widened", by) : NULL;
	case BENCH_PEAK_INT8:
		return __builtin_cpu_supports("avx512vnni") ? found(int8_vnni, "vpdpbusd", by) : avx2 ? found(int8_avx2, "vpmaddubsw", by) : NULL;
	default:
		return NULL;
	}
}

bench_peak_reader bench_peak_native_reader(void) {
	return __builtin_cpu_supports("avx512f") ? read_avx512 : __builtin_cpu_supports("avx2") ? read_avx2 : NULL;
}
#endif
