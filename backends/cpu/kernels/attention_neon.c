/* Owns attention in NEON. The driver is attention.c; reference: ops/attention.c. */
#include "attention_run.h"
#include "lanes_neon.h"

#include <math.h>

#define TILE KNIT_ATTENTION_TILE

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Eight keys at a time; past the last one it is read again and the result not used. */
KNIT_INLINE void scores_of(const knit_dtype t, const float *q, const char *k, int64_t k_stride, int64_t count,
                           int64_t dim, float *s, const knit_attention_ask *ask) {
	for (int64_t p = 0; p < count; p += 8) {
		const char *key[8];
		float32x4_t acc[8];
		int64_t i = 0;

		knit__attention_ask(ask, p);
		for (int j = 0; j < 8; ++j) {
			key[j] = k + (p + j < count ? p + j : count - 1) * k_stride;
			acc[j] = vdupq_n_f32(0);
		}
		for (; i + 8 <= dim; i += 8) {
			const float32x4x2_t x = knit__load8(KNIT_F32, (const char *)q, i);

			for (int j = 0; j < 8; ++j)
				acc[j] = knit__fma8(acc[j], x, knit__load8(t, key[j], i));
		}
		if (i < dim) {
			const float32x4x2_t x = knit__load8_some(KNIT_F32, (const char *)q, i, dim - i);

			for (int j = 0; j < 8; ++j)
				acc[j] = knit__fma8(acc[j], x, knit__load8_some(t, key[j], i, dim - i));
		}
		vst1q_f32(s + p, knit__sum4(acc));
		vst1q_f32(s + p + 4, knit__sum4(acc + 4));
	}
}

static void scores(const knit_attention_tile *k, const float *const *q, int64_t rows, int64_t count, int64_t dim,
                   float *s, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (int64_t r = 0; r < rows; ++r, s += TILE, ask = &none) {
		if (k->dtype == KNIT_F16)
			scores_of(KNIT_F16, q[r], k->data, k->stride, count, dim, s, ask);
		else if (k->dtype == KNIT_BF16)
			scores_of(KNIT_BF16, q[r], k->data, k->stride, count, dim, s, ask);
		else
			scores_of(KNIT_F32, q[r], k->data, k->stride, count, dim, s, ask);
	}
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

#define QUADS (TILE / 4)

static float weigh_row(float *s, int64_t count, float scale, float *part) {
	float32x4_t v[QUADS], most = vdupq_n_f32(-INFINITY), total = vdupq_n_f32(0);

	for (int j = 0; j < QUADS; ++j) {
		v[j] = vbslq_f32(knit__first4(count - j * 4), vmulq_n_f32(vld1q_f32(s + j * 4), scale), vdupq_n_f32(-INFINITY));
		most = vmaxq_f32(most, v[j]);
	}
	const float tile_max = vmaxvq_f32(most), new_max = tile_max > part[0] ? tile_max : part[0];
	const float base = new_max == -INFINITY ? 0 : new_max;
	const float earlier = vgetq_lane_f32(knit__exp4(vdupq_n_f32(part[0] - base)), 0);

	for (int j = 0; j < QUADS; ++j) {
		const float32x4_t all = knit__exp4(vsubq_f32(v[j], vdupq_n_f32(base)));
		const float32x4_t weight = vbslq_f32(knit__first4(count - j * 4), all, vdupq_n_f32(0));

		vst1q_f32(s + j * 4, weight);
		total = vaddq_f32(total, weight);
	}
	part[0] = new_max;
	part[1] = part[1] * earlier + knit__sum1(total);
	return earlier;
}

static void weigh(float *s, int64_t rows, int64_t count, float scale, float *const *part, float *factor) {
	for (int64_t r = 0; r < rows; ++r)
		factor[r] = weigh_row(s + r * TILE, count, scale, part[r]);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* `eights` times 8 elements of all values; of the last one only `rest`, if that is not 0. */
KNIT_INLINE void mix_some(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride,
                          int64_t count, const int eights, int64_t rest, float *acc, const knit_attention_ask *ask) {
	float32x4x2_t sum[8];

	for (int j = 0; j < eights; ++j)
		for (int h = 0; h < 2; ++h)
			sum[j].val[h] = vmulq_n_f32(vld1q_f32(acc + j * 8 + h * 4), factor);
	for (int64_t p = 0; p < count; ++p) {
		if (p % 8 == 0)
			knit__attention_ask(ask, p);
		for (int j = 0; j < eights; ++j) {
			const float32x4x2_t x = rest ? knit__load8_some(t, v + p * v_stride, j * 8, rest)
			                             : knit__load8(t, v + p * v_stride, j * 8);

			sum[j].val[0] = vfmaq_n_f32(sum[j].val[0], x.val[0], s[p]);
			sum[j].val[1] = vfmaq_n_f32(sum[j].val[1], x.val[1], s[p]);
		}
	}
	for (int j = 0; j < eights; ++j)
		for (int h = 0; h < 2; ++h)
			vst1q_f32(acc + j * 8 + h * 4, sum[j].val[h]);
}

KNIT_INLINE void mix_of(const knit_dtype t, const float *s, float factor, const char *v, int64_t v_stride, int64_t count,
                        int64_t dim, float *acc, const knit_attention_ask *ask) {
	static const knit_attention_ask none;
	const int64_t bytes = t == KNIT_F32 ? 4 : 2;
	int64_t i = 0;

	for (; i + 64 <= dim; i += 64)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 8, 0, acc + i, i ? &none : ask);
	for (; i + 32 <= dim; i += 32)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 4, 0, acc + i, i ? &none : ask);
	for (; i + 8 <= dim; i += 8)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, 0, acc + i, i ? &none : ask);
	if (i < dim)
		mix_some(t, s, factor, v + i * bytes, v_stride, count, 1, dim - i, acc + i, i ? &none : ask);
}

