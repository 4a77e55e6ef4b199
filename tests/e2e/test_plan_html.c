/* The page of `knit plan --html`: one file that names nothing outside itself and that no text from a model can break; in a
 * browser it draws everything and reports no error. */
#include "../tools/bytes.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static char folder[40], page[80];

static void begin(void) {
	snprintf(folder, sizeof folder, "/tmp/knit-page-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(page, sizeof page, "%s/plan.html", folder);
}

static void end(void) {
	command_result r;

	unlink(page);
	command_run((const char *const[]){"/bin/rm", "-rf", folder, NULL}, NULL, &r);
	command_clear(&r);
}

/* The whole page, terminated; the caller frees it. */
static char *load(void) {
	bytes b = {0};
	char *text;

	ck_assert(bytes_load(&b, page));
	text = malloc(b.count + 1);
	memcpy(text, b.data, b.count);
	text[b.count] = '\0';
	bytes_clear(&b);
	return text;
}

static unsigned count_of(const char *text, const char *part) {
	unsigned count = 0;

	for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
		++count;
	return count;
}

/* What lies in the page's data element, parsed. */
static cJSON *data_of(const char *text) {
	static const char begins[] = "<script type=\"application/json\" id=\"data\">";
	const char *at = strstr(text, begins);

	ck_assert_ptr_nonnull(at);
	at += sizeof begins - 1;
	const char *stop = strchr(at, '<');
	ck_assert_int_eq(strncmp(stop, "</script>", 9), 0); /* no other "<" in the data */
	cJSON *root = cJSON_ParseWithLength(at, (size_t)(stop - at));
	ck_assert(cJSON_IsObject(root));
	return root;
}

static double number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

START_TEST(the_page_stands_alone) {
	command_result r;

	begin();
	RUN(&r, NULL, "plan", model, "--html", page);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_uint_eq(r.out_bytes, 0);
	command_clear(&r);
	char *text = load();
	ck_assert_uint_eq(count_of(text, "<script"), 2);
	ck_assert_uint_eq(count_of(text, "</script>"), 2);
	ck_assert_uint_eq(count_of(text, " src="), 0);
	ck_assert_uint_eq(count_of(text, "@import"), 0);
	ck_assert_uint_eq(count_of(text, "fetch("), 0);
	ck_assert_uint_eq(count_of(text, "://"), count_of(text, "http://www.w3.org/2000/svg"));
	ck_assert_ptr_nonnull(strstr(text, "Content-Security-Policy"));
	cJSON *root = data_of(text);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "visits")), 12);
	cJSON_Delete(root);
	free(text);
	end();
}
END_TEST

/* A name that would end the data element, or begin a comment in it. */
START_TEST(no_text_breaks_the_page) {
	char evil[100];
	command_result r;

	begin();
	snprintf(evil, sizeof evil, "%s/<!--<script>\"&'<b>.gguf", folder);
	ck_assert_int_eq(symlink(model, evil), 0);
	RUN(&r, NULL, "plan", evil, "--html", page);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
	char *text = load();
	cJSON *root = data_of(text);
	ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "path")->valuestring, evil);
	cJSON_Delete(root);
	free(text);
	unlink(evil);
	end();
}
END_TEST

/* ---- in a browser ------------------------------------------------------------------------------------------------ */

