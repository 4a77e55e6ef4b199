/* Owns the AVX2 variant of map: see map.h. */
#include "variant_avx2.h"

#include "map.h"
