/* The UTF-8 stream: characters arrive whole, and nothing is lost. */
#include "../../frontends/formats/reader.h"
#include "../../frontends/text/utf8.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"

static bytes written;
static size_t writes;

static void collect(void *user, const char *text, size_t n) {
	(void)user;
	bytes_put(&written, text, n);
	++writes;
	ck_assert_uint_gt(n, 0);
}

START_TEST(characters_arrive_whole) {
	static const char text[] = "a\xc3\xa9z\xe2\x82\xac\xf0\x9f\xa6\x99 end";
	knit_utf8_stream s = {0};

	/* A byte at a time: every call writes a whole character or nothing. */
	for (size_t i = 0; i + 1 < sizeof text; ++i) {
		const size_t before = written.count;

		knit__utf8_push(&s, text + i, 1, collect, NULL);
		if (written.count > before)
			ck_assert(knit__utf8_valid(written.data + before, written.count - before, NULL));
	}
	knit__utf8_flush(&s, collect, NULL);
	ck_assert_uint_eq(writes, 9);
	ck_assert_uint_eq(written.count, sizeof text - 1);
	ck_assert_mem_eq(written.data, text, sizeof text - 1);
	bytes_clear(&written);
}
END_TEST

START_TEST(nothing_is_lost_however_it_is_cut) {
	static const char text[] = "\xe2\x82" "a\xff\xf0\x9f\x80\x80\x80\x80\xc3\xf0\x9f\xa6\x99\xe2\x82\xac\xc3";
	const size_t n = sizeof text - 1;

	for (size_t first = 0; first <= n; ++first)
		for (size_t second = first; second <= n; ++second) {
			knit_utf8_stream s = {0};

			knit__utf8_push(&s, text, first, collect, NULL);
			knit__utf8_push(&s, text + first, second - first, collect, NULL);
			knit__utf8_push(&s, text + second, n - second, collect, NULL);
			knit__utf8_flush(&s, collect, NULL);
			ck_assert_uint_eq(written.count, n);
			ck_assert_mem_eq(written.data, text, n);
			bytes_clear(&written);
		}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {characters_arrive_whole, nothing_is_lost_however_it_is_cut};

	return suite_run("utf8", tests, sizeof tests / sizeof tests[0]);
}
