/* Owns the AVX2 variant of rms_norm, layer_norm and add_rms_norm: see norm.h. */
#include "variant_avx2.h"

#include "norm.h"
