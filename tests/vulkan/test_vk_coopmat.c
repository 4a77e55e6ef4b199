/* Tests the rewriting of cooperative matrices (shaders/coopmat.c), on a small module and on what is embedded, and that
 * only devices that multiply matrices get kernels with them. Needs no device. */
#include "../../backends/vulkan/kernels/linear.h"
#include "../../backends/vulkan/vk_shaders.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <unistd.h>

/* ---- SPIR-V ------------------------------------------------------------------------------------------------------ */

#define OP(name, length) ((uint32_t)(length) << 16 | (name))
enum {
	EXTENSION = 10, CAPABILITY = 17, TYPE_BOOL = 20, TYPE_INT = 21, TYPE_FLOAT = 22, TRUE_ = 41, FALSE_ = 42, CONSTANT = 43,
	SPEC_CONSTANT = 50, DECORATE = 71, NV_FIRST = 5357, NV_TYPE, NV_LOAD, NV_STORE, NV_MUL_ADD, NV_LENGTH,
	KHR_TYPE = 4456, KHR_LOAD, KHR_STORE, KHR_MUL_ADD, KHR_CAPABILITY = 6022
};
enum { UINT = 1, BOOL, HALF, FLOAT, SCOPE, M, N, K, YES, NO, A, B, C, P, X, W, S, Y, BOUND };

#define KHR_NAME 0x5f565053, 0x5f52484b, 0x706f6f63, 0x74617265, 0x5f657669, 0x7274616d, 0x00007869

/* Decorations, types and constants that stay as they are. */
#define SAME \
	OP(DECORATE, 4), M, 1, 8, \
	OP(DECORATE, 4), N, 1, 9, \
	OP(DECORATE, 4), K, 1, 10, \
	OP(TYPE_INT, 4), UINT, 32, 0, \
	OP(TYPE_BOOL, 2), BOOL, \
	OP(TYPE_FLOAT, 3), HALF, 16, \
	OP(TYPE_FLOAT, 3), FLOAT, 32, \
	OP(CONSTANT, 4), UINT, SCOPE, 3, \
	OP(SPEC_CONSTANT, 4), UINT, M, 16, \
	OP(SPEC_CONSTANT, 4), UINT, N, 16, \
	OP(SPEC_CONSTANT, 4), UINT, K, 16, \
	OP(TRUE_, 3), BOOL, YES, \
	OP(FALSE_, 3), BOOL, NO

static const uint32_t before[] = {
	0x07230203, 0x00010500, 0, BOUND, 0,
	OP(CAPABILITY, 2), 1,
	OP(CAPABILITY, 2), NV_FIRST,
	OP(EXTENSION, 8), 0x5f565053, 0x635f564e, 0x65706f6f, 0x69746172, 0x6d5f6576, 0x69727461, 0x00000078,
	SAME,
	OP(NV_TYPE, 6), C, FLOAT, SCOPE, M, N,
	OP(NV_TYPE, 6), A, HALF, SCOPE, M, K,
	OP(NV_TYPE, 6), B, HALF, SCOPE, K, N,
	OP(NV_LOAD, 8), A, X, P, SCOPE, NO, 0x30, SCOPE,
	OP(NV_LOAD, 6), B, W, P, SCOPE, YES,
	OP(NV_MUL_ADD, 6), C, Y, X, W, S,
	OP(NV_STORE, 7), P, Y, N, NO, 0x28, SCOPE};

