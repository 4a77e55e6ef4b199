/* Owns one chunk of positions in attention: its tiles, brought to the rows of q that see them in place or as f32. Knows
 * no instruction set: that is in the isa. Reference: ops/attention.c. */
#include "attention_tiles.h"
#include "kv_rows.h"
#include "operand.h"

#include <math.h>
#include <string.h>

#define TILE KNIT_ATTENTION_TILE
#define CHUNK KNIT_ATTENTION_CHUNK
#define ROWS KNIT_ATTENTION_ROWS

typedef knit_attention_unit unit;
typedef knit_attention_row row;
typedef knit_range range;

/* One kv head of one sequence's keys or values. */
typedef struct lane {
	const knit_cpu_tensor *t;
	int64_t seq, elements; /* elements: of a row, from a block's begin to a block's end */
	int64_t skip;          /* of those, before the head's first */
	int64_t at;            /* of the first of them in a cell */
	int64_t in_place;      /* rows that may read it where it lies */
} lane;

static lane lane_make(const unit *u, uint32_t operand, int64_t seq, int64_t kv_head) {
	const knit_cpu_tensor *const t = &u->s->in[operand];
	const int64_t at = kv_head * (t->rank == 4 ? t->strides[2] : u->z.dim);
	const int64_t skip = knit__is_block(t->dtype) ? at % 32 : 0;
	const int64_t elements = knit__is_block(t->dtype) ? (skip + u->z.dim + 31) / 32 * 32 : u->z.dim;

	return (lane){t, seq, elements, skip, at - skip, u->isa->in_place(t->dtype, skip, u->z.dim)};
}

/* The cell of a position, and how many positions from it up to `last` follow each other in memory. */
static const char *cell(const unit *u, const lane *l, int64_t p, int64_t last, int64_t *run) {
	const int64_t ring = u->s->attr[KNIT__ATT_RING].i, sinks = u->s->attr[KNIT__ATT_SINKS].i;
	const int64_t at = knit__kv_cell(p, ring, sinks, INT64_MAX), end = ring ? sinks + ring : INT64_MAX;

	*run = knit__min(last - p + 1, end - at);
	return l->t->data + knit__bytes_of(l->t->dtype, l->seq * l->t->strides[0] + at * l->t->strides[1] + l->at);
}

/* Positions of keys or values as `users` rows will read them: in place, or as f32 side by side where many share them or
 * where the ring begins anew among them. */
static knit_attention_tile tile_get(const unit *u, const lane *l, range p, int64_t users) {
	const int64_t count = p.last - p.first + 1, stride = knit__bytes_of(l->t->dtype, l->t->strides[1]);
	int64_t run;
	const char *data = cell(u, l, p.first, p.last, &run);

	if (users <= l->in_place && run == count)
		return (knit_attention_tile){data, stride, l->skip, l->t->dtype};
	for (int64_t done = 0; done < count; done += run) {
		data = cell(u, l, p.first + done, p.last, &run);
		u->isa->widen(l->t->dtype, data, stride, run, l->elements, u->wide + done * u->z.wide, u->z.wide);
	}
	return (knit_attention_tile){(const char *)(u->wide + l->skip), u->z.wide * 4, 0, KNIT_F32};
}

const float *knit__attention_widened(const unit *u, uint32_t operand, int64_t seq, int64_t kv_head, range p) {
	const lane l = lane_make(u, operand, seq, kv_head);

	return (const float *)(const void *)tile_get(u, &l, p, INT64_MAX).data;
}

/* What one of `lanes` kv heads asks for while it works: its share of the positions of the tile at p, of those the cells
 * of all of them, so that memory is asked for from one end to the other. */
