/* Owns what attention.c and attention_tiles.c tell each other: the rows of q that a unit holds, what they see, and where
 * their results lie. */
#ifndef KNIT_KERNELS_ATTENTION_TILES_H
#define KNIT_KERNELS_ATTENTION_TILES_H

#include "attention_many.h"

/* Operands and attributes of the op. */
enum { KNIT__ATT_Q, KNIT__ATT_K, KNIT__ATT_V, KNIT__ATT_SEQ, KNIT__ATT_POS };
enum { KNIT__ATT_SCALE, KNIT__ATT_WINDOW, KNIT__ATT_RING, KNIT__ATT_SINKS, KNIT__ATT_KV_HEADS };

typedef struct knit_attention_sizes {
	int64_t tokens, heads, kv_heads, group, dim, dim_padded;
	int64_t wide;    /* floats of a row of a widened tile */
	int64_t rows;    /* of q that a unit holds at most: ROWS, or MANY */
	int64_t parts;   /* of a group: units of up to `rows` heads */
	int64_t block;   /* tokens of a unit that does all chunks */
	int64_t lanes;   /* kv heads of a unit that does one chunk of one token */
	int64_t partial; /* floats of a head's partial result */
	int64_t chunks;  /* that a token can see, at most: slots of partial results */
} knit_attention_sizes;

typedef struct knit_range { int64_t first, last; } knit_range; /* empty: last < first */

static inline bool knit__range_empty(knit_range r) { return r.last < r.first; }

/* Positions that a token sees: the sinks that lie before the window, then the window. */
enum { KNIT__BEFORE, KNIT__WITHIN, KNIT__SEGMENTS };
typedef struct knit_sight { knit_range seg[KNIT__SEGMENTS]; } knit_sight;

typedef struct knit_attention_row {
	const float *q;
	float *out, *chunk, *total; /* chunk and total: partial results */
	knit_sight sees;
	bool started; /* total holds a chunk */
} knit_attention_row;

typedef struct knit_attention_unit {
	const knit_cpu_step *s;
	const knit_attention_isa *isa;
	knit_attention_sizes z;
	float scale;
	float *wide;   /* a tile as f32 */
	float *scores; /* TILE of each row */
	float *spare;  /* two partial results of each row */
	float *lines;  /* scores and spare, or what many rows need */
} knit_attention_unit;

static inline bool knit__sees_chunk(const knit_attention_row *r, int seg, int64_t chunk) {
	const knit_range sees = r->sees.seg[seg];

	return !knit__range_empty(sees) && sees.first / KNIT_ATTENTION_CHUNK <= chunk &&
	       chunk <= sees.last / KNIT_ATTENTION_CHUNK;
}

/* One chunk of positions for rows of one sequence, into the `chunk` of those that see it: `count` rows of each of
 * `lanes` kv heads from kv_head on, together at most ROWS. False if none sees it. */
bool knit__attention_chunk(const knit_attention_unit *u, knit_attention_row *rows, int64_t count, int64_t lanes,
                           int64_t seq, int seg, int64_t chunk, int64_t kv_head);

/* Positions of one kv head's keys or values (KNIT__ATT_K, KNIT__ATT_V) as f32, u->z.wide floats apart: at most TILE. */
const float *knit__attention_widened(const knit_attention_unit *u, uint32_t operand, int64_t seq, int64_t kv_head,
                                     knit_range p);

/* All of attention for up to KNIT_ATTENTION_MANY rows of one sequence that see something, for an isa that has it. */
void knit__attention_many_run(const knit_attention_unit *u, const knit_attention_row *rows, int64_t count, int64_t seq,
                              int64_t kv_head);

#endif
