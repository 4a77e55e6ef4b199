/* Owns the kernels of copy and cast. References: ops/cast.c, ops/quant.c. */
#include "../../../shaders/params/copy.h"
#include "kernels.h"
#include "operand.h"

_Static_assert(sizeof(struct knit_copy_params) <= KNIT_VK_PARAM_BYTES, "copy's parameters fit");

#define WIDTH 64
#define COPY_EACH 4 /* elements of an invocation */

/* Blocks are copied as words of 16 bits, and so is whatever else has two bytes; f32 like i32. */
static uint32_t word_type(knit_dtype t) { return knit__vk_word_bytes(t) == 4 ? KNIT_I32 : KNIT_F16; }

static uint32_t plan_types(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t from, uint32_t to,
                           knit_vk_dispatch *out) {
	if (!out)
		return 1;
	*out = (knit_vk_dispatch){
		.shader = "copy",
		.spec = {knit__vk_local(caps, WIDTH), from, to, knit__vk_is_block(s->in[0].dtype)},
		.spec_count = 4,
		.bindings = {knit__vk_in(0), knit__vk_out(0)},
		.binding_count = 2,
	};
	return 1;
}

static uint32_t plan_copy(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	const uint32_t word = word_type(s->in[0].dtype);

	(void)cap;
	return plan_types(caps, s, word, word, out);
}

static uint32_t plan_cast(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_types(caps, s, s->in[0].dtype, s->out[0].dtype, out);
}

/* Blocks are one row of words; strides of others are the run's. */
static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	const knit_vk_tensor *const x = &s->in[0];
	struct knit_copy_params *const p = params;

	(void)index;
	p->count = (uint)knit__vk_words(x->dtype, (int64_t)knit__vk_outer(x, 0));
	p->at = (uint)knit__vk_words(x->dtype, x->offset);
	p->out_at = (uint)knit__vk_words(s->out[0].dtype, s->out[0].offset);
	for (uint32_t i = 0; i < KNIT_MAX_RANK; ++i) {
		const bool has = i + x->rank >= KNIT_MAX_RANK;
		const uint32_t dim = i + x->rank - KNIT_MAX_RANK;

		p->stride[i] = has ? (uint)x->strides[dim] : 0;
		if (i > 0)
			p->size[i - 1] = has ? (uint)x->dims[dim] : 1;
	}
	knit__vk_grid(caps, knit__vk_ceil_div(p->count, (uint64_t)knit__vk_local(caps, WIDTH) * COPY_EACH), groups);
}

static bool accepts_copy(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0], *const out = &node->out[0];

	/* blocks have no strides of their own: whole rows only */
	return (!knit__vk_is_block(x->dtype) || x->contiguous) && x->layout == 0 && x->rank >= 1 && out->dtype == x->dtype &&
	       out->layout == 0 && out->rank == x->rank && out->contiguous && knit__vk_all_bind(caps, node, 0);
}

static bool accepts_cast(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0], *const out = &node->out[0];

	return knit__vk_is_float(x->dtype) && x->layout == 0 && x->rank >= 1 && knit__vk_is_float(out->dtype) &&
	       out->layout == 0 && out->rank == x->rank && out->contiguous && knit__vk_all_bind(caps, node, 0);
}

const knit_vk_kernel knit__vk_copy = {
	.name = "copy", .op = KNIT_OP_COPY, .accepts = accepts_copy, .plan = plan_copy, .fill = fill};
const knit_vk_kernel knit__vk_cast = {
	.name = "cast", .op = KNIT_OP_CAST, .accepts = accepts_cast, .plan = plan_cast, .fill = fill};
