/* Owns how one dispatch of the linears' shaders is asked for and its parameters filled. Knows no op. Shaders:
 * linear_matvec.comp, linear_tile.comp, linear_tile_dot.comp, linear_coop.comp. */
#include "linear.h"

#define RANGE_ROWS 64   /* what any form takes at once: ranges are multiples of it where they can be */
#define RANGE_ALIGN 256 /* of the first byte of a range: no device asks for more, and whole vectors stay whole */

/* ---- forms ------------------------------------------------------------------------------------------------------- */

knit_vk_linear_form knit__vk_matvec_form(const knit_vk_caps *caps, uint32_t rows, bool glu) {
	const uint32_t columns = caps->tuning.matvec_columns[rows > 4 ? 2 : rows > 1 ? 1 : 0];

	return (knit_vk_linear_form){.rows = rows, .columns = glu && columns > 1 ? columns / 2 : columns};
}

/* Four subgroups, two by two, of two by four matrices each; of glu, which has sums for two weights, two by two. */
knit_vk_linear_form knit__vk_coop_form(const knit_vk_caps *caps, bool glu) {
	const uint32_t across = glu ? 2 : 4;

	return (knit_vk_linear_form){.tile = true, .coop = true, .rows = 4 * caps->matrix.m,
	                             .columns = 2 * across * caps->matrix.n, .my_rows = 2, .my_columns = across};
}

static uint32_t subgroups_of(const knit_vk_caps *caps, const knit_vk_linear_form *form) {
	return form->rows / (form->my_rows * caps->matrix.m) * (form->columns / (form->my_columns * caps->matrix.n));
}

/* Subgroups of one size, whichever it is: as many as the shader counts on. */
static bool coop_fits(const knit_vk_caps *caps, const knit_vk_linear_form *form, bool glu) {
	if (!(caps->features & KNIT_VK_COOPMAT) || caps->matrix.m == 0 ||
	    (caps->subgroup_min != caps->subgroup_max && !(caps->features & KNIT_VK_SUBGROUP_CONTROL)))
		return false;
	const uint32_t groups = subgroups_of(caps, form), sums = groups * caps->matrix.m * caps->matrix.n * 4;
	const uint32_t slabs = (2 * form->rows + form->columns) * 5 * 16; /* as in the shader */
	return groups * caps->subgroup <= caps->max_invocations && slabs + sums * (glu ? 2 : 1) <= caps->max_shared_bytes;
}

static uint32_t width_of(const knit_vk_caps *caps, const knit_vk_linear_form *form) {
	if (!form->tile)
		return knit__vk_local(caps, caps->tuning.matvec_width);
	if (form->coop)
		return subgroups_of(caps, form) * caps->subgroup;
	return form->rows / form->my_rows * (form->columns / form->my_columns);
}

bool knit__vk_linear_form_fits(const knit_vk_caps *caps, const knit_vk_linear_form *form, bool glu) {
	const uint32_t sums = form->rows * form->columns * (glu ? 2 : 1) * 4;
	const uint32_t slabs = (form->rows + form->columns) * (form->dot ? 3 : 9) * 16; /* as in the shaders */

	if (!form->tile)
		return true;
	if (form->coop)
		return coop_fits(caps, form, glu);
	return width_of(caps, form) <= caps->max_invocations && (sums > slabs ? sums : slabs) <= caps->max_shared_bytes;
}

/* ---- where things lie -------------------------------------------------------------------------------------------- */

static uint64_t row_words(const knit_vk_tensor *w) {
	return knit__vk_words(w->dtype, w->rank > 2 ? w->strides[w->rank - 2] : w->strides[0]);
}

/* The first byte of row `row` of w. */
static uint64_t row_byte(const knit_vk_tensor *w, uint64_t row) {
	return (knit__vk_words(w->dtype, w->offset) + row * row_words(w)) * knit__vk_word_bytes(w->dtype);
}

uint64_t knit__vk_linear_range(const knit_vk_caps *caps, knit_dtype w, int64_t row_elements) {
	const uint64_t row = knit__vk_words(w, row_elements) * knit__vk_word_bytes(w);
	const uint64_t limit = knit__vk_min(caps->max_binding_bytes, UINT32_MAX);

	if (row == 0 || limit <= RANGE_ALIGN)
		return 0;
	const uint64_t rows = (limit - RANGE_ALIGN) / row;
	return rows < RANGE_ROWS ? rows : rows / RANGE_ROWS * RANGE_ROWS;
}

static uint64_t range_begin(const knit_vk_linear_weight *w) {
	return w->whole ? 0 : row_byte(w->w.t, w->first) / RANGE_ALIGN * RANGE_ALIGN;
}

static bool steps_of_four(const knit_vk_tensor *t) {
	for (uint32_t i = 0; i + 1 < t->rank; ++i)
		if (t->dims[i] != 1 && t->strides[i] % 4 != 0)
			return false;
	return t->offset % 4 == 0;
}

