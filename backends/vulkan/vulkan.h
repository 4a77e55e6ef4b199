/* The Vulkan backend as the registry sees it: any GPU, through a loader that is opened at run time. */
#ifndef KNIT_VULKAN_H
#define KNIT_VULKAN_H

#include "../backend.h"

/* Of a build without Vulkan (absent.c): one device that is not available and says so. */
extern const knit_backend knit__vulkan_backend;

#endif
