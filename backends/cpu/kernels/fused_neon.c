/* Owns the ends of the fused linears in NEON, with and without the dot product instruction, which they have no use for.
 * The driver is linear_fused.c; references: ops/fused_linear.c. */
#include "activation.h"
#include "fused_isa.h"
#include "vec_neon.h"

#define COLUMNS 4

KNIT_INLINE float32x4_t lanes_of(const knit_dtype t, const char *b, int64_t rank, const float *low) {
	float32x4_t acc = vdupq_n_f32(0);
	int64_t i = 0;

	for (; i + 8 <= rank; i += 8)
		acc = knit__fma8(acc, knit__load8(KNIT_F32, (const char *)low, i), knit__load8(t, b, i));
	if (i < rank)
		acc = knit__fma8(acc, knit__load8_some(KNIT_F32, (const char *)low, i, rank - i),
		                 knit__load8_some(t, b, i, rank - i));
	return acc;
}

KNIT_INLINE void add_rows(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out,
                          int64_t columns) {
	const int64_t row = rank * (t == KNIT_F32 ? 4 : 2);
	int64_t c = 0;

	for (; c + COLUMNS <= columns; c += COLUMNS, b += COLUMNS * row) {
		const float32x4_t lanes[COLUMNS] = {lanes_of(t, b, rank, low), lanes_of(t, b + row, rank, low),
		                                    lanes_of(t, b + 2 * row, rank, low), lanes_of(t, b + 3 * row, rank, low)};

		knit__fused_ask(b, COLUMNS * row);
		vst1q_f32(out + c, vaddq_f32(vld1q_f32(out + c), knit__sum4(lanes)));
	}
	for (; c < columns; ++c, b += row)
		out[c] += knit__sum1(lanes_of(t, b, rank, low));
}

/* The rank that adapters mostly have: two times eight a row. */
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

/* x / (1 + exp(-y)) */
KNIT_INLINE float32x4_t gated(float32x4_t x, float32x4_t y) {
	return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), knit__exp4(vnegq_f32(y))));
}

KNIT_INLINE float32x4_t activated(const int64_t act, float32x4_t x) {
	if (act == KNIT_GLU_SILU)
		return gated(x, x);
	const float32x4_t cube = vmulq_f32(vmulq_f32(x, x), vmulq_n_f32(x, 0.044715f));

	return gated(x, vmulq_n_f32(vaddq_f32(x, cube), 1.59576912160573071f)); /* 2 sqrt(2/pi) */
}

KNIT_INLINE void glu_of(const int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	int64_t i = 0;

	for (; i + 4 <= n; i += 4)
		vst1q_f32(out + i, vmulq_f32(activated(act, vld1q_f32(gate + i)), vld1q_f32(up + i)));
	if (i < n) {
		float some_gate[4] = {0}, some_up[4] = {0};
		const size_t rest = (size_t)(n - i) * sizeof(float);

		memcpy(some_gate, gate + i, rest);
		memcpy(some_up, up + i, rest);
		vst1q_f32(some_up, vmulq_f32(activated(act, vld1q_f32(some_gate)), vld1q_f32(some_up)));
		memcpy(out + i, some_up, rest);
	}
}

static void glu(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	if (act == KNIT_GLU_SILU)
		glu_of(KNIT_GLU_SILU, gate, up, out, n);
	else
		glu_of(KNIT_GLU_GELU, gate, up, out, n);
}

const knit_fused_isa knit__fused_neon = {&knit__linear_level_neon, &knit__linear_panels_neon, add_low, glu};
const knit_fused_isa knit__fused_dotprod = {&knit__linear_level_dotprod, &knit__linear_panels_dotprod, add_low, glu};
