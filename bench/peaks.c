/* What this machine can do at best: bytes read and copied per second, FLOP and 8-bit products per second, by the best
 * instructions it has. The loops do nothing else, so a kernel cannot beat them by more than noise. */
#include "clock.h"
#include "rows.h"

#include "../graph/base.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define MEMORY_BYTES (UINT64_C(256) << 20) /* of each thread: far beyond any cache */
#define ROUNDS 5
#define MIN_SECONDS 0.05

/* The inner loops are unrolled so that their sums are registers: a compiler that leaves them an array in memory measures
 * its stack. */
typedef enum work_kind { READ, COPY, FLOPS, F16, INT8 } work_kind;

typedef struct work {
	work_kind kind;
	char *data;
	uint64_t bytes;
	uint64_t repeat;
	double units; /* bytes or operations that the last run did */
	pthread_barrier_t *start;
	double begin, end;
	volatile uint64_t sink;
} work;

static uint64_t read_plain(const char *data, uint64_t bytes) {
	const uint64_t *const p = (const uint64_t *)data;
	uint64_t sum[8] = {0};

	for (uint64_t i = 0; i + 8 <= bytes / 8; i += 8)
#pragma GCC unroll 16
		for (int k = 0; k < 8; ++k)
			sum[k] += p[i + k];
	return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

/* Returns operations: a multiplication and an addition each. */
static double flops_plain(uint64_t repeat, volatile uint64_t *sink) {
	float acc[16] = {0};

	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k)
			acc[k] = acc[k] * 0.999f + 1.0f;
#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		*sink += (uint64_t)(int64_t)acc[k];
	return (double)repeat * 32;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const char *data, uint64_t bytes) {
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;

	for (uint64_t i = 0; i + 128 <= bytes; i += 128) {
		a = _mm256_xor_si256(a, _mm256_load_si256((const __m256i *)(data + i)));
		b = _mm256_xor_si256(b, _mm256_load_si256((const __m256i *)(data + i + 32)));
		c = _mm256_xor_si256(c, _mm256_load_si256((const __m256i *)(data + i + 64)));
		d = _mm256_xor_si256(d, _mm256_load_si256((const __m256i *)(data + i + 96)));
	}
	a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
	return (uint64_t)_mm256_extract_epi64(a, 0);
}

__attribute__((target("avx512f"))) static uint64_t read_avx512(const char *data, uint64_t bytes) {
	__m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;

	for (uint64_t i = 0; i + 256 <= bytes; i += 256) {
		a = _mm512_xor_si512(a, _mm512_load_si512(data + i));
		b = _mm512_xor_si512(b, _mm512_load_si512(data + i + 64));
		c = _mm512_xor_si512(c, _mm512_load_si512(data + i + 128));
		d = _mm512_xor_si512(d, _mm512_load_si512(data + i + 192));
	}
	a = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
	return (uint64_t)_mm512_reduce_add_epi64(a);
}

__attribute__((target("avx2,fma"))) static double flops_avx2(uint64_t repeat, volatile uint64_t *sink) {
	const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1.0f);
	__m256 acc[12];

#pragma GCC unroll 16
	for (int k = 0; k < 12; ++k)
		acc[k] = _mm256_set1_ps((float)k);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 12; ++k)
			acc[k] = _mm256_fmadd_ps(acc[k], x, y);
#pragma GCC unroll 16
	for (int k = 1; k < 12; ++k)
		acc[0] = _mm256_add_ps(acc[0], acc[k]);
	*sink += (uint64_t)_mm256_cvtss_f32(acc[0]);
	return (double)repeat * 12 * 8 * 2;
}

__attribute__((target("avx512f"))) static double flops_avx512(uint64_t repeat, volatile uint64_t *sink) {
	const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1.0f);
	__m512 acc[16];

#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		acc[k] = _mm512_set1_ps((float)k);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k)
			acc[k] = _mm512_fmadd_ps(acc[k], x, y);
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_ps(acc[0], acc[k]);
	*sink += (uint64_t)_mm512_cvtss_f32(acc[0]);
	return (double)repeat * 16 * 16 * 2;
}

