/* Owns an allocator that counts, finds leaks and wrong sizes, and fails on demand. */
#include "track_alloc.h"

#include <check.h>
#include <stdlib.h>

/* The size stands in front of the bytes, a whole alignment away, so that both keep it. */
static size_t front(size_t align) { return align < 64 ? 64 : align; }

static void *track(void *user, size_t size, size_t align) {
	track_alloc *t = user;
	void *p = NULL;

	t->count++;
	if (t->fail_at && t->count >= t->fail_at)
		return NULL;
	if (size > SIZE_MAX - front(align) || posix_memalign(&p, front(align), size + front(align)) != 0)
		return NULL;
	*(size_t *)p = front(align);
	((size_t *)p)[1] = size;
	((size_t *)((char *)p + front(align)))[-1] = front(align);
	t->live += size;
	t->peak = t->live > t->peak ? t->live : t->peak;
	t->largest = size > t->largest ? size : t->largest;
	return (char *)p + front(align);
}

static void give_back(void *user, void *ptr, size_t size) {
	track_alloc *t = user;
	char *p = (char *)ptr - ((size_t *)ptr)[-1];

	t->bad_free = t->bad_free || ((size_t *)p)[1] != size;
	t->live -= ((size_t *)p)[1];
	free(p);
}

knit_allocator track_allocator(track_alloc *t) { return (knit_allocator){track, give_back, t}; }

knit_context *track_context(track_alloc *t) {
	const knit_context_desc desc = {.allocator = track_allocator(t), .cpu_threads = 1};
	knit_context *ctx = NULL;

	return knit_context_create(&desc, &ctx) == KNIT_OK ? ctx : NULL;
}

knit_context *track_begin(track_alloc *t) {
	*t = (track_alloc){0};
	knit_context *const ctx = track_context(t);
	ck_assert_ptr_nonnull(ctx);
	return ctx;
}

void track_end(const track_alloc *t, knit_context *ctx) {
	knit_context_destroy(ctx);
	ck_assert_uint_eq(t->live, 0);
	ck_assert(!t->bad_free);
}
