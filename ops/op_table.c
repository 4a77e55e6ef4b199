/* Owns the list of ops. The graph and the backends reach every op through it. */
#include "fused.h"

#include <string.h>

static const knit_op_def *const table[KNIT_OP_COUNT] = {
	[KNIT_OP_GATHER] = &knit__op_gather,
	[KNIT_OP_LINEAR] = &knit__op_linear,
	[KNIT_OP_ADD] = &knit__op_add,
	[KNIT_OP_MUL] = &knit__op_mul,
	[KNIT_OP_SCALE] = &knit__op_scale,
	[KNIT_OP_SILU] = &knit__op_silu,
	[KNIT_OP_GELU] = &knit__op_gelu,
	[KNIT_OP_RMS_NORM] = &knit__op_rms_norm,
	[KNIT_OP_LAYER_NORM] = &knit__op_layer_norm,
	[KNIT_OP_SOFTMAX] = &knit__op_softmax,
	[KNIT_OP_ROPE] = &knit__op_rope,
	[KNIT_OP_ATTENTION] = &knit__op_attention,
	[KNIT_OP_STATE_APPEND] = &knit__op_state_append,
	[KNIT_OP_COPY] = &knit__op_copy,
	[KNIT_OP_CAST] = &knit__op_cast,
	[KNIT_OP_ARGMAX] = &knit__op_argmax,
	[KNIT_OP_LORA_SELECT] = &knit__op_lora_select,
	[KNIT_OP_LINEAR_LORA] = &knit__op_linear_lora,
	[KNIT_OP_LINEAR_GROUP] = &knit__op_linear_group,
	[KNIT_OP_GLU] = &knit__op_glu,
	[KNIT_OP_ADD_RMS_NORM] = &knit__op_add_rms_norm,
	[KNIT_OP_KV_WRITE] = &knit__op_kv_write,
	[KNIT_OP_MAP] = &knit__op_map,
};

const knit_op_def *knit__op(uint16_t op) {
	return op < KNIT_OP_COUNT ? table[op] : NULL;
}

uint16_t knit__op_find(const char *name) {
	for (uint16_t op = KNIT_OP_NONE + 1; op < KNIT_OP_COUNT; ++op)
		if (strcmp(table[op]->name, name) == 0)
			return op;
	return KNIT_OP_NONE;
}