/* Halves from memory that is in the first cache, widened, each used by 8 multiply-adds as a kernel with blocks of 8 rows would. */
__attribute__((target("avx512f"))) static double f16_avx512(uint64_t repeat, volatile uint64_t *sink) {
	static const uint16_t halves[2 * 16] = {0x3bfe, 0x3bfd, 0x3bfc}; /* a little below 1 */
	const __m512 y = _mm512_set1_ps(1.0f);
	__m512 acc[16];

#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		acc[k] = _mm512_set1_ps((float)k);
	for (uint64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 2
		for (int h = 0; h < 2; ++h) {
			__m256i loaded = _mm256_loadu_si256((const __m256i *)(halves + 16 * h));
			__asm__ volatile("" : "+x"(loaded));
			const __m512 x = _mm512_cvtph_ps(loaded);
#pragma GCC unroll 8
			for (int k = 0; k < 8; ++k)
				acc[8 * h + k] = _mm512_fmadd_ps(acc[8 * h + k], x, y);
		}
	}
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_ps(acc[0], acc[k]);
	*sink += (uint64_t)_mm512_cvtss_f32(acc[0]);
	return (double)repeat * 16 * 16 * 2;
}

__attribute__((target("avx2,fma,f16c"))) static double f16_avx2(uint64_t repeat, volatile uint64_t *sink) {
	static const uint16_t halves[2 * 8] = {0x3bfe, 0x3bfd, 0x3bfc};
	const __m256 y = _mm256_set1_ps(1.0f);
	__m256 acc[12];

#pragma GCC unroll 16
	for (int k = 0; k < 12; ++k)
		acc[k] = _mm256_set1_ps((float)k);
	for (uint64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 2
		for (int h = 0; h < 2; ++h) {
			__m128i loaded = _mm_loadu_si128((const __m128i *)(halves + 8 * h));
			__asm__ volatile("" : "+x"(loaded));
			const __m256 x = _mm256_cvtph_ps(loaded);
#pragma GCC unroll 6
			for (int k = 0; k < 6; ++k)
				acc[6 * h + k] = _mm256_fmadd_ps(acc[6 * h + k], x, y);
		}
	}
#pragma GCC unroll 16
	for (int k = 1; k < 12; ++k)
		acc[0] = _mm256_add_ps(acc[0], acc[k]);
	*sink += (uint64_t)_mm256_cvtss_f32(acc[0]);
	return (double)repeat * 12 * 8 * 2;
}

/* With the compilers that know the instructions. */
#if (defined(__clang_major__) && __clang_major__ >= 15) || (!defined(__clang_major__) && __GNUC__ >= 12)
#define KNIT_BENCH_FP16
/* Sums in half precision, too. */
__attribute__((target("avx512f,avx512fp16"))) static double f16_avx512fp16(uint64_t repeat, volatile uint64_t *sink) {
	const __m512h x = _mm512_castsi512_ph(_mm512_set1_epi16(0x3bfe)), y = _mm512_castsi512_ph(_mm512_set1_epi16(0x3c00));
	__m512h acc[16];

#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		acc[k] = x;
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k)
			acc[k] = _mm512_fmadd_ph(acc[k], x, y);
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_ph(acc[0], acc[k]);
	*sink += (uint64_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(_mm512_castph_si512(acc[0])));
	return (double)repeat * 16 * 32 * 2;
}

#endif

static bool has_avx512fp16(void) {
	unsigned a, b, c, d;

#ifndef KNIT_BENCH_FP16
	return false;
#endif
	return __builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 23 & 1);
}

/* Products of bytes summed to 32 bits: vpdpbusd, or vpmaddubsw, vpmaddwd and an addition. */
__attribute__((target("avx512f,avx512vnni"))) static double int8_vnni(uint64_t repeat, volatile uint64_t *sink) {
	const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
	__m512i acc[16];

#pragma GCC unroll 16
	for (int k = 0; k < 16; ++k)
		acc[k] = _mm512_set1_epi32(k);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 16; ++k) {
			acc[k] = _mm512_dpbusd_epi32(acc[k], x, y);
			__asm__ volatile("" : "+v"(acc[k])); /* the sums of equal products must not become one multiplication */
		}