static void mix(const knit_attention_tile *v, const float *s, const float *factor, int64_t rows, int64_t count,
                int64_t dim, float *const *part, const knit_attention_ask *ask) {
	static const knit_attention_ask none;

	for (int64_t r = 0; r < rows; ++r, s += TILE, ask = &none) {
		float *const acc = part[r] + KNIT_ATTENTION_HEAD;

		if (v->dtype == KNIT_F16)
			mix_of(KNIT_F16, s, factor[r], v->data, v->stride, count, dim, acc, ask);
		else if (v->dtype == KNIT_BF16)
			mix_of(KNIT_BF16, s, factor[r], v->data, v->stride, count, dim, acc, ask);
		else
			mix_of(KNIT_F32, s, factor[r], v->data, v->stride, count, dim, acc, ask);
	}
}

/* Blocks are always widened, and all else where four rows or more share it. */
static int64_t in_place(knit_dtype t, int64_t skip, int64_t dim) {
	(void)skip, (void)dim;
	return t == KNIT_F32 || t == KNIT_F16 || t == KNIT_BF16 ? 3 : 0;
}

/* ---- rows as f32 ------------------------------------------------------------------------------------------------- */

KNIT_INLINE void store16(float d, int8x16_t q, float *dst) {
	const int16x8_t half[2] = {vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q)};

	for (int h = 0; h < 2; ++h) {
		vst1q_f32(dst + h * 8, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(half[h]))), d));
		vst1q_f32(dst + h * 8 + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(half[h])), d));
	}
}

KNIT_INLINE void widen_q8_0(const char *src, float *dst, int64_t n) {
	for (int64_t i = 0; i < n; i += 32, src += 34) {
		const float d = knit__load_half(src);

		store16(d, knit__load16(src + 2), dst + i);
		store16(d, knit__load16(src + 18), dst + i + 16);
	}
}

KNIT_INLINE void widen_q4_0(const char *src, float *dst, int64_t n) {
	for (int64_t i = 0; i < n; i += 32, src += 18) {
		const float d = knit__load_half(src);
		const uint8x16_t v = vreinterpretq_u8_s8(knit__load16(src + 2));
		const uint8x16_t half[2] = {vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8(v, 4)};

		for (int h = 0; h < 2; ++h)
			store16(d, vsubq_s8(vreinterpretq_s8_u8(half[h]), vdupq_n_s8(8)), dst + i + h * 16);
	}
}

KNIT_INLINE void widen_of(const knit_dtype t, const char *src, float *dst, int64_t n) { knit__widen_row(t, src, dst, n); }

#include "attention_ends.h"

static const knit_attention_isa isa = {
	.scores = scores, .weigh = weigh, .mix = mix, .widen = widen, .merge = merge, .in_place = in_place};

const knit_cpu_kernel knit__attention_neon = {"attention_neon", KNIT_OP_ATTENTION, KNIT_CPU_NEON,
                                              knit__attention_accepts, knit__attention_scratch,
                                              {{knit__attention_units, run}, {knit__attention_merge_units, run_merge}}};
