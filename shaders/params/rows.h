/* Owns how shaders are told where the rows of a tensor lie. */
#ifndef KNIT_PARAMS_ROWS_H
#define KNIT_PARAMS_ROWS_H

#include "words.h"

/* Rows numbered over the outer dims, all but the innermost: the two inner sizes of them, all three strides in elements,
 * aligned at the right (a missing dim has size 1). */
struct knit_rows { uint at, size[2], stride[3]; };
#ifndef VULKAN
typedef struct knit_rows knit_rows;
#endif

#endif
