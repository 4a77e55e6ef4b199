/* Owns the choice of what to search for: which blocks together, below which height, in which order, for how long. The
 * search itself is memory_tree.c. Deterministic: budgets count work, and the only chance is a generator with a fixed seed.
 *
 *   - Time is cut into sections in which the same blocks are alive; only the fullest ones are kept, since what fits there
 *     fits beside it. Parts of time that share no block are searched apart.
 *   - A search either finds its height soon or not at all, so many short ones are made (lengths after Luby, Sinclair and
 *     Zuckerman 1993), each with another order of preference. The first ones aim at the lower bound; if that fails, most
 *     aim between it and the best peak so far: plans that can be perfect become so, others still get better. */
#include "memory_search.h"
#include "memory_tree.h"

#include <stdlib.h>
#include <string.h>

/* Work of the shortest searches. Perfect plans are found early or after a restart, others take longer runs. */
#define BOUND_UNIT UINT64_C(500000)
#define BELOW_UNIT UINT64_C(2000000)
#define DIVES 3                 /* they suffice at least to place all blocks that often */
#define PATIENCE 12             /* this share of the budget goes to one height before another is tried */
#define MAX_CROSSING (1u << 22) /* blocks times sections that they live in: beyond, tables get too large */

typedef struct edge { uint32_t step, block; } edge;

/* What blocks are preferred for. */
typedef enum preference { PREFER_AREA, PREFER_LIFETIME, PREFER_SIZE, PREFER_PRESSURE, PREFERENCES } preference;

/* The blocks of a part of time that shares none with the rest. */
typedef struct part {
	knit_memory_search *m;
	knit_tree_block *blocks;
	uint32_t *block_of; /* numbers of the whole */
	uint64_t *rank, *pressure;
	uint32_t count, sections;
	uint64_t grain; /* divides every size, so every peak that is worth asking for */
	uint64_t peak;
	uint64_t random;
} part;

/* ---- sections ----------------------------------------------------------------------------------------------------- */

static int compare_edges(const void *x, const void *y) {
	const edge *p = x, *q = y;

	if (p->step != q->step)
		return p->step < q->step ? -1 : 1;
	return p->block < q->block ? -1 : p->block > q->block;
}

/* Writes the kept sections' steps, ascending: those at which a block starts, and one ends before the next one starts. */
static uint32_t find_sections(const edge *starts, const edge *ends, uint32_t count, uint32_t *steps) {
	uint32_t sections = 0, e = 0;

	for (uint32_t i = 0; i < count; ++i) {
		const uint32_t step = starts[i].step;

		if (i + 1 < count && starts[i + 1].step == step)
			continue;
		while (e < count && ends[e].step < step)
			++e;
		if (e < count && (i + 1 == count || ends[e].step < starts[i + 1].step))
			steps[sections++] = step;
	}
	return sections;
}

