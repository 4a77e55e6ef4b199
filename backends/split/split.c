/* Owns the device that is two: what it supports, and buffers that lie on one side, the other, or both. */
#include "../guard.h"
#include "split_impl.h"

#include <string.h>

/* ---- device ------------------------------------------------------------------------------------------------------ */

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

static knit_caps caps_of_both(const knit_caps *near, const knit_caps *far) {
	return (knit_caps){
		.max_buffer = lesser(near->max_buffer, far->max_buffer),
		.max_binding_range = lesser(near->max_binding_range, far->max_binding_range),
		.buffer_align = near->buffer_align > far->buffer_align ? near->buffer_align : far->buffer_align,
		.import_align = 1, /* a weight is remembered as host bytes, and imported or copied where a plan needs it */
		.unified_memory = near->unified_memory && far->unified_memory,
		.timestamps = near->timestamps && far->timestamps,
	};
}

static uint64_t budget_of(const knit_device *dev, uint64_t asked) {
	uint64_t left = 0, all = 0;

	if (asked)
		return asked;
	if (dev->backend[KNIT_NEAR]->room)
		dev->backend[KNIT_NEAR]->room(dev->dev[KNIT_NEAR], &left, &all);
	return all ? left - left / 10 : UINT64_MAX;
}

static void split_close(knit_device *dev) {
	const knit_allocator a = dev->a;

	for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side)
		if (dev->dev[side])
			dev->backend[side]->close(dev->dev[side]);
	pthread_mutex_destroy(&dev->lock);
	knit__free(&a, dev, sizeof *dev);
}

static knit_status side_open(knit_device *dev, const knit_split_desc *desc, knit_side side,
                             const knit_context_desc *host, knit_diag *diag) {
	const knit_backend *const b = desc->backend[side];

	if (b->abi != KNIT_BACKEND_ABI)
		return knit__fail(diag, KNIT_ERR_INTERNAL, 0, "backend %s was built for interface %u, this is %u", b->name, b->abi,
		                  KNIT_BACKEND_ABI);
	dev->name[side] = b->name;
	dev->backend[side] = desc->guarded ? &knit__guard_backend : b;
	return desc->guarded ? knit__guard_open(b, desc->index[side], host, &dev->dev[side], diag)
	                     : b->open(desc->index[side], host, &dev->dev[side], diag);
}

knit_status knit__split_open(const knit_split_desc *desc, const knit_context_desc *host, knit_device **out,
                             uint64_t *budget, knit_diag *diag) {
	*out = NULL;
	knit_device *const dev = knit__alloc_zero(&host->allocator, sizeof *dev);
	if (!dev)
		return knit__fail_memory(diag, "the split", sizeof *dev);
	dev->a = host->allocator;
	pthread_mutex_init(&dev->lock, NULL);

	knit_status status = side_open(dev, desc, KNIT_NEAR, host, diag);
	if (status == KNIT_OK)
		status = side_open(dev, desc, KNIT_FAR, host, diag);
	if (status != KNIT_OK) {
		split_close(dev);
		return status;
	}
	dev->caps = caps_of_both(dev->backend[KNIT_NEAR]->caps(dev->dev[KNIT_NEAR]),
	                         dev->backend[KNIT_FAR]->caps(dev->dev[KNIT_FAR]));
	dev->budget = *budget = budget_of(dev, desc->budget);
	*out = dev;
	return KNIT_OK;
}

static knit_status split_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	(void)host;
	(void)out;
	(void)cap;
	*count = 0;
	return KNIT_OK;
}

static knit_status split_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag) {
	(void)index;
	(void)host;
	*out = NULL;
	return knit__fail(diag, KNIT_ERR_INTERNAL, 0, "split: open with knit__split_open");
}

static const knit_caps *split_caps(const knit_device *dev) { return &dev->caps; }

/* What the near one has: the far one takes the rest. */
static void split_room(knit_device *dev, uint64_t *free_bytes, uint64_t *total_bytes) {
	*free_bytes = *total_bytes = 0;
	if (dev->backend[KNIT_NEAR]->room)
		dev->backend[KNIT_NEAR]->room(dev->dev[KNIT_NEAR], free_bytes, total_bytes);
}

