/* Owns the answer to whether this build's checks make every step several times slower, so that a test should do less of
 * the same: SLOW is 8 then, otherwise 1. */
#ifndef KNIT_TEST_SLOW_H
#define KNIT_TEST_SLOW_H

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 8
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 8
#endif
#endif
#ifndef SLOW
#define SLOW 1
#endif

/* How many random sets to look at: 10,000, or an eighth of it where that is slow. KNIT_TEST_SETS=10000 in the environment
 * decides otherwise. */
static inline uint32_t wanted_sets(void) {
	const char *text = getenv("KNIT_TEST_SETS");

	return text ? (uint32_t)strtoul(text, NULL, 10) : 10000 / SLOW;
}

#endif
