/* Owns running one CPU kernel by hand: operands made in memory of exactly their size, the node view that goes with
 * them, any cut of the units over any number of threads, the op's reference on the same operands. */
#ifndef KNIT_TEST_KERNEL_RUN_H
#define KNIT_TEST_KERNEL_RUN_H

#include "../../backends/cpu/cpu_kernel.h"

typedef struct bench_tensor {
	knit_cpu_tensor t;
	char *memory; /* owned; exactly as large as the operand's last element needs, from `shift` bytes on */
	char *packed; /* owned; what kernels get in its place, NULL: itself */
} bench_tensor;

typedef struct kernel_bench {
	uint16_t op;
	uint32_t in_count;
	bench_tensor in[KNIT_MAX_IN];
	knit_cpu_tensor out;
	char *out_memory;
	uint64_t out_bytes;
	knit_attr attr[KNIT_MAX_ATTRS];
	uint64_t seed;
	bool writes_state; /* out is in[0] */
	/* Outputs 1 and 2 of ops that have them; a state in operand i where memory is NULL. */
	bench_tensor more[KNIT_MAX_OUT - 1];
	uint32_t more_count;
} kernel_bench;

void bench_free(kernel_bench *b);

/* Operand `i`, filled with numbers in [-range, range) (i32: 0 .. range - 1). `gap` elements lie between the rows of the
 * innermost dimension, `shift` bytes before the first one. */
void bench_in(kernel_bench *b, uint32_t i, knit_dtype dtype, int rank, const int64_t *dims, double range, int64_t gap,
              size_t shift);
/* An i32 vector of these values. */
void bench_indices(kernel_bench *b, uint32_t i, int64_t n, const int32_t *values);
void bench_out(kernel_bench *b, knit_dtype dtype, int rank, const int64_t *dims);
/* Output 0 is the state in operand 0. */
void bench_out_state(kernel_bench *b);
/* The next output: a tensor, or the state in the operand of the same number. */
void bench_out_more(kernel_bench *b, knit_dtype dtype, int rank, const int64_t *dims);
void bench_out_more_state(kernel_bench *b);
/* Kernels get operand i, a dense matrix, in panels; references read it as it is. Again after a change of it. */
void bench_pack(kernel_bench *b, uint32_t i);
/* Takes operand i away: an optional one that is absent. */
void bench_absent(kernel_bench *b, uint32_t i);
/* Sets elements through a double. */
void bench_set(kernel_bench *b, uint32_t i, int64_t element, double value);

/* All values of an operand or of the output as doubles, row-major; the caller frees. */
double *bench_values(const knit_cpu_tensor *t);
int64_t bench_count(const knit_cpu_tensor *t);
/* The elements of one of type f32, as they lie. */
const float *bench_floats(const knit_cpu_tensor *t);
/* A copy; the caller frees. */
void *bench_copy(const void *p, size_t bytes);
/* At least so many columns, in whole blocks of the type. */
int64_t bench_whole(knit_dtype dtype, int64_t columns);
/* Points the `count` operands in `per_row` of `one` at row r of those of `all`, and every other operand at the same bytes. */
void bench_take_row(kernel_bench *one, const kernel_bench *all, int64_t r, const uint32_t *per_row, int count);

/* Whether the kernel accepts the operands. */
bool bench_accepts(const kernel_bench *b, const knit_cpu_kernel *k);
/* Fills the output with 0xff, then runs: units in pieces of `piece` (0: all at once), piece i by thread i % threads,
 * the last piece first. Scratch is filled with 0xff and exactly as large as asked for. */
void bench_run(kernel_bench *b, const knit_cpu_kernel *k, int64_t piece, uint32_t threads);
/* The op's reference on the same operands, from their absolute values if `absolute`; the caller frees. */
double *bench_reference(const kernel_bench *b, bool absolute);
/* Of every output. */
void bench_references(const kernel_bench *b, bool absolute, double *out[KNIT_MAX_OUT]);

/* The kernels of an op that this machine can run: the n-th, NULL past the last. */
const knit_cpu_kernel *bench_kernel(uint16_t op, size_t n);
/* Of those for b's op, the n-th that accepts its operands. */
const knit_cpu_kernel *bench_accepting(const kernel_bench *b, size_t n);
/* The one of these that goes with k: of its instruction set, or plain C where there is only that. Fails the test if absent. */
const knit_cpu_kernel *bench_like(const kernel_bench *b, const knit_cpu_kernel *k);

/* What rounding x to 8 bits by blocks of 32 may add to the product of two rows: half a step of max / 127 for each element. */
double bench_quantising_bound(const double *x, const double *w, int64_t k);

#endif
