/* Checks the loops that find a device's peaks: they give what they must (or say which did not), all of them where the device has
 * the instructions, within lowered limits, and leave nothing behind when the driver fails. */
#include "../../backends/vulkan/vk_fail.h"
#include "../../backends/vulkan/vk_peaks.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>
#include <stdlib.h>

static knit_device_peaks peaks_of(const char *limits, uint32_t *features) {
	knit_device *const dev = vulkan_open_limited(limits, NULL);
	knit_device_peaks p;
	knit_diag d = {0};

	ck_assert_msg(knit__vk_peaks_of(dev, &p, &d) == KNIT_OK, "%s", d.text);
	*features = dev->kernel_caps.features;
	vulkan_backend()->close(dev);
	return p;
}

static void check(const knit_device_peaks *p, uint32_t features) {
	ck_assert_uint_gt(p->size_count, 0);
	for (uint32_t i = 0; i < p->size_count; ++i) {
		ck_assert(i == 0 || p->bytes[i] > p->bytes[i - 1]);
		ck_assert(p->read[i] > 1e6 && p->copy[i] > 1e6);
	}
	ck_assert(p->f32 > 1e6 && p->f16 > 1e6);
	ck_assert_int_eq(p->int8 > 1e6, (features & KNIT_VK_DOT) != 0);
	ck_assert_int_eq(strstr(p->missing, "dot product") == NULL, (features & KNIT_VK_DOT) != 0);
	ck_assert_int_eq(p->matrix > 1e6, (features & KNIT_VK_COOPMAT) != 0);
	ck_assert_int_eq(strstr(p->missing, "matrices") == NULL, (features & KNIT_VK_COOPMAT) != 0);
}

START_TEST(all_loops_give_what_they_must) {
	uint32_t features;
	const knit_device_peaks p = peaks_of(NULL, &features);

	check(&p, features);
	for (uint32_t i = 0; i < p.size_count; ++i)
		printf("%8.0f KiB: read %.2f GB/s, copy %.2f\n", (double)p.bytes[i] / 1024, p.read[i] * 1e-9, p.copy[i] * 1e-9);
	printf("f32 %.2f GFLOP/s, f16 %.2f, int8 %.2f GOP/s, matrices %.2f GFLOP/s %s\n", p.f32 * 1e-9, p.f16 * 1e-9, p.int8 * 1e-9, p.matrix * 1e-9,
	       p.missing);
}
END_TEST

START_TEST(lowered_limits_are_kept) {
	uint32_t features;
	const knit_device_peaks p = peaks_of("features=0,binding=4194304,groups=31,invocations=32", &features);

	ck_assert_uint_eq(features, 0);
	check(&p, features);
	ck_assert_uint_le(p.bytes[p.size_count - 1], 4194304);
}
END_TEST

/* By its id, as the bench asks; what has no loops says so. */
START_TEST(devices_are_found_by_their_ids) {
	knit_context *ctx;
	knit_device_peaks p;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(knit__device_peaks(ctx, "vulkan:0", &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert(p.f32 > 0);
	ck_assert_int_eq(knit__device_peaks(ctx, "null", &p, &d), KNIT_ERR_UNSUPPORTED);
	ck_assert(p.f32 == 0 && strstr(d.text, "null"));
	ck_assert_int_eq(knit__device_peaks(ctx, "vulkan:77", &p, &d), KNIT_ERR_NOT_FOUND);
	knit_context_destroy(ctx);
}
END_TEST

/* Each call that makes something fails once; each early submission is lost. */
START_TEST(failures_leave_nothing) {
	knit_device_peaks p;
	knit_diag d;
	uint64_t made, submitted;
	char text[24];
	int failed = 0, lost = 0;

	setenv("KNIT_VK_FAIL", "1000000", 1);
	knit_device *dev = vulkan_open_limited(NULL, NULL);
	knit__vk_fail_counts(&made, &submitted);
	vulkan_backend()->close(dev);
	const uint64_t open = made;
	for (uint64_t n = open + 1; n < open + 24; ++n) {
		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		setenv("KNIT_VK_FAIL", text, 1);
		dev = vulkan_open_limited("features=0,binding=65536", NULL);
		d = (knit_diag){0};
		const knit_status status = knit__vk_peaks_of(dev, &p, &d);
		vulkan_backend()->close(dev);
		ck_assert_msg(status == KNIT_OK || (status == KNIT_ERR_MEMORY && d.text[0] && p.f32 == 0), "%s", d.text);
		failed += status != KNIT_OK;
	}
	unsetenv("KNIT_VK_FAIL");
	for (int n = 1; n <= 5; n += 2) {
		snprintf(text, sizeof text, "%d", n);
		setenv("KNIT_VK_LOSE", text, 1);
		dev = vulkan_open_limited("features=0,binding=65536", NULL);
		lost += knit__vk_peaks_of(dev, &p, &d) == KNIT_ERR_DEVICE;
		vulkan_backend()->close(dev);
	}
	unsetenv("KNIT_VK_LOSE");
	printf("%d calls failed in turn, %d devices were lost\n", failed, lost);
	ck_assert_int_ge(failed, 8);
	ck_assert_int_eq(lost, 3);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {all_loops_give_what_they_must, lowered_limits_are_kept, devices_are_found_by_their_ids, failures_leave_nothing};

	if (!vulkan_present_checked())
		return 0;
	return suite_run("vk_peaks", tests, sizeof tests / sizeof *tests);
}
