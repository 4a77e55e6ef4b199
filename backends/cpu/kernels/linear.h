/* Owns what the variants of linear share: how the work is cut, what a tile function computes, how quantised rows of x
 * lie in scratch. A variant is a knit_linear_isa; the driver (linear.c) is the same for all.
 *
 * Every output is computed in one order, whatever tile it falls into: k is cut into spans of KNIT_LINEAR_SPAN, a span
 * is summed in the variant's lanes, the lanes in a fixed tree, the spans one after the other. So a row gives the same
 * bits alone and among others, on one thread and on many. */
#ifndef KNIT_KERNELS_LINEAR_H
#define KNIT_KERNELS_LINEAR_H

#include "kernels.h"

#include <string.h>

#define KNIT_LINEAR_SPAN 1024     /* elements of k: a multiple of every block and vector */
#define KNIT_LINEAR_ROWS 96       /* of x in a unit, at most */
#define KNIT_LINEAR_COLUMNS 96    /* of a unit, at most */
#define KNIT_LINEAR_TILE_ROWS 4   /* at most */
#define KNIT_LINEAR_TILE_COLUMNS 8 /* at most, and a divisor of every unit's columns */

typedef struct knit_linear_tile_args {
	const char *x[KNIT_LINEAR_TILE_ROWS]; /* float weights: f32 at k0; quantised weights: start of the scratch row */
	const char *w;                        /* first weight row at k0 */
	int64_t w_stride;                     /* bytes from one weight row to the next */
	int64_t k0, length;                   /* elements of k */
	int64_t k_padded;                     /* quantised weights: see below */
	int64_t columns;                      /* panels: outputs wanted of the tile's */
	float *out;
	int64_t out_stride;                   /* elements from one row of x to the next */
	bool add;                             /* to what out holds; set from the second span on */
	int64_t ahead;                        /* see knit__linear_ahead */
} knit_linear_tile_args;

typedef void (*knit_linear_tile)(const knit_linear_tile_args *a);

/* Tiles of r x-rows by `columns` weight rows, and r by 1 for the rest. */
typedef struct knit_linear_shape { int columns; knit_linear_tile full, one; } knit_linear_shape;

struct knit_linear_block;
/* Many rows of x by one span of `many_columns` columns from `column` on, or of those that are left. */
typedef void (*knit_linear_many)(const struct knit_linear_block *b, int64_t k0, int64_t column);

typedef struct knit_linear_isa {
	knit_dtype dtype;
	int max_rows;                                    /* of a tile */
	knit_linear_shape shapes[KNIT_LINEAR_TILE_ROWS]; /* [rows - 1] */
	/* Float weights: where many rows share a weight row it may be laid out as f32 once and go through the f32 shapes. */
	const struct knit_linear_isa *widened;
	void (*widen)(const char *src, float *dst, int64_t n);
	int64_t panel; /* weight rows that lie interleaved (panels.h): the tiles have as many columns; 0: each by itself */
	/* A block of one row of x in the variant's own order of reading, with the same bits; NULL: by tiles. */
	void (*row)(const struct knit_linear_block *b);
	knit_linear_many many; /* NULL: none. Of panels: two, of which the first is whole */
	int64_t many_columns;
	/* Quantised weights: one row of x to scratch. */
	void (*quantise)(const float *x, int64_t k, int32_t bias, char *row);
} knit_linear_isa;

/* A variant's tables, one per weight type. */
typedef struct knit_linear_level { const knit_linear_isa *f32, *f16, *bf16, *q8_0, *q4_0, *q4_k, *q6_k; } knit_linear_level;
extern const knit_linear_level knit__linear_level_plain, knit__linear_level_avx2, knit__linear_level_avx512,
	knit__linear_level_neon, knit__linear_level_dotprod;
const knit_linear_isa *knit__linear_isa_of(const knit_linear_level *level, knit_dtype weight);
/* The same for weights in panels; a level has none or all. */
typedef struct knit_linear_panels { const knit_linear_isa *q8_0, *q4_0, *q4_k, *q6_k; } knit_linear_panels;
extern const knit_linear_panels knit__linear_panels_avx2, knit__linear_panels_avx512, knit__linear_panels_neon,
	knit__linear_panels_dotprod;

