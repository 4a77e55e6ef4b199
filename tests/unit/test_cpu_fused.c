/* The fused kernels of the CPU that multiply no matrices: against the references, and bit for bit against the kernels of
 * the steps that they stand for. */
#include "../../graph/fused.h"
#include "../tools/kernel_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const knit_dtype stored[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
#define STORED (int)(sizeof stored / sizeof stored[0])
static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16};

static bool blocks(knit_dtype t) { return knit__dtype_info(t)->is_block; }

/* ---- add_rms_norm ------------------------------------------------------------------------------------------------ */

START_TEST(add_rms_norm_is_its_steps) {
	static const int64_t columns[] = {1, 7, 64, 257, 1031};

	for (int i = 0; i < 15; ++i) {
		const int64_t dims[] = {1 + i % 4 * 5, columns[i % 5]};
		kernel_bench b = {.op = KNIT_OP_ADD_RMS_NORM, .seed = (uint64_t)i, .attr[0].f = 1e-5}, norm;
		double *ref[KNIT_MAX_OUT];

		bench_in(&b, 0, KNIT_F32, 2, dims, 1, i % 2 ? 3 : 0, 0);
		bench_in(&b, 1, KNIT_F32, 2, dims, 1, i % 3, 0);
		bench_in(&b, 2, floats[i % 3], 1, dims + 1, 1, 0, 0);
		bench_out(&b, KNIT_F32, 2, dims);
		bench_out_more(&b, KNIT_F32, 2, dims);
		ck_assert(bench_accepts(&b, bench_kernel(b.op, 0)));
		bench_references(&b, false, ref);
		bench_run(&b, bench_kernel(b.op, 0), 1, 2);
		for (int64_t e = 0; e < bench_count(&b.out); ++e) {
			const int64_t r = e / dims[1], j = e % dims[1];

			ck_assert(bench_floats(&b.out)[e] == bench_floats(&b.in[0].t)[r * b.in[0].t.strides[0] + j] +
			                                      bench_floats(&b.in[1].t)[r * b.in[1].t.strides[0] + j]);
			ck_assert_double_le(fabs((double)bench_floats(&b.out)[e] - ref[0][e]), 1e-6);
			ck_assert_double_le(fabs((double)bench_floats(&b.more[0].t)[e] - ref[1][e]), 1e-5 * (1 + fabs(ref[1][e])));
		}

		norm = (kernel_bench){.op = KNIT_OP_RMS_NORM, .in_count = 2, .attr[0].f = 1e-5};
		norm.in[0].t = b.out;
		norm.in[1].t = b.in[2].t;
		bench_out(&norm, KNIT_F32, 2, dims);
		bench_run(&norm, bench_kernel(KNIT_OP_RMS_NORM, 0), 0, 1);
		ck_assert_mem_eq(norm.out.data, b.more[0].t.data, norm.out_bytes);
		norm.in_count = 0;
		bench_free(&norm);

		/* in place of a */
		if (i % 2 == 0) {
			float *const apart = bench_copy(b.out.data, b.out_bytes), *const normed = bench_copy(b.more[0].t.data, b.out_bytes);
			char *const own = b.out.data;

			b.out.data = b.in[0].t.data;
			b.writes_state = true; /* what it holds is not wiped */
			bench_run(&b, bench_kernel(b.op, 0), 1, 2);
			ck_assert_mem_eq(apart, b.out.data, b.out_bytes);
			ck_assert_mem_eq(normed, b.more[0].t.data, b.out_bytes);
			b.out.data = own;
			free(apart);
			free(normed);
		}
		for (int o = 0; o < KNIT_MAX_OUT; ++o)
			free(ref[o]);
		bench_free(&b);
	}
}
END_TEST

/* ---- kv_write ---------------------------------------------------------------------------------------------------- */

typedef struct kv_case {
	knit_dtype k, v;
	int64_t tokens, heads, kv_heads, dim, rotary, ring, sinks;
	knit_rope_layout layout;
	bool flat; /* states of rank 3 */
} kv_case;

#define CELLS 12

