/* Runs a part of the conformance table with validation inside of shaders: one f32 case of each op, since the checks
 * make shaders many times larger. Nothing is read or written outside of what is bound. */
#include "../../backends/vulkan/vk.h"
#include "../conformance/conf_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not yet, because: with the layer's instructions in it, the software driver's compiler refuses linear_matvec
 * (VK_ERROR_UNKNOWN; layer 1.3.239, Mesa 22.3.6). */
static const uint16_t not_yet[] = {
	KNIT_OP_LINEAR, KNIT_OP_LORA_SELECT, KNIT_OP_LINEAR_LORA, KNIT_OP_LINEAR_GROUP, KNIT_OP_GLU,
};

static bool seen[KNIT_OP_COUNT];

static bool is_first(const conf_case *c) {
	for (size_t i = 0; i < sizeof not_yet / sizeof *not_yet; ++i)
		if (c->op == not_yet[i])
			return false;
	if (c->fill != FILL_UNIFORM || c->dtype != KNIT_F32 || seen[c->op])
		return false;
	seen[c->op] = true;
	return true;
}

START_TEST(shaders_stay_within_what_is_bound) {
	const conf_config cfg = {.device = "vulkan", .threads = 1, .take = is_first};
	const uint64_t before = knit__vk_messages();
	size_t count;

	setenv("KNIT_VK_VALIDATE", "gpu", 1);
	if (vulkan_present()) {
		conf_case *const cases = cases_make(&count);
		const int failed = conf_run(&cfg, cases, count);
		cases_free(cases);
		ck_assert_int_eq(failed, 0);
		ck_assert_uint_eq(knit__vk_messages(), before);
	}
	unsetenv("KNIT_VK_VALIDATE");
}
END_TEST

int main(void) {
	const TTest *const tests[] = {shaders_stay_within_what_is_bound};

	return suite_run("vulkan/gpu_assisted", tests, 1);
}