/* rows x columns outputs of one unit of work. */
typedef struct knit_linear_block {
	const knit_linear_isa *isa;
	/* f32 rows; where the weights are quantised rows in scratch, one after the other: knit__linear_row_bytes apart */
	const char *x[KNIT_LINEAR_ROWS];
	int64_t rows, columns, k;
	const char *w;                   /* the first weight row; of a panel, where there are panels */
	int64_t w_stride;                /* bytes; of a panel */
	float *out;
	int64_t out_stride;
	int64_t ahead;                   /* bytes; 0: nothing is asked for in advance */
	bool add;                        /* to what out holds */
} knit_linear_block;
void knit__linear_block(const knit_linear_block *b);
void knit__linear_row_f32_avx2(const knit_linear_block *b);
void knit__linear_row_f16_avx2(const knit_linear_block *b);
void knit__linear_row_bf16_avx2(const knit_linear_block *b);
void knit__linear_row_f32_avx512(const knit_linear_block *b);
void knit__linear_row_f16_avx512(const knit_linear_block *b);
void knit__linear_row_bf16_avx512(const knit_linear_block *b);
void knit__linear_many_q8_0_avx512(const knit_linear_block *b, int64_t k0, int64_t column);
void knit__linear_many_q4_0_avx512(const knit_linear_block *b, int64_t k0, int64_t column);
void knit__linear_many_q4_k_avx512(const knit_linear_block *b, int64_t k0, int64_t column);
void knit__linear_many_q6_k_avx512(const knit_linear_block *b, int64_t k0, int64_t column);
void knit__linear_many_floats_avx512(const knit_linear_block *b, int64_t k0, int64_t column);
/* Sets w and w_stride for the columns from `column` on, which begins a unit. */
void knit__linear_block_weight(knit_linear_block *b, const knit_cpu_tensor *w, int64_t column);
/* How a step of rows x columns outputs is cut into units. */
typedef struct knit_linear_cut { int64_t rows, columns, row_blocks, column_blocks; } knit_linear_cut;
knit_linear_cut knit__linear_cut(int64_t rows, int64_t columns, uint32_t threads);
/* One row of x to scratch, as weights of isa's type need it. */
void knit__linear_quantise_row(const knit_linear_isa *isa, const float *x, int64_t k, char *row);

/* A quantised row of x: k_padded int8 q; then k_padded / 4 int32, minus `bias` times the sum of q by fours (what makes
 * up for weights stored with a bias added, in the lanes of an int8 dot product); then k_padded / 32 float scales.
 * x[i] ~ q[i] * scale[i / 32]. Filled up with zeros to a multiple of 64 elements. */
static inline int64_t knit__linear_padded(int64_t k) { return (k + 63) / 64 * 64; }
static inline int64_t knit__linear_row_bytes(int64_t k) {
	return (knit__linear_padded(k) * 2 + knit__linear_padded(k) / 8 + 63) / 64 * 64;
}
static inline const char *knit__linear_q(const knit_linear_tile_args *a, int row) { return a->x[row] + a->k0; }
static inline const char *knit__linear_bias(const knit_linear_tile_args *a, int row) {
	return a->x[row] + a->k_padded + a->k0;
}
static inline const char *knit__linear_scale(const knit_linear_tile_args *a, int row) {
	return a->x[row] + 2 * a->k_padded + a->k0 / 8;
}

/* For q4_K, whose minima multiply the sum of a block of x: k / 32 floats in the place of the int32, the block's scale
 * times the sum of its q. */
static inline const char *knit__linear_block_sum(const knit_linear_tile_args *a, int row) {
	return a->x[row] + a->k_padded + a->k0 / 8;
}

/* For weights in panels, sums go by block and not by fours: k_padded / 32 int32 in the same place. */
static inline const char *knit__linear_panel_q(const knit_linear_tile_args *a, int row, int64_t block) {
	return a->x[row] + block * 32;
}
static inline int32_t knit__linear_panel_bias(const knit_linear_tile_args *a, int row, int64_t block) {
	int32_t v;

	memcpy(&v, a->x[row] + a->k_padded + block * 4, sizeof v);
	return v;
}
/* Of q4_K: the block's sum, as without panels. Of q6_K: sums by parts of 16, k / 16 int32. */
static inline float knit__linear_panel_sum(const knit_linear_tile_args *a, int row, int64_t block) {
	float v;

	memcpy(&v, a->x[row] + a->k_padded + block * 4, sizeof v);
	return v;
}
static inline float knit__linear_panel_scale(const knit_linear_tile_args *a, int row, int64_t block) {
	float v;

	memcpy(&v, a->x[row] + 2 * a->k_padded + block * 4, sizeof v);
	return v;
}

