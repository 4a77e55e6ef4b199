/* Owns how rows of x are brought to sums of two f16 before a product of matrices with f16 weights. Shader:
 * linear_split.comp. */
#include "linear.h"

#include "../../../shaders/params/linear_split.h"

_Static_assert(sizeof(knit_linear_split_params) <= KNIT_VK_PARAM_BYTES, "the parameters of splitting fit");

#define WIDTH 256

/* High and low parts up to a multiple of 32, and the factor; rows begin at multiples of 16 bytes. */
uint32_t knit__vk_split_words(uint64_t k) { return (uint32_t)((k + 31) / 32 * 32 + 4); }

void knit__vk_split_dispatch(const knit_vk_caps *caps, knit_vk_linear_operand x, knit_vk_dispatch *out) {
	*out = (knit_vk_dispatch){.shader = "linear_split",
	                          .spec = {knit__vk_local(caps, WIDTH)},
	                          .spec_count = 1,
	                          .bindings = {knit__vk_in(x.index), {.source = KNIT_VK_SCRATCH, .written = true}},
	                          .binding_count = 2};
}

void knit__vk_split_fill(const knit_vk_caps *caps, const knit_vk_tensor *x, uint32_t at, uint32_t row, void *params,
                         uint32_t groups[3]) {
	const knit_vk_rows_at r = knit__vk_rows_at(x);
	const uint64_t rows = knit__vk_outer(x, 1);

	*(knit_linear_split_params *)params = (knit_linear_split_params){
		.x_at = r.at, .x_d1 = r.d1, .x_d2 = r.d2, .x_s0 = r.s0, .x_s1 = r.s1, .x_s2 = r.s2,
		.rows = (uint32_t)rows, .k = (uint32_t)x->dims[x->rank - 1],
		.out_at = at, .out_row = row};
	knit__vk_grid(caps, rows, groups);
}
