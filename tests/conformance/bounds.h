/* Owns how far a device may be from the double-precision reference, per kind of op: one place, so that a kernel cannot
 * buy itself slack. Each function fills a tolerance per output element. */
#ifndef KNIT_TEST_BOUNDS_H
#define KNIT_TEST_BOUNDS_H

#include "cases.h"

/* c * eps * log2(k) * sum |x||w|: rounding of a dot product in f32, whatever the order of its sum. */
void bound_linear(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* The same plus six standard deviations of rounding x to int8 in blocks of 32. */
void bound_linear_int8(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* A few roundings of operands of the result's own size. */
void bound_rounding(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_silu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_gelu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_softmax(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_norm(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_rope(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* Two products one after the other, each bounded as a linear: what the first is off by goes through the second. */
#define LORA_CASE_SCALE 0.75f
void bound_lora(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* Operands in the order of linear_lora, the scale being LORA_CASE_SCALE: the errors of its products and sums added up. */
void bound_linear_lora(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* Operands in the order of glu; c->p[GLU_CASE_ACT] is its act. */
#define GLU_CASE_ACT 4
void bound_glu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
void bound_sum(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* Of a + b; operands a, b, gain. */
void bound_norm_of_sum(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* Of a slot of rotated keys, whose type may round the other way: a step of that type. Its values are below 2. */
void bound_keys(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* The errors of a chain of elementwise ops, step by step; operands x, a vector, another x. p[2] is its number. */
typedef struct case_map_step { uint16_t op; uint8_t a, b; float s; } case_map_step; /* registers: 0-2 operands, 3 + i */
#define CASE_MAPS 5
extern const case_map_step case_maps[CASE_MAPS][6];
void bound_map(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);
/* What x w^T may be off by for a row x [k] and a row w [k], and the product. int8: x may be rounded to that. */
double bound_dot(const double *x, const double *w, int64_t k, bool int8, double *product);
void bound_attention(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);

#endif
