/* Owns the list of kernels, fastest first within an op. Knows nothing of what they do. */
#include "kernels.h"

const knit_vk_kernel *const knit__vk_kernels[] = {
	&knit__vk_gather,
};

const uint32_t knit__vk_kernel_count = sizeof knit__vk_kernels / sizeof knit__vk_kernels[0];
