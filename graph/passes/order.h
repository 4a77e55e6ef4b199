/* Owns what the files of the pass "order" tell each other. */
#ifndef KNIT_ORDER_H
#define KNIT_ORDER_H

#include "../memory_plan.h"
#include "../pass.h"

/* order: a valid one of g's nodes, replaced where another valid one needs fewer bytes at once. Called again on its own
 * result it changes nothing. */
knit_status knit__order_lower_peak(const knit_graph *g, uint32_t *order, knit_diag *d);

#endif
