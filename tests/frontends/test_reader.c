/* The mapping, the bounded reader, UTF-8, metadata and the search for NaN. */
#include "../../frontends/formats/limits.h"
#include "../../frontends/formats/metadata.h"
#include "../../frontends/formats/nonfinite.h"
#include "../../frontends/formats/reader.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(numbers_are_little_endian_at_any_address) {
	const uint8_t data[] = {9, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0xff, 0x34, 0x12, 0, 0, 0x80, 0x3f, 7};
	knit_diag d = {0};
	knit_reader r;

	knit__reader_init(&r, "test", data, sizeof data, &d);
	ck_assert_uint_eq(knit__reader_u8(&r, "a"), 9);
	ck_assert_uint_eq(knit__reader_u64(&r, "b"), UINT64_C(0x0807060504030201));
	ck_assert_uint_eq(knit__reader_u8(&r, "c"), 255);
	ck_assert_uint_eq(knit__reader_u16(&r, "d"), 0x1234);
	ck_assert_float_eq(knit__reader_f32(&r, "e"), 1.0f);
	ck_assert_int_eq(r.status, KNIT_OK);
	ck_assert_uint_eq(knit__reader_u32(&r, "the last"), 0);
	ck_assert_int_eq(r.status, KNIT_ERR_FORMAT);
	ck_assert_str_eq(d.text, "test: byte 16: the last needs 4 bytes, the file ends after 1");
	/* Sticky: nothing moves, the first failure stays. */
	ck_assert_uint_eq(knit__reader_u8(&r, "f"), 0);
	ck_assert_ptr_null(knit__reader_take(&r, 0, "g"));
	ck_assert_int_eq(knit__reader_fail(&r, KNIT_ERR_LIMIT, "other"), KNIT_ERR_FORMAT);
	ck_assert_uint_eq(r.at, 16);
}
END_TEST

START_TEST(lengths_near_the_end_of_the_number_range) {
	const uint8_t data[4] = {0};
	knit_reader r;

	knit__reader_init(&r, "test", data, sizeof data, NULL);
	ck_assert_ptr_eq(knit__reader_take(&r, 4, "all"), data);
	ck_assert_ptr_eq(knit__reader_take(&r, 0, "nothing"), data + 4);
	ck_assert_ptr_null(knit__reader_take(&r, UINT64_MAX, "much"));
	ck_assert_int_eq(r.status, KNIT_ERR_FORMAT);
}
END_TEST

START_TEST(what_cannot_be_mapped) {
	char path[] = "/tmp/knit-reader-XXXXXX";
	knit_mapping m;
	knit_diag d = {0};
	const int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(knit__mapping_open(path, &m, &d), KNIT_ERR_FORMAT);
	ck_assert_str_eq(d.text, "the file is empty");
	ck_assert_int_eq(write(fd, "abc", 3), 3);
	ck_assert_int_eq(knit__mapping_open(path, &m, NULL), KNIT_OK);
	ck_assert_uint_eq(m.bytes, 3);
	ck_assert_mem_eq(m.data, "abc", 3);
	knit__mapping_close((void *)(uintptr_t)m.data, m.bytes);
	close(fd);
	unlink(path);
	ck_assert_int_eq(knit__mapping_open(path, &m, NULL), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit__mapping_open("/tmp", &m, NULL), KNIT_ERR_IO);
	ck_assert_int_eq(knit__mapping_open("/dev/null", &m, NULL), KNIT_ERR_IO);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(knit__mapping_open(path, &m, NULL), KNIT_ERR_IO); /* and does not wait for a writer */
	unlink(path);
}
END_TEST

START_TEST(utf8_by_the_table_of_rfc_3629) {
	static const struct {
		const char *text;
		int64_t bad; /* -1: valid */
	} cases[] = {
		{"", -1},         {"a\x7f", -1},        {"\xc2\x80\xdf\xbf", -1},     {"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80", -1},
		{"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", -1}, {"a\x80", 1},              {"\xc0\x80", 0},
		{"\xc1\xbf", 0},  {"\xe0\x9f\xbf", 0},  {"\xed\xa0\x80", 0},          {"\xf0\x8f\xbf\xbf", 0},
		{"\xf4\x90\x80\x80", 0},                {"\xf5\x80\x80\x80", 0},      {"ab\xc3", 2},
		{"\xe2\x82", 0},  {"\xf0\x9f\xa6", 0},  {"\xe2\x82" "a", 0},          {"\xf0\x9f\xa6" "a", 0},
		{"\xc3" "a", 0},  {"\xff", 0},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
		uint64_t bad = 99;

		ck_assert_int_eq(knit__utf8_valid(cases[i].text, strlen(cases[i].text), &bad), cases[i].bad < 0);
		ck_assert_int_eq((int64_t)bad, cases[i].bad < 0 ? 99 : cases[i].bad);
	}
}
END_TEST

