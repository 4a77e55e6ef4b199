/* Tests how Vulkan devices are found, lowered and opened. */
#include "../../backends/device.h"
#include "../../backends/vulkan/vk.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>

static bool here;

static bool power_of_two(uint64_t n) { return n && (n & (n - 1)) == 0; }

static knit_device_info first(void) {
	const knit_context_desc desc = {.allocator = knit__default_allocator};
	knit_device_info info[KNIT_VK_MAX_PHYSICAL];
	size_t count = 0;

	ck_assert_int_eq(knit__vulkan_backend.enumerate(&desc, info, KNIT_VK_MAX_PHYSICAL, &count), KNIT_OK);
	ck_assert_uint_ge(count, 1);
	return info[0];
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

START_TEST(an_entry_says_what_there_is) {
	const knit_context_desc desc = {.allocator = knit__default_allocator};
	knit_device_info info[KNIT_VK_MAX_PHYSICAL] = {0};
	size_t count = 0, none = 0;

	ck_assert_int_eq(knit__vulkan_backend.enumerate(&desc, NULL, 0, &none), KNIT_OK);
	ck_assert_int_eq(knit__vulkan_backend.enumerate(&desc, info, KNIT_VK_MAX_PHYSICAL, &count), KNIT_OK);
	ck_assert_uint_eq(none, count);
	ck_assert_uint_ge(count, 1);
	bool unavailable = false;
	for (size_t i = 0; i < count; ++i) {
		ck_assert(info[i].name[0] && info[i].detail[0]);
		ck_assert_msg(!info[i].available || !unavailable, "a usable device after one that is not");
		unavailable = unavailable || !info[i].available;
		if (here && info[i].available) {
			char id[32];
			snprintf(id, sizeof id, "vulkan:%zu", i);
			ck_assert_str_eq(info[i].id, id);
			ck_assert_uint_gt(info[i].memory_bytes, 0);
		}
	}
}
END_TEST

START_TEST(a_driver_that_is_not_there_is_told) {
	if (!here)
		return;
	const char *const names[] = {"VK_ICD_FILENAMES", "VK_DRIVER_FILES"};
	char kept[2][4096];
	bool had[2];

	for (int i = 0; i < 2; ++i) {
		const char *const text = getenv(names[i]);
		had[i] = text != NULL;
		snprintf(kept[i], sizeof kept[i], "%s", text ? text : "");
		setenv(names[i], "/nonexistent.json", 1);
	}
	const knit_device_info info = first();
	const knit_context_desc desc = {.allocator = knit__default_allocator};
	knit_device *dev;
	knit_diag d = {0};
	const knit_status status = knit__vulkan_backend.open(0, &desc, &dev, &d);
	for (int i = 0; i < 2; ++i) {
		if (had[i])
			setenv(names[i], kept[i], 1);
		else
			unsetenv(names[i]);
	}
	ck_assert(!info.available);
	ck_assert_str_eq(info.id, "vulkan");
	ck_assert_msg(strstr(info.detail, "driver"), "%s", info.detail);
	ck_assert_int_eq(status, KNIT_ERR_UNSUPPORTED);
	ck_assert_msg(strstr(d.text, "driver"), "%s", d.text);
}
END_TEST

START_TEST(only_devices_that_are_there_open) {
	const knit_context_desc desc = {.allocator = knit__default_allocator};
	knit_device *dev = (knit_device *)&desc;
	knit_diag d = {0};

	ck_assert_int_ne(knit__vulkan_backend.open(KNIT_VK_MAX_PHYSICAL, &desc, &dev, &d), KNIT_OK);
	ck_assert_ptr_null(dev);
	ck_assert(d.text[0]);
	if (here)
		ck_assert_int_eq(d.status, KNIT_ERR_NOT_FOUND);
}
END_TEST

START_TEST(nobody_who_asks_for_the_best_means_software) {
	knit_context *ctx;
	knit_opened *o;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 1}, &ctx), KNIT_OK);
	ck_assert_int_eq(knit__device_open(ctx, NULL, &o, &d), KNIT_OK);
	if (strncmp(o->id, "vulkan", 6) == 0)
		ck_assert_ptr_null(strstr(first().detail, "software"));
	knit_context_destroy(ctx);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

