/* Owns everything mutable of a running program: symbol values, inputs, outputs, states, the arena. Knows no op. After
 * knit_session_create nothing is allocated. */
#include "program.h"
#include "session_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* An input or an output. */
typedef struct session_port {
	const char *name;
	uint32_t value, buffer; /* buffer UINT32_MAX: no step reads this input */
	uint64_t max_bytes, written_bytes;
	int32_t *copy; /* of an input with index checks, for these; else NULL */
	bool written;
} session_port;

struct knit_session {
	knit_program *program; /* retained */
	knit_allocator a;
	knit_diag diag;
	session_port *inputs, *outputs;
	uint32_t *input_of; /* buffer -> input, UINT32_MAX: none */
	knit_buffer **buffers; /* one per buffer of the schedules; weights belong to the program */
	knit_plan **plans; /* one per bucket */
	uint64_t *keys; /* for pair checks */
	size_t key_count;
	int64_t symbols[KNIT_MAX_SYMBOLS], run_symbols[KNIT_MAX_SYMBOLS];
	uint32_t run_bucket;
	bool has_run;        /* the outputs are those of run_symbols */
	bool states_unknown; /* a run failed in the middle */
	bool dead;           /* the device is lost */
};

static const knit_schedule *schedule_of(const knit_session *s) { return s->program->buckets[0].schedule; }

/* ---- making ------------------------------------------------------------------------------------------------------ */

static uint32_t buffer_of(const knit_session *s, uint32_t value) {
	const knit_schedule *const schedule = schedule_of(s);
	const uint32_t storage = s->program->graph->values[value].storage;

	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		if (schedule->buffers[i].use == KNIT_BUFFER_IO && schedule->buffers[i].storage == storage)
			return i;
	}
	return UINT32_MAX;
}

static knit_status port_make(knit_session *s, const knit_port *from, session_port *to) {
	const knit_graph *const g = s->program->graph;

	to->name = knit__strings_get(&g->strings, from->name);
	to->value = from->value;
	to->buffer = buffer_of(s, from->value);
	if (to->buffer != UINT32_MAX)
		to->max_bytes = schedule_of(s)->buffers[to->buffer].bytes;
	else if (!knit__storage_max_bytes(g, NULL, g->values[from->value].storage, &to->max_bytes))
		return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "input \"%s\" is larger than memory", to->name);
	return KNIT_OK;
}

static knit_status ports_make(knit_session *s) {
	const knit_graph *const g = s->program->graph;
	const uint32_t buffers = schedule_of(s)->buffer_count;

	s->inputs = knit__alloc_array(&s->a, g->input_count, sizeof *s->inputs);
	s->outputs = knit__alloc_array(&s->a, g->output_count, sizeof *s->outputs);
	s->input_of = knit__alloc_array(&s->a, buffers, sizeof *s->input_of);
	if (!s->inputs || !s->outputs || !s->input_of)
		return knit__fail_memory(&s->diag, "the session", g->input_count * sizeof *s->inputs);
	memset(s->input_of, 0xff, buffers * sizeof *s->input_of);
	for (uint32_t i = 0; i < g->input_count; ++i) {
		const knit_status status = port_make(s, &g->inputs[i], &s->inputs[i]);
		if (status != KNIT_OK)
			return status;
		if (s->inputs[i].buffer != UINT32_MAX)
			s->input_of[s->inputs[i].buffer] = i;
	}
	for (uint32_t i = 0; i < g->output_count; ++i) {
		const knit_status status = port_make(s, &g->outputs[i], &s->outputs[i]);
		if (status != KNIT_OK)
			return status;
		if (s->outputs[i].buffer == UINT32_MAX)
			return knit__fail(&s->diag, KNIT_ERR_INTERNAL, 0, "output \"%s\" has no buffer", s->outputs[i].name);
	}
	return KNIT_OK;
}

static uint64_t bytes_wanted(const knit_program *p, uint32_t buffer) {
	/* The arena serves every bucket; the other buffers are the same in all. */
	return buffer == p->buckets[0].schedule->arena_buffer ? p->memory.arena_bytes
	                                                      : p->buckets[0].schedule->buffers[buffer].bytes;
}

