/* Owns the driver of attention for every instruction set: which tokens and heads make a unit, and the merging of
 * chunks. Knows no instruction set: that is in the isa. Reference: ops/attention.c. */
#include "attention_tiles.h"
#include "kv_rows.h"
#include "operand.h"

#include <math.h>
#include <string.h>

enum { Q = KNIT__ATT_Q, K = KNIT__ATT_K, V = KNIT__ATT_V, SEQ = KNIT__ATT_SEQ, POS = KNIT__ATT_POS };
enum {
	SCALE = KNIT__ATT_SCALE,
	WINDOW = KNIT__ATT_WINDOW,
	RING = KNIT__ATT_RING,
	SINKS = KNIT__ATT_SINKS,
	KV_HEADS = KNIT__ATT_KV_HEADS
};
enum { BEFORE = KNIT__BEFORE, WITHIN = KNIT__WITHIN, SEGMENTS = KNIT__SEGMENTS };

#define TILE KNIT_ATTENTION_TILE
#define CHUNK KNIT_ATTENTION_CHUNK
#define ROWS KNIT_ATTENTION_ROWS /* tokens x query heads of a group, at least one token */
#define MANY KNIT_ATTENTION_MANY /* the same where the isa has functions for many */
#define SPLIT_TOKENS 4           /* up to so many, the chunks of a token are units of their own */
#define UNITS 4                  /* of a thread at least, where a unit takes more than ROWS */

typedef knit_attention_sizes sizes;
typedef knit_attention_row row;
typedef knit_attention_unit unit;
typedef knit_range range;
typedef knit_sight sight;

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

/* Whether a head may begin and end within a block. */
static bool cuts_blocks(knit_dtype t, int64_t dim) { return knit__is_block(t) && dim % 32 != 0; }

static sizes sizes_make(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim, int64_t cells, bool cut,
                        bool many, int64_t threads, const knit_attr *attr) {
	const int64_t window = attr[WINDOW].i > 0 ? knit__min(attr[WINDOW].i, cells) : cells;
	const int64_t straddled = (window + CHUNK - 2) / CHUNK + 1, all = knit__ceil_div(cells, CHUNK);
	sizes z = {.tokens = tokens, .heads = heads, .kv_heads = kv_heads, .group = heads / kv_heads, .dim = dim};

	z.dim_padded = (dim + 15) / 16 * 16;
	z.wide = cut ? (dim + 64 + 15) / 16 * 16 : z.dim_padded;
	z.rows = many && tokens > SPLIT_TOKENS ? MANY : ROWS;
	z.parts = knit__ceil_div(z.group, z.rows);
	z.block = z.group > 0 && z.group < ROWS ? ROWS / z.group : 1;
	z.lanes = knit__min(z.block, knit__max(kv_heads, 1));
	for (int64_t rows = ROWS * 2; rows <= z.rows && z.group > 0; rows *= 2)
		if (rows >= z.group && knit__ceil_div(tokens, rows / z.group) * kv_heads >= UNITS * threads)
			z.block = rows / z.group;
	z.partial = KNIT_ATTENTION_HEAD + z.dim_padded;
	z.chunks = attr[RING].i ? straddled : knit__min(straddled, all);
	z.chunks += knit__ceil_div(knit__min(attr[SINKS].i, cells), CHUNK);
	return z;
}

static sizes sizes_of(const knit_cpu_step *s, bool many) {
	const knit_cpu_tensor *const q = &s->in[Q], *const k = &s->in[K];
	const bool cut = cuts_blocks(k->dtype, q->dims[2]) || cuts_blocks(s->in[V].dtype, q->dims[2]);

	return sizes_make(q->dims[0], q->dims[1], k->rank == 4 ? k->dims[2] : s->attr[KV_HEADS].i, q->dims[2], k->dims[1], cut,
	                  many, s->threads, s->attr);
}

/* Of a thread: per row the scores of a tile and two partial results, or what many rows need, and a tile of keys or
 * values as f32. */
static uint64_t thread_bytes(const sizes *z) {
	const int64_t most = knit__min(z->tokens, MANY) * z->group, few = ROWS * (TILE + 2 * z->partial);
	const int64_t many = z->rows == MANY ? knit__attention_many_floats(knit__min(most, MANY), z->dim) : 0;

	return (uint64_t)(knit__max(few, many) + TILE * z->wide) * sizeof(float);
}

