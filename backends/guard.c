/* Owns the rules of backend.h that a caller can break, and checks each call against them. Knows no backend.
 *
 * Handles of destroyed buffers and plans are kept for a while (QUARANTINE of them), so that using one is a fault that
 * is told and not a wild pointer. */
#include "guard_impl.h"

#include <stdio.h>
#include <string.h>

/* ---- faults ------------------------------------------------------------------------------------------------------ */

knit_status knit__guard_fault(knit_device *dev, const char *fmt, ...) {
	char text[256];
	va_list args;

	++dev->faults;
	va_start(args, fmt);
	vsnprintf(dev->fault, sizeof dev->fault, fmt, args);
	va_end(args);
	if (dev->host.log) {
		snprintf(text, sizeof text, "guard: %s: %s", dev->inner->name, dev->fault);
		dev->host.log(dev->host.log_user, KNIT_LOG_WARNING, text);
	}
	return KNIT_ERR_INTERNAL;
}

uint32_t knit__guard_faults(knit_device *dev, char *text, size_t size) {
	pthread_mutex_lock(&dev->lock);
	const uint32_t n = dev->faults;
	if (size)
		snprintf(text, size, "%s", dev->fault);
	pthread_mutex_unlock(&dev->lock);
	return n;
}

const knit_allocator *knit__guard_alloc(const knit_device *dev) { return &dev->host.allocator; }

/* ---- handles ----------------------------------------------------------------------------------------------------- */

void knit__guard_handle_add(knit_device *dev, handle *h, uint32_t magic, size_t size) {
	*h = (handle){.magic = magic, .dev = dev, .next = dev->live.next, .before = &dev->live, .size = size};
	h->next->before = h;
	dev->live.next = h;
	++dev->live_count;
}

void knit__guard_handle_kill(knit_device *dev, handle *h) {
	handle **const slot = &dev->dead[dev->dead_at++ % QUARANTINE];

	h->before->next = h->next;
	h->next->before = h->before;
	h->magic = MAGIC_DEAD;
	--dev->live_count;
	if (*slot)
		knit__free(knit__guard_alloc(dev), *slot, (*slot)->size);
	*slot = h;
}

knit_status knit__guard_handle_check(knit_device *dev, const handle *h, uint32_t magic, const char *call) {
	const char *const what = magic == MAGIC_PLAN ? "plan" : "buffer";

	if (!h)
		return knit__guard_fault(dev, "%s: the %s is NULL", call, what);
	if (h->magic == MAGIC_DEAD)
		return knit__guard_fault(dev, "%s: the %s was destroyed before", call, what);
	if (h->magic != magic)
		return knit__guard_fault(dev, "%s: that is no %s", call, what);
	if (h->dev != dev)
		return knit__guard_fault(dev, "%s: the %s belongs to another device", call, what);
	return KNIT_OK;
}

/* ---- device ------------------------------------------------------------------------------------------------------ */

static bool power_of_two(uint64_t n) { return n && (n & (n - 1)) == 0; }

knit_status knit__guard_wrap(const knit_backend *inner, knit_device *inner_dev, const knit_context_desc *host,
                             knit_device **out, knit_diag *diag) {
	const knit_caps *const caps = inner->caps(inner_dev);

	*out = NULL;
	if (!power_of_two(caps->buffer_align) || (caps->import_align && !power_of_two(caps->import_align)) ||
	    caps->max_buffer == 0) {
		inner->close(inner_dev);
		return knit__fail(diag, KNIT_ERR_INTERNAL, 0, "guard: %s: caps are no powers of two", inner->name);
	}
	knit_device *const dev = knit__alloc_zero(&host->allocator, sizeof *dev);
	if (!dev) {
		inner->close(inner_dev);
		return knit__fail_memory(diag, "the guard", sizeof *dev);
	}
	dev->inner = inner;
	dev->inner_dev = inner_dev;
	dev->host = *host;
	dev->live.next = dev->live.before = &dev->live;
	pthread_mutex_init(&dev->lock, NULL);
	*out = dev;
	return KNIT_OK;
}

knit_status knit__guard_open(const knit_backend *inner, uint32_t index, const knit_context_desc *host,
                             knit_device **out, knit_diag *diag) {
	knit_device *inner_dev = NULL;

	*out = NULL;
	const knit_status status = inner->open(index, host, &inner_dev, diag);
	return status == KNIT_OK ? knit__guard_wrap(inner, inner_dev, host, out, diag) : status;
}

static knit_status guard_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	(void)host;
	(void)out;
	(void)cap;
	*count = 0;
	return KNIT_OK;
}

static knit_status guard_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag) {
	(void)index;
	(void)host;
	*out = NULL;
	return knit__fail(diag, KNIT_ERR_INTERNAL, 0, "guard: open with knit__guard_open");
}

