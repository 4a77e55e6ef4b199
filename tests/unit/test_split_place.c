/* Tests the choice of sides by itself: reads per token per byte, the budget, states, kernels that are missing, and what is
 * carried across. Programs are compiled for null+null, for their schedules alone. */
#include "../../backends/program.h"
#include "../../backends/split/split.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 10, DIM = 64, LOOPS = 3 };
#define LAYER_BYTES ((uint64_t)DIM * DIM * sizeof(float))

static knit_context *ctx;
static knit_program *program;

static void setup(void) { ck_assert_int_eq(knit_context_create(&(knit_context_desc){0}, &ctx), KNIT_OK); }

static void teardown(void) {
	knit_program_release(program);
	program = NULL;
	knit_context_destroy(ctx);
}

static void compile(knit_graph *g) {
	const knit_compile_desc desc = {.device = "null+null", .plan_only = true};
	knit_diag d = {0};

	ck_assert_msg(knit_compile(g, &desc, &program, &d) == KNIT_OK, "%s", d.text);
}

/* x = x + W[layer] x for each layer of the list. */
static void compile_layers(const int *visits, int count) {
	knit_weights *w = NULL;
	knit_graph *g = NULL;
	static float data[DIM * DIM];
	knit_diag d = {0};

	ck_assert_int_eq(knit_weights_create(ctx, &w), KNIT_OK);
	for (int i = 0; i < LAYERS; ++i) {
		char name[16];
		snprintf(name, sizeof name, "w%d", i);
		data[0] = (float)i; /* equal bytes would become one storage */
		ck_assert_int_eq(knit_weights_add(w, name, KNIT_F32, 2, (int64_t[]){DIM, DIM}, data, sizeof data, &d), KNIT_OK);
	}
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_dim dims[] = {knit_sym(g, "tokens", 1, 4), knit_n(DIM)};
	knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	for (int i = 0; i < count; ++i)
		x = knit_add(g, x, knit_linear(g, x, knit_weight(g, w, "w%d", visits[i])));
	knit_output(g, "y", x);
	compile(g);
	knit_graph_destroy(g);
	knit_weights_release(w);
}

/* 0 1 2, three times 3 4 5 6, 7 8 9. */
static void compile_looped(void) {
	int visits[LAYERS * LOOPS], count = 0;

	for (int i = 0; i < 3; ++i)
		visits[count++] = i;
	for (int loop = 0; loop < LOOPS; ++loop)
		for (int i = 3; i < 7; ++i)
			visits[count++] = i;
	for (int i = 7; i < LAYERS; ++i)
		visits[count++] = i;
	compile_layers(visits, count);
}

static void compile_small(void) {
	knit_weights *w = NULL;
	knit_graph *g = NULL;

	ck_assert_int_eq(small_model_weights(ctx, &w), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, w, &g), KNIT_OK);
	compile(g);
	knit_graph_destroy(g);
	knit_weights_release(w);
}

static const knit_schedule *schedule(void) { return program->buckets[0].schedule; }

static uint64_t arena(void) { return schedule()->plan.arena_bytes; }

/* With these kernels (NULL: all on both sides). */
static knit_split_place place(const uint8_t *can, uint64_t budget) {
	uint8_t all[512];
	knit_split_place p;
	knit_diag d = {0};

	ck_assert_uint_le(schedule()->step_count, sizeof all);
	memset(all, KNIT_ON_NEAR | KNIT_ON_FAR, sizeof all);
	ck_assert_msg(knit__split_place(schedule(), can ? can : all, budget, arena(), &program->a, &p, &d) == KNIT_OK, "%s",
	              d.text);
	return p;
}

static uint32_t buffer_named(const char *name) {
	for (uint32_t i = 0; i < schedule()->buffer_count; ++i)
		if (schedule()->buffers[i].use != KNIT_BUFFER_ARENA && strcmp(schedule()->buffers[i].name, name) == 0)
			return i;
	ck_abort_msg("no buffer %s", name);
	return 0;
}

static uint64_t near_sum(const knit_split_place *p) {
	const knit_split_sum *const s = &p->sums[KNIT_NEAR];

	return s->weight_bytes + s->state_bytes + s->arena_bytes + s->io_bytes;
}

static bool layer_on(const knit_split_place *p, int layer, uint8_t on) {
	char name[16];

	snprintf(name, sizeof name, "w%d", layer);
	return p->storages[buffer_named(name)].on == on;
}

/* Beside the arena and both ends, which are at most 4 rows each. */
static uint64_t room_for(int layers) { return arena() + 2 * 4 * DIM * sizeof(float) + (uint64_t)layers * LAYER_BYTES; }

