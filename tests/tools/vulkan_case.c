/* Vulkan helpers; see vulkan_case.h. */
#include "vulkan_case.h"

#include "../../graph/context.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the validation layer, the software driver and its compiler leak by themselves. What we forget to destroy is not
 * hidden by it: validation tells when a device is closed. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
	return "leak:libVkLayer_khronos_validation.so\nleak:libvulkan_lvp.so\nleak:libLLVM\n";
}

bool vulkan_quiet;

void vulkan_say(void *user, int level, const char *text) {
	(void)user;
	if (!vulkan_quiet && level <= KNIT_LOG_WARNING)
		fprintf(stderr, "%s\n", text);
}

const knit_backend *vulkan_backend(void) {
	for (size_t i = 0; knit__backend_at(i); ++i)
		if (strcmp(knit__backend_at(i)->name, "vulkan") == 0)
			return knit__backend_at(i);
	return NULL;
}

static bool available(knit_device_info *info) {
	const knit_backend *const b = vulkan_backend();
	const knit_context_desc desc = {0};
	size_t count = 0;

	setenv("KNIT_CACHE", KNIT_BINARY_DIR "/vulkan-cache", 0); /* not the user's */
	*info = (knit_device_info){0};
	if (!b || b->enumerate(&desc, info, 1, &count) != KNIT_OK || count == 0)
		snprintf(info->detail, sizeof info->detail, "this build has no such backend");
	return info->available;
}

bool vulkan_present(void) {
	knit_device_info info;

	if (available(&info))
		return true;
	printf("SKIP: device vulkan: %s\n", info.detail);
	return false;
}

bool vulkan_present_checked(void) {
	knit_device_info info;

	if (getenv("KNIT_VK_VALIDATE"))
		return vulkan_present();
	setenv("KNIT_VK_VALIDATE", "sync", 1);
	if (available(&info))
		return true;
	unsetenv("KNIT_VK_VALIDATE");
	if (!vulkan_present())
		return false;
	printf("note: without validation: %s\n", info.detail);
	return true;
}

knit_device *vulkan_open_limited(const char *limits, const knit_allocator *a) {
	const knit_context_desc desc = {.allocator = a ? *a : knit__default_allocator, .log = vulkan_say};
	knit_device *dev = NULL;
	knit_diag d = {0};

	if (limits)
		setenv("KNIT_VK_LIMITS", limits, 1);
	const knit_status status = vulkan_backend()->open(0, &desc, &dev, &d);
	if (limits)
		unsetenv("KNIT_VK_LIMITS");
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	return dev;
}

bool vulkan_open(knit_context **ctx, knit_device **dev) {
	const knit_context_desc desc = {.log = vulkan_say};
	knit_diag d = {0};

	if (!vulkan_present())
		return false;
	ck_assert_int_eq(knit_context_create(&desc, ctx), KNIT_OK);
	ck_assert_msg(vulkan_backend()->open(0, &(*ctx)->desc, dev, &d) == KNIT_OK, "%s", d.text);
	return true;
}

void vulkan_close(knit_context *ctx, knit_device *dev) {
	vulkan_backend()->close(dev);
	knit_context_destroy(ctx);
}
