/* Every invariant of the IR: a sound graph has no fault, and each planted fault is named. */
#include "../../graph/context.h"
#include "../../graph/op_def.h"
#include "../../graph/text.h"
#include "../../graph/validate.h"
#include "../tools/random_graph.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

/* Ids as in the text: values %1.. and storages s1..; nodes 1.. in order of lines. */
static const char sound[] = "knit-ir 1\n"
							"symbol t [1, 4]\n"
							"s1 = input \"x\" f32 128 bytes\n"
							"s2 = input \"p\" i32 16 bytes\n"
							"s3 = const \"w\" q8_0 1088 bytes\n"
							"s4 = state \"k\" f32 256 bytes\n"
							"s5 = output \"y\" f32 512 bytes\n"
							"%1 = input s1 : f32 [t, 8]\n"
							"%2 = input s2 : i32 [t]\n"
							"%3 = const s3 : q8_0 [32, 32]\n"
							"%4 = view %3 strides [32, 1] offset 64 : q8_0 [8, 32]\n"
							"%5 = state s4#0 : f32 [2, 4, 8]\n"
							"%6 = gather %4, %2 : f32 [t, 32] in s6\n"            /* node 1 */
							"%7 = append %5, %1, %2, %2 {ring=0, sinks=0} : f32 [2, 4, 8] in s4#1\n" /* node 2 */
							"%8 = append %7, %1, %2, %2 {ring=0, sinks=0} : f32 [2, 4, 8] in s4#2\n" /* node 3 */
							"%9 = view %8 strides [32, 8, 1] offset 0 : f32 [2, 4, 8]\n"
							"%10 = silu %9 : f32 [2, 4, 8] in s7\n"                /* node 4 */
							"%11 = linear %6, %3 : f32 [t, 32] in s5\n"            /* node 5 */
							"input \"x\" = %1\n"
							"input \"p\" = %2\n"
							"output \"y\" = %11\n"
							"output \"z\" = %10\n"
							"state s4 = %8\n";

static knit_graph *make(void) {
	knit_graph *g;
	knit_diag d = {0};

	ck_assert_msg(knit__parse_text(ctx, sound, &g, &d) == KNIT_OK, "%s", d.text);
	return g;
}

START_TEST(sound_graphs_have_no_fault) {
	for (uint64_t seed = 0; seed < 40; ++seed) {
		knit_text faults = {.a = &ctx->a};
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_msg(random_graph(ctx, seed, 25, &g, &d) == KNIT_OK, "%s", d.text);
		ck_assert_msg(knit__validate(g, &faults) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed, faults.data);
		ck_assert_uint_eq(faults.count, 0);
		knit_graph_destroy(g);
	}
	knit_graph *g;
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	ck_assert_int_eq(knit__validate(g, NULL), KNIT_OK);
	knit_graph_destroy(g);
}
END_TEST

/* ---- planted faults ---------------------------------------------------------------------------------------------- */

