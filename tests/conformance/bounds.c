/* Owns the error bounds. eps is the rounding unit of f32, 2^-24; S stands for the reference's own sum of |products|. */
#include "bounds.h"

#include <math.h>

#define EPS 0x1p-24
#define TINY 1e-37 /* below this f32 has no full precision left, and devices may flush to zero */

/* Slack factors, one per kind. */
enum { C_DOT = 4, C_ROUND = 2, C_EXP = 8, C_NORM = 8, C_ROPE = 4, C_ATTENTION = 8 };

static double log2_at_least_1(double n) { return n > 2 ? log2(n) : 1; }

void bound_linear(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const knit_array *x = t[0], *w = t[1];
	const int64_t k = w->dims[1], n = w->dims[0], rows = knit__array_count(x) / k;

	(void)c;
	for (int64_t r = 0; r < rows; ++r) {
		for (int64_t j = 0; j < n; ++j) {
			double sum = 0;

			for (int64_t i = 0; i < k; ++i)
				sum += fabs(x->data[r * k + i] * w->data[j * k + i]);
			tol[r * n + j] = C_DOT * EPS * log2_at_least_1((double)k) * sum + EPS * fabs(out->data[r * n + j]) + TINY;
		}
	}
}

void bound_linear_int8(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const knit_array *x = t[0], *w = t[1];
	const int64_t k = w->dims[1], n = w->dims[0], rows = knit__array_count(x) / k;

	bound_linear(c, t, out, tol);
	for (int64_t r = 0; r < rows; ++r) {
		for (int64_t j = 0; j < n; ++j) {
			double variance = 0;

			for (int64_t block = 0; block < k; block += 32) {
				double largest = 0, squares = 0;

				for (int64_t i = block; i < block + 32; ++i) {
					largest = fmax(largest, fabs(x->data[r * k + i]));
					squares += w->data[j * k + i] * w->data[j * k + i];
				}
				const double step = largest / 127;
				variance += squares * step * step / 12;
			}
			tol[r * n + j] += 6 * sqrt(variance);
		}
	}
}

void bound_rounding(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const int64_t count = knit__array_count(out), inner = out->dims[out->rank - 1];

	for (int64_t i = 0; i < count; ++i) {
		double size = fabs(out->data[i]);

		if (c->op == KNIT_OP_ADD) {
			const bool vector = t[1]->rank < t[0]->rank;

			size = 1.5 * (fabs(t[0]->data[i]) + fabs(t[1]->data[vector ? i % inner : i]));
		}
		tol[i] = C_ROUND * EPS * size + TINY;
	}
}

void bound_silu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	(void)c;
	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		const double x = t[0]->data[i];

		/* exp(-x) is off by eps * (1 + |x|) relatively: its argument is rounded. */
		tol[i] = C_EXP * EPS * fabs(out->data[i]) * (1 + fmin(fabs(x), 100)) + TINY;
	}
}

void bound_gelu(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	(void)c;
	for (int64_t i = 0; i < knit__array_count(out); ++i)
		tol[i] = C_EXP * EPS * fmax(fabs(out->data[i]), fmin(fabs(t[0]->data[i]), 10)) + TINY;
}

void bound_softmax(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const int64_t n = out->dims[out->rank - 1];

	(void)c;
	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		double spread = 0; /* the argument of exp, x - max, is rounded: its size counts */

		for (int64_t j = i - i % n; j < i - i % n + n; ++j)
			spread = fmax(spread, fabs(t[0]->data[j]));
		tol[i] = C_EXP * EPS * fabs(out->data[i]) * (log2_at_least_1((double)n) + fmin(2 * spread, 100)) + TINY;
	}
}

void bound_norm(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const knit_array *x = t[0];
	const int64_t n = out->dims[out->rank - 1], rows = knit__array_count(out) / n;
	const bool centred = c->op == KNIT_OP_LAYER_NORM;

	for (int64_t r = 0; r < rows; ++r) {
		double mean = 0, size = 0, squares = 0;

		for (int64_t i = 0; i < n; ++i) {
			mean += x->data[r * n + i] / (double)n;
			size = fmax(size, fabs(x->data[r * n + i]));
		}
		for (int64_t i = 0; i < n; ++i)
			squares += pow(x->data[r * n + i] - (centred ? mean : 0), 2) / (double)n;
		const double inverse = 1 / sqrt(squares + 1e-5);

		for (int64_t i = 0; i < n; ++i) {
			const double gain = fabs(t[1]->data[i]), bias = t[2] ? fabs(t[2]->data[i]) : 0;

			tol[r * n + i] = C_NORM * EPS *
			                     (log2_at_least_1((double)n) * (centred ? size : fabs(x->data[r * n + i])) * inverse * gain +
			                      bias + fabs(out->data[r * n + i])) + TINY;
		}
	}
}

