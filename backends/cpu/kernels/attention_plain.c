/* Owns attention in plain C, in eight lanes that a compiler can keep in vectors of any width. The driver is
 * attention.c; reference: ops/attention.c. */
#include "attention.h"
#include "exp.h"
#include "operand.h"

#include <math.h>

#define LANES 8
#define INLINE static inline __attribute__((always_inline))

INLINE float dot(const knit_dtype t, const float *q, const char *k, int64_t dim) {
	float lanes[LANES] = {0};
	int64_t i = 0;

	for (; i + LANES <= dim; i += LANES)
		for (int64_t l = 0; l < LANES; ++l)
			lanes[l] += q[i + l] * knit__load_float(t, k, i + l);
	for (; i < dim; ++i)
		lanes[i % LANES] += q[i] * knit__load_float(t, k, i);
	return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

INLINE void scores_of(const knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count, int64_t dim,
                      float *s) {
	for (int64_t p = 0; p < count; ++p)
		s[p] = dot(t, q, k + p * k_stride, dim);
}

static void scores(knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count, int64_t dim, float *s) {
	if (t == KNIT_F16)
		scores_of(KNIT_F16, q, k, k_stride, count, dim, s);
	else if (t == KNIT_BF16)
		scores_of(KNIT_BF16, q, k, k_stride, count, dim, s);
	else
		scores_of(KNIT_F32, q, k, k_stride, count, dim, s);
}

static float weigh(float *s, int64_t count, float scale, float *max, float *sum) {
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

INLINE void mix_of(const knit_dtype t, const float *s, const char *v, int64_t v_stride, int64_t count, int64_t dim,
                   float *restrict acc) {
	for (int64_t p = 0; p < count; ++p)
		for (int64_t i = 0; i < dim; ++i)
			acc[i] += s[p] * knit__load_float(t, v + p * v_stride, i);
}

static void mix(knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count, int64_t dim,
                float *acc) {
	for (int64_t i = 0; i < dim; ++i)
		acc[i] *= factor;
	if (t == KNIT_F16)
		mix_of(KNIT_F16, s, v, v_stride, count, dim, acc);
	else if (t == KNIT_BF16)
		mix_of(KNIT_BF16, s, v, v_stride, count, dim, acc);
	else
		mix_of(KNIT_F32, s, v, v_stride, count, dim, acc);
}

static const knit_attention_isa isa = {scores, weigh, mix, knit__floats_to_f32};

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	knit__attention_run(s, begin, end, thread, &isa);
}

const knit_cpu_kernel knit__attention_plain = {"attention_plain", KNIT_OP_ATTENTION, KNIT_CPU_PLAIN,
                                               knit__attention_accepts, knit__attention_scratch,
                                               {{knit__attention_units, run},
                                                {knit__attention_merge_units, knit__attention_merge}}};
