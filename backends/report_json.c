/* Writes the report of a program piece by piece, so that it takes little memory however many steps there are. Its schema
 * is described in frontends/README.md. */
#include "report.h"
#include "report_split.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KNIT_REPORT_MAX_PROMPT (INT64_C(1) << 17)

typedef struct emitter {
	void (*write)(void *user, const char *text, size_t bytes);
	void *user;
	bool failed; /* an allocation failed: what was written is no JSON */
} emitter;

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static void raw(emitter *e, const char *text) { e->write(e->user, text, strlen(text)); }

static void add(emitter *e, cJSON *object, const char *name, cJSON *item) {
	if (item && object && cJSON_AddItemToObject(object, name, item))
		return;
	cJSON_Delete(item);
	e->failed = true;
}

static void add_text(emitter *e, cJSON *object, const char *name, const char *text) {
	add(e, object, name, cJSON_CreateString(text));
}

/* Exact, where a double would round. */
static void add_u64(emitter *e, cJSON *object, const char *name, uint64_t n) {
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, n);
	add(e, object, name, cJSON_CreateRaw(text));
}

/* A cost is a whole number, but may be larger than 64 bits hold. */
static void add_flops(emitter *e, cJSON *object, double flops) {
	char text[40];

	snprintf(text, sizeof text, "%.0f", flops);
	add(e, object, "flops", cJSON_CreateRaw(text));
}

/* Writes and deletes the item, after a comma unless it is the first. */
static void emit(emitter *e, cJSON *item, bool *first) {
	char *text = item && !e->failed ? cJSON_PrintUnformatted(item) : NULL;

	cJSON_Delete(item);
	if (!text) {
		e->failed = true;
		return;
	}
	if (!*first)
		raw(e, ",");
	*first = false;
	raw(e, text);
	cJSON_free(text);
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static void emit_memory(emitter *e, const knit_memory *m) {
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"weight_bytes", m->weight_bytes},
		{"weight_bytes_by_use", m->weight_bytes_by_use},
		{"weight_storages", m->weight_storages},
		{"weight_uses", m->weight_uses},
		{"adapter_bytes", m->adapter_bytes},
		{"packed_bytes", m->packed_bytes},
		{"packed_storages", m->packed_storages},
		{"padding_bytes", m->padding_bytes},
		{"state_bytes", m->state_bytes},
		{"arena_bytes", m->arena_bytes},
		{"arena_lower_bound", m->arena_lower_bound},
		{"arena_unshared", m->arena_unshared},
		{"io_bytes", m->io_bytes},
	};
	cJSON *object = cJSON_CreateObject();
	bool first = true;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
		add_u64(e, object, rows[i].name, rows[i].value);
	raw(e, ",\"memory\":");
	emit(e, object, &first);
}

static void emit_symbols(emitter *e, const knit_program *p) {
	bool first = true;

	raw(e, ",\"symbols\":[");
	for (uint32_t i = 0; i < p->graph->exprs.symbol_count; ++i) {
		const knit_symbol *s = &p->graph->exprs.symbols[i];
		cJSON *object = cJSON_CreateObject();
		add_text(e, object, "name", knit__program_symbol(p, i));
		add_u64(e, object, "lo", (uint64_t)s->lo);
		add_u64(e, object, "hi", (uint64_t)s->hi);
		emit(e, object, &first);
	}
	raw(e, "]");
}

static const char *kind_name(knit_storage_kind kind) {
	static const char *const names[] = {[KNIT_STORAGE_CONST] = "weight", [KNIT_STORAGE_ADAPTER] = "adapter",
	                                    [KNIT_STORAGE_TEMP] = "temporary", [KNIT_STORAGE_INPUT] = "input",
	                                    [KNIT_STORAGE_OUTPUT] = "output", [KNIT_STORAGE_STATE] = "state"};

	return (size_t)kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "?";
}

/* How many operands of steps name the buffer. */
static uint32_t count_uses(const knit_schedule *s, uint32_t buffer) {
	uint32_t uses = 0;

	for (uint32_t i = 0; i < s->step_count; ++i)
		for (uint32_t k = 0; k < s->steps[i].in_count; ++k)
			uses += s->steps[i].in[k].buffer == buffer;
	return uses;
}

/* The first buffer with the same host bytes, where dedup_weights was switched off; otherwise itself. */
static uint32_t same_bytes(const knit_schedule *s, uint32_t buffer) {
	const knit_buffer_desc *const b = &s->buffers[buffer];

	for (uint32_t i = 0; b->host && i < buffer; ++i)
		if (s->buffers[i].host == b->host && s->buffers[i].bytes == b->bytes)
			return i;
	return buffer;
}

