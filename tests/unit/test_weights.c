/* The weight store: twins, names, freezing, and what a graph makes of them. */
#include "../../graph/context.h"
#include "../../graph/op_def.h"
#include "../../graph/weights.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>

static knit_context *ctx;
static knit_weights *store;
static const int64_t dims[2] = {4, 8}, flat[1] = {32};

static void open_store(void) {
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_weights_create(ctx, &store), KNIT_OK);
}

static void close_store(void) {
	knit_weights_release(store);
	knit_context_destroy(ctx);
}

static void add(const char *name, int rank, const int64_t *d, float first) {
	float data[32];
	knit_diag diag;

	for (int i = 0; i < 32; ++i)
		data[i] = first + (float)i;
	ck_assert_int_eq(knit_weights_add(store, name, KNIT_F32, rank, d, data, sizeof data, &diag), KNIT_OK);
}

START_TEST(equal_bytes_are_one_storage) {
	knit_weight_info a, b, c;
	uint64_t unique, named;

	open_store();
	add("token_embd.weight", 2, dims, 0);
	add("other", 2, dims, 1);
	add("output.weight", 2, dims, 0);
	ck_assert_int_eq(knit__weights_seal(store), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "token_embd.weight", &a), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "output.weight", &b), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "other", &c), KNIT_OK);
	ck_assert_uint_eq(a.storage, b.storage);
	ck_assert_uint_ne(a.storage, c.storage);
	knit__weights_bytes(store, &unique, &named);
	ck_assert_uint_eq(unique, 256);
	ck_assert_uint_eq(named, 384);
	ck_assert_int_eq(knit_weights_find(store, "none", &c), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit_weights_at(store, 3, &c), KNIT_ERR_NOT_FOUND);
	close_store();
}
END_TEST

/* Equal prefixes, different tails: only a full comparison tells them apart. */
START_TEST(a_long_equal_prefix_is_no_tie) {
	static float data[2][4096];
	const int64_t n[1] = {4096};
	knit_weight_info a, b;

	open_store();
	data[1][4095] = 1;
	knit_weights_add(store, "a", KNIT_F32, 1, n, data[0], sizeof data[0], NULL);
	knit_weights_add(store, "b", KNIT_F32, 1, n, data[1], sizeof data[1], NULL);
	knit__weights_seal(store);
	knit_weights_find(store, "a", &a);
	knit_weights_find(store, "b", &b);
	ck_assert_uint_ne(a.storage, b.storage);
	close_store();
}
END_TEST

START_TEST(a_store_refuses_what_is_wrong) {
	float data[32] = {0};
	knit_diag diag;

	open_store();
	add("a", 2, dims, 0);
	ck_assert_int_eq(knit_weights_add(store, "a", KNIT_F32, 2, dims, data, sizeof data, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_add(store, "b", KNIT_F32, 2, dims, data, 127, &diag), KNIT_ERR_SHAPE);
	ck_assert_ptr_nonnull(strstr(diag.text, "127"));
	ck_assert_ptr_nonnull(strstr(diag.text, "128"));
	ck_assert_int_eq(knit_weights_add(store, "b", KNIT_Q8_0, 2, dims, data, 34, &diag), KNIT_ERR_SHAPE);
	ck_assert_int_eq(knit_weights_add(store, "b", (knit_dtype)42, 2, dims, data, 34, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_add(store, "b", KNIT_F32, 5, dims, data, 34, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_weights_add(store, "b", KNIT_F32, 2, (const int64_t[]){INT64_MAX, INT64_MAX}, data, 34, &diag),
	                 KNIT_ERR_ARGUMENT);
	knit__weights_seal(store);
	ck_assert_int_eq(knit_weights_add(store, "b", KNIT_F32, 2, dims, data, sizeof data, &diag), KNIT_ERR_STATE);
	close_store();
}
END_TEST

START_TEST(a_graph_ties_by_name_and_by_bytes) {
	knit_graph *g;

	open_store();
	add("a", 2, dims, 0);
	add("twin", 2, dims, 0);
	add("flat", 1, flat, 0);
	add("b", 2, dims, 5);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	const knit_tensor a = knit_weight(g, store, "a"), again = knit_weight(g, store, "%s", "a");
	const knit_tensor twin = knit_weight(g, store, "twin"), bytes = knit_weight(g, store, "flat");
	const knit_tensor b = knit_weight(g, store, "b");
	ck_assert_int_eq(knit_graph_status(g, NULL), KNIT_OK);
	ck_assert_uint_eq(a.id, again.id);
	ck_assert_uint_eq(a.id, twin.id);
	ck_assert_uint_ne(a.id, b.id);
	ck_assert_uint_ne(a.id, bytes.id); /* another shape: a view of the same storage */
	ck_assert_uint_eq(g->values[a.id].storage, g->values[bytes.id].storage);
	ck_assert_uint_eq(knit_weight(g, store, "flat").id, bytes.id);
	knit_weight(g, store, "nothing.%d", 3);
	knit_diag diag;
	ck_assert_int_eq(knit_graph_status(g, &diag), KNIT_ERR_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(diag.text, "nothing.3"));
	knit_graph_destroy(g);
	close_store();
}
END_TEST

START_TEST(ten_thousand_names) {
	char name[16];
	float x = 0;
	const int64_t one[1] = {1};
	knit_weight_info w;

	open_store();
	for (int i = 0; i < 10000; ++i) {
		snprintf(name, sizeof name, "t%d", i);
		x = (float)(i / 2);
		ck_assert_int_eq(knit_weights_add(store, name, KNIT_F32, 1, one, &x, 4, NULL), KNIT_OK);
	}
	ck_assert_int_eq(knit__weights_seal(store), KNIT_OK);
	ck_assert_int_eq(knit_weights_find(store, "t4321", &w), KNIT_OK);
	ck_assert_uint_eq(w.storage, 4320);
	close_store();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {equal_bytes_are_one_storage, a_long_equal_prefix_is_no_tie,
	                              a_store_refuses_what_is_wrong, a_graph_ties_by_name_and_by_bytes, ten_thousand_names};

	return suite_run("weights", tests, sizeof tests / sizeof tests[0]);
}
