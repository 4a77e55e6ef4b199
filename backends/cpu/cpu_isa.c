/* Owns the instruction sets: which there are for this processor's kind, which of them it has, what the environment lowers
 * that to. Knows no kernel. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char *const names[] = {"plain", "avx2", "avx512", "neon", "dotprod"};

/* Those that are compiled for this kind of processor, in rising order. */
#if defined(__x86_64__)
static const knit_cpu_isa levels[] = {KNIT_CPU_PLAIN, KNIT_CPU_AVX2, KNIT_CPU_AVX512};
#define LEVELS_TEXT "plain, avx2 or avx512"
#elif defined(__aarch64__)
static const knit_cpu_isa levels[] = {KNIT_CPU_PLAIN, KNIT_CPU_NEON, KNIT_CPU_DOTPROD};
#define LEVELS_TEXT "plain, neon or dotprod"
#else
static const knit_cpu_isa levels[] = {KNIT_CPU_PLAIN};
#define LEVELS_TEXT "plain"
#endif

const char *knit__cpu_isa_name(knit_cpu_isa isa) {
	return (unsigned)isa < sizeof names / sizeof names[0] ? names[isa] : "?";
}

size_t knit__cpu_isa_levels(const knit_cpu_isa **out) {
	const knit_cpu_isa found = knit__cpu_isa_found();
	size_t n = 0;

	while (n < sizeof levels / sizeof levels[0] && levels[n] <= found)
		++n;
	*out = levels;
	return n;
}

#if defined(__x86_64__)

knit_cpu_isa knit__cpu_isa_found(void) {
	unsigned a, b, c = 0, d;

	__builtin_cpu_init(); /* its answers include whether the operating system keeps the registers */
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__get_cpuid(1, &a, &b, &c, &d) ||
	    !(c & bit_F16C))
		return KNIT_CPU_PLAIN;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
		return KNIT_CPU_AVX512;
	return KNIT_CPU_AVX2;
}

#elif defined(__aarch64__)

/* NEON is part of the architecture; sdot came with 8.2 (Cortex-A55 and A75, all of Apple's M1 and later). */
static bool has_dotprod(void) {
#if defined(__linux__)
	return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
	int present = 0;
	size_t size = sizeof present;

	return sysctlbyname("hw.optional.arm.FEAT_DotProd", &present, &size, NULL, 0) == 0 && present;
#else
	return false;
#endif
}

knit_cpu_isa knit__cpu_isa_found(void) { return has_dotprod() ? KNIT_CPU_DOTPROD : KNIT_CPU_NEON; }

#else

knit_cpu_isa knit__cpu_isa_found(void) { return KNIT_CPU_PLAIN; }

#endif

/* The environment may lower the level, never raise it. */
knit_status knit__cpu_isa_choose(knit_cpu_isa *out, knit_diag *d) {
	const char *const wanted = getenv("KNIT_CPU_ISA");

	*out = knit__cpu_isa_found();
	if (!wanted || !*wanted)
		return KNIT_OK;
	for (size_t i = 0; i < sizeof levels / sizeof levels[0]; ++i) {
		if (strcmp(wanted, names[levels[i]]) != 0)
			continue;
		if (levels[i] < *out)
			*out = levels[i];
		return KNIT_OK;
	}
	return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "KNIT_CPU_ISA=%s: use " LEVELS_TEXT ", or unset it", wanted);
}
