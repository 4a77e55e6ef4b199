/* Owns what kernels share when they ask for groups: how many there are per axis, how large one is. Knows no op. */
#include "../vk_kernel.h"

void knit__vk_grid(const knit_vk_caps *caps, uint64_t count, uint32_t groups[3]) {
	const uint64_t limit = caps->max_groups < 65535 ? caps->max_groups : 65535;
	uint64_t rows = (count + limit - 1) / limit;

	if (rows > limit)
		rows = limit; /* refused when a plan checks the counts: no kernel asks for 4 billion groups */
	groups[0] = 0;
	groups[1] = groups[2] = 1;
	if (count == 0)
		return;
	/* As square a cut as `rows` rows allow, so that few groups are left over. */
	const uint64_t width = (count + rows - 1) / rows;
	groups[0] = width > UINT32_MAX ? UINT32_MAX : (uint32_t)width;
	groups[1] = (uint32_t)rows;
}

uint32_t knit__vk_local(const knit_vk_caps *caps, uint32_t wanted) {
	const uint32_t most = wanted < caps->max_invocations ? wanted : caps->max_invocations;
	uint32_t size = 1;

	while (size <= most / 2)
		size *= 2;
	return size;
}
