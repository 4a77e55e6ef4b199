/* Owns the plain C variant of rms_norm, layer_norm and add_rms_norm: see norm.h. */
#include "variant_plain.h"

#include "norm.h"
