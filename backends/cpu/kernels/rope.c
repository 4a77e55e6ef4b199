/* Owns the plain C variant of rope: see rope.h. */
#include "variant_plain.h"

#include "rope.h"
