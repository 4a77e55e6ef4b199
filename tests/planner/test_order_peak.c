/* Tests what the pass "order" does for memory: plans after it never need more than before, branches run one by one, and
 * results take the place of a second operand that dies. */
#include "../tools/fake_target.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "../../graph/memory_plan.h"
#include "../../graph/pass.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS 16
#define WIDE 256
#define NARROW 16
#define BRANCHES 5

static const knit_memory_rules rules = {.align = 64};
static knit_context *context;

static uint64_t next(uint64_t *state) {
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static knit_memory_plan plan(const knit_graph *g) {
	knit_memory_plan p;
	knit_diag d = {0};

	ck_assert_msg(knit__memory_plan_create(g, NULL, NULL, &rules, &p, &d) == KNIT_OK, "%s", d.text);
	return p;
}

static uint64_t bound_of(const knit_graph *g) {
	knit_memory_plan p = plan(g);
	const uint64_t bound = p.lower_bound;

	knit__memory_plan_clear(&p, g->a);
	return bound;
}

static uint32_t order(knit_graph *g) {
	uint32_t changes = 0;
	knit_diag d = {0};

	ck_assert_msg(knit__pass_order(g, NULL, &changes, &d) == KNIT_OK, "%s", d.text);
	return changes;
}

static void legalise(knit_graph *g) {
	fake_target f;
	knit_diag d = {0};

	fake_target_init(&f);
	ck_assert_msg(fake_target_legalise(&f, g, &d) == KNIT_OK, "%s", d.text);
}

/* Shuffled, then made valid by the pass: as if somebody had built the graph in any order. */
static void shuffle(knit_graph *g, uint64_t seed) {
	for (uint32_t i = g->order_count; i-- > 1;) {
		const uint32_t k = (uint32_t)(next(&seed) % (i + 1)), kept = g->order[i];

		g->order[i] = g->order[k];
		g->order[k] = kept;
	}
}

static void run_random(uint64_t seed, uint64_t *lower, uint64_t *bytes) {
	knit_graph *g, *shuffled;
	knit_diag d = {0};

	ck_assert_int_eq(random_graph(context, seed, 24, &g, &d), KNIT_OK);
	legalise(g);
	ck_assert_int_eq(knit__graph_clone(g, &shuffled, &d), KNIT_OK);

	const uint64_t before = bound_of(g);

	order(g);
	ck_assert_uint_eq(order(g), 0);
	const uint64_t after = bound_of(g);
	ck_assert_msg(after <= before, "seed %llu: %llu bytes before, %llu after", (unsigned long long)seed,
	              (unsigned long long)before, (unsigned long long)after);

	shuffle(shuffled, seed);
	order(shuffled);
	ck_assert_uint_eq(order(shuffled), 0);
	bytes[0] += before;
	bytes[1] += after;
	bytes[2] += bound_of(shuffled);
	*lower += after < before;
	knit_graph_destroy(g);
	knit_graph_destroy(shuffled);
}

START_TEST(never_more_than_before) {
	uint64_t lower = 0, bytes[3] = {0};

	for (uint64_t seed = 1; seed <= 200; ++seed)
		run_random(seed, &lower, bytes);
	printf("200 random graphs: %llu need less in another order, all together %.3f of the bytes, %.3f from shuffled ones\n",
	       (unsigned long long)lower, (double)bytes[1] / (double)bytes[0], (double)bytes[2] / (double)bytes[0]);
	ck_assert_uint_gt(lower, 20);
	ck_assert_double_le((double)bytes[2] / (double)bytes[0], 1.1);
}
END_TEST

/* Each branch widens and narrows again; the wide results are all made first. */
static knit_graph *wide_branches(knit_weights *weights) {
	const knit_dim dims[2] = {knit_n(ROWS), knit_n(NARROW)};
	knit_tensor wide[BRANCHES], sum = {0};
	knit_graph *g;

	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	for (int i = 0; i < BRANCHES; ++i)
		wide[i] = knit_linear(g, x, knit_weight(g, weights, "up"));
	for (int i = 0; i < BRANCHES; ++i) {
		const knit_tensor narrow = knit_linear(g, wide[i], knit_weight(g, weights, "down"));
		sum = i ? knit_add(g, sum, narrow) : narrow;
	}
	knit_output(g, "y", sum);
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	legalise(g);
	return g;
}

static knit_weights *make_weights(void) {
	const int64_t up[2] = {WIDE, NARROW}, down[2] = {NARROW, WIDE};
	static const float zeros[WIDE * NARROW];
	knit_weights *w;

	ck_assert_int_eq(knit_weights_create(context, &w), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(w, "up", KNIT_F32, 2, up, zeros, sizeof zeros, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(w, "down", KNIT_F32, 2, down, zeros, sizeof zeros, NULL), KNIT_OK);
	return w;
}

START_TEST(branches_run_one_by_one) {
	const uint64_t wide = ROWS * WIDE * sizeof(float), narrow = ROWS * NARROW * sizeof(float);
	knit_weights *w = make_weights();
	knit_graph *g = wide_branches(w);

	/* All wide results and the first narrow one; then one of each and the sum. */
	ck_assert_uint_eq(bound_of(g), BRANCHES * wide + narrow);
	ck_assert_uint_gt(order(g), 0);
	ck_assert_uint_eq(bound_of(g), wide + 2 * narrow);
	knit_memory_plan p = plan(g);
	ck_assert_uint_eq(p.arena_bytes, p.lower_bound);
	knit__memory_plan_clear(&p, g->a);
	knit_graph_destroy(g);
	knit_weights_release(w);
}
END_TEST

START_TEST(second_operand_gives_its_place) {
	const knit_dim dims[2] = {knit_n(ROWS), knit_n(NARROW)};
	knit_graph *g;

	ck_assert_int_eq(knit_graph_create(context, &g), KNIT_OK);
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims), dies = knit_gelu(g, x), sum = knit_add(g, x, dies);
	knit_output(g, "y", knit_softmax(g, knit_silu(g, sum)));
	legalise(g);

	knit_memory_plan p = plan(g);
	ck_assert_uint_eq(p.inplace_count, 1); /* silu alone; softmax writes the output */
	knit__memory_plan_clear(&p, g->a);
	ck_assert_uint_eq(order(g), 1);
	p = plan(g);
	ck_assert_uint_eq(p.inplace_count, 2);
	ck_assert_uint_eq(p.arena_bytes, ROWS * NARROW * sizeof(float));
	knit__memory_plan_clear(&p, g->a);
	knit_graph_destroy(g);
}
END_TEST

START_TEST(allocation_failures) {
	track_alloc t = {0};
	knit_context *own = track_context(&t), *kept = context;
	knit_status status = KNIT_ERR_MEMORY;

	ck_assert_ptr_nonnull(own);
	context = own;
	for (uint64_t fail = 1; status != KNIT_OK; ++fail) {
		knit_weights *w = make_weights();
		knit_graph *g = wide_branches(w);
		const uint64_t live = t.live;
		uint32_t changes = 0;
		knit_diag d = {0};

		t.count = 0;
		t.fail_at = fail;
		status = knit__pass_order(g, NULL, &changes, &d);
		t.fail_at = 0;
		ck_assert(status == KNIT_OK || status == KNIT_ERR_MEMORY);
		ck_assert_uint_eq(t.live, live);
		ck_assert_uint_lt(fail, 100);
		knit_graph_destroy(g);
		knit_weights_release(w);
	}
	knit_context_destroy(own);
	ck_assert(!t.bad_free);
	context = kept;
}
END_TEST

int main(void) {
	const TTest *const tests[] = {never_more_than_before, branches_run_one_by_one, second_operand_gives_its_place,
	                              allocation_failures};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("order_peak", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