/* What is in a buffer of its own: weights, adapters, states, inputs, outputs. */
static void emit_storages(emitter *e, const knit_program *p) {
	const knit_schedule *s = p->buckets[0].schedule;
	bool first = true;

	raw(e, ",\"storages\":[");
	for (uint32_t i = 0; i < s->buffer_count && !e->failed; ++i) {
		const knit_buffer_desc *b = &s->buffers[i];
		if (b->use == KNIT_BUFFER_ARENA)
			continue;
		const knit_storage *storage = &p->graph->storages[b->storage];
		char type[160];
		cJSON *object = cJSON_CreateObject();
		knit__value_text(p->graph, storage->value, type, sizeof type);
		add_u64(e, object, "id", b->storage);
		add_text(e, object, "kind", kind_name(b->kind));
		add_text(e, object, "name", b->name ? b->name : "");
		add_text(e, object, "type", type);
		add_u64(e, object, "bytes", b->bytes);
		if (b->layout) {
			add_u64(e, object, "layout", b->layout);
			add_u64(e, object, "padding_bytes", b->packed_bytes - b->bytes);
		}
		if (b->use == KNIT_BUFFER_CONST)
			add_u64(e, object, "packed_bytes", knit__program_packed_bytes(p, i));
		add_u64(e, object, "uses", count_uses(s, i));
		if (same_bytes(s, i) != i)
			add_u64(e, object, "same_bytes_as", s->buffers[same_bytes(s, i)].storage);
		emit(e, object, &first);
	}
	raw(e, "]");
}

/* ---- one bucket -------------------------------------------------------------------------------------------------- */

static cJSON *operand_ids(emitter *e, const knit_graph *g, const knit_operand *operands, uint32_t count) {
	cJSON *array = cJSON_CreateArray();

	for (uint32_t i = 0; i < count; ++i) {
		const uint32_t storage = operands[i].buffer == UINT32_MAX ? 0 : g->values[operands[i].value].storage;
		cJSON *item = cJSON_CreateNumber(storage);
		if (!array || !item || !cJSON_AddItemToArray(array, item)) {
			cJSON_Delete(item);
			e->failed = true;
		}
	}
	return array;
}

static void emit_steps(emitter *e, const knit_schedule *s, const int64_t *symbols, int64_t context) {
	bool first = true;

	raw(e, ",\"steps\":[");
	for (uint32_t i = 0; i < s->step_count && !e->failed; ++i) {
		const knit_step *step = &s->steps[i];
		cJSON *object = cJSON_CreateObject();
		knit_step_cost cost;
		knit__step_cost(s, symbols, context, step, &cost);
		add_text(e, object, "op", knit__op(step->op)->name);
		add_text(e, object, "origin", step->origin ? step->origin : "");
		if (step->parts && *step->parts)
			add_text(e, object, "parts", step->parts);
		add(e, object, "in", operand_ids(e, s->graph, step->in, step->in_count));
		add(e, object, "out", operand_ids(e, s->graph, step->out, step->out_count));
		add_flops(e, object, cost.flops);
		add_u64(e, object, "read_bytes", cost.read);
		add_u64(e, object, "write_bytes", cost.write);
		add_u64(e, object, "weight_bytes", cost.weights);
		emit(e, object, &first);
	}
	raw(e, "]");
}

/* When a storage in the arena is first and last touched, and by which operand. */
typedef struct life {
	uint32_t first, last;
	const knit_operand *operand; /* NULL: not in the arena */
	uint32_t writer;             /* step */
} life;

static void live_through(const knit_schedule *s, uint32_t step, const knit_operand *operands, uint32_t count, bool write,
                         life *lives) {
	for (uint32_t k = 0; k < count; ++k) {
		const knit_operand *o = &operands[k];
		if (o->buffer >= s->buffer_count || s->buffers[o->buffer].use != KNIT_BUFFER_ARENA)
			continue;
		life *l = &lives[s->graph->values[o->value].storage];
		if (!l->operand) {
			l->operand = o;
			l->first = step;
		}
		l->last = step;
		if (write)
			l->writer = step;
	}
}

