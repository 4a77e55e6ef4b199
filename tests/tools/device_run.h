/* Owns running a graph straight on a backend's table with buffers that the test controls: guard bands around every
 * buffer, an arena full of NaN, weights and inputs checked for being untouched. Knows no op. */
#ifndef KNIT_TEST_DEVICE_RUN_H
#define KNIT_TEST_DEVICE_RUN_H

#include "../../backends/backend.h"

typedef struct device_run device_run;

/* Optimises a copy of g for the device (pass names in `disable` switched off) and prepares one program for the declared
 * ranges of the symbols. dev stays the caller's. */
knit_status device_run_create(const knit_graph *g, const knit_backend *backend, knit_device *dev, const char *disable,
                              device_run **out, knit_diag *d);
/* As above, with arenas of at most max_arena bytes each (0: no limit). */
knit_status device_run_create_limited(const knit_graph *g, const knit_backend *backend, knit_device *dev,
                                      const char *disable, uint64_t max_arena, device_run **out, knit_diag *d);
void device_run_destroy(device_run *r);
knit_status device_run_set(device_run *r, const char *symbol, int64_t value);
/* Doubles rounded to the input's type; count elements at the symbols' present values. */
knit_status device_run_write(device_run *r, const char *input, const double *data, size_t count);
/* Runs once. INTERNAL, naming the buffer, where a guard band, a weight or an input was changed. */
knit_status device_run_go(device_run *r, knit_diag *d);
/* The output of the last run as doubles, owned by r; NULL if there is none of that name. */
const double *device_run_output(device_run *r, const char *output, size_t *count);
const knit_schedule *device_run_schedule(const device_run *r);
/* The backend's own plan, for tests that look inside. */
knit_plan *device_run_plan(const device_run *r);

#endif
