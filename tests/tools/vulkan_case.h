/* Owns what tests of the Vulkan backend share: finding a device, keeping a driver's own leaks out of the reports. */
#ifndef KNIT_TEST_VULKAN_CASE_H
#define KNIT_TEST_VULKAN_CASE_H

#include "../../backends/backend.h"

/* The backend's table; NULL in a build without it. */
const knit_backend *vulkan_backend(void);
/* Whether "vulkan:0" can be opened; prints a SKIP line where it cannot. */
bool vulkan_present(void);
/* A context and device 0, opened with the environment as it is. False and a SKIP line where there is none; a failure of
 * another kind fails the test. */
bool vulkan_open(knit_context **ctx, knit_device **dev);
void vulkan_close(knit_context *ctx, knit_device *dev);
/* The same with validation (KNIT_VK_VALIDATE=sync) where the layer is installed and the environment does not say. */
bool vulkan_present_checked(void);
/* Device 0 with the limits of this text (KNIT_VK_LIMITS; NULL: none) and this allocator (NULL: the usual one). A device
 * that does not open fails the test. */
knit_device *vulkan_open_limited(const char *limits, const knit_allocator *a);
/* Validation messages are expected, and not printed. */
extern bool vulkan_quiet;
/* The log that prints them; for contexts that tests make themselves. */
void vulkan_say(void *user, int level, const char *text);

#endif
