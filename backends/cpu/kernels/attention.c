/* Owns the driver of attention for every instruction set: which tokens share which tiles. Knows no instruction set:
 * that is in the isa. Reference: ops/attention.c. */
#include "attention.h"
#include "exp.h"
#include "kv_rows.h"
#include "operand.h"

#include <math.h>

enum { Q, K, V, SEQ, POS };
enum { SCALE, WINDOW, RING, SINKS, KV_HEADS };

#define TILE KNIT_ATTENTION_TILE
#define CHUNK KNIT_ATTENTION_CHUNK
#define ROWS 16 /* of q that share a tile: tokens x query heads of a group, at least one token */
#define SHARED 4 /* from so many rows on a tile is widened once for all of them */
#define SPLIT_TOKENS 4 /* up to so many, the chunks of a token are units of their own */

/* Keys or values. Blocks must start at multiples of the block, which no symbol can promise. */
static bool accepts_slot(const knit_operand_view *v) {
	bool fits = (knit__is_float(v->dtype) || knit__is_block(v->dtype)) && v->layout == 0 && v->rows_contiguous &&
	            (v->rank == 3 || v->rank == 4);

	for (int i = 0; fits && knit__is_block(v->dtype) && i + 1 < v->rank; ++i)
		fits = v->strides[i].v >= 0 && v->strides[i].v % 32 == 0;
	return fits;
}

