/* Owns the making of a program: a copy of the graph is optimised for a device, scheduled once per bucket, and its
 * weights get buffers. Knows no op and no backend by name. */
#include "../graph/pass.h"
#include "../graph/weights.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t knit__graph_symbol_find(const knit_graph *g, const char *name) {
	for (uint32_t i = 0; i < g->exprs.symbol_count; ++i) {
		if (strcmp(knit__strings_get(&g->strings, g->exprs.symbols[i].name), name) == 0)
			return i;
	}
	return KNIT_NO_SYMBOL;
}

void knit__graph_symbols_text(const knit_graph *g, char *out, size_t size) {
	size_t used = 0;

	snprintf(out, size, "none");
	for (uint32_t i = 0; i < g->exprs.symbol_count && used < size; ++i)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "",
		                         knit__strings_get(&g->strings, g->exprs.symbols[i].name));
}

/* ---- buckets ----------------------------------------------------------------------------------------------------- */

static knit_status bucket_check(const knit_graph *g, const knit_compile_desc *desc, size_t at, uint32_t *symbol,
                                knit_diag *d) {
	const knit_bucket *const b = &desc->buckets[at];
	char known[120];

	if (!b->symbol)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "bucket %zu names no symbol", at);
	if (strcmp(b->symbol, desc->buckets[0].symbol) != 0)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "bucket %zu is on \"%.40s\", bucket 0 on \"%.40s\": use one symbol", at,
		                  b->symbol, desc->buckets[0].symbol);
	*symbol = knit__graph_symbol_find(g, b->symbol);
	if (*symbol == KNIT_NO_SYMBOL) {
		knit__graph_symbols_text(g, known, sizeof known);
		return knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "bucket %zu: no symbol \"%.40s\"; the graph has: %s", at, b->symbol,
		                  known);
	}
	const knit_symbol *const s = &g->exprs.symbols[*symbol];
	if (b->lo > b->hi || b->lo < s->lo || b->hi > s->hi)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "bucket %zu: %.40s = %lld to %lld does not lie in the symbol's range, "
		                                           "%lld to %lld",
		                  at, b->symbol, (long long)b->lo, (long long)b->hi, (long long)s->lo, (long long)s->hi);
	for (size_t i = 0; i < at; ++i) {
		const knit_bucket *const other = &desc->buckets[i];
		if (b->lo <= other->hi && other->lo <= b->hi)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "buckets %zu (%lld to %lld) and %zu (%lld to %lld) overlap", i,
			                  (long long)other->lo, (long long)other->hi, at, (long long)b->lo, (long long)b->hi);
	}
	return KNIT_OK;
}

static knit_status buckets_make(knit_program *p, const knit_compile_desc *desc, knit_diag *d) {
	const size_t count = desc->bucket_count;

	if (count && !desc->buckets)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "bucket_count is %zu and buckets is NULL", count);
	if (count > KNIT_MAX_BUCKETS)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "%zu buckets: at most %d", count, KNIT_MAX_BUCKETS);

	p->bucket_symbol = KNIT_NO_SYMBOL;
	p->bucket_count = count ? (uint32_t)count : 1;
	p->buckets = knit__alloc_array(&p->a, p->bucket_count, sizeof *p->buckets);
	if (!p->buckets)
		return knit__fail_memory(d, "the buckets", p->bucket_count * sizeof *p->buckets);
	knit__bounds_declared(&p->graph->exprs, &p->buckets[0].bounds);
	for (size_t i = 0; i < count; ++i) {
		const knit_status status = bucket_check(p->graph, desc, i, &p->bucket_symbol, d);
		if (status != KNIT_OK)
			return status;
		knit__bounds_declared(&p->graph->exprs, &p->buckets[i].bounds);
		p->buckets[i].bounds.lo[p->bucket_symbol] = desc->buckets[i].lo;
		p->buckets[i].bounds.hi[p->bucket_symbol] = desc->buckets[i].hi;
	}
	return KNIT_OK;
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static bool check_wanted(void) {
#ifdef NDEBUG
	const char *const text = getenv("KNIT_CHECK");

	return text && *text && strcmp(text, "0") != 0;
#else
	return true;
#endif
}

/* A session has one set of buffers for all buckets, so all but the arenas must agree. */
static bool same_buffers(const knit_schedule *a, const knit_schedule *b) {
	if (a->buffer_count != b->buffer_count || a->arena_buffer != b->arena_buffer)
		return false;
	for (uint32_t i = 0; i < a->buffer_count; ++i) {
		const knit_buffer_desc *const x = &a->buffers[i], *const y = &b->buffers[i];
		if (x->use != y->use || x->storage != y->storage || x->layout != y->layout ||
		    (x->use != KNIT_BUFFER_ARENA && x->bytes != y->bytes))
			return false;
	}
	return true;
}