static void emit_block(emitter *e, const knit_schedule *s, uint32_t storage, const life *l, bool *first) {
	cJSON *object = cJSON_CreateObject();
	uint64_t bytes = 0;
	char type[160];

	(void)knit__storage_max_bytes(s->graph, &s->bounds, storage, &bytes);
	knit__value_text(s->graph, s->graph->storages[storage].value, type, sizeof type);
	add_u64(e, object, "storage", storage);
	add_u64(e, object, "arena", l->operand->buffer);
	add_text(e, object, "name", s->steps[l->writer].origin ? s->steps[l->writer].origin : "");
	add_text(e, object, "type", type);
	add_u64(e, object, "offset", l->operand->base);
	add_u64(e, object, "bytes", bytes);
	add_u64(e, object, "first", l->first);
	add_u64(e, object, "last", l->last);
	emit(e, object, first);
}

static void emit_scratch(emitter *e, const knit_schedule *s, uint32_t step, bool *first) {
	cJSON *object = cJSON_CreateObject();

	add_u64(e, object, "storage", 0);
	add_u64(e, object, "arena", s->steps[step].scratch_buffer);
	add_text(e, object, "name", s->steps[step].origin ? s->steps[step].origin : "");
	add_text(e, object, "type", "scratch");
	add_u64(e, object, "offset", s->steps[step].scratch_base);
	add_u64(e, object, "bytes", s->steps[step].scratch_bytes);
	add_u64(e, object, "first", step);
	add_u64(e, object, "last", step);
	emit(e, object, first);
}

static void emit_blocks(emitter *e, const knit_schedule *s) {
	const size_t bytes = s->graph->storage_count * sizeof(life);
	life *lives = knit__alloc_array(s->a, s->graph->storage_count, sizeof *lives);
	bool first = true;

	if (!lives) {
		e->failed = true;
		return;
	}
	for (uint32_t i = 0; i < s->step_count; ++i) {
		live_through(s, i, s->steps[i].in, s->steps[i].in_count, false, lives);
		live_through(s, i, s->steps[i].out, s->steps[i].out_count, true, lives);
	}
	raw(e, ",\"blocks\":[");
	for (uint32_t i = 0; i < s->graph->storage_count && !e->failed; ++i)
		if (lives[i].operand)
			emit_block(e, s, i, &lives[i], &first);
	for (uint32_t i = 0; i < s->step_count && !e->failed; ++i)
		if (s->steps[i].scratch_bytes)
			emit_scratch(e, s, i, &first);
	raw(e, "]");
	knit__free(s->a, lives, bytes);
}

static void emit_arenas(emitter *e, const knit_schedule *s) {
	bool first = true;

	raw(e, "\"arenas\":[");
	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (s->buffers[i].use == KNIT_BUFFER_ARENA && (i == s->arena_buffer || s->buffers[i].bytes)) {
			cJSON *object = cJSON_CreateObject();
			add_u64(e, object, "id", i);
			add_u64(e, object, "bytes", s->buffers[i].bytes);
			emit(e, object, &first);
		}
	raw(e, "]");
}

