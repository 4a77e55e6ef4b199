/* Owns the doubts about passes: is the graph still valid, does its text read back, does it still compute the same. Used
 * by the runner under KNIT_CHECK=1 and by the tests. */
#ifndef KNIT_PASS_CHECK_H
#define KNIT_PASS_CHECK_H

#include "interp.h"

/* INTERNAL with the first fault; all faults and the IR text go to `report` (may be NULL). */
knit_status knit__check_valid(const knit_graph *g, knit_text *report, knit_diag *d);
/* Prints, parses, prints again: the two texts must be equal. */
knit_status knit__check_text(const knit_graph *g, knit_diag *d);
/* Runs both by the references on the same random symbols and inputs (indices in range), several times in a row, and
 * compares outputs by name and states by name. INTERNAL with the first difference above `tolerance` (relative).
 * *skipped (may be NULL): whether the graph is so large, or so made, that nothing was run. */
knit_status knit__check_equal(const knit_graph *before, const knit_graph *after, uint64_t seed, double tolerance,
                              bool *skipped, knit_diag *d);

#endif
