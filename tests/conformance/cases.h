/* Owns the table of conformance cases: for each op the graphs that are tried, their sizes, types, inputs, and the bound
 * on the error. Serves the tests and the benchmarks; knows no backend. */
#ifndef KNIT_TEST_CASES_H
#define KNIT_TEST_CASES_H

#include "../../graph/interp.h"

#define CASE_PARAMS 9
#define CASE_TENSORS 9
#define CASE_OUTPUTS 3 /* "y", and "y.1", "y.2" where the graph has them; others are not compared */

/* What the inputs and weights are filled with. */
typedef enum case_fill {
	FILL_UNIFORM, /* [-1, 1) */
	FILL_LARGE,   /* [-1e4, 1e4) */
	FILL_DENORMAL,/* up to 1e-39 */
	FILL_EQUAL,   /* 0.5 everywhere */
	FILL_ZEROS,   /* 0 and -0 in turn */
	FILL_NAN,     /* uniform with one NaN in the first input */
} case_fill;

/* A graph under construction, and everything that must be fed into it. */
typedef struct case_input { const char *name; knit_dtype dtype; uint64_t count; double *data; } case_input;
typedef struct case_build {
	knit_context *ctx;
	knit_graph *g;
	knit_weights *store;
	const struct conf_case *c;
	uint64_t seed;
	int64_t tokens;           /* value of the symbol "tokens" at this run; 0: not declared */
	bool exact;               /* no run has more tokens than the first: as in a bucket of its own */
	knit_tensor t[CASE_TENSORS]; /* operands that the bound needs, in the op's order */
	knit_tensor more[CASE_OUTPUTS - 1][CASE_TENSORS]; /* likewise, for the bounds of the other outputs */
	case_input inputs[CASE_TENSORS];
	uint32_t input_count, weight_count;
} case_build;

/* Fills the tolerance of each output element from the operands' (dense, double) and the result's values. */
typedef void (*case_bound)(const struct conf_case *c, const knit_array *const *t, const knit_array *out, double *tol);

typedef struct conf_case {
	uint16_t op;
	char name[112];     /* "linear_q8_0_k64_n33_t7" */
	void (*build)(case_build *b);
	/* Inputs of run `run` (0-based); sets b->tokens. NULL: one run with what build declared. */
	void (*feed)(case_build *b, int run);
	case_bound bound;   /* NULL: exact */
	case_bound more[CASE_OUTPUTS - 1]; /* of the other outputs */
	int64_t p[CASE_PARAMS];
	knit_dtype dtype;
	case_fill fill;
	int runs;
	uint32_t steps; /* of a case of a fused op, once fused */
} conf_case;

/* All cases, made once; *count of them. Free with cases_free. */
conf_case *cases_make(size_t *count);
void cases_free(conf_case *cases);

/* Builds the case's graph; b->inputs holds the data of run 0 after case_feed(b, 0). False if the builder refused, with
 * the graph's diag. Pair with case_close. */
bool case_open(case_build *b, knit_context *ctx, const conf_case *c);
/* The same with b->exact. */
bool case_open_exact(case_build *b, knit_context *ctx, const conf_case *c);
void case_feed(case_build *b, int run);
void case_close(case_build *b);

#endif
