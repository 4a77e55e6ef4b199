/* Owns the CPU kernels of rms_norm and layer_norm. Sums are kept in double, in lanes whose order is fixed by the row
 * length alone: nothing overflows that f32 can hold. References: ops/norm.c. */
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

static int64_t units(const knit_cpu_step *s) {
	return knit__ceil_div(knit__cpu_outer(&s->out[0], 1), knit__rows_per_unit(knit__row_length(&s->out[0])));
}

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, bool centre) {
	static const knit_cpu_tensor none = {0};
	const int64_t n = knit__row_length(&s->out[0]), step = knit__rows_per_unit(n);
	const int64_t last = knit__min(end * step, knit__cpu_outer(&s->out[0], 1));
	const double eps = s->attr[0].f;

	for (int64_t r = begin * step; r < last; ++r) {
		const float *const x = knit__f32_row(&s->in[0], r);
		const double mean = centre ? sum_plain(x, n) / (double)n : 0;
		const double factor = 1 / sqrt(sum_squares(x, n, mean) / (double)n + eps);

		row_norm(x, mean, factor, &s->in[1], centre ? &s->in[2] : &none, knit__f32_row(&s->out[0], r), n);
	}
}

static void run_rms(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run(s, begin, end, false);
}
static void run_layer(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	run(s, begin, end, true);
}

static bool accepts_rms(const knit_node_view *node) {
	return knit__f32_rows(&node->in[0]) && knit__float_vector(&node->in[1]) && knit__f32_dense(&node->out[0]);
}

static bool accepts_layer(const knit_node_view *node) {
	return accepts_rms(node) && (node->in_count < 3 || node->in[2].kind == 0 || knit__float_vector(&node->in[2]));
}

const knit_cpu_kernel knit__rms_norm_plain = {"rms_norm", KNIT_OP_RMS_NORM, KNIT_CPU_PLAIN, accepts_rms, NULL,
                                              {{units, run_rms}}};
const knit_cpu_kernel knit__layer_norm_plain = {"layer_norm", KNIT_OP_LAYER_NORM, KNIT_CPU_PLAIN, accepts_layer, NULL,
                                                {{units, run_layer}}};