static void symbol_range(knit_graph *g) { g->exprs.symbols[0].hi = 0; }
static void symbol_count(knit_graph *g) { g->exprs.symbol_count = 400; }
static void expression_symbol(knit_graph *g) { g->exprs.data[0].sym[0] = 9; }
static void expression_negative(knit_graph *g) { g->exprs.data[0].lo = -1; }
static void storage_kind(knit_graph *g) { g->storages[3].kind = (knit_storage_kind)77; }
static void storage_dtype(knit_graph *g) { g->storages[3].dtype = (knit_dtype)77; }
static void storage_name(knit_graph *g) { g->storages[3].name = 0; }
static void storage_temp_name(knit_graph *g) { g->storages[6].name = 1; }
static void storage_host(knit_graph *g) { g->storages[1].host = g; }
static void storage_value(knit_graph *g) { g->storages[3].value = 1; }
static void storage_value_id(knit_graph *g) { g->storages[3].value = 4000000000u; }
static void storage_bytes(knit_graph *g) { g->storages[6].max_bytes++; }
static void value_storage(knit_graph *g) { g->values[6].storage = 99; }
static void value_shared(knit_graph *g) { g->values[10].storage = 6; }
static void value_dtype(knit_graph *g) { g->values[6].dtype = KNIT_I32; }
static void value_rank(knit_graph *g) { g->values[6].rank = 9; }
static void value_dim(knit_graph *g) { g->values[6].dims[0].v = -99; }
static void value_shape(knit_graph *g) { g->values[6].dims[1].v = 16; }
static void value_strides(knit_graph *g) { g->values[6].strides[0].v = 31; }
static void value_offset(knit_graph *g) { g->values[6].offset.v = 1; }
static void value_version(knit_graph *g) { g->values[6].version = 1; }
static void value_layout(knit_graph *g) { g->values[6].layout = 2; }
static void value_producer(knit_graph *g) { g->values[6].producer = 4; }
static void value_producer_id(knit_graph *g) { g->values[6].producer = 4000000000u; }
static void value_orphan(knit_graph *g) { g->values[6].producer = 0; }
static void leaf_producer(knit_graph *g) { g->values[1].producer = 1; }
static void view_root(knit_graph *g) { g->values[4].view_of = 1; }
static void view_root_id(knit_graph *g) { g->values[4].view_of = 4000000000u; }
static void view_of_view(knit_graph *g) { g->values[9].view_of = 4; }
static void view_end(knit_graph *g) { g->values[4].offset.v = 800; }
static void view_stride(knit_graph *g) { g->values[9].strides[0].v = INT64_MAX; }
static void view_block(knit_graph *g) { g->values[4].offset.v = 16; }
static void view_version(knit_graph *g) { g->values[9].version = 1; }
static void order_twice(knit_graph *g) { g->order[4] = 1; }
static void order_missing(knit_graph *g) { g->order_count--; }
static void order_id(knit_graph *g) { g->order[0] = 4000000000u; }
static void order_early(knit_graph *g) {
	g->order[0] = 5;
	g->order[4] = 1;
}
static void order_states(knit_graph *g) {
	g->order[1] = 3;
	g->order[2] = 2;
}
static void node_op(knit_graph *g) { g->nodes[4].op = 999; }
static void node_inputs(knit_graph *g) { g->nodes[4].in_count = 2; }
static void node_input_count(knit_graph *g) { g->nodes[4].in_count = 255; }
static void node_outputs(knit_graph *g) { g->nodes[4].out_count = 2; }
static void node_input(knit_graph *g) { g->nodes[4].in[0] = 4000000000u; }
static void node_input_none(knit_graph *g) { g->nodes[4].in[0] = 0; }
static void node_output(knit_graph *g) { g->nodes[4].out[0] = 6; }
static void node_output_id(knit_graph *g) { g->nodes[4].out[0] = 4000000000u; }
static void node_origin(knit_graph *g) { g->nodes[4].origin = 4000000000u; }
static void node_removed(knit_graph *g) { g->nodes[1].op = KNIT_OP_NONE; }
static void node_types(knit_graph *g) { g->nodes[5].in[0] = 1; }
static void node_result(knit_graph *g) { g->nodes[4].in[0] = 6; }
static void node_attr(knit_graph *g) {
	g->nodes[4].op = KNIT_OP_CAST;
	g->nodes[4].attr[0].i = 99;
}
static void state_current(knit_graph *g) { g->states[0].current = 7; }
static void state_current_id(knit_graph *g) { g->states[0].current = 4000000000u; }
static void state_storage(knit_graph *g) { g->states[0].storage = 1; }
static void state_lost(knit_graph *g) { g->state_count = 0; }
static void state_loop(knit_graph *g) { g->nodes[2].in[0] = 8; }
static void state_fork(knit_graph *g) { g->nodes[3].in[0] = 5; }
static void state_late_read(knit_graph *g) {
	g->nodes[4].in[0] = 5; /* reads version 0 after it was written over */
}
static void state_written(knit_graph *g) { g->storages[4].kind = KNIT_STORAGE_TEMP; }
static void port_name(knit_graph *g) { g->outputs[0].name = 0; }
static void port_twice(knit_graph *g) { g->outputs[1].name = g->outputs[0].name; }
static void port_value(knit_graph *g) { g->outputs[1].value = 4000000000u; }
static void port_input(knit_graph *g) { g->inputs[0].value = 6; }
static void port_input_lost(knit_graph *g) { g->input_count = 1; }
static void port_input_name(knit_graph *g) { g->inputs[0].name = g->inputs[1].name; }
static void port_owner(knit_graph *g) { g->outputs[0].value = 6; }

