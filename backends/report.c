/* Owns the figures of a compiled program: memory by class, steps, device. Changes nothing. */
#include "../graph/weights.h"
#include "program.h"

#include <string.h>

static bool is_weight(const knit_buffer_desc *b, knit_storage_kind kind) {
	return b->use == KNIT_BUFFER_CONST && b->kind == kind;
}

static bool same_bytes(const knit_buffer_desc *a, const knit_buffer_desc *b) {
	return a->use == KNIT_BUFFER_CONST && b->use == KNIT_BUFFER_CONST && a->host && a->host == b->host &&
	       a->bytes == b->bytes;
}

static bool same_buffer(const knit_buffer_desc *a, const knit_buffer_desc *b) {
	return same_bytes(a, b) && a->layout == b->layout && (!a->layout || knit__shape_equal(&a->shape, &b->shape));
}

/* Two storages may be the same bytes (of two shapes, or when dedup_weights was switched off): they count once. */
static bool seen_before(const knit_schedule *s, uint32_t at,
                        bool (*same)(const knit_buffer_desc *, const knit_buffer_desc *)) {
	for (uint32_t i = 0; i < at; ++i)
		if (same(&s->buffers[i], &s->buffers[at]))
			return true;
	return false;
}

/* A small weight of a mapped file is copied: where it lies, the system maps up to 2 MiB around each page that is read, which for the
 * norms between the matrices would keep half of a packed file resident. */
#define SMALL_BYTES (UINT64_C(1) << 16)

static const knit_weights *mapping_of(const knit_program *p, const knit_buffer_desc *b) {
	for (uint32_t i = 0; b->host && i < p->graph->store_count; ++i)
		if (knit__weights_forgettable(p->graph->stores[i], b->host))
			return p->graph->stores[i];
	return NULL;
}

static bool reads_in_place(const knit_program *p, const knit_buffer_desc *b) {
	return !b->layout && knit__weight_in_place(p->device, b->host) && (b->bytes > SMALL_BYTES || !mapping_of(p, b));
}

const knit_weights *knit__program_mapped(const knit_program *p, uint32_t buffer) {
	const knit_schedule *const s = p->buckets[0].schedule;
	const knit_buffer_desc *const b = &s->buffers[buffer];

	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (same_bytes(&s->buffers[i], b) && reads_in_place(p, &s->buffers[i]))
			return NULL;
	return mapping_of(p, b);
}

uint64_t knit__program_packed_bytes(const knit_program *p, uint32_t buffer) {
	const knit_schedule *const s = p->buckets[0].schedule;
	const knit_buffer_desc *const b = &s->buffers[buffer];
	const bool unified = p->device->backend->caps(p->device->dev)->unified_memory;

	if (b->use != KNIT_BUFFER_CONST || !b->host || seen_before(s, buffer, same_buffer))
		return 0;
	/* Where buffers are host memory, weight_bytes stand for the host's own bytes, if these stay. */
	if (unified && reads_in_place(p, b))
		return 0;
	const uint64_t takes = b->layout ? b->packed_bytes : b->bytes;
	const bool alone = !unified || knit__program_mapped(p, buffer);
	return alone && !seen_before(s, buffer, same_bytes) ? takes - b->bytes : takes;
}

static bool measure_buffers(const knit_program *p, knit_memory *m) {
	const knit_schedule *const s = p->buckets[0].schedule;
	bool ok = true;

	for (uint32_t i = 0; i < s->buffer_count; ++i) {
		const knit_buffer_desc *const b = &s->buffers[i];
		if (b->use == KNIT_BUFFER_STATE)
			ok = ok && knit__add_u64(m->state_bytes, b->bytes, &m->state_bytes);
		else if (b->use == KNIT_BUFFER_IO)
			ok = ok && knit__add_u64(m->io_bytes, b->bytes, &m->io_bytes);
		if (b->use != KNIT_BUFFER_CONST)
			continue;
		ok = ok && knit__add_u64(m->packed_bytes, knit__program_packed_bytes(p, i), &m->packed_bytes);
		if (b->layout && !seen_before(s, i, same_buffer)) {
			++m->packed_storages;
			ok = ok && knit__add_u64(m->padding_bytes, b->packed_bytes - b->bytes, &m->padding_bytes);
		}
		if (seen_before(s, i, same_bytes))
			continue;

		uint64_t *const class_bytes = is_weight(b, KNIT_STORAGE_ADAPTER) ? &m->adapter_bytes : &m->weight_bytes;
		ok = ok && knit__add_u64(*class_bytes, b->bytes, class_bytes);
		m->weight_storages += is_weight(b, KNIT_STORAGE_CONST);
	}
	return ok;
}

