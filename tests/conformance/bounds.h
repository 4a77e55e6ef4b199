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
void bound_attention(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);

#endif
