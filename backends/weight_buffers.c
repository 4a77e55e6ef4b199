/* Owns the buffers of weights: one per distinct storage and layout of a device, shared by all programs of the context,
 * so that a weight used by several programs, or visited many times by one, is resident once. */
#include "device.h"

#include <string.h>

_Thread_local knit_weight_work knit__weight_work;

bool knit__weight_in_place(const knit_opened *o, const void *host) {
	const uint32_t align = o->backend->caps(o->dev)->import_align;

	return host && align && (uintptr_t)host % align == 0;
}

/* What a buffer is made of. */
typedef struct source {
	const void *host;
	uint64_t bytes, packed_bytes;
	uint8_t layout;
	knit_shape shape; /* where there is a layout */
	void (*done)(const void *data, uint64_t bytes); /* told of bytes that were packed; NULL: the host's bytes may be read in place */
} source;

static knit_status fill(knit_opened *o, const source *from, knit_weight_buffer *w) {
	if (!from->host)
		return KNIT_OK;
	w->copied = true;
	if (from->layout) {
		++knit__weight_work.packs;
		return o->backend->pack(o->dev, from->layout, &from->shape, from->host, from->done, w->buffer);
	}
	++knit__weight_work.uploads;
	return o->backend->buffer_write(o->dev, w->buffer, 0, from->host, from->bytes);
}

static knit_status buffer_make(knit_opened *o, const source *from, knit_weight_buffer *w) {
	++knit__weight_work.buffers;
	if (!from->layout && !from->done && knit__weight_in_place(o, from->host))
		return o->backend->buffer_import(o->dev, from->host, from->bytes, &w->buffer);

	knit_status status = o->backend->buffer_create(o->dev, KNIT_BUFFER_CONST,
	                                               from->layout ? from->packed_bytes : from->bytes, &w->buffer);
	if (status != KNIT_OK)
		return status;
	status = fill(o, from, w);
	if (status != KNIT_OK) {
		o->backend->buffer_destroy(o->dev, w->buffer);
		w->buffer = NULL;
	}
	return status;
}

static knit_weight_buffer *find(const knit_opened *o, const source *from) {
	for (uint32_t i = 0; from->host && i < o->weight_count; ++i) {
		knit_weight_buffer *const w = o->weights[i];

		if (w->host == from->host && w->bytes == from->bytes && w->layout == from->layout &&
		    (!w->layout || knit__shape_equal(&w->shape, &from->shape)))
			return w;
	}
	return NULL;
}

static knit_status acquire_locked(knit_opened *o, const source *from, knit_weight_buffer **out) {
	knit_weight_buffer *w = find(o, from);

	if (w) {
		++w->refs;
		*out = w;
		return KNIT_OK;
	}
	if (!knit__grow(&o->ctx->a, (void **)&o->weights, &o->weight_cap, o->weight_count + 1, sizeof *o->weights))
		return KNIT_ERR_MEMORY;
	w = knit__alloc_zero(&o->ctx->a, sizeof *w);
	if (!w)
		return KNIT_ERR_MEMORY;
	w->host = from->host;
	w->bytes = from->bytes;
	w->layout = from->layout;
	w->shape = from->shape;
	w->refs = 1;
	const knit_status status = buffer_make(o, from, w);
	if (status != KNIT_OK) {
		knit__free(&o->ctx->a, w, sizeof *w);
		return status;
	}
	o->weights[o->weight_count++] = w;
	*out = w;
	return KNIT_OK;
}

static knit_status acquire(knit_opened *o, const source *from, const char *name, knit_weight_buffer **out,
                           knit_diag *d) {
	*out = NULL;
	pthread_mutex_lock(&o->lock);
	const knit_status status = acquire_locked(o, from, out);
	pthread_mutex_unlock(&o->lock);
	if (status == KNIT_OK)
		return KNIT_OK;
	char room[64] = "";
	if (status == KNIT_ERR_MEMORY)
		knit__device_room_text(o, room, sizeof room);
	return knit__fail(d, status, 0, "%s: weight \"%.80s\" (%llu bytes) could not be placed: %s%s", o->id,
	                  name ? name : "", (unsigned long long)(from->layout ? from->packed_bytes : from->bytes),
	                  knit_status_name(status), room);
}

knit_status knit__weight_acquire(knit_opened *o, const void *host, uint64_t bytes, const char *name,
                                 knit_weight_buffer **out, knit_diag *d) {
	const source from = {.host = host, .bytes = bytes};

	return acquire(o, &from, name, out, d);
}

knit_status knit__weight_acquire_buffer(knit_opened *o, const knit_buffer_desc *b, void (*done)(const void *data, uint64_t bytes),
                                        knit_weight_buffer **out, knit_diag *d) {
	const source from = {b->host, b->bytes, b->packed_bytes, b->layout, b->shape, done};

	return acquire(o, &from, b->name, out, d);
}

bool knit__weight_read_in_place(knit_opened *o, const void *host, uint64_t bytes) {
	const source plain = {.host = host, .bytes = bytes};

	pthread_mutex_lock(&o->lock);
	const knit_weight_buffer *const w = find(o, &plain);
	const bool read = w && !w->copied;
	pthread_mutex_unlock(&o->lock);
	return read;
}

void knit__weight_release(knit_opened *o, knit_weight_buffer *w) {
	if (!w)
		return;
	pthread_mutex_lock(&o->lock);
	if (--w->refs == 0) {
		for (uint32_t i = 0; i < o->weight_count; ++i) {
			if (o->weights[i] != w)
				continue;
			o->weights[i] = o->weights[--o->weight_count];
			break;
		}
		o->backend->buffer_destroy(o->dev, w->buffer);
		knit__free(&o->ctx->a, w, sizeof *w);
	}
	pthread_mutex_unlock(&o->lock);
}
