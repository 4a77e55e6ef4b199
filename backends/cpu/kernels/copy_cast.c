/* Owns the CPU kernels of copy and cast, and the conversion of runs of floats. References: ops/cast.c, ops/quant.c. */
#include "half.h"
#include "kernels.h"
#include "operand.h"

/* ---- runs of floats ---------------------------------------------------------------------------------------------- */

void knit__floats_to_f32(knit_dtype t, const char *src, float *restrict dst, int64_t n) {
	if (t == KNIT_F32)
		memcpy(dst, src, (size_t)n * sizeof *dst);
	else if (t == KNIT_F16)
		for (int64_t i = 0; i < n; ++i)
			dst[i] = knit__half_load(knit__load_u16(src + i * 2));
	else
		for (int64_t i = 0; i < n; ++i)
			dst[i] = knit__brain_load(knit__load_u16(src + i * 2));
}

void knit__floats_from_f32(knit_dtype t, const float *restrict src, char *dst, int64_t n) {
	uint16_t *const out = (uint16_t *)(void *)dst;

	if (t == KNIT_F32)
		memcpy(dst, src, (size_t)n * sizeof *src);
	else if (t == KNIT_F16)
		for (int64_t i = 0; i < n; ++i)
			out[i] = knit__half_store(src[i]);
	else
		for (int64_t i = 0; i < n; ++i)
			out[i] = knit__brain_store(src[i]);
}

/* ---- both kernels: row by row ------------------------------------------------------------------------------------ */

#define PIECE 256

static int64_t units(const knit_cpu_step *s) {
	return knit__ceil_div(knit__cpu_outer(&s->out[0], 1), knit__rows_per_unit(knit__row_length(&s->out[0])));
}

static const char *row_of(const knit_cpu_tensor *t, int64_t r) {
	return t->data + knit__bytes_of(t->dtype, knit__row_offset(t, r, 1));
}

static void copy_strided(const char *src, int64_t stride, char *dst, int64_t n, bool wide) {
	if (wide)
		for (int64_t i = 0; i < n; ++i)
			memcpy(dst + i * 4, src + i * stride * 4, 4);
	else
		for (int64_t i = 0; i < n; ++i)
			memcpy(dst + i * 2, src + i * stride * 2, 2);
}

static void run_copy(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const knit_cpu_tensor *const x = &s->in[0];
	const int64_t n = knit__row_length(x), stride = x->strides[x->rank - 1], step = knit__rows_per_unit(n);
	const int64_t last = knit__min(end * step, knit__cpu_outer(x, 1)), bytes = knit__bytes_of(x->dtype, n);

	(void)thread;
	for (int64_t r = begin * step; r < last; ++r) {
		if (stride == 1 || n == 1)
			memcpy(s->out[0].data + r * bytes, row_of(x, r), (size_t)bytes);
		else
			copy_strided(row_of(x, r), stride, s->out[0].data + r * bytes, n, bytes == n * 4);
	}
}

static void run_cast(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const knit_cpu_tensor *const x = &s->in[0], *const out = &s->out[0];
	const int64_t n = knit__row_length(x), step = knit__rows_per_unit(n);
	const int64_t last = knit__min(end * step, knit__cpu_outer(x, 1)), bytes = knit__bytes_of(out->dtype, n);
	float piece[PIECE];

	(void)thread;
	for (int64_t r = begin * step; r < last; ++r) {
		for (int64_t at = 0; at < n; at += PIECE) {
			const int64_t count = knit__min(PIECE, n - at);

			knit__floats_to_f32(x->dtype, row_of(x, r) + knit__bytes_of(x->dtype, at), piece, count);
			knit__floats_from_f32(out->dtype, piece, out->data + r * bytes + knit__bytes_of(out->dtype, at), count);
		}
	}
}

static bool accepts_copy(const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0], *const out = &node->out[0];

	/* blocks have no strides of their own: whole rows only */
	return (!knit__is_block(x->dtype) || x->contiguous) && x->layout == 0 && x->rank >= 1 && out->dtype == x->dtype &&
	       out->layout == 0 && out->rank == x->rank && out->contiguous;
}

static bool accepts_cast(const knit_node_view *node) {
	const knit_operand_view *const x = &node->in[0], *const out = &node->out[0];

	return knit__is_float(x->dtype) && x->layout == 0 && x->rank >= 1 && x->rows_contiguous &&
	       knit__is_float(out->dtype) && out->layout == 0 && out->rank == x->rank && out->contiguous;
}

const knit_cpu_kernel knit__copy_plain = {"copy", KNIT_OP_COPY, KNIT_CPU_PLAIN, accepts_copy, NULL, {{units, run_copy}}};
const knit_cpu_kernel knit__cast_plain = {"cast", KNIT_OP_CAST, KNIT_CPU_PLAIN, accepts_cast, NULL, {{units, run_cast}}};