void bound_rope(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const int64_t d = out->dims[2], rotary = c->p[3] ? c->p[3] : d;

	for (int64_t i = 0; i < knit__array_count(out); ++i) {
		const int64_t head = i - i % d, at = i % d;
		const int64_t other = at >= rotary ? at : c->p[4] == 0 ? at ^ 1 : at < rotary / 2 ? at + rotary / 2 : at - rotary / 2;

		tol[i] = C_ROPE * EPS * (fabs(t[0]->data[i]) + fabs(t[0]->data[head + other])) + TINY;
	}
}

/* The cell of position p in a slot of `cells`, of which the case's parameters say how it was made; -1: not seen at pos. */
static int64_t seen_cell(const conf_case *c, int64_t cells, int64_t pos, int64_t p) {
	const int64_t window = c->p[5], sinks = c->p[7], ring = c->p[8] ? cells - sinks : 0;

	if (window > 0 && p <= pos - window && p >= sinks)
		return -1;
	return ring && p >= sinks ? sinks + (p - sinks) % ring : p;
}

void bound_attention(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const knit_array *q = t[0], *k = t[1], *v = t[2];
	const int64_t tokens = q->dims[0], heads = q->dims[1], d = q->dims[2], cells = k->dims[1], kv_heads = c->p[2];

	for (int64_t token = 0; token < tokens; ++token) {
		for (int64_t h = 0; h < heads; ++h) {
			const int64_t s = (int64_t)t[3]->data[token], kv = h / (heads / kv_heads), pos = (int64_t)t[4]->data[token];
			double score = 0;

			for (int64_t p = 0, cell; p <= pos; ++p) {
				double sum = 0;

				if ((cell = seen_cell(c, cells, pos, p)) < 0)
					continue;
				for (int64_t i = 0; i < d; ++i)
					sum += fabs(q->data[(token * heads + h) * d + i] * k->data[((s * cells + cell) * kv_heads + kv) * d + i]);
				score = fmax(score, sum / sqrt((double)d));
			}
			for (int64_t i = 0; i < d; ++i) {
				double size = 0;

				for (int64_t p = 0, cell; p <= pos; ++p)
					if ((cell = seen_cell(c, cells, pos, p)) >= 0)
						size = fmax(size, fabs(v->data[((s * cells + cell) * kv_heads + kv) * d + i]));
				/* A score off by eps * S moves its weight by that much relatively. */
				tol[(token * heads + h) * d + i] =
					C_ATTENTION * EPS * (log2_at_least_1((double)cells) + fmin(score, 1e6)) * size +
					EPS * fabs(out->data[(token * heads + h) * d + i]) + TINY;
			}
		}
	}
}

/* ---- low rank ---------------------------------------------------------------------------------------------------- */

double bound_dot(const double *x, const double *w, int64_t k, bool int8, double *product) {
	double size = 0, variance = 0;

	*product = 0;
	for (int64_t i = 0; i < k; ++i) {
		*product += x[i] * w[i];
		size += fabs(x[i] * w[i]);
	}
	for (int64_t block = 0; int8 && block < k; block += 32) {
		double largest = 0, squares = 0;

		for (int64_t i = block; i < block + 32; ++i) {
			largest = fmax(largest, fabs(x[i]));
			squares += w[i] * w[i];
		}
		variance += squares * (largest / 127) * (largest / 127) / 12;
	}
	return C_DOT * EPS * log2_at_least_1((double)k) * size + 6 * sqrt(variance) + TINY;
}

void bound_lora(const conf_case *c, const knit_array *const *t, const knit_array *out, double *tol) {
	const knit_array *x = t[0], *a = t[1], *b = t[2];
	const int64_t tokens = out->dims[0], n = out->dims[1], rank = a->dims[1], k = a->dims[2];
	const bool int8_a = knit__dtype_info(a->dtype)->is_block, int8_b = knit__dtype_info(b->dtype)->is_block;
	double low[128], off[128];

	(void)c;
	for (int64_t row = 0; row < tokens; ++row) {
		const int64_t slot = (int64_t)t[3]->data[(int64_t)t[4]->data[row]];

		for (int64_t q = 0; q < rank; ++q)
			off[q] = bound_dot(x->data + row * k, a->data + (slot * rank + q) * k, k, int8_a, &low[q]);
		for (int64_t j = 0; j < n; ++j) {
			const double *w = b->data + (slot * n + j) * rank;
			double product, error = bound_dot(low, w, rank, int8_b, &product);

			for (int64_t q = 0; q < rank; ++q)
				error += fabs(w[q]) * off[q];
			tol[row * n + j] = (double)LORA_CASE_SCALE * error + 2 * EPS * fabs(out->data[row * n + j]) + TINY;
		}
	}
}
