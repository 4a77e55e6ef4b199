/* Owns the oracle: runs a graph by the ops' double-precision references, node by node, sharing nothing. */
#ifndef KNIT_INTERP_H
#define KNIT_INTERP_H

#include "op_def.h"

typedef struct knit_interp knit_interp;

/* Weights are decoded from their host bytes, or filled from `seed` where host is NULL. g must outlive it. */
knit_status knit__interp_create(const knit_graph *g, uint64_t seed, knit_interp **out, knit_diag *d);
void knit__interp_destroy(knit_interp *it);
knit_status knit__interp_set_symbol(knit_interp *it, const char *name, int64_t value);
/* Row-major doubles, count elements at the present symbols. */
knit_status knit__interp_write(knit_interp *it, const char *input, const double *data, size_t count);
/* States keep their contents from run to run, as in a session. */
knit_status knit__interp_run(knit_interp *it, knit_diag *d);
/* The array of an output of the last run; owned by the interp. */
knit_status knit__interp_output(const knit_interp *it, const char *output, const knit_array **out);
/* The array of any value of the last run (NULL if it was not computed), for finding where a device departs. */
const knit_array *knit__interp_value(const knit_interp *it, uint32_t value);
void knit__interp_reset(knit_interp *it);

#endif
