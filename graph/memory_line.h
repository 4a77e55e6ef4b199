/* What the placements of memory_place.c and memory_split.c share: the orders in which blocks are taken, and the line of
 * those placed so far with the gaps between them. */
#ifndef KNIT_MEMORY_LINE_H
#define KNIT_MEMORY_LINE_H

#include "context.h"

/* In which order blocks are placed: largest first by ... */
typedef enum knit_memory_order {
	KNIT_ORDER_SIZE,
	KNIT_ORDER_AREA, /* size x lifetime */
	KNIT_ORDER_LIFETIME,
	KNIT_ORDER_PRESSURE, /* bytes alive at the fullest step of the lifetime */
	KNIT_ORDER_PRESSURE_LIFETIME,
	KNIT_ORDER_START, /* ascending: the order of execution */
	KNIT_ORDER_END,   /* descending: execution run backwards */
	KNIT_ORDERS
} knit_memory_order;

typedef struct knit_memory_key { uint64_t major, minor; uint32_t block; } knit_memory_key;

/* Ascending by major, minor, block. */
void knit__memory_keys_sort(knit_memory_key *keys, uint32_t count);
/* Fills and sorts `keys`, one per block. `size` is aligned bytes; `pressure` may be NULL where the order does not ask. */
void knit__memory_keys(knit_memory_order order, const knit_block *blocks, const uint64_t *size, const uint64_t *pressure,
                       uint32_t count, knit_memory_key *keys);

/* Which gap a block takes: the one that it fills best, or the lowest one. */
typedef enum knit_gap_rule { KNIT_GAP_BEST, KNIT_GAP_FIRST, KNIT_GAP_RULES } knit_gap_rule;

typedef struct knit_memory_taken { uint64_t begin, end; uint32_t first, last; } knit_memory_taken;
typedef struct knit_memory_line {
	knit_memory_taken *taken; /* by offset; the caller's, with room for all blocks */
	uint32_t count;
	uint64_t limit; /* no block crosses a multiple of it; 0: none */
} knit_memory_line;

/* The offset in a gap that takes `size` > 0 bytes while block b lives; above everything where there is none. */
uint64_t knit__memory_line_gap(const knit_memory_line *line, const knit_block *b, uint64_t size, knit_gap_rule rule);
void knit__memory_line_insert(knit_memory_line *line, const knit_block *b, uint64_t size, uint64_t begin);

#endif