static knit_attention_ask ask_make(const unit *u, const lane *l, int64_t lanes, int64_t h, int64_t p, int64_t last) {
	const int64_t rows = knit__min(TILE, last - p + 1), begin = rows * h / lanes, end = rows * (h + 1) / lanes;
	const knit_attention_ask none = {0};
	int64_t run;

	if (rows <= 0 || end <= begin)
		return none;
	const char *const data = cell(u, &l[0], p + begin, p + end - 1, &run);
	const int64_t width = l[lanes - 1].at + l[lanes - 1].elements - l[0].at;
	return (knit_attention_ask){data, knit__bytes_of(l->t->dtype, l->t->strides[1]), knit__bytes_of(l->t->dtype, width),
	                            run};
}

static range in_tile(const row *r, int seg, int64_t p) {
	return (range){knit__max(r->sees.seg[seg].first, p), knit__min(r->sees.seg[seg].last, p + TILE - 1)};
}

/* Rows [i, end) that see the same part of a tile. */
static int64_t run_of_rows(const row *rows, int64_t count, int seg, int64_t p, int64_t i) {
	const range r = in_tile(&rows[i], seg, p);
	int64_t end = i + 1;

	while (end < count && in_tile(&rows[end], seg, p).first == r.first && in_tile(&rows[end], seg, p).last == r.last)
		++end;
	return end;
}

/* Positions [p, p + TILE) of one segment for all rows of kv head h of `lanes`, of which each uses only what it sees: no
 * cell that a token may not see can reach it. Positions after that, up to `last`, come next. */
static void tile_run(const unit *u, row *rows, int64_t count, const lane *k, const lane *v, int64_t lanes, int64_t h,
                     int seg, int64_t p, int64_t last) {
	static const knit_attention_ask none;
	range all = {INT64_MAX, -1};
	int64_t users = 0;

	for (int64_t i = 0; i < count; ++i) {
		const range r = in_tile(&rows[i], seg, p);

		if (knit__range_empty(r))
			continue;
		all = (range){knit__min(all.first, r.first), knit__max(all.last, r.last)};
		++users;
	}
	if (users == 0)
		return;
	for (int pass = 0; pass < 2; ++pass) {
		const lane *const l = pass ? v : k;
		const knit_attention_tile whole = tile_get(u, &l[h], all, users);
		const knit_attention_ask next = ask_make(u, l, lanes, h, p + TILE, last);
		bool asked = false;

		for (int64_t i = 0, end; i < count; i = end) {
			const range r = in_tile(&rows[i], seg, p);
			const int64_t seen = r.last - r.first + 1;
			const float *q[ROWS];
			float *part[ROWS], factor[ROWS], *const s = u->scores + i * TILE;
			knit_attention_tile t = whole;

			end = run_of_rows(rows, count, seg, p, i);
			if (knit__range_empty(r))
				continue;
			t.data += (r.first - all.first) * t.stride;
			for (int64_t j = i; j < end; ++j) {
				q[j - i] = rows[j].q;
				part[j - i] = rows[j].chunk;
			}
			if (pass == 0) {
				u->isa->scores(&t, q, end - i, seen, u->z.dim, s, asked ? &none : &next);
			} else {
				u->isa->weigh(s, end - i, seen, u->scale, part, factor);
				u->isa->mix(&t, s, factor, end - i, seen, u->z.dim, part, asked ? &none : &next);
			}
			asked = true;
		}
	}
}

/* ---- all heads of one token ------------------------------------------------------------------------------------- */

/* Cells from p to last as all lanes read them. False where they do not follow each other in memory. */
static bool heads_make(const unit *u, const lane *l, int64_t lanes, int64_t group, int64_t p, int64_t last,
                       knit_attention_heads *h) {
	const knit_dtype t = l->t->dtype;
	int64_t run;

	*h = (knit_attention_heads){.data = cell(u, l, p, last, &run),
	                            .stride = knit__bytes_of(t, l->t->strides[1]),
	                            .head = lanes > 1 ? knit__bytes_of(t, l[1].at - l[0].at) : 0,
	                            .lanes = lanes,
	                            .group = group,
	                            .dim = u->z.dim,
	                            .count = last - p + 1,
	                            .dtype = t};
	return run == h->count;
}

