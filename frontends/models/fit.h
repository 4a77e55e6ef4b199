/* Owns the question how much context a memory limit has room for. Answers by compiling, so that the answer is exact:
 * what is asked is the program that would run. */
#ifndef KNIT_FIT_H
#define KNIT_FIT_H

#include "decoder.h"

typedef struct knit__fit {
	int64_t positions;           /* KNIT__MAX_CONTEXT: as many as any sequence may have */
	knit_memory memory;          /* of the program for so many positions */
	uint64_t total;              /* weights, adapters, packed copies, states, arena, inputs and outputs */
	uint64_t bytes_per_position; /* of all KV slots */
	uint64_t limit;
} knit__fit;

/* The sum for `positions` positions. desc->positions and memory_limit are ignored. Fails as knit_compile does. */
knit_status knit__decoder_sum(knit_context *ctx, const knit__decoder_desc *desc, int64_t positions, knit__fit *out,
							  knit_diag *diag);
/* The largest number of positions up to `most` for which the program takes at most `limit` bytes: compiled for out->positions
 * it fits, compiled for one more it does not. LIMIT where not even one position fits, *out being the sum for one. */
knit_status knit__decoder_fit(knit_context *ctx, const knit__decoder_desc *desc, uint64_t limit, int64_t most,
							  knit__fit *out, knit_diag *diag);

#endif
