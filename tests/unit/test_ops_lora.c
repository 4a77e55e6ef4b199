/* The low-rank part of a linear: knit_lora, and lora_select's type, reference, cost and refusals. */
#include "../../graph/op_def.h"
#include "../tools/op_eval.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 5, K = 6, RANK = 3, N = 4, SEQUENCES = 3, SLOTS = 2 };

/* W' = s B A of a slot, whole, then times x: another way than the op goes. */
static double by_the_matrix(op_array *x, op_array *a, op_array *b, double s, int64_t token, int64_t slot, int64_t j) {
	double y = 0;

	for (int64_t i = 0; i < K; ++i) {
		double w = 0;

		for (int64_t r = 0; r < RANK; ++r)
			w += *op_array_at(b, slot, j, r, 0) * *op_array_at(a, slot, r, i, 0);
		y += s * w * *op_array_at(x, token, i, 0, 0);
	}
	return y;
}

START_TEST(reference) {
	static const double adapters[SEQUENCES] = {1, 0, 1}, seqs[TOKENS] = {2, 0, 1, 1, 2};
	static op_array x, a, b, which, seq, y;
	const knit_attr attr[] = {{.f = -0.75}};

	op_array_init(&x, KNIT_F32, TOKENS, K, 0, 0);
	op_array_init(&a, KNIT_F32, SLOTS, RANK, K, 0);
	op_array_init(&b, KNIT_F32, SLOTS, N, RANK, 0);
	op_array_init(&which, KNIT_I32, SEQUENCES, 0, 0, 0);
	op_array_init(&seq, KNIT_I32, TOKENS, 0, 0, 0);
	op_array_init(&y, KNIT_F32, TOKENS, N, 0, 0);
	op_array_random(&x, 1);
	op_array_random(&a, 2);
	op_array_random(&b, 3);
	op_array_set(&which, adapters);
	op_array_set(&seq, seqs);
	op_eval(KNIT_OP_LORA_SELECT, attr, (op_array *const[]){&x, &a, &b, &which, &seq}, 5, &y);
	for (int64_t t = 0; t < TOKENS; ++t)
		for (int64_t j = 0; j < N; ++j)
			ck_assert_double_eq_tol(*op_array_at(&y, t, j, 0, 0),
									by_the_matrix(&x, &a, &b, -0.75, t, (int64_t)adapters[(int64_t)seqs[t]], j), 1e-12);
	/* What no run lets through is seen: a sequence and an adapter that are not there. */
	seq.data[1] = SEQUENCES;
	which.data[1] = -1;
	op_eval(KNIT_OP_LORA_SELECT, attr, (op_array *const[]){&x, &a, &b, &which, &seq}, 5, &y);
	for (int64_t j = 0; j < N; ++j) {
		ck_assert(isnan(*op_array_at(&y, 1, j, 0, 0)) && isnan(*op_array_at(&y, 2, j, 0, 0)));
		ck_assert(isfinite(*op_array_at(&y, 0, j, 0, 0)) && isfinite(*op_array_at(&y, 4, j, 0, 0)));
	}
}
END_TEST

/* ---- building ---------------------------------------------------------------------------------------------------- */

static knit_context *ctx;
static knit_graph *g;
static knit_dim tokens;
static knit_tensor x, half, which, seq, few, a, b, wide_b, long_b, two, none;

static void open_graph(void) {
	const knit_dim sequences = knit_n(SEQUENCES);

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	tokens = knit_sym(g, "tokens", 1, 64);
	x = knit_input(g, "x", KNIT_F32, 2, (knit_dim[]){tokens, {K}});
	half = knit_input(g, "half", KNIT_F16, 2, (knit_dim[]){tokens, {K}});
	which = knit_input(g, "which", KNIT_I32, 1, &sequences);
	seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	few = knit_input(g, "few", KNIT_I32, 1, (knit_dim[]){{2}});
	a = knit_adapter_slots(g, KNIT_F32, SLOTS, RANK, K, "a");
	b = knit_adapter_slots(g, KNIT_F16, SLOTS, N, RANK, "b");
	wide_b = knit_adapter_slots(g, KNIT_F32, SLOTS, N, RANK + 1, "wide_b");
	long_b = knit_adapter_slots(g, KNIT_F32, SLOTS + 1, N, RANK, "long_b");
	two = knit_reshape(g, a, 2, (knit_dim[]){{SLOTS * RANK}, {K}});
	none = (knit_tensor){0};
}

static void close_graph(void) {
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}

