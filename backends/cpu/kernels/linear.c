/* Owns the driver of linear for every instruction set. Knows no instruction set: that is in the tiles. Reference:
 * ops/linear.c. */
#include "linear.h"
#include "half.h"
#include "operand.h"
#include "panels.h"

/* Few columns where there are few rows, so that many threads find work; many of both where there are many, since what a
 * unit reads of each is read once for all of the other. What an output is does not depend on it. */
knit_linear_cut knit__linear_cut(int64_t rows, int64_t columns, uint32_t threads) {
	static const int64_t widths[] = {KNIT_LINEAR_COLUMNS, 48, 16};
	knit_linear_cut c = {.row_blocks = knit__max(1, knit__ceil_div(rows, KNIT_LINEAR_ROWS))};

	c.rows = knit__max(4, knit__min(KNIT_LINEAR_ROWS, (knit__ceil_div(rows, c.row_blocks) + 3) / 4 * 4));
	c.row_blocks = knit__ceil_div(rows, c.rows);
	for (int i = rows > 8 ? 0 : 2; i < 3; ++i) {
		c.columns = widths[i];
		c.column_blocks = knit__ceil_div(columns, c.columns);
		if (c.column_blocks * c.row_blocks >= 8 * (int64_t)threads)
			break;
	}
	return c;
}

static int64_t rows_of(const knit_cpu_step *s) { return knit__cpu_outer(&s->out[0], 1); }

bool knit__linear_accepts(const knit_node_view *node, knit_dtype weight) {
	const knit_operand_view *const x = &node->in[0], *const w = &node->in[1];

	return w->dtype == weight && knit__weight_rows(w) && knit__f32_rows(x) && knit__f32_dense(&node->out[0]) &&
	       node->out[0].rank == x->rank;
}

bool knit__linear_accepts_panels(const knit_node_view *node, knit_dtype weight) {
	const knit_operand_view *const x = &node->in[0], *const w = &node->in[1];

	return w->dtype == weight && knit__weight_panels(w) && knit__f32_rows(x) && knit__f32_dense(&node->out[0]) &&
	       node->out[0].rank == x->rank;
}

uint64_t knit__linear_scratch(const knit_node_view *node, uint32_t threads) {
	const uint64_t rows = knit__max_rows(node, &node->in[0], 1);
	uint64_t bytes;

	if (!knit__mul_u64(rows > threads ? rows : threads, (uint64_t)knit__linear_row_bytes(node->in[1].dims[1].v), &bytes))
		return UINT64_MAX;
	return bytes;
}

/* ---- quantising x ------------------------------------------------------------------------------------------------ */

/* One row is quantised by each thread for itself, which costs less than to wait for one that does it for all. */
int64_t knit__linear_row_units(const knit_cpu_step *s) { return rows_of(s) == 1 ? 0 : rows_of(s); }

void knit__linear_quantise_block(const float *x, int8_t *q, float *scale) {
	uint32_t max = 0;
	float in[32], factor = 1, inverse;

	for (int i = 0; i < 32; ++i) {
		const uint32_t magnitude = knit__as_bits(x[i]) & 0x7fffffff;

		max = magnitude > max ? magnitude : max;
	}
	if (max >= KNIT_LINEAR_MAX_HI || max == 0) {
		memset(q, 0, 32);
		*scale = max ? knit__as_float(0x7fc00000) : 0;
		return;
	}
	if (max < KNIT_LINEAR_MAX_LO)
		factor = 0x1p100f;
	inverse = 127.0f / (knit__as_float(max) * factor);
	for (int i = 0; i < 32; ++i)
		in[i] = x[i] * factor * inverse + 12582912.0f; /* the nearest integer is now in the low bits */
	for (int i = 0; i < 32; ++i)
		q[i] = (int8_t)(knit__as_bits(in[i]) & 0xff);
	*scale = knit__as_float(max) * factor / 127.0f / factor;
}

