/* Owns which dispatches linear, linear_lora, linear_group and glu are: first t = s A x of every LoRA, into scratch, then
 * w x with what follows it. Siblings of one weight type share a dispatch; weights too large for a binding are cut into
 * ranges of rows, a dispatch each. Where a step has few rows the matrix-vector shader does both, else the tiled one does
 * the second; weights in blocks then meet x in 8-bit integers where the device multiplies those at once, f16 weights x as
 * two f16 where it multiplies matrices. References: ops/linear.c, ops/fused_linear.c. */
#include "linear.h"

#include "../../../graph/fused.h"

#define NONE 255

/* ---- operands of the ops ----------------------------------------------------------------------------------------- */

typedef struct part_operands { uint8_t w, a, b, s, out; } part_operands; /* s: number of an attribute */
typedef struct operands {
	part_operands part[KNIT_GROUP_MAX];
	uint32_t parts;
	uint8_t bias, residual, adapters, seq;
	bool glu;
} operands;

static operands operands_of(uint16_t op, const knit_attr *attr) {
	operands o = {.parts = 1, .bias = NONE, .residual = NONE, .adapters = NONE, .seq = NONE};

	switch (op) {
	case KNIT_OP_LINEAR:
		o.part[0] = (part_operands){1, NONE, NONE, NONE, 0};
		return o;
	case KNIT_OP_LINEAR_LORA:
		o.part[0] = (part_operands){KNIT_LORA_W, KNIT_LORA_A, KNIT_LORA_B, 0, 0};
		o.bias = KNIT_LORA_BIAS;
		o.residual = KNIT_LORA_RESIDUAL;
		o.adapters = KNIT_LORA_ADAPTERS;
		o.seq = KNIT_LORA_SEQ;
		return o;
	case KNIT_OP_GLU:
		o.part[0] = (part_operands){KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_BG, KNIT_GLU_SG, 0};
		o.part[1] = (part_operands){KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_BU, KNIT_GLU_SU, 0};
		o.parts = 2;
		o.adapters = KNIT_GLU_ADAPTERS;
		o.seq = KNIT_GLU_SEQ;
		o.glu = true;
		return o;
	default:
		o.parts = (uint32_t)attr[KNIT_GROUP_N].i;
		o.adapters = KNIT_GROUP_ADAPTERS;
		o.seq = KNIT_GROUP_SEQ;
		for (uint8_t i = 0; i < o.parts; ++i) {
			const uint8_t w = (uint8_t)(KNIT_GROUP_W + 3 * i);

			o.part[i] = (part_operands){w, (uint8_t)(w + 1), (uint8_t)(w + 2), (uint8_t)(KNIT_GROUP_S + i), i};
		}
		return o;
	}
}

/* ---- what is accepted -------------------------------------------------------------------------------------------- */

static bool there(const knit_node_view *node, uint32_t i) { return i < node->in_count && node->in[i].kind != 0; }

/* A factor of a LoRA: [rows, columns], or one such matrix per slot. */
static bool is_factor(const knit_operand_view *v, bool slots) {
	return knit__vk_is_float(v->dtype) && v->layout == 0 && v->contiguous && v->rank == (slots ? 3 : 2);
}

static bool accepts_part(const knit_vk_caps *caps, const knit_node_view *node, const part_operands *p, bool slots) {
	const knit_operand_view *const w = &node->in[p->w];

	if (!knit__vk_weight_rows(w) || !knit__dim_is_number(w->strides[0]) ||
	    !knit__vk_f32_dense(&node->out[p->out]) || node->out[p->out].rank != node->in[0].rank ||
	    there(node, p->a) != there(node, p->b))
		return false;
	if (!knit__vk_binds(caps, node, node->graph->nodes[node->node].in[p->w]) &&
	    knit__vk_linear_range(caps, w->dtype, w->strides[0].v) == 0)
		return false;
	return !there(node, p->a) || (is_factor(&node->in[p->a], slots) && is_factor(&node->in[p->b], slots));
}

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	const operands o = operands_of(node->op, node->attr);
	const knit_operand_view *const x = &node->in[0];
	const bool slots = there(node, o.adapters);
	uint32_t weights = 0;

	if (!knit__vk_f32_rows(x) || !knit__vk_linear_steady(node, 0) || slots != there(node, o.seq))
		return false;
	if (slots && (!knit__vk_index_vector(&node->in[o.adapters]) || !knit__vk_index_vector(&node->in[o.seq]) ||
	              x->rank != 2))
		return false;
	for (uint32_t i = 0; i < o.parts; ++i) {
		if (!accepts_part(caps, node, &o.part[i], slots))
			return false;
		weights |= 1u << o.part[i].w;
	}
	if (o.glu && node->in[o.part[0].w].dtype != node->in[o.part[1].w].dtype)
		return false; /* one dispatch reads both */
	if (there(node, o.bias) && !knit__vk_float_vector(&node->in[o.bias]))
		return false;
	if (there(node, o.residual) && !knit__vk_f32_rows(&node->in[o.residual]))
		return false;
	return knit__vk_all_bind(caps, node, weights);
}

