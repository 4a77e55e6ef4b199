/* Owns the table of choices by class of device. */
#include "vk_tuning.h"

#include "vk_kernel.h"

#include <string.h>

static const knit_vk_tuning table[] = {
	[KNIT_VK_DISCRETE] = {.matvec_width = 64,
	                      .matvec_columns = {4, 4, 2},
	                      .matvec_rows = 8,
	                      .middle_tile_rows = 33,
	                      .large_tile_rows = 65,
	                      .dot_rows = 1,
	                      .attention_chunk = 128,
	                      .attention_quads = 16},
	[KNIT_VK_INTEGRATED] = {.matvec_width = 64,
	                        .matvec_columns = {4, 4, 2},
	                        .matvec_rows = 8,
	                        .middle_tile_rows = 33,
	                        .large_tile_rows = 65,
	                        .dot_rows = 1,
	                        .attention_chunk = 128,
	                        .attention_quads = 16},
	/* compilers for CPUs take seconds for long code: few quads */
	[KNIT_VK_SOFTWARE] = {.matvec_width = 64,
	                      .matvec_columns = {4, 4, 2},
	                      .matvec_rows = 8,
	                      .middle_tile_rows = 33,
	                      .large_tile_rows = 65,
	                      .dot_rows = 1,
	                      .attention_chunk = 128,
	                      .attention_quads = 2},
};

const knit_vk_tuning *knit__vk_tuning_of(int device_class) {
	const bool known = device_class >= KNIT_VK_DISCRETE && device_class <= KNIT_VK_SOFTWARE;

	return &table[known ? device_class : KNIT_VK_INTEGRATED];
}

/* What others are measured with comes first. */
#define AT(field) offsetof(knit_vk_tuning, field)
const knit_vk_choice knit__vk_choices[] = {
	{"matvec_width", AT(matvec_width), false, 4, {32, 64, 128, 256}},
	{"matvec_columns_1", AT(matvec_columns[0]), false, 3, {1, 2, 4}},
	{"matvec_columns_4", AT(matvec_columns[1]), false, 3, {1, 2, 4}},
	{"matvec_columns_8", AT(matvec_columns[2]), false, 3, {1, 2, 4}},
	{"dot_rows", AT(dot_rows), false, 3, {1, 33, KNIT_VK_NEVER}},
	{"large_tile_rows", AT(large_tile_rows), false, 4, {65, 129, 257, KNIT_VK_NEVER}},
	{"middle_tile_rows", AT(middle_tile_rows), false, 3, {17, 33, 65}},
	{"matvec_rows", AT(matvec_rows), false, 4, {4, 8, 16, 32}},
	{"attention_chunk", AT(attention_chunk), false, 4, {64, 128, 256, 512}},
	{"attention_quads", AT(attention_quads), true, 2, {2, 16}},
};
const uint32_t knit__vk_choice_count = sizeof knit__vk_choices / sizeof knit__vk_choices[0];

uint32_t knit__vk_tuning_get(const knit_vk_tuning *t, const knit_vk_choice *c) {
	uint32_t value;

	memcpy(&value, (const char *)t + c->offset, sizeof value);
	return value;
}

void knit__vk_tuning_set(knit_vk_tuning *t, const knit_vk_choice *c, uint32_t value) {
	memcpy((char *)t + c->offset, &value, sizeof value);
}

static bool is_candidate(const knit_vk_choice *c, uint32_t value) {
	for (uint32_t i = 0; i < c->count; ++i)
		if (c->candidates[i] == value)
			return true;
	return false;
}

/* The largest form's sums, one per subgroup of four or more: as in linear_matvec.comp. */
static bool width_fits(const knit_vk_caps *caps, uint32_t width) {
	return width <= caps->max_invocations && 8 * 4 * (width + 3) / 4 * 4 <= caps->max_shared_bytes;
}

bool knit__vk_candidate_fits(const knit_vk_caps *caps, const knit_vk_choice *c, uint32_t value) {
	/* The table's own value always does: kernels fold a group that is too wide. */
	if (value == knit__vk_tuning_get(knit__vk_tuning_of((int)caps->device_class), c))
		return true;
	if (c->fixed || !is_candidate(c, value))
		return false;
	if (c->offset == AT(matvec_width))
		return width_fits(caps, value);
	if (c->offset == AT(dot_rows))
		return caps->features & KNIT_VK_DOT;
	return true;
}

bool knit__vk_tuning_fits(const knit_vk_caps *caps, const knit_vk_tuning *t) {
	for (uint32_t i = 0; i < knit__vk_choice_count; ++i)
		if (!knit__vk_candidate_fits(caps, &knit__vk_choices[i], knit__vk_tuning_get(t, &knit__vk_choices[i])))
			return false;
	return true;
}
