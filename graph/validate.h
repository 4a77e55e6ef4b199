/* Owns the list of IR invariants. */
#ifndef KNIT_VALIDATE_H
#define KNIT_VALIDATE_H

#include "ir.h"

/* Checks every invariant of ir.h; appends one line per fault to `faults` (may be NULL). OK or INTERNAL. */
knit_status knit__validate(const knit_graph *g, knit_text *faults);

/* Whether value `id` exists in the running graph: a leaf, an output of a node that was not removed, or a view of one of
 * those. Values left behind by passes are not live. Safe on a broken graph. */
bool knit__value_live(const knit_graph *g, uint32_t id);

#endif
