/* Owns the list of passes and the runner: order, switching off by name, dumps, validation after each. */
#ifndef KNIT_PASS_H
#define KNIT_PASS_H

#include "target.h"

/* A pass changes g and adds to *changes how often it did. target may be NULL (passes that need none). Run again on its
 * own result it must report 0. */
typedef knit_status (*knit_pass_fn)(knit_graph *g, const knit_target *target, uint32_t *changes, knit_diag *d);
typedef struct knit_pass {
	const char *name;
	knit_pass_fn run;
	bool required;
	const char *about;
	double tolerance; /* by which KNIT_CHECK may find results changed, relative; 0: by rounding of doubles */
} knit_pass;

/* In the order in which they run; NULL past the end. `required` ones cannot be switched off. */
const knit_pass *knit__pass_at(size_t index);
const knit_pass *knit__pass_find(const char *name);

/* disable: comma-separated names or NULL; ARGUMENT for an unknown or required one. Environment: KNIT_PASSES_OFF is a list
 * of the same kind, which is added to it; KNIT_DUMP=<name> prints the graph before and after that pass to stderr;
 * KNIT_CHECK=1 validates, prints, parses and re-prints after each pass and compares interp before and after on random
 * inputs (debug builds always validate). */
knit_status knit__passes_run(knit_graph *g, const knit_target *target, const char *disable, knit_diag *d);

knit_status knit__pass_canonicalise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_dedup_weights(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
/* Makes constants of what depends on weights alone, where that does not enlarge them. */
knit_status knit__pass_fold(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_cse(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_dce(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
/* Each makes a fused node only where the target has a kernel for it (NULL: has all), at the declared ranges. */
knit_status knit__pass_fuse_linear(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_merge_siblings(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_fuse_norm(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_fuse_kv(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_fuse_elementwise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
/* Inserts copy nodes where the target refuses an operand's strides, and makes outputs own their bytes. */
knit_status knit__pass_legalise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
knit_status knit__pass_order(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);
/* Gives a constant the layout that the target wants of it, if the target has kernels for all uses together. */
knit_status knit__pass_layout(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d);

#endif
