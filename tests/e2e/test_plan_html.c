/* The page of `knit plan --html`: one file that names nothing outside itself and that no text from a model can break; in a
 * browser it draws everything and reports no error. */
#include "../tools/page.h"
#include "../tools/suite.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static page_file page;

static double number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

START_TEST(the_page_stands_alone) {
	command_result r;

	page_begin(&page);
	RUN(&r, NULL, "plan", model, "--html", page.path);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_uint_eq(r.out_bytes, 0);
	command_clear(&r);
	char *text = page_load(&page);
	page_check_alone(text);
	cJSON *root = page_data(text);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "visits")), 12);
	cJSON_Delete(root);
	free(text);
	page_end(&page);
}
END_TEST

/* A name that would end the data element, or begin a comment in it. */
START_TEST(no_text_breaks_the_page) {
	char evil[100];
	command_result r;

	page_begin(&page);
	snprintf(evil, sizeof evil, "%s/<!--<script>\"&'<b>.gguf", page.folder);
	ck_assert_int_eq(symlink(model, evil), 0);
	RUN(&r, NULL, "plan", evil, "--html", page.path);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
	char *text = page_load(&page);
	cJSON *root = page_data(text);
	ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "path")->valuestring, evil);
	cJSON_Delete(root);
	free(text);
	unlink(evil);
	page_end(&page);
}
END_TEST

/* ---- in a browser ------------------------------------------------------------------------------------------------ */

static void check_drawn(const command_result *r, const cJSON *root) {
	const cJSON *report = cJSON_GetObjectItem(root, "report"), *buckets = cJSON_GetObjectItem(report, "buckets");
	const cJSON *last = cJSON_GetArrayItem(buckets, cJSON_GetArraySize(buckets) - 1);
	const unsigned visits = (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "visits"));
	const unsigned steps = (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(last, "steps"));

	page_check_sound(r);
	ck_assert_uint_eq(page_drawn(r->out, "panels"), visits + 2); /* embedding and head */
	ck_assert_uint_eq(page_drawn(r->out, "steps"), steps);
	ck_assert_uint_eq(page_drawn(r->out, "blocks"), (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(last, "blocks")));
	ck_assert_uint_ge(page_drawn(r->out, "edges"), steps - 1); /* each step but the first reads another's result */
	ck_assert_uint_gt(page_drawn(r->out, "shelf"), 1);
	ck_assert_uint_gt(page_drawn(r->out, "tables"), visits);
	ck_assert_uint_eq(page_drawn(r->out, "cards"), 6);
	ck_assert(!cJSON_GetObjectItem(report, "split") == !strstr(r->out, "<summary>Split over two devices"));
}

START_TEST(a_browser_draws_it) {
	static const char *const variants[][4] = {
		{"--loops", "3", "--kv", "f16"},
		{"--visits", "0,1x8,2-3", "--adapter", "none"},
		{"--loops", "1", "--device", "null"},
		{"--loops", "20", "--kv", "layer,q8_0"},
		{"--device", "null+cpu", "--device-memory", "1M"},
	};
	const char *chromium = page_browser();
	command_result r;

	if (!chromium)
		return;
	page_begin(&page);
	for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
		const char *const *v = variants[i];
		RUN(&r, NULL, "plan", model, "--html", page.path, v[0], v[1], v[2], v[3]);
		ck_assert_msg(r.code == 0, "%s", r.err);
		command_clear(&r);
		char *text = page_load(&page);
		cJSON *root = page_data(text);
		page_dump(&page, chromium, "", &r);
		check_drawn(&r, root);
		command_clear(&r);
		cJSON_Delete(root);
		free(text);
	}
	page_end(&page);
}
END_TEST

/* A weight that is picked shows a thread to each of its uses. */
START_TEST(a_weight_shows_its_visits) {
	const char *chromium = page_browser();
	command_result r;

	if (!chromium)
		return;
	page_begin(&page);
	RUN(&r, NULL, "plan", model, "--html", page.path);
	command_clear(&r);
	char *text = page_load(&page);
	cJSON *root = page_data(text), *s;
	unsigned uses = 0;
	cJSON_ArrayForEach(s, cJSON_GetObjectItem(cJSON_GetObjectItem(root, "report"), "storages"))
		if (strcmp(cJSON_GetObjectItem(s, "name")->valuestring, "blk.1.ffn_down.weight") == 0)
			uses = (unsigned)number(s, "uses");
	ck_assert_uint_eq(uses, 3);
	page_dump(&page, chromium, "#use=blk.1.ffn_down.weight", &r);
	ck_assert_uint_eq(page_count(r.out, "class=\"thread\""), uses);
	ck_assert_ptr_nonnull(strstr(r.out, "Every use reads the same bytes"));
	ck_assert_ptr_null(strstr(r.err, "CONSOLE"));
	command_clear(&r);

	/* And a page that is broken says so: what the test looks at can be seen. */
	char *broken = strstr(text, "\"report\":");
	ck_assert_ptr_nonnull(broken);
	memcpy(broken, "\"repart\":", 9);
	page_save(&page, text);
	page_dump(&page, chromium, "", &r);
	page_check_broken(&r);
	command_clear(&r);
	cJSON_Delete(root);
	free(text);
	page_end(&page);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		the_page_stands_alone,
		no_text_breaks_the_page,
		a_browser_draws_it,
		a_weight_shows_its_visits,
	};

	const TTest *const quick[] = {the_page_stands_alone};

	if (suite_quick())
		return suite_run("plan_html", quick, sizeof quick / sizeof *quick);
	return suite_run("plan_html", tests, sizeof tests / sizeof *tests);
}
