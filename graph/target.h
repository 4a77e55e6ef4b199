/* Owns the questions that passes and the schedule may ask a device, without knowing what a device is. */
#ifndef KNIT_TARGET_H
#define KNIT_TARGET_H

#include "op_def.h"

typedef uint32_t knit_kernel; /* 0: no kernel */

/* One operand as a device sees it when it decides. dims may be symbolic: bounds through graph->exprs. */
typedef struct knit_operand_view {
	knit_storage_kind kind; /* 0: absent optional operand */
	knit_dtype dtype;
	uint8_t rank, layout;
	bool contiguous, rows_contiguous;
	knit_dim dims[KNIT_MAX_RANK], strides[KNIT_MAX_RANK];
	uint64_t max_elements; /* at the bucket's upper bounds */
} knit_operand_view;

typedef struct knit_node_view {
	uint16_t op;
	uint8_t in_count, out_count;
	const knit_graph *graph;
	const knit_bounds *bounds; /* of the bucket; NULL: declared ranges */
	uint32_t node;
	const knit_attr *attr;
	knit_operand_view in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
} knit_node_view;

void knit__node_view(const knit_graph *g, const knit_bounds *b, uint32_t node, knit_node_view *out);

/* One use of a weight: an operand of a node. */
typedef struct knit_weight_use {
	uint32_t node;
	uint16_t op;
	uint8_t operand;
} knit_weight_use;

/* Type and dims of a whole weight; false where its dims are no numbers. */
bool knit__weight_shape(const knit_graph *g, uint32_t storage, knit_shape *out);

typedef struct knit_target {
	const void *device;
	/* The kernel for a node; 0 where there is none. Pure. */
	knit_kernel (*select)(const void *device, const knit_node_view *node);
	/* Bytes of scratch the kernel needs in the arena while the step runs. */
	uint64_t (*scratch)(const void *device, knit_kernel kernel, const knit_node_view *node);
	uint32_t buffer_align;   /* of tensors inside a buffer, a power of two */
	uint64_t max_buffer;     /* bytes of one buffer; 0: no limit */
	/* Bytes that a kernel sees of one buffer; 0: no limit. Arenas stay below both limits, so they may be bound whole;
	 * weights and states may be larger than this one. */
	uint64_t max_binding_range;
	bool results_apart; /* kernels cannot write over an operand */
	/* The layout in which a weight of these uses would be read fastest; 0: as it lies in its file. Pure. What it costs
	 * and whether every use can read it is asked for by the pass. NULL, with packed_bytes: always 0. */
	uint8_t (*weight_layout)(const void *device, const knit_shape *weight, const knit_weight_use *uses, uint32_t count);
	/* Bytes of a weight in a layout other than 0, no fewer than its plain ones; UINT64_MAX: more than can be counted. */
	uint64_t (*packed_bytes)(const void *device, uint8_t layout, const knit_shape *weight);
} knit_target;

#endif
