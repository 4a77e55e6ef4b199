/* Owns the turning of heads for the kernels that do it: angles in double, once per token, shared by its heads. Knows no
 * op. Reference: ops/rope.c. */
#ifndef KNIT_KERNELS_ROPE_H
#define KNIT_KERNELS_ROPE_H

#include "knit.h"

/* Frequencies, and the cosines and sines of one position; in a thread's scratch. */
typedef struct knit_rope_table {
	int64_t half; /* pairs */
	knit_rope_layout layout;
	double *frequencies;
	float *cosines, *sines;
} knit_rope_table;

/* A multiple of 64. */
static inline uint64_t knit__rope_table_bytes(int64_t rotary) { return ((uint64_t)rotary * 8 + 63) & ~UINT64_C(63); }
knit_rope_table knit__rope_table(double theta, int64_t rotary, knit_rope_layout layout, char *memory);
void knit__rope_turn_to(const knit_rope_table *t, int32_t pos);
/* One head of dim elements; y may be x. */
void knit__rope_head(const knit_rope_table *t, const float *x, float *y, int64_t dim);

#endif