static void make_kv(kernel_bench *b, const kv_case *c) {
	const int64_t row = c->kv_heads * c->dim, q[] = {c->tokens, c->heads, c->dim}, kv[] = {c->tokens, c->kv_heads, c->dim};
	const int64_t rows[] = {c->tokens, row}, flat[] = {2, CELLS, row}, apart[] = {2, CELLS, c->kv_heads, c->dim};
	int32_t seq[64], pos[64];

	*b = (kernel_bench){.op = KNIT_OP_KV_WRITE, .seed = (uint64_t)(c->tokens + c->dim)};
	b->attr[KNIT_KV_THETA].f = 10000;
	b->attr[KNIT_KV_ROTARY].i = c->rotary;
	b->attr[KNIT_KV_LAYOUT].i = c->layout;
	b->attr[KNIT_KV_RING].i = c->ring;
	b->attr[KNIT_KV_SINKS].i = c->sinks;
	bench_in(b, KNIT_KV_KSTATE, c->k, c->flat ? 3 : 4, c->flat ? flat : apart, 1, 0, 0);
	bench_in(b, KNIT_KV_VSTATE, c->v, c->flat ? 3 : 4, c->flat ? flat : apart, 1, 0, 0);
	bench_in(b, KNIT_KV_Q, KNIT_F32, 3, q, 1, 0, 0);
	bench_in(b, KNIT_KV_K, KNIT_F32, 3, kv, 1, 4, 0);
	bench_in(b, KNIT_KV_V, KNIT_F32, c->flat ? 2 : 3, c->flat ? rows : kv, 1, 6, 0);
	for (int64_t t = 0; t < c->tokens; ++t) {
		seq[t] = (int32_t)(t % 2);
		pos[t] = (int32_t)(t / 2 + (c->ring ? 100 : 1));
	}
	bench_indices(b, KNIT_KV_SEQ, c->tokens, seq);
	bench_indices(b, KNIT_KV_POS, c->tokens, pos);
	bench_out_state(b);
	bench_out_more_state(b);
	bench_out_more(b, KNIT_F32, 3, q);
}

/* Rotated queries or keys. */
static void run_rope(const kernel_bench *b, uint32_t x, kernel_bench *out) {
	*out = (kernel_bench){.op = KNIT_OP_ROPE, .in_count = 2};
	memcpy(out->attr, b->attr, 3 * sizeof *out->attr);
	out->in[0].t = b->in[x].t;
	out->in[1].t = b->in[KNIT_KV_POS].t;
	bench_out(out, KNIT_F32, 3, b->in[x].t.dims);
	bench_run(out, bench_kernel(KNIT_OP_ROPE, 0), 0, 1);
	out->in_count = 0;
}

/* A copy of the state before, written by append. */
static void run_append(const kernel_bench *b, const knit_cpu_tensor *state, char *bytes, const knit_cpu_tensor *rows) {
	kernel_bench append = {.op = KNIT_OP_STATE_APPEND, .in_count = 4, .writes_state = true};

	append.attr[0] = b->attr[KNIT_KV_RING];
	append.attr[1] = b->attr[KNIT_KV_SINKS];
	append.in[0].t = append.out = *state;
	append.in[0].t.data = append.out.data = bytes;
	append.in[1].t = *rows;
	if (state->rank == 3 && rows->rank == 3) { /* dense rows */
		append.in[1].t.rank = 2;
		append.in[1].t.dims[1] = append.in[1].t.strides[0] = rows->dims[1] * rows->dims[2];
		append.in[1].t.strides[1] = 1;
	}
	append.in[2].t = b->in[KNIT_KV_SEQ].t;
	append.in[3].t = b->in[KNIT_KV_POS].t;
	ck_assert(bench_accepts(&append, bench_kernel(KNIT_OP_STATE_APPEND, 0)));
	bench_run(&append, bench_kernel(KNIT_OP_STATE_APPEND, 0), 0, 1);
}

