/* Owns the tiles of linear in NEON: compiled twice, by linear_neon.c and, with the dot product instruction, by
 * linear_dotprod.c. Both give the same bits. The driver is linear.c; reference: ops/linear.c. */
#ifndef KNIT_KERNELS_LINEAR_NEON_H
#define KNIT_KERNELS_LINEAR_NEON_H

#include "linear.h"
#include "vec_neon.h"

#define MAX_ROWS 4
#define MAX_COLUMNS 8

/* Adds the lanes of one row's accumulators up and stores or adds them to the output. */
KNIT_INLINE void store_row(const knit_linear_tile_args *a, int row, const float32x4_t *acc, const int columns) {
	float *const out = a->out + row * a->out_stride;
	int c = 0;

	for (; c + 4 <= columns; c += 4) {
		const float32x4_t sum = knit__sum4(acc + c);

		vst1q_f32(out + c, a->add ? vaddq_f32(vld1q_f32(out + c), sum) : sum);
	}
	for (; c < columns; ++c) {
		const float sum = knit__sum1(acc[c]);

		out[c] = a->add ? out[c] + sum : sum;
	}
}

KNIT_INLINE void clear(const int rows, const int columns, float32x4_t acc[MAX_ROWS][MAX_COLUMNS]) {
	for (int r = 0; r < rows; ++r)
		for (int c = 0; c < columns; ++c)
			acc[r][c] = vdupq_n_f32(0);
}

/* ---- float weights ----------------------------------------------------------------------------------------------- */

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	float32x4_t acc[MAX_ROWS][MAX_COLUMNS];
	float32x4x2_t x[MAX_ROWS];
	const int64_t ahead = knit__linear_ahead(a, columns);
	int64_t i = 0;

	clear(rows, columns, acc);
	for (; i + 8 <= a->length; i += 8) {
		for (int r = 0; r < rows; ++r)
			x[r] = knit__load8(KNIT_F32, a->x[r], i);
		for (int c = 0; c < columns; ++c) {
			const char *const w = a->w + c * a->w_stride;
			const float32x4x2_t v = knit__load8(t, w, i);

			if (rows == 1)
				knit__prefetch(w + i * (t == KNIT_F32 ? 4 : 2) + ahead);
			for (int r = 0; r < rows; ++r)
				acc[r][c] = knit__fma8(acc[r][c], x[r], v);
		}
	}
	if (i < a->length) {
		const int64_t rest = a->length - i;

		for (int r = 0; r < rows; ++r)
			x[r] = knit__load8_some(KNIT_F32, a->x[r], i, rest);
		for (int c = 0; c < columns; ++c) {
			const float32x4x2_t v = knit__load8_some(t, a->w + c * a->w_stride, i, rest);

			for (int r = 0; r < rows; ++r)
				acc[r][c] = knit__fma8(acc[r][c], x[r], v);
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- quantised weights ------------------------------------------------------------------------------------------- */

KNIT_INLINE int8x16_t nibbles(uint8x16_t v, const int high) {
	return vreinterpretq_s8_u8(high ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15)));
}

/* The 32 values of a block, 16 each, less what they are stored above their values. */
KNIT_INLINE void load_block(const knit_dtype t, const char *p, int8x16_t w[2]) {
	if (t == KNIT_Q8_0) {
		w[0] = knit__load16(p + 2);
		w[1] = knit__load16(p + 18);
		return;
	}
	const uint8x16_t v = vreinterpretq_u8_s8(knit__load16(p + 2));

	for (int h = 0; h < 2; ++h)
		w[h] = vsubq_s8(nibbles(v, h), vdupq_n_s8(8));
}

KNIT_INLINE int32x4_t dot_block(const int8x16_t w[2], const char *x) {
	return knit__dot16(knit__dot16(vdupq_n_s32(0), w[0], knit__load16(x)), w[1], knit__load16(x + 16));
}

KNIT_INLINE void tile_blocks(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t block_bytes = t == KNIT_Q8_0 ? 34 : 18, ahead = knit__linear_ahead(a, columns);
	float32x4_t acc[MAX_ROWS][MAX_COLUMNS];

	clear(rows, columns, acc);
	for (int64_t i = 0; i < a->length; i += 32) {
		for (int c = 0; c < columns; ++c) {
			const char *const p = a->w + c * a->w_stride + i / 32 * block_bytes;
			const float d = knit__load_half(p);
			int8x16_t w[2];

			load_block(t, p, w);
			if (rows == 1)
				knit__prefetch(p + ahead);
			for (int r = 0; r < rows; ++r) {
				const float32x4_t dot = vcvtq_f32_s32(dot_block(w, knit__linear_q(a, r) + i));

				acc[r][c] = vfmaq_n_f32(acc[r][c], dot, d * knit__load_f32(knit__linear_scale(a, r) + i / 8));
			}
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

#define Q4_K_BYTES 144
#define Q6_K_BYTES 210

KNIT_INLINE float32x4x2_t floats_of(int8x8_t v) {
	const int16x8_t wide = vmovl_s8(v);

	return (float32x4x2_t){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))}};
}

