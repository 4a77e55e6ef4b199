/* Owns the placement of bare blocks (bytes, lifetime) at offsets of one arena. Refuses to know what the blocks hold.
 *
 * Three stages, each only lowering the peak, each skipped once the peak meets the lower bound:
 *   1. greedy: the blocks in several fixed orders, each put into the best gap among the blocks alive with it;
 *   2. local search: blocks at the peak are moved earlier in the best order, under a fixed budget of work;
 * and a stage that searches exactly would follow as the third, from the same `placer` and its `best`.
 * Everything is deterministic: budgets count looked-at blocks, never time. */
#include "memory_plan.h"

#include <stdlib.h>
#include <string.h>

#define UNPLACED UINT64_MAX
/* Looked-at blocks that the local search may spend: some 10 ms. */
#define SEARCH_BUDGET UINT64_C(6000000)
/* Lists of neighbours are kept where they are short: on average below 1/16 of all blocks. */
#define SPARSE_SHARE 16

/* Which gap a block takes: the one that it fills best, or the lowest one. */
typedef enum gap_rule { GAP_BEST, GAP_FIRST, GAP_RULES } gap_rule;

/* In which order blocks are placed: largest first by ... */
typedef enum block_order {
	ORDER_SIZE,
	ORDER_AREA, /* size x lifetime */
	ORDER_LIFETIME,
	ORDER_PRESSURE, /* bytes alive at the fullest step of the lifetime */
	ORDER_PRESSURE_AREA,
	ORDER_START, /* ascending: the order of execution */
	ORDER_END,   /* descending: execution run backwards */
	ORDER_COUNT
} block_order;

typedef struct sort_key { uint64_t major, minor; uint32_t block; } sort_key;
typedef struct taken { uint64_t begin, end; uint32_t first, last, block; } taken;

typedef struct placer {
	const knit_allocator *a;
	uint32_t count;
	const knit_block *blocks;
	uint64_t *size;     /* aligned */
	uint64_t *pressure; /* bytes alive at the fullest step of a block's lifetime */
	uint64_t lower_bound, size_sum;
	uint32_t *neighbour, *neighbour_begin; /* blocks alive with block i: [begin[i], begin[i + 1]); NULL: not listed */
	uint64_t neighbour_count;
	sort_key *keys;
	taken *line;  /* where neighbours are not listed: all placed blocks by offset */
	taken *among; /* the placed blocks alive with the one being placed, by offset */
	uint32_t line_count;
	uint32_t *order, *rank; /* rank[order[i]] == i */
	uint64_t *offset;
	uint64_t work;
	uint32_t *best_order;
	uint64_t *best_offset;
	uint64_t best_peak;
	gap_rule best_rule;
} placer;

static bool alive_together(const knit_block *x, const knit_block *y) {
	return x->first <= y->last && y->first <= x->last;
}

/* ---- what is known before anything is placed ------------------------------------------------------------------------ */

static int compare_keys(const void *x, const void *y) {
	const sort_key *p = x, *q = y;

	if (p->major != q->major)
		return p->major < q->major ? -1 : 1;
	if (p->minor != q->minor)
		return p->minor < q->minor ? -1 : 1;
	return p->block < q->block ? -1 : p->block > q->block;
}

/* Sweeps over the blocks by start. Bytes alive grow only where a block starts, so the loads at starts are all that the
 * lower bound and the pressures need. */
static knit_status measure(placer *p, knit_diag *d) {
	sort_key *starts = p->keys, *ends = knit__alloc_array(p->a, p->count, sizeof *ends);
	uint64_t *load = knit__alloc_array(p->a, p->count, sizeof *load), alive = 0;
	knit_status status = KNIT_OK;

	if (!ends || !load) {
		status = knit__fail_memory(d, "memory plan", (uint64_t)p->count * sizeof *ends);
		goto done;
	}

	for (uint32_t i = 0; i < p->count; ++i) {
		starts[i] = (sort_key){p->blocks[i].first, 0, i};
		ends[i] = (sort_key){p->blocks[i].last, 0, i};
	}
	qsort(starts, p->count, sizeof *starts, compare_keys);
	qsort(ends, p->count, sizeof *ends, compare_keys);

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
		for (uint32_t k = i; k < p->count && starts[k].major <= p->blocks[block].last; ++k) {
			if (load[k] > p->pressure[block])
				p->pressure[block] = load[k];
			p->neighbour_count += k != i ? 2 : 0;
		}
	}

