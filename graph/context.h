/* Owns the context: allocator, log, and the slot where the device layer keeps what programs of one context share. */
#ifndef KNIT_CONTEXT_H
#define KNIT_CONTEXT_H

#include "base.h"

#include <stdatomic.h>

struct knit_context {
	knit_allocator a; /* resolved */
	knit_context_desc desc;
	atomic_uint refs;
	/* Filled by backends/ on first use: opened devices and weight buffers. `shared_close` frees it. */
	_Atomic(void *) shared;
	void (*shared_close)(knit_context *ctx, void *shared);
	atomic_flag shared_lock; /* held while `shared` is made or changed */
};

knit_context *knit__context_retain(knit_context *ctx);
void knit__context_release(knit_context *ctx);
void knit__context_lock(knit_context *ctx);
void knit__context_unlock(knit_context *ctx);
void knit__log(knit_context *ctx, knit_log_level level, const char *fmt, ...) KNIT_PRINTF(3, 4);

#endif
