/* Owns the error bounds of fused ops: what the parts are off by, added up along the way. */
#include "bounds.h"

#include "../../graph/fused.h"

#include <math.h>

#define EPS 0x1p-24
#define TINY 1e-37
#define MOST_RANK 128

enum { C_ROUND = 2, C_EXP = 8, C_NORM = 8, C_ROPE = 4 };

/* A value that a device may be off by `error`. */
typedef struct inexact { double value, error; } inexact;

static bool is_block(const knit_array *x) { return knit__dtype_info(x->dtype)->is_block; }

static inexact sum(inexact a, inexact b) {
	const double value = a.value + b.value;

	return (inexact){value, a.error + b.error + C_ROUND * EPS * (fabs(a.value) + fabs(b.value)) + TINY};
}

static inexact product(inexact a, inexact b) {
	const double value = a.value * b.value;

	return (inexact){value, fabs(a.value) * b.error + fabs(b.value) * a.error + a.error * b.error +
	                            C_ROUND * EPS * fabs(value) + TINY};
}

static inexact silu(inexact x) {
	const double value = x.value / (1 + exp(-x.value));

	return (inexact){value, 1.1 * x.error + C_EXP * EPS * fabs(value) * (1 + fmin(fabs(x.value), 100)) + TINY};
}

static inexact gelu(inexact x) {
	const double v = x.value, value = 0.5 * v * (1 + tanh(sqrt(2 / acos(-1.0)) * (v + 0.044715 * v * v * v)));

	return (inexact){value, 1.14 * x.error + C_EXP * EPS * fmax(fabs(value), fmin(fabs(v), 10)) + TINY};
}

/* ---- linears ----------------------------------------------------------------------------------------------------- */

/* A weight with its LoRA, at one row of x. */
typedef struct site {
	const knit_array *x, *w, *a, *b;
	const double *row;
	inexact low[MOST_RANK]; /* x A^T */
	int64_t k, n, rank, slot;
} site;

static void begin_row(site *s, int64_t row, const knit_array *adapters, const knit_array *seq) {
	s->k = s->w->dims[1];
	s->n = s->w->dims[0];
	s->row = s->x->data + row * s->k;
	if (!s->a)
		return;
	s->rank = s->a->dims[s->a->rank - 2];
	s->slot = adapters ? (int64_t)adapters->data[(int64_t)seq->data[row]] : 0;
	for (int64_t q = 0; q < s->rank; ++q)
		s->low[q].error =
			bound_dot(s->row, s->a->data + (s->slot * s->rank + q) * s->k, s->k, is_block(s->a), &s->low[q].value);
}

static inexact element(const site *s, int64_t j) {
	double low[MOST_RANK], size = 0;
	inexact y, up;

	y.error = bound_dot(s->row, s->w->data + j * s->k, s->k, is_block(s->w), &y.value);
	if (!s->a)
		return y;
	const double *b = s->b->data + (s->slot * s->n + j) * s->rank;
	for (int64_t q = 0; q < s->rank; ++q)
		low[q] = s->low[q].value;
	up.error = bound_dot(low, b, s->rank, is_block(s->b), &up.value);
	for (int64_t q = 0; q < s->rank; ++q) {
		up.error += fabs(b[q]) * s->low[q].error;
		size += fabs(b[q] * low[q]);
	}
	/* the two may cancel, and so may what a device adds up in another order */
	const inexact scaled = product(up, (inexact){(double)LORA_CASE_SCALE, 0});
	inexact all = sum(y, scaled);
	all.error += C_ROUND * EPS * size;
	return all;
}

void bound_linear_lora(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	site s = {.x = t[KNIT_LORA_X], .w = t[KNIT_LORA_W], .a = t[KNIT_LORA_A], .b = t[KNIT_LORA_B]};
	const knit_array *bias = t[KNIT_LORA_BIAS], *residual = t[KNIT_LORA_RESIDUAL];
	const int64_t n = s.w->dims[0], rows = knit__array_count(out) / n;

	(void)c;
	for (int64_t row = 0; row < rows; ++row) {
		begin_row(&s, row, t[KNIT_LORA_ADAPTERS], t[KNIT_LORA_SEQ]);
		for (int64_t j = 0; j < n; ++j) {
			inexact y = element(&s, j);

			if (bias)
				y = sum(y, (inexact){bias->data[j], 0});
			if (residual)
				y = sum(y, (inexact){residual->data[row * n + j], 0});
			tol[row * n + j] = y.error;
		}
	}
}

void bound_glu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	site gate = {.x = t[KNIT_GLU_X], .w = t[KNIT_GLU_WG], .a = t[KNIT_GLU_AG], .b = t[KNIT_GLU_BG]};
	site up = {.x = t[KNIT_GLU_X], .w = t[KNIT_GLU_WU], .a = t[KNIT_GLU_AU], .b = t[KNIT_GLU_BU]};
	const int64_t n = gate.w->dims[0], rows = knit__array_count(out) / n;

	for (int64_t row = 0; row < rows; ++row) {
		begin_row(&gate, row, t[KNIT_GLU_ADAPTERS], t[KNIT_GLU_SEQ]);
		begin_row(&up, row, t[KNIT_GLU_ADAPTERS], t[KNIT_GLU_SEQ]);
		for (int64_t j = 0; j < n; ++j) {
			const inexact g = element(&gate, j);

			tol[row * n + j] = product(c->p[GLU_CASE_ACT] ? gelu(g) : silu(g), element(&up, j)).error;
		}
	}
}

