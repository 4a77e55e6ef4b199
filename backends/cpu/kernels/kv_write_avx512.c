/* Owns the AVX-512 variant of kv_write: see kv_write.h. */
#include "variant_avx512.h"

#include "kv_write.h"
