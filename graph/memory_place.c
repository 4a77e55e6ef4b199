/* Owns the placement of bare blocks (bytes, lifetime) at offsets of one arena. Refuses to know what the blocks hold.
 *
 * Stages, each only lowering the peak, the rest skipped once the peak meets the lower bound:
 *   1. place_in_order: the blocks in several fixed orders, each put into the best gap among the blocks alive with it;
 *   2. place_skyline: always the block that can lie lowest, several orders deciding among equals;
 *   3. the exact search of memory_search.c.
 * Everything is deterministic: budgets count looked-at blocks, never time. */
#include "context.h"
#include "memory_line.h"
#include "memory_plan.h"
#include "memory_search.h"

#include <string.h>

/* Looked-at blocks that the local search may spend: some 25 ms. */
#define SEARCH_BUDGET UINT64_C(12000000)
/* Sums of sizes stay below it, so that no offset overflows. */
#define MAX_BYTES (UINT64_C(1) << 60)

/* A block not yet placed by place_skyline, and the lowest offset it can have. */
typedef struct waiting { uint64_t low; uint32_t first, last, block; } waiting;

typedef struct placer {
	const knit_allocator *a;
	uint32_t count;
	const knit_block *blocks;
	uint64_t *size;     /* aligned */
	uint64_t *pressure; /* bytes alive at the fullest step of a block's lifetime */
	uint64_t lower_bound, size_sum;
	knit_memory_key *keys;
	knit_memory_line line;
	waiting *waiting;
	uint32_t *order;
	uint64_t *offset;
	uint64_t *best_offset;
	uint64_t best_peak;
} placer;

/* ---- what is known before anything is placed ------------------------------------------------------------------------ */

/* Sweeps over the blocks by start. Bytes alive grow only where a block starts, so the loads at starts are all that the
 * lower bound and the pressures need. */
static knit_status measure(placer *p, knit_diag *d) {
	knit_memory_key *starts = p->keys, *ends = knit__alloc_array(p->a, p->count, sizeof *ends);
	uint64_t *load = knit__alloc_array(p->a, p->count, sizeof *load), alive = 0;
	knit_status status = KNIT_OK;

	if (!ends || !load) {
		status = knit__fail_memory(d, "memory plan", (uint64_t)p->count * sizeof *ends);
		goto done;
	}

	for (uint32_t i = 0; i < p->count; ++i) {
		starts[i] = (knit_memory_key){p->blocks[i].first, 0, i};
		ends[i] = (knit_memory_key){p->blocks[i].last, 0, i};
	}
	knit__memory_keys_sort(starts, p->count);
	knit__memory_keys_sort(ends, p->count);

	for (uint32_t i = 0, e = 0; i < p->count; ++i) {
		for (; ends[e].major < starts[i].major; ++e)
			alive -= p->size[ends[e].block];
		alive += p->size[starts[i].block];
		load[i] = alive;
		if (alive > p->lower_bound)
			p->lower_bound = alive;
	}
	for (uint32_t i = 0; i < p->count; ++i) {
		const uint32_t block = starts[i].block;

		/* Of blocks that start together the last one sees the full load. */
		for (uint32_t k = i; k < p->count && starts[k].major <= p->blocks[block].last; ++k)
			p->pressure[block] = load[k] > p->pressure[block] ? load[k] : p->pressure[block];
	}

done:
	knit__free(p->a, ends, (size_t)p->count * sizeof *ends);
	knit__free(p->a, load, (size_t)p->count * sizeof *load);
	return status;
}

static void close_placer(placer *p) {
	const size_t n = p->count;

	knit__free(p->a, p->size, n * sizeof *p->size);
	knit__free(p->a, p->pressure, n * sizeof *p->pressure);
	knit__free(p->a, p->keys, n * sizeof *p->keys);
	knit__free(p->a, p->line.taken, n * sizeof *p->line.taken);
	knit__free(p->a, p->order, n * sizeof *p->order);
	knit__free(p->a, p->offset, n * sizeof *p->offset);
	knit__free(p->a, p->best_offset, n * sizeof *p->best_offset);
	knit__free(p->a, p->waiting, n * sizeof *p->waiting);
}