/* Whether all rows see the same of a segment, as those of one token do, and no head begins within a block. */
static bool heads_fit(const unit *u, const row *rows, int64_t count, const lane *k, const lane *v, int64_t lanes,
                      int seg) {
	if (!u->isa->heads_fit || !u->isa->heads_fit(k->t->dtype, u->z.dim) || !u->isa->heads_fit(v->t->dtype, u->z.dim))
		return false;
	for (int64_t i = 1; i < count * lanes; ++i)
		if (rows[i].sees.seg[seg].first != rows[0].sees.seg[seg].first ||
		    rows[i].sees.seg[seg].last != rows[0].sees.seg[seg].last)
			return false;
	return true;
}

/* Positions p to last, of one tile; those up to `seen` come next. */
static bool heads_run(const unit *u, row *rows, int64_t group, const lane *k, const lane *v, int64_t lanes, int64_t p,
                      int64_t last, int64_t seen) {
	const float *q[ROWS];
	float *part[ROWS], factor[ROWS];
	knit_attention_heads keys, values;
	int64_t run;

	if (!heads_make(u, k, lanes, group, p, last, &keys) || !heads_make(u, v, lanes, group, p, last, &values))
		return false;
	keys.then = values.data;
	keys.then_bytes = values.count * values.stride;
	if (seen > last) {
		values.then = cell(u, k, last + 1, knit__min(seen, last + TILE), &run);
		values.then_bytes = run * keys.stride;
	}
	for (int64_t i = 0; i < group * lanes; ++i) {
		q[i] = rows[i].q;
		part[i] = rows[i].chunk;
	}
	u->isa->scores_heads(&keys, q, u->scores);
	u->isa->weigh(u->scores, group * lanes, keys.count, u->scale, part, factor);
	u->isa->mix_heads(&values, u->scores, factor, part);
	return true;
}

/* ---- a chunk ----------------------------------------------------------------------------------------------------- */

static void partial_clear(float *p, const knit_attention_sizes *z) {
	p[0] = -INFINITY;
	p[1] = 0;
	memset(p + KNIT_ATTENTION_HEAD, 0, (size_t)z->dim_padded * sizeof *p);
}

/* The heads of a cell lie side by side: all of them take their tile before the next one's turn, so that memory is read
 * from one end to the other. */
bool knit__attention_chunk(const unit *u, row *rows, int64_t count, int64_t lanes, int64_t seq, int seg, int64_t chunk,
                           int64_t kv_head) {
	lane k[ROWS], v[ROWS];
	int64_t first = INT64_MAX, last = -1;

	for (int64_t i = 0; i < count * lanes; ++i) {
		if (!knit__sees_chunk(&rows[i], seg, chunk))
			continue;
		partial_clear(rows[i].chunk, &u->z);
		first = knit__min(first, rows[i].sees.seg[seg].first);
		last = knit__max(last, rows[i].sees.seg[seg].last);
	}
	if (last < 0)
		return false;
	for (int64_t h = 0; h < lanes; ++h) {
		k[h] = lane_make(u, KNIT__ATT_K, seq, kv_head + h);
		v[h] = lane_make(u, KNIT__ATT_V, seq, kv_head + h);
	}
	first = knit__max(first, chunk * CHUNK) / TILE * TILE;
	last = knit__min(last, chunk * CHUNK + CHUNK - 1);
	const bool together = heads_fit(u, rows, count, k, v, lanes, seg);
	const range sees = rows[0].sees.seg[seg];

	for (int64_t p = first; p <= last; p += TILE) {
		const range tile = {knit__max(p, sees.first), knit__min(p + TILE - 1, last)};

		if (together && heads_run(u, rows, count, k, v, lanes, tile.first, tile.last, sees.last))
			continue;
		for (int64_t h = 0; h < lanes; ++h)
			tile_run(u, rows + h * count, count, k, v, lanes, h, seg, p, last);
	}
	return true;
}
