/* The page of a run: the template with the run's JSON in the middle. */
#include "page.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

/* "<" stands in JSON only inside strings; written as an escape it can neither close the script element nor open a
 * comment in it. Lines become members of an array. */
static void write_escaped(FILE *f, const char *text, size_t bytes) {
	for (size_t i = 0; i < bytes; ++i) {
		if (text[i] == '<')
			fputs("\\u003c", f);
		else if (text[i] == '\n')
			fputs(i + 1 < bytes ? ",\n" : "\n", f);
		else
			fputc(text[i], f);
	}
}

/* What a printer of JSON lines prints, as an array. */
static void write_rows(FILE *f, const bench_run *run) {
	char *text = NULL;
	size_t bytes = 0;
	FILE *const m = open_memstream(&text, &bytes);

	if (m) {
		bench_print_json(m, run);
		fclose(m);
		write_escaped(f, text, bytes);
	}
	free(text);
}

static void write_profiles(FILE *f, const bench_run *run, const bench_profile *profiles, size_t count) {
	char *text = NULL;
	size_t bytes = 0;
	FILE *const m = open_memstream(&text, &bytes);

	for (size_t i = 0; m && i < count; ++i)
		bench_profile_json(m, run, &profiles[i]);
	if (m) {
		fclose(m);
		write_escaped(f, text, bytes);
	}
	free(text);
}

static void write_warnings(FILE *f, const bench_run *run) {
	char warnings[BENCH_MAX_WARNINGS][BENCH_WARNING_BYTES];
	const size_t count = bench_warnings(run, warnings);
	cJSON *const array = cJSON_CreateArray();

	for (size_t i = 0; i < count; ++i)
		cJSON_AddItemToArray(array, cJSON_CreateString(warnings[i]));
	char *const text = cJSON_PrintUnformatted(array);
	if (text)
		write_escaped(f, text, strlen(text));
	cJSON_free(text);
	cJSON_Delete(array);
}

void bench_page_print(FILE *f, const bench_run *run, const bench_profile *profiles, size_t count) {
	fwrite(bench_page_before, 1, bench_page_before_bytes, f);
	fputs("{\"rows\":[", f);
	write_rows(f, run);
	fputs("],\"profiles\":[", f);
	write_profiles(f, run, profiles, count);
	fputs("],\"warnings\":", f);
	write_warnings(f, run);
	fputs("}", f);
	fwrite(bench_page_after, 1, bench_page_after_bytes, f);
}
