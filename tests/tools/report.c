/* Owns collecting and parsing a program's report. */
#include "report.h"
#include "suite.h"

#include <stdlib.h>
#include <string.h>

void report_take(void *user, const char *text, size_t bytes) {
	report_text *p = user;

	if (p->bytes + bytes + 1 > p->cap) {
		p->cap = (p->bytes + bytes + 1) * 2;
		p->text = realloc(p->text, p->cap);
		ck_assert_ptr_nonnull(p->text);
	}
	memcpy(p->text + p->bytes, text, bytes);
	p->bytes += bytes;
	p->text[p->bytes] = '\0';
}

cJSON *report_of(const knit_program *p, const knit_report_desc *desc) {
	report_text got = {0};

	ck_assert_int_eq(knit_program_report(p, desc, report_take, &got), KNIT_OK);
	cJSON *const root = cJSON_Parse(got.text);
	ck_assert_msg(cJSON_IsObject(root), "no JSON: %.200s", got.text);
	free(got.text);
	return root;
}

uint64_t report_number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return (uint64_t)item->valuedouble;
}
