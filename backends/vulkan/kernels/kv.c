/* Owns the kernels that write to KV slots: append and kv_write, one shader with rope. A state larger than one binding is
 * refused: which part of it a run writes is known on the device alone. References: ops/state.c, ops/fused_kv.c. */
#include "../../../graph/fused.h"
#include "kernels.h"
#include "rope.h"

_Static_assert(sizeof(struct knit_kv_write_params) <= KNIT_VK_PARAM_BYTES, "kv_write's parameters fit");

/* Elements of a row: everything behind the first `from` dimensions; 0 unless they are numbers. */
static int64_t row_elements(const knit_operand_view *v, int from) {
	int64_t n = 1;

	for (int i = from; i < v->rank; ++i)
		if (v->dims[i].v < 0 || !knit__mul_i64(n, v->dims[i].v, &n))
			return 0;
	return n;
}

/* A state whose rows are written whole, and whose elements 32 bits can count. */
static bool is_state(const knit_operand_view *state) {
	if (state->layout != 0 || !state->contiguous || state->rank < 3 || state->max_elements > UINT32_MAX / 2)
		return false;
	return knit__vk_is_float(state->dtype) ||
	       (knit__vk_is_block(state->dtype) && row_elements(state, 2) > 0 && row_elements(state, 2) % 32 == 0);
}

/* A block is made by eight invocations of a group. */
static bool has_eight(const knit_vk_caps *caps) { return caps->max_invocations >= 8; }

/* Rows for a state; heads that cut blocks are no matter. */
static bool is_rows(const knit_operand_view *rows) {
	return knit__vk_f32_rows(rows) && (rows->rank == 2 || rows->rank == 3) && row_elements(rows, 1) > 0;
}

static void set_cells(const knit_vk_step *s, uint32_t seq, uint32_t pos, int64_t ring, int64_t sinks,
                      struct knit_kv_write_params *p) {
	p->seq_at = (uint)s->in[seq].offset;
	p->pos_at = (uint)s->in[pos].offset;
	p->sequences = (uint)s->out[0].dims[0];
	p->cells = (uint)s->out[0].dims[1];
	p->ring = (uint)ring;
	p->sinks = (uint)sinks;
}

/* The head's stride and length in rows [tokens, n] or [tokens, heads, n]. */
static int64_t head_stride(const knit_vk_tensor *t) { return t->rank == 3 ? t->strides[1] : 0; }
static int64_t row_length(const knit_vk_tensor *t) { return t->rank == 3 ? t->dims[1] * t->dims[2] : t->dims[1]; }

static void set_keys(const knit_vk_tensor *k, const knit_vk_tensor *state, struct knit_kv_write_params *p) {
	p->k_at = (uint)k->offset;
	p->k_token = (uint)k->strides[0];
	p->k_head = (uint)head_stride(k);
	p->k_dim = (uint)k->dims[k->rank - 1];
	p->k_n = (uint)row_length(k);
	p->k_units = knit__vk_kv_units((row_length(k) + 3) / 4);
	p->k_dtype = state->dtype;
	p->k_state_at = (uint)knit__vk_words(state->dtype, state->offset);
	p->k_state_seq = (uint)knit__vk_words(state->dtype, state->strides[0]);
	p->k_state_cell = (uint)knit__vk_words(state->dtype, state->strides[1]);
}

static void set_values(const knit_vk_tensor *v, const knit_vk_tensor *state, struct knit_kv_write_params *p) {
	p->v_at = (uint)v->offset;
	p->v_token = (uint)v->strides[0];
	p->v_head = (uint)head_stride(v);
	p->v_dim = (uint)v->dims[v->rank - 1];
	p->v_n = (uint)row_length(v);
	p->v_units = knit__vk_kv_units((row_length(v) + 3) / 4);
	p->v_dtype = state->dtype;
	p->v_state_at = (uint)knit__vk_words(state->dtype, state->offset);
	p->v_state_seq = (uint)knit__vk_words(state->dtype, state->strides[0]);
	p->v_state_cell = (uint)knit__vk_words(state->dtype, state->strides[1]);
}

/* ---- append ------------------------------------------------------------------------------------------------------ */

enum { STATE, ROWS, SEQ, POS };
enum { RING, SINKS };

static bool append_accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	return has_eight(caps) && is_state(&node->in[STATE]) && is_rows(&node->in[ROWS]) && knit__vk_index_vector(&node->in[SEQ]) &&
	       knit__vk_index_vector(&node->in[POS]) && knit__vk_all_bind(caps, node, 0);
}

