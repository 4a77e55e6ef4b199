/* Owns the CPU kernel of map: a chain of elementwise ops over pieces that stay in the first cache. Reference:
 * ops/map.c. Included once by each variant, as whose loops a compiler vectorises it (variant_*.h): they give the same
 * bits. */
#ifndef KNIT_KERNELS_MAP_H
#define KNIT_KERNELS_MAP_H

#include "../../../graph/fused.h"
#include "activation.h"
#include "kernels.h"
#include "operand.h"

#define PIECE 256
#define UNIT_ELEMENTS 4096
#define REGISTERS (KNIT_MAP_OPERANDS + KNIT_MAP_STEPS)

static int64_t elements(const knit_cpu_step *s) { return knit__cpu_outer(&s->out[0], 0); }

static int64_t units(const knit_cpu_step *s) { return knit__ceil_div(elements(s), UNIT_ELEMENTS); }

static void compute(const knit_map_instr *x, const float *a, const float *b, float *restrict y, int64_t n) {
	switch (x->op) {
	case KNIT_MAP_ADD:
		for (int64_t i = 0; i < n; ++i)
			y[i] = a[i] + b[i];
		break;
	case KNIT_MAP_MUL:
		for (int64_t i = 0; i < n; ++i)
			y[i] = a[i] * b[i];
		break;
	case KNIT_MAP_SCALE:
		for (int64_t i = 0; i < n; ++i)
			y[i] = a[i] * x->s;
		break;
	case KNIT_MAP_SILU:
		for (int64_t i = 0; i < n; ++i)
			y[i] = knit__silu_of(a[i]);
		break;
	case KNIT_MAP_GELU:
		for (int64_t i = 0; i < n; ++i)
			y[i] = knit__gelu_of(a[i]);
		break;
	default:
		break;
	}
}

/* Elements [at, at + n) of an operand, which are in one row of the output: a vector repeats along the rows. */
static const float *load(const knit_cpu_tensor *t, const knit_cpu_tensor *out, int64_t at, float *converted, int64_t n) {
	const int64_t from = t->rank == out->rank ? at : at % t->dims[0];
	const char *const src = t->data + knit__bytes_of(t->dtype, from);

	if (t->dtype == KNIT_F32)
		return (const float *)(const void *)src;
	knit__floats_to_f32(t->dtype, src, converted, n);
	return converted;
}

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t last = knit__min(end * UNIT_ELEMENTS, elements(s)), row = knit__row_length(&s->out[0]);
	const uint32_t count = knit__map_count(s->attr);
	float results[KNIT_MAP_STEPS][PIECE], converted[KNIT_MAP_OPERANDS][PIECE];
	knit_map_instr program[KNIT_MAP_STEPS];
	bool vectors = false;
	int64_t n;

	(void)thread;
	for (uint32_t i = 0; i < count; ++i)
		knit__map_decode(s->attr[i].i, &program[i]);
	for (uint32_t i = 0; i < KNIT_MAP_OPERANDS; ++i)
		vectors |= s->in[i].data && s->in[i].rank != s->out[0].rank;
	for (int64_t at = begin * UNIT_ELEMENTS; at < last; at += n) {
		const float *registers[REGISTERS] = {0};

		n = knit__min(PIECE, knit__min(last - at, vectors ? row - at % row : PIECE));
		for (uint32_t i = 0; i < KNIT_MAP_OPERANDS; ++i)
			if (s->in[i].data)
				registers[i] = load(&s->in[i], &s->out[0], at, converted[i], n);
		for (uint32_t i = 0; i < count; ++i) {
			compute(&program[i], registers[program[i].a], registers[program[i].b], results[i], n);
			registers[KNIT_MAP_OPERANDS + i] = results[i];
		}
		memcpy((float *)(void *)s->out[0].data + at, results[count - 1], (size_t)n * sizeof(float));
	}
}

static bool accepts(const knit_node_view *node) {
	for (uint32_t i = 0; i < node->in_count; ++i) {
		const knit_operand_view *const x = &node->in[i];

		if (!(knit__f32_dense(x) && x->rank == node->out[0].rank) && !(i > 0 && knit__float_vector(x)))
			return false;
	}
	return knit__f32_dense(&node->out[0]) && knit__map_count(node->attr) > 0;
}

const knit_cpu_kernel KNIT_VARIANT(map) = {
	KNIT_VARIANT_NAME("map"), KNIT_OP_MAP, KNIT_VARIANT_ISA, accepts, NULL, {{units, run}}};

#endif
