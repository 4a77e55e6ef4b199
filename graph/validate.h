/* Owns the list of IR invariants. */
#ifndef KNIT_VALIDATE_H
#define KNIT_VALIDATE_H

#include "ir.h"

/* Checks every invariant of ir.h; appends one line per fault to `faults` (may be NULL). OK or INTERNAL. */
knit_status knit__validate(const knit_graph *g, knit_text *faults);

#endif