/* Whether rows can be read 16 bytes at a time, 8 elements of k at once. */
static bool is_wide(const knit_vk_linear *l) {
	if (l->k % 8 != 0 || (l->x.t ? !steps_of_four(l->x.t) : l->low_row % 4 != 0))
		return false;
	for (uint32_t i = 0; i < l->weights; ++i) {
		const knit_vk_tensor *const w = l->weight[i].w.t;
		const int64_t vector = w->dtype == KNIT_F32 ? 4 : 8;

		if (!knit__vk_is_block(w->dtype) && (w->offset % vector != 0 || (int64_t)row_words(w) % vector != 0))
			return false;
	}
	return true;
}

/* ---- dispatch ---------------------------------------------------------------------------------------------------- */

static const char *shader_of(const knit_vk_linear_form *f, knit_dtype w) {
	const bool tile = f->tile;

	if (f->coop)
		return "linear_coop_f16";
	if (f->dot)
		return w == KNIT_Q8_0 ? "linear_tile_dot_q8_0" : "linear_tile_dot_q4_0";
	switch (w) {
	case KNIT_F16: return tile ? "linear_tile_f16" : "linear_matvec_f16";
	case KNIT_BF16: return tile ? "linear_tile_bf16" : "linear_matvec_bf16";
	case KNIT_Q8_0: return tile ? "linear_tile_q8_0" : "linear_matvec_q8_0";
	case KNIT_Q4_0: return tile ? "linear_tile_q4_0" : "linear_matvec_q4_0";
	case KNIT_Q4_K: return tile ? "linear_tile_q4_k" : "linear_matvec_q4_k";
	case KNIT_Q6_K: return tile ? "linear_tile_q6_k" : "linear_matvec_q6_k";
	default: return tile ? "linear_tile_f32" : "linear_matvec_f32";
	}
}

static knit_vk_binding bind_in(knit_vk_linear_operand o) { return o.t ? knit__vk_in(o.index) : (knit_vk_binding){0}; }
static knit_vk_binding bind_scratch(bool written) {
	return (knit_vk_binding){.source = KNIT_VK_SCRATCH, .written = written};
}

static knit_vk_binding bind_weight(const knit_vk_linear_weight *w) {
	knit_vk_binding b = bind_in(w->w);

	if (w->whole)
		return b;
	b.at = range_begin(w);
	b.bytes = knit__vk_min(row_byte(w->w.t, w->first + w->count), w->w.t->storage_bytes) - b.at;
	return b;
}

/* Bindings 1 to 15 as in shaders/common/linear.glsl. */
enum { X, W, OUT = W + KNIT_LINEAR_PARTS, B = OUT + KNIT_LINEAR_PARTS, LOW = B + KNIT_LINEAR_PARTS, BIAS, RESIDUAL,
	   ADAPTERS, SEQ, BINDINGS };

