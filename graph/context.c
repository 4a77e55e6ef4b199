/* Owns the context's life: allocator, log, reference count. */
#include "context.h"

#include <stdio.h>
#include <sched.h>

knit_status knit_context_create(const knit_context_desc *desc, knit_context **out) {
	const knit_context_desc none = {0};

	if (!out)
		return KNIT_ERR_ARGUMENT;
	*out = NULL;
	if (!desc)
		desc = &none;
	if (!desc->allocator.alloc != !desc->allocator.free)
		return KNIT_ERR_ARGUMENT;

	const knit_allocator a = desc->allocator.alloc ? desc->allocator : knit__default_allocator;
	knit_context *ctx = knit__alloc_zero(&a, sizeof *ctx);
	if (!ctx)
		return KNIT_ERR_MEMORY;
	ctx->a = a;
	ctx->desc = *desc;
	ctx->desc.allocator = a;
	atomic_init(&ctx->refs, 1);
	atomic_init(&ctx->shared, NULL);
	atomic_flag_clear(&ctx->shared_lock);
	*out = ctx;
	return KNIT_OK;
}

knit_context *knit__context_retain(knit_context *ctx) {
	atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
	return ctx;
}

void knit__context_release(knit_context *ctx) {
	if (!ctx || atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) != 1)
		return;

	void *shared = atomic_load(&ctx->shared);
	if (shared && ctx->shared_close)
		ctx->shared_close(ctx, shared);
	const knit_allocator a = ctx->a;
	knit__free(&a, ctx, sizeof *ctx);
}

void knit_context_destroy(knit_context *ctx) { knit__context_release(ctx); }

/* Held for short, rare work (opening a device, sharing a weight buffer), so yielding is enough. */
void knit__context_lock(knit_context *ctx) {
	while (atomic_flag_test_and_set_explicit(&ctx->shared_lock, memory_order_acquire))
		sched_yield();
}

void knit__context_unlock(knit_context *ctx) { atomic_flag_clear_explicit(&ctx->shared_lock, memory_order_release); }

void knit__log(knit_context *ctx, knit_log_level level, const char *fmt, ...) {
	char text[512];
	va_list args;

	if (!ctx->desc.log)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	ctx->desc.log(ctx->desc.log_user, (int)level, text);
}
