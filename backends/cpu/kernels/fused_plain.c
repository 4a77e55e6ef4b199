/* Owns the ends of the fused linears in plain C. The driver is linear_fused.c; references: ops/fused_linear.c. */
#include "activation.h"
#include "fused_isa.h"
#include "operand.h"

#define LANES 8
#define INLINE static inline __attribute__((always_inline))

INLINE void add_rows(const knit_dtype t, const char *b, int64_t rank, const float *low, float *out, int64_t columns) {
	const int64_t row_bytes = knit__bytes_of(t, rank);

	for (int64_t c = 0; c < columns; ++c, b += row_bytes) {
		float lanes[LANES] = {0};
		int64_t i = 0;

		for (; i + LANES <= rank; i += LANES)
			for (int64_t l = 0; l < LANES; ++l)
				lanes[l] += low[i + l] * knit__load_float(t, b, i + l);
		for (int64_t l = 0; i + l < rank; ++l)
			lanes[l] += low[i + l] * knit__load_float(t, b, i + l);
		out[c] += ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
	}
}

static void add_low(knit_dtype t, const char *b, int64_t rank, const float *low, float *out, int64_t columns) {
	if (t == KNIT_F16)
		add_rows(KNIT_F16, b, rank, low, out, columns);
	else if (t == KNIT_BF16)
		add_rows(KNIT_BF16, b, rank, low, out, columns);
	else
		add_rows(KNIT_F32, b, rank, low, out, columns);
}

static void glu(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
	if (act == KNIT_GLU_SILU)
		for (int64_t i = 0; i < n; ++i)
			out[i] = knit__silu_of(gate[i]) * up[i];
	else
		for (int64_t i = 0; i < n; ++i)
			out[i] = knit__gelu_of(gate[i]) * up[i];
}

const knit_fused_isa knit__fused_plain = {&knit__linear_level_plain, NULL, add_low, glu};
