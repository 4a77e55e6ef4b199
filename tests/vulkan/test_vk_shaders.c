/* Tests the embedded shaders without a device: that the table of variants, the sources and the kernels' names agree, and
 * that each shader keeps to what kernels and devices are promised (shaders/README.md). */
#include "../../backends/vulkan/vk_kernel.h"
#include "../../backends/vulkan/vk_shaders.h"
#include "../tools/suite.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>

/* ---- SPIR-V ------------------------------------------------------------------------------------------------------ */

/* Numbers of the SPIR-V specification, those that are met here. */
enum {
	OP_ENTRY_POINT = 15, OP_CAPABILITY = 17, OP_TYPE_INT = 21, OP_TYPE_FLOAT = 22, OP_TYPE_VECTOR = 23, OP_TYPE_ARRAY = 28,
	OP_TYPE_STRUCT = 30, OP_TYPE_POINTER = 32, OP_CONSTANT = 43, OP_VARIABLE = 59, OP_DECORATE = 71,
	OP_MEMBER_DECORATE = 72,
	DECORATION_SPEC_ID = 1, DECORATION_ARRAY_STRIDE = 6, DECORATION_BUILT_IN = 11, DECORATION_BINDING = 33,
	DECORATION_SET = 34, DECORATION_OFFSET = 35,
	BUILT_IN_GROUP_SIZE = 25, CLASS_UNIFORM = 2, CLASS_PUSH_CONSTANT = 9, CLASS_STORAGE_BUFFER = 12
};

#define MAX_IDS 40000

/* What is known of an id: its defining instruction, and its decorations (-1: none). */
typedef struct id_info { const uint32_t *def; int64_t binding, set, stride, spec, built_in; } id_info;

typedef struct module {
	const knit_vk_shader *shader;
	const uint32_t *words;
	size_t count;
	id_info *ids;
} module;

/* Calls see(m, instruction, its words, arg) for each. */
static void each(module *m, void (*see)(module *, const uint32_t *, uint32_t, void *), void *arg) {
	for (size_t at = 5; at < m->count;) {
		const uint32_t length = m->words[at] >> 16;

		ck_assert_msg(length > 0 && at + length <= m->count, "%s: instructions end badly", m->shader->name);
		see(m, m->words + at, length, arg);
		at += length;
	}
}

static uint32_t op(const uint32_t *i) { return i[0] & 0xffff; }

static void learn(module *m, const uint32_t *i, uint32_t length, void *arg) {
	(void)arg;
	switch (op(i)) {
	case OP_TYPE_INT:
	case OP_TYPE_FLOAT:
	case OP_TYPE_VECTOR:
	case OP_TYPE_ARRAY:
	case OP_TYPE_STRUCT:
	case OP_TYPE_POINTER:
		m->ids[i[1]].def = i;
		break;
	case OP_CONSTANT:
	case OP_VARIABLE:
		m->ids[i[2]].def = i;
		break;
	case OP_DECORATE: {
		id_info *const id = &m->ids[i[1]];
		const int64_t value = length > 3 ? i[3] : 0;

		if (i[2] == DECORATION_BINDING)
			id->binding = value;
		else if (i[2] == DECORATION_SET)
			id->set = value;
		else if (i[2] == DECORATION_ARRAY_STRIDE)
			id->stride = value;
		else if (i[2] == DECORATION_SPEC_ID)
			id->spec = value;
		else if (i[2] == DECORATION_BUILT_IN)
			id->built_in = value;
		break;
	}
	}
}

static module module_open(const knit_vk_shader *shader) {
	module m = {shader, shader->code, shader->code_bytes / 4, calloc(MAX_IDS, sizeof(id_info))};

	ck_assert_msg(m.count > 5 && m.words[0] == 0x07230203, "%s is not SPIR-V", shader->name);
	ck_assert_msg(m.words[3] <= MAX_IDS, "%s has %u ids", shader->name, m.words[3]);
	for (uint32_t i = 0; i < m.words[3]; ++i)
		m.ids[i] = (id_info){NULL, -1, -1, -1, -1, -1};
	each(&m, learn, NULL);
	return m;
}

typedef struct member_search { uint32_t type, member; int64_t offset; } member_search;

static void find_offset(module *m, const uint32_t *i, uint32_t length, void *arg) {
	member_search *const s = arg;

	(void)m, (void)length;
	if (op(i) == OP_MEMBER_DECORATE && i[1] == s->type && i[2] == s->member && i[3] == DECORATION_OFFSET)
		s->offset = i[4];
}

