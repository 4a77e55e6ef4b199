/* Owns the tiles of linear in plain C, in eight lanes that a compiler can keep in vectors of any width. The driver is
 * linear.c; reference: ops/linear.c. */
#include "../../../ops/quant.h"
#include "half.h"
#include "linear.h"
#include "operand.h"

#define LANES 8
#define MAX_ROWS 2
#define MAX_COLUMNS 4
#define INLINE static inline __attribute__((always_inline))

INLINE void store(const knit_linear_tile_args *a, int row, int column, const float *lanes) {
	float *const out = a->out + row * a->out_stride + column;
	const float sum =
		((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));

	*out = a->add ? *out + sum : sum;
}

/* Adds w[i, i + n) * x[i, i + n) to the lanes of each row; n <= LANES. */
INLINE void step(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const char *w, int64_t i,
                 const int64_t n, float lanes[MAX_ROWS][LANES]) {
	float wide[LANES];

	for (int64_t l = 0; l < n; ++l)
		wide[l] = knit__load_float(t, w, i + l);
	for (int r = 0; r < rows; ++r) {
		const float *const x = (const float *)(const void *)a->x[r] + i;

		for (int64_t l = 0; l < n; ++l)
			lanes[r][l] += x[l] * wide[l];
	}
}

INLINE void tile(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	for (int c = 0; c < columns; ++c) {
		const char *const w = a->w + c * a->w_stride;
		float lanes[MAX_ROWS][LANES] = {{0}};
		int64_t i = 0;

		for (; i + LANES <= a->length; i += LANES)
			step(a, t, rows, w, i, LANES, lanes);
		step(a, t, rows, w, i, a->length - i, lanes);
		for (int r = 0; r < rows; ++r)
			store(a, r, c, lanes[r]);
	}
}

/* A block as signed bytes. */
INLINE void load_block(const knit_dtype t, const char *p, int8_t *out) {
	if (t == KNIT_Q8_0) {
		memcpy(out, p + 2, 32);
		return;
	}
	for (int i = 0; i < 16; ++i) {
		const uint8_t pair = (uint8_t)p[2 + i];

		out[i] = (int8_t)((pair & 15) - 8);
		out[i + 16] = (int8_t)((pair >> 4) - 8);
	}
}

