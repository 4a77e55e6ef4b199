/* Tests buffers of the Vulkan backend: their bytes, how small ones share memory, what happens where there is none
 * left. */
#include "../../backends/vulkan/vk_heap.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>

#define MIB (UINT64_C(1) << 20)

static bool here;

static uint8_t pattern(uint64_t seed, uint64_t i) { return (uint8_t)((seed * 131 + i * 2654435761u) >> 7); }

static void fill(uint8_t *bytes, uint64_t count, uint64_t seed) {
	for (uint64_t i = 0; i < count; ++i)
		bytes[i] = pattern(seed, i);
}

/* Not an assertion per byte: each is a message to the framework. */
static void expect_pattern_from(const uint8_t *bytes, uint64_t from, uint64_t to, uint64_t seed) {
	for (uint64_t i = from; i < to; ++i)
		if (bytes[i] != pattern(seed, i))
			ck_abort_msg("byte %llu of %llu is %u", (unsigned long long)i, (unsigned long long)to, bytes[i]);
}

static void expect_pattern(const uint8_t *bytes, uint64_t count, uint64_t seed) {
	expect_pattern_from(bytes, 0, count, seed);
}

static void expect_all(const uint8_t *bytes, uint64_t count, uint8_t value) {
	for (uint64_t i = 0; i < count; ++i)
		if (bytes[i] != value)
			ck_abort_msg("byte %llu of %llu is %u, not %u", (unsigned long long)i, (unsigned long long)count, bytes[i],
			             value);
}

static void expect_zero(const uint8_t *bytes, uint64_t count) { expect_all(bytes, count, 0); }

static knit_buffer *create(knit_device *dev, knit_buffer_use use, uint64_t bytes) {
	knit_buffer *buf;

	ck_assert_int_eq(knit__vk_buffer_create(dev, use, bytes, &buf), KNIT_OK);
	return buf;
}

/* Device memory as the driver has it; out of the host's reach; the same with a staging buffer of a few KiB. */
static const char *const kinds[] = {NULL, "mapped=0", "mapped=0,allocation=10000000"};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void round_trip(knit_device *dev, knit_buffer_use use, uint64_t bytes) {
	uint8_t *const host = malloc(bytes), *const back = malloc(bytes);
	knit_buffer *const buf = create(dev, use, bytes);

	memset(back, 1, bytes);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 0, back, bytes), KNIT_OK);
	expect_zero(back, bytes);
	fill(host, bytes, use);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, host, bytes), KNIT_OK);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 0, back, bytes), KNIT_OK);
	expect_pattern(back, bytes, use);
	/* A part in the middle, at an odd place. */
	const uint64_t at = bytes / 3, part = bytes / 2;
	memset(host, 7, part);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, at, host, part), KNIT_OK);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 0, back, bytes), KNIT_OK);
	expect_pattern(back, at, use);
	expect_all(back + at, part, 7);
	expect_pattern_from(back, at + part, bytes, use);
	ck_assert_int_eq(knit__vk_buffer_clear(dev, buf), KNIT_OK);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, at, back, part), KNIT_OK);
	expect_zero(back, part);
	/* What is left dirty here must not be seen by the buffer that gets this memory next. */
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, host, part), KNIT_OK);
	knit__vk_buffer_free(dev, buf);
	free(host);
	free(back);
}

START_TEST(bytes_come_back) {
	static const uint64_t sizes[] = {1, 3, 16, 4096, 4099, 3 * MIB + 5};

	for (int k = 0; here && k < KINDS; ++k) {
		knit_device *const dev = vulkan_open_limited(kinds[k], NULL);
		for (int use = KNIT_BUFFER_CONST; use <= KNIT_BUFFER_IO; ++use) {
			for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i)
				round_trip(dev, (knit_buffer_use)use, sizes[i]);
		}
		knit__vk_close(dev);
	}
}
END_TEST

START_TEST(large_buffers_go_through_both_halves) {
	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited("mapped=0", NULL);
	knit_buffer *const buf = create(dev, KNIT_BUFFER_CONST, MIB);

	ck_assert_ptr_null(buf->mapped);
	knit__vk_buffer_free(dev, buf);
	round_trip(dev, KNIT_BUFFER_CONST, 8 * MIB);
	round_trip(dev, KNIT_BUFFER_CONST, 16 * MIB + 1);
	round_trip(dev, KNIT_BUFFER_STATE, 27 * MIB + 3);
	knit__vk_close(dev);
}
END_TEST

START_TEST(an_empty_buffer) {
	char c = 'x';

	for (int k = 0; here && k < KINDS; ++k) {
		knit_device *const dev = vulkan_open_limited(kinds[k], NULL);
		knit_buffer *const buf = create(dev, KNIT_BUFFER_CONST, 0);
		ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, &c, 0), KNIT_OK);
		ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 0, &c, 0), KNIT_OK);
		ck_assert_int_eq(knit__vk_buffer_clear(dev, buf), KNIT_OK);
		ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, &c, 1), KNIT_ERR_ARGUMENT);
		knit__vk_buffer_free(dev, buf);
		knit__vk_buffer_free(dev, NULL);
		knit__vk_close(dev);
	}
}
END_TEST

