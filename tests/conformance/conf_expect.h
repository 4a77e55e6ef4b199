/* Owns what a case must give: the double-precision reference run once, its outputs and their tolerances kept for every device,
 * instruction set, thread count, fusion and layout that is compared with them. Knows no backend. */
#ifndef KNIT_TEST_CONF_EXPECT_H
#define KNIT_TEST_CONF_EXPECT_H

#include "cases.h"

/* One output of one run; data NULL: the graph has no such output. */
typedef struct conf_output { double *data, *tolerance; size_t count; } conf_output;

typedef struct conf_expect {
	conf_output *outputs; /* [run * CASE_OUTPUTS + output] */
	int runs;
	uint64_t seed; /* that the inputs of the runs begin with */
} conf_expect;

extern const char *const conf_output_names[CASE_OUTPUTS];

/* Runs the reference over all runs of the case. NULL, or why it could not. Pair with conf_expect_clear in any case. */
const char *conf_expect_make(case_build *b, conf_expect *e, knit_diag *d);
void conf_expect_clear(conf_expect *e);
/* The inputs of a run as the reference has had them; the runs are fed in order. */
void conf_expect_feed(const conf_expect *e, case_build *b, int run);

#endif
