/* Owns the splitting of programs over two devices: a backend that wraps two others. Knows no op. */
#ifndef KNIT_SPLIT_H
#define KNIT_SPLIT_H

#include "../backend.h"
#include "place.h"

/* Every function of it but enumerate and open works on devices made by knit__split_open. */
extern const knit_backend knit__split_backend;

typedef struct knit_split_desc {
	const knit_backend *backend[2]; /* near, far */
	uint32_t index[2];
	bool guarded;    /* both behind the guard */
	uint64_t budget; /* bytes of the near device for one session and its weights; 0: what it has free, but for a tenth */
} knit_split_desc;

/* *budget: the one that holds. */
knit_status knit__split_open(const knit_split_desc *desc, const knit_context_desc *host, knit_device **out,
                             uint64_t *budget, knit_diag *diag);

/* Where the steps and buffers of a program lie: of its schedules, one per bucket, made for a device of the above. The
 * same before and after `settle`. */
knit_status knit__split_describe(const knit_schedule *const *schedules, uint32_t count, uint64_t budget,
                                 const knit_allocator *a, knit_split_place *out, knit_diag *d);

/* A kernel is a pair, 0 in the place of one that is not there. What settle chose is in it too. */
#define KNIT_SPLIT_SETTLED (UINT32_C(1) << 30)
#define KNIT_SPLIT_SETTLED_FAR (UINT32_C(1) << 31)
#define KNIT_SPLIT_MAX_KERNEL 0x7fff

static inline knit_kernel knit__split_half(knit_kernel pair, knit_side side) {
	return side == KNIT_NEAR ? pair & KNIT_SPLIT_MAX_KERNEL : pair >> 15 & KNIT_SPLIT_MAX_KERNEL;
}

static inline uint8_t knit__split_can(knit_kernel pair) {
	return (uint8_t)((knit__split_half(pair, KNIT_NEAR) ? KNIT_ON_NEAR : 0) |
	                 (knit__split_half(pair, KNIT_FAR) ? KNIT_ON_FAR : 0));
}

#endif
