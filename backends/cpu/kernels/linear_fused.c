/* Owns the kernels of the fused linears: linear_lora, linear_group and glu. First phase: x is quantised where weights
 * want it so, and t = s x A^T of every LoRA goes to scratch; second phase: y = W x + B t and what follows it, a weight's
 * bytes read once. Knows no instruction set: tiles and their order of sums are linear's, so W x has the same bits here
 * and there. References: ops/fused_linear.c. */
#include "linear_fused.h"
#include "half.h"
#include "operand.h"

#include <math.h>

#define MANY_COLUMNS (KNIT_LINEAR_ROWS * KNIT_LINEAR_COLUMNS) /* of one row in the place of all rows of a unit */
#define LOW_COLUMNS 8                                         /* of A in a unit where there are few rows */
#define LOW_COLUMNS_MANY 64

/* ---- first phase ------------------------------------------------------------------------------------------------- */

static int64_t low_columns(int64_t rows) { return rows > 8 ? LOW_COLUMNS_MANY : LOW_COLUMNS; }

static int64_t low_units(const knit_fused *f, const knit_fused_part *p) {
	return p->a ? knit__ceil_div(p->rank, low_columns(f->rows)) * knit__ceil_div(f->rows, KNIT_LINEAR_ROWS) : 0;
}

/* Of one row each thread quantises x for itself: that costs less than to wait for one that does it for all. */
static int64_t prepare_units(const knit_fused *f) {
	int64_t units = 0;

	for (uint32_t i = 0; i < f->parts; ++i)
		units += low_units(f, &f->part[i]);
	for (int i = 0; i < KNIT_FUSED_ROW_KINDS; ++i)
		units += f->quantised[i] && f->rows > 1 ? f->rows : 0;
	return units;
}

