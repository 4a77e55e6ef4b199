/* Owns pages of HTML under test: a folder for them, their data element, and a headless browser that draws them. */
#include "page.h"
#include "bytes.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void page_begin(page_file *p) {
	snprintf(p->folder, sizeof p->folder, "/tmp/knit-page-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(p->folder));
	snprintf(p->path, sizeof p->path, "%s/page.html", p->folder);
}

void page_end(page_file *p) {
	command_result r;

	command_run((const char *const[]){"/bin/rm", "-rf", p->folder, NULL}, NULL, &r);
	command_clear(&r);
}

char *page_load(const page_file *p) {
	bytes b = {0};

	ck_assert(bytes_load(&b, p->path));
	char *const text = malloc(b.count + 1);
	memcpy(text, b.data, b.count);
	text[b.count] = '\0';
	bytes_clear(&b);
	return text;
}

void page_save(const page_file *p, const char *text) {
	FILE *const f = fopen(p->path, "wb");

	ck_assert(f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
}

unsigned page_count(const char *text, const char *part) {
	unsigned count = 0;

	for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
		++count;
	return count;
}

void page_check_alone(const char *text) {
	ck_assert_uint_eq(page_count(text, "<script"), 2);
	ck_assert_uint_eq(page_count(text, "</script>"), 2);
	ck_assert_uint_eq(page_count(text, " src="), 0);
	ck_assert_uint_eq(page_count(text, "@import"), 0);
	ck_assert_uint_eq(page_count(text, "fetch("), 0);
	ck_assert_uint_eq(page_count(text, "://"), page_count(text, "http://www.w3.org/2000/svg"));
	ck_assert_ptr_nonnull(strstr(text, "Content-Security-Policy"));
}

cJSON *page_data(const char *text) {
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

/* ---- in a browser ------------------------------------------------------------------------------------------------ */

const char *page_browser(void) {
	static const char *const places[] = {"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"};

	for (size_t i = 0; i < sizeof places / sizeof *places; ++i)
		if (access(places[i], X_OK) == 0)
			return places[i];
	printf("SKIP: the page is not drawn: there is no Chromium\n");
	return NULL;
}

void page_dump(const page_file *p, const char *browser, const char *fragment, command_result *out) {
	char url[200], profile[100];

	snprintf(url, sizeof url, "file://%s%s", p->path, fragment);
	snprintf(profile, sizeof profile, "--user-data-dir=%s/profile", p->folder);
	command_run((const char *const[]){browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
	                                  "--disable-background-networking", "--disable-component-update", "--disable-sync",
	                                  "--no-first-run", "--enable-logging=stderr", "--window-size=1280,800", profile,
	                                  "--virtual-time-budget=8000", "--dump-dom", url, NULL},
	            NULL, out);
}

void page_check_sound(const command_result *r) {
	ck_assert_msg(r->code == 0, "exit code %d: %.300s", r->code, r->err);
	ck_assert_msg(strstr(r->out, "data-errors=\"0\"") != NULL, "the page reports errors: %.600s",
	              strstr(r->out, "<body") ? strstr(r->out, "<body") : r->err);
	/* Its Content-Security-Policy, a script that throws, console.error: all are told as CONSOLE. */
	ck_assert_msg(strstr(r->err, "CONSOLE") == NULL, "the console says: %.600s", strstr(r->err, "CONSOLE"));
}

void page_check_broken(const command_result *r) {
	ck_assert_ptr_nonnull(strstr(r->out, "data-errors="));
	ck_assert_ptr_null(strstr(r->out, "data-errors=\"0\""));
}

unsigned page_drawn(const char *dom, const char *what) {
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
