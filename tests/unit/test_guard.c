/* Tests the guard: each rule of backend.h broken once, on the null device and a schedule made by hand. */
#include "../../backends/guard.h"
#include "../../backends/null/null.h"
#include "../../graph/context.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const knit_backend *const guard = &knit__guard_backend;
static const float weight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

enum { ARENA, INPUT, OUTPUT, WEIGHT, BUFFERS };

/* out = mul(in, weight), rows of 8 floats, tokens in 1..4. */
typedef struct fixture {
	knit_context *ctx;
	knit_graph *g;
	knit_device *dev;
	knit_buffer_desc descs[BUFFERS];
	knit_step step;
	knit_schedule schedule;
	knit_buffer *buffers[BUFFERS];
	knit_plan *plan;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	uint32_t faults;
} fixture;

static char last_log[300];

static void log_line(void *user, int level, const char *text) {
	(void)user;
	(void)level;
	snprintf(last_log, sizeof last_log, "%s", text);
}

static knit_operand operand(uint32_t buffer, uint8_t rank, knit_dim rows) {
	knit_operand o = {.buffer = buffer, .dtype = KNIT_F32, .rank = rank};

	o.dims[0] = rank == 2 ? rows : knit_n(8);
	o.strides[0] = knit_n(rank == 2 ? 8 : 1);
	o.dims[1] = knit_n(8);
	o.strides[1] = knit_n(1);
	return o;
}

static void make(fixture *f) {
	const knit_context_desc desc = {.log = log_line};
	knit_diag d = {0};

	memset(f, 0, sizeof *f);
	ck_assert_int_eq(knit_context_create(&desc, &f->ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(f->ctx, &f->g), KNIT_OK);
	const knit_dim tokens = knit_sym(f->g, "tokens", 1, 4);
	ck_assert_msg(knit__guard_open(&knit__null_backend, 0, &f->ctx->desc, &f->dev, &d) == KNIT_OK, "%s", d.text);

	f->descs[ARENA] = (knit_buffer_desc){.use = KNIT_BUFFER_ARENA, .bytes = 128};
	f->descs[INPUT] = (knit_buffer_desc){.use = KNIT_BUFFER_IO, .bytes = 128, .name = "x"};
	f->descs[OUTPUT] = (knit_buffer_desc){.use = KNIT_BUFFER_IO, .bytes = 128, .name = "y"};
	f->descs[WEIGHT] = (knit_buffer_desc){.use = KNIT_BUFFER_CONST, .bytes = 32, .name = "w", .host = weight};
	f->step = (knit_step){.op = KNIT_OP_MUL, .kernel = KNIT_OP_MUL, .in_count = 2, .out_count = 1};
	f->step.in[0] = operand(INPUT, 2, tokens);
	f->step.in[1] = operand(WEIGHT, 1, tokens);
	f->step.out[0] = operand(OUTPUT, 2, tokens);
	f->schedule = (knit_schedule){
		.a = &f->ctx->a, .graph = f->g, .steps = &f->step, .buffers = f->descs, .step_count = 1, .buffer_count = BUFFERS};
	knit__bounds_declared(&f->g->exprs, &f->schedule.bounds);
	f->symbols[0] = 2;
	for (int i = 0; i < BUFFERS; ++i) {
		const knit_buffer_desc *const b = &f->descs[i];
		ck_assert_int_eq(b->host ? guard->buffer_import(f->dev, b->host, b->bytes, &f->buffers[i])
		                         : guard->buffer_create(f->dev, b->use, b->bytes, &f->buffers[i]),
		                 KNIT_OK);
	}
}

static void make_with_plan(fixture *f) {
	knit_diag d = {0};

	make(f);
	ck_assert_msg(guard->plan_create(f->dev, &f->schedule, f->buffers, &f->plan, &d) == KNIT_OK, "%s", d.text);
}

/* The fault was counted, logged, and says `words`. */
static void expect_fault(fixture *f, const char *words) {
	char text[200];

	ck_assert_uint_eq(knit__guard_faults(f->dev, text, sizeof text), ++f->faults);
	ck_assert_msg(strstr(text, words), "\"%s\" does not say \"%s\"", text, words);
	ck_assert_ptr_nonnull(strstr(last_log, words));
	last_log[0] = '\0';
}

static void unmake(fixture *f) {
	guard->plan_destroy(f->dev, f->plan);
	for (int i = 0; i < BUFFERS; ++i)
		guard->buffer_destroy(f->dev, f->buffers[i]);
	ck_assert_uint_eq(knit__guard_faults(f->dev, NULL, 0), f->faults);
	guard->close(f->dev);
	ck_assert_msg(!last_log[0], "%s", last_log);
	knit_graph_destroy(f->g);
	knit_context_destroy(f->ctx);
}

START_TEST(right_use_has_no_faults) {
	float out[16];
	fixture f;

	make_with_plan(&f);
	for (int i = 0; i < 3; ++i) {
		ck_assert_int_eq(guard->buffer_write(f.dev, f.buffers[INPUT], 32, weight, 32), KNIT_OK);
		ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_OK);
		ck_assert_int_eq(guard->plan_wait(f.plan, UINT64_MAX), KNIT_OK);
		ck_assert_int_eq(guard->buffer_read(f.dev, f.buffers[OUTPUT], 0, out, sizeof out), KNIT_OK);
		ck_assert_int_eq(guard->buffer_clear(f.dev, f.buffers[OUTPUT]), KNIT_OK);
	}
	unmake(&f);
}
END_TEST

