#include "vulkan_device.h"

#include "../../backends/vulkan/vulkan.h"
#include "../../graph/base.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

static bool available(knit_device_info *info) {
	const knit_context_desc desc = {.allocator = knit__default_allocator};
	size_t count = 0;

	return knit__vulkan_backend.enumerate(&desc, info, 1, &count) == KNIT_OK && count > 0 && info->available;
}

bool vulkan_here(void) {
	knit_device_info info = {0};
	const bool chosen = getenv("KNIT_VK_VALIDATE") != NULL;

	if (!chosen)
		setenv("KNIT_VK_VALIDATE", "sync", 1);
	if (available(&info))
		return true;
	if (!chosen) {
		unsetenv("KNIT_VK_VALIDATE");
		if (available(&info)) {
			printf("note: without validation: VK_LAYER_KHRONOS_validation is not installed\n");
			return true;
		}
	}
	printf("SKIP: no Vulkan device: %s\n", info.detail);
	return false;
}

knit_device *vulkan_open(const char *limits, const knit_allocator *a) {
	const knit_context_desc desc = {.allocator = a ? *a : knit__default_allocator};
	knit_device *dev = NULL;
	knit_diag d = {0};

	if (limits)
		setenv("KNIT_VK_LIMITS", limits, 1);
	const knit_status status = knit__vulkan_backend.open(0, &desc, &dev, &d);
	if (limits)
		unsetenv("KNIT_VK_LIMITS");
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	return dev;
}

/* What others leave behind. Their libraries stay loaded (backends/vulkan/vk_instance.c), so they can be named. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
	return "leak:libVkLayer_khronos_validation\n"
		   "leak:libvulkan_lvp\n"
		   "leak:libLLVM\n";
}