/* What follows the q of a row, given q and the scales of its k / 32 blocks. */
static void finish_row(int64_t k, int32_t bias, char *row) {
	const int64_t padded = knit__linear_padded(k);
	const int8_t *const q = (const int8_t *)row;
	int32_t *const sums = (int32_t *)(void *)(row + padded);

	memset(row + k, 0, (size_t)(padded - k));
	memset(row + 2 * padded + k / 8, 0, (size_t)(padded - k) / 8);
	for (int64_t i = 0; i < padded / 4; ++i)
		sums[i] = -bias * (q[4 * i] + q[4 * i + 1] + q[4 * i + 2] + q[4 * i + 3]);
}

void knit__linear_quantise_plain(const float *x, int64_t k, int32_t bias, char *row) {
	float *const scales = (float *)(void *)(row + 2 * knit__linear_padded(k));

	for (int64_t b = 0; b < k / 32; ++b)
		knit__linear_quantise_block(x + b * 32, (int8_t *)row + b * 32, &scales[b]);
	finish_row(k, bias, row);
}

void knit__linear_sum_blocks(int64_t k, char *row) {
	const int64_t padded = knit__linear_padded(k);
	const int8_t *q = (const int8_t *)row;
	const float *const scales = (const float *)(const void *)(row + 2 * padded);
	float *const sums = (float *)(void *)(row + padded);

	for (int64_t b = 0; b < k / 32; ++b, q += 32) {
		int32_t sum = 0;

		for (int i = 0; i < 32; ++i)
			sum += q[i];
		sums[b] = scales[b] * (float)sum;
	}
}

void knit__linear_quantise_row(const knit_linear_isa *isa, const float *x, int64_t k, char *row) {
	/* what the stored weights lie above their values by; q4_K has minima instead */
	isa->quantise(x, k, isa->dtype == KNIT_Q8_0 ? 128 : isa->dtype == KNIT_Q6_K ? 32 : 8, row);
	if (isa->dtype == KNIT_Q4_K)
		knit__linear_sum_blocks(k, row);
}

void knit__linear_quantise(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_linear_isa *isa) {
	const int64_t k = s->in[1].dims[1], row_bytes = knit__linear_row_bytes(k);

	for (int64_t r = begin; r < end; ++r)
		knit__linear_quantise_row(isa, knit__f32_row(&s->in[0], r), k, s->scratch + r * row_bytes);
}