static knit_status buffers_make(knit_session *s) {
	const knit_opened *const o = s->program->device;
	const knit_schedule *const schedule = schedule_of(s);

	s->buffers = knit__alloc_array(&s->a, schedule->buffer_count, sizeof(knit_buffer *));
	if (!s->buffers)
		return knit__fail_memory(&s->diag, "the session", schedule->buffer_count * sizeof(knit_buffer *));
	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		const knit_buffer_desc *const b = &schedule->buffers[i];
		if (b->use == KNIT_BUFFER_CONST) {
			s->buffers[i] = s->program->weights[i]->buffer;
			continue;
		}
		const uint64_t bytes = bytes_wanted(s->program, i);
		const knit_status status = o->backend->buffer_create(o->dev, b->use, bytes, &s->buffers[i]);
		if (status != KNIT_OK)
			return knit__fail(&s->diag, status, 0, "%s: \"%.60s\" needs %" PRIu64 " bytes: %s", o->id,
			                  b->use == KNIT_BUFFER_ARENA ? "arena" : b->name, bytes, knit_status_name(status));
	}
	return KNIT_OK;
}

/* A host copy of each input whose values are looked at before a run. */
static knit_status copy_make(knit_session *s, uint32_t buffer) {
	const uint32_t input = buffer < schedule_of(s)->buffer_count ? s->input_of[buffer] : UINT32_MAX;

	if (input == UINT32_MAX)
		return knit__fail(&s->diag, KNIT_ERR_INTERNAL, 0, "an index check names buffer %u, which is no input", buffer);
	session_port *const p = &s->inputs[input];
	if (!p->copy)
		p->copy = knit__alloc_zero(&s->a, (size_t)p->max_bytes);
	return p->copy ? KNIT_OK : knit__fail_memory(&s->diag, "the copy of an index input", p->max_bytes);
}

static knit_status checks_make(knit_session *s) {
	knit_status status = KNIT_OK;

	for (uint32_t b = 0; b < s->program->bucket_count; ++b) {
		const knit_schedule *const schedule = s->program->buckets[b].schedule;
		for (uint32_t i = 0; status == KNIT_OK && i < schedule->index_check_count; ++i)
			status = copy_make(s, schedule->index_checks[i].buffer);
		for (uint32_t i = 0; status == KNIT_OK && i < schedule->pair_check_count; ++i) {
			const knit_pair_check *const c = &schedule->pair_checks[i];
			status = copy_make(s, c->seq_buffer);
			if (status == KNIT_OK)
				status = copy_make(s, c->pos_buffer);
			if (status != KNIT_OK)
				break;
			const size_t count = (size_t)(s->inputs[s->input_of[c->seq_buffer]].max_bytes / sizeof(int32_t));
			s->key_count = count > s->key_count ? count : s->key_count;
		}
	}
	if (status != KNIT_OK)
		return status;
	s->keys = knit__alloc_array(&s->a, s->key_count, sizeof *s->keys);
	return s->keys ? KNIT_OK : knit__fail_memory(&s->diag, "the pair check", s->key_count * sizeof *s->keys);
}

static knit_status plans_make(knit_session *s) {
	const knit_opened *const o = s->program->device;

	s->plans = knit__alloc_array(&s->a, s->program->bucket_count, sizeof(knit_plan *));
	if (!s->plans)
		return knit__fail_memory(&s->diag, "the session", s->program->bucket_count * sizeof(knit_plan *));
	for (uint32_t i = 0; i < s->program->bucket_count; ++i) {
		const knit_status status =
			o->backend->plan_create(o->dev, s->program->buckets[i].schedule, s->buffers, &s->plans[i], &s->diag);
		if (status != KNIT_OK)
			return status;
	}
	return KNIT_OK;
}

