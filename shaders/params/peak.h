/* Owns the parameter block of the loops that measure what a device can do at best. */
#ifndef KNIT_PARAMS_PEAK_H
#define KNIT_PARAMS_PEAK_H

#include "words.h"

/* Moving: a group begins at vector group * group_step, goes on by `step` a time and wraps at mask + 1, a power of two.
 * Computing: x and y are the factor and the summand, or four bytes each; seed is what sums begin with. */
struct knit_peak_params { uint repeat, group_step, step, mask, x, y, seed; };

#endif
