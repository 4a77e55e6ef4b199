/* Owns the names of all kernels, for the table. */
#ifndef KNIT_KERNELS_H
#define KNIT_KERNELS_H

#include "../cpu_kernel.h"

extern const knit_cpu_kernel knit__gather_plain, knit__add_plain, knit__mul_plain, knit__scale_plain, knit__silu_plain,
	knit__gelu_plain, knit__rms_norm_plain, knit__layer_norm_plain, knit__softmax_plain, knit__argmax_plain,
	knit__rope_plain, knit__append_plain, knit__copy_plain, knit__cast_plain, knit__add_rms_norm_plain,
	knit__kv_write_plain, knit__map_plain;

extern const knit_cpu_kernel knit__linear_f32_plain, knit__linear_f16_plain, knit__linear_bf16_plain,
	knit__linear_q8_0_plain, knit__linear_q4_0_plain,
	knit__linear_q4_k_plain, knit__linear_q6_k_plain, knit__attention_plain, knit__linear_lora_plain,
	knit__linear_group_plain, knit__linear_glu_plain;

extern const knit_cpu_kernel knit__lora_select_plain;

#if defined(__x86_64__)
extern const knit_cpu_kernel knit__lora_select_avx2, knit__lora_select_avx512;
extern const knit_cpu_kernel knit__rope_avx2, knit__rope_avx512, knit__kv_write_avx2, knit__kv_write_avx512;
extern const knit_cpu_kernel knit__add_avx2, knit__mul_avx2, knit__scale_avx2, knit__silu_avx2, knit__gelu_avx2,
	knit__map_avx2, knit__rms_norm_avx2, knit__layer_norm_avx2, knit__add_rms_norm_avx2, knit__softmax_avx2,
	knit__argmax_avx2;
extern const knit_cpu_kernel knit__linear_f32_avx2, knit__linear_f16_avx2, knit__linear_bf16_avx2,
	knit__linear_q8_0_avx2, knit__linear_q4_0_avx2,
	knit__linear_q4_k_avx2, knit__linear_q6_k_avx2, knit__attention_avx2, knit__linear_lora_avx2,
	knit__linear_group_avx2, knit__linear_glu_avx2, knit__linear_q8_0_panels_avx2, knit__linear_q4_0_panels_avx2,
	knit__linear_q4_k_panels_avx2, knit__linear_q6_k_panels_avx2;
extern const knit_cpu_kernel knit__add_avx512, knit__mul_avx512, knit__scale_avx512, knit__silu_avx512,
	knit__gelu_avx512, knit__map_avx512, knit__rms_norm_avx512, knit__layer_norm_avx512, knit__add_rms_norm_avx512,
	knit__softmax_avx512, knit__argmax_avx512;
extern const knit_cpu_kernel knit__linear_f32_avx512, knit__linear_f16_avx512, knit__linear_bf16_avx512,
	knit__linear_q8_0_avx512, knit__linear_q4_0_avx512,
	knit__linear_q4_k_avx512, knit__linear_q6_k_avx512, knit__attention_avx512, knit__linear_lora_avx512,
	knit__linear_group_avx512, knit__linear_glu_avx512, knit__linear_q8_0_panels_avx512,
	knit__linear_q4_0_panels_avx512,
	knit__linear_q4_k_panels_avx512, knit__linear_q6_k_panels_avx512;
#elif defined(__aarch64__)
extern const knit_cpu_kernel knit__lora_select_neon, knit__lora_select_dotprod;
extern const knit_cpu_kernel knit__linear_f32_neon, knit__linear_f16_neon, knit__linear_bf16_neon,
	knit__linear_q8_0_neon, knit__linear_q4_0_neon,
	knit__linear_q4_k_neon, knit__linear_q6_k_neon, knit__attention_neon, knit__linear_lora_neon,
	knit__linear_group_neon, knit__linear_glu_neon, knit__linear_q8_0_panels_neon,
	knit__linear_q4_0_panels_neon,
	knit__linear_q4_k_panels_neon, knit__linear_q6_k_panels_neon;
extern const knit_cpu_kernel knit__linear_f32_dotprod, knit__linear_f16_dotprod, knit__linear_bf16_dotprod,
	knit__linear_q8_0_dotprod, knit__linear_q4_0_dotprod,
	knit__linear_q4_k_dotprod, knit__linear_q6_k_dotprod, knit__linear_lora_dotprod,
	knit__linear_group_dotprod, knit__linear_glu_dotprod, knit__linear_q8_0_panels_dotprod,
	knit__linear_q4_0_panels_dotprod,
	knit__linear_q4_k_panels_dotprod, knit__linear_q6_k_panels_dotprod;
#endif

#endif
