/* Owns the state of one depth-first search and what follows from changing it: floors, the blocks above them, and the proof
 * that a section cannot hold what is still to come. Leaves every choice to memory_tree.c. */
#include "memory_tree_state.h"

#include <string.h>

/* ---- making ------------------------------------------------------------------------------------------------------- */

void knit__tree_destroy(knit_tree *t) {
	if (!t)
		return;

	const knit_allocator *a = t->a;
	const size_t n = t->count, m = t->section_count;

	if (t->crossing_first)
		knit__free(a, t->crossing, t->crossing_first[m] * sizeof *t->crossing);
	knit__free(a, t->crossing_first, (m + 1) * sizeof *t->crossing_first);
	knit__free(a, t->sections, m * sizeof *t->sections);
	knit__free(a, t->fresh, m * sizeof *t->fresh);
	knit__free(a, t->raised, m * sizeof *t->raised);
	knit__free(a, t->doubtful, m * sizeof *t->doubtful);
	knit__free(a, t->options, (m + 1) * sizeof *t->options);
	knit__free(a, t->low, n * sizeof *t->low);
	knit__free(a, t->place, n * sizeof *t->place);
	knit__free(a, t->placed, n * sizeof *t->placed);
	knit__free(a, t->flat, n * sizeof *t->flat);
	knit__free(a, t->changes, t->change_cap * sizeof *t->changes);
	knit__free(a, t->frames, t->frame_cap * sizeof *t->frames);
	knit__free(a, t->choices, t->choice_cap * sizeof *t->choices);
	knit__free(a, t->dead, KNIT_TREE_DEAD * sizeof *t->dead);
	knit__free(a, t, sizeof *t);
}

static void sum_sections(knit_tree *t) {
	for (uint32_t b = 0; b < t->count; ++b) {
		for (uint32_t s = t->blocks[b].lo; s < t->blocks[b].hi; ++s) {
			t->fresh[s].rest += t->blocks[b].size;
			t->fresh[s].joint += s + 1 < t->blocks[b].hi;
			++t->fresh[s].live;
		}
	}
	for (uint32_t s = 0; s < t->section_count; ++s)
		t->crossing_first[s + 1] = t->crossing_first[s] + t->fresh[s].live;
}

static void list_crossing(knit_tree *t) {
	for (uint32_t b = 0; b < t->count; ++b)
		for (uint32_t s = t->blocks[b].lo; s < t->blocks[b].hi; ++s)
			t->crossing[t->crossing_first[s]++] = b;
	for (uint32_t s = t->section_count; s > 0; --s) /* each start has moved to the next one's */
		t->crossing_first[s] = t->crossing_first[s - 1];
	t->crossing_first[0] = 0;
}

knit_tree *knit__tree_create(const knit_allocator *a, const knit_tree_block *blocks, uint32_t count, uint32_t sections) {
	knit_tree *t = knit__alloc_zero(a, sizeof *t);

	if (!t)
		return NULL;
	t->a = a;
	t->blocks = blocks;
	t->count = count;
	t->section_count = sections;
	t->sections = knit__alloc_array(a, sections, sizeof *t->sections);
	t->fresh = knit__alloc_array(a, sections, sizeof *t->fresh);
	t->raised = knit__alloc_array(a, sections, sizeof *t->raised);
	t->doubtful = knit__alloc_array(a, sections, sizeof *t->doubtful);
	t->options = knit__alloc_array(a, (size_t)sections + 1, sizeof *t->options);
	t->crossing_first = knit__alloc_array(a, (size_t)sections + 1, sizeof *t->crossing_first);
	t->low = knit__alloc_array(a, count, sizeof *t->low);
	t->place = knit__alloc_array(a, count, sizeof *t->place);
	t->placed = knit__alloc_array(a, count, sizeof *t->placed);
	t->flat = knit__alloc_array(a, count, sizeof *t->flat);
	t->dead = knit__alloc_array(a, KNIT_TREE_DEAD, sizeof *t->dead);
	if (t->sections && t->fresh && t->raised && t->doubtful && t->options && t->crossing_first && t->low && t->place &&
	    t->placed && t->flat && t->dead) {
		sum_sections(t);
		t->crossing = knit__alloc_array(a, t->crossing_first[sections], sizeof *t->crossing);
	}
	if (!t->crossing) {
		knit__tree_destroy(t);
		return NULL;
	}
	list_crossing(t);
	knit__tree_forget(t);
	return t;
}

