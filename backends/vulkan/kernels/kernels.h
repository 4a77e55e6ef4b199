/* Owns the names of all kernels, for the table. */
#ifndef KNIT_VK_KERNELS_H
#define KNIT_VK_KERNELS_H

#include "../vk_kernel.h"

extern const knit_vk_kernel knit__vk_gather, knit__vk_map, knit__vk_add, knit__vk_mul, knit__vk_scale, knit__vk_silu,
	knit__vk_gelu, knit__vk_copy, knit__vk_cast, knit__vk_softmax, knit__vk_argmax, knit__vk_rms_norm, knit__vk_layer_norm,
	knit__vk_add_rms_norm;
extern const knit_vk_kernel knit__vk_rope, knit__vk_append, knit__vk_kv_write, knit__vk_attention;
extern const knit_vk_kernel knit__vk_linear_matvec_1, knit__vk_linear_matvec_4, knit__vk_linear_matvec_8,
	knit__vk_linear_tile_dot_128, knit__vk_linear_tile_128,
	knit__vk_linear_tile_dot_64, knit__vk_linear_tile_64,
	knit__vk_linear_tile_dot_32, knit__vk_linear_tile_32;
extern const knit_vk_kernel knit__vk_linear_lora_matvec_1, knit__vk_linear_lora_matvec_4, knit__vk_linear_lora_matvec_8,
	knit__vk_linear_lora_tile_dot_128, knit__vk_linear_lora_tile_128,
	knit__vk_linear_lora_tile_dot_64, knit__vk_linear_lora_tile_64,
	knit__vk_linear_lora_tile_dot_32, knit__vk_linear_lora_tile_32;
extern const knit_vk_kernel knit__vk_linear_group_matvec_1, knit__vk_linear_group_matvec_4, knit__vk_linear_group_matvec_8,
	knit__vk_linear_group_tile_dot_128, knit__vk_linear_group_tile_128,
	knit__vk_linear_group_tile_dot_64, knit__vk_linear_group_tile_64,
	knit__vk_linear_group_tile_dot_32, knit__vk_linear_group_tile_32;
extern const knit_vk_kernel knit__vk_glu_matvec_1, knit__vk_glu_matvec_4, knit__vk_glu_matvec_8,
	knit__vk_glu_tile_dot_128, knit__vk_glu_tile_128,
	knit__vk_glu_tile_dot_64, knit__vk_glu_tile_64,
	knit__vk_glu_tile_dot_32, knit__vk_glu_tile_32;
extern const knit_vk_kernel knit__vk_linear_coop, knit__vk_linear_lora_coop, knit__vk_linear_group_coop, knit__vk_glu_coop;
extern const knit_vk_kernel knit__vk_lora_select;

#endif