done:
	knit__free(p->a, ends, (size_t)p->count * sizeof *ends);
	knit__free(p->a, load, (size_t)p->count * sizeof *load);
	return status;
}

/* Lists for every block the blocks alive with it; p->keys still holds the blocks by start. */
static knit_status list_neighbours(placer *p, knit_diag *d) {
	uint32_t *fill = NULL;

	if (p->neighbour_count > UINT32_MAX || p->neighbour_count * SPARSE_SHARE > (uint64_t)p->count * p->count)
		return KNIT_OK;

	p->neighbour_begin = knit__alloc_array(p->a, (size_t)p->count + 1, sizeof *p->neighbour_begin);
	p->neighbour = knit__alloc_array(p->a, (size_t)p->neighbour_count, sizeof *p->neighbour);
	fill = knit__alloc_array(p->a, p->count, sizeof *fill);
	if (!p->neighbour_begin || !p->neighbour || !fill) {
		knit__free(p->a, fill, (size_t)p->count * sizeof *fill);
		return knit__fail_memory(d, "memory plan", p->neighbour_count * sizeof *p->neighbour);
	}

	/* Twice over the same pairs: first to count, then to fill in. */
	for (int filling = 0; filling < 2; ++filling) {
		for (uint32_t i = 0; i < p->count; ++i) {
			const uint32_t x = p->keys[i].block;

			for (uint32_t k = i + 1; k < p->count && p->keys[k].major <= p->blocks[x].last; ++k) {
				const uint32_t y = p->keys[k].block;

				if (filling) {
					p->neighbour[fill[x]++] = y;
					p->neighbour[fill[y]++] = x;
				} else {
					++p->neighbour_begin[x + 1];
					++p->neighbour_begin[y + 1];
				}
			}
		}
		for (uint32_t i = 0; i < p->count && !filling; ++i) {
			p->neighbour_begin[i + 1] += p->neighbour_begin[i];
			fill[i] = p->neighbour_begin[i];
		}
	}
	knit__free(p->a, fill, (size_t)p->count * sizeof *fill);
	return KNIT_OK;
}

static void close_placer(placer *p) {
	const size_t n = p->count;

	knit__free(p->a, p->size, n * sizeof *p->size);
	knit__free(p->a, p->pressure, n * sizeof *p->pressure);
	knit__free(p->a, p->neighbour, (size_t)p->neighbour_count * sizeof *p->neighbour);
	knit__free(p->a, p->neighbour_begin, (n + 1) * sizeof *p->neighbour_begin);
	knit__free(p->a, p->keys, n * sizeof *p->keys);
	knit__free(p->a, p->line, n * sizeof *p->line);
	knit__free(p->a, p->among, (n + 1) * sizeof *p->among);
	knit__free(p->a, p->order, n * sizeof *p->order);
	knit__free(p->a, p->rank, n * sizeof *p->rank);
	knit__free(p->a, p->offset, n * sizeof *p->offset);
	knit__free(p->a, p->best_order, n * sizeof *p->best_order);
	knit__free(p->a, p->best_offset, n * sizeof *p->best_offset);
}

