/* Owns the kernel of attention: few tokens by chunks of positions that are then combined, many in tiles; which, is known
 * when a run's tokens are. Keys and values must each fit one binding, since which part of them a run reads is known on
 * the device alone: a larger slot is refused. Reference: ops/attention.c. */
#include "../../../shaders/params/attention.h"
#include "kernels.h"
#include "operand.h"

#include <math.h>

_Static_assert(sizeof(struct knit_attention_params) <= KNIT_VK_PARAM_BYTES, "attention's parameters fit");

enum { Q, K, V, SEQ, POS };
enum { SCALE, WINDOW, RING, SINKS, KV_HEADS };

#define MAX_DIM 512
#define WIDTH 128
#define COMBINE_WIDTH 64
#define MAX_CHUNKS 64 /* of a token: MOST of attention_combine.comp */
#define TILE_ROWS 32
#define TILE_SHARED_BYTES 29184
#define SPLIT_TOKENS 4        /* up to so many are split, or as many as there are sequences */
#define SPLIT_SEQUENCES 64
#define REGISTER_QUADS 16     /* quads of queries that an invocation can hold, and as many of sums */

/* ---- the way ----------------------------------------------------------------------------------------------------- */

/* What follows from shapes and limits that no run changes. */
typedef struct way {
	int64_t kv_heads, share, quads;
	uint32_t lanes, lane_quads, heads, ahead, width; /* of a split; lanes 0: never split */
	int64_t split_tokens, chunk, chunks;
} way;

