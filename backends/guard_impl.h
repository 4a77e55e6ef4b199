/* Owns what the two files of the guard share: its devices and handles. */
#ifndef KNIT_GUARD_IMPL_H
#define KNIT_GUARD_IMPL_H

#include "guard.h"

#include <pthread.h>

#define QUARANTINE 256 /* destroyed handles remembered */
#define MAGIC_BUFFER UINT32_C(0x6b6e6275)
#define MAGIC_PLAN UINT32_C(0x6b6e706c)
#define MAGIC_DEAD UINT32_C(0x6b6e6464)

/* First member of buffers and plans: their place in the device's list, or in its quarantine. */
typedef struct handle {
	uint32_t magic;
	knit_device *dev;
	struct handle *next, *before;
	size_t size;
} handle;

struct knit_device {
	const knit_backend *inner;
	knit_device *inner_dev;
	knit_context_desc host;
	pthread_mutex_t lock; /* of everything below, and of the handles */
	handle live;          /* ring */
	handle *dead[QUARANTINE];
	uint32_t dead_at, live_count, faults;
	char fault[200];
};

struct knit_buffer {
	handle h;
	knit_buffer *inner;
	uint64_t bytes;
	knit_buffer_use use;
	bool imported;
	uint32_t plans;     /* that name it */
	uint32_t in_flight; /* of those, submitted and not waited for */
};

struct knit_plan {
	handle h;
	knit_plan *inner;
	const knit_schedule *schedule;
	knit_buffer **bufs;
	bool in_flight, ran;
};

/* Counts and logs a fault; answers INTERNAL. With the device's lock held. */
knit_status knit__guard_fault(knit_device *dev, const char *fmt, ...) KNIT_PRINTF(2, 3);
const knit_allocator *knit__guard_alloc(const knit_device *dev);
/* All with the device's lock held. */
void knit__guard_handle_add(knit_device *dev, handle *h, uint32_t magic, size_t size);
void knit__guard_handle_kill(knit_device *dev, handle *h);
knit_status knit__guard_handle_check(knit_device *dev, const handle *h, uint32_t magic, const char *call);

/* guard_plan.c */
knit_status knit__guard_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs,
                                    knit_plan **out, knit_diag *diag);
void knit__guard_plan_destroy(knit_device *dev, knit_plan *p);
knit_status knit__guard_plan_rebind(knit_plan *p, uint32_t buffer, knit_buffer *buf);
knit_status knit__guard_plan_submit(knit_plan *p, const int64_t *symbols);
knit_status knit__guard_plan_wait(knit_plan *p, uint64_t timeout_ns);
size_t knit__guard_plan_times(const knit_plan *p, knit_step_time *out, size_t cap);

#endif
