/* Tests whole plans on random graphs: the checker accepts what the planner makes; any order that the hazards allow gives
 * the bits that memory without sharing gives; and of plans that were changed by chance, the checker lets pass only those
 * that still do. */
#include "../tools/fake_target.h"
#include "../tools/random_graph.h"
#include "../tools/schedule_run.h"
#include "../tools/slow.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRAPHS 40
#define STEPS 24
#define CHANGES 16 /* per graph */

static knit_context *context;

static uint32_t next(uint32_t *state, uint32_t below) {
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % below;
}

/* A target that asks for scratch here and there, and takes strides only in some ops. */
static void vary_target(fake_target *f, uint32_t seed) {
	fake_target_init(f);
	f->scratch[KNIT_OP_LINEAR] = seed % 2 ? 1000 : 0;
	f->scratch[KNIT_OP_ATTENTION] = 4096;
	f->scratch[KNIT_OP_RMS_NORM] = seed % 3 ? 1 : 64;
	for (int op = 1; op < KNIT_OP_COUNT; ++op)
		f->dense[op] = op != KNIT_OP_COPY && (seed >> 2) % 2;
}

static knit_graph *make_graph(fake_target *f, uint32_t seed) {
	knit_diag d = {0};
	knit_graph *g;

	vary_target(f, seed);
	ck_assert_msg(random_graph(context, seed, STEPS, &g, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
	ck_assert_msg(fake_target_legalise(f, g, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
	return g;
}

static knit_schedule *make_schedule(const knit_graph *g, const knit_bounds *b, const fake_target *f, uint32_t seed) {
	knit_diag d = {0};
	knit_schedule *s;

	ck_assert_msg(knit__schedule_create(g, b, &f->target, &s, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
	return s;
}

static void set_symbols(const knit_bounds *b, uint32_t count, uint32_t *rng, int64_t *symbols) {
	for (uint32_t i = 0; i < count; ++i)
		symbols[i] = b->lo[i] + (int64_t)next(rng, (uint32_t)(b->hi[i] - b->lo[i] + 1));
}

static void check_equal(const schedule_run *want, const knit_schedule *s, const int64_t *symbols, const uint32_t *order,
                        uint32_t seed, const char *what) {
	schedule_run got;

	ck_assert(schedule_run_create(s, symbols, seed, order, true, &got));
	ck_assert_msg(schedule_run_equal(want, &got), "seed %u: %s gives other bits", seed, what);
	schedule_run_clear(&got);
}

static void run_graph(uint32_t seed, bool decode, uint64_t *bytes) {
	fake_target f;
	knit_graph *g = make_graph(&f, seed);
	knit_bounds b;
	knit_diag d = {0};
	int64_t symbols[KNIT_MAX_SYMBOLS];
	uint32_t rng = seed * 2654435761u + 1, order[512];
	schedule_run want;

	knit__bounds_declared(&g->exprs, &b);
	if (decode)
		b.hi[0] = b.lo[0]; /* tokens = 1 */
	knit_schedule *s = make_schedule(g, &b, &f, seed), *again = make_schedule(g, &b, &f, seed);

	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
	ck_assert_uint_le(s->step_count, 512);

	/* Deterministic. */
	ck_assert_uint_eq(s->plan.arena_bytes, again->plan.arena_bytes);
	ck_assert_mem_eq(s->plan.offset, again->plan.offset, g->storage_count * sizeof *s->plan.offset);
	ck_assert_uint_eq(s->hazard_count, again->hazard_count);
	for (uint32_t i = 0; i < s->hazard_count; ++i)
		ck_assert(s->hazards[i].before == again->hazards[i].before && s->hazards[i].after == again->hazards[i].after &&
		          s->hazards[i].kind == again->hazards[i].kind);
	ck_assert_uint_ge(s->plan.arena_bytes, s->plan.lower_bound);
	ck_assert_uint_le(s->plan.arena_bytes, s->plan.unshared_bytes);

	set_symbols(&b, g->exprs.symbol_count, &rng, symbols);
	ck_assert(schedule_run_create(s, symbols, seed, NULL, false, &want));
	check_equal(&want, s, symbols, NULL, seed, "the plan");
	for (int i = 0; i < 3; ++i) {
		ck_assert(schedule_run_shuffle(s, seed * 10 + (uint32_t)i, order));
		check_equal(&want, s, symbols, order, seed, "an order that the hazards allow");
	}
	bytes[0] += s->plan.arena_bytes;
	bytes[1] += s->plan.lower_bound;
	bytes[2] += s->plan.unshared_bytes;
	bytes[3] += s->plan.inplace_count;
	bytes[4] += s->step_count;

	schedule_run_clear(&want);
	knit__schedule_destroy(s);
	knit__schedule_destroy(again);
	knit_graph_destroy(g);
}

static void print_totals(const char *what, const uint64_t *bytes) {
	printf("%s: arena / lower bound %.4f, arena / unshared %.3f, %llu of %llu steps in place\n", what,
	       (double)bytes[0] / (double)bytes[1], (double)bytes[0] / (double)bytes[2], (unsigned long long)bytes[3],
	       (unsigned long long)bytes[4]);
	ck_assert_double_le((double)bytes[0] / (double)bytes[1], 1.05);
	ck_assert_uint_gt(bytes[3], 0);
}

START_TEST(plans_of_all_sizes) {
	uint64_t bytes[5] = {0};

	for (uint32_t seed = 1; seed <= GRAPHS; ++seed)
		run_graph(seed, false, bytes);
	print_totals("all sizes", bytes);
}
END_TEST

START_TEST(plans_of_one_token) {
	uint64_t bytes[5] = {0};

	for (uint32_t seed = 1; seed <= GRAPHS / 2; ++seed)
		run_graph(seed, true, bytes);
	print_totals("one token", bytes);
}
END_TEST

/* ---- many ----------------------------------------------------------------------------------------------------------- */

typedef struct extent { uint64_t begin, end; uint32_t first, last; } extent;

static int compare_extents(const void *x, const void *y) {
	const extent *a = x, *b = y;

	return a->begin < b->begin ? -1 : a->begin > b->begin;
}

static void touch(const knit_schedule *s, const knit_operand *o, uint32_t step, extent *of) {
	uint64_t bytes;

	if (o->buffer == UINT32_MAX || s->buffers[o->buffer].use != KNIT_BUFFER_ARENA)
		return;
	extent *p = &of[s->graph->values[o->value].storage];
	ck_assert(knit__storage_max_bytes(s->graph, &s->bounds, s->graph->values[o->value].storage, &bytes));
	if (p->end == 0)
		*p = (extent){o->base, o->base + (bytes + 63) / 64 * 64, step, step};
	p->last = step;
}

/* The most bytes that are needed at one step, from what the steps touch: bytes that two results share in place count once.
 * An own sum, to compare with the planner's bound. */
static uint64_t fullest_step(const knit_schedule *s) {
	static extent of[4096], alive[4096];
	uint64_t fullest = 0;

	ck_assert_uint_lt(s->graph->storage_count, 4096);
	memset(of, 0, s->graph->storage_count * sizeof *of);
	for (uint32_t at = 0; at < s->step_count; ++at) {
		for (uint32_t i = 0; i < s->steps[at].in_count; ++i)
			touch(s, &s->steps[at].in[i], at, of);
		for (uint32_t i = 0; i < s->steps[at].out_count; ++i)
			touch(s, &s->steps[at].out[i], at, of);
	}
	for (uint32_t at = 0; at < s->step_count; ++at) {
		uint64_t bytes = (s->steps[at].scratch_bytes + 63) / 64 * 64, top = 0;
		uint32_t count = 0;

		for (uint32_t i = 1; i < s->graph->storage_count; ++i)
			if (of[i].end != 0 && of[i].first <= at && at <= of[i].last)
				alive[count++] = of[i];
		qsort(alive, count, sizeof *alive, compare_extents);
		for (uint32_t i = 0; i < count; ++i) {
			const uint64_t begin = alive[i].begin > top ? alive[i].begin : top;

			bytes += alive[i].end > begin ? alive[i].end - begin : 0;
			top = alive[i].end > top ? alive[i].end : top;
		}
		fullest = bytes > fullest ? bytes : fullest;
	}
	return fullest;
}

/* Returns the arena's bytes. */
static uint64_t plan_one(const knit_graph *g, fake_target *f, uint32_t seed, bool apart, uint32_t *above) {
	knit_bounds b;
	knit_diag d = {0};

	knit__bounds_declared(&g->exprs, &b);
	if (seed % 3 == 0)
		b.hi[0] = b.lo[0]; /* tokens = 1 */
	f->target.results_apart = apart;
	knit_schedule *s = make_schedule(g, &b, f, seed);

	ck_assert_msg(knit__memory_check(s, g->a, &d) == KNIT_OK, "seed %u: %s", seed, d.text);
	ck_assert_uint_ge(s->plan.arena_bytes, s->plan.lower_bound);
	ck_assert_uint_le(s->plan.arena_bytes, s->plan.unshared_bytes);
	ck_assert_uint_le(s->plan.arena_bytes, s->plan.in_order_bytes);
	ck_assert_msg(fullest_step(s) == s->plan.lower_bound, "seed %u: the fullest step needs %llu bytes, the bound is %llu",
	              seed, (unsigned long long)fullest_step(s), (unsigned long long)s->plan.lower_bound);
	ck_assert(!apart || s->plan.inplace_count == 0);
	*above += s->plan.arena_bytes > s->plan.lower_bound;

	const uint64_t bytes = s->plan.arena_bytes;
	knit__schedule_destroy(s);
	return bytes;
}

START_TEST(many_plans) {
	const uint32_t graphs = wanted_sets();
	uint32_t above[2] = {0}, less = 0;
	uint64_t bytes[2] = {0};

	for (uint32_t seed = 1; seed <= graphs; ++seed) {
		fake_target f;
		knit_graph *g = make_graph(&f, seed);
		const uint64_t shared = plan_one(g, &f, seed, false, &above[0]), apart = plan_one(g, &f, seed, true, &above[1]);

		less += shared < apart;
		bytes[0] += shared;
		bytes[1] += apart;
		knit_graph_destroy(g);
	}
	printf("%u random graphs: %u plans above the lower bound in place, %u without; %u need less in place, %.3f of the bytes\n",
	       graphs, above[0], above[1], less, (double)bytes[0] / (double)bytes[1]);
	ck_assert_uint_le(above[0] + above[1], graphs / 50);
	ck_assert_uint_gt(less, graphs / 10);
}
END_TEST

/* ---- changed by chance ---------------------------------------------------------------------------------------------- */

static void move_storage(knit_schedule *s, uint32_t storage, uint64_t base, uint32_t from_step) {
	for (uint32_t at = from_step; at < s->step_count; ++at) {
		for (uint32_t i = 0; i < s->steps[at].in_count; ++i)
			if (s->steps[at].in[i].buffer == s->arena_buffer && s->graph->values[s->steps[at].in[i].value].storage == storage)
				s->steps[at].in[i].base = base;
		for (uint32_t i = 0; i < s->steps[at].out_count; ++i)
			if (s->steps[at].out[i].buffer == s->arena_buffer &&
			    s->graph->values[s->steps[at].out[i].value].storage == storage)
				s->steps[at].out[i].base = base;
	}
}

static uint32_t some_temp(const knit_schedule *s, uint32_t *rng) {
	for (;;) {
		const uint32_t storage = 1 + next(rng, s->graph->storage_count - 1);

		if (s->plan.slot[storage] != UINT32_MAX)
			return storage;
	}
}

/* One change; what it was, for messages. */
static const char *change(knit_schedule *s, uint32_t *rng) {
	const uint32_t at = next(rng, s->step_count), other = next(rng, s->step_count), hazard = next(rng, s->hazard_count);
	const uint64_t place = next(rng, (uint32_t)(s->plan.arena_bytes / 64)) * UINT64_C(64);
	const uint32_t storage = some_temp(s, rng);
	knit_step moved;

	switch (next(rng, 6)) {
	case 0:
		move_storage(s, storage, place, 0);
		return "a storage elsewhere";
	case 1:
		move_storage(s, storage, s->plan.offset[some_temp(s, rng)], 0);
		return "a storage on another one";
	case 2:
		move_storage(s, storage, place, at);
		return "a storage elsewhere from some step on";
	case 3:
		s->hazards[hazard] = s->hazards[--s->hazard_count];
		return "a hazard dropped";
	case 4:
		s->steps[at].scratch_base = place;
		return "scratch elsewhere";
	default:
		moved = s->steps[at];
		s->steps[at] = s->steps[other];
		s->steps[other] = moved;
		return "two steps exchanged";
	}
}

START_TEST(changed_plans) {
	uint32_t rejected = 0, accepted = 0, order[512];

	for (uint32_t seed = 1; seed <= GRAPHS; ++seed) {
		fake_target f;
		knit_graph *g = make_graph(&f, seed);
		uint32_t rng = seed * 747796405u + 1;
		knit_bounds b;
		int64_t symbols[KNIT_MAX_SYMBOLS];
		schedule_run want;

		knit__bounds_declared(&g->exprs, &b);
		memcpy(symbols, b.hi, sizeof symbols);
		knit_schedule *s = make_schedule(g, &b, &f, seed);
		ck_assert(schedule_run_create(s, symbols, seed, NULL, false, &want));
		knit__schedule_destroy(s);

		for (int i = 0; i < CHANGES; ++i) {
			knit_diag d = {0};
			char what[128];

			s = make_schedule(g, &b, &f, seed);
			const char *first = change(s, &rng);
			snprintf(what, sizeof what, "change %d (%s), accepted by the checker,", i, first);
			if (knit__memory_check(s, g->a, &d) != KNIT_OK) {
				ck_assert_int_eq(d.status, KNIT_ERR_INTERNAL);
				ck_assert_ptr_nonnull(strstr(d.text, "memory check: "));
				++rejected;
			} else {
				++accepted;
				check_equal(&want, s, symbols, NULL, seed, what);
				ck_assert(schedule_run_shuffle(s, seed + (uint32_t)i, order));
				check_equal(&want, s, symbols, order, seed, what);
			}
			knit__schedule_destroy(s);
		}
		schedule_run_clear(&want);
		knit_graph_destroy(g);
	}
	printf("changed plans: %u rejected, %u accepted and right\n", rejected, accepted);
	ck_assert_uint_gt(rejected, accepted); /* many changes change nothing: scratch of a step that has none */
}
END_TEST

int main(void) {
	const TTest *const tests[] = {plans_of_all_sizes, plans_of_one_token, many_plans, changed_plans};
	int failed;

	if (knit_context_create(NULL, &context) != KNIT_OK)
		return 1;
	failed = suite_run("random_plans", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
