/* Owns the names of all kernels, for the table. */
#ifndef KNIT_VK_KERNELS_H
#define KNIT_VK_KERNELS_H

#include "../vk_kernel.h"

extern const knit_vk_kernel knit__vk_gather;

#endif
