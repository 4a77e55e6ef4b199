/* Owns what the op files share: the list of definitions, operand checks with uniform messages, cost sums. Knows no op's
 * meaning. */
#ifndef KNIT_OP_UTIL_H
#define KNIT_OP_UTIL_H

#include "../graph/op_def.h"

extern const knit_op_def knit__op_gather, knit__op_linear, knit__op_add, knit__op_mul, knit__op_scale, knit__op_silu,
	knit__op_gelu, knit__op_rms_norm, knit__op_layer_norm, knit__op_softmax, knit__op_rope, knit__op_attention,
	knit__op_state_append, knit__op_copy, knit__op_cast, knit__op_argmax, knit__op_lora_select;

/* ---- builder functions ------------------------------------------------------------------------------------------- */

typedef struct knit_op_arg {
	const char *name;
	knit_tensor tensor;
	bool optional; /* id 0 means absent */
} knit_op_arg;

/* False after the first error: builder calls then do nothing. */
static inline bool knit__op_usable(const knit_graph *g) {
	return g && g->diag.status == KNIT_OK;
}

/* Whether a node may read t now: it belongs to g and is no window on a state that has been written since. */
bool knit__op_check_operand(knit_graph *g, const char *op, const char *name, knit_tensor t);

/* Checks every operand, then builds the node. Id 0 after an error. g may be NULL. */
knit_tensor knit__op_build(knit_graph *g, knit_op op, uint32_t count, const knit_op_arg *args, const knit_attr *attr);

/* ---- checks in infer: each records the failure and returns false ------------------------------------------------- */

/* The type list is ended by 0. */
bool knit__op_check_dtype(knit_infer *c, uint32_t operand, const char *name, const knit_dtype *allowed);
bool knit__op_check_rank(knit_infer *c, uint32_t operand, const char *name, uint32_t lo, uint32_t hi);
/* f32 of rank lo..hi. */
bool knit__op_check_f32(knit_infer *c, uint32_t operand, const char *name, uint32_t lo, uint32_t hi);
/* i32 [tokens], tokens being dimension 0 of operand `like`. */
bool knit__op_check_per_token(knit_infer *c, uint32_t operand, const char *name, uint32_t like, const char *like_name);
/* f32, f16 or bf16 [n], n being the innermost dimension of operand `of`. */
bool knit__op_check_vector(knit_infer *c, uint32_t operand, const char *name, uint32_t of, const char *of_name);

bool knit__op_same_dims(const knit_value *a, const knit_value *b);
/* Output 0: an operand's dims, of type `dtype`. */
void knit__op_out_like(knit_infer *c, uint32_t operand, knit_dtype dtype);

/* ---- costs ------------------------------------------------------------------------------------------------------- */

/* Rank 0 (an absent operand): 0. */
uint64_t knit__op_elements(const knit_shape *s);
uint64_t knit__op_bytes(const knit_shape *s);
/* Every operand read once and output 0 written once. */
void knit__op_cost_stream(double flops, const knit_shape *in, uint32_t in_count, const knit_shape *out,
						  knit_cost *cost);

/* ---- references -------------------------------------------------------------------------------------------------- */

/* Rows along the innermost dimension. */
static inline int64_t knit__op_row(const knit_array *a) {
	return a->dims[a->rank - 1];
}

/* The cell of a position (op_def.h); -1 where there is none. */
static inline int64_t knit__op_cell(double pos, int64_t ring, int64_t sinks, int64_t cells) {
	if (!(pos >= 0 && pos < 0x1p53))
		return -1;
	const int64_t p = (int64_t)pos, cell = ring > 0 && p >= sinks ? sinks + (p - sinks) % ring : p;
	return cell < cells ? cell : -1;
}

/* ---- simplify ---------------------------------------------------------------------------------------------------- */

/* Input 0 of the node if it may stand in for output 0, else 0: not a window on a state (it would be read later than
 * the node read it), not where it would move the bytes of a graph output, not a strided one. */
uint32_t knit__op_forward_input(const knit_graph *g, uint32_t node);

#endif
