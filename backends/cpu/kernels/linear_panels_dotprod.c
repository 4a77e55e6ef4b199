/* Owns the tiles of linear for weights in panels in NEON with the dot product instruction: linear_panels_neon.h compiled
 * for it. */
#include "linear_panels_neon.h"

KNIT_LINEAR_PANEL_KERNELS(dotprod, KNIT_CPU_DOTPROD)
