/* Owns the placement of bare blocks in several arenas of limited size. Refuses to know what the blocks hold.
 *
 * The arenas lie in one address space, one after the other, `limit` bytes apart, and no block may cross a multiple of the
 * limit. Blocks go in a few fixed orders into the best gap among the blocks alive with them, then each arena is planned
 * again alone with the blocks that it got, which can only make it smaller. */
#include "memory_split.h"
#include "memory_line.h"

#include <string.h>

static const knit_memory_order orders[] = {KNIT_ORDER_SIZE, KNIT_ORDER_AREA, KNIT_ORDER_LIFETIME, KNIT_ORDER_START,
                                           KNIT_ORDER_END};
enum { ORDERS = sizeof orders / sizeof *orders };

typedef struct splitter {
	const knit_allocator *a;
	const knit_block *blocks;
	uint32_t count;
	uint64_t align, limit; /* limit: a multiple of align */
	knit_memory_key *keys;
	knit_memory_line line;
	uint64_t *size, *offset, *best; /* best: the offsets of the best placement so far, in the one address space */
} splitter;

/* ---- one address space -------------------------------------------------------------------------------------------- */

/* Returns how many arenas it took. */
static uint32_t place_in_order(splitter *s, knit_gap_rule rule) {
	uint64_t top = 0;

	s->line.count = 0;
	for (uint32_t i = 0; i < s->count; ++i) {
		const uint32_t block = s->keys[i].block;

		s->offset[block] = 0;
		if (s->size[block] == 0)
			continue;
		s->offset[block] = knit__memory_line_gap(&s->line, &s->blocks[block], s->size[block], rule);
		knit__memory_line_insert(&s->line, &s->blocks[block], s->size[block], s->offset[block]);
		top = s->offset[block] + s->size[block] > top ? s->offset[block] + s->size[block] : top;
	}
	return (uint32_t)(top / s->limit + (top % s->limit != 0));
}

/* The bytes of all arenas together, each up to its last block's end; those of each in `bytes`. */
static uint64_t measure(const splitter *s, const uint64_t *offset, uint64_t *bytes, uint32_t arenas) {
	uint64_t total = 0;

	memset(bytes, 0, arenas * sizeof *bytes);
	for (uint32_t i = 0; i < s->count; ++i) {
		const uint64_t arena = offset[i] / s->limit, end = offset[i] % s->limit + s->size[i];

		bytes[arena] = s->size[i] != 0 && end > bytes[arena] ? end : bytes[arena];
	}
	for (uint32_t i = 0; i < arenas; ++i)
		total += bytes[i];
	return total;
}

/* ---- each arena alone ---------------------------------------------------------------------------------------------- */

/* `own` and `number` have room for all blocks. */
static knit_status refine(splitter *s, uint32_t arena, uint64_t budget, knit_block *own, uint32_t *number,
                          knit_memory_split *out, knit_diag *d) {
	knit_block_plan plan;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->count; ++i) {
		if (out->arena[i] != arena)
			continue;
		own[n] = s->blocks[i];
		number[n++] = i;
	}
	const knit_status status = knit__memory_place(s->a, own, n, s->align, budget, &plan, d);
	if (status != KNIT_OK || plan.peak >= out->bytes[arena])
		return status;
	out->bytes[arena] = plan.peak;
	for (uint32_t i = 0; i < n; ++i)
		s->best[number[i]] = own[i].offset + arena * s->limit;
	return KNIT_OK;
}

