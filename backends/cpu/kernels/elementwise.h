/* Owns the CPU kernels of add, mul, scale, silu and gelu. References: ops/elementwise.c. Included once by each
 * variant, as whose loops a compiler vectorises it (variant_*.h): they give the same bits. */
#ifndef KNIT_KERNELS_ELEMENTWISE_H
#define KNIT_KERNELS_ELEMENTWISE_H

#include "activation.h"
#include "kernels.h"
#include "operand.h"

/* A piece is computed into a local array: the output may be the first input, and a loop that writes to an array of its
 * own vectorises without asking. */
#define PIECE 256
#define UNIT_ELEMENTS 4096

/* y = f(a, b, factor) for n <= PIECE elements; b is NULL for functions of one operand. */
typedef void (*piece_fn)(const float *a, const float *b, float factor, float *y, int64_t n);

static void piece_add(const float *a, const float *b, float factor, float *restrict y, int64_t n) {
	(void)factor;
	for (int64_t i = 0; i < n; ++i)
		y[i] = a[i] + b[i];
}

static void piece_mul(const float *a, const float *b, float factor, float *restrict y, int64_t n) {
	(void)factor;
	for (int64_t i = 0; i < n; ++i)
		y[i] = a[i] * b[i];
}

static void piece_scale(const float *a, const float *b, float factor, float *restrict y, int64_t n) {
	(void)b;
	for (int64_t i = 0; i < n; ++i)
		y[i] = a[i] * factor;
}

static void piece_silu(const float *a, const float *b, float factor, float *restrict y, int64_t n) {
	(void)b, (void)factor;
	for (int64_t i = 0; i < n; ++i)
		y[i] = knit__silu_of(a[i]);
}

static void piece_gelu(const float *a, const float *b, float factor, float *restrict y, int64_t n) {
	(void)b, (void)factor;
	for (int64_t i = 0; i < n; ++i)
		y[i] = knit__gelu_of(a[i]);
}

static int64_t elements(const knit_cpu_step *s) { return knit__cpu_outer(&s->out[0], 0); }

static int64_t units(const knit_cpu_step *s) { return knit__ceil_div(elements(s), UNIT_ELEMENTS); }

static void run_one(const knit_cpu_step *s, int64_t begin, int64_t end, float factor, piece_fn f) {
	const float *const x = (const float *)(void *)s->in[0].data;
	float *const out = (float *)(void *)s->out[0].data;
	const int64_t last = knit__min(end * UNIT_ELEMENTS, elements(s));
	float y[PIECE];

	for (int64_t i = begin * UNIT_ELEMENTS; i < last; i += PIECE) {
		const int64_t n = knit__min(PIECE, last - i);

		f(x + i, NULL, factor, y, n);
		memcpy(out + i, y, (size_t)n * sizeof *y);
	}
}

/* b is as large as a, or a vector that repeats along a's rows. */
static void run_two(const knit_cpu_step *s, int64_t begin, int64_t end, piece_fn f) {
	const knit_cpu_tensor *const b = &s->in[1];
	const float *const x = (const float *)(void *)s->in[0].data;
	float *const out = (float *)(void *)s->out[0].data;
	const int64_t last = knit__min(end * UNIT_ELEMENTS, elements(s)), period = b->rank == 1 ? b->dims[0] : INT64_MAX;
	float y[PIECE], converted[PIECE];
	int64_t n;

	for (int64_t i = begin * UNIT_ELEMENTS; i < last; i += n) {
		const int64_t at = i % period;
		const char *const src = b->data + knit__bytes_of(b->dtype, at);

		n = knit__min(PIECE, knit__min(last - i, period - at));
		if (b->dtype != KNIT_F32)
			knit__floats_to_f32(b->dtype, src, converted, n);
		f(x + i, b->dtype == KNIT_F32 ? (const float *)(const void *)src : converted, 0, y, n);
		memcpy(out + i, y, (size_t)n * sizeof *y);
	}
}

static void run_add(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run_two(s, begin, end, piece_add);
}
static void run_mul(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run_two(s, begin, end, piece_mul);
}
static void run_scale(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run_one(s, begin, end, (float)s->attr[0].f, piece_scale);
}
static void run_silu(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run_one(s, begin, end, 0, piece_silu);
}
static void run_gelu(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run_one(s, begin, end, 0, piece_gelu);
}

static bool accepts_one(const knit_node_view *node) {
	return knit__f32_dense(&node->in[0]) && knit__f32_dense(&node->out[0]);
}

static bool accepts_two(const knit_node_view *node) {
	const knit_operand_view *const b = &node->in[1];

	return accepts_one(node) && (knit__float_vector(b) || (knit__f32_dense(b) && b->rank == node->in[0].rank));
}

const knit_cpu_kernel KNIT_VARIANT(add) = {
	KNIT_VARIANT_NAME("add"), KNIT_OP_ADD, KNIT_VARIANT_ISA, accepts_two, NULL, {{units, run_add}}};
const knit_cpu_kernel KNIT_VARIANT(mul) = {
	KNIT_VARIANT_NAME("mul"), KNIT_OP_MUL, KNIT_VARIANT_ISA, accepts_two, NULL, {{units, run_mul}}};
const knit_cpu_kernel KNIT_VARIANT(scale) = {
	KNIT_VARIANT_NAME("scale"), KNIT_OP_SCALE, KNIT_VARIANT_ISA, accepts_one, NULL, {{units, run_scale}}};
const knit_cpu_kernel KNIT_VARIANT(silu) = {
	KNIT_VARIANT_NAME("silu"), KNIT_OP_SILU, KNIT_VARIANT_ISA, accepts_one, NULL, {{units, run_silu}}};
const knit_cpu_kernel KNIT_VARIANT(gelu) = {
	KNIT_VARIANT_NAME("gelu"), KNIT_OP_GELU, KNIT_VARIANT_ISA, accepts_one, NULL, {{units, run_gelu}}};

#endif