/* From the first 16 bytes of a q4_K (d, dmin, packed): eight scales, then eight minima. As knit__q4_k_parts. */
KNIT_INLINE int8x16_t unpack_parts(uint8x16_t head) {
	static const uint8_t low_from[16] = {4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
	static const uint8_t high_from[16] = {255, 255, 255, 255, 4, 5, 6, 7, 255, 255, 255, 255, 8, 9, 10, 11};
	static const int8_t down[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -4, -4, -4, -4};
	static const uint8_t kept[16] = {63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15};
	const uint8x16_t low = vandq_u8(vshlq_u8(vqtbl1q_u8(head, vld1q_u8(low_from)), vld1q_s8(down)), vld1q_u8(kept));
	const uint8x16_t high = vandq_u8(vshrq_n_u8(vqtbl1q_u8(head, vld1q_u8(high_from)), 2), vdupq_n_u8(0x30));

	return vreinterpretq_s8_u8(vorrq_u8(low, high));
}

/* One q4_K of one column. What the minima take off goes by parts, from the sums of x that its row carries. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const char *p, int64_t i,
                           float32x4_t *const acc[]) {
	const int8x16_t parts = unpack_parts(vld1q_u8((const uint8_t *)p));
	const float32x4x2_t step = floats_of(vget_low_s8(parts)), min = floats_of(vget_high_s8(parts));
	const float d = knit__load_half(p), dmin = knit__load_half(p + 2);
	float scale[MAX_ROWS][8];

	for (int r = 0; r < rows; ++r)
		for (int h = 0; h < 2; ++h) {
			const float32x4_t x = knit__load4(knit__linear_scale(a, r) + i / 8 + h * 16);
			const float32x4_t sum = knit__load4(knit__linear_block_sum(a, r) + i / 8 + h * 16);

			vst1q_f32(scale[r] + h * 4, vmulq_f32(vmulq_n_f32(step.val[h], d), x));
			*acc[r] = vfmsq_f32(*acc[r], vmulq_n_f32(min.val[h], dmin), sum);
		}
	for (int j = 0; j < 4; ++j) {
		const uint8x16_t v0 = vld1q_u8((const uint8_t *)p + 16 + j * 32), v1 = vld1q_u8((const uint8_t *)p + 32 + j * 32);

		for (int h = 0; h < 2; ++h) {
			const int8x16_t w[2] = {nibbles(v0, h), nibbles(v1, h)};

			for (int r = 0; r < rows; ++r) {
				const int32x4_t dot = dot_block(w, knit__linear_q(a, r) + i + j * 64 + h * 32);

				*acc[r] = vfmaq_n_f32(*acc[r], vcvtq_f32_s32(dot), scale[r][j * 2 + h]);
			}
		}
	}
}

/* 16 values of part f (0..3) of half a q6_K, less 32: their low bits in v, their high bits in h. */
KNIT_INLINE int8x16_t join_q6(uint8x16_t v, uint8x16_t h, const int f) {
	const uint8x16_t low = f < 2 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
	const uint8x16_t high = f == 0 ? vshlq_n_u8(h, 4) : f == 1 ? vshlq_n_u8(h, 2) : f == 2 ? h : vshrq_n_u8(h, 2);

	return vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)))), vdupq_n_s8(32));
}

/* Part f of a half: the scales of its two times 16 elements multiply the integer sums. */
KNIT_INLINE void part_q6_k(const knit_linear_tile_args *a, const int rows, const char *p, float d, int64_t i,
                           const int half, const int f, float32x4_t *const acc[]) {
	const char *const low = p + half * 64 + f % 2 * 32, *const high = p + 128 + half * 32;
	const int8_t *const scales = (const int8_t *)p + 192 + half * 8 + f * 2;
	const int64_t at = i + half * 128 + f * 32;
	int8x16_t w[2];

	for (int k = 0; k < 2; ++k)
		w[k] = join_q6(vld1q_u8((const uint8_t *)low + k * 16), vld1q_u8((const uint8_t *)high + k * 16), f);
	for (int r = 0; r < rows; ++r) {
		const char *const x = knit__linear_q(a, r) + at;
		const int32x4_t dot0 = knit__dot16(vdupq_n_s32(0), w[0], knit__load16(x));
		const int32x4_t dot1 = knit__dot16(vdupq_n_s32(0), w[1], knit__load16(x + 16));
		const int32x4_t dot = vmlaq_n_s32(vmulq_n_s32(dot0, scales[0]), dot1, scales[1]);

		*acc[r] = vfmaq_n_f32(*acc[r], vcvtq_f32_s32(dot), d * knit__load_f32(knit__linear_scale(a, r) + at / 8));
	}
}

KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const char *p, int64_t i,
                           float32x4_t *const acc[]) {
	const float d = knit__load_half(p + 208);

	for (int half = 0; half < 2; ++half) {
		part_q6_k(a, rows, p, d, i, half, 0, acc);
		part_q6_k(a, rows, p, d, i, half, 1, acc);
		part_q6_k(a, rows, p, d, i, half, 2, acc);
		part_q6_k(a, rows, p, d, i, half, 3, acc);
	}
}

KNIT_INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	const int64_t block_bytes = t == KNIT_Q4_K ? Q4_K_BYTES : Q6_K_BYTES, ahead = knit__linear_ahead(a, columns);
	float32x4_t acc[MAX_ROWS][MAX_COLUMNS];

	clear(rows, columns, acc);
	for (int64_t i = 0; i < a->length; i += 256) {
		for (int c = 0; c < columns; ++c) {
			const char *const p = a->w + c * a->w_stride + i / 256 * block_bytes;
			float32x4_t *const of[MAX_ROWS] = {&acc[0][c], &acc[1][c], &acc[2][c], &acc[3][c]};

			for (int line = 0; rows == 1 && line < block_bytes; line += 64)
				knit__prefetch(p + ahead + line);
			if (t == KNIT_Q4_K)
				step_q4_k(a, rows, p, i, of);
			else
				step_q6_k(a, rows, p, i, of);
		}
	}
	for (int r = 0; r < rows; ++r)
		store_row(a, r, acc[r], columns);
}

/* ---- instances --------------------------------------------------------------------------------------------------- */

#define TILE(name, kind, dtype, rows, columns) \
	static void name##_##rows##_##columns(const knit_linear_tile_args *a) { kind(a, dtype, rows, columns); }
#define TILES(name, kind, dtype, c1, c2) \
	TILE(name, kind, dtype, 1, c1) TILE(name, kind, dtype, 2, c2) TILE(name, kind, dtype, 3, c2) \
	TILE(name, kind, dtype, 4, c2) TILE(name, kind, dtype, 1, 1) TILE(name, kind, dtype, 2, 1) \
	TILE(name, kind, dtype, 3, 1) TILE(name, kind, dtype, 4, 1)
#define SHAPES(name, c1, c2) \
	.max_rows = MAX_ROWS, .shapes = {{c1, name##_1_##c1, name##_1_1}, {c2, name##_2_##c2, name##_2_1}, \
	                                 {c2, name##_3_##c2, name##_3_1}, {c2, name##_4_##c2, name##_4_1}}

TILES(f32, tile, KNIT_F32, 8, 4)
TILES(f16, tile, KNIT_F16, 8, 4)
TILES(bf16, tile, KNIT_BF16, 8, 4)
TILES(q8_0, tile_blocks, KNIT_Q8_0, 4, 4)
TILES(q4_0, tile_blocks, KNIT_Q4_0, 4, 4)
TILES(q4_k, tile_super, KNIT_Q4_K, 4, 2)
TILES(q6_k, tile_super, KNIT_Q6_K, 4, 2)

static void widen_f32(const char *src, float *dst, int64_t n) { knit__widen_row(KNIT_F32, src, dst, n); }
static void widen_f16(const char *src, float *dst, int64_t n) { knit__widen_row(KNIT_F16, src, dst, n); }
static void widen_bf16(const char *src, float *dst, int64_t n) { knit__widen_row(KNIT_BF16, src, dst, n); }

static const knit_linear_isa isa_f32 = {
	.dtype = KNIT_F32, SHAPES(f32, 8, 4), .widened = &isa_f32, .widen = widen_f32};
static const knit_linear_isa isa_f16 = {
	.dtype = KNIT_F16, SHAPES(f16, 8, 4), .widened = &isa_f32, .widen = widen_f16};
static const knit_linear_isa isa_bf16 = {
	.dtype = KNIT_BF16, SHAPES(bf16, 8, 4), .widened = &isa_f32, .widen = widen_bf16};
static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0, 4, 4), .quantise = knit__linear_quantise_neon};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0, 4, 4), .quantise = knit__linear_quantise_neon};
static const knit_linear_isa isa_q4_k = {
	.dtype = KNIT_Q4_K, SHAPES(q4_k, 4, 2), .quantise = knit__linear_quantise_neon};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k, 4, 2), .quantise = knit__linear_quantise_neon};

#endif
