/* Owns the activation functions of kernels, branchless so that loops over them vectorise. References:
 * ops/elementwise.c. */
#ifndef KNIT_KERNELS_ACTIVATION_H
#define KNIT_KERNELS_ACTIVATION_H

#include "exp.h"

static inline float knit__silu_of(float x) { return x / (1.0f + knit__expf(-x)); }

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
static inline float knit__gelu_of(float x) {
	const float twice_root = 1.59576912160573071f; /* 2 sqrt(2/pi) */

	return x / (1.0f + knit__expf(-twice_root * (x + 0.044715f * x * x * x)));
}

#endif
