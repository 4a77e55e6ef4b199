/* Owns the contract between the graph and its ops: the list of ops, and what each must provide. The table itself is
 * defined in ops/; the graph reaches it only through the declarations here. */
#ifndef KNIT_OP_DEF_H
#define KNIT_OP_DEF_H

#include "ir.h"

typedef enum knit_op {
	KNIT_OP_NONE = 0,
	KNIT_OP_GATHER,       /* table [rows, n], ids [k] */
	KNIT_OP_LINEAR,       /* x [R, k], w [n, k] */
	KNIT_OP_ADD,          /* a [R, n], b same or [n] */
	KNIT_OP_MUL,          /* a [R, n], b same or [n] */
	KNIT_OP_SCALE,        /* x; attr s */
	KNIT_OP_SILU,         /* x */
	KNIT_OP_GELU,         /* x */
	KNIT_OP_RMS_NORM,     /* x [R, n], gain [n]; attr eps */
	KNIT_OP_LAYER_NORM,   /* x [R, n], gain [n], bias [n] or none; attr eps */
	KNIT_OP_SOFTMAX,      /* x [R, n] */
	KNIT_OP_ROPE,         /* x [tokens, heads, head_dim], pos [tokens]; attrs theta, rotary, layout */
	KNIT_OP_ATTENTION,    /* q [tokens, heads, d], k, v [seqs, cells, kv_heads, d] or [seqs, cells, kv_heads * d], seq, pos
	                       * [tokens]; attrs scale, window, ring, sinks, kv_heads */
	KNIT_OP_STATE_APPEND, /* state, rows [tokens, ...], seq [tokens], pos [tokens]; attrs ring, sinks -> next version of the
	                       * state */
	KNIT_OP_COPY,         /* x, any strides -> the same, contiguous */
	KNIT_OP_CAST,         /* x; attr dtype */
	KNIT_OP_ARGMAX,       /* x [R, n] -> i32 [R] */
	KNIT_OP_LORA_SELECT,  /* x [tokens, k], A [count, r, k], B [count, n, r], adapter_of_sequence [sequences], seq [tokens];
	                       * attr s -> s (x A'^T) B'^T with the A' and B' of the token's sequence */
	/* Made by passes only. They keep their operands' own storages: no weight is ever copied or stacked. The operands
	 * adapter_of_sequence [sequences], seq [tokens] (i32, both or none) choose an adapter per token; A and B are then
	 * [count, r, k] and [count, n, r]. Operand numbers: fused.h. */
	KNIT_OP_LINEAR_LORA,  /* x, W, A?, B?, bias?, residual?, adapter_of_sequence?, seq?; attr s
	                       * -> x W^T + s (x A^T) B^T + bias + residual */
	KNIT_OP_LINEAR_GROUP, /* x, then (W, A?, B?) three times, the last may be absent, adapter_of_sequence?, seq?;
	                       * attrs n, s0, s1, s2 -> n outputs */
	KNIT_OP_GLU,          /* x, Wg, Wu, Ag?, Bg?, Au?, Bu?, adapter_of_sequence?, seq?; attrs act, sg, su
	                       * -> act(gate) * up */
	KNIT_OP_ADD_RMS_NORM, /* a, b [R, n], gain [n]; attr eps -> a + b, rms_norm(a + b) */
	KNIT_OP_KV_WRITE,     /* k_state, v_state, q, k [tokens, heads, head_dim], v, seq, pos; attrs theta, rotary, layout, ring,
	                       * sinks -> next k_state, next v_state, q rotated; k is rotated on its way */
	KNIT_OP_MAP,          /* 1 to 4 operands, of one shape or vectors; attrs: a program, see fused.h */
	KNIT_OP_COUNT
} knit_op;

enum {
	KNIT_OP_COMMUTATIVE = 1,  /* inputs 0 and 1 may be swapped when their shapes are equal */
	KNIT_OP_INPLACE = 2,      /* output 0 may occupy the bytes of input 0 when type, shape and strides are equal */
	KNIT_OP_ELEMENTWISE = 4,  /* output element i depends on element i of same-shaped inputs only */
};

typedef enum knit_attr_kind { KNIT_ATTR_F, KNIT_ATTR_I } knit_attr_kind;
typedef struct knit_attr_def { const char *name; knit_attr_kind kind; } knit_attr_def;

/* Operand `operand` (i32) holds indices into dimension `dim` of operand `into`. The session checks them before a run.
 * The rule is void where either operand is absent, and where attribute number unless_attr - 1 is not 0 (a ring of cells
 * takes any position); unless_attr 0: always holds. */
typedef struct knit_index_rule { uint8_t operand, into, dim, unless_attr; } knit_index_rule;
static inline bool knit__index_rule_void(const knit_index_rule *rule, uint32_t in_count, const knit_attr *attr) {
	return rule->operand >= in_count || rule->into >= in_count || (rule->unless_attr && attr[rule->unless_attr - 1].i != 0);
}

