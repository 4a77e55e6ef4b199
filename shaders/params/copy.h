/* Owns the parameter block of copy and cast. */
#ifndef KNIT_PARAMS_COPY_H
#define KNIT_PARAMS_COPY_H

#include "words.h"

/* The output is dense; dims are aligned at the right, missing ones of size 1. In elements, but for copies of blocks, whose
 * elements are words of 16 bits. */
struct knit_copy_params { uint count, size[3], stride[4], at, out_at; };

#endif
