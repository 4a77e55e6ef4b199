/* Owns the AVX-512 variant of rms_norm, layer_norm and add_rms_norm: see norm.h. */
#include "variant_avx512.h"

#include "norm.h"
