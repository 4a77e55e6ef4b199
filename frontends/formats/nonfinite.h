/* Owns the search for NaN and infinity in tensors' bytes. Reports, changes nothing. */
#ifndef KNIT_FORMATS_NONFINITE_H
#define KNIT_FORMATS_NONFINITE_H

#include "../../graph/weights.h"

typedef struct knit_nonfinite {
	uint64_t nan, inf; /* how many: values of f32, f16 and bf16, scales of blocks */
	uint64_t first;    /* element index of the first of either (of its block, for a scale); valid if nan + inf > 0 */
} knit_nonfinite;

/* True if there is none. i32 has none. */
bool knit__weights_all_finite(const knit_weight_info *w, knit_nonfinite *out);
/* The first weight of the store that has one and what it has; the number of weights if none has. On `threads` threads (0: one
 * per core that this process may use), as every byte is read; fewer where there is little to read or the system gives fewer. */
size_t knit__weights_first_nonfinite(const knit_weights *store, uint32_t threads, knit_nonfinite *out);

#endif