#pragma GCC unroll 16
	for (int k = 1; k < 16; ++k)
		acc[0] = _mm512_add_epi32(acc[0], acc[k]);
	*sink += (uint64_t)_mm512_reduce_add_epi64(acc[0]);
	return (double)repeat * 16 * 64 * 2;
}

__attribute__((target("avx2"))) static double int8_avx2(uint64_t repeat, volatile uint64_t *sink) {
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(1), acc[8];

#pragma GCC unroll 16
	for (int k = 0; k < 8; ++k)
		acc[k] = _mm256_set1_epi32(k);
	for (uint64_t i = 0; i < repeat; ++i)
#pragma GCC unroll 16
		for (int k = 0; k < 8; ++k) {
			__asm__ volatile("" : "+x"(x));
			acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
		}
#pragma GCC unroll 16
	for (int k = 1; k < 8; ++k)
		acc[0] = _mm256_add_epi32(acc[0], acc[k]);
	*sink += (uint64_t)_mm256_extract_epi32(acc[0], 0);
	return (double)repeat * 8 * 32 * 2;
}
#endif

static uint64_t read_all(const char *data, uint64_t bytes) {
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		return read_avx512(data, bytes);
	if (__builtin_cpu_supports("avx2"))
		return read_avx2(data, bytes);
#endif
	return read_plain(data, bytes);
}

static double compute(work_kind kind, uint64_t repeat, volatile uint64_t *sink) {
#if defined(__x86_64__)
	if (kind == INT8)
		return __builtin_cpu_supports("avx512vnni") ? int8_vnni(repeat, sink)
		       : __builtin_cpu_supports("avx2")     ? int8_avx2(repeat, sink)
		                                            : 0;
#ifdef KNIT_BENCH_FP16
	if (kind == F16 && has_avx512fp16())
		return f16_avx512fp16(repeat, sink);
#endif
	if (kind == F16)
		return __builtin_cpu_supports("avx512f")                                 ? f16_avx512(repeat, sink)
		       : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? f16_avx2(repeat, sink) /* F16C came before AVX2 */
		                                                                         : 0;
	if (__builtin_cpu_supports("avx512f"))
		return flops_avx512(repeat, sink);
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return flops_avx2(repeat, sink);
#endif
	return kind == FLOPS ? flops_plain(repeat, sink) : 0;
}

static void *worker(void *arg) {
	work *const w = arg;

	pthread_barrier_wait(w->start);
	w->begin = bench_now();
	w->units = 0;
	if (w->kind != READ && w->kind != COPY)
		w->units = compute(w->kind, w->repeat, &w->sink);
	for (uint64_t i = 0; (w->kind == READ || w->kind == COPY) && i < w->repeat; ++i) {
		if (w->kind == READ) {
			w->sink += read_all(w->data, w->bytes);
			w->units += (double)w->bytes;
		} else {
			memcpy(w->data, w->data + w->bytes / 2, (size_t)(w->bytes / 2));
			w->units += (double)w->bytes / 2; /* read once; it is written once besides */
		}
	}
	w->end = bench_now();
	return NULL;
}

/* Units per second of all threads together, from the first's begin to the last's end. 0: no threads or memory. */
static double run_once(work *works, pthread_t *threads, uint32_t count) {
	pthread_barrier_t start;
	uint32_t made = 0;
	double units = 0, begin = 0, end = 0;

	pthread_barrier_init(&start, NULL, count);
	for (; made < count; ++made) {
		works[made].start = &start;
		if (made > 0 && pthread_create(&threads[made], NULL, worker, &works[made]) != 0)
			abort(); /* the others wait for it at the barrier: a bench without threads has nothing to say */
	}
	worker(&works[0]);
	for (uint32_t i = 1; i < made; ++i)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&start);
	for (uint32_t i = 0; i < made; ++i) {
		units += works[i].units;
		begin = i == 0 || works[i].begin < begin ? works[i].begin : begin;
		end = works[i].end > end ? works[i].end : end;
	}
	return end > begin ? units / (end - begin) : 0;
}