START_TEST(looped_layers_go_first) {
	compile_looped();
	knit_split_place p = place(NULL, room_for(5));

	for (int i = 0; i < LAYERS; ++i)
		ck_assert_msg(layer_on(&p, i, (i >= 3 && i < 7) || i == 0 ? KNIT_ON_NEAR : KNIT_ON_FAR), "layer %d", i);
	ck_assert(p.storages[buffer_named("w3")].reads > 2.99 && p.storages[buffer_named("w3")].reads < 3.01);
	ck_assert(p.storages[buffer_named("w0")].reads > 0.99 && p.storages[buffer_named("w0")].reads < 1.01);
	ck_assert_int_eq(p.storages[buffer_named("w3")].why, KNIT_SPLIT_READS);
	ck_assert_int_eq(p.storages[buffer_named("w1")].why, KNIT_SPLIT_NO_ROOM);
	ck_assert_uint_eq(p.sums[KNIT_NEAR].read_bytes, 13 * LAYER_BYTES);
	ck_assert_uint_eq(p.sums[KNIT_FAR].read_bytes, 5 * LAYER_BYTES);
	ck_assert_uint_le(near_sum(&p), room_for(5));
	knit__split_place_clear(&p, &program->a);
}
END_TEST

/* Every choice of layers that fits, against the one that is made: none reads more from the near device. */
START_TEST(no_choice_reads_more) {
	static const uint32_t reads[LAYERS] = {1, 1, 1, 3, 3, 3, 3, 1, 1, 1};

	compile_looped();
	for (int room = 0; room <= LAYERS; ++room) {
		knit_split_place p = place(NULL, room_for(room));
		uint64_t best = 0;
		for (uint32_t set = 0; set < 1u << LAYERS; ++set) {
			uint64_t sum = 0;
			for (int i = 0; i < LAYERS; ++i)
				sum += set >> i & 1 ? reads[i] * LAYER_BYTES : 0;
			if (__builtin_popcount(set) <= room && sum > best)
				best = sum;
		}
		ck_assert_msg(p.sums[KNIT_NEAR].read_bytes == best, "room for %d: %llu read near, %llu possible", room,
		              (unsigned long long)p.sums[KNIT_NEAR].read_bytes, (unsigned long long)best);
		knit__split_place_clear(&p, &program->a);
	}
}
END_TEST

/* Equal reads: a beginning of the model goes near, so that there is one switch. */
START_TEST(equals_go_in_the_order_of_execution) {
	const int visits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
	knit_split_cut cut;

	compile_layers(visits, LAYERS);
	knit_split_place p = place(NULL, room_for(4));
	for (int i = 0; i < LAYERS; ++i)
		ck_assert(layer_on(&p, i, i < 4 ? KNIT_ON_NEAR : KNIT_ON_FAR));
	ck_assert_int_eq(knit__split_cut(schedule(), p.sides, &program->a, &cut, NULL), KNIT_OK);
	ck_assert_uint_eq(cut.run_count, 2);
	ck_assert_uint_eq(cut.move_count, 1);
	ck_assert_uint_eq(knit__split_move_bytes(schedule(), cut.moves[0].storage, (int64_t[KNIT_MAX_SYMBOLS]){3}),
	                  3 * DIM * sizeof(float));
	knit__split_cut_clear(&cut, &program->a);
	knit__split_place_clear(&p, &program->a);
}
END_TEST

START_TEST(nothing_fits_and_all_fits) {
	compile_small();
	knit_split_place none = place(NULL, 1), all = place(NULL, UINT64_MAX);

	ck_assert_uint_eq(none.sums[KNIT_NEAR].steps, 0);
	ck_assert_uint_eq(near_sum(&none), 0);
	ck_assert_uint_eq(all.sums[KNIT_FAR].steps, 0);
	ck_assert_uint_eq(all.sums[KNIT_NEAR].weight_bytes, small_model_weight_bytes() + small_model_adapter_bytes());
	ck_assert_uint_eq(all.sums[KNIT_NEAR].state_bytes, small_model_state_bytes());
	knit__split_place_clear(&none, &program->a);
	knit__split_place_clear(&all, &program->a);
}
END_TEST

/* ---- whatever the budget ----------------------------------------------------------------------------------------- */

static bool touches(const knit_step *step, uint32_t buffer) {
	for (uint32_t k = 0; k < step->in_count; ++k)
		if (step->in[k].buffer == buffer)
			return true;
	for (uint32_t k = 0; k < step->out_count; ++k)
		if (step->out[k].buffer == buffer)
			return true;
	return false;
}

static void check_states(const knit_split_place *p) {
	for (uint32_t b = 0; b < schedule()->buffer_count; ++b) {
		uint8_t on = 0;
		for (uint32_t i = 0; i < schedule()->step_count; ++i)
			if (touches(&schedule()->steps[i], b))
				on |= knit__on(p->sides[i]);
		ck_assert_uint_eq(p->storages[b].on, on);
		if (schedule()->buffers[b].use == KNIT_BUFFER_STATE)
			ck_assert_msg(on == KNIT_ON_NEAR || on == KNIT_ON_FAR, "a state is on both sides");
	}
}

