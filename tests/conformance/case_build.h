/* Owns what the files with cases share: filling inputs, making weights, adding rows to the table. */
#ifndef KNIT_TEST_CASE_BUILD_H
#define KNIT_TEST_CASE_BUILD_H

#include "bounds.h"
#include "cases.h"

typedef struct case_table { conf_case *data; size_t count, cap; } case_table;

#define P(...) (const int64_t[CASE_PARAMS]){__VA_ARGS__}
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* Adds a case with one run. `what` goes into its name, behind the op's. */
conf_case *case_add(case_table *t, uint16_t op, const char *what, knit_dtype dtype, case_fill fill,
                    void (*build)(case_build *), void (*feed)(case_build *, int), case_bound bound, const int64_t *p);

/* An input of the graph; its data comes from one of the next two. */
knit_tensor case_in(case_build *b, const char *name, knit_dtype dtype, int rank, const knit_dim *dims);
/* Filled as the case asks. */
void case_floats(case_build *b, const char *name, knit_dtype dtype, uint64_t count);
/* value(i) = (first + step * i) % modulo */
void case_ints(case_build *b, const char *name, uint64_t count, int64_t first, int64_t step, int64_t modulo);
/* A weight of rank 1 (d1 is ignored) or 2, in a store of its own. */
knit_tensor case_weight(case_build *b, knit_dtype dtype, int rank, int64_t d0, int64_t d1);
/* The symbol "tokens" in [1, value + 3], with the value `value` at the next run. */
knit_dim case_tokens(case_build *b, int64_t value);
/* A number of columns of the type in the place of one that blocks of 32 may have: whole blocks. */
int64_t case_columns(knit_dtype dtype, int64_t columns);

/* ---- files with cases -------------------------------------------------------------------------------------------- */

void cases_kv(case_table *t);   /* attention and append */
void cases_lora(case_table *t); /* lora_select */
void cases_fused_linear(case_table *t); /* linear_lora, linear_group, glu */
void cases_fused(case_table *t);        /* add_rms_norm, kv_write, map */

#endif