static uint64_t scratch_of(const knit_node_view *node, uint32_t threads, bool many) {
	const knit_exprs *const e = &node->graph->exprs;
	const knit_operand_view *const q = &node->in[Q], *const k = &node->in[K];
	const bool cut = cuts_blocks(k->dtype, q->dims[2].v) || cuts_blocks(node->in[V].dtype, q->dims[2].v);
	const sizes z = sizes_make(knit__dim_hi(e, node->bounds, q->dims[0]), q->dims[1].v,
	                           k->rank == 4 ? k->dims[2].v : node->attr[KV_HEADS].i, q->dims[2].v,
	                           knit__dim_hi(e, node->bounds, k->dims[1]), cut, many, threads, node->attr);
	uint64_t bytes = (uint64_t)(z.heads * z.partial) * sizeof(float), all;

	if (z.chunks <= 1)
		bytes = 0;
	if (!knit__mul_u64(bytes, (uint64_t)knit__min(z.tokens, SPLIT_TOKENS), &bytes) ||
	    !knit__mul_u64(bytes, (uint64_t)z.chunks, &bytes) || !knit__mul_u64(thread_bytes(&z), threads, &all) ||
	    !knit__add_u64(bytes, all, &all))
		return UINT64_MAX;
	return all;
}

uint64_t knit__attention_scratch(const knit_node_view *node, uint32_t threads) {
	return scratch_of(node, threads, false);
}

uint64_t knit__attention_many_scratch(const knit_node_view *node, uint32_t threads) {
	return scratch_of(node, threads, true);
}

/* ---- what a token sees ------------------------------------------------------------------------------------------- */

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

static int64_t chunks_of(range r) { return knit__range_empty(r) ? 0 : r.last / CHUNK - r.first / CHUNK + 1; }

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

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void partial_finish(const float *total, float *out, const sizes *z) {
	const float factor = 1.0f / total[1];

	for (int64_t i = 0; i < z->dim; ++i)
		out[i] = total[KNIT_ATTENTION_HEAD + i] * factor;
}

static void row_init(const unit *u, row *r, int64_t token, int64_t head) {
	*r = (row){.q = knit__f32_row(&u->s->in[Q], token * u->z.heads + head),
	           .out = (float *)(void *)u->s->out[0].data + (token * u->z.heads + head) * u->z.dim,
	           .sees = visible(u->s, token)};
}

/* All chunks of a segment, each merged into the rows' totals. */
static void segment_run(const unit *u, row *rows, int64_t count, int64_t seq, int seg, int64_t kv_head) {
	range chunks = {INT64_MAX, -1};

	for (int64_t i = 0; i < count; ++i) {
		if (knit__range_empty(rows[i].sees.seg[seg]))
			continue;
		chunks.first = knit__min(chunks.first, rows[i].sees.seg[seg].first / CHUNK);
		chunks.last = knit__max(chunks.last, rows[i].sees.seg[seg].last / CHUNK);
	}
	for (int64_t chunk = chunks.first; chunk <= chunks.last; ++chunk) {
		if (!knit__attention_chunk(u, rows, count, 1, seq, seg, chunk, kv_head))
			continue;
		for (int64_t i = 0; i < count; ++i) {
			if (!knit__sees_chunk(&rows[i], seg, chunk))
				continue;
			if (rows[i].started)
				u->isa->merge(rows[i].total, rows[i].chunk, u->z.partial);
			else
				memcpy(rows[i].total, rows[i].chunk, (size_t)u->z.partial * sizeof(float));
			rows[i].started = true;
		}
	}
}

/* All of attention for up to ROWS rows of one sequence. */
static void run_few(const unit *u, row *rows, int64_t count, int64_t seq, int64_t kv_head) {
	for (int64_t i = 0; i < count; ++i) {
		rows[i].chunk = u->spare + i * 2 * u->z.partial;
		rows[i].total = rows[i].chunk + u->z.partial;
	}
	for (int seg = 0; seg < SEGMENTS; ++seg)
		segment_run(u, rows, count, seq, seg, kv_head);
	for (int64_t i = 0; i < count; ++i)
		partial_finish(rows[i].total, rows[i].out, &u->z);
}

