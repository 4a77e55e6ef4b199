/* Owns the kernels of softmax and argmax. References: ops/reduce.c. */
#include "../../../shaders/params/softmax.h"
#include "kernels.h"
#include "operand.h"

_Static_assert(sizeof(struct knit_softmax_params) <= KNIT_VK_PARAM_BYTES, "softmax's parameters fit");

static uint32_t plan_rows(const knit_vk_caps *caps, const knit_vk_step *s, const char *shader, knit_vk_dispatch *out) {
	if (!out)
		return 1;
	*out = (knit_vk_dispatch){
		.shader = shader,
		.spec = {knit__vk_row_width(caps, s->in[0].dims[s->in[0].rank - 1], 16)},
		.spec_count = 1,
		.bindings = {knit__vk_in(0), knit__vk_out(0)},
		.binding_count = 2,
	};
	return 1;
}

static uint32_t plan_softmax(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_rows(caps, s, "softmax", out);
}

static uint32_t plan_argmax(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_rows(caps, s, "argmax", out);
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	const knit_vk_tensor *const x = &s->in[0];

	(void)index;
	*(struct knit_softmax_params *)params = (struct knit_softmax_params){
		.rows = (uint)knit__vk_outer(x, 1),
		.n = (uint)x->dims[x->rank - 1],
		.out_at = (uint)s->out[0].offset,
		.x = knit__vk_rows(x),
	};
	knit__vk_grid(caps, knit__vk_outer(x, 1), groups);
}

static bool accepts_softmax(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_f32_rows(&node->in[0]) && knit__vk_f32_dense(&node->out[0]) && knit__vk_all_bind(caps, node, 0);
}

static bool accepts_argmax(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const out = &node->out[0];

	return knit__vk_f32_rows(&node->in[0]) && out->dtype == KNIT_I32 && out->layout == 0 && out->contiguous &&
	       knit__vk_all_bind(caps, node, 0);
}

const knit_vk_kernel knit__vk_softmax = {
	.name = "softmax", .op = KNIT_OP_SOFTMAX, .accepts = accepts_softmax, .plan = plan_softmax, .fill = fill};
const knit_vk_kernel knit__vk_argmax = {
	.name = "argmax", .op = KNIT_OP_ARGMAX, .accepts = accepts_argmax, .plan = plan_argmax, .fill = fill};
