/* Owns running a graph straight on a backend, with guards. */
#include "device_run.h"

#include "../../graph/context.h"
#include "../../graph/pass.h"

#include <stdlib.h>
#include <string.h>

#define GUARD_BYTES 256
#define GUARD_BYTE 0xA5
#define ARENA_BYTE 0xFF /* NaN in f32, f16 and bf16 */

typedef struct device_ref { const knit_backend *backend; knit_device *dev; } device_ref;

struct device_run {
	device_ref ref;
	knit_graph *g;
	knit_schedule *schedule;
	knit_buffer **buffers;
	knit_plan *plan;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	bool keeps_bytes; /* false for a backend that stores nothing (null): guards mean nothing there */
	char **shadow; /* what inputs hold, to see that they are not written */
	double *output;
	size_t output_count;
};

static knit_kernel ask_select(const void *device, const knit_node_view *node) {
	const device_ref *ref = device;

	return ref->backend->select(ref->dev, node);
}

static uint64_t ask_scratch(const void *device, knit_kernel kernel, const knit_node_view *node) {
	const device_ref *ref = device;

	return ref->backend->scratch(ref->dev, kernel, node);
}

/* As if the weight were large, so that small ones of all shapes get a layout too, whatever padding that takes. */
static uint8_t ask_layout(const void *device, const knit_shape *weight, const knit_weight_use *uses, uint32_t count) {
	const device_ref *ref = device;
	knit_shape large = *weight;

	for (uint32_t i = 0; i < large.rank; ++i)
		large.dims[i] *= 1024;
	return ref->backend->weight_layout(ref->dev, &large, uses, count);
}

static uint64_t ask_packed_bytes(const void *device, uint8_t layout, const knit_shape *weight) {
	const device_ref *ref = device;

	return ref->backend->packed_bytes(ref->dev, layout, weight);
}

static bool importable(const device_run *r, const knit_buffer_desc *b) {
	const uint32_t align = r->ref.backend->caps(r->ref.dev)->import_align;

	return b->use == KNIT_BUFFER_CONST && b->host && !b->layout && align && (uintptr_t)b->host % align == 0;
}

static uint64_t buffer_bytes(const knit_buffer_desc *b) { return b->layout ? b->packed_bytes : b->bytes; }

/* What the packed bytes are is kept, to see that they are not written. */
static knit_status pack(device_run *r, uint32_t i) {
	const knit_backend *be = r->ref.backend;
	const knit_buffer_desc *b = &r->schedule->buffers[i];
	knit_shape shape;

	if (!knit__weight_shape(r->g, b->storage, &shape))
		return KNIT_ERR_INTERNAL;
	const knit_status status = be->pack(r->ref.dev, b->layout, &shape, b->host, NULL, r->buffers[i]);
	r->shadow[i] = calloc(1, b->packed_bytes + 1);
	return status == KNIT_OK ? be->buffer_read(r->ref.dev, r->buffers[i], 0, r->shadow[i], b->packed_bytes) : status;
}

/* A weight that can be imported is read in place, so that an address sanitizer sees reads past its end. */
static knit_status make_buffer(device_run *r, uint32_t i) {
	const knit_backend *be = r->ref.backend;
	const knit_buffer_desc *b = &r->schedule->buffers[i];
	char band[GUARD_BYTES];

	if (importable(r, b))
		return be->buffer_import(r->ref.dev, b->host, b->bytes, &r->buffers[i]);

	knit_status status = be->buffer_create(r->ref.dev, b->use, buffer_bytes(b) + GUARD_BYTES, &r->buffers[i]);
	memset(band, GUARD_BYTE, sizeof band);
	if (status == KNIT_OK)
		status = be->buffer_write(r->ref.dev, r->buffers[i], buffer_bytes(b), band, sizeof band);
	if (status == KNIT_OK && b->layout)
		return pack(r, i);
	if (status == KNIT_OK && b->use == KNIT_BUFFER_CONST && b->host)
		status = be->buffer_write(r->ref.dev, r->buffers[i], 0, b->host, b->bytes);
	return status;
}

static knit_status probe_bytes(device_run *r) {
	const uint32_t arena = r->schedule->arena_buffer;
	unsigned char byte = 0;
	const knit_status status =
		r->ref.backend->buffer_read(r->ref.dev, r->buffers[arena], r->schedule->buffers[arena].bytes, &byte, 1);

	r->keeps_bytes = byte == GUARD_BYTE;
	return status;
}

