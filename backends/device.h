/* Owns opened devices and the weight buffers on them: what all programs of one context share. Knows no op and no
 * program. */
#ifndef KNIT_DEVICE_H
#define KNIT_DEVICE_H

#include "../graph/context.h"
#include "backend.h"

#include <pthread.h>

/* One buffer per distinct weight storage (host pointer and bytes) and layout of a device. Equal bytes of two shapes are
 * packed differently. */
typedef struct knit_weight_buffer {
	const void *host;
	uint64_t bytes; /* of the host's */
	uint8_t layout;
	knit_shape shape; /* where there is a layout */
	knit_buffer *buffer;
	uint32_t refs; /* programs' uses; under the device's lock */
	bool copied;   /* the host's bytes are not read any more */
} knit_weight_buffer;

typedef struct knit_opened knit_opened;
struct knit_opened {
	knit_context *ctx; /* not retained: the context owns this */
	const knit_backend *backend; /* what to call with dev; the guard's table where the guard is on */
	const knit_backend *identity; /* the table it was opened by */
	knit_device *dev;
	uint32_t index;
	uint32_t users; /* programs; under the lock of the list */
	/* Of a split: the second device, what was asked for the first, and what that came to. far is NULL for one device. */
	const knit_backend *far;
	uint32_t far_index;
	uint64_t memory_asked, memory_budget;
	char id[64];
	knit_target target; /* device: this */
	pthread_mutex_t lock; /* of the weights */
	knit_weight_buffer **weights;
	uint32_t weight_count, weight_cap;
	knit_opened *next;
};

/* By id ("cpu", "cpu:0", "null", "vulkan+cpu"); NULL or "": the first available. Opened once per context and kept until the
 * context goes; a device that was lost is left to those who have it, and opened anew. NOT_FOUND with the ids there are;
 * otherwise what the backend says. */
knit_status knit__device_open(knit_context *ctx, const char *id, knit_opened **out, knit_diag *d);
/* The same with knit_compile_desc.device_memory. */
knit_status knit__device_open_within(knit_context *ctx, const char *id, uint64_t memory, knit_opened **out, knit_diag *d);
/* A device of a table that is not in the registry (tests, and the way by which the above opens its own). */
knit_status knit__device_open_backend(knit_context *ctx, const knit_backend *backend, uint32_t index,
                                      knit_opened **out, knit_diag *d);

/* A program begins and ends to use a device. A lost device is closed when its last program goes; others stay open for
 * the next one. */
void knit__device_use(knit_opened *o);
void knit__device_leave(knit_opened *o);

/* " (12.0 of 2048.0 MiB are free)" where the device says so, else "". Returns out. */
const char *knit__device_room_text(const knit_opened *o, char *out, size_t size);

/* What to do about memory that is short: "; device \"vulkan+cpu\" splits" where that would bring room, else "". */
const char *knit__device_split_hint(const knit_opened *o);

/* The buffer of a weight: the host's bytes in place where the device can, a copy otherwise. The host's bytes must stay
 * until the release. host NULL: a zeroed buffer of its own. */
knit_status knit__weight_acquire(knit_opened *o, const void *host, uint64_t bytes, const char *name,
                                 knit_weight_buffer **out, knit_diag *d);
/* The same for a weight of a schedule, in its layout: packed by the first who asks. host NULL: zeros. `done` is told of the host's
 * bytes that have been packed; with it the weight is always a copy, without it (NULL) it may be read in place. */
knit_status knit__weight_acquire_buffer(knit_opened *o, const knit_buffer_desc *b, void (*done)(const void *data, uint64_t bytes),
                                        knit_weight_buffer **out, knit_diag *d);
void knit__weight_release(knit_opened *o, knit_weight_buffer *w);

/* What the calling thread has had done to weights so far: the difference over a call is what the call did. */
typedef struct knit_weight_work { uint64_t buffers, packs, uploads; } knit_weight_work;
extern _Thread_local knit_weight_work knit__weight_work;
/* Whether the device would read the host's bytes in place. */
bool knit__weight_in_place(const knit_opened *o, const void *host);
/* Whether some program does so now. */
bool knit__weight_read_in_place(knit_opened *o, const void *host, uint64_t bytes);

#endif
