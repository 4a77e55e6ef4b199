/* Owns the ends of the fused linears in AVX-512: names for fused_ends.h. */
#include "lanes_avx512.h"

#include "fused_ends.h"

const knit_fused_isa knit__fused_avx512 = {&knit__linear_level_avx512, &knit__linear_panels_avx512, add_low, glu};