static void guard_close(knit_device *dev) {
	const knit_allocator a = *knit__guard_alloc(dev);

	pthread_mutex_lock(&dev->lock);
	if (dev->live_count)
		knit__guard_fault(dev, "close: %u buffers and plans are still there", dev->live_count);
	pthread_mutex_unlock(&dev->lock);
	/* What was leaked is left to its owner: freeing it here could be a second fault. */
	for (uint32_t i = 0; i < QUARANTINE; ++i) {
		if (dev->dead[i])
			knit__free(&a, dev->dead[i], dev->dead[i]->size);
	}
	dev->inner->close(dev->inner_dev);
	pthread_mutex_destroy(&dev->lock);
	knit__free(&a, dev, sizeof *dev);
}

static const knit_caps *guard_caps(const knit_device *dev) { return dev->inner->caps(dev->inner_dev); }

/* ---- support ----------------------------------------------------------------------------------------------------- */

static knit_status report(const knit_device *dev, const char *fmt, uint32_t a, uint32_t b) {
	/* select and scratch are pure for the caller; the count of faults is the guard's own. */
	knit_device *const self = (knit_device *)(uintptr_t)dev;

	pthread_mutex_lock(&self->lock);
	char text[128];
	snprintf(text, sizeof text, "%s (%u, %u)", fmt, a, b);
	knit__guard_fault(self, "%s", text);
	pthread_mutex_unlock(&self->lock);
	return KNIT_ERR_INTERNAL;
}

static knit_kernel guard_select(const knit_device *dev, const knit_node_view *node) {
	if (!node || node->op == KNIT_OP_NONE || node->op >= KNIT_OP_COUNT || node->in_count > KNIT_MAX_IN ||
	    node->out_count > KNIT_MAX_OUT || !node->graph) {
		report(dev, "select: the node is not filled in", node ? node->op : 0, node ? node->in_count : 0);
		return 0;
	}
	const knit_kernel first = dev->inner->select(dev->inner_dev, node);
	const knit_kernel again = dev->inner->select(dev->inner_dev, node);
	if (first == again)
		return first;
	report(dev, "select: two answers for one node", first, again);
	return 0;
}

static uint64_t guard_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node) {
	if (kernel != 0 && node && kernel == guard_select(dev, node))
		return dev->inner->scratch(dev->inner_dev, kernel, node);
	report(dev, "scratch: not the kernel that select gives for this node", kernel, node ? node->op : 0);
	return 0;
}

/* ---- layouts of weights ------------------------------------------------------------------------------------------ */

static uint8_t guard_weight_layout(const knit_device *dev, const knit_shape *weight, const knit_weight_use *uses,
                                   uint32_t count) {
	if (!dev->inner->weight_layout)
		return 0;
	if (!weight || !uses || count == 0) {
		report(dev, "weight_layout: a weight without uses", count, 0);
		return 0;
	}
	return dev->inner->weight_layout(dev->inner_dev, weight, uses, count);
}

static uint64_t guard_packed_bytes(const knit_device *dev, uint8_t layout, const knit_shape *weight) {
	if (dev->inner->packed_bytes && layout != 0 && weight)
		return dev->inner->packed_bytes(dev->inner_dev, layout, weight);
	report(dev, "packed_bytes: layout 0 or a device without layouts", layout, 0);
	return UINT64_MAX;
}

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static knit_status buffer_add(knit_device *dev, knit_buffer_use use, uint64_t bytes, const void *host,
                              knit_buffer **out) {
	knit_buffer *const buf = knit__alloc_zero(knit__guard_alloc(dev), sizeof *buf);

	if (!buf)
		return KNIT_ERR_MEMORY;
	const knit_status status = host ? dev->inner->buffer_import(dev->inner_dev, host, bytes, &buf->inner)
	                                : dev->inner->buffer_create(dev->inner_dev, use, bytes, &buf->inner);
	if (status != KNIT_OK) {
		knit__free(knit__guard_alloc(dev), buf, sizeof *buf);
		return status;
	}
	buf->bytes = bytes;
	buf->use = use;
	buf->imported = host != NULL;
	pthread_mutex_lock(&dev->lock);
	knit__guard_handle_add(dev, &buf->h, MAGIC_BUFFER, sizeof *buf);
	pthread_mutex_unlock(&dev->lock);
	*out = buf;
	return KNIT_OK;
}

static knit_status guard_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out) {
	*out = NULL;
	if (use < KNIT_BUFFER_CONST || use > KNIT_BUFFER_IO)
		return report(dev, "buffer_create: unknown use", use, 0);
	if (bytes > guard_caps(dev)->max_buffer)
		return report(dev, "buffer_create: larger than max_buffer, MiB", (uint32_t)(bytes >> 20),
		              (uint32_t)(guard_caps(dev)->max_buffer >> 20));
	return buffer_add(dev, use, bytes, NULL, out);
}

static knit_status guard_buffer_import(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out) {
	const uint32_t align = guard_caps(dev)->import_align;

	*out = NULL;
	if (!host || align == 0 || (uintptr_t)host % align != 0)
		return report(dev, "buffer_import: the host pointer does not fit import_align", align,
		              align ? (uint32_t)((uintptr_t)host % align) : 0);
	return buffer_add(dev, KNIT_BUFFER_CONST, bytes, host, out);
}

