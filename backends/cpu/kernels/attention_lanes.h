/* Owns attention of many rows of q for any instruction set that names its vectors first: `vec` of LANES floats, `mask`,
 * KEYS (of a block of one vector of rows; of two vectors half as many), and the functions below that begin with v_
 * (attention_many_avx512.c). Rows lie in lanes, see attention_many.h.
 *
 * The order of sums is that of attention_<isa>.c: LANES partial sums of a score, each of every LANES-th product, and
 * those, like the sums of weights, added by halves, quarters and so on; values by position. The first product is not
 * added to 0, which is the same but for the sign of a 0 that no result shows. */
#include "attention_many.h"

#include <math.h>
#include <string.h>

#define TILE KNIT_ATTENTION_TILE

typedef knit_attention_many many;
typedef knit_attention_slab slab;

/* Positions of a slab for `n` vectors from g on: those that any row sees, and whether all rows see them all. */
typedef struct span {
	int64_t lo, hi;
	bool full;
} span;

KNIT_INLINE span span_of(const many *m, const slab *t, int64_t g, int n) {
	const int64_t p0 = t->p0;
	span s = {t->hi, t->lo, true};

	for (int64_t i = g; i < g + n; ++i) {
		const knit_attention_bounds *const b = &m->bounds[i];

		s.lo = b->first_min - p0 < s.lo ? b->first_min - p0 : s.lo;
		s.hi = b->last_max - p0 >= s.hi ? b->last_max - p0 + 1 : s.hi;
	}
	s.lo = s.lo < t->lo ? t->lo : s.lo;
	s.hi = s.hi > t->hi ? t->hi : s.hi;
	for (int64_t i = g; i < g + n; ++i)
		s.full &= m->bounds[i].first_max - p0 <= s.lo && m->bounds[i].last_min - p0 >= s.hi - 1;
	return s;
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* sum[r][k] = products of elements j, j + LANES, ... of the rows of vector r and key k. */
KNIT_INLINE void part(const int vectors, const int keys, const float *q, const int64_t width, const float *const *key,
                      const int64_t dim, const int64_t j, vec sum[2][KEYS]) {
	vec x[2];

	for (int r = 0; r < vectors; ++r)
		x[r] = j < dim ? v_load(q + j * width + r * LANES) : v_set(0);
	for (int k = 0; k < keys; ++k) {
		const vec y = v_set(j < dim ? key[k][j] : 0);

		for (int r = 0; r < vectors; ++r)
			sum[r][k] = v_mul(x[r], y);
	}
	for (int64_t i = j + LANES; i < dim; i += LANES) {
		for (int r = 0; r < vectors; ++r)
			x[r] = v_load(q + i * width + r * LANES);
		for (int k = 0; k < keys; ++k) {
			const vec y = v_set(key[k][i]);

			for (int r = 0; r < vectors; ++r)
				sum[r][k] = v_fma(x[r], y, sum[r][k]);
		}
	}
}

KNIT_INLINE void add_to(const int vectors, const int keys, vec sum[2][KEYS], const vec more[2][KEYS]) {
	for (int r = 0; r < vectors; ++r)
		for (int k = 0; k < keys; ++k)
			sum[r][k] = v_add(sum[r][k], more[r][k]);
}

KNIT_INLINE void two_parts(const int vectors, const int keys, const float *q, const int64_t width,
                           const float *const *key, const int64_t dim, const int64_t j, vec sum[2][KEYS]) {
	vec more[2][KEYS];

	part(vectors, keys, q, width, key, dim, j, sum);
	part(vectors, keys, q, width, key, dim, j + LANES / 2, more);
	add_to(vectors, keys, sum, more);
}

/* Four parts of a quarter of LANES at a time fit the registers, their sums wait in memory: `sum` has room for two. */
KNIT_INLINE void all_parts(const int vectors, const int keys, const float *q, const int64_t width,
                           const float *const *key, const int64_t dim, vec sum[2][2][KEYS]) {
#pragma GCC unroll 1
	for (int64_t n = 0; n < LANES / 4; ++n) {
		const int64_t j = LANES == 16 ? (n & 1) * 2 + (n >> 1) : n;
		vec some[2][KEYS], more[2][KEYS];

		two_parts(vectors, keys, q, width, key, dim, j, some);
		two_parts(vectors, keys, q, width, key, dim, j + LANES / 4, more);
		add_to(vectors, keys, some, more);
		if (LANES == 16 && (n & 1))
			add_to(vectors, keys, some, sum[n >> 1]);
		memcpy(sum[LANES == 16 ? n >> 1 : n], some, sizeof some);
	}
}

KNIT_INLINE void scores_vectors(const many *m, const slab *t, const int64_t g, const int vectors, const int64_t dim) {
	const int keys = KEYS / vectors;
	const span s = span_of(m, t, g, vectors);
	const float *const q = m->q + g * LANES;
	const vec scale = v_set(m->scale), least = v_set(-INFINITY);
	vec most[2] = {least, least};

	for (int64_t p = s.lo; p < s.hi; p += keys) {
		const float *key[KEYS];
		vec sum[2][2][KEYS];

		for (int k = 0; k < keys; ++k)
			key[k] = t->data + ((p + k < s.hi ? p + k : s.hi - 1) - t->lo) * t->stride;
		all_parts(vectors, keys, q, m->width, key, dim, sum);
		for (int k = 0; k < keys && p + k < s.hi; ++k) {
			for (int r = 0; r < vectors; ++r) {
				const int64_t at = (g + r) * LANES;
				vec x = v_mul(v_add(sum[0][r][k], sum[1][r][k]), scale);

				if (!s.full)
					x = v_choose(v_sees(m->first + at, m->last + at, t->p0 + (int32_t)(p + k)), x, least);
				most[r] = v_max(most[r], x);
				v_store(m->s + (p + k) * m->width + at, x);
			}
		}
	}
	for (int r = 0; r < vectors; ++r)
		v_store(m->most + (g + r) * LANES, most[r]);
}

/* Heads of 64 elements once more, for code without inner loops. */
static void scores(const many *m, const slab *t) {
	const int64_t vectors = m->width / LANES;
	int64_t g = 0;

	for (; g + 2 <= vectors; g += 2) {
		if (m->dim == 64)
			scores_vectors(m, t, g, 2, 64);
		else
			scores_vectors(m, t, g, 2, m->dim);
	}
	if (g < vectors)
		scores_vectors(m, t, g, 1, m->dim);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* A score becomes its weight: 0 where it is -inf since the row does not see the position. */
KNIT_INLINE vec weight(const many *m, int64_t at, int64_t p, vec base) {
	float *const s = m->s + p * m->width + at;
	const vec w = v_exp(v_sub(v_load(s), base));

	v_store(s, w);
	return w;
}

/* A row that sees a tile from its middle on, alone, has the lanes of its sum turned: added by halves, quarters, ... the
 * same. */
static void weigh_vector(const many *m, const slab *t, const int64_t g) {
	const span s = span_of(m, t, g, 1);
	const int64_t at = g * LANES;
	vec lane[LANES];

	if (s.lo >= s.hi) {
		v_store(m->factor + at, v_set(1));
		return;
	}
	const vec old = v_load(m->max + at), most = v_load(m->most + at), max = v_choose(v_above(most, old), most, old);
	const vec base = v_choose(v_equal(max, v_set(-INFINITY)), v_set(0), max);
	const vec earlier = v_exp(v_sub(old, base));

	for (int64_t j = 0; j < LANES; ++j) {
		lane[j] = v_set(0);
		if (s.lo == 0 && s.hi == TILE)
			for (int64_t p = j; p < TILE; p += LANES)
				lane[j] = v_add(lane[j], weight(m, at, p, base));
		else
			for (int64_t p = s.lo + ((j - s.lo) & (LANES - 1)); p < s.hi; p += LANES)
				lane[j] = v_add(lane[j], weight(m, at, p, base));
	}
	for (int n = LANES / 2; n > 0; n /= 2)
		for (int j = 0; j < n; ++j)
			lane[j] = v_add(lane[j], lane[j + n]);
	v_store(m->max + at, max);
	v_store(m->factor + at, earlier);
	v_store(m->sum + at, v_add(v_mul(v_load(m->sum + at), earlier), lane[0]));
}

static void weigh(const many *m, const slab *t) {
	for (int64_t g = 0; g * LANES < m->width; ++g)
		weigh_vector(m, t, g);
}

/* total = total and chunk together where the row sees some of it; the chunk alone where nothing came before. */
static void merge_vector(const many *m, int64_t at, mask sees) {
	const vec least = v_set(-INFINITY), zero = v_set(0);
	const vec total = v_load(m->total_max + at), chunk = v_load(m->max + at);
	const vec total_sum = v_load(m->total_sum + at), chunk_sum = v_load(m->sum + at);
	const mask both = v_both(sees, v_started(m->started + at));
	const vec max = v_choose(v_above(chunk, total), chunk, total), base = v_choose(v_equal(max, least), zero, max);
	const vec a = v_exp(v_sub(total, base)), b = v_exp(v_sub(chunk, base));
	const vec sum = v_add(v_mul(total_sum, a), v_mul(chunk_sum, b));

	v_store(m->total_max + at, v_choose(both, max, v_choose(sees, chunk, total)));
	v_store(m->total_sum + at, v_choose(both, sum, v_choose(sees, chunk_sum, total_sum)));
	for (int64_t i = 0; i < m->dim; ++i) {
		float *const to = m->total + i * m->width + at;
		const vec x = v_load(to), y = v_load(m->values + i * m->width + at);

		v_store(to, v_choose(both, v_fma(x, a, v_mul(y, b)), v_choose(sees, y, x)));
	}
}

static void merge(const many *m, int32_t first, int32_t last) {
	for (int64_t at = 0; at < m->width; at += LANES) {
		merge_vector(m, at, v_overlaps(m->first + at, m->last + at, first, last));
		for (int64_t r = at; r < at + LANES; ++r)
			m->started[r] = m->started[r] || (m->first[r] <= last && m->last[r] >= first) ? -1 : 0;
	}
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

#define DIMS (LANES / 2) /* elements of values at a time */

/* Elements [i, i + dims) of the values. */
KNIT_INLINE void mix_some(const many *m, const slab *t, const span *s, const int64_t g, const int vectors,
                          const bool full, const int64_t i, const int dims) {
	const float *v = t->data + (s->lo - t->lo) * t->stride + i, *w = m->s + s->lo * m->width + g * LANES;
	float *const to = m->values + i * m->width + g * LANES;
	vec sum[2][DIMS];

	for (int r = 0; r < vectors; ++r)
		for (int d = 0; d < dims; ++d)
			sum[r][d] = v_mul(v_load(to + d * m->width + r * LANES), v_load(m->factor + (g + r) * LANES));
	for (int64_t p = s->lo; p < s->hi; ++p, v += t->stride, w += m->width) {
		vec weight[2];
		mask sees[2];

		for (int r = 0; r < vectors; ++r) {
			const int64_t at = (g + r) * LANES;

			weight[r] = v_load(w + r * LANES);
			if (!full)
				sees[r] = v_sees(m->first + at, m->last + at, t->p0 + (int32_t)p);
		}
		for (int d = 0; d < dims; ++d) {
			const vec x = v_set(v[d]);

			for (int r = 0; r < vectors; ++r)
				sum[r][d] = full ? v_fma(weight[r], x, sum[r][d]) : v_fma_where(sees[r], weight[r], x, sum[r][d]);
		}
	}
	for (int r = 0; r < vectors; ++r)
		for (int d = 0; d < dims; ++d)
			v_store(to + d * m->width + r * LANES, sum[r][d]);
}

KNIT_INLINE void mix_vectors(const many *m, const slab *t, const int64_t g, const int vectors, const bool full,
                             const span *s) {
	int64_t i = 0;

	for (; i + DIMS <= m->dim; i += DIMS)
		mix_some(m, t, s, g, vectors, full, i, DIMS);
	for (; i < m->dim; ++i)
		mix_some(m, t, s, g, vectors, full, i, 1);
}

static void mix(const many *m, const slab *t) {
	const int64_t vectors = m->width / LANES;

	for (int64_t g = 0; g < vectors; g += 2) {
		const int n = g + 2 <= vectors ? 2 : 1;
		const span s = span_of(m, t, g, n);

		if (s.lo >= s.hi)
			continue;
		if (n == 2 && s.full)
			mix_vectors(m, t, g, 2, true, &s);
		else if (n == 2)
			mix_vectors(m, t, g, 2, false, &s);
		else if (s.full)
			mix_vectors(m, t, g, 1, true, &s);
		else
			mix_vectors(m, t, g, 1, false, &s);
	}
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void put(const many *m, const float *const *q) {
	for (int64_t r = 0; r < m->width; r += LANES) {
		for (int64_t i = 0; i < m->dim; i += LANES) {
			const int64_t n = m->dim - i < LANES ? m->dim - i : LANES;
			vec x[LANES];

			for (int64_t j = 0; j < LANES; ++j)
				x[j] = v_load_some(q[r + j < m->rows ? r + j : m->rows - 1] + i, n);
			v_transpose(x);
			for (int64_t j = 0; j < n; ++j)
				v_store(m->q + (i + j) * m->width + r, x[j]);
		}
	}
}

static void take(const many *m, float *const *out) {
	for (int64_t r = 0; r < m->width; r += LANES) {
		const vec factor = v_div(v_set(1), v_load(m->total_sum + r));

		for (int64_t i = 0; i < m->dim; i += LANES) {
			const int64_t n = m->dim - i < LANES ? m->dim - i : LANES;
			vec x[LANES];

			for (int64_t j = 0; j < LANES; ++j)
				x[j] = j < n ? v_mul(v_load(m->total + (i + j) * m->width + r), factor) : v_set(0);
			v_transpose(x);
			for (int64_t j = 0; j < LANES && r + j < m->rows; ++j)
				v_store_some(out[r + j] + i, n, x[j]);
		}
	}
}
