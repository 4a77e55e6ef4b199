/* Owns the tiles of linear in NEON as every 64-bit ARM has it (linear_neon.h), and the quantising of x for all of them. */
#include "linear_neon.h"

static void quantise_block(const float *x, int8_t *q, float *scale) {
	uint32x4_t max = vdupq_n_u32(0);
	int16x8_t n[4];

	for (int i = 0; i < 32; i += 4)
		max = vmaxq_u32(max, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
	const uint32_t bits = vmaxvq_u32(max);
	if (bits < KNIT_LINEAR_MAX_LO || bits >= KNIT_LINEAR_MAX_HI) {
		knit__linear_quantise_block(x, q, scale);
		return;
	}
	const float largest = knit__as_float(bits), inverse = 127.0f / largest;

	for (int i = 0; i < 4; ++i) {
		const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i * 8), inverse));
		const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i * 8 + 4), inverse));

		n[i] = vcombine_s16(vmovn_s32(low), vmovn_s32(high));
	}
	vst1q_s8(q, vcombine_s8(vmovn_s16(n[0]), vmovn_s16(n[1])));
	vst1q_s8(q + 16, vcombine_s8(vmovn_s16(n[2]), vmovn_s16(n[3])));
	*scale = largest / 127.0f;
}

/* The tiles take off by themselves what weights are stored above their values: no sums of q are wanted. */
void knit__linear_quantise_neon(const float *x, int64_t k, int32_t bias, char *row) {
	const int64_t padded = knit__linear_padded(k);
	float *const scales = (float *)(void *)(row + 2 * padded);

	(void)bias;
	for (int64_t b = 0; b < k / 32; ++b)
		quantise_block(x + b * 32, (int8_t *)row + b * 32, &scales[b]);
	memset(row + k, 0, (size_t)(padded - k));
	for (int64_t b = k / 32; b < padded / 32; ++b)
		scales[b] = 0;
}

KNIT_LINEAR_KERNELS(neon, KNIT_CPU_NEON)
