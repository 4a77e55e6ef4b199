/* Owns attention in plain C, in eight lanes that a compiler can keep in vectors of any width. The driver is
 * attention.c; reference: ops/attention.c. */
#include "attention_run.h"
#include "exp.h"
#include "kv_rows.h"
#include "operand.h"

#include <math.h>

#define LANES 8
#define PIECE 64 /* elements that are widened at a time: a multiple of LANES */

/* Elements [at, at + n) of a row as f32. */
static const float *widened(knit_dtype t, const char *row, int64_t at, int64_t n, float *piece) {
	const char *const src = row + knit__bytes_of(t, at);

	if (t == KNIT_F32 && (uintptr_t)src % sizeof(float) == 0)
		return (const float *)(const void *)src;
	knit__floats_to_f32(t, src, piece, n);
	return piece;
}

static float dot(knit_dtype t, const float *q, const char *k, int64_t dim) {
	float lanes[LANES] = {0}, piece[PIECE];

	for (int64_t at = 0; at < dim; at += PIECE) {
		const int64_t n = knit__min(PIECE, dim - at);
		const float *const x = widened(t, k, at, n, piece);
		int64_t i = 0;

		for (; i + LANES <= n; i += LANES)
			for (int64_t l = 0; l < LANES; ++l)
				lanes[l] += q[at + i + l] * x[i + l];
		for (; i < n; ++i)
			lanes[i % LANES] += q[at + i] * x[i];
	}
	return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

static void scores(const knit_attention_tile *k, const float *const *q, int64_t rows, int64_t count, int64_t dim,
                   float *s, const knit_attention_ask *ask) {
	for (int64_t p = 0; p < count; ++p) {
		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int64_t r = 0; r < rows; ++r)
			s[r * KNIT_ATTENTION_TILE + p] = dot(k->dtype, q[r], k->data + p * k->stride, dim);
	}
}

static float weigh_row(float *s, int64_t count, float scale, float *max, float *sum) {
	float lanes[LANES] = {0}, new_max = *max;

	for (int64_t p = 0; p < count; ++p) {
		s[p] *= scale;
		new_max = s[p] > new_max ? s[p] : new_max;
	}
	const float base = new_max == -INFINITY ? 0 : new_max, factor = knit__expf(*max - base);

	for (int64_t p = 0; p < count; ++p)
		s[p] = knit__expf(s[p] - base);
	for (int64_t p = 0; p < count; ++p)
		lanes[p % LANES] += s[p];
	*max = new_max;
	*sum = *sum * factor +
	       (((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])));
	return factor;
}

static void weigh(float *s, int64_t rows, int64_t count, float scale, float *const *part, float *factor) {
	for (int64_t r = 0; r < rows; ++r)
		factor[r] = weigh_row(s + r * KNIT_ATTENTION_TILE, count, scale, &part[r][0], &part[r][1]);
}

static void add_scaled(const float *restrict x, float factor, float *restrict acc, int64_t n) {
	for (int64_t i = 0; i < n; ++i)
		acc[i] += factor * x[i];
}

static void mix_row(const knit_attention_tile *v, const float *s, float factor, int64_t count, int64_t dim, float *acc,
                    const knit_attention_ask *ask) {
	float piece[PIECE];

	for (int64_t i = 0; i < dim; ++i)
		acc[i] *= factor;
	for (int64_t p = 0; p < count; ++p) {
		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int64_t at = 0; at < dim; at += PIECE) {
			const int64_t n = knit__min(PIECE, dim - at);

			add_scaled(widened(v->dtype, v->data + p * v->stride, at, n, piece), s[p], acc + at, n);
		}
	}
}

static void mix(const knit_attention_tile *v, const float *s, const float *factor, int64_t rows, int64_t count,
                int64_t dim, float *const *part, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (int64_t r = 0; r < rows; ++r)
		mix_row(v, s + r * KNIT_ATTENTION_TILE, factor[r], count, dim, part[r] + KNIT_ATTENTION_HEAD, r ? &none : ask);
}

static void merge(float *total, const float *part, int64_t n) {
	const float max = part[0] > total[0] ? part[0] : total[0], base = max == -INFINITY ? 0 : max;
	const float a = knit__expf(total[0] - base), b = knit__expf(part[0] - base);

	total[0] = max;
	total[1] = total[1] * a + part[1] * b;
	for (int64_t i = KNIT_ATTENTION_HEAD; i < n; ++i)
		total[i] = total[i] * a + part[i] * b;
}

/* Widened once for all from two rows on. */
static int64_t in_place(knit_dtype t, int64_t skip, int64_t dim) {
	(void)skip, (void)dim;
	return t == KNIT_F32 ? KNIT_ATTENTION_ROWS : knit__is_float(t);
}

static void widen(knit_dtype t, const char *src, int64_t src_stride, int64_t count, int64_t dim, float *dst,
                  int64_t dst_stride) {
	for (int64_t i = 0; i < count; ++i)
		knit__kv_row_load(t, src + i * src_stride, dst + i * dst_stride, dim);
}

static const knit_attention_isa isa = {
	.scores = scores, .weigh = weigh, .mix = mix, .widen = widen, .merge = merge, .in_place = in_place};

const knit_cpu_kernel knit__attention_plain = {"attention_plain", KNIT_OP_ATTENTION, KNIT_CPU_PLAIN,
                                               knit__attention_accepts, knit__attention_scratch,
                                               {{knit__attention_units, run},
                                                {knit__attention_merge_units, run_merge}}};