/* Bytes of a type in memory; `words` becomes false where something is not of 32 bits. */
static uint32_t type_bytes(module *m, uint32_t type, bool *words) {
	const uint32_t *const def = m->ids[type].def;

	ck_assert_msg(def, "%s: a type that parameters have no use for", m->shader->name);
	switch (op(def)) {
	case OP_TYPE_INT:
	case OP_TYPE_FLOAT:
		*words &= def[2] == 32;
		return def[2] / 8;
	case OP_TYPE_VECTOR:
		return def[3] * type_bytes(m, def[2], words);
	case OP_TYPE_ARRAY:
		return (uint32_t)m->ids[type].stride * m->ids[def[3]].def[3];
	case OP_TYPE_STRUCT: {
		uint32_t end = 0;

		for (uint32_t i = 0; i < (def[0] >> 16) - 2; ++i) {
			member_search s = {type, i, -1};

			each(m, find_offset, &s);
			ck_assert_msg(s.offset >= 0, "%s: a member without an offset", m->shader->name);
			*words &= s.offset == end; /* padding would not be the same in C */
			end = (uint32_t)s.offset + type_bytes(m, def[2 + i], words);
		}
		return end;
	}
	}
	ck_abort_msg("%s: a parameter of a strange type", m->shader->name);
}

/* ---- the contract ------------------------------------------------------------------------------------------------ */

/* Capabilities that every device has (vk_kernel.h), and what a need adds. */
static const struct { uint32_t capability, need; } allowed[] = {
	{1, 0} /* Shader */, {9, 0} /* Float16 */, {39, 0} /* Int8 */, {61, 0} /* GroupNonUniform */,
	{63, 0} /* GroupNonUniformArithmetic */, {65, 0} /* GroupNonUniformShuffle */, {4433, 0} /* StorageBuffer16BitAccess */,
	{4448, 0} /* StorageBuffer8BitAccess */, {6018, KNIT_VK_DOT} /* DotProductInput4x8BitPacked */,
	{6019, KNIT_VK_DOT} /* DotProduct */, {6022, KNIT_VK_COOPMAT} /* CooperativeMatrixKHR */,
	{5345, KNIT_VK_COOPMAT} /* VulkanMemoryModel */,
};

static bool may_use(const knit_vk_shader *shader, uint32_t capability) {
	for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; ++i)
		if (allowed[i].capability == capability)
			return (allowed[i].need & ~shader->needs) == 0;
	return false;
}

typedef struct seen { uint32_t blocks; bool entry; } seen;

static void check(module *m, const uint32_t *i, uint32_t length, void *arg) {
	seen *const s = arg;
	bool words = true;

	(void)length;
	if (op(i) == OP_CAPABILITY)
		ck_assert_msg(may_use(m->shader, i[1]), "%s uses capability %u, which is not promised", m->shader->name, i[1]);
	if (op(i) == OP_ENTRY_POINT) {
		ck_assert_str_eq((const char *)&i[3], "main");
		s->entry = true;
	}
	if (op(i) != OP_VARIABLE)
		return;
	ck_assert_msg(i[3] != CLASS_PUSH_CONSTANT, "%s has push constants", m->shader->name);
	if (i[3] != CLASS_UNIFORM && i[3] != CLASS_STORAGE_BUFFER)
		return;

	const id_info *const id = &m->ids[i[2]];
	ck_assert_msg(id->set == 0 && id->binding >= 0 && id->binding <= KNIT_VK_MAX_BINDINGS, "%s: set %lld, binding %lld",
	              m->shader->name, (long long)id->set, (long long)id->binding);
	ck_assert_msg((id->binding == 0) == (i[3] == CLASS_UNIFORM), "%s: only parameters have binding 0", m->shader->name);
	if (i[3] != CLASS_UNIFORM)
		return;

	const uint32_t bytes = type_bytes(m, m->ids[i[1]].def[3], &words);
	ck_assert_msg(bytes > 0 && bytes <= KNIT_VK_PARAM_BYTES, "%s: %u bytes of parameters", m->shader->name, bytes);
	ck_assert_msg(words, "%s: parameters are 32-bit words without padding", m->shader->name);
	s->blocks++;
}

START_TEST(shaders_keep_their_promises) {
	for (uint32_t n = 0; n < knit__vk_shader_count; ++n) {
		module m = module_open(&knit__vk_shaders[n]);
		bool width = false, group_size = false;
		seen s = {0};

		each(&m, check, &s);
		ck_assert_msg(s.entry && s.blocks <= 1, "%s has no main or several blocks", m.shader->name);
		for (uint32_t id = 0; id < m.words[3]; ++id) {
			ck_assert_msg(m.ids[id].spec < KNIT_VK_MAX_SPEC, "%s: specialization constant %lld", m.shader->name,
			              (long long)m.ids[id].spec);
			width |= m.ids[id].spec == 0;
			group_size |= m.ids[id].built_in == BUILT_IN_GROUP_SIZE;
		}
		ck_assert_msg(width && group_size, "%s: its width is not specialization constant 0", m.shader->name);
		free(m.ids);
	}
}
END_TEST

/* ---- names ------------------------------------------------------------------------------------------------------- */