static const uint32_t after[] = {
	0x07230203, 0x00010500, 0, BOUND + 3, 0,
	OP(CAPABILITY, 2), 1,
	OP(CAPABILITY, 2), KHR_CAPABILITY,
	OP(EXTENSION, 8), KHR_NAME,
	SAME,
	OP(CONSTANT, 4), UINT, BOUND, 0,
	OP(CONSTANT, 4), UINT, BOUND + 1, 1,
	OP(CONSTANT, 4), UINT, BOUND + 2, 2,
	OP(KHR_TYPE, 7), C, FLOAT, SCOPE, M, N, BOUND + 2,
	OP(KHR_TYPE, 7), A, HALF, SCOPE, M, K, BOUND,
	OP(KHR_TYPE, 7), B, HALF, SCOPE, K, N, BOUND + 1,
	OP(KHR_LOAD, 8), A, X, P, BOUND, SCOPE, 0x30, SCOPE,
	OP(KHR_LOAD, 6), B, W, P, BOUND + 1, SCOPE,
	OP(KHR_MUL_ADD, 6), C, Y, X, W, S,
	OP(KHR_STORE, 7), P, Y, BOUND, N, 0x28, SCOPE};

/* ---- the tool ---------------------------------------------------------------------------------------------------- */

/* Runs it on these words; how many come back, 0 where it refuses. */
static size_t rewrite(const uint32_t *words, size_t count, uint32_t *out, size_t cap) {
	char from[] = "/tmp/knit-coopmat-XXXXXX", to[sizeof from + 4];
	const int file = mkstemp(from);
	command_result r;
	size_t n = 0;

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(write(file, words, count * 4), (ssize_t)(count * 4));
	close(file);
	snprintf(to, sizeof to, "%s.to", from);
	const char *const argv[] = {KNIT_BINARY_DIR "/knit-coopmat", from, to, NULL};
	command_run(argv, NULL, &r);
	FILE *const f = fopen(to, "rb");
	if (f) {
		n = fread(out, 4, cap, f);
		fclose(f);
		unlink(to);
	}
	unlink(from);
	ck_assert_msg(r.code == (n ? 0 : 1), "exit code %d: %s", r.code, r.err);
	ck_assert_uint_eq(command_lines(r.err), n ? 0 : 1);
	command_clear(&r);
	return n;
}

START_TEST(a_module_is_rewritten_word_by_word) {
	uint32_t out[sizeof after / 4 + 1];
	const size_t count = rewrite(before, sizeof before / 4, out, sizeof out / 4);

	ck_assert_uint_eq(count, sizeof after / 4);
	for (size_t i = 0; i < count; ++i)
		ck_assert_msg(out[i] == after[i], "word %zu is 0x%x, not 0x%x", i, out[i], after[i]);
}
END_TEST

static size_t find_word(uint32_t word) {
	size_t i = 5;

	while (before[i] != word)
		ck_assert_uint_lt(++i, sizeof before / 4);
	return i;
}

START_TEST(what_it_does_not_expect_is_refused) {
	const struct { size_t at; uint32_t word; } faults[] = {
		{0, 1},                                           /* no SPIR-V */
		{find_word(OP(DECORATE, 4)) + 3, 7},              /* rows of another constant: no use */
		{find_word(OP(NV_LOAD, 6)) + 5, M},               /* a layout that is no constant */
		{find_word(OP(NV_LOAD, 6)) + 5, 1000},            /* an id out of bounds */
		{find_word(OP(NV_LOAD, 6)), OP(NV_LENGTH, 6)},    /* not used, not known */
		{find_word(OP(NV_STORE, 7)), OP(NV_STORE, 9)},    /* longer than the module */
		{find_word(OP(NV_MUL_ADD, 6)), 0},                /* no length */
	};
	uint32_t words[sizeof before / 4], out[sizeof after / 4 + 1];

	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; ++i) {
		memcpy(words, before, sizeof before);
		words[faults[i].at] = faults[i].word;
		ck_assert_msg(rewrite(words, sizeof before / 4, out, sizeof out / 4) == 0, "fault %zu is not seen", i);
	}
	ck_assert_uint_eq(rewrite(before, find_word(OP(NV_TYPE, 6)), out, sizeof out / 4), 0); /* no matrices */
	ck_assert_uint_eq(rewrite(before, 3, out, sizeof out / 4), 0);
}
END_TEST

/* ---- what is embedded -------------------------------------------------------------------------------------------- */

