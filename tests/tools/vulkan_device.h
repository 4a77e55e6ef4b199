/* Owns how tests come by a Vulkan device: the best of this machine, under validation where the layer is installed, or a
 * printed reason why there is none. */
#ifndef KNIT_TEST_VULKAN_DEVICE_H
#define KNIT_TEST_VULKAN_DEVICE_H

#include "../../backends/backend.h"

/* Whether there is a usable device; otherwise prints one line "SKIP: ...". Switches validation on (KNIT_VK_VALIDATE=sync)
 * where the environment does not say and the layer is there. */
bool vulkan_here(void);
/* Opens vulkan:0 with these limits (the text of KNIT_VK_LIMITS; NULL: none) and this allocator (NULL: the usual one).
 * Fails the test where it does not open. */
knit_device *vulkan_open(const char *limits, const knit_allocator *a);

#endif
