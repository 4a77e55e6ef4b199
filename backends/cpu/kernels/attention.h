/* Owns what the variants of attention share. A variant is a knit_attention_isa; the driver (attention.c) is the same
 * for all.
 *
 * Order of computation, the same for a token alone and among others, on one thread and on many: positions are cut into
 * chunks of KNIT_ATTENTION_CHUNK (counted from position 0), chunks into tiles. A tile gives scores, the running
 * maximum and sum, and the weighted values (online softmax: Milakov and Gimelshein 2018, Dao et al. 2022); chunks
 * start afresh and are merged one after the other. */
#ifndef KNIT_KERNELS_ATTENTION_H
#define KNIT_KERNELS_ATTENTION_H

#include "kernels.h"

#define KNIT_ATTENTION_TILE 32
#define KNIT_ATTENTION_CHUNK 512

/* Rows that a function should ask memory for while it computes, a quarter of them with every quarter of a tile. They
 * lie too far apart for the processor to foresee; all at once they would only make it wait. */
typedef struct knit_attention_ask {
	const char *data; /* NULL: nothing */
	int64_t stride, bytes, rows;
} knit_attention_ask;

/* Always inline: a compiler may take a function that only asks for a function that does nothing. */
static inline __attribute__((always_inline)) void knit__attention_ask(const knit_attention_ask *ask,
                                                                      int64_t p) {
	if (!ask->data)
		return;
	for (int64_t i = p * ask->rows / KNIT_ATTENTION_TILE; i < (p + 8) * ask->rows / KNIT_ATTENTION_TILE; ++i)
		for (int64_t b = 0; b < ask->bytes; b += 64)
			__builtin_prefetch(ask->data + i * ask->stride + b, 0, 2);
}

typedef struct knit_attention_isa {
	/* s[p] = sum of q[i] * k_p[i] for p < count <= TILE, k_p at p * k_stride bytes. s holds TILE floats, all may be
	 * written. */
	void (*scores)(knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count, int64_t dim, float *s,
	               const knit_attention_ask *ask);
	/* s[p] becomes exp(scale * s[p] - max) with the new running maximum; returns what earlier sums must be multiplied
	 * by. */
	float (*weigh)(float *s, int64_t count, float scale, float *max, float *sum);
	/* acc[i] = acc[i] * factor + sum of s[p] * v_p[i]. acc holds dim rounded up to 16. */
	void (*mix)(knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count, int64_t dim,
	            float *acc, const knit_attention_ask *ask);
	/* count rows of dim elements (whole blocks) of any type a state may have as f32, dst_stride elements apart. The
	 * other functions see floats only. */
	void (*widen)(knit_dtype t, const char *src, int64_t src_stride, int64_t count, int64_t dim, float *dst,
	              int64_t dst_stride);
} knit_attention_isa;

bool knit__attention_accepts(const knit_node_view *node);
uint64_t knit__attention_scratch(const knit_node_view *node, uint32_t threads);
int64_t knit__attention_units(const knit_cpu_step *s);
void knit__attention_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread,
                         const knit_attention_isa *isa);
int64_t knit__attention_merge_units(const knit_cpu_step *s);
void knit__attention_merge(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread);

#endif
