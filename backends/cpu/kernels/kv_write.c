/* Owns the plain C variant of kv_write: see kv_write.h. */
#include "variant_plain.h"

#include "kv_write.h"
