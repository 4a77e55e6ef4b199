/* Owns what stands in the registry for the Vulkan backend where knit is built without it. */
#include "vulkan.h"

static knit_status absent_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	(void)host;
	*count = 1;
	if (cap)
		out[0] = (knit_device_info){.id = "vulkan", .name = "Vulkan", .detail = "built without Vulkan"};
	return KNIT_OK;
}

static knit_status absent_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag) {
	(void)index;
	(void)host;
	*out = NULL;
	return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0, "knit was built without Vulkan");
}

const knit_backend knit__vulkan_backend = {
	.abi = KNIT_BACKEND_ABI, .name = "vulkan", .enumerate = absent_enumerate, .open = absent_open};