static void check_kv(const kv_case *c, int64_t piece) {
	const knit_cpu_kernel *const kernel = bench_kernel(KNIT_OP_KV_WRITE, 0);
	kernel_bench b, q, k;

	make_kv(&b, c);
	ck_assert(bench_accepts(&b, kernel));
	uint64_t k_bytes, v_bytes;
	ck_assert(knit__dtype_bytes(c->k, (uint64_t)bench_count(&b.out), &k_bytes));
	ck_assert(knit__dtype_bytes(c->v, (uint64_t)bench_count(&b.more[0].t), &v_bytes));
	char *const k_state = bench_copy(b.out.data, k_bytes), *const v_state = bench_copy(b.more[0].t.data, v_bytes);
	double *ref[KNIT_MAX_OUT];

	bench_references(&b, false, ref);
	run_rope(&b, KNIT_KV_Q, &q);
	run_rope(&b, KNIT_KV_K, &k);
	run_append(&b, &b.out, k_state, &k.out);
	run_append(&b, &b.more[0].t, v_state, &b.in[KNIT_KV_V].t);
	bench_run(&b, kernel, piece, 3);
	ck_assert_mem_eq(q.out.data, b.more[1].t.data, q.out_bytes);
	ck_assert_mem_eq(k_state, b.out.data, k_bytes);
	ck_assert_mem_eq(v_state, b.more[0].t.data, v_bytes);

	/* and the steps themselves agree with the reference; a block's step is its largest element / 7 or more */
	double *const got = bench_values(&b.out), step = c->k == KNIT_Q4_0 ? 0.25 : c->k == KNIT_F32 ? 1e-6 : 2e-2;
	for (int64_t e = 0; e < bench_count(&b.out); ++e)
		ck_assert_double_le(fabs(got[e] - ref[0][e]), step);
	free(got);
	for (int o = 0; o < KNIT_MAX_OUT; ++o)
		free(ref[o]);
	free(k_state);
	free(v_state);
	bench_free(&q);
	bench_free(&k);
	bench_free(&b);
}

START_TEST(kv_write_is_its_steps) {
	for (int i = 0; i < STORED * STORED; ++i) {
		const knit_dtype k = stored[i / STORED], v = stored[i % STORED];
		const bool odd = !blocks(k) && !blocks(v);
		kv_case c = {k, v, 1 + i % 4 * 3, 6, 3, odd ? 10 : 32, odd ? 6 : 32, 0, 0, i % 2 ? KNIT_ROPE_SPLIT : KNIT_ROPE_INTERLEAVED,
		             i % 3 == 0};

		check_kv(&c, i % 3);
		c.sinks = 2;
		c.ring = CELLS - c.sinks;
		check_kv(&c, 1);
		if (!c.flat)
			continue;
		/* head_dim no multiple of a block, rows are */
		c.dim = c.rotary = 16;
		c.kv_heads = 4;
		c.heads = 4;
		check_kv(&c, 2);
	}
}
END_TEST

/* A cell outside the slot: nothing is written, the query is rotated all the same. */
START_TEST(kv_write_leaves_out_what_is_not_there) {
	const kv_case c = {KNIT_F16, KNIT_F32, 4, 2, 1, 8, 8, 0, 0, KNIT_ROPE_SPLIT, false};
	kernel_bench b;

	make_kv(&b, &c);
	for (int64_t t = 0; t < c.tokens; ++t) {
		bench_set(&b, KNIT_KV_SEQ, t, t == 0 ? -1 : t == 1 ? 2 : 0);
		bench_set(&b, KNIT_KV_POS, t, t == 2 ? CELLS : t == 3 ? -1 : 0);
	}
	char *const before = bench_copy(b.out.data, b.out_bytes);
	bench_run(&b, bench_kernel(KNIT_OP_KV_WRITE, 0), 1, 2);
	ck_assert_mem_eq(before, b.out.data, b.out_bytes);
	for (int64_t e = 0; e < bench_count(&b.more[1].t); ++e)
		ck_assert(isfinite(bench_floats(&b.more[1].t)[e]));
	free(before);
	bench_free(&b);
}
END_TEST

START_TEST(what_kv_write_refuses) {
	const kv_case c = {KNIT_Q8_0, KNIT_Q4_0, 4, 2, 2, 32, 32, 0, 0, KNIT_ROPE_SPLIT, false};
	const knit_cpu_kernel *const k = bench_kernel(KNIT_OP_KV_WRITE, 0);
	kernel_bench b;

	make_kv(&b, &c);
	ck_assert(bench_accepts(&b, k));
	b.in[KNIT_KV_V].t.strides[2] = 2;
	ck_assert(!bench_accepts(&b, k));
	b.in[KNIT_KV_V].t.strides[2] = 1;
	b.in[KNIT_KV_V].t.dims[2] = 16; /* values that end inside a block */
	ck_assert(!bench_accepts(&b, k));
	bench_free(&b);
}
END_TEST

/* ---- map --------------------------------------------------------------------------------------------------------- */

