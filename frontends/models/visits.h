/* Owns lists of visits: their text, their making from loop counts, the finding of loops in them, and which visit of the
 * model a visit of another list stands for. Knows no weights and no graph. */
#ifndef KNIT_VISITS_H
#define KNIT_VISITS_H

#include "../../graph/base.h"

enum {
	KNIT__MAX_LAYERS = 1024,
	KNIT__MAX_VISITS = 1024,
	KNIT__NO_VISIT = UINT16_MAX,
};

/* How a list is made of loops, counted in visits: `prelude` visits once, then `core` visits `loops` times, then `coda` visits
 * once. Within the core each `block` visits may be repeated at once, `repeats` times, before the next block. */
typedef struct knit__loop_shape {
	uint32_t prelude, core, coda;
	uint32_t loops;          /* 0: the list repeats itself in more than one way, so loops cannot be told */
	uint32_t block, repeats; /* 1, 1: nothing is repeated at once */
} knit__loop_shape;

/* Layer of visit 0, 1, 2 ... */
typedef struct knit__visit_list {
	uint16_t layer[KNIT__MAX_VISITS];
	uint32_t count;
	knit__loop_shape shape;
} knit__visit_list;

/* "0,1,2-4,2-4,5": layers with commas between them; A-B stands for all from A to B (or down to B), and xN after either
 * repeats it N times: "0-3x3" is 0-3,0-3,0-3. Finds the loops. ARGUMENT, LIMIT. */
knit_status knit__visits_parse(const char *text, uint32_t layers, knit__visit_list *out, knit_diag *diag);
/* The shortest text of that form, as far as ranges and whole loops go; cut with "..." if it is longer than `bytes`. */
void knit__visits_text(const knit__visit_list *list, char *out, size_t bytes);

/* Layers 0 to layers - 1: the first `prelude` of them once, those between `loops` times, the last `coda` once; with repeats > 1
 * each block of `block` layers of the core that many times at once. FORMAT where they do not fit each other, LIMIT. */
typedef struct knit__loop_counts {
	uint64_t prelude, coda, loops, block, repeats; /* loops, block, repeats: 0 means 1 */
} knit__loop_counts;
knit_status knit__visits_make(uint32_t layers, const knit__loop_counts *counts, knit__visit_list *out, knit_diag *diag);

/* Fills list->shape: the stretch that repeats itself and covers most; if others repeat themselves beside it, blocks that
 * are all repeated equally often, or else loops 0. */
void knit__visits_find_loops(knit__visit_list *list);
/* The same list with another number of loops; where it has one loop of repeated blocks, with another number of repeats.
 * UNSUPPORTED where the list has no loops that can be told, LIMIT. */
knit_status knit__visits_set_loops(knit__visit_list *list, uint32_t loops, knit_diag *diag);
/* The loop that ends with this visit, from 0; -1 if none does. */
int32_t knit__visits_loop_end(const knit__loop_shape *shape, uint32_t visit);

/* stands_for[v]: the visit of `model` whose own weights (LoRA, norms) visit v of `list` has: the n-th visit of a layer has
 * those of the model's n-th visit of that layer, or of its last one where the model has fewer; KNIT__NO_VISIT for a layer
 * that the model does not visit. */
void knit__visits_stand_for(const knit__visit_list *model, const knit__visit_list *list,
							uint16_t stands_for[KNIT__MAX_VISITS]);

#endif
