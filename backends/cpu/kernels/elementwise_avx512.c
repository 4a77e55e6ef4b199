/* Owns the AVX-512 variant of add, mul, scale, silu and gelu: see elementwise.h. */
#include "variant_avx512.h"

#include "elementwise.h"
