/* Owns what kernels ask about their operands: in accepts(), from symbolic views; in a step, where things lie. Knows no
 * op. */
#ifndef KNIT_VK_OPERAND_H
#define KNIT_VK_OPERAND_H

#include "../../../shaders/params/rows.h"
#include "../vk_kernel.h"

/* ---- in accepts() ------------------------------------------------------------------------------------------------ */

static inline bool knit__vk_is_float(knit_dtype t) { return t == KNIT_F32 || t == KNIT_F16 || t == KNIT_BF16; }
static inline bool knit__vk_is_super(knit_dtype t) { return t == KNIT_Q4_K || t == KNIT_Q6_K; }
static inline bool knit__vk_is_block(knit_dtype t) { return t == KNIT_Q8_0 || t == KNIT_Q4_0 || knit__vk_is_super(t); }

/* An activation whose rows may lie apart. */
static inline bool knit__vk_f32_rows(const knit_operand_view *v) {
	return v->dtype == KNIT_F32 && v->layout == 0 && v->rank >= 1 && v->rows_contiguous;
}
static inline bool knit__vk_f32_dense(const knit_operand_view *v) {
	return v->dtype == KNIT_F32 && v->layout == 0 && v->rank >= 1 && v->contiguous;
}
/* A vector of parameters [n]. */
static inline bool knit__vk_float_vector(const knit_operand_view *v) {
	return knit__vk_is_float(v->dtype) && v->layout == 0 && v->rank == 1 && v->contiguous;
}
static inline bool knit__vk_index_vector(const knit_operand_view *v) {
	return v->dtype == KNIT_I32 && v->layout == 0 && v->rank == 1 && v->contiguous;
}

/* Rows of a matrix or table. Blocks must start at multiples of the block, which no symbol can promise. */
static inline bool knit__vk_weight_rows(const knit_operand_view *v) {
	if (v->layout != 0 || v->rank != 2 || !v->rows_contiguous)
		return false;
	if (!knit__vk_is_block(v->dtype))
		return knit__vk_is_float(v->dtype);
	const int64_t block = knit__vk_is_super(v->dtype) ? 256 : 32;
	return v->dims[1].v >= 0 && v->dims[1].v % block == 0 &&
	       (v->contiguous || (v->strides[0].v >= 0 && v->strides[0].v % block == 0));
}

/* Whether the whole storage under a value can be one binding, at the bucket's bounds. */
static inline bool knit__vk_binds(const knit_vk_caps *caps, const knit_node_view *node, uint32_t value) {
	const knit_graph *const g = node->graph;
	uint64_t bytes;

	return value == 0 || (knit__storage_max_bytes(g, node->bounds, g->values[value].storage, &bytes) &&
	                      bytes <= caps->max_binding_bytes && bytes <= UINT32_MAX);
}
/* The same of all operands, but for the inputs whose bits are set in `but`. */
static inline bool knit__vk_all_bind(const knit_vk_caps *caps, const knit_node_view *node, uint32_t but) {
	const knit_node *const n = &node->graph->nodes[node->node];

	for (uint32_t i = 0; i < node->in_count; ++i)
		if (!(but >> i & 1) && !knit__vk_binds(caps, node, n->in[i]))
			return false;
	for (uint32_t i = 0; i < node->out_count; ++i)
		if (!knit__vk_binds(caps, node, n->out[i]))
			return false;
	return true;
}

/* ---- in a step --------------------------------------------------------------------------------------------------- */

static inline uint64_t knit__vk_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t knit__vk_ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

/* Elements of all dims but the innermost `inner` ones. */
static inline uint64_t knit__vk_outer(const knit_vk_tensor *t, uint32_t inner) {
	uint64_t n = 1;

	for (uint32_t i = 0; i + inner < t->rank; ++i)
		n *= (uint64_t)t->dims[i];
	return n;
}

/* Shaders see f32 and i32 as words of 32 bits, everything else as words of 16 (shaders/common/formats.glsl). */
static inline uint64_t knit__vk_word_bytes(knit_dtype t) { return t == KNIT_F32 || t == KNIT_I32 ? 4 : 2; }
/* Words of `elements` elements; whole blocks. */
static inline uint64_t knit__vk_words(knit_dtype t, int64_t elements) {
	if (knit__vk_is_super(t))
		return (uint64_t)(elements / 256 * (t == KNIT_Q4_K ? 72 : 105));
	return (uint64_t)(t == KNIT_Q8_0 ? elements / 32 * 17 : t == KNIT_Q4_0 ? elements / 32 * 9 : elements);
}

static inline knit_rows knit__vk_rows(const knit_vk_tensor *t) {
	const uint32_t outer = t->rank - 1u;
	knit_rows r = {.at = (uint)t->offset, .size = {1, 1}};

	for (uint32_t i = 0; i < outer; ++i) {
		const uint32_t at = 3 - outer + i;

		r.stride[at] = (uint)t->strides[i];
		if (at > 0)
			r.size[at - 1] = (uint)t->dims[i];
	}
	return r;
}
/* Invocations for a group that has a row of n elements: so many each, where the device has as many. */
static inline uint32_t knit__vk_row_width(const knit_vk_caps *caps, int64_t n, uint32_t each) {
	const uint64_t wanted = knit__vk_ceil_div((uint64_t)n, each);
	uint32_t width = 32;

	while (width < wanted && width < 1024)
		width *= 2;
	return knit__vk_local(caps, width);
}

static inline knit_vk_binding knit__vk_in(uint8_t index) { return (knit_vk_binding){.source = KNIT_VK_IN, .index = index}; }
static inline knit_vk_binding knit__vk_out(uint8_t index) {
	return (knit_vk_binding){.source = KNIT_VK_OUT, .index = index, .written = true};
}

#endif
