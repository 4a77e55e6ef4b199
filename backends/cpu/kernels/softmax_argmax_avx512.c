/* Owns the AVX-512 variant of softmax and argmax: see softmax_argmax.h. */
#include "variant_avx512.h"

#include "softmax_argmax.h"
