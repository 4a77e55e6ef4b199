/* Owns the parameter block of linear_quantise. */
#ifndef KNIT_PARAMS_LINEAR_QUANTISE_H
#define KNIT_PARAMS_LINEAR_QUANTISE_H

#include "words.h"

/* Row r of x as in params/linear.h; of the result: words, the first q, the first scale, from row to row. */
struct knit_linear_quantise_params {
	uint x_at, x_d1, x_d2, x_s0, x_s1, x_s2;
	uint rows, blocks; /* blocks of 32 in a row */
	uint q_at, scale_at, out_row;
};
#ifndef VULKAN
typedef struct knit_linear_quantise_params knit_linear_quantise_params;
#endif

#endif
