/* Owns the tiles of linear for weights in panels, in NEON: compiled twice, by linear_panels_neon.c and, with the dot product
 * instruction, by linear_panels_dotprod.c. Both give the same bits. The driver is linear.c; reference: ops/linear.c.
 *
 * A panel's vector of 64 bytes is four here, each of four columns of four weight rows ("a quarter"): what a lane sums up
 * is one output. */
#ifndef KNIT_KERNELS_LINEAR_PANELS_NEON_H
#define KNIT_KERNELS_LINEAR_PANELS_NEON_H

#include "linear.h"
#include "panels.h"
#include "vec_neon.h"

#define MAX_ROWS 4
#define QUARTER 4

/* A tile is `rows` rows of x by `quarters` of a panel; result r * quarters + h is of row r and quarter h. What a result is
 * does not depend on it. */
#define MAX_RESULTS 8

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* The 32 values of a row of x at a block. */
typedef struct x_block { int8x16_t v[2]; } x_block;

KNIT_INLINE void load_x(const knit_linear_tile_args *a, const int rows, int64_t block, x_block x[MAX_ROWS]) {
	for (int r = 0; r < rows; ++r) {
		const char *const q = knit__linear_panel_q(a, r, block);

		x[r] = (x_block){{knit__load16(q), knit__load16(q + 16)}};
	}
}

KNIT_INLINE int8x16_t nibbles(int8x16_t v, const int high) {
	const uint8x16_t u = vreinterpretq_u8_s8(v);

	return vreinterpretq_s8_u8(high ? vshrq_n_u8(u, 4) : vandq_u8(u, vdupq_n_u8(15)));
}

/* Vectors j and 4 + j of a block of q8_0. They are stored 128 above their values, which one bit takes off. */
KNIT_INLINE void dots_q8_0_at(const int rows, const int quarters, const char *vectors, const x_block x[MAX_ROWS],
                              const int j, int32x4_t dot[MAX_RESULTS]) {
	const int8x16_t sign = vdupq_n_s8(INT8_MIN);

	for (int part = 0; part < 2; ++part)
		for (int h = 0; h < quarters; ++h) {
			const int8x16_t w = veorq_s8(knit__load16(vectors + (part * 4 + j) * 64 + h * 16), sign);

			for (int r = 0; r < rows; ++r)
				dot[r * quarters + h] = knit__dot_lane(dot[r * quarters + h], w, x[r].v[part], j);
		}
}

/* Vector j of a block of q4_0 or of a part of q4_K: columns 4j .. and, in the high bits, 16 + 4j .. */
KNIT_INLINE void dots_q4_0_at(const int rows, const int quarters, const char *vectors, const x_block x[MAX_ROWS],
                              const int j, int32x4_t dot[MAX_RESULTS]) {
	for (int h = 0; h < quarters; ++h) {
		const int8x16_t v = knit__load16(vectors + j * 64 + h * 16), low = nibbles(v, 0), high = nibbles(v, 1);

		for (int r = 0; r < rows; ++r) {
			int32x4_t *const d = &dot[r * quarters + h];

			*d = knit__dot_lane(knit__dot_lane(*d, low, x[r].v[0], j), high, x[r].v[1], j);
		}
	}
}

KNIT_INLINE void dots(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int quarters,
                      const char *vectors, int64_t block, int32x4_t dot[MAX_RESULTS]) {
	x_block x[MAX_ROWS];

	load_x(a, rows, block, x);
	if (t == KNIT_Q8_0) {
		dots_q8_0_at(rows, quarters, vectors, x, 0, dot);
		dots_q8_0_at(rows, quarters, vectors, x, 1, dot);
		dots_q8_0_at(rows, quarters, vectors, x, 2, dot);
		dots_q8_0_at(rows, quarters, vectors, x, 3, dot);
		return;
	}
	dots_q4_0_at(rows, quarters, vectors, x, 0, dot);
	dots_q4_0_at(rows, quarters, vectors, x, 1, dot);
	dots_q4_0_at(rows, quarters, vectors, x, 2, dot);
	dots_q4_0_at(rows, quarters, vectors, x, 3, dot);
}

KNIT_INLINE float32x4_t half_floats(const char *p) {
	return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}

KNIT_INLINE void step(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int quarters,
                      const char *scales, const char *vectors, int64_t block, float32x4_t acc[MAX_RESULTS]) {
	int32x4_t dot[MAX_RESULTS];
	float32x4_t d[4];

	for (int h = 0; h < quarters; ++h)
		d[h] = half_floats(scales + h * 8);
	for (int i = 0; i < rows * quarters; ++i)
		dot[i] = vdupq_n_s32(t == KNIT_Q8_0 ? 0 : knit__linear_panel_bias(a, i / quarters, block));
	dots(a, t, rows, quarters, vectors, block, dot);
	for (int i = 0; i < rows * quarters; ++i) {
		const float32x4_t scale = vmulq_n_f32(d[i % quarters], knit__linear_panel_scale(a, i / quarters, block));

		acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), scale);
	}
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

