/* Owns the plain C variant of softmax and argmax: see softmax_argmax.h. */
#include "variant_plain.h"

#include "softmax_argmax.h"