/* Rows of x at the bucket's bounds. */
static uint64_t most_rows(const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0];
	uint64_t rows = 1;

	for (int i = 0; i + 1 < x->rank; ++i)
		if (!knit__mul_u64(rows, (uint64_t)knit__dim_hi(&node->graph->exprs, node->bounds, x->dims[i]), &rows))
			return UINT64_MAX;
	return rows;
}

/* The form for `rows` rows of x at once; the last one takes more of them in several groups. */
static bool accepts_matvec(const knit_vk_caps *caps, const knit_node_view *node, uint32_t rows) {
	const uint64_t most = rows < 8 ? knit__vk_min(rows, caps->tuning.matvec_rows) : caps->tuning.matvec_rows;

	return most_rows(node) <= most && accepts(caps, node);
}

/* ---- scratch: per row of x the t of all LoRAs, then x quantised or split ------------------------------------------- */

/* Where x begins behind `ranks` elements. */
static uint64_t quantised_at(uint64_t ranks) { return (ranks + 3) / 4 * 4; }

static uint64_t rank_of(const knit_node_view *node, const part_operands *p) {
	return there(node, p->a) ? (uint64_t)node->in[p->a].dims[node->in[p->a].rank - 2].v : 0;
}

/* Words of a row of x as the main form reads it; 0: as it is. */
static uint32_t x_words(const knit_vk_linear_form *main, uint64_t k) {
	return main->dot ? knit__vk_quantised_words(k) : main->coop ? knit__vk_split_words(k) : 0;
}

static uint64_t scratch_bytes(const knit_node_view *node, const knit_vk_linear_form *main) {
	const operands o = operands_of(node->op, node->attr);
	const knit_operand_view *const x = &node->in[0];
	uint64_t ranks = 0, bytes;

	for (uint32_t i = 0; i < o.parts; ++i)
		ranks += rank_of(node, &o.part[i]);
	const uint32_t words = x_words(main, (uint64_t)x->dims[x->rank - 1].v);
	if (words)
		ranks = quantised_at(ranks) + words;
	return knit__mul_u64(most_rows(node), ranks * sizeof(float), &bytes) ? bytes : UINT64_MAX;
}

static uint64_t scratch(const knit_vk_caps *caps, const knit_node_view *node) {
	(void)caps;
	return scratch_bytes(node, &(knit_vk_linear_form){0});
}

static uint64_t scratch_dot(const knit_vk_caps *caps, const knit_node_view *node) {
	(void)caps;
	return scratch_bytes(node, &(knit_vk_linear_form){.dot = true});
}

static uint64_t scratch_coop(const knit_vk_caps *caps, const knit_node_view *node) {
	(void)caps;
	return scratch_bytes(node, &(knit_vk_linear_form){.coop = true});
}

/* ---- dispatches -------------------------------------------------------------------------------------------------- */

/* The kernel's forms: of w x, and of A x where each row of x has the same A. siblings: weights of one type share a
 * dispatch, which spares launches where a step is short; elsewhere they would only make shaders three times as long. */
typedef struct forms { knit_vk_linear_form main, low; bool siblings; } forms;

/* What a dispatch does: parts as bits. */
typedef struct job {
	bool prepare, low, whole;
	uint32_t parts;
	uint64_t first, count; /* rows of w, where that is not whole */
} job;

static const knit_vk_tensor *operand(const knit_vk_step *s, uint8_t i) {
	return i < s->in_count && s->in[i].present ? &s->in[i] : NULL;
}

static knit_vk_linear_operand operand_at(const knit_vk_step *s, uint8_t i) {
	return (knit_vk_linear_operand){operand(s, i), i};
}

/* The parts that go into one dispatch with part i: those whose weight, or A, has the same type. 0 where an earlier part
 * has it, or there is none. */
