/* Owns the orders in which blocks are placed and the line of placed ones. Refuses to know what a placement is for. */
#include "memory_line.h"

#include <stdlib.h>
#include <string.h>

/* ---- orders ------------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *x, const void *y) {
	const knit_memory_key *p = x, *q = y;

	if (p->major != q->major)
		return p->major < q->major ? -1 : 1;
	if (p->minor != q->minor)
		return p->minor < q->minor ? -1 : 1;
	return p->block < q->block ? -1 : p->block > q->block;
}

void knit__memory_keys_sort(knit_memory_key *keys, uint32_t count) { qsort(keys, count, sizeof *keys, compare_keys); }

static uint64_t product(uint64_t x, uint64_t y) {
	uint64_t out = UINT64_MAX; /* only an order hangs on it: saturating is enough */

	(void)knit__mul_u64(x, y, &out);
	return out;
}

void knit__memory_keys(knit_memory_order order, const knit_block *blocks, const uint64_t *size, const uint64_t *pressure,
                       uint32_t count, knit_memory_key *keys) {
	for (uint32_t i = 0; i < count; ++i) {
		const knit_block *b = &blocks[i];
		const uint64_t lifetime = (uint64_t)b->last - b->first + 1;
		uint64_t major = 0, minor = size[i];

		switch (order) {
		case KNIT_ORDER_SIZE:
			major = size[i];
			minor = lifetime;
			break;
		case KNIT_ORDER_AREA:
			major = product(size[i], lifetime);
			break;
		case KNIT_ORDER_LIFETIME:
			major = lifetime;
			break;
		case KNIT_ORDER_PRESSURE:
			major = pressure[i];
			break;
		case KNIT_ORDER_PRESSURE_LIFETIME:
			major = pressure[i];
			minor = lifetime;
			break;
		case KNIT_ORDER_START:
			major = UINT32_MAX - b->first;
			break;
		case KNIT_ORDER_END:
			major = b->last;
			break;
		case KNIT_ORDERS:
			break;
		}
		keys[i] = (knit_memory_key){UINT64_MAX - major, UINT64_MAX - minor, i};
	}
	knit__memory_keys_sort(keys, count);
}

/* ---- the line ----------------------------------------------------------------------------------------------------- */

/* The lowest place at or above `at` where no multiple of the limit lies inside the block. */
static uint64_t fitting(const knit_memory_line *line, uint64_t at, uint64_t size) {
	if (line->limit == 0 || at % line->limit + size <= line->limit)
		return at;
	return (at / line->limit + 1) * line->limit;
}

uint64_t knit__memory_line_gap(const knit_memory_line *line, const knit_block *b, uint64_t size, knit_gap_rule rule) {
	uint64_t top = 0, smallest = UINT64_MAX, place = UINT64_MAX;

	for (uint32_t i = 0; i < line->count; ++i) {
		const knit_memory_taken *t = &line->taken[i];

		if (t->first > b->last || b->first > t->last)
			continue;
		const uint64_t at = fitting(line, top, size);
		if (at + size <= t->begin && t->begin - at < smallest) {
			smallest = t->begin - at;
			place = at;
			if (rule == KNIT_GAP_FIRST || smallest == size)
				return place;
		}
		top = t->end > top ? t->end : top;
	}
	return place != UINT64_MAX ? place : fitting(line, top, size);
}

void knit__memory_line_insert(knit_memory_line *line, const knit_block *b, uint64_t size, uint64_t begin) {
	uint32_t lo = 0, hi = line->count;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (line->taken[mid].begin < begin)
			lo = mid + 1;
		else
			hi = mid;
	}
	memmove(&line->taken[lo + 1], &line->taken[lo], (line->count - lo) * sizeof *line->taken);
	line->taken[lo] = (knit_memory_taken){begin, begin + size, b->first, b->last};
	++line->count;
}
