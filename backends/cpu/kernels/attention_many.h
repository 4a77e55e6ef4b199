/* Owns what attention of many rows of q is made of: the rows of one sequence and one kv head lie in the lanes of
 * vectors, keys and values come as f32 and are multiplied element by element, so that no lane is ever added to another.
 * The driver is attention_many.c, the functions are attention_lanes.h for each instruction set.
 *
 * Every sum has the order that it has in the functions for a few rows (attention_<isa>.c), so the bits are the same. */
#ifndef KNIT_KERNELS_ATTENTION_MANY_H
#define KNIT_KERNELS_ATTENTION_MANY_H

#include "attention.h"

#define KNIT_ATTENTION_MANY 64  /* rows at most */
#define KNIT_ATTENTION_FEW 24   /* so many rows or less are not worth it */
#define KNIT_ATTENTION_LANES 16 /* at most */

/* What the rows of a vector see of a segment: the least and the greatest first and last position. */
typedef struct knit_attention_bounds {
	int32_t first_min, first_max, last_min, last_max;
} knit_attention_bounds;

/* A line has an element of each row: `width` floats, whole vectors. Rows from `rows` on are the last one again. */
typedef struct knit_attention_many {
	int64_t rows, width, dim;
	float scale;
	float *q, *s;                                         /* dim lines; TILE lines: scores, then weights */
	float *max, *sum, *values;                            /* of a chunk: one line, one line, dim lines */
	float *total_max, *total_sum, *total, *factor, *most; /* of all chunks; of a tile */
	int32_t *first, *last, *started;                      /* first and last position of a segment; -1: total is not empty */
	knit_attention_bounds bounds[KNIT_ATTENTION_MANY]; /* of each vector */
} knit_attention_many;

/* Positions [lo, hi) of the tile that begins at position p0; that at lo is at data. stride: floats. */
typedef struct knit_attention_slab {
	const float *data;
	int64_t stride;
	int32_t p0, lo, hi;
} knit_attention_slab;

struct knit_attention_many_isa {
	int64_t lanes;
	/* The rows of q into lines; rows past the last one are it. */
	void (*put)(const knit_attention_many *m, const float *const *q);
	/* Scores times scale, -inf where a row does not see a position, and the greatest of them. */
	void (*scores)(const knit_attention_many *m, const knit_attention_slab *k);
	/* The rest of knit_attention_isa.weigh. */
	void (*weigh)(const knit_attention_many *m, const knit_attention_slab *k);
	void (*mix)(const knit_attention_many *m, const knit_attention_slab *v);
	/* The chunk into the total of rows that see something of [first, last]. */
	void (*merge)(const knit_attention_many *m, int32_t first, int32_t last);
	/* Totals divided by their sums, as rows. */
	void (*take)(const knit_attention_many *m, float *const *out);
};

#if defined(__x86_64__)
extern const knit_attention_many_isa knit__attention_many_avx2, knit__attention_many_avx512;
#endif

/* Floats that a thread needs for `rows` rows beside a tile as f32. */
int64_t knit__attention_many_floats(int64_t rows, int64_t dim);

#endif