bool knit__attention_accepts(const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[Q];

	return knit__f32_rows(q) && q->rank == 3 && accepts_slot(&node->in[K]) && accepts_slot(&node->in[V]) &&
	       knit__index_vector(&node->in[SEQ]) && knit__index_vector(&node->in[POS]) && knit__f32_dense(&node->out[0]);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

typedef struct sizes {
	int64_t tokens, heads, kv_heads, group, dim, dim_padded;
	int64_t wide;    /* floats of a row of a widened tile */
	int64_t parts;   /* of a group: units of up to ROWS heads */
	int64_t block;   /* tokens of a unit */
	int64_t partial; /* floats of a head's partial result: maximum, sum, 14 unused, the weighted values */
	int64_t chunks;  /* that a token can see, at most: slots of partial results */
} sizes;

/* Whether a head may begin and end within a block. */
static bool cuts_blocks(knit_dtype t, int64_t dim) { return knit__is_block(t) && dim % 32 != 0; }

static sizes sizes_make(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim, int64_t cells, bool cut,
                        const knit_attr *attr) {
	const int64_t window = attr[WINDOW].i > 0 ? knit__min(attr[WINDOW].i, cells) : cells;
	const int64_t straddled = (window + CHUNK - 2) / CHUNK + 1, all = knit__ceil_div(cells, CHUNK);
	sizes z = {.tokens = tokens, .heads = heads, .kv_heads = kv_heads, .group = heads / kv_heads, .dim = dim};

	z.dim_padded = (dim + 15) / 16 * 16;
	z.wide = cut ? (dim + 64 + 15) / 16 * 16 : z.dim_padded;
	z.parts = knit__ceil_div(z.group, ROWS);
	z.block = z.group > 0 && z.group < ROWS ? ROWS / z.group : 1;
	z.partial = 16 + z.dim_padded;
	z.chunks = attr[RING].i ? straddled : knit__min(straddled, all);
	z.chunks += knit__ceil_div(knit__min(attr[SINKS].i, cells), CHUNK);
	return z;
}

static sizes sizes_of(const knit_cpu_step *s) {
	const knit_cpu_tensor *const q = &s->in[Q], *const k = &s->in[K];
	const bool cut = cuts_blocks(k->dtype, q->dims[2]) || cuts_blocks(s->in[V].dtype, q->dims[2]);

	return sizes_make(q->dims[0], q->dims[1], k->rank == 4 ? k->dims[2] : s->attr[KV_HEADS].i, q->dims[2], k->dims[1], cut,
	                  s->attr);
}

/* Of a thread: per row the scores of a tile and two partial results, and a tile of keys or values as f32. */
static uint64_t thread_bytes(const sizes *z) {
	return (uint64_t)(ROWS * (TILE + 2 * z->partial) + TILE * z->wide) * sizeof(float);
}

uint64_t knit__attention_scratch(const knit_node_view *node, uint32_t threads) {
	const knit_exprs *const e = &node->graph->exprs;
	const knit_operand_view *const q = &node->in[Q], *const k = &node->in[K];
	const bool cut = cuts_blocks(k->dtype, q->dims[2].v) || cuts_blocks(node->in[V].dtype, q->dims[2].v);
	const sizes z = sizes_make(knit__dim_hi(e, node->bounds, q->dims[0]), q->dims[1].v,
	                           k->rank == 4 ? k->dims[2].v : node->attr[KV_HEADS].i, q->dims[2].v,
	                           knit__dim_hi(e, node->bounds, k->dims[1]), cut, node->attr);
	uint64_t bytes = (uint64_t)(z.heads * z.partial) * sizeof(float), all;

	if (z.chunks <= 1)
		bytes = 0;
	if (!knit__mul_u64(bytes, (uint64_t)knit__min(z.tokens, SPLIT_TOKENS), &bytes) ||
	    !knit__mul_u64(bytes, (uint64_t)z.chunks, &bytes) || !knit__mul_u64(thread_bytes(&z), threads, &all) ||
	    !knit__add_u64(bytes, all, &all))
		return UINT64_MAX;
	return all;
}

/* ---- what a token sees ------------------------------------------------------------------------------------------- */

typedef struct range { int64_t first, last; } range; /* empty: last < first */

/* Positions: the sinks that lie before the window, then the window. */
enum { BEFORE, WITHIN, SEGMENTS };
typedef struct sight { range seg[SEGMENTS]; } sight;

static bool is_empty(range r) { return r.last < r.first; }

/* A token whose cell is outside the slot sees nothing: the session has checked seq and pos where they are inputs. */
static sight visible(const knit_cpu_step *s, int64_t token) {
	const int64_t pos = ((const int32_t *)(void *)s->in[POS].data)[token], cells = s->in[K].dims[1];
	const int64_t seq = ((const int32_t *)(void *)s->in[SEQ].data)[token], window = s->attr[WINDOW].i;
	const range none = {0, -1};

	if (knit__kv_cell(pos, s->attr[RING].i, s->attr[SINKS].i, cells) < 0 || seq < 0 || seq >= s->in[K].dims[0])
		return (sight){{none, none}};
	const int64_t first = window > 0 && window <= pos ? pos - window + 1 : 0;
	return (sight){{{0, knit__min(s->attr[SINKS].i, first) - 1}, {first, pos}}};
}

static int64_t chunks_of(range r) { return is_empty(r) ? 0 : r.last / CHUNK - r.first / CHUNK + 1; }

/* How many chunks of a token become units, 0 where a unit does all chunks of its tokens. */
static int64_t split_slots(const knit_cpu_step *s, const sizes *z) {
	int64_t slots = 0;

	if (z->tokens > SPLIT_TOKENS || z->chunks <= 1)
		return 0;
	for (int64_t t = 0; t < z->tokens; ++t) {
		const sight sees = visible(s, t);

		slots = knit__max(slots, chunks_of(sees.seg[BEFORE]) + chunks_of(sees.seg[WITHIN]));
	}
	return slots > 1 ? slots : 0;
}

/* ---- partial results --------------------------------------------------------------------------------------------- */

typedef struct row {
	const float *q;
	float *out, *scores, *chunk, *total; /* partial results: [0] maximum, [1] sum, [16..] weighted values */
	sight sees;
	bool started; /* total holds a chunk */
} row;

static void partial_clear(float *p, const sizes *z) {
	p[0] = -INFINITY;
	p[1] = 0;
	memset(p + 16, 0, (size_t)z->dim_padded * sizeof *p);
}

/* total = total and part together. */
static void partial_merge(float *total, const float *part, const sizes *z) {
	const float max = part[0] > total[0] ? part[0] : total[0], base = max == -INFINITY ? 0 : max;
	const float a = knit__expf(total[0] - base), b = knit__expf(part[0] - base);

	total[0] = max;
	total[1] = total[1] * a + part[1] * b;
	for (int64_t i = 16; i < z->partial; ++i)
		total[i] = total[i] * a + part[i] * b;
}

static void partial_finish(const float *total, float *out, const sizes *z) {
	const float factor = 1.0f / total[1];

	for (int64_t i = 0; i < z->dim; ++i)
		out[i] = total[16 + i] * factor;
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

typedef struct unit {
	const knit_cpu_step *s;
	const knit_attention_isa *isa;
	sizes z;
	float scale;
	float *wide;  /* a tile as f32 */
	float *spare; /* of the rows: scores, chunk, total */
} unit;

/* One kv head of one sequence's keys or values. */
typedef struct lane {
	const knit_cpu_tensor *t;
	int64_t seq, elements; /* elements: of a row, from a block's begin to a block's end */
	int64_t skip;          /* of those, before the head's first */
	int64_t at;            /* of the first of them in a cell */
} lane;

static lane lane_make(const unit *u, uint32_t operand, int64_t seq, int64_t kv_head) {
	const knit_cpu_tensor *const t = &u->s->in[operand];
	const int64_t at = kv_head * (t->rank == 4 ? t->strides[2] : u->z.dim);
	const int64_t skip = knit__is_block(t->dtype) ? at % 32 : 0;
	const int64_t elements = knit__is_block(t->dtype) ? (skip + u->z.dim + 31) / 32 * 32 : u->z.dim;

	return (lane){t, seq, elements, skip, at - skip};
}

/* The cell of a position, and how many positions from it up to `last` follow each other in memory. */
static const char *cell(const unit *u, const lane *l, int64_t p, int64_t last, int64_t *run) {
	const int64_t ring = u->s->attr[RING].i, sinks = u->s->attr[SINKS].i;
	const int64_t at = knit__kv_cell(p, ring, sinks, INT64_MAX), end = ring ? sinks + ring : INT64_MAX;

	*run = knit__min(last - p + 1, end - at);
	return l->t->data + knit__bytes_of(l->t->dtype, l->seq * l->t->strides[0] + at * l->t->strides[1] + l->at);
}

/* Positions of keys or values as the rows will read them: in place, or as f32 side by side where several rows share them
 * (in place, rows a power of two apart would push each other out of the first cache), where they are blocks or where the
 * ring begins anew among them. */
typedef struct tile { const char *data; int64_t stride; knit_dtype dtype; } tile;

static tile tile_get(const unit *u, const lane *l, range p, bool shared) {
	const int64_t count = p.last - p.first + 1, stride = knit__bytes_of(l->t->dtype, l->t->strides[1]);
	int64_t run;
	const char *data = cell(u, l, p.first, p.last, &run);

	if (!shared && run == count && !knit__is_block(l->t->dtype))
		return (tile){data, stride, l->t->dtype};
	for (int64_t done = 0; done < count; done += run) {
		data = cell(u, l, p.first + done, p.last, &run);
		u->isa->widen(l->t->dtype, data, stride, run, l->elements, u->wide + done * u->z.wide, u->z.wide);
	}
	return (tile){(const char *)(u->wide + l->skip), u->z.wide * 4, KNIT_F32};
}

/* What row `i` of `count` asks for while it works: its share of the tile at p. */
static knit_attention_ask ask_share(const unit *u, const lane *l, int64_t p, int64_t last, int64_t i, int64_t count) {
	const int64_t rows = knit__min(TILE, last - p + 1), first = rows * i / count, end = rows * (i + 1) / count;
	const knit_attention_ask none = {0};
	int64_t run;

	if (rows <= 0 || end <= first)
		return none;
	const char *const data = cell(u, l, p + first, p + end - 1, &run);
	return (knit_attention_ask){data, knit__bytes_of(l->t->dtype, l->t->strides[1]),
	                            knit__bytes_of(l->t->dtype, l->elements), run};
}

/* ---- a unit ------------------------------------------------------------------------------------------------------ */

static range in_tile(const row *r, int seg, int64_t p) {
	return (range){knit__max(r->sees.seg[seg].first, p), knit__min(r->sees.seg[seg].last, p + TILE - 1)};
}

static void row_scores(const unit *u, const row *r, const tile *k, int64_t skip, int64_t count,
                       const knit_attention_ask *ask) {
	u->isa->scores(k->dtype, r->q, k->data + skip * k->stride, k->stride, count, u->z.dim, r->scores, ask);
}

static void row_mix(const unit *u, const row *r, const tile *v, int64_t skip, int64_t count,
                    const knit_attention_ask *ask) {
	const float factor = u->isa->weigh(r->scores, count, u->scale, &r->chunk[0], &r->chunk[1]);

	u->isa->mix(v->dtype, r->scores, factor, v->data + skip * v->stride, v->stride, count, u->z.dim, r->chunk + 16, ask);
}

/* Positions [p, p + TILE) of one segment for all rows, of which each uses only what it sees: no cell that a token may
 * not see can reach it. Positions after that, up to `last`, come next. */
static void tile_run(const unit *u, row *rows, int64_t count, const lane *k, const lane *v, int seg, int64_t p,
                     int64_t last) {
	range all = {INT64_MAX, -1};
	int64_t users = 0;

	for (int64_t i = 0; i < count; ++i) {
		const range r = in_tile(&rows[i], seg, p);

		if (is_empty(r))
			continue;
		all = (range){knit__min(all.first, r.first), knit__max(all.last, r.last)};
		++users;
	}
	if (users == 0)
		return;
	for (int pass = 0; pass < 2; ++pass) {
		const lane *const l = pass ? v : k;
		const tile t = tile_get(u, l, all, users >= SHARED);

		for (int64_t i = 0, done = 0; i < count; ++i) {
			const range r = in_tile(&rows[i], seg, p);

			if (is_empty(r))
				continue;
			const knit_attention_ask ask = ask_share(u, l, p + TILE, last, done++, users);
			(pass ? row_mix : row_scores)(u, &rows[i], &t, r.first - all.first, r.last - r.first + 1, &ask);
		}
	}
}

static bool sees_chunk(const row *r, int seg, int64_t chunk) {
	const range sees = r->sees.seg[seg];

	return !is_empty(sees) && sees.first / CHUNK <= chunk && chunk <= sees.last / CHUNK;
}

/* One chunk of positions for rows of one sequence, into the `chunk` of those that see it. False if none does. */
static bool chunk_run(const unit *u, row *rows, int64_t count, int64_t seq, int seg, int64_t chunk, int64_t kv_head) {
	const lane k = lane_make(u, K, seq, kv_head), v = lane_make(u, V, seq, kv_head);
	int64_t first = INT64_MAX, last = -1;

	for (int64_t i = 0; i < count; ++i) {
		if (!sees_chunk(&rows[i], seg, chunk))
			continue;
		partial_clear(rows[i].chunk, &u->z);
		first = knit__min(first, rows[i].sees.seg[seg].first);
		last = knit__max(last, rows[i].sees.seg[seg].last);
	}
	if (last < 0)
		return false;
	first = knit__max(first, chunk * CHUNK) / TILE * TILE;
	last = knit__min(last, chunk * CHUNK + CHUNK - 1);
	for (int64_t p = first; p <= last; p += TILE)
		tile_run(u, rows, count, &k, &v, seg, p, last);
	return true;
}

static void row_init(const unit *u, row *r, int64_t index, int64_t token, int64_t head) {
	float *const own = u->spare + index * (TILE + 2 * u->z.partial);

	*r = (row){.q = knit__f32_row(&u->s->in[Q], token * u->z.heads + head),
	           .out = (float *)(void *)u->s->out[0].data + (token * u->z.heads + head) * u->z.dim,
	           .scores = own,
	           .chunk = own + TILE,
	           .total = own + TILE + u->z.partial,
	           .sees = visible(u->s, token)};
}

/* All chunks of a segment, each merged into the rows' totals. */
static void segment_run(const unit *u, row *rows, int64_t count, int64_t seq, int seg, int64_t kv_head) {
	range chunks = {INT64_MAX, -1};

	for (int64_t i = 0; i < count; ++i) {
		if (is_empty(rows[i].sees.seg[seg]))
			continue;
		chunks.first = knit__min(chunks.first, rows[i].sees.seg[seg].first / CHUNK);
		chunks.last = knit__max(chunks.last, rows[i].sees.seg[seg].last / CHUNK);
	}
	for (int64_t chunk = chunks.first; chunk <= chunks.last; ++chunk) {
		if (!chunk_run(u, rows, count, seq, seg, chunk, kv_head))
			continue;
		for (int64_t i = 0; i < count; ++i) {
			if (!sees_chunk(&rows[i], seg, chunk))
				continue;
			if (rows[i].started)
				partial_merge(rows[i].total, rows[i].chunk, &u->z);
			else
				memcpy(rows[i].total, rows[i].chunk, (size_t)u->z.partial * sizeof(float));
			rows[i].started = true;
		}
	}
}

/* Tokens [begin, end) of one sequence, heads [head, head + heads) of one kv head. */
static void run_tokens(const unit *u, int64_t begin, int64_t end, int64_t kv_head, int64_t head, int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[begin];
	row rows[ROWS];
	int64_t count = 0;

	for (int64_t t = begin; t < end; ++t) {
		for (int64_t h = head; h < head + heads; ++h) {
			row *const r = &rows[count];

			row_init(u, r, count, t, h);
			for (int64_t i = 0; i < u->z.dim && is_empty(r->sees.seg[WITHIN]); ++i)
				r->out[i] = NAN;
			count += !is_empty(r->sees.seg[WITHIN]);
		}
	}
	for (int seg = 0; seg < SEGMENTS; ++seg)
		segment_run(u, rows, count, seq, seg, kv_head);
	for (int64_t i = 0; i < count; ++i)
		partial_finish(rows[i].total, rows[i].out, &u->z);
}

static void run_block(const unit *u, int64_t block, int64_t kv_head, int64_t head, int64_t heads) {
	const int32_t *const seq = (const int32_t *)(void *)u->s->in[SEQ].data;
	const int64_t last = knit__min((block + 1) * u->z.block, u->z.tokens);
	int64_t end;

	for (int64_t t = block * u->z.block; t < last; t = end) {
		for (end = t + 1; end < last && seq[end] == seq[t];)
			++end;
		run_tokens(u, t, end, kv_head, head, heads);
	}
}

/* ---- chunks as units --------------------------------------------------------------------------------------------- */

static float *split_results(const knit_cpu_step *s, const sizes *z) {
	return (float *)(void *)(s->scratch + thread_bytes(z) * s->threads);
}

/* The chunk in slot `slot` of one token; nothing where the token has fewer. */
static void run_slot(const unit *u, int64_t token, int64_t slot, int64_t slots, int64_t kv_head, int64_t head,
                     int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[token];
	const sight sees = visible(u->s, token);
	const int64_t before = chunks_of(sees.seg[BEFORE]);
	const int seg = slot < before ? BEFORE : WITHIN;
	float *const results = split_results(u->s, &u->z);
	row rows[ROWS];

	if (slot >= before + chunks_of(sees.seg[WITHIN]))
		return;
	for (int64_t h = 0; h < heads; ++h) {
		row_init(u, &rows[h], h, token, head + h);
		rows[h].chunk = results + ((token * u->z.heads + head + h) * slots + slot) * u->z.partial;
	}
	chunk_run(u, rows, heads, seq, seg, sees.seg[seg].first / CHUNK + (seg == BEFORE ? slot : slot - before), kv_head);
}

int64_t knit__attention_merge_units(const knit_cpu_step *s) {
	const sizes z = sizes_of(s);

	return split_slots(s, &z) ? z.tokens * z.heads : 0;
}

void knit__attention_merge(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_slots(s, &z);

	(void)thread;
	for (int64_t i = begin; i < end; ++i) {
		float *const out = (float *)(void *)s->out[0].data + i * z.dim;
		float *const results = split_results(s, &z) + i * slots * z.partial;
		const sight sees = visible(s, i / z.heads);
		const int64_t count = chunks_of(sees.seg[BEFORE]) + chunks_of(sees.seg[WITHIN]);

		for (int64_t j = 0; j < z.dim && count == 0; ++j)
			out[j] = NAN;
		if (count == 0)
			continue;
		for (int64_t c = 1; c < count; ++c)
			partial_merge(results, results + c * z.partial, &z);
		partial_finish(results, out, &z);
	}
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

int64_t knit__attention_units(const knit_cpu_step *s) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_slots(s, &z), heads = z.kv_heads * z.parts;

	return slots ? z.tokens * heads * slots : knit__ceil_div(z.tokens, z.block) * heads;
}

/* Many tokens: units of one kv head follow each other, its keys and values stay near. Few: those of one chunk do, since
 * the heads of a cell lie side by side and so in the same pages. */
void knit__attention_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread,
                         const knit_attention_isa *isa) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_slots(s, &z), blocks = knit__ceil_div(z.tokens, z.block), parts = z.kv_heads * z.parts;
	float *const own = (float *)(void *)(s->scratch + thread_bytes(&z) * thread);
	const unit u = {.s = s,
	                .isa = isa,
	                .z = z,
	                .scale = (float)s->attr[SCALE].f,
	                .wide = own,
	                .spare = own + TILE * z.wide};

	for (int64_t i = begin; i < end; ++i) {
		const int64_t block = slots ? i / parts : i % blocks, part = slots ? i % parts : i / blocks;
		const int64_t kv_head = part / z.parts, skip = part % z.parts * ROWS;
		const int64_t head = kv_head * z.group + skip, heads = knit__min(ROWS, z.group - skip);

		if (slots)
			run_slot(&u, block / slots, block % slots, slots, kv_head, head, heads);
		else
			run_block(&u, block, kv_head, head, heads);
	}
}
