/* Owns the list of the fused ops' definitions. Passes make these ops, no builder function does; their operand numbers are
 * in graph/fused.h. */
#ifndef KNIT_OPS_FUSED_H
#define KNIT_OPS_FUSED_H

#include "../graph/fused.h"
#include "op_util.h"

extern const knit_op_def knit__op_linear_lora, knit__op_linear_group, knit__op_glu, knit__op_add_rms_norm,
	knit__op_kv_write, knit__op_map;

#endif