void knit__vk_linear_dispatch(const knit_vk_caps *caps, const knit_vk_linear *l, knit_vk_dispatch *out) {
	const knit_vk_linear_form *const f = &l->form;

	*out = (knit_vk_dispatch){
		.shader = shader_of(f, l->weight[0].w.t->dtype),
		.spec = {width_of(caps, f), f->rows, f->columns, is_wide(l), l->glu || l->weights == 1 ? 1 : KNIT_LINEAR_PARTS,
	             l->glu, f->my_rows, f->my_columns, caps->matrix.m, caps->matrix.n, caps->matrix.k},
		.spec_count = f->coop ? 11 : f->tile ? 8 : 6,
		.subgroup = f->coop && caps->subgroup_min != caps->subgroup_max ? (uint8_t)caps->subgroup : 0,
		.waits = l->waits,
		.binding_count = BINDINGS,
	};
	out->bindings[X] = l->x.t ? bind_in(l->x) : bind_scratch(false);
	for (uint32_t i = 0; i < l->weights; ++i) {
		const knit_vk_linear_weight *const w = &l->weight[i];

		out->bindings[W + i] = bind_weight(w);
		if (!l->glu || i == 0)
			out->bindings[OUT + i] = w->out.t ? knit__vk_out(w->out.index) : bind_scratch(true);
		out->bindings[B + i] = bind_in(w->b);
		if (w->b.t)
			out->bindings[LOW] = bind_scratch(false);
	}
	out->bindings[BIAS] = bind_in(l->bias);
	out->bindings[RESIDUAL] = bind_in(l->residual);
	out->bindings[ADAPTERS] = bind_in(l->adapters);
	out->bindings[SEQ] = bind_in(l->seq);
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

knit_vk_rows_at knit__vk_rows_at(const knit_vk_tensor *t) {
	const int outer = t->rank - 1;
	knit_vk_rows_at r = {.at = (uint32_t)t->offset, .d1 = 1, .d2 = 1};

	if (outer > 0 && t->dims[outer - 1] > 0)
		r.d2 = (uint32_t)t->dims[outer - 1];
	if (outer > 1 && t->dims[outer - 2] > 0)
		r.d1 = (uint32_t)t->dims[outer - 2];
	r.s2 = outer > 0 ? (uint32_t)t->strides[outer - 1] : 0;
	r.s1 = outer > 1 ? (uint32_t)t->strides[outer - 2] : 0;
	r.s0 = outer > 2 ? (uint32_t)t->strides[outer - 3] : 0;
	return r;
}

static void fill_part(const knit_vk_linear *l, const knit_vk_linear_weight *w, knit_linear_part *p) {
	const knit_vk_tensor *const t = w->w.t;
	const uint64_t rows = (uint64_t)t->dims[t->rank - 2];

	p->columns = (uint32_t)w->count;
	p->w_at = (uint32_t)((row_byte(t, w->first) - range_begin(w)) / knit__vk_word_bytes(t->dtype));
	p->w_row = (uint32_t)row_words(t);
	p->slot_step = w->per_slot ? (uint32_t)(rows * row_words(t)) : 0;
	p->out_at = w->out.t ? (uint32_t)((uint64_t)w->out.t->offset + w->first) : w->low_at;
	p->out_row = w->out.t ? (uint32_t)rows : l->low_row;
	p->scale = w->scale;
	if (!w->b.t)
		return;
	const knit_vk_tensor *const b = w->b.t;
	p->b_type = (uint32_t)b->dtype;
	p->rank = (uint32_t)b->dims[b->rank - 1];
	p->slot_step = l->slots ? (uint32_t)(rows * p->rank) : 0;
	p->b_at = (uint32_t)((uint64_t)b->offset + w->first * p->rank);
	p->low_at = w->low_at;
}

void knit__vk_linear_fill(const knit_vk_caps *caps, const knit_vk_linear *l, knit_linear_params *p, uint32_t groups[3]) {
	const knit_vk_rows_at in_scratch = {.at = l->x_low_at, .d1 = 1, .d2 = UINT32_MAX, .s2 = l->low_row};
	const knit_vk_rows_at x = l->x.t ? knit__vk_rows_at(l->x.t) : in_scratch;
	const uint64_t row_blocks = knit__vk_ceil_div(l->rows, l->form.rows);
	uint64_t count = 0;

	*p = (knit_linear_params){.x_at = x.at, .x_d1 = x.d1, .x_d2 = x.d2, .x_s0 = x.s0, .x_s1 = x.s1, .x_s2 = x.s2,
	                          .row_blocks = (uint32_t)row_blocks, .rows = (uint32_t)l->rows, .k = (uint32_t)l->k,
	                          .low_row = l->low_row, .act = l->act, .slots = l->slots};
	for (uint32_t i = 0; i < KNIT_LINEAR_PARTS; ++i)
		p->part[i].first_group = UINT32_MAX;
	for (uint32_t i = 0; i < l->weights; ++i) {
		p->part[i].first_group = (uint32_t)count;
		fill_part(l, &l->weight[i], &p->part[i]);
		if (!l->glu || i == 0)
			count += knit__vk_ceil_div(l->weight[i].count, l->form.columns) * row_blocks;
	}
	if (l->bias.t) {
		p->bias_type = (uint32_t)l->bias.t->dtype;
		p->bias_at = (uint32_t)((uint64_t)l->bias.t->offset + l->weight[0].first);
	}
	if (l->residual.t) {
		const knit_vk_rows_at r = knit__vk_rows_at(l->residual.t);

		p->has_residual = 1;
		p->residual_at = r.at + (uint32_t)l->weight[0].first;
		p->residual_d1 = r.d1;
		p->residual_d2 = r.d2;
		p->residual_s0 = r.s0;
		p->residual_s1 = r.s1;
		p->residual_s2 = r.s2;
	}
	if (l->slots) {
		p->sequences = (uint32_t)l->adapters.t->dims[0];
		p->adapters_at = (uint32_t)l->adapters.t->offset;
		p->seq_at = (uint32_t)l->seq.t->offset;
	}
	p->groups = (uint32_t)count;
	knit__vk_grid(caps, count, groups);
}

/* ---- accepts ----------------------------------------------------------------------------------------------------- */

static bool is_steady(const knit_graph *g, knit_dim d) {
	const knit_expr *const e = knit__expr_get(&g->exprs, d);

	if (!e)
		return knit__dim_is_number(d);
	for (uint32_t i = 0; i < e->terms; ++i)
		if (e->k[i] % 4 != 0)
			return false;
	return e->k0 % 4 == 0;
}

bool knit__vk_linear_steady(const knit_node_view *node, uint32_t in) {
	const knit_graph *const g = node->graph;
	const knit_operand_view *const v = &node->in[in];
	const uint32_t value = g->nodes[node->node].in[in];

	if (v->contiguous && !knit__value_contiguous(g, value))
		return true; /* a copy that could be made of it */
	for (int i = 0; i + 1 < v->rank; ++i)
		if (!is_steady(g, v->strides[i]))
			return false;
	return is_steady(g, g->values[value].offset);
}