/* What infer sees and fills. */
typedef struct knit_infer {
	knit_graph *graph; /* for its expressions only */
	uint32_t in_count;
	const knit_value *in[KNIT_MAX_IN]; /* NULL for an absent optional operand */
	const knit_attr *attr;
	const char *op, *origin;
	knit_diag *diag;
	knit_type out[KNIT_MAX_OUT]; /* to fill; ignored for the next versions of states */
	uint32_t out_count;          /* of the op's definition; to lower where that has a min_out */
} knit_infer;

/* Records "<op> at <origin>: <message>"; returns false so that infer can `return knit__infer_fail(...)`. */
bool knit__infer_fail(knit_infer *c, knit_status status, const char *fmt, ...) KNIT_PRINTF(3, 4);
/* "f32 [tokens, 64]" of an operand into a static-size buffer. */
typedef struct knit_shape_text { char text[96]; } knit_shape_text;
knit_shape_text knit__infer_shape(const knit_infer *c, const knit_value *v);

/* A dense tensor for the reference: row-major doubles, whatever the dtype (i32 exact, block formats decoded). */
typedef struct knit_array {
	knit_dtype dtype; /* of the graph's value: eval rounds to it only where the op is a conversion (cast, append) */
	uint32_t rank;
	int64_t dims[KNIT_MAX_RANK];
	double *data;
} knit_array;
static inline int64_t knit__array_count(const knit_array *a) {
	int64_t n = 1;
	for (uint32_t i = 0; i < a->rank; ++i)
		n *= a->dims[i];
	return n;
}

/* A type with numbers for dims, for costs. */
typedef struct knit_shape { knit_dtype dtype; uint32_t rank; int64_t dims[KNIT_MAX_RANK]; } knit_shape;
bool knit__shape_equal(const knit_shape *a, const knit_shape *b);
/* Of one execution. `context`: how many positions an attention row sees. */
typedef struct knit_cost { double flops; uint64_t read_bytes, write_bytes; } knit_cost;

typedef struct knit_op_def {
	const char *name;
	uint8_t min_in, max_in, out_count;
	uint8_t min_out; /* 0: out_count always; else infer says how many of out_count there are, at least min_out */
	uint8_t flags;
	/* Outputs [0, state_outputs) are the next versions of the states in the inputs of the same numbers: a node that has
	 * any is a root, never merged or folded. cell_seq and cell_pos are the operands that name the cells written. */
	uint8_t state_outputs, cell_seq, cell_pos;
	/* Numbers + 1 of the attributes of a ring of cells, 0: the op has none. Where ring is not 0, the session checks of
	 * the operands cell_seq and cell_pos that no token takes cells from another of the same run: knit__ring_span. */
	uint8_t ring_attr, sinks_attr, window_attr;
	uint8_t attr_count, index_rule_count;
	knit_attr_def attrs[KNIT_MAX_ATTRS];
	knit_index_rule index_rules[4];
	/* Checks operands and attributes, fills c->out. Says what was found and what was needed. */
	bool (*infer)(knit_infer *c);
	/* Reference in double precision. Output arrays are allocated, sized by infer; the next version of a state starts
	 * as a copy of the one before. Absent operands have data NULL. Slow and plain on purpose. */
	void (*eval)(const knit_attr *attr, const knit_array *in, uint32_t in_count, knit_array *out);
	/* FLOP and bytes. */
	void (*cost)(const knit_attr *attr, const knit_shape *in, uint32_t in_count, const knit_shape *out,
	             int64_t context, knit_cost *cost);
	/* Optional. A value that the node's output 0 can be replaced by (scale by 1, cast to the same type), 0 if none. */
	uint32_t (*simplify)(knit_graph *g, uint32_t node);
} knit_op_def;

/* Position p lies in cell p below sinks and where there is no ring, else in sinks + (p - sinks) % ring. What positions
 * of one sequence, those below *sinks aside, may lie apart in one run at most; false where the node has no ring. */
static inline bool knit__ring_span(const knit_op_def *def, const knit_attr *attr, int64_t *sinks, int64_t *span) {
	if (!def->ring_attr || attr[def->ring_attr - 1].i == 0)
		return false;
	const int64_t window = def->window_attr ? attr[def->window_attr - 1].i : 1;
	*sinks = def->sinks_attr ? attr[def->sinks_attr - 1].i : 0;
	*span = attr[def->ring_attr - 1].i - (window > 1 ? window : 1);
	return true;
}

/* Defined in ops/op_table.c. NULL for an unknown op. */
const knit_op_def *knit__op(uint16_t op);
/* KNIT_OP_NONE if there is no op of that name. */
uint16_t knit__op_find(const char *name);

/* Defined in ops/quant.c. `elements` is a multiple of the type's block. */
void knit__decode(knit_dtype dtype, const void *src, double *dst, uint64_t elements);
/* Rounds doubles to the type and writes its bytes (block formats: the reference encoder). */
void knit__encode(knit_dtype dtype, const double *src, void *dst, uint64_t elements);

#endif
