/* Owns the driver of attention for every instruction set: which tokens share which tiles. Knows no instruction set:
 * that is in the isa. Reference: ops/attention.c. */
#include "attention.h"
#include "exp.h"
#include "operand.h"

#include <math.h>

enum { Q, K, V, SEQ, POS };
enum { SCALE, WINDOW, RING, SINKS };

#define TILE KNIT_ATTENTION_TILE
#define CHUNK KNIT_ATTENTION_CHUNK
#define ROWS 16 /* of q that share a tile: tokens x query heads of a group, at least one token */
#define SHARED 4 /* from so many rows on a tile is widened once for all of them */
#define SPLIT_TOKENS 4 /* up to so many, the chunks of a token are units of their own */

bool knit__attention_accepts(const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[Q], *const k = &node->in[K], *const v = &node->in[V];

	if (node->attr[RING].i != 0 || node->attr[SINKS].i != 0)
		return false;
	return knit__f32_rows(q) && q->rank == 3 && knit__is_float(k->dtype) && k->rank == 4 && k->layout == 0 &&
	       k->rows_contiguous && knit__is_float(v->dtype) && v->rank == 4 && v->layout == 0 && v->rows_contiguous &&
	       knit__index_vector(&node->in[SEQ]) && knit__index_vector(&node->in[POS]) && knit__f32_dense(&node->out[0]);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

typedef struct sizes {
	int64_t tokens, heads, kv_heads, group, dim, dim_padded, positions;
	int64_t parts;   /* of a group: units of up to ROWS heads */
	int64_t block;   /* tokens of a unit */
	int64_t partial; /* floats of a head's partial result: maximum, sum, 14 unused, the weighted values */
} sizes;

static sizes sizes_make(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim, int64_t positions) {
	sizes z = {tokens, heads, kv_heads, heads / kv_heads, dim, (dim + 15) / 16 * 16, positions, 0, 0, 0};

	z.parts = knit__ceil_div(z.group, ROWS);
	z.block = z.group > 0 && z.group < ROWS ? ROWS / z.group : 1;
	z.partial = 16 + z.dim_padded;
	return z;
}

static sizes sizes_of(const knit_cpu_step *s) {
	const knit_cpu_tensor *const q = &s->in[Q], *const k = &s->in[K];

	return sizes_make(q->dims[0], q->dims[1], k->dims[2], q->dims[2], k->dims[1]);
}

/* Of a thread: per row the scores of a tile and two partial results, and a tile of keys or values as f32. */
static uint64_t thread_bytes(const sizes *z) {
	return (uint64_t)(ROWS * (TILE + 2 * z->partial) + TILE * z->dim_padded) * sizeof(float);
}

uint64_t knit__attention_scratch(const knit_node_view *node, uint32_t threads) {
	const knit_exprs *const e = &node->graph->exprs;
	const knit_operand_view *const q = &node->in[Q], *const k = &node->in[K];
	const sizes z = sizes_make(knit__dim_hi(e, node->bounds, q->dims[0]), q->dims[1].v, k->dims[2].v, q->dims[2].v,
	                           knit__dim_hi(e, node->bounds, k->dims[1]));
	const int64_t chunks = knit__ceil_div(z.positions, CHUNK);
	uint64_t bytes = (uint64_t)(z.heads * z.partial) * sizeof(float), all;

	if (chunks <= 1)
		bytes = 0;
	if (!knit__mul_u64(bytes, (uint64_t)knit__min(z.tokens, SPLIT_TOKENS), &bytes) ||
	    !knit__mul_u64(bytes, (uint64_t)chunks, &bytes) || !knit__mul_u64(thread_bytes(&z), threads, &all) ||
	    !knit__add_u64(bytes, all, &all))
		return UINT64_MAX;
	return all;
}

/* ---- what a token sees ------------------------------------------------------------------------------------------- */

typedef struct range { int64_t first, last; } range; /* empty: last < first */

/* A token whose cell is outside the slot sees nothing: the session has checked seq and pos where they are inputs. */
static range visible(const knit_cpu_step *s, int64_t token) {
	const int64_t pos = ((const int32_t *)(void *)s->in[POS].data)[token];
	const int64_t seq = ((const int32_t *)(void *)s->in[SEQ].data)[token], window = s->attr[WINDOW].i;

	if (pos < 0 || pos >= s->in[K].dims[1] || seq < 0 || seq >= s->in[K].dims[0])
		return (range){0, -1};
	return (range){window > 0 && window <= pos ? pos - window + 1 : 0, pos};
}

/* The chunks that any token of the step sees; only asked for a few tokens. */
static range chunks_seen(const knit_cpu_step *s, int64_t tokens) {
	range seen = {INT64_MAX, -1};

	for (int64_t t = 0; t < tokens; ++t) {
		const range r = visible(s, t);

		if (r.last < r.first)
			continue;
		seen.first = knit__min(seen.first, r.first / CHUNK);
		seen.last = knit__max(seen.last, r.last / CHUNK);
	}
	return seen;
}

/* How many chunks become units, 0 where a unit does all chunks of its tokens. */
static int64_t split_chunks(const knit_cpu_step *s, const sizes *z) {
	if (z->tokens > SPLIT_TOKENS || z->positions <= CHUNK)
		return 0;

	const range seen = chunks_seen(s, z->tokens);
	return seen.last > seen.first ? seen.last - seen.first + 1 : 0;
}

/* ---- partial results --------------------------------------------------------------------------------------------- */

typedef struct row {
	const float *q;
	float *out, *scores, *chunk, *total; /* partial results: [0] maximum, [1] sum, [16..] weighted values */
	range sees;
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

/* ---- a unit ------------------------------------------------------------------------------------------------------ */

typedef struct unit {
	const knit_cpu_step *s;
	const knit_attention_isa *isa;
	sizes z;
	float scale;
	float *wide;  /* a tile as f32 */
	float *spare; /* of the rows: scores, chunk, total */
} unit;

/* Cell (seq, p) of one kv head. */
static const char *cell(const knit_cpu_tensor *t, int64_t seq, int64_t p, int64_t kv_head) {
	return t->data + knit__bytes_of(t->dtype, seq * t->strides[0] + p * t->strides[1] + kv_head * t->strides[2]);
}

/* A tile of keys or values as the rows will read it: in place, or as f32 side by side where several rows share it (in
 * place, rows a power of two apart would push each other out of the first cache). */
typedef struct tile { const char *data; int64_t stride; knit_dtype dtype; } tile;

static tile tile_get(const unit *u, const knit_cpu_tensor *t, int64_t seq, int64_t p, int64_t kv_head, bool shared) {
	tile out = {cell(t, seq, p, kv_head), knit__bytes_of(t->dtype, t->strides[1]), t->dtype};

	if (!shared)
		return out;
	u->isa->widen(t->dtype, out.data, out.stride, TILE, u->z.dim, u->wide, u->z.dim_padded);
	return (tile){(const char *)u->wide, u->z.dim_padded * 4, KNIT_F32};
}

static bool covers(const row *r, int64_t p) { return r->sees.first <= p && r->sees.last >= p + TILE - 1; }

/* What row `i` of `count` asks for while it works: its share of the rows of the tile at p. */
static knit_attention_ask ask_share(const unit *u, const knit_cpu_tensor *t, int64_t seq, int64_t p, int64_t last,
                                    int64_t kv_head, int64_t i, int64_t count) {
	const int64_t rows = knit__min(TILE, last - p + 1), first = rows * i / count;
	const knit_attention_ask none = {0};

	if (rows <= 0)
		return none;
	return (knit_attention_ask){cell(t, seq, p + first, kv_head), knit__bytes_of(t->dtype, t->strides[1]),
	                            knit__bytes_of(t->dtype, u->z.dim), rows * (i + 1) / count - first};
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

/* Positions [p, p + TILE) for all rows: together where a row sees all of them, else only what it sees, so that no cell
 * that a token may not see can reach it. Positions after that, up to `last`, come next. */
static void tile_run(const unit *u, row *rows, int64_t count, int64_t seq, int64_t p, int64_t last, int64_t kv_head) {
	const knit_cpu_tensor *const k = &u->s->in[K], *const v = &u->s->in[V];
	const knit_attention_ask none = {0};
	int64_t whole = 0, done = 0;

	for (int64_t i = 0; i < count; ++i)
		whole += covers(&rows[i], p);
	if (whole > 0) {
		const tile keys = tile_get(u, k, seq, p, kv_head, whole >= SHARED);

		for (int64_t i = 0; i < count; ++i) {
			if (!covers(&rows[i], p))
				continue;
			const knit_attention_ask ask = ask_share(u, k, seq, p + TILE, last, kv_head, done++, whole);
			row_scores(u, &rows[i], &keys, 0, TILE, &ask);
		}
		const tile values = tile_get(u, v, seq, p, kv_head, whole >= SHARED);

		done = 0;
		for (int64_t i = 0; i < count; ++i) {
			if (!covers(&rows[i], p))
				continue;
			const knit_attention_ask ask = ask_share(u, v, seq, p + TILE, last, kv_head, done++, whole);
			row_mix(u, &rows[i], &values, 0, TILE, &ask);
		}
	}
	for (int64_t i = 0; i < count && whole < count; ++i) {
		const int64_t from = knit__max(rows[i].sees.first, p), to = knit__min(rows[i].sees.last, p + TILE - 1);

		if (covers(&rows[i], p) || to < from)
			continue;
		const tile keys = tile_get(u, k, seq, from, kv_head, false), values = tile_get(u, v, seq, from, kv_head, false);

		row_scores(u, &rows[i], &keys, 0, to - from + 1, &none);
		row_mix(u, &rows[i], &values, 0, to - from + 1, &none);
	}
}

/* One chunk of positions for rows of one sequence, into their `chunk`. */
static void chunk_run(const unit *u, row *rows, int64_t count, int64_t seq, int64_t chunk, int64_t kv_head) {
	int64_t first = INT64_MAX, last = -1;

	for (int64_t i = 0; i < count; ++i) {
		partial_clear(rows[i].chunk, &u->z);
		first = knit__min(first, rows[i].sees.first);
		last = knit__max(last, rows[i].sees.last);
	}
	first = knit__max(first, chunk * CHUNK) / TILE * TILE;
	last = knit__min(last, chunk * CHUNK + CHUNK - 1);
	for (int64_t p = first; p <= last; p += TILE)
		tile_run(u, rows, count, seq, p, last, kv_head);
}

static bool sees_chunk(const row *r, int64_t chunk) {
	return r->sees.first <= r->sees.last && r->sees.first / CHUNK <= chunk && chunk <= r->sees.last / CHUNK;
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

/* Tokens [begin, end) of one sequence, heads [head, head + heads) of one kv head. */
static void run_tokens(const unit *u, int64_t begin, int64_t end, int64_t kv_head, int64_t head, int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[begin];
	range seen = {INT64_MAX, -1};
	row rows[ROWS];
	int64_t count = 0;

	for (int64_t t = begin; t < end; ++t) {
		for (int64_t h = head; h < head + heads; ++h) {
			row *const r = &rows[count];

			row_init(u, r, count, t, h);
			if (r->sees.last < r->sees.first) {
				for (int64_t i = 0; i < u->z.dim; ++i)
					r->out[i] = NAN;
				continue;
			}
			seen.first = knit__min(seen.first, r->sees.first);
			seen.last = knit__max(seen.last, r->sees.last);
			++count;
		}
	}
	for (int64_t chunk = seen.first / CHUNK; chunk <= seen.last / CHUNK && count > 0; ++chunk) {
		chunk_run(u, rows, count, seq, chunk, kv_head);
		for (int64_t i = 0; i < count; ++i) {
			if (!sees_chunk(&rows[i], chunk))
				continue;
			if (rows[i].started)
				partial_merge(rows[i].total, rows[i].chunk, &u->z);
			else
				memcpy(rows[i].total, rows[i].chunk, (size_t)u->z.partial * sizeof(float));
			rows[i].started = true;
		}
	}
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

/* One chunk of one token; nothing where the token does not see it. */
static void run_chunk(const unit *u, int64_t token, int64_t slot, int64_t slots, int64_t chunk, int64_t kv_head,
                      int64_t head, int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[token];
	float *const results = split_results(u->s, &u->z);
	row rows[ROWS];

	for (int64_t h = 0; h < heads; ++h) {
		row_init(u, &rows[h], h, token, head + h);
		rows[h].chunk = results + ((token * u->z.heads + head + h) * slots + slot) * u->z.partial;
	}
	if (sees_chunk(&rows[0], chunk))
		chunk_run(u, rows, heads, seq, chunk, kv_head);
}

int64_t knit__attention_merge_units(const knit_cpu_step *s) {
	const sizes z = sizes_of(s);

	return split_chunks(s, &z) ? z.tokens * z.heads : 0;
}

void knit__attention_merge(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_chunks(s, &z), first = chunks_seen(s, z.tokens).first;

	(void)thread;
	for (int64_t i = begin; i < end; ++i) {
		float *const out = (float *)(void *)s->out[0].data + i * z.dim;
		const range sees = visible(s, i / z.heads);

		if (sees.last < sees.first) {
			for (int64_t j = 0; j < z.dim; ++j)
				out[j] = NAN;
			continue;
		}
		const int64_t slot = sees.first / CHUNK - first, last = sees.last / CHUNK - first;
		float *const results = split_results(s, &z) + i * slots * z.partial, *const total = results + slot * z.partial;

		for (int64_t c = slot + 1; c <= last; ++c)
			partial_merge(total, results + c * z.partial, &z);
		partial_finish(total, out, &z);
	}
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

int64_t knit__attention_units(const knit_cpu_step *s) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_chunks(s, &z), heads = z.kv_heads * z.parts;

	return slots ? z.tokens * heads * slots : knit__ceil_div(z.tokens, z.block) * heads;
}

/* Many tokens: units of one kv head follow each other, its keys and values stay near. Few: those of one chunk do, since
 * the heads of a cell lie side by side and so in the same pages. */
void knit__attention_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread,
                         const knit_attention_isa *isa) {
	const sizes z = sizes_of(s);
	const int64_t slots = split_chunks(s, &z), blocks = knit__ceil_div(z.tokens, z.block), parts = z.kv_heads * z.parts;
	const int64_t first = slots ? chunks_seen(s, z.tokens).first : 0;
	float *const own = (float *)(void *)(s->scratch + thread_bytes(&z) * thread);
	const unit u = {.s = s,
	                .isa = isa,
	                .z = z,
	                .scale = (float)s->attr[SCALE].f,
	                .wide = own,
	                .spare = own + TILE * z.dim_padded};

	for (int64_t i = begin; i < end; ++i) {
		const int64_t block = slots ? i / parts : i % blocks, part = slots ? i % parts : i / blocks;
		const int64_t kv_head = part / z.parts, skip = part % z.parts * ROWS;
		const int64_t head = kv_head * z.group + skip, heads = knit__min(ROWS, z.group - skip);

		if (slots)
			run_chunk(&u, block / slots, block % slots, slots, first + block % slots, kv_head, head, heads);
		else
			run_block(&u, block, kv_head, head, heads);
	}
}