START_TEST(order_of_plan_calls) {
	fixture f;

	make_with_plan(&f);
	ck_assert_int_eq(guard->plan_wait(f.plan, 0), KNIT_ERR_INTERNAL);
	expect_fault(&f, "nothing was submitted");
	ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_OK);
	ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_ERR_INTERNAL);
	expect_fault(&f, "twice without a wait");
	ck_assert_int_eq(guard->buffer_write(f.dev, f.buffers[INPUT], 0, weight, 4), KNIT_ERR_INTERNAL);
	expect_fault(&f, "is running");
	guard->plan_destroy(f.dev, f.plan);
	expect_fault(&f, "is running");
	ck_assert_uint_eq(guard->plan_times(f.plan, NULL, 0), 0);
	expect_fault(&f, "is running");
	ck_assert_int_eq(guard->plan_wait(f.plan, UINT64_MAX), KNIT_OK);

	knit_plan *const gone = f.plan;
	guard->plan_destroy(f.dev, gone);
	f.plan = NULL;
	ck_assert_int_eq(guard->plan_submit(gone, f.symbols), KNIT_ERR_INTERNAL);
	expect_fault(&f, "destroyed before");
	guard->plan_destroy(f.dev, gone);
	expect_fault(&f, "destroyed before");
	unmake(&f);
}
END_TEST

START_TEST(two_plans_over_one_arena) {
	knit_plan *other;
	fixture f;

	make_with_plan(&f);
	ck_assert_int_eq(guard->plan_create(f.dev, &f.schedule, f.buffers, &other, NULL), KNIT_OK);
	ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_OK);
	ck_assert_int_eq(guard->plan_submit(other, f.symbols), KNIT_ERR_INTERNAL);
	expect_fault(&f, "another plan that is running");
	ck_assert_int_eq(guard->plan_wait(f.plan, UINT64_MAX), KNIT_OK);
	ck_assert_int_eq(guard->plan_submit(other, f.symbols), KNIT_OK);
	ck_assert_int_eq(guard->plan_wait(other, UINT64_MAX), KNIT_OK);
	guard->plan_destroy(f.dev, other);
	unmake(&f);
}
END_TEST

START_TEST(symbols_in_bounds) {
	fixture f;

	make_with_plan(&f);
	f.symbols[0] = 5;
	ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_ERR_INTERNAL);
	expect_fault(&f, "made for 1 to 4");
	ck_assert_int_eq(guard->plan_submit(f.plan, NULL), KNIT_ERR_INTERNAL);
	expect_fault(&f, "symbols is NULL");
	unmake(&f);
}
END_TEST

START_TEST(buffer_ranges) {
	char bytes[256] = {0};
	fixture f;

	make(&f);
	ck_assert_int_eq(guard->buffer_write(f.dev, f.buffers[INPUT], 100, bytes, 29), KNIT_ERR_INTERNAL);
	expect_fault(&f, "100 to 129 of a buffer of 128");
	ck_assert_int_eq(guard->buffer_read(f.dev, f.buffers[INPUT], UINT64_MAX, bytes, 1), KNIT_ERR_INTERNAL);
	expect_fault(&f, "of a buffer of 128");
	ck_assert_int_eq(guard->buffer_read(f.dev, f.buffers[INPUT], 0, NULL, 1), KNIT_ERR_INTERNAL);
	expect_fault(&f, "NULL");
	ck_assert_int_eq(guard->buffer_write(f.dev, NULL, 0, bytes, 1), KNIT_ERR_INTERNAL);
	expect_fault(&f, "the buffer is NULL");
	ck_assert_int_eq(guard->buffer_write(f.dev, f.buffers[WEIGHT], 0, bytes, 1), KNIT_ERR_INTERNAL);
	expect_fault(&f, "read-only");
	ck_assert_int_eq(guard->buffer_clear(f.dev, f.buffers[WEIGHT]), KNIT_ERR_INTERNAL);
	expect_fault(&f, "read-only");
	unmake(&f);
}
END_TEST