static void guard_buffer_destroy(knit_device *dev, knit_buffer *buf) {
	knit_buffer *inner = NULL;

	if (!buf)
		return;
	pthread_mutex_lock(&dev->lock);
	if (knit__guard_handle_check(dev, &buf->h, MAGIC_BUFFER, "buffer_destroy") == KNIT_OK) {
		if (buf->plans) {
			knit__guard_fault(dev, "buffer_destroy: %u plans still use the buffer", buf->plans);
		} else {
			inner = buf->inner;
			knit__guard_handle_kill(dev, &buf->h);
		}
	}
	pthread_mutex_unlock(&dev->lock);
	if (inner)
		dev->inner->buffer_destroy(dev->inner_dev, inner);
}

static knit_status range_check(knit_device *dev, const knit_buffer *buf, const char *call, uint64_t at, const void *host,
                               uint64_t bytes) {
	knit_status status = KNIT_OK;

	pthread_mutex_lock(&dev->lock);
	status = knit__guard_handle_check(dev, buf ? &buf->h : NULL, MAGIC_BUFFER, call);
	if (status == KNIT_OK && (at > buf->bytes || bytes > buf->bytes - at))
		status = knit__guard_fault(dev, "%s: bytes %llu to %llu of a buffer of %llu", call, (unsigned long long)at,
		               (unsigned long long)(at + bytes), (unsigned long long)buf->bytes);
	if (status == KNIT_OK && !host && bytes)
		status = knit__guard_fault(dev, "%s: the host pointer is NULL", call);
	if (status == KNIT_OK && buf->in_flight)
		status = knit__guard_fault(dev, "%s: a plan that uses the buffer is running: wait for it first", call);
	pthread_mutex_unlock(&dev->lock);
	return status;
}

static knit_status guard_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src,
                                      uint64_t bytes) {
	const knit_status status = range_check(dev, buf, "buffer_write", at, src, bytes);

	if (status != KNIT_OK)
		return status;
	if (buf->imported)
		return report(dev, "buffer_write: imported buffers are read-only", 0, 0);
	return dev->inner->buffer_write(dev->inner_dev, buf->inner, at, src, bytes);
}

static knit_status guard_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	const knit_status status = range_check(dev, buf, "buffer_read", at, dst, bytes);

	return status == KNIT_OK ? dev->inner->buffer_read(dev->inner_dev, buf->inner, at, dst, bytes) : status;
}

static knit_status guard_buffer_clear(knit_device *dev, knit_buffer *buf) {
	const knit_status status = range_check(dev, buf, "buffer_clear", 0, NULL, 0);

	if (status != KNIT_OK)
		return status;
	if (buf->imported)
		return report(dev, "buffer_clear: imported buffers are read-only", 0, 0);
	return dev->inner->buffer_clear(dev->inner_dev, buf->inner);
}

static void guard_room(knit_device *dev, uint64_t *free_bytes, uint64_t *total_bytes) {
	*free_bytes = *total_bytes = 0;
	if (dev->inner->room)
		dev->inner->room(dev->inner_dev, free_bytes, total_bytes);
}

static knit_status guard_settle(knit_device *dev, knit_schedule *const *s, uint32_t count, knit_diag *diag) {
	if (!s || count == 0)
		return report(dev, "settle: no schedules", count, 0);
	return dev->inner->settle ? dev->inner->settle(dev->inner_dev, s, count, diag) : KNIT_OK;
}

static bool guard_lost(const knit_device *dev) { return dev->inner->lost && dev->inner->lost(dev->inner_dev); }

static knit_status guard_pack(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
                              void (*done)(const void *data, uint64_t bytes), knit_buffer *out) {
	const uint64_t bytes = guard_packed_bytes(dev, layout, weight);

	if (bytes == UINT64_MAX || !dev->inner->pack)
		return KNIT_ERR_INTERNAL;
	const knit_status status = range_check(dev, out, "pack", 0, host, bytes);

	if (status != KNIT_OK)
		return status;
	if (out->imported)
		return report(dev, "pack: imported buffers are read-only", 0, 0);
	return dev->inner->pack(dev->inner_dev, layout, weight, host, done, out->inner);
}

const knit_backend knit__guard_backend = {
	.abi = KNIT_BACKEND_ABI,
	.name = "guard",
	.enumerate = guard_enumerate,
	.open = guard_open,
	.close = guard_close,
	.caps = guard_caps,
	.select = guard_select,
	.scratch = guard_scratch,
	.weight_layout = guard_weight_layout,
	.packed_bytes = guard_packed_bytes,
	.pack = guard_pack,
	.buffer_create = guard_buffer_create,
	.buffer_import = guard_buffer_import,
	.buffer_destroy = guard_buffer_destroy,
	.buffer_write = guard_buffer_write,
	.buffer_read = guard_buffer_read,
	.buffer_clear = guard_buffer_clear,
	.plan_create = knit__guard_plan_create,
	.plan_destroy = knit__guard_plan_destroy,
	.plan_rebind = knit__guard_plan_rebind,
	.plan_submit = knit__guard_plan_submit,
	.plan_wait = knit__guard_plan_wait,
	.plan_times = knit__guard_plan_times,
	.settle = guard_settle,
	.room = guard_room,
	.lost = guard_lost,
};
