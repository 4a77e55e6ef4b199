/* Owns the CPU kernel of kv_write: queries rotated, keys rotated on their way into their cells, values written to theirs.
 * Reference: ops/fused_kv.c. Included once by each variant, as whose loops a compiler vectorises it (variant_*.h): they
 * give the same bits. */
#ifndef KNIT_KERNELS_KV_WRITE_H
#define KNIT_KERNELS_KV_WRITE_H

#include "../../../graph/fused.h"
#include "kernels.h"
#include "kv_rows.h"
#include "kv_store.h"
#include "rotate.h"

/* Per thread: the table of angles, then one row of rotated keys. */
static uint64_t thread_bytes(int64_t rotary, int64_t key_row) {
	return rotation_bytes(rotary) + (((uint64_t)key_row * sizeof(float) + 63) & ~UINT64_C(63));
}

static uint64_t scratch(const knit_node_view *node, uint32_t threads) {
	const knit_operand_view *const k = &node->in[KNIT_KV_K];

	return thread_bytes(node->attr[KNIT_KV_ROTARY].i, k->dims[1].v * k->dims[2].v) * threads;
}

static int64_t units(const knit_cpu_step *s) { return s->in[KNIT_KV_Q].dims[0]; }

/* Where token t's row of a state begins; NULL where its cell is not there. */
static char *cell_of(const knit_cpu_step *s, const knit_cpu_tensor *state, int64_t t) {
	const int32_t seq = ((const int32_t *)(void *)s->in[KNIT_KV_SEQ].data)[t];
	const int32_t pos = ((const int32_t *)(void *)s->in[KNIT_KV_POS].data)[t];
	const int64_t cell = knit__kv_cell(pos, s->attr[KNIT_KV_RING].i, s->attr[KNIT_KV_SINKS].i, state->dims[1]);

	if (seq < 0 || seq >= state->dims[0] || cell < 0)
		return NULL;
	return state->data + knit__bytes_of(state->dtype, seq * state->strides[0] + cell * state->strides[1]);
}

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const knit_cpu_tensor *const q = &s->in[KNIT_KV_Q], *const k = &s->in[KNIT_KV_K], *const v = &s->in[KNIT_KV_V];
	const int64_t heads = q->dims[1], kv_heads = k->dims[1], dim = q->dims[2], rotary = s->attr[KNIT_KV_ROTARY].i;
	const int64_t v_rows = v->rank == 3 ? v->dims[1] : 1, v_length = knit__row_length(v);
	char *const own = s->scratch + thread_bytes(rotary, kv_heads * dim) * thread;
	float *const keys = (float *)(void *)(own + rotation_bytes(rotary));
	const rotation turn =
		rotation_of(s->attr[KNIT_KV_THETA].f, rotary, (knit_rope_layout)s->attr[KNIT_KV_LAYOUT].i, own);

	for (int64_t t = begin; t < end; ++t) {
		char *const k_cell = cell_of(s, &s->out[0], t), *const v_cell = cell_of(s, &s->out[1], t);

		rotation_turn_to(&turn, ((const int32_t *)(void *)s->in[KNIT_KV_POS].data)[t]);
		for (int64_t h = 0; h < heads; ++h)
			rotate_head(&turn, rotate_row(q, t, h), rotate_row(&s->out[2], t, h), dim);
		if (!k_cell || !v_cell)
			continue;
		for (int64_t h = 0; h < kv_heads; ++h)
			rotate_head(&turn, rotate_row(k, t, h), keys + h * dim, dim);
		kv_row_store(s->out[0].dtype, keys, k_cell, kv_heads * dim);
		for (int64_t i = 0; i < v_rows; ++i)
			kv_row_store(s->out[1].dtype, knit__f32_row(v, t * v_rows + i),
			                   v_cell + knit__bytes_of(s->out[1].dtype, i * v_length), v_length);
	}
}

/* Rows of a state that hold whole blocks: `part` elements of a row are written at once. */
static bool is_state(const knit_operand_view *state, knit_dim part) {
	if (state->layout != 0 || !state->contiguous)
		return false;
	return knit__is_float(state->dtype) || (knit__is_block(state->dtype) && part.v >= 0 && part.v % 32 == 0);
}

static bool accepts(const knit_node_view *node) {
	const knit_operand_view *const q = &node->in[KNIT_KV_Q], *const k = &node->in[KNIT_KV_K];
	const knit_operand_view *const v = &node->in[KNIT_KV_V];
	int64_t key_row;

	return knit__f32_rows(q) && knit__f32_rows(k) && knit__f32_rows(v) && k->dims[1].v >= 0 && k->dims[2].v >= 0 &&
	       knit__mul_i64(k->dims[1].v, k->dims[2].v, &key_row) &&
	       is_state(&node->in[KNIT_KV_KSTATE], knit_n(key_row)) &&
	       is_state(&node->in[KNIT_KV_VSTATE], v->dims[v->rank - 1]) && knit__index_vector(&node->in[KNIT_KV_SEQ]) &&
	       knit__index_vector(&node->in[KNIT_KV_POS]) && knit__f32_dense(&node->out[2]);
}

const knit_cpu_kernel KNIT_VARIANT(kv_write) = {
	KNIT_VARIANT_NAME("kv_write"), KNIT_OP_KV_WRITE, KNIT_VARIANT_ISA, accepts, scratch, {{units, run}}};

#endif
