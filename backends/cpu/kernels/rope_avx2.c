/* Owns the AVX2 variant of rope: see rope.h. */
#include "variant_avx2.h"

#include "rope.h"