static knit_status schedules_make(knit_program *p, knit_diag *d) {
	uint32_t arenas = 1;

	for (uint32_t i = 0; i < p->bucket_count; ++i) {
		knit_schedule **const s = &p->buckets[i].schedule;
		const knit_status status = knit__schedule_create(p->graph, &p->buckets[i].bounds, &p->device->target, s, d);
		if (status != KNIT_OK)
			return status;
		arenas = (*s)->arena_count > arenas ? (*s)->arena_count : arenas;
	}
	for (uint32_t i = 0; i < p->bucket_count; ++i) {
		knit_program_bucket *const b = &p->buckets[i];
		knit_status status = knit__schedule_add_arenas(b->schedule, arenas, d);
		if (status == KNIT_OK && check_wanted())
			status = knit__memory_check(b->schedule, &p->a, d);
		if (status == KNIT_OK && !same_buffers(p->buckets[0].schedule, b->schedule))
			status = knit__fail(d, KNIT_ERR_INTERNAL, 0, "buckets 0 and %u number their buffers differently", i);
		if (status != KNIT_OK)
			return status;
	}
	return KNIT_OK;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* What gives the host's bytes of a weight back to the system once they are copied or packed; NULL where another use reads
 * them. */
static void (*forgets(const knit_program *p, uint32_t buffer))(const void *data, uint64_t bytes) {
	const knit_buffer_desc *const b = &p->buckets[0].schedule->buffers[buffer];
	const knit_weights *const store = knit__program_mapped(p, buffer);

	return store && !knit__weight_read_in_place(p->device, b->host, b->bytes) ? store->forget : NULL;
}

static void forget(const knit_program *p, uint32_t buffer) {
	const knit_buffer_desc *const b = &p->buckets[0].schedule->buffers[buffer];
	void (*const done)(const void *data, uint64_t bytes) = p->weights[buffer]->copied ? forgets(p, buffer) : NULL;

	if (done)
		done(b->host, b->bytes);
}

void knit__program_forget(const knit_program *p) {
	for (uint32_t i = 0; i < p->buffer_count; ++i)
		if (p->weights[i])
			forget(p, i);
}

/* Copying large weights to a device takes a while: every quarter of a gigabyte is told of. */
static void log_progress(knit_program *p, uint64_t before, uint64_t done) {
	const uint64_t step = UINT64_C(1) << 28;

	if (before / step != done / step)
		knit__log(p->ctx, KNIT_LOG_INFO, "%s: %llu of %llu MiB of weights copied", p->device->id,
		          (unsigned long long)(done >> 20),
		          (unsigned long long)((p->memory.weight_bytes + p->memory.adapter_bytes) >> 20));
}

/* So many bytes of weights may be there twice, beside a part of one that is being packed: giving back stops other threads. */
#define FORGET_BYTES (UINT64_C(1) << 22)

static knit_status weights_make(knit_program *p, knit_diag *d) {
	const knit_schedule *const s = p->buckets[0].schedule;
	uint64_t copied = 0, forgotten = 0;
	uint32_t first = 0;

	p->weights = knit__alloc_array(&p->a, s->buffer_count, sizeof *p->weights);
	if (!p->weights)
		return knit__fail_memory(d, "the list of weights", s->buffer_count * sizeof *p->weights);
	p->buffer_count = s->buffer_count;
	for (uint32_t i = 0; i < s->buffer_count; ++i) {
		const knit_buffer_desc *const b = &s->buffers[i];
		if (b->use != KNIT_BUFFER_CONST || b->slots)
			continue;
		if (!b->host)
			knit__log(p->ctx, KNIT_LOG_WARNING, "weight \"%s\" has no bytes (a graph read from text): zeros stand in",
			          b->name ? b->name : "");
		knit_diag why = {0};
		const knit_status status = knit__weight_acquire_buffer(p->device, b, forgets(p, i), &p->weights[i], &why);
		if (status == KNIT_ERR_MEMORY)
			return knit__fail(d, status, 0, "%.150s; all weights are %llu bytes%s", why.text,
			                  (unsigned long long)(p->memory.weight_bytes + p->memory.adapter_bytes),
			                  knit__device_split_hint(p->device));
		if (status != KNIT_OK)
			return knit__fail(d, status, why.node, "%s", why.text);
		if (p->weights[i]->copied) {
			log_progress(p, copied, copied + b->bytes);
			copied += b->bytes;
		}
		if (copied - forgotten < FORGET_BYTES)
			continue;
		for (; first <= i; ++first)
			if (p->weights[first])
				forget(p, first);
		forgotten = copied;
	}
	knit__program_forget(p); /* the system reads around what is touched */
	return KNIT_OK;
}

/* ---- program ----------------------------------------------------------------------------------------------------- */

static void program_free(knit_program *p) {
	knit_context *const ctx = p->ctx;
	const knit_allocator a = p->a;

	/* Weight buffers go before the stores whose bytes they may be. */
	for (uint32_t i = 0; i < p->buffer_count; ++i)
		knit__weight_release(p->device, p->weights[i]);
	knit__free(&a, p->weights, (size_t)p->buffer_count * sizeof *p->weights);
	for (uint32_t i = 0; p->buckets && i < p->bucket_count; ++i)
		knit__schedule_destroy(p->buckets[i].schedule);
	knit__free(&a, p->buckets, (size_t)p->bucket_count * sizeof *p->buckets);
	knit__identity_clear(&p->identity, &a);
	knit_graph_destroy(p->graph);
	knit__device_leave(p->device);
	knit__free(&a, p, sizeof *p);
	knit__context_release(ctx);
}

knit_program *knit__program_retain(knit_program *p) {
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void knit_program_release(knit_program *p) {
	if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
		program_free(p);
}

static bool writes_state(const knit_graph *g) {
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_op_def *const def = knit__op(g->nodes[g->order[i]].op);
		if (def && def->state_outputs)
			return true;
	}
	return false;
}

/* For a device that chooses with all buckets in view. */
static knit_status settle(knit_program *p, knit_diag *d) {
	const knit_opened *const o = p->device;
	knit_schedule *s[KNIT_MAX_BUCKETS];

	if (!o->backend->settle)
		return KNIT_OK;
	for (uint32_t i = 0; i < p->bucket_count; ++i)
		s[i] = p->buckets[i].schedule;
	return o->backend->settle(o->dev, s, p->bucket_count, d);
}

static knit_status program_build(knit_program *p, const knit_graph *g, const knit_compile_desc *desc, knit_diag *d) {
	knit_status status = knit__graph_clone(g, &p->graph, d);

	if (status == KNIT_OK)
		status = knit__identity_make(p->graph, &p->identity, d);
	if (status == KNIT_OK)
		status = buckets_make(p, desc, d);
	if (status == KNIT_OK)
		status = knit__passes_run(p->graph, &p->device->target, desc->disable_passes, d);
	if (status == KNIT_OK)
		status = schedules_make(p, d);
	if (status == KNIT_OK)
		status = settle(p, d);
	if (status == KNIT_OK)
		status = knit__program_measure(p, desc->memory_limit, d);
	p->plan_only = desc->plan_only;
	if (status == KNIT_OK && !p->plan_only)
		status = weights_make(p, d);
	return status;
}

knit_status knit__compile_on(const knit_graph *g, const knit_compile_desc *desc, knit_opened *device,
                             knit_program **out, knit_diag *d) {
	*out = NULL;
	if (g->diag.status != KNIT_OK) {
		if (d)
			*d = g->diag;
		return g->diag.status;
	}
	if (g->output_count == 0 && !writes_state(g))
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "the graph has nothing to compute: name a result with knit_output");

	knit_program *const p = knit__alloc_zero(g->a, sizeof *p);
	if (!p)
		return knit__fail_memory(d, "the program", sizeof *p);
	atomic_init(&p->refs, 1);
	p->ctx = knit__context_retain(g->ctx);
	p->a = g->ctx->a;
	p->device = device;
	knit__device_use(device);

	const knit_status status = program_build(p, g, desc, d);
	if (status != KNIT_OK) {
		program_free(p);
		/* Whatever failed without words. */
		return knit__fail(d, status, 0, "compile for %s: %s", device->id, knit_status_name(status));
	}
	*out = p;
	return KNIT_OK;
}

knit_status knit_compile(const knit_graph *g, const knit_compile_desc *desc, knit_program **out, knit_diag *diag) {
	const knit_compile_desc none = {0};
	knit_opened *device = NULL;
	knit_diag d = {0};

	if (out)
		*out = NULL;
	if (!g || !out)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "knit_compile: %s is NULL", g ? "out" : "the graph");
	if (!desc)
		desc = &none;

	/* The graph's own error first: it is what the caller must mend, whatever the device says. */
	knit_status status = g->diag.status;
	if (status == KNIT_OK)
		status = knit__device_open_within(g->ctx, desc->device, desc->device_memory, &device, &d);
	else
		d = g->diag;
	if (status == KNIT_OK)
		status = knit__compile_on(g, desc, device, out, &d);
	if (diag)
		*diag = d;
	return status;
}
