/* Owns the null device: it accepts every op and computes nothing; outputs read as zeros. It keeps no bytes, so a
 * program of any size can be compiled and its memory planned on it. Also the template for a new backend: every function
 * of the table, with what is expected of it. */
#include "null.h"

#include <string.h>

struct knit_device {
	knit_allocator a;
	knit_caps caps;
};

struct knit_buffer { uint64_t bytes; };

struct knit_plan { bool in_flight; };

/* ---- device ------------------------------------------------------------------------------------------------------ */

/* Says which devices there are without opening one. A driver that is missing is an entry with available = false and
 * the reason in detail. At most cap entries are written; *count is how many there are. */
static knit_status null_enumerate(const knit_context_desc *host, knit_device_info *out, size_t cap, size_t *count) {
	(void)host;
	*count = 1;
	if (cap > 0)
		out[0] = (knit_device_info){
			.id = "null", .name = "null", .detail = "accepts every op, computes nothing", .available = true};
	return KNIT_OK;
}

/* All memory comes from host->allocator. A failure says in diag what to do next. */
static knit_status null_open(uint32_t index, const knit_context_desc *host, knit_device **out, knit_diag *diag) {
	*out = NULL;
	if (index != 0)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "there is one null device: use \"null\"");

	knit_device *const dev = knit__alloc_zero(&host->allocator, sizeof *dev);
	if (!dev)
		return knit__fail_memory(diag, "the null device", sizeof *dev);
	dev->a = host->allocator;
	dev->caps = (knit_caps){.max_buffer = UINT64_MAX,
	                        .max_binding_range = UINT64_MAX,
	                        .buffer_align = 64,
	                        .import_align = 1,
	                        .unified_memory = true};
	*out = dev;
	return KNIT_OK;
}

static void null_close(knit_device *dev) {
	const knit_allocator a = dev->a;

	knit__free(&a, dev, sizeof *dev);
}

static const knit_caps *null_caps(const knit_device *dev) { return &dev->caps; }

/* ---- support ----------------------------------------------------------------------------------------------------- */

/* Pure: the same node always gets the same answer, and 0 is the only way to refuse one. */
static knit_kernel null_select(const knit_device *dev, const knit_node_view *node) {
	(void)dev;
	return node->op > KNIT_OP_NONE && node->op < KNIT_OP_COUNT ? node->op : 0;
}

static uint64_t null_scratch(const knit_device *dev, knit_kernel kernel, const knit_node_view *node) {
	(void)dev;
	(void)kernel;
	(void)node;
	return 0;
}

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static knit_status null_buffer_create(knit_device *dev, knit_buffer_use use, uint64_t bytes, knit_buffer **out) {
	(void)use;
	knit_buffer *const buf = knit__alloc_zero(&dev->a, sizeof *buf);

	*out = buf;
	if (!buf)
		return KNIT_ERR_MEMORY;
	buf->bytes = bytes;
	return KNIT_OK;
}

static knit_status null_buffer_import(knit_device *dev, const void *host, uint64_t bytes, knit_buffer **out) {
	(void)host;
	return null_buffer_create(dev, KNIT_BUFFER_CONST, bytes, out);
}

static void null_buffer_destroy(knit_device *dev, knit_buffer *buf) { knit__free(&dev->a, buf, sizeof *buf); }

static bool in_range(const knit_buffer *buf, uint64_t at, uint64_t bytes) {
	return at <= buf->bytes && bytes <= buf->bytes - at;
}

static knit_status null_buffer_write(knit_device *dev, knit_buffer *buf, uint64_t at, const void *src, uint64_t bytes) {
	(void)dev;
	(void)src;
	return in_range(buf, at, bytes) ? KNIT_OK : KNIT_ERR_ARGUMENT;
}

static knit_status null_buffer_read(knit_device *dev, knit_buffer *buf, uint64_t at, void *dst, uint64_t bytes) {
	(void)dev;
	if (!in_range(buf, at, bytes))
		return KNIT_ERR_ARGUMENT;
	if (bytes)
		memset(dst, 0, (size_t)bytes);
	return KNIT_OK;
}

static knit_status null_buffer_clear(knit_device *dev, knit_buffer *buf) {
	(void)dev;
	(void)buf;
	return KNIT_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Everything that runs will need is made here: after it, submit and wait allocate nothing. The schedule and the buffers
 * outlive the plan. */
static knit_status null_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                    knit_diag *diag) {
	(void)s;
	(void)bufs;
	*out = knit__alloc_zero(&dev->a, sizeof **out);
	return *out ? KNIT_OK : knit__fail_memory(diag, "a null plan", sizeof **out);
}

static void null_plan_destroy(knit_device *dev, knit_plan *plan) { knit__free(&dev->a, plan, sizeof *plan); }

/* Pointers are exchanged, nothing else: a session binds hundreds of adapter weights between two tokens. */
static knit_status null_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf) {
	(void)plan;
	(void)buffer;
	(void)buf;
	return KNIT_OK;
}

/* Starts the work; returns before it is done where the device works by itself. */
static knit_status null_plan_submit(knit_plan *plan, const int64_t *symbols) {
	(void)symbols;
	plan->in_flight = true;
	return KNIT_OK;
}

/* When it returns OK, all the work is done and buffer_read sees its results. */
static knit_status null_plan_wait(knit_plan *plan, uint64_t timeout_ns) {
	(void)timeout_ns;
	if (!plan->in_flight)
		return KNIT_ERR_STATE;
	plan->in_flight = false;
	return KNIT_OK;
}

static size_t null_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap) {
	(void)plan;
	(void)out;
	(void)cap;
	return 0;
}

const knit_backend knit__null_backend = {
	.abi = KNIT_BACKEND_ABI,
	.name = "null",
	.enumerate = null_enumerate,
	.open = null_open,
	.close = null_close,
	.caps = null_caps,
	.select = null_select,
	.scratch = null_scratch,
	.buffer_create = null_buffer_create,
	.buffer_import = null_buffer_import,
	.buffer_destroy = null_buffer_destroy,
	.buffer_write = null_buffer_write,
	.buffer_read = null_buffer_read,
	.buffer_clear = null_buffer_clear,
	.plan_create = null_plan_create,
	.plan_destroy = null_plan_destroy,
	.plan_rebind = null_plan_rebind,
	.plan_submit = null_plan_submit,
	.plan_wait = null_plan_wait,
	.plan_times = null_plan_times,
};
