/* Owns the AVX2 variant of kv_write: see kv_write.h. */
#include "variant_avx2.h"

#include "kv_write.h"
