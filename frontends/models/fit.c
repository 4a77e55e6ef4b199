/* The sum grows almost linearly with the positions (KV slots) and a little in steps (scratch of attention): a straight line
 * through the two nearest known points finds the end in a few compilations, halving takes over where it does not. */
#include "fit.h"

#include <inttypes.h>
#include <string.h>

knit_status knit__decoder_sum(knit_context *ctx, const knit__decoder_desc *desc, int64_t positions, knit__fit *out,
							  knit_diag *diag) {
	knit__decoder_desc at = *desc;
	knit_program *program = NULL;

	memset(out, 0, sizeof *out);
	at.positions = positions;
	at.memory_limit = 0;
	at.plan_only = true;
	knit_status status = knit__decoder_compile(ctx, &at, &program, diag);
	if (status == KNIT_OK)
		status = knit_program_memory(program, &out->memory);
	knit_program_release(program);
	if (status != KNIT_OK)
		return status;

	const knit_memory *m = &out->memory;
	const knit_dtype k = desc->kv_k ? desc->kv_k : desc->kv ? desc->kv : KNIT_F32;
	const knit_dtype v = desc->kv_v ? desc->kv_v : desc->kv ? desc->kv : KNIT_F32;

	out->positions = positions;
	out->total = m->weight_bytes + m->adapter_bytes + m->packed_bytes + m->state_bytes + m->arena_bytes + m->io_bytes;
	out->bytes_per_position = knit__decoder_kv_bytes(desc->config, k, v) * (uint64_t)(desc->sequences ? desc->sequences : 1);
	return KNIT_OK;
}

/* Strictly between the two, where the line through them crosses the limit. */
static int64_t guess(const knit__fit *fits, const knit__fit *exceeds, uint64_t limit) {
	const int64_t span = exceeds->positions - fits->positions;
	const double share = (double)(limit - fits->total) / (double)(exceeds->total - fits->total);
	const int64_t step = (int64_t)((double)span * share);

	return fits->positions + (step < 1 ? 1 : step >= span ? span - 1 : step);
}

static knit_status search(knit_context *ctx, const knit__decoder_desc *desc, uint64_t limit, knit__fit *fits,
						  knit__fit *exceeds, knit_diag *diag) {
	int64_t before = exceeds->positions - fits->positions;

	for (int round = 0; exceeds->positions - fits->positions > 1; ++round) {
		const int64_t span = exceeds->positions - fits->positions;
		/* Every third time the interval must have been halved. */
		const bool halve = round % 3 == 2 && span > before / 2;
		const int64_t at = halve ? fits->positions + span / 2 : guess(fits, exceeds, limit);
		knit__fit sum;

		if (round % 3 == 2)
			before = span;
		const knit_status status = knit__decoder_sum(ctx, desc, at, &sum, diag);
		if (status != KNIT_OK)
			return status;
		*(sum.total <= limit ? fits : exceeds) = sum;
		/* The line often ends one position before or behind: look there before drawing another. */
		if (sum.total <= limit && exceeds->positions - at > 1) {
			const knit_status next = knit__decoder_sum(ctx, desc, at + 1, &sum, diag);
			if (next != KNIT_OK)
				return next;
			*(sum.total <= limit ? fits : exceeds) = sum;
		}
	}
	return KNIT_OK;
}

knit_status knit__decoder_fit(knit_context *ctx, const knit__decoder_desc *desc, uint64_t limit, int64_t most,
							  knit__fit *out, knit_diag *diag) {
	knit__fit exceeds;
	knit_status status = knit__decoder_sum(ctx, desc, 1, out, diag);

	out->limit = limit;
	if (status == KNIT_OK && out->total > limit)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0,
						  "not even one position fits: the model takes %" PRIu64 " bytes, the limit is %" PRIu64, out->total,
						  limit);
	if (status == KNIT_OK && most > 1)
		status = knit__decoder_sum(ctx, desc, most, &exceeds, diag);
	if (status != KNIT_OK || most <= 1)
		return status;
	if (exceeds.total <= limit)
		*out = exceeds;
	else
		status = search(ctx, desc, limit, out, &exceeds, diag);
	out->limit = limit;
	return status;
}
