/* Owns the plain C variant of add, mul, scale, silu and gelu: see elementwise.h. */
#include "variant_plain.h"

#include "elementwise.h"
