/* Owns what the variants of the fused linears provide beside linear's tiles: what happens to a row of results while it is
 * still in the first cache. The driver is linear_fused.c. */
#ifndef KNIT_KERNELS_FUSED_ISA_H
#define KNIT_KERNELS_FUSED_ISA_H

#include "../../../graph/fused.h"
#include "linear.h"

typedef struct knit_fused_isa {
	const knit_linear_level *linear;
	const knit_linear_panels *panels; /* NULL: it takes no weights in panels */
	/* out[c] += sum of low[j] * b_c[j], b_c being row c of a matrix of `rank` columns without gaps. Rows are too short for
	 * linear's tiles to pay; the order of the sum is theirs where rank is at most a span. */
	void (*add_low)(knit_dtype b_type, const char *b, int64_t rank, const float *low, float *out, int64_t columns);
	/* out[i] = act(gate[i]) * up[i], act as the attribute of glu; out may be gate */
	void (*glu)(int64_t act, const float *gate, const float *up, float *out, int64_t n);
} knit_fused_isa;

extern const knit_fused_isa knit__fused_plain, knit__fused_avx2, knit__fused_avx512, knit__fused_neon,
	knit__fused_dotprod;

/* Asked for in advance of a row of B: the rows lie one after the other, so a little is enough, and more would mostly be
 * past their end. `bytes` are being read at b. */
#define KNIT_FUSED_AHEAD 2048
static inline __attribute__((always_inline)) void knit__fused_ask(const char *b, int64_t bytes) {
	for (int64_t i = 0; i < bytes; i += 64)
		knit__prefetch(b + KNIT_FUSED_AHEAD + i);
}

#endif