START_TEST(buffer_life) {
	knit_buffer *b;
	fixture f;

	make_with_plan(&f);
	ck_assert_int_eq(guard->buffer_create(f.dev, (knit_buffer_use)9, 8, &b), KNIT_ERR_INTERNAL);
	ck_assert_ptr_null(b);
	expect_fault(&f, "unknown use");
	ck_assert_int_eq(guard->buffer_import(f.dev, NULL, 8, &b), KNIT_ERR_INTERNAL);
	expect_fault(&f, "import_align");
	guard->buffer_destroy(f.dev, f.buffers[INPUT]);
	expect_fault(&f, "plans still use");
	ck_assert_int_eq(guard->buffer_create(f.dev, KNIT_BUFFER_IO, 8, &b), KNIT_OK);
	guard->buffer_destroy(f.dev, b);
	guard->buffer_destroy(f.dev, b);
	expect_fault(&f, "destroyed before");
	ck_assert_int_eq(guard->buffer_clear(f.dev, b), KNIT_ERR_INTERNAL);
	expect_fault(&f, "destroyed before");
	unmake(&f);
}
END_TEST

static void refuse_plan(fixture *f, const char *words) {
	knit_diag d = {0};
	knit_plan *plan = (knit_plan *)f;

	ck_assert_int_eq(guard->plan_create(f->dev, &f->schedule, f->buffers, &plan, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_null(plan);
	ck_assert_msg(strstr(d.text, words), "\"%s\" does not say \"%s\"", d.text, words);
	expect_fault(f, words);
}

START_TEST(schedules_that_are_wrong) {
	fixture f;

	make(&f);
	f.descs[INPUT].bytes = 129;
	refuse_plan(&f, "has 128 bytes, the schedule needs 129");
	f.descs[INPUT].bytes = 127;
	refuse_plan(&f, "reaches byte 128 of buffer 1");
	f.descs[INPUT].bytes = 128;
	f.descs[INPUT].use = KNIT_BUFFER_STATE;
	refuse_plan(&f, "was made for use");
	f.descs[INPUT].use = KNIT_BUFFER_IO;
	f.step.kernel = 0;
	refuse_plan(&f, "no kernel");
	f.step.kernel = KNIT_OP_MUL;
	f.step.out[0].buffer = WEIGHT;
	f.step.out[0].rank = 1;
	refuse_plan(&f, "writes the weight \"w\"");
	f.step.out[0] = operand(OUTPUT, 2, f.step.in[0].dims[0]);
	f.step.out[0].offset = knit_n(1);
	refuse_plan(&f, "reaches byte 132");
	f.step.out[0].offset = knit_n(0);
	f.step.in[1].buffer = 4;
	refuse_plan(&f, "names buffer 4 of 4");
	f.step.in[1].buffer = WEIGHT;
	f.step.scratch_base = 64;
	f.step.scratch_bytes = 65;
	refuse_plan(&f, "scratch");
	f.step.scratch_bytes = 64;

	knit_buffer *const input = f.buffers[INPUT];
	f.buffers[INPUT] = NULL;
	refuse_plan(&f, "the buffer is NULL");
	f.buffers[INPUT] = input;

	/* the same with nothing wrong */
	ck_assert_int_eq(guard->plan_create(f.dev, &f.schedule, f.buffers, &f.plan, NULL), KNIT_OK);
	unmake(&f);
}
END_TEST

START_TEST(buffers_of_another_device) {
	fixture f, g;

	make(&f);
	make(&g);
	knit_buffer *const own = f.buffers[INPUT];
	f.buffers[INPUT] = g.buffers[INPUT];
	refuse_plan(&f, "another device");
	f.buffers[INPUT] = own;
	unmake(&f);
	unmake(&g);
}
END_TEST

START_TEST(nodes_for_select) {
	fixture f;

	make(&f);
	knit_node_view node = {.op = KNIT_OP_SILU, .in_count = 1, .out_count = 1, .graph = f.g};
	ck_assert_uint_eq(guard->select(f.dev, &node), KNIT_OP_SILU);
	ck_assert_uint_eq(guard->scratch(f.dev, KNIT_OP_SILU, &node), 0);
	guard->scratch(f.dev, KNIT_OP_GELU, &node);
	expect_fault(&f, "not the kernel that select gives");
	node.op = KNIT_OP_COUNT;
	ck_assert_uint_eq(guard->select(f.dev, &node), 0);
	expect_fault(&f, "not filled in");
	unmake(&f);
}
END_TEST

START_TEST(leaks_are_told_at_close) {
	knit_buffer *leaked;
	fixture f;

	make(&f);
	ck_assert_int_eq(guard->buffer_create(f.dev, KNIT_BUFFER_IO, 8, &leaked), KNIT_OK);
	for (int i = 0; i < BUFFERS; ++i)
		guard->buffer_destroy(f.dev, f.buffers[i]);
	guard->close(f.dev);
	ck_assert_ptr_nonnull(strstr(last_log, "1 buffers and plans are still there"));
	knit_graph_destroy(f.g);
	knit_context_destroy(f.ctx);
	_Exit(0); /* the leak is the point: no leak check */
}
END_TEST

/* A backend whose select depends on how often it was asked. */
static knit_kernel moody_select(const knit_device *dev, const knit_node_view *node) {
	static uint32_t asked;

	(void)dev;
	(void)node;
	return 1 + asked++ % 2;
}

START_TEST(impure_select_is_found) {
	knit_backend moody = knit__null_backend;
	char text[200];
	fixture f;

	make(&f);
	moody.select = moody_select;
	knit_device *dev;
	ck_assert_int_eq(knit__guard_open(&moody, 0, &f.ctx->desc, &dev, NULL), KNIT_OK);
	const knit_node_view node = {.op = KNIT_OP_SILU, .graph = f.g};
	ck_assert_uint_eq(guard->select(dev, &node), 0);
	ck_assert_uint_eq(knit__guard_faults(dev, text, sizeof text), 1);
	ck_assert_ptr_nonnull(strstr(text, "two answers"));
	guard->close(dev);
	last_log[0] = '\0';
	unmake(&f);
}
END_TEST

/* Another weight in the place of one; everything else is a fault and changes nothing. */
START_TEST(rebinding) {
	knit_buffer *other, *small;
	fixture f;

	make_with_plan(&f);
	ck_assert_int_eq(guard->buffer_create(f.dev, KNIT_BUFFER_CONST, 32, &other), KNIT_OK);
	ck_assert_int_eq(guard->buffer_create(f.dev, KNIT_BUFFER_CONST, 31, &small), KNIT_OK);
	ck_assert_int_eq(guard->plan_rebind(f.plan, WEIGHT, other), KNIT_OK);
	guard->buffer_destroy(f.dev, other);
	expect_fault(&f, "plans still use the buffer");
	ck_assert_int_eq(guard->plan_rebind(f.plan, WEIGHT, small), KNIT_ERR_INTERNAL);
	expect_fault(&f, "needs 32");
	ck_assert_int_eq(guard->plan_rebind(f.plan, INPUT, other), KNIT_ERR_INTERNAL);
	expect_fault(&f, "is no weight");
	ck_assert_int_eq(guard->plan_rebind(f.plan, WEIGHT, f.buffers[INPUT]), KNIT_ERR_INTERNAL);
	expect_fault(&f, "is to become none");
	ck_assert_int_eq(guard->plan_rebind(f.plan, BUFFERS, other), KNIT_ERR_INTERNAL);
	expect_fault(&f, "buffer 4 of 4");
	ck_assert_int_eq(guard->plan_rebind(f.plan, WEIGHT, NULL), KNIT_ERR_INTERNAL);
	expect_fault(&f, "is NULL");
	ck_assert_int_eq(guard->plan_rebind(NULL, WEIGHT, other), KNIT_ERR_INTERNAL);
	ck_assert_int_eq(guard->plan_submit(f.plan, f.symbols), KNIT_OK);
	ck_assert_int_eq(guard->plan_rebind(f.plan, WEIGHT, f.buffers[WEIGHT]), KNIT_ERR_INTERNAL);
	expect_fault(&f, "is running");
	ck_assert_int_eq(guard->plan_wait(f.plan, UINT64_MAX), KNIT_OK);
	/* The weight that was there at first is in no plan now. */
	guard->buffer_destroy(f.dev, f.buffers[WEIGHT]);
	f.buffers[WEIGHT] = NULL;
	guard->plan_destroy(f.dev, f.plan);
	f.plan = NULL;
	guard->buffer_destroy(f.dev, other);
	guard->buffer_destroy(f.dev, small);
	unmake(&f);
}
END_TEST

int main(void) {
	Suite *s = suite_create("guard");
	TCase *t = tcase_create("guard");

	tcase_add_test(t, right_use_has_no_faults);
	tcase_add_test(t, order_of_plan_calls);
	tcase_add_test(t, two_plans_over_one_arena);
	tcase_add_test(t, rebinding);
	tcase_add_test(t, symbols_in_bounds);
	tcase_add_test(t, buffer_ranges);
	tcase_add_test(t, buffer_life);
	tcase_add_test(t, schedules_that_are_wrong);
	tcase_add_test(t, buffers_of_another_device);
	tcase_add_test(t, nodes_for_select);
	tcase_add_test(t, leaks_are_told_at_close);
	tcase_add_test(t, impure_select_is_found);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
