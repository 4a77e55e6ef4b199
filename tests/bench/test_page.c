/* The page of `knit bench --html`: one file that names nothing outside itself and that no text from a model can break; in a
 * browser it draws everything and reports no error. */
#include "../tools/page.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

static page_file page;

/* peaks: NULL or "--no-peaks". */
static void make(const char *file, const char *device, const char *peaks) {
	command_result r;

	command_run((const char *const[]){knit, "bench", file, "-p", "8", "-n", "4", "-d", "0,16", "-r", "3", "--seconds", "1", "--threads", "1",
	                                  "--device", device, "--html", page.path, peaks, NULL},
	            NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
}

/* With a name that would end the data element, or begin a comment in it. */
START_TEST(the_page_stands_alone) {
	char evil[100];

	page_begin(&page);
	snprintf(evil, sizeof evil, "%s/<!--<script>\"&'<b>.gguf", page.folder);
	ck_assert_int_eq(symlink(model, evil), 0);
	make(evil, "cpu", "--no-peaks");
	char *const text = page_load(&page);
	page_check_alone(text);
	cJSON *const root = page_data(text), *const rows = cJSON_GetObjectItem(root, "rows");
	ck_assert_int_eq(cJSON_GetArraySize(rows), 4);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "profiles")), 4);
	ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(rows, 0), "model")->valuestring, evil);
	cJSON_Delete(root);
	free(text);
	page_end(&page);
}
END_TEST

/* ---- in a browser ------------------------------------------------------------------------------------------------ */

START_TEST(a_browser_draws_it) {
	static const struct { const char *device, *peaks; unsigned rows, points, profiles, peaked; } variants[] = {
		{"cpu", NULL, 4, 4, 4, 1},
		{"cpu,null", "--no-peaks", 8, 0, 4, 0}, /* null keeps no times */
		{"cpu,cpu", "--no-peaks", 8, 0, 8, 0},
	};
	const char *const chromium = page_browser();
	command_result r;

	if (!chromium)
		return;
	page_begin(&page);
	for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
		make(model, variants[i].device, variants[i].peaks);
		char *const text = page_load(&page);
		cJSON *const root = page_data(text);
		const cJSON *const profiles = cJSON_GetObjectItem(root, "profiles"), *p;
		unsigned parts = 0;
		cJSON_ArrayForEach(p, profiles)
			parts += (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(p, "kinds"));
		page_dump(&page, chromium, "", &r);
		page_check_sound(&r);
		ck_assert_uint_eq(page_drawn(r.out, "bars"), variants[i].rows);
		ck_assert_uint_eq(page_count(r.out, "class=\"bar\""), variants[i].rows);
		ck_assert_uint_eq(page_count(r.out, "class=\"bracket\""), variants[i].rows);
		ck_assert_uint_eq(page_drawn(r.out, "points"), variants[i].points);
		ck_assert_uint_eq(page_count(r.out, "class=\"point\""), variants[i].points);
		ck_assert_uint_eq((unsigned)cJSON_GetArraySize(profiles), variants[i].profiles);
		ck_assert_uint_eq(page_drawn(r.out, "parts"), parts);
		ck_assert_uint_gt(parts, 8);
		ck_assert_uint_eq(page_drawn(r.out, "rows"), variants[i].rows);
		ck_assert_uint_eq(page_drawn(r.out, "peaks"), variants[i].peaked);
		ck_assert_uint_eq(page_count(r.out, "of files") > 0, 1); /* what was resident */
		ck_assert_uint_eq(page_count(r.out, "NaN"), page_count(text, "NaN")); /* no place on a chart is none */
		ck_assert_uint_eq(page_count(r.out, "Infinity"), page_count(text, "Infinity"));
		command_clear(&r);
		/* A page that is broken says so: what the test looks at can be seen. */
		char *const broken = strstr(text, "\"profiles\":[");
		memcpy(broken, "\"prafiles\":", 11);
		page_save(&page, text);
		if (i == 0) {
			page_dump(&page, chromium, "", &r);
			page_check_broken(&r);
			command_clear(&r);
		}
		cJSON_Delete(root);
		free(text);
	}
	page_end(&page);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {the_page_stands_alone, a_browser_draws_it};

	return suite_run("bench_page", tests, (int)(sizeof tests / sizeof tests[0]));
}
