/* Owns lora_select: per token, s (x A^T) B^T with the matrices that its sequence chose. The sums are those of the linear
 * kernels, row by row, so a token has the same bits with its matrices among others as with them alone. Reference:
 * ops/lora.c. */
#include "linear.h"
#include "operand.h"

enum { X, A, B, ADAPTERS, SEQ };

#define UNIT_COLUMNS 256 /* of the result; a multiple of every tile's */

static bool accepts_slots(const knit_operand_view *v) {
	const bool block = knit__is_block(v->dtype) && !knit__is_super(v->dtype);

	return (knit__is_float(v->dtype) || block) && v->layout == 0 && v->rank == 3 && v->contiguous;
}

static bool accepts(const knit_node_view *node) {
	return knit__f32_rows(&node->in[X]) && node->in[X].rank == 2 && accepts_slots(&node->in[A]) &&
	       accepts_slots(&node->in[B]) && knit__index_vector(&node->in[ADAPTERS]) && knit__index_vector(&node->in[SEQ]) &&
	       knit__f32_dense(&node->out[0]);
}

/* ---- scratch: per token A' x, and the rows of x and of A' x as quantised weights want them -------------------------- */

static int64_t low_bytes(int64_t rank) { return (rank * 4 + 63) / 64 * 64; }

static int64_t quantised_bytes(knit_dtype weight, int64_t k) {
	return knit__is_block(weight) ? knit__linear_row_bytes(k) : 0;
}

static int64_t token_bytes(knit_dtype a, knit_dtype b, int64_t rank, int64_t k) {
	return low_bytes(rank) + quantised_bytes(a, k) + quantised_bytes(b, rank);
}

static uint64_t scratch(const knit_node_view *node, uint32_t threads) {
	const knit_operand_view *const a = &node->in[A], *const b = &node->in[B];
	uint64_t bytes;

	(void)threads;
	if (!knit__mul_u64(knit__max_rows(node, &node->in[X], 1),
	                   (uint64_t)token_bytes(a->dtype, b->dtype, a->dims[1].v, a->dims[2].v), &bytes))
		return UINT64_MAX;
	return bytes;
}

/* ---- a token at a time ------------------------------------------------------------------------------------------- */

typedef struct level { const knit_cpu_kernel *linear[KNIT_Q4_0 + 1]; } level; /* by weight type */

/* What one token reads and writes. */
typedef struct token {
	int64_t slot;
	char *low, *quantised_x, *quantised_low;
} token;

static token token_of(const knit_cpu_step *s, int64_t t) {
	const knit_cpu_tensor *const a = &s->in[A];
	const int32_t *const seq = (const int32_t *)(const void *)s->in[SEQ].data;
	const int32_t *const adapters = (const int32_t *)(const void *)s->in[ADAPTERS].data;
	char *const at = s->scratch + t * token_bytes(a->dtype, s->in[B].dtype, a->dims[1], a->dims[2]);
	char *const x = at + low_bytes(a->dims[1]);

	return (token){adapters[seq[t]], at, x, x + quantised_bytes(a->dtype, a->dims[2])};
}

static knit_cpu_tensor row(const void *data, int64_t n) {
	return (knit_cpu_tensor){
		.data = (char *)(uintptr_t)data, .dtype = KNIT_F32, .rank = 2, .dims = {1, n}, .strides = {n, 1}};
}

/* Rows [begin, begin + count) of one slot. */
static knit_cpu_tensor rows_of_slot(const knit_cpu_tensor *w, int64_t slot, int64_t begin, int64_t count) {
	return (knit_cpu_tensor){.data = w->data + knit__bytes_of(w->dtype, (slot * w->dims[1] + begin) * w->dims[2]),
	                         .dtype = w->dtype,
	                         .rank = 2,
	                         .dims = {count, w->dims[2]},
	                         .strides = {w->dims[2], 1}};
}

/* Quantised weights have a phase more, for many rows: of one, each thread makes what it needs by itself. */
static const knit_cpu_phase *phase_of(const level *l, knit_dtype weight) {
	return &l->linear[weight]->phases[knit__is_block(weight) ? 1 : 0];
}

