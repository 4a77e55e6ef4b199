/* Owns one depth-first search for a placement of blocks below a height. Refuses to know steps, bytes' meaning and which
 * height or order is worth trying: memory_search.c decides that.
 *
 * Blocks are laid bottom-up, each on the floor or on another block: any placement can be pushed down into that form. Of
 * each section of time the search knows its floor (nothing more can lie below) and how many bytes are still to come; the
 * two together never exceed the height. Where neighbouring sections have the same floor and none beside it is lower, only
 * blocks that lie flat on it can come next, so the search takes one such section, branches over the blocks that could
 * cover it at this floor, and last over "none of them", which raises the floor. A raised floor lifts the blocks above it,
 * and those lift other floors (memory_tree_state.c). Sections that often fail are decided first (their weight grows with each
 * failure), and states that were searched to the end are not searched again (a table of their hashes). */
#include "memory_tree_state.h"

#include <string.h>

/* ---- choosing ----------------------------------------------------------------------------------------------------- */

/* Whether blocks lie over the boundary between a section and the one before it. */
static bool joined(const knit_tree *t, uint32_t s) {
	return s > 0 && s < t->section_count && t->sections[s - 1].joint > 0;
}

/* Finds the runs of sections on one floor that are lower than both neighbours, where these share blocks with them. */
static void find_runs(knit_tree *t) {
	knit_tree_section *s = t->sections;
	uint32_t end;

	for (uint32_t i = 0; i < t->section_count; i = end) {
		end = i + 1;
		if (s[i].live == 0) {
			s[i].run = KNIT_TREE_NO_RUN;
			continue;
		}
		while (joined(t, end) && s[end].floor == s[i].floor)
			++end;

		const bool low = !(joined(t, i) && s[i - 1].floor < s[i].floor) && !(joined(t, end) && s[end].floor < s[i].floor);

		for (uint32_t k = i; k < end; ++k)
			s[k].run = low ? i : KNIT_TREE_NO_RUN;
	}
	t->work += t->section_count;
}

/* Collects the blocks that can lie on the floor of a run; false where there is none. */
static bool find_flat(knit_tree *t, uint32_t *count) {
	*count = 0;
	memset(t->options, 0, t->section_count * sizeof *t->options);
	for (uint32_t i = 0; i < t->count; ++i) {
		const knit_tree_block *b = &t->blocks[i];
		const uint32_t run = t->sections[b->lo].run;

		if (t->placed[i] || run == KNIT_TREE_NO_RUN || run != t->sections[b->hi - 1].run || t->low[i] != t->sections[run].floor)
			continue;
		t->flat[(*count)++] = i;
		++t->options[b->lo];
		--t->options[b->hi];
	}
	t->work += t->count;
	return *count > 0;
}

/* The section with the fewest ways to go on, for its weight. */
static uint32_t find_narrowest(const knit_tree *t) {
	uint64_t best_options = UINT32_MAX, best_weight = 1;
	int64_t covered = 0;
	uint32_t best = 0;

	for (uint32_t i = 0; i < t->section_count; ++i) {
		const knit_tree_section *s = &t->sections[i];

		covered += t->options[i];
		if (covered == 0 || s->run == KNIT_TREE_NO_RUN)
			continue;

		const uint64_t options = (uint64_t)covered + (s->rest < t->height - s->floor);

		if (options * best_weight < best_options * s->weight) {
			best_options = options;
			best_weight = s->weight;
			best = i;
		}
	}
	return best;
}

static bool covers(const knit_tree_block *b, uint32_t s) { return b->lo <= s && s < b->hi; }

/* A block alone between two boundaries that no block lies over, at the bottom: any solution can be turned into one that
 * has it there. */
static bool is_slab(const knit_tree *t, const knit_tree_block *b) { return !joined(t, b->lo) && !joined(t, b->hi); }

/* Of equal blocks only the first one is worth trying. */
static bool tried_already(const knit_tree *t, const knit_tree_frame *f, const knit_tree_block *b) {
	for (uint32_t i = f->begin; i < f->end; ++i) {
		const knit_tree_block *x = &t->blocks[t->choices[i]];

		if (x->lo == b->lo && x->hi == b->hi && x->size == b->size)
			return true;
	}
	return false;
}

/* If no block lies on the floor of f->section, what is the next height at which one could? Either a higher floor beside
 * it, or the top of another block on this floor, that keeps each of the blocks from coming down. 0: not possible. */
