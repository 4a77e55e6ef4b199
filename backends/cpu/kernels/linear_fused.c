/* Owns the kernels of the fused linears: linear_lora, linear_group and glu. First phase: x is quantised where weights
 * want it so, and t = s x A^T of every LoRA goes to scratch; second phase: y = W x + B t and what follows it, a weight's
 * bytes read once. Knows no instruction set: tiles and their order of sums are linear's, so W x has the same bits here
 * and there. References: ops/fused_linear.c. */
#include "fused_isa.h"
#include "half.h"
#include "operand.h"
#include "panels.h"

#include <math.h>

#define MANY_COLUMNS (KNIT_LINEAR_ROWS * KNIT_LINEAR_COLUMNS) /* of one row in the place of all rows of a unit */
#define LOW_COLUMNS 8                                         /* of A in a unit where there are few rows */
#define LOW_COLUMNS_MANY 64

/* ---- the parts of a step ----------------------------------------------------------------------------------------- */

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

/* One weight of a running step. */
typedef struct part {
	const knit_cpu_tensor *w, *a, *b; /* a NULL: no LoRA */
	const knit_linear_isa *isa;       /* for w */
	float s;
	const char *quantised; /* rows of x in scratch; NULL: the weights are floats */
	float *low;            /* t [rows, low_stride] in scratch */
	int64_t rank, low_stride;
} part;

/* Quantised rows of x differ by weight type and layout (linear.h). */
enum { ROW_KINDS = 7 };
static int row_kind(knit_dtype weight, uint8_t layout) {
	if (weight == KNIT_Q4_K)
		return 4;
	if (weight == KNIT_Q6_K)
		return layout == KNIT_CPU_PANELS ? 6 : 5;
	return (weight == KNIT_Q4_0) + (layout == KNIT_CPU_PANELS ? 2 : 0);
}

typedef struct fused {
	const knit_fused_isa *isa;
	const knit_cpu_tensor *x;
	part part[KNIT_GROUP_MAX];
	uint32_t parts;
	char *quantised[ROW_KINDS]; /* NULL: none wanted */
	const knit_linear_isa *quantiser[ROW_KINDS];
	const int32_t *adapters, *seq;
	int64_t sequences, rows, k, row_bytes;
	uint32_t threads;
} fused;

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

