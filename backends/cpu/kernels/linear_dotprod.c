/* Owns the tiles of linear in NEON with the dot product instruction: linear_neon.h compiled for it. */
#include "linear_neon.h"

KNIT_LINEAR_KERNELS(dotprod, KNIT_CPU_DOTPROD)
