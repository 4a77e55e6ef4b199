/* Owns the parameter block of softmax and argmax. */
#ifndef KNIT_PARAMS_SOFTMAX_H
#define KNIT_PARAMS_SOFTMAX_H

#include "rows.h"

struct knit_softmax_params { uint rows, n, out_at; knit_rows x; };

#endif