START_TEST(limits_are_lowered) {
	if (!here)
		return;
	knit_device *dev = vulkan_open_limited(NULL, NULL);
	const knit_vk_caps all = dev->kernel_caps;
	ck_assert(power_of_two(dev->caps.buffer_align) && dev->caps.buffer_align % all.storage_align == 0);
	ck_assert_uint_le(all.max_groups, 65535);
	ck_assert(power_of_two(all.subgroup));
	ck_assert(all.subgroup_min <= all.subgroup && all.subgroup <= all.subgroup_max);
	ck_assert_uint_eq(dev->pipeline_subgroup, 0);
	knit__vk_close(dev);

	dev = vulkan_open_limited("binding=1048576,allocation=16777216,groups=7,invocations=64,shared=16384,features=0", NULL);
	ck_assert_uint_eq(dev->kernel_caps.max_binding_bytes, 1048576);
	ck_assert_uint_eq(dev->caps.max_binding_range, 1048576);
	ck_assert_uint_eq(dev->kernel_caps.max_allocation_bytes, 16777216);
	ck_assert_uint_eq(dev->caps.max_buffer, 16777216);
	ck_assert_uint_eq(dev->kernel_caps.max_groups, 7);
	ck_assert_uint_eq(dev->kernel_caps.max_invocations, 64);
	ck_assert_uint_eq(dev->kernel_caps.max_shared_bytes, 16384);
	ck_assert_uint_eq(dev->kernel_caps.features, 0);
	knit__vk_close(dev);

	dev = vulkan_open_limited("binding=18446744073709551615,groups=4000000000", NULL);
	ck_assert_uint_eq(dev->kernel_caps.max_binding_bytes, all.max_binding_bytes);
	ck_assert_uint_eq(dev->kernel_caps.max_groups, all.max_groups);
	knit__vk_close(dev);
}
END_TEST

START_TEST(subgroup_sizes_are_the_drivers) {
	if (!here)
		return;
	knit_device *dev = vulkan_open_limited(NULL, NULL);
	const knit_vk_caps all = dev->kernel_caps;
	knit__vk_close(dev);

	for (uint32_t size = 4; size <= 128; size *= 2) {
		char text[64];
		snprintf(text, sizeof text, "subgroup=%u", size);
		if (size >= all.subgroup_min && size <= all.subgroup_max) {
			dev = vulkan_open_limited(text, NULL);
			ck_assert_uint_eq(dev->kernel_caps.subgroup, size);
			ck_assert_uint_eq(dev->kernel_caps.subgroup_min, size);
			ck_assert_uint_eq(dev->kernel_caps.subgroup_max, size);
			knit__vk_close(dev);
			continue;
		}
		setenv("KNIT_VK_LIMITS", text, 1);
		const knit_device_info info = first();
		unsetenv("KNIT_VK_LIMITS");
		ck_assert(!info.available);
		ck_assert_msg(strstr(info.detail, "the driver has"), "%s", info.detail);
	}
}
END_TEST

START_TEST(limits_that_make_no_sense_are_refused) {
	static const char *const bad[] = {"binding",      "binding=", "binding=x", "binding=-1",
	                                  "binding=1;",   "speed=1",  "groups=0",  "binding=99999999999999999999",
	                                  "groups=1,,=1", "=1"};

	if (!here)
		return;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
		setenv("KNIT_VK_LIMITS", bad[i], 1);
		const knit_device_info info = first();
		unsetenv("KNIT_VK_LIMITS");
		ck_assert_msg(!info.available && strstr(info.detail, "KNIT_VK_LIMITS"), "%s: %s", bad[i], info.detail);
	}
	setenv("KNIT_VK_VALIDATE", "often", 1);
	const knit_device_info info = first();
	unsetenv("KNIT_VK_VALIDATE");
	ck_assert(!info.available);
	ck_assert_msg(strstr(info.detail, "use 0, 1, sync or gpu"), "%s", info.detail);
	vulkan_present_checked();
}
END_TEST

