/* Owns the operand numbers of the fused ops and the encoding of map programs: what passes, references and kernels of
 * these ops agree on. Fused ops are made by passes only; no builder function makes one. */
#ifndef KNIT_FUSED_H
#define KNIT_FUSED_H

#include "op_util.h"

extern const knit_op_def knit__op_linear_lora, knit__op_linear_group, knit__op_glu, knit__op_add_rms_norm,
	knit__op_kv_write, knit__op_map;

/* ---- linears ----------------------------------------------------------------------------------------------------- */

/* A and B of a LoRA are both present or both absent. They are matrices ([r, k] and [n, r]), or, with the two operands
 * that choose adapters, one matrix per slot: A [count, r, k], B [count, n, r], of which token t uses number
 * adapter_of_sequence[seq[t]]. */
enum {
	KNIT_LORA_X, KNIT_LORA_W, KNIT_LORA_A, KNIT_LORA_B, KNIT_LORA_BIAS, KNIT_LORA_RESIDUAL,
	KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ, KNIT_LORA_OPERANDS
};

#define KNIT_GROUP_MAX 3
/* Weight i of a group has operands KNIT_GROUP_W + 3 i (W), + 1 (A), + 2 (B). */
enum {
	KNIT_GROUP_X, KNIT_GROUP_W, KNIT_GROUP_ADAPTERS = KNIT_GROUP_W + 3 * KNIT_GROUP_MAX, KNIT_GROUP_SEQ,
	KNIT_GROUP_OPERANDS
};
enum { KNIT_GROUP_N, KNIT_GROUP_S, KNIT_GROUP_ATTRS = KNIT_GROUP_S + KNIT_GROUP_MAX }; /* attributes */

enum {
	KNIT_GLU_X, KNIT_GLU_WG, KNIT_GLU_WU, KNIT_GLU_AG, KNIT_GLU_BG, KNIT_GLU_AU, KNIT_GLU_BU,
	KNIT_GLU_ADAPTERS, KNIT_GLU_SEQ, KNIT_GLU_OPERANDS
};
enum { KNIT_GLU_ACT, KNIT_GLU_SG, KNIT_GLU_SU, KNIT_GLU_ATTRS }; /* attributes */
enum { KNIT_GLU_SILU, KNIT_GLU_GELU };                           /* values of act */

/* ---- keys and values --------------------------------------------------------------------------------------------- */

enum {
	KNIT_KV_KSTATE, KNIT_KV_VSTATE, KNIT_KV_Q, KNIT_KV_K, KNIT_KV_V, KNIT_KV_SEQ, KNIT_KV_POS, KNIT_KV_OPERANDS
};
enum { KNIT_KV_THETA, KNIT_KV_ROTARY, KNIT_KV_LAYOUT, KNIT_KV_RING, KNIT_KV_SINKS, KNIT_KV_ATTRS }; /* attributes */

/* ---- map --------------------------------------------------------------------------------------------------------- */

/* A program of up to KNIT_MAP_STEPS instructions, one per attribute, ended by an attribute of 0. Registers 0 .. 3 are
 * the operands, 4 + i is the result of instruction i; the last result is the output. Register `a` is never an operand
 * that is a vector repeated along the leading dimensions; `b` (of add and mul) may be. */
enum { KNIT_MAP_OPERANDS = 4, KNIT_MAP_STEPS = KNIT_MAX_ATTRS };
typedef enum knit_map_op {
	KNIT_MAP_END, KNIT_MAP_ADD, KNIT_MAP_MUL, KNIT_MAP_SCALE, KNIT_MAP_SILU, KNIT_MAP_GELU, KNIT_MAP_OPS
} knit_map_op;
typedef struct knit_map_instr { knit_map_op op; uint8_t a, b; float s; } knit_map_instr; /* s: of scale; b: of add, mul */

int64_t knit__map_encode(knit_map_instr x);
/* False for what no encode makes. */
bool knit__map_decode(int64_t attr, knit_map_instr *out);
/* Instructions before the end. */
uint32_t knit__map_count(const knit_attr *attr);

#endif
