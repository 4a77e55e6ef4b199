/* Vulkan helpers; see vulkan_case.h. */
#include "vulkan_case.h"

#include "../../graph/context.h"

#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The loader unloads drivers and layers with the last instance. What their globals point to would then be reported as
 * leaked, from a module that has no name any more; kept loaded, it is what it is: reachable. */
static void keep_libraries(void) {
	static const char *const names[] = {"libvulkan_lvp.so", "libVkLayer_khronos_validation.so"};
	static bool kept;

	for (size_t i = 0; !kept && i < sizeof names / sizeof names[0]; ++i)
		dlopen(names[i], RTLD_NOW | RTLD_NODELETE);
	kept = true;
}

/* What the validation layer leaks by itself. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libVkLayer_khronos_validation.so\n"; }

bool vulkan_quiet;

static void say(void *user, int level, const char *text) {
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

bool vulkan_present(void) {
	const knit_backend *const b = vulkan_backend();
	const knit_context_desc desc = {0};
	knit_device_info info = {0};
	size_t count = 0;

	keep_libraries();
	if (!b || b->enumerate(&desc, &info, 1, &count) != KNIT_OK || count == 0)
		snprintf(info.detail, sizeof info.detail, "this build has no such backend");
	if (!info.available)
		printf("SKIP: device vulkan: %s\n", info.detail);
	return info.available;
}

bool vulkan_open(knit_context **ctx, knit_device **dev) {
	const knit_context_desc desc = {.log = say};
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
