/* Owns the kernels of rms_norm, layer_norm and add_rms_norm. References: ops/norm.c, ops/fused_norm.c. */
#include "../../../shaders/params/norm.h"
#include "kernels.h"
#include "operand.h"

_Static_assert(sizeof(struct knit_norm_params) <= KNIT_VK_PARAM_BYTES, "norms' parameters fit");

enum { SPEC_GAIN = 1, SPEC_CENTRED, SPEC_BIAS, SPEC_COUNT };

#define NORM_EACH 4 /* elements that an invocation keeps */

static uint32_t width_of(const knit_vk_caps *caps, const knit_vk_step *s) {
	return knit__vk_row_width(caps, s->in[0].dims[s->in[0].rank - 1], NORM_EACH);
}

/* ---- rms_norm, layer_norm ---------------------------------------------------------------------------------------- */

static uint32_t plan_norm(const knit_vk_caps *caps, const knit_vk_step *s, bool centred, knit_vk_dispatch *out) {
	const bool bias = s->in_count > 2 && s->in[2].present;

	if (!out)
		return 1;
	*out = (knit_vk_dispatch){
		.shader = "norm",
		.spec = {[0] = width_of(caps, s), [SPEC_GAIN] = s->in[1].dtype, [SPEC_CENTRED] = centred,
		         [SPEC_BIAS] = bias ? s->in[2].dtype : 0},
		.spec_count = SPEC_COUNT,
		.bindings = {knit__vk_in(0), {.source = KNIT_VK_ABSENT}, knit__vk_in(1), knit__vk_out(0)},
		.binding_count = 4,
	};
	if (bias)
		out->bindings[1] = knit__vk_in(2);
	return 1;
}

static uint32_t plan_rms(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_norm(caps, s, false, out);
}

static uint32_t plan_layer(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_norm(caps, s, true, out);
}

static struct knit_norm_params params_of(const knit_vk_step *s, const knit_vk_tensor *gain, const knit_vk_tensor *out) {
	const int64_t n = out->dims[out->rank - 1];

	return (struct knit_norm_params){
		.rows = (uint)knit__vk_outer(out, 1),
		.n = (uint)n,
		.inverse_n = (float)(1.0 / (double)n),
		.eps = (float)s->attr[0].f,
		.gain_at = (uint)gain->offset,
		.out_at = (uint)out->offset,
		.x = knit__vk_rows(&s->in[0]),
	};
}

static void fill_norm(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	struct knit_norm_params *const p = params;

	(void)index;
	*p = params_of(s, &s->in[1], &s->out[0]);
	if (s->in_count > 2 && s->in[2].present)
		p->bias_at = (uint)s->in[2].offset;
	knit__vk_grid(caps, p->rows, groups);
}

static bool accepts_rms(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_f32_rows(&node->in[0]) && knit__vk_float_vector(&node->in[1]) && knit__vk_f32_dense(&node->out[0]) &&
	       knit__vk_all_bind(caps, node, 0);
}

static bool accepts_layer(const knit_vk_caps *caps, const knit_node_view *node) {
	return accepts_rms(caps, node) &&
	       (node->in_count < 3 || node->in[2].kind == 0 || knit__vk_float_vector(&node->in[2]));
}

const knit_vk_kernel knit__vk_rms_norm = {
	.name = "rms_norm", .op = KNIT_OP_RMS_NORM, .accepts = accepts_rms, .plan = plan_rms, .fill = fill_norm};
const knit_vk_kernel knit__vk_layer_norm = {
	.name = "layer_norm", .op = KNIT_OP_LAYER_NORM, .accepts = accepts_layer, .plan = plan_layer, .fill = fill_norm};

/* ---- add_rms_norm ------------------------------------------------------------------------------------------------ */

static uint32_t plan_add(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	if (!out)
		return 1;
	*out = (knit_vk_dispatch){
		.shader = "add_norm",
		.spec = {[0] = width_of(caps, s), [SPEC_GAIN] = s->in[2].dtype},
		.spec_count = SPEC_COUNT,
		.bindings = {knit__vk_in(0), knit__vk_in(1), knit__vk_in(2), knit__vk_out(1), knit__vk_out(0)},
		.binding_count = 5,
	};
	return 1;
}

static void fill_add(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	struct knit_norm_params *const p = params;

	(void)index;
	*p = params_of(s, &s->in[2], &s->out[1]);
	p->b = knit__vk_rows(&s->in[1]);
	p->sum_at = (uint)s->out[0].offset;
	knit__vk_grid(caps, p->rows, groups);
}

static bool accepts_add(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_f32_rows(&node->in[0]) && knit__vk_f32_rows(&node->in[1]) && knit__vk_float_vector(&node->in[2]) &&
	       knit__vk_f32_dense(&node->out[0]) && knit__vk_f32_dense(&node->out[1]) && knit__vk_all_bind(caps, node, 0);
}

const knit_vk_kernel knit__vk_add_rms_norm = {
	.name = "add_rms_norm", .op = KNIT_OP_ADD_RMS_NORM, .accepts = accepts_add, .plan = plan_add, .fill = fill_add};