/* What it allocated before a failure is for close_placer. */
static knit_status open_placer(placer *p, uint64_t align, knit_diag *d) {
	const uint32_t n = p->count;

	p->best_peak = UINT64_MAX;
	p->size = knit__alloc_array(p->a, n, sizeof *p->size);
	p->pressure = knit__alloc_array(p->a, n, sizeof *p->pressure);
	p->keys = knit__alloc_array(p->a, n, sizeof *p->keys);
	p->line.taken = knit__alloc_array(p->a, n, sizeof *p->line.taken);
	p->order = knit__alloc_array(p->a, n, sizeof *p->order);
	p->offset = knit__alloc_array(p->a, n, sizeof *p->offset);
	p->best_offset = knit__alloc_array(p->a, n, sizeof *p->best_offset);
	p->waiting = knit__alloc_array(p->a, n, sizeof *p->waiting);
	if (!p->size || !p->pressure || !p->keys || !p->line.taken || !p->order || !p->offset || !p->best_offset || !p->waiting)
		return knit__fail_memory(d, "memory plan", (uint64_t)n * sizeof *p->line.taken);

	for (uint32_t i = 0; i < n; ++i) {
		if (p->blocks[i].first > p->blocks[i].last)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "memory plan: block %u lives from step %u to step %u", i,
			                  p->blocks[i].first, p->blocks[i].last);
		if (!knit__align_u64(p->blocks[i].bytes, align, &p->size[i]) ||
		    !knit__add_u64(p->size_sum, p->size[i], &p->size_sum) || p->size_sum > MAX_BYTES)
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "memory plan: the sizes of %u blocks exceed 2^60 bytes", n);
	}

	return measure(p, d);
}

/* ---- placing ------------------------------------------------------------------------------------------------------ */

/* Gives up, returning false, once the peak reaches that of the best plan. */
static bool place_in_order(placer *p, knit_gap_rule rule, uint64_t *peak) {
	*peak = 0;
	p->line.count = 0;
	for (uint32_t i = 0; i < p->count; ++i) {
		const uint32_t block = p->order[i];
		const uint64_t size = p->size[block];
		uint64_t at = 0;

		if (size != 0) {
			at = knit__memory_line_gap(&p->line, &p->blocks[block], size, rule);
			knit__memory_line_insert(&p->line, &p->blocks[block], size, at);
		}
		p->offset[block] = at;
		if (at + size > *peak)
			*peak = at + size;
		if (*peak >= p->best_peak)
			return false;
	}
	return true;
}

/* `now` ends at `end`: moves list[from .. to) down by `shift` entries, lifting what is alive with it. Returns where the
 * lowest one of them and of list[lowest] lies. */
static uint32_t lift(waiting *list, uint32_t from, uint32_t to, uint32_t shift, const waiting *now, uint64_t end,
                     uint32_t lowest) {
	uint64_t low = lowest < from ? list[lowest].low : UINT64_MAX;

	for (uint32_t i = from; i < to; ++i) {
		waiting w = list[i];

		if (w.first <= now->last && now->first <= w.last && end > w.low)
			w.low = end;
		if (w.low < low) {
			low = w.low;
			lowest = i - shift;
		}
		list[i - shift] = w;
	}
	return lowest;
}

/* Places the block that can lie lowest, time and again; among equals the one earlier in p->order. Gives up, returning
 * false, once the peak reaches that of the best plan. */
static bool place_skyline(placer *p, uint64_t *peak) {
	waiting *list = p->waiting;
	uint32_t n = 0, pick = 0;

	*peak = 0;
	for (uint32_t i = 0; i < p->count; ++i) {
		const uint32_t block = p->order[i];

		p->offset[block] = 0;
		if (p->size[block] != 0)
			list[n++] = (waiting){0, p->blocks[block].first, p->blocks[block].last, block};
	}

	for (; n > 0; --n) {
		const waiting now = list[pick];
		const uint64_t end = now.low + p->size[now.block];
		uint32_t lowest;

		p->offset[now.block] = now.low;
		*peak = end > *peak ? end : *peak;
		if (*peak >= p->best_peak)
			return false;

		lowest = lift(list, 0, pick, 0, &now, end, UINT32_MAX);
		pick = lift(list, pick + 1, n, 1, &now, end, lowest);
	}
	return true;
}

