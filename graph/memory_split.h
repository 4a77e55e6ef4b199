/* Owns the contract of placing blocks in several arenas where a device's buffers are too small for one. Used by
 * memory_plan.c alone. */
#ifndef KNIT_MEMORY_SPLIT_H
#define KNIT_MEMORY_SPLIT_H

#include "memory_plan.h"

typedef struct knit_memory_split {
	uint32_t *arena;  /* per block */
	uint64_t *bytes;  /* per arena, at most the limit */
	uint32_t block_count, arena_count; /* at least one arena */
	uint64_t total; /* of bytes */
	knit_block_plan plan; /* of all blocks in one arena, whatever its size */
} knit_memory_split;

/* Fills the offsets, each in the block's arena: one arena where the limit (0: none) allows it, else as few as greedy
 * orders find, each then searched like an arena of its own. Deterministic. LIMIT where a block alone is above it. */
knit_status knit__memory_split_create(const knit_allocator *a, knit_block *blocks, uint32_t count, uint64_t align,
                                      uint64_t limit, uint64_t search_budget, knit_memory_split *out, knit_diag *d);
void knit__memory_split_clear(knit_memory_split *s, const knit_allocator *a);

#endif
