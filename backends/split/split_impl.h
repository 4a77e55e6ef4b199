/* Owns what the files of the split tell each other; nobody else includes it. */
#ifndef KNIT_SPLIT_IMPL_H
#define KNIT_SPLIT_IMPL_H

#include "split.h"

#include <pthread.h>

struct knit_device {
	knit_allocator a;
	const knit_backend *backend[2]; /* near, far: what to call with dev; the guard's table where they are guarded */
	knit_device *dev[2];
	const char *name[2];
	knit_caps caps;
	uint64_t budget;
	pthread_mutex_t lock; /* of the making of inner buffers: sessions share weights */
};

/* Its bytes are on the sides where plans need them; made when the first such plan is. */
struct knit_buffer {
	knit_buffer *inner[2];
	const void *host; /* a weight: where its bytes come from */
	uint64_t bytes;
	knit_buffer_use use;
	uint8_t result_on; /* of an output: the side that writes it; 0: none */
};

/* Makes the bytes of the buffer be on this side too. */
knit_status knit__split_buffer_need(knit_device *dev, knit_buffer *buf, knit_side side);

/* split_plan.c */
knit_status knit__split_settle(knit_device *dev, knit_schedule *const *s, uint32_t count, knit_diag *d);
knit_status knit__split_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                    knit_diag *d);
void knit__split_plan_destroy(knit_device *dev, knit_plan *p);
knit_status knit__split_plan_rebind(knit_plan *p, uint32_t buffer, knit_buffer *buf);
knit_status knit__split_plan_submit(knit_plan *p, const int64_t *symbols);
knit_status knit__split_plan_wait(knit_plan *p, uint64_t timeout_ns);
size_t knit__split_plan_times(const knit_plan *p, knit_step_time *out, size_t cap);

#endif
