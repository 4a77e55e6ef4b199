/* Owns the reading of KNIT_VK_LIMITS. Raises nothing. */
#include "vk_limits.h"

#include "../../graph/base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void lower_u32(uint32_t *limit, uint64_t value) {
	if (value < *limit)
		*limit = (uint32_t)value;
}

static void lower_u64(uint64_t *limit, uint64_t value) {
	if (value < *limit)
		*limit = value;
}

static knit_status subgroup_apply(knit_vk_probe *p, uint64_t size, knit_diag *d) {
	if (size == p->caps.subgroup_min && size == p->caps.subgroup_max)
		return KNIT_OK;
	if (!p->subgroup_control || size < p->caps.subgroup_min || size > p->caps.subgroup_max || (size & (size - 1)) != 0)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "KNIT_VK_LIMITS: subgroup=%llu: the driver has %u to %u",
		                  (unsigned long long)size, p->caps.subgroup_min, p->caps.subgroup_max);
	p->caps.subgroup = p->caps.subgroup_min = p->caps.subgroup_max = (uint32_t)size;
	p->pipeline_subgroup = (uint32_t)size;
	return KNIT_OK;
}

static knit_status apply(knit_vk_probe *p, const char *name, size_t length, uint64_t value, knit_diag *d) {
	static const char *const names[] = {"binding", "allocation", "groups", "invocations", "shared", "subgroup",
	                                    "features", "memory", "allocations", "mapped"};
	size_t i = 0;

	while (i < sizeof names / sizeof names[0] && (strlen(names[i]) != length || strncmp(names[i], name, length) != 0))
		++i;
	if (value == 0 && i != 6 && i != 9)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "KNIT_VK_LIMITS: %.*s=0 leaves nothing", (int)length, name);
	switch (i) {
	case 0:
		lower_u64(&p->caps.max_binding_bytes, value);
		return KNIT_OK;
	case 1:
		lower_u64(&p->caps.max_allocation_bytes, value);
		return KNIT_OK;
	case 2:
		lower_u32(&p->caps.max_groups, value);
		return KNIT_OK;
	case 3:
		lower_u32(&p->caps.max_invocations, value);
		return KNIT_OK;
	case 4:
		lower_u32(&p->caps.max_shared_bytes, value);
		return KNIT_OK;
	case 5:
		return subgroup_apply(p, value, d);
	case 6:
		p->caps.features &= (uint32_t)value;
		return KNIT_OK;
	case 7:
		p->memory_limit = value;
		return KNIT_OK;
	case 8:
		lower_u32(&p->allocation_limit, value);
		return KNIT_OK;
	case 9:
		p->map_local = value != 0;
		return KNIT_OK;
	default:
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0,
		                  "KNIT_VK_LIMITS: \"%.*s\": use binding, allocation, groups, invocations, shared, subgroup, "
		                  "features, memory, allocations, mapped",
		                  (int)(length < 32 ? length : 32), name);
	}
}

knit_status knit__vk_limits_apply(knit_vk_probe *p, knit_diag *d) {
	const char *text = getenv("KNIT_VK_LIMITS");

	while (text && *text) {
		const size_t length = strcspn(text, "=,");
		char *end;
		if (text[length] != '=' || text[length + 1] < '0' || text[length + 1] > '9')
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "KNIT_VK_LIMITS: \"%.40s\" is not name=number", text);
		errno = 0;
		const unsigned long long value = strtoull(text + length + 1, &end, 10);
		if (errno || (*end != ',' && *end != '\0'))
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "KNIT_VK_LIMITS: \"%.40s\" is not name=number", text);
		const knit_status status = apply(p, text, length, value, d);
		if (status != KNIT_OK)
			return status;
		text = *end == ',' ? end + 1 : end;
	}
	return KNIT_OK;
}
