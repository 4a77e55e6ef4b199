/* Owns what is told of a device to people: driver, limits, memory, features, which kernels they allow. Decides
 * nothing. */
#include "vk.h"

#include "vk_shaders.h"
#include "vk_tune_file.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct facts {
	knit_device_fact *out;
	size_t cap, count;
} facts;

static void add(facts *f, const char *group, const char *name, const char *fmt, ...) KNIT_PRINTF(4, 5);
static void add(facts *f, const char *group, const char *name, const char *fmt, ...) {
	va_list args;

	if (f->count < f->cap) {
		knit_device_fact *const to = &f->out[f->count];
		snprintf(to->group, sizeof to->group, "%s", group);
		snprintf(to->name, sizeof to->name, "%s", name);
		va_start(args, fmt);
		vsnprintf(to->value, sizeof to->value, fmt, args);
		va_end(args);
	}
	++f->count;
}

static const char *size_text(uint64_t bytes, char out[32]) {
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	int unit = 0;

	while (value >= 1024.0 && unit < 4) {
		value /= 1024.0;
		++unit;
	}
	snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

static void add_device(facts *f, const knit_vk_probe *p) {
	const VkPhysicalDeviceProperties *const d = &p->properties;

	add(f, "device", "name", "%.150s", d->deviceName);
	add(f, "device", "class", "%s", knit__vk_class_name(p->caps.device_class));
	add(f, "device", "driver", "%.80s %.80s", p->driver.driverName, p->driver.driverInfo);
	add(f, "device", "driver version", "0x%08x", d->driverVersion);
	add(f, "device", "conformance", "%u.%u.%u.%u", p->driver.conformanceVersion.major,
	    p->driver.conformanceVersion.minor, p->driver.conformanceVersion.subminor, p->driver.conformanceVersion.patch);
	add(f, "device", "Vulkan", "%u.%u.%u", VK_API_VERSION_MAJOR(d->apiVersion), VK_API_VERSION_MINOR(d->apiVersion),
	    VK_API_VERSION_PATCH(d->apiVersion));
	add(f, "device", "PCI id", "%04x:%04x", d->vendorID, d->deviceID);
	add(f, "device", "queue family", "%u", p->queue_family);
	if (p->timestamp_bits)
		add(f, "device", "timestamps", "%u bits of %.3g ns", p->timestamp_bits, (double)d->limits.timestampPeriod);
	else
		add(f, "device", "timestamps", "none");
}

static void add_limits(facts *f, const knit_vk_probe *p) {
	const knit_vk_caps *const c = &p->caps;
	char text[32];

	add(f, "limits", "binding", "%s", size_text(c->max_binding_bytes, text));
	add(f, "limits", "allocation", "%s", size_text(c->max_allocation_bytes, text));
	add(f, "limits", "allocations", "%u", p->allocation_limit);
	add(f, "limits", "groups per axis", "%u", c->max_groups);
	add(f, "limits", "invocations of a group", "%u", c->max_invocations);
	add(f, "limits", "shared memory of a group", "%s", size_text(c->max_shared_bytes, text));
	add(f, "limits", "alignment of bindings", "%u bytes", c->storage_align);
	if (c->subgroup_min == c->subgroup_max)
		add(f, "limits", "subgroup", "%u%s", c->subgroup, p->pipeline_subgroup ? ", required of every pipeline" : "");
	else
		add(f, "limits", "subgroup", "%u (%u to %u)", c->subgroup, c->subgroup_min, c->subgroup_max);
}

static void add_memory(facts *f, const knit_vk_probe *p) {
	static const struct { VkMemoryPropertyFlags flag; const char *name; } flags[] = {
		{VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, " device"},
		{VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT, " host"},
		{VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, " coherent"},
		{VK_MEMORY_PROPERTY_HOST_CACHED_BIT, " cached"},
	};
	char name[40], text[96], all[32], used[32], budget[32];

	for (uint32_t i = 0; i < p->memory.memoryHeapCount; ++i) {
		const bool local = p->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
		snprintf(name, sizeof name, "heap %u", i);
		size_text(p->memory.memoryHeaps[i].size, all);
		if (p->memory_budget)
			add(f, "memory", name, "%s, %s; budget %s, used %s", all, local ? "the device's own" : "the host's",
			    size_text(p->heap_budget[i], budget), size_text(p->heap_usage[i], used));
		else
			add(f, "memory", name, "%s, %s; the driver tells no budget", all, local ? "the device's own" : "the host's");
	}
	for (uint32_t i = 0; i < p->memory.memoryTypeCount; ++i) {
		size_t at = (size_t)snprintf(text, sizeof text, "heap %u:", p->memory.memoryTypes[i].heapIndex);
		for (size_t k = 0; k < sizeof flags / sizeof flags[0]; ++k) {
			if (p->memory.memoryTypes[i].propertyFlags & flags[k].flag)
				at += (size_t)snprintf(text + at, sizeof text - at, "%s", flags[k].name);
		}
		snprintf(name, sizeof name, "type %u", i);
		add(f, "memory", name, "%s", text);
	}
	if (p->memory_limit)
		add(f, "memory", "limit", "%s (KNIT_VK_LIMITS)", size_text(p->memory_limit, all));
}

/* ---- features and what they allow -------------------------------------------------------------------------------- */

static const struct { uint32_t bit; const char *name; } feature_names[] = {
	{KNIT_VK_DOT, "integer dot product"},
	{KNIT_VK_COOPMAT, "cooperative matrix of f16"},
	{KNIT_VK_SUBGROUP_CONTROL, "subgroup size control"},
};
enum { FEATURE_COUNT = sizeof feature_names / sizeof feature_names[0] };

static void add_features(facts *f, const knit_vk_probe *p) {
	for (size_t i = 0; i < FEATURE_COUNT; ++i) {
		const uint32_t bit = feature_names[i].bit;
		add(f, "features", feature_names[i].name, "%s",
		    p->caps.features & bit ? "yes" : p->offered & bit ? "off (KNIT_VK_LIMITS)" : "no");
	}
	add(f, "features", "16-bit integers in shaders", "%s", p->int16 ? "yes" : "no");
	add(f, "features", "descriptors after binding", "%s", p->update_after_bind ? "yes" : "no");
	add(f, "features", "memory budget", "%s", p->memory_budget ? "yes" : "no");
	if (p->import_align)
		add(f, "features", "host memory in place", "offered, aligned to %" PRIu64 " bytes; not used", p->import_align);
	else
		add(f, "features", "host memory in place", "no");
}

/* What the device would be opened with. */
static void add_tuning(facts *f, const knit_vk_probe *p) {
	char path[640] = "";
	knit_vk_tuning t;

	const knit_vk_tuning_source source = knit__vk_tuning_load(p, &t);
	if (source == KNIT_VK_TUNING_TABLE || !knit__vk_tuning_path(p, path, sizeof path))
		path[0] = '\0';
	add(f, "tuning", "choices", "%s%s%.110s", knit__vk_tuning_source_text(source), path[0] ? " " : "", path);
	for (uint32_t i = 0; i < knit__vk_choice_count; ++i) {
		const uint32_t value = knit__vk_tuning_get(&t, &knit__vk_choices[i]);
		if (value == KNIT_VK_NEVER)
			add(f, "tuning", knit__vk_choices[i].name, "never");
		else
			add(f, "tuning", knit__vk_choices[i].name, "%" PRIu32, value);
	}
}

static void needs_text(uint32_t needs, char *out, size_t size) {
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < FEATURE_COUNT && at < size; ++i) {
		if (needs & feature_names[i].bit)
			at += (size_t)snprintf(out + at, size - at, "%s%s", at ? " and " : "", feature_names[i].name);
	}
}