/* Of 16 rows: eight parts' scales, then their minima, a byte each. As knit__q4_k_parts. */
KNIT_INLINE void unpack_parts(const char *packed, char out[256]) {
	const uint8x16_t six = vdupq_n_u8(63), four = vdupq_n_u8(15), two = vdupq_n_u8(0x30);

	for (int i = 0; i < 64; i += 16) {
		const uint8x16_t a = vld1q_u8((const uint8_t *)packed + i), b = vld1q_u8((const uint8_t *)packed + 64 + i);
		const uint8x16_t c = vld1q_u8((const uint8_t *)packed + 128 + i);
		const uint8x16_t v[4] = {vandq_u8(a, six),
		                         vorrq_u8(vandq_u8(c, four), vandq_u8(vshrq_n_u8(a, 2), two)),
		                         vandq_u8(b, six),
		                         vorrq_u8(vshrq_n_u8(c, 4), vandq_u8(vshrq_n_u8(b, 2), two))};

		for (int k = 0; k < 4; ++k)
			vst1q_u8((uint8_t *)out + k * 64 + i, v[k]);
	}
}

/* Four signed bytes. */
KNIT_INLINE float32x4_t bytes(const char *p) {
	int32_t four;

	memcpy(&four, p, sizeof four);
	return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

/* A part has the vectors of a q4_0 block, and what its minima take off goes by the sum of x. */
KNIT_INLINE void step_q4_k(const knit_linear_tile_args *a, const int rows, const int quarters, int64_t first,
                           const char *group, int64_t block, float32x4_t acc[MAX_RESULTS]) {
	char parts[256];

	unpack_parts(group + 64, parts);
	for (int64_t p = 0; p < 8; ++p) {
		int32x4_t dot[MAX_RESULTS];
		float32x4_t scale[4], min[4];

		for (int h = 0; h < quarters; ++h) {
			const int64_t row = first + h * QUARTER;

			scale[h] = vmulq_f32(half_floats(group + row * 2), bytes(parts + p * 16 + row));
			min[h] = vmulq_f32(half_floats(group + 32 + row * 2), bytes(parts + 128 + p * 16 + row));
		}
		for (int i = 0; i < rows * quarters; ++i)
			dot[i] = vdupq_n_s32(0);
		dots(a, KNIT_Q4_K, rows, quarters, group + KNIT_PANEL_Q4_K_VECTORS + p * 256 + first * 4, block + p, dot);
		for (int i = 0; i < rows * quarters; ++i) {
			const float x = knit__linear_panel_scale(a, i / quarters, block + p);
			const float sum = knit__linear_panel_sum(a, i / quarters, block + p);

			acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), vmulq_n_f32(scale[i % quarters], x));
			acc[i] = vfmsq_f32(acc[i], min[i % quarters], vdupq_n_f32(sum));
		}
	}
}

/* Vector 4 * second + j of a part of q6_K, 0 to 63: its two high bits are pair 2 * second + j / 2 of their byte. */
KNIT_INLINE int8x16_t load_part6(const char *low, const char *high, const int second, const int j) {
	const int8x16_t v = nibbles(knit__load16(low + j * 64), second);
	const uint8x16_t h = vreinterpretq_u8_s8(knit__load16(high + j % 2 * 64));
	const uint8x16_t bits = !second ? (j < 2 ? vshlq_n_u8(h, 4) : vshlq_n_u8(h, 2)) : j < 2 ? h : vshrq_n_u8(h, 2);

	return vorrq_s8(v, vreinterpretq_s8_u8(vandq_u8(bits, vdupq_n_u8(0x30))));
}

KNIT_INLINE void dots_q6_k_at(const int rows, const int quarters, const char *low, const char *high,
                              const x_block x[MAX_ROWS], const int second, const int j, int32x4_t dot[MAX_RESULTS]) {
	for (int h = 0; h < quarters; ++h) {
		const int8x16_t w = load_part6(low + h * 16, high + h * 16, second, j);

		for (int r = 0; r < rows; ++r)
			dot[r * quarters + h] = knit__dot_lane(dot[r * quarters + h], w, x[r].v[second], j);
	}
}

/* 16 columns of a part, the first or the second, which have a scale of their own. */
KNIT_INLINE void half_part_q6_k(const knit_linear_tile_args *a, const int rows, const int quarters, int64_t first,
                                const char *group, int64_t block, int64_t p, const x_block x[MAX_ROWS],
                                const int second, float32x4_t acc[MAX_RESULTS]) {
	const char *const low = group + KNIT_PANEL_Q6_K_VECTORS + p * 256 + first * 4;
	const char *const high = group + KNIT_PANEL_Q6_K_HIGH + p * 128 + first * 4;
	int32x4_t dot[MAX_RESULTS];
	float32x4_t scale[4];

	for (int h = 0; h < quarters; ++h) {
		const int64_t row = first + h * QUARTER;

		scale[h] = vmulq_f32(half_floats(group + row * 2),
		                     bytes(group + KNIT_PANEL_Q6_K_SCALES + p * 32 + second * 16 + row));
	}
	for (int i = 0; i < rows * quarters; ++i)
		dot[i] = vdupq_n_s32(knit__linear_panel_bias(a, i / quarters, 2 * (block + p) + second));
	dots_q6_k_at(rows, quarters, low, high, x, second, 0, dot);
	dots_q6_k_at(rows, quarters, low, high, x, second, 1, dot);
	dots_q6_k_at(rows, quarters, low, high, x, second, 2, dot);
	dots_q6_k_at(rows, quarters, low, high, x, second, 3, dot);
	for (int i = 0; i < rows * quarters; ++i) {
		const float32x4_t by = vmulq_n_f32(scale[i % quarters], knit__linear_panel_scale(a, i / quarters, block + p));

		acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), by);
	}
}

