/* Owns the reading of a fused linear's operands, for the three ops: which are the weights, which have a LoRA, where in
 * scratch x and t = s x A^T lie, what is accepted. Knows no instruction set. References: ops/fused_linear.c. */
#include "linear_fused.h"
#include "operand.h"
#include "panels.h"

/* Operand numbers of one weight and its LoRA, and the attribute that scales that. */
typedef struct part_operands { uint8_t w, a, b, s, out; } part_operands;
typedef struct operands {
	part_operands part[KNIT_GROUP_MAX];
	uint32_t parts;
	uint8_t adapters, seq;
} operands;

static operands operands_of(knit_op op, const knit_attr *attr) {
	if (op == KNIT_OP_LINEAR_LORA)
		return (operands){
			{{KNIT_LORA_W, KNIT_LORA_A, KNIT_LORA_B, 0, 0}}, 1, KNIT_LORA_ADAPTERS, KNIT_LORA_SEQ};
	if (op == KNIT_OP_GLU)
		return (operands){{{KNIT_GLU_WG, KNIT_GLU_AG, KNIT_GLU_BG, KNIT_GLU_SG, 0},
		                   {KNIT_GLU_WU, KNIT_GLU_AU, KNIT_GLU_BU, KNIT_GLU_SU, 0}},
		                  2,
		                  KNIT_GLU_ADAPTERS,
		                  KNIT_GLU_SEQ};
	operands o = {.parts = (uint32_t)attr[KNIT_GROUP_N].i, .adapters = KNIT_GROUP_ADAPTERS, .seq = KNIT_GROUP_SEQ};

	for (uint8_t i = 0; i < o.parts; ++i) {
		const uint8_t w = (uint8_t)(KNIT_GROUP_W + 3 * i);

		o.part[i] = (part_operands){w, (uint8_t)(w + 1), (uint8_t)(w + 2), (uint8_t)(KNIT_GROUP_S + i), i};
	}
	return o;
}

static int row_kind(knit_dtype weight, uint8_t layout) {
	if (weight == KNIT_Q4_K)
		return 4;
	if (weight == KNIT_Q6_K)
		return layout == KNIT_CPU_PANELS ? 6 : 5;
	return (weight == KNIT_Q4_0) + (layout == KNIT_CPU_PANELS ? 2 : 0);
}

static const knit_linear_isa *isa_of(const knit_fused_isa *isa, const knit_cpu_tensor *w) {
	if (w->layout != KNIT_CPU_PANELS)
		return knit__linear_isa_of(isa->linear, w->dtype);
	if (!isa->panels)
		return NULL; /* only units are counted */
	switch (w->dtype) {
	case KNIT_Q4_0: return isa->panels->q4_0;
	case KNIT_Q4_K: return isa->panels->q4_k;
	case KNIT_Q6_K: return isa->panels->q6_k;
	default: return isa->panels->q8_0;
	}
}

static int64_t low_stride(int64_t rank) { return (rank + 15) / 16 * 16; }

knit_fused knit__fused_of(const knit_cpu_step *s, knit_op op, const knit_fused_isa *isa, uint32_t thread) {
	const operands o = operands_of(op, s->attr);
	const knit_cpu_tensor *const adapters = &s->in[o.adapters];
	knit_fused f = {.isa = isa,
	           .x = &s->in[0],
	           .parts = o.parts,
	           .threads = s->threads,
	           .rows = knit__cpu_outer(&s->in[0], 1),
	           .k = knit__row_length(&s->in[0])};
	char *scratch = s->scratch;

	f.row_bytes = knit__linear_row_bytes(f.k);
	if (adapters->data) {
		f.adapters = (const int32_t *)(void *)adapters->data;
		f.sequences = adapters->dims[0];
		f.seq = (const int32_t *)(void *)s->in[o.seq].data;
	}
	for (uint32_t i = 0; i < f.parts; ++i) {
		knit_fused_part *const p = &f.part[i];

		p->w = &s->in[o.part[i].w];
		p->isa = isa_of(isa, p->w);
		if (knit__is_block(p->w->dtype)) {
			const int kind = row_kind(p->w->dtype, p->w->layout);

			if (!f.quantised[kind]) {
				f.quantised[kind] = scratch;
				f.quantiser[kind] = p->isa;
				scratch += (f.rows == 1 ? f.threads : f.rows) * f.row_bytes;
			}
			p->quantised = f.quantised[kind] + (f.rows == 1 ? thread * f.row_bytes : 0);
		}
		if (!s->in[o.part[i].a].data)
			continue;
		p->a = &s->in[o.part[i].a];
		p->b = &s->in[o.part[i].b];
		p->s = (float)s->attr[o.part[i].s].f;
		p->rank = p->a->dims[p->a->rank - 2];
		p->low_stride = low_stride(p->rank);
		p->low = (float *)(void *)scratch;
		scratch += f.rows * p->low_stride * (int64_t)sizeof(float);
	}
	return f;
}

