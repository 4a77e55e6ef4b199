/* Owns the validation layer between the device layer and a backend. */
#ifndef KNIT_GUARD_H
#define KNIT_GUARD_H

#include "backend.h"

/* Every function of it but enumerate and open works on devices made by knit__guard_open or _wrap: arguments and order of calls
 * are checked, then the call goes on to the wrapped backend. A faulty call is not passed on: it answers INTERNAL (void
 * functions do nothing), is counted, and is logged as a warning. On in debug builds and with KNIT_GUARD=1; KNIT_GUARD=0
 * turns it off. */
extern const knit_backend knit__guard_backend;

/* Opens a device of `inner` behind the guard. */
knit_status knit__guard_open(const knit_backend *inner, uint32_t index, const knit_context_desc *host,
                             knit_device **out, knit_diag *diag);
/* Takes over a device of `inner` that is open; on failure it is closed. */
knit_status knit__guard_wrap(const knit_backend *inner, knit_device *inner_dev, const knit_context_desc *host,
                             knit_device **out, knit_diag *diag);
/* Faults found so far, and the text of the last one. */
uint32_t knit__guard_faults(knit_device *dev, char *text, size_t size);

#endif
