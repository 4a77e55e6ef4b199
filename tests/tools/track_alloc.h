/* Owns an allocator that counts, finds leaks and wrong sizes, and fails on demand. For one thread. */
#ifndef KNIT_TEST_TRACK_ALLOC_H
#define KNIT_TEST_TRACK_ALLOC_H

#include "knit.h"

typedef struct track_alloc {
	uint64_t count;   /* allocations asked for */
	uint64_t live;    /* bytes not yet given back */
	uint64_t peak;    /* the most there were alive */
	uint64_t largest; /* one allocation */
	uint64_t fail_at; /* this allocation (from 1) and all after it fail; 0: none */
	bool bad_free;    /* a free with another size than its allocation */
} track_alloc;

knit_allocator track_allocator(track_alloc *t);
/* A context over it. */
knit_context *track_context(track_alloc *t);
/* A test that makes everything over one context: cleared and made, or the test fails; destroyed, and nothing may be left. */
knit_context *track_begin(track_alloc *t);
void track_end(const track_alloc *t, knit_context *ctx);

#endif