static uint32_t append_plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)s;
	if (!out || cap < 1)
		return 1;
	*out = knit__vk_kv_dispatch(caps);
	out->bindings[KNIT_VK_KV_V] = knit__vk_in(ROWS);
	out->bindings[KNIT_VK_KV_SEQ] = knit__vk_in(SEQ);
	out->bindings[KNIT_VK_KV_POS] = knit__vk_in(POS);
	out->bindings[KNIT_VK_KV_VSTATE] = knit__vk_out(0);
	return 1;
}

static void append_fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params,
                        uint32_t groups[3]) {
	struct knit_kv_write_params *const p = params;

	(void)index;
	p->tokens = (uint)s->in[ROWS].dims[0];
	set_cells(s, SEQ, POS, s->attr[RING].i, s->attr[SINKS].i, p);
	set_values(&s->in[ROWS], &s->out[0], p);
	knit__vk_kv_groups(caps, p, groups);
}

const knit_vk_kernel knit__vk_append = {
	.name = "append", .op = KNIT_OP_STATE_APPEND, .accepts = append_accepts, .plan = append_plan, .fill = append_fill};

/* ---- kv_write ---------------------------------------------------------------------------------------------------- */

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[KNIT_KV_Q], *const k = &node->in[KNIT_KV_K];

	return has_eight(caps) && knit__vk_f32_rows(q) && q->rank == 3 && row_elements(q, 1) > 0 && is_rows(k) && k->rank == 3 &&
	       is_rows(&node->in[KNIT_KV_V]) && is_state(&node->in[KNIT_KV_KSTATE]) &&
	       is_state(&node->in[KNIT_KV_VSTATE]) && knit__vk_index_vector(&node->in[KNIT_KV_SEQ]) &&
	       knit__vk_index_vector(&node->in[KNIT_KV_POS]) && knit__vk_f32_dense(&node->out[2]) &&
	       knit__vk_all_bind(caps, node, 0);
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)s;
	if (!out || cap < 1)
		return 1;
	*out = knit__vk_kv_dispatch(caps);
	out->bindings[KNIT_VK_KV_Q] = knit__vk_in(KNIT_KV_Q);
	out->bindings[KNIT_VK_KV_K] = knit__vk_in(KNIT_KV_K);
	out->bindings[KNIT_VK_KV_V] = knit__vk_in(KNIT_KV_V);
	out->bindings[KNIT_VK_KV_SEQ] = knit__vk_in(KNIT_KV_SEQ);
	out->bindings[KNIT_VK_KV_POS] = knit__vk_in(KNIT_KV_POS);
	out->bindings[KNIT_VK_KV_TABLE] = (knit_vk_binding){.source = KNIT_VK_TABLE};
	out->bindings[KNIT_VK_KV_RESULT] = knit__vk_out(2);
	out->bindings[KNIT_VK_KV_KSTATE] = knit__vk_out(0);
	out->bindings[KNIT_VK_KV_VSTATE] = knit__vk_out(1);
	return 1;
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	struct knit_kv_write_params *const p = params;

	(void)index;
	knit__vk_rope_params(&s->in[KNIT_KV_Q], &s->out[2], s->attr[KNIT_KV_ROTARY].i, s->attr[KNIT_KV_LAYOUT].i, p);
	set_cells(s, KNIT_KV_SEQ, KNIT_KV_POS, s->attr[KNIT_KV_RING].i, s->attr[KNIT_KV_SINKS].i, p);
	set_keys(&s->in[KNIT_KV_K], &s->out[0], p);
	set_values(&s->in[KNIT_KV_V], &s->out[1], p);
	knit__vk_kv_groups(caps, p, groups);
}

static uint64_t table_bytes(const knit_vk_caps *caps, const knit_vk_step *s) {
	(void)caps;
	return knit__vk_rope_table_bytes(s->attr[KNIT_KV_ROTARY].i);
}

static void table_fill(const knit_vk_caps *caps, const knit_vk_step *s, void *out) {
	(void)caps;
	knit__vk_rope_table(s->attr[KNIT_KV_THETA].f, s->attr[KNIT_KV_ROTARY].i, out);
}

const knit_vk_kernel knit__vk_kv_write = {.name = "kv_write",
                                          .op = KNIT_OP_KV_WRITE,
                                          .accepts = accepts,
                                          .plan = plan,
                                          .fill = fill,
                                          .table_bytes = table_bytes,
                                          .table_fill = table_fill};
