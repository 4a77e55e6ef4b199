/* Owns attention of one token in AVX-512: all kv heads of a unit take turns within a few positions, so that keys and
 * values are read in the order of memory, as many bytes ahead as memory takes to answer. What is summed, and in which
 * order, is attention_avx512.c's. The driver is attention_tiles.c; reference: ops/attention.c. */
#include "attention_avx512.h"

#define KEYS 8    /* of a head before the next head's turn */
#define VALUES 16 /* the same for values: each turn fetches and stores the sums */
#define AHEAD 8192

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* What is asked for next: the rest of a tile, then what comes after it. */
typedef struct flow {
	const char *at, *then;
	int64_t left, then_left, due;
} flow;

KNIT_INLINE flow flow_begin(const knit_attention_heads *t) {
	const int64_t bytes = t->count * t->stride, ahead = bytes < AHEAD ? bytes : AHEAD;

	return (flow){t->data + ahead, t->then, bytes - ahead, t->then && t->then_bytes < ahead ? t->then_bytes : ahead, 0};
}

/* As many bytes as are computed on. */
KNIT_INLINE void flow_ask(flow *f, int64_t bytes) {
	for (f->due += bytes; f->due >= 64; f->due -= 64) {
		if (f->left <= 0) {
			if (!f->then)
				return;
			f->at = f->then;
			f->left = f->then_left;
			f->then = NULL;
		}
		__builtin_prefetch(f->at, 0, 3);
		f->at += 64;
		f->left -= 64;
	}
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

KNIT_INLINE void scores_turn(const knit_dtype t, const int rows, const char *const key[8], const float *const *q,
                             int64_t dim, float *s) {
	__m512 low[TOGETHER], high[TOGETHER];

	dot4(t, rows, q, key, 0, dim, low);
	dot4(t, rows, q, key + 4, 0, dim, high);
	for (int r = 0; r < rows; ++r)
		_mm256_storeu_ps(s + r * TILE, knit__sum8_ends(low[r], high[r]));
}

KNIT_INLINE void scores_of(const knit_dtype t, const knit_attention_heads *k, const float *const *q, const int64_t dim,
                           float *s) {
	flow f = flow_begin(k);

	for (int64_t p = 0; p < k->count; p += KEYS) {
		const int64_t most = k->count - p - 1, share = (most < KEYS - 1 ? most + 1 : KEYS) * k->head;

		for (int64_t h = 0; h < k->lanes; ++h) {
			const char *const data = k->data + p * k->stride + h * k->head, *key[8];
			const float *const *x = q + h * k->group;
			float *to = s + h * k->group * TILE + p;
			int64_t rows = k->group;

			flow_ask(&f, share);
			for (int j = 0; j < 8; ++j)
				key[j] = data + (j < most ? j : most) * k->stride;
			for (; rows >= TOGETHER; rows -= TOGETHER, x += TOGETHER, to += TOGETHER * TILE)
				scores_turn(t, TOGETHER, key, x, dim, to);
			if (rows == 3)
				scores_turn(t, 3, key, x, dim, to);
			else if (rows == 2)
				scores_turn(t, 2, key, x, dim, to);
			else if (rows == 1)
				scores_turn(t, 1, key, x, dim, to);
		}
	}
}

KNIT_INLINE void scores_dim(const knit_dtype t, const knit_attention_heads *k, const float *const *q, float *s) {
	if (k->dim == 64)
		scores_of(t, k, q, 64, s);
	else if (k->dim == 48 && !is_block(t))
		scores_of(t, k, q, 48, s);
	else
		scores_of(t, k, q, k->dim, s);
}

void knit__attention_scores_avx512(const knit_attention_heads *k, const float *const *q, float *s) {
	if (k->dtype == KNIT_F16)
		scores_dim(KNIT_F16, k, q, s);
	else if (k->dtype == KNIT_BF16)
		scores_dim(KNIT_BF16, k, q, s);
	else if (k->dtype == KNIT_Q8_0)
		scores_dim(KNIT_Q8_0, k, q, s);
	else if (k->dtype == KNIT_Q4_0)
		scores_dim(KNIT_Q4_0, k, q, s);
	else
		scores_dim(KNIT_F32, k, q, s);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `vectors` times 16 elements from data on of `heads` kv heads (a row each) or of one (`rows` rows), `count` positions.
 * factor: NULL where it has been applied. */
KNIT_INLINE void mix_turn(const knit_dtype t, const int heads, const int rows, const int vectors, const char *data,
                          const knit_attention_heads *v, const float *s, const float *factor, int64_t count,
                          float *const *part, int64_t at) {
	__m512 sum[TOGETHER][4];
	const int all = heads * rows;

	for (int r = 0; r < all; ++r)
		for (int j = 0; j < vectors; ++j) {
			sum[r][j] = _mm512_loadu_ps(part[r] + at + j * 16);
			if (factor)
				sum[r][j] = _mm512_mul_ps(sum[r][j], _mm512_set1_ps(factor[r]));
		}
	for (int64_t p = 0; p < count; ++p, data += v->stride) {
		for (int h = 0; h < heads; ++h) {
			__m512 x[4];

			for (int j = 0; j < vectors; ++j)
				x[j] = load(t, data + h * v->head, j * 16);
			for (int r = h * rows; r < (h + 1) * rows; ++r) {
				const __m512 weight = _mm512_set1_ps(s[r * TILE + p]);

				for (int j = 0; j < vectors; ++j)
					sum[r][j] = _mm512_fmadd_ps(weight, x[j], sum[r][j]);
			}
		}
	}
	for (int r = 0; r < all; ++r)
		for (int j = 0; j < vectors; ++j)
			_mm512_storeu_ps(part[r] + at + j * 16, sum[r][j]);
}

/* Four vectors at a time, see mix_turn. */
KNIT_INLINE void mix_some(const knit_dtype t, const int heads, const int rows, const char *data,
                          const knit_attention_heads *v, const float *s, const float *factor, int64_t count,
                          const int64_t dim, float *const *part) {
	int64_t i = 0;

	for (; i + 64 <= dim; i += 64)
		mix_turn(t, heads, rows, 4, data + i / 32 * bytes_of_32(t), v, s, factor, count, part, KNIT_ATTENTION_HEAD + i);
	data += i / 32 * bytes_of_32(t);
	i += KNIT_ATTENTION_HEAD;
	if (dim % 64 == 48)
		mix_turn(t, heads, rows, 3, data, v, s, factor, count, part, i);
	else if (dim % 64 == 32)
		mix_turn(t, heads, rows, 2, data, v, s, factor, count, part, i);
	else if (dim % 64 == 16)
		mix_turn(t, heads, rows, 1, data, v, s, factor, count, part, i);
}

/* Rows of one kv head. */
KNIT_INLINE void mix_group(const knit_dtype t, const char *data, const knit_attention_heads *v, const float *s,
                           const float *factor, int64_t count, const int64_t dim, float *const *part) {
	int64_t rows = v->group;

	for (; rows >= TOGETHER; rows -= TOGETHER, s += TOGETHER * TILE, part += TOGETHER) {
		mix_some(t, 1, TOGETHER, data, v, s, factor, count, dim, part);
		factor += factor ? TOGETHER : 0;
	}
	if (rows == 3)
		mix_some(t, 1, 3, data, v, s, factor, count, dim, part);
	else if (rows == 2)
		mix_some(t, 1, 2, data, v, s, factor, count, dim, part);
	else if (rows == 1)
		mix_some(t, 1, 1, data, v, s, factor, count, dim, part);
}

/* Heads without a group: a row's few sums would wait for each other, so up to three heads go side by side. */
KNIT_INLINE int64_t heads_together(const knit_attention_heads *v, int64_t h) {
	const int64_t left = v->lanes - h;

	return v->group != 1 ? 1 : left >= 3 ? 3 : left;
}

KNIT_INLINE void mix_of(const knit_dtype t, const knit_attention_heads *v, const float *s, const float *factor,
                        const int64_t dim, float *const *part) {
	flow f = flow_begin(v);

	for (int64_t p = 0; p < v->count; p += VALUES) {
		const int64_t count = v->count - p < VALUES ? v->count - p : VALUES;

		for (int64_t h = 0, n; h < v->lanes; h += n) {
			const int64_t row = h * v->group;
			const char *const data = v->data + p * v->stride + h * v->head;
			const float *const weights = s + row * TILE + p, *const first = p ? NULL : factor + row;

			n = heads_together(v, h);
			flow_ask(&f, count * v->head * n);
			if (n == 3)
				mix_some(t, 3, 1, data, v, weights, first, count, dim, part + row);
			else if (n == 2)
				mix_some(t, 2, 1, data, v, weights, first, count, dim, part + row);
			else
				mix_group(t, data, v, weights, first, count, dim, part + row);
		}
	}
}

KNIT_INLINE void mix_dim(const knit_dtype t, const knit_attention_heads *v, const float *s, const float *factor,
                         float *const *part) {
	if (v->dim == 64)
		mix_of(t, v, s, factor, 64, part);
	else if (v->dim == 48 && !is_block(t))
		mix_of(t, v, s, factor, 48, part);
	else
		mix_of(t, v, s, factor, v->dim, part);
}

void knit__attention_mix_avx512(const knit_attention_heads *v, const float *s, const float *factor, float *const *part) {
	if (v->dtype == KNIT_F16)
		mix_dim(KNIT_F16, v, s, factor, part);
	else if (v->dtype == KNIT_BF16)
		mix_dim(KNIT_BF16, v, s, factor, part);
	else if (v->dtype == KNIT_Q8_0)
		mix_dim(KNIT_Q8_0, v, s, factor, part);
	else if (v->dtype == KNIT_Q4_0)
		mix_dim(KNIT_Q4_0, v, s, factor, part);
	else
		mix_dim(KNIT_F32, v, s, factor, part);
}

/* Whole vectors, and of blocks heads that begin with one. */
bool knit__attention_heads_avx512(knit_dtype t, int64_t dim) { return dim % (is_block(t) ? 32 : 16) == 0; }