uint64_t knit__fused_scratch(const knit_node_view *node, knit_op op, uint32_t threads) {
	const operands o = operands_of(op, node->attr);
	const knit_operand_view *const x = &node->in[0];
	const uint64_t rows = knit__max_rows(node, x, 1);
	bool quantised[KNIT_FUSED_ROW_KINDS] = {false};
	uint64_t row = 0, bytes;

	for (uint32_t i = 0; i < o.parts; ++i) {
		const knit_operand_view *const w = &node->in[o.part[i].w], *const a = &node->in[o.part[i].a];

		if (knit__is_block(w->dtype) && !quantised[row_kind(w->dtype, w->layout)]) {
			quantised[row_kind(w->dtype, w->layout)] = true;
			row += (uint64_t)knit__linear_row_bytes(w->dims[1].v);
		}
		if (a->kind)
			row += (uint64_t)low_stride(a->dims[a->rank - 2].v) * sizeof(float);
	}
	return knit__mul_u64(rows > threads ? rows : threads, row, &bytes) ? bytes : UINT64_MAX;
}

/* ---- what is accepted -------------------------------------------------------------------------------------------- */

static bool there(const knit_node_view *node, uint32_t i) { return i < node->in_count && node->in[i].kind != 0; }

/* A factor of a LoRA: [rows, columns], or one such matrix per slot. */
static bool is_factor(const knit_operand_view *v, bool slots) {
	return knit__is_float(v->dtype) && v->layout == 0 && v->contiguous && v->rank == (slots ? 3 : 2);
}

static bool accepts_parts(const knit_node_view *node, knit_op op, const knit_fused_isa *isa) {
	const operands o = operands_of(op, node->attr);
	const knit_operand_view *const x = &node->in[0];
	const bool slots = there(node, o.adapters);

	if (!knit__f32_rows(x) || slots != there(node, o.seq))
		return false;
	if (slots && (!knit__index_vector(&node->in[o.adapters]) || !knit__index_vector(&node->in[o.seq]) || x->rank != 2))
		return false;
	for (uint32_t i = 0; i < o.parts; ++i) {
		const part_operands *const p = &o.part[i];

		if (!(knit__weight_rows(&node->in[p->w]) || (isa->panels && knit__weight_panels(&node->in[p->w]))) ||
		    !knit__f32_dense(&node->out[p->out]) ||
		    node->out[p->out].rank != x->rank || there(node, p->a) != there(node, p->b))
			return false;
		if (there(node, p->a) && (!is_factor(&node->in[p->a], slots) || !is_factor(&node->in[p->b], slots)))
			return false;
	}
	return true;
}

static bool accepts_ends(const knit_node_view *node) {
	return (!there(node, KNIT_LORA_BIAS) || knit__float_vector(&node->in[KNIT_LORA_BIAS])) &&
	       (!there(node, KNIT_LORA_RESIDUAL) || knit__f32_rows(&node->in[KNIT_LORA_RESIDUAL]));
}

bool knit__fused_accepts(const knit_node_view *node, knit_op op, const knit_fused_isa *isa) {
	return accepts_parts(node, op, isa) && (op != KNIT_OP_LINEAR_LORA || accepts_ends(node));
}

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

int64_t knit__fused_slot(const knit_fused *f, const knit_fused_part *p, int64_t row) {
	if (!f->adapters)
		return 0;
	if (f->seq[row] < 0 || f->seq[row] >= f->sequences)
		return -1;
	const int32_t slot = f->adapters[f->seq[row]];
	return slot < p->a->dims[0] ? knit__max(slot, -1) : -1;
}

int64_t knit__fused_same_slot(const knit_fused *f, const knit_fused_part *p, int64_t row, int64_t end) {
	const int64_t slot = knit__fused_slot(f, p, row);
	int64_t n = 1;

	if (!f->adapters)
		return end - row;
	while (row + n < end && knit__fused_slot(f, p, row + n) == slot)
		++n;
	return n;
}

const char *knit__fused_factor_row(const knit_cpu_tensor *t, int64_t slot, int64_t first) {
	const int64_t columns = t->dims[t->rank - 1], rows = t->dims[t->rank - 2];

	return t->data + knit__bytes_of(t->dtype, (slot * rows + first) * columns);
}