void knit_session_destroy(knit_session *s) {
	if (!s)
		return;

	knit_program *const p = s->program;
	const knit_opened *const o = p->device;
	const knit_schedule *const schedule = schedule_of(s);
	const knit_allocator a = s->a;
	for (uint32_t i = 0; s->plans && i < p->bucket_count; ++i) {
		if (s->plans[i])
			o->backend->plan_destroy(o->dev, s->plans[i]);
	}
	for (uint32_t i = 0; s->buffers && i < schedule->buffer_count; ++i) {
		if (s->buffers[i] && schedule->buffers[i].use != KNIT_BUFFER_CONST)
			o->backend->buffer_destroy(o->dev, s->buffers[i]);
	}
	for (uint32_t i = 0; s->inputs && i < p->graph->input_count; ++i)
		knit__free(&a, s->inputs[i].copy, (size_t)s->inputs[i].max_bytes);
	knit__free(&a, s->plans, p->bucket_count * sizeof(knit_plan *));
	knit__free(&a, s->buffers, schedule->buffer_count * sizeof(knit_buffer *));
	knit__free(&a, s->keys, s->key_count * sizeof *s->keys);
	knit__free(&a, s->input_of, schedule->buffer_count * sizeof *s->input_of);
	knit__free(&a, s->inputs, p->graph->input_count * sizeof *s->inputs);
	knit__free(&a, s->outputs, p->graph->output_count * sizeof *s->outputs);
	knit__free(&a, s, sizeof *s);
	knit_program_release(p);
}

knit_status knit_session_create(knit_program *p, knit_session **out, knit_diag *diag) {
	if (diag)
		*diag = (knit_diag){0};
	if (out)
		*out = NULL;
	if (!p || !out)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "knit_session_create: %s is NULL", p ? "out" : "the program");

	knit_session *const s = knit__alloc_zero(&p->a, sizeof *s);
	if (!s)
		return knit__fail_memory(diag, "the session", sizeof *s);
	s->program = knit__program_retain(p);
	s->a = p->a;
	for (uint32_t i = 0; i < p->graph->exprs.symbol_count; ++i)
		s->symbols[i] = p->graph->exprs.symbols[i].lo;

	knit_status status = ports_make(s);
	if (status == KNIT_OK)
		status = buffers_make(s);
	if (status == KNIT_OK)
		status = checks_make(s);
	if (status == KNIT_OK)
		status = plans_make(s);
	if (status != KNIT_OK) {
		knit__fail(&s->diag, status, 0, "the session was not made: %s", knit_status_name(status));
		if (diag)
			*diag = s->diag;
		knit_session_destroy(s);
		return status;
	}
	*out = s;
	return KNIT_OK;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

void knit_session_diag(const knit_session *s, knit_diag *out) {
	if (s && out)
		*out = s->diag;
}

size_t knit__session_times(const knit_session *s, knit_step_time *out, size_t cap) {
	const knit_opened *const o = s->program->device;

	return s->has_run ? o->backend->plan_times(s->plans[s->run_bucket], out, cap) : 0;
}

/* Bytes of a port's tensor with these symbols; dims are within their planned bounds, so nothing overflows. */
static uint64_t port_bytes(const knit_session *s, const session_port *p, const int64_t *symbols) {
	const knit_graph *const g = s->program->graph;
	const knit_value *const v = &g->values[p->value];
	uint64_t elements = 1, bytes = 0;

	for (uint32_t i = 0; i < v->rank; ++i)
		elements *= (uint64_t)knit__dim_eval(&g->exprs, symbols, v->dims[i]);
	knit__dtype_bytes(v->dtype, elements, &bytes);
	return bytes;
}

static session_port *port_find(session_port *ports, uint32_t count, const char *name) {
	for (uint32_t i = 0; i < count; ++i) {
		if (strcmp(ports[i].name, name) == 0)
			return &ports[i];
	}
	return NULL;
}

static knit_status fail_port(knit_session *s, const char *what, const char *name, const session_port *ports,
                             uint32_t count) {
	char known[140] = "none";
	size_t used = 0;

	for (uint32_t i = 0; i < count && used < sizeof known; ++i)
		used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", ports[i].name);
	return knit__fail(&s->diag, KNIT_ERR_NOT_FOUND, 0, "no %s \"%.40s\"; the graph has: %s", what, name, known);
}

/* Every call starts with a clean diag; a dead session does nothing more. */
static knit_status begin(knit_session *s) {
	s->diag = (knit_diag){0};
	if (s->dead)
		return knit__fail(&s->diag, KNIT_ERR_DEVICE, 0, "the device was lost: destroy this session and make a new one");
	return KNIT_OK;
}

/* What the device answered. */
static knit_status device_result(knit_session *s, knit_status status, const char *what) {
	if (status == KNIT_ERR_DEVICE)
		s->dead = true;
	if (status == KNIT_OK)
		return status;
	return knit__fail(&s->diag, status, 0, "%s: %s failed: %s", s->program->device->id, what, knit_status_name(status));
}

