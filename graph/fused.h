/* Owns the operand and attribute numbers of the fused ops and the encoding of map programs: what the passes that make
 * them, their references and their kernels agree on. Knows no meaning beyond that (ops/). */
#ifndef KNIT_GRAPH_FUSED_H
#define KNIT_GRAPH_FUSED_H

#include "op_def.h"

#include <math.h>
#include <string.h>

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

static inline bool knit__map_has_b(knit_map_op op) { return op == KNIT_MAP_ADD || op == KNIT_MAP_MUL; }

/* Bits 0-7 the operation, 8-15 a, 16-23 b, 32-63 the bits of s. */
static inline int64_t knit__map_encode(knit_map_instr x) {
	uint32_t s = 0;
	int64_t attr;

	if (x.op == KNIT_MAP_SCALE)
		memcpy(&s, &x.s, sizeof s);
	const uint64_t bits = (uint64_t)x.op | (uint64_t)x.a << 8 | (knit__map_has_b(x.op) ? (uint64_t)x.b << 16 : 0) |
	                      (uint64_t)s << 32;
	memcpy(&attr, &bits, sizeof attr);
	return attr;
}

/* False for what no encode makes of a finite s. */
static inline bool knit__map_decode(int64_t attr, knit_map_instr *out) {
	uint64_t bits;
	uint32_t s;

	memcpy(&bits, &attr, sizeof bits);
	s = (uint32_t)(bits >> 32);
	*out = (knit_map_instr){.op = (knit_map_op)(bits & 0xff), .a = bits >> 8 & 0xff, .b = bits >> 16 & 0xff};
	if (out->op == KNIT_MAP_END || out->op >= KNIT_MAP_OPS)
		return false;
	memcpy(&out->s, &s, sizeof s);
	return (out->op == KNIT_MAP_SCALE ? isfinite(out->s) : s == 0) && knit__map_encode(*out) == attr;
}

/* Instructions before the end. */
static inline uint32_t knit__map_count(const knit_attr *attr) {
	uint32_t n = 0;

	while (n < KNIT_MAP_STEPS && attr[n].i != 0)
		++n;
	return n;
}

#endif
