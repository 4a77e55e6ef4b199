/* Owns sets of adapter weights: found by name in a store, checked against a program, placed on its device once. Knows no
 * session. */
#include "adapter.h"

#include <stdio.h>

bool knit__adapter_bindable(const knit_program *p, uint32_t i) {
	const knit_buffer_desc *const b = &p->buckets[0].schedule->buffers[i];

	return b->use == KNIT_BUFFER_CONST && b->kind == KNIT_STORAGE_ADAPTER && !b->slots;
}

/* "f32 [8, 64]" */
static void shape_text(knit_dtype dtype, int rank, const int64_t *dims, char *out, size_t size) {
	size_t used = (size_t)snprintf(out, size, "%s [", knit_dtype_name(dtype));

	for (int i = 0; i < rank && used < size; ++i)
		used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)dims[i]);
	if (used < size)
		snprintf(out + used, size - used, "]");
}

knit_status knit__adapter_find(const knit_program *p, uint32_t i, const knit_weights *store,
                               const knit_weight_entry **out, knit_diag *d) {
	const knit_buffer_desc *const b = &p->buckets[0].schedule->buffers[i];
	const knit_value *const v = knit__value(p->graph, p->graph->storages[b->storage].value);
	const int skip = b->slots ? 1 : 0, rank = v->rank - skip;
	char found[96], needed[96];
	int64_t dims[KNIT_MAX_RANK];

	const knit_weight_entry *const w = knit__weights_get(store, b->name);
	*out = w;
	if (!w)
		return knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "adapter: no tensor \"%.100s\" among the %u of %.80s", b->name,
		                  store->count, store->path ? store->path : "the store");
	bool same = w->dtype == v->dtype && w->rank == rank;
	for (int k = 0; k < rank; ++k) {
		dims[k] = v->dims[k + skip].v;
		same = same && w->dims[k] == dims[k];
	}
	if (same)
		return KNIT_OK;
	shape_text(w->dtype, w->rank, w->dims, found, sizeof found);
	shape_text(v->dtype, rank, dims, needed, sizeof needed);
	return knit__fail(d, KNIT_ERR_SHAPE, 0, "adapter: \"%.80s\" is %s, the program needs %s", b->name, found, needed);
}

/* ---- sets -------------------------------------------------------------------------------------------------------- */

static void set_free(knit_adapter_set *a) {
	const knit_allocator alloc = a->a;
	knit_program *const p = a->program;

	for (uint32_t i = 0; i < a->count; ++i)
		knit__weight_release(p->device, a->entries[i].weight);
	knit__free(&alloc, a->entries, (size_t)p->buffer_count * sizeof *a->entries);
	knit_weights_release(a->store);
	knit__free(&alloc, a, sizeof *a);
	knit_program_release(p);
}

knit_adapter_set *knit__adapter_retain(knit_adapter_set *a) {
	if (a)
		atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

void knit_adapter_release(knit_adapter_set *a) {
	if (a && atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1)
		set_free(a);
}

static knit_status entries_make(knit_adapter_set *a, knit_diag *d) {
	const knit_program *const p = a->program;
	const knit_schedule *const s = p->buckets[0].schedule;

	a->entries = knit__alloc_array(&a->a, p->buffer_count, sizeof *a->entries);
	if (!a->entries)
		return knit__fail_memory(d, "an adapter", (uint64_t)p->buffer_count * sizeof *a->entries);
	for (uint32_t i = 0; i < p->buffer_count; ++i) {
		const knit_weight_entry *w;

		if (!knit__adapter_bindable(p, i))
			continue;
		knit_status status = knit__adapter_find(p, i, a->store, &w, d);
		if (status == KNIT_OK)
			status = knit__weight_acquire(p->device, w->data, s->buffers[i].bytes, w->name, &a->entries[a->count].weight, d);
		if (status != KNIT_OK)
			return status;
		a->entries[a->count++].buffer = i;
	}
	if (a->count == 0)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "adapter: the program has no adapter weights: build it with knit_adapter");
	return KNIT_OK;
}

knit_status knit_adapter_open(knit_program *p, knit_weights *store, knit_adapter_set **out, knit_diag *diag) {
	if (diag)
		*diag = (knit_diag){0};
	if (out)
		*out = NULL;
	if (!p || !store || !out)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "knit_adapter_open: %s is NULL", !p     ? "the program"
		                                                                               : store ? "out"
		                                                                                       : "the store");
	if (p->plan_only)
		return knit__fail(diag, KNIT_ERR_STATE, 0, "knit_adapter_open: the program was compiled with plan_only: it has no "
		                                           "weights");
	if (knit__weights_seal(store) != KNIT_OK)
		return knit__fail_memory(diag, "a weight store", 0);

	knit_adapter_set *const a = knit__alloc_zero(&p->a, sizeof *a);
	if (!a)
		return knit__fail_memory(diag, "an adapter", sizeof *a);
	atomic_init(&a->refs, 1);
	a->a = p->a;
	a->program = knit__program_retain(p);
	a->store = knit__weights_retain(store);
	const knit_status status = entries_make(a, diag);
	if (status != KNIT_OK) {
		set_free(a);
		return status;
	}
	*out = a;
	return KNIT_OK;
}
