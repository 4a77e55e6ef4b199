/* Owns the AVX2 variant of add, mul, scale, silu and gelu: see elementwise.h. */
#include "variant_avx2.h"

#include "elementwise.h"