/* What it allocated before a failure is for close_placer. */
static knit_status open_placer(placer *p, uint64_t align, knit_diag *d) {
	const uint32_t n = p->count;
	knit_status status;

	p->best_peak = UINT64_MAX;
	p->size = knit__alloc_array(p->a, n, sizeof *p->size);
	p->pressure = knit__alloc_array(p->a, n, sizeof *p->pressure);
	p->keys = knit__alloc_array(p->a, n, sizeof *p->keys);
	p->line = knit__alloc_array(p->a, n, sizeof *p->line);
	p->among = knit__alloc_array(p->a, (size_t)n + 1, sizeof *p->among);
	p->order = knit__alloc_array(p->a, n, sizeof *p->order);
	p->rank = knit__alloc_array(p->a, n, sizeof *p->rank);
	p->offset = knit__alloc_array(p->a, n, sizeof *p->offset);
	p->best_order = knit__alloc_array(p->a, n, sizeof *p->best_order);
	p->best_offset = knit__alloc_array(p->a, n, sizeof *p->best_offset);
	if (!p->size || !p->pressure || !p->keys || !p->line || !p->among || !p->order || !p->rank || !p->offset ||
	    !p->best_order || !p->best_offset)
		return knit__fail_memory(d, "memory plan", (uint64_t)n * sizeof *p->line);

	for (uint32_t i = 0; i < n; ++i) {
		if (p->blocks[i].first > p->blocks[i].last)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "memory plan: block %u lives from step %u to step %u", i,
			                  p->blocks[i].first, p->blocks[i].last);
		if (!knit__align_u64(p->blocks[i].bytes, align, &p->size[i]) ||
		    !knit__add_u64(p->size_sum, p->size[i], &p->size_sum))
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "memory plan: the sizes of %u blocks exceed 64 bits", n);
	}

	status = measure(p, d);
	return status != KNIT_OK ? status : list_neighbours(p, d);
}

/* ---- placing ------------------------------------------------------------------------------------------------------ */

/* Collects in p->among the placed blocks alive with `block`, by offset. */
static uint32_t collect(placer *p, uint32_t block) {
	const knit_block *b = &p->blocks[block];
	taken *among = p->among;
	uint32_t n = 0;

	if (!p->neighbour) {
		/* Written unconditionally, kept conditionally: the branch would be a coin toss. `among` has room for one more. */
		for (uint32_t i = 0; i < p->line_count; ++i) {
			among[n] = p->line[i];
			n += (p->line[i].first <= b->last) & (b->first <= p->line[i].last);
		}
		p->work += p->line_count;
		return n;
	}

	for (uint32_t i = p->neighbour_begin[block]; i < p->neighbour_begin[block + 1]; ++i) {
		const uint32_t other = p->neighbour[i];
		const uint64_t begin = p->offset[other];
		uint32_t at = n;

		if (begin == UNPLACED || p->size[other] == 0)
			continue;
		for (; at > 0 && among[at - 1].begin > begin; --at)
			among[at] = among[at - 1];
		p->work += n++ - at;
		among[at].begin = begin;
		among[at].end = begin + p->size[other];
	}
	p->work += 1 + p->neighbour_begin[block + 1] - p->neighbour_begin[block];
	return n;
}

static uint64_t find_gap(const taken *among, uint32_t count, uint64_t size, gap_rule rule) {
	uint64_t top = 0, smallest = UINT64_MAX, at = UNPLACED;

	for (uint32_t i = 0; i < count; ++i) {
		if (among[i].begin > top) {
			const uint64_t gap = among[i].begin - top;

			if (gap >= size && gap < smallest) {
				smallest = gap;
				at = top;
				if (rule == GAP_FIRST || gap == size)
					return at;
			}
		}
		if (among[i].end > top)
			top = among[i].end;
	}
	return at != UNPLACED ? at : top;
}

static void line_insert(placer *p, uint32_t block, uint64_t begin) {
	const knit_block *b = &p->blocks[block];
	uint32_t lo = 0, hi = p->line_count;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (p->line[mid].begin < begin)
			lo = mid + 1;
		else
			hi = mid;
	}
	memmove(&p->line[lo + 1], &p->line[lo], (p->line_count - lo) * sizeof *p->line);
	p->line[lo] = (taken){begin, begin + p->size[block], b->first, b->last, block};
	++p->line_count;
}

/* Places p->order from position `from` on; what stands before it stays where it is. Gives up, returning false, once
 * the peak would exceed `limit`. */
