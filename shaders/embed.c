/* Owns the turning of SPIR-V files into one C file with an index sorted by name (backends/vulkan/vk_shaders.h). A tool of
 * the build:
 *   knit-embed-shaders list.txt out.c
 * where a line of the list is "name needs| path". Knows nothing of what is in a shader but its magic number. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHADERS 1000
#define MAGIC 0x07230203u

typedef struct entry { char name[64], needs[128], path[1024]; size_t bytes; } entry;

static int by_name(const void *a, const void *b) {
	return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static size_t read_list(const char *path, entry *out) {
	FILE *const f = fopen(path, "r");
	char line[1400];
	size_t n = 0;

	if (!f)
		return 0;
	while (n < MAX_SHADERS && fgets(line, sizeof line, f)) {
		entry *const e = &out[n];

		*e = (entry){0};
		if (sscanf(line, "%63[a-z0-9_] %127[a-z_,]| %1023[^\n]", e->name, e->needs, e->path) != 3 &&
		    sscanf(line, "%63[a-z0-9_] | %1023[^\n]", e->name, e->path) != 2) {
			fprintf(stderr, "embed: not a line of the list: %s", line);
			n = 0;
			break;
		}
		++n;
	}
	fclose(f);
	return n;
}

static int write_code(FILE *out, size_t index, entry *e) {
	FILE *const f = fopen(e->path, "rb");
	uint32_t word;
	size_t n = 0;

	if (!f)
		return 0;
	fprintf(out, "static const uint32_t code_%zu[] = {", index);
	while (fread(&word, sizeof word, 1, f) == 1) {
		if (n == 0 && word != MAGIC)
			break;
		fprintf(out, "%s0x%x,", n % 12 ? "" : "\n", (unsigned)word);
		++n;
	}
	fprintf(out, "\n};\n");
	fclose(f);
	e->bytes = n * sizeof word;
	return n > 0;
}

/* "dot,coopmat" -> KNIT_VK_DOT | KNIT_VK_COOPMAT */
static void write_needs(FILE *out, const char *needs) {
	if (!*needs) {
		fputc('0', out);
		return;
	}
	fputs("KNIT_VK_", out);
	for (; *needs; ++needs) {
		if (*needs == ',')
			fputs(" | KNIT_VK_", out);
		else
			fputc(toupper((unsigned char)*needs), out);
	}
}

static const char find[] =
    "const knit_vk_shader *knit__vk_shader_find(const char *name) {\n"
    "\tuint32_t lo = 0, hi = knit__vk_shader_count;\n\n"
    "\twhile (lo < hi) {\n"
    "\t\tconst uint32_t mid = (lo + hi) / 2;\n"
    "\t\tconst int order = strcmp(name, knit__vk_shaders[mid].name);\n\n"
    "\t\tif (order == 0)\n"
    "\t\t\treturn &knit__vk_shaders[mid];\n"
    "\t\tif (order < 0)\n"
    "\t\t\thi = mid;\n"
    "\t\telse\n"
    "\t\t\tlo = mid + 1;\n"
    "\t}\n"
    "\treturn NULL;\n"
    "}\n";

static int write_all(FILE *out, entry *entries, size_t n) {
	fputs("/* Made by embed.c from shaders/variants.cmake. */\n#include \"vk_kernel.h\"\n#include \"vk_shaders.h\"\n\n"
	      "#include <string.h>\n\n", out);
	for (size_t i = 0; i < n; ++i) {
		if (!write_code(out, i, &entries[i])) {
			fprintf(stderr, "embed: not SPIR-V: %s\n", entries[i].path);
			return 0;
		}
	}
	fputs("\nconst knit_vk_shader knit__vk_shaders[] = {\n", out);
	for (size_t i = 0; i < n; ++i) {
		fprintf(out, "\t{\"%s\", code_%zu, %zu, ", entries[i].name, i, entries[i].bytes);
		write_needs(out, entries[i].needs);
		fputs("},\n", out);
	}
	fprintf(out, "};\nconst uint32_t knit__vk_shader_count = %zu;\n\n%s", n, find);
	return 1;
}

int main(int argc, char **argv) {
	static entry entries[MAX_SHADERS];
	FILE *out;
	size_t n;
	int good;

	if (argc != 3)
		return fprintf(stderr, "usage: %s list.txt out.c\n", argv[0]), 2;
	n = read_list(argv[1], entries);
	if (n == 0)
		return fprintf(stderr, "embed: no shaders in %s\n", argv[1]), 1;
	qsort(entries, n, sizeof *entries, by_name);
	out = fopen(argv[2], "w");
	if (!out)
		return perror(argv[2]), 1;
	good = write_all(out, entries, n);
	if (fclose(out) != 0 || !good) {
		remove(argv[2]);
		return 1;
	}
	return 0;
}
