/* Lists of visits: text, loops, and which visit of the model a visit stands for. */
#include "../../frontends/models/visits.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>

static knit__visit_list parsed(const char *text) {
	knit__visit_list list;
	knit_diag diag = {0};

	ck_assert_msg(knit__visits_parse(text, KNIT__MAX_LAYERS, &list, &diag) == KNIT_OK, "%s: %s", text, diag.text);
	return list;
}

/* "0,1,2": every visit spelled out. */
static const char *spelled(const knit__visit_list *list) {
	static char text[KNIT__MAX_VISITS * 5];
	size_t at = 0;

	text[0] = '\0';
	for (uint32_t v = 0; v < list->count; ++v)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", v ? "," : "", (unsigned)list->layer[v]);
	return text;
}

START_TEST(text_is_read) {
	static const struct {
		const char *text, *list;
	} cases[] = {
		{"0", "0"},
		{"0-3,2-3,4", "0,1,2,3,2,3,4"},
		{"3-1", "3,2,1"},
		{"5-5", "5"},
		{"0-1x3", "0,1,0,1,0,1"},
		{"2x3", "2,2,2"},
		{"0,1-2x2,3x1", "0,1,2,1,2,3"},
		{"3-2x2", "3,2,3,2"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const knit__visit_list list = parsed(cases[i].text);
		ck_assert_str_eq(spelled(&list), cases[i].list);
	}
}
END_TEST

START_TEST(bad_text_is_refused) {
	static const char *const bad[] = {"",    ",",   "0,",  "0,,1", "a",   "0 1",  "-1",  "0-",  "0--1",
									  "0x",  "0x0", "x2",  "0-x2", "0x2x2", "1-2-3", "0x-1", "0x2-3", "4",
									  "0-4", "4-0", "65536", "99999999999999999999"};
	knit__visit_list list;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit_diag diag = {0};
		ck_assert_msg(knit__visits_parse(bad[i], 4, &list, &diag) == KNIT_ERR_ARGUMENT, "\"%s\" is taken", bad[i]);
		ck_assert(diag.text[0] != '\0');
	}
	ck_assert_int_eq(knit__visits_parse("0-3x256", 4, &list, NULL), KNIT_OK);
	ck_assert_uint_eq(list.count, 1024);
	ck_assert_int_eq(knit__visits_parse("0-3x256,0", 4, &list, NULL), KNIT_ERR_LIMIT);
	ck_assert_int_eq(knit__visits_parse("0x99999999999999", 4, &list, NULL), KNIT_ERR_LIMIT);
}
END_TEST

static uint32_t noise(uint32_t *seed, uint32_t below) {
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) % below;
}

START_TEST(written_text_reads_back) {
	static const struct {
		const char *list, *text;
	} cases[] = {
		{"0,1,2,2,2,3,4", "0-1,2x3,3-4"},
		{"0,1,2,3,2,3,4", "0-1,2-3x2,4"},
		{"0,1,2,3,0,1,2,3,0,1,2,3", "0-3x3"},
		{"0,0,1,1,2,2", "0x2,1x2,2x2"},
		{"4,2,0", "4,2,0"},
		{"7", "7"},
	};
	static char text[8 * KNIT__MAX_VISITS];
	uint32_t seed = 1;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const knit__visit_list list = parsed(cases[i].list);
		knit__visits_text(&list, text, sizeof text);
		ck_assert_str_eq(text, cases[i].text);
	}
	for (int i = 0; i < 2000; ++i) {
		knit__visit_list list = {.count = 1 + noise(&seed, i % 100 ? 12 : 1000)}, again;
		for (uint32_t v = 0; v < list.count; ++v)
			list.layer[v] = (uint16_t)noise(&seed, 3);
		knit__visits_text(&list, text, sizeof text);
		again = parsed(text);
		ck_assert_msg(again.count == list.count && memcmp(again.layer, list.layer, list.count * 2) == 0, "%s is not %s",
					  text, spelled(&list));
	}
	const knit__visit_list list = parsed("9,7,5,3,1,9,7,5");
	knit__visits_text(&list, text, 12);
	ck_assert_str_eq(text, "9,7,5,3,...");
}
END_TEST

