/* Owns what the variants of attention share. A variant is a knit_attention_isa; the driver (attention.c, and
 * attention_tiles.c for one chunk of positions) is the same for all.
 *
 * Order of computation, the same for a token alone and among others, on one thread and on many: positions are cut into
 * chunks of KNIT_ATTENTION_CHUNK (counted from position 0), chunks into tiles. A tile gives scores, the running
 * maximum and sum, and the weighted values (online softmax: Milakov and Gimelshein 2018, Dao et al. 2022); chunks
 * start afresh and are merged one after the other. How many rows of q a function is given at once changes no bit. */
#ifndef KNIT_KERNELS_ATTENTION_H
#define KNIT_KERNELS_ATTENTION_H

#include "kernels.h"

#define KNIT_ATTENTION_TILE 64
#define KNIT_ATTENTION_CHUNK 256
#define KNIT_ATTENTION_ROWS 16 /* of q that a unit holds at most */
#define KNIT_ATTENTION_HEAD 16 /* floats of a partial result before the weighted values: [0] maximum, [1] sum */

/* Rows that a function should ask memory for while it computes, an eighth of them with every eighth of a tile. All at
 * once they would only make it wait. */
typedef struct knit_attention_ask {
	const char *data; /* NULL: nothing */
	int64_t stride, bytes, rows;
} knit_attention_ask;

/* Always inline: a compiler may take a function that only asks for a function that does nothing. */
static inline __attribute__((always_inline)) void knit__attention_ask(const knit_attention_ask *ask, int64_t p) {
	if (!ask->data)
		return;
	for (int64_t i = p * ask->rows / KNIT_ATTENTION_TILE; i < (p + 8) * ask->rows / KNIT_ATTENTION_TILE; ++i)
		for (int64_t b = 0; b < ask->bytes; b += 64)
			__builtin_prefetch(ask->data + i * ask->stride + b, 0, 2);
}

/* Keys or values as a function reads them: position p's row begins at data + p * stride; of its elements the head's
 * first is `skip`, which is not 0 only in blocks. */
typedef struct knit_attention_tile {
	const char *data;
	int64_t stride, skip;
	knit_dtype dtype;
} knit_attention_tile;

/* Keys or values of a tile for one token, as several kv heads read them: `group` rows of q each. Cells follow each other
 * in memory from data on. */
typedef struct knit_attention_heads {
	const char *data;
	int64_t stride, head; /* bytes to the next position, to the next kv head */
	int64_t lanes, group, dim, count;
	knit_dtype dtype;
	const char *then; /* what is read after this tile, NULL: nothing known */
	int64_t then_bytes;
} knit_attention_heads;

typedef struct knit_attention_many_isa knit_attention_many_isa; /* attention_many.h */

typedef struct knit_attention_isa {
	/* s[r * TILE + p] = sum of q[r][i] * k_p[i] for r < rows, p < count <= TILE. All of a row's TILE floats may be
	 * written. */
	void (*scores)(const knit_attention_tile *k, const float *const *q, int64_t rows, int64_t count, int64_t dim,
	               float *s, const knit_attention_ask *ask);
	/* s[p] becomes exp(scale * s[p] - max) with the new running maximum of the partial result; factor[r] is what its
	 * earlier values must be multiplied by, its sum has been. */
	void (*weigh)(float *s, int64_t rows, int64_t count, float scale, float *const *part, float *factor);
	/* part[r]'s values = theirs * factor[r] + sum of s[r * TILE + p] * v_p. They are dim rounded up to 16. */
	void (*mix)(const knit_attention_tile *v, const float *s, const float *factor, int64_t rows, int64_t count,
	            int64_t dim, float *const *part, const knit_attention_ask *ask);
	/* count rows of dim elements (whole blocks) of any type a state may have as f32, dst_stride elements apart. */
	void (*widen)(knit_dtype t, const char *src, int64_t src_stride, int64_t count, int64_t dim, float *dst,
	              int64_t dst_stride);
	/* total = total and part together; n floats each, a multiple of 16. */
	void (*merge)(float *total, const float *part, int64_t n);
	/* The same as scores and mix for all heads of a tile at once, in the order of memory; row r of kv head h is row
	 * h * group + r. NULL: only one by one. heads_fit: whether they take this type. */
	void (*scores_heads)(const knit_attention_heads *k, const float *const *q, float *s);
	void (*mix_heads)(const knit_attention_heads *v, const float *s, const float *factor, float *const *part);
	bool (*heads_fit)(knit_dtype t, int64_t dim);
	/* Up to so many rows scores and mix read this type where it lies; 0: only f32. */
	int64_t (*in_place)(knit_dtype t, int64_t skip, int64_t dim);
	const knit_attention_many_isa *many; /* NULL: none */
} knit_attention_isa;

bool knit__attention_accepts(const knit_node_view *node);
uint64_t knit__attention_scratch(const knit_node_view *node, uint32_t threads);
int64_t knit__attention_units(const knit_cpu_step *s);
void knit__attention_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread,
                         const knit_attention_isa *isa);
/* The same for those that have functions for many rows. */
uint64_t knit__attention_many_scratch(const knit_node_view *node, uint32_t threads);
int64_t knit__attention_many_units(const knit_cpu_step *s);
int64_t knit__attention_merge_units(const knit_cpu_step *s);
void knit__attention_merge(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_attention_isa *isa);

#endif