START_TEST(names_are_found) {
	ck_assert_uint_gt(knit__vk_shader_count, 0);
	for (uint32_t i = 0; i < knit__vk_shader_count; ++i) {
		ck_assert_ptr_eq(knit__vk_shader_find(knit__vk_shaders[i].name), &knit__vk_shaders[i]);
		ck_assert(i == 0 || strcmp(knit__vk_shaders[i - 1].name, knit__vk_shaders[i].name) < 0);
	}
	ck_assert_ptr_null(knit__vk_shader_find(""));
	ck_assert_ptr_null(knit__vk_shader_find("zzz"));
	ck_assert_ptr_null(knit__vk_shader_find("no such shader"));
}
END_TEST

static char *read_file(const char *path) {
	char full[2048];
	char *text = calloc(1, 1 << 20);

	snprintf(full, sizeof full, "%s/%s", KNIT_SOURCE_DIR, path);
	FILE *const f = fopen(full, "r");
	ck_assert_msg(f, "%s cannot be read", full);
	ck_assert_uint_gt(fread(text, 1, (1 << 20) - 1, f), 0);
	fclose(f);
	return text;
}

/* Calls see(the file's name, its text, arg) for the files of a folder whose names end so. */
static void each_file(const char *folder, const char *ending, void (*see)(const char *, const char *, void *), void *arg) {
	char path[2048];
	int files = 0;

	snprintf(path, sizeof path, "%s/%s", KNIT_SOURCE_DIR, folder);
	DIR *const d = opendir(path);
	ck_assert_ptr_nonnull(d);
	for (const struct dirent *e; (e = readdir(d)) != NULL;) {
		const size_t n = strlen(e->d_name);

		if (n <= strlen(ending) || strcmp(e->d_name + n - strlen(ending), ending) != 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		char *const text = read_file(path);
		see(e->d_name, text, arg);
		free(text);
		files++;
	}
	closedir(d);
	ck_assert_int_gt(files, 0);
}

static bool is_kernel(const char *name) {
	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i)
		if (strcmp(knit__vk_kernels[i]->name, name) == 0)
			return true;
	return false;
}

/* Every quoted name of a kernel's file, or of the bench's loops, is that of a kernel or of a shader; the shaders met are marked. */
static void mark_shaders(const char *file, const char *text, void *arg) {
	bool *const met = arg;

	for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
		const char *const end = strchr(line, '\n');

		ck_assert_msg(end, "%s does not end with a line", file);
		for (const char *p = line; *line != '#' && p < end; ++p) {
			char name[64] = "";
			size_t n = 0;

			if (*p != '"')
				continue;
			while (p + 1 + n < end && (islower((unsigned char)p[1 + n]) || isdigit((unsigned char)p[1 + n]) || p[1 + n] == '_') &&
			       n + 1 < sizeof name) {
				name[n] = p[1 + n];
				n++;
			}
			if (p[1 + n] == '"' && n > 0) {
				const knit_vk_shader *const shader = knit__vk_shader_find(name);

				ck_assert_msg(shader || is_kernel(name), "%s: there is no shader \"%s\"", file, name);
				if (shader)
					met[shader - knit__vk_shaders] = true;
			}
			/* to the end of the literal */
			for (++p; p < end && *p != '"'; ++p)
				p += *p == '\\';
		}
	}
}

START_TEST(kernels_and_shaders_agree) {
	bool *const met = calloc(knit__vk_shader_count, sizeof *met);

	each_file("backends/vulkan/kernels", ".c", mark_shaders, met);
	each_file("backends/vulkan", "_peaks.c", mark_shaders, met);
	for (uint32_t i = 0; i < knit__vk_shader_count; ++i)
		ck_assert_msg(met[i], "no kernel names the shader \"%s\"", knit__vk_shaders[i].name);
	free(met);
}
END_TEST

static void has_a_row(const char *file, const char *text, void *arg) {
	char cell[256];

	(void)text;
	snprintf(cell, sizeof cell, "| %s |", file);
	ck_assert_msg(strstr(arg, cell), "variants.cmake has no row with %s", file);
}

START_TEST(every_source_has_a_row) {
	char *const variants = read_file("shaders/variants.cmake");

	each_file("shaders", ".comp", has_a_row, variants);
	free(variants);
}
END_TEST

START_TEST(types_have_the_same_numbers) {
	static const struct { const char *name; int value; } types[] = {
		{"KNIT_F32", KNIT_F32}, {"KNIT_F16", KNIT_F16}, {"KNIT_BF16", KNIT_BF16},
		{"KNIT_I32", KNIT_I32}, {"KNIT_Q8_0", KNIT_Q8_0}, {"KNIT_Q4_0", KNIT_Q4_0},
		{"KNIT_Q4_K", KNIT_Q4_K}, {"KNIT_Q6_K", KNIT_Q6_K}};
	char *const text = read_file("shaders/common/formats.glsl");

	for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i) {
		char line[64];

		snprintf(line, sizeof line, "#define %s %d\n", types[i].name, types[i].value);
		ck_assert_msg(strstr(text, line), "formats.glsl lacks %s", line);
	}
	free(text);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {shaders_keep_their_promises, names_are_found, kernels_and_shaders_agree,
	                              every_source_has_a_row, types_have_the_same_numbers};
	return suite_run("vk_shaders", tests, sizeof tests / sizeof tests[0]);
}