/* ---- sums and norms ---------------------------------------------------------------------------------------------- */

void bound_sum(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	(void)c;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		tol[i] = sum((inexact){t[0]->data[i], 0}, (inexact){t[1]->data[i], 0}).error;
}

void bound_norm_of_sum(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const int64_t n = out->dims[out->rank - 1], rows = knit__array_count(out) / n;
	const double steps = n > 2 ? log2((double)n) : 1;

	(void)c;
	for (int64_t r = 0; r < rows; ++r) {
		double squares = 0, largest = 0;

		for (int64_t i = r * n; i < (r + 1) * n; ++i) {
			const inexact x = sum((inexact){t[0]->data[i], 0}, (inexact){t[1]->data[i], 0});

			squares += x.value * x.value / (double)n;
			largest = fmax(largest, x.error);
		}
		const double inverse = 1 / sqrt(squares + 1e-5);

		for (int64_t i = 0; i < n; ++i) {
			const double x = t[0]->data[r * n + i] + t[1]->data[r * n + i], gain = fabs(t[2]->data[i]);

			/* the element's own error, and that of the norm, which is of all elements together */
			tol[r * n + i] = gain * inverse * (sum((inexact){t[0]->data[r * n + i], 0},
			                                       (inexact){t[1]->data[r * n + i], 0}).error + fabs(x) * inverse * largest) +
			                 C_NORM * EPS * (steps * fabs(x) * inverse * gain + fabs(out->data[r * n + i])) + TINY;
		}
	}
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

/* The distance of neighbouring values of the type around element i. */
static double type_step(const knit_array *x, int64_t i) {
	const double size = fabs(x->data[i]);
	double largest = 0;

	switch (x->dtype) {
	case KNIT_F16: return fmax(0x1p-10 * size, 0x1p-24);
	case KNIT_BF16: return fmax(0x1p-7 * size, 0x1p-133);
	case KNIT_Q8_0:
	case KNIT_Q4_0: break;
	default: return 0;
	}
	for (int64_t j = i - i % 32; j < i - i % 32 + 32; ++j)
		largest = fmax(largest, fabs(x->data[j]));
	return 1.05 * largest / (x->dtype == KNIT_Q8_0 ? 127 : 8);
}

void bound_keys(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	(void)c, (void)t;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		tol[i] = type_step(out, i) + C_ROPE * EPS * 2 + TINY;
}

/* ---- maps -------------------------------------------------------------------------------------------------------- */

const case_map_step case_maps[CASE_MAPS][6] = {
	/* x * v, silu, scale, + z: a chain with a vector and a second tensor */
	{{KNIT_OP_MUL, 0, 1, 0}, {KNIT_OP_SILU, 3, 0, 0}, {KNIT_OP_SCALE, 4, 0, -0.5f}, {KNIT_OP_ADD, 2, 5, 0}},
	/* gelu(x) * silu(x): two branches */
	{{KNIT_OP_GELU, 0, 0, 0}, {KNIT_OP_SILU, 0, 0, 0}, {KNIT_OP_MUL, 3, 4, 0}},
	/* the longest: a square among it */
	{{KNIT_OP_ADD, 0, 1, 0},
     {KNIT_OP_MUL, 3, 3, 0},
     {KNIT_OP_SCALE, 4, 0, 0.1f},
     {KNIT_OP_GELU, 5, 0, 0},
     {KNIT_OP_MUL, 6, 2, 0},
     {KNIT_OP_ADD, 7, 0, 0}},
	/* the shortest */
	{{KNIT_OP_SCALE, 0, 0, 3}, {KNIT_OP_ADD, 3, 1, 0}},
	{{KNIT_OP_SILU, 0, 0, 0}, {KNIT_OP_MUL, 3, 2, 0}},
};

void bound_map(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const case_map_step *const steps = case_maps[c->p[2]];
	const int64_t n = out->dims[out->rank - 1];

	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		inexact r[9] = {{0}};
		int count = 0;

		for (int k = 0; k < 3; ++k)
			if (t[k])
				r[k].value = t[k]->data[k == 1 ? i % n : i];
		for (; count < 6 && steps[count].op; ++count) {
			const case_map_step *const x = &steps[count];

			switch (x->op) {
			case KNIT_OP_ADD: r[3 + count] = sum(r[x->a], r[x->b]); break;
			case KNIT_OP_MUL: r[3 + count] = product(r[x->a], r[x->b]); break;
			case KNIT_OP_SCALE: r[3 + count] = product(r[x->a], (inexact){(double)x->s, 0}); break;
			case KNIT_OP_SILU: r[3 + count] = silu(r[x->a]); break;
			default: r[3 + count] = gelu(r[x->a]); break;
			}
		}
		tol[i] = r[2 + count].error;
	}
}
