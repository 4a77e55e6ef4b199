/* Owns the ends of the fused linears in NEON, with and without the dot product instruction, which they have no use for:
 * names for fused_ends.h. */
#include "lanes_neon.h"

#include "fused_ends.h"

const knit_fused_isa knit__fused_neon = {&knit__linear_level_neon, &knit__linear_panels_neon, add_low, glu};
const knit_fused_isa knit__fused_dotprod = {&knit__linear_level_dotprod, &knit__linear_panels_dotprod, add_low, glu};