/* ---- symbols and inputs ------------------------------------------------------------------------------------------ */

knit_status knit_session_set(knit_session *s, const char *symbol, int64_t value) {
	char known[140];

	if (!s)
		return KNIT_ERR_ARGUMENT;
	const knit_status status = begin(s);
	if (status != KNIT_OK)
		return status;
	if (!symbol)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_set: the symbol's name is NULL");

	const knit_graph *const g = s->program->graph;
	const uint32_t i = knit__graph_symbol_find(g, symbol);
	if (i == KNIT_NO_SYMBOL) {
		knit__graph_symbols_text(g, known, sizeof known);
		return knit__fail(&s->diag, KNIT_ERR_NOT_FOUND, 0, "no symbol \"%.40s\"; the graph has: %s", symbol, known);
	}
	const knit_symbol *const range = &g->exprs.symbols[i];
	if (value < range->lo || value > range->hi)
		return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "%.40s = %" PRId64 ": this program was made for %" PRId64
		                                               " to %" PRId64,
		                  symbol, value, range->lo, range->hi);
	s->symbols[i] = value;
	return KNIT_OK;
}

knit_status knit_session_write(knit_session *s, const char *input, const void *data, size_t bytes) {
	if (!s)
		return KNIT_ERR_ARGUMENT;
	knit_status status = begin(s);
	if (status != KNIT_OK)
		return status;
	if (!input || (!data && bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_write: the %s is NULL", input ? "data" : "name");

	session_port *const p = port_find(s->inputs, s->program->graph->input_count, input);
	if (!p)
		return fail_port(s, "input", input, s->inputs, s->program->graph->input_count);
	if (bytes > p->max_bytes)
		return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "input \"%.60s\": %zu bytes written, it has room for %" PRIu64,
		                  p->name, bytes, p->max_bytes);

	if (p->buffer != UINT32_MAX && bytes) {
		const knit_opened *const o = s->program->device;
		p->written = false; /* half a write is none */
		status = device_result(s, o->backend->buffer_write(o->dev, s->buffers[p->buffer], 0, data, bytes), "the upload");
		if (status != KNIT_OK)
			return status;
	}
	if (p->copy && bytes)
		memcpy(p->copy, data, bytes);
	p->written_bytes = bytes;
	p->written = true;
	return KNIT_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static knit_status fail_bucket(knit_session *s) {
	const knit_program *const p = s->program;
	const uint32_t symbol = p->bucket_symbol;
	char ranges[140] = "";
	size_t used = 0;

	for (uint32_t i = 0; i < p->bucket_count && used < sizeof ranges; ++i)
		used += (size_t)snprintf(ranges + used, sizeof ranges - used, "%s%" PRId64 " to %" PRId64, i ? ", " : "",
		                         p->buckets[i].bounds.lo[symbol], p->buckets[i].bounds.hi[symbol]);
	return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "%.40s = %" PRId64 ": the program was compiled for %s",
	                  knit__program_symbol(p, symbol), s->symbols[symbol], ranges);
}

static knit_status bucket_find(knit_session *s, uint32_t *out) {
	const knit_program *const p = s->program;

	*out = 0;
	if (p->bucket_symbol == KNIT_NO_SYMBOL)
		return KNIT_OK;
	const int64_t value = s->symbols[p->bucket_symbol];
	for (; *out < p->bucket_count; ++*out) {
		const knit_bounds *const b = &p->buckets[*out].bounds;
		if (value >= b->lo[p->bucket_symbol] && value <= b->hi[p->bucket_symbol])
			return KNIT_OK;
	}
	return fail_bucket(s);
}

static knit_status inputs_check(knit_session *s) {
	for (uint32_t i = 0; i < s->program->graph->input_count; ++i) {
		const session_port *const p = &s->inputs[i];
		const uint64_t wanted = port_bytes(s, p, s->symbols);
		if (!p->written)
			return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "input \"%.60s\" was never written: it needs %" PRIu64 " bytes",
			                  p->name, wanted);
		if (p->written_bytes != wanted)
			return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "input \"%.60s\" was written with %" PRIu64 " bytes and needs %"
			                                               PRIu64 " at the present symbols: write it again",
			                  p->name, p->written_bytes, wanted);
	}
	return KNIT_OK;
}

