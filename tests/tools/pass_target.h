/* Owns targets that take some graphs and not others, each another reason for the passes to act. They are no devices. */
#ifndef KNIT_TEST_PASS_TARGET_H
#define KNIT_TEST_PASS_TARGET_H

#include "../../graph/target.h"

typedef enum pass_mode {
	PASS_ANY,
	PASS_NOTHING,
	PASS_CONTIGUOUS,
	PASS_CONTIGUOUS_EVEN_COPY,
	PASS_FIRST_CONTIGUOUS,
	PASS_COPIES_ONLY,
	PASS_PACKS,
	PASS_PACKS_FOR_LINEAR,
	PASS_MODES
} pass_mode;

/* As golden files write it: "any", "nothing"; PASS_MODES for a name that there is not. */
pass_mode pass_mode_named(const char *name, size_t length);
knit_target pass_target(pass_mode mode);

#endif
