/* Tests the placement of bare blocks in several arenas of limited size: no block past an arena's end, none over another
 * one, as many arenas as it takes. */
#include "../../graph/context.h"
#include "../../graph/memory_split.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdio.h>
#include <string.h>

#define MAX_BLOCKS 64
#define BUDGET UINT64_C(2000000)

static const knit_allocator *const heap = &knit__default_allocator;

static uint32_t next(uint32_t *state, uint32_t below) {
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % below;
}

static uint64_t aligned(uint64_t bytes, uint64_t align) { return (bytes + align - 1) / align * align; }

static void check_valid(const knit_block *b, uint32_t count, uint64_t align, uint64_t limit, const knit_memory_split *s) {
	uint64_t total = 0;
	bool used[MAX_BLOCKS] = {false};

	ck_assert_uint_ge(s->arena_count, 1);
	ck_assert_uint_le(s->arena_count, count ? count : 1);
	for (uint32_t i = 0; i < count; ++i) {
		ck_assert_uint_lt(s->arena[i], s->arena_count);
		ck_assert_uint_eq(b[i].offset % align, 0);
		ck_assert_uint_le(b[i].offset + aligned(b[i].bytes, align), s->bytes[s->arena[i]]);
		used[s->arena[i]] = used[s->arena[i]] || b[i].bytes != 0;
		for (uint32_t k = 0; k < i; ++k) {
			if (s->arena[i] != s->arena[k] || b[i].bytes == 0 || b[k].bytes == 0 || b[i].first > b[k].last ||
			    b[k].first > b[i].last)
				continue;
			ck_assert_msg(b[i].offset + b[i].bytes <= b[k].offset || b[k].offset + b[k].bytes <= b[i].offset,
			              "blocks %u and %u overlap", i, k);
		}
	}
	for (uint32_t i = 0; i < s->arena_count; ++i) {
		ck_assert(s->arena_count == 1 || used[i]);
		ck_assert_uint_le(s->bytes[i], limit ? limit : UINT64_MAX);
		total += s->bytes[i];
	}
	ck_assert_uint_eq(total, s->total);
	ck_assert_uint_ge(total, s->plan.lower_bound);
	ck_assert_uint_le(total, s->plan.unshared);
}

static knit_memory_split split(knit_block *b, uint32_t count, uint64_t align, uint64_t limit) {
	knit_memory_split s;
	knit_diag d = {0};

	ck_assert_msg(knit__memory_split_create(heap, b, count, align, limit, BUDGET, &s, &d) == KNIT_OK, "%s", d.text);
	check_valid(b, count, align, limit, &s);
	return s;
}

static uint32_t arenas_for(knit_block *b, uint32_t count, uint64_t limit) {
	knit_memory_split s = split(b, count, 64, limit);
	const uint32_t arenas = s.arena_count;

	knit__memory_split_clear(&s, heap);
	return arenas;
}

START_TEST(one_arena_where_the_limit_allows_it) {
	knit_block b[3] = {{100, 0, 1, 0}, {100, 1, 2, 0}, {100, 2, 3, 0}};

	ck_assert_uint_eq(arenas_for(b, 3, 0), 1);
	ck_assert_uint_eq(arenas_for(b, 3, 256), 1);
	ck_assert_uint_eq(arenas_for(b, 3, 255), 2);
	ck_assert_uint_eq(arenas_for(b, 0, 64), 1);
}
END_TEST

START_TEST(no_block_straddles) {
	/* Alive together: 192 bytes each where an arena has 256. In one arena they would take 960. */
	knit_block b[5] = {{192, 0, 9, 0}, {192, 0, 9, 0}, {192, 0, 9, 0}, {192, 0, 9, 0}, {192, 0, 9, 0}};
	knit_memory_split s = split(b, 5, 64, 256);

	ck_assert_uint_eq(s.arena_count, 5);
	ck_assert_uint_eq(s.total, 5 * 192);
	knit__memory_split_clear(&s, heap);
}
END_TEST