static knit_status refine_all(splitter *s, uint64_t budget, knit_memory_split *out, knit_diag *d) {
	knit_block *own = knit__alloc_array(s->a, s->count, sizeof *own);
	uint32_t *number = knit__alloc_array(s->a, s->count, sizeof *number);
	knit_status status = KNIT_OK;

	if (!own || !number)
		status = knit__fail_memory(d, "memory plan", (uint64_t)s->count * sizeof *own);
	for (uint32_t i = 0; i < out->arena_count && status == KNIT_OK; ++i)
		status = refine(s, i, budget / out->arena_count, own, number, out, d);
	knit__free(s->a, own, (size_t)s->count * sizeof *own);
	knit__free(s->a, number, (size_t)s->count * sizeof *number);
	return status;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

/* The best of the orders and rules: the fewest bytes, then the fewest arenas. */
static knit_status choose(splitter *s, knit_memory_split *out, knit_diag *d) {
	const uint32_t most = s->count; /* an arena has a block at least */
	uint64_t *bytes = knit__alloc_array(s->a, most, sizeof *bytes), least = UINT64_MAX;
	uint32_t arenas = 0;

	if (!bytes)
		return knit__fail_memory(d, "memory plan", (uint64_t)most * sizeof *bytes);
	for (int way = 0; way < ORDERS * KNIT_GAP_RULES; ++way) {
		if (way % KNIT_GAP_RULES == 0)
			knit__memory_keys(orders[way / KNIT_GAP_RULES], s->blocks, s->size, NULL, s->count, s->keys);
		const uint32_t taken_arenas = place_in_order(s, (knit_gap_rule)(way % KNIT_GAP_RULES));
		const uint64_t total = measure(s, s->offset, bytes, taken_arenas);

		if (total > least || (total == least && taken_arenas >= arenas))
			continue;
		least = total;
		arenas = taken_arenas;
		memcpy(s->best, s->offset, s->count * sizeof *s->best);
	}
	out->bytes = knit__alloc_array(s->a, arenas, sizeof *out->bytes);
	out->arena_count = arenas;
	if (out->bytes)
		(void)measure(s, s->best, out->bytes, arenas);
	for (uint32_t i = 0; i < s->count; ++i)
		out->arena[i] = (uint32_t)(s->best[i] / s->limit);
	knit__free(s->a, bytes, (size_t)most * sizeof *bytes);
	return out->bytes ? KNIT_OK : knit__fail_memory(d, "memory plan", (uint64_t)arenas * sizeof *out->bytes);
}

static knit_status split(splitter *s, knit_block *blocks, uint64_t budget, knit_memory_split *out, knit_diag *d) {
	const uint32_t n = s->count;

	s->keys = knit__alloc_array(s->a, n, sizeof *s->keys);
	s->line.taken = knit__alloc_array(s->a, n, sizeof *s->line.taken);
	s->size = knit__alloc_array(s->a, n, sizeof *s->size);
	s->offset = knit__alloc_array(s->a, n, sizeof *s->offset);
	s->best = knit__alloc_array(s->a, n, sizeof *s->best);
	if (!s->keys || !s->line.taken || !s->size || !s->offset || !s->best)
		return knit__fail_memory(d, "memory plan", (uint64_t)n * sizeof *s->line.taken);
	for (uint32_t i = 0; i < n; ++i) {
		/* The sum of all sizes was seen to be far below 64 bits. */
		(void)knit__align_u64(blocks[i].bytes, s->align, &s->size[i]);
		if (s->size[i] > s->limit)
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "memory plan: block %u needs %llu bytes, an arena has at most %llu", i,
			                  (unsigned long long)s->size[i], (unsigned long long)s->limit);
	}

	knit_status status = choose(s, out, d);
	if (status == KNIT_OK)
		status = refine_all(s, budget, out, d);
	out->total = 0;
	for (uint32_t i = 0; i < out->arena_count && status == KNIT_OK; ++i)
		out->total += out->bytes[i];
	for (uint32_t i = 0; i < n && status == KNIT_OK; ++i)
		blocks[i].offset = s->best[i] % s->limit;
	return status;
}

static knit_status split_if_needed(const knit_allocator *a, knit_block *blocks, uint32_t count, uint64_t align,
                                   uint64_t limit, uint64_t budget, knit_memory_split *out, knit_diag *d) {
	knit_status status = knit__memory_place(a, blocks, count, align, budget, &out->plan, d);

	if (status != KNIT_OK)
		return status;
	out->arena = knit__alloc_array(a, count, sizeof *out->arena);
	if (!out->arena)
		return knit__fail_memory(d, "memory plan", (uint64_t)count * sizeof *out->arena);
	memset(out->arena, 0, count * sizeof *out->arena);
	if (limit != 0 && out->plan.peak > limit) {
		splitter s = {.a = a, .blocks = blocks, .count = count, .align = align, .limit = limit / align * align};

		s.line.limit = s.limit;
		status = s.limit == 0 ? knit__fail(d, KNIT_ERR_LIMIT, 0, "memory plan: an arena of %llu bytes is below the "
		                                                         "alignment, %llu",
		                                   (unsigned long long)limit, (unsigned long long)align)
		                      : split(&s, blocks, budget, out, d);
		knit__free(a, s.keys, (size_t)count * sizeof *s.keys);
		knit__free(a, s.line.taken, (size_t)count * sizeof *s.line.taken);
		knit__free(a, s.size, (size_t)count * sizeof *s.size);
		knit__free(a, s.offset, (size_t)count * sizeof *s.offset);
		knit__free(a, s.best, (size_t)count * sizeof *s.best);
		return status;
	}
	out->arena_count = 1;
	out->total = out->plan.peak;
	out->bytes = knit__alloc_array(a, 1, sizeof *out->bytes);
	if (!out->bytes)
		return knit__fail_memory(d, "memory plan", sizeof *out->bytes);
	out->bytes[0] = out->plan.peak;
	return KNIT_OK;
}

knit_status knit__memory_split_create(const knit_allocator *a, knit_block *blocks, uint32_t count, uint64_t align,
                                      uint64_t limit, uint64_t search_budget, knit_memory_split *out, knit_diag *d) {
	*out = (knit_memory_split){.block_count = count};

	const knit_status status = split_if_needed(a, blocks, count, align, limit, search_budget, out, d);
	if (status != KNIT_OK)
		knit__memory_split_clear(out, a);
	return status;
}

void knit__memory_split_clear(knit_memory_split *s, const knit_allocator *a) {
	knit__free(a, s->arena, (size_t)s->block_count * sizeof *s->arena);
	knit__free(a, s->bytes, (size_t)s->arena_count * sizeof *s->bytes);
	*s = (knit_memory_split){0};
}
