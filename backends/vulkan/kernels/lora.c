/* Owns lora_select: t = s A' x into scratch, then B' t, each token with the matrices that its sequence chose: a group
 * takes one row of x, so that a token has the same bits with its matrices among others as with them alone. Reference:
 * ops/lora.c. */
#include "linear.h"

enum { X, A, B, ADAPTERS, SEQ };

static bool accepts_slots(const knit_operand_view *v) {
	const bool block = knit__vk_is_block(v->dtype) && !knit__vk_is_super(v->dtype);

	return (knit__vk_is_float(v->dtype) || (block && v->dims[2].v % 32 == 0)) && v->layout == 0 &&
	       v->rank == 3 && v->contiguous;
}

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_f32_rows(&node->in[X]) && node->in[X].rank == 2 && knit__vk_linear_steady(node, X) &&
	       accepts_slots(&node->in[A]) && accepts_slots(&node->in[B]) && knit__vk_index_vector(&node->in[ADAPTERS]) &&
	       knit__vk_index_vector(&node->in[SEQ]) && knit__vk_f32_dense(&node->out[0]) && knit__vk_all_bind(caps, node, 0);
}

/* Per token t. */
static uint64_t scratch(const knit_vk_caps *caps, const knit_node_view *node) {
	const uint64_t tokens = (uint64_t)knit__dim_hi(&node->graph->exprs, node->bounds, node->in[X].dims[0]);
	uint64_t bytes;

	(void)caps;
	return knit__mul_u64(tokens, (uint64_t)node->in[A].dims[1].v * sizeof(float), &bytes) ? bytes : UINT64_MAX;
}

static knit_vk_linear linear_of(const knit_vk_caps *caps, const knit_vk_step *s, bool low) {
	const uint8_t w = low ? A : B;
	const knit_vk_tensor *const t = &s->in[w];
	knit_vk_linear l = {.form = knit__vk_matvec_form(caps, 1, false),
	                    .weights = 1,
	                    .waits = !low,
	                    .adapters = {&s->in[ADAPTERS], ADAPTERS},
	                    .seq = {&s->in[SEQ], SEQ},
	                    .rows = (uint64_t)s->in[X].dims[0],
	                    .k = (uint64_t)t->dims[2],
	                    .low_row = (uint32_t)s->in[A].dims[1],
	                    .slots = (uint32_t)t->dims[0]};

	l.weight[0] = (knit_vk_linear_weight){.w = {t, w},
	                                      .whole = true,
	                                      .per_slot = true,
	                                      .count = (uint64_t)t->dims[1],
	                                      .scale = low ? (float)s->attr[0].f : 1};
	if (low)
		l.x = (knit_vk_linear_operand){&s->in[X], X};
	else
		l.weight[0].out = (knit_vk_linear_operand){&s->out[0], 0};
	return l;
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	for (uint32_t i = 0; out && i < 2 && i < cap; ++i) {
		const knit_vk_linear l = linear_of(caps, s, i == 0);

		knit__vk_linear_dispatch(caps, &l, &out[i]);
	}
	return 2;
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	const knit_vk_linear l = linear_of(caps, s, index == 0);

	knit__vk_linear_fill(caps, &l, params, groups);
}

const knit_vk_kernel knit__vk_lora_select = {.name = "lora_select",
                                             .op = KNIT_OP_LORA_SELECT,
                                             .accepts = accepts,
                                             .scratch = scratch,
                                             .plan = plan,
                                             .fill = fill};