static uint64_t next_floor(knit_tree *t, const knit_tree_frame *f, uint32_t flat_count) {
	const uint64_t floor = t->sections[f->section].floor;
	uint64_t lowest = UINT64_MAX;

	for (uint32_t i = 0; i < flat_count; ++i) {
		const knit_tree_block *b = &t->blocks[t->flat[i]];
		uint64_t smallest = UINT64_MAX;

		if (!covers(b, f->section))
			continue;
		for (uint32_t k = 0; k < flat_count; ++k) {
			const knit_tree_block *x = &t->blocks[t->flat[k]];

			if (x->lo < b->hi && b->lo < x->hi && !covers(x, f->section) && x->size < smallest)
				smallest = x->size;
		}
		t->work += flat_count;
		if (smallest == UINT64_MAX)
			return 0; /* nothing could keep it from coming down */
		lowest = floor + smallest < lowest ? floor + smallest : lowest;
	}
	for (uint32_t k = t->crossing_first[f->section]; k < t->crossing_first[f->section + 1]; ++k) {
		const uint32_t block = t->crossing[k];

		if (!t->placed[block] && t->low[block] > floor && t->low[block] < lowest)
			lowest = t->low[block];
	}
	t->work += t->crossing_first[f->section + 1] - t->crossing_first[f->section];
	return lowest <= t->height && t->sections[f->section].rest <= t->height - lowest ? lowest : 0;
}

/* Highest rank first; an insertion sort, because there are few. */
static bool add_choice(knit_tree *t, knit_tree_frame *f, uint32_t block) {
	uint32_t at = f->end;

	if (!knit__grow(t->a, (void **)&t->choices, &t->choice_cap, f->end + 1, sizeof *t->choices)) {
		t->no_memory = true;
		return false;
	}
	for (; at > f->begin && t->rank[t->choices[at - 1]] < t->rank[block]; --at)
		t->choices[at] = t->choices[at - 1];
	t->choices[at] = block;
	++f->end;
	return true;
}

/* Fills in which section to decide and how; false where there is no way to go on. */
static bool decide(knit_tree *t, knit_tree_frame *f) {
	uint32_t flat_count, kept = 0;

	find_runs(t);
	if (!find_flat(t, &flat_count))
		return false;
	f->section = find_narrowest(t);
	for (uint32_t i = 0; i < flat_count; ++i)
		if (t->sections[t->blocks[t->flat[i]].lo].run == t->sections[f->section].run)
			t->flat[kept++] = t->flat[i];

	for (uint32_t i = 0; i < kept; ++i)
		if (is_slab(t, &t->blocks[t->flat[i]]))
			return add_choice(t, f, t->flat[i]);
	for (uint32_t i = 0; i < kept; ++i) {
		const knit_tree_block *b = &t->blocks[t->flat[i]];

		if (covers(b, f->section) && !tried_already(t, f, b) && !add_choice(t, f, t->flat[i]))
			return false;
	}
	f->otherwise = next_floor(t, f, kept);
	return true;
}

/* ---- searching ---------------------------------------------------------------------------------------------------- */

static bool enter(knit_tree *t) {
	if (t->dead[t->hash % KNIT_TREE_DEAD] == t->hash)
		return false;
	if (!knit__grow(t->a, (void **)&t->frames, &t->frame_cap, t->depth + 1, sizeof *t->frames)) {
		t->no_memory = true;
		return false;
	}

	const uint32_t begin = t->depth > 0 ? t->frames[t->depth - 1].end : 0;
	knit_tree_frame f = {.hash = t->hash, .begin = begin, .next = begin, .end = begin, .changes = t->change_count};

	if (!decide(t, &f))
		return false;
	t->frames[t->depth++] = f;
	return true;
}

/* Takes the next way of the deepest decision; false where it leads nowhere. */
static bool try_next(knit_tree *t, knit_tree_frame *f) {
	bool ok;

	if (f->next < f->end) {
		const uint32_t block = t->choices[f->next++];

		ok = knit__tree_place(t, block, t->low[block]);
	} else {
		ok = knit__tree_raise(t, f->section, f->otherwise);
		f->otherwise = 0;
	}
	return knit__tree_settle(t) && ok;
}

knit_tree_result knit__tree_search(knit_tree *t, uint64_t height, const uint64_t *rank, uint64_t budget, uint64_t *work) {
	bool found = t->count == 0;

	t->height = height;
	t->rank = rank;
	t->work = 0;
	knit__tree_start(t);
	for (uint32_t s = 0; s < t->section_count; ++s)
		if (!knit__tree_fits(t, &t->sections[s]))
			return KNIT_TREE_NONE;

	if (!found)
		(void)enter(t);
	while (!found && !t->no_memory && t->depth > 0 && t->work < budget) {
		knit_tree_frame *f = &t->frames[t->depth - 1];

		knit__tree_go_back(t, f->changes);
		if (f->next == f->end && f->otherwise == 0) {
			t->dead[f->hash % KNIT_TREE_DEAD] = f->hash;
			--t->depth;
			continue;
		}
		if (!try_next(t, f))
			continue;
		found = t->placed_count == t->count;
		if (!found)
			(void)enter(t);
	}
	*work += t->work;
	if (t->no_memory) {
		t->no_memory = false;
		return KNIT_TREE_NO_MEMORY;
	}
	if (found)
		return KNIT_TREE_FOUND;
	return t->depth == 0 ? KNIT_TREE_NONE : KNIT_TREE_CUT;
}