static knit_status indices_check(knit_session *s, const knit_schedule *schedule) {
	const knit_exprs *const e = &s->program->graph->exprs;
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < schedule->index_check_count; ++i) {
		const knit_index_check *const c = &schedule->index_checks[i];
		const session_port *const p = &s->inputs[s->input_of[c->buffer]];
		status = knit__check_indices(p->copy, (size_t)(p->written_bytes / sizeof(int32_t)),
		                             knit__dim_eval(e, s->symbols, c->bound), p->name, c->op, c->origin, &s->diag);
	}
	for (uint32_t i = 0; status == KNIT_OK && i < schedule->pair_check_count; ++i) {
		const knit_pair_check *const c = &schedule->pair_checks[i];
		const session_port *const seq = &s->inputs[s->input_of[c->seq_buffer]];
		const session_port *const pos = &s->inputs[s->input_of[c->pos_buffer]];
		const uint64_t bytes = seq->written_bytes < pos->written_bytes ? seq->written_bytes : pos->written_bytes;
		status = knit__check_pairs(seq->copy, pos->copy, (size_t)(bytes / sizeof(int32_t)), s->keys, c->state, &s->diag);
	}
	return status;
}

knit_status knit_session_run(knit_session *s) {
	uint32_t bucket;

	if (!s)
		return KNIT_ERR_ARGUMENT;
	knit_status status = begin(s);
	if (status != KNIT_OK)
		return status;
	if (s->states_unknown)
		return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "an earlier run failed in the middle and left the states unknown: "
		                                               "call knit_session_reset_states");
	status = bucket_find(s, &bucket);
	if (status == KNIT_OK)
		status = inputs_check(s);
	if (status == KNIT_OK)
		status = indices_check(s, s->program->buckets[bucket].schedule);
	if (status != KNIT_OK)
		return status;

	/* From here on the states may change. */
	const knit_backend *const b = s->program->device->backend;
	s->has_run = false;
	s->states_unknown = true;
	status = device_result(s, b->plan_submit(s->plans[bucket], s->symbols), "the run");
	if (status == KNIT_OK)
		status = device_result(s, b->plan_wait(s->plans[bucket], UINT64_MAX), "the run");
	if (status != KNIT_OK)
		return status;
	memcpy(s->run_symbols, s->symbols, sizeof s->symbols);
	s->run_bucket = bucket;
	s->states_unknown = false;
	s->has_run = true;
	return KNIT_OK;
}

knit_status knit_session_read(knit_session *s, const char *output, void *data, size_t bytes) {
	if (!s)
		return KNIT_ERR_ARGUMENT;
	const knit_status status = begin(s);
	if (status != KNIT_OK)
		return status;
	if (!output || (!data && bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_read: the %s is NULL", output ? "data" : "name");

	const session_port *const p = port_find(s->outputs, s->program->graph->output_count, output);
	if (!p)
		return fail_port(s, "output", output, s->outputs, s->program->graph->output_count);
	if (!s->has_run)
		return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "output \"%.60s\": no run has succeeded yet, or the last one failed: "
		                                               "call knit_session_run",
		                  p->name);
	const uint64_t wanted = port_bytes(s, p, s->run_symbols);
	if (bytes != wanted)
		return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "output \"%.60s\" has %" PRIu64 " bytes after the last run, %zu were "
		                                               "asked for",
		                  p->name, wanted, bytes);
	if (bytes == 0)
		return KNIT_OK;
	const knit_opened *const o = s->program->device;
	return device_result(s, o->backend->buffer_read(o->dev, s->buffers[p->buffer], 0, data, bytes), "the read");
}

knit_status knit_session_reset_states(knit_session *s) {
	if (!s)
		return KNIT_ERR_ARGUMENT;
	knit_status status = begin(s);
	if (status != KNIT_OK)
		return status;

	const knit_opened *const o = s->program->device;
	const knit_schedule *const schedule = schedule_of(s);
	s->states_unknown = true;
	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		if (schedule->buffers[i].use != KNIT_BUFFER_STATE)
			continue;
		status = device_result(s, o->backend->buffer_clear(o->dev, s->buffers[i]), "clearing a state");
		if (status != KNIT_OK)
			return status;
	}
	s->states_unknown = false;
	return KNIT_OK;
}