START_TEST(types_and_nodes) {
	char text[96];
	knit_diag d;

	open_graph();
	const uint32_t before = g->node_count;
	const knit_tensor y = knit_lora(g, x, a, b, 0.5f, which, seq);
	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(g->node_count, before + 1);
	ck_assert_uint_eq(g->nodes[before].op, KNIT_OP_LORA_SELECT);
	knit__value_text(g, y.id, text, sizeof text);
	ck_assert_str_eq(text, "f32 [tokens, 4]");
	/* Without a choice it is what one would write. */
	const knit_tensor plain_b = knit_reshape(g, knit_adapter_slots(g, KNIT_F32, 1, N, SLOTS * RANK, "c"), 2,
											 (knit_dim[]){{N}, {SLOTS * RANK}});
	const knit_tensor plain = knit_lora(g, x, two, plain_b, 0.5f, none, none);
	ck_assert_msg(knit_graph_status(g, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(g->node_count, before + 4);
	ck_assert_uint_eq(g->nodes[before + 1].op, KNIT_OP_LINEAR);
	ck_assert_uint_eq(g->nodes[before + 2].op, KNIT_OP_LINEAR);
	ck_assert_uint_eq(g->nodes[before + 3].op, KNIT_OP_SCALE);
	knit__value_text(g, plain.id, text, sizeof text);
	ck_assert_str_eq(text, "f32 [tokens, 4]");
	close_graph();
}
END_TEST

static void wrong(knit_tensor x_, knit_tensor a_, knit_tensor b_, float s, knit_tensor which_, knit_tensor seq_,
				  knit_status status, const char *part) {
	knit_diag d;

	/* The operands of each call anew: the first error of a graph stays. */
	ck_assert_uint_eq(knit_lora(g, x_, a_, b_, s, which_, seq_).id, 0);
	ck_assert_int_eq(knit_graph_status(g, &d), status);
	ck_assert_msg(strstr(d.text, "lora_select") && strstr(d.text, part), "\"%s\" does not say \"%s\"", d.text, part);
	close_graph();
	open_graph();
}

START_TEST(wrong_calls) {
	open_graph();
	wrong(half, a, b, 1, which, seq, KNIT_ERR_SHAPE, "x is f16");
	wrong(x, two, b, 1, which, seq, KNIT_ERR_SHAPE, "rank 3");
	wrong(x, a, two, 1, which, seq, KNIT_ERR_SHAPE, "b is f32 [6, 6]");
	wrong(x, a, wide_b, 1, which, seq, KNIT_ERR_SHAPE, "b [count, n, r]");
	wrong(x, a, long_b, 1, which, seq, KNIT_ERR_SHAPE, "f32 [3, 4, 3]");
	wrong(x, wide_b, b, 1, which, seq, KNIT_ERR_SHAPE, "innermost dimensions differ");
	wrong(x, a, b, NAN, which, seq, KNIT_ERR_ARGUMENT, "finite");
	wrong(x, a, b, 1, x, seq, KNIT_ERR_SHAPE, "adapter_of_sequence");
	wrong(x, a, b, 1, which, few, KNIT_ERR_SHAPE, "one per token");
	wrong(x, a, b, 1, which, none, KNIT_ERR_ARGUMENT, "seq is no tensor");
	wrong(x, a, b, 1, none, seq, KNIT_ERR_ARGUMENT, "adapter_of_sequence is no tensor");
	wrong(none, a, b, 1, which, seq, KNIT_ERR_ARGUMENT, "x is no tensor");
	ck_assert_uint_eq(knit_lora(NULL, x, a, b, 1, which, seq).id, 0);
	ck_assert_uint_eq(knit_lora(NULL, x, two, two, 1, none, none).id, 0);
	close_graph();
}
END_TEST

/* Two tokens read the matrices of two slots at most, many all that there are sequences or slots for. */
START_TEST(costs) {
	static const struct { int64_t tokens, sequences, slots, read; } cases[] = {
		{1, 8, 4, 1}, {2, 8, 4, 2}, {100, 8, 4, 4}, {100, 3, 4, 3},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const int64_t t = cases[i].tokens;
		const knit_shape in[] = {{KNIT_F32, 2, {t, 64}},
								 {KNIT_F32, 3, {cases[i].slots, 8, 64}},
								 {KNIT_F16, 3, {cases[i].slots, 32, 8}},
								 {KNIT_I32, 1, {cases[i].sequences}},
								 {KNIT_I32, 1, {t}}};
		const knit_shape out = {KNIT_F32, 2, {t, 32}};
		const knit_attr attr[] = {{.f = 1}};
		knit_cost c;

		knit__op(KNIT_OP_LORA_SELECT)->cost(attr, in, 5, &out, 0, &c);
		ck_assert_double_eq(c.flops, (double)(t * (2 * (64 * 8 + 8 * 32) + 32)));
		ck_assert_uint_eq(c.read_bytes, (uint64_t)(t * 64 * 4 + cases[i].read * (8 * 64 * 4 + 32 * 8 * 2) +
												   cases[i].sequences * 4 + t * 4));
		ck_assert_uint_eq(c.write_bytes, (uint64_t)t * 32 * 4);
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {reference, types_and_nodes, wrong_calls, costs};

	return suite_run("ops_lora", tests, sizeof tests / sizeof *tests);
}