/* ---- opening ----------------------------------------------------------------------------------------------------- */

START_TEST(opening_and_closing_leaves_nothing) {
	track_alloc t = {0};
	const knit_allocator a = track_allocator(&t);

	if (!here)
		return;
	for (int i = 0; i < 3; ++i) {
		knit_device *const dev = vulkan_open_limited(NULL, &a);
		ck_assert_ptr_nonnull(dev->device);
		knit__vk_close(dev);
		ck_assert_uint_eq(t.live, 0);
	}
	ck_assert(!t.bad_free);
}
END_TEST

START_TEST(two_devices_at_once) {
	if (!here)
		return;
	knit_device *const a = vulkan_open_limited(NULL, NULL), *const b = vulkan_open_limited("groups=9", NULL);

	ck_assert_uint_eq(b->kernel_caps.max_groups, 9);
	ck_assert_uint_gt(a->kernel_caps.max_groups, 9);
	knit__vk_close(a);
	knit__vk_close(b);
}
END_TEST

START_TEST(host_memory_that_runs_out) {
	if (!here)
		return;
	for (uint64_t n = 1;; ++n) {
		track_alloc t = {.fail_at = n};
		const knit_context_desc desc = {.allocator = track_allocator(&t)};
		knit_device *dev = NULL;
		knit_diag d = {0};
		const knit_status status = knit__vulkan_backend.open(0, &desc, &dev, &d);
		if (status == KNIT_OK) {
			knit__vk_close(dev);
			ck_assert_uint_eq(t.live, 0);
			ck_assert_uint_gt(n, 2);
			return;
		}
		ck_assert_msg(status == KNIT_ERR_MEMORY, "allocation %llu: %s", (unsigned long long)n, d.text);
		ck_assert_ptr_null(dev);
		ck_assert_uint_eq(t.live, 0);
		ck_assert(!t.bad_free);
	}
}
END_TEST

START_TEST(results_have_names_and_statuses) {
	knit_device dev = {0};
	knit_diag d = {0};

	ck_assert_int_eq(knit__vk_status(&dev, VK_SUCCESS, "x", &d), KNIT_OK);
	ck_assert_int_eq(d.status, KNIT_OK);
	ck_assert_int_eq(knit__vk_status(&dev, VK_ERROR_OUT_OF_DEVICE_MEMORY, "vkX", &d), KNIT_ERR_MEMORY);
	ck_assert(strstr(d.text, "vkX") && strstr(d.text, "VK_ERROR_OUT_OF_DEVICE_MEMORY"));
	ck_assert_int_eq(knit__vk_status(&dev, VK_ERROR_UNKNOWN, "vkX", NULL), KNIT_ERR_DEVICE);
	ck_assert(!atomic_load(&dev.lost));
	ck_assert_int_eq(knit__vk_status(&dev, VK_ERROR_DEVICE_LOST, "vkX", NULL), KNIT_ERR_DEVICE);
	ck_assert(atomic_load(&dev.lost));
	ck_assert_str_eq(knit__vk_result_name((VkResult)-77), "an unknown VkResult");
}
END_TEST

START_TEST(validation_found_nothing) {
	ck_assert_uint_eq(knit__vk_messages(), 0);
}
END_TEST

int main(void) {
	here = vulkan_present_checked();

	const TTest *const tests[] = {an_entry_says_what_there_is,
	                              a_driver_that_is_not_there_is_told,
	                              only_devices_that_are_there_open,
	                              nobody_who_asks_for_the_best_means_software,
	                              limits_are_lowered,
	                              subgroup_sizes_are_the_drivers,
	                              limits_that_make_no_sense_are_refused,
	                              opening_and_closing_leaves_nothing,
	                              two_devices_at_once,
	                              host_memory_that_runs_out,
	                              results_have_names_and_statuses,
	                              validation_found_nothing};
	return suite_run("vk_device", tests, sizeof tests / sizeof tests[0]);
}