static const struct { const char *name; void (*plant)(knit_graph *g); const char *says; } plants[] = {
	{"symbol_range", symbol_range, "symbol 0: name"},
	{"symbol_count", symbol_count, "400 symbols, at most 16 fit"},
	{"expression_symbol", expression_symbol, "expression 0 is not affine"},
	{"expression_negative", expression_negative, "expression 0 is not affine"},
	{"storage_kind", storage_kind, "s3: unknown kind 77"},
	{"storage_dtype", storage_dtype, "s3: unknown element type 77"},
	{"storage_name", storage_name, "s3: name 0 does not suit"},
	{"storage_temp_name", storage_temp_name, "s6: name 1 does not suit"},
	{"storage_host", storage_host, "s1: host bytes"},
	{"storage_value", storage_value, "s3: %1 is not its whole value"},
	{"storage_value_id", storage_value_id, "s3: whole value 4000000000 does not exist"},
	{"storage_bytes", storage_bytes, "%6: takes 512 bytes, s6 has 513"},
	{"value_storage", value_storage, "input 0 is %6, which does not exist"},
	{"value_shared", value_shared, "%10: s6 belongs to %6"},
	{"value_dtype", value_dtype, "%6: type i32, s6 has f32"},
	{"value_rank", value_rank, "%6: rank 9"},
	{"value_dim", value_dim, "%6: a size, stride or offset names no expression"},
	{"value_shape", value_shape, "output 0 is f32 [t, 16], which its inputs do not give"},
	{"value_strides", value_strides, "%6: is no view, but not the whole storage"},
	{"value_offset", value_offset, "%6: is no view, but not the whole storage"},
	{"value_version", value_version, "%6: version 1 of a storage that is no state"},
	{"value_layout", value_layout, "%6: layout 2"},
	{"value_producer", value_producer, "%6: node 4 names it 0 times"},
	{"value_producer_id", value_producer_id, "input 0 is %6, which does not exist"},
	{"value_orphan", value_orphan, "input 0 is %6, which does not exist"},
	{"leaf_producer", leaf_producer, "%1: written by node 1, but lies in a storage that no node writes"},
	{"view_root", view_root, "%4: disagrees with %1"},
	{"view_root_id", view_root_id, "input 0 is %4, which does not exist"},
	{"view_of_view", view_of_view, "input 0 is %9, which does not exist"},
	{"view_end", view_end, "%4: reaches past the end of %3"},
	{"view_stride", view_stride, "%9: reaches past the end of %8"},
	{"view_block", view_block, "%4: cuts q8_0 blocks"},
	{"view_version", view_version, "%9: disagrees with %8"},
	{"order_twice", order_twice, "order: node 1 stands at places 0 and 4"},
	{"order_missing", order_missing, "order: node 5 is missing"},
	{"order_id", order_id, "order: place 0 names node 4000000000"},
	{"order_early", order_early, "reads %6 before node 1 writes it"},
	{"order_states", order_states, "reads %7 before node 2 writes it"},
	{"node_op", node_op, "node 4 (%10 = ?): unknown op 999"},
	{"node_inputs", node_inputs, "2 inputs and 1 outputs"},
	{"node_input_count", node_input_count, "255 inputs and 1 outputs"},
	{"node_outputs", node_outputs, "1 inputs and 2 outputs"},
	{"node_input", node_input, "input 0 is %4000000000, which does not exist"},
	{"node_input_none", node_input_none, "input 0 is %0, which does not exist"},
	{"node_output", node_output, "output 0 is %6, which is broken or not its own"},
	{"node_output_id", node_output_id, "output 0 is %4000000000, which is broken or not its own"},
	{"node_origin", node_origin, "its origin is no string"},
	{"node_removed", node_removed, "order: place 0 names node 1, which does not exist"},
	{"node_types", node_types, "node 5 (%11 = linear): linear: "},
	{"node_result", node_result, "output 0 is f32 [2, 4, 8], which its inputs do not give"},
	{"node_attr", node_attr, "node 4 (%10 = cast): cast: "},
	{"state_current", state_current, "%8: a version of s4 that its state does not reach"},
	{"state_current_id", state_current_id, "state 0: %4000000000 is no version of s4"},
	{"state_storage", state_storage, "state 0: s1 is no state"},
	{"state_lost", state_lost, "s4: its state is listed 0 times"},
	{"state_loop", state_loop, "state 0: %7 does not follow"},
	{"state_fork", state_fork, "state 0: %8 does not follow"},
	{"state_late_read", state_late_read, "node 4: reads %5 after node 2 has written the next version"},
	{"state_written", state_written, "is in a temp storage"},
	{"port_name", port_name, "output 0: has no name"},
	{"port_twice", port_twice, "output 1: \"y\" is there twice"},
	{"port_value", port_value, "output 1: %4000000000 does not exist"},
	{"port_input", port_input, "input 0: %6 is no input"},
	{"port_input_lost", port_input_lost, "s2: its input is listed 0 times"},
	{"port_input_name", port_input_name, "s1: its input is listed 0 times"},
	{"port_owner", port_owner, "s5: its output is listed 0 times"},
};