static uint32_t together(const knit_vk_step *s, const operands *o, const forms *f, bool low, uint32_t i) {
	uint32_t parts = 0;

	if (!f->siblings && (low || !o->glu))
		return operand(s, low ? o->part[i].a : o->part[i].w) ? 1u << i : 0;
	for (uint32_t k = 0; k < o->parts; ++k) {
		const knit_vk_tensor *const mine = operand(s, low ? o->part[i].a : o->part[i].w);
		const knit_vk_tensor *const other = operand(s, low ? o->part[k].a : o->part[k].w);

		if (!mine || !other || mine->dtype != other->dtype)
			continue;
		if (k < i)
			return 0;
		parts |= 1u << k;
	}
	return parts;
}

static bool bind_whole(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, uint32_t parts) {
	for (uint32_t i = 0; i < o->parts; ++i)
		if ((parts >> i & 1) &&
		    operand(s, o->part[i].w)->storage_bytes > knit__vk_min(caps->max_binding_bytes, UINT32_MAX))
			return false;
	return true;
}

/* Rows of a range of the given parts' weights. */
static uint64_t range_rows(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, uint32_t parts) {
	uint64_t rows = UINT64_MAX;

	for (uint32_t i = 0; i < o->parts; ++i) {
		const knit_vk_tensor *const w = operand(s, o->part[i].w);

		if (parts >> i & 1)
			rows = knit__vk_min(rows, knit__vk_linear_range(caps, w->dtype, w->strides[0]));
	}
	return rows;
}

/* Counts *index down by the dispatches that these parts need; true, with the job, if it is one of them. */
static bool find_ranges(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, uint32_t parts,
                        uint32_t first_part, uint32_t *index, job *out) {
	const uint64_t rows = range_rows(caps, s, o, parts), all = (uint64_t)operand(s, o->part[first_part].w)->dims[0];
	const uint64_t ranges = rows ? knit__vk_ceil_div(all, rows) : 0;

	if (*index >= ranges) {
		*index -= (uint32_t)ranges;
		return false;
	}
	*out = (job){.parts = parts, .first = *index * rows};
	out->count = knit__vk_min(rows, all - out->first);
	return true;
}

static bool find_main(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, const forms *f,
                      uint32_t *index, job *out) {
	for (uint32_t i = 0; i < o->parts; ++i) {
		const uint32_t parts = together(s, o, f, false, i);

		if (!parts)
			continue;
		if (bind_whole(caps, s, o, parts)) {
			*out = (job){.whole = true, .parts = parts};
			if ((*index)-- == 0)
				return true;
		} else if (o->glu) {
			if (find_ranges(caps, s, o, parts, 0, index, out))
				return true;
		} else {
			for (uint32_t k = 0; k < o->parts; ++k)
				if ((parts >> k & 1) && find_ranges(caps, s, o, 1u << k, k, index, out))
					return true;
		}
	}
	return false;
}

/* Dispatch number `index`; false where there are no more. */
static bool find_job(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, const forms *f, uint32_t index,
                     job *out) {
	*out = (job){.prepare = true};
	if ((f->main.dot || f->main.coop) && index-- == 0)
		return true;
	for (uint32_t i = 0; i < o->parts; ++i) {
		*out = (job){.low = true, .whole = true, .parts = together(s, o, f, true, i)};
		if (out->parts && index-- == 0)
			return true;
	}
	return find_main(caps, s, o, f, &index, out);
}

static uint32_t rank_at(const knit_vk_step *s, const part_operands *p) {
	const knit_vk_tensor *const a = operand(s, p->a);

	return a ? (uint32_t)a->dims[a->rank - 2] : 0;
}

static void add_part(const knit_vk_step *s, const part_operands *p, const job *j, uint32_t low_at, knit_vk_linear *l) {
	knit_vk_linear_weight *const w = &l->weight[l->weights++];

	*w = (knit_vk_linear_weight){.w = operand_at(s, j->low ? p->a : p->w), .whole = j->whole, .low_at = low_at, .scale = 1};
	w->first = j->first;
	w->count = j->whole ? (uint64_t)w->w.t->dims[w->w.t->rank - 2] : j->count;
	if (j->low) {
		w->per_slot = l->slots != 0;
		w->scale = (float)s->attr[p->s].f;
		return;
	}
	w->b = operand_at(s, p->b);
	w->out = (knit_vk_linear_operand){&s->out[p->out], p->out};
}

