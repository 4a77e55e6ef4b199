/* Owns the kernel of gather. A table larger than one binding is bound by ranges of rows, a dispatch each. Reference:
 * ops/gather.c. */
#include "../../../shaders/params/gather.h"
#include "kernels.h"
#include "operand.h"

_Static_assert(sizeof(struct knit_gather_params) <= KNIT_VK_PARAM_BYTES, "gather's parameters fit");

#define WIDTH 64
#define GATHER_EACH 4 /* elements of an invocation */

/* How the rows of the table are split: a row's bytes from row to row, and how many of them a binding shows. */
typedef struct ranges { uint64_t row_bytes, per_binding, count; bool split; } ranges;

static ranges ranges_of(const knit_vk_caps *caps, const knit_vk_tensor *table) {
	const uint64_t rows = (uint64_t)table->dims[0];
	const uint64_t limit = knit__vk_min(caps->max_binding_bytes, UINT32_MAX);
	ranges r = {.row_bytes = knit__vk_words(table->dtype, table->strides[0]) * knit__vk_word_bytes(table->dtype)};

	if (table->storage_bytes <= limit)
		return (ranges){r.row_bytes, rows, 1, false};
	/* a binding begins at a multiple of the alignment below its first row */
	if (r.row_bytes == 0 || r.row_bytes + caps->storage_align > limit)
		return (ranges){0};
	r.per_binding = (limit - caps->storage_align) / r.row_bytes;
	r.count = knit__vk_ceil_div(rows, r.per_binding);
	r.split = true;
	return r;
}

static uint64_t first_byte(const knit_vk_tensor *table, const ranges *r, uint32_t index) {
	return knit__vk_words(table->dtype, table->offset) * knit__vk_word_bytes(table->dtype) +
	       index * r->per_binding * r->row_bytes;
}

static uint64_t binding_start(const knit_vk_caps *caps, const knit_vk_tensor *table, const ranges *r, uint32_t index) {
	return !r->split ? 0 : first_byte(table, r, index) / caps->storage_align * caps->storage_align;
}

static bool accepts(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_weight_rows(&node->in[0]) && knit__vk_index_vector(&node->in[1]) &&
	       knit__vk_f32_dense(&node->out[0]) && knit__vk_all_bind(caps, node, 1);
}

static uint32_t plan(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	const knit_vk_tensor *const table = &s->in[0];
	const ranges r = ranges_of(caps, table);

	if (!out)
		return (uint32_t)r.count;
	for (uint32_t i = 0; i < r.count && i < cap; ++i) {
		const uint64_t at = binding_start(caps, table, &r, i);
		const uint64_t rows = knit__vk_min(r.per_binding, (uint64_t)table->dims[0] - i * r.per_binding);

		out[i] = (knit_vk_dispatch){
			.shader = "gather",
			.spec = {knit__vk_local(caps, WIDTH), table->dtype},
			.spec_count = 2,
			.bindings = {knit__vk_in(0), knit__vk_in(1), knit__vk_out(0)},
			.binding_count = 3,
		};
		if (r.split) {
			out[i].bindings[0].at = at;
			out[i].bindings[0].bytes = knit__vk_min(first_byte(table, &r, i) + rows * r.row_bytes, table->storage_bytes) - at;
		}
	}
	return (uint32_t)r.count;
}

static void fill(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	const knit_vk_tensor *const table = &s->in[0], *const ids = &s->in[1];
	const ranges r = ranges_of(caps, table);
	const uint64_t rows = (uint64_t)table->dims[0], first = index * r.per_binding;
	const uint64_t base = first_byte(table, &r, index) - binding_start(caps, table, &r, index);

	const uint64_t pieces =
		knit__vk_ceil_div((uint64_t)table->dims[1], (uint64_t)knit__vk_local(caps, WIDTH) * GATHER_EACH);

	knit__vk_grid(caps, (uint64_t)ids->dims[0] * pieces, groups);
	*(struct knit_gather_params *)params = (struct knit_gather_params){
		.ids = (uint)ids->dims[0],
		.n = (uint)table->dims[1],
		.pieces = (uint)pieces,
		.rows = (uint)rows,
		.first = (uint)first,
		.count = first < rows ? (uint)knit__vk_min(r.per_binding, rows - first) : 0,
		.base = (uint)(base / knit__vk_word_bytes(table->dtype)),
		.row_words = (uint)knit__vk_words(table->dtype, table->strides[0]),
		.ids_at = (uint)ids->offset,
		.out_at = (uint)s->out[0].offset,
	};
}

const knit_vk_kernel knit__vk_gather = {
	.name = "gather", .op = KNIT_OP_GATHER, .accepts = accepts, .plan = plan, .fill = fill};
