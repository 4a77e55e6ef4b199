/* Owns the contract of the bounded exact search that follows the greedy placement of blocks. Used by memory_place.c
 * alone. */
#ifndef KNIT_MEMORY_SEARCH_H
#define KNIT_MEMORY_SEARCH_H

#include "memory_plan.h"

typedef struct knit_memory_search {
	const knit_allocator *a;
	const knit_block *blocks;
	const uint64_t *size; /* per block, aligned */
	uint32_t count;
	uint64_t bound;  /* no placement can have a lower peak */
	uint64_t budget; /* of looked-at blocks and sections: never time, so that results repeat */
	uint64_t *offset; /* in: a placement; out: the best one found */
	uint64_t peak;    /* of it */
	uint64_t work;    /* out: what was spent of the budget */
	bool proven;      /* out: no placement has a lower peak */
} knit_memory_search;

knit_status knit__memory_search(knit_memory_search *m, knit_diag *d);

#endif