START_TEST(block_above_the_limit_is_refused) {
	knit_block b[2] = {{256, 0, 1, 0}, {320, 1, 2, 0}};
	knit_memory_split s;
	knit_diag d = {0};

	ck_assert_uint_eq(arenas_for(b, 2, 320), 2);
	ck_assert_int_eq(knit__memory_split_create(heap, b, 2, 64, 319, BUDGET, &s, &d), KNIT_ERR_LIMIT);
	ck_assert_msg(strstr(d.text, "block 1") && strstr(d.text, "320") && strstr(d.text, "256"), "%s", d.text);
	ck_assert_ptr_null(s.arena);
	d = (knit_diag){0};
	ck_assert_int_eq(knit__memory_split_create(heap, b, 2, 64, 63, BUDGET, &s, &d), KNIT_ERR_LIMIT);
	ck_assert_msg(strstr(d.text, "63 bytes"), "%s", d.text);
}
END_TEST

static uint32_t random_blocks(knit_block *b, uint32_t *rng, uint64_t align, uint64_t *largest) {
	const uint32_t count = 1 + next(rng, MAX_BLOCKS), steps = 1 + next(rng, 40);

	*largest = 0;
	for (uint32_t i = 0; i < count; ++i) {
		const uint32_t first = next(rng, steps);

		b[i] = (knit_block){next(rng, 10) == 0 ? 0 : next(rng, 5000), first, first + next(rng, steps - first), 0};
		*largest = aligned(b[i].bytes, align) > *largest ? aligned(b[i].bytes, align) : *largest;
	}
	return count;
}

START_TEST(random_sets) {
	uint32_t rng = 4242, most = 0, several = 0;
	double worst = 1;

	for (int round = 0; round < 1000; ++round) {
		static knit_block b[MAX_BLOCKS], again[MAX_BLOCKS];
		const uint64_t align = UINT64_C(1) << next(&rng, 9);
		uint64_t largest;
		const uint32_t count = random_blocks(b, &rng, align, &largest);
		const uint64_t limit = largest + next(&rng, 8000) + 1;
		knit_memory_split s = split(b, count, align, limit), t;

		if (round % 10 == 0) {
			memcpy(again, b, sizeof b);
			t = split(again, count, align, limit);
			ck_assert_mem_eq(again, b, count * sizeof *b);
			ck_assert_mem_eq(t.arena, s.arena, count * sizeof *t.arena);
			knit__memory_split_clear(&t, heap);
		}
		most = s.arena_count > most ? s.arena_count : most;
		several += s.arena_count > 1;
		if (s.plan.lower_bound > 0 && (double)s.total / (double)s.plan.lower_bound > worst)
			worst = (double)s.total / (double)s.plan.lower_bound;
		knit__memory_split_clear(&s, heap);
	}
	printf("1000 random sets: %u in several arenas, up to %u; at worst %.3f of the bound for one arena\n", several, most,
	       worst);
	ck_assert_uint_gt(several, 300);
	ck_assert_uint_ge(most, 5);
	ck_assert_double_le(worst, 2);
}
END_TEST

START_TEST(allocation_failures) {
	track_alloc t = {0};
	knit_context *own = track_context(&t);
	knit_status status = KNIT_ERR_MEMORY;
	knit_block set[MAX_BLOCKS];
	uint32_t rng = 3;
	uint64_t largest;
	const uint32_t count = random_blocks(set, &rng, 64, &largest);

	ck_assert_ptr_nonnull(own);
	const uint64_t live = t.live;
	for (uint64_t fail = 1; status != KNIT_OK; ++fail) {
		knit_block b[MAX_BLOCKS];
		knit_memory_split s;
		knit_diag d = {0};

		memcpy(b, set, sizeof b);
		t.count = 0;
		t.fail_at = fail;
		status = knit__memory_split_create(&own->a, b, count, 64, largest, BUDGET, &s, &d);
		t.fail_at = 0;
		ck_assert(status == KNIT_OK || (status == KNIT_ERR_MEMORY && d.status == KNIT_ERR_MEMORY));
		if (status == KNIT_OK) {
			ck_assert_uint_gt(s.arena_count, 1);
			knit__memory_split_clear(&s, &own->a);
		}
		ck_assert_uint_eq(t.live, live);
		ck_assert_uint_lt(fail, 1000);
	}
	knit_context_destroy(own);
	ck_assert(!t.bad_free);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {one_arena_where_the_limit_allows_it, no_block_straddles, block_above_the_limit_is_refused,
	                              random_sets, allocation_failures};

	return suite_run("memory_split", tests, sizeof tests / sizeof *tests);
}
