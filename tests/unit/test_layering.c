/* Reads every #include of the project and fails on an arrow that points the wrong way. */
#include "../tools/suite.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What a folder may include, besides itself, the public header and the system. */
static const struct { const char *from, *may; } rules[] = {
	{"graph", ""},
	{"ops", "graph"},
	{"backends", "graph ops shaders"},
	/* frontends: checked by file, see allowed() */
	{"frontends", "graph"},
};

/* What frontends may see of graph/: the weight store and what it is made of. */
static const char *const store_headers[] = {"weights.h", "base.h", "context.h", "dtype.h"};

static int files_read, includes_read;

static const char *top_folder(const char *path, char *out, size_t size) {
	const size_t n = strcspn(path, "/");

	snprintf(out, size, "%.*s", (int)n, path);
	return out;
}

/* dir + relative, with ".." taken away: "backends/cpu" + "../../graph/ir.h" -> "graph/ir.h". */
static void resolve(const char *dir, const char *relative, char *out, size_t size) {
	char base[1024];

	snprintf(base, sizeof base, "%s", dir);
	while (strncmp(relative, "../", 3) == 0) {
		char *slash = strrchr(base, '/');

		relative += 3;
		if (slash)
			*slash = 0;
		else
			base[0] = 0;
	}
	snprintf(out, size, "%s%s%s", base, *base ? "/" : "", relative);
}

static bool word_in(const char *words, const char *word) {
	const size_t n = strlen(word);

	for (const char *p = words; (p = strstr(p, word)) != NULL; p += n)
		if ((p == words || p[-1] == ' ') && (p[n] == 0 || p[n] == ' '))
			return true;
	return false;
}

static bool exists(const char *path) {
	char full[2048];
	struct stat st;

	snprintf(full, sizeof full, "%s/%s", KNIT_SOURCE_DIR, path);
	return stat(full, &st) == 0;
}

static bool allowed(const char *file, const char *target) {
	char from[64], to[64];

	top_folder(file, from, sizeof from);
	top_folder(target, to, sizeof to);
	if (strcmp(target, "graph/include/knit.h") == 0)
		return true;
	if (strcmp(from, "frontends") == 0 && strcmp(to, "graph") == 0) {
		for (size_t i = 0; i < sizeof store_headers / sizeof store_headers[0]; ++i)
			if (strcmp(target + strlen("graph/"), store_headers[i]) == 0)
				return true;
		return false;
	}
	if (strcmp(from, to) == 0)
		return true;
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; ++i)
		if (strcmp(rules[i].from, from) == 0)
			return word_in(rules[i].may, to);
	return true; /* tests and bench see all */
}

static void check_file(const char *path) {
	char full[2048], line[1024], dir[1024];
	char *slash;

	snprintf(full, sizeof full, "%s/%s", KNIT_SOURCE_DIR, path);
	FILE *f = fopen(full, "r");
	ck_assert_msg(f != NULL, "cannot read %s", full);
	files_read++;
	snprintf(dir, sizeof dir, "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	while (fgets(line, sizeof line, f)) {
		char name[512], target[2048];

		if (sscanf(line, " # include \"%511[^\"]\"", name) != 1)
			continue;
		includes_read++;
		if (strcmp(name, "knit.h") == 0)
			continue;
		resolve(dir, name, target, sizeof target);
		ck_assert_msg(exists(target), "%s includes \"%s\": there is no %s", path, name, target);
		ck_assert_msg(allowed(path, target), "%s includes %s: that arrow points the wrong way", path, target);
	}
	fclose(f);
}

static void walk(const char *folder) {
	char full[2048];

	snprintf(full, sizeof full, "%s/%s", KNIT_SOURCE_DIR, folder);
	DIR *d = opendir(full);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		char path[1024];
		struct stat st;
		const size_t n = strlen(e->d_name);

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		snprintf(full, sizeof full, "%s/%s", KNIT_SOURCE_DIR, path);
		if (stat(full, &st) != 0)
			continue;
		if (S_ISDIR(st.st_mode))
			walk(path);
		else if (n > 2 && (strcmp(e->d_name + n - 2, ".c") == 0 || strcmp(e->d_name + n - 2, ".h") == 0))
			check_file(path);
	}
	closedir(d);
}

START_TEST(every_include_points_down) {
	walk("graph");
	walk("ops");
	walk("backends");
	walk("frontends");
	ck_assert_msg(files_read > 40 && includes_read > 80, "read %d files, %d includes: too few to be the project",
	              files_read, includes_read);
}
END_TEST

START_TEST(wrong_arrows_are_seen) {
	ck_assert(!allowed("graph/graph.c", "ops/quant.h"));
	ck_assert(!allowed("ops/linear.c", "backends/backend.h"));
	ck_assert(!allowed("backends/session.c", "frontends/text/sampler.h"));
	ck_assert(!allowed("frontends/cli/main.c", "backends/backend.h"));
	ck_assert(!allowed("frontends/cli/main.c", "graph/ir.h"));
	ck_assert(allowed("frontends/formats/gguf.c", "graph/weights.h"));
	ck_assert(allowed("backends/cpu/kernels/rope.c", "graph/target.h"));
}
END_TEST

int main(void) {
	Suite *s = suite_create("layering");
	TCase *t = tcase_create("includes");

	tcase_add_test(t, every_include_points_down);
	tcase_add_test(t, wrong_arrows_are_seen);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
