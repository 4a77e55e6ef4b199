/* Owns the CPU kernels of rms_norm, layer_norm and add_rms_norm. Sums are kept in double, in lanes whose order is fixed
 * by the row length alone: nothing overflows that f32 can hold. References: ops/norm.c, ops/fused_norm.c. Included once by each
 * variant, as whose loops a compiler vectorises it (variant_*.h): they give the same bits. */
#ifndef KNIT_KERNELS_NORM_H
#define KNIT_KERNELS_NORM_H

#include "half.h"
#include "kernels.h"
#include "operand.h"

#include <math.h>

#define LANES 8
#define PIECE 256

static double sum_lanes(const double *lanes) {
	return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

static double sum_plain(const float *x, int64_t n) {
	double lanes[LANES] = {0};
	int64_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (int64_t l = 0; l < LANES; ++l)
			lanes[l] += (double)x[i + l];
	for (; i < n; ++i)
		lanes[i % LANES] += (double)x[i];
	return sum_lanes(lanes);
}

/* Sum of (x - mean)^2. */
static double sum_squares(const float *x, int64_t n, double mean) {
	double lanes[LANES] = {0};
	int64_t i = 0;

	for (; i + LANES <= n; i += LANES) {
		for (int64_t l = 0; l < LANES; ++l) {
			const double d = (double)x[i + l] - mean;

			lanes[l] += d * d;
		}
	}
	for (; i < n; ++i) {
		const double d = (double)x[i] - mean;

		lanes[i % LANES] += d * d;
	}
	return sum_lanes(lanes);
}

/* Parameters [n] as f32, from element `at` on. */
static const float *parameters(const knit_cpu_tensor *t, int64_t at, int64_t n, float *converted) {
	const char *const src = t->data + knit__bytes_of(t->dtype, at);

	if (t->dtype == KNIT_F32)
		return (const float *)(const void *)src;
	knit__floats_to_f32(t->dtype, src, converted, n);
	return converted;
}

/* The factor is double and may be outside f32's range where the product is not (a row of denormals, eps 0). */
static void row_norm(const float *x, double mean, double factor, const knit_cpu_tensor *gain, const knit_cpu_tensor *bias,
                     float *out, int64_t n) {
	float y[PIECE], gains[PIECE], biases[PIECE];

	for (int64_t at = 0; at < n; at += PIECE) {
		const int64_t piece = knit__min(PIECE, n - at);
		const float *const g = parameters(gain, at, piece, gains);

		for (int64_t i = 0; i < piece; ++i)
			y[i] = (float)(((double)x[at + i] - mean) * factor) * g[i];
		if (bias->data) {
			const float *const b = parameters(bias, at, piece, biases);

			for (int64_t i = 0; i < piece; ++i)
				y[i] += b[i];
		}
		memcpy(out + at, y, (size_t)piece * sizeof *y);
	}
}

static const knit_cpu_tensor no_bias = {0};

static void rms_row(const float *x, double eps, const knit_cpu_tensor *gain, float *out, int64_t n) {
	row_norm(x, 0, 1 / sqrt(sum_squares(x, n, 0) / (double)n + eps), gain, &no_bias, out, n);
}

static int64_t units(const knit_cpu_step *s) {
	return knit__ceil_div(knit__cpu_outer(&s->out[0], 1), knit__rows_per_unit(knit__row_length(&s->out[0])));
}

static int64_t last_row(const knit_cpu_step *s, int64_t end) {
	return knit__min(end * knit__rows_per_unit(knit__row_length(&s->out[0])), knit__cpu_outer(&s->out[0], 1));
}

static void run_rms(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t n = knit__row_length(&s->out[0]);

	(void)thread;
	for (int64_t r = begin * knit__rows_per_unit(n); r < last_row(s, end); ++r)
		rms_row(knit__f32_row(&s->in[0], r), s->attr[0].f, &s->in[1], knit__f32_row(&s->out[0], r), n);
}

static void run_layer(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t n = knit__row_length(&s->out[0]);

	(void)thread;
	for (int64_t r = begin * knit__rows_per_unit(n); r < last_row(s, end); ++r) {
		const float *const x = knit__f32_row(&s->in[0], r);
		const double mean = sum_plain(x, n) / (double)n;
		const double factor = 1 / sqrt(sum_squares(x, n, mean) / (double)n + s->attr[0].f);

		row_norm(x, mean, factor, &s->in[1], &s->in[2], knit__f32_row(&s->out[0], r), n);
	}
}

/* The sum may take the place of a. */
static void run_add_rms(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const int64_t n = knit__row_length(&s->out[0]);

	(void)thread;
	for (int64_t r = begin * knit__rows_per_unit(n); r < last_row(s, end); ++r) {
		const float *const a = knit__f32_row(&s->in[0], r), *const b = knit__f32_row(&s->in[1], r);
		float *const sum = knit__f32_row(&s->out[0], r);

		for (int64_t i = 0; i < n; ++i)
			sum[i] = a[i] + b[i];
		rms_row(sum, s->attr[0].f, &s->in[2], knit__f32_row(&s->out[1], r), n);
	}
}

static bool accepts_rms(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && knit__float_vector(&node->in[1]) && knit__f32_dense(&node->out[0]);
}

static bool accepts_layer(const knit_node_view *node) {
	return accepts_rms(node) && (node->in_count < 3 || node->in[2].kind == 0 || knit__float_vector(&node->in[2]));
}

static bool accepts_add_rms(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && knit__f32_rows(&node->in[1]) && knit__float_vector(&node->in[2]) &&
	       knit__f32_dense(&node->out[0]) && knit__f32_dense(&node->out[1]);
}

const knit_cpu_kernel KNIT_VARIANT(rms_norm) = {
	KNIT_VARIANT_NAME("rms_norm"), KNIT_OP_RMS_NORM, KNIT_VARIANT_ISA, accepts_rms, NULL, {{units, run_rms}}};
const knit_cpu_kernel KNIT_VARIANT(layer_norm) = {
	KNIT_VARIANT_NAME("layer_norm"), KNIT_OP_LAYER_NORM, KNIT_VARIANT_ISA, accepts_layer, NULL, {{units, run_layer}}};
const knit_cpu_kernel KNIT_VARIANT(add_rms_norm) = {
	KNIT_VARIANT_NAME("add_rms_norm"), KNIT_OP_ADD_RMS_NORM, KNIT_VARIANT_ISA, accepts_add_rms, NULL, {{units, run_add_rms}}};

#endif