/* One row by the linear of a weight's type, all on this thread; its scratch has room for one. */
static void prepare_row(const level *l, const knit_cpu_step *linear) {
	const knit_cpu_phase *const p = phase_of(l, linear->in[1].dtype);

	if (p->own)
		p->own(linear, 0);
}

static void run_row(const level *l, const knit_cpu_step *linear) {
	const knit_cpu_phase *const p = phase_of(l, linear->in[1].dtype);

	p->run(linear, 0, p->units(linear), 0);
}

static int64_t token_units(const knit_cpu_step *s) { return s->in[X].dims[0]; }

static void run_low(const knit_cpu_step *s, int64_t begin, int64_t end, const level *l) {
	const knit_cpu_tensor *const a = &s->in[A], *const b = &s->in[B];
	const int64_t rank = a->dims[1];

	for (int64_t t = begin; t < end; ++t) {
		const token at = token_of(s, t);
		knit_cpu_step first = {.scratch = at.quantised_x, .threads = 1}, second = {.scratch = at.quantised_low, .threads = 1};

		first.in[0] = row(knit__f32_row(&s->in[X], t), a->dims[2]);
		first.in[1] = rows_of_slot(a, at.slot, 0, rank);
		first.out[0] = row(at.low, rank);
		prepare_row(l, &first);
		run_row(l, &first);
		second.in[0] = first.out[0];
		second.in[1] = rows_of_slot(b, at.slot, 0, b->dims[1]);
		second.out[0] = row(NULL, b->dims[1]);
		prepare_row(l, &second);
	}
}

static int64_t column_blocks(const knit_cpu_step *s) { return knit__ceil_div(s->in[B].dims[1], UNIT_COLUMNS); }

static int64_t up_units(const knit_cpu_step *s) { return s->in[X].dims[0] * column_blocks(s); }

static void run_up(const knit_cpu_step *s, int64_t begin, int64_t end, const level *l) {
	const knit_cpu_tensor *const b = &s->in[B];
	const int64_t n = b->dims[1], blocks = column_blocks(s);
	const float scale = (float)s->attr[0].f;

	for (int64_t u = begin; u < end; ++u) {
		const int64_t t = u / blocks, column = u % blocks * UNIT_COLUMNS, count = knit__min(UNIT_COLUMNS, n - column);
		float *const out = (float *)(void *)s->out[0].data + t * n + column;
		const token at = token_of(s, t);
		knit_cpu_step second = {.scratch = at.quantised_low, .threads = 1};

		second.in[0] = row(at.low, b->dims[2]);
		second.in[1] = rows_of_slot(b, at.slot, column, count);
		second.out[0] = row(out, count);
		run_row(l, &second);
		for (int64_t i = 0; i < count; ++i)
			out[i] *= scale;
	}
}

#define LORA_KERNEL(suffix, level_isa) \
	static const level level_##suffix = {{[KNIT_F32] = &knit__linear_f32_##suffix, \
	                                      [KNIT_F16] = &knit__linear_f16_##suffix, \
	                                      [KNIT_BF16] = &knit__linear_bf16_##suffix, \
	                                      [KNIT_Q8_0] = &knit__linear_q8_0_##suffix, \
	                                      [KNIT_Q4_0] = &knit__linear_q4_0_##suffix}}; \
	static void low_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		run_low(s, begin, end, &level_##suffix); \
	} \
	static void up_##suffix(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) { \
		(void)thread; \
		run_up(s, begin, end, &level_##suffix); \
	} \
	const knit_cpu_kernel knit__lora_select_##suffix = { \
		"lora_select_" #suffix, KNIT_OP_LORA_SELECT, level_isa, accepts, scratch, \
		{{token_units, low_##suffix}, {up_units, up_##suffix}}};

LORA_KERNEL(plain, KNIT_CPU_PLAIN)
#if defined(__x86_64__)
LORA_KERNEL(avx2, KNIT_CPU_AVX2)
LORA_KERNEL(avx512, KNIT_CPU_AVX512)
#elif defined(__aarch64__)
LORA_KERNEL(neon, KNIT_CPU_NEON)
LORA_KERNEL(dotprod, KNIT_CPU_DOTPROD)
#endif