START_TEST(loops_are_found_and_changed) {
	static const struct {
		const char *list;
		uint32_t prelude, core, coda, loops, block, repeats;
		const char *twice, *five; /* with that many loops; NULL: refused */
	} cases[] = {
		{"0-3", 0, 4, 0, 1, 1, 1, "0-3x2", "0-3x5"},
		{"0-3x3", 0, 4, 0, 3, 1, 1, "0-3x2", "0-3x5"},
		{"0,1,2,2,2,3,4", 2, 1, 2, 3, 1, 1, "0-1,2x2,3-4", "0-1,2x5,3-4"},
		{"0-3,2-3,4", 2, 2, 1, 2, 1, 1, "0-1,2-3x2,4", "0-1,2-3x5,4"},
		{"0x2,1x2,2x2", 0, 6, 0, 1, 1, 2, "0x2,1x2,2x2", "0x5,1x5,2x5"},
		{"0-1x3,2-3x3", 0, 12, 0, 1, 2, 3, "0-1x2,2-3x2", "0-1x5,2-3x5"},
		{"0x2,1,0x2,1", 0, 3, 0, 2, 1, 1, "0x2,1,0x2,1", "0x2,1,0x2,1,0x2,1,0x2,1,0x2,1"},
		{"0x2,1x3", 0, 0, 0, 0, 0, 0, NULL, NULL},
		{"0x2,1,2x2", 0, 0, 0, 0, 0, 0, NULL, NULL},
		{"0", 0, 1, 0, 1, 1, 1, "0x2", "0x5"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const knit__visit_list list = parsed(cases[i].list);
		const knit__loop_shape *s = &list.shape;
		ck_assert_msg(s->loops == cases[i].loops, "%s: %u loops", cases[i].list, (unsigned)s->loops);
		for (uint32_t n = 2; n <= 5; n += 3) {
			const char *wanted = n == 2 ? cases[i].twice : cases[i].five;
			knit__visit_list other = list, expected;
			const knit_status status = knit__visits_set_loops(&other, n, NULL);
			ck_assert_int_eq(status, wanted ? KNIT_OK : KNIT_ERR_UNSUPPORTED);
			if (!wanted)
				continue;
			expected = parsed(wanted);
			ck_assert_msg(other.count == expected.count && !memcmp(other.layer, expected.layer, other.count * 2),
						  "%s in %u loops: %s", cases[i].list, (unsigned)n, spelled(&other));
			ck_assert_int_eq(knit__visits_set_loops(&other, s->repeats > 1 ? s->repeats : s->loops, NULL), KNIT_OK);
			ck_assert(other.count == list.count && !memcmp(other.layer, list.layer, list.count * 2));
		}
		if (!s->loops)
			continue;
		ck_assert(s->prelude == cases[i].prelude && s->core == cases[i].core && s->coda == cases[i].coda);
		ck_assert(s->block == cases[i].block && s->repeats == cases[i].repeats);
		ck_assert_uint_eq(s->prelude + s->core * s->loops + s->coda, list.count);
	}
	knit__visit_list most = parsed("0-511x2");
	ck_assert_int_eq(knit__visits_set_loops(&most, 3, NULL), KNIT_ERR_LIMIT);
	ck_assert_uint_eq(most.count, 1024); /* unchanged */
}
END_TEST

START_TEST(loops_end_where_they_end) {
	const knit__visit_list list = parsed("0,1-2x3,3");
	const int32_t ends[] = {-1, -1, 0, -1, 1, -1, 2, -1};

	for (uint32_t v = 0; v < list.count; ++v)
		ck_assert_int_eq(knit__visits_loop_end(&list.shape, v), ends[v]);
	const knit__visit_list unclear = parsed("0x2,1x3");
	for (uint32_t v = 0; v < unclear.count; ++v)
		ck_assert_int_eq(knit__visits_loop_end(&unclear.shape, v), -1);
}
END_TEST

/* Counts as metadata gives them; the list of the same visits by hand. */
START_TEST(lists_are_made_from_counts) {
	static const struct {
		knit__loop_counts counts;
		const char *list;
	} cases[] = {
		{{0}, "0-5"},
		{{.loops = 2}, "0-5x2"},
		{{.prelude = 1, .coda = 2, .loops = 3}, "0,1-3x3,4-5"},
		{{.repeats = 2}, "0x2,1x2,2x2,3x2,4x2,5x2"},
		{{.repeats = 2, .block = 3}, "0-2x2,3-5x2"},
		{{.prelude = 2, .repeats = 2, .block = 2, .loops = 2}, "0-1,2-3x2,4-5x2,2-3x2,4-5x2"},
	};
	knit__visit_list list;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const knit__visit_list expected = parsed(cases[i].list);
		ck_assert_int_eq(knit__visits_make(6, &cases[i].counts, &list, NULL), KNIT_OK);
		ck_assert_msg(list.count == expected.count && !memcmp(list.layer, expected.layer, list.count * 2), "%s",
					  spelled(&list));
	}
}
END_TEST

START_TEST(visits_stand_for_visits_of_the_model) {
	static const struct {
		const char *model, *list;
		int stands_for[12]; /* -1: none */
	} cases[] = {
		{"0-1x2", "0-1x2", {0, 1, 2, 3}},
		{"0-1x2", "0-1", {0, 1}},
		{"0-1x2", "0-1x4", {0, 1, 2, 3, 2, 3, 2, 3}},
		{"0,1x2,2", "0,1x4,2", {0, 1, 2, 2, 2, 3}},
		{"0,1x2,2", "0,1,2", {0, 1, 3}},
		{"0-1x2", "1,1,1,0", {1, 3, 3, 0}},
		{"0-1", "2,0,2", {-1, 0, -1}},
	};
	uint16_t stands_for[KNIT__MAX_VISITS];

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		const knit__visit_list model = parsed(cases[i].model), list = parsed(cases[i].list);
		knit__visits_stand_for(&model, &list, stands_for);
		for (uint32_t v = 0; v < list.count; ++v) {
			const int wanted = cases[i].stands_for[v] < 0 ? KNIT__NO_VISIT : cases[i].stands_for[v];
			ck_assert_msg(stands_for[v] == wanted, "case %zu, visit %u: %u", i, (unsigned)v, stands_for[v]);
		}
	}
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		text_is_read,
		bad_text_is_refused,
		written_text_reads_back,
		loops_are_found_and_changed,
		loops_end_where_they_end,
		lists_are_made_from_counts,
		visits_stand_for_visits_of_the_model,
	};

	return suite_run("visits", tests, sizeof tests / sizeof *tests);
}