KNIT_INLINE void step_q6_k(const knit_linear_tile_args *a, const int rows, const int quarters, int64_t first,
                           const char *group, int64_t block, float32x4_t acc[MAX_RESULTS]) {
	for (int64_t p = 0; p < 8; ++p) {
		x_block x[MAX_ROWS];

		load_x(a, rows, block + p, x);
		half_part_q6_k(a, rows, quarters, first, group, block, p, x, 0, acc);
		half_part_q6_k(a, rows, quarters, first, group, block, p, x, 1, acc);
	}
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

KNIT_INLINE void store(const knit_linear_tile_args *a, const int rows, const int quarters, int64_t first,
                       const float32x4_t acc[MAX_RESULTS]) {
	for (int i = 0; i < rows * quarters; ++i) {
		const int64_t column = first + i % quarters * QUARTER, wanted = a->columns - column;
		float *const out = a->out + i / quarters * a->out_stride + column;
		float some[QUARTER];

		if (wanted >= QUARTER) {
			vst1q_f32(out, a->add ? vaddq_f32(vld1q_f32(out), acc[i]) : acc[i]);
			continue;
		}
		vst1q_f32(some, acc[i]);
		for (int64_t c = 0; c < wanted; ++c)
			out[c] = a->add ? out[c] + some[c] : some[c];
	}
}

/* Weight rows from `first` on: 0 or 8. */
KNIT_INLINE void part(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int quarters,
                      int64_t first) {
	const int64_t group_bytes = knit__panel_group_bytes(t), block_bytes = knit__panel_block_bytes(t);
	const int64_t width = knit__panel_group(t);
	const char *group = a->w + a->k0 / width * group_bytes;
	float32x4_t acc[MAX_RESULTS];

	for (int i = 0; i < rows * quarters; ++i)
		acc[i] = vdupq_n_f32(0);
	for (int64_t i = 0; i < a->length; i += width, group += group_bytes) {
		const char *const scales = group + first * 2, *const vectors = group + KNIT_PANEL_SCALES + first * 4;
		const int64_t block = (a->k0 + i) / 32;

		if (rows == 1)
			knit__panel_ahead(group, group_bytes);
		if (t == KNIT_Q4_K) {
			step_q4_k(a, rows, quarters, first, group, block, acc);
		} else if (t == KNIT_Q6_K) {
			step_q6_k(a, rows, quarters, first, group, block, acc);
		} else {
			step(a, t, rows, quarters, scales, vectors, block, acc);
			step(a, t, rows, quarters, scales + 32, vectors + block_bytes, block + 1, acc);
		}
	}
	store(a, rows, quarters, first, acc);
}

KNIT_INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows) {
	if (rows * 4 <= MAX_RESULTS) {
		part(a, t, rows, 4, 0);
		return;
	}
	part(a, t, rows, 2, 0);
	if (a->columns > 2 * QUARTER)
		part(a, t, rows, 2, 2 * QUARTER);
}

#define TILE(name, dtype, rows) \
	static void name##_##rows(const knit_linear_tile_args *a) { tile(a, dtype, rows); }
#define TILES(name, dtype) \
	TILE(name, dtype, 1) TILE(name, dtype, 2) TILE(name, dtype, 3) TILE(name, dtype, 4)
#define SHAPES(name) \
	.max_rows = MAX_ROWS, .panel = KNIT_PANEL_ROWS, \
	.shapes = {{16, name##_1, NULL}, {16, name##_2, NULL}, {16, name##_3, NULL}, {16, name##_4, NULL}}

TILES(q8_0, KNIT_Q8_0)
TILES(q4_0, KNIT_Q4_0)
TILES(q4_k, KNIT_Q4_K)
TILES(q6_k, KNIT_Q6_K)

static const knit_linear_isa isa_q8_0 = {
	.dtype = KNIT_Q8_0, SHAPES(q8_0), .quantise = knit__linear_quantise_neon};
static const knit_linear_isa isa_q4_0 = {
	.dtype = KNIT_Q4_0, SHAPES(q4_0), .quantise = knit__linear_quantise_panels_neon};
static const knit_linear_isa isa_q4_k = {
	.dtype = KNIT_Q4_K, SHAPES(q4_k), .quantise = knit__linear_quantise_neon};
static const knit_linear_isa isa_q6_k = {
	.dtype = KNIT_Q6_K, SHAPES(q6_k), .quantise = knit__linear_quantise_panels16_neon};

#endif
