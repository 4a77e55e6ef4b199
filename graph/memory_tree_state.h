/* Owns what the files of the depth-first search share: the state of a search and the changes to it. Nobody else includes
 * it. */
#ifndef KNIT_MEMORY_TREE_STATE_H
#define KNIT_MEMORY_TREE_STATE_H

#include "memory_tree.h"

#define KNIT_TREE_DEAD (1u << 16)  /* states remembered */
#define KNIT_TREE_NO_RUN UINT32_MAX

typedef enum knit_tree_change_kind { KNIT_TREE_FLOOR, KNIT_TREE_LOW, KNIT_TREE_PLACED } knit_tree_change_kind;
/* What to restore when the search goes back. */
typedef struct knit_tree_change { knit_tree_change_kind kind; uint32_t index; uint64_t old; } knit_tree_change;

typedef struct knit_tree_section {
	uint64_t floor; /* everything that is still to come lies above it */
	uint64_t rest;  /* bytes still to come */
	uint32_t live;  /* blocks still to come */
	uint32_t joint; /* of them, those that reach into the next section */
	uint32_t weight;
	uint32_t run; /* of sections on one floor, lower than what is beside it; KNIT_TREE_NO_RUN: none */
	bool is_raised, is_doubtful; /* listed in the array of that name */
} knit_tree_section;

/* A decision: blocks choices[next .. end) on a section's floor are still to be tried, then the floor at `otherwise`. */
typedef struct knit_tree_frame {
	uint64_t hash, otherwise; /* otherwise: 0 for not at all */
	uint32_t section, begin, next, end, changes;
} knit_tree_frame;

struct knit_tree {
	const knit_allocator *a;
	const knit_tree_block *blocks;
	uint32_t count, section_count;
	knit_tree_section *sections, *fresh; /* fresh: with nothing placed */
	uint32_t *crossing_first, *crossing; /* per section, its blocks */
	uint64_t *low;   /* per block not yet placed: it cannot lie lower */
	uint64_t *place; /* per placed block */
	bool *placed;
	uint32_t placed_count;
	uint32_t *raised, *doubtful; /* sections whose floor rose; whose floor may have to rise */
	uint32_t raised_count, doubtful_count;
	uint32_t *flat; /* blocks that could be placed next */
	int32_t *options; /* per section: how many of them cover it, as differences */
	const uint64_t *rank;
	uint64_t height, work;
	uint64_t hash; /* of the present state */
	knit_tree_change *changes;
	knit_tree_frame *frames;
	uint32_t *choices;
	uint32_t change_count, change_cap, depth, frame_cap, choice_cap;
	uint64_t *dead; /* hashes of states without a solution */
	bool no_memory;
};

/* Nothing placed; weights stay. */
void knit__tree_start(knit_tree *t);
/* Undoes the changes from number `changes` on. */
void knit__tree_go_back(knit_tree *t, uint32_t changes);
/* False where memory ran out; no_memory is set then. */
bool knit__tree_place(knit_tree *t, uint32_t block, uint64_t at);
bool knit__tree_raise(knit_tree *t, uint32_t section, uint64_t to);
/* Draws what follows from the changes since the last call. False where some section cannot hold what is to come. */
bool knit__tree_settle(knit_tree *t);
bool knit__tree_fits(const knit_tree *t, const knit_tree_section *s);

#endif
