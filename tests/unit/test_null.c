/* Tests the null device: it takes every op, keeps no bytes, reads as zeros, and keeps the rules of backend.h. */
#include "../../backends/null/null.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <stdlib.h>
#include <string.h>

static const knit_backend *const null = &knit__null_backend;
static knit_context_desc desc;
static knit_device *dev;

static void setup(void) {
	desc.allocator = knit__default_allocator;
	ck_assert_int_eq(null->open(0, &desc, &dev, NULL), KNIT_OK);
}

static void teardown(void) { null->close(dev); }

START_TEST(table_is_complete) {
	ck_assert_uint_eq(null->abi, KNIT_BACKEND_ABI);
	ck_assert_str_eq(null->name, "null");
	ck_assert(null->enumerate && null->open && null->close && null->caps && null->select && null->scratch);
	ck_assert(null->buffer_create && null->buffer_import && null->buffer_destroy && null->buffer_write);
	ck_assert(null->buffer_read && null->buffer_clear && null->plan_create && null->plan_destroy);
	ck_assert(null->plan_submit && null->plan_wait && null->plan_times);
}
END_TEST

START_TEST(one_device) {
	knit_device_info info;
	knit_device *other;
	knit_diag d = {0};
	size_t count = 0;

	ck_assert_int_eq(null->enumerate(&desc, NULL, 0, &count), KNIT_OK);
	ck_assert_uint_eq(count, 1);
	ck_assert_int_eq(null->enumerate(&desc, &info, 1, &count), KNIT_OK);
	ck_assert_str_eq(info.id, "null");
	ck_assert(info.available);
	ck_assert_int_eq(null->open(1, &desc, &other, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_ptr_null(other);
}
END_TEST

START_TEST(every_op_has_a_kernel) {
	for (uint16_t op = KNIT_OP_NONE + 1; op < KNIT_OP_COUNT; ++op) {
		const knit_node_view node = {.op = op};
		ck_assert_uint_ne(null->select(dev, &node), 0);
		ck_assert_uint_eq(null->scratch(dev, op, &node), 0);
	}
	ck_assert_uint_eq(null->select(dev, &(knit_node_view){.op = KNIT_OP_NONE}), 0);
	ck_assert_uint_eq(null->select(dev, &(knit_node_view){.op = KNIT_OP_COUNT}), 0);
}
END_TEST

START_TEST(buffers_read_as_zeros) {
	char bytes[16] = "something";
	knit_buffer *b;

	ck_assert_int_eq(null->buffer_create(dev, KNIT_BUFFER_IO, 16, &b), KNIT_OK);
	ck_assert_int_eq(null->buffer_write(dev, b, 0, bytes, 16), KNIT_OK);
	ck_assert_int_eq(null->buffer_read(dev, b, 4, bytes, 12), KNIT_OK);
	for (int i = 0; i < 12; ++i)
		ck_assert_int_eq(bytes[i], 0);
	ck_assert_int_eq(null->buffer_read(dev, b, 5, bytes, 12), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(null->buffer_write(dev, b, UINT64_MAX, bytes, 2), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(null->buffer_clear(dev, b), KNIT_OK);
	null->buffer_destroy(dev, b);
	null->buffer_destroy(dev, NULL);
}
END_TEST

/* Plans for machines much larger than this one. */
START_TEST(a_buffer_of_any_size) {
	char byte = 1;
	knit_buffer *b;

	ck_assert_int_eq(null->buffer_create(dev, KNIT_BUFFER_STATE, UINT64_C(1) << 50, &b), KNIT_OK);
	ck_assert_int_eq(null->buffer_read(dev, b, (UINT64_C(1) << 50) - 1, &byte, 1), KNIT_OK);
	ck_assert_int_eq(byte, 0);
	null->buffer_destroy(dev, b);
}
END_TEST

START_TEST(plans) {
	const knit_schedule empty = {0};
	knit_plan *plan;

	ck_assert_int_eq(null->plan_create(dev, &empty, NULL, &plan, NULL), KNIT_OK);
	ck_assert_int_eq(null->plan_wait(plan, 0), KNIT_ERR_STATE);
	ck_assert_int_eq(null->plan_submit(plan, NULL), KNIT_OK);
	ck_assert_int_eq(null->plan_wait(plan, 0), KNIT_OK);
	ck_assert_uint_eq(null->plan_times(plan, NULL, 0), 0);
	null->plan_destroy(dev, plan);
	null->plan_destroy(dev, NULL);
}
END_TEST

START_TEST(a_whole_model) {
	static float logits[SMALL_VOCAB];
	const int32_t zero = 0;
	knit_context *ctx;
	knit_weights *w;
	knit_graph *g;
	knit_program *p;
	knit_session *s;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &w), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, w, &g), KNIT_OK);
	ck_assert_msg(knit_compile(g, &(knit_compile_desc){.device = "null"}, &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit_session_create(p, &s, &d), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "ids", &zero, 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "seq", &zero, 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(s, "pos", &zero, 4), KNIT_OK);
	ck_assert_int_eq(knit_session_run(s), KNIT_OK);
	memset(logits, 0xff, sizeof logits);
	ck_assert_int_eq(knit_session_read(s, "logits", logits, sizeof logits), KNIT_OK);
	for (int i = 0; i < SMALL_VOCAB; ++i)
		ck_assert(logits[i] == 0.0f);
	knit_session_destroy(s);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(w);
	knit_context_destroy(ctx);
}
END_TEST

int main(void) {
	Suite *s = suite_create("null");
	TCase *t = tcase_create("null");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, table_is_complete);
	tcase_add_test(t, one_device);
	tcase_add_test(t, every_op_has_a_kernel);
	tcase_add_test(t, buffers_read_as_zeros);
	tcase_add_test(t, a_buffer_of_any_size);
	tcase_add_test(t, plans);
	tcase_add_test(t, a_whole_model);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
