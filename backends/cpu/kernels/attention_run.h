/* Owns the two phases of an attention kernel, which are the same for every instruction set. Include from attention_*.c, which
 * define `isa` after it. */
#ifndef KNIT_KERNELS_ATTENTION_RUN_H
#define KNIT_KERNELS_ATTENTION_RUN_H

#include "attention.h"

static const knit_attention_isa isa;

static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	knit__attention_run(s, begin, end, thread, &isa);
}

static void run_merge(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	(void)thread;
	knit__attention_merge(s, begin, end, &isa);
}

#endif
