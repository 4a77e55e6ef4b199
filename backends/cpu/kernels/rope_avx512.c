/* Owns the AVX-512 variant of rope: see rope.h. */
#include "variant_avx512.h"

#include "rope.h"
