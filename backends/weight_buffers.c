/* Owns the buffers of weights: one per distinct storage of a device, shared by all programs of the context, so that a
 * weight used by several programs, or visited many times by one, is resident once. */
#include "device.h"

#include <string.h>

_Thread_local knit_weight_work knit__weight_work;

bool knit__weight_in_place(const knit_opened *o, const void *host) {
	const uint32_t align = o->backend->caps(o->dev)->import_align;

	return host && align && (uintptr_t)host % align == 0;
}

static knit_status buffer_make(knit_opened *o, knit_weight_buffer *w) {
	++knit__weight_work.buffers;
	if (knit__weight_in_place(o, w->host))
		return o->backend->buffer_import(o->dev, w->host, w->bytes, &w->buffer);

	knit_status status = o->backend->buffer_create(o->dev, KNIT_BUFFER_CONST, w->bytes, &w->buffer);
	if (status != KNIT_OK || !w->host)
		return status;
	w->copied = true;
	++knit__weight_work.uploads;
	status = o->backend->buffer_write(o->dev, w->buffer, 0, w->host, w->bytes);
	if (status != KNIT_OK) {
		o->backend->buffer_destroy(o->dev, w->buffer);
		w->buffer = NULL;
	}
	return status;
}

static knit_weight_buffer *find(const knit_opened *o, const void *host, uint64_t bytes) {
	for (uint32_t i = 0; host && i < o->weight_count; ++i) {
		if (o->weights[i]->host == host && o->weights[i]->bytes == bytes)
			return o->weights[i];
	}
	return NULL;
}

static knit_status acquire_locked(knit_opened *o, const void *host, uint64_t bytes, knit_weight_buffer **out) {
	knit_weight_buffer *w = find(o, host, bytes);

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
	w->host = host;
	w->bytes = bytes;
	w->refs = 1;
	const knit_status status = buffer_make(o, w);
	if (status != KNIT_OK) {
		knit__free(&o->ctx->a, w, sizeof *w);
		return status;
	}
	o->weights[o->weight_count++] = w;
	*out = w;
	return KNIT_OK;
}

knit_status knit__weight_acquire(knit_opened *o, const void *host, uint64_t bytes, const char *name,
                                 knit_weight_buffer **out, knit_diag *d) {
	*out = NULL;
	pthread_mutex_lock(&o->lock);
	const knit_status status = acquire_locked(o, host, bytes, out);
	pthread_mutex_unlock(&o->lock);
	if (status == KNIT_OK)
		return KNIT_OK;
	char room[64] = "";
	if (status == KNIT_ERR_MEMORY)
		knit__device_room_text(o, room, sizeof room);
	return knit__fail(d, status, 0, "%s: weight \"%.80s\" (%llu bytes) could not be placed: %s%s", o->id,
	                  name ? name : "", (unsigned long long)bytes, knit_status_name(status), room);
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
