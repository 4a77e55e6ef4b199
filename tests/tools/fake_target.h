/* Owns a target that is no device: takes every op unless told otherwise, asks for the scratch that a test wants. */
#ifndef KNIT_TEST_FAKE_TARGET_H
#define KNIT_TEST_FAKE_TARGET_H

#include "../../graph/target.h"

typedef struct fake_target {
	knit_target target;             /* target.device is the fake_target itself: do not copy it after init */
	bool refuse[KNIT_OP_COUNT];     /* no kernel for this op */
	bool dense[KNIT_OP_COUNT];      /* only for contiguous operands */
	uint64_t scratch[KNIT_OP_COUNT]; /* bytes of scratch */
} fake_target;

/* Alignment 64, buffers of any size. */
void fake_target_init(fake_target *f);
/* Runs `legalise` for it, so that outputs own their bytes. */
knit_status fake_target_legalise(fake_target *f, knit_graph *g, knit_diag *d);

#endif