/* Only what depends on the device is told one by one: the rest is on everywhere. */
static void add_variant(facts *f, const char *group, const char *name, uint32_t needs, uint32_t features) {
	char text[120];

	if (needs == 0)
		return;
	needs_text(needs & ~features ? needs & ~features : needs, text, sizeof text);
	add(f, group, name, needs & ~features ? "off: needs %s" : "on: %s", text);
}

static void add_variants(facts *f, const knit_vk_probe *p) {
	uint32_t kernels = 0, shaders = 0;

	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i)
		kernels += (knit__vk_kernels[i]->needs & ~p->caps.features) == 0;
	for (uint32_t i = 0; i < knit__vk_shader_count; ++i)
		shaders += (knit__vk_shaders[i].needs & ~p->caps.features) == 0;
	add(f, "kernels", "on", "%u of %u", kernels, knit__vk_kernel_count);
	for (uint32_t i = 0; i < knit__vk_kernel_count; ++i)
		add_variant(f, "kernels", knit__vk_kernels[i]->name, knit__vk_kernels[i]->needs, p->caps.features);
	add(f, "shaders", "on", "%u of %u", shaders, knit__vk_shader_count);
	for (uint32_t i = 0; i < knit__vk_shader_count; ++i)
		add_variant(f, "shaders", knit__vk_shaders[i].name, knit__vk_shaders[i].needs, p->caps.features);
}

knit_status knit__vk_facts(uint32_t index, const knit_context_desc *host, knit_device_fact *out, size_t cap,
                           size_t *count) {
	knit_vk_probe list[KNIT_VK_MAX_PHYSICAL];
	knit_vk_instance instance;
	knit_vk_api vk;
	facts f = {.out = out, .cap = cap};
	uint32_t n = 0;

	*count = 0;
	knit_status status = knit__vk_instance_open(host, &instance, &vk, NULL);
	if (status != KNIT_OK)
		return status;
	status = knit__vk_probe_all(&vk, instance.handle, list, &n, NULL);
	knit__vk_instance_close(&instance, &vk);
	if (status != KNIT_OK || index >= n)
		return status == KNIT_OK ? KNIT_ERR_NOT_FOUND : status;
	add_device(&f, &list[index]);
	add_limits(&f, &list[index]);
	add_memory(&f, &list[index]);
	add_features(&f, &list[index]);
	add_tuning(&f, &list[index]);
	add_variants(&f, &list[index]);
	*count = f.count;
	return KNIT_OK;
}