/* Bytes from a weight to the one that a tile of one row should ask memory for meanwhile: the same place some tiles
 * further down the matrix, by default near enough to stay in the second cache until it is used. Rows are too short for
 * the processor to see a stream in them. */
#define KNIT_LINEAR_AHEAD (48 << 10)
static inline int64_t knit__linear_ahead(const knit_linear_tile_args *a, int columns) {
	const int64_t tile = a->w_stride * columns;

	if (a->ahead == 0)
		return 0;
	return tile >= a->ahead || tile <= 0 ? tile : (a->ahead / tile + 1) * tile;
}
/* The address may lie outside the matrix: it is only a hint, nothing is read through it. Always inline: a compiler may
 * take a function that only asks for a function that does nothing. */
static inline __attribute__((always_inline)) void knit__prefetch(const char *p) { __builtin_prefetch(p, 0, 2); }

/* One block of 32 as every variant must quantise it: q = round(x * 127 / max|x|), scale = max|x| / 127. Blocks with a
 * NaN or an infinity get the scale NaN; variants hand them, and blocks too small for f32's 127 / max, to this. */
void knit__linear_quantise_block(const float *x, int8_t *q, float *scale);
/* The range of the bits of max|x| that a variant may treat by itself, and zero. */
#define KNIT_LINEAR_MAX_LO UINT32_C(0x0d800000) /* 2^-100 */
#define KNIT_LINEAR_MAX_HI UINT32_C(0x7f800000) /* infinity */
void knit__linear_quantise_plain(const float *x, int64_t k, int32_t bias, char *row);
void knit__linear_quantise_avx2(const float *x, int64_t k, int32_t bias, char *row);
void knit__linear_quantise_panels(const float *x, int64_t k, int32_t bias, char *row);
void knit__linear_quantise_panels16(const float *x, int64_t k, int32_t bias, char *row); /* for q6_K */
/* The NEON tiles need no sums of the q of blocks in the file's layout; `panels` and `panels16` as above. */
void knit__linear_quantise_neon(const float *x, int64_t k, int32_t bias, char *row);
void knit__linear_quantise_panels_neon(const float *x, int64_t k, int32_t bias, char *row);
void knit__linear_quantise_panels16_neon(const float *x, int64_t k, int32_t bias, char *row);
/* From a row that one of the above has quantised with any bias: the block sums that q4_K wants. */
void knit__linear_sum_blocks(int64_t k, char *row);

bool knit__linear_accepts_panels(const knit_node_view *node, knit_dtype weight);
bool knit__linear_accepts(const knit_node_view *node, knit_dtype weight);
uint64_t knit__linear_scratch(const knit_node_view *node, uint32_t threads);
int64_t knit__linear_row_units(const knit_cpu_step *s);
int64_t knit__linear_units(const knit_cpu_step *s);
void knit__linear_quantise(const knit_cpu_step *s, int64_t begin, int64_t end, const knit_linear_isa *isa);
void knit__linear_quantise_own(const knit_cpu_step *s, uint32_t thread, const knit_linear_isa *isa);
void knit__linear_run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread, const knit_linear_isa *isa);
/* What one row of x reads of a weight, from one output to another. */
knit_cpu_read knit__linear_read(const knit_cpu_tensor *w, int64_t begin, int64_t end);
uint32_t knit__linear_reads(const knit_cpu_step *s, int64_t begin, int64_t end, knit_cpu_read *out);

/* The kernels of a variant, from its isa_f32, isa_f16, isa_bf16, isa_q8_0, isa_q4_0, isa_q4_k, isa_q6_k. */
#define KNIT_LINEAR_RUN(type) \
	static void run_##type(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		knit__linear_run(s, begin, end, thread, &isa_##type); \
	}
#define KNIT_LINEAR_QUANTISE(type) \
	static void quantise_##type(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		knit__linear_quantise(s, begin, end, &isa_##type); \
	} \
	static void own_##type(const knit_cpu_step *s, uint32_t thread) { \
		knit__linear_quantise_own(s, thread, &isa_##type); \
	}