knit_status device_run_create(const knit_graph *g, const knit_backend *backend, knit_device *dev, const char *disable,
                              device_run **out, knit_diag *d) {
	return device_run_create_limited(g, backend, dev, disable, backend->caps(dev)->max_binding_range, out, d);
}

knit_status device_run_create_limited(const knit_graph *g, const knit_backend *backend, knit_device *dev,
                                      const char *disable, uint64_t max_arena, device_run **out, knit_diag *d) {
	device_run *r = calloc(1, sizeof *r);
	const knit_caps *caps = backend->caps(dev);
	knit_bounds bounds;

	*out = NULL;
	if (!r)
		return KNIT_ERR_MEMORY;
	r->ref = (device_ref){backend, dev};
	knit_target target = {.device = &r->ref,
	                            .select = ask_select,
	                            .scratch = ask_scratch,
	                            .buffer_align = caps->buffer_align,
	                            .max_buffer = caps->max_buffer,
	                            .max_binding_range = max_arena};
	if (backend->weight_layout) {
		target.weight_layout = ask_layout;
		target.packed_bytes = ask_packed_bytes;
	}
	knit_status status = knit__graph_clone(g, &r->g, d);
	if (status == KNIT_OK)
		status = knit__passes_run(r->g, &target, disable, d);
	if (status == KNIT_OK) {
		knit__bounds_declared(&r->g->exprs, &bounds);
		memcpy(r->symbols, bounds.lo, sizeof r->symbols);
		status = knit__schedule_create(r->g, &bounds, &target, &r->schedule, d);
	}
	if (status == KNIT_OK)
		status = knit__memory_check(r->schedule, r->g->a, d);
	if (status == KNIT_OK) {
		r->buffers = calloc(r->schedule->buffer_count, sizeof *r->buffers);
		r->shadow = calloc(r->schedule->buffer_count, sizeof *r->shadow);
		for (uint32_t i = 0; status == KNIT_OK && i < r->schedule->buffer_count; ++i)
			status = make_buffer(r, i);
	}
	if (status == KNIT_OK)
		status = probe_bytes(r);
	if (status == KNIT_OK)
		status = backend->plan_create(dev, r->schedule, r->buffers, &r->plan, d);
	if (status != KNIT_OK) {
		device_run_destroy(r);
		return knit__fail(d, status, 0, "device_run: %s", knit_status_name(status));
	}
	*out = r;
	return KNIT_OK;
}

void device_run_destroy(device_run *r) {
	if (!r)
		return;
	if (r->plan)
		r->ref.backend->plan_destroy(r->ref.dev, r->plan);
	for (uint32_t i = 0; r->schedule && i < r->schedule->buffer_count; ++i) {
		if (r->buffers && r->buffers[i])
			r->ref.backend->buffer_destroy(r->ref.dev, r->buffers[i]);
		if (r->shadow)
			free(r->shadow[i]);
	}
	free(r->buffers);
	free(r->shadow);
	free(r->output);
	knit__schedule_destroy(r->schedule);
	knit_graph_destroy(r->g);
	free(r);
}

const knit_schedule *device_run_schedule(const device_run *r) { return r->schedule; }

knit_plan *device_run_plan(const device_run *r) { return r->plan; }

knit_status device_run_set(device_run *r, const char *symbol, int64_t value) {
	const knit_exprs *e = &r->g->exprs;

	for (uint32_t i = 0; i < e->symbol_count; ++i) {
		if (strcmp(knit__strings_get(&r->g->strings, e->symbols[i].name), symbol) != 0)
			continue;
		if (value < e->symbols[i].lo || value > e->symbols[i].hi)
			return KNIT_ERR_LIMIT;
		r->symbols[i] = value;
		return KNIT_OK;
	}
	return KNIT_ERR_NOT_FOUND;
}

/* The buffer of an input or output value; UINT32_MAX if the program has none (an unused input). */
static uint32_t buffer_of(const device_run *r, uint32_t value) {
	const uint32_t storage = r->g->values[value].storage;

	for (uint32_t i = 0; i < r->schedule->buffer_count; ++i)
		if (r->schedule->buffers[i].storage == storage && r->schedule->buffers[i].use == KNIT_BUFFER_IO)
			return i;
	return UINT32_MAX;
}

static size_t elements(const device_run *r, uint32_t value) {
	const knit_value *v = &r->g->values[value];
	size_t n = 1;

	for (int i = 0; i < v->rank; ++i)
		n *= (size_t)knit__dim_eval(&r->g->exprs, r->symbols, v->dims[i]);
	return n;
}