/* Every bucket has the same steps over the same weights, so one is counted. */
static bool measure_uses(const knit_program *p, knit_memory *m) {
	const knit_schedule *const s = p->buckets[0].schedule;
	bool ok = true;

	for (uint32_t i = 0; i < s->step_count; ++i) {
		for (uint32_t k = 0; k < s->steps[i].in_count; ++k) {
			const uint32_t buffer = s->steps[i].in[k].buffer;
			if (buffer >= s->buffer_count || !is_weight(&s->buffers[buffer], KNIT_STORAGE_CONST))
				continue;
			++m->weight_uses;
			ok = ok && knit__add_u64(m->weight_bytes_by_use, s->buffers[buffer].bytes, &m->weight_bytes_by_use);
		}
	}
	return ok;
}

/* Where there are several arenas, each is as large as the bucket that needs most of it. The bound is that of the bucket
 * that needs most in all. */
static void measure_arena(const knit_program *p, knit_memory *m) {
	uint64_t most = 0;

	for (uint32_t i = 0; i < p->bucket_count; ++i) {
		const knit_schedule *const s = p->buckets[i].schedule;
		if (i > 0 && s->plan.arena_bytes <= most)
			continue;
		most = s->plan.arena_bytes;
		m->arena_lower_bound = s->plan.lower_bound;
		m->arena_unshared = s->plan.unshared_bytes;
	}
	for (uint32_t k = 0; k < p->buckets[0].schedule->arena_count; ++k) {
		most = 0;
		for (uint32_t i = 0; i < p->bucket_count; ++i) {
			const knit_schedule *const s = p->buckets[i].schedule;
			const uint64_t bytes = s->buffers[knit__schedule_arena(s, k)].bytes;
			most = bytes > most ? bytes : most;
		}
		m->arena_bytes += most;
	}
}

static double mib(uint64_t bytes) { return (double)bytes / (1024.0 * 1024.0); }

knit_status knit__program_measure(knit_program *p, uint64_t limit, knit_diag *d) {
	knit_memory *const m = &p->memory;
	uint64_t weights, sum = 0;

	*m = (knit_memory){0};
	bool ok = measure_buffers(p, m) && measure_uses(p, m);
	measure_arena(p, m);
	ok = ok && knit__add_u64(m->weight_bytes, m->adapter_bytes, &weights);
	ok = ok && knit__add_u64(weights, m->packed_bytes, &weights) && knit__add_u64(weights, m->state_bytes, &sum);
	ok = ok && knit__add_u64(sum, m->arena_bytes, &sum) && knit__add_u64(sum, m->io_bytes, &sum);
	if (!ok)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "the program needs more bytes than 64 bits can count");
	if (limit && sum > limit)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "the program needs %llu bytes, the limit is %llu: weights %.1f MiB, states "
		                                        "%.1f, arena %.1f, inputs and outputs %.1f; use fewer positions, smaller "
		                                        "buckets or a smaller model",
		                  (unsigned long long)sum, (unsigned long long)limit, mib(weights), mib(m->state_bytes),
		                  mib(m->arena_bytes), mib(m->io_bytes));
	return KNIT_OK;
}

knit_status knit_program_memory(const knit_program *p, knit_memory *out) {
	if (!p || !out)
		return KNIT_ERR_ARGUMENT;
	*out = p->memory;
	return KNIT_OK;
}

size_t knit_program_step_count(const knit_program *p, size_t bucket) {
	return p && bucket < p->bucket_count ? p->buckets[bucket].schedule->step_count : 0;
}

const char *knit_program_device(const knit_program *p) { return p ? p->device->id : ""; }

const char *knit__program_symbol(const knit_program *p, uint32_t symbol) {
	return knit__strings_get(&p->graph->strings, p->graph->exprs.symbols[symbol].name);
}
