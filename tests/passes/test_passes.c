/* Each pass against golden texts (tests/passes/<pass>.<case>.ir: a graph, then what it becomes, or "unchanged" for the
 * twin that must not fire): run twice, checked, and compared by the oracle before and after.
 *
 * A golden file may say, in comments: "!bytes s3 10" (weights with equal numbers get equal bytes, with equal tens all
 * but the last), "!target <name>", "!order 2 1 3" (lines of nodes, counted from 1, in this order).
 * KNIT_UPDATE_GOLDEN=1 writes what is found into the files; read the diff before committing. */
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/graph_look.h"
#include "../tools/pass_target.h"
#include "../tools/suite.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STORAGES 64
#define TOLERANCE 1e-9

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

typedef struct golden {
	const char *path, *name; /* name: behind the last slash */
	char pass[32];
	char *before, *after;  /* after: NULL for "unchanged" */
	uint32_t changes;
	knit_graph *g;
	void *bytes[MAX_STORAGES];
	pass_mode target;
	bool has_target;
} golden;

static char *read_file(const char *path) {
	FILE *f = fopen(path, "rb");

	ck_assert_msg(f != NULL, "cannot open %s", path);
	char *text = calloc(1, 1 << 16);
	const size_t n = fread(text, 1, (1 << 16) - 1, f);
	ck_assert_msg(n > 0 && feof(f), "%s is empty or too long", path);
	fclose(f);
	return text;
}

static void split(golden *t) {
	t->before = read_file(t->path);
	char *mark = strstr(t->before, "==== ");
	ck_assert_msg(mark != NULL, "%s has no ==== line", t->name);
	if (strncmp(mark, "==== after ", 11) == 0) {
		char *end;

		t->changes = (uint32_t)strtoul(mark + 11, &end, 10);
		ck_assert_msg(t->changes > 0 && *end == '\n', "%s: ==== after needs the number of changes", t->name);
		t->after = end + 1;
	} else {
		ck_assert_msg(strcmp(mark, "==== unchanged\n") == 0, "%s: needs ==== after N or ==== unchanged", t->name);
	}
	*mark = 0;
}

static void give_bytes(golden *t, const char *at) {
	unsigned storage, pattern;

	ck_assert_int_eq(sscanf(at, "s%u %u", &storage, &pattern), 2);
	ck_assert(storage > 0 && storage < MAX_STORAGES && storage < t->g->storage_count && !t->bytes[storage]);
	knit_storage *s = &t->g->storages[storage];
	unsigned char *bytes = malloc(s->max_bytes);
	for (uint64_t i = 0; i < s->max_bytes; ++i)
		bytes[i] = (unsigned char)(i % 32 + pattern / 10); /* as f32, f16 or bf16: small numbers, no NaN */
	bytes[s->max_bytes - 2] = (unsigned char)(pattern % 10);
	s->host = t->bytes[storage] = bytes;
}

static void permute(golden *t, const char *at) {
	uint32_t order[64];
	char *end;

	for (uint32_t i = 0; i < t->g->order_count; ++i, at = end) {
		const unsigned long line = strtoul(at, &end, 10);
		ck_assert_msg(line >= 1 && line <= t->g->order_count, "%s: bad !order", t->name);
		order[i] = t->g->order[line - 1];
	}
	memcpy(t->g->order, order, t->g->order_count * sizeof *order);
}

static void obey(golden *t) {
	for (const char *p = t->before; (p = strstr(p, "; !")) != NULL; ++p) {
		if (strncmp(p, "; !bytes ", 9) == 0) {
			give_bytes(t, p + 9);
		} else if (strncmp(p, "; !order ", 9) == 0) {
			permute(t, p + 9);
		} else if (strncmp(p, "; !target ", 10) == 0) {
			t->target = pass_mode_named(p + 10, strcspn(p + 10, "\n"));
			t->has_target = true;
			ck_assert_msg(t->target < PASS_MODES, "%s: unknown !target", t->name);
		} else {
			ck_abort_msg("%s: unknown directive %.20s", t->name, p);
		}
	}
}

