/* The certificate as a page: the embedded template with the data as JSON in the middle. */
#include "plan.h"
#include "plan_html/plan_page.h"

#include <string.h>

/* "<" stands in JSON only inside strings; written as an escape it can neither close the script element nor open a
 * comment in it. */
static void write_escaped(cli_file *f, const char *text) {
	for (const char *at = text; *at;) {
		const size_t plain = strcspn(at, "<");
		if (plain)
			cli_file_write(f, at, plain);
		at += plain;
		if (*at) {
			cli_file_write(f, "\\u003c", 6);
			++at;
		}
	}
}

int cli_plan_page(const cli_certificate *plan, cJSON *root, const char *path) {
	char *text = root ? cJSON_PrintUnformatted(root) : NULL;
	cli_file f;

	cJSON_Delete(root);
	if (!text)
		return cli_fail("out of memory while writing the page");
	int code = cli_file_open(&plan->m->ctx->a, path, &f);
	if (code == CLI_OK) {
		cli_file_write(&f, (const char *)cli_plan_page_before, cli_plan_page_before_bytes);
		write_escaped(&f, text);
		cli_file_write(&f, (const char *)cli_plan_page_after, cli_plan_page_after_bytes);
		code = cli_file_close(&f, KNIT_OK);
	}
	cJSON_free(text);
	return code;
}