START_TEST(map_is_its_steps) {
	static const knit_map_instr programs[][KNIT_MAP_STEPS] = {
		{{KNIT_MAP_ADD, 0, 1, 0}, {KNIT_MAP_SILU, 4, 0, 0}},
		{{KNIT_MAP_SCALE, 0, 0, 0.3f}, {KNIT_MAP_MUL, 4, 2, 0}, {KNIT_MAP_ADD, 5, 1, 0}, {KNIT_MAP_GELU, 6, 0, 0}},
		{{KNIT_MAP_SILU, 1, 0, 0}, {KNIT_MAP_MUL, 4, 0, 0}, {KNIT_MAP_ADD, 5, 2, 0}, {KNIT_MAP_ADD, 6, 3, 0},
	     {KNIT_MAP_MUL, 7, 7, 0}, {KNIT_MAP_ADD, 8, 4, 0}},
		{{KNIT_MAP_GELU, 0, 0, 0}},
	};
	static const int64_t columns[] = {1, 7, 255, 300, 5000};
	const knit_cpu_kernel *const kernel = bench_kernel(KNIT_OP_MAP, 0);

	for (int i = 0; i < 60; ++i) {
		const int64_t dims[] = {1 + i % 3 * 4, columns[i % 5]};
		kernel_bench b = {.op = KNIT_OP_MAP, .seed = (uint64_t)i};
		float *steps[KNIT_MAP_STEPS] = {0};
		const knit_map_instr *const program = programs[i % 4];

		for (int x = 0; x < KNIT_MAP_STEPS && program[x].op; ++x)
			b.attr[x].i = knit__map_encode(program[x]);
		bench_in(&b, 0, KNIT_F32, 2, dims, 2, 0, 0);
		bench_in(&b, 1, KNIT_F32, 2, dims, 2, 0, 0);
		bench_in(&b, 2, floats[i % 3], 1, dims + 1, 2, 0, 0);
		bench_in(&b, 3, KNIT_F32, 2, dims, 2, 0, 0);
		bench_out(&b, KNIT_F32, 2, dims);
		ck_assert(bench_accepts(&b, kernel));
		bench_run(&b, kernel, i % 2, 3);

		/* the same instructions as steps of their own */
		const int64_t count = bench_count(&b.out);
		int last = 0;
		for (int x = 0; x < KNIT_MAP_STEPS && program[x].op; ++x) {
			static const uint16_t ops[] = {0, KNIT_OP_ADD, KNIT_OP_MUL, KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU};
			kernel_bench step = {.op = ops[program[x].op], .in_count = program[x].op <= KNIT_MAP_MUL ? 2 : 1};
			const uint8_t regs[] = {program[x].a, program[x].b};

			step.attr[0].f = (double)program[x].s;
			for (uint32_t o = 0; o < step.in_count; ++o) {
				step.in[o].t = b.in[regs[o] < KNIT_MAP_OPERANDS ? regs[o] : 0].t;
				if (regs[o] >= KNIT_MAP_OPERANDS)
					step.in[o].t.data = (char *)steps[regs[o] - KNIT_MAP_OPERANDS];
			}
			bench_out(&step, KNIT_F32, 2, dims);
			bench_run(&step, bench_kernel(step.op, 0), 0, 1);
			steps[x] = bench_copy(step.out.data, (size_t)count * 4);
			last = x;
			step.in_count = 0;
			bench_free(&step);
		}
		ck_assert_msg(memcmp(steps[last], b.out.data, b.out_bytes) == 0, "map: program %d differs from its steps", i % 4);

		double *const ref = bench_reference(&b, false);
		for (int64_t e = 0; e < count; ++e)
			ck_assert_double_le(fabs((double)bench_floats(&b.out)[e] - ref[e]), 1e-4 * (1 + fabs(ref[e])));
		free(ref);

		/* in place of operand 0 */
		float *const apart = bench_copy(b.out.data, b.out_bytes);
		char *const own = b.out.data;
		b.out.data = b.in[0].t.data;
		b.writes_state = true;
		bench_run(&b, kernel, 1, 2);
		ck_assert_mem_eq(apart, b.out.data, b.out_bytes);
		b.out.data = own;
		free(apart);
		for (int x = 0; x < KNIT_MAP_STEPS; ++x)
			free(steps[x]);
		bench_free(&b);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {add_rms_norm_is_its_steps, kv_write_is_its_steps, kv_write_leaves_out_what_is_not_there,
	                              what_kv_write_refuses, map_is_its_steps};

	return suite_run("cpu fused", tests, (int)(sizeof tests / sizeof tests[0]));
}
