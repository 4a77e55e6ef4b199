/* Owns the contract between the CPU backend and its kernels: what a kernel is told, how its work is split. Knows no op
 * and no instruction set by itself. */
#ifndef KNIT_CPU_KERNEL_H
#define KNIT_CPU_KERNEL_H

#include "../../graph/target.h"

/* In rising order for each kind of processor: a device of one level runs the kernels of all levels below. Chosen at open
 * (cpu_isa.c); the environment variable KNIT_CPU_ISA lowers it. avx2 means AVX2 + FMA + F16C; avx512 means F, BW, VL, DQ,
 * VNNI; neon is what every 64-bit ARM has, dotprod NEON with sdot. */
typedef enum knit_cpu_isa { KNIT_CPU_PLAIN = 0, KNIT_CPU_AVX2, KNIT_CPU_AVX512, KNIT_CPU_NEON, KNIT_CPU_DOTPROD } knit_cpu_isa;

/* An operand at this run: dims are numbers, data points at element [0,0,0,0]. */
typedef struct knit_cpu_tensor {
	char *data; /* NULL: absent optional operand */
	knit_dtype dtype;
	uint8_t rank, layout; /* layout: knit_value.layout */
	int64_t dims[KNIT_MAX_RANK], strides[KNIT_MAX_RANK]; /* elements */
} knit_cpu_tensor;

typedef struct knit_cpu_step {
	knit_cpu_tensor in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	const knit_attr *attr;
	char *scratch; /* 64-byte aligned; as many bytes as the kernel's scratch() asked for */
	uint32_t threads;
} knit_cpu_step;

/* A phase is `units` independent pieces of work; the pool gives each thread contiguous ranges of them. What a unit
 * computes must not depend on how units are grouped: results are the same for any number of threads. All units of a
 * phase are done before the next phase starts. */
typedef struct knit_cpu_phase {
	int64_t (*units)(const knit_cpu_step *s);
	void (*run)(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread);
	/* Called by each thread that runs units of the phase, once and before them: makes in the thread's own scratch what would
	 * cost more in a phase of its own. NULL: nothing. */
	void (*own)(const knit_cpu_step *s, uint32_t thread);
} knit_cpu_phase;

/* A piece of a weight, contiguous. */
typedef struct knit_cpu_read { const char *at; int64_t bytes; } knit_cpu_read;
#define KNIT_CPU_READS 3

#define KNIT_CPU_PHASES 3

typedef struct knit_cpu_kernel {
	const char *name; /* "linear_q8_0_avx512" */
	uint16_t op;
	knit_cpu_isa isa;
	/* Whether it computes this node: types, ranks, strides. Pure. */
	bool (*accepts)(const knit_node_view *node);
	/* Scratch bytes at the bucket's upper bounds; NULL: none. */
	uint64_t (*scratch)(const knit_node_view *node, uint32_t threads);
	knit_cpu_phase phases[KNIT_CPU_PHASES]; /* unused ones are zero */
	/* What units [begin, end) of the last phase, which are some, read of weights, in that order; returns how many pieces, at
	 * most KNIT_CPU_READS. Memory is asked for them before the step begins. NULL: of none, or of many rows of x. */
	uint32_t (*reads)(const knit_cpu_step *s, int64_t begin, int64_t end, knit_cpu_read *out);
} knit_cpu_kernel;

/* The only list of kernels: kernel number n (1-based, as knit_kernel) is row n - 1. Fastest first: selection takes the
 * first row whose op, isa and accepts() fit. Defined in kernels/kernel_table.c. */
extern const knit_cpu_kernel *const knit__cpu_kernels[];
extern const uint32_t knit__cpu_kernel_count;

/* Shared by kernels: elements of all dims but the innermost `inner` ones. */
static inline int64_t knit__cpu_outer(const knit_cpu_tensor *t, int inner) {
	int64_t n = 1;
	for (int i = 0; i + inner < t->rank; ++i)
		n *= t->dims[i];
	return n;
}

#endif