static void update(const golden *t, const char *found) {
	FILE *f = fopen(t->path, "wb");

	ck_assert(f != NULL);
	if (t->after)
		fprintf(f, "%s==== after %u\n%s", t->before, t->changes, found);
	else
		fprintf(f, "%s==== unchanged\n", t->before);
	fclose(f);
}

static void run_golden(const char *path) {
	golden t = {.path = path, .name = strrchr(path, '/') + 1};
	knit_graph *original;
	knit_diag d = {0};
	uint32_t changes = 0, again = 0;

	snprintf(t.pass, sizeof t.pass, "%.*s", (int)strcspn(t.name, "."), t.name);
	const knit_pass *pass = knit__pass_find(t.pass);
	ck_assert_msg(pass != NULL, "%s names no pass", t.name);
	split(&t);
	ck_assert_msg(knit__parse_text(ctx, t.before, &t.g, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	obey(&t);
	char *before = graph_print(t.g);
	const bool runs = strstr(t.before, "!order") == NULL; /* a wrong order is what the pass is there for */
	ck_assert_int_eq(knit__graph_clone(t.g, &original, &d), KNIT_OK);

	const knit_target fake = pass_target(t.target), *device = t.has_target ? &fake : NULL;
	ck_assert_msg(pass->run(t.g, device, &changes, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	if (t.after)
		ck_assert_int_eq(knit__graph_compact(t.g), KNIT_OK);
	char *found = graph_print(t.g);
	if (getenv("KNIT_UPDATE_GOLDEN"))
		update(&t, found);
	else
		ck_assert_msg(strcmp(found, t.after ? t.after : before) == 0, "%s gives\n%s", t.name, found);
	ck_assert_msg(changes == t.changes, "%s: %u changes, not %u", t.name, changes, t.changes);

	ck_assert_msg(knit__check_valid(t.g, NULL, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	ck_assert_msg(knit__check_text(t.g, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	bool skipped = false;
	if (runs)
		ck_assert_msg(knit__check_equal(original, t.g, 5, TOLERANCE, &skipped, &d) == KNIT_OK, "%s: %s", t.name,
					  d.text);
	ck_assert_msg(!skipped, "%s is too large to run", t.name);
	ck_assert_int_eq(pass->run(t.g, device, &again, &d), KNIT_OK);
	ck_assert_msg(again == 0, "%s: a second run reports %u changes", t.name, again);

	for (int i = 0; i < MAX_STORAGES; ++i)
		free(t.bytes[i]);
	knit_graph_destroy(original);
	knit_graph_destroy(t.g);
	free(before);
	free(found);
	free(t.before);
}

START_TEST(golden_files) {
	uint32_t fires = 0, twins = 0;
	glob_t found;

	ck_assert_int_eq(glob(KNIT_SOURCE_DIR "/tests/passes/*.ir", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; ++i) {
		run_golden(found.gl_pathv[i]);
		char *text = read_file(found.gl_pathv[i]);
		twins += strstr(text, "==== unchanged") != NULL;
		fires += strstr(text, "==== after") != NULL;
		free(text);
	}
	globfree(&found);
	ck_assert_uint_ge(fires, 45);
	ck_assert_uint_ge(twins, 50);
}
END_TEST

START_TEST(every_pass_has_golden_files) {
	const knit_pass *p;

	for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i) {
		char pattern[512];
		glob_t found;

		snprintf(pattern, sizeof pattern, KNIT_SOURCE_DIR "/tests/passes/%s.*.ir", p->name);
		ck_assert_msg(glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc >= 2, "no golden files for %s", p->name);
		globfree(&found);
		ck_assert_ptr_eq(knit__pass_find(p->name), p);
		ck_assert(p->about && *p->about);
	}
	ck_assert_ptr_null(knit__pass_find("no such pass"));
}
END_TEST

int main(void) {
	const TTest *const tests[] = {golden_files, every_pass_has_golden_files};

	return suite_run_around("passes", setup, teardown, tests, (int)(sizeof tests / sizeof *tests));
}