static uint32_t power_above(int64_t n) {
	uint32_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static void way_split(const knit_vk_caps *caps, int64_t sequences, int64_t seen, way *w) {
	const int64_t least_chunk = caps->tuning.attention_chunk;
	const uint32_t most = caps->subgroup_min < 32 ? caps->subgroup_min : 32, fit = power_above(w->quads);
	const uint32_t registers = caps->tuning.attention_quads;
	uint32_t lanes = 1;

	while (lanes * 2 <= most)
		lanes *= 2;
	if (lanes > 8 && fit < lanes)
		lanes = fit < 8 ? 8 : fit;
	w->lanes = lanes;
	w->lane_quads = power_above((w->quads + lanes - 1) / lanes);
	if (w->lane_quads > REGISTER_QUADS) {
		w->lanes = 0;
		return;
	}
	w->heads = power_above(w->share);
	while (w->heads > 1 && (w->heads > 8 || w->heads * w->lane_quads > registers))
		w->heads /= 2;
	w->ahead = registers / (w->heads * w->lane_quads);
	w->ahead = w->ahead < 1 ? 1 : w->ahead > 4 ? 4 : w->ahead;
	w->width = w->lane_quads > 8 ? WIDTH / 2 : WIDTH;
	w->split_tokens = sequences > SPLIT_SEQUENCES ? SPLIT_SEQUENCES : sequences > SPLIT_TOKENS ? sequences : SPLIT_TOKENS;

	/* few tokens need chunks to fill a device, many do not */
	int64_t most_chunks = 4 * MAX_CHUNKS / w->split_tokens;
	most_chunks = most_chunks < 8 ? 8 : most_chunks > MAX_CHUNKS ? MAX_CHUNKS : most_chunks;
	w->chunk = (seen + most_chunks - 1) / most_chunks;
	w->chunk = w->chunk < least_chunk ? least_chunk : (w->chunk + 31) / 32 * 32;
	w->chunks = seen > 0 ? (seen + w->chunk - 1) / w->chunk : 1;
}

static int64_t clamp(int64_t n) { return n > INT32_MAX ? INT32_MAX : n; }

static way way_make(const knit_vk_caps *caps, const knit_attr *attr, int64_t heads, int64_t dim, int64_t kv_heads,
                    int64_t sequences, int64_t cells) {
	const int64_t window = clamp(attr[WINDOW].i), sinks = clamp(attr[SINKS].i);
	way w = {.kv_heads = kv_heads, .share = heads / kv_heads, .quads = (dim + 3) / 4};

	way_split(caps, sequences, window > 0 && window + sinks < cells ? window + sinks : cells, &w);
	return w;
}

static way way_of_node(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[Q], *const k = &node->in[K];

	return way_make(caps, node->attr, q->dims[1].v, q->dims[2].v, k->rank == 4 ? k->dims[2].v : node->attr[KV_HEADS].i,
	                k->dims[0].v, k->dims[1].v);
}

static way way_of_step(const knit_vk_caps *caps, const knit_vk_step *s) {
	const knit_vk_tensor *const q = &s->in[Q], *const k = &s->in[K];

	return way_make(caps, s->attr, q->dims[1], q->dims[2], k->rank == 4 ? k->dims[2] : s->attr[KV_HEADS].i, k->dims[0],
	                k->dims[1]);
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static bool all_numbers(const knit_operand_view *v, int from) {
	for (int i = from; i < v->rank; ++i)
		if (v->dims[i].v < 1)
			return false;
	return true;
}

/* Keys or values: any strides but within a head, elements that 32 bits can count; blocks at multiples of a block. */
static bool is_slot(const knit_operand_view *v) {
	bool fits = (knit__vk_is_float(v->dtype) || knit__vk_is_block(v->dtype)) && v->layout == 0 && v->rows_contiguous &&
	            (v->rank == 3 || v->rank == 4) && all_numbers(v, 0) && v->max_elements <= INT32_MAX;

	for (int i = 0; fits && i + 1 < v->rank; ++i)
		fits = v->strides[i].v >= 0 && (!knit__vk_is_block(v->dtype) || v->strides[i].v % 32 == 0);
	return fits;
}

static uint64_t scratch(const knit_vk_caps *caps, const knit_node_view *node) {
	const way w = way_of_node(caps, node);
	const int64_t tokens = knit__dim_hi(&node->graph->exprs, node->bounds, node->in[Q].dims[0]);

	if (w.lanes == 0 || w.chunks <= 1)
		return 0;
	return (uint64_t)(tokens < w.split_tokens ? tokens : w.split_tokens) * (uint64_t)(w.kv_heads * w.share) *
	       (uint64_t)w.chunks * (uint64_t)(w.quads + 1) * 16;
}

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[Q];

	return knit__vk_f32_rows(q) && q->rank == 3 && all_numbers(q, 1) && q->dims[2].v <= MAX_DIM &&
	       is_slot(&node->in[K]) && is_slot(&node->in[V]) && knit__vk_index_vector(&node->in[SEQ]) &&
	       knit__vk_index_vector(&node->in[POS]) && knit__vk_f32_dense(&node->out[0]) &&
	       caps->max_invocations >= WIDTH && caps->max_shared_bytes >= TILE_SHARED_BYTES &&
	       knit__vk_all_bind(caps, node, 0) && scratch(caps, node) <= caps->max_binding_bytes;
}

/* ---- dispatches -------------------------------------------------------------------------------------------------- */

/* Whether heads can be read four elements at a time. */
static uint32_t is_wide(const knit_vk_step *s) {
	for (int i = K; i <= V; ++i) {
		const knit_vk_tensor *const t = &s->in[i];

		if (s->in[Q].dims[2] % 4 != 0 || t->offset % 4 != 0)
			return 0;
		for (int d = 0; d + 1 < t->rank; ++d)
			if (t->strides[d] % 4 != 0)
				return 0;
	}
	return 1;
}

/* The dispatches of a step in their order; those that it lacks are left out. Tiles are last: whether a run has them or not
 * moves nothing else. */
enum { SPLIT, COMBINE, TILES, KINDS };

static bool has(const way *w, int kind, int64_t tokens) {
	switch (kind) {
	case SPLIT: return w->lanes > 0;
	case COMBINE: return w->lanes > 0 && w->chunks > 1;
	default: return w->lanes == 0 || tokens > w->split_tokens;
	}
}

static int kind_at(const way *w, uint32_t index) {
	if (w->lanes == 0)
		return TILES;
	return index == 0 ? SPLIT : index == 1 && w->chunks > 1 ? COMBINE : TILES;
}

static knit_vk_dispatch dispatch_make(const knit_vk_step *s, const way *w, int kind) {
	const knit_vk_binding parts = {.source = KNIT_VK_SCRATCH};
	knit_vk_dispatch d = {.shader = "attention_split",
	                      .spec = {w->width, s->in[K].dtype, s->in[V].dtype, is_wide(s)},
	                      .bindings = {knit__vk_in(Q), knit__vk_in(K), knit__vk_in(V), knit__vk_in(SEQ),
	                                   knit__vk_in(POS), knit__vk_out(0)},
	                      .binding_count = 6};

	if (kind == COMBINE)
		return (knit_vk_dispatch){.shader = "attention_combine",
		                          .spec = {COMBINE_WIDTH},
		                          .spec_count = 1,
		                          .waits = true,
		                          .bindings = {knit__vk_in(SEQ), knit__vk_in(POS), parts, knit__vk_out(0)},
		                          .binding_count = 4};
	if (kind == TILES) {
		d.shader = "attention_tile";
		d.spec[0] = WIDTH;
		d.spec[4] = (uint32_t)((w->quads + 15) / 16);
		d.spec_count = 5;
		return d;
	}
	d.spec[4] = w->lanes;
	d.spec[5] = w->lane_quads;
	d.spec[6] = w->heads;
	d.spec[7] = w->ahead;
	d.spec_count = 8;
	d.bindings[6] = w->chunks > 1 ? parts : knit__vk_out(0); /* of one chunk there are no parts */
	d.bindings[6].written = true;
	d.binding_count = 7;
	return d;
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	const way w = way_of_step(caps, s);
	uint32_t count = 0;

	for (int kind = 0; kind < KINDS; ++kind) {
		if (!has(&w, kind, s->in[Q].dims[0]))
			continue;
		if (out && count < cap)
			out[count] = dispatch_make(s, &w, kind);
		++count;
	}
	return count;
}

static void set_params(const knit_vk_step *s, const way *w, struct knit_attention_params *p) {
	const knit_vk_tensor *const q = &s->in[Q], *const k = &s->in[K], *const v = &s->in[V];

	*p = (struct knit_attention_params){
		.tokens = (uint)q->dims[0],
		.heads = (uint)q->dims[1],
		.kv_heads = (uint)w->kv_heads,
		.share = (uint)w->share,
		.parts = w->lanes ? (uint)((w->share + w->heads - 1) / w->heads) : 1,
		.dim = (uint)q->dims[2],
		.quads = (uint)w->quads,
		.q_at = (uint)q->offset,
		.q_token = (uint)q->strides[0],
		.q_head = (uint)q->strides[1],
		.y_at = (uint)s->out[0].offset,
		.seq_at = (uint)s->in[SEQ].offset,
		.pos_at = (uint)s->in[POS].offset,
		.k_at = (uint)k->offset,
		.k_seq = (uint)k->strides[0],
		.k_cell = (uint)k->strides[1],
		.k_head = (uint)(k->rank == 4 ? k->strides[2] : q->dims[2]),
		.v_at = (uint)v->offset,
		.v_seq = (uint)v->strides[0],
		.v_cell = (uint)v->strides[1],
		.v_head = (uint)(v->rank == 4 ? v->strides[2] : q->dims[2]),
		.sequences = (uint)k->dims[0],
		.cells = (uint)k->dims[1],
		.window = (uint)clamp(s->attr[WINDOW].i),
		.ring = (uint)s->attr[RING].i,
		.sinks = (uint)clamp(s->attr[SINKS].i),
		.chunk = (uint)w->chunk,
		.chunks = (uint)w->chunks,
		.scale = (float)(s->attr[SCALE].f * 1.4426950408889634),
	};
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	struct knit_attention_params *const p = params;
	const way w = way_of_step(caps, s);
	const int64_t tokens = s->in[Q].dims[0];
	const bool split = w.lanes > 0 && tokens <= w.split_tokens;
	const int kind = kind_at(&w, index);
	uint64_t count = 0;

	set_params(s, &w, p);
	if (kind == SPLIT && split)
		count = (uint64_t)w.chunks * (uint64_t)tokens * (uint64_t)w.kv_heads * p->parts;
	if (kind == COMBINE && split)
		count = (uint64_t)tokens * p->heads;
	if (kind == TILES && !split)
		count = knit__vk_ceil_div((uint64_t)(tokens * w.share), TILE_ROWS) * (uint64_t)w.kv_heads;
	p->groups = (uint)count;
	knit__vk_grid(caps, count, groups);
}

const knit_vk_kernel knit__vk_attention = {.name = "attention",
                                           .op = KNIT_OP_ATTENTION,
                                           .accepts = accepts,
                                           .scratch = scratch,
                                           .plan = plan,
                                           .fill = fill};
