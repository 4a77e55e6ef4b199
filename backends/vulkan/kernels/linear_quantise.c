/* Owns how rows of x are brought to 8-bit integers before a product with weights in blocks. Shader:
 * linear_quantise.comp. */
#include "linear.h"

#include "../../../shaders/params/linear_quantise.h"

_Static_assert(sizeof(knit_linear_quantise_params) <= KNIT_VK_PARAM_BYTES, "the parameters of quantising fit");

#define WIDTH 64

uint32_t knit__vk_quantised_words(uint64_t k) { return (uint32_t)(k / 4 + (k / 32 + 3) / 4 * 4); }

void knit__vk_quantise_dispatch(const knit_vk_caps *caps, knit_vk_linear_operand x, knit_vk_dispatch *out) {
	*out = (knit_vk_dispatch){.shader = "linear_quantise",
	                          .spec = {knit__vk_local(caps, WIDTH)},
	                          .spec_count = 1,
	                          .bindings = {knit__vk_in(x.index), {.source = KNIT_VK_SCRATCH, .written = true}},
	                          .binding_count = 2};
}

void knit__vk_quantise_fill(const knit_vk_caps *caps, const knit_vk_tensor *x, uint32_t at, uint32_t row, void *params,
                            uint32_t groups[3]) {
	const knit_vk_rows_at r = knit__vk_rows_at(x);
	const uint64_t k = (uint64_t)x->dims[x->rank - 1], rows = knit__vk_outer(x, 1);

	*(knit_linear_quantise_params *)params = (knit_linear_quantise_params){
		.x_at = r.at, .x_d1 = r.d1, .x_d2 = r.d2, .x_s0 = r.s0, .x_s1 = r.s1, .x_s2 = r.s2,
		.rows = (uint32_t)rows, .blocks = (uint32_t)(k / 32),
		.q_at = at, .scale_at = at + (uint32_t)(k / 4), .out_row = row};
	knit__vk_grid(caps, knit__vk_ceil_div(rows * (k / 32), knit__vk_local(caps, WIDTH)), groups);
}
