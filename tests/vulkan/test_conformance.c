/* Runs the conformance table on the Vulkan device, with core and synchronization validation on, against the
 * double-precision reference. One case alone: test-conformance-conformance --device vulkan --case NAME. */
#include "../../backends/vulkan/vk.h"
#include "../conformance/conf_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>
#include <string.h>

/* Kernels that no case can reach on a device that has what they need, and why. */
static const struct { const char *kernel, *because; } not_reached[] = {
	{"", ""},
};

static conf_case *cases;
static size_t case_count;

static bool is_listed(const char *kernel) {
	for (size_t i = 0; i < sizeof not_reached / sizeof not_reached[0]; ++i)
		if (strcmp(not_reached[i].kernel, kernel) == 0)
			return true;
	return false;
}

START_TEST(vulkan_agrees_with_the_reference) {
	static bool hit[256];
	conf_config cfg = {.device = "vulkan",
	                         .threads = 1,
	                         .hit = hit,
	                         .hit_count = knit__vk_kernel_count};
	const uint64_t before = knit__vk_messages();
	knit_context *ctx = NULL;
	knit_device *dev = NULL;

	ck_assert_uint_le(knit__vk_kernel_count, sizeof hit / sizeof *hit);
	if (!vulkan_present_checked() || !vulkan_open(&ctx, &dev))
		return;
	const uint32_t features = dev->kernel_caps.features;
	vulkan_close(ctx, dev);
	ck_assert_int_eq(conf_run(&cfg, cases, case_count), 0);
	cfg.few = true;
	ck_assert_int_eq(conf_run(&cfg, cases, case_count), 0);
	ck_assert_uint_eq(knit__vk_messages() - before, 0);
	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i) {
		const knit_vk_kernel *const k = knit__vk_kernels[i];
		if (k->needs & ~features)
			printf("SKIP: kernel %s: the device lacks what it needs\n", k->name);
		else
			ck_assert_msg(hit[i] != is_listed(k->name),
			              hit[i] ? "kernel %s is listed as not reached, and is" : "no case reaches kernel %s", k->name);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {vulkan_agrees_with_the_reference};

	cases = cases_make(&case_count);
	const int failed = suite_run("vulkan/conformance", tests, 1);
	cases_free(cases);
	return failed;
}
