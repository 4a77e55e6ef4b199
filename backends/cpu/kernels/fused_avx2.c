/* Owns the ends of the fused linears in AVX2 + FMA + F16C: names for fused_ends.h. */
#include "lanes_avx2.h"

#include "fused_ends.h"

const knit_fused_isa knit__fused_avx2 = {&knit__linear_level_avx2, &knit__linear_panels_avx2, add_low, glu};
