/* Owns the choice of a kernel for a node: the first row of the table that fits. Knows no op and no kernel. */
#include "cpu.h"

knit_kernel knit__cpu_select_from(const knit_cpu_kernel *const *table, uint32_t count, knit_cpu_isa isa,
                                  const knit_node_view *node) {
	for (uint32_t i = 0; i < count; ++i) {
		const knit_cpu_kernel *const k = table[i];
		if (k->op == node->op && k->isa <= isa && k->accepts(node))
			return i + 1;
	}
	return 0;
}

knit_kernel knit__cpu_select(const knit_device *dev, const knit_node_view *node) {
	return knit__cpu_select_from(knit__cpu_kernels, knit__cpu_kernel_count, dev->isa, node);
}

uint64_t knit__cpu_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node) {
	const knit_cpu_kernel *const k = knit__cpu_kernels[kernel - 1];

	return k->scratch ? k->scratch(node, dev->threads) : 0;
}
