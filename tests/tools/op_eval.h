/* Owns dense arrays for tests that call an op's reference directly, without a graph. */
#ifndef KNIT_TEST_OP_EVAL_H
#define KNIT_TEST_OP_EVAL_H

#include "../../graph/op_def.h"

#define OP_EVAL_ELEMENTS 4096

/* An array that holds its elements; `a` may be passed where the contract wants one. */
typedef struct op_array {
	knit_array a;
	double data[OP_EVAL_ELEMENTS];
} op_array;

/* dims end at the first 0. The elements are zero. */
void op_array_init(op_array *x, knit_dtype dtype, int64_t d0, int64_t d1, int64_t d2, int64_t d3);
void op_array_set(op_array *x, const double *values);
/* Uniform in [-1, 1), the same for the same seed. */
void op_array_random(op_array *x, uint64_t seed);
/* Element by index, for readers that do not want to multiply dims themselves. */
double *op_array_at(op_array *x, int64_t i0, int64_t i1, int64_t i2, int64_t i3);

/* Runs the reference of `op` on up to 5 operands (NULL: absent). */
void op_eval(knit_op op, const knit_attr *attr, op_array *const *in, uint32_t in_count, op_array *out);

#endif
