/* The page of `knit bench --html`: one file that names nothing outside itself and that no text from a model can break; in a
 * browser it draws everything and reports no error. */
#include "../tools/bytes.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

static char folder[40], page[80];

static void begin(void) {
	snprintf(folder, sizeof folder, "/tmp/knit-bench-page-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(page, sizeof page, "%s/bench.html", folder);
}

static void end(void) {
	command_result r;

	command_run((const char *const[]){"/bin/rm", "-rf", folder, NULL}, NULL, &r);
	command_clear(&r);
}

/* peaks: NULL or "--no-peaks". */
static void make(const char *file, const char *device, const char *peaks) {
	command_result r;

	command_run((const char *const[]){knit, "bench", file, "-p", "8", "-n", "4", "-d", "0,16", "-r", "3", "--seconds", "1", "--threads", "1",
	                                  "--device", device, "--html", page, peaks, NULL},
	            NULL, &r);
	ck_assert_msg(r.code == 0, "%s", r.err);
	command_clear(&r);
}

/* The whole page, terminated; the caller frees it. */
static char *load(void) {
	bytes b = {0};

	ck_assert(bytes_load(&b, page));
	char *const text = malloc(b.count + 1);
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

static cJSON *data_of(const char *text) {
	static const char begins[] = "<script type=\"application/json\" id=\"data\">";
	const char *at = strstr(text, begins);

	ck_assert_ptr_nonnull(at);
	at += sizeof begins - 1;
	const char *const stop = strchr(at, '<');
	ck_assert_int_eq(strncmp(stop, "</script>", 9), 0); /* no other "<" in the data */
	cJSON *const root = cJSON_ParseWithLength(at, (size_t)(stop - at));
	ck_assert(cJSON_IsObject(root));
	return root;
}

/* With a name that would end the data element, or begin a comment in it. */
START_TEST(the_page_stands_alone) {
	char evil[100];

	begin();
	snprintf(evil, sizeof evil, "%s/<!--<script>\"&'<b>.gguf", folder);
	ck_assert_int_eq(symlink(model, evil), 0);
	make(evil, "cpu", "--no-peaks");
	char *const text = load();
	ck_assert_uint_eq(count_of(text, "<script"), 2);
	ck_assert_uint_eq(count_of(text, "</script>"), 2);
	ck_assert_uint_eq(count_of(text, " src="), 0);
	ck_assert_uint_eq(count_of(text, "@import"), 0);
	ck_assert_uint_eq(count_of(text, "fetch("), 0);
	ck_assert_uint_eq(count_of(text, "://"), count_of(text, "http://www.w3.org/2000/svg"));
	ck_assert_ptr_nonnull(strstr(text, "Content-Security-Policy"));
	cJSON *const root = data_of(text), *const rows = cJSON_GetObjectItem(root, "rows");
	ck_assert_int_eq(cJSON_GetArraySize(rows), 4);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "profiles")), 4);
	ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(rows, 0), "model")->valuestring, evil);
	cJSON_Delete(root);
	free(text);
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
static void dump(const char *chromium, command_result *out) {
	char url[200], profile[100];

	snprintf(url, sizeof url, "file://%s", page);
	snprintf(profile, sizeof profile, "--user-data-dir=%s/profile", folder);
	command_run((const char *const[]){chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
	                                  "--disable-background-networking", "--disable-component-update", "--disable-sync",
	                                  "--no-first-run", "--enable-logging=stderr", "--window-size=1280,800", profile,
	                                  "--virtual-time-budget=8000", "--dump-dom", url, NULL},
	            NULL, out);
}

/* "bars=4" in the body's data-drawn. */
static unsigned drawn(const char *dom, const char *what) {
	const char *const at = strstr(dom, "data-drawn=\"");
	char name[32];
	unsigned n = 0;

	ck_assert_ptr_nonnull(at);
	snprintf(name, sizeof name, "%s=", what);
	const char *const found = strstr(at, name);
	ck_assert_msg(found && found < strchr(at + 12, '"'), "%s was not drawn", what);
	ck_assert_int_eq(sscanf(found + strlen(name), "%u", &n), 1);
	return n;
}

START_TEST(a_browser_draws_it) {
	static const struct { const char *device, *peaks; unsigned rows, points, profiles; } variants[] = {
		{"cpu", NULL, 4, 4, 4},
		{"cpu,null", "--no-peaks", 8, 0, 4}, /* null keeps no times */
		{"cpu,cpu", "--no-peaks", 8, 0, 8},
	};
	const char *const chromium = browser();
	command_result r;

	if (!chromium) {
		printf("SKIP: the page is not drawn: there is no Chromium\n");
		return;
	}
	begin();
	for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
		make(model, variants[i].device, variants[i].peaks);
		char *const text = load();
		cJSON *const root = data_of(text);
		const cJSON *const profiles = cJSON_GetObjectItem(root, "profiles"), *p;
		unsigned parts = 0;
		cJSON_ArrayForEach(p, profiles)
			parts += (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(p, "kinds"));
		dump(chromium, &r);
		ck_assert_msg(r.code == 0, "exit code %d: %.300s", r.code, r.err);
		ck_assert_msg(strstr(r.out, "data-errors=\"0\"") != NULL, "the page reports errors: %.600s",
		              strstr(r.out, "<body") ? strstr(r.out, "<body") : r.err);
		ck_assert_msg(strstr(r.err, "CONSOLE") == NULL, "the console says: %.600s", strstr(r.err, "CONSOLE"));
		ck_assert_uint_eq(drawn(r.out, "bars"), variants[i].rows);
		ck_assert_uint_eq(count_of(r.out, "class=\"bar\""), variants[i].rows);
		ck_assert_uint_eq(count_of(r.out, "class=\"bracket\""), variants[i].rows);
		ck_assert_uint_eq(drawn(r.out, "points"), variants[i].points);
		ck_assert_uint_eq(count_of(r.out, "class=\"point\""), variants[i].points);
		ck_assert_uint_eq((unsigned)cJSON_GetArraySize(profiles), variants[i].profiles);
		ck_assert_uint_eq(drawn(r.out, "parts"), parts);
		ck_assert_uint_gt(parts, 8);
		ck_assert_uint_eq(drawn(r.out, "rows"), variants[i].rows);
		ck_assert_uint_eq(count_of(r.out, "NaN"), count_of(text, "NaN")); /* no place on a chart is none */
		ck_assert_uint_eq(count_of(r.out, "Infinity"), count_of(text, "Infinity"));
		command_clear(&r);
		/* A page that is broken says so: what the test looks at can be seen. */
		char *const broken = strstr(text, "\"profiles\":[");
		memcpy(broken, "\"prafiles\":", 11);
		FILE *const f = fopen(page, "wb");
		ck_assert(f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
		if (i == 0) {
			dump(chromium, &r);
			ck_assert_ptr_null(strstr(r.out, "data-errors=\"0\""));
			command_clear(&r);
		}
		cJSON_Delete(root);
		free(text);
	}
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {the_page_stands_alone, a_browser_draws_it};

	return suite_run("bench_page", tests, (int)(sizeof tests / sizeof tests[0]));
}