/* Tokens [begin, end) of one sequence, heads [head, head + heads) of one kv head. */
static void run_tokens(const unit *u, int64_t begin, int64_t end, int64_t kv_head, int64_t head, int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[begin];
	row rows[MANY];
	int64_t count = 0;

	for (int64_t t = begin; t < end; ++t) {
		for (int64_t h = head; h < head + heads; ++h) {
			row *const r = &rows[count];

			row_init(u, r, t, h);
			for (int64_t i = 0; i < u->z.dim && knit__range_empty(r->sees.seg[WITHIN]); ++i)
				r->out[i] = NAN;
			count += !knit__range_empty(r->sees.seg[WITHIN]);
		}
	}
	if (u->z.rows == MANY && count > KNIT_ATTENTION_FEW) {
		knit__attention_many_run(u, rows, count, seq, kv_head);
		return;
	}
	for (int64_t i = 0; i < count; i += ROWS)
		run_few(u, rows + i, knit__min(ROWS, count - i), seq, kv_head);
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

/* The chunk in slot `slot` of one token, for `heads` heads of each of `lanes` kv heads; nothing where the token has
 * fewer chunks. */
static void run_slot(const unit *u, int64_t token, int64_t slot, int64_t slots, int64_t kv_head, int64_t lanes,
                     int64_t head, int64_t heads) {
	const int64_t seq = ((const int32_t *)(void *)u->s->in[SEQ].data)[token];
	const sight sees = visible(u->s, token);
	const int64_t before = chunks_of(sees.seg[BEFORE]);
	const int seg = slot < before ? BEFORE : WITHIN;
	float *const results = split_results(u->s, &u->z);
	row rows[ROWS];

	if (slot >= before + chunks_of(sees.seg[WITHIN]))
		return;
	for (int64_t h = 0; h < heads * lanes; ++h) {
		row_init(u, &rows[h], token, head + h);
		rows[h].chunk = results + ((token * u->z.heads + head + h) * slots + slot) * u->z.partial;
	}
	const int64_t chunk = sees.seg[seg].first / CHUNK + (seg == BEFORE ? slot : slot - before);
	knit__attention_chunk(u, rows, heads, lanes, seq, seg, chunk, kv_head);
}

int64_t knit__attention_merge_units(const knit_cpu_step *s) {
	const sizes z = sizes_of(s, false);

	return split_slots(s, &z) ? z.tokens * z.heads : 0;
}

void knit__attention_merge(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_attention_isa *isa) {
	const sizes z = sizes_of(s, isa->many);
	const int64_t slots = split_slots(s, &z);

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
			isa->merge(results, results + c * z.partial, z.partial);
		partial_finish(results, out, &z);
	}
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

/* Units of one token's chunk, or of one block of tokens: pieces of kv heads, or of a group where it is large. */
static int64_t parts_of(const sizes *z, bool split) {
	return split && z->parts == 1 ? knit__ceil_div(z->kv_heads, z->lanes) : z->kv_heads * z->parts;
}

static int64_t units_of(const knit_cpu_step *s, bool many) {
	const sizes z = sizes_of(s, many);
	const int64_t slots = split_slots(s, &z), parts = parts_of(&z, slots > 0);

	return slots ? z.tokens * parts * slots : knit__ceil_div(z.tokens, z.block) * parts;
}

int64_t knit__attention_units(const knit_cpu_step *s) { return units_of(s, false); }

int64_t knit__attention_many_units(const knit_cpu_step *s) { return units_of(s, true); }

static void run_unit(const unit *u, int64_t i, int64_t slots) {
	const sizes *const z = &u->z;
	const int64_t blocks = knit__ceil_div(z->tokens, z->block), parts = parts_of(z, slots > 0);
	const int64_t block = slots ? i / parts : blocks - 1 - i % blocks, part = slots ? i % parts : i / blocks;

	if (slots && z->parts == 1) {
		const int64_t kv_head = part * z->lanes, lanes = knit__min(z->lanes, z->kv_heads - kv_head);

		run_slot(u, block / slots, block % slots, slots, kv_head, lanes, kv_head * z->group, z->group);
		return;
	}
	const int64_t kv_head = part / z->parts, skip = part % z->parts * z->rows;
	const int64_t head = kv_head * z->group + skip, heads = knit__min(z->rows, z->group - skip);

	if (slots)
		run_slot(u, block / slots, block % slots, slots, kv_head, 1, head, heads);
	else
		run_block(u, block, kv_head, head, heads);
}

/* Many tokens: units of one kv head follow each other, its keys and values stay near; those that see most come first,
 * so that threads end together. Few: a unit has as many heads of
 * a chunk as it may, since they lie side by side. */
void knit__attention_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread,
                         const knit_attention_isa *isa) {
	const sizes z = sizes_of(s, isa->many);
	const int64_t slots = split_slots(s, &z);
	float *const own = (float *)(void *)(s->scratch + thread_bytes(&z) * thread);
	const unit u = {.s = s,
	                .isa = isa,
	                .z = z,
	                .scale = (float)s->attr[SCALE].f,
	                .wide = own,
	                .scores = own + TILE * z.wide,
	                .spare = own + TILE * z.wide + ROWS * TILE,
	                .lines = own + TILE * z.wide};

	for (int64_t i = begin; i < end; ++i)
		run_unit(&u, i, slots);
}