static bool split_lost(const knit_device *dev) {
	for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side)
		if (dev->backend[side]->lost && dev->backend[side]->lost(dev->dev[side]))
			return true;
	return false;
}

/* ---- support ----------------------------------------------------------------------------------------------------- */

static knit_kernel select_on(const knit_device *dev, knit_side side, const knit_node_view *node) {
	const knit_kernel kernel = dev->backend[side]->select(dev->dev[side], node);

	return kernel <= KNIT_SPLIT_MAX_KERNEL ? kernel : 0;
}

static knit_kernel split_select(const knit_device *dev, const knit_node_view *node) {
	return select_on(dev, KNIT_NEAR, node) | select_on(dev, KNIT_FAR, node) << 15;
}

static uint64_t split_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node) {
	uint64_t most = 0;

	for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side) {
		const knit_kernel half = knit__split_half(kernel, side);
		const uint64_t bytes = half ? dev->backend[side]->scratch(dev->dev[side], half, node) : 0;
		most = bytes > most ? bytes : most;
	}
	return most;
}

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static knit_status buffer_add(knit_device *dev, knit_buffer_use use, uint64_t bytes, const void *host,
                              knit_buffer **out) {
	knit_buffer *const buf = knit__alloc_zero(&dev->a, sizeof *buf);

	*out = buf;
	if (!buf)
		return KNIT_ERR_MEMORY;
	*buf = (knit_buffer){.use = use, .bytes = bytes, .host = host};
	return KNIT_OK;
}

static knit_status split_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out) {
	return buffer_add(dev, use, bytes, NULL, out);
}

static knit_status split_buffer_import(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out) {
	return buffer_add(dev, KNIT_BUFFER_CONST, bytes, host, out);
}

static void split_buffer_destroy(knit_device *dev, knit_buffer *buf) {
	if (!buf)
		return;
	for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side)
		if (buf->inner[side])
			dev->backend[side]->buffer_destroy(dev->dev[side], buf->inner[side]);
	knit__free(&dev->a, buf, sizeof *buf);
}

static knit_status inner_make(knit_device *dev, const knit_buffer *buf, knit_side side, knit_buffer **out) {
	const knit_backend *const b = dev->backend[side];
	const uint32_t align = b->caps(dev->dev[side])->import_align;

	if (buf->host && align && (uintptr_t)buf->host % align == 0)
		return b->buffer_import(dev->dev[side], buf->host, buf->bytes, out);
	knit_status status = b->buffer_create(dev->dev[side], buf->use, buf->bytes, out);
	if (status != KNIT_OK || !buf->host)
		return status;
	status = b->buffer_write(dev->dev[side], *out, 0, buf->host, buf->bytes);
	if (status != KNIT_OK)
		b->buffer_destroy(dev->dev[side], *out);
	return status;
}

/* What was written before the first plan lies on the far side. */
static knit_status copy_across(knit_device *dev, const knit_buffer *buf, knit_side to, knit_buffer *into) {
	static const size_t piece = (size_t)1 << 20;
	const knit_side from = to == KNIT_NEAR ? KNIT_FAR : KNIT_NEAR;
	char *const bytes = knit__alloc(&dev->a, piece);
	knit_status status = bytes ? KNIT_OK : KNIT_ERR_MEMORY;

	for (uint64_t at = 0; status == KNIT_OK && at < buf->bytes; at += piece) {
		const uint64_t n = lesser(piece, buf->bytes - at);
		status = dev->backend[from]->buffer_read(dev->dev[from], buf->inner[from], at, bytes, n);
		if (status == KNIT_OK)
			status = dev->backend[to]->buffer_write(dev->dev[to], into, at, bytes, n);
	}
	knit__free(&dev->a, bytes, piece);
	return status;
}