/* t of some rows and columns, s included: where s is a power of two the bits are those of scaling B t. */
static void low_unit(const knit_fused *f, const knit_fused_part *p, int64_t unit) {
	const int64_t row_blocks = knit__ceil_div(f->rows, KNIT_LINEAR_ROWS), width = low_columns(f->rows);
	const int64_t column = unit / row_blocks * width, columns = knit__min(width, p->rank - column);
	const int64_t begin = unit % row_blocks * KNIT_LINEAR_ROWS, end = knit__min(begin + KNIT_LINEAR_ROWS, f->rows);

	for (int64_t row = begin, rows; row < end; row += rows) {
		const int64_t slot = knit__fused_slot(f, p, row);
		float *const out = p->low + row * p->low_stride + column;

		rows = knit__fused_same_slot(f, p, row, end);
		if (slot < 0)
			continue;
		knit_linear_block b = {.isa = knit__linear_isa_of(f->isa->linear, p->a->dtype),
		                       .rows = rows,
		                       .columns = columns,
		                       .k = f->k,
		                       .w = knit__fused_factor_row(p->a, slot, column),
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

static void prepare_unit(const knit_fused *f, int64_t unit) {
	for (uint32_t i = 0; i < f->parts; ++i) {
		const int64_t units = low_units(f, &f->part[i]);

		if (unit < units) {
			low_unit(f, &f->part[i], unit);
			return;
		}
		unit -= units;
	}
	for (int i = 0; i < KNIT_FUSED_ROW_KINDS; ++i) {
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
	const knit_fused f = knit__fused_of(s, op, isa, 0);

	for (int64_t i = begin; i < end; ++i)
		prepare_unit(&f, i);
}

static void prepare_own(const knit_cpu_step *s, uint32_t thread, knit_op op, const knit_fused_isa *isa) {
	const knit_fused f = knit__fused_of(s, op, isa, thread);

	for (int i = 0; i < KNIT_FUSED_ROW_KINDS; ++i)
		if (f.quantised[i] && f.rows == 1)
			knit__linear_quantise_row(f.quantiser[i], knit__f32_row(f.x, 0), f.k, f.quantised[i] + thread * f.row_bytes);
}

/* ---- second phase ------------------------------------------------------------------------------------------------ */

/* Rows and columns of the output that a unit computes. */
typedef struct window { int64_t row, rows, column, columns; } window;

static knit_linear_cut cut_of(const knit_fused *f, const knit_fused_part *p) {
	return knit__linear_cut(f->rows, p->w->dims[0], f->threads);
}

static int64_t window_count(const knit_fused *f, const knit_fused_part *p) {
	const knit_linear_cut cut = cut_of(f, p);

	return cut.row_blocks * cut.column_blocks;
}

/* Of `units` units, of which there is one unless there is one row of x. */
static window window_of(const knit_fused *f, const knit_fused_part *p, int64_t unit, int64_t units) {
	const knit_linear_cut cut = cut_of(f, p);
	const int64_t row = unit % cut.row_blocks * cut.rows, column = unit / cut.row_blocks * cut.columns;

	return (window){row, knit__min(cut.rows, f->rows - row), column,
	                knit__min(cut.columns * units, p->w->dims[0] - column)};
}

/* How many of the units to come are computed as one: with one row of x as many as there are, so that W is read in one long
 * stream, then B. */
static int64_t units_together(const knit_fused *f, const knit_fused_part *p, int64_t units) {
	return f->rows == 1 ? knit__min(units, MANY_COLUMNS / cut_of(f, p).columns) : 1;
}

static void fill_nan(float *out, int64_t stride, int64_t rows, int64_t columns) {
	for (int64_t r = 0; r < rows; ++r)
		for (int64_t c = 0; c < columns; ++c)
			out[r * stride + c] = NAN;
}

static void add_low(const knit_fused *f, const knit_fused_part *p, const window *w, float *out, int64_t out_stride) {
	for (int64_t row = w->row, rows; row < w->row + w->rows; row += rows) {
		const int64_t slot = knit__fused_slot(f, p, row);

		rows = knit__fused_same_slot(f, p, row, w->row + w->rows);
		if (slot < 0) {
			fill_nan(out + (row - w->row) * out_stride, out_stride, rows, w->columns);
			continue;
		}
		for (int64_t r = 0; r < rows; ++r)
			f->isa->add_low(p->b->dtype, knit__fused_factor_row(p->b, slot, w->column), p->rank,
			                p->low + (row + r) * p->low_stride, out + (row + r - w->row) * out_stride, w->columns);
	}
}

/* out = W x + B t; out points at the window's first element. */
static void project(const knit_fused *f, const knit_fused_part *p, const window *w, float *out, int64_t out_stride) {
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

static void lora(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread, const knit_fused_isa *isa) {
	const knit_fused f = knit__fused_of(s, KNIT_OP_LINEAR_LORA, isa, thread);
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

static void group(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread, const knit_fused_isa *isa) {
	const knit_fused f = knit__fused_of(s, KNIT_OP_LINEAR_GROUP, isa, thread);
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
static void glu(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread, const knit_fused_isa *isa) {
	_Alignas(64) float up[MANY_COLUMNS];
	const knit_fused f = knit__fused_of(s, KNIT_OP_GLU, isa, thread);
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
	const knit_fused f = knit__fused_of(s, op, &knit__fused_plain, 0);

	return prepare_units(&f);
}

static int64_t units_compute(const knit_cpu_step *s, knit_op op) {
	const knit_fused f = knit__fused_of(s, op, &knit__fused_plain, 0);
	int64_t units = 0;

	for (uint32_t i = 0; i < (op == KNIT_OP_GLU ? 1 : f.parts); ++i)
		units += window_count(&f, &f.part[i]);
	return units;
}

/* Units of glu have both of its weights, those of a group the units of one weight after those of another. */
static uint32_t reads(const knit_cpu_step *s, int64_t begin, int64_t end, knit_op op, knit_cpu_read *out) {
	const knit_fused f = knit__fused_of(s, op, &knit__fused_plain, 0);
	uint32_t count = 0;

	if (f.rows != 1)
		return 0;
	for (uint32_t i = 0; i < f.parts; ++i) {
		const knit_fused_part *const p = &f.part[i];
		const int64_t columns = cut_of(&f, p).columns, units = window_count(&f, p);

		if (begin < units && end > 0)
			out[count++] =
				knit__linear_read(p->w, knit__max(begin, 0) * columns, knit__min(end * columns, p->w->dims[0]));
		begin -= op == KNIT_OP_GLU ? 0 : units;
		end -= op == KNIT_OP_GLU ? 0 : units;
	}
	return count;
}

_Static_assert(KNIT_GROUP_MAX <= KNIT_CPU_READS, "units of a group read of all its weights");

#define SHARED(name, OP) \
	static int64_t name##_prepare_units(const knit_cpu_step *s) { return units_prepare(s, OP); } \
	static int64_t name##_compute_units(const knit_cpu_step *s) { return units_compute(s, OP); } \
	static uint64_t name##_scratch(const knit_node_view *node, uint32_t threads) { \
		return knit__fused_scratch(node, OP, threads); \
	} \
	static uint32_t name##_reads(const knit_cpu_step *s, int64_t begin, int64_t end, knit_cpu_read *out) { \
		return reads(s, begin, end, OP, out); \
	}
#define KERNEL(name, OP, suffix, ISA) \
	static bool name##_accepts_##suffix(const knit_node_view *node) { \
		return knit__fused_accepts(node, OP, &knit__fused_##suffix); \
	} \
	static void name##_prepare_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		prepare(s, begin, end, OP, &knit__fused_##suffix); \
	} \
	static void name##_own_##suffix(const knit_cpu_step *s, uint32_t thread) { \
		prepare_own(s, thread, OP, &knit__fused_##suffix); \
	} \
	static void name##_compute_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		name(s, begin, end, thread, &knit__fused_##suffix); \
	} \
	const knit_cpu_kernel knit__linear_##name##_##suffix = { \
		"linear_" #name "_" #suffix, OP, ISA, name##_accepts_##suffix, name##_scratch, \
		{{name##_prepare_units, name##_prepare_##suffix, NULL}, \
	     {name##_compute_units, name##_compute_##suffix, name##_own_##suffix}}, \
		name##_reads};
#define KERNELS(suffix, ISA) \
	KERNEL(lora, KNIT_OP_LINEAR_LORA, suffix, ISA) \
	KERNEL(group, KNIT_OP_LINEAR_GROUP, suffix, ISA) \
	KERNEL(glu, KNIT_OP_GLU, suffix, ISA)

SHARED(lora, KNIT_OP_LINEAR_LORA)
SHARED(group, KNIT_OP_LINEAR_GROUP)
SHARED(glu, KNIT_OP_GLU)

KERNELS(plain, KNIT_CPU_PLAIN)
#if defined(__x86_64__)
KERNELS(avx2, KNIT_CPU_AVX2)
KERNELS(avx512, KNIT_CPU_AVX512)
#elif defined(__aarch64__)
KERNELS(neon, KNIT_CPU_NEON)
KERNELS(dotprod, KNIT_CPU_DOTPROD)
#endif