INLINE void tile_blocks(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	for (int c = 0; c < columns; ++c) {
		const char *p = a->w + c * a->w_stride;
		float lanes[MAX_ROWS][LANES] = {{0}};

		for (int64_t i = 0; i < a->length; i += 32, p += knit__bytes_of(t, 32)) {
			const float d = knit__half_load(knit__load_u16(p));
			int8_t w[32];

			load_block(t, p, w);
			for (int r = 0; r < rows; ++r) {
				const int8_t *const x = (const int8_t *)knit__linear_q(a, r) + i;
				int32_t dot = 0;

				for (int l = 0; l < 32; ++l)
					dot += x[l] * w[l];
				/* one lane per block, in turn: eight independent sums */
				lanes[r][i / 32 % LANES] += (float)dot * (d * knit__load_f32(knit__linear_scale(a, r) + i / 8));
			}
		}
		for (int r = 0; r < rows; ++r)
			store(a, r, c, lanes[r]);
	}
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

/* Part j of a q4_K: 32 values as stored. */
INLINE void load_q4_k(const char *p, int j, int8_t *out) {
	for (int i = 0; i < 32; ++i)
		out[i] = (int8_t)((uint8_t)p[16 + j / 2 * 32 + i] >> j % 2 * 4 & 15);
}

/* Elements 32 j .. 32 j + 31 of a q6_K, less 32. */
INLINE void load_q6_k(const char *p, int j, int8_t *out) {
	const char *const low = p + j / 4 * 64 + j % 2 * 32, *const high = p + 128 + j / 4 * 32;

	for (int i = 0; i < 32; ++i)
		out[i] = (int8_t)((((uint8_t)low[i] >> j % 4 / 2 * 4 & 15) | ((uint8_t)high[i] >> j % 4 * 2 & 3) << 4) - 32);
}

INLINE int32_t dot(const int8_t *a, const int8_t *b, const int n) {
	int32_t sum = 0;

	for (int i = 0; i < n; ++i)
		sum += a[i] * b[i];
	return sum;
}

/* A part of 32 to one lane each, as above: eight lanes, eight parts. */
INLINE void tile_super(const knit_linear_tile_args *a, const knit_dtype t, const int rows, const int columns) {
	for (int c = 0; c < columns; ++c) {
		const char *p = a->w + c * a->w_stride;
		float lanes[MAX_ROWS][LANES] = {{0}};

		for (int64_t i = 0; i < a->length; i += 256, p += knit__bytes_of(t, 256)) {
			const float d = knit__half_load(knit__load_u16(t == KNIT_Q4_K ? p : p + 208));
			const float dmin = knit__half_load(knit__load_u16(p + 2)); /* of q4_K */
			uint8_t scale[8], min[8];

			if (t == KNIT_Q4_K)
				knit__q4_k_parts((const uint8_t *)p + 4, scale, min);
			for (int j = 0; j < 8; ++j) {
				int8_t w[32];

				if (t == KNIT_Q4_K)
					load_q4_k(p, j, w);
				else
					load_q6_k(p, j, w);
				for (int r = 0; r < rows; ++r) {
					const int8_t *const x = (const int8_t *)knit__linear_q(a, r) + i + j * 32;
					const float x_scale = knit__load_f32(knit__linear_scale(a, r) + i / 8 + j * 4);

					if (t == KNIT_Q4_K) {
						lanes[r][j] += (float)dot(x, w, 32) * (d * (float)scale[j] * x_scale);
						lanes[r][j] -= dmin * (float)min[j] * knit__load_f32(knit__linear_block_sum(a, r) + i / 8 + j * 4);
					} else {
						const int8_t *const scales = (const int8_t *)p + 192 + j * 2;

						lanes[r][j] += (float)(dot(x, w, 16) * scales[0] + dot(x + 16, w + 16, 16) * scales[1]) * (d * x_scale);
					}
				}
			}
		}
		for (int r = 0; r < rows; ++r)
			store(a, r, c, lanes[r]);
	}
}

/* ---- instances --------------------------------------------------------------------------------------------------- */

#define TILE(name, kind, dtype, rows, columns) \
	static void name##_##rows##_##columns(const knit_linear_tile_args *a) { kind(a, dtype, rows, columns); }
#define TILES(name, kind, dtype) \
	TILE(name, kind, dtype, 1, 4) TILE(name, kind, dtype, 2, 4) TILE(name, kind, dtype, 1, 1) \
	TILE(name, kind, dtype, 2, 1)
#define SHAPES(name) .max_rows = 2, .shapes = {{4, name##_1_4, name##_1_1}, {4, name##_2_4, name##_2_1}}

TILES(f32, tile, KNIT_F32)
TILES(f16, tile, KNIT_F16)
TILES(bf16, tile, KNIT_BF16)
TILES(q8_0, tile_blocks, KNIT_Q8_0)
TILES(q4_0, tile_blocks, KNIT_Q4_0)
TILES(q4_k, tile_super, KNIT_Q4_K)
TILES(q6_k, tile_super, KNIT_Q6_K)

static void widen_f32(const char *src, float *dst, int64_t n) { knit__floats_to_f32(KNIT_F32, src, dst, n); }
static void widen_f16(const char *src, float *dst, int64_t n) { knit__floats_to_f32(KNIT_F16, src, dst, n); }
static void widen_bf16(const char *src, float *dst, int64_t n) { knit__floats_to_f32(KNIT_BF16, src, dst, n); }

static const knit_linear_isa isa_f32 = {
	.dtype = KNIT_F32, SHAPES(f32), .widened = &isa_f32, .widen = widen_f32};
static const knit_linear_isa isa_f16 = {.dtype = KNIT_F16, SHAPES(f16), .widened = &isa_f32, .widen = widen_f16};
static const knit_linear_isa isa_bf16 = {.dtype = KNIT_BF16, SHAPES(bf16), .widened = &isa_f32, .widen = widen_bf16};
static const knit_linear_isa isa_q8_0 = {.dtype = KNIT_Q8_0, SHAPES(q8_0), .quantise = knit__linear_quantise_plain};
static const knit_linear_isa isa_q4_0 = {.dtype = KNIT_Q4_0, SHAPES(q4_0), .quantise = knit__linear_quantise_plain};
static const knit_linear_isa isa_q4_k = {.dtype = KNIT_Q4_K, SHAPES(q4_k), .quantise = knit__linear_quantise_plain};
static const knit_linear_isa isa_q6_k = {.dtype = KNIT_Q6_K, SHAPES(q6_k), .quantise = knit__linear_quantise_plain};

KNIT_LINEAR_KERNELS(plain, KNIT_CPU_PLAIN)