START_TEST(embedded_shaders_are_rewritten) {
	uint32_t found = 0;

	for (uint32_t n = 0; n < knit__vk_shader_count; ++n) {
		const knit_vk_shader *const s = &knit__vk_shaders[n];
		uint32_t types = 0, loads = 0, stores = 0, products = 0, capabilities = 0;

		for (size_t at = 5; at < s->code_bytes / 4; at += s->code[at] >> 16) {
			const uint32_t op = s->code[at] & 0xffff;

			ck_assert_uint_gt(s->code[at] >> 16, 0);
			ck_assert_msg(op < NV_TYPE || op > NV_LENGTH, "%s has an instruction of NV's", s->name);
			types += op == KHR_TYPE;
			loads += op == KHR_LOAD;
			stores += op == KHR_STORE;
			products += op == KHR_MUL_ADD;
			capabilities += op == CAPABILITY && s->code[at + 1] == KHR_CAPABILITY;
		}
		const bool has = (s->needs & KNIT_VK_COOPMAT) != 0;
		ck_assert_msg((types == 3 && loads > 0 && stores > 0 && products > 0 && capabilities == 1) == has &&
		              (types + loads + stores + products + capabilities > 0) == has,
		              "%s: %u types, %u loads, %u stores, %u products, %u capabilities", s->name, types, loads, stores,
		              products, capabilities);
		found += has;
	}
	ck_assert_uint_gt(found, 0);
}
END_TEST

/* ---- who gets them ----------------------------------------------------------------------------------------------- */

static const knit_vk_caps able = {.features = KNIT_VK_COOPMAT, .subgroup = 32, .subgroup_min = 32, .subgroup_max = 32,
                                  .max_invocations = 1024, .max_shared_bytes = 32768, .max_groups = 65535,
                                  .storage_align = 16, .max_binding_bytes = 1 << 27, .max_allocation_bytes = 1 << 30,
                                  .matrix = {16, 16, 16}};

static bool fits(knit_vk_caps caps) {
	const knit_vk_linear_form one = knit__vk_coop_form(&caps, false), glu = knit__vk_coop_form(&caps, true);
	const bool fit = knit__vk_linear_form_fits(&caps, &one, false);

	ck_assert_int_eq(knit__vk_linear_form_fits(&caps, &glu, true), fit);
	return fit;
}

START_TEST(only_devices_with_matrices_take_them) {
	knit_vk_caps caps = able;

	ck_assert(fits(caps));
	caps.matrix = (knit_vk_matrix){8, 8, 8};
	caps.subgroup = caps.subgroup_min = caps.subgroup_max = 8;
	ck_assert(fits(caps));
	caps.matrix = (knit_vk_matrix){0};
	ck_assert(!fits(caps));
	caps = able;
	caps.features = KNIT_VK_DOT | KNIT_VK_SUBGROUP_CONTROL;
	ck_assert(!fits(caps));
	caps = able;
	caps.subgroup_min = 8; /* subgroups of a size that is not known beforehand */
	ck_assert(!fits(caps));
	caps.features |= KNIT_VK_SUBGROUP_CONTROL;
	ck_assert(fits(caps));
	caps = able;
	caps.max_shared_bytes = 16384;
	ck_assert(!fits(caps));
	caps = able;
	caps.max_invocations = 64;
	ck_assert(!fits(caps));
}
END_TEST

START_TEST(kernels_with_matrices_say_so) {
	uint32_t found = 0;

	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i) {
		const knit_vk_kernel *const k = knit__vk_kernels[i];
		const bool named = strlen(k->name) > 5 && strcmp(k->name + strlen(k->name) - 5, "_coop") == 0;

		ck_assert_int_eq(named, (k->needs & KNIT_VK_COOPMAT) != 0);
		found += named;
	}
	ck_assert_uint_eq(found, 4);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {a_module_is_rewritten_word_by_word, what_it_does_not_expect_is_refused,
	                              embedded_shaders_are_rewritten, only_devices_with_matrices_take_them,
	                              kernels_with_matrices_say_so};
	return suite_run("vk_coopmat", tests, sizeof tests / sizeof tests[0]);
}
