/* Owns the contract of one depth-first search: whether blocks over sections of time fit below a height. Used by
 * memory_search.c alone. */
#ifndef KNIT_MEMORY_TREE_H
#define KNIT_MEMORY_TREE_H

#include "base.h"

/* A block that lives in sections [lo, hi), lo < hi, of `size` > 0 bytes. */
typedef struct knit_tree_block { uint32_t lo, hi; uint64_t size; } knit_tree_block;

typedef enum knit_tree_result {
	KNIT_TREE_FOUND,     /* `place` holds the offsets */
	KNIT_TREE_NONE,      /* proven: there is no placement of that height */
	KNIT_TREE_CUT,       /* the budget is spent */
	KNIT_TREE_NO_MEMORY,
} knit_tree_result;

typedef struct knit_tree knit_tree;

/* NULL where memory ran out. `blocks` must outlive the tree. */
knit_tree *knit__tree_create(const knit_allocator *a, const knit_tree_block *blocks, uint32_t count, uint32_t sections);
void knit__tree_destroy(knit_tree *t);

/* Places all blocks below `height`, or shows that none can: blocks with a higher rank are tried first. Adds to *work what
 * it spent, in looked-at blocks and sections, and gives up after `budget` of it. What was learnt about sections that fail
 * often stays for the next call, until knit__tree_forget; so does which states lead nowhere, for calls of equal height. */
knit_tree_result knit__tree_search(knit_tree *t, uint64_t height, const uint64_t *rank, uint64_t budget, uint64_t *work);
void knit__tree_forget(knit_tree *t);
/* One per block; valid after FOUND, until the next search. */
const uint64_t *knit__tree_places(const knit_tree *t);

#endif
