/* Owns the ends of the fused linears for every instruction set that has a lanes_*.h, which the including file names first.
 * The driver is linear_fused.c; references: ops/fused_linear.c. */
#ifndef KNIT_KERNELS_FUSED_ENDS_H
#define KNIT_KERNELS_FUSED_ENDS_H

#include "activation.h"
#include "fused_isa.h"

/* ---- B t --------------------------------------------------------------------------------------------------------- */

KNIT_INLINE knit_lanes lanes_of(const knit_dtype t, const char *b, int64_t rank, const float *low) {
	knit_lanes acc = knit__lanes_all(0);
	int64_t i = 0;

	for (; i + KNIT_LANES_STEP <= rank; i += KNIT_LANES_STEP)
		acc = knit__lanes_dot(t, low, b, i, acc);
	if (i < rank)
		acc = knit__lanes_dot_some(t, low, b, i, rank - i, acc);
	return acc;
}

KNIT_INLINE void add_rows(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                          int64_t columns) {
	const int64_t row = rank * (t == KNIT_F32 ? 4 : 2);
	int64_t c = 0;

	for (; c + KNIT_LANES_SUMS <= columns; c += KNIT_LANES_SUMS, b += KNIT_LANES_SUMS * row) {
		knit_lanes lanes[KNIT_LANES_SUMS];

		for (int i = 0; i < KNIT_LANES_SUMS; ++i)
			lanes[i] = lanes_of(t, b + i * row, rank, low);
		knit__fused_ask(b, KNIT_LANES_SUMS * row);
		knit__lanes_sums(out + c, lanes, KNIT_LANES_SUMS, true);
	}
	for (; c < columns; ++c, b += row)
		out[c] += knit__lanes_sum(lanes_of(t, b, rank, low));
}

/* 16 is the rank that adapters mostly have. */
KNIT_INLINE void add_any(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                         int64_t columns) {
	if (rank == 16)
		add_rows(t, b, 16, low, out, columns);
	else
		add_rows(t, b, rank, low, out, columns);
}

static void add_low(knit_dtype t, const char *b, int64_t rank, const float *low, float *out, int64_t columns) {
	if (t == KNIT_F16)
		add_any(KNIT_F16, b, rank, low, out, columns);
	else if (t == KNIT_BF16)
		add_any(KNIT_BF16, b, rank, low, out, columns);
	else
		add_any(KNIT_F32, b, rank, low, out, columns);
}

/* ---- glu --------------------------------------------------------------------------------------------------------- */

/* x / (1 + exp(-y)) */
KNIT_INLINE knit_lanes gated(knit_lanes x, knit_lanes y) {
	return knit__lanes_div(x, knit__lanes_add(knit__lanes_all(1), knit__lanes_exp(knit__lanes_minus(y))));
}

KNIT_INLINE knit_lanes activated(const int64_t act, knit_lanes x) {
	if (act == KNIT_GLU_SILU)
		return gated(x, x);
	const knit_lanes cube = knit__lanes_mul(knit__lanes_mul(x, x), knit__lanes_mul(x, knit__lanes_all(0.044715f)));

	return gated(x, knit__lanes_mul(knit__lanes_all(1.59576912160573071f), knit__lanes_add(x, cube))); /* 2 sqrt(2/pi) */
}

KNIT_INLINE void glu_vector(const int64_t act, const float *gate, const float *up, float *out) {
	knit__lanes_store(out, knit__lanes_mul(activated(act, knit__lanes_load(gate)), knit__lanes_load(up)));
}

KNIT_INLINE void glu_of(const int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	int64_t i = 0;

	for (; i + KNIT_LANES <= n; i += KNIT_LANES)
		glu_vector(act, gate + i, up + i, out + i);
	if (i < n) {
		float some_gate[KNIT_LANES] = {0}, some_up[KNIT_LANES] = {0};
		const size_t rest = (size_t)(n - i) * sizeof(float);

		memcpy(some_gate, gate + i, rest);
		memcpy(some_up, up + i, rest);
		glu_vector(act, some_gate, some_up, some_up);
		memcpy(out + i, some_up, rest);
	}
}

static void glu(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	if (act == KNIT_GLU_SILU)
		glu_of(KNIT_GLU_SILU, gate, up, out, n);
	else
		glu_of(KNIT_GLU_GELU, gate, up, out, n);
}

#endif
