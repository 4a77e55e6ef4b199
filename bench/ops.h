/* Owns the measuring of single ops at the shapes that models use. Knows no command line. */
#ifndef KNIT_BENCH_OPS_H
#define KNIT_BENCH_OPS_H

#include "../graph/base.h"
#include "rows.h"
#include "shape.h"

typedef enum bench_op_kind {
	BENCH_OP_LINEAR = 0,  /* x [tokens, columns] times a matrix [rows, columns] */
	BENCH_OP_ATTENTION,   /* with the append of the tokens' keys and values; `depth` positions are there before */
	BENCH_OP_RMS_NORM,    /* [tokens, columns] */
	BENCH_OP_ROPE,        /* [tokens, rows heads, columns] */
	BENCH_OP_SILU,        /* [tokens, columns] */
	BENCH_OP_MUL,         /* two [tokens, columns] */
	BENCH_OP_GATHER,      /* tokens rows of a matrix [rows, columns] */
	BENCH_OP_ARGMAX,      /* [tokens, columns] */
	BENCH_OP_KINDS
} bench_op_kind;

typedef struct bench_op_case {
	bench_op_kind kind;
	knit_dtype type; /* of the matrix, or of keys and values; 0: the op has none */
	int64_t tokens, rows, columns;
	int64_t heads, kv_heads, head_dim, depth; /* attention */
	char where[48]; /* in the model: "125m ffn_up" */
} bench_op_case;

typedef struct bench_op_row {
	bench_op_case c;
	bench_row row;      /* rate: steps per second; cost: of one step, all its bytes as weight_bytes */
	uint32_t copies;    /* of the step with operands of their own in one run, so that caches do not hold them */
	double nmse;        /* of the results to those of the first device; negative: it is the first, or not compared */
	bool unsupported;   /* the device has no kernel for it: nothing was measured */
} bench_op_row;

const char *bench_op_name(bench_op_kind kind);
/* BENCH_OP_KINDS: none of that name. */
bench_op_kind bench_op_find(const char *name);
/* "q8_0, 5632 x 2048, 1 token" */
void bench_op_text(const bench_op_case *c, char out[80]);

/* What a decoder of this shape does in one layer and at its ends, for so many tokens, its matrices of `type`. Returns how
 * many were written, at most cap. */
size_t bench_op_cases(const bench_shape *s, const char *name, knit_dtype type, int64_t tokens, bench_op_case *out, size_t cap);

typedef struct bench_ops_desc {
	bench_subject *devices; /* name, device; the rest is filled in by bench_ops_open */
	size_t device_count;
	uint32_t threads;
	int64_t runs;
	double seconds;        /* for a case on one device, about */
	uint64_t copies_bytes; /* as many copies as take so many bytes, at most 64 */
} bench_ops_desc;

/* Measures a case on each device, in turns: device_count rows. An op that a device has no kernel for is a row, too. */
knit_status bench_op_measure(const bench_ops_desc *desc, const bench_op_case *c, bench_op_row *rows, knit_diag *diag);

/* Table, or Markdown. */
void bench_ops_print(FILE *f, const bench_run *run, const bench_op_row *rows, size_t count, bool markdown);
/* Lines of schema "knit.ops/1". */
void bench_ops_json(FILE *f, const bench_run *run, const bench_op_row *rows, size_t count);

#endif
