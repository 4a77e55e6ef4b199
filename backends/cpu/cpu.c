/* Owns the CPU device: enumeration and buffers. Knows no op. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFER_ALIGN 64
/* Element types of 4 bytes are read through pointers of their type; what lies less aligned in a file is copied. */
#define IMPORT_ALIGN 4

/* Handing a job to spinning workers and meeting them at its end costs 1 to 3 microseconds, waking sleeping ones more. */
#define SPLIT_MIN_NS 10000.0

static bool environment_flag(const char *name) {
	const char *const text = getenv(name);

	return text && *text && strcmp(text, "0") != 0;
}

/* KNIT_CPU_SPLIT_NS=0 splits every step (tests), a large number none. */
static double split_choose(void) {
	const char *const text = getenv("KNIT_CPU_SPLIT_NS");
	char *end = NULL;
	const double ns = text ? strtod(text, &end) : 0.0;

	return text && end != text && ns >= 0.0 ? ns : SPLIT_MIN_NS;
}

/* ---- enumeration ------------------------------------------------------------------------------------------------- */

static void processor_name(char *out, size_t size) {
	char line[256];
	FILE *const f = fopen("/proc/cpuinfo", "r");

	snprintf(out, size, "CPU");
	if (!f)
		return;
	while (fgets(line, sizeof line, f)) {
		const char *const colon = strchr(line, ':');
		if (strncmp(line, "model name", 10) != 0 || !colon || colon[1] == '\0')
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(out, size, "%.*s", (int)(size - 1), colon + 2);
		break;
	}
	fclose(f);
}

static knit_status cpu_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	knit_diag d = {0};
	knit_cpu_isa isa;

	*count = 1;
	if (cap == 0)
		return KNIT_OK;

	knit_device_info *const info = &out[0];
	*info = (knit_device_info){.id = "cpu", .available = true};
	processor_name(info->name, sizeof info->name);
	const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	if (pages > 0 && page > 0)
		info->memory_bytes = (uint64_t)pages * (uint64_t)page;
	if (knit__cpu_isa_choose(&isa, &d) != KNIT_OK) {
		info->available = false;
		snprintf(info->detail, sizeof info->detail, "%s", d.text);
		return KNIT_OK;
	}
	const uint32_t cores = knit__pool_cores();
	snprintf(info->detail, sizeof info->detail, "%s kernels, %u threads on %u cores", knit__cpu_isa_name(isa),
	         host->cpu_threads ? host->cpu_threads : cores, cores);
	return KNIT_OK;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void cpu_close(knit_device *dev) {
	const knit_allocator a = dev->a;

	knit__pool_destroy(dev->pool);
	pthread_mutex_destroy(&dev->memory_lock);
	knit__free(&a, dev, sizeof *dev);
}

static knit_status cpu_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag) {
	const knit_allocator a = host->allocator.alloc ? host->allocator : knit__default_allocator;
	knit_cpu_isa isa;

	*out = NULL;
	if (index != 0)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "there is one CPU device: use \"cpu\"");
	knit_status status = knit__cpu_isa_choose(&isa, diag);
	if (status != KNIT_OK)
		return status;

	knit_device *const dev = knit__alloc_zero(&a, sizeof *dev);
	if (!dev)
		return knit__fail_memory(diag, "the CPU device", sizeof *dev);
	dev->a = a;
	pthread_mutex_init(&dev->memory_lock, NULL);
	dev->default_allocator = a.alloc == knit__default_allocator.alloc;
	dev->timing = environment_flag("KNIT_TIMES");
	dev->split_min_ns = split_choose();
	dev->isa = isa;
	dev->caps = (knit_caps){.max_buffer = SIZE_MAX / 2,
	                        .max_binding_range = SIZE_MAX / 2,
	                        .buffer_align = BUFFER_ALIGN,
	                        .import_align = IMPORT_ALIGN,
	                        .unified_memory = true,
	                        .timestamps = dev->timing};
	status = knit__pool_create(&a, host->cpu_threads, &dev->pool, diag);
	if (status != KNIT_OK) {
		cpu_close(dev);
		return status;
	}
	dev->threads = knit__pool_threads(dev->pool);
	if (dev->split_min_ns <= 0.0)
		knit__pool_split_always(dev->pool);
	*out = dev;
	return KNIT_OK;
}