static bool place_from(placer *p, uint32_t from, gap_rule rule, uint64_t limit, uint64_t *peak) {
	uint32_t kept = 0;

	*peak = 0;
	for (uint32_t i = 0; i < from; ++i) {
		const uint64_t end = p->offset[p->order[i]] + p->size[p->order[i]];

		*peak = end > *peak ? end : *peak;
	}
	for (uint32_t i = from; i < p->count; ++i)
		p->offset[p->order[i]] = UNPLACED;
	for (uint32_t i = 0; i < p->line_count; ++i) {
		if (p->rank[p->line[i].block] < from)
			p->line[kept++] = p->line[i];
	}
	p->line_count = kept;

	for (uint32_t i = from; i < p->count; ++i) {
		const uint32_t block = p->order[i];
		const uint64_t size = p->size[block];
		uint64_t at = 0;

		if (size != 0) {
			at = find_gap(p->among, collect(p, block), size, rule);
			if (!p->neighbour)
				line_insert(p, block, at);
		}
		p->offset[block] = at;
		if (at + size > *peak)
			*peak = at + size;
		if (*peak > limit)
			return false;
	}
	return true;
}

static void keep_best(placer *p, gap_rule rule, uint64_t peak) {
	p->best_peak = peak;
	p->best_rule = rule;
	memcpy(p->best_order, p->order, p->count * sizeof *p->order);
	memcpy(p->best_offset, p->offset, p->count * sizeof *p->offset);
}

/* ---- stage 1: fixed orders ------------------------------------------------------------------------------------------ */

static uint64_t product(uint64_t x, uint64_t y) {
	uint64_t out = UINT64_MAX; /* only an order hangs on it: saturating is enough */

	(void)knit__mul_u64(x, y, &out);
	return out;
}

static void sort_blocks(placer *p, block_order order) {
	for (uint32_t i = 0; i < p->count; ++i) {
		const knit_block *b = &p->blocks[i];
		const uint64_t lifetime = (uint64_t)b->last - b->first + 1, size = p->size[i];
		uint64_t major = 0, minor = size;

		switch (order) {
		case ORDER_SIZE:
			major = size;
			minor = lifetime;
			break;
		case ORDER_AREA:
			major = product(size, lifetime);
			break;
		case ORDER_LIFETIME:
			major = lifetime;
			break;
		case ORDER_PRESSURE:
			major = p->pressure[i];
			break;
		case ORDER_PRESSURE_AREA:
			major = p->pressure[i];
			minor = product(size, lifetime);
			break;
		case ORDER_START:
			major = UINT32_MAX - b->first;
			break;
		case ORDER_END:
			major = b->last;
			break;
		case ORDER_COUNT:
			break;
		}
		p->keys[i] = (sort_key){UINT64_MAX - major, UINT64_MAX - minor, i};
	}
	qsort(p->keys, p->count, sizeof *p->keys, compare_keys);
	for (uint32_t i = 0; i < p->count; ++i) {
		p->order[i] = p->keys[i].block;
		p->rank[p->order[i]] = i;
	}
}

static void place_greedy(placer *p) {
	for (int order = 0; order < ORDER_COUNT; ++order) {
		sort_blocks(p, (block_order)order);
		for (int rule = 0; rule < GAP_RULES && p->best_peak > p->lower_bound; ++rule) {
			uint64_t peak;

			if (place_from(p, 0, (gap_rule)rule, p->best_peak - 1, &peak))
				keep_best(p, (gap_rule)rule, peak);
		}
	}
}

/* ---- stage 2: local search ------------------------------------------------------------------------------------------ */

static uint32_t next_random(uint64_t *state, uint32_t below) {
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(((*state >> 32) * below) >> 32);
}

static void move_block(placer *p, uint32_t from, uint32_t to) {
	const uint32_t block = p->order[from];

	memmove(&p->order[to + 1], &p->order[to], (from - to) * sizeof *p->order);
	p->order[to] = block;
	for (uint32_t i = to; i <= from; ++i)
		p->rank[p->order[i]] = i;
}

static void restore_order(placer *p, uint32_t from, uint32_t to) {
	const uint32_t block = p->order[to];

	memmove(&p->order[to], &p->order[to + 1], (from - to) * sizeof *p->order);
	p->order[from] = block;
	for (uint32_t i = to; i <= from; ++i)
		p->rank[p->order[i]] = i;
}
