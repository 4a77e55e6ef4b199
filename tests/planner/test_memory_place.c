/* Tests the placement of bare blocks: hand-made cases, thousands of random sets, and the public MiniMalloc instances. */
#include "../../graph/memory_plan.h"
#include "../tools/slow.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BLOCKS 4096
#define SOME_BUDGET UINT64_C(20000000) /* for sets made by chance */

static const knit_allocator *const heap = &knit__default_allocator;

static uint32_t next(uint32_t *state, uint32_t below) {
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % below;
}

static knit_block_plan plan_with(knit_block *blocks, uint32_t count, uint64_t align, uint64_t budget) {
	knit_diag d = {0};
	knit_block_plan plan;

	ck_assert_msg(knit__memory_place(heap, blocks, count, align, budget, &plan, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_ge(plan.peak, plan.lower_bound);
	ck_assert_uint_le(plan.peak, plan.greedy);
	ck_assert_uint_le(plan.greedy, plan.in_order);
	ck_assert_uint_le(plan.in_order, plan.unshared);
	ck_assert(plan.optimal || plan.peak > plan.lower_bound);
	return plan;
}

static uint64_t place(knit_block *blocks, uint32_t count, uint64_t align, uint64_t *bound) {
	const knit_block_plan plan = plan_with(blocks, count, align, SOME_BUDGET);

	*bound = plan.lower_bound;
	return plan.peak;
}

/* No two blocks share a byte at one step; nothing ends above the peak; the bound is the fullest step. */
static void check_valid(const knit_block *b, uint32_t count, uint64_t align, uint64_t peak, uint64_t bound) {
	uint64_t fullest = 0, highest = 0;

	for (uint32_t i = 0; i < count; ++i) {
		uint64_t alive = 0;

		ck_assert_uint_eq(b[i].offset % align, 0);
		highest = b[i].offset + (b[i].bytes + align - 1) / align * align > highest
		              ? b[i].offset + (b[i].bytes + align - 1) / align * align
		              : highest;
		for (uint32_t k = 0; k < count; ++k) {
			if (b[k].first <= b[i].first && b[i].first <= b[k].last)
				alive += (b[k].bytes + align - 1) / align * align;
			if (k <= i || b[i].bytes == 0 || b[k].bytes == 0 || b[i].first > b[k].last || b[k].first > b[i].last)
				continue;
			ck_assert_msg(b[i].offset + b[i].bytes <= b[k].offset || b[k].offset + b[k].bytes <= b[i].offset,
			              "blocks %u and %u overlap", i, k);
		}
		fullest = alive > fullest ? alive : fullest;
	}
	ck_assert_uint_eq(bound, fullest);
	ck_assert_uint_eq(peak, highest);
	ck_assert_uint_ge(peak, bound);
}

static uint64_t place_and_check(knit_block *blocks, uint32_t count, uint64_t align, uint64_t *bound) {
	static knit_block again[MAX_BLOCKS];
	uint64_t bound_again;
	const uint64_t peak = place(blocks, count, align, bound);

	check_valid(blocks, count, align, peak, *bound);
	for (uint32_t i = 0; i < count; ++i) {
		again[i] = blocks[i];
		again[i].offset = UINT64_MAX; /* what stood there before must not matter */
	}
	ck_assert_uint_eq(place(again, count, align, &bound_again), peak);
	for (uint32_t i = 0; i < count; ++i)
		ck_assert_uint_eq(again[i].offset, blocks[i].offset);
	return peak;
}

START_TEST(nothing_and_one) {
	knit_block one = {100, 3, 9, 7};
	uint64_t bound = 1;

	ck_assert_uint_eq(place(NULL, 0, 64, &bound), 0);
	ck_assert_uint_eq(bound, 0);
	ck_assert_uint_eq(place_and_check(&one, 1, 64, &bound), 128);
	ck_assert_uint_eq(one.offset, 0);
	one.bytes = 0;
	ck_assert_uint_eq(place_and_check(&one, 1, 64, &bound), 0);
}
END_TEST

START_TEST(lifetimes_are_inclusive) {
	knit_block touching[2] = {{64, 0, 4, 0}, {64, 4, 8, 0}}, apart[2] = {{64, 0, 4, 0}, {64, 5, 8, 0}};
	uint64_t bound;

	ck_assert_uint_eq(place_and_check(touching, 2, 1, &bound), 128);
	ck_assert_uint_eq(place_and_check(apart, 2, 1, &bound), 64);
}
END_TEST

/* A chain in which each step reads the last result and writes the next needs two buffers, whatever its length. */
START_TEST(chain_needs_two) {
	static knit_block b[1000];
	uint64_t bound;

	for (uint32_t i = 0; i < 1000; ++i)
		b[i] = (knit_block){4096, i, i + 1, 0};
	ck_assert_uint_eq(place_and_check(b, 1000, 64, &bound), 8192);
}
END_TEST

START_TEST(zero_sized_blocks_take_nothing) {
	knit_block b[4] = {{0, 0, 9, 0}, {64, 0, 9, 0}, {0, 4, 4, 0}, {64, 4, 5, 0}};
	uint64_t bound;

	ck_assert_uint_eq(place_and_check(b, 4, 64, &bound), 128);
	ck_assert_uint_eq(bound, 128);
}
END_TEST

START_TEST(bad_arguments_are_refused) {
	knit_block reversed = {1, 5, 4, 0}, huge[2] = {{UINT64_MAX - 5, 0, 1, 0}, {64, 0, 1, 0}};
	knit_diag d = {0};
	knit_block_plan plan;

	ck_assert_int_eq(knit__memory_place(heap, &reversed, 1, 64, 0, &plan, &d), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_nonnull(strstr(d.text, "step 5"));
	d = (knit_diag){0};
	ck_assert_int_eq(knit__memory_place(heap, huge, 2, 64, 0, &plan, &d), KNIT_ERR_LIMIT);
	d = (knit_diag){0};
	ck_assert_int_eq(knit__memory_place(heap, &reversed, 1, 48, 0, &plan, &d), KNIT_ERR_ARGUMENT);
	d = (knit_diag){0};
	ck_assert_int_eq(knit__memory_place(heap, &reversed, 1, 0, 0, &plan, &d), KNIT_ERR_ARGUMENT);
}
END_TEST

/* Few sizes and tightly packed lives: many such sets are above the bound after all greedy orders. */
#define TIGHT_BLOCKS 60
static void fill_tight(knit_block *b, uint32_t *rng) {
	for (uint32_t i = 0; i < TIGHT_BLOCKS; ++i) {
		const uint32_t bytes = 1 + next(rng, 9), first = next(rng, 40);

		b[i] = (knit_block){bytes, first, first + next(rng, 19), 0};
	}
}

START_TEST(random_sets) {
	static knit_block b[64];
	const int sets = (int)wanted_sets();
	uint32_t rng = 12345, missed = 0, unproven = 0;
	double worst = 1;

	for (int round = 0; round < sets; ++round) {
		const bool tight = round % 20 == 1;
		const uint32_t count = tight ? TIGHT_BLOCKS : 1 + next(&rng, round % 100 == 0 ? 60 : 14);
		const uint32_t steps = 1 + next(&rng, 40);
		const uint64_t align = tight ? 1 : UINT64_C(1) << next(&rng, 9);
		knit_block_plan plan;
		uint64_t bound;

		for (uint32_t i = 0; i < count; ++i) {
			const uint32_t first = next(&rng, steps), most = steps - first;

			b[i] = (knit_block){next(&rng, 10) == 0 ? 0 : next(&rng, 5000), first, first + next(&rng, most), 0};
		}
		if (tight)
			fill_tight(b, &rng);
		if (round % 10 == 0)
			place_and_check(b, count, align, &bound);
		plan = plan_with(b, count, align, SOME_BUDGET);
		check_valid(b, count, align, plan.peak, plan.lower_bound);
		missed += plan.peak > plan.lower_bound;
		unproven += !plan.optimal;
		if (plan.lower_bound > 0 && (double)plan.peak / (double)plan.lower_bound > worst)
			worst = (double)plan.peak / (double)plan.lower_bound;
	}
	printf("random sets: %u of %d above the lower bound, worst %.3f of it; %u of all not proven to be optimal\n", missed,
	       sets, worst, unproven);
	ck_assert_double_le(worst, 1.05);
	ck_assert_uint_le(unproven * 1000, (uint32_t)sets);
}
END_TEST

/* ---- the exact search ----------------------------------------------------------------------------------------------- */

#define FEW 7

/* The least peak of all orders of placing each block at the lowest gap: one of them is the order of offsets in an optimal
 * placement, and that finds it. */
static uint64_t least_peak(knit_block *b, uint32_t placed, uint32_t count, uint64_t peak, uint64_t best) {
	if (peak >= best)
		return best;
	if (placed == count)
		return peak;
	for (uint32_t i = placed; i < count; ++i) {
		const knit_block kept = b[i];
		uint64_t at = 0;

		b[i] = b[placed];
		b[placed] = kept;
		for (uint32_t k = 0; k < placed; ++k) { /* again from the first one after each move up */
			if (b[k].first <= kept.last && kept.first <= b[k].last && at < b[k].offset + b[k].bytes &&
			    b[k].offset < at + kept.bytes) {
				at = b[k].offset + b[k].bytes;
				k = UINT32_MAX;
			}
		}
		b[placed].offset = at;
		best = least_peak(b, placed + 1, count, at + kept.bytes > peak ? at + kept.bytes : peak, best);
		b[placed] = b[i];
		b[i] = kept;
	}
	return best;
}

/* The load never exceeds 4, but there is no placement below 5 (one of few such sets among a million made by chance). */
static const knit_block crooked[FEW] = {{2, 0, 1, 0}, {1, 1, 2, 0}, {1, 2, 3, 0}, {1, 1, 3, 0},
                                        {2, 3, 5, 0}, {2, 5, 6, 0}, {2, 0, 0, 0}};

static void fill_few(knit_block *b, uint32_t *rng, bool near_crooked) {
	const uint32_t changed = near_crooked ? 2 : FEW;

	memcpy(b, crooked, sizeof crooked);
	for (uint32_t i = 0; i < changed; ++i) {
		const uint32_t first = next(rng, 6);

		b[near_crooked ? next(rng, FEW) : i] = (knit_block){1 + next(rng, 5), first, first + next(rng, 3), 0};
	}
}

START_TEST(small_sets_are_optimal) {
	uint32_t rng = 4711, above = 0;

	for (int round = 0; round < 4000; ++round) {
		knit_block b[FEW], copy[FEW];

		fill_few(b, &rng, round % 4 != 0);
		memcpy(copy, b, sizeof b);

		const uint64_t best = least_peak(copy, 0, FEW, 0, UINT64_MAX);
		const knit_block_plan plan = plan_with(b, FEW, 1, SOME_BUDGET);

		ck_assert(plan.optimal);
		ck_assert_uint_eq(plan.peak, best);
		check_valid(b, FEW, 1, plan.peak, plan.lower_bound);
		above += best > plan.lower_bound;
	}
	printf("small sets: %u of 4000 have their optimum above the lower bound\n", above);
	ck_assert_uint_gt(above, 0); /* else nothing was shown about proofs */
}
END_TEST

START_TEST(optimum_above_the_bound_is_proven) {
	knit_block b[FEW];
	knit_block_plan plan;

	memcpy(b, crooked, sizeof b);
	plan = plan_with(b, FEW, 1, SOME_BUDGET);
	ck_assert_uint_eq(plan.lower_bound, 4);
	ck_assert_uint_eq(plan.peak, 5);
	ck_assert(plan.optimal);
	ck_assert_uint_gt(plan.search_work, 0);
}
END_TEST

START_TEST(parts_are_searched_apart) {
	static knit_block b[2 * TIGHT_BLOCKS];
	uint32_t rng = 7;
	knit_block_plan one, both;

	do {
		fill_tight(b, &rng);
		one = plan_with(b, TIGHT_BLOCKS, 1, 0);
	} while (one.peak == one.lower_bound);
	one = plan_with(b, TIGHT_BLOCKS, 1, SOME_BUDGET);
	for (uint32_t i = 0; i < TIGHT_BLOCKS; ++i)
		b[TIGHT_BLOCKS + i] = (knit_block){b[i].bytes, b[i].first + 1000, b[i].last + 1000, 0};
	both = plan_with(b, 2 * TIGHT_BLOCKS, 1, 2 * SOME_BUDGET);
	check_valid(b, 2 * TIGHT_BLOCKS, 1, both.peak, both.lower_bound);
	ck_assert_uint_eq(both.peak, one.peak);
	ck_assert_uint_eq(both.optimal, one.optimal);
	ck_assert_uint_le(both.search_work, 3 * one.search_work + 1000);
}
END_TEST

START_TEST(no_budget_no_search) {
	static knit_block b[TIGHT_BLOCKS];
	uint32_t rng = 7, better = 0;

	for (int round = 0; round < 200; ++round) {
		fill_tight(b, &rng);
		const knit_block_plan greedy = plan_with(b, TIGHT_BLOCKS, 1, 0);
		const knit_block_plan searched = plan_with(b, TIGHT_BLOCKS, 1, SOME_BUDGET);

		ck_assert_uint_eq(greedy.search_work, 0);
		ck_assert_uint_eq(greedy.optimal, greedy.peak == greedy.lower_bound);
		ck_assert_uint_le(searched.peak, greedy.peak);
		ck_assert_uint_le(searched.search_work, SOME_BUDGET + SOME_BUDGET / 10);
		better += searched.peak < greedy.peak;
	}
	ck_assert_uint_gt(better, 5);
}
END_TEST

START_TEST(public_function) {
	knit_context *ctx = NULL;
	knit_block b[3] = {{100, 0, 1, 0}, {100, 1, 2, 0}, {100, 2, 3, 0}};
	knit_block_plan plan;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_plan_blocks(ctx, b, 3, 64, &plan, &d), KNIT_OK);
	ck_assert_uint_eq(plan.peak, 256);
	ck_assert_uint_eq(plan.lower_bound, 256);
	ck_assert_uint_eq(plan.in_order, 256);
	ck_assert_uint_eq(plan.unshared, 384);
	ck_assert_uint_eq(plan.search_work, 0);
	ck_assert(plan.optimal);
	check_valid(b, 3, 64, plan.peak, plan.lower_bound);
	ck_assert_int_eq(knit_plan_blocks(ctx, NULL, 0, 64, &plan, &d), KNIT_OK);
	ck_assert_uint_eq(plan.peak, 0);
	ck_assert_int_eq(knit_plan_blocks(NULL, b, 3, 64, &plan, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_plan_blocks(ctx, NULL, 3, 64, &plan, &d), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_nonnull(strstr(d.text, "blocks is NULL"));
	ck_assert_int_eq(knit_plan_blocks(ctx, b, 3, 64, NULL, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_plan_blocks(ctx, b, 3, 65, &plan, NULL), KNIT_ERR_ARGUMENT);
	knit_context_destroy(ctx);
}
END_TEST

static double seconds(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The shape of a decoder: few long lives (the residual stream), many short ones. */
START_TEST(two_thousand_blocks_are_quick) {
	static knit_block b[2000];
	uint32_t rng = 99;
	uint64_t bound, peak;
	double start;

	for (uint32_t i = 0; i < 2000; ++i) {
		const uint32_t length = next(&rng, 8) == 0 ? 60 : 1 + next(&rng, 6);

		b[i] = (knit_block){64 * (1 + next(&rng, 4000)), i, i + length, 0};
	}
	start = seconds();
	peak = place(b, 2000, 64, &bound);
	printf("2000 blocks: %.1f ms, peak / lower bound %.3f\n", 1e3 * (seconds() - start),
	       (double)peak / (double)bound);
	check_valid(b, 2000, 64, peak, bound);
	ck_assert_double_le((double)peak / (double)bound, 1.25);
	ck_assert_double_le(seconds() - start, 20); /* well under a second without sanitizers on an idle machine */
}
END_TEST

/* The public instances of MiniMalloc: id, lower, upper, size; alive in [lower, upper); solvable in the capacity that the
 * file name gives. */
static uint32_t read_instance(const char *path, knit_block *b) {
	FILE *f = fopen(path, "r");
	char line[256];
	uint32_t count = 0;

	if (!f)
		return 0;
	ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
	while (fgets(line, sizeof line, f)) {
		unsigned long long lower, upper, size;
		const char *comma = strchr(line, ',');

		ck_assert_ptr_nonnull(comma);
		ck_assert_int_eq(sscanf(comma + 1, "%llu,%llu,%llu", &lower, &upper, &size), 3);
		ck_assert_uint_lt(count, MAX_BLOCKS);
		b[count++] = (knit_block){size, (uint32_t)lower, (uint32_t)(upper - 1), 0};
	}
	fclose(f);
	return count;
}

START_TEST(public_instances) {
	static const struct { const char *name; uint64_t capacity; } instances[] = {
		{"A.1048576.csv", 1048576}, {"B.1048576.csv", 1048576}, {"D.1048576.csv", 1048576},
		{"E.1048576.csv", 1048576}, {"G.1048576.csv", 1048576}, {"H.1048576.csv", 1048576},
		{"J.1048576.csv", 1048576}, {"K.1048576.csv", 1048576}, {"input.12.csv", 12},
	};
	static knit_block b[MAX_BLOCKS], again[MAX_BLOCKS];

	for (size_t i = 0; i < sizeof instances / sizeof *instances; ++i) {
		char path[512];
		knit_block_plan plan;
		uint32_t count;
		double start;

		snprintf(path, sizeof path, "%s/planner/%s", KNIT_TEST_DATA, instances[i].name);
		count = read_instance(path, b);
		if (count == 0) {
			printf("SKIP: %s is not there\n", path);
			continue;
		}
		start = seconds();
		plan = plan_with(b, count, 1, KNIT_SEARCH_BUDGET); /* of work, not time: the result is the same everywhere */
		printf("%-14s %4u blocks: lower bound %7llu, peak %7llu (%.4f of the capacity), in order %7llu, %.0f ms, %.1f M of "
		       "work%s\n", instances[i].name, count, (unsigned long long)plan.lower_bound, (unsigned long long)plan.peak,
		       (double)plan.peak / (double)instances[i].capacity, (unsigned long long)plan.in_order,
		       1e3 * (seconds() - start), 1e-6 * (double)plan.search_work, plan.optimal ? ", optimal" : "");
		check_valid(b, count, 1, plan.peak, plan.lower_bound);
		ck_assert_uint_le(plan.lower_bound, instances[i].capacity);
		ck_assert_uint_le(plan.peak, instances[i].capacity);
		if (plan.search_work < SOME_BUDGET) {
			memcpy(again, b, sizeof b);
			ck_assert_uint_eq(plan_with(again, count, 1, KNIT_SEARCH_BUDGET).peak, plan.peak);
			ck_assert_mem_eq(again, b, sizeof b);
		}
	}
}
END_TEST

/* Fails allocation 1, 2, 3 ... until none fails. */
typedef struct failing { uint32_t left; uint32_t live; } failing;
static void *failing_alloc(void *user, size_t size, size_t align) {
	failing *f = user;

	if (f->left-- == 0)
		return NULL;
	++f->live;
	return aligned_alloc(align, (size + align - 1) / align * align);
}
static void failing_free(void *user, void *ptr, size_t size) {
	(void)size;
	--((failing *)user)->live;
	free(ptr);
}

START_TEST(allocation_failures) {
	static knit_block set[TIGHT_BLOCKS], b[TIGHT_BLOCKS];
	uint32_t rng = 7, budget = 0;
	knit_block_plan plan = {0};
	knit_status status;

	/* A set on which the search runs too. */
	for (int round = 0; round < 1000 && plan.search_work == 0; ++round) {
		fill_tight(set, &rng);
		memcpy(b, set, sizeof b);
		plan = plan_with(b, TIGHT_BLOCKS, 1, SOME_BUDGET);
	}
	ck_assert_uint_gt(plan.search_work, 0);

	do {
		failing f = {budget++, 0};
		const knit_allocator a = {failing_alloc, failing_free, &f};
		knit_diag d = {0};

		memcpy(b, set, sizeof b);
		status = knit__memory_place(&a, b, TIGHT_BLOCKS, 1, SOME_BUDGET, &plan, &d);
		ck_assert_uint_eq(f.live, 0);
		ck_assert(status == KNIT_OK || (status == KNIT_ERR_MEMORY && d.status == KNIT_ERR_MEMORY));
		ck_assert_uint_lt(budget, 200);
	} while (status != KNIT_OK);
	ck_assert_uint_gt(budget, 40);
}
END_TEST

int main(void) {
	Suite *s = suite_create("memory_place");
	TCase *t = tcase_create("blocks");

	tcase_set_timeout(t, 200);
	tcase_add_test(t, nothing_and_one);
	tcase_add_test(t, lifetimes_are_inclusive);
	tcase_add_test(t, chain_needs_two);
	tcase_add_test(t, zero_sized_blocks_take_nothing);
	tcase_add_test(t, bad_arguments_are_refused);
	tcase_add_test(t, random_sets);
	tcase_add_test(t, small_sets_are_optimal);
	tcase_add_test(t, optimum_above_the_bound_is_proven);
	tcase_add_test(t, parts_are_searched_apart);
	tcase_add_test(t, no_budget_no_search);
	tcase_add_test(t, public_function);
	tcase_add_test(t, two_thousand_blocks_are_quick);
	tcase_add_test(t, public_instances);
	tcase_add_test(t, allocation_failures);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