void knit__tree_forget(knit_tree *t) {
	for (uint32_t s = 0; s < t->section_count; ++s)
		t->sections[s].weight = 1;
}

const uint64_t *knit__tree_places(const knit_tree *t) { return t->place; }

/* ---- states ------------------------------------------------------------------------------------------------------- */

/* Sums of these stand for what is still to come and how high it must lie at least: all that the outcome hangs on. Two
 * states with one hash would cost a solution at worst, never make a wrong one. */
static uint64_t mix(uint64_t z) { /* splitmix64 */
	z += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t hash_block(uint32_t block) { return mix(block); }

static uint64_t hash_floor(const knit_tree *t, uint32_t s) {
	return t->sections[s].live == 0 ? 0 : mix(t->sections[s].floor * UINT64_C(0x2545f4914f6cdd1d) + (UINT64_C(1) << 32) + s);
}

void knit__tree_start(knit_tree *t) {
	for (uint32_t s = 0; s < t->section_count; ++s) {
		const uint32_t weight = t->sections[s].weight;

		t->sections[s] = t->fresh[s];
		t->sections[s].weight = weight;
	}
	memset(t->low, 0, t->count * sizeof *t->low);
	memset(t->placed, 0, t->count * sizeof *t->placed);
	t->placed_count = t->change_count = t->depth = 0;
	t->hash = mix(~t->height);
	for (uint32_t i = 0; i < t->count; ++i)
		t->hash += hash_block(i);
	for (uint32_t s = 0; s < t->section_count; ++s)
		t->hash += hash_floor(t, s);
}

/* ---- changing the state --------------------------------------------------------------------------------------------- */

static bool note(knit_tree *t, knit_tree_change_kind kind, uint32_t index, uint64_t old) {
	if (!knit__grow(t->a, (void **)&t->changes, &t->change_cap, t->change_count + 1, sizeof *t->changes)) {
		t->no_memory = true;
		return false;
	}
	t->changes[t->change_count++] = (knit_tree_change){kind, index, old};
	return true;
}

static void take_back_block(knit_tree *t, uint32_t block) {
	const knit_tree_block *b = &t->blocks[block];

	t->placed[block] = false;
	--t->placed_count;
	t->hash += hash_block(block);
	for (uint32_t s = b->lo; s < b->hi; ++s) {
		t->sections[s].rest += b->size;
		t->sections[s].joint += s + 1 < b->hi;
		if (t->sections[s].live++ == 0)
			t->hash += hash_floor(t, s);
	}
}

static void set_floor(knit_tree *t, uint32_t s, uint64_t to) {
	t->hash -= hash_floor(t, s);
	t->sections[s].floor = to;
	t->hash += hash_floor(t, s);
}

void knit__tree_go_back(knit_tree *t, uint32_t changes) {
	while (t->change_count > changes) {
		const knit_tree_change *c = &t->changes[--t->change_count];

		if (c->kind == KNIT_TREE_FLOOR)
			set_floor(t, c->index, c->old);
		else if (c->kind == KNIT_TREE_LOW)
			t->low[c->index] = c->old;
		else
			take_back_block(t, c->index);
	}
}

static void doubt(knit_tree *t, uint32_t s) {
	if (t->sections[s].is_doubtful || t->sections[s].live == 0)
		return;
	t->sections[s].is_doubtful = true;
	t->doubtful[t->doubtful_count++] = s;
}

bool knit__tree_raise(knit_tree *t, uint32_t s, uint64_t to) {
	if (!note(t, KNIT_TREE_FLOOR, s, t->sections[s].floor))
		return false;
	set_floor(t, s, to);
	if (!t->sections[s].is_raised) {
		t->sections[s].is_raised = true;
		t->raised[t->raised_count++] = s;
	}
	return true;
}

bool knit__tree_place(knit_tree *t, uint32_t block, uint64_t at) {
	const knit_tree_block *b = &t->blocks[block];

	if (!note(t, KNIT_TREE_PLACED, block, 0))
		return false;
	t->place[block] = at;
	t->placed[block] = true;
	++t->placed_count;
	t->hash -= hash_block(block);
	for (uint32_t s = b->lo; s < b->hi; ++s) {
		t->sections[s].rest -= b->size;
		t->sections[s].joint -= s + 1 < b->hi;
		if (t->sections[s].live == 1)
			t->hash -= hash_floor(t, s);
		--t->sections[s].live;
		if (!knit__tree_raise(t, s, at + b->size))
			return false;
		doubt(t, s);
	}
	return true;
}

/* ---- what follows from a change ------------------------------------------------------------------------------------- */

/* Lifts the blocks over a floor that rose. */
static bool lift_blocks(knit_tree *t, uint32_t s) {
	const uint64_t floor = t->sections[s].floor;

	for (uint32_t k = t->crossing_first[s]; k < t->crossing_first[s + 1]; ++k) {
		const uint32_t block = t->crossing[k];
		const knit_tree_block *b = &t->blocks[block];

		if (t->placed[block] || t->low[block] >= floor)
			continue;
		if (floor + b->size > t->height || !note(t, KNIT_TREE_LOW, block, t->low[block]))
			return false;
		t->low[block] = floor;
		for (uint32_t i = b->lo; i < b->hi; ++i)
			if (t->sections[i].floor < floor)
				doubt(t, i);
	}
	t->work += t->crossing_first[s + 1] - t->crossing_first[s];
	return true;
}

/* A floor is as high as the lowest block that is still to come. */
static bool lift_floor(knit_tree *t, uint32_t s) {
	const uint64_t floor = t->sections[s].floor;
	uint64_t lowest = UINT64_MAX;
	uint32_t k = t->crossing_first[s];

	for (; k < t->crossing_first[s + 1] && lowest > floor; ++k) {
		const uint32_t block = t->crossing[k];

		if (!t->placed[block] && t->low[block] < lowest)
			lowest = t->low[block];
	}
	t->work += k - t->crossing_first[s];
	return lowest <= floor || knit__tree_raise(t, s, lowest);
}

bool knit__tree_fits(const knit_tree *t, const knit_tree_section *s) {
	return s->live == 0 || (s->floor <= t->height && s->rest <= t->height - s->floor);
}

/* False where some section cannot hold what is still to come. */
bool knit__tree_settle(knit_tree *t) {
	bool ok = true;
	uint32_t s = 0;

	while (ok && t->raised_count + t->doubtful_count > 0) {
		if (t->raised_count > 0) {
			s = t->raised[--t->raised_count];
			t->sections[s].is_raised = false;
			ok = knit__tree_fits(t, &t->sections[s]) && (t->sections[s].live == 0 || lift_blocks(t, s));
		} else {
			s = t->doubtful[--t->doubtful_count];
			t->sections[s].is_doubtful = false;
			ok = t->sections[s].live == 0 || lift_floor(t, s);
		}
	}
	if (!ok) {
		++t->sections[s].weight;
		while (t->raised_count > 0)
			t->sections[t->raised[--t->raised_count]].is_raised = false;
		while (t->doubtful_count > 0)
			t->sections[t->doubtful[--t->doubtful_count]].is_doubtful = false;
	}
	return ok;
}
