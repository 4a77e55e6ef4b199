/* Owns the list of kernels, fastest first within an op. Knows nothing of what they do. */
#include "kernels.h"

const knit_cpu_kernel *const knit__cpu_kernels[] = {
#if defined(__x86_64__)
	&knit__linear_f32_avx512,
	&knit__linear_f16_avx512,
	&knit__linear_bf16_avx512,
	&knit__linear_q8_0_avx512,
	&knit__linear_q4_0_avx512,
	&knit__attention_avx512,
	&knit__linear_f32_avx2,
	&knit__linear_f16_avx2,
	&knit__linear_bf16_avx2,
	&knit__linear_q8_0_avx2,
	&knit__linear_q4_0_avx2,
	&knit__attention_avx2,
#endif
	&knit__linear_f32_plain,
	&knit__linear_f16_plain,
	&knit__linear_bf16_plain,
	&knit__linear_q8_0_plain,
	&knit__linear_q4_0_plain,
	&knit__attention_plain,
	&knit__gather_plain,
	&knit__add_plain,
	&knit__mul_plain,
	&knit__scale_plain,
	&knit__silu_plain,
	&knit__gelu_plain,
	&knit__rms_norm_plain,
	&knit__layer_norm_plain,
	&knit__softmax_plain,
	&knit__argmax_plain,
	&knit__rope_plain,
	&knit__append_plain,
	&knit__copy_plain,
	&knit__cast_plain,
};

const uint32_t knit__cpu_kernel_count = sizeof knit__cpu_kernels / sizeof knit__cpu_kernels[0];
