/* Runs samples of the conformance table on the Vulkan device with its limits lowered, so that one machine stands in for
 * smaller ones: results do not depend on what a device offers. */
#include "../../backends/vulkan/vk.h"
#include "../conformance/conf_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>

/* One of `every` cases of these ops whose names hold `name`, from the first on; ops end with KNIT_OP_NONE. */
static const struct { const char *limits, *name; size_t every; uint16_t ops[KNIT_OP_COUNT]; } rows[] = {
	/* enough for the result, less than the tables (all but q4_0) have: these are bound by ranges of rows */
	{"binding=10240", "_97_160_13", 1, {KNIT_OP_GATHER}},
	{"groups=64,invocations=16", "", 3,
	 {KNIT_OP_GATHER, KNIT_OP_ADD, KNIT_OP_MUL, KNIT_OP_SCALE, KNIT_OP_SILU, KNIT_OP_GELU, KNIT_OP_MAP, KNIT_OP_COPY,
	  KNIT_OP_CAST, KNIT_OP_SOFTMAX, KNIT_OP_ARGMAX, KNIT_OP_RMS_NORM, KNIT_OP_LAYER_NORM, KNIT_OP_ADD_RMS_NORM}},
	/* 16 invocations: two blocks of a slot */
	{"groups=64,invocations=16", "", 3, {KNIT_OP_ROPE, KNIT_OP_STATE_APPEND}},
	{"groups=64,invocations=128,shared=29184", "", 9, {KNIT_OP_KV_WRITE, KNIT_OP_ATTENTION}},
	/* less than most weights have, enough for everything else */
	{"binding=21500", "_160_130", 1, {KNIT_OP_LINEAR}},
	{"binding=21500", "_2_160_131_", 1, {KNIT_OP_LINEAR_LORA}},
	{"binding=8300", "_5_160_50_4", 1, {KNIT_OP_LINEAR_GROUP}},
	{"binding=6000", "_5_160_51_4", 1, {KNIT_OP_GLU}},
	/* enough for x, less than x takes as two f16 */
	{"binding=21500", "f16_70_64_40_4_1", 1, {KNIT_OP_GLU}},
	/* without integer dot products: weights in blocks meet x as floats there too */
	{"features=0", "q8_0", 7, {KNIT_OP_LINEAR, KNIT_OP_LINEAR_LORA, KNIT_OP_LINEAR_GROUP, KNIT_OP_GLU}},
	{"features=0", "q4_0", 7, {KNIT_OP_LINEAR, KNIT_OP_LINEAR_LORA, KNIT_OP_LINEAR_GROUP, KNIT_OP_GLU}},
	/* no room for the larger tiles; more groups than an axis takes */
	{"groups=64,invocations=64,shared=16384", "", 29,
	 {KNIT_OP_LINEAR, KNIT_OP_LINEAR_LORA, KNIT_OP_LINEAR_GROUP, KNIT_OP_GLU, KNIT_OP_LORA_SELECT}},
	/* one invocation in a group: no reduction may count on a second */
	{"invocations=1", "", 3, {KNIT_OP_SOFTMAX, KNIT_OP_ARGMAX, KNIT_OP_RMS_NORM, KNIT_OP_LAYER_NORM, KNIT_OP_ADD_RMS_NORM}},
};

static conf_case *cases;
static size_t case_count;

static bool listed(const uint16_t *ops, uint16_t op) {
	for (; *ops != KNIT_OP_NONE; ++ops)
		if (*ops == op)
			return true;
	return false;
}

START_TEST(lower_limits_change_no_result) {
	const conf_config cfg = {.device = "vulkan", .threads = 1};
	conf_case *const sample = calloc(case_count, sizeof *sample);
	const uint64_t before = knit__vk_messages();
	size_t count = 0, met = 0;

	ck_assert_ptr_nonnull(sample);
	for (size_t i = 0; i < case_count; ++i)
		if (listed(rows[_i].ops, cases[i].op) && strstr(cases[i].name, rows[_i].name) && met++ % rows[_i].every == 0)
			sample[count++] = cases[i];
	ck_assert_uint_gt(count, 0);
	setenv("KNIT_VK_LIMITS", rows[_i].limits, 1);
	printf("%s: ", rows[_i].limits);
	const int failed = conf_run(&cfg, sample, count);
	unsetenv("KNIT_VK_LIMITS");
	free(sample);
	ck_assert_msg(failed <= 0, "with KNIT_VK_LIMITS=%s", rows[_i].limits);
	ck_assert_uint_eq(knit__vk_messages() - before, 0);
}
END_TEST

int main(void) {
	Suite *const s = suite_create("vk_limits");
	TCase *const t = tcase_create("vk_limits");

	if (!vulkan_present_checked())
		return 0;
	cases = cases_make(&case_count);
	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, lower_limits_change_no_result, 0, sizeof rows / sizeof rows[0]);
	suite_add_tcase(s, t);
	const int failed = suite_finish(s, CK_NOFORK);
	cases_free(cases);
	return failed != 0;
}
