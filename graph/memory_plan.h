/* Owns the placement of activations in the arenas: lifetimes, in-place choice, offsets, and the lower bound that the
 * result is printed beside. */
#ifndef KNIT_MEMORY_PLAN_H
#define KNIT_MEMORY_PLAN_H

#include "target.h"

/* Work that a search may spend, in looked-at blocks and sections: some 2 s where planning is all that is asked for, less
 * when a program is compiled. */
#define KNIT_SEARCH_BUDGET UINT64_C(1200000000)
#define KNIT_COMPILE_SEARCH_BUDGET UINT64_C(240000000)

/* Fills the offsets (multiples of align): several greedy orders, the smallest peak kept, then a bounded exact search
 * where it is above the lower bound; the same result for the same blocks on every machine. Works on bare blocks, so that
 * it can be tested without graphs. search_budget 0: no exact search. */
knit_status knit__memory_place(const knit_allocator *a, knit_block *blocks, uint32_t count, uint64_t align,
                               uint64_t search_budget, knit_block_plan *out, knit_diag *d);

/* What a device asks of a plan. */
typedef struct knit_memory_rules {
	uint64_t align;     /* of tensors in an arena, a power of two */
	uint64_t max_arena; /* bytes of one arena; 0: no limit */
	bool apart;         /* no result takes over the bytes of an operand */
} knit_memory_rules;

typedef struct knit_memory_plan {
	uint64_t *offset;         /* per storage, in its arena; UINT64_MAX: in none */
	uint32_t *arena;          /* per storage with an offset */
	uint32_t *slot;           /* per storage: storages that share bytes in place have the same slot; UINT32_MAX: none */
	uint64_t *scratch_offset; /* per position in the order; UINT64_MAX: none */
	uint32_t *scratch_arena;
	uint64_t *arenas;         /* bytes of each; one unless the limit forbids it */
	uint32_t storage_count, order_count, arena_count;
	uint64_t arena_bytes, lower_bound, unshared_bytes; /* of all arenas; unshared: the sum of all blocks */
	uint64_t in_order_bytes; /* what best fit in the order of execution would need for the same blocks */
	uint32_t inplace_count;
} knit_memory_plan;

/* Whether output 0 of a node may lie on this operand if nobody reads it afterwards: the op allows it, and both cover all
 * of their storages with the same elements at the same places, at every size. Operand 1 of an op that commutes would have
 * to become operand 0. */
bool knit__inplace_fits(const knit_graph *g, uint32_t node, uint32_t operand);

/* scratch_bytes: one per position in g->order, may be NULL. LIMIT, with the step and the numbers, where a result or a
 * step's scratch alone is above max_arena. */
knit_status knit__memory_plan_create(const knit_graph *g, const knit_bounds *bounds, const uint64_t *scratch_bytes,
                                     const knit_memory_rules *rules, knit_memory_plan *out, knit_diag *d);
void knit__memory_plan_clear(knit_memory_plan *p, const knit_allocator *a);

#endif