START_TEST(ranges_are_checked) {
	char bytes[64] = {0};

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited(NULL, NULL);
	knit_buffer *const buf = create(dev, KNIT_BUFFER_STATE, 33);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, bytes, 34), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 33, bytes, 1), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, UINT64_MAX, bytes, 2), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 1, bytes, 33), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 1, bytes, UINT64_MAX), KNIT_ERR_ARGUMENT);
	knit__vk_buffer_free(dev, buf);
	knit__vk_close(dev);
}
END_TEST

/* ---- sharing ----------------------------------------------------------------------------------------------------- */

START_TEST(thousands_of_small_weights_need_few_allocations) {
	enum { COUNT = 5000 };
	static knit_buffer *list[COUNT];
	uint8_t bytes[1024];

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited("allocations=6", NULL);
	const uint32_t before = knit__vk_heap_allocations(dev);
	for (uint32_t i = 0; i < COUNT; ++i) {
		list[i] = create(dev, KNIT_BUFFER_CONST, 1000 + i % 24);
		fill(bytes, list[i]->bytes, i);
		ck_assert_int_eq(knit__vk_buffer_write(dev, list[i], 0, bytes, list[i]->bytes), KNIT_OK);
	}
	ck_assert_uint_le(knit__vk_heap_allocations(dev), before + 2);
	for (uint32_t i = 0; i < COUNT; ++i) {
		ck_assert_int_eq(knit__vk_buffer_read(dev, list[i], 0, bytes, list[i]->bytes), KNIT_OK);
		expect_pattern(bytes, list[i]->bytes, i);
		knit__vk_buffer_free(dev, list[i]);
	}
	ck_assert_uint_eq(knit__vk_heap_allocations(dev), before);
	knit__vk_close(dev);
}
END_TEST

START_TEST(buffers_never_overlap) {
	enum { COUNT = 64, STEPS = 3000 };
	knit_buffer *list[COUNT] = {0};
	static uint8_t bytes[200000];
	uint64_t seeds[COUNT] = {0}, state = 12345;

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited(NULL, NULL);
	const uint32_t before = knit__vk_heap_allocations(dev);
	for (uint32_t step = 0; step < STEPS; ++step) {
		state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
		const uint32_t i = (uint32_t)(state >> 33) % COUNT;
		const uint64_t size = (state >> 40) % ((state >> 60) ? 3000 : sizeof bytes) + 1;
		if (list[i]) {
			ck_assert_int_eq(knit__vk_buffer_read(dev, list[i], 0, bytes, list[i]->bytes), KNIT_OK);
			expect_pattern(bytes, list[i]->bytes, seeds[i]);
			knit__vk_buffer_free(dev, list[i]);
			list[i] = NULL;
			continue;
		}
		list[i] = create(dev, KNIT_BUFFER_CONST, size);
		seeds[i] = step;
		fill(bytes, size, step);
		ck_assert_int_eq(knit__vk_buffer_write(dev, list[i], 0, bytes, size), KNIT_OK);
	}
	for (uint32_t i = 0; i < COUNT; ++i)
		knit__vk_buffer_free(dev, list[i]);
	ck_assert_uint_eq(knit__vk_heap_allocations(dev), before);
	knit__vk_close(dev);
}
END_TEST

/* ---- none left --------------------------------------------------------------------------------------------------- */

START_TEST(memory_that_runs_out_is_counted) {
	knit_buffer *a, *b;
	uint64_t left, all;
	knit_diag d = {0};

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited("memory=67108864", NULL);
	a = create(dev, KNIT_BUFFER_STATE, 30 * MIB);
	knit__vk_heap_room(dev, &left, &all);
	ck_assert_uint_eq(all, 64 * MIB);
	ck_assert_uint_le(left, 34 * MIB);
	knit_device *const whole = vulkan_open_limited(NULL, NULL);
	uint64_t before, after;
	knit__vk_heap_room(whole, &before, &all);
	b = create(whole, KNIT_BUFFER_STATE, 64 * MIB);
	knit__vk_heap_room(whole, &after, &all);
	ck_assert_uint_le(before, all);
	if (!whole->probe.memory_budget) /* a budget moves with what else runs on the machine */
		ck_assert_uint_eq(after, before - 64 * MIB);
	knit__vk_buffer_free(whole, b);
	knit__vk_close(whole);
	ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, 40 * MIB, &b), KNIT_ERR_MEMORY);
	ck_assert_ptr_null(b);
	ck_assert_int_eq(knit__vk_buffer_make(dev, KNIT_VK_LOCAL, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, 40 * MIB, &b, &d),
	                 KNIT_ERR_MEMORY);
	ck_assert_msg(strstr(d.text, "40.0 MiB asked for") && strstr(d.text, "free"), "%s", d.text);
	knit__vk_buffer_free(dev, a);
	b = create(dev, KNIT_BUFFER_STATE, 40 * MIB);
	knit__vk_buffer_free(dev, b);
	knit__vk_close(dev);
}
END_TEST