/* The first of the steps that is not below `step`. */
static uint32_t first_from(const uint32_t *steps, uint32_t count, uint64_t step) {
	uint32_t lo = 0, hi = count;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (steps[mid] < step)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* ---- preferences -------------------------------------------------------------------------------------------------- */

static uint64_t next_random(part *p) {
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t saturating(uint64_t x, uint64_t y) {
	uint64_t out = UINT64_MAX; /* only an order hangs on it */

	(void)knit__mul_u64(x, y, &out);
	return out;
}

/* The first order of each kind is the plain one, later ones vary it by a quarter up and down. */
static void rank_blocks(part *p, preference by, bool vary) {
	for (uint32_t i = 0; i < p->count; ++i) {
		const knit_tree_block *b = &p->blocks[i];
		const uint64_t length = b->hi - b->lo, size = b->size / p->grain;
		const uint64_t factor = (vary ? 768 + next_random(p) % 512 : 1024) << 10;
		uint64_t major = 0, minor = 0;

		switch (by) {
		case PREFER_AREA:
			major = saturating(size, length);
			break;
		case PREFER_LIFETIME:
			major = length;
			minor = size;
			break;
		case PREFER_SIZE:
			major = size;
			minor = length;
			break;
		case PREFER_PRESSURE:
			major = p->pressure[i] / p->grain;
			minor = saturating(size, length);
			break;
		case PREFERENCES:
			break;
		}
		p->rank[i] = saturating(major, factor);
		(void)knit__add_u64(p->rank[i], minor < factor ? minor : factor, &p->rank[i]);
	}
}

/* 1 1 2 1 1 2 4 1 1 2 1 1 2 4 8 ... for index 1, 2, 3 ... */
static uint64_t luby(uint64_t index) {
	for (;;) {
		uint64_t power = 1;

		while (2 * power - 1 < index)
			power *= 2;
		if (2 * power - 1 == index)
			return power;
		index -= power - 1;
	}
}

/* ---- one part ----------------------------------------------------------------------------------------------------- */

/* The peak that the present placement has in this part. */
static uint64_t present_peak(const part *p) {
	uint64_t peak = 0;

	for (uint32_t i = 0; i < p->count; ++i) {
		const uint64_t end = p->m->offset[p->block_of[i]] + p->blocks[i].size;

		peak = end > peak ? end : peak;
	}
	return peak;
}

static void keep(part *p, const uint64_t *places) {
	for (uint32_t i = 0; i < p->count; ++i)
		p->m->offset[p->block_of[i]] = places[i];
	p->peak = present_peak(p);
}

/* One of the two aims of search_part, the bound or a height below the present peak: how often it was tried, for how much
 * work in all and at this height; the height lies below the peak by the gap's share-th part. */
typedef struct aim { uint64_t unit, tries, work, spent, share; } aim;

/* Work of the next try at an aim, and the order of preference that goes with it. */
static uint64_t prepare(part *p, knit_tree *t, aim *at) {
	const uint64_t unit = DIVES * (uint64_t)p->count * (p->count + p->sections), left = p->m->budget - p->m->work;
	const uint64_t budget = (unit > at->unit ? unit : at->unit) * luby(at->tries / PREFERENCES + 1);

	if (at->tries % PREFERENCES == 0)
		knit__tree_forget(t);
	rank_blocks(p, (preference)(at->tries % PREFERENCES), at->tries >= PREFERENCES);
	++at->tries;
	return budget < left ? budget : left;
}

/* Lowers the part's peak towards `lowest`, which it need not go below. *proven: none lower than the result exists. */
static knit_status search_part(part *p, knit_tree *t, uint64_t lowest, bool *proven, knit_diag *d) {
	const uint64_t grain = p->grain, patience = p->m->budget / PATIENCE;
	aim bound = {.unit = BOUND_UNIT}, below = {.unit = BELOW_UNIT, .share = 2};

	lowest = (lowest + grain - 1) / grain * grain;
	while (p->peak > lowest && p->m->work < p->m->budget) {
		const uint64_t gap = (p->peak - lowest) / grain, step = gap / below.share;
		const bool for_bound = bound.work < patience || bound.work < below.work / 4;
		const uint64_t height = for_bound ? lowest : p->peak - (step > 1 ? step : 1) * grain, before = p->m->work;
		aim *at = for_bound ? &bound : &below;
		const uint64_t budget = prepare(p, t, at);
		const knit_tree_result result = knit__tree_search(t, height, p->rank, budget, &p->m->work);

		at->work += p->m->work - before;
		at->spent += p->m->work - before;
		if (result == KNIT_TREE_NO_MEMORY)
			return knit__fail_memory(d, "memory plan", p->count * sizeof *p->blocks);
		if (result == KNIT_TREE_NONE)
			lowest = height + grain;
		if (result == KNIT_TREE_FOUND)
			keep(p, knit__tree_places(t));
		if (at == &below && (result != KNIT_TREE_CUT || below.spent > patience)) {
			below.share *= result == KNIT_TREE_CUT ? 2 : 1;
			below.tries = below.spent = 0;
		}
	}
	*proven = p->peak <= lowest;
	return KNIT_OK;
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
	while (b != 0) {
		const uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Bytes alive at the fullest section of each block's life; `total` has room for one number per section. */
static void measure(part *p, uint64_t *total) {
	memset(total, 0, p->sections * sizeof *total);
	p->grain = 0;
	for (uint32_t i = 0; i < p->count; ++i) {
		p->grain = common_divisor(p->grain, p->blocks[i].size);
		for (uint32_t s = p->blocks[i].lo; s < p->blocks[i].hi; ++s)
			total[s] += p->blocks[i].size;
	}
	for (uint32_t i = 0; i < p->count; ++i) {
		p->pressure[i] = 0;
		for (uint32_t s = p->blocks[i].lo; s < p->blocks[i].hi; ++s)
			p->pressure[i] = total[s] > p->pressure[i] ? total[s] : p->pressure[i];
	}
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

typedef struct workspace {
	edge *starts, *ends;
	uint32_t *steps, *block_of;
	knit_tree_block *blocks;
	uint64_t *rank, *pressure, *total;
} workspace;

static bool open_workspace(workspace *w, const knit_memory_search *m) {
	const uint32_t n = m->count;

	w->starts = knit__alloc_array(m->a, n, sizeof *w->starts);
	w->ends = knit__alloc_array(m->a, n, sizeof *w->ends);
	w->steps = knit__alloc_array(m->a, n, sizeof *w->steps);
	w->block_of = knit__alloc_array(m->a, n, sizeof *w->block_of);
	w->blocks = knit__alloc_array(m->a, n, sizeof *w->blocks);
	w->rank = knit__alloc_array(m->a, n, sizeof *w->rank);
	w->pressure = knit__alloc_array(m->a, n, sizeof *w->pressure);
	w->total = knit__alloc_array(m->a, n, sizeof *w->total);
	return w->starts && w->ends && w->steps && w->block_of && w->blocks && w->rank && w->pressure && w->total;
}

static void close_workspace(workspace *w, const knit_memory_search *m) {
	const size_t n = m->count;

	knit__free(m->a, w->starts, n * sizeof *w->starts);
	knit__free(m->a, w->ends, n * sizeof *w->ends);
	knit__free(m->a, w->steps, n * sizeof *w->steps);
	knit__free(m->a, w->block_of, n * sizeof *w->block_of);
	knit__free(m->a, w->blocks, n * sizeof *w->blocks);
	knit__free(m->a, w->rank, n * sizeof *w->rank);
	knit__free(m->a, w->pressure, n * sizeof *w->pressure);
	knit__free(m->a, w->total, n * sizeof *w->total);
}

/* Searches one part if it is higher than it must be. *lowest: what the other parts need anyway. */
static knit_status search_one(part *p, uint64_t *total, uint64_t *lowest, knit_diag *d) {
	uint64_t crossing = 0;
	knit_status status;
	knit_tree *t;
	bool proven;

	p->peak = present_peak(p);
	for (uint32_t i = 0; i < p->count; ++i)
		crossing += p->blocks[i].hi - p->blocks[i].lo;
	proven = false;
	if (p->peak > *lowest && crossing <= MAX_CROSSING) {
		measure(p, total);
		t = knit__tree_create(p->m->a, p->blocks, p->count, p->sections);
		if (!t)
			return knit__fail_memory(d, "memory plan", crossing * sizeof(uint32_t));
		status = search_part(p, t, *lowest, &proven, d);
		knit__tree_destroy(t);
		if (status != KNIT_OK)
			return status;
	}
	if (p->peak > *lowest) { /* the peak of all hangs on this part now */
		*lowest = p->peak;
		p->m->proven = proven;
	}
	return KNIT_OK;
}

/* Cuts the blocks, by start, where a section shares none with the next one. */
static knit_status search_parts(knit_memory_search *m, workspace *w, uint32_t count, uint32_t sections, knit_diag *d) {
	part p = {.m = m, .blocks = w->blocks, .block_of = w->block_of, .rank = w->rank, .pressure = w->pressure, .random = 1};
	uint64_t lowest = m->bound;
	uint32_t begin = 0, end = 0; /* sections of the part */

	m->proven = true;
	for (uint32_t i = 0; i < count; ++i) {
		const uint32_t block = w->starts[i].block;
		const uint32_t lo = first_from(w->steps, sections, m->blocks[block].first);
		const uint32_t hi = first_from(w->steps, sections, (uint64_t)m->blocks[block].last + 1);

		if (lo >= end && p.count > 0) {
			const knit_status status = search_one(&p, w->total, &lowest, d);

			if (status != KNIT_OK)
				return status;
			p.count = 0;
			begin = lo;
		}
		p.block_of[p.count] = block;
		p.blocks[p.count++] = (knit_tree_block){lo - begin, hi - begin, m->size[block]};
		end = hi > end ? hi : end;
		p.sections = end - begin;
	}
	const knit_status status = p.count > 0 ? search_one(&p, w->total, &lowest, d) : KNIT_OK;

	m->peak = lowest;
	return status;
}

knit_status knit__memory_search(knit_memory_search *m, knit_diag *d) {
	workspace w = {0};
	uint32_t count = 0;
	knit_status status;

	m->work = 0;
	m->proven = m->peak <= m->bound;
	if (m->proven || m->budget == 0)
		return KNIT_OK;
	if (open_workspace(&w, m)) {
		for (uint32_t i = 0; i < m->count; ++i) {
			if (m->size[i] == 0)
				continue;
			w.starts[count] = (edge){m->blocks[i].first, i};
			w.ends[count++] = (edge){m->blocks[i].last, i};
		}
		qsort(w.starts, count, sizeof *w.starts, compare_edges);
		qsort(w.ends, count, sizeof *w.ends, compare_edges);
		status = search_parts(m, &w, count, find_sections(w.starts, w.ends, count, w.steps), d);
	} else {
		status = knit__fail_memory(d, "memory plan", m->count * sizeof *w.blocks);
	}
	close_workspace(&w, m);
	return status;
}