/* What the shaders are told of job j. */
static knit_vk_linear linear_of(const knit_vk_caps *caps, const knit_vk_step *s, const operands *o, const forms *f, const job *j) {
	knit_vk_linear l = {.form = j->low ? f->low : f->main,
	                    .glu = o->glu && !j->low,
	                    .x = {&s->in[0], 0},
	                    .rows = knit__vk_outer(&s->in[0], 1),
	                    .k = (uint64_t)s->in[0].dims[s->in[0].rank - 1]};
	uint32_t low = 0;

	if (operand(s, o->adapters)) {
		l.adapters = operand_at(s, o->adapters);
		l.seq = operand_at(s, o->seq);
	}
	for (uint32_t i = 0; i < o->parts; ++i) {
		const knit_vk_tensor *const a = operand(s, o->part[i].a);

		if (a && l.adapters.t)
			l.slots = (uint32_t)a->dims[0];
		l.low_row += rank_at(s, &o->part[i]);
	}
	const uint32_t words = x_words(&f->main, l.k);
	if (words) {
		l.x_low_at = (uint32_t)quantised_at(l.low_row);
		l.low_row = l.x_low_at + words;
	}
	if (words && !j->low)
		l.x.t = NULL;
	if (j->low && l.slots)
		l.form = knit__vk_matvec_form(caps, 1, false); /* a matrix per row */
	for (uint32_t i = 0; i < o->parts; ++i) {
		if (j->parts >> i & 1)
			add_part(s, &o->part[i], j, low, &l);
		low += rank_at(s, &o->part[i]);
	}
	if (j->low)
		return l;
	l.act = l.glu ? (uint32_t)s->attr[KNIT_GLU_ACT].i : 0;
	l.bias = operand_at(s, o->bias);
	l.residual = operand_at(s, o->residual);
	return l;
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, uint16_t op, const forms *f, knit_vk_dispatch *out,
                     uint32_t cap) {
	const operands o = operands_of(op, s->attr);
	bool first_phase = false;
	uint32_t count = 0;
	job j;

	for (; find_job(caps, s, &o, f, count, &j); ++count) {
		if (out && count < cap && j.prepare) {
			(f->main.coop ? knit__vk_split_dispatch : knit__vk_quantise_dispatch)(caps, operand_at(s, 0), &out[count]);
		} else if (out && count < cap) {
			knit_vk_linear l = linear_of(caps, s, &o, f, &j);

			l.waits = first_phase && !j.low; /* the first of those that read the scratch: the others come after it */
			knit__vk_linear_dispatch(caps, &l, &out[count]);
		}
		first_phase = j.low || j.prepare;
	}
	return count;
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint16_t op, const forms *f, uint32_t index,
                 void *params, uint32_t groups[3]) {
	const operands o = operands_of(op, s->attr);
	job j;

	if (!find_job(caps, s, &o, f, index, &j))
		return;
	const knit_vk_linear l = linear_of(caps, s, &o, f, &j);
	if (j.prepare)
		(f->main.coop ? knit__vk_split_fill : knit__vk_quantise_fill)(caps, &s->in[0], l.x_low_at, l.low_row, params,
		                                                              groups);
	else
		knit__vk_linear_fill(caps, &l, params, groups);
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static forms matvec_forms(const knit_vk_caps *caps, uint32_t rows, bool glu) {
	return (forms){knit__vk_matvec_form(caps, rows, glu), knit__vk_matvec_form(caps, rows, false), rows == 1};
}

/* Tiles by how many rows there are; those of glu have sums for two weights. */
static forms tile_forms(const knit_vk_caps *caps, uint32_t rows, bool glu, bool dot) {
	const knit_vk_linear_form large = {.tile = true, .rows = 128, .columns = 64, .my_rows = 8, .my_columns = 4};
	const knit_vk_linear_form middle = {.tile = true, .rows = 64, .columns = 64, .my_rows = 4, .my_columns = 4};
	const knit_vk_linear_form half = {.tile = true, .rows = 64, .columns = 32, .my_rows = 4, .my_columns = 4};
	const knit_vk_linear_form small = {.tile = true, .rows = 32, .columns = 32, .my_rows = 4, .my_columns = 4};
	knit_vk_linear_form form = rows <= 32 ? small : glu ? half : rows <= 64 ? middle : large;

	form.dot = dot;
	return (forms){form, knit__vk_matvec_form(caps, 8, false), false};
}

static forms coop_forms(const knit_vk_caps *caps, bool glu) {
	return (forms){knit__vk_coop_form(caps, glu), knit__vk_matvec_form(caps, 8, false), false};
}

#define KERNEL(name_, OP, glu, SUFFIX, FORMS, ACCEPTS, SCRATCH, NEEDS) \
	static bool accepts_##name_##SUFFIX(const knit_vk_caps *caps, const knit_node_view *node) { return ACCEPTS; } \
	static uint32_t plan_##name_##SUFFIX(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, \
	                                     uint32_t cap) { \
		const forms f = FORMS; \
		return plan(caps, s, OP, &f, out, cap); \
	} \
	static void fill_##name_##SUFFIX(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, \
	                                 uint32_t groups[3]) { \
		const forms f = FORMS; \
		fill(caps, s, OP, &f, index, params, groups); \
	} \
	const knit_vk_kernel knit__vk_##name_##SUFFIX = {.name = #name_ #SUFFIX, \
	                                                 .op = OP, \
	                                                 .needs = NEEDS, \
	                                                 .accepts = accepts_##name_##SUFFIX, \
	                                                 .scratch = SCRATCH, \
	                                                 .plan = plan_##name_##SUFFIX, \
	                                                 .fill = fill_##name_##SUFFIX};

