/* Owns the plain C variant of map: see map.h. */
#include "variant_plain.h"

#include "map.h"
