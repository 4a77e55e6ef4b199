/* Owns the AVX-512 variant of map: see map.h. */
#include "variant_avx512.h"

#include "map.h"
