/* Owns what a running step of the fused linears is made of: its weights, their LoRAs, its rows of x in scratch. Knows no
 * instruction set and nothing of how the work is cut. */
#ifndef KNIT_KERNELS_LINEAR_FUSED_H
#define KNIT_KERNELS_LINEAR_FUSED_H

#include "fused_isa.h"

/* One weight of a running step. */
typedef struct knit_fused_part {
	const knit_cpu_tensor *w, *a, *b; /* a NULL: no LoRA */
	const knit_linear_isa *isa;       /* for w */
	float s;
	const char *quantised; /* rows of x in scratch; NULL: the weights are floats */
	float *low;            /* t [rows, low_stride] in scratch */
	int64_t rank, low_stride;
} knit_fused_part;

/* Quantised rows of x differ by weight type and layout (linear.h). */
#define KNIT_FUSED_ROW_KINDS 7

typedef struct knit_fused {
	const knit_fused_isa *isa;
	const knit_cpu_tensor *x;
	knit_fused_part part[KNIT_GROUP_MAX];
	uint32_t parts;
	/* Rows of x; of one row a copy for each thread. NULL: none wanted. */
	char *quantised[KNIT_FUSED_ROW_KINDS];
	const knit_linear_isa *quantiser[KNIT_FUSED_ROW_KINDS];
	const int32_t *adapters, *seq;
	int64_t sequences, rows, k, row_bytes;
	uint32_t threads;
} knit_fused;

/* Of a running step, as that thread sees it. */
knit_fused knit__fused_of(const knit_cpu_step *s, knit_op op, const knit_fused_isa *isa, uint32_t thread);
uint64_t knit__fused_scratch(const knit_node_view *node, knit_op op, uint32_t threads);
bool knit__fused_accepts(const knit_node_view *node, knit_op op, const knit_fused_isa *isa);

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* Which slot of A and B a row uses; -1 where an index is out of range, which the session has checked of inputs. */
int64_t knit__fused_slot(const knit_fused *f, const knit_fused_part *p, int64_t row);
/* How many of the rows [row, end) have the slot of the first. */
int64_t knit__fused_same_slot(const knit_fused *f, const knit_fused_part *p, int64_t row, int64_t end);
/* Row `first` of a factor in a slot. */
const char *knit__fused_factor_row(const knit_cpu_tensor *t, int64_t slot, int64_t first);

#endif
