/* Owns which adapter weights a session computes with: sets bound as a whole, slots filled one by one, and the counters
 * that show what each call cost. Knows no op. */
#include "adapter.h"
#include "session_impl.h"

/* ---- counters ---------------------------------------------------------------------------------------------------- */

session_work knit__session_work(void) { return (session_work){knit__alloc_count(), knit__weight_work}; }

void knit__session_count(knit_session *s, const session_work *before) {
	s->counters.allocations += knit__alloc_count() - before->allocations;
	s->counters.buffers += knit__weight_work.buffers - before->weights.buffers;
	s->counters.packs += knit__weight_work.packs - before->weights.packs;
	s->counters.uploads += knit__weight_work.uploads - before->weights.uploads;
}

void knit_session_counters(const knit_session *s, knit_counters *out) {
	if (s && out)
		*out = s->counters;
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

/* In every bucket's plan, or in none. */
static knit_status rebind(knit_session *s, uint32_t buffer, knit_buffer *to) {
	const knit_backend *const b = s->program->device->backend;
	knit_status status = KNIT_OK;
	uint32_t done = 0;

	for (; status == KNIT_OK && done < s->program->bucket_count; ++done)
		status = b->plan_rebind(s->plans[done], buffer, to);
	if (status == KNIT_OK) {
		s->buffers[buffer] = to;
		return KNIT_OK;
	}
	while (done-- > 0)
		b->plan_rebind(s->plans[done], buffer, s->buffers[buffer]);
	return status;
}

static knit_status bind_set(knit_session *s, const knit_adapter_set *a) {
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < a->count; ++i)
		status = rebind(s, a->entries[i].buffer, a->entries[i].weight->buffer);
	return status;
}

static knit_status bind_own(knit_session *s) {
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < s->program->buffer_count; ++i) {
		if (knit__adapter_bindable(s->program, i))
			status = rebind(s, i, s->program->weights[i]->buffer);
	}
	return status;
}

static knit_status bind_adapter(knit_session *s, knit_adapter_set *a) {
	knit_status status = knit__session_begin(s);

	if (status != KNIT_OK)
		return status;
	if (a && a->program != s->program)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "bind_adapter: the set was opened for another program: open it for "
		                                                  "this session's");
	if (!s->program->device->backend->plan_rebind)
		return knit__fail(&s->diag, KNIT_ERR_UNSUPPORTED, 0, "%s cannot exchange adapters", s->program->device->id);
	status = a ? bind_set(s, a) : bind_own(s);
	if (status != KNIT_OK) {
		/* Half of one and half of the other is neither. What was bound before was taken by the device before. */
		if (s->adapter)
			bind_set(s, s->adapter);
		else
			bind_own(s);
		return knit__session_device(s, status, "binding an adapter");
	}
	knit__adapter_retain(a);
	knit_adapter_release(s->adapter);
	s->adapter = a;
	++s->counters.binds;
	return KNIT_OK;
}

knit_status knit_session_bind_adapter(knit_session *s, knit_adapter_set *a) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = bind_adapter(s, a);
	knit__session_count(s, &before);
	return status;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static const knit_buffer_desc *slots_at(const knit_session *s, uint32_t i) {
	const knit_buffer_desc *const b = &knit__session_schedule(s)->buffers[i];

	return b->slots ? b : NULL;
}

static int64_t slot_count(const knit_session *s, const knit_buffer_desc *b) {
	const knit_graph *const g = s->program->graph;

	return knit__value(g, g->storages[b->storage].value)->dims[0].v;
}

/* Everything that can be wrong, before anything is changed. *found: how many storages have slots. */
static knit_status slot_check(knit_session *s, int64_t slot, const knit_weights *store, uint32_t *found) {
	const knit_weight_entry *w;

	*found = 0;
	for (uint32_t i = 0; i < s->program->buffer_count; ++i) {
		const knit_buffer_desc *const b = slots_at(s, i);
		if (!b)
			continue;
		const int64_t count = slot_count(s, b);
		if (slot < 1 || slot >= count)
			return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "fill_adapter_slot: slot %lld of \"%.80s\", which has 1 to %lld "
			                                                  "(0 stays empty)",
			                  (long long)slot, b->name, (long long)count - 1);
		const knit_status status = store ? knit__adapter_find(s->program, i, store, &w, &s->diag) : KNIT_OK;
		if (status != KNIT_OK)
			return status;
		++*found;
	}
	if (*found == 0)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "fill_adapter_slot: the program has no slots: build it with "
		                                                  "knit_adapter_slots");
	return KNIT_OK;
}

static knit_status slot_clear(knit_session *s, uint32_t i, uint64_t at, uint64_t bytes) {
	static const char zeros[4096];
	const knit_opened *const o = s->program->device;
	knit_status status = KNIT_OK;

	for (uint64_t done = 0; status == KNIT_OK && done < bytes; done += sizeof zeros)
		status = o->backend->buffer_write(o->dev, s->buffers[i], at + done, zeros,
		                                  bytes - done < sizeof zeros ? bytes - done : sizeof zeros);
	return status;
}

static knit_status slot_write(knit_session *s, uint32_t i, int64_t slot, const knit_weights *store) {
	const knit_buffer_desc *const b = slots_at(s, i);
	const knit_opened *const o = s->program->device;
	const uint64_t bytes = b->bytes / (uint64_t)slot_count(s, b);

	++knit__weight_work.uploads;
	if (!store)
		return slot_clear(s, i, (uint64_t)slot * bytes, bytes);
	return o->backend->buffer_write(o->dev, s->buffers[i], (uint64_t)slot * bytes,
	                                knit__weights_get(store, b->name)->data, bytes);
}

static knit_status fill_slot(knit_session *s, int64_t slot, const knit_weights *store) {
	uint32_t found;
	knit_status status = knit__session_begin(s);

	if (status == KNIT_OK)
		status = slot_check(s, slot, store, &found);
	if (status != KNIT_OK)
		return status;
	for (uint32_t i = 0; status == KNIT_OK && i < s->program->buffer_count; ++i) {
		if (slots_at(s, i))
			status = slot_write(s, i, slot, store);
	}
	if (status != KNIT_OK) {
		/* Some of an adapter is none. */
		for (uint32_t i = 0; i < s->program->buffer_count; ++i) {
			if (slots_at(s, i))
				slot_write(s, i, slot, NULL);
		}
		return knit__session_device(s, status, "filling an adapter slot");
	}
	++s->counters.slots;
	return KNIT_OK;
}

knit_status knit_session_fill_adapter_slot(knit_session *s, int64_t slot, knit_weights *store) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = fill_slot(s, slot, store);
	knit__session_count(s, &before);
	return status;
}
