/* Owns the AVX2 variant of softmax and argmax: see softmax_argmax.h. */
#include "variant_avx2.h"

#include "softmax_argmax.h"
