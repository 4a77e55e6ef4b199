/* Owns a target that is no device. */
#include "fake_target.h"
#include "../../graph/pass.h"

static knit_kernel fake_select(const void *device, const knit_node_view *node) {
	const fake_target *f = device;

	if (f->refuse[node->op])
		return 0;
	for (uint32_t i = 0; i < node->in_count; ++i)
		if (f->dense[node->op] && node->in[i].kind && !node->in[i].contiguous)
			return 0;
	return node->op;
}

static uint64_t fake_scratch(const void *device, knit_kernel kernel, const knit_node_view *node) {
	const fake_target *f = device;

	return kernel == node->op ? f->scratch[node->op] : 0;
}

void fake_target_init(fake_target *f) {
	*f = (fake_target){.target = {.select = fake_select, .scratch = fake_scratch, .buffer_align = 64, .max_buffer = UINT64_MAX}};
	f->target.device = f;
}

knit_status fake_target_legalise(fake_target *f, knit_graph *g, knit_diag *d) {
	uint32_t changes = 0;

	return knit__pass_legalise(g, &f->target, &changes, d);
}