static knit_status need_locked(knit_device *dev, knit_buffer *buf, knit_side side) {
	const knit_side other = side == KNIT_NEAR ? KNIT_FAR : KNIT_NEAR;
	knit_buffer *inner = NULL;

	if (buf->inner[side])
		return KNIT_OK;
	knit_status status = inner_make(dev, buf, side, &inner);
	if (status == KNIT_OK && !buf->host && buf->use != KNIT_BUFFER_ARENA && buf->inner[other]) {
		status = copy_across(dev, buf, side, inner);
		if (status != KNIT_OK)
			dev->backend[side]->buffer_destroy(dev->dev[side], inner);
	}
	if (status == KNIT_OK)
		buf->inner[side] = inner;
	/* A state has one home: reads and writes of two could not be kept alike. */
	if (status == KNIT_OK && buf->use == KNIT_BUFFER_STATE && buf->inner[other]) {
		dev->backend[other]->buffer_destroy(dev->dev[other], buf->inner[other]);
		buf->inner[other] = NULL;
	}
	return status;
}

knit_status knit__split_buffer_need(knit_device *dev, knit_buffer *buf, knit_side side) {
	pthread_mutex_lock(&dev->lock);
	const knit_status status = need_locked(dev, buf, side);
	pthread_mutex_unlock(&dev->lock);
	return status;
}

static bool in_range(const knit_buffer *buf, uint64_t at, uint64_t bytes) {
	return at <= buf->bytes && bytes <= buf->bytes - at;
}

static knit_status split_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	knit_status status = in_range(buf, at, bytes) && !buf->host ? KNIT_OK : KNIT_ERR_ARGUMENT;

	if (status == KNIT_OK && !buf->inner[KNIT_NEAR] && !buf->inner[KNIT_FAR])
		status = knit__split_buffer_need(dev, buf, KNIT_FAR);
	for (knit_side side = KNIT_NEAR; status == KNIT_OK && side <= KNIT_FAR; ++side)
		if (buf->inner[side])
			status = dev->backend[side]->buffer_write(dev->dev[side], buf->inner[side], at, src, bytes);
	return status;
}

static knit_status split_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	const knit_side side = buf->result_on ? (buf->result_on == KNIT_ON_NEAR ? KNIT_NEAR : KNIT_FAR)
	                       : buf->inner[KNIT_NEAR] ? KNIT_NEAR : KNIT_FAR;

	if (!in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (buf->inner[side])
		return dev->backend[side]->buffer_read(dev->dev[side], buf->inner[side], at, dst, bytes);
	if (bytes && buf->host)
		memcpy(dst, (const char *)buf->host + at, (size_t)bytes);
	else if (bytes)
		memset(dst, 0, (size_t)bytes);
	return KNIT_OK;
}

static knit_status split_buffer_clear(knit_device *dev, knit_buffer *buf) {
	knit_status status = buf->host ? KNIT_ERR_ARGUMENT : KNIT_OK;

	for (knit_side side = KNIT_NEAR; status == KNIT_OK && side <= KNIT_FAR; ++side)
		if (buf->inner[side])
			status = dev->backend[side]->buffer_clear(dev->dev[side], buf->inner[side]);
	return status;
}

const knit_backend knit__split_backend = {
	.abi = KNIT_BACKEND_ABI,
	.name = "split",
	.enumerate = split_enumerate,
	.open = split_open,
	.close = split_close,
	.caps = split_caps,
	.select = split_select,
	.scratch = split_scratch,
	.buffer_create = split_buffer_create,
	.buffer_import = split_buffer_import,
	.buffer_destroy = split_buffer_destroy,
	.buffer_write = split_buffer_write,
	.buffer_read = split_buffer_read,
	.buffer_clear = split_buffer_clear,
	.settle = knit__split_settle,
	.plan_create = knit__split_plan_create,
	.plan_destroy = knit__split_plan_destroy,
	.plan_rebind = knit__split_plan_rebind,
	.plan_submit = knit__split_plan_submit,
	.plan_wait = knit__split_plan_wait,
	.plan_times = knit__split_plan_times,
	.room = split_room,
	.lost = split_lost,
};