static uint32_t storage_of(const knit_operand *o) { return schedule()->graph->values[o->value].storage; }

/* Plays the runs: what a step reads was written on its side, or moved there since. */
static void check_moves(const knit_split_place *p) {
	static uint8_t on[1024];
	knit_split_cut cut;
	uint32_t step = 0;

	ck_assert_uint_le(schedule()->graph->storage_count, sizeof on);
	memset(on, 0, sizeof on);
	ck_assert_int_eq(knit__split_cut(schedule(), p->sides, &program->a, &cut, NULL), KNIT_OK);
	for (uint32_t r = 0; r < cut.run_count; ++r) {
		const knit_split_run *const run = &cut.runs[r];
		ck_assert_uint_eq(run->first, step);
		ck_assert(r == 0 || run->side != cut.runs[r - 1].side);
		for (uint32_t k = 0; k < run->move_count; ++k) {
			uint8_t *const at = &on[cut.moves[run->first_move + k].storage];
			ck_assert_uint_ne(*at, 0);
			*at |= knit__on(run->side);
		}
		for (; step < run->first + run->count; ++step) {
			const knit_step *const s = &schedule()->steps[step];
			ck_assert_int_eq(p->sides[step], run->side);
			for (uint32_t k = 0; k < s->in_count; ++k) {
				const knit_operand *const o = &s->in[k];
				if (o->buffer == UINT32_MAX || schedule()->buffers[o->buffer].use == KNIT_BUFFER_CONST ||
				    schedule()->buffers[o->buffer].use == KNIT_BUFFER_STATE ||
				    schedule()->buffers[o->buffer].kind == KNIT_STORAGE_INPUT)
					continue;
				ck_assert_msg(on[storage_of(o)] & knit__on(run->side), "step %u reads what is on the other side", step);
			}
			for (uint32_t k = 0; k < s->out_count; ++k)
				on[storage_of(&s->out[k])] = knit__on(run->side);
		}
	}
	ck_assert_uint_eq(step, schedule()->step_count);
	knit__split_cut_clear(&cut, &program->a);
}

START_TEST(budgets_are_kept) {
	compile_small();
	uint64_t reads = 0;

	for (uint64_t budget = 1; budget < 100000; budget += 1777) {
		knit_split_place p = place(NULL, budget), again = place(NULL, budget);
		ck_assert_uint_le(near_sum(&p), budget);
		ck_assert_mem_eq(p.sides, again.sides, p.step_count * sizeof *p.sides);
		check_states(&p);
		check_moves(&p);
		reads = p.sums[KNIT_NEAR].read_bytes;
		knit__split_place_clear(&p, &program->a);
		knit__split_place_clear(&again, &program->a);
	}
	ck_assert_uint_gt(reads, 0);
}
END_TEST

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

START_TEST(a_step_goes_where_its_kernel_is) {
	uint8_t can[512];

	compile_small();
	for (uint32_t i = 0; i < schedule()->step_count; ++i) {
		memset(can, KNIT_ON_NEAR | KNIT_ON_FAR, sizeof can);
		can[i] = KNIT_ON_FAR;
		knit_split_place p = place(can, UINT64_MAX);
		ck_assert_int_eq(p.sides[i], KNIT_FAR);
		check_states(&p);
		check_moves(&p);
		knit__split_place_clear(&p, &program->a);
		can[i] = KNIT_ON_NEAR;
		p = place(can, 1);
		ck_assert_int_eq(p.sides[i], KNIT_NEAR);
		check_states(&p);
		knit__split_place_clear(&p, &program->a);
	}
}
END_TEST

START_TEST(a_state_needs_one_side) {
	uint8_t can[512];
	knit_split_place p;
	knit_diag d = {0};
	bool writer = false;

	compile_small();
	memset(can, KNIT_ON_NEAR | KNIT_ON_FAR, sizeof can);
	for (uint32_t i = 0; i < schedule()->step_count; ++i) {
		if (!touches(&schedule()->steps[i], buffer_named("k.0")))
			continue;
		can[i] = writer ? KNIT_ON_NEAR : KNIT_ON_FAR;
		writer = true;
	}
	ck_assert_int_eq(knit__split_place(schedule(), can, UINT64_MAX, arena(), &program->a, &p, &d), KNIT_ERR_UNSUPPORTED);
	ck_assert_msg(strstr(d.text, "neither device") != NULL, "%s", d.text);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {looped_layers_go_first,    no_choice_reads_more, equals_go_in_the_order_of_execution,
	                              nothing_fits_and_all_fits, budgets_are_kept,     a_step_goes_where_its_kernel_is,
	                              a_state_needs_one_side};
	Suite *s = suite_create("split_place");
	TCase *t = tcase_create("split_place");

	tcase_set_timeout(t, 250);
	tcase_add_checked_fixture(t, setup, teardown);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
