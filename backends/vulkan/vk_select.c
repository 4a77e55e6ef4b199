/* Owns the choice of a kernel for a node: the first row of the table that fits. Knows no op and no kernel. */
#include "vk.h"

knit_kernel knit__vk_select(const knit_device *dev, const knit_node_view *node) {
	const knit_vk_caps *const caps = &dev->kernel_caps;

	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i) {
		const knit_vk_kernel *const k = knit__vk_kernels[i];
		if (k->op == node->op && (k->needs & ~caps->features) == 0 && k->accepts(caps, node))
			return i + 1;
	}
	return 0;
}

uint64_t knit__vk_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node) {
	const knit_vk_kernel *const k = knit__vk_kernels[kernel - 1];

	return k->scratch ? k->scratch(&dev->kernel_caps, node) : 0;
}
