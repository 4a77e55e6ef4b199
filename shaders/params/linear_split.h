/* Owns the parameter block of linear_split. */
#ifndef KNIT_PARAMS_LINEAR_SPLIT_H
#define KNIT_PARAMS_LINEAR_SPLIT_H

#include "words.h"

/* Row r of x as in params/linear.h; of the result: words, the first of row 0, from row to row. */
struct knit_linear_split_params {
	uint x_at, x_d1, x_d2, x_s0, x_s1, x_s2;
	uint rows, k;
	uint out_at, out_row;
};
#ifndef VULKAN
typedef struct knit_linear_split_params knit_linear_split_params;
#endif

#endif
