/* Owns KV slots as users see them: a pair of states with their types, window and ring, written and read together. Only
 * builder calls; the ops are in state.c and attention.c. */
#include "op_util.h"

#include <stdarg.h>
#include <stdio.h>

static const char op_name[] = "kv_slot";

static bool check_type(knit_graph *g, const char *name, const char *which, knit_dtype t, int64_t row) {
	const knit_dtype_info *info = knit__dtype_info(t);

	if (info && info->is_state && row % info->block_elements == 0)
		return true;
	if (info && info->is_state)
		knit__build_fail(g, op_name, KNIT_ERR_SHAPE, "%s: %s of type %s needs kv_heads * head_dim (%lld) to be a multiple of %u",
						 name, which, info->name, (long long)row, info->block_elements);
	else
		knit__build_fail(g, op_name, KNIT_ERR_SHAPE, "%s: %s of type %s, needs f32, f16, bf16, q8_0 or q4_0", name, which,
						 knit_dtype_name(t));
	return false;
}

static bool check_number(knit_graph *g, const char *name, const char *what, int64_t n, int64_t lo) {
	if (n >= lo)
		return true;
	knit__build_fail(g, op_name, KNIT_ERR_ARGUMENT, "%s: %s is %lld, needs %lld or more", name, what, (long long)n,
					 (long long)lo);
	return false;
}

/* Fills in the defaults, the cells and the ring. */
static bool resolve(knit_graph *g, const char *name, knit_kv_slot *s) {
	knit_kv_desc *d = &s->desc;
	int64_t row, ring = 0, cells = 0;

	d->sequences = d->sequences ? d->sequences : 1;
	d->k = d->k ? d->k : KNIT_F16;
	d->v = d->v ? d->v : KNIT_F16;
	if (!check_number(g, name, "sequences", d->sequences, 1) || !check_number(g, name, "kv_heads", d->kv_heads, 1) ||
		!check_number(g, name, "head_dim", d->head_dim, 1) || !check_number(g, name, "window", d->window, 0) ||
		!check_number(g, name, "sinks", d->sinks, 0) ||
		!check_number(g, name, "positions", d->positions, d->window > 0 ? 0 : 1))
		return false;
	if (d->window == 0 && d->sinks > 0) {
		knit__build_fail(g, op_name, KNIT_ERR_ARGUMENT, "%s: %lld sinks without a window: everything is seen anyway", name,
						 (long long)d->sinks);
		return false;
	}
	if (d->window > 0 && !check_number(g, name, "max_tokens", d->max_tokens, 1))
		return false;
	if (!knit__mul_i64(d->kv_heads, d->head_dim, &row) ||
		(d->window > 0 && (!knit__add_i64(d->window, d->max_tokens - 1, &ring) || !knit__add_i64(ring, d->sinks, &cells)))) {
		knit__build_fail(g, op_name, KNIT_ERR_LIMIT, "%s: the size does not fit 64 bits", name);
		return false;
	}
	const bool plain = d->window == 0 || (d->positions > 0 && d->positions <= cells);
	s->cells = plain ? d->positions : cells;
	s->ring = plain ? 0 : ring;
	return check_type(g, name, "k", d->k, row) && check_type(g, name, "v", d->v, row);
}

/* Whether rows of a type are one line: a block may not reach into the next head. */
static bool flat(const knit_kv_slot *s, knit_dtype t) { return s->desc.head_dim % knit__dtype_info(t)->block_elements != 0; }

static knit_state define(knit_graph *g, const knit_kv_slot *s, knit_dtype t, const char *which, const char *name) {
	const bool one = flat(s, t);
	const knit_dim dims[] = {{s->desc.sequences}, {s->cells}, {one ? s->desc.kv_heads * s->desc.head_dim : s->desc.kv_heads},
							 {s->desc.head_dim}};

	return knit_state_define(g, t, one ? 3 : 4, dims, "%s.%s", which, name);
}

knit_kv_slot knit_kv_slot_define(knit_graph *g, const knit_kv_desc *desc, const char *fmt, ...) {
	knit_kv_slot s = {.desc = desc ? *desc : (knit_kv_desc){0}};
	char name[240];
	va_list args;
	int length;

	if (!knit__op_usable(g))
		return s;
	va_start(args, fmt);
	length = fmt ? vsnprintf(name, sizeof name, fmt, args) : 0;
	va_end(args);
	if (length <= 0 || (size_t)length >= sizeof name) {
		knit__build_fail(g, op_name, length <= 0 ? KNIT_ERR_ARGUMENT : KNIT_ERR_LIMIT,
						 "the name has %d bytes, needs 1 to %zu", length, sizeof name - 1);
		return s;
	}
	if (!resolve(g, name, &s))
		return s;
	s.k = define(g, &s, s.desc.k, "k", name);
	s.v = define(g, &s, s.desc.v, "v", name);
	if (!s.v.id)
		s.k.id = 0;
	return s;
}

static void append(knit_graph *g, const knit_kv_slot *s, knit_state state, knit_dtype t, knit_tensor rows,
				   knit_tensor seq, knit_tensor pos) {
	if (flat(s, t))
		rows = knit_merge_heads(g, rows);
	knit_state_append_ring(g, state, rows, seq, pos, s->ring, s->ring ? s->desc.sinks : 0);
}

static bool check_slot(knit_graph *g, const knit_kv_slot *s) {
	if (!knit__op_usable(g))
		return false;
	if (s && s->k.id && s->v.id && knit__dtype_info(s->desc.k) && knit__dtype_info(s->desc.v))
		return true;
	knit__build_fail(g, op_name, KNIT_ERR_ARGUMENT, "the slot is none that knit_kv_slot_define has made");
	return false;
}

void knit_kv_slot_append(knit_graph *g, const knit_kv_slot *slot, knit_tensor k, knit_tensor v, knit_tensor seq,
						 knit_tensor pos) {
	if (!check_slot(g, slot))
		return;
	append(g, slot, slot->k, slot->desc.k, k, seq, pos);
	append(g, slot, slot->v, slot->desc.v, v, seq, pos);
}

knit_tensor knit_kv_slot_attend(knit_graph *g, const knit_kv_slot *slot, knit_tensor q, knit_tensor seq, knit_tensor pos,
								float scale) {
	if (!check_slot(g, slot))
		return (knit_tensor){0};

	const knit_attention_desc desc = {.scale = scale,
									  .window = slot->desc.window,
									  .ring = slot->ring,
									  .sinks = slot->desc.sinks,
									  .kv_heads = slot->desc.kv_heads};
	return knit_attention(g, q, knit_state_read(g, slot->k), knit_state_read(g, slot->v), seq, pos, &desc);
}