START_TEST(names_become_printable) {
	char out[KNIT_PRINTABLE_BYTES], text[200];

	ck_assert_str_eq(knit__printable(out, "a\nb\x1b[0m\xc3\xa9", 9), "a?b?[0m??");
	memset(text, 'x', sizeof text);
	ck_assert_uint_eq(strlen(knit__printable(out, text, sizeof text)), KNIT_PRINTABLE_BYTES - 1);
	ck_assert_str_eq(out + KNIT_PRINTABLE_BYTES - 5, "x...");
	ck_assert_uint_eq(strlen(knit__printable(out, text, KNIT_PRINTABLE_BYTES - 4)), KNIT_PRINTABLE_BYTES - 4);
}
END_TEST

START_TEST(metadata_types_convert_where_they_fit) {
	track_alloc t = {0};
	const knit_allocator a = track_allocator(&t);
	const int8_t minus = -3;
	const uint64_t large = UINT64_C(1) << 63;
	const int16_t numbers[] = {1, -2, 3};
	const uint8_t flag = 1;
	const double wide = 0.25;
	const knit_metadata_entry *e;
	knit_metadata_text text;
	knit_diag d = {0};
	const char *s = NULL;
	uint64_t u = 77;
	int64_t i = 77;
	double f = 77;
	bool b = false;
	knit_metadata m;

	knit__metadata_init(&m, &a);
	ck_assert_int_eq(knit__metadata_u64(&m, "none", &u, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit__metadata_add(&m, "minus", KNIT_METADATA_I8, false, 1, &minus, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "large", KNIT_METADATA_U64, false, 1, &large, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "numbers", KNIT_METADATA_I16, true, 3, numbers, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "nothing", KNIT_METADATA_F32, true, 0, NULL, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "flag", KNIT_METADATA_BOOL, false, 1, &flag, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add(&m, "wide", KNIT_METADATA_F64, false, 1, &wide, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_u32(&m, "u32", 4000000000u, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_f32(&m, "f32", 0.5f, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_string(&m, "text", "abc", 3, &d), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_string(&m, "nul", "a\0c", 3, &d), KNIT_OK);
	ck_assert_int_eq(d.status, KNIT_OK); /* asking for an absent key is no failure */

	ck_assert_int_eq(knit__metadata_i64(&m, "minus", &i, &d), KNIT_OK);
	ck_assert_int_eq(i, -3);
	ck_assert_int_eq(knit__metadata_u64(&m, "minus", &u, NULL), KNIT_ERR_FORMAT);
	ck_assert_uint_eq(u, 77);
	ck_assert_int_eq(knit__metadata_u64(&m, "large", &u, &d), KNIT_OK);
	ck_assert_uint_eq(u, large);
	ck_assert_int_eq(knit__metadata_i64(&m, "large", &i, NULL), KNIT_ERR_FORMAT);
	ck_assert_int_eq(knit__metadata_f64(&m, "minus", &f, &d), KNIT_OK);
	ck_assert_double_eq(f, -3);
	ck_assert_int_eq(knit__metadata_f64(&m, "wide", &f, &d), KNIT_OK);
	ck_assert_double_eq(f, 0.25);
	ck_assert_int_eq(knit__metadata_f64(&m, "f32", &f, &d), KNIT_OK);
	ck_assert_double_eq(f, 0.5);
	ck_assert_int_eq(knit__metadata_i64(&m, "u32", &i, &d), KNIT_OK);
	ck_assert_int_eq(i, 4000000000);
	ck_assert_int_eq(knit__metadata_bool(&m, "flag", &b, &d), KNIT_OK);
	ck_assert(b);
	ck_assert_int_eq(knit__metadata_string(&m, "text", &s, &d), KNIT_OK);
	ck_assert_str_eq(s, "abc");
	ck_assert_int_eq(d.status, KNIT_OK);
	ck_assert_int_eq(knit__metadata_string(&m, "nul", &s, NULL), KNIT_ERR_FORMAT);
	ck_assert(knit__metadata_string_at(knit__metadata_find(&m, "nul"), 0, &text));
	ck_assert_uint_eq(text.bytes, 3);
	ck_assert_int_eq(knit__metadata_u64(&m, "numbers", &u, NULL), KNIT_ERR_FORMAT);
	ck_assert_int_eq(knit__metadata_array(&m, "text", &e, &d), KNIT_ERR_FORMAT);
	ck_assert_str_eq(d.text, "metadata 'text' is of type string, an array is needed");
	ck_assert_int_eq(knit__metadata_array(&m, "numbers", &e, NULL), KNIT_OK);
	ck_assert(knit__metadata_i64_at(e, 1, &i) && i == -2);
	ck_assert(knit__metadata_u64_at(e, 2, &u) && u == 3);
	ck_assert(!knit__metadata_u64_at(e, 1, &u) && !knit__metadata_i64_at(e, 3, &i) && !knit__metadata_bool_at(e, 0, &b));
	d = (knit_diag){0};
	ck_assert_int_eq(knit__metadata_add_u32(&m, "text", 1, &d), KNIT_ERR_FORMAT);
	ck_assert_str_eq(d.text, "metadata key 'text' occurs twice");
	knit__metadata_clear(&m);
	ck_assert_uint_eq(t.live, 0);
	ck_assert(!t.bad_free);
}
END_TEST

static knit_nonfinite scan(knit_dtype dtype, const void *data, size_t size, bool finite) {
	const knit_weight_info w = {.name = "w", .dtype = dtype, .rank = 1, .data = data, .bytes = size};
	knit_nonfinite n;

	ck_assert_int_eq(knit__weights_all_finite(&w, &n), finite);
	return n;
}

START_TEST(nan_and_infinity_are_found) {
	const uint32_t f32[] = {0x7f7fffff, 0xff7fffff, 0x00000001, 0xffc00000, 0x7f800000, 0x7f800001};
	const uint16_t f16[] = {0x7bff, 0xfbff, 0x7c00, 0xfe00}, bf16[] = {0x7f7f, 0x7f80, 0xffc0, 0x7c00};
	uint8_t q8[2 * 34], q4[3 * 18], q4_k[2 * 144], q6_k[2 * 210];

	scan(KNIT_F32, f32, 12, true);
	knit_nonfinite n = scan(KNIT_F32, f32, sizeof f32, false);
	ck_assert_uint_eq(n.nan, 2);
	ck_assert_uint_eq(n.inf, 1);
	ck_assert_uint_eq(n.first, 3);
	scan(KNIT_F16, f16, 4, true);
	n = scan(KNIT_F16, f16, sizeof f16, false);
	ck_assert_uint_eq(n.nan + 10 * n.inf + 100 * n.first, 211);
	scan(KNIT_BF16, bf16, 2, true);
	n = scan(KNIT_BF16, bf16, sizeof bf16, false);
	ck_assert_uint_eq(n.nan + 10 * n.inf + 100 * n.first, 111);

	/* In blocks only the scales count, not the bytes of values that look like NaN. */
	memset(q8, 0xff, sizeof q8);
	memset(q8, 0, 2);
	memset(q8 + 34, 0, 2);
	scan(KNIT_Q8_0, q8, sizeof q8, true);
	q8[35] = 0x7c;
	n = scan(KNIT_Q8_0, q8, sizeof q8, false);
	ck_assert_uint_eq(n.inf, 1);
	ck_assert_uint_eq(n.first, 32);
	memset(q4, 0, sizeof q4);
	q4[2 * 18] = 1;
	q4[2 * 18 + 1] = 0xfc;
	n = scan(KNIT_Q4_0, q4, sizeof q4, false);
	ck_assert_uint_eq(n.nan, 1);
	ck_assert_uint_eq(n.first, 64);
	/* a q4_K has two scales at its front, a q6_K one at its end */
	memset(q4_k, 0xff, sizeof q4_k);
	memset(q4_k, 0, 4);
	memset(q4_k + 144, 0, 4);
	scan(KNIT_Q4_K, q4_k, sizeof q4_k, true);
	q4_k[144 + 3] = 0x7c;
	n = scan(KNIT_Q4_K, q4_k, sizeof q4_k, false);
	ck_assert_uint_eq(n.nan + 10 * n.inf, 10);
	ck_assert_uint_eq(n.first, 256);
	memset(q6_k, 0xff, sizeof q6_k);
	memset(q6_k + 208, 0, 2);
	memset(q6_k + 210 + 208, 0, 2);
	scan(KNIT_Q6_K, q6_k, sizeof q6_k, true);
	q6_k[209] = 0x7e;
	n = scan(KNIT_Q6_K, q6_k, sizeof q6_k, false);
	ck_assert_uint_eq(n.nan + 10 * n.inf + n.first, 1);
	scan(KNIT_I32, f32, sizeof f32, true);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		numbers_are_little_endian_at_any_address, lengths_near_the_end_of_the_number_range,
		what_cannot_be_mapped,                    utf8_by_the_table_of_rfc_3629,
		names_become_printable,                   metadata_types_convert_where_they_fit,
		nan_and_infinity_are_found,
	};

	return suite_run("reader", tests, sizeof tests / sizeof tests[0]);
}