START_TEST(a_block_shrinks_to_what_is_left) {
	knit_buffer *list[16] = {0};
	uint64_t left, all;
	uint32_t n = 0;

	if (!here)
		return;
	/* Blocks are of 16 MiB: what remains is enough for what is asked, not for a block. */
	knit_device *const dev = vulkan_open_limited("memory=26214400", NULL);
	knit__vk_heap_room(dev, &left, &all);
	while (n < 16 && knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, 3 * MIB, &list[n]) == KNIT_OK)
		++n;
	ck_assert_uint_ge(n, 1);
	ck_assert_uint_lt(left - n * 3 * MIB, 5 * MIB);
	for (uint32_t i = 0; i < n; ++i)
		knit__vk_buffer_free(dev, list[i]);
	knit__vk_close(dev);
}
END_TEST

START_TEST(allocations_that_run_out) {
	knit_buffer *list[8] = {0};
	knit_diag d = {0};
	uint32_t n = 0;

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited("allocations=4", NULL);
	while (n < 8 && knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, 9 * MIB, &list[n]) == KNIT_OK)
		++n;
	ck_assert_uint_ge(n, 1);
	ck_assert_uint_le(n, 4);
	ck_assert_int_eq(
		knit__vk_buffer_make(dev, KNIT_VK_LOCAL, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, 9 * MIB, &list[n], &d),
		KNIT_ERR_MEMORY);
	ck_assert_msg(strstr(d.text, "4 allocations"), "%s", d.text);
	for (uint32_t i = 0; i < n; ++i)
		knit__vk_buffer_free(dev, list[i]);
	knit__vk_close(dev);
}
END_TEST

START_TEST(a_buffer_larger_than_the_device_allows) {
	knit_buffer *buf;

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited("allocation=20000000", NULL);
	ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, 20000001, &buf), KNIT_ERR_LIMIT);
	ck_assert_ptr_null(buf);
	ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, UINT64_MAX, &buf), KNIT_ERR_LIMIT);
	knit__vk_buffer_free(dev, create(dev, KNIT_BUFFER_STATE, 20000000));
	knit__vk_close(dev);
}
END_TEST

START_TEST(host_memory_that_runs_out) {
	uint8_t byte = 1;

	for (uint64_t n = 1; here; ++n) {
		track_alloc t = {0};
		const knit_allocator a = track_allocator(&t);
		knit_device *const dev = vulkan_open_limited(NULL, &a);
		knit_buffer *list[40] = {0};
		const uint64_t live = t.live;
		knit_status status = KNIT_OK;
		t.fail_at = t.count + n;
		for (int i = 0; i < 40 && status == KNIT_OK; ++i)
			status = knit__vk_buffer_create(dev, KNIT_BUFFER_CONST, 100, &list[i]);
		const bool through = status == KNIT_OK;
		ck_assert(through || status == KNIT_ERR_MEMORY);
		t.fail_at = 0;
		for (int i = 0; i < 40; ++i) {
			if (list[i])
				ck_assert_int_eq(knit__vk_buffer_write(dev, list[i], 99, &byte, 1), KNIT_OK);
			knit__vk_buffer_free(dev, list[i]);
		}
		ck_assert_uint_eq(t.live, live);
		knit__vk_close(dev);
		ck_assert(t.live == 0 && !t.bad_free);
		if (through)
			break;
	}
}
END_TEST

START_TEST(a_lost_device_says_so) {
	knit_buffer *other;
	char byte = 0;

	if (!here)
		return;
	knit_device *const dev = vulkan_open_limited(NULL, NULL);
	knit_buffer *const buf = create(dev, KNIT_BUFFER_STATE, 100);
	atomic_store(&dev->lost, true);
	ck_assert_int_eq(knit__vk_buffer_create(dev, KNIT_BUFFER_STATE, 100, &other), KNIT_ERR_DEVICE);
	ck_assert_int_eq(knit__vk_buffer_write(dev, buf, 0, &byte, 1), KNIT_ERR_DEVICE);
	ck_assert_int_eq(knit__vk_buffer_read(dev, buf, 0, &byte, 1), KNIT_ERR_DEVICE);
	ck_assert_int_eq(knit__vk_buffer_clear(dev, buf), KNIT_ERR_DEVICE);
	ck_assert(vulkan_backend()->lost(dev));
	knit__vk_buffer_free(dev, buf);
	knit__vk_close(dev);
}
END_TEST

START_TEST(validation_found_nothing) {
	ck_assert_uint_eq(knit__vk_messages(), 0);
}
END_TEST

int main(void) {
	here = vulkan_present_checked();

	const TTest *const tests[] = {bytes_come_back,
	                              large_buffers_go_through_both_halves,
	                              an_empty_buffer,
	                              ranges_are_checked,
	                              thousands_of_small_weights_need_few_allocations,
	                              buffers_never_overlap,
	                              memory_that_runs_out_is_counted,
	                              a_block_shrinks_to_what_is_left,
	                              allocations_that_run_out,
	                              a_buffer_larger_than_the_device_allows,
	                              host_memory_that_runs_out,
	                              a_lost_device_says_so,
	                              validation_found_nothing};
	return suite_run("vk_memory", tests, sizeof tests / sizeof tests[0]);
}