static const knit_caps *cpu_caps(const knit_device *dev) { return &dev->caps; }

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static knit_status cpu_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out) {
	*out = NULL;
	if (bytes > dev->caps.max_buffer)
		return KNIT_ERR_LIMIT;

	knit_buffer *const buf = knit__alloc_zero(&dev->a, sizeof *buf);
	if (!buf)
		return KNIT_ERR_MEMORY;
	buf->bytes = bytes;
	if (!knit__cpu_memory_take(dev, use, buf)) {
		knit__free(&dev->a, buf, sizeof *buf);
		return KNIT_ERR_MEMORY;
	}
	*out = buf;
	return KNIT_OK;
}

static knit_status cpu_buffer_import(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out) {
	*out = NULL;
	if ((uintptr_t)host % IMPORT_ALIGN != 0)
		return KNIT_ERR_ARGUMENT;

	knit_buffer *const buf = knit__alloc_zero(&dev->a, sizeof *buf);
	if (!buf)
		return KNIT_ERR_MEMORY;
	/* Never written: kernels only read constants, and buffer_write and buffer_clear refuse it. */
	buf->data = (char *)(uintptr_t)host;
	buf->bytes = bytes;
	buf->imported = true;
	*out = buf;
	return KNIT_OK;
}

static void cpu_buffer_destroy(knit_device *dev, knit_buffer *buf) {
	if (!buf)
		return;
	knit__cpu_memory_give(dev, buf);
	knit__free(&dev->a, buf, sizeof *buf);
}

static bool in_range(const knit_buffer *buf, uint64_t at, uint64_t bytes) {
	return at <= buf->bytes && bytes <= buf->bytes - at;
}

static knit_status cpu_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	(void)dev;
	if (buf->imported || !in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (bytes)
		memcpy(buf->data + at, src, (size_t)bytes);
	return KNIT_OK;
}

static knit_status cpu_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	(void)dev;
	if (!in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (bytes)
		memcpy(dst, buf->data + at, (size_t)bytes);
	return KNIT_OK;
}

static knit_status cpu_buffer_clear(knit_device *dev, knit_buffer *buf) {
	(void)dev;
	if (buf->imported)
		return KNIT_ERR_ARGUMENT;
#ifdef __linux__
	/* The pages go back to the system and read as zero when next touched. */
	if (buf->mapped_bytes && madvise(buf->data, (size_t)buf->mapped_bytes, MADV_DONTNEED) == 0)
		return KNIT_OK;
#endif
	memset(buf->data, 0, (size_t)buf->bytes);
	return KNIT_OK;
}

const knit_backend knit__cpu_backend = {
	.abi = KNIT_BACKEND_ABI,
	.name = "cpu",
	.enumerate = cpu_enumerate,
	.open = cpu_open,
	.close = cpu_close,
	.caps = cpu_caps,
	.select = knit__cpu_select,
	.scratch = knit__cpu_scratch,
	.weight_layout = knit__cpu_weight_layout,
	.packed_bytes = knit__cpu_packed_bytes,
	.pack = knit__cpu_pack,
	.buffer_create = cpu_buffer_create,
	.buffer_import = cpu_buffer_import,
	.buffer_destroy = cpu_buffer_destroy,
	.buffer_write = cpu_buffer_write,
	.buffer_read = cpu_buffer_read,
	.buffer_clear = cpu_buffer_clear,
	.plan_create = knit__cpu_plan_create,
	.plan_destroy = knit__cpu_plan_destroy,
	.plan_rebind = knit__cpu_plan_rebind,
	.plan_submit = knit__cpu_plan_submit,
	.plan_wait = knit__cpu_plan_wait,
	.plan_times = knit__cpu_plan_times,
};