START_TEST(planted_faults_are_named) {
	for (size_t i = 0; i < sizeof plants / sizeof plants[0]; ++i) {
		knit_text faults = {.a = &ctx->a}, text = {.a = &ctx->a};
		knit_graph *g = make();
		/* What a fault may overwrite and destroy needs. */
		const knit_graph kept = *g;

		plants[i].plant(g);
		ck_assert_msg(knit__validate(g, &faults) == KNIT_ERR_INTERNAL, "%s was not found", plants[i].name);
		ck_assert_msg(strstr(faults.data, plants[i].says) != NULL, "%s: no '%s' in\n%s", plants[i].name, plants[i].says,
					  faults.data);
		ck_assert_int_eq(knit__validate(g, NULL), KNIT_ERR_INTERNAL);
		/* A broken graph is shown beside its faults: printing it must work. */
		if (g->exprs.symbol_count == kept.exprs.symbol_count) {
			ck_assert_int_eq(knit__print_text(g, &text), KNIT_OK);
			ck_assert_int_eq(knit__print_dot(g, &text), KNIT_OK);
		}
		knit__text_clear(&faults);
		knit__text_clear(&text);
		knit_graph_destroy(g);
	}
}
END_TEST

/* One broken place must not hide another. */
START_TEST(all_faults_are_collected) {
	knit_text faults = {.a = &ctx->a};
	knit_graph *g = make();
	int lines = 0;

	value_strides(g);
	view_block(g);
	storage_name(g);
	port_name(g);
	ck_assert_int_eq(knit__validate(g, &faults), KNIT_ERR_INTERNAL);
	for (const char *p = faults.data; *p; ++p)
		lines += *p == '\n';
	ck_assert_int_ge(lines, 4);
	ck_assert_ptr_nonnull(strstr(faults.data, "%6: is no view"));
	ck_assert_ptr_nonnull(strstr(faults.data, "%4: cuts q8_0 blocks"));
	ck_assert_ptr_nonnull(strstr(faults.data, "s3: name 0"));
	ck_assert_ptr_nonnull(strstr(faults.data, "output 0: has no name"));
	knit__text_clear(&faults);
	knit_graph_destroy(g);
}
END_TEST

/* Any field of any array overwritten with any number: never a crash, and never a fault reported on what is untouched.
 */
START_TEST(overwritten_arrays_never_crash) {
	static const uint32_t numbers[] = {0, 1, 2, 3, 5, 7, 11, 12, 255, 65535, 4000000000u, UINT32_MAX};
	uint64_t random = 1;
	uint32_t found = 0;

	for (int i = 0; i < 6000; ++i) {
		knit_graph *g = make();
		char *const arrays[] = {(char *)g->storages, (char *)g->values, (char *)g->nodes, (char *)g->order,
								(char *)g->inputs,   (char *)g->outputs, (char *)g->states};
		const size_t bytes[] = {g->storage_count * sizeof *g->storages, g->value_count * sizeof *g->values,
								g->node_count * sizeof *g->nodes,       g->order_count * sizeof *g->order,
								g->input_count * sizeof *g->inputs,     g->output_count * sizeof *g->outputs,
								g->state_count * sizeof *g->states};
		knit_text text = {.a = &ctx->a};

		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		const uint32_t which = (uint32_t)(random >> 33) % 7;
		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		const size_t at = (size_t)(random >> 33) % (bytes[which] / 4);
		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		const uint32_t number = numbers[(random >> 33) % (sizeof numbers / sizeof numbers[0])];
		memcpy(arrays[which] + at * 4, &number, sizeof number);
		found += knit__validate(g, NULL) != KNIT_OK;
		knit__print_text(g, &text);
		knit__print_dot(g, &text);
		knit__text_clear(&text);
		knit_graph_destroy(g);
	}
	ck_assert_uint_gt(found, 3000);
}
END_TEST

START_TEST(validation_changes_nothing) {
	knit_text before = {.a = &ctx->a}, after = {.a = &ctx->a};
	knit_graph *g = make();
	const uint32_t exprs = g->exprs.count;

	knit__print_text(g, &before);
	ck_assert_int_eq(knit__validate(g, NULL), KNIT_OK);
	knit__print_text(g, &after);
	ck_assert_str_eq(before.data, after.data);
	ck_assert_uint_eq(exprs, g->exprs.count);
	ck_assert_int_eq(g->diag.status, KNIT_OK);
	knit__text_clear(&before);
	knit__text_clear(&after);
	knit_graph_destroy(g);
}
END_TEST

int main(void) {
	Suite *s = suite_create("validate");
	TCase *c = tcase_create("validate");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, sound_graphs_have_no_fault);
	tcase_add_test(c, planted_faults_are_named);
	tcase_add_test(c, all_faults_are_collected);
	tcase_add_test(c, overwritten_arrays_never_crash);
	tcase_add_test(c, validation_changes_nothing);
	suite_add_tcase(s, c);
	return suite_finish(s, CK_FORK);
}