static const char *browser(void) {
	static const char *const places[] = {"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"};

	for (size_t i = 0; i < sizeof places / sizeof *places; ++i)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

/* The page's elements after its script has run. What goes to the browser's console goes to err. */
static void dump(const char *chromium, const char *fragment, command_result *out) {
	char url[200], profile[100];

	snprintf(url, sizeof url, "file://%s%s", page, fragment);
	snprintf(profile, sizeof profile, "--user-data-dir=%s/profile", folder);
	command_run((const char *const[]){chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
	                                  "--disable-background-networking", "--disable-component-update", "--disable-sync",
	                                  "--no-first-run", "--enable-logging=stderr", "--window-size=1280,800", profile,
	                                  "--virtual-time-budget=8000", "--dump-dom", url, NULL},
	            NULL, out);
}

/* "steps=100" in the body's data-drawn. */
static unsigned drawn(const char *dom, const char *what) {
	const char *at = strstr(dom, "data-drawn=\"");
	char name[32];
	unsigned n = 0;

	ck_assert_ptr_nonnull(at);
	snprintf(name, sizeof name, "%s=", what);
	const char *found = strstr(at, name);
	ck_assert_msg(found && found < strchr(at + 12, '"'), "%s was not drawn", what);
	ck_assert_int_eq(sscanf(found + strlen(name), "%u", &n), 1);
	return n;
}

static void check_drawn(const command_result *r, const cJSON *root) {
	const cJSON *report = cJSON_GetObjectItem(root, "report"), *buckets = cJSON_GetObjectItem(report, "buckets");
	const cJSON *last = cJSON_GetArrayItem(buckets, cJSON_GetArraySize(buckets) - 1);
	const unsigned visits = (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "model"), "visits"));
	const unsigned steps = (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(last, "steps"));

	ck_assert_msg(strstr(r->out, "data-errors=\"0\"") != NULL, "the page reports errors: %.600s",
	              strstr(r->out, "<body") ? strstr(r->out, "<body") : r->err);
	/* Its Content-Security-Policy, a script that throws, console.error: all are told as CONSOLE. */
	ck_assert_msg(strstr(r->err, "CONSOLE") == NULL, "the console says: %.600s", strstr(r->err, "CONSOLE"));
	ck_assert_uint_eq(drawn(r->out, "panels"), visits + 2); /* embedding and head */
	ck_assert_uint_eq(drawn(r->out, "steps"), steps);
	ck_assert_uint_eq(drawn(r->out, "blocks"), (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(last, "blocks")));
	ck_assert_uint_ge(drawn(r->out, "edges"), steps - 1); /* each step but the first reads another's result */
	ck_assert_uint_gt(drawn(r->out, "shelf"), 1);
	ck_assert_uint_gt(drawn(r->out, "tables"), visits);
	ck_assert_uint_eq(drawn(r->out, "cards"), 6);
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
	const char *chromium = browser();
	command_result r;

	if (!chromium) {
		printf("SKIP: the page is not drawn: there is no Chromium\n");
		return;
	}
	begin();
	for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
		const char *const *v = variants[i];
		RUN(&r, NULL, "plan", model, "--html", page, v[0], v[1], v[2], v[3]);
		ck_assert_msg(r.code == 0, "%s", r.err);
		command_clear(&r);
		char *text = load();
		cJSON *root = data_of(text);
		dump(chromium, "", &r);
		ck_assert_msg(r.code == 0, "exit code %d: %.300s", r.code, r.err);
		check_drawn(&r, root);
		command_clear(&r);
		cJSON_Delete(root);
		free(text);
	}
	end();
}
END_TEST

/* A weight that is picked shows a thread to each of its uses. */
START_TEST(a_weight_shows_its_visits) {
	const char *chromium = browser();
	command_result r;

	if (!chromium) {
		printf("SKIP: the page is not drawn: there is no Chromium\n");
		return;
	}
	begin();
	RUN(&r, NULL, "plan", model, "--html", page);
	command_clear(&r);
	char *text = load();
	cJSON *root = data_of(text), *s;
	unsigned uses = 0;
	cJSON_ArrayForEach(s, cJSON_GetObjectItem(cJSON_GetObjectItem(root, "report"), "storages"))
		if (strcmp(cJSON_GetObjectItem(s, "name")->valuestring, "blk.1.ffn_down.weight") == 0)
			uses = (unsigned)number(s, "uses");
	ck_assert_uint_eq(uses, 3);
	dump(chromium, "#use=blk.1.ffn_down.weight", &r);
	ck_assert_uint_eq(count_of(r.out, "class=\"thread\""), uses);
	ck_assert_ptr_nonnull(strstr(r.out, "Every use reads the same bytes"));
	ck_assert_ptr_null(strstr(r.err, "CONSOLE"));
	command_clear(&r);

	/* And a page that is broken says so: what the test looks at can be seen. */
	char *broken = strstr(text, "\"report\":");
	ck_assert_ptr_nonnull(broken);
	memcpy(broken, "\"repart\":", 9);
	FILE *f = fopen(page, "wb");
	ck_assert(f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
	dump(chromium, "", &r);
	ck_assert_ptr_null(strstr(r.out, "data-errors=\"0\""));
	command_clear(&r);
	cJSON_Delete(root);
	free(text);
	end();
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