static uint32_t find_port(const device_run *r, const knit_port *ports, uint32_t count, const char *name) {
	for (uint32_t i = 0; i < count; ++i)
		if (strcmp(knit__strings_get(&r->g->strings, ports[i].name), name) == 0)
			return ports[i].value;
	return 0;
}

knit_status device_run_write(device_run *r, const char *input, const double *data, size_t count) {
	const uint32_t value = find_port(r, r->g->inputs, r->g->input_count, input);
	uint64_t bytes;

	if (!value)
		return KNIT_ERR_NOT_FOUND;
	if (count != elements(r, value) || !knit__dtype_bytes(r->g->values[value].dtype, count, &bytes))
		return KNIT_ERR_SHAPE;
	const uint32_t b = buffer_of(r, value);
	if (b == UINT32_MAX)
		return KNIT_OK;

	free(r->shadow[b]);
	r->shadow[b] = calloc(1, r->schedule->buffers[b].bytes + 1);
	knit__encode(r->g->values[value].dtype, data, r->shadow[b], count);
	return r->ref.backend->buffer_write(r->ref.dev, r->buffers[b], 0, r->shadow[b], r->schedule->buffers[b].bytes);
}

static knit_status fill(device_run *r, uint32_t b, int byte) {
	const uint64_t bytes = r->schedule->buffers[b].bytes;
	char *data = malloc(bytes + 1);

	memset(data, byte, bytes);
	const knit_status status = r->ref.backend->buffer_write(r->ref.dev, r->buffers[b], 0, data, bytes);
	free(data);
	return status;
}

static knit_status check_buffer(device_run *r, uint32_t i, knit_diag *d) {
	const knit_buffer_desc *b = &r->schedule->buffers[i];
	const uint64_t bytes = buffer_bytes(b);
	char *data = malloc(bytes + GUARD_BYTES);
	const char *kept = b->use == KNIT_BUFFER_CONST && !b->layout ? b->host : r->shadow[i];
	knit_status status = r->ref.backend->buffer_read(r->ref.dev, r->buffers[i], 0, data, bytes + GUARD_BYTES);

	for (int at = 0; status == KNIT_OK && at < GUARD_BYTES; ++at)
		if ((unsigned char)data[bytes + (uint64_t)at] != GUARD_BYTE)
			status = knit__fail(d, KNIT_ERR_INTERNAL, 0, "buffer %u (%s) was written %d bytes past its end", i,
			                    b->name ? b->name : "arena", at);
	if (status == KNIT_OK && kept && memcmp(kept, data, bytes) != 0)
		status = knit__fail(d, KNIT_ERR_INTERNAL, 0, "buffer %u (%s) is read-only and was changed", i, b->name);
	free(data);
	return status;
}

knit_status device_run_go(device_run *r, knit_diag *d) {
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < r->schedule->buffer_count; ++i) {
		const knit_buffer_desc *b = &r->schedule->buffers[i];

		if (b->use == KNIT_BUFFER_ARENA || b->kind == KNIT_STORAGE_OUTPUT)
			status = fill(r, i, ARENA_BYTE);
	}
	if (status == KNIT_OK)
		status = r->ref.backend->plan_submit(r->plan, r->symbols);
	if (status == KNIT_OK)
		status = r->ref.backend->plan_wait(r->plan, UINT64_MAX);
	if (status != KNIT_OK)
		return knit__fail(d, status, 0, "the run failed");
	for (uint32_t i = 0; r->keeps_bytes && status == KNIT_OK && i < r->schedule->buffer_count; ++i)
		if (!importable(r, &r->schedule->buffers[i]))
			status = check_buffer(r, i, d);
	return status;
}

const double *device_run_output(device_run *r, const char *output, size_t *count) {
	const uint32_t value = find_port(r, r->g->outputs, r->g->output_count, output);
	uint64_t bytes;

	if (!value)
		return NULL;
	const uint32_t b = buffer_of(r, value);
	*count = elements(r, value);
	if (b == UINT32_MAX || !knit__dtype_bytes(r->g->values[value].dtype, *count, &bytes))
		return NULL;

	char *data = malloc(bytes + 1);
	free(r->output);
	r->output = calloc(*count + 1, sizeof *r->output);
	if (r->ref.backend->buffer_read(r->ref.dev, r->buffers[b], 0, data, bytes) == KNIT_OK)
		knit__decode(r->g->values[value].dtype, data, r->output, *count);
	free(data);
	return r->output;
}
