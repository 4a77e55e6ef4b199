/* Owns what attention with vectors does the same way for every instruction set: parts of a row merged, keys and values made
 * f32 by their type. Include after lanes_*.h and after widen_q8_0, widen_q4_0 and widen_of have been defined. */
#ifndef KNIT_KERNELS_ATTENTION_ENDS_H
#define KNIT_KERNELS_ATTENTION_ENDS_H

#include "attention.h"

static void merge(float *total, const float *part, int64_t n) {
	const float max = part[0] > total[0] ? part[0] : total[0], base = max == -INFINITY ? 0 : max;
	const knit_lanes a = knit__lanes_exp(knit__lanes_all(total[0] - base)), b = knit__lanes_exp(knit__lanes_all(part[0] - base));

	total[0] = max;
	total[1] = total[1] * knit__lanes_first(a) + part[1] * knit__lanes_first(b);
	for (int64_t i = KNIT_ATTENTION_HEAD; i < n; i += KNIT_LANES)
		knit__lanes_store(total + i, knit__lanes_fma(knit__lanes_load(total + i), a,
		                                             knit__lanes_mul(knit__lanes_load(part + i), b)));
}

static void widen(knit_dtype t, const char *src, int64_t src_stride, int64_t count, int64_t dim, float *dst,
                  int64_t dst_stride) {
	for (int64_t i = 0; i < count; ++i, src += src_stride, dst += dst_stride) {
		if (t == KNIT_Q8_0)
			widen_q8_0(src, dst, dim);
		else if (t == KNIT_Q4_0)
			widen_q4_0(src, dst, dim);
		else if (t == KNIT_F16)
			widen_of(KNIT_F16, src, dst, dim);
		else if (t == KNIT_BF16)
			widen_of(KNIT_BF16, src, dst, dim);
		else
			widen_of(KNIT_F32, src, dst, dim);
	}
}

#endif