#define KNIT_LINEAR_ENTRY(type, DTYPE) \
	static bool accepts_##type(const knit_node_view *node) { return knit__linear_accepts(node, DTYPE); } \
	KNIT_LINEAR_RUN(type)
#define KNIT_LINEAR_QUANTISED_ENTRY(type, DTYPE) KNIT_LINEAR_ENTRY(type, DTYPE) KNIT_LINEAR_QUANTISE(type)
#define KNIT_LINEAR_KERNEL(type, suffix, level) \
	const knit_cpu_kernel knit__linear_##type##_##suffix = { \
		"linear_" #type "_" #suffix, KNIT_OP_LINEAR, level, accepts_##type, NULL, \
		{{knit__linear_units, run_##type, NULL}}, knit__linear_reads};
#define KNIT_LINEAR_QUANTISED_PHASES(type) \
	{{knit__linear_row_units, quantise_##type, NULL}, {knit__linear_units, run_##type, own_##type}}
#define KNIT_LINEAR_QUANTISED_KERNEL(type, suffix, level) \
	const knit_cpu_kernel knit__linear_##type##_##suffix = { \
		"linear_" #type "_" #suffix, KNIT_OP_LINEAR, level, accepts_##type, knit__linear_scratch, \
		KNIT_LINEAR_QUANTISED_PHASES(type), knit__linear_reads};
/* The kernels of a variant for weights in panels, from its isa_q8_0, isa_q4_0, isa_q4_k, isa_q6_k. */
#define KNIT_LINEAR_PANEL_KERNEL(type, DTYPE, suffix, level) \
	static bool accepts_##type(const knit_node_view *node) { return knit__linear_accepts_panels(node, DTYPE); } \
	KNIT_LINEAR_RUN(type) \
	KNIT_LINEAR_QUANTISE(type) \
	const knit_cpu_kernel knit__linear_##type##_panels_##suffix = { \
		"linear_" #type "_panels_" #suffix, KNIT_OP_LINEAR, level, accepts_##type, knit__linear_scratch, \
		KNIT_LINEAR_QUANTISED_PHASES(type), knit__linear_reads};
#define KNIT_LINEAR_PANEL_KERNELS(suffix, level) \
	KNIT_LINEAR_PANEL_KERNEL(q8_0, KNIT_Q8_0, suffix, level) \
	KNIT_LINEAR_PANEL_KERNEL(q4_0, KNIT_Q4_0, suffix, level) \
	KNIT_LINEAR_PANEL_KERNEL(q4_k, KNIT_Q4_K, suffix, level) \
	KNIT_LINEAR_PANEL_KERNEL(q6_k, KNIT_Q6_K, suffix, level) \
	const knit_linear_panels knit__linear_panels_##suffix = {&isa_q8_0, &isa_q4_0, &isa_q4_k, &isa_q6_k};
#define KNIT_LINEAR_KERNELS(suffix, level) \
	KNIT_LINEAR_ENTRY(f32, KNIT_F32) \
	KNIT_LINEAR_ENTRY(f16, KNIT_F16) \
	KNIT_LINEAR_ENTRY(bf16, KNIT_BF16) \
	KNIT_LINEAR_QUANTISED_ENTRY(q8_0, KNIT_Q8_0) \
	KNIT_LINEAR_QUANTISED_ENTRY(q4_0, KNIT_Q4_0) \
	KNIT_LINEAR_QUANTISED_ENTRY(q4_k, KNIT_Q4_K) \
	KNIT_LINEAR_QUANTISED_ENTRY(q6_k, KNIT_Q6_K) \
	KNIT_LINEAR_KERNEL(f32, suffix, level) \
	KNIT_LINEAR_KERNEL(f16, suffix, level) \
	KNIT_LINEAR_KERNEL(bf16, suffix, level) \
	KNIT_LINEAR_QUANTISED_KERNEL(q8_0, suffix, level) \
	KNIT_LINEAR_QUANTISED_KERNEL(q4_0, suffix, level) \
	KNIT_LINEAR_QUANTISED_KERNEL(q4_k, suffix, level) \
	KNIT_LINEAR_QUANTISED_KERNEL(q6_k, suffix, level) \
	const knit_linear_level knit__linear_level_##suffix = {&isa_f32,  &isa_f16,  &isa_bf16, &isa_q8_0, \
	                                                     &isa_q4_0, &isa_q4_k, &isa_q6_k};

#endif
