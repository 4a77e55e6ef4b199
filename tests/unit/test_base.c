/* Strings, arrays, text, diagnostics, checked arithmetic. */
#include "../../graph/base.h"
#include "../../graph/dtype.h"
#include "../tools/comma_locale.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>

START_TEST(strings_are_interned_once) {
	knit_strings s;
	char name[32];

	knit__strings_init(&s, &knit__default_allocator);
	ck_assert_uint_eq(knit__strings_intern(&s, ""), 0);
	const uint32_t a = knit__strings_intern(&s, "attn_q"), b = knit__strings_intern(&s, "attn_k");
	ck_assert_uint_ne(a, b);
	const char *kept = knit__strings_get(&s, a);
	for (int i = 0; i < 1000; ++i) {
		snprintf(name, sizeof name, "name.%d", i);
		knit__strings_intern(&s, name);
	}
	ck_assert_uint_eq(knit__strings_intern(&s, "attn_q"), a);
	ck_assert_ptr_eq(knit__strings_get(&s, a), kept);
	ck_assert_str_eq(knit__strings_get(&s, b), "attn_k");
	ck_assert_str_eq(knit__strings_get(&s, 99999), "");
	knit__strings_clear(&s);
}
END_TEST

START_TEST(arrays_grow_and_keep) {
	uint32_t *data = NULL, cap = 0;

	for (uint32_t i = 0; i < 1000; ++i) {
		ck_assert(knit__grow(&knit__default_allocator, (void **)&data, &cap, i + 1, sizeof *data));
		ck_assert_uint_eq(data[i], 0);
		data[i] = i;
	}
	for (uint32_t i = 0; i < 1000; ++i)
		ck_assert_uint_eq(data[i], i);
	knit__free(&knit__default_allocator, data, cap * sizeof *data);
}
END_TEST

START_TEST(text_grows) {
	knit_text t = {.a = &knit__default_allocator};

	for (int i = 0; i < 100; ++i)
		knit__text_add(&t, "%d,", i);
	ck_assert_uint_eq(t.count, strlen(t.data));
	ck_assert_int_eq(strncmp(t.data, "0,1,2,", 6), 0);
	knit__text_clear(&t);
	ck_assert_ptr_null(t.data);
}
END_TEST

/* Numbers of files have points; a program that knit is in may have set a locale with commas. */
START_TEST(numbers_have_points) {
	static const struct { const char *text; bool good; double value; } rows[] = {
		{"16", true, 16},  {"16.5", true, 16.5}, {"-.5e1", true, -5}, {"", false, 0},  {".", false, 0},
		{"1,5", false, 0}, {"1.5x", false, 0},   {"1.5.", false, 0},  {"x", false, 0},
		{"1.00000000000000000000000000000000000000000000000000000000000000000000000000000000", false, 0},
	};

	for (int commas = 0; commas < 2; ++commas) {
		if (commas && !comma_locale())
			break;
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
			double x = 7;

			ck_assert_msg(knit__text_to_double(rows[i].text, &x) == rows[i].good && x == rows[i].value, "%s gives %g",
			              rows[i].text, x);
		}
	}
	setlocale(LC_NUMERIC, "C");
}
END_TEST

START_TEST(first_failure_stays) {
	knit_diag d = {0};

	knit__fail(&d, KNIT_ERR_SHAPE, 3, "first %d", 1);
	knit__fail(&d, KNIT_ERR_IO, 4, "second");
	ck_assert_int_eq(d.status, KNIT_ERR_SHAPE);
	ck_assert_uint_eq(d.node, 3);
	ck_assert_str_eq(d.text, "first 1");
	ck_assert_int_eq(knit__fail(NULL, KNIT_ERR_IO, 0, "nobody listens"), KNIT_ERR_IO);
}
END_TEST

START_TEST(arithmetic_is_checked) {
	uint64_t u = 7;

	ck_assert(!knit__mul_u64(UINT64_MAX, 2, &u));
	ck_assert(!knit__align_u64(UINT64_MAX - 3, 64, &u));
	ck_assert(knit__align_u64(65, 64, &u));
	ck_assert_uint_eq(u, 128);
	ck_assert_ptr_null(knit__alloc_array(&knit__default_allocator, SIZE_MAX / 2, 3));
}
END_TEST

START_TEST(dtypes_know_their_size) {
	uint64_t bytes;

	ck_assert(knit__dtype_bytes(KNIT_Q8_0, 64, &bytes) && bytes == 68);
	ck_assert(knit__dtype_bytes(KNIT_Q4_0, 64, &bytes) && bytes == 36);
	ck_assert(knit__dtype_bytes(KNIT_BF16, 3, &bytes) && bytes == 6);
	ck_assert(knit__dtype_bytes(KNIT_Q4_K, 512, &bytes) && bytes == 288);
	ck_assert(knit__dtype_bytes(KNIT_Q6_K, 512, &bytes) && bytes == 420);
	ck_assert(!knit__dtype_bytes(KNIT_Q6_K, 128, &bytes));
	ck_assert_int_eq(knit__dtype_parse("q4_K"), KNIT_Q4_K);
	ck_assert(!knit__dtype_info(KNIT_Q4_K)->is_state && knit__dtype_info(KNIT_Q4_0)->is_state);
	ck_assert(!knit__dtype_bytes(KNIT_Q4_0, 33, &bytes));
	ck_assert(!knit__dtype_bytes((knit_dtype)0, 1, &bytes));
	ck_assert(!knit__dtype_bytes((knit_dtype)99, 1, &bytes));
	ck_assert(!knit__dtype_bytes(KNIT_F32, UINT64_MAX / 2, &bytes));
	ck_assert_int_eq(knit__dtype_parse("q8_0"), KNIT_Q8_0);
	ck_assert_int_eq(knit__dtype_parse("q9_9"), 0);
	ck_assert_str_eq(knit_dtype_name((knit_dtype)77), "?");
}
END_TEST

int main(void) {
	const TTest *const tests[] = {strings_are_interned_once, arrays_grow_and_keep,  text_grows,
	                              numbers_have_points,       first_failure_stays,   arithmetic_is_checked,
	                              dtypes_know_their_size};

	return suite_run("base", tests, sizeof tests / sizeof tests[0]);
}