/* The best of some rounds, each long enough to be measured. */
static double best_of(work *works, pthread_t *threads, uint32_t count, work_kind kind, uint64_t bytes) {
	double best = 0;
	uint64_t repeat = 1;

	for (uint32_t i = 0; i < count; ++i) {
		works[i].kind = kind;
		works[i].bytes = bytes;
	}
	for (int round = 0; round < ROUNDS;) {
		for (uint32_t i = 0; i < count; ++i)
			works[i].repeat = repeat;
		const double rate = run_once(works, threads, count);
		if (works[0].end - works[0].begin < MIN_SECONDS && repeat < UINT64_C(1) << 40) {
			repeat *= 4;
			continue;
		}
		best = rate > best ? rate : best;
		++round;
	}
	return best * 1e-9;
}

static uint64_t cache_size(int name, uint64_t fallback) {
	const long n = sysconf(name);

	return n > 0 ? (uint64_t)n : fallback;
}

void bench_measure_peaks(uint32_t count, bench_peaks *out) {
	work *const works = calloc(count, sizeof *works);
	pthread_t *const threads = calloc(count, sizeof *threads);
	const uint64_t sizes[] = {cache_size(_SC_LEVEL1_DCACHE_SIZE, 32768), cache_size(_SC_LEVEL2_CACHE_SIZE, 1 << 20),
	                          cache_size(_SC_LEVEL3_CACHE_SIZE, 16 << 20)};
	bool ok = works && threads;

	*out = (bench_peaks){.threads = count, .f16_by = ""};
	for (uint32_t i = 0; ok && i < count; ++i) {
		works[i].data = aligned_alloc(4096, MEMORY_BYTES);
		ok = works[i].data != NULL;
		if (ok)
			memset(works[i].data, (int)i + 1, MEMORY_BYTES);
	}
	if (ok) {
		out->read_gbps = best_of(works, threads, count, READ, MEMORY_BYTES);
		out->copy_gbps = best_of(works, threads, count, COPY, MEMORY_BYTES);
		for (int i = 0; i < 3; ++i) {
			/* Half of a level that each core has; the last one is shared. */
			const uint64_t share = i == 2 ? sizes[i] / 2 / count : sizes[i] / 2;
			out->cache_bytes[i] = share < MEMORY_BYTES ? share / 256 * 256 : MEMORY_BYTES;
			out->cache_read_gbps[i] = best_of(works, threads, count, READ, out->cache_bytes[i]);
			out->cache_copy_gbps[i] = best_of(works, threads, count, COPY, out->cache_bytes[i]);
		}
		out->f32_gflops = best_of(works, threads, count, FLOPS, 0);
		out->f16_gflops = best_of(works, threads, count, F16, 0);
#if defined(__x86_64__)
		out->f16_by = out->f16_gflops == 0 ? "" : has_avx512fp16() ? "avx512-fp16" : "widened";
#endif
		out->int8_gops = best_of(works, threads, count, INT8, 0);
	}
	for (uint32_t i = 0; works && i < count; ++i)
		free(works[i].data);
	free(works);
	free(threads);
}

double bench_measure_read(uint32_t count) {
	work *const works = calloc(count, sizeof *works);
	pthread_t *const threads = calloc(count, sizeof *threads);
	bool ok = works && threads;

	for (uint32_t i = 0; ok && i < count; ++i) {
		works[i].data = aligned_alloc(4096, MEMORY_BYTES);
		ok = works[i].data != NULL;
		if (ok)
			memset(works[i].data, (int)i + 1, MEMORY_BYTES);
	}
	const double gbps = ok ? best_of(works, threads, count, READ, MEMORY_BYTES) : 0;
	for (uint32_t i = 0; works && i < count; ++i)
		free(works[i].data);
	free(works);
	free(threads);
	return gbps;
}