static fused fused_of(const knit_cpu_step *s, knit_op op, const knit_fused_isa *isa) {
	const operands o = operands_of(op, s->attr);
	const knit_cpu_tensor *const adapters = &s->in[o.adapters];
	fused f = {.isa = isa,
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
		part *const p = &f.part[i];

		p->w = &s->in[o.part[i].w];
		p->isa = isa_of(isa, p->w);
		if (knit__is_block(p->w->dtype)) {
			const int kind = row_kind(p->w->dtype, p->w->layout);

			if (!f.quantised[kind]) {
				f.quantised[kind] = scratch;
				f.quantiser[kind] = p->isa;
				scratch += f.rows * f.row_bytes;
			}
			p->quantised = f.quantised[kind];
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

static uint64_t scratch_of(const knit_node_view *node, knit_op op) {
	const operands o = operands_of(op, node->attr);
	const knit_operand_view *const x = &node->in[0];
	bool quantised[ROW_KINDS] = {false};
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
	return knit__mul_u64(knit__max_rows(node, x, 1), row, &bytes) ? bytes : UINT64_MAX;
}

/* ---- what is accepted -------------------------------------------------------------------------------------------- */

static bool there(const knit_node_view *node, uint32_t i) { return i < node->in_count && node->in[i].kind != 0; }

/* A factor of a LoRA: [rows, columns], or one such matrix per slot. */
static bool is_factor(const knit_operand_view *v, bool slots) {
	return knit__is_float(v->dtype) && v->layout == 0 && v->contiguous && v->rank == (slots ? 3 : 2);
}

static bool accepts(const knit_node_view *node, knit_op op, const knit_fused_isa *isa) {
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

static uint64_t scratch_lora(const knit_node_view *node, uint32_t threads) {
	(void)threads;
	return scratch_of(node, KNIT_OP_LINEAR_LORA);
}
static uint64_t scratch_group(const knit_node_view *node, uint32_t threads) {
	(void)threads;
	return scratch_of(node, KNIT_OP_LINEAR_GROUP);
}
static uint64_t scratch_glu(const knit_node_view *node, uint32_t threads) {
	(void)threads;
	return scratch_of(node, KNIT_OP_GLU);
}

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* Which slot of A and B a row uses; -1 where an index is out of range, which the session has checked of inputs. */
static int64_t slot_of(const fused *f, const part *p, int64_t row) {
	if (!f->adapters)
		return 0;
	if (f->seq[row] < 0 || f->seq[row] >= f->sequences)
		return -1;
	const int32_t slot = f->adapters[f->seq[row]];
	return slot < p->a->dims[0] ? knit__max(slot, -1) : -1;
}

/* How many of the rows [row, end) have the slot of the first. */
static int64_t same_slot(const fused *f, const part *p, int64_t row, int64_t end) {
	const int64_t slot = slot_of(f, p, row);
	int64_t n = 1;

	if (!f->adapters)
		return end - row;
	while (row + n < end && slot_of(f, p, row + n) == slot)
		++n;
	return n;
}

/* Row `first` of a factor in a slot. */
static const char *factor_row(const knit_cpu_tensor *t, int64_t slot, int64_t first) {
	const int64_t columns = t->dims[t->rank - 1], rows = t->dims[t->rank - 2];

	return t->data + knit__bytes_of(t->dtype, (slot * rows + first) * columns);
}

/* ---- first phase ------------------------------------------------------------------------------------------------- */

static int64_t low_columns(int64_t rows) { return rows > 8 ? LOW_COLUMNS_MANY : LOW_COLUMNS; }

static int64_t low_units(const fused *f, const part *p) {
	return p->a ? knit__ceil_div(p->rank, low_columns(f->rows)) * knit__ceil_div(f->rows, KNIT_LINEAR_ROWS) : 0;
}

static int64_t prepare_units(const fused *f) {
	int64_t units = 0;

	for (uint32_t i = 0; i < f->parts; ++i)
		units += low_units(f, &f->part[i]);
	for (int i = 0; i < ROW_KINDS; ++i)
		units += f->quantised[i] ? f->rows : 0;
	return units;
}

/* t of some rows and columns, s included: where s is a power of two the bits are those of scaling B t. */
static void low_unit(const fused *f, const part *p, int64_t unit) {
	const int64_t row_blocks = knit__ceil_div(f->rows, KNIT_LINEAR_ROWS), width = low_columns(f->rows);
	const int64_t column = unit / row_blocks * width, columns = knit__min(width, p->rank - column);
	const int64_t begin = unit % row_blocks * KNIT_LINEAR_ROWS, end = knit__min(begin + KNIT_LINEAR_ROWS, f->rows);

	for (int64_t row = begin, rows; row < end; row += rows) {
		const int64_t slot = slot_of(f, p, row);
		float *const out = p->low + row * p->low_stride + column;

		rows = same_slot(f, p, row, end);
		if (slot < 0)
			continue;
		knit_linear_block b = {.isa = knit__linear_isa_of(f->isa->linear, p->a->dtype),
		                       .rows = rows,
		                       .columns = columns,
		                       .k = f->k,
		                       .w = factor_row(p->a, slot, column),
		                       .w_stride = knit__bytes_of(p->a->dtype, f->k),
		                       .out = out,
		                       .out_stride = p->low_stride,
		                       .ahead = 1}; /* the next tile: A is read once and is too short to be seen as a stream */

		for (int64_t r = 0; r < rows; ++r)
			b.x[r] = (const char *)knit__f32_row(f->x, row + r);
		knit__linear_block(&b);
		for (int64_t r = 0; r < rows; ++r)
			for (int64_t c = 0; c < columns; ++c)
				out[r * p->low_stride + c] *= p->s;
	}
}

static void prepare_unit(const fused *f, int64_t unit) {
	for (uint32_t i = 0; i < f->parts; ++i) {
		const int64_t units = low_units(f, &f->part[i]);

		if (unit < units) {
			low_unit(f, &f->part[i], unit);
			return;
		}
		unit -= units;
	}
	for (int i = 0; i < ROW_KINDS; ++i) {
		if (!f->quantised[i])
			continue;
		if (unit < f->rows) {
			knit__linear_quantise_row(f->quantiser[i], knit__f32_row(f->x, unit), f->k,
			                          f->quantised[i] + unit * f->row_bytes);
			return;
		}
		unit -= f->rows;
	}
}

static void prepare(const knit_cpu_step *s, int64_t begin, int64_t end, knit_op op, const knit_fused_isa *isa) {
	const fused f = fused_of(s, op, isa);

	for (int64_t i = begin; i < end; ++i)
		prepare_unit(&f, i);
}

/* ---- second phase ------------------------------------------------------------------------------------------------ */

/* Rows and columns of the output that a unit computes. */
typedef struct window { int64_t row, rows, column, columns; } window;

static knit_linear_cut cut_of(const fused *f, const part *p) {
	return knit__linear_cut(f->rows, p->w->dims[0], f->threads);
}

static int64_t window_count(const fused *f, const part *p) {
	const knit_linear_cut cut = cut_of(f, p);

	return cut.row_blocks * cut.column_blocks;
}

/* Of `units` units, of which there is one unless there is one row of x. */
static window window_of(const fused *f, const part *p, int64_t unit, int64_t units) {
	const knit_linear_cut cut = cut_of(f, p);
	const int64_t row = unit % cut.row_blocks * cut.rows, column = unit / cut.row_blocks * cut.columns;

	return (window){row, knit__min(cut.rows, f->rows - row), column,
	                knit__min(cut.columns * units, p->w->dims[0] - column)};
}

/* How many of the units to come are computed as one: with one row of x as many as there are, so that W is read in one long
 * stream, then B. */
static int64_t units_together(const fused *f, const part *p, int64_t units) {
	return f->rows == 1 ? knit__min(units, MANY_COLUMNS / cut_of(f, p).columns) : 1;
}

static void fill_nan(float *out, int64_t stride, int64_t rows, int64_t columns) {
	for (int64_t r = 0; r < rows; ++r)
		for (int64_t c = 0; c < columns; ++c)
			out[r * stride + c] = NAN;
}

static void add_low(const fused *f, const part *p, const window *w, float *out, int64_t out_stride) {
	for (int64_t row = w->row, rows; row < w->row + w->rows; row += rows) {
		const int64_t slot = slot_of(f, p, row);

		rows = same_slot(f, p, row, w->row + w->rows);
		if (slot < 0) {
			fill_nan(out + (row - w->row) * out_stride, out_stride, rows, w->columns);
			continue;
		}
		for (int64_t r = 0; r < rows; ++r)
			f->isa->add_low(p->b->dtype, factor_row(p->b, slot, w->column), p->rank, p->low + (row + r) * p->low_stride,
			                out + (row + r - w->row) * out_stride, w->columns);
	}
}

/* out = W x + B t; out points at the window's first element. */
static void project(const fused *f, const part *p, const window *w, float *out, int64_t out_stride) {
	knit_linear_block b = {.isa = p->isa,
	                       .rows = w->rows,
	                       .columns = w->columns,
	                       .k = f->k,
	                       .out = out,
	                       .out_stride = out_stride,
	                       .ahead = KNIT_LINEAR_AHEAD};

	knit__linear_block_weight(&b, p->w, w->column);
	for (int64_t r = 0; r < w->rows; ++r)
		b.x[r] = p->quantised ? p->quantised + (w->row + r) * f->row_bytes
		                      : (const char *)knit__f32_row(f->x, w->row + r);
	knit__linear_block(&b);
	if (p->a)
		add_low(f, p, w, out, out_stride);
}

static void add_bias(const knit_cpu_tensor *bias, const window *w, float *out, int64_t out_stride) {
	float b[KNIT_LINEAR_COLUMNS];

	for (int64_t at = 0, n; at < w->columns; at += n) {
		n = knit__min(KNIT_LINEAR_COLUMNS, w->columns - at);
		knit__floats_to_f32(bias->dtype, bias->data + knit__bytes_of(bias->dtype, w->column + at), b, n);
		for (int64_t r = 0; r < w->rows; ++r)
			for (int64_t c = 0; c < n; ++c)
				out[r * out_stride + at + c] += b[c];
	}
}

static void add_residual(const knit_cpu_tensor *residual, const window *w, float *out, int64_t out_stride) {
	for (int64_t r = 0; r < w->rows; ++r) {
		const float *const from = knit__f32_row(residual, w->row + r) + w->column;

		for (int64_t c = 0; c < w->columns; ++c)
			out[r * out_stride + c] += from[c];
	}
}

static void lora(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_fused_isa *isa) {
	const fused f = fused_of(s, KNIT_OP_LINEAR_LORA, isa);
	const int64_t n = knit__row_length(&s->out[0]);

	for (int64_t i = begin, units; i < end; i += units) {
		units = units_together(&f, &f.part[0], end - i);
		const window w = window_of(&f, &f.part[0], i, units);
		float *const out = (float *)(void *)s->out[0].data + w.row * n + w.column;

		project(&f, &f.part[0], &w, out, n);
		if (s->in[KNIT_LORA_BIAS].data)
			add_bias(&s->in[KNIT_LORA_BIAS], &w, out, n);
		if (s->in[KNIT_LORA_RESIDUAL].data)
			add_residual(&s->in[KNIT_LORA_RESIDUAL], &w, out, n);
	}
}

static void group(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_fused_isa *isa) {
	const fused f = fused_of(s, KNIT_OP_LINEAR_GROUP, isa);
	int64_t first = 0;

	for (uint32_t p = 0; p < f.parts; ++p) {
		const int64_t count = window_count(&f, &f.part[p]), n = f.part[p].w->dims[0];

		for (int64_t i = knit__max(begin, first), units; i < knit__min(end, first + count); i += units) {
			units = units_together(&f, &f.part[p], knit__min(end, first + count) - i);
			const window w = window_of(&f, &f.part[p], i - first, units);

			project(&f, &f.part[p], &w, (float *)(void *)s->out[p].data + w.row * n + w.column, n);
		}
		first += count;
	}
}

/* The gate is made where the result will stand. */
static void glu(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_fused_isa *isa) {
	_Alignas(64) float up[MANY_COLUMNS];
	const fused f = fused_of(s, KNIT_OP_GLU, isa);
	const int64_t n = knit__row_length(&s->out[0]);

	for (int64_t i = begin, units; i < end; i += units) {
		units = units_together(&f, &f.part[0], end - i);
		const window w = window_of(&f, &f.part[0], i, units);
		float *const out = (float *)(void *)s->out[0].data + w.row * n + w.column;

		project(&f, &f.part[0], &w, out, n);
		project(&f, &f.part[1], &w, up, KNIT_LINEAR_COLUMNS);
		for (int64_t r = 0; r < w.rows; ++r)
			isa->glu(s->attr[KNIT_GLU_ACT].i, out + r * n, up + r * KNIT_LINEAR_COLUMNS, out + r * n, w.columns);
	}
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static int64_t units_prepare(const knit_cpu_step *s, knit_op op) {
	const fused f = fused_of(s, op, &knit__fused_plain);

	return prepare_units(&f);
}

static int64_t units_compute(const knit_cpu_step *s, knit_op op) {
	const fused f = fused_of(s, op, &knit__fused_plain);
	int64_t units = 0;

	for (uint32_t i = 0; i < (op == KNIT_OP_GLU ? 1 : f.parts); ++i)
		units += window_count(&f, &f.part[i]);
	return units;
}

#define UNITS(name, OP) \
	static int64_t name##_prepare_units(const knit_cpu_step *s) { return units_prepare(s, OP); } \
	static int64_t name##_compute_units(const knit_cpu_step *s) { return units_compute(s, OP); }
#define KERNEL(name, OP, suffix, ISA) \
	static bool name##_accepts_##suffix(const knit_node_view *node) { \
		return accepts(node, OP, &knit__fused_##suffix) && (OP != KNIT_OP_LINEAR_LORA || accepts_ends(node)); \
	} \
	static void name##_prepare_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		prepare(s, begin, end, OP, &knit__fused_##suffix); \
	} \
	static void name##_compute_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		name(s, begin, end, &knit__fused_##suffix); \
	} \
	const knit_cpu_kernel knit__linear_##name##_##suffix = { \
		"linear_" #name "_" #suffix, OP, ISA, name##_accepts_##suffix, scratch_##name, \
		{{name##_prepare_units, name##_prepare_##suffix}, {name##_compute_units, name##_compute_##suffix}}};
#define KERNELS(suffix, ISA) \
	KERNEL(lora, KNIT_OP_LINEAR_LORA, suffix, ISA) \
	KERNEL(group, KNIT_OP_LINEAR_GROUP, suffix, ISA) \
	KERNEL(glu, KNIT_OP_GLU, suffix, ISA)

UNITS(lora, KNIT_OP_LINEAR_LORA)
UNITS(group, KNIT_OP_LINEAR_GROUP)
UNITS(glu, KNIT_OP_GLU)

KERNELS(plain, KNIT_CPU_PLAIN)
#if defined(__x86_64__)
KERNELS(avx2, KNIT_CPU_AVX2)
KERNELS(avx512, KNIT_CPU_AVX512)
#elif defined(__aarch64__)
KERNELS(neon, KNIT_CPU_NEON)
KERNELS(dotprod, KNIT_CPU_DOTPROD)
#endif
