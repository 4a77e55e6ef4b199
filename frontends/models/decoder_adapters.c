/* Which adapters a decoder's sequences use, and whether an adapter is one for it. */
#include "decoder.h"

#include <string.h>

/* ---- is it one for this decoder ---------------------------------------------------------------------------------- */

static bool has(const knit__decoder_config *c, const knit_weights *adapter, knit__part part, uint32_t visit) {
	char name[KNIT__NAME_BYTES];
	knit_weight_info info;

	knit__adapter_name(c->lora_names, part, visit, 'a', name);
	return knit_weights_find(adapter, name, &info) == KNIT_OK;
}

/* A projection that one has and the other has not would go unnoticed or unused. */
static knit_status same_projections(const knit__decoder_config *made_with, const knit_weights *adapter,
									const knit__decoder_config *c, const knit_weights *other, knit_diag *diag) {
	for (uint32_t v = 0; v < made_with->model_visits.count; ++v) {
		for (knit__part p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			const bool here = has(made_with, adapter, p, v), there = has(c, other, p, v);
			if (here != there)
				return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
								  "adapter: %s a LoRA for %s of visit %u, the decoder was made %s one: make it with this "
								  "adapter",
								  there ? "it has" : "it lacks", knit__part_name(p), (unsigned)v,
								  here ? "with" : "without");
		}
	}
	return KNIT_OK;
}

knit_status knit__decoder_adapter_fits(const knit__decoder_config *made_with, const knit_weights *adapter,
									   const knit__decoder_config *c, const knit_weights *other, knit_diag *diag) {
	const knit__visit_list *mine = &made_with->model_visits, *its = &c->model_visits;

	if (c->lora_rank != made_with->lora_rank || c->lora_scale != made_with->lora_scale)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "adapter: rank %lld with alpha/rank %g, the decoder was made for rank %lld with %g",
						  (long long)c->lora_rank, (double)c->lora_scale, (long long)made_with->lora_rank,
						  (double)made_with->lora_scale);
	if (its->count != mine->count || memcmp(its->layer, mine->layer, mine->count * sizeof *mine->layer) != 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "adapter: it is for %u visits, the decoder was made for %u others: make it with this adapter",
						  (unsigned)its->count, (unsigned)mine->count);
	if (c->lora_names != made_with->lora_names)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "adapter: its tensors are named in another style than those the decoder was made with");
	return same_projections(made_with, adapter, c, other, diag);
}

/* ---- which one --------------------------------------------------------------------------------------------------- */

static knit_status session_result(knit__decoder *d, knit_status status, knit_diag *diag) {
	if (status != KNIT_OK && diag && diag->status == KNIT_OK)
		knit_session_diag(d->session, diag);
	return status;
}

static knit_status no_slots(knit_diag *diag) {
	return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "decoder: made without slots for adapters: set adapter_slots");
}

knit_status knit__decoder_fill_slot(knit__decoder *d, int64_t slot, knit_weights *adapter, knit_diag *diag) {
	if (!d->adapter_slots)
		return no_slots(diag);
	return session_result(d, knit_session_fill_adapter_slot(d->session, slot, adapter), diag);
}

knit_status knit__decoder_choose_adapters(knit__decoder *d, const int32_t *adapter_of_sequence, knit_diag *diag) {
	if (!d->adapter_slots)
		return no_slots(diag);
	return session_result(d,
						  knit_session_write(d->session, "adapter_of_sequence", adapter_of_sequence,
											 (size_t)d->sequences * sizeof *adapter_of_sequence),
						  diag);
}

knit_status knit__decoder_no_adapters(knit_context *ctx, knit__decoder *d, knit_diag *diag) {
	int32_t *none = knit__alloc_array(&ctx->a, (size_t)d->sequences, sizeof *none);

	if (!none)
		return knit__fail_memory(diag, "the choice of adapters", (uint64_t)d->sequences * sizeof *none);
	const knit_status status = knit__decoder_choose_adapters(d, none, diag);
	knit__free(&ctx->a, none, (size_t)d->sequences * sizeof *none);
	return status;
}
