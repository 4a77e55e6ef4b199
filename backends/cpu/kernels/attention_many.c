/* Owns the driver of attention of many rows of q: which chunks and tiles they see, and where their lines lie. Knows no
 * instruction set: that is in the isa. Reference: ops/attention.c. */
#include "attention_many.h"
#include "attention_tiles.h"
#include "operand.h"

#include <math.h>
#include <string.h>

#define TILE KNIT_ATTENTION_TILE
#define CHUNK KNIT_ATTENTION_CHUNK
#define MANY KNIT_ATTENTION_MANY

typedef knit_attention_many many;
typedef knit_attention_unit unit;
typedef knit_attention_row row;
typedef knit_range range;

/* Beside the lines of dim elements (q, a chunk's values, the total) and of a tile there are 7 of floats and 3 of int32_t. */
enum { SINGLE = 10 };

static int64_t whole_vectors(int64_t rows) {
	return knit__ceil_div(rows, KNIT_ATTENTION_LANES) * KNIT_ATTENTION_LANES;
}

int64_t knit__attention_many_floats(int64_t rows, int64_t dim) {
	return whole_vectors(rows) * (3 * ((dim + 15) / 16 * 16) + TILE + SINGLE);
}

static void lines_make(many *m, float *at, int64_t rows, int64_t dim) {
	const int64_t lines = (dim + 15) / 16 * 16;
	float **const big[] = {&m->q, &m->values, &m->total}, **const single[] = {&m->max, &m->sum, &m->total_max,
	                                                                         &m->total_sum, &m->factor, &m->most};

	m->rows = rows;
	m->dim = dim;
	m->width = whole_vectors(rows);
	for (size_t i = 0; i < sizeof big / sizeof *big; ++i, at += lines * m->width)
		*big[i] = at;
	m->s = at;
	at += TILE * m->width;
	for (size_t i = 0; i < sizeof single / sizeof *single; ++i, at += m->width)
		*single[i] = at;
	m->first = (int32_t *)(void *)at;
	m->last = m->first + m->width;
	m->started = m->last + m->width;
}

/* What rows and vectors see of a segment. */
static void look(many *m, const row *rows, int seg, int64_t lanes) {
	for (int64_t i = 0; i < m->width; ++i) {
		const range sees = rows[knit__min(i, m->rows - 1)].sees.seg[seg];
		knit_attention_bounds *const b = &m->bounds[i / lanes];

		m->first[i] = knit__range_empty(sees) ? INT32_MAX : (int32_t)sees.first;
		m->last[i] = knit__range_empty(sees) ? -1 : (int32_t)sees.last;
		if (i % lanes == 0)
			*b = (knit_attention_bounds){INT32_MAX, -1, INT32_MAX, -1};
		b->first_min = m->first[i] < b->first_min ? m->first[i] : b->first_min;
		b->first_max = m->first[i] > b->first_max ? m->first[i] : b->first_max;
		b->last_min = m->last[i] < b->last_min ? m->last[i] : b->last_min;
		b->last_max = m->last[i] > b->last_max ? m->last[i] : b->last_max;
	}
}

/* Of positions [p, p + count) those from the first to the last one that a row may see. */
static range seen(const many *m, int64_t vectors, int64_t p, int64_t count) {
	range all = {INT64_MAX, -1};

	for (int64_t i = 0; i < vectors; ++i)
		all = (range){knit__min(all.first, m->bounds[i].first_min), knit__max(all.last, m->bounds[i].last_max)};
	return (range){knit__max(all.first, p), knit__min(all.last, p + count - 1)};
}

static void tile_run(const unit *u, const many *m, int64_t seq, int64_t kv_head, int64_t p) {
	const knit_attention_many_isa *const isa = u->isa->many;
	const range r = seen(m, m->width / isa->lanes, p, TILE);
	knit_attention_slab t = {.p0 = (int32_t)p, .lo = (int32_t)(r.first - p), .hi = (int32_t)(r.last - p + 1)};

	if (knit__range_empty(r))
		return;
	t.stride = u->z.wide;
	t.data = knit__attention_widened(u, KNIT__ATT_K, seq, kv_head, r);
	isa->scores(m, &t);
	isa->weigh(m, &t);
	t.data = knit__attention_widened(u, KNIT__ATT_V, seq, kv_head, r);
	isa->mix(m, &t);
}

static void chunk_clear(const many *m) {
	for (int64_t i = 0; i < m->width; ++i)
		m->max[i] = -INFINITY;
	memset(m->sum, 0, (size_t)m->width * sizeof(float));
	memset(m->values, 0, (size_t)(m->dim * m->width) * sizeof(float));
}

void knit__attention_many_run(const unit *u, const row *rows, int64_t count, int64_t seq, int64_t kv_head) {
	const knit_attention_many_isa *const isa = u->isa->many;
	const float *q[MANY];
	float *out[MANY];
	many m = {.scale = u->scale};

	for (int64_t i = 0; i < count; ++i) {
		q[i] = rows[i].q;
		out[i] = rows[i].out;
	}
	lines_make(&m, u->lines, count, u->z.dim);
	memset(m.started, 0, (size_t)m.width * sizeof *m.started);
	isa->put(&m, q);
	for (int seg = 0; seg < KNIT__SEGMENTS; ++seg) {
		look(&m, rows, seg, isa->lanes);
		const int64_t vectors = m.width / isa->lanes;
		const range all = seen(&m, vectors, 0, (int64_t)INT32_MAX + 1);

		for (int64_t c = all.first / CHUNK; !knit__range_empty(all) && c <= all.last / CHUNK; ++c) {
			chunk_clear(&m);
			for (int64_t p = c * CHUNK; p < c * CHUNK + CHUNK; p += TILE)
				tile_run(u, &m, seq, kv_head, p);
			isa->merge(&m, (int32_t)(c * CHUNK), (int32_t)(c * CHUNK + CHUNK - 1));
		}
	}
	isa->take(&m, out);
}
