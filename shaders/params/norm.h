/* Owns the parameter block of rms_norm, layer_norm and add_rms_norm. */
#ifndef KNIT_PARAMS_NORM_H
#define KNIT_PARAMS_NORM_H

#include "rows.h"

struct knit_norm_params {
	uint rows, n;
	float inverse_n, eps;
	uint gain_at, bias_at, out_at;
	uint sum_at; /* add_rms_norm: of a + b */
	knit_rows x, b;
};

#endif
