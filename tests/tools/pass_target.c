/* Owns targets that take some graphs and not others. */
#include "pass_target.h"

#include <check.h>
#include <string.h>

static const char *const names[PASS_MODES] = {"any", "nothing", "contiguous", "contiguous_even_copy", "first_contiguous",
                                              "copies_only", "packs", "packs_for_linear"};
static const pass_mode modes[PASS_MODES] = {PASS_ANY, PASS_NOTHING, PASS_CONTIGUOUS, PASS_CONTIGUOUS_EVEN_COPY,
                                            PASS_FIRST_CONTIGUOUS, PASS_COPIES_ONLY, PASS_PACKS, PASS_PACKS_FOR_LINEAR};

pass_mode pass_mode_named(const char *name, size_t length) {
	int m = 0;

	while (m < PASS_MODES && (strlen(names[m]) != length || strncmp(names[m], name, length) != 0))
		++m;
	return (pass_mode)m;
}

static knit_kernel select_kernel(const void *device, const knit_node_view *n) {
	const pass_mode m = *(const pass_mode *)device;

	if (m == PASS_ANY || m == PASS_PACKS)
		return 1;
	for (uint32_t i = 0; m == PASS_PACKS_FOR_LINEAR && i < n->in_count; ++i)
		if (n->in[i].layout && n->op != KNIT_OP_LINEAR)
			return 0;
	if (m == PASS_PACKS_FOR_LINEAR)
		return 1;
	if (m == PASS_NOTHING || (m == PASS_COPIES_ONLY && n->op != KNIT_OP_COPY))
		return 0;
	if (n->op == KNIT_OP_COPY && m != PASS_CONTIGUOUS_EVEN_COPY)
		return 1;
	for (uint32_t i = 0; i < (m == PASS_FIRST_CONTIGUOUS ? 1u : n->in_count); ++i)
		if (n->in[i].kind && !n->in[i].contiguous)
			return 0;
	return 1;
}

static uint64_t no_scratch(const void *device, knit_kernel kernel, const knit_node_view *n) {
	(void)device, (void)kernel, (void)n;
	return 0;
}

static uint8_t want_layout(const void *device, const knit_shape *weight, const knit_weight_use *uses, uint32_t count) {
	const pass_mode m = *(const pass_mode *)device;

	(void)uses;
	ck_assert_uint_gt(count, 0);
	return (m == PASS_PACKS || m == PASS_PACKS_FOR_LINEAR) && weight->rank == 2 ? 3 : 0;
}

static uint64_t packed_bytes(const void *device, uint8_t layout, const knit_shape *weight) {
	(void)device, (void)layout, (void)weight;
	return UINT64_MAX;
}

knit_target pass_target(pass_mode mode) {
	return (knit_target){.weight_layout = want_layout,
	                     .packed_bytes = packed_bytes,
	                     .device = &modes[mode],
	                     .select = select_kernel,
	                     .scratch = no_scratch,
	                     .buffer_align = 64,
	                     .max_buffer = UINT64_MAX};
}