void knit__linear_quantise_own(const knit_cpu_step *s, uint32_t thread, const knit_linear_isa *isa) {
	const int64_t k = s->in[1].dims[1];

	if (rows_of(s) == 1)
		knit__linear_quantise_row(isa, knit__f32_row(&s->in[0], 0), k, s->scratch + thread * knit__linear_row_bytes(k));
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

int64_t knit__linear_units(const knit_cpu_step *s) {
	const knit_linear_cut cut = knit__linear_cut(rows_of(s), s->in[1].dims[0], s->threads);

	return cut.row_blocks * cut.column_blocks;
}

const knit_linear_isa *knit__linear_isa_of(const knit_linear_level *level, knit_dtype weight) {
	switch (weight) {
	case KNIT_F16: return level->f16;
	case KNIT_BF16: return level->bf16;
	case KNIT_Q8_0: return level->q8_0;
	case KNIT_Q4_0: return level->q4_0;
	case KNIT_Q4_K: return level->q4_k;
	case KNIT_Q6_K: return level->q6_k;
	default: return level->f32;
	}
}

/* rows x columns outputs of one span, cut into the variant's tiles. w and out point at the first column. */
static void span_tiles(const knit_linear_block *u, const knit_linear_isa *isa, const char *w, int64_t w_stride,
                       int64_t k0, int64_t column, int64_t columns) {
	const bool quantised = knit__is_block(isa->dtype);
	knit_linear_tile_args a = {.w_stride = w_stride,
	                           .k0 = k0,
	                           .length = knit__min(KNIT_LINEAR_SPAN, u->k - k0),
	                           .k_padded = knit__linear_padded(u->k),
	                           .out_stride = u->out_stride,
	                           .add = k0 > 0 || u->add,
	                           .ahead = u->ahead};
	int64_t count;

	for (int64_t r = 0; r < u->rows; r += count) {
		count = knit__min(isa->max_rows, u->rows - r);
		const knit_linear_shape *const shape = &isa->shapes[count - 1];
		int64_t c = 0;

		for (int64_t i = 0; i < count; ++i)
			a.x[i] = u->x[r + i] + (quantised ? 0 : k0 * 4);
		for (; c + shape->columns <= columns; c += shape->columns) {
			a.w = w + c * w_stride;
			a.out = u->out + r * u->out_stride + column + c;
			shape->full(&a);
		}
		for (; c < columns; ++c) {
			a.w = w + c * w_stride;
			a.out = u->out + r * u->out_stride + column + c;
			shape->one(&a);
		}
	}
}

/* Few rows: the matrix is read row by row, once, each row to its end. */
static void run_few_rows(const knit_linear_block *u) {
	for (int64_t c = 0; c < u->columns; c += KNIT_LINEAR_TILE_COLUMNS)
		for (int64_t k0 = 0; k0 < u->k; k0 += KNIT_LINEAR_SPAN)
			span_tiles(u, u->isa, u->w + c * u->w_stride + knit__bytes_of(u->isa->dtype, k0), u->w_stride, k0, c,
			           knit__min(KNIT_LINEAR_TILE_COLUMNS, u->columns - c));
}

/* Whether the tiles of many rows read the weights where they are: blocks do; f32 does where vectors will not straddle
 * cache lines, which costs more than copying a tile once. */
static bool in_place(const knit_linear_block *u, const char *w) {
	return !u->isa->widened || (u->isa->dtype == KNIT_F32 && ((uintptr_t)w | (uintptr_t)u->w_stride) % 64 == 0);
}

/* Many rows: a span of x stays in the second cache for all columns, a tile of w in the first for all rows. */
static void run_many_rows(const knit_linear_block *u) {
	_Alignas(64) float wide[KNIT_LINEAR_TILE_COLUMNS * KNIT_LINEAR_SPAN];

	for (int64_t k0 = 0; k0 < u->k; k0 += KNIT_LINEAR_SPAN) {
		const int64_t length = knit__min(KNIT_LINEAR_SPAN, u->k - k0);

		for (int64_t c = 0; c < u->columns; c += KNIT_LINEAR_TILE_COLUMNS) {
			const int64_t columns = knit__min(KNIT_LINEAR_TILE_COLUMNS, u->columns - c);
			const char *const w = u->w + c * u->w_stride + knit__bytes_of(u->isa->dtype, k0);

			if (in_place(u, w)) {
				span_tiles(u, u->isa, w, u->w_stride, k0, c, columns);
				continue;
			}
			for (int64_t i = 0; i < columns; ++i)
				u->isa->widen(w + i * u->w_stride, wide + i * KNIT_LINEAR_SPAN, length);
			span_tiles(u, u->isa->widened, (const char *)wide, KNIT_LINEAR_SPAN * 4, k0, c, columns);
		}
	}
}

/* All columns of a panel for one row tile after the other; few rows: a panel is read to its end. */
static void panel_span(const knit_linear_block *u, int64_t k0, int64_t column) {
	knit_linear_tile_args a = {.w = u->w + column / u->isa->panel * u->w_stride,
	                           .k0 = k0,
	                           .length = knit__min(KNIT_LINEAR_SPAN, u->k - k0),
	                           .k_padded = knit__linear_padded(u->k),
	                           .columns = knit__min(u->isa->panel, u->columns - column),
	                           .out_stride = u->out_stride,
	                           .add = k0 > 0 || u->add,
	                           .ahead = u->ahead};
	int64_t count;

	for (int64_t r = 0; r < u->rows; r += count) {
		count = knit__min(u->isa->max_rows, u->rows - r);
		for (int64_t i = 0; i < count; ++i)
			a.x[i] = u->x[r + i];
		a.out = u->out + r * u->out_stride + column;
		u->isa->shapes[count - 1].full(&a);
	}
}

static void run_panels(const knit_linear_block *u) {
	if (u->rows <= KNIT_LINEAR_TILE_ROWS) {
		for (int64_t c = 0; c < u->columns; c += u->isa->panel)
			for (int64_t k0 = 0; k0 < u->k; k0 += KNIT_LINEAR_SPAN)
				panel_span(u, k0, c);
		return;
	}
	for (int64_t k0 = 0; k0 < u->k; k0 += KNIT_LINEAR_SPAN)
		for (int64_t c = 0; c < u->columns; c += u->isa->panel)
			panel_span(u, k0, c);
}

/* With the variant's kernel for many rows. */
static void run_many(const knit_linear_block *u) {
	for (int64_t k0 = 0; k0 < u->k; k0 += KNIT_LINEAR_SPAN)
		for (int64_t c = 0; c < u->columns; c += u->isa->many_columns) {
			if (u->columns - c > u->isa->panel)
				u->isa->many(u, k0, c);
			else
				panel_span(u, k0, c);
		}
}

/* The empty sum. */
static void clear(const knit_linear_block *u) {
	for (int64_t r = 0; r < u->rows; ++r)
		for (int64_t c = 0; c < u->columns; ++c)
			u->out[r * u->out_stride + c] = 0;
}

void knit__linear_block(const knit_linear_block *b) {
	if (b->k == 0 && !b->add)
		clear(b);
	else if (b->rows == 1 && b->isa->row)
		b->isa->row(b);
	else if (b->isa->many && b->rows > KNIT_LINEAR_TILE_ROWS)
		run_many(b);
	else if (b->isa->panel)
		run_panels(b);
	else if (b->rows <= KNIT_LINEAR_TILE_ROWS)
		run_few_rows(b);
	else
		run_many_rows(b);
}

void knit__linear_block_weight(knit_linear_block *b, const knit_cpu_tensor *w, int64_t column) {
	if (b->isa->panel) {
		b->w_stride = knit__panel_bytes(w->dtype, w->dims[1]);
		b->w = w->data + column / b->isa->panel * b->w_stride;
		return;
	}
	b->w_stride = knit__bytes_of(w->dtype, w->strides[0]);
	b->w = w->data + column * b->w_stride;
}

knit_cpu_read knit__linear_read(const knit_cpu_tensor *w, int64_t begin, int64_t end) {
	const bool panels = w->layout == KNIT_CPU_PANELS;
	const int64_t rows = panels ? KNIT_PANEL_ROWS : 1;
	const int64_t stride = panels ? knit__panel_bytes(w->dtype, w->dims[1]) : knit__bytes_of(w->dtype, w->strides[0]);

	return (knit_cpu_read){w->data + begin / rows * stride, (knit__ceil_div(end, rows) - begin / rows) * stride};
}

uint32_t knit__linear_reads(const knit_cpu_step *s, int64_t begin, int64_t end, knit_cpu_read *out) {
	const int64_t n = s->in[1].dims[0], columns = knit__linear_cut(1, n, s->threads).columns;

	if (rows_of(s) != 1)
		return 0;
	out[0] = knit__linear_read(&s->in[1], begin * columns, knit__min(end * columns, n));
	return 1;
}

void knit__linear_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread, const knit_linear_isa *isa) {
	const knit_cpu_tensor *const w = &s->in[1];
	const int64_t n = w->dims[0], k = w->dims[1], rows = rows_of(s), row_bytes = knit__linear_row_bytes(k);
	const knit_linear_cut cut = knit__linear_cut(rows, n, s->threads);
	const char *const quantised = s->scratch + (rows == 1 ? thread * row_bytes : 0);
	float *const out = (float *)(void *)s->out[0].data;

	for (int64_t i = begin, units; i < end; i += units) {
		const int64_t row = i % cut.row_blocks * cut.rows, column = i / cut.row_blocks * cut.columns;
		units = rows == 1 ? end - i : 1; /* one row: W is read in one stream */
		knit_linear_block u = {.isa = isa,
		                       .rows = knit__min(cut.rows, rows - row),
		                       .columns = knit__min(cut.columns * units, n - column),
		                       .k = k,
		                       .out = out + row * n + column,
		                       .out_stride = n,
		                       .ahead = KNIT_LINEAR_AHEAD};

		knit__linear_block_weight(&u, w, column);
		for (int64_t r = 0; r < u.rows; ++r)
			u.x[r] = knit__is_block(w->dtype) ? quantised + (row + r) * row_bytes
			                                  : (const char *)knit__f32_row(&s->in[0], row + r);
		knit__linear_block(&u);
	}
}
