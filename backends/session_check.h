/* Owns the checks of index inputs before a run. Knows no device. */
#ifndef KNIT_SESSION_CHECK_H
#define KNIT_SESSION_CHECK_H

#include "../graph/base.h"

/* All `count` values must lie in [0, bound). ARGUMENT with the input, the index, the value and the bound. */
knit_status knit__check_indices(const int32_t *values, size_t count, int64_t bound, const char *input, const char *op,
                                const char *origin, knit_diag *d);
/* The pairs (seq[i], pos[i]), all of them not negative, must be distinct. `keys` has room for `count`. ARGUMENT with two
 * indices that name one cell. */
knit_status knit__check_pairs(const int32_t *seq, const int32_t *pos, size_t count, uint64_t *keys, const char *state,
                              knit_diag *d);
/* Positions of a ring: none negative, and those of one sequence from `sinks` on at most `span` apart. `keys` as above.
 * ARGUMENT with the two ends. */
knit_status knit__check_ring(const int32_t *seq, const int32_t *pos, size_t count, uint64_t *keys, int64_t sinks,
                             int64_t span, const char *op, const char *origin, knit_diag *d);

#endif