static void keep_best(placer *p, uint64_t peak) {
	p->best_peak = peak;
	memcpy(p->best_offset, p->offset, p->count * sizeof *p->offset);
}

/* ---- fixed orders ------------------------------------------------------------------------------------------------- */

static void take_order(placer *p) {
	for (uint32_t i = 0; i < p->count; ++i)
		p->order[i] = p->keys[i].block;
}

static void place_greedy(placer *p) {
	uint64_t peak;

	for (int order = 0; order < KNIT_ORDERS && p->best_peak > p->lower_bound; ++order) {
		knit__memory_keys((knit_memory_order)order, p->blocks, p->size, p->pressure, p->count, p->keys);
		take_order(p);
		for (int rule = 0; rule < KNIT_GAP_RULES; ++rule) {
			if (place_in_order(p, (knit_gap_rule)rule, &peak))
				keep_best(p, peak);
		}
		if (place_skyline(p, &peak))
			keep_best(p, peak);
	}
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

/* What an allocator at run time would need: blocks as they come, each into the best gap. */
static uint64_t place_as_they_come(placer *p) {
	uint64_t peak;

	for (uint32_t i = 0; i < p->count; ++i)
		p->keys[i] = (knit_memory_key){p->blocks[i].first, 0, i};
	knit__memory_keys_sort(p->keys, p->count);
	take_order(p);
	(void)place_in_order(p, KNIT_GAP_BEST, &peak);
	return peak;
}

static knit_status search_exactly(placer *p, uint64_t budget, knit_block_plan *out, knit_diag *d) {
	knit_memory_search m = {.a = p->a,
	                        .blocks = p->blocks,
	                        .size = p->size,
	                        .count = p->count,
	                        .bound = p->lower_bound,
	                        .budget = budget,
	                        .offset = p->best_offset,
	                        .peak = p->best_peak};
	const knit_status status = knit__memory_search(&m, d);

	p->best_peak = m.peak;
	out->search_work = m.work;
	out->optimal = m.proven;
	return status;
}

static knit_status place_all(placer *p, uint64_t budget, knit_block_plan *out, knit_diag *d) {
	out->in_order = place_as_they_come(p);
	keep_best(p, out->in_order);
	place_greedy(p);
	out->greedy = p->best_peak;
	return search_exactly(p, budget, out, d);
}

knit_status knit__memory_place(const knit_allocator *a, knit_block *blocks, uint32_t count, uint64_t align,
                               uint64_t search_budget, knit_block_plan *out, knit_diag *d) {
	placer p = {.a = a, .blocks = blocks, .count = count};
	knit_status status;

	*out = (knit_block_plan){.optimal = true};
	if (align == 0 || (align & (align - 1)) != 0)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "memory plan: alignment %llu is not a power of two",
		                  (unsigned long long)align);
	if (count == 0)
		return KNIT_OK;

	status = open_placer(&p, align, d);
	if (status == KNIT_OK)
		status = place_all(&p, search_budget, out, d);
	if (status == KNIT_OK) {
		for (uint32_t i = 0; i < count; ++i)
			blocks[i].offset = p.best_offset[i];
		out->peak = p.best_peak;
		out->lower_bound = p.lower_bound;
		out->unshared = p.size_sum;
	}
	close_placer(&p);
	return status;
}

knit_status knit_plan_blocks(knit_context *ctx, knit_block *blocks, size_t count, uint64_t align, knit_block_plan *out,
                             knit_diag *diag) {
	if (!ctx || !out || (!blocks && count))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "knit_plan_blocks: %s is NULL",
		                  !ctx ? "the context" : !out ? "out" : "blocks");
	*out = (knit_block_plan){0};
	if (count > UINT32_MAX / 2)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "knit_plan_blocks: %zu blocks, at most %u", count, UINT32_MAX / 2);
	return knit__memory_place(&ctx->a, blocks, (uint32_t)count, align, KNIT_SEARCH_BUDGET, out, diag);
}