static void emit_bucket(emitter *e, const knit_program *p, uint32_t bucket, int64_t context) {
	const knit_schedule *s = p->buckets[bucket].schedule;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	cJSON *object = cJSON_CreateObject();
	bool first = true;

	/* At the bucket's own upper bound, the other symbols at their least: one row of results is the usual case. */
	memcpy(symbols, s->bounds.lo, sizeof symbols);
	if (p->bucket_symbol != KNIT_NO_SYMBOL) {
		symbols[p->bucket_symbol] = s->bounds.hi[p->bucket_symbol];
		add_text(e, object, "symbol", knit__program_symbol(p, p->bucket_symbol));
		add_u64(e, object, "lo", (uint64_t)s->bounds.lo[p->bucket_symbol]);
		add_u64(e, object, "hi", (uint64_t)s->bounds.hi[p->bucket_symbol]);
	}
	add_u64(e, object, "context", (uint64_t)context);
	add_u64(e, object, "arena_bytes", s->plan.arena_bytes);
	add_u64(e, object, "arena_lower_bound", s->plan.lower_bound);
	add_u64(e, object, "arena_unshared", s->plan.unshared_bytes);
	add_u64(e, object, "arena_in_order", s->plan.in_order_bytes);
	add_u64(e, object, "in_place", s->plan.inplace_count);
	add_u64(e, object, "hazards", s->hazard_count);
	raw(e, "{\"about\":");
	emit(e, object, &first);
	raw(e, ",");
	emit_arenas(e, s);
	emit_steps(e, s, symbols, context);
	emit_blocks(e, s);
	raw(e, "}");
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static void emit_run(emitter *e, const char *name, const knit_run_cost *c, int64_t context, int64_t prompt) {
	cJSON *object = cJSON_CreateObject();
	bool first = true;

	if (prompt)
		add_u64(e, object, "prompt", (uint64_t)prompt);
	else
		add_u64(e, object, "context", (uint64_t)context);
	add_u64(e, object, "runs", c->runs);
	add_flops(e, object, c->sum.flops);
	add_u64(e, object, "read_bytes", c->sum.read);
	add_u64(e, object, "write_bytes", c->sum.write);
	add_u64(e, object, "weight_bytes_read", c->sum.weights);
	add_u64(e, object, "weight_bytes_unique", knit__run_cost_unique(c));
	add_u64(e, object, "state_bytes_read", c->sum.state_read);
	add_u64(e, object, "state_bytes_written", c->sum.state_write);
	raw(e, ",\"");
	raw(e, name);
	raw(e, "\":");
	emit(e, object, &first);
}

static void emit_decode(emitter *e, const knit_program *p, int64_t context) {
	const uint32_t bucket = knit__program_smallest_bucket(p);
	knit_run_cost cost;

	if (!knit__run_cost_init(&cost, p)) {
		e->failed = true;
		return;
	}
	knit__run_cost_add(&cost, p, bucket, p->buckets[bucket].bounds.lo, context);
	emit_run(e, "decode", &cost, context, 0);
	knit__run_cost_clear(&cost);
}

/* The bucket that a run of n takes. */
static uint32_t bucket_of(const knit_program *p, int64_t n) {
	for (uint32_t i = 0; i < p->bucket_count; ++i)
		if (n >= p->buckets[i].bounds.lo[p->bucket_symbol] && n <= p->buckets[i].bounds.hi[p->bucket_symbol])
			return i;
	return knit__program_largest_bucket(p);
}

/* A prompt in runs of the largest bucket, the rest in a smaller one. */
static void emit_prefill(emitter *e, const knit_program *p, int64_t prompt) {
	const knit_bounds *const bounds = &p->buckets[knit__program_largest_bucket(p)].bounds;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	knit_run_cost cost;

	if (p->bucket_symbol == KNIT_NO_SYMBOL)
		return;
	if (!knit__run_cost_init(&cost, p)) {
		e->failed = true;
		return;
	}
	memcpy(symbols, bounds->lo, sizeof symbols);
	const int64_t batch = bounds->hi[p->bucket_symbol];
	prompt = prompt ? prompt : batch;
	for (int64_t done = 0; done < prompt;) {
		const int64_t n = prompt - done < batch ? prompt - done : batch;
		symbols[p->bucket_symbol] = n;
		/* A token sees those before it and itself: (n + 1) / 2 more than `done` on average. */
		knit__run_cost_add(&cost, p, bucket_of(p, n), symbols, done + (n + 1) / 2);
		done += n;
	}
	emit_run(e, "prefill", &cost, 0, prompt);
	knit__run_cost_clear(&cost);
}

static void emit_split(emitter *e, const knit_program *p) {
	bool first = true;

	raw(e, ",\"split\":");
	emit(e, knit__report_split(p), &first);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

knit_status knit_program_report(const knit_program *p, const knit_report_desc *desc,
                                void (*write)(void *user, const char *text, size_t bytes), void *user) {
	const knit_report_desc none = {0};
	emitter e = {write, user, false};

	if (!p || !write)
		return KNIT_ERR_ARGUMENT;
	if (!desc)
		desc = &none;
	if (desc->context < 0 || desc->prompt < 0 || desc->prompt > KNIT_REPORT_MAX_PROMPT)
		return KNIT_ERR_ARGUMENT;
	const int64_t cells = knit__program_cells(p), context = desc->context ? desc->context : cells ? cells : 1;
	cJSON *device = cJSON_CreateString(p->device->id);
	bool first = true;

	raw(&e, "{\"schema\":\"knit.report/1\",\"device\":");
	emit(&e, device, &first);
	emit_symbols(&e, p);
	emit_memory(&e, &p->memory);
	emit_decode(&e, p, context);
	emit_prefill(&e, p, desc->prompt);
	emit_storages(&e, p);
	if (p->device->far)
		emit_split(&e, p);
	raw(&e, ",\"buckets\":[");
	for (uint32_t i = 0; i < p->bucket_count && !e.failed; ++i) {
		if (i)
			raw(&e, ",");
		emit_bucket(&e, p, i, context);
	}
	raw(&e, "]}");
	return e.failed ? KNIT_ERR_MEMORY : KNIT_OK;
}