/* Fewest rows first: a row of the table is passed over where the bucket has more; how many are few is tuned. */
#define MATVEC(name_, OP, glu, ROWS) \
	KERNEL(name_, OP, glu, _matvec_##ROWS, matvec_forms(caps, ROWS, glu), accepts_matvec(caps, node, ROWS), scratch, 0)
#define TILE(name_, OP, glu, ROWS, LEAST) \
	KERNEL(name_, OP, glu, _tile_dot_##ROWS, tile_forms(caps, ROWS, glu, true), \
	       accepts_tile(caps, node, tile_forms(caps, ROWS, glu, true), LEAST), scratch_dot, KNIT_VK_DOT) \
	KERNEL(name_, OP, glu, _tile_##ROWS, tile_forms(caps, ROWS, glu, false), \
	       accepts_tile(caps, node, tile_forms(caps, ROWS, glu, false), LEAST), scratch, 0)
#define COOP(name_, OP, glu) \
	KERNEL(name_, OP, glu, _coop, coop_forms(caps, glu), accepts_coop(caps, node), scratch_coop, KNIT_VK_COOPMAT)
#define KERNELS(name_, OP, glu) \
	COOP(name_, OP, glu) \
	MATVEC(name_, OP, glu, 1) \
	MATVEC(name_, OP, glu, 4) \
	MATVEC(name_, OP, glu, 8) \
	TILE(name_, OP, glu, 128, caps->tuning.large_tile_rows) \
	TILE(name_, OP, glu, 64, caps->tuning.middle_tile_rows) \
	TILE(name_, OP, glu, 32, 0)

/* Whether 8-bit integers can take the place of all weights: super-blocks have more than one scale in 32 elements, or minima. */
static bool all_blocks(const knit_node_view *node) {
	const operands o = operands_of(node->op, node->attr);

	for (uint32_t i = 0; i < o.parts; ++i)
		if (!knit__vk_is_block(node->in[o.part[i].w].dtype) || knit__vk_is_super(node->in[o.part[i].w].dtype))
			return false;
	return true;
}

static bool all_f16(const knit_node_view *node) {
	const operands o = operands_of(node->op, node->attr);

	for (uint32_t i = 0; i < o.parts; ++i)
		if (node->in[o.part[i].w].dtype != KNIT_F16)
			return false;
	return true;
}

/* The scratch is larger than x. */
static bool accepts_coop(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_vk_linear_form form = knit__vk_coop_form(caps, node->op == KNIT_OP_GLU);

	return all_f16(node) && knit__vk_linear_form_fits(caps, &form, node->op == KNIT_OP_GLU) && accepts(caps, node) &&
	       scratch_coop(caps, node) <= knit__vk_min(caps->max_binding_bytes, caps->max_allocation_bytes);
}

static bool accepts_tile(const knit_vk_caps *caps, const knit_node_view *node, forms f, uint32_t least) {
	return most_rows(node) >= least && knit__vk_linear_form_fits(caps, &f.main, node->op == KNIT_OP_GLU) &&
	       (!f.main.dot || (most_rows(node) >= caps->tuning.dot_rows && all_blocks(node))) && accepts(caps, node);
}

KERNELS(linear, KNIT_OP_LINEAR, false)
KERNELS(linear_lora, KNIT_OP_LINEAR_LORA, false)
KERNELS(linear_group, KNIT_OP_LINEAR_GROUP, false)
KERNELS(glu, KNIT_OP_GLU, true)
